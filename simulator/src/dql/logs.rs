//! `fetch logs`: lines as records, and what reading them costs.

use super::frame::Frame;
use super::tree::{Command, Expression};
use super::value::{Cell, Record};
use crate::world::lines::LogEntry;

/// The fields of a record, in their order.
const FIELDS: [&str; 13] = [
    "content",
    "loglevel",
    "status",
    "event.type",
    "log.source",
    "dt.entity.service",
    "dt.entity.process_group",
    "dt.entity.process_group_instance",
    "dt.entity.host",
    "dt.source_entity",
    "host.name",
    "k8s.pod.name",
    "dt.system.bucket",
];

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Scanned {
    /// Records.
    pub(crate) records: u64,
    /// Bytes of them, uncompressed.
    pub(crate) bytes: u64,
    /// Whether the scan limit ended it.
    pub(crate) is_limited: bool,
}

/// The lines of a timeframe as records. A filter on the bucket right behind `fetch` spares reading the others; any
/// other filter reads all the same.
pub(super) fn records(
    frame: &Frame<'_>,
    behind: &[Command],
    most_bytes: Option<u64>,
) -> (Vec<Record>, Scanned) {
    let Frame { world, visibility, window: (from, to), scan_limit } = *frame;
    // The newest is read first: where the scan limit is met, the beginning is missing.
    let from = if scan_limit { from + (to - from) / 2 } else { from };
    let wanted: Vec<&str> = behind.iter().take_while(|c| c.name == "filter").filter_map(bucket).collect();
    let mut lines = world.lines(from, to.min(visibility.now));
    lines.retain(|line| visibility.sees_line(line));
    lines.retain(|line| wanted.iter().all(|bucket| *bucket == line.source.bucket));
    let (mut bytes, all) = (0, lines.len());
    let within = |line: &&LogEntry| {
        let fits = most_bytes.is_none_or(|most| bytes < most);
        bytes += if fits { line.bytes() } else { 0 };
        fits
    };
    let read = lines.iter().rev().take_while(within).count();
    lines.drain(..all - read);
    let records = u64::try_from(read).unwrap_or(u64::MAX);
    let scanned = Scanned { records, bytes, is_limited: read < all };
    (lines.iter().map(record).collect(), scanned)
}

fn record(line: &LogEntry) -> Record {
    let mut record = Record::default();
    record.set("timestamp", Cell::Timestamp(line.at_ms));
    for field in FIELDS {
        if let Some(text) = line.field(field) {
            record.set(field, Cell::Text(text.to_owned()));
        }
    }
    record
}

/// The bucket that a filter names: `dt.system.bucket == "default_logs"`.
fn bucket(filter: &Command) -> Option<&str> {
    let [only] = filter.arguments.as_slice() else { return None };
    let Expression::Binary("==", key, value) = &only.value.expression else { return None };
    let is_bucket = key.name() == Some("dt.system.bucket");
    if let Expression::Text(text) = &value.expression { is_bucket.then_some(text) } else { None }
}
