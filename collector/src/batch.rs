//! From a reading to batches on the bus: windows, parts, identities, digests.

use crate::around::Surroundings;
use crate::record::CollectionRecord;
use crate::source::Chunk;
use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::envelope::PROTOBUF;
use vouch_proto::{Series, SeriesBatch, SourceError, Timestamp, Wait, Window, subject, v1};
use vouch_service::nats::{Nats, headers};
use vouch_service::publish::publish;

/// `type` of a batch's CloudEvents attributes.
const EVENT_TYPE: &str = "dev.vouch.v1.series";
/// `source` of a batch's CloudEvents attributes.
const EVENT_SOURCE: &str = "vouch/collector";
const MINUTE: Duration = Duration::from_secs(60);

/// What all batches of a reading have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp<'a> {
    pub(crate) record: &'a CollectionRecord,
    pub(crate) source: &'a str,
    pub(crate) collected_at: Timestamp,
}

/// What was read over a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    pub(crate) window: Window,
    pub(crate) chunks: &'a [Chunk],
    pub(crate) errors: &'a [SourceError],
    pub(crate) around: &'a Surroundings,
    /// What is waited for.
    pub(crate) waits: &'a [Wait],
    /// The metrics that it is about; `None` for all of the template.
    pub(crate) some: Option<&'a [String]>,
}

/// How the window stands once the batch is published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) watermark: Timestamp,
    pub(crate) is_final: bool,
    pub(crate) revision: u32,
}

impl Stamp<'_> {
    fn empty(&self, window: Window, resolution: Duration, standing: Standing) -> SeriesBatch {
        SeriesBatch {
            environment: self.record.environment.clone(),
            service: self.record.service.clone(),
            source: self.source.to_owned(),
            window,
            resolution,
            watermark: standing.watermark.min(window.end()),
            is_final: standing.is_final,
            revision: standing.revision,
            part: 1,
            parts: 1,
            series: Vec::new(),
            errors: Vec::new(),
            collected_at: self.collected_at,
            verification_id: Some(self.record.verification_id.clone()),
            neighbours: Vec::new(),
            problems: Vec::new(),
            objectives: Vec::new(),
            waits: Vec::new(),
        }
    }

    /// The batches of a window: the parts of every chunk, numbered through. Without a chunk, one that says why.
    pub(crate) fn batches(&self, delivery: Delivery<'_>, standing: Standing) -> Vec<SeriesBatch> {
        let Delivery { window, chunks, errors, around, waits, some } = delivery;
        let mut windows: Vec<Window> = chunks.iter().map(|c| c.window).collect();
        windows.sort_unstable();
        windows.dedup();
        if windows.is_empty() {
            let errors = errors.to_vec();
            let waits = waits.to_vec();
            return vec![SeriesBatch { errors, waits, ..self.empty(window, MINUTE, standing) }];
        }
        let mut all = Vec::new();
        for window in windows {
            let same = chunks.iter().filter(|c| c.window == window);
            let mut parts: Vec<SeriesBatch> = same
                .flat_map(|chunk| {
                    let batch = self.empty(window, chunk.resolution, standing);
                    SeriesBatch {
                        series: chunk.series.clone(),
                        errors: errors.to_vec(),
                        neighbours: around.neighbours((window, chunk.resolution), some),
                        problems: around.problems.clone(),
                        objectives: around.objectives.clone(),
                        waits: waits.to_vec(),
                        ..batch
                    }
                    .into_parts()
                })
                .collect();
            let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            for (part, number) in parts.iter_mut().zip(1..) {
                (part.part, part.parts) = (number, count);
            }
            all.append(&mut parts);
        }
        all
    }

    /// The batch that says why nothing could be read; its watermark stays before it.
    pub(crate) fn outage(&self, window: Window, errors: Vec<SourceError>, reached: Timestamp) -> SeriesBatch {
        let standing = Standing { watermark: reached.min(window.start()), is_final: false, revision: 0 };
        SeriesBatch { errors, ..self.empty(window, MINUTE, standing) }
    }
}

/// What tells a batch from others of its window.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sort<'a> {
    /// All metrics of the template.
    Whole,
    /// Some of them.
    Some(&'a [String]),
    /// None: it says why. It is told every minute.
    Outage,
}

/// Publishes a batch and waits for its acknowledgement.
pub(crate) async fn send(
    nats: &Nats,
    record: &CollectionRecord,
    batch: SeriesBatch,
    sort: Sort<'_>,
) -> anyhow::Result<()> {
    let subject = subject::series(&batch.environment, &batch.service);
    let mut id = format!(
        "{}/{}/{}/{}/{}",
        record.verification_id,
        batch.window.start(),
        batch.window.end(),
        batch.revision,
        batch.part
    );
    if batch.is_final {
        id += "/final";
    }
    match sort {
        Sort::Whole => {}
        Sort::Some(metrics) => {
            let mut hash = Fnv::default();
            metrics.iter().for_each(|metric| hash.text(metric));
            id += &format!("/m{:x}", hash.0);
        }
        Sort::Outage => {
            let minute = batch.collected_at.as_millis().div_euclid(vouch_proto::time::MINUTE_MS);
            id += &format!("/e{minute}");
        }
    }
    let mut pairs = vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-type", EVENT_TYPE.to_owned()),
        ("ce-source", EVENT_SOURCE.to_owned()),
        ("ce-id", id.clone()),
        ("ce-subject", format!("{}/{}", batch.environment, batch.service)),
        ("ce-time", batch.collected_at.to_string()),
        ("content-type", PROTOBUF.to_owned()),
        ("Nats-Msg-Id", id.clone()),
    ];
    pairs.extend(record.traceparent.clone().map(|t| ("traceparent", t)));
    let body = Bytes::from(v1::SeriesBatch::from(batch).encode_to_vec());
    publish(nats, subject, headers(pairs), body).await.with_context(|| format!("batch {id}"))
}

/// FNV-1a.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn eat(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn text(&mut self, text: &str) {
        self.eat(text.as_bytes());
        self.eat(&[0]);
    }

    fn series(&mut self, resolution: Duration, series: &Series) {
        self.eat(&resolution.as_secs().to_be_bytes());
        self.text(&series.metric);
        self.eat(series.host.as_deref().unwrap_or_default().as_bytes());
        for sample in &series.samples {
            match sample {
                None => self.eat(&[0]),
                Some(value) => {
                    self.eat(&[1]);
                    self.eat(&value.to_bits().to_be_bytes());
                }
            }
        }
    }
}

/// Tells whether series changed between two readings, all and those of each metric, by names and samples.
pub(crate) fn digests(chunks: &[Chunk], metrics: &[String]) -> (u64, BTreeMap<String, u64>) {
    let mut series: Vec<(Duration, &Series)> =
        chunks.iter().flat_map(|c| c.series.iter().map(|s| (c.resolution, s))).collect();
    series.sort_by(|(_, a), (_, b)| (&a.metric, &a.host).cmp(&(&b.metric, &b.host)));
    let mut all = Fnv::default();
    let mut each: BTreeMap<&str, Fnv> =
        metrics.iter().map(|metric| (metric.as_str(), Fnv::default())).collect();
    for (resolution, series) in series {
        all.series(resolution, series);
        if let Some(own) = each.get_mut(series.metric.as_str()) {
            own.series(resolution, series);
        }
    }
    (all.0, each.into_iter().map(|(metric, hash)| (metric.to_owned(), hash.0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{at, record, window};
    use crate::source::{Failure, FailureKind};

    fn chunk(resolution: u64, window: Window, metric: &str, samples: &[Option<f64>]) -> Chunk {
        let series = Series {
            metric: metric.into(),
            host: None,
            unit: "ms".into(),
            samples: samples.to_vec(),
            query: "q".into(),
            ..Series::default()
        };
        Chunk { resolution: Duration::from_secs(resolution), window, series: vec![series] }
    }

    fn delivery<'a>(window: Window, chunks: &'a [Chunk], errors: &'a [SourceError]) -> Delivery<'a> {
        static NOTHING: Surroundings = Surroundings::NONE;
        Delivery { window, chunks, errors, around: &NOTHING, waits: &[], some: None }
    }

    fn standing(minute: i64) -> Standing {
        Standing { watermark: at(minute), is_final: false, revision: 0 }
    }

    #[test]
    fn steps_of_two_kinds_over_one_window_are_parts_of_one_batch() {
        let record = record();
        let stamp = Stamp { record: &record, source: "t", collected_at: at(9) };
        let chunks =
            [chunk(60, window(0, 5), "a", &[Some(1.0); 5]), chunk(300, window(0, 5), "b", &[Some(1.0)])];
        let batches = stamp.batches(delivery(window(0, 5), &chunks, &[]), standing(5));
        let parts: Vec<_> = batches.iter().map(|b| (b.part, b.parts, b.resolution.as_secs())).collect();
        assert_eq!(parts, [(1, 2, 60), (2, 2, 300)]);
        for batch in batches {
            SeriesBatch::try_from(v1::SeriesBatch::from(batch)).unwrap();
        }
    }

    #[test]
    fn a_batch_without_series_still_says_why() {
        let record = record();
        let stamp = Stamp { record: &record, source: "t", collected_at: at(9) };
        let error = Failure::new(FailureKind::UnknownMetric, "x").to_source_error(Some("cpu"));
        let batches = stamp.batches(delivery(window(0, 1), &[], &[error]), standing(1));
        assert_eq!((batches.len(), batches[0].errors.len(), batches[0].watermark), (1, 1, at(1)));
        let outage = stamp.outage(
            window(4, 9),
            vec![Failure::new(FailureKind::Timeout, "x").to_source_error(None)],
            at(4),
        );
        assert_eq!((outage.watermark, outage.errors[0].retryable), (at(4), true));
        let again = stamp.outage(window(2, 4), vec![], at(4));
        assert!(again.watermark < again.window.end(), "it delivers nothing");
        SeriesBatch::try_from(v1::SeriesBatch::from(outage)).unwrap();
    }

    #[test]
    fn a_digest_sees_every_change_and_no_order() {
        let names = ["a".to_owned(), "b".to_owned()];
        let one = |samples: &[Option<f64>]| digests(&[chunk(60, window(0, 2), "a", samples)], &names);
        let base = one(&[Some(1.0), None]);
        let other = one(&[Some(1.0), Some(0.0)]);
        assert!(base.0 != other.0 && base.1["a"] != other.1["a"] && base.1["b"] == other.1["b"]);
        assert_ne!(base.0, one(&[Some(1.0 + f64::EPSILON), None]).0);
        let (a, b) = (chunk(60, window(0, 1), "a", &[None]), chunk(60, window(0, 1), "b", &[None]));
        assert_eq!(digests(&[a.clone(), b.clone()], &names), digests(&[b, a], &names));
    }
}
