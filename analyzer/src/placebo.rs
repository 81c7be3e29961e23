//! Pretended deployments in the past: what the same statistic reaches where nothing was deployed.

use crate::emission::{self, Emission};
use crate::noise::Noise;
use crate::pair::PairModel;
use crate::robust;

/// Placebo evidence up to this size is ordinary.
const ORDINARY: f64 = 0.5;
/// A window whose highest residual is below this many sigmas cannot reach anything worth computing.
const WORTH_A_LOOK: f64 = 1.3;
/// Age at which nothing warms up any more.
const SETTLED_MIN: f64 = 1e6;

/// What the placebo windows are judged with.
#[derive(Debug, Clone, Copy)]
pub struct Placebo<'a> {
    /// Noise of the residuals.
    pub noise: Noise,
    /// Letters against states.
    pub emission: &'a Emission,
    /// The pair of models.
    pub model: &'a PairModel,
    /// The part of a residual that is no evidence.
    pub dead_zone: f64,
    /// Steps of the verification window: a pretended one is as long.
    pub steps: usize,
}

impl Placebo<'_> {
    /// The largest evidence, beyond the ordinary, over windows of each series of residuals (bad direction up).
    #[must_use]
    pub fn evidence<'b>(&self, series: impl Iterator<Item = &'b [f64]>) -> f64 {
        if self.steps < 2 {
            return 0.0;
        }
        let stride = (2 * self.steps / 3).max(1);
        let shortest = (self.steps / 2).max(2);
        let mut most: f64 = 0.0;
        for residuals in series {
            let Some(level) = robust::median(residuals) else { continue };
            let mut from = 0;
            while from + shortest <= residuals.len() {
                let window = &residuals[from..(from + self.steps).min(residuals.len())];
                most = most.max(self.window(window, level + self.dead_zone));
                from += stride;
            }
        }
        (most - ORDINARY).max(0.0)
    }

    fn window(&self, residuals: &[f64], zero: f64) -> f64 {
        let highest = residuals.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if highest - zero <= WORTH_A_LOOK * self.noise.sigma {
            return 0.0;
        }
        let mut whitener = self.noise.whitener();
        let mut pair = self.model.start();
        let mut most = pair;
        for residual in residuals {
            let innovation = whitener.innovation((residual - zero) / self.noise.sigma);
            let row = innovation
                .is_finite()
                .then(|| self.emission.likelihood(emission::letter(innovation), SETTLED_MIN));
            self.model.step(&mut pair, row.as_ref(), SETTLED_MIN);
            if pair.exceeds(&most) {
                most = pair;
            }
        }
        most.ln_evidence()
    }
}
