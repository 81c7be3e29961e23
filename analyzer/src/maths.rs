//! Distributions and logarithms that are the same on every machine: everything transcendental comes from `libm`.

use libm::{atan, exp, lgamma, log, log1p};
use std::f64::consts::{FRAC_1_PI, SQRT_2};

/// Natural logarithm.
#[must_use]
pub fn ln(x: f64) -> f64 {
    log(x)
}

/// Distribution function of Student's t with an odd number of degrees of freedom
/// (Abramowitz & Stegun 26.7.3).
#[must_use]
pub fn student_t_cdf(t: f64, odd_degrees: u32) -> f64 {
    if t.is_infinite() {
        return if t > 0.0 { 1.0 } else { 0.0 };
    }
    let nu = f64::from(odd_degrees);
    let theta = atan(t / nu.sqrt());
    let cos2 = nu / (nu + t * t);
    let mut term = cos2.sqrt();
    let mut sum = if odd_degrees > 1 { term } else { 0.0 };
    for k in 1..(odd_degrees.saturating_sub(1) / 2) {
        let k = f64::from(k);
        term *= cos2 * (2.0 * k) / (2.0 * k + 1.0);
        sum += term;
    }
    let sin = t / (nu + t * t).sqrt();
    0.5 + FRAC_1_PI * (theta + sin * sum)
}

/// Distribution function of the standard normal.
#[must_use]
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// Quantile of the standard normal: a rational start, polished by Halley's method to machine precision.
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    // Hastings (1955), as Abramowitz & Stegun 26.2.23: off by at most 4.5e-4.
    let t = (-2.0 * log(p)).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let denominator = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let mut x = numerator / denominator - t;
    for _ in 0..3 {
        let density = exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt();
        let step = (normal_cdf(x) - p) / density;
        x -= step / (1.0 + 0.5 * x * step); // Halley
    }
    x
}

/// A negative binomial with shape `k`: counts whose variance is `mean + mean^2 / k`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NegativeBinomial {
    shape: f64,
    ln_gamma_shape: f64,
}

impl NegativeBinomial {
    /// For a shape above zero.
    #[must_use]
    pub fn new(shape: f64) -> Self {
        Self { shape, ln_gamma_shape: lgamma(shape) }
    }

    /// The part of ln P(x) that does not depend on the mean.
    #[must_use]
    pub fn ln_coefficient(&self, x: f64) -> f64 {
        lgamma(x + self.shape) - self.ln_gamma_shape - lgamma(x + 1.0)
    }

    /// The part of ln P(x) that depends on the mean.
    #[must_use]
    pub fn ln_kernel(&self, x: f64, mean: f64) -> f64 {
        let mean = mean.max(1e-9);
        let ln_total = log(self.shape + mean);
        x * (log(mean) - ln_total) - self.shape * log1p(mean / self.shape)
    }

    /// ln P(x).
    #[must_use]
    pub fn ln_mass(&self, x: f64, mean: f64) -> f64 {
        self.ln_coefficient(x) + self.ln_kernel(x, mean)
    }
}

/// ln(e^a + e^b) without overflow.
#[must_use]
pub fn ln_add(a: f64, b: f64) -> f64 {
    let high = a.max(b);
    if high == f64::NEG_INFINITY {
        return high;
    }
    high + log1p(exp(a.min(b) - high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} is not {b}");
    }

    #[test]
    fn student_t_matches_tables() {
        close(student_t_cdf(2.570_581_835_636_314, 5), 0.975, 1e-12);
        close(student_t_cdf(-4.032_142_983_557_536, 5), 0.005, 1e-12);
        close(student_t_cdf(1.0, 1), 0.75, 1e-12);
        close(student_t_cdf(3.182_446_305_284_263, 3), 0.975, 1e-12);
        assert_eq!(student_t_cdf(f64::INFINITY, 5), 1.0);
    }

    #[test]
    fn normal_quantiles_match_tables() {
        close(normal_quantile(0.975), 1.959_963_984_540_054, 1e-12);
        close(normal_quantile(0.25), -0.674_489_750_196_081_7, 1e-12);
        close(normal_quantile(1e-9), -5.997_807_015_007_686, 1e-9);
        close(normal_cdf(normal_quantile(0.123)), 0.123, 1e-14);
        close(normal_quantile(0.5), 0.0, 1e-15);
    }

    #[test]
    fn negative_binomial_sums_to_one_with_its_mean_and_variance() {
        let (law, mean) = (NegativeBinomial::new(2.5), 4.0);
        let mass: Vec<f64> = (0..400).map(|x| exp(law.ln_mass(f64::from(x), mean))).collect();
        let moment = |k: i32| (0..400).map(|x| f64::from(x).powi(k) * mass[x as usize]).sum::<f64>();
        close(moment(0), 1.0, 1e-12);
        close(moment(1), mean, 1e-9);
        close(moment(2) - mean * mean, mean + mean * mean / 2.5, 1e-8);
    }

    #[test]
    fn logarithms_add() {
        close(ln_add(log(2.0), log(3.0)), log(5.0), 1e-15);
        assert_eq!(ln_add(f64::NEG_INFINITY, f64::NEG_INFINITY), f64::NEG_INFINITY);
    }
}
