//! The collection record: what one verification still needs, kept in a bucket so that any replica can go on with it.

pub use crate::progress::{Ahead, Progress, Published, cover, uncovered};

use serde::{Deserialize, Serialize};
use std::time::Duration;
use vouch_proto::{Name, Strategy, Timestamp, Window};

/// The version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// One collection. Written by compare-and-set only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionRecord {
    /// Version of this format.
    pub version: u32,
    /// The verification that it serves.
    pub verification_id: String,
    /// Environment of the service.
    pub environment: Name,
    /// The service.
    pub service: Name,
    /// Name of the template.
    pub template: String,
    /// How it is compared: decides the reference windows.
    pub strategy: Strategy,
    /// Length of the verification window with its extension.
    pub duration_seconds: u64,
    /// Reference windows that were asked for; empty for the template's.
    #[serde(default)]
    pub baseline: Vec<Window>,
    /// When the deployment began.
    pub started_at: Timestamp,
    /// First traffic on the new version; the verification starts here.
    pub traffic_at: Option<Timestamp>,
    /// When the announcement was stored: a late one is collected all the same.
    pub opened_at: Timestamp,
    /// Given up or cancelled.
    #[serde(default)]
    pub aborted: bool,
    /// W3C trace context of the announcement.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// How far it is.
    #[serde(default)]
    pub progress: Progress,
}

impl CollectionRecord {
    /// Reads a record of the bucket.
    ///
    /// # Errors
    /// Where it is damaged, or newer than this program.
    pub fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let record: Self = serde_json::from_slice(bytes)?;
        anyhow::ensure!(
            record.version <= VERSION,
            "collection {} has version {}, this program reads up to {VERSION}; finish the update of all collectors",
            record.verification_id,
            record.version
        );
        Ok(record)
    }

    /// As the bucket keeps it.
    ///
    /// # Errors
    /// Never in practice: every value can be written as JSON.
    pub fn write(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Length of the verification window with its extension.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        Duration::from_secs(self.duration_seconds)
    }

    /// Whether there is something to do.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.aborted && !self.progress.done
    }

    /// Takes over what a later announcement says; the progress is its owner's.
    pub fn take_news(&mut self, news: &Self) {
        self.traffic_at = self.traffic_at.or(news.traffic_at);
        self.started_at = self.started_at.min(news.started_at);
        self.aborted |= news.aborted;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    pub(crate) fn at(minute: i64) -> Timestamp {
        "2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap().plus_minutes(minute)
    }

    pub(crate) fn window(from: i64, to: i64) -> Window {
        Window::new(at(from), at(to)).unwrap()
    }

    pub(crate) fn record() -> CollectionRecord {
        CollectionRecord {
            version: VERSION,
            verification_id: "01KBHV0000ABCDEFGHJKMNPQRS.1".into(),
            environment: Name::new("prod").unwrap(),
            service: Name::new("checkout").unwrap(),
            template: "golden-signals".into(),
            strategy: Strategy::Previous,
            duration_seconds: 900,
            baseline: vec![],
            started_at: at(-1),
            traffic_at: Some(at(0)),
            opened_at: at(0),
            aborted: false,
            traceparent: None,
            progress: Progress::default(),
        }
    }

    #[test]
    fn the_released_record_is_read_and_written_for_ever() {
        let record = CollectionRecord {
            baseline: vec![window(-60, 0)],
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            progress: Progress {
                baseline: vec![window(-60, 0)],
                collected_until: Some(at(5)),
                to_reread: vec![Published {
                    window: window(4, 5),
                    revision: 0,
                    digest: 17,
                    digests: BTreeMap::new(),
                    rereads: 0,
                }],
                step_seconds: Some(300),
                done: false,
                ahead: BTreeMap::new(),
            },
            ..record()
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/collection_record.json");
        let json = serde_json::to_string_pretty(&record).unwrap() + "\n";
        if !path.exists() {
            std::fs::write(&path, &json).unwrap();
            panic!("{} was missing and has been written: look at it and commit it", path.display());
        }
        let released = std::fs::read_to_string(&path).unwrap();
        assert_eq!(CollectionRecord::read(released.as_bytes()).unwrap(), record);
        assert_eq!(released, json, "written differently now");
    }

    #[test]
    fn a_newer_record_is_refused_with_the_way_out() {
        let newer = CollectionRecord { version: 2, ..record() };
        let said = CollectionRecord::read(&newer.write().unwrap()).unwrap_err().to_string();
        assert!(said.contains("version 2") && said.contains("finish the update"), "{said}");
        assert!(CollectionRecord::read(b"{").is_err());
    }

    #[test]
    fn news_bring_traffic_and_the_end_and_keep_the_progress() {
        let mut waiting = CollectionRecord { traffic_at: None, ..record() };
        waiting.progress.baseline = vec![window(-60, -1)];
        let news = CollectionRecord { aborted: true, traffic_at: Some(at(3)), ..record() };
        waiting.take_news(&news);
        assert_eq!((waiting.traffic_at, waiting.aborted), (Some(at(3)), true));
        assert_eq!(waiting.progress.baseline.len(), 1);
        assert!(!waiting.is_open());
    }
}
