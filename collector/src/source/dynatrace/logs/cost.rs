//! The calls that reading logs makes, and what it scans, counted before it does. Pure.

use super::super::PlannedCalls;
use super::super::joint::SERVICES_PER_CALL;
use super::MOST_LINES;
use super::classic::{IDS_PER_CALL, PAGE};
use crate::config::{LogSettings, LogSourceKind};

const MINUTES_A_DAY: f64 = 1440.0;
/// Ids by which lines of a service are found: its own, and that of its process group.
const IDS_OF_SERVICE: usize = 2;

/// What is counted for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogLoad {
    /// Verifications that run at the same time.
    pub verifications: usize,
    /// Deployments of a day.
    pub deployments_a_day: f64,
    /// How long one is verified.
    pub minutes: f64,
    /// What the buckets that are read take in on a day, in GiB; `None` where nobody knows.
    pub gib_a_day: Option<f64>,
    /// Lines that a service writes a minute.
    pub lines_a_minute: f64,
}

/// What is scanned on a day, in GiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedScan {
    /// For verifications that run.
    pub verification: f64,
    /// For what was before deployments.
    pub history: f64,
}

impl PlannedScan {
    /// Both.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.verification + self.history
    }
}

/// The calls a minute while verifications run.
#[must_use]
pub fn plan_logs(settings: &LogSettings, load: &LogLoad) -> Vec<PlannedCalls> {
    let call = |endpoint, about: &str, a_minute, is_shared| PlannedCalls {
        endpoint,
        about: about.to_owned(),
        a_minute,
        is_shared,
    };
    let services = load.verifications as f64;
    let groups = (services / SERVICES_PER_CALL as f64).ceil() / 2.0;
    let groups = call("entities", "process groups of the services whose logs are read", groups, true);
    match settings.source {
        LogSourceKind::Off => Vec::new(),
        LogSourceKind::Classic => {
            let per_call = (IDS_PER_CALL / IDS_OF_SERVICE).min(load.verifications.max(1)) as f64;
            let pages = (per_call * load.lines_a_minute / PAGE as f64).ceil().max(1.0);
            let exports = (services / per_call).ceil() * pages;
            vec![call("logs/export", "lines of the last minute, page by page", exports, true), groups]
        }
        LogSourceKind::Grail => {
            let slices = (services * load.lines_a_minute / MOST_LINES as f64).ceil().max(1.0);
            let queries = settings.buckets.len().max(1) as f64 * slices;
            let about = "lines of the last minute, in each bucket for all services together";
            vec![call("query:execute", about, queries, true), groups]
        }
    }
}

/// What is scanned on a day; `None` where nothing billed is read, or nobody knows how much there is.
///
/// Every query reads all of its minute in the bucket, however many services share it: minutes count in which at least
/// one verification runs, with deployments that come at random. What was before each deployment is read for it alone.
#[must_use]
pub fn plan_scan(settings: &LogSettings, load: &LogLoad) -> Option<PlannedScan> {
    let volume = load.gib_a_day.filter(|_| settings.source == LogSourceKind::Grail)?;
    let busy = 1.0 - (-load.deployments_a_day * load.minutes / MINUTES_A_DAY).exp();
    let before = settings.before.as_secs_f64() / 60.0;
    Some(PlannedScan {
        verification: volume * busy,
        history: volume * load.deployments_a_day * before / MINUTES_A_DAY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn load(verifications: usize, deployments: f64) -> LogLoad {
        LogLoad {
            verifications,
            deployments_a_day: deployments,
            minutes: 30.0,
            gib_a_day: Some(144.0),
            lines_a_minute: 100.0,
        }
    }

    fn of(source: LogSourceKind) -> LogSettings {
        LogSettings { source, before: Duration::from_secs(600), ..LogSettings::default() }
    }

    #[test]
    fn one_query_a_bucket_serves_all() {
        let calls =
            |settings: &LogSettings, n| plan_logs(settings, &load(n, 1.0)).first().map(|one| one.a_minute);
        let mut grail = of(LogSourceKind::Grail);
        assert_eq!(
            (calls(&grail, 1), calls(&grail, 50), calls(&grail, 200)),
            (Some(1.0), Some(1.0), Some(4.0))
        );
        grail.buckets = vec!["a".into(), "b".into()];
        assert_eq!(calls(&grail, 50), Some(2.0));
        assert_eq!(calls(&of(LogSourceKind::Classic), 1), Some(1.0));
        assert_eq!(calls(&of(LogSourceKind::Classic), 50), Some(10.0), "five services a call");
        assert_eq!(calls(&of(LogSourceKind::Off), 50), None);
    }

    #[test]
    fn what_is_scanned_follows_the_minutes_that_are_read() {
        let grail = of(LogSourceKind::Grail);
        let few = plan_scan(&grail, &load(1, 1.0)).unwrap();
        assert!((few.verification - 2.97).abs() < 0.01 && (few.history - 1.0).abs() < 1e-9, "{few:?}");
        let many = plan_scan(&grail, &load(10, 1000.0)).unwrap();
        assert!((many.verification - 144.0).abs() < 0.01, "never more than there is: {many:?}");
        assert_eq!(plan_scan(&of(LogSourceKind::Classic), &load(1, 1.0)), None);
        assert_eq!(plan_scan(&grail, &LogLoad { gib_a_day: None, ..load(1, 1.0) }), None);
    }
}
