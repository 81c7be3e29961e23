//! How late Dynatrace says that a metric is: by the descriptors of what a query measures.

use super::expression::keys;
use super::timeseries::is_dql;
use super::{Dynatrace, Failure};
use std::time::Duration;

/// Latest that a descriptor can say; more is a mistake.
const MOST_MINUTES: f64 = 60.0;
/// Most characters of a name that is a whole query.
const LONGEST_NAME: usize = 120;

/// The name of what a query measures: its metric keys, or the query itself.
pub(super) fn key(query: &str) -> String {
    let mut named: Vec<&str> = Vec::new();
    for key in if is_dql(query) { Vec::new() } else { keys(query) } {
        if !named.contains(&key) {
            named.push(key);
        }
    }
    let name = if named.is_empty() { query.trim().to_owned() } else { named.join(" ") };
    name.chars().take(LONGEST_NAME).collect()
}

/// What a descriptor's `latency` says, in minutes.
fn declared(minutes: Option<f64>) -> Duration {
    let minutes = minutes.filter(|minutes| minutes.is_finite()).unwrap_or_default();
    Duration::from_secs_f64(60.0 * minutes.clamp(0.0, MOST_MINUTES))
}

impl Dynatrace {
    /// The longest latency that the descriptors of a query's metrics declare. Metrics of Grail declare none.
    pub(super) async fn declared_latency(&self, query: &str) -> Result<Duration, Failure> {
        let mut latest = Duration::ZERO;
        if is_dql(query) {
            return Ok(latest);
        }
        for key in keys(query) {
            latest = latest.max(declared(self.descriptor(key).await?.latency));
        }
        Ok(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_named_by_its_metrics() {
        let time = "builtin:service.dbChildCallTime:splitBy(\"dt.entity.service\"):value";
        let count = "builtin:service.dbChildCallCount:splitBy(\"dt.entity.service\"):value";
        let ratio = format!("{time} / {count}");
        for (query, name) in [
            ("builtin:service.response.time:splitBy():percentile(95)", "builtin:service.response.time"),
            ("(ext:cloud.aws.rds.cpu:splitBy():avg):default(0)", "ext:cloud.aws.rds.cpu"),
            (&ratio, "builtin:service.dbChildCallTime builtin:service.dbChildCallCount"),
            ("(a:x:avg + (b:y:filter(eq(\"k:1\",v)):sum)) * 2", "a:x b:y"),
            ("a:x:avg - a:x:min", "a:x"),
            ("timeseries avg(dt.host.cpu.usage)", "timeseries avg(dt.host.cpu.usage)"),
            ("", ""),
        ] {
            assert_eq!(key(query), name, "{query}");
        }
        assert_eq!(key(&"ü".repeat(500)).chars().count(), LONGEST_NAME);
    }

    #[test]
    fn a_latency_is_minutes_and_never_nonsense() {
        for (minutes, seconds) in [
            (None, 0),
            (Some(1.0), 60),
            (Some(10.0), 600),
            (Some(-5.0), 0),
            (Some(1e300), 3600),
            (Some(f64::NAN), 0),
        ] {
            assert_eq!(declared(minutes), Duration::from_secs(seconds), "{minutes:?}");
        }
    }
}
