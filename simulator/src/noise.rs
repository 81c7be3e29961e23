//! Noise as a pure function of (seed, minute), so that any minute can be asked in any order.

/// One step of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn scramble(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A hash of a name (FNV-1a, then scrambled).
pub(crate) fn hash(name: &str) -> u64 {
    let fnv = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3));
    scramble(fnv)
}

/// The seed of a named stream below a seed.
pub(crate) fn stream(seed: u64, name: &str) -> u64 {
    scramble(seed ^ hash(name))
}

/// Uniform on (0, 1).
#[allow(clippy::cast_precision_loss, reason = "53 bits are a double's")]
pub(crate) fn uniform(seed: u64, minute: i64) -> f64 {
    let bits = scramble(seed ^ scramble(minute.cast_unsigned())) >> 11;
    (bits as f64 + 0.5) / (1_u64 << 53) as f64
}

/// Standard normal.
pub(crate) fn normal(seed: u64, minute: i64) -> f64 {
    normal_quantile(uniform(seed, minute))
}

/// Correlation of neighbouring minutes.
const CORRELATION: f64 = 0.6;
/// Terms of the moving average that stands for the AR(1) process: 0.6^18 is 1e-4.
const TERMS: i64 = 18;

/// A stationary AR(1) process with unit variance and correlation 0.6, as its truncated moving average.
pub(crate) fn ar1(seed: u64, minute: i64) -> f64 {
    let mut weight = 1.0;
    let mut sum = 0.0;
    for k in 0..TERMS {
        sum += weight * normal(seed, minute - k);
        weight *= CORRELATION;
    }
    sum * libm::sqrt(1.0 - CORRELATION * CORRELATION)
}

/// A Poisson count: by inversion up to a mean of 40, above it the rounded normal.
pub(crate) fn poisson(seed: u64, minute: i64, mean: f64) -> f64 {
    if mean <= 0.0 {
        return 0.0;
    }
    if mean > 40.0 {
        return libm::round(mean + libm::sqrt(mean) * normal(seed, minute)).max(0.0);
    }
    let u = uniform(seed, minute);
    let mut probability = libm::exp(-mean);
    let mut cumulated = probability;
    let mut count = 0.0;
    while u > cumulated && count < 200.0 {
        count += 1.0;
        probability *= mean / count;
        cumulated += probability;
    }
    count
}

/// Cumulative standard normal.
pub(crate) fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// Inverse of the cumulative standard normal (Acklam's rational approximation, relative error below 1.2e-9).
pub(crate) fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    let polynomial = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let p = p.clamp(1e-300, 1.0 - 1e-16);
    let tail = |p: f64| {
        let q = libm::sqrt(-2.0 * libm::log(p));
        polynomial(&C, q) / (polynomial(&D, q) * q + 1.0)
    };
    if p < 0.02425 {
        tail(p)
    } else if p > 1.0 - 0.02425 {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        let r = q * q;
        polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_and_cdf_agree_with_tables() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959_963_985), (0.95, 1.644_853_627), (0.001, -3.090_232_306)] {
            assert!((normal_quantile(p) - z).abs() < 1e-7, "{p}");
            assert!((normal_cdf(z) - p).abs() < 1e-8, "{p}");
        }
    }

    #[test]
    fn ar1_has_unit_variance_and_its_correlation() {
        let xs: Vec<f64> = (0..20_000).map(|m| ar1(7, m)).collect();
        let n = xs.len() as f64;
        let mean = xs.iter().sum::<f64>() / n;
        let variance = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let lagged = xs.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum::<f64>() / n / variance;
        assert!(mean.abs() < 0.05, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        assert!((lagged - CORRELATION).abs() < 0.03, "{lagged}");
    }

    #[test]
    fn poisson_has_its_mean_and_variance() {
        for mean in [0.4, 12.0, 300.0] {
            let xs: Vec<f64> = (0..20_000).map(|m| poisson(9, m, mean)).collect();
            let n = xs.len() as f64;
            let m = xs.iter().sum::<f64>() / n;
            let v = xs.iter().map(|x| (x - m).powi(2)).sum::<f64>() / n;
            assert!((m / mean - 1.0).abs() < 0.05 && (v / mean - 1.0).abs() < 0.06, "{mean}: {m} {v}");
        }
        assert_eq!(poisson(1, 1, 0.0).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn streams_differ_and_repeat() {
        assert_ne!(stream(1, "a"), stream(1, "b"));
        assert_eq!(ar1(stream(1, "a"), -5).to_bits(), ar1(stream(1, "a"), -5).to_bits());
    }
}
