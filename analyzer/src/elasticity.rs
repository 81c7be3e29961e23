//! Load elasticity: how much a metric moves with the load, and how wrong that may be.

use crate::maths::ln;
use crate::profile::ElasticityPrior;
use crate::robust;

/// Requests to average over before a load is believed: Poisson noise of a covariate flattens the slope.
const STEADY_REQUESTS: f64 = 300.0;
/// Longest average, in samples.
const LONGEST_AVERAGE: usize = 7;
/// Deviations of the metric are clipped here (ln ratio), so that incidents in the history do not teach a slope.
const CLIP: f64 = 0.7;
/// Residuals are autocorrelated: as if there were this many times fewer of them.
const DEPENDENCE: f64 = 3.0;
/// Fewest samples of a stretch, and of all, to learn a slope from.
const LEAST_STRETCH: usize = 8;
const LEAST_SAMPLES: usize = 10;
/// Standard errors by which the slope may be off.
const DOUBT: f64 = 1.5;

/// Load as ln(requests + 1), a trailing mean over about 300 requests. The width is taken from `reference` alone,
/// so that later samples never change earlier ones.
#[must_use]
pub fn ln_load(load: &[f64], reference: &[f64]) -> Vec<f64> {
    let usual = robust::mean(reference).unwrap_or(1.0).max(1.0);
    let width = ((STEADY_REQUESTS / usual).ceil() as usize).clamp(1, LONGEST_AVERAGE);
    let trailing = |i: usize| robust::mean(&load[(i + 1).saturating_sub(width)..=i]);
    (0..load.len()).map(|i| trailing(i).map_or(f64::NAN, |mean| ln(mean.max(0.0) + 1.0))).collect()
}

/// A slope and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elasticity {
    /// d ln(metric) / d ln(load).
    pub slope: f64,
    /// Its posterior standard deviation.
    pub sd: f64,
    prior: ElasticityPrior,
}

/// Ridge regression of the metric on the load within each stretch of history, shrunk to the prior
/// (the posterior mean of a normal slope; Gelman et al., Bayesian Data Analysis, 14.8).
#[must_use]
pub fn fit<'a>(
    stretches: impl Iterator<Item = (&'a [f64], &'a [f64])>,
    prior: ElasticityPrior,
) -> Elasticity {
    let (mut xx, mut xy, mut yy, mut n) = (0.0, 0.0, 0.0, 0_usize);
    for (metric, load) in stretches {
        let (mut y, mut x) = (Vec::with_capacity(metric.len()), Vec::with_capacity(metric.len()));
        for (metric, load) in metric.iter().zip(load).filter(|(y, x)| y.is_finite() && x.is_finite()) {
            y.push(*metric);
            x.push(*load);
        }
        if y.len() < LEAST_STRETCH {
            continue;
        }
        let (Some(y0), Some(x0)) = (robust::median(&y), robust::median(&x)) else { continue };
        for (y, x) in y.iter().zip(&x) {
            let (y, x) = ((y - y0).clamp(-CLIP, CLIP), x - x0);
            xx += x * x;
            xy += x * y;
            yy += y * y;
        }
        n += y.len();
    }
    if n < LEAST_SAMPLES {
        return Elasticity { slope: prior.mean, sd: prior.sd, prior };
    }
    let variance = DEPENDENCE * ((yy - xy * xy / xx.max(1e-9)) / n as f64).max(1e-4);
    let ridge = variance / (prior.sd * prior.sd);
    Elasticity {
        slope: (xy + ridge * prior.mean) / (xx + ridge),
        sd: (variance / (xx + ridge)).sqrt(),
        prior,
    }
}

impl Elasticity {
    /// By how much the expectation for a load `change` away (in ln) from the usual may be too low, given that
    /// loads within `known` of the usual were seen. Beyond that the slope is only known to be at most the prior's.
    #[must_use]
    pub fn systematic_error(&self, change: f64, known: f64) -> f64 {
        let distance = change.abs();
        let inside = distance.min(known);
        let outside = distance - inside;
        let (slope, most) = (self.slope, self.prior.most);
        let curvature = self.prior.curvature * distance;
        if change > 0.0 {
            let steepest = (slope + DOUBT * self.sd + curvature).min(most);
            (steepest - slope).max(0.0) * inside + (most - slope).max(0.0) * outside
        } else {
            let bend = if self.prior.may_flatten { curvature } else { 0.0 };
            let flattest = (slope - DOUBT * self.sd - bend).max(0.0);
            (slope - flattest).max(0.0) * inside + slope.max(0.0) * outside
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CaseMetric;
    use crate::profile::Profile;
    use vouch_proto::Direction;

    fn prior() -> ElasticityPrior {
        Profile::of("cpu", &CaseMetric::judged("%", Direction::Increase)).elasticity
    }

    #[test]
    fn without_history_the_prior_stands() {
        let fitted = fit(std::iter::empty(), prior());
        assert_eq!((fitted.slope, fitted.sd), (0.7, 0.2));
    }

    #[test]
    fn a_clear_slope_is_found_within_stretches_of_different_levels() {
        let x: Vec<f64> = (0..60).map(|i| f64::from(i % 20) / 20.0).collect();
        let low: Vec<f64> = x.iter().map(|x| 0.4 * x).collect();
        let high: Vec<f64> = x.iter().map(|x| 5.0 + 0.4 * x).collect();
        let fitted = fit([(&low[..], &x[..]), (&high[..], &x[..])].into_iter(), prior());
        assert!((fitted.slope - 0.4).abs() < 0.01 && fitted.sd < 0.02, "{fitted:?}");
    }

    #[test]
    fn the_doubt_grows_with_the_distance_and_beyond_the_known() {
        let fitted = Elasticity { slope: 0.7, sd: 0.1, prior: prior() };
        let doubt = |change| fitted.systematic_error(change, 0.2);
        assert_eq!(doubt(0.0), 0.0);
        assert!(doubt(0.1) < doubt(0.2) && doubt(0.2) < doubt(0.4));
        assert!((doubt(0.4) - doubt(0.3)) > (doubt(0.2) - doubt(0.1)));
        assert!(doubt(-0.1) > 0.0 && doubt(-0.4) > doubt(-0.2));
    }

    #[test]
    fn a_small_load_is_averaged_a_big_one_is_not() {
        let load = [100.0, 200.0, f64::NAN, 300.0];
        let averaged = ln_load(&load, &[100.0]);
        assert!((averaged[1] - ln(151.0)).abs() < 1e-12 && (averaged[2] - ln(151.0)).abs() < 1e-12);
        assert_eq!(ln_load(&load, &[1000.0])[1], ln(201.0));
        assert!(ln_load(&load, &[1000.0])[2].is_nan());
    }
}
