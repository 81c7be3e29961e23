//! Metric descriptors: unit, dimensions, and the aggregations that a metric really has.

use crate::entity::kind_of_dimension;
use crate::point::Aggregation;
use serde_json::{Value, json};

/// Dimension key of services.
pub(crate) const SERVICE_DIMENSION: &str = "dt.entity.service";
/// Dimension key of process group instances.
pub(crate) const INSTANCE_DIMENSION: &str = "dt.entity.process_group_instance";

/// Dimension key of hosts.
pub(crate) const HOST_DIMENSION: &str = "dt.entity.host";

/// What kind of measurement a metric is; it decides the aggregations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Timings with percentiles.
    Timer,
    /// Counters: `value`.
    Counter,
    /// Gauges: avg, min, max.
    Gauge,
    /// Replayed series: every aggregation gives the recorded value back.
    Recorded,
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Its key.
    pub(crate) key: String,
    /// Its name.
    pub(crate) name: String,
    /// Dynatrace's unit.
    pub(crate) unit: &'static str,
    /// Its shape.
    pub(crate) shape: Shape,
    /// Its dimension keys in order.
    pub(crate) dimensions: Vec<&'static str>,
}

impl Metric {
    /// Names of the aggregations, as in the descriptor.
    pub(crate) fn aggregation_names(&self) -> &'static [&'static str] {
        match self.shape {
            Shape::Timer => &["auto", "avg", "count", "max", "median", "min", "percentile", "sum"],
            Shape::Counter => &["auto", "value"],
            Shape::Gauge => &["auto", "avg", "max", "min"],
            Shape::Recorded => {
                &["auto", "avg", "count", "max", "median", "min", "percentile", "sum", "value"]
            }
        }
    }

    /// What `:auto`, or no aggregation at all, means.
    pub(crate) fn default_aggregation(&self) -> Aggregation {
        match self.shape {
            Shape::Counter => Aggregation::Value,
            Shape::Timer | Shape::Gauge | Shape::Recorded => Aggregation::Avg,
        }
    }

    /// Whether the metric has an aggregation.
    pub(crate) fn has(&self, aggregation: Aggregation) -> bool {
        self.aggregation_names().contains(&aggregation.name())
    }

    /// The descriptor.
    pub(crate) fn descriptor(&self, last_written: i64) -> Value {
        let kinds: Vec<String> = self.dimensions.iter().filter_map(|d| kind_of_dimension(d)).collect();
        let dimensions: Vec<Value> = self
            .dimensions
            .iter()
            .enumerate()
            .map(|(index, key)| {
                let name = match *key {
                    SERVICE_DIMENSION => "Service",
                    HOST_DIMENSION => "Host",
                    _ => "Process",
                };
                json!({ "key": key, "name": name, "displayName": name, "index": index, "type": "ENTITY" })
            })
            .collect();
        json!({
            "metricId": self.key,
            "displayName": self.name,
            "description": "",
            "unit": self.unit,
            "dduBillable": false,
            "billable": false,
            "created": 0,
            "lastWritten": last_written,
            "entityType": kinds,
            "aggregationTypes": self.aggregation_names(),
            // `delta`, `toUnit` and `smooth` are not among them in older tenants, and clients with a closed list of
            // names give up at them.
            "transformations": [
                "filter", "fold", "limit", "merge", "names", "sort", "splitBy", "rate", "default", "timeshift",
                "setUnit",
            ],
            "defaultAggregation": { "type": self.default_aggregation().name() },
            "dimensionDefinitions": dimensions,
            "tags": [],
            "metricValueType": { "type": "unknown" },
            "scalar": false,
            "resolutionInfSupported": true,
            "exported": true,
            "latency": 1,
        })
    }
}

impl Aggregation {
    /// Its name in selectors and descriptors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Median => "median",
            Self::Value => "value",
            Self::Percentile(_) => "percentile",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_says_what_the_metric_has() {
        let metric = Metric {
            key: "builtin:service.response.time".into(),
            name: "Response time".into(),
            unit: "MicroSecond",
            shape: Shape::Timer,
            dimensions: vec![SERVICE_DIMENSION],
        };
        let json = metric.descriptor(7);
        assert_eq!(json["entityType"], json!(["SERVICE"]));
        assert_eq!(json["dimensionDefinitions"].as_array().unwrap().len(), 1);
        assert_eq!(json["defaultAggregation"]["type"], "avg");
        assert!(metric.has(Aggregation::Percentile(95.0)));
        assert!(!metric.has(Aggregation::Value));
        assert_eq!(json["lastWritten"], 7);
    }
}
