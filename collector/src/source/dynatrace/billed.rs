//! What a query in DQL reads that Dynatrace bills by what it scans, and whether a metric of a template may.

use super::Dynatrace;
use crate::source::logs::{LogAsk, LoggedService, Meter, Purpose};
use crate::source::{Ask, Failure, FailureKind, MetricAsk};
use std::sync::Arc;

/// Most gigabytes of a query that reads nothing billed.
const FREE_SCAN_LIMIT_GB: u32 = 1;
/// Longer windows are references: the minutes of a verification are read a few at a time.
const LONGEST_OF_VERIFICATION_MINUTES: i64 = 15;

/// Data objects that cost nothing to read.
const FREE: [&str; 7] = [
    "metrics",
    "metric.series",
    "dt.entity.",
    "dt.davis.",
    "dt.system.",
    "dt.semantic_dictionary.",
    "smartscape.",
];

/// The data objects of a query that are billed, each once: those that it fetches and that are not known to be free.
#[must_use]
pub fn billed(query: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let words = words(query);
    for (word, next) in words.iter().zip(words.iter().skip(1)) {
        let is_free = FREE.iter().any(|free| match free.strip_suffix('.') {
            Some(_) => next.starts_with(free),
            None => next == free,
        });
        if word == "fetch" && !is_free && !found.contains(next) {
            found.push(next.clone());
        }
    }
    found
}

impl Dynatrace {
    /// Gives it the account on which queries of templates that are billed go. Without one there are none.
    pub fn watch_over(&self, meter: Arc<dyn Meter>) {
        // Whoever came first stays.
        self.meter.set(meter).ok();
    }

    /// Most gigabytes that a metric's query may scan, given what it reads that is billed.
    pub(super) async fn may_scan(
        &self,
        ask: &Ask,
        metric: &MetricAsk,
        sources: &[String],
    ) -> Result<u32, Failure> {
        if sources.is_empty() {
            return Ok(FREE_SCAN_LIMIT_GB);
        }
        let meter = self.meter.get().filter(|_| self.client.settings().billed.queries);
        let Some(meter) = meter else {
            let message = format!(
                "`{}` reads {}, which is billed and off; use `timeseries`, which is not billed, or set collector.billed.queries",
                metric.name,
                sources.join(", ")
            );
            return Err(Failure::new(FailureKind::Billed, message));
        };
        let allowance = meter.allow(&charged(ask), &[0]).await?;
        match allowance.refused.into_iter().next() {
            Some((_, failure)) => Err(failure),
            None => Ok(allowance.scan_limit_gb),
        }
    }

    /// Notes what the query of a metric scanned.
    pub(super) async fn charge(&self, ask: &Ask, bytes: u64) {
        if let Some(meter) = self.meter.get() {
            meter.charge(&charged(ask), &[(0, bytes)]).await;
        }
    }
}

/// What an account is told of a metric's query.
fn charged(ask: &Ask) -> LogAsk {
    let (environment, service) = (ask.environment.clone(), ask.service.clone());
    let is_reference = ask.window.minutes() > LONGEST_OF_VERIFICATION_MINUTES;
    LogAsk {
        services: vec![LoggedService { environment, service }],
        window: ask.window,
        purpose: if is_reference { Purpose::History } else { Purpose::Verification },
    }
}

/// The words of a query, without what stands in quotes and comments.
fn words(query: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut rest = query;
    while let Some(c) = rest.chars().next() {
        let skip = match c {
            '"' => quoted(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            _ => c.len_utf8(),
        };
        let is_word = c.is_alphanumeric() || matches!(c, '_' | '.');
        match words.last_mut() {
            Some(word) if is_word => word.push(c),
            Some(word) if !word.is_empty() => words.push(String::new()),
            Some(_) | None => {}
        }
        rest = rest.get(skip..).unwrap_or_default();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Length of a text in quotes, three of which may enclose it.
fn quoted(rest: &str) -> usize {
    if let Some(inner) = rest.strip_prefix("\"\"\"") {
        return inner.find("\"\"\"").map_or(rest.len(), |at| at + 6);
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_is_billed_unless_it_is_known_to_be_free() {
        for (query, expected) in [
            ("timeseries avg(dt.host.cpu.usage)", vec![]),
            ("fetch logs", vec!["logs"]),
            ("  fetch   spans, from:-2h | makeTimeseries count()", vec!["spans"]),
            ("fetch\n//logs\nbizevents", vec!["bizevents"]),
            ("/* fetch logs */ fetch dt.entity.service", vec![]),
            ("timeseries avg(x) | filter a == \"fetch logs\"", vec![]),
            ("timeseries avg(x) | filter a == \"\\\" fetch logs\"", vec![]),
            ("data json:\"\"\"fetch \"logs\" \"\"\" | append [fetch events]", vec!["events"]),
            (
                "fetch dt.davis.problems | lookup [fetch logs | limit 1], sourceField:a | join [fetch logs]",
                vec!["logs"],
            ),
            ("fetch something.new", vec!["something.new"]),
            ("smartscapeNodes HOST | fields prefetch", vec![]),
            ("fetch", vec![]),
            ("fetch metric.series", vec![]),
        ] {
            assert_eq!(billed(query), expected, "{query}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read(query in "[fetch logs\"\\\\/*\n|ä]{0,60}") {
            proptest::prop_assert!(billed(&query).len() <= query.len());
        }
    }
}
