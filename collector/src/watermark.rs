//! How long after its end a minute of a metric is complete: as the settings say, as the source declares, or as is learned
//! from what had changed when minutes were read once more. Pure.

use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::time::MINUTE_MS;
use vouch_proto::{Glob, Timestamp};

/// Of a hundred minutes so many may change after they were first read: what is learned is the 95th percentile.
const MAY_CHANGE: f64 = 0.05;
/// By how much a minute of which all has changed moves what is learned, milliseconds.
const STEP_MS: f64 = 60_000.0;
/// What was learned is forgotten when nothing was read for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(6 * 3600);
/// Most metrics that are known.
const MOST_METRICS: usize = 1000;
/// How long what a source declares is believed, and how soon it is asked again where it did not say.
const DECLARED_FRESH: Duration = Duration::from_secs(3600);
const UNDECLARED_FRESH: Duration = Duration::from_secs(60);

/// A settle time that the settings give to some metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Which: by the source's key, or by the name in the template.
    pub metric: Glob,
    /// How long after its end a minute of them is complete.
    pub settle: Duration,
}

/// The bounds of what is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// No minute of any metric is read earlier, but where the settings say so.
    pub least: Duration,
    /// Nothing later is learned; what is declared may be later.
    pub longest: Duration,
}

/// A metric of a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricKey {
    /// Which of several tenants.
    pub tenant: String,
    /// The source's key.
    pub key: String,
}

/// What was learned of one metric: a percentile that is tracked, which needs no memory of the single minutes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Lateness {
    /// Beyond the least, milliseconds.
    beyond_ms: f64,
    /// The minute in which the readings counted here were made.
    minute: Option<Timestamp>,
    read: u32,
    changed: u32,
}

impl Lateness {
    /// Takes the readings of a minute together: a thousand services that change together say no more than one.
    fn fold(&mut self, now: Timestamp, limits: Limits) {
        let Some(minute) = self.minute.filter(|minute| *minute < now.floor_minute()) else { return };
        if self.read > 0 {
            let share = f64::from(self.changed) / f64::from(self.read);
            let most = limits.longest.saturating_sub(limits.least).as_millis() as f64;
            self.beyond_ms = (self.beyond_ms + STEP_MS * (share - MAY_CHANGE)).clamp(0.0, most);
        }
        (self.read, self.changed) = (0, 0);
        if now.since(minute) >= FORGOTTEN_AFTER {
            *self = Self::default();
        }
    }

    fn note(&mut self, changed: bool, now: Timestamp, limits: Limits) {
        self.fold(now, limits);
        self.minute = Some(now.floor_minute());
        self.read = self.read.saturating_add(1);
        self.changed = self.changed.saturating_add(u32::from(changed));
    }

    /// In whole minutes beyond the least, so that metrics of about the same lateness are read together.
    fn beyond(&self) -> Duration {
        let minutes = (self.beyond_ms / MINUTE_MS as f64).ceil();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 60")]
        Duration::from_secs(60 * minutes.max(0.0) as u64)
    }
}

#[derive(Debug, Clone, Default)]
struct Known {
    declared: Option<Duration>,
    asked_at: Option<Timestamp>,
    learned: Lateness,
}

/// What is known of all metrics.
#[derive(Debug, Clone)]
pub struct Watermarks {
    limits: Limits,
    overrides: Vec<Override>,
    known: BTreeMap<MetricKey, Known>,
}

impl Watermarks {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new(limits: Limits, overrides: Vec<Override>) -> Self {
        Self { limits, overrides, known: BTreeMap::new() }
    }

    /// How long after its end a minute of a metric, which a template names so, counts as complete at `now`.
    #[must_use]
    pub fn settle(&self, metric: &MetricKey, name: &str, now: Timestamp) -> Duration {
        let set = self.overrides.iter().find(|one| one.metric.fits(&metric.key) || one.metric.fits(name));
        if let Some(set) = set {
            return set.settle;
        }
        let Some(known) = self.known.get(metric) else { return self.limits.least };
        let mut learned = known.learned;
        learned.fold(now, self.limits);
        let learned = self.limits.least + learned.beyond();
        learned.max(known.declared.unwrap_or_default())
    }

    /// Whether the source is to be asked what it declares of a metric.
    #[must_use]
    pub fn is_unknown(&self, metric: &MetricKey, now: Timestamp) -> bool {
        self.known.get(metric).is_none_or(|known| {
            let fresh = if known.declared.is_some() { DECLARED_FRESH } else { UNDECLARED_FRESH };
            known.asked_at.is_none_or(|at| now.since(at) >= fresh)
        })
    }

    /// Notes what the source declares; `None` where it did not answer: what it said before stands.
    pub fn declare(&mut self, metric: &MetricKey, declared: Option<Duration>, now: Timestamp) {
        let Some(known) = self.entry(metric) else { return };
        known.asked_at = Some(now);
        known.declared = declared.or(known.declared);
    }

    /// Notes whether a minute of a metric had changed when it was read once more.
    pub fn learn(&mut self, metric: &MetricKey, changed: bool, now: Timestamp) {
        let limits = self.limits;
        if let Some(known) = self.entry(metric) {
            known.learned.note(changed, now, limits);
        }
    }

    fn entry(&mut self, metric: &MetricKey) -> Option<&mut Known> {
        let has_room = self.known.len() < MOST_METRICS;
        if !has_room && !self.known.contains_key(metric) {
            return None;
        }
        Some(self.known.entry(metric.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minute: i64) -> Timestamp {
        "2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap().plus_minutes(minute)
    }

    fn key(key: &str) -> MetricKey {
        MetricKey { tenant: "t".into(), key: key.into() }
    }

    fn watermarks(overrides: &[(&str, u32)]) -> Watermarks {
        let one = |(metric, minutes): &(&str, u32)| Override {
            metric: metric.parse().unwrap(),
            settle: MINUTE * *minutes,
        };
        let limits = Limits { least: 2 * MINUTE, longest: 8 * MINUTE };
        Watermarks::new(limits, overrides.iter().map(one).collect())
    }

    /// Reads a minute after the other, each late by what `late` says in seconds, and once more three minutes later.
    /// Answers the settle times, and how many minutes had changed.
    fn live(
        known: &mut Watermarks,
        minutes: std::ops::Range<i64>,
        late: impl Fn(i64) -> u64,
    ) -> (Vec<Duration>, usize) {
        let (mut settles, mut changed) = (Vec::new(), 0);
        for minute in minutes {
            let settle = known.settle(&key("a"), "m", at(minute));
            let late = Duration::from_secs(late(minute));
            let has_changed = settle < late && late <= settle + 3 * MINUTE;
            known.learn(&key("a"), has_changed, at(minute));
            settles.push(settle);
            changed += usize::from(has_changed);
        }
        (settles, changed)
    }

    /// Numbers from 0 to 1 that look like chance.
    fn chance(i: i64) -> f64 {
        let hash = (i.unsigned_abs() + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash ^ (hash >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) as f64 / u64::MAX as f64
    }

    #[test]
    fn what_is_on_time_is_read_at_the_least() {
        let (settles, changed) = live(&mut watermarks(&[]), 0..500, |_| 90);
        assert_eq!((settles.iter().max(), changed), (Some(&(2 * MINUTE)), 0));
    }

    #[test]
    fn what_is_always_late_is_waited_for_within_minutes_and_what_is_on_time_again_no_longer() {
        let mut known = watermarks(&[]);
        let (settles, _) = live(&mut known, 0..60, |_| 270);
        assert!(settles[4..].iter().all(|settle| *settle >= 4 * MINUTE), "{settles:?}");
        let (_, changed) = live(&mut known, 60..560, |_| 270);
        assert!((1..=50).contains(&changed), "{changed} of 500");
        let (settles, _) = live(&mut known, 560..700, |_| 60);
        assert_eq!(settles.last(), Some(&(2 * MINUTE)), "{settles:?}");
    }

    #[test]
    fn of_a_hundred_minutes_about_five_change() {
        let mut known = watermarks(&[]);
        // Uniform from 0 to 5 minutes: the 95th percentile is 4:45.
        let late = |minute: i64| (300.0 * chance(minute)) as u64;
        live(&mut known, 0..500, late);
        let (settles, changed) = live(&mut known, 500..2500, late);
        let mean = settles.iter().sum::<Duration>().as_secs() / settles.len() as u64;
        assert!((240..=330).contains(&mean), "{mean} s");
        assert!(changed < 140, "{changed} of 2000");
    }

    #[test]
    fn a_single_odd_minute_is_soon_forgotten_and_nothing_goes_beyond_the_longest() {
        let mut known = watermarks(&[]);
        let (settles, _) = live(&mut known, 0..60, |minute| if minute == 10 { 200 } else { 60 });
        assert_eq!((settles[10], settles[11], settles[31]), (2 * MINUTE, 3 * MINUTE, 2 * MINUTE));
        let mut hopeless = watermarks(&[]);
        (0..60).for_each(|minute| hopeless.learn(&key("a"), true, at(minute)));
        assert_eq!(hopeless.settle(&key("a"), "m", at(60)), 8 * MINUTE);
        // Nothing was read for hours.
        assert_eq!(hopeless.settle(&key("a"), "m", at(60 + 6 * 60)), 2 * MINUTE);
    }

    #[test]
    fn a_thousand_services_that_change_together_count_once() {
        let mut known = watermarks(&[]);
        (0..1000).for_each(|_| known.learn(&key("a"), true, at(0)));
        assert_eq!(known.settle(&key("a"), "m", at(0)), 2 * MINUTE, "the minute goes on");
        assert_eq!(known.settle(&key("a"), "m", at(1)), 3 * MINUTE);
        (0..1000).for_each(|i| known.learn(&key("b"), i < 40, at(0)));
        assert_eq!(known.settle(&key("b"), "m", at(1)), 2 * MINUTE, "four of a hundred may");
    }

    #[test]
    fn the_settings_go_before_what_is_declared_and_that_may_be_later_than_what_is_learned() {
        let mut known = watermarks(&[("ext:aws.*", 7), ("queue", 1)]);
        known.declare(&key("ext:aws.x"), Some(15 * MINUTE), at(0));
        known.declare(&key("ext:gcp.x"), Some(15 * MINUTE), at(0));
        assert_eq!(known.settle(&key("ext:aws.x"), "m", at(0)), 7 * MINUTE);
        assert_eq!(known.settle(&key("ext:gcp.x"), "m", at(0)), 15 * MINUTE);
        assert_eq!(known.settle(&key("ext:gcp.x"), "queue", at(0)), MINUTE, "by its name in the template");
        known.declare(&key("ext:gcp.x"), None, at(61));
        assert_eq!(
            known.settle(&key("ext:gcp.x"), "m", at(61)),
            15 * MINUTE,
            "it stands while nobody answers"
        );
        known.declare(&key("ext:gcp.x"), Some(MINUTE), at(62));
        assert_eq!(known.settle(&key("ext:gcp.x"), "m", at(62)), 2 * MINUTE, "never below the least");
    }

    #[test]
    fn a_source_is_asked_for_what_it_declares_once_an_hour_and_sooner_where_it_did_not_answer() {
        let mut known = watermarks(&[]);
        assert!(known.is_unknown(&key("a"), at(0)));
        known.declare(&key("a"), None, at(0));
        assert!(!known.is_unknown(&key("a"), at(0)) && known.is_unknown(&key("a"), at(1)));
        known.declare(&key("a"), Some(Duration::ZERO), at(1));
        assert!(!known.is_unknown(&key("a"), at(60)) && known.is_unknown(&key("a"), at(61)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = watermarks(&[]);
        for i in 0..2 * MOST_METRICS {
            known.learn(&key(&i.to_string()), true, at(0));
        }
        assert_eq!(known.known.len(), MOST_METRICS);
        assert_eq!(known.settle(&key("1999"), "m", at(1)), 2 * MINUTE);
    }
}
