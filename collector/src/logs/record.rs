//! What of a service's logs has been published, kept in a bucket so that any replica can go on with it.

use crate::record::{cover, uncovered};
use serde::{Deserialize, Serialize};
use vouch_proto::{Timestamp, Window};

/// The version that this program writes, and the newest that it reads.
const VERSION: u32 = 1;
/// Windows that ended so long before the newest are forgotten: the stream does not keep them either.
const FORGOTTEN_AFTER_MINUTES: i64 = 4 * 1440;

/// The windows of one service. Written by compare-and-set only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    /// Version of this format.
    version: u32,
    /// What has been published, merged, ascending.
    #[serde(default)]
    pub(crate) covered: Vec<Window>,
    /// Windows whose first part went out, and whose last one perhaps did not.
    #[serde(default)]
    begun: Vec<Begun>,
}

/// A window of several parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) window: Window,
    /// The revision that its parts carry.
    pub(crate) revision: u32,
}

impl LogRecord {
    /// Reads an entry of the bucket; there is none before the first window.
    ///
    /// # Errors
    /// Where it is damaged, or newer than this program.
    pub(crate) fn read(bytes: Option<&[u8]>) -> anyhow::Result<Self> {
        let Some(bytes) = bytes else { return Ok(Self { version: VERSION, ..Self::default() }) };
        let record: Self = serde_json::from_slice(bytes)?;
        anyhow::ensure!(
            record.version <= VERSION,
            "the record of published logs has version {}, this program reads up to {VERSION}; finish the update of all collectors",
            record.version
        );
        Ok(record)
    }

    /// As the bucket keeps it.
    ///
    /// # Errors
    /// Never in practice: every value can be written as JSON.
    pub(crate) fn write(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Begins to publish a window in parts; no two attempts have the same revision.
    pub(crate) fn begin(&mut self, window: Window) -> u32 {
        let revision = self.attempt(window).map_or(0, |revision| revision.saturating_add(1));
        self.note(Begun { window, revision });
        revision
    }

    /// The revision of the last attempt at a window that was not published to its end.
    pub(crate) fn attempt(&self, window: Window) -> Option<u32> {
        self.begun.iter().find(|begun| begun.window == window).map(|begun| begun.revision)
    }

    /// Notes an attempt.
    pub(crate) fn note(&mut self, begun: Begun) {
        self.begun.retain(|other| other.window != begun.window);
        self.begun.push(begun);
    }

    /// Notes that a window has been published to its end.
    pub(crate) fn cover(&mut self, window: Window) {
        cover(&mut self.covered, window);
        // What was begun and is covered now, perhaps by a longer window, is not begun again.
        self.begun.retain(|begun| !uncovered(begun.window, &self.covered).is_empty());
        let newest: Option<Timestamp> = self.covered.last().map(|window| window.end());
        if let Some(newest) = newest {
            let oldest = newest.plus_minutes(-FORGOTTEN_AFTER_MINUTES);
            self.covered.retain(|window| window.end() > oldest);
            self.begun.retain(|begun| begun.window.end() > oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{at, window};
    use std::path::Path;

    #[test]
    fn the_released_record_is_read_and_written_for_ever() {
        let mut record = LogRecord::read(None).unwrap();
        record.cover(window(0, 5));
        record.begin(window(5, 6));
        record.begin(window(5, 6));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/log_record.json");
        let json = serde_json::to_string_pretty(&record).unwrap() + "\n";
        if !path.exists() {
            std::fs::write(&path, &json).unwrap();
            panic!("{} was missing and has been written: look at it and commit it", path.display());
        }
        let released = std::fs::read_to_string(&path).unwrap();
        assert_eq!(LogRecord::read(Some(released.as_bytes())).unwrap(), record);
        assert_eq!(released, json, "written differently now");
    }

    #[test]
    fn each_attempt_at_a_window_has_its_own_revision() {
        let mut record = LogRecord::read(None).unwrap();
        assert_eq!(
            [record.begin(window(0, 1)), record.begin(window(0, 1)), record.begin(window(1, 2))],
            [0, 1, 0]
        );
        record.cover(window(1, 2));
        assert_eq!((record.attempt(window(0, 1)), record.attempt(window(1, 2))), (Some(1), None));
        record.begin(window(2, 3));
        record.cover(window(7, 8));
        assert_eq!(record.attempt(window(2, 3)), Some(0), "another window ends nothing");
        record.cover(window(0, 3));
        assert_eq!(record.begun, [], "a longer window does");
    }

    #[test]
    fn what_is_old_is_forgotten_and_what_is_newer_than_the_program_refused() {
        let mut record = LogRecord::read(None).unwrap();
        record.cover(window(0, 5));
        record.begin(window(5, 6));
        record.cover(window(5770, 5780));
        record.cover(window(5760, 5770));
        assert_eq!((record.begun.len(), record.covered.len()), (0, 1));
        assert_eq!(record.covered, [window(5760, 5780)]);
        assert_eq!(record.covered[0].start(), at(5760));
        let newer = LogRecord { version: 2, ..record };
        let said = LogRecord::read(Some(&newer.write().unwrap())).unwrap_err().to_string();
        assert!(said.contains("version 2") && said.contains("finish the update"), "{said}");
        assert!(LogRecord::read(Some(b"{")).is_err());
    }
}
