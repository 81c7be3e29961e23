//! Each host with itself in a pinned run: minute k with minute k, so that a load profile that ramps is no change; what
//! the load differs by at the same minute is corrected. No season: a run under load makes its own.

use super::{Residuals, Source};
use crate::elasticity::{self, Elasticity};
use crate::frame::{Frame, Track};
use crate::profile::LogScale;
use crate::robust;

/// Steps on either side of a minute of the pinned run that say what was usual then.
const REACH: usize = 7;
/// Fewest steps on either side for a residual of the pinned run that tells about noise.
const LEAST_REACH: usize = 2;
/// Variance of a median over that of a mean.
const MEDIAN_LOSS: f64 = std::f64::consts::FRAC_PI_2;
/// Loads this much apart (ln) at the same minute count as seen.
const KNOWN: f64 = 0.05;

/// How one host's metric follows the load of the run.
struct RunLoad {
    elasticity: Elasticity,
    pinned: Vec<f64>,
    live: Vec<f64>,
    usual: f64,
}

impl RunLoad {
    fn new(source: &Source<'_>, host: usize, metric: &[f64], scale: &LogScale) -> Option<Self> {
        let (track, load) = (source.track(host)?, source.load_track(host)?);
        let pinned = elasticity::ln_load(&load.recent, &load.recent);
        let live = elasticity::ln_load(&load.live, &load.recent);
        let usual = robust::median(&pinned)?;
        let earlier = track.earlier.iter().zip(&load.earlier);
        let earlier: Vec<(Vec<f64>, Vec<f64>)> = earlier
            .map(|(metric, load)| (scale.apply_all(metric), elasticity::ln_load(load, load)))
            .collect();
        let stretches = earlier.iter().map(|(metric, load)| (&metric[..], &load[..]));
        let stretches = stretches.chain(std::iter::once((metric, &pinned[..])));
        Some(Self { elasticity: elasticity::fit(stretches, source.profile.elasticity), pinned, live, usual })
    }

    fn shift(&self, ln_load: Option<&f64>) -> f64 {
        let known = ln_load.filter(|load| load.is_finite());
        known.map_or(0.0, |load| self.elasticity.slope * (load - self.usual))
    }

    /// Doubt at a step: how far the load is from that of the pinned run at the same step.
    fn doubt(&self, step: usize) -> f64 {
        let both = self.live.get(step).zip(self.pinned.get(step));
        let apart = both.map_or(0.0, |(live, pinned)| live - pinned);
        self.elasticity.systematic_error(if apart.is_finite() { apart } else { 0.0 }, KNOWN)
    }
}

/// See [`super::residuals`].
pub(super) fn residuals(source: &Source<'_>, host: usize) -> Option<Residuals> {
    let track = source.track(host)?;
    let scale = source.scale(track)?;
    let pinned = scale.apply_all(&track.recent);
    robust::median(&pinned)?;
    let load = RunLoad::new(source, host, &pinned, &scale);
    let shift = |ln_load: &dyn Fn(&RunLoad) -> f64| load.as_ref().map_or(0.0, ln_load);
    let adjust = |(k, value): (usize, &f64)| value - shift(&|load| load.shift(load.pinned.get(k)));
    let adjusted: Vec<f64> = pinned.iter().enumerate().map(adjust).collect();
    let usual: Vec<f64> = (0..adjusted.len()).map(|k| around(&adjusted, k)).collect();
    let steps = track.live.len();
    let expected: Vec<f64> = (0..steps)
        .map(|k| usual.get(k).copied().unwrap_or(f64::NAN) + shift(&|load| load.shift(load.live.get(k))))
        .collect();
    let values = scale.apply_all(&track.live);
    let mut live: Vec<f64> = values.iter().zip(&expected).map(|(value, expected)| value - expected).collect();
    let switch = source.frame.new_hosts[host].switch.min(steps);
    live[..switch].fill(f64::NAN);
    let n = adjusted.len();
    let tells = |k: usize| if reach(k, n) >= LEAST_REACH { adjusted[k] - usual[k] } else { f64::NAN };
    Some(Residuals {
        baseline: (0..n).map(tells).collect(),
        control: Vec::new(),
        systematic: (0..steps).map(|k| load.as_ref().map_or(0.0, |load| load.doubt(k))).collect(),
        leaning: Vec::new(),
        inflation: (0..steps).map(|k| inflation(k, n)).collect(),
        expected,
        scale,
        relief: 0.0,
        drift: 0.0,
        drift_doubt: Vec::new(),
        live,
    })
}

/// Steps on either side of step `k` that are there on both: a ramp then does not tilt the median.
fn reach(k: usize, n: usize) -> usize {
    REACH.min(k).min(n.saturating_sub(k + 1))
}

fn around(values: &[f64], k: usize) -> f64 {
    let reach = reach(k, values.len());
    robust::median(&values[k - reach..=k + reach]).unwrap_or(f64::NAN)
}

/// How much louder a difference of the two runs is than the pinned run around its median.
fn inflation(k: usize, n: usize) -> f64 {
    if k >= n {
        return 1.0;
    }
    let samples = (2 * reach(k, n) + 1) as f64;
    (1.0 + if samples > 1.0 { MEDIAN_LOSS / samples } else { 1.0 }).sqrt()
}

/// Events per trial around the same minute of the pinned run, over all hosts; 0 where that is not known.
pub(crate) fn ratios(frame: &Frame, metric: &str, exposure: &str) -> Vec<f64> {
    let of_host = |name: &str| frame.track(metric, name).zip(frame.track(exposure, name));
    let tracks: Vec<(&Track, &Track)> =
        frame.new_hosts.iter().filter_map(|host| of_host(&host.name)).collect();
    let at = |k: usize| {
        let (mut events, mut trials) = (0.0, 0.0);
        for (count, exposure) in tracks.iter().filter(|(count, _)| k < count.recent.len()) {
            let reach = reach(k, count.recent.len());
            let span = k - reach..=k + reach;
            let both = count.recent[span.clone()].iter().zip(&exposure.recent[span]);
            for (count, n) in both.filter(|(count, n)| count.is_finite() && **n > 0.0) {
                events += count.min(*n);
                trials += n;
            }
        }
        if trials > 0.0 { events / trials } else { 0.0 }
    };
    (0..frame.seen()).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_is_not_tilted_at_its_ends() {
        let ramp: Vec<f64> = (0..20).map(f64::from).collect();
        assert!((0..20).all(|k| (around(&ramp, k) - ramp[k]).abs() < 1e-12));
    }

    #[test]
    fn the_ends_of_a_run_are_known_less_well() {
        assert_eq!(inflation(0, 20), 2.0_f64.sqrt());
        assert!(inflation(1, 20) > inflation(10, 20) && inflation(19, 20) == inflation(0, 20));
    }
}
