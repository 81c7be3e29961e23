//! One round of a collection: reads what is due, publishes it, and notes the progress.

use crate::around::Surroundings;
use crate::batch::{Delivery, Sort, Stamp, Standing, digests, send};
use crate::collect::{Shared, advance};
use crate::record::{CollectionRecord, Published};
use crate::schedule::{Due, Piece, Plan, Timing, is_reread_again, needs_reread, verification_start};
use crate::source::{Ask, Chunk, Failure, FailureKind, MetricAsk, Reading};
use crate::timing::asks;
use std::collections::BTreeSet;
use std::time::Duration;
use vouch_proto::{SourceError, VerificationTemplate, Wait, Window};

/// References that end so long before the deployment or later are kept in the steps of now.
const RECENT: Duration = Duration::from_secs(3600);

/// How a round ended.
pub(crate) enum Round {
    /// Everything due was published.
    Done(CollectionRecord),
    /// The source failed, and that was published.
    Failed(CollectionRecord),
}

/// What a round works with.
#[derive(Clone, Copy)]
struct Work<'a> {
    template: &'a VerificationTemplate,
    timing: &'a Timing,
    /// The names of all metrics.
    all: &'a [String],
}

impl Work<'_> {
    /// Some metrics where they are not all.
    fn part<'s>(&self, some: &'s [String]) -> Option<&'s [String]> {
        (some.len() < self.all.len()).then_some(some)
    }

    /// Whether nothing could be had, which may be mended. Of some metrics alone what is refused for good stays so, as it
    /// does beside others that are not.
    fn is_outage(&self, reading: &Reading, some: usize) -> bool {
        let may_pass = reading.refused.iter().any(|(_, failure)| failure.kind.is_retryable());
        reading.is_nothing() && (some == self.all.len() || may_pass)
    }

    /// As `Published::is_about`.
    fn names_of(&self, published: &Published) -> Vec<String> {
        self.all.iter().filter(|metric| published.is_about(metric)).cloned().collect()
    }
}

impl Shared {
    pub(crate) async fn round(
        &self,
        record: &CollectionRecord,
        (template, timing): (&VerificationTemplate, &Timing),
        plan: &Plan,
    ) -> anyhow::Result<Round> {
        let all: Vec<String> = template.metrics.iter().map(|metric| metric.name.clone()).collect();
        let work = Work { template, timing, all: &all };
        let mut record = record.clone();
        let known_step = record.progress.step_seconds;
        for piece in &plan.baseline {
            let is_wanted = |metric: &str| piece.metrics.iter().any(|one| one == metric);
            let (reading, around) =
                self.read(&record, work, (piece.window, Some(piece.window)), is_wanted).await;
            match reading {
                // What is kept too coarsely stays so; all else may be mended.
                Ok(reading) if work.is_outage(&reading, piece.metrics.len()) && !reading.is_too_coarse() => {
                    self.publish_outage(&record, piece.window, errors(&reading, &piece.metrics)).await?;
                    return Ok(Round::Failed(record));
                }
                Ok(reading) => {
                    record = self.publish_baseline(&record, work, piece, (&reading, &around)).await?
                }
                Err(failure) => {
                    let told = plan.due.first().map_or(piece.window, |due| due.hull);
                    self.publish_outage(&record, told, told_of(&failure, &piece.metrics, work)).await?;
                    return Ok(Round::Failed(record));
                }
            }
        }
        if record.progress.step_seconds != known_step {
            // The minutes were planned before the step was known.
            return Ok(Round::Done(record));
        }
        let mut has_failed = false;
        for due in &plan.due {
            let window = (due.hull, due.new_minutes());
            let (reading, around) = self.read(&record, work, window, |metric| due.is_about(metric)).await;
            let round = match reading {
                Ok(reading) => self.publish_due(&record, work, due, (&reading, &around)).await?,
                Err(failure) => {
                    let some: Vec<String> =
                        all.iter().filter(|metric| due.is_about(metric)).cloned().collect();
                    self.publish_outage(&record, due.hull, told_of(&failure, &some, work)).await?;
                    Round::Failed(record)
                }
            };
            record = match round {
                Round::Done(record) => record,
                Round::Failed(record) => {
                    has_failed = true;
                    record
                }
            };
        }
        Ok(if has_failed { Round::Failed(record) } else { Round::Done(record) })
    }

    /// Reads a window of some metrics, and what goes on around the service over a part of it.
    async fn read(
        &self,
        record: &CollectionRecord,
        work: Work<'_>,
        (window, around): (Window, Option<Window>),
        is_wanted: impl Fn(&str) -> bool,
    ) -> (Result<Reading, Failure>, Surroundings) {
        let names = || work.all.iter().map(String::as_str).filter(|metric| is_wanted(metric));
        let settled_until = self.clock.now().minus(work.timing.shortest(names()));
        let wanted = |by_host| -> Vec<MetricAsk> {
            asks(work.template, by_host).into_iter().filter(|ask| is_wanted(&ask.name)).collect()
        };
        let ask = |window: Window, metrics: Vec<MetricAsk>| Ask {
            environment: record.environment.clone(),
            service: record.service.clone(),
            metrics,
            window,
            settled_until,
        };
        let own = ask(window, wanted(work.template.by_host));
        let surroundings = async {
            let Some(window) = around else { return Surroundings::NONE };
            self.around(record, &ask(window, wanted(false))).await
        };
        let (reading, around) = tokio::join!(self.source.read(&own), surroundings);
        self.note_failures(record, window, &reading);
        (reading, around)
    }

    fn note_failures(&self, record: &CollectionRecord, window: Window, reading: &Result<Reading, Failure>) {
        match reading {
            Ok(reading) => {
                for (metric, failure) in &reading.refused {
                    self.metrics.failure(failure.kind.as_str());
                    let id = &record.verification_id;
                    tracing::warn!(verification_id = id, metric, %failure, "a metric was refused");
                }
            }
            Err(failure) => {
                self.metrics.failure(failure.kind.as_str());
                tracing::warn!(verification_id = record.verification_id, %window, %failure, "nothing was read");
            }
        }
    }

    fn stamp<'a>(&'a self, record: &'a CollectionRecord) -> Stamp<'a> {
        Stamp { record, source: self.source_name(&record.environment), collected_at: self.clock.now() }
    }

    async fn publish_baseline(
        &self,
        record: &CollectionRecord,
        work: Work<'_>,
        piece: &Piece,
        (reading, around): (&Reading, &Surroundings),
    ) -> anyhow::Result<CollectionRecord> {
        let (errors, some) = (errors(reading, &piece.metrics), work.part(&piece.metrics));
        for (window, lacking) in record.progress.pieces(work.all, &piece.metrics, piece.window, None) {
            let cut: Vec<Chunk>;
            let chunks = if window == piece.window {
                &reading.chunks
            } else {
                cut = reading.chunks.iter().filter_map(|chunk| chunk.slice(window)).collect();
                &cut
            };
            let standing = Standing { watermark: window.end(), is_final: true, revision: 0 };
            let waits = waits(record, work, (window, &[]), &lacking);
            let delivery = Delivery { window, chunks, errors: &errors, around, waits: &waits, some };
            self.publish(record, delivery, standing).await?;
        }
        // Recent references tell the step of the minutes to come; older ones may be kept more coarsely.
        let recent = piece.window.end() > record.started_at.minus(RECENT);
        let step = Some(reading.step.as_secs()).filter(|step| recent && *step > 60);
        advance(self, record, |progress| {
            progress.note_baseline(work.all, &piece.metrics, piece.window);
            progress.step_seconds = progress.step_seconds.max(step);
        })
        .await
    }

    async fn publish(
        &self,
        record: &CollectionRecord,
        delivery: Delivery<'_>,
        standing: Standing,
    ) -> anyhow::Result<()> {
        let sort = delivery.some.map_or(Sort::Whole, Sort::Some);
        let batches = self.stamp(record).batches(delivery, standing);
        self.metrics.published(batches.len());
        for batch in batches {
            send(&self.nats, record, batch, sort).await?;
        }
        Ok(())
    }

    async fn publish_outage(
        &self,
        record: &CollectionRecord,
        window: Window,
        errors: Vec<SourceError>,
    ) -> anyhow::Result<()> {
        let start = verification_start(record).filter(|start| *start <= window.start());
        // What fails of the references leaves the watermark before them.
        let reached = start.map_or(window.start(), |start| record.progress.collected_until.unwrap_or(start));
        let batch = self.stamp(record).outage(window, errors, reached);
        self.metrics.published(1);
        send(&self.nats, record, batch, Sort::Outage).await
    }

    /// Publishes the minutes that are new, and those that were read once more: final now, and a revision where changed.
    async fn publish_due(
        &self,
        record: &CollectionRecord,
        work: Work<'_>,
        due: &Due,
        (reading, around): (&Reading, &Surroundings),
    ) -> anyhow::Result<Round> {
        let known_step = record.progress.step_seconds.unwrap_or(60);
        if reading.step.as_secs() > known_step {
            let step = reading.step.as_secs();
            let id = &record.verification_id;
            tracing::info!(verification_id = id, step, "the source has coarser steps, seconds");
            let record = advance(self, record, |progress| progress.step_seconds = Some(step)).await?;
            return Ok(Round::Done(record));
        }
        let asked = work.all.iter().filter(|metric| due.is_about(metric)).count();
        if work.is_outage(reading, asked) {
            // Not one metric could be had: the minutes are asked for again.
            self.publish_outage(record, due.hull, errors(reading, work.all)).await?;
            return Ok(Round::Failed(record.clone()));
        }
        let mut record = record.clone();
        let (mut published, mut lacking) = (Vec::new(), None);
        for piece in &due.first {
            let chunks = match slice(reading, piece.window, work.part(&piece.metrics)) {
                Some(chunks) => chunks,
                None if reading.is_nothing() => Vec::new(),
                None => {
                    lacking = Some(piece);
                    break;
                }
            };
            published.extend(self.publish_minutes(&record, work, (piece, &chunks), (reading, around)).await?);
            record.progress.note_until(work.all, &piece.metrics, piece.window.end());
        }
        let again: &[Published] = if lacking.is_some() { &[] } else { &due.again };
        for earlier in again {
            published.extend(self.publish_again(&record, work, earlier, reading).await?);
        }
        let record = advance(self, &record, |progress| {
            progress.to_reread.retain(|earlier| !again.contains(earlier));
            progress.to_reread.extend(published.iter().cloned());
        })
        .await?;
        let Some(piece) = lacking else { return Ok(Round::Done(record)) };
        let window = piece.window;
        let message = format!("the source left out a part of {window} that has settled; it is asked again");
        let failure = Failure::new(FailureKind::BadAnswer, message);
        self.publish_outage(&record, due.hull, told_of(&failure, &piece.metrics, work)).await?;
        Ok(Round::Failed(record))
    }

    /// Publishes minutes that are new; answers them where they are read once more.
    async fn publish_minutes(
        &self,
        record: &CollectionRecord,
        work: Work<'_>,
        (piece, chunks): (&Piece, &[Chunk]),
        (reading, around): (&Reading, &Surroundings),
    ) -> anyhow::Result<Option<Published>> {
        let (errors, some) = (errors(reading, &piece.metrics), work.part(&piece.metrics));
        let settle = work.timing.longest(piece.metrics.iter().map(String::as_str));
        let is_final = !needs_reread(piece.window, settle, &self.pace, self.clock.now());
        let start = verification_start(record);
        for (window, lacking) in record.progress.pieces(work.all, &piece.metrics, piece.window, start) {
            let cut: Vec<Chunk> = chunks.iter().filter_map(|chunk| chunk.slice(window)).collect();
            let standing = Standing { watermark: window.end(), is_final, revision: 0 };
            let waits = waits(record, work, (window, &piece.metrics), &lacking);
            let delivery = Delivery { window, chunks: &cut, errors: &errors, around, waits: &waits, some };
            self.publish(record, delivery, standing).await?;
        }
        let now = self.clock.now();
        self.metrics.lag(now.since(piece.window.end().plus(settle)));
        for ask in asks(work.template, work.template.by_host) {
            if piece.metrics.contains(&ask.name) {
                let key = self.key_of(record, &ask);
                self.metrics.watermark(&key.tenant, &key.key, now.since(piece.window.end()));
            }
        }
        let (digest, digests) = digests(chunks, &piece.metrics);
        let published = Published { window: piece.window, revision: 0, digest, digests, rereads: 0 };
        Ok((!is_final).then_some(published))
    }

    /// Publishes minutes that were read once more; answers them where they are read yet again.
    async fn publish_again(
        &self,
        record: &CollectionRecord,
        work: Work<'_>,
        earlier: &Published,
        reading: &Reading,
    ) -> anyhow::Result<Option<Published>> {
        let some = work.names_of(earlier);
        let is_refused = reading.refused.iter().any(|(metric, _)| some.contains(metric));
        let part = work.part(&some);
        let chunks = slice(reading, earlier.window, part).filter(|_| !is_refused);
        let Some(chunks) = chunks else { return Ok(None) };
        let (digest, digests) = digests(&chunks, &some);
        // What has not changed is said to be final; what has is a revision.
        let has_changed = digest != earlier.digest;
        if !earlier.digests.is_empty() {
            let changed = digests
                .iter()
                .map(|(metric, now)| (metric.clone(), earlier.digests.get(metric) != Some(now)));
            self.learn(record, &asks(work.template, work.template.by_host), &changed.collect());
        }
        let rereads = earlier.rereads + 1;
        let again = has_changed && is_reread_again(rereads, &self.pace);
        let revision = earlier.revision + u32::from(has_changed);
        let standing = Standing { watermark: earlier.window.end(), is_final: !again, revision };
        let start = verification_start(record);
        for (window, lacking) in record.progress.pieces(work.all, &some, earlier.window, start) {
            let cut: Vec<Chunk> = chunks.iter().filter_map(|chunk| chunk.slice(window)).collect();
            let waits = waits(record, work, (window, &some), &lacking);
            let waits: Vec<Wait> = waits.into_iter().filter(|wait| wait.is_missing).collect();
            let (errors, around) = (errors(reading, &some), &Surroundings::NONE);
            let delivery =
                Delivery { window, chunks: &cut, errors: &errors, around, waits: &waits, some: part };
            self.publish(record, delivery, standing).await?;
        }
        Ok(again.then(|| Published { revision, digest, digests, rereads, ..earlier.clone() }))
    }
}

/// What is waited for once some metrics are read up to the end of a window: those that it lacks, and those that come later
/// than usual.
fn waits(
    record: &CollectionRecord,
    work: Work<'_>,
    (window, read): (Window, &[String]),
    lacking: &[String],
) -> Vec<Wait> {
    let step = Duration::from_secs(record.progress.step_seconds.unwrap_or(60).max(60));
    let start = verification_start(record);
    let end = start.map(|start| start.plus(record.duration()));
    let wait = |metric: &String| {
        let (settle, is_missing) = (work.timing.settle(metric), lacking.contains(metric));
        let is_reference = start.is_none_or(|start| window.end() <= start);
        let next = match record.progress.until_of(metric).max(start) {
            _ if is_missing && is_reference => Some(window.end()),
            _ if read.contains(metric) => Some(window.end().plus(step)),
            from => from.map(|from| from.plus(step)),
        }?;
        let is_over = end.is_some_and(|end| next > end.plus(step - Duration::from_secs(60)));
        let is_late = settle > work.timing.pace.settle && !is_over;
        (is_missing || is_late).then(|| Wait {
            metric: metric.clone(),
            until: next.plus(settle),
            late_by: settle,
            is_missing,
        })
    };
    work.all.iter().filter_map(wait).collect()
}

/// The errors of some metrics.
fn errors(reading: &Reading, some: &[String]) -> Vec<SourceError> {
    let own = reading.refused.iter().filter(|(metric, _)| some.contains(metric));
    own.map(|(metric, failure)| failure.to_source_error(Some(metric))).collect()
}

/// A failure of some metrics: of all of them at once, where they are all.
fn told_of(failure: &Failure, some: &[String], work: Work<'_>) -> Vec<SourceError> {
    match work.part(some) {
        None => vec![failure.to_source_error(None)],
        Some(_) => some.iter().map(|metric| failure.to_source_error(Some(metric))).collect(),
    }
}

/// What a reading has over a window, of some metrics or of all; `None` where it lacks a part of that.
fn slice(reading: &Reading, window: Window, some: Option<&[String]>) -> Option<Vec<Chunk>> {
    let chunks = reading.chunks.iter().map(|chunk| chunk.slice(window)).collect::<Option<Vec<_>>>()?;
    let empty = chunks.first().map(|first| Chunk { series: Vec::new(), ..first.clone() })?;
    let Some(some) = some else { return Some(chunks) };
    let some: BTreeSet<&String> = some.iter().collect();
    let mut own: Vec<Chunk> = chunks
        .into_iter()
        .map(|chunk| {
            let series = chunk.series.into_iter().filter(|one| some.contains(&one.metric)).collect();
            Chunk { series, ..chunk }
        })
        .filter(|chunk| !chunk.series.is_empty())
        .collect();
    if own.is_empty() {
        own.push(empty);
    }
    Some(own)
}
