//! A case on one grid of time: for each metric and host the reference window, the other windows, and what has
//! been seen of the verification. What lies behind the last minute seen is not in here, so nothing can look at it.

use crate::case::{Case, CaseError, CaseHost, HostGroup, LeftOut};
use crate::strategy;
use std::collections::BTreeMap;
use vouch_proto::Strategy;

/// How the new version is compared, once strategies that come down to the same are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Each host with its own past.
    Past,
    /// New hosts with control hosts at the same time.
    Control,
    /// Each host with those that still run the old version, then with its own past.
    Remaining,
    /// The hosts of a new stack with those of the old one before the switch.
    OldStack,
    /// Each host with itself in a pinned run, minute by minute.
    Pinned,
}

impl Comparison {
    /// What levels are compared with, in words.
    #[must_use]
    pub const fn of_levels(self) -> &'static str {
        match self {
            Self::Control => "the control hosts",
            Self::Past => "the time before the deployment, load corrected",
            Self::Remaining => "the hosts on the old version, and the time before",
            Self::OldStack => "the old stack before the switch, load corrected",
            Self::Pinned => "the same minute of the pinned run, load corrected",
        }
    }

    /// What counts are compared with, in words.
    #[must_use]
    pub const fn of_counts(self) -> &'static str {
        match self {
            Self::Control => "the control hosts",
            Self::Past | Self::Remaining => "the time before the deployment",
            Self::OldStack => "the old stack before the switch",
            Self::Pinned => "the pinned run",
        }
    }
}

/// Minutes after which a restarted process has warmed up: the same as for the gate on young hosts.
const WARMED_UP_MIN: i64 = 8;

/// One metric on one host. `NaN` is a gap.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// The reference window, the one that ends last.
    pub recent: Vec<f64>,
    /// The other windows, in order of time, as in [`Frame::earlier`].
    pub earlier: Vec<Vec<f64>>,
    /// The verification window as far as it was seen.
    pub live: Vec<f64>,
}

impl Track {
    /// Whether there is any sample before the deployment.
    #[must_use]
    pub fn has_past(&self) -> bool {
        self.recent.iter().any(|v| v.is_finite())
    }
}

/// A host of the case.
#[derive(Debug, Clone)]
pub struct FrameHost {
    /// Its name.
    pub name: String,
    /// Step of the verification from which it runs the new version; `usize::MAX` for a control.
    pub switch: usize,
    /// Steps from its switch on at which its process started again.
    pub restarts: Vec<usize>,
}

impl FrameHost {
    /// Steps since the new version's process last started.
    #[must_use]
    pub fn age(&self, t: usize) -> usize {
        let latest = self.restarts.iter().filter(|restart| **restart <= t).max();
        t.saturating_sub(latest.map_or(self.switch, |restart| self.switch.max(*restart)))
    }

    /// Whether its process started again at this step.
    #[must_use]
    pub fn restarts_at(&self, t: usize) -> bool {
        t > self.switch && self.restarts.contains(&t)
    }
}

/// A case on one grid of time.
#[derive(Debug, Clone)]
pub struct Frame {
    /// How the new version is compared.
    pub comparison: Comparison,
    /// Minutes per step.
    pub step_min: i64,
    /// Steps of the whole verification window, seen or not.
    pub steps: usize,
    /// Start of the reference window, in steps before the verification (negative).
    pub recent_start: i64,
    /// Starts of the other windows, in steps from the verification, ascending.
    pub earlier: Vec<i64>,
    /// Hosts that run, or will run, the new version.
    pub new_hosts: Vec<FrameHost>,
    /// Hosts of the old version that are compared with in [`Comparison::Control`] and [`Comparison::OldStack`].
    pub controls: Vec<FrameHost>,
    tracks: BTreeMap<String, BTreeMap<String, Track>>,
}

impl Frame {
    /// Lays the first `minutes_seen` minutes of the verification, and all that was before it, on the grid.
    ///
    /// # Errors
    /// What [`Case::validate`] refuses.
    pub fn new(case: &Case, minutes_seen: i64) -> Result<Self, CaseError> {
        case.validate()?;
        let step_min = case.interval_min;
        let [begin, end] = case.verification;
        let steps = count(end - begin, step_min);
        let seen = count(minutes_seen, step_min).min(steps);
        let comparison = comparison(case);
        let mut windows = case.baseline.clone();
        windows.sort_unstable_by_key(|[start, end]| (*end, *start));
        let recent = windows.pop().unwrap_or([begin, begin]);
        windows.sort_unstable();
        let grid = Grid { step_min, begin, recent: clip(recent, begin), windows, seen };
        let mut tracks: BTreeMap<String, BTreeMap<String, Track>> = BTreeMap::new();
        for series in &case.series {
            let track = tracks.entry(series.metric.clone()).or_default().entry(series.host.clone());
            grid.place(track.or_insert_with(|| grid.empty()), series.start, &series.values);
        }
        grid.leave_out_warm_ups(&mut tracks, case);
        grid.leave_out(&mut tracks, &case.left_out);
        let (new_hosts, controls) = hosts(case);
        Ok(Self {
            comparison,
            step_min,
            steps,
            recent_start: (grid.recent[0] - begin).div_euclid(step_min),
            earlier: grid.windows.iter().map(|w| (w[0] - begin).div_euclid(step_min)).collect(),
            new_hosts,
            controls: match comparison {
                Comparison::Control | Comparison::OldStack => controls,
                Comparison::Past | Comparison::Remaining | Comparison::Pinned => Vec::new(),
            },
            tracks,
        })
    }

    /// A metric on a host; `None` where there is no series at all.
    #[must_use]
    pub fn track(&self, metric: &str, host: &str) -> Option<&Track> {
        self.tracks.get(metric)?.get(host)
    }

    /// All hosts with a series of the metric.
    pub fn tracks(&self, metric: &str) -> impl Iterator<Item = (&str, &Track)> {
        self.tracks.get(metric).into_iter().flatten().map(|(host, track)| (host.as_str(), track))
    }

    /// The same before the first step of the verification.
    #[must_use]
    pub fn before_verification(&self) -> Self {
        let mut before = self.clone();
        before.tracks.values_mut().flat_map(BTreeMap::values_mut).for_each(|track| track.live.clear());
        before
    }

    /// Steps of the verification that were seen.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.tracks.values().flatten().map(|(_, track)| track.live.len()).max().unwrap_or(0)
    }

    /// Minutes per step as a number.
    #[must_use]
    pub fn step_minutes(&self) -> f64 {
        self.step_min as f64
    }
}

fn count(minutes: i64, step_min: i64) -> usize {
    usize::try_from(minutes.div_euclid(step_min)).unwrap_or(0)
}

/// The part of a reference window before the verification.
fn clip([start, end]: [i64; 2], begin: i64) -> [i64; 2] {
    [start.min(begin), end.min(begin)]
}

fn comparison(case: &Case) -> Comparison {
    match strategy::choose(case).strategy {
        Strategy::Canary if strategy::dilution(case).is_some() => Comparison::Past,
        Strategy::Canary => Comparison::Control,
        Strategy::Rolling => Comparison::Remaining,
        Strategy::BlueGreen => Comparison::OldStack,
        Strategy::LoadTest => Comparison::Pinned,
        Strategy::Previous | Strategy::Auto => Comparison::Past,
    }
}

fn hosts(case: &Case) -> (Vec<FrameHost>, Vec<FrameHost>) {
    let begin = case.verification[0];
    let mut new_hosts = Vec::new();
    let mut controls = Vec::new();
    for (name, host) in &case.hosts {
        let name = name.clone();
        match host.group {
            HostGroup::Control => {
                controls.push(FrameHost { name, switch: usize::MAX, restarts: Vec::new() });
            }
            HostGroup::Service | HostGroup::Test => {
                let switch = (host.switch.unwrap_or(0) - begin).max(0) as u64;
                // A sample that the switch falls into is not of the old version any more, so it is judged.
                let switch = usize::try_from(switch / case.interval_min.unsigned_abs()).unwrap_or(usize::MAX);
                let restarts = host.restarts.iter().filter_map(|minute| step_of(case, *minute)).collect();
                new_hosts.push(FrameHost { name, switch, restarts });
            }
        }
    }
    (new_hosts, controls)
}

/// Step of the verification that a minute falls into; `None` before it.
fn step_of(case: &Case, minute: i64) -> Option<usize> {
    usize::try_from((minute - case.verification[0]).div_euclid(case.interval_min)).ok()
}

/// The minutes in which a host that runs the old version warms up after a restart: they say nothing about that version.
fn warm_ups(host: &CaseHost) -> impl Iterator<Item = [i64; 2]> {
    let switch = match host.group {
        HostGroup::Control => i64::MAX,
        HostGroup::Service | HostGroup::Test => host.switch.unwrap_or(0),
    };
    let restarts = host.restarts.iter().filter(move |minute| **minute < switch);
    restarts.map(move |minute| [*minute, (*minute + WARMED_UP_MIN).min(switch)])
}

struct Grid {
    step_min: i64,
    begin: i64,
    recent: [i64; 2],
    windows: Vec<[i64; 2]>,
    seen: usize,
}

impl Grid {
    fn empty(&self) -> Track {
        let gaps = |[start, end]: [i64; 2]| vec![f64::NAN; count(end - start, self.step_min)];
        Track {
            recent: gaps(self.recent),
            earlier: self.windows.iter().map(|window| gaps(*window)).collect(),
            live: vec![f64::NAN; self.seen],
        }
    }

    fn place(&self, track: &mut Track, start: i64, values: &[Option<f64>]) {
        copy(&mut track.recent, (self.recent[0] - start) / self.step_min, values);
        for (window, target) in self.windows.iter().zip(&mut track.earlier) {
            copy(target, (window[0] - start) / self.step_min, values);
        }
        copy(&mut track.live, (self.begin - start) / self.step_min, values);
    }
}

impl Grid {
    /// Makes gaps of the minutes in which hosts that run the old version warm up.
    fn leave_out_warm_ups(&self, tracks: &mut BTreeMap<String, BTreeMap<String, Track>>, case: &Case) {
        for (name, host) in &case.hosts {
            for span in warm_ups(host) {
                for track in tracks.values_mut().filter_map(|hosts| hosts.get_mut(name)) {
                    self.clear_past(track, span);
                    self.clear(&mut track.live, self.begin, span);
                }
            }
        }
    }

    /// Makes gaps of the times before the verification that say nothing about the service as it should be.
    fn leave_out(&self, tracks: &mut BTreeMap<String, BTreeMap<String, Track>>, times: &[LeftOut]) {
        for span in times.iter().map(|one| one.window) {
            for track in tracks.values_mut().flat_map(BTreeMap::values_mut) {
                self.clear_past(track, span);
            }
        }
    }

    fn clear_past(&self, track: &mut Track, span: [i64; 2]) {
        self.clear(&mut track.recent, self.recent[0], span);
        for (window, values) in self.windows.iter().zip(&mut track.earlier) {
            self.clear(values, window[0], span);
        }
    }

    /// Clears the samples that overlap `[from, to)` in a series that starts at `start`.
    fn clear(&self, values: &mut [f64], start: i64, [from, to]: [i64; 2]) {
        let index = |minutes: i64| usize::try_from(minutes).unwrap_or(0).min(values.len());
        let first = index((from - start).div_euclid(self.step_min));
        let last = index(-(start - to).div_euclid(self.step_min));
        values[first..last.max(first)].fill(f64::NAN);
    }
}

/// Copies `values[offset..]` to the front of `target`, as far as both reach; a negative offset leaves room before.
fn copy(target: &mut [f64], offset: i64, values: &[Option<f64>]) {
    let skip = usize::try_from(offset).unwrap_or(0).min(values.len());
    let room = usize::try_from(-offset).unwrap_or(0).min(target.len());
    for (slot, value) in target[room..].iter_mut().zip(&values[skip..]) {
        if let Some(value) = value {
            *slot = *value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CaseMetric;
    use vouch_proto::Direction;

    fn numbers(from: i64, n: i64) -> Vec<Option<f64>> {
        (from..from + n).map(|minute| Some(minute as f64)).collect()
    }

    #[test]
    fn samples_land_in_their_windows_and_the_unseen_is_left_out() {
        let case = Case::new("a", Strategy::Rolling, 1, [0, 10])
            .with_baseline([-4, 0])
            .with_baseline([-24, -18])
            .with_metric("rt", CaseMetric::judged("ms", Direction::Increase))
            .with_host("h", HostGroup::Test, Some(3))
            .with_series("rt", "h", -22, numbers(-22, 4))
            .with_series("rt", "h", -3, numbers(-3, 9));
        let frame = Frame::new(&case, 5).unwrap();
        let track = frame.track("rt", "h").unwrap();
        let shown = |values: &[f64]| format!("{values:?}");
        assert_eq!(shown(&track.recent), "[NaN, -3.0, -2.0, -1.0]");
        assert_eq!(shown(&track.earlier[0]), "[NaN, NaN, -22.0, -21.0, -20.0, -19.0]");
        assert_eq!(shown(&track.live), "[0.0, 1.0, 2.0, 3.0, 4.0]");
        assert_eq!((frame.steps, frame.seen(), frame.new_hosts[0].switch), (10, 5, 3));
        assert_eq!((frame.recent_start, frame.earlier.as_slice()), (-4, [-24].as_slice()));
        assert!(track.has_past() && frame.track("rt", "x").is_none());
    }

    fn with(strategy: Strategy, group: HostGroup, switch: i64) -> Case {
        let measured = |case: Case, host: &str| case.with_series("rt", host, -5, vec![Some(1.0); 10]);
        let case = Case::new("a", strategy, 1, [0, 5])
            .with_baseline([-5, 0])
            .with_metric("rt", CaseMetric::judged("ms", Direction::Increase))
            .with_host("c", group, None)
            .with_host("t", HostGroup::Test, Some(switch))
            .with_host("u", HostGroup::Test, Some(0));
        measured(measured(case, "c"), "t")
    }

    #[test]
    fn strategies_come_down_to_five_comparisons() {
        let of = |strategy, group, switch| {
            Frame::new(&with(strategy, group, switch), 0).map(|frame| frame.comparison)
        };
        assert_eq!(of(Strategy::Canary, HostGroup::Control, 0), Ok(Comparison::Control));
        assert_eq!(of(Strategy::Auto, HostGroup::Control, 0), Ok(Comparison::Control));
        assert_eq!(of(Strategy::Auto, HostGroup::Service, 3), Ok(Comparison::Remaining));
        assert_eq!(of(Strategy::Auto, HostGroup::Service, 0), Ok(Comparison::Past));
        assert_eq!(of(Strategy::BlueGreen, HostGroup::Control, 0), Ok(Comparison::OldStack));
        assert_eq!(of(Strategy::BlueGreen, HostGroup::Service, 0), Ok(Comparison::Past));
        assert_eq!(of(Strategy::LoadTest, HostGroup::Service, 0), Ok(Comparison::Pinned));
        assert!(of(Strategy::Canary, HostGroup::Service, 0).is_err());
        let diluted = with(Strategy::Canary, HostGroup::Service, 0).diluted_by(0.2);
        assert_eq!(Frame::new(&diluted, 0).map(|frame| frame.comparison), Ok(Comparison::Past));
    }

    #[test]
    fn a_restart_is_no_switch() {
        let case = Case::new("a", Strategy::Canary, 1, [0, 30])
            .with_baseline([-20, 0])
            .with_metric("rt", CaseMetric::judged("ms", Direction::Increase))
            .with_host("c", HostGroup::Control, None)
            .with_host("t", HostGroup::Test, Some(4))
            .with_series("rt", "c", -20, numbers(-20, 50))
            .with_series("rt", "t", -20, numbers(-20, 50))
            .with_restart("c", -2)
            .with_restart("c", 12)
            .with_restart("t", 1)
            .with_restart("t", 9);
        let frame = Frame::new(&case, 30).unwrap();
        let gaps =
            |values: &[f64]| -> Vec<usize> { (0..values.len()).filter(|t| values[*t].is_nan()).collect() };
        let control = frame.track("rt", "c").unwrap();
        assert_eq!(gaps(&control.recent), [18, 19]);
        assert_eq!(
            gaps(&control.live),
            (0..6).chain(12..20).collect::<Vec<_>>(),
            "what warms up is left out"
        );
        let test = frame.track("rt", "t").unwrap();
        assert_eq!(
            gaps(&test.live),
            [1, 2, 3],
            "the old version warmed up; the new one is seen from its switch on"
        );
        let host = &frame.new_hosts[0];
        let ages: Vec<usize> = [4, 8, 9, 12].map(|t| host.age(t)).to_vec();
        assert_eq!(ages, [0, 4, 0, 3]);
        assert!(host.restarts_at(9) && !host.restarts_at(1) && !host.restarts_at(4));
    }

    #[test]
    fn a_partial_last_sample_is_not_judged() {
        let case = Case::new("a", Strategy::Previous, 5, [0, 14]).with_host("svc", HostGroup::Service, None);
        assert_eq!(Frame::new(&case, 14).unwrap().steps, 2);
    }
}
