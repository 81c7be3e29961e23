//! Each host with its own past: the median of the reference window, moved by the load.

use super::season::{self, Earlier};
use super::{Residuals, Source};
use crate::elasticity::{self, Elasticity};
use crate::frame::Track;
use crate::profile::{Family, LogScale, Profile};
use crate::robust;
use crate::trend::Trend;

/// Loads this many standard deviations around the usual count as seen.
const KNOWN_SDS: f64 = 2.0;
/// The load is never taken to be steadier than this (ln).
const LEAST_LOAD_SD: f64 = 0.02;
/// Utilisation of an idle host says nothing: ln of the fewest requests a minute, plus one.
const IDLE_LN_LOAD: f64 = std::f64::consts::LN_2;
/// A doubt that no effect exceeds.
const ANYTHING: f64 = 9.0;

/// How one host's metric follows its load.
pub(super) struct LoadModel {
    elasticity: Elasticity,
    ln_load: Vec<f64>,
    /// Of the earlier windows, each against itself.
    earlier: Vec<Vec<f64>>,
    usual: f64,
    known: f64,
    proportional_to_requests: bool,
}

impl LoadModel {
    /// Learns from everything before step `split` of the joined reference and verification window, and from the
    /// earlier windows, all on the metric's scale.
    pub(super) fn new(
        profile: &Profile,
        metric: &Scaled,
        load: Option<&Track>,
        split: usize,
    ) -> Option<Self> {
        let load = load?;
        let joined = [load.recent.as_slice(), load.live.as_slice()].concat();
        let ln_load = elasticity::ln_load(&joined, &load.recent);
        let split = split.min(metric.joined.len()).min(ln_load.len());
        let earlier: Vec<Vec<f64>> =
            load.earlier.iter().map(|load| elasticity::ln_load(load, load)).collect();
        let before = metric.earlier.iter().zip(&earlier).map(|(metric, load)| (&metric[..], &load[..]));
        let recent = (&metric.joined[..split], &ln_load[..split]);
        let elasticity = elasticity::fit(before.chain([recent]), profile.elasticity);
        let usual = robust::median(&ln_load[..split])?;
        let spread = robust::winsorised_sd(&ln_load[..split], usual, f64::INFINITY);
        Some(Self {
            elasticity,
            ln_load,
            earlier,
            usual,
            known: KNOWN_SDS * spread.max(LEAST_LOAD_SD),
            proportional_to_requests: profile.family == Family::Utilisation,
        })
    }

    /// Change of the expectation at a step of the joined windows; none where the load is unknown.
    pub(super) fn shift(&self, at: usize) -> f64 {
        self.elasticity.slope * self.change(at)
    }

    /// Change of the expectation at a step of an earlier window, by its own load; none where that is unknown.
    pub(super) fn earlier_shift(&self, window: usize, at: usize) -> f64 {
        let load = self.earlier.get(window).and_then(|load| load.get(at)).filter(|load| load.is_finite());
        load.map_or(0.0, |load| self.elasticity.slope * load)
    }

    /// Doubt about the expectation at a step of the joined windows.
    pub(super) fn doubt(&self, at: usize) -> f64 {
        if self.proportional_to_requests && self.ln_load.get(at).is_some_and(|load| *load < IDLE_LN_LOAD) {
            return ANYTHING;
        }
        self.elasticity.systematic_error(self.change(at), self.known)
    }

    /// The same with the sign of the load's change.
    pub(super) fn leaning(&self, at: usize) -> f64 {
        if self.change(at) < 0.0 { -self.doubt(at) } else { self.doubt(at) }
    }

    fn change(&self, at: usize) -> f64 {
        self.ln_load.get(at).filter(|load| load.is_finite()).map_or(0.0, |load| load - self.usual)
    }
}

/// A metric on its logarithmic scale.
pub(super) struct Scaled {
    /// The reference and the verification window, joined.
    pub(super) joined: Vec<f64>,
    /// The earlier windows.
    pub(super) earlier: Vec<Vec<f64>>,
}

impl Scaled {
    pub(super) fn new(scale: &LogScale, track: &Track) -> Self {
        let all = track.recent.iter().chain(&track.live);
        Self {
            joined: all.map(|value| scale.apply(*value)).collect(),
            earlier: track.earlier.iter().map(|values| scale.apply_all(values)).collect(),
        }
    }
}

/// See [`super::residuals`].
pub(super) fn residuals(source: &Source<'_>, host: usize) -> Option<Residuals> {
    let switch = source.frame.new_hosts[host].switch;
    let Learnt { mut residuals, metric, load } =
        learn(&source.profile, source.track(host)?, source.load_track(host), switch)?;
    let earlier = Earlier { starts: &source.frame.earlier, step_min: source.frame.step_min };
    let season = season::season(&metric, load.as_ref(), earlier, residuals.live.len());
    for (t, lift) in season.into_iter().enumerate() {
        residuals.live[t] -= lift.size;
        residuals.expected[t] += lift.size;
        residuals.systematic[t] += lift.error;
    }
    Some(residuals)
}

/// A host that runs the new version from step `switch` on, by its metric and its load.
pub(super) fn of_tracks(
    profile: &Profile,
    track: &Track,
    load: Option<&Track>,
    switch: usize,
) -> Option<Residuals> {
    learn(profile, track, load, switch).map(|learnt| learnt.residuals)
}

/// Residuals, and what they come from. What comes back at the same time of day is still in them.
pub(super) struct Learnt {
    pub(super) residuals: Residuals,
    pub(super) metric: Scaled,
    pub(super) load: Option<LoadModel>,
}

/// As [`of_tracks`], with everything that was learnt on the way.
pub(super) fn learn(profile: &Profile, track: &Track, load: Option<&Track>, switch: usize) -> Option<Learnt> {
    let scale = LogScale::new(profile, &track.recent)?;
    let switch = switch.min(track.live.len());
    let split = track.recent.len() + switch;
    let metric = Scaled::new(&scale, track);
    let load = LoadModel::new(profile, &metric, load, split);
    let shift = |at: usize| load.as_ref().map_or(0.0, |load| load.shift(at));
    let adjusted: Vec<f64> = metric.joined.iter().enumerate().map(|(at, value)| value - shift(at)).collect();
    let trend = Trend::fit(&adjusted[..split])?;
    let residuals: Vec<f64> = adjusted.iter().enumerate().map(|(at, value)| value - trend.at(at)).collect();
    let mut live = residuals[track.recent.len()..].to_vec();
    live[..switch].fill(f64::NAN);
    let steps = track.recent.len()..track.recent.len() + live.len();
    let drift_doubt = steps.clone().map(|at| trend.doubt(at)).collect();
    let residuals = Residuals {
        baseline: residuals[..split].to_vec(),
        control: Vec::new(),
        systematic: steps.clone().map(|at| load.as_ref().map_or(0.0, |load| load.doubt(at))).collect(),
        leaning: steps.clone().map(|at| load.as_ref().map_or(0.0, |load| load.leaning(at))).collect(),
        inflation: vec![1.0; live.len()],
        expected: steps.map(|at| trend.at(at) + shift(at)).collect(),
        scale,
        relief: 0.0,
        drift: trend.slope(),
        drift_doubt,
        live,
    };
    Some(Learnt { residuals, metric, load })
}
