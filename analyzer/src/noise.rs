//! How loud and how slow a metric's residuals are without a deployment, and residuals freed of that dependence.

use crate::expected::{LEAST_SIGMA, Residuals};
use crate::robust::{self, Summary};

/// Fewest baseline samples that are believed alone; below, the noise is at least [`FEW_SIGMA`].
const ENOUGH: usize = 20;
const FEW_SIGMA: f64 = 0.02;
/// Samples that the controls' differences weigh against a host's own.
const OTHERS_WEIGHT: f64 = 20.0;
/// Noise where nothing is known.
const UNKNOWN: Summary = Summary { n: 0, median: 0.0, sigma: 0.3, autocorrelation: 0.0 };
/// The estimate of an autocorrelation is biased downwards, by about (1 + 4 phi) / n (Kendall 1954).
const AUTOCORRELATION_GAIN: f64 = 1.05;
const MOST_AUTOCORRELATION: f64 = 0.9;
/// Whitening forgets more extreme residuals than these, so that an outlier does not echo.
const ECHO: (f64, f64) = (-4.0, 8.0);

/// Noise of one series of residuals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Standard deviation of a sample.
    pub sigma: f64,
    /// Lag-1 autocorrelation, 0 to 0.85.
    pub autocorrelation: f64,
    /// Baseline samples behind it.
    pub n: usize,
}

impl Noise {
    /// From a series alone.
    #[must_use]
    pub fn of(baseline: &[f64], least_sigma: f64) -> Self {
        let own = robust::summary(baseline).unwrap_or(UNKNOWN);
        let bias = 1.0 / own.n.max(10) as f64;
        let autocorrelation =
            (own.autocorrelation * AUTOCORRELATION_GAIN + bias).clamp(0.0, MOST_AUTOCORRELATION);
        Self { sigma: own.sigma.max(least_sigma), autocorrelation, n: own.n }
    }

    /// From a host's own past and what the controls differed by.
    #[must_use]
    pub fn of_residuals(residuals: &Residuals) -> Self {
        let mut noise = Self::of(&residuals.baseline, LEAST_SIGMA);
        let mut others: Vec<f64> =
            residuals.control.iter().filter_map(|row| robust::summary(row)).map(|row| row.sigma).collect();
        // The median, so that one wild control does not deafen the comparison.
        let Some(usual) = robust::median_in_place(&mut others) else {
            noise.sigma = noise.sigma.max(if noise.n >= ENOUGH { LEAST_SIGMA } else { FEW_SIGMA });
            return noise;
        };
        let own = noise.n as f64;
        let variance = own * noise.sigma * noise.sigma + OTHERS_WEIGHT * usual * usual;
        noise.sigma = (variance / (own + OTHERS_WEIGHT)).sqrt().max(LEAST_SIGMA);
        noise
    }

    /// Standard error of the baseline's level.
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        let dependence = (1.0 + self.autocorrelation) / (1.0 - self.autocorrelation);
        self.sigma * (dependence / self.n.max(5) as f64).sqrt()
    }

    /// Innovations of a baseline, in sigmas; gaps and what follows them are left out.
    #[must_use]
    pub fn whiten(&self, baseline: &[f64]) -> Vec<f64> {
        let scale = 1.0 / (self.sigma * self.innovation());
        let innovation = |pair: &[f64]| (pair[1] - self.autocorrelation * pair[0]) * scale;
        let mut white = Vec::with_capacity(baseline.len());
        white.extend(baseline.windows(2).map(innovation).filter(|e| e.is_finite()));
        white
    }

    fn innovation(&self) -> f64 {
        (1.0 - self.autocorrelation * self.autocorrelation).max(0.05).sqrt()
    }

    /// Whitens live residuals one by one.
    #[must_use]
    pub fn whitener(&self) -> Whitener {
        Whitener { autocorrelation: self.autocorrelation, scale: 1.0 / self.innovation(), previous: 0.0 }
    }
}

/// Turns standardised residuals, in order of time, into innovations of an AR(1).
#[derive(Debug, Clone, Copy)]
pub struct Whitener {
    autocorrelation: f64,
    scale: f64,
    previous: f64,
}

impl Whitener {
    /// Lag-1 autocorrelation that it takes out.
    #[must_use]
    pub const fn autocorrelation(&self) -> f64 {
        self.autocorrelation
    }

    /// The innovation of a residual in sigmas; `NaN` for a gap.
    pub fn innovation(&mut self, z: f64) -> f64 {
        let known = self.previous.is_finite();
        let innovation = if known { (z - self.autocorrelation * self.previous) * self.scale } else { z };
        self.previous = z.clamp(ECHO.0, ECHO.1);
        innovation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ar1(phi: f64, n: usize) -> Vec<f64> {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut level = 0.0;
        let mut next = || {
            let noise = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            level = phi * level + (1.0 - phi * phi).sqrt() * noise;
            level
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn noise_of_an_autoregression_is_found_and_whitened() {
        let series = ar1(0.6, 4000);
        let noise = Noise::of(&series, 0.0);
        assert!((noise.sigma - 1.0).abs() < 0.08, "{noise:?}");
        assert!((noise.autocorrelation - 0.63).abs() < 0.05, "{noise:?}");
        let white = robust::summary(&noise.whiten(&series)).unwrap();
        assert!(white.autocorrelation.abs() < 0.06 && (white.sigma - 1.0).abs() < 0.1, "{white:?}");
    }

    #[test]
    fn live_residuals_are_whitened_like_the_baseline() {
        let series = ar1(0.5, 50);
        let noise = Noise { sigma: 1.0, autocorrelation: 0.5, n: 50 };
        let mut whitener = noise.whitener();
        let live: Vec<f64> = series.iter().map(|z| whitener.innovation(*z)).collect();
        assert_eq!(live[1..], noise.whiten(&series)[..]);
    }

    #[test]
    fn after_a_gap_the_residual_stands_for_itself() {
        let mut whitener = Noise { sigma: 1.0, autocorrelation: 0.5, n: 9 }.whitener();
        assert!(whitener.innovation(f64::NAN).is_nan());
        assert_eq!(whitener.innovation(2.0), 2.0);
    }
}
