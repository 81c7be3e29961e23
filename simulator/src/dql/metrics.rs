//! The metrics of Grail, and which of the Metrics API holds the same data.

use crate::metric::{INSTANCE_DIMENSION, Metric};
use serde_json::{Value, json};

/// Key in Grail, key in the Metrics API, and the key of the same by process group instance.
const KEYS: [(&str, &str, &str); 5] = [
    ("dt.service.request.response_time", "builtin:service.response.time", "calc:service.response_time"),
    ("dt.service.request.count", "builtin:service.requestCount.total", "calc:service.request_count"),
    ("dt.service.request.failure_count", "builtin:service.errors.total.count", "calc:service.error_count"),
    ("dt.process.cpu.usage", "builtin:tech.generic.cpu.usage", ""),
    ("dt.host.cpu.usage", "builtin:host.cpu.usage", ""),
];

/// The metric that a key means, split as finely as the dimensions named need it. Other keys are those of the Metrics API.
pub(super) fn resolve(metrics: &[Metric], key: &str, dimensions: &[String]) -> Option<usize> {
    let by_instance = dimensions.iter().any(|d| d == INSTANCE_DIMENSION);
    let classic = match KEYS.iter().find(|(grail, ..)| *grail == key) {
        Some((.., finer)) if by_instance && !finer.is_empty() => finer,
        Some((_, classic, _)) => classic,
        None => key,
    };
    metrics.iter().position(|m| m.key == classic)
}

/// What `enrich=metric-metadata` tells of a metric.
pub(super) fn metadata(key: &str, metric: &Metric, field: &str, aggregation: &str) -> Value {
    let unit = match metric.unit {
        "Percent" => "%",
        "MicroSecond" => "\u{b5}s",
        "MilliSecond" => "ms",
        "Count" => "count",
        other => other,
    };
    json!({
        "metric.key": key,
        "displayName": metric.name,
        "description": "",
        "unit": unit,
        "fieldName": field,
        "aggregation": aggregation,
        "scalar": false,
    })
}
