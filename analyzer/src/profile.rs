//! What is assumed about a metric before any data: its scale, how it follows the load, what size of change matters.

use crate::case::CaseMetric;
use crate::maths::ln;
use crate::robust;
use vouch_proto::Direction;

/// Metrics that behave alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Mean or median of a duration.
    Latency,
    /// High percentile of a duration.
    TailLatency,
    /// Share of a resource in use, in percent.
    Utilisation,
    /// Requests handled.
    Throughput,
    /// Events out of trials; judged as counts, see `detector::errors`.
    Count,
    /// Anything else that is measured on a ratio scale.
    Other,
}

/// Assumptions about one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Metrics that behave alike.
    pub family: Family,
    /// Change that is never evidence, as ln ratio: two versions are never exactly alike.
    pub dead_zone: f64,
    /// Smallest change in the bad direction that may fail, as ln ratio above zero.
    pub gate: f64,
    /// How ln(metric) follows ln(load).
    pub elasticity: ElasticityPrior,
    /// Highest lift by warm-up at a restart, as ln ratio in the bad direction.
    pub warm_up: f64,
    /// Part of the baseline median that is added before the logarithm, so that idle minutes do not dominate.
    pub offset: f64,
}

/// What is believed about d ln(metric) / d ln(load) before the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ElasticityPrior {
    /// Most likely slope.
    pub mean: f64,
    /// Its standard deviation.
    pub sd: f64,
    /// No service reacts more strongly than this.
    pub most: f64,
    /// By how much the slope may change per ln unit of load that was not seen in the baseline.
    pub curvature: f64,
    /// Whether the slope may also fall below what was seen.
    pub may_flatten: bool,
}

impl ElasticityPrior {
    const LATENCY: Self = Self { mean: 0.15, sd: 0.12, most: 0.45, curvature: 0.10, may_flatten: false };
    const UTILISATION: Self = Self { mean: 0.7, sd: 0.2, most: 1.05, curvature: 0.25, may_flatten: true };
    const PROPORTIONAL: Self = Self { mean: 1.0, sd: 0.01, most: 1.0, curvature: 0.0, may_flatten: false };
}

impl Profile {
    /// From a metric's name, unit and meaning.
    #[must_use]
    pub fn of(name: &str, metric: &CaseMetric) -> Self {
        let family = family(name, metric);
        let (dead_zone, gate) = match family {
            Family::Latency | Family::Other => (0.04, ln(1.065)),
            Family::TailLatency => (0.06, ln(1.10)),
            Family::Utilisation => (0.08, ln(1.16)),
            Family::Throughput => (0.06, -ln(0.90)),
            Family::Count => (0.0, 0.0),
        };
        let elasticity = match family {
            Family::Latency | Family::TailLatency | Family::Other | Family::Count => ElasticityPrior::LATENCY,
            Family::Utilisation => ElasticityPrior::UTILISATION,
            Family::Throughput => ElasticityPrior::PROPORTIONAL,
        };
        let offset = match family {
            Family::Utilisation | Family::Other => 0.05,
            Family::Latency | Family::TailLatency | Family::Count | Family::Throughput => 0.0,
        };
        let warm_up = match family {
            Family::Latency | Family::TailLatency | Family::Other => 1.55,
            Family::Utilisation => 1.1,
            Family::Throughput | Family::Count => 0.3,
        };
        Self { family, dead_zone, gate, elasticity, warm_up, offset }
    }

    /// The same with another smallest change (ratio above zero, e.g. 0.2 for 20 %) instead of the default.
    #[must_use]
    pub fn with_minimum_effect(mut self, ratio: f64) -> Self {
        let gate = libm::log1p(ratio.clamp(0.0, 1e6));
        self.dead_zone = self.dead_zone.min(0.6 * gate);
        self.gate = gate;
        self
    }
}

/// Whether the unit is that of a rate or a number of events.
#[must_use]
pub fn is_rate(unit: &str) -> bool {
    unit.starts_with("1/") || unit.ends_with("/min") || unit.ends_with("/s") || unit == "count"
}

fn family(name: &str, metric: &CaseMetric) -> Family {
    let is_duration = matches!(metric.unit.as_str(), "ns" | "us" | "µs" | "ms" | "s" | "min");
    // What it is measured for says nothing about how it behaves.
    let name = name.split(" of ").next().unwrap_or(name).to_ascii_lowercase();
    if metric.exposure.is_some() {
        Family::Count
    } else if is_duration && ["p9", "p8", "percentile", "max"].iter().any(|mark| name.contains(mark)) {
        Family::TailLatency
    } else if is_duration {
        Family::Latency
    } else if matches!(metric.unit.as_str(), "%" | "percent") {
        Family::Utilisation
    } else if metric.bad == Direction::Decrease && is_rate(&metric.unit) {
        Family::Throughput
    } else {
        Family::Other
    }
}

/// Brings values to the scale on which changes are ratios: ln(x + offset), or ln(n + 1) for throughput.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LogScale {
    offset: f64,
    floor: f64,
}

impl LogScale {
    /// Takes the scale from the reference values; `None` where none of them is above zero.
    #[must_use]
    pub fn new(profile: &Profile, reference: &[f64]) -> Option<Self> {
        if profile.family == Family::Throughput {
            return Some(Self { offset: 1.0, floor: 0.0 });
        }
        let positive: Vec<f64> = reference.iter().copied().filter(|v| *v > 0.0).collect();
        let middle = robust::median(&positive)?;
        Some(Self { offset: profile.offset * middle, floor: 1e-3 * middle })
    }

    /// A value on the scale; gaps stay gaps.
    #[must_use]
    pub fn apply(&self, value: f64) -> f64 {
        if value.is_nan() {
            return value;
        }
        ln((value.max(0.0) + self.offset).max(self.floor).max(f64::MIN_POSITIVE))
    }

    /// The value that a point of the scale stands for.
    #[must_use]
    pub fn invert(&self, point: f64) -> f64 {
        (libm::exp(point) - self.offset).max(0.0)
    }

    /// A series on the scale.
    #[must_use]
    pub fn apply_all(&self, values: &[f64]) -> Vec<f64> {
        values.iter().map(|v| self.apply(*v)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_follows_from_name_unit_and_meaning() {
        let of = |name: &str, metric: &CaseMetric| Profile::of(name, metric).family;
        let up = |unit: &str| CaseMetric::judged(unit, Direction::Increase);
        assert_eq!(of("response_time", &up("ms")), Family::Latency);
        assert_eq!(of("response_time_p95", &up("ms")), Family::TailLatency);
        assert_eq!(of("cpu", &up("%")), Family::Utilisation);
        assert_eq!(of("errors", &CaseMetric::count("1/min", "n")), Family::Count);
        assert_eq!(of("throughput", &CaseMetric::judged("1/min", Direction::Decrease)), Family::Throughput);
        assert_eq!(of("heap", &up("MB")), Family::Other);
    }

    #[test]
    fn every_metric_of_the_builtin_templates_is_judged_as_what_it_is() {
        let families = vouch_proto::template::golden_signals().metrics.into_iter().map(|spec| {
            let role = crate::case::MetricRole::Judged;
            let (unit, bad, exposure) = (spec.unit, spec.direction, spec.exposure);
            (Profile::of(&spec.name, &CaseMetric { unit, bad, exposure, role }).family, spec.name)
        });
        for (family, name) in families {
            let expected = match name.as_str() {
                "response_time" => Family::Latency,
                "response_time_p95" => Family::TailLatency,
                "error_count" => Family::Count,
                "throughput" => Family::Throughput,
                "cpu" => Family::Utilisation,
                other => panic!("say here what {other} is"),
            };
            assert_eq!(family, expected, "{name}");
        }
    }

    #[test]
    fn ratios_on_the_scale_do_not_depend_on_the_unit() {
        let profile = Profile::of("cpu", &CaseMetric::judged("%", Direction::Increase));
        let change = |unit: f64| {
            let scale = LogScale::new(&profile, &[10.0 * unit, 12.0 * unit, 11.0 * unit]).unwrap();
            scale.apply(15.0 * unit) - scale.apply(0.0)
        };
        assert!((change(1.0) - change(1e-9)).abs() < 1e-9);
        assert!((change(1.0) - change(1e9)).abs() < 1e-9);
        assert_eq!(LogScale::new(&profile, &[0.0, f64::NAN]), None);
    }

    #[test]
    fn a_smaller_minimum_effect_shrinks_the_dead_zone_with_it() {
        let profile = Profile::of("rt", &CaseMetric::judged("ms", Direction::Increase));
        let strict = profile.with_minimum_effect(0.0);
        assert_eq!((strict.dead_zone, strict.gate), (0.0, 0.0));
        assert_eq!(profile.with_minimum_effect(0.5).dead_zone, profile.dead_zone);
    }
}
