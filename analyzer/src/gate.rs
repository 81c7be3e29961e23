//! Practical size: evidence alone never fails a deployment, the effect must matter as well.

use crate::robust;

/// Samples that are looked back on for the effect.
pub const EFFECT_SAMPLES: usize = 15;
/// Samples that are kept, for the spread.
pub const KEPT_SAMPLES: usize = 30;
/// Until this age a host may still be warming up.
const YOUNG_MIN: f64 = 8.0;
/// Residuals are clipped to this range for the mean (ln ratio).
const CLIP: (f64, f64) = (-1.0, 1.5);
/// A spread counts when it is this many times the gate and this many sigmas.
const SPREAD_GATES: f64 = 2.2;
const SPREAD_SIGMAS: f64 = 1.7;
/// Spikes that make a spread.
const LEAST_SPIKES: usize = 3;
/// Share of the upper quantile that is reported as the effect of a spread.
const SPREAD_EFFECT: f64 = 0.6;

/// The latest residuals of one metric on one host, in the bad direction, oldest first.
#[derive(Debug, Clone)]
pub struct Recent {
    /// A ring: sample number `i` is at `i % KEPT_SAMPLES`.
    samples: [(f64, f64); KEPT_SAMPLES],
    seen: usize,
}

/// What the effect is measured against.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// Smallest change that may fail, as ln ratio.
    pub least: f64,
    /// Noise of a sample now.
    pub sigma: f64,
    /// Whether the metric warms up after a restart.
    pub warms_up: bool,
}

/// Size of the change now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// As ln ratio, up in the bad direction; `NaN` when nothing was measured.
    pub size: f64,
    /// Whether it is large enough to fail.
    pub matters: bool,
}

impl Default for Recent {
    fn default() -> Self {
        Self { samples: [(f64::NAN, f64::NAN); KEPT_SAMPLES], seen: 0 }
    }
}

impl Recent {
    /// Takes in the newest residual, `NaN` for a gap.
    pub fn push(&mut self, residual: f64, age_min: f64) {
        self.samples[self.seen % KEPT_SAMPLES] = (residual, age_min);
        self.seen += 1;
    }

    /// The newest residual and the age of its host; `NaN` before the first.
    fn newest_sample(&self) -> (f64, f64) {
        // Before the first, any place is as empty as another.
        self.samples[self.seen.saturating_sub(1) % KEPT_SAMPLES]
    }

    /// The newest residual.
    #[must_use]
    pub fn newest(&self) -> f64 {
        self.newest_sample().0
    }

    /// Age of the host at the newest residual; `None` before the first.
    #[must_use]
    pub fn newest_age(&self) -> Option<f64> {
        (self.seen > 0).then_some(self.newest_sample().1)
    }

    /// The last `n` residuals of hosts at least `age_min` old, gaps left out.
    fn last(&self, n: usize, age_min: f64) -> Vec<f64> {
        let n = n.min(self.seen).min(KEPT_SAMPLES);
        let newest = (self.seen - n..self.seen).map(|i| self.samples[i % KEPT_SAMPLES]);
        newest.filter(|(r, age)| r.is_finite() && *age >= age_min).map(|(r, _)| r).collect()
    }

    /// All that are kept of hosts that do not warm up any more.
    #[must_use]
    pub fn settled(&self) -> Vec<f64> {
        self.last(KEPT_SAMPLES, YOUNG_MIN)
    }

    /// The effect over the last quarter of an hour, and whether it matters.
    #[must_use]
    pub fn effect(&self, gate: &Gate, p_spread: f64) -> Effect {
        let settled = if self.seen > 3 { 2.0 } else { f64::NEG_INFINITY };
        let mut window = self.last(EFFECT_SAMPLES, settled);
        let Some(middle) = robust::median_in_place(&mut window) else {
            return Effect { size: f64::NAN, matters: false };
        };
        let clipped: f64 = window.iter().map(|r| r.clamp(CLIP.0, CLIP.1)).sum();
        let mut size = middle.max(clipped / window.len() as f64);
        if gate.warms_up && self.newest_sample().1 < YOUNG_MIN && window.len() >= 2 {
            size = size.min(self.where_it_settles(gate.sigma));
        }
        let mut matters = size >= gate.least;
        if p_spread > 0.5 && !matters && window.len() >= 6 {
            let mut window = self.last(KEPT_SAMPLES, 3.0);
            window.sort_unstable_by(f64::total_cmp);
            // The third highest: one bad episode of a minute or two is not enough.
            let high = window.iter().rev().nth(LEAST_SPIKES - 1).copied().unwrap_or(0.0);
            size = size.max(SPREAD_EFFECT * high);
            matters = high >= (SPREAD_GATES * gate.least).max(SPREAD_SIGMAS * gate.sigma);
        }
        Effect { size, matters }
    }

    /// Recovery veto: a residual that still falls is followed down for a few more minutes.
    fn where_it_settles(&self, sigma: f64) -> f64 {
        let last = self.last(5, f64::NEG_INFINITY);
        let n = last.len();
        if n < 2 {
            return f64::INFINITY;
        }
        let slope = (last[n - 1] - last[0]) / (n - 1) as f64;
        let falls = (slope + 0.7 * sigma / n as f64).min(0.0);
        let minutes = if self.newest_sample().1 < 6.0 { 4.0 } else { 3.0 };
        let middle = robust::median(&last[n.saturating_sub(3)..]).unwrap_or(f64::INFINITY);
        let now = middle.min(0.5 * (last[n - 1] + last[n - 2]));
        now + falls * minutes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: Gate = Gate { least: 0.06, sigma: 0.05, warms_up: true };

    fn after(residuals: impl IntoIterator<Item = f64>) -> Recent {
        let mut recent = Recent::default();
        for (age, residual) in residuals.into_iter().enumerate() {
            recent.push(residual, age as f64);
        }
        recent
    }

    #[test]
    fn a_lasting_change_matters_and_a_small_one_does_not() {
        assert!(after([0.2; 20]).effect(&GATE, 0.0).matters);
        assert!(!after([0.05; 20]).effect(&GATE, 0.0).matters);
        assert!(after([0.2; 20]).effect(&GATE, 0.0).size > after([0.1; 20]).effect(&GATE, 0.0).size);
    }

    #[test]
    fn nothing_measured_is_no_effect() {
        let effect = after([f64::NAN; 4]).effect(&GATE, 0.9);
        assert!(effect.size.is_nan() && !effect.matters);
        assert!(!Recent::default().effect(&GATE, 0.9).matters);
    }

    #[test]
    fn a_warm_up_that_still_falls_is_not_held_against_the_host() {
        let falling = [0.9, 0.7, 0.5, 0.35, 0.2];
        assert!(!after(falling).effect(&GATE, 0.0).matters);
        assert!(after(falling).effect(&Gate { warms_up: false, ..GATE }, 0.0).matters);
        assert!(after([0.3; 5]).effect(&GATE, 0.0).matters);
    }

    #[test]
    fn a_spread_matters_only_where_the_states_say_so() {
        let spikes = (0..20).map(|i| if i % 5 == 4 { 0.8 } else { -0.05 });
        let spikes = after(spikes);
        let gate = Gate { least: 0.15, ..GATE };
        assert!(!spikes.effect(&gate, 0.1).matters);
        assert!(spikes.effect(&gate, 0.9).matters);
    }
}
