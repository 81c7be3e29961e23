//! The JSON of a query's result.

use crate::dql::{Outcome, timestamp, types};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// How much a result may hold.
#[derive(Debug)]
pub(super) struct Limits {
    /// Records.
    pub(super) records: usize,
    /// Bytes of the records; the one that exceeds it is still whole.
    pub(super) bytes: Option<usize>,
    /// Whether the scan limit was met.
    pub(super) scan: bool,
}

/// What an answer repeats of its request.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    /// The query.
    pub(super) query: &'a str,
    /// Its canonical form.
    pub(super) canonical: String,
    /// Its id.
    pub(super) id: &'a str,
    /// The time zone by its name.
    pub(super) timezone: Option<&'a str>,
    /// The locale.
    pub(super) locale: Option<&'a str>,
    /// Whether `types` are wanted.
    pub(super) with_types: bool,
    /// The time zone.
    pub(super) zone: TimeZone,
}

impl Answer<'_> {
    /// `result` of an outcome.
    pub(super) fn result(&self, outcome: &Outcome, limits: &Limits) -> Value {
        let mut notifications = Vec::new();
        if limits.scan {
            notifications.push(notification(
                "SCAN_LIMIT_GBYTES",
                "Your execution was stopped after %1$s gigabytes of data were scanned.",
                "500",
            ));
        }
        if outcome.is_deprecated {
            notifications.push(json!({
                "severity": "INFO",
                "notificationType": "DEPRECATED_ENTITY_DATAOBJECT",
                "message": "Entities are deprecated as a data object. Use smartscapeNodes instead.",
                "arguments": [],
            }));
        }
        for key in &outcome.unknown {
            notifications.push(notification("UNKNOWN_METRIC_KEY", "The metric key %1$s doesn't exist.", key));
        }
        let mut kept = outcome.records.len().min(limits.records);
        if kept < outcome.records.len() {
            let limit = limits.records.to_string();
            notifications.push(notification("LIMIT_ADDED", "Your result has been limited to %1$s.", &limit));
        }
        let records: Vec<Value> = outcome.records[..kept].iter().map(|r| r.json(&self.zone)).collect();
        if let Some(limit) = limits.bytes {
            let mut bytes = 0;
            let within = records.iter().take_while(|record| {
                let fits = bytes < limit;
                bytes += record.to_string().len();
                fits
            });
            let fitting = within.count();
            if fitting < kept {
                let limit = limit.to_string();
                let format = "Your result has been limited to %1$s bytes.";
                notifications.push(notification("RESULT_BYTES_LIMIT", format, &limit));
                kept = fitting;
            }
        }
        let utc = |at| timestamp(at, &TimeZone::UTC);
        let (start, end) = outcome.timeframe;
        let types = if self.with_types { types(&outcome.records[..kept]) } else { Vec::new() };
        json!({
            "records": &records[..kept],
            "types": types,
            "metadata": { "grail": {
                "canonicalQuery": self.canonical,
                "query": self.query,
                "timezone": self.timezone.unwrap_or("Z"),
                "locale": self.locale.unwrap_or("en_US"),
                "dqlVersion": "V1_0",
                "queryId": self.id,
                "analysisTimeframe": { "start": utc(start), "end": utc(end) },
                "scannedRecords": outcome.scanned.records,
                "scannedBytes": outcome.scanned.bytes,
                "scannedDataPoints": outcome.points,
                "executionTimeMilliseconds": 1 + outcome.points / 10_000,
                "sampled": false,
                "notifications": notifications,
            } },
        })
    }
}

/// A warning: what follows is not the whole result.
fn notification(kind: &str, format: &str, argument: &str) -> Value {
    json!({
        "severity": "WARNING",
        "notificationType": kind,
        "message": format.replace("%1$s", argument),
        "messageFormat": format,
        "messageFormatSpecifierTypes": ["NUMBER"],
        "arguments": [argument],
    })
}
