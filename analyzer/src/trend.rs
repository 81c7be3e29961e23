//! The drift of a metric before the deployment, carried on as far as it is sure.

use crate::robust;

/// Fewest samples to see a drift in.
const LEAST_SAMPLES: usize = 45;
/// The part of the drift that may be noise, in standard errors, is not carried on (soft threshold).
const UNSURE: f64 = 1.0;
/// A drift is carried on for this many lengths of the window it was seen in, then the level stays.
const REACH: f64 = 0.5;

/// A straight line through a series, shrunk towards a constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    level: f64,
    middle: f64,
    slope: f64,
    /// What was taken off the slope; 0 where none is carried on.
    unsure: f64,
    n: f64,
    last: f64,
}

impl Trend {
    /// From the medians of the first and the last third: a few wild samples do not tilt it.
    /// `None` without any sample.
    #[must_use]
    pub fn fit(series: &[f64]) -> Option<Self> {
        let level = robust::median(series)?;
        let n = series.len() as f64;
        let middle = 0.5 * (n - 1.0);
        let (slope, unsure) = sure_slope(series).filter(|(slope, _)| *slope != 0.0).unwrap_or((0.0, 0.0));
        Some(Self { level, middle, slope, unsure, n, last: n * (1.0 + REACH) })
    }

    /// Change per sample; 0 where none is sure.
    #[must_use]
    pub const fn slope(&self) -> f64 {
        self.slope
    }

    /// How far the drift may have carried the level beyond its value at a position after the series.
    #[must_use]
    pub fn doubt(&self, position: usize) -> f64 {
        self.unsure * ((position as f64).min(self.last) - self.n).max(0.0)
    }

    /// Its value at a position, counted like the series from 0.
    #[must_use]
    pub fn at(&self, position: usize) -> f64 {
        self.level + self.slope * ((position as f64).min(self.last) - self.middle)
    }
}

/// Slope per sample, less what may be noise, and how much that is.
fn sure_slope(series: &[f64]) -> Option<(f64, f64)> {
    let third = series.len() / 3;
    let (first, last) = (&series[..third], &series[series.len() - third..]);
    if series.iter().filter(|v| v.is_finite()).count() < LEAST_SAMPLES {
        return None;
    }
    let distance = (series.len() - third) as f64;
    let slope = (robust::median(last)? - robust::median(first)?) / distance;
    let straight: Vec<f64> = series.iter().enumerate().map(|(i, v)| v - slope * i as f64).collect();
    let noise = robust::summary(&straight)?;
    let phi = noise.autocorrelation.clamp(0.0, 0.95);
    // Variance of a median is pi / 2 times that of a mean; two of them, of a third of the samples each.
    let variance =
        std::f64::consts::PI * noise.sigma * noise.sigma * (1.0 + phi) / (1.0 - phi) / third as f64;
    let unsure = UNSURE * variance.sqrt() / distance;
    Some((slope.signum() * (slope.abs() - unsure).max(0.0), unsure))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drifting(slope: f64, n: usize) -> Vec<f64> {
        (0..n).map(|i| 3.0 + slope * i as f64 + if i % 2 == 0 { 0.05 } else { -0.05 }).collect()
    }

    #[test]
    fn a_clear_drift_is_carried_on_for_a_while() {
        let trend = Trend::fit(&drifting(0.002, 180)).unwrap();
        assert!((trend.at(200) - 3.4).abs() < 0.03, "{}", trend.at(200));
        assert_eq!(trend.at(400), trend.at(270));
    }

    #[test]
    fn noise_is_not_a_drift() {
        let trend = Trend::fit(&drifting(0.00002, 180)).unwrap();
        assert!((trend.at(0) - trend.at(200)).abs() < 1e-9);
        assert!((Trend::fit(&drifting(0.002, 30)).unwrap().at(60) - 3.03).abs() < 0.06);
        assert_eq!(Trend::fit(&[f64::NAN]), None);
    }
}
