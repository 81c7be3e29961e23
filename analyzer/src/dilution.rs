//! A canary seen through the service as a whole: a regression of x in it shows as its share of the traffic times x.
//! Limits shrink with the share, effects are told of the canary, and the smallest effect that could be found is said.

use crate::case::Case;
use crate::detector::errors::CountGate;
use crate::detector::level::LEVEL_DOUBT;
use crate::expected::{self, Source};
use crate::frame::Frame;
use crate::judge::Judgement;
use crate::maths::ln;
use crate::noise::Noise;
use crate::profile::Profile;
use vouch_proto::Outcome;

/// Versions differ in the share of the traffic that the new one has; what else keeps metrics from being alike does not
/// shrink with it. So much of the dead zone stays.
const LEAST_DEAD_ZONE: f64 = 0.5;
/// Shifts of the degraded states, in sigmas: a change is found through the one that suits it best.
const SHIFTS: [f64; 4] = [0.7, 1.2, 2.0, 3.5];
/// What not knowing onset and height of a change costs, in nats, and how much dearer heavy tails make it.
const PRICE: f64 = 4.0;
const HEAVY_TAILS: f64 = 1.25;
/// How much more than a Poisson count an ordinary one varies.
const DISPERSION: f64 = 1.3;

/// How a diluted canary was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Diluted {
    /// The canary's share of the traffic.
    pub share: f64,
    /// By judged metric: the smallest change in the canary that could be found by the end of the window; relative, or
    /// events per trial for counts.
    pub smallest: Vec<(String, f64)>,
}

/// What is asked of a change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    /// Evidence to fail at the end of the window, for one metric, in nats.
    pub(crate) nats: f64,
    /// The canary's share of the traffic.
    pub(crate) share: f64,
}

/// The limits of a metric of the service as a whole.
pub(crate) fn profile(profile: Profile, share: f64) -> Profile {
    let gate = ln(1.0 + share * libm::expm1(profile.gate));
    Profile { gate, dead_zone: profile.dead_zone * share.max(LEAST_DEAD_ZONE), ..profile }
}

/// The limits of a count of the service as a whole.
pub(crate) fn count_gate(gate: CountGate, share: f64) -> CountGate {
    CountGate { rise: gate.rise * share, multiple: 1.0 + share * (gate.multiple - 1.0), ..gate }
}

/// The smallest relative change in the canary that could be found; `None` without a reference.
pub(crate) fn smallest_level(source: &Source<'_>, demand: Demand) -> Option<f64> {
    let smallest = |noise: Noise| {
        let dead_zone = source.profile.dead_zone + LEVEL_DOUBT * noise.standard_error();
        let shift = smallest_shift((demand.nats + PRICE) / source.frame.steps.max(1) as f64);
        let phi = noise.autocorrelation;
        let lasting = shift * noise.sigma * ((1.0 + phi) / (1.0 - phi)).sqrt();
        (dead_zone + lasting).max(source.profile.gate)
    };
    let residuals = expected::residuals(source);
    let found = residuals.iter().flatten().map(|r| smallest(Noise::of_residuals(r)));
    let found = found.fold(f64::INFINITY, f64::min);
    found.is_finite().then(|| libm::expm1(found) / demand.share)
}

/// The smallest shift, in sigmas of independent samples, that so many nats a sample can be got from: a state of shift s
/// earns s d - s^2 / 2 on average.
fn smallest_shift(nats_a_sample: f64) -> f64 {
    let through = |s: f64| (HEAVY_TAILS * nats_a_sample + 0.5 * s * s) / s;
    SHIFTS.into_iter().map(through).fold(f64::INFINITY, f64::min)
}

/// The smallest rise of a ratio of events in the canary that could be found; `None` without trials before.
pub(crate) fn smallest_count(
    frame: &Frame,
    (metric, exposure): (&str, &str),
    gate: CountGate,
    demand: Demand,
) -> Option<f64> {
    let (mut events, mut trials, mut steps) = (0.0, 0.0, 0.0);
    for host in &frame.new_hosts {
        let both = frame.track(metric, &host.name).zip(frame.track(exposure, &host.name));
        let Some((counts, exposure)) = both else { continue };
        let both = counts.recent.iter().zip(&exposure.recent);
        for (count, n) in both.filter(|(count, n)| count.is_finite() && **n > 0.0) {
            events += count;
            trials += n;
            steps += 1.0;
        }
    }
    if trials <= 0.0 {
        return None;
    }
    let ahead = trials / steps * frame.steps as f64;
    let usual = (events + 0.5) / (trials + 300.0);
    let needed = DISPERSION * (demand.nats + PRICE) / ahead;
    let earned = |rise: f64| (usual + rise) * ln((usual + rise) / usual) - rise;
    let (mut low, mut high) = (0.0, (1.0 - usual).max(0.0));
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if earned(middle) < needed { low = middle } else { high = middle }
    }
    let least = gate.rise.max((gate.multiple - 1.0) * usual).max(gate.excess / ahead);
    Some(high.max(least) / demand.share)
}

/// Tells effects of the canary, and says that they were seen through the service as a whole.
pub(crate) fn label(judgement: &mut Judgement, case: &Case, diluted: Diluted) {
    let share = format!("{:.1} %", 100.0 * diluted.share);
    for unit in &mut judgement.metrics {
        unit.effect /= diluted.share;
        unit.interval = unit.interval.map(|ends| ends.map(|end| end / diluted.share));
        let size = shown(&unit.metric, unit.effect, case);
        unit.reason = format!("{}; of the canary, with {share} of the traffic: {size}", unit.reason);
    }
    let smallest: Vec<String> = diluted
        .smallest
        .iter()
        .map(|(metric, size)| format!("{metric} {}", shown(metric, *size, case)))
        .collect();
    let found = match judgement.outcome {
        Some(Outcome::Pass | Outcome::Inconclusive | Outcome::Error) if !smallest.is_empty() => {
            format!("; what could be found is a change in the canary of at least {}", smallest.join(", "))
        }
        Some(_) | None => String::new(),
    };
    judgement.reason = format!(
        "{} (diluted: the canary has {share} of the traffic that is measured{found})",
        judgement.reason
    );
    judgement.diluted = Some(diluted);
}

/// A size as a person reads it: relative, or in percent of the trials.
fn shown(metric: &str, size: f64, case: &Case) -> String {
    let is_count = case.metrics.get(metric).is_some_and(|metric| metric.exposure.is_some());
    if is_count { format!("{:.2} % of the requests", 100.0 * size) } else { format!("{:.0} %", 100.0 * size) }
}
