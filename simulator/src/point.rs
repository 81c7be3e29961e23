//! What is stored for one slot: enough of the distribution to aggregate and to merge honestly.

use crate::noise::{normal_cdf, normal_quantile};

/// Most parts kept for percentiles; beyond it neighbours are joined.
const PARTS_LIMIT: usize = 512;

/// A log-normal part of a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    count: f64,
    median: f64,
    /// Standard deviation of the logarithm; 0 for a plain value.
    sigma: f64,
}

/// The stored data of one series and slot.
///
/// Percentiles of merged points are those of the mixture of their log-normal parts, found by bisection:
/// the simulator's fixed estimator (Dynatrace's own differs from it).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    count: f64,
    sum: f64,
    min: f64,
    max: f64,
    parts: Vec<Part>,
}

/// How a point becomes a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Aggregation {
    /// Mean.
    Avg,
    /// Least.
    Min,
    /// Greatest.
    Max,
    /// Sum.
    Sum,
    /// Number of measurements.
    Count,
    /// 50th percentile.
    Median,
    /// The value of a counter.
    Value,
    /// Percentile, 0..=100.
    Percentile(f64),
}

impl Point {
    /// A value as it is, which every aggregation but `count` gives back exactly.
    pub(crate) fn plain(value: f64) -> Self {
        let part = Part { count: 1.0, median: value, sigma: 0.0 };
        Self { count: 1.0, sum: value, min: value, max: value, parts: vec![part] }
    }

    /// `count` measurements that are log-normal around `median` with `sigma`.
    pub(crate) fn log_normal(count: f64, median: f64, sigma: f64) -> Self {
        let reach = sigma * normal_quantile(1.0 - 0.5 / count.max(1.0)).max(0.0);
        Self {
            count,
            sum: count * median * libm::exp(0.5 * sigma * sigma),
            min: median * libm::exp(-reach),
            max: median * libm::exp(reach),
            parts: vec![Part { count, median, sigma }],
        }
    }

    /// Takes another point in.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.parts.extend_from_slice(&other.parts);
        if self.parts.len() > PARTS_LIMIT {
            self.parts = self.parts.chunks(2).map(join).collect();
        }
    }

    /// A part of the measurements, as a slot looks before all of them have arrived.
    pub(crate) fn scaled(&self, share: f64) -> Self {
        let mut point = self.clone();
        point.count = libm::round(point.count * share).max(1.0);
        point.sum *= share;
        point
    }

    /// The number that an aggregation makes of it.
    pub(crate) fn aggregate(&self, aggregation: Aggregation) -> f64 {
        match aggregation {
            Aggregation::Avg => self.sum / self.count,
            Aggregation::Min => self.min,
            Aggregation::Max => self.max,
            Aggregation::Sum | Aggregation::Value => self.sum,
            Aggregation::Count => self.count,
            Aggregation::Median => self.percentile(50.0),
            Aggregation::Percentile(p) => self.percentile(p),
        }
    }

    fn percentile(&self, percent: f64) -> f64 {
        let p = percent / 100.0;
        if let [part] = self.parts.as_slice() {
            return part.quantile(p).clamp(self.min, self.max);
        }
        let (mut low, mut high) = (self.min, self.max);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if self.share_below(middle) < p {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    fn share_below(&self, value: f64) -> f64 {
        let (mut below, mut all) = (0.0, 0.0);
        for part in &self.parts {
            below += part.count * part.share_below(value);
            all += part.count;
        }
        below / all
    }
}

impl Part {
    fn quantile(&self, p: f64) -> f64 {
        if self.sigma > 0.0 { self.median * libm::exp(self.sigma * normal_quantile(p)) } else { self.median }
    }

    fn share_below(&self, value: f64) -> f64 {
        if self.sigma > 0.0 && value > 0.0 {
            normal_cdf((libm::log(value) - libm::log(self.median)) / self.sigma)
        } else {
            f64::from(u8::from(self.median <= value))
        }
    }
}

fn join(pair: &[Part]) -> Part {
    let count: f64 = pair.iter().map(|p| p.count).sum();
    let mean = |value: fn(&Part) -> f64| pair.iter().map(|p| p.count * value(p)).sum::<f64>() / count;
    Part { count, median: mean(|p| p.median), sigma: mean(|p| p.sigma) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_value_passes_through_exactly() {
        for value in [507.6, 0.1 + 0.2, 0.0, -3.5, 1e-300] {
            let point = Point::plain(value);
            for aggregation in [
                Aggregation::Avg,
                Aggregation::Min,
                Aggregation::Max,
                Aggregation::Sum,
                Aggregation::Value,
                Aggregation::Median,
                Aggregation::Percentile(95.0),
            ] {
                assert_eq!(point.aggregate(aggregation).to_bits(), value.to_bits(), "{aggregation:?}");
            }
        }
    }

    #[test]
    fn merged_percentiles_are_those_of_the_mixture() {
        let mut point = Point::log_normal(300.0, 100.0, 0.3);
        point.merge(&Point::log_normal(100.0, 1000.0, 0.3));
        let p50 = point.aggregate(Aggregation::Median);
        let p95 = point.aggregate(Aggregation::Percentile(95.0));
        assert!((100.0..130.0).contains(&p50), "{p50}");
        assert!((1100.0..1400.0).contains(&p95), "{p95}");
        assert!((point.share_below(p95) - 0.95).abs() < 1e-9);
        let mut counts = Point::plain(10.0);
        counts.merge(&Point::plain(32.0));
        assert!((counts.aggregate(Aggregation::Value) - 42.0).abs() < 1e-12);
    }

    #[test]
    fn many_parts_stay_bounded() {
        let mut point = Point::log_normal(10.0, 50.0, 0.4);
        for i in 0..5000 {
            point.merge(&Point::log_normal(10.0, 50.0 + f64::from(i % 7), 0.4));
        }
        assert!(point.parts.len() <= PARTS_LIMIT);
        let p50 = point.aggregate(Aggregation::Median);
        assert!((50.0..57.0).contains(&p50), "{p50}");
    }
}
