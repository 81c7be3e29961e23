//! What the values of a metric say against bounds that a person gave. No statistics, and nothing behind the step that
//! is asked about: a watch takes in one step after the other.

use crate::case::CaseMetric;
use crate::detector::{ALL_HOSTS, Change};
use crate::frame::{Comparison, Frame, Track};
use crate::profile::{Family, Profile};
use crate::robust;
use vouch_proto::{Direction, Limit, MetricSettings, When};

/// Samples that an `ignore` limit looks back on.
const LOOK_BACK: u32 = vouch_proto::metric_settings::MOST_SAMPLES;

/// One metric on the hosts that run the new version, against its bounds.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) metric: String,
    bad: Direction,
    is_count: bool,
    unit: String,
    settings: MetricSettings,
    hosts: Vec<WatchedHost>,
}

#[derive(Debug)]
struct WatchedHost {
    name: String,
    switch: usize,
    /// Events per trial for counts.
    values: Vec<f64>,
    /// What is usual at each step.
    usual: Vec<f64>,
    step: usize,
    beyond: u32,
    in_a_row: u32,
    /// The last samples, newest lowest: whether each was beyond what is ignored.
    worth_it: u32,
}

/// A bound that was crossed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Crossing {
    pub(crate) metric: String,
    pub(crate) host: String,
    /// Which way it went.
    pub(crate) direction: Direction,
    /// Change against what is usual, in the bad direction; for counts the rise of the ratio.
    pub(crate) effect: f64,
    pub(crate) reason: String,
}

impl Watch {
    /// `None` where the metric has no bounds.
    pub(crate) fn new(
        frame: &Frame,
        (name, metric): (&str, &CaseMetric),
        settings: &MetricSettings,
        traffic: Option<&str>,
    ) -> Option<Self> {
        let bounded = settings.fail_fast.is_some() || settings.ignore.is_some();
        if !bounded && settings.minimum_effect.absolute.is_none() {
            return None;
        }
        let is_duration = matches!(Profile::of(name, metric).family, Family::Latency | Family::TailLatency);
        // Without a request nothing was measured, whatever the source says of its duration.
        let asleep = |host: &str, t: usize| {
            let requests = traffic.filter(|_| is_duration).and_then(|traffic| frame.track(traffic, host));
            requests.is_some_and(|requests| requests.live.get(t).is_some_and(|n| *n <= 0.0))
        };
        let source = Values { frame, metric: name, exposure: metric.exposure.as_deref() };
        let hosts = frame.new_hosts.iter().filter_map(|host| {
            let mut values = source.live(&host.name)?;
            for (t, value) in values.iter_mut().enumerate() {
                if asleep(&host.name, t) {
                    *value = f64::NAN;
                }
            }
            let usual = source.usual(&host.name, values.len());
            let (name, switch) = (host.name.clone(), host.switch);
            Some(WatchedHost { name, switch, values, usual, step: 0, beyond: 0, in_a_row: 0, worth_it: 0 })
        });
        Some(Self {
            metric: name.to_owned(),
            bad: metric.bad,
            is_count: metric.exposure.is_some(),
            unit: metric.unit.clone(),
            settings: settings.clone(),
            hosts: hosts.collect(),
        })
    }

    /// Takes in the samples of a step.
    pub(crate) fn step(&mut self, t: usize) {
        let (fail_fast, ignore) = (self.settings.fail_fast, self.settings.ignore);
        let bad = self.bad;
        for host in self.hosts.iter_mut().filter(|host| t >= host.switch) {
            let Some((value, usual)) = host.at(t).filter(|(value, _)| value.is_finite()) else { continue };
            host.step = t;
            if let Some(limit) = fail_fast {
                let beyond = !usual.is_nan() || limit.percent.is_none();
                let beyond = beyond && is_beyond(&limit, value, usual, bad);
                host.beyond += u32::from(beyond);
                host.in_a_row = if beyond { host.in_a_row + 1 } else { 0 };
            }
            if let Some(limit) = ignore {
                let beyond = is_beyond(&limit, value, usual, bad);
                host.worth_it = (host.worth_it << 1 | u32::from(beyond)) & ((1 << LOOK_BACK) - 1);
            }
        }
    }

    /// The first host, by name, whose samples have crossed the `fail_fast` limit.
    pub(crate) fn crossing(&self) -> Option<Crossing> {
        let limit = self.settings.fail_fast?;
        let crossed = |host: &&WatchedHost| match limit.when {
            When::AtOnce => host.beyond >= 1,
            When::After(n) => host.beyond >= n,
            When::AfterInARow(n) => host.in_a_row >= n,
        };
        let host = self.hosts.iter().find(crossed)?;
        let (value, usual) = host.at(host.step)?;
        let falls = self.bad == Direction::Decrease || (self.bad == Direction::Either && value < usual);
        let effect = match (self.is_count, falls) {
            (true, _) => value - usual,
            (false, true) => 1.0 - value / usual,
            (false, false) => value / usual - 1.0,
        };
        Some(Crossing {
            metric: self.metric.clone(),
            host: host.name.clone(),
            direction: if falls { Direction::Decrease } else { Direction::Increase },
            effect: if effect.is_finite() { effect } else { 0.0 },
            reason: self.say(&limit, &host.name, value),
        })
    }

    fn say(&self, limit: &Limit, host: &str, value: f64) -> String {
        let shown = |value: f64| match (self.is_count, self.unit.as_str()) {
            (true, _) => format!("{} % of the requests", short(100.0 * value)),
            (false, "") => short(value),
            (false, unit) => format!("{} {unit}", short(value)),
        };
        let sign = if self.bad == Direction::Decrease { "-" } else { "+" };
        let sign = if self.bad == Direction::Either { "+-" } else { sign };
        let bounds: Vec<String> = [
            limit.absolute.map(shown),
            limit.percent.map(|percent| format!("{sign}{} % against what is usual", short(percent))),
        ]
        .into_iter()
        .flatten()
        .collect();
        let when = match limit.when {
            When::AtOnce => "at once".to_owned(),
            When::After(n) => format!("after {n} samples"),
            When::AfterInARow(n) => format!("after {n} samples in a row"),
        };
        let metric = &self.metric;
        let (value, bounds) = (shown(value), bounds.join(" and "));
        format!(
            "{metric} on {host} is {value}, beyond its fail-fast limit of {bounds} ({when}; no statistics)"
        )
    }

    /// Whether a finding on a host is worth a Fail: not within what is ignored, and large in the metric's own unit.
    pub(crate) fn allows(&self, host: &str, effect: Change, direction: Direction) -> bool {
        let hosts = || self.hosts.iter().filter(|h| host == ALL_HOSTS || h.name == host);
        let is_ignored = self.settings.ignore.is_some_and(|limit| !hosts().any(|h| h.is_worth(limit.when)));
        !is_ignored && self.is_large(hosts().map(WatchedHost::usual_now), effect, direction)
    }

    /// Whether the change reaches the smallest absolute one; counts are measured by their detector.
    fn is_large(&self, usual: impl Iterator<Item = f64>, effect: Change, direction: Direction) -> bool {
        let (Some(least), Change::LnRatio(size)) = (self.settings.minimum_effect.absolute, effect) else {
            return true;
        };
        let usual: Vec<f64> = usual.filter(|usual| usual.is_finite()).collect();
        let Some(usual) = robust::median(&usual) else { return true };
        let change = if direction == Direction::Decrease { -libm::expm1(-size) } else { libm::expm1(size) };
        // The gate compares logarithms; a change of exactly the least must not be lost to their last digit.
        usual * change >= least * (1.0 - 1e-9)
    }
}

impl WatchedHost {
    fn at(&self, t: usize) -> Option<(f64, f64)> {
        Some((*self.values.get(t)?, *self.usual.get(t)?))
    }

    fn usual_now(&self) -> f64 {
        self.usual.get(self.step).copied().unwrap_or(f64::NAN)
    }

    /// Whether enough of the last samples are beyond what is ignored.
    fn is_worth(&self, when: When) -> bool {
        match when {
            When::AtOnce => self.worth_it != 0,
            When::After(n) => self.worth_it.count_ones() >= n,
            When::AfterInARow(n) => {
                let run = (1_u32 << n) - 1;
                (0..=LOOK_BACK.saturating_sub(n)).any(|at| self.worth_it >> at & run == run)
            }
        }
    }
}

/// Whether a value is beyond every bound; what cannot be compared with anything usual is beyond.
fn is_beyond(limit: &Limit, value: f64, usual: f64, bad: Direction) -> bool {
    let (rises, falls) = match bad {
        Direction::Increase | Direction::None => (true, false),
        Direction::Decrease => (false, true),
        Direction::Either => (true, true),
    };
    let beyond_absolute = |bound: f64| (rises && value > bound) || (falls && value < bound);
    let beyond_percent = |percent: f64| {
        let share = percent / 100.0;
        let (high, low) = (usual * (1.0 + share), usual * (1.0 - share));
        usual.is_nan() || (rises && value > high) || (falls && value < low)
    };
    limit.absolute.is_none_or(beyond_absolute) && limit.percent.is_none_or(beyond_percent)
}

/// Four significant digits without an exponent where a person would not write one.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || size == 0.0 {
        format!("{value:.0}")
    } else if size >= 1.0 {
        format!("{:.2}", value).trim_end_matches('0').trim_end_matches('.').to_owned()
    } else if size >= 1e-4 {
        format!("{value:.6}").trim_end_matches('0').to_owned()
    } else {
        format!("{value:e}")
    }
}

/// The values of one metric: as measured, or events per trial.
struct Values<'a> {
    frame: &'a Frame,
    metric: &'a str,
    exposure: Option<&'a str>,
}

impl Values<'_> {
    fn both(&self, host: &str) -> Option<(&Track, Option<&Track>)> {
        let track = self.frame.track(self.metric, host)?;
        match self.exposure {
            None => Some((track, None)),
            Some(exposure) => Some((track, Some(self.frame.track(exposure, host)?))),
        }
    }

    fn live(&self, host: &str) -> Option<Vec<f64>> {
        let (track, trials) = self.both(host)?;
        let Some(trials) = trials else { return Some(track.live.clone()) };
        let ratio = |(events, trials): (&f64, &f64)| if *trials > 0.0 { events / trials } else { f64::NAN };
        Some(track.live.iter().zip(&trials.live).map(ratio).collect())
    }

    /// The median of the reference window; for counts events per trial over all of it.
    fn past(&self, host: &str) -> f64 {
        let Some((track, trials)) = self.both(host) else { return f64::NAN };
        match trials {
            None => median(track.recent.iter().copied()),
            Some(trials) => Ratio::default().with(&track.recent, &trials.recent).value(),
        }
    }

    /// What is usual at each step: at the control hosts by then, where there are any, else the host's own past.
    fn usual(&self, host: &str, steps: usize) -> Vec<f64> {
        let past = self.past(host);
        if self.frame.comparison != Comparison::Control {
            return vec![past; steps];
        }
        let controls: Vec<(&Track, Option<&Track>)> =
            self.frame.controls.iter().filter_map(|control| self.both(&control.name)).collect();
        let mut so_far = Ratio::default();
        let at = |t: usize| {
            let usual = if self.exposure.is_some() {
                for (events, trials) in
                    controls.iter().filter_map(|(events, trials)| Some((events, (*trials)?)))
                {
                    so_far = so_far.with(&events.live[t..=t], &trials.live[t..=t]);
                }
                so_far.value()
            } else {
                median(controls.iter().map(|(track, _)| track.live[t]))
            };
            if usual.is_nan() { past } else { usual }
        };
        (0..steps).map(at).collect()
    }
}

/// Events and trials.
#[derive(Debug, Clone, Copy, Default)]
struct Ratio {
    events: f64,
    trials: f64,
}

impl Ratio {
    fn with(mut self, events: &[f64], trials: &[f64]) -> Self {
        for (events, trials) in events.iter().zip(trials).filter(|(e, n)| e.is_finite() && **n > 0.0) {
            self.events += events;
            self.trials += trials;
        }
        self
    }

    fn value(self) -> f64 {
        if self.trials > 0.0 { self.events / self.trials } else { f64::NAN }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let finite: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    robust::median(&finite).unwrap_or(f64::NAN)
}

/// The highest usual value of a metric on any host before the deployment; `NaN` where nothing was measured.
pub(crate) fn highest_usual(frame: &Frame, metric: &str) -> f64 {
    let source = Values { frame, metric, exposure: None };
    let hosts = frame.new_hosts.iter().chain(&frame.controls);
    hosts.map(|host| source.past(&host.name)).fold(f64::NAN, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, HostGroup};
    use vouch_proto::Strategy;

    fn watch(limit: Limit, values: &[f64]) -> Vec<bool> {
        let live = values.iter().map(|v| v.is_finite().then_some(*v));
        let all: Vec<Option<f64>> = std::iter::repeat_n(Some(100.0), 20).chain(live).collect();
        let case = Case::new("a", Strategy::Previous, 1, [0, 60])
            .with_baseline([-20, 0])
            .with_metric("rt", CaseMetric::judged("ms", Direction::Increase))
            .with_host("h", HostGroup::Service, None)
            .with_series("rt", "h", -20, all);
        let frame = Frame::new(&case, 60).unwrap();
        let settings = MetricSettings { fail_fast: Some(limit), ..MetricSettings::default() };
        let mut watch = Watch::new(&frame, ("rt", &case.metrics["rt"]), &settings, None).unwrap();
        (0..values.len())
            .map(|t| {
                watch.step(t);
                watch.crossing().is_some()
            })
            .collect()
    }

    #[test]
    fn samples_are_counted_as_asked_and_a_gap_is_none() {
        let limit = |when| Limit { absolute: Some(150.0), percent: None, when };
        let values = [200.0, 100.0, 200.0, f64::NAN, 200.0, 200.0];
        assert_eq!(watch(limit(When::AtOnce), &values)[..1], [true]);
        assert_eq!(watch(limit(When::After(3)), &values), [false, false, false, false, true, true]);
        assert_eq!(watch(limit(When::AfterInARow(3)), &values), [false, false, false, false, false, true]);
    }

    #[test]
    fn each_bound_that_is_given_must_be_crossed() {
        let limit = |absolute, percent| Limit { absolute, percent, when: When::AtOnce };
        assert_eq!(watch(limit(Some(150.0), None), &[150.0, 151.0]), [false, true]);
        assert_eq!(watch(limit(None, Some(20.0)), &[119.0, 121.0]), [false, true]);
        assert_eq!(watch(limit(Some(110.0), Some(20.0)), &[115.0, 121.0]), [false, true]);
    }

    #[test]
    fn bounds_have_a_side() {
        let limit = Limit { absolute: Some(50.0), percent: Some(30.0), when: When::AtOnce };
        let percent = Limit { absolute: None, ..limit };
        assert!(is_beyond(&limit, 49.0, 100.0, Direction::Decrease));
        assert!(!is_beyond(&limit, 51.0, 100.0, Direction::Decrease));
        assert!(!is_beyond(&limit, 49.0, 60.0, Direction::Decrease));
        assert!(is_beyond(&percent, 69.0, 100.0, Direction::Either));
        assert!(is_beyond(&percent, 131.0, 100.0, Direction::Either));
        assert!(!is_beyond(&percent, 100.0, 100.0, Direction::Either));
    }

    #[test]
    fn numbers_are_written_as_a_person_would() {
        assert_eq!([2310.4, 52.5, 5.0, 0.05, 0.0].map(short), ["2310", "52.5", "5", "0.05", "0"]);
        assert_eq!(short(2e-9), "2e-9");
    }
}
