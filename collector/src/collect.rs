//! Works on one collection until it is done: plan, read, publish, note the progress, wait.

use crate::around::{Misses, Surroundings};
use crate::batch::{Delivery, Stamp, Standing, digest, send};
use crate::logs::WantedLogs;
use crate::metrics::Metrics;
use crate::record::{CollectionRecord, Progress, Published, cover};
use crate::schedule::{Due, Pace, Plan, State, needs_reread, plan, verification_start};
use crate::source::{Ask, Chunk, Failure, FailureKind, MetricAsk, MetricSource, Reading};
use async_nats::jetstream::kv;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vouch_proto::{Name, SourceError, Templates, Timestamp, VerificationTemplate, Window, subject, v1};
use vouch_service::bucket::{self, Change};
use vouch_service::clock::{self, SharedClock};
use vouch_service::nats::Nats;

/// Pause after NATS failed, real time.
const PAUSE: Duration = Duration::from_secs(1);

/// What all collections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) nats: Nats,
    pub(crate) clock: SharedClock,
    pub(crate) source: Arc<dyn MetricSource>,
    /// Names of the tenants in batches, by their environments.
    pub(crate) source_names: Vec<(Option<Name>, String)>,
    pub(crate) pace: Pace,
    pub(crate) templates: Templates,
    pub(crate) collections: kv::Store,
    /// Where the analyzer says how verifications end.
    pub(crate) verifications: kv::Store,
    /// When other services were deployed.
    pub(crate) deployments: kv::Store,
    /// Most other services that are looked at around one that is deployed.
    pub(crate) neighbours: usize,
    pub(crate) misses: Misses,
    pub(crate) metrics: Metrics,
    /// Whose logs are wanted.
    pub(crate) wanted_logs: Arc<WantedLogs>,
}

/// How a round ended.
enum Round {
    /// Everything due was published.
    Done(CollectionRecord),
    /// The source failed, and that was published.
    Failed(CollectionRecord),
}

/// Works on a collection until it is done or `stop`; `news` brings what later announcements say.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut news: watch::Receiver<CollectionRecord>,
    stop: CancellationToken,
) {
    let mut record = news.borrow_and_update().clone();
    let mut tried = false;
    loop {
        let worked = tokio::select! {
            () = stop.cancelled() => return,
            worked = step(&shared, &record, &mut tried) => worked,
        };
        let wake = match worked {
            Ok((now, wake)) => {
                record = now;
                wake
            }
            Err(error) => {
                let id = &record.verification_id;
                tracing::warn!(
                    verification_id = id,
                    error = format!("{error:#}"),
                    "collection interrupted; trying again"
                );
                Wake::Soon
            }
        };
        if !record.is_open() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.sleep(&shared.clock) => {}
            heard = hear(&mut news, &mut record) => if !heard { return },
        }
    }
}

/// Waits until a later announcement changes the record; `false` where none can come any more.
async fn hear(news: &mut watch::Receiver<CollectionRecord>, record: &mut CollectionRecord) -> bool {
    loop {
        if news.changed().await.is_err() {
            return false;
        }
        let before = record.clone();
        record.take_news(&news.borrow_and_update());
        if *record != before {
            return true;
        }
    }
}

/// References that end so long before the deployment or later are kept in the steps of now.
const RECENT: Duration = Duration::from_secs(3600);

/// When to plan again.
#[derive(Debug)]
enum Wake {
    Now,
    Soon,
    At(Timestamp),
    OnNews,
}

impl Wake {
    async fn sleep(&self, clock: &SharedClock) {
        match self {
            Self::Now => {}
            Self::Soon => tokio::time::sleep(PAUSE).await,
            Self::At(t) => clock::sleep_until(&**clock, *t).await,
            Self::OnNews => std::future::pending().await,
        }
    }
}

/// Plans once and does what is due. Answers the record as it is then, and when to plan again.
async fn step(
    shared: &Shared,
    record: &CollectionRecord,
    tried: &mut bool,
) -> anyhow::Result<(CollectionRecord, Wake)> {
    let Ok(template) = shared.templates.get(Some(&record.template)) else {
        let (id, template) = (&record.verification_id, &record.template);
        tracing::error!(
            verification_id = id,
            template,
            "the collection's template is in no settings any more; add it again"
        );
        return Ok((record.clone(), Wake::OnNews));
    };
    if shared.is_settled(record).await {
        let record = advance(shared, record, |progress| progress.done = true).await?;
        return Ok((record, Wake::Now));
    }
    let now = shared.clock.now();
    let plan = plan(record, template, &shared.pace, now);
    let over = match plan.state {
        State::Open => false,
        State::Complete => true,
        State::Late => *tried || !plan.is_due(),
    };
    if over {
        if plan.state == State::Late {
            tracing::warn!(
                verification_id = record.verification_id,
                "collection ends incomplete: the time is up"
            );
        }
        let record = advance(shared, record, |progress| progress.done = true).await?;
        return Ok((record, Wake::Now));
    }
    if !plan.is_due() {
        return Ok((record.clone(), plan.wake.map_or(Wake::OnNews, Wake::At)));
    }
    let round = shared.round(record, template, &plan).await?;
    *tried = true;
    Ok(match round {
        Round::Done(record) => (record, Wake::Now),
        // Once a minute while it lasts.
        Round::Failed(record) => (record, Wake::At(shared.clock.now().floor_minute().plus_minutes(1))),
    })
}

/// Notes progress in the bucket, on top of what it holds.
async fn advance(
    shared: &Shared,
    record: &CollectionRecord,
    apply: impl Fn(&mut Progress),
) -> anyhow::Result<CollectionRecord> {
    let key = subject::id_key(&record.verification_id);
    bucket::change(&shared.collections, &key, |stored| {
        let mut now = record.clone();
        if let Some(bytes) = stored {
            now.take_news(&CollectionRecord::read(bytes)?);
        }
        apply(&mut now.progress);
        Ok(Change::Write(now.write()?, now))
    })
    .await
}

/// What a template asks the source for.
fn asks(template: &VerificationTemplate, by_host: bool) -> Vec<MetricAsk> {
    let ask = |metric: &vouch_proto::MetricSpec| {
        let host_query = metric.host_query.as_ref().filter(|_| by_host);
        MetricAsk {
            name: metric.name.clone(),
            query: host_query.unwrap_or(&metric.query).clone(),
            unit: metric.unit.clone(),
            by_host: host_query.is_some(),
            each: metric.each.clone(),
        }
    };
    template.metrics.iter().map(ask).collect()
}

impl Shared {
    /// Name of the tenant that holds an environment.
    pub(crate) fn source_name(&self, environment: &Name) -> &str {
        let held = self.source_names.iter().find(|(held, _)| held.as_ref() == Some(environment));
        held.or_else(|| self.source_names.first()).map_or("", |(_, name)| name.as_str())
    }

    /// Whether the verification has ended and no revision will follow: the rest of its window need not be asked for.
    async fn is_settled(&self, record: &CollectionRecord) -> bool {
        let key = subject::id_key(&record.verification_id);
        let Ok(Some(bytes)) = self.verifications.get(key).await else { return false };
        serde_json::from_slice::<v1::Verification>(&bytes).is_ok_and(|verification| verification.settled)
    }

    async fn round(
        &self,
        record: &CollectionRecord,
        template: &VerificationTemplate,
        plan: &Plan,
    ) -> anyhow::Result<Round> {
        let mut record = record.clone();
        let known_step = record.progress.step_seconds;
        for window in &plan.baseline {
            let (reading, around) = self.read(&record, template, (*window, Some(*window))).await;
            match reading {
                // What is kept too coarsely stays so; all else may be mended.
                Ok(reading) if reading.is_nothing() && !reading.is_too_coarse() => {
                    self.publish_outage(&record, *window, errors(&reading)).await?;
                    return Ok(Round::Failed(record));
                }
                Ok(reading) => record = self.publish_baseline(&record, *window, (&reading, &around)).await?,
                Err(failure) => {
                    let told = plan.due.as_ref().map_or(*window, |due| due.hull);
                    self.publish_outage(&record, told, vec![failure.to_source_error(None)]).await?;
                    return Ok(Round::Failed(record));
                }
            }
        }
        let Some(due) = &plan.due else { return Ok(Round::Done(record)) };
        if record.progress.step_seconds != known_step {
            // The minutes were planned before the step was known.
            return Ok(Round::Done(record));
        }
        let (reading, around) = self.read(&record, template, (due.hull, due.first)).await;
        match reading {
            Ok(reading) => self.publish_due(&record, due, (&reading, &around)).await,
            Err(failure) => {
                self.publish_outage(&record, due.hull, vec![failure.to_source_error(None)]).await?;
                Ok(Round::Failed(record))
            }
        }
    }

    /// Reads a window, and what goes on around the service over a part of it.
    async fn read(
        &self,
        record: &CollectionRecord,
        template: &VerificationTemplate,
        (window, around): (Window, Option<Window>),
    ) -> (Result<Reading, Failure>, Surroundings) {
        let ask = |window: Window, metrics: Vec<MetricAsk>| Ask {
            environment: record.environment.clone(),
            service: record.service.clone(),
            metrics,
            window,
            settled_until: self.clock.now().minus(self.pace.settle),
        };
        let own = ask(window, asks(template, template.by_host));
        let surroundings = async {
            let Some(window) = around else { return Surroundings::NONE };
            self.around(record, &ask(window, asks(template, false))).await
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
        window: Window,
        (reading, around): (&Reading, &Surroundings),
    ) -> anyhow::Result<CollectionRecord> {
        let standing = Standing { watermark: window.end(), is_final: true, revision: 0 };
        let delivery = Delivery { window, chunks: &reading.chunks, errors: &errors(reading), around };
        self.publish(record, delivery, standing).await?;
        // Recent references tell the step of the minutes to come; older ones may be kept more coarsely.
        let recent = window.end() > record.started_at.minus(RECENT);
        let step = Some(reading.step.as_secs()).filter(|step| recent && *step > 60);
        advance(self, record, |progress| {
            cover(&mut progress.baseline, window);
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
        let batches = self.stamp(record).batches(delivery, standing);
        self.metrics.published(batches.len());
        for batch in batches {
            send(&self.nats, record, batch, false).await?;
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
        send(&self.nats, record, batch, true).await
    }

    /// Publishes the minutes that are new, and those that were read once more: final now, and a revision where changed.
    async fn publish_due(
        &self,
        record: &CollectionRecord,
        due: &Due,
        (reading, around): (&Reading, &Surroundings),
    ) -> anyhow::Result<Round> {
        let known_step = record.progress.step_seconds.unwrap_or(60);
        if reading.step.as_secs() > known_step {
            let step = reading.step.as_secs();
            tracing::info!(
                verification_id = record.verification_id,
                step,
                "the source has coarser steps, seconds"
            );
            let record = advance(self, record, |progress| progress.step_seconds = Some(step)).await?;
            return Ok(Round::Done(record));
        }
        let errors = errors(reading);
        if reading.is_nothing() {
            // Not one metric could be had: the minutes are asked for again.
            self.publish_outage(record, due.hull, errors).await?;
            return Ok(Round::Failed(record.clone()));
        }
        let mut published = None;
        if let Some(window) = due.first {
            let chunks = slices(reading, window);
            if chunks.is_empty() || chunks.len() < reading.chunks.len() {
                let message =
                    format!("the source left out a part of {window} that has settled; it is asked again");
                let failure = Failure::new(FailureKind::BadAnswer, message);
                self.publish_outage(record, due.hull, vec![failure.to_source_error(None)]).await?;
                return Ok(Round::Failed(record.clone()));
            }
            let is_final = !needs_reread(window, &self.pace, self.clock.now());
            let standing = Standing { watermark: window.end(), is_final, revision: 0 };
            let delivery = Delivery { window, chunks: &chunks, errors: &errors, around };
            self.publish(record, delivery, standing).await?;
            self.metrics.lag(self.clock.now().since(window.end().plus(self.pace.settle)));
            published = Some(Published { window, revision: 0, digest: digest(&chunks) });
        }
        for earlier in &due.again {
            let chunks = slices(reading, earlier.window);
            if reading.refused.is_empty() && !chunks.is_empty() {
                // What has not changed is said to be final; what has is a revision.
                let changed = u32::from(digest(&chunks) != earlier.digest);
                let standing = Standing {
                    watermark: earlier.window.end(),
                    is_final: true,
                    revision: earlier.revision + changed,
                };
                let around = &Surroundings::NONE;
                let delivery = Delivery { window: earlier.window, chunks: &chunks, errors: &errors, around };
                self.publish(record, delivery, standing).await?;
            }
        }
        let now = self.clock.now();
        let record = advance(self, record, |progress| {
            progress.to_reread.retain(|p| !due.again.contains(p));
            if let Some(published) = &published {
                progress.collected_until = Some(published.window.end());
                progress
                    .to_reread
                    .extend(needs_reread(published.window, &self.pace, now).then(|| published.clone()));
            }
        });
        Ok(Round::Done(record.await?))
    }
}

fn errors(reading: &Reading) -> Vec<SourceError> {
    reading.refused.iter().map(|(metric, failure)| failure.to_source_error(Some(metric))).collect()
}

fn slices(reading: &Reading, window: Window) -> Vec<Chunk> {
    reading.chunks.iter().filter_map(|chunk| chunk.slice(window)).collect()
}
