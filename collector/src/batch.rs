//! From a reading to batches on the bus: windows, parts, identities, digests.

use crate::around::Surroundings;
use crate::record::CollectionRecord;
use crate::source::Chunk;
use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;
use vouch_proto::envelope::PROTOBUF;
use vouch_proto::{Series, SeriesBatch, SourceError, Timestamp, Window, subject, v1};
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
        }
    }

    /// The batches of a window: the parts of every chunk, numbered through. Without a chunk, one that says why.
    pub(crate) fn batches(&self, delivery: Delivery<'_>, standing: Standing) -> Vec<SeriesBatch> {
        let Delivery { window, chunks, errors, around } = delivery;
        let mut windows: Vec<Window> = chunks.iter().map(|c| c.window).collect();
        windows.sort_unstable();
        windows.dedup();
        if windows.is_empty() {
            let errors = errors.to_vec();
            return vec![SeriesBatch { errors, ..self.empty(window, MINUTE, standing) }];
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
                        neighbours: around.neighbours(window, chunk.resolution),
                        problems: around.problems.clone(),
                        objectives: around.objectives.clone(),
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

    /// The batch that says why nothing could be read; its watermark stays where the collection is.
    pub(crate) fn outage(&self, window: Window, errors: Vec<SourceError>, reached: Timestamp) -> SeriesBatch {
        let standing = Standing { watermark: reached, is_final: false, revision: 0 };
        SeriesBatch { errors, ..self.empty(window, MINUTE, standing) }
    }
}

/// Publishes a batch and waits for its acknowledgement. An outage is told every minute, so its minute is in the identity.
pub(crate) async fn send(
    nats: &Nats,
    record: &CollectionRecord,
    batch: SeriesBatch,
    outage: bool,
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
    if outage {
        id += &format!("/e{}", batch.collected_at.as_millis().div_euclid(vouch_proto::time::MINUTE_MS));
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

/// Tells whether series changed between two readings: FNV-1a over names and samples.
pub(crate) fn digest(chunks: &[Chunk]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let mut series: Vec<(&Chunk, &Series)> =
        chunks.iter().flat_map(|c| c.series.iter().map(move |s| (c, s))).collect();
    series.sort_by(|(_, a), (_, b)| (&a.metric, &a.host).cmp(&(&b.metric, &b.host)));
    for (chunk, series) in series {
        eat(&chunk.resolution.as_secs().to_be_bytes());
        eat(series.metric.as_bytes());
        eat(&[0]);
        eat(series.host.as_deref().unwrap_or_default().as_bytes());
        for sample in &series.samples {
            match sample {
                None => eat(&[0]),
                Some(value) => {
                    eat(&[1]);
                    eat(&value.to_bits().to_be_bytes());
                }
            }
        }
    }
    hash
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
        Delivery { window, chunks, errors, around: &NOTHING }
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
        SeriesBatch::try_from(v1::SeriesBatch::from(outage)).unwrap();
    }

    #[test]
    fn a_digest_sees_every_change_and_no_order() {
        let one = |samples: &[Option<f64>]| digest(&[chunk(60, window(0, 2), "a", samples)]);
        let base = one(&[Some(1.0), None]);
        assert_ne!(base, one(&[Some(1.0), Some(0.0)]));
        assert_ne!(base, one(&[Some(1.0 + f64::EPSILON), None]));
        let (a, b) = (chunk(60, window(0, 1), "a", &[None]), chunk(60, window(0, 1), "b", &[None]));
        assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b, a]));
    }
}
