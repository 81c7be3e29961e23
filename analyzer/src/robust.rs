//! Robust statistics: location, scale and dependence that a few wild minutes cannot move. `NaN` marks a gap.

use std::cmp::Ordering;

/// 1.4826: makes the median absolute deviation estimate the standard deviation of a normal, 1 / Phi^-1(3/4).
pub const MAD_TO_SIGMA: f64 = 1.482_602_218_505_602;

/// The samples that are there.
#[must_use]
pub fn finite(values: &[f64]) -> Vec<f64> {
    let mut all = Vec::with_capacity(values.len());
    all.extend(values.iter().copied().filter(|v| v.is_finite()));
    all
}

/// Mean of the samples that are there; `None` without any.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    let (sum, n) =
        values.iter().filter(|v| v.is_finite()).fold((0.0, 0_u32), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// Median of the samples that are there; `None` without any.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    median_in_place(&mut finite(values))
}

/// Median of finite values, which are reordered; `None` without any.
#[must_use]
pub fn median_in_place(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let half = values.len() / 2;
    let is_odd = values.len() % 2 == 1;
    let (below, middle, _) = values.select_nth_unstable_by(half, of_finite);
    let middle = *middle;
    if is_odd {
        return Some(middle);
    }
    let below = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(0.5 * (below + middle))
}

/// The order of finite values: one comparison, where that of all floats takes several steps.
fn of_finite(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or(Ordering::Equal)
}

/// Quantile of finite values in ascending order, linear between neighbours
/// (type 7 of Hyndman & Fan 1996); `None` without any.
#[must_use]
pub fn quantile_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q.clamp(0.0, 1.0) * last as f64;
    let low = at.floor() as usize;
    let high = (low + 1).min(last);
    Some(sorted[low] + (at - low as f64) * (sorted[high] - sorted[low]))
}

/// Median absolute deviation from the median, not scaled; `None` without samples.
#[must_use]
pub fn mad(values: &[f64]) -> Option<f64> {
    let mut values = finite(values);
    let middle = median_in_place(&mut values)?;
    for v in &mut values {
        *v = (*v - middle).abs();
    }
    median_in_place(&mut values)
}

/// Standard deviation around the mean of values that are clipped to `centre` +- `reach`; 0 without samples.
#[must_use]
pub fn winsorised_sd(values: &[f64], centre: f64, reach: f64) -> f64 {
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for v in values.iter().filter(|v| v.is_finite()) {
        let d = (v - centre).clamp(-reach, reach);
        n += 1.0;
        sum += d;
        squares += d * d;
    }
    if n == 0.0 {
        return 0.0;
    }
    let mean = sum / n;
    (squares / n - mean * mean).max(0.0).sqrt()
}

/// Correlation of neighbours around `centre`, deviations clipped to +- `reach`; gaps are left out.
#[must_use]
pub fn lag1_autocorrelation(values: &[f64], centre: f64, reach: f64) -> f64 {
    let (mut product, mut squares, mut previous) = (0.0, 0.0, f64::NAN);
    for v in values {
        let d = (v - centre).clamp(-reach, reach);
        if d.is_finite() {
            squares += d * d;
            if previous.is_finite() {
                product += d * previous;
            }
        }
        previous = d;
    }
    if squares > 0.0 { product / squares } else { 0.0 }
}

/// How much counts vary beyond Poisson: mean of (count - expected)^2 / expected, 1 for Poisson.
#[must_use]
pub fn pearson_dispersion(counts: &[f64], expected: &[f64]) -> Option<f64> {
    let (mut squares, mut total) = (0.0, 0.0);
    for (count, mean) in counts.iter().zip(expected).filter(|(c, m)| c.is_finite() && **m > 0.0) {
        squares += (count - mean) * (count - mean);
        total += mean;
    }
    (total > 0.0).then(|| squares / total)
}

/// The quantiles 0.1, 0.5 and 0.9 of finite values, which are reordered, as [`quantile_sorted`] has them. Selecting
/// a few is quicker than sorting all.
fn tails_and_median(values: &mut [f64]) -> Option<[f64; 3]> {
    let last = values.len().checked_sub(1)?;
    let mut from = 0;
    let quantiles = [0.1, 0.5, 0.9].map(|q| {
        let place = q * last as f64;
        let at = place.floor() as usize;
        // What was selected before stays where it is.
        if at >= from {
            values[from..].select_nth_unstable_by(at - from, of_finite);
            from = at + 1;
        }
        let next = values[at + 1..].iter().copied().fold(f64::INFINITY, f64::min);
        let next = if next.is_finite() { next } else { values[at] };
        values[at] + (place - at as f64) * (next - values[at])
    });
    Some(quantiles)
}

/// What a reference period looked like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Samples that are there.
    pub n: usize,
    /// Their median.
    pub median: f64,
    /// Robust standard deviation, see [`summary`].
    pub sigma: f64,
    /// Lag-1 autocorrelation of the winsorised deviations.
    pub autocorrelation: f64,
}

/// Location, scale and dependence of a series in order of time.
///
/// The scale is the largest of 1.4826 MAD, 3/4 of the standard deviation winsorised at 4 MAD sigmas, and
/// a quarter of the 5 % to 95 % range: the MAD alone calls a series of small noise and frequent bursts calm.
/// `None` with fewer than three samples.
#[must_use]
pub fn summary(values: &[f64]) -> Option<Summary> {
    let mut deviations = finite(values);
    let n = deviations.len();
    if n < 3 {
        return None;
    }
    let [low, median, high] = tails_and_median(&mut deviations)?;
    let range = high - low;
    for v in &mut deviations {
        *v -= median;
    }
    let mut absolute: Vec<f64> = deviations.iter().map(|d| d.abs()).collect();
    let spread = MAD_TO_SIGMA * median_in_place(&mut absolute)?;
    let reach = if spread > 0.0 { 4.0 * spread } else { f64::INFINITY };
    let sigma = spread.max(0.75 * winsorised_sd(&deviations, 0.0, reach)).max(range / 3.0).max(1e-12);
    let autocorrelation = lag1_autocorrelation(values, median, 4.0 * sigma);
    Some(Summary { n, median, sigma, autocorrelation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn textbook_values() {
        // Wikipedia, "Median absolute deviation": 1, 1, 2, 2, 4, 6, 9 has median 2 and MAD 1.
        let data = [1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0, f64::NAN];
        assert_eq!(median(&data), Some(2.0));
        assert_eq!(mad(&data), Some(1.0));
        assert_eq!(mean(&[1.0, f64::NAN, 3.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        // numpy.quantile([1, 2, 3, 4], [.05, .5, .95]) = 1.15, 2.5, 3.85
        for (q, expected) in [(0.05, 1.15), (0.5, 2.5), (0.95, 3.85)] {
            assert!((quantile_sorted(&[1.0, 2.0, 3.0, 4.0], q).unwrap() - expected).abs() < 1e-12);
        }
    }

    proptest! {
        #[test]
        fn selected_quantiles_are_those_of_a_sorted_list(values in prop::collection::vec(-1e3..1e3f64, 1..60)) {
            let mut sorted = values.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let expected = [0.1, 0.5, 0.9].map(|q| quantile_sorted(&sorted, q).unwrap());
            prop_assert_eq!(tails_and_median(&mut values.clone()), Some(expected));
        }
    }

    #[test]
    fn nothing_is_known_about_nothing() {
        assert_eq!(
            (mean(&[]), median(&[f64::NAN]), mad(&[]), quantile_sorted(&[], 0.5)),
            (None, None, None, None)
        );
        assert_eq!(summary(&[1.0, 2.0]), None);
        assert_eq!(pearson_dispersion(&[0.0], &[0.0]), None);
        assert_eq!(winsorised_sd(&[], 0.0, 1.0), 0.0);
    }

    #[test]
    fn dependence_of_an_alternating_and_of_a_slow_series() {
        let alternating: Vec<f64> = (0..100).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        assert!((lag1_autocorrelation(&alternating, 0.0, 4.0) + 0.99).abs() < 1e-12);
        let slow: Vec<f64> = (0..100).map(|i| if i < 50 { 1.0 } else { -1.0 }).collect();
        assert!((lag1_autocorrelation(&slow, 0.0, 4.0) - 0.97).abs() < 1e-12);
        assert_eq!(lag1_autocorrelation(&[1.0, f64::NAN, 1.0], 0.0, 4.0), 0.0);
    }

    #[test]
    fn dispersion_of_poisson_like_and_of_bursty_counts() {
        assert_eq!(pearson_dispersion(&[2.0, 4.0], &[3.0, 3.0]), Some(2.0 / 6.0));
        assert_eq!(pearson_dispersion(&[0.0, 30.0, f64::NAN], &[15.0, 15.0, 15.0]), Some(450.0 / 30.0));
    }

    proptest! {
        #[test]
        fn the_median_is_the_sorted_middle(values in prop::collection::vec(-1e6..1e6_f64, 1..60)) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let middle = quantile_sorted(&sorted, 0.5).unwrap();
            prop_assert!((median(&values).unwrap() - middle).abs() < 1e-9);
        }

        #[test]
        fn one_wild_sample_hardly_moves_the_summary(values in prop::collection::vec(-1.0..1.0_f64, 60)) {
            let calm = summary(&values).unwrap();
            let mut wild = values;
            wild[30] = 1e9;
            let wild = summary(&wild).unwrap();
            prop_assert!((wild.median - calm.median).abs() < 0.3);
            prop_assert!(wild.sigma < 1.5 * calm.sigma + 0.2);
        }
    }
}
