//! Writes a case as [`Case::from_json`] reads it: the same samples, windows and settings, bit for bit.

use super::{Case, CaseHost, CaseMetric, CaseSeries, HostGroup, MetricRole};
use crate::judge::JudgeSettings;
use serde_json::{Map, Value, json};

/// See [`Case::to_json`].
pub(super) fn write(case: &Case) -> Map<String, Value> {
    let metrics: Map<String, Value> =
        case.metrics.iter().map(|(name, metric)| (name.clone(), of_metric(metric))).collect();
    let hosts: Map<String, Value> =
        case.hosts.iter().map(|(name, host)| (name.clone(), of_host(host))).collect();
    let series: Vec<Value> = case.series.iter().map(of_series).collect();
    let template = case.template.to_words();
    let given = |name: &str, value: Option<Value>| value.map(|value| (name.to_owned(), value));
    let always = |name: &str, value: Value| given(name, Some(value));
    let fields = [
        always("id", json!(case.id)),
        always("kind", json!(case.strategy.as_str())),
        always("interval_min", json!(case.interval_min)),
        always("baseline", json!(case.baseline)),
        always("verification", json!(case.verification)),
        always("metrics", Value::Object(metrics)),
        always("hosts", Value::Object(hosts)),
        always("series", Value::Array(series)),
        given("template", (!template.is_empty()).then_some(Value::Object(template))),
        given("diluted", case.diluted.map(|share| json!(share))),
        given("minutes_seen", case.minutes_seen.map(|minutes| json!(minutes))),
        given("barred", case.barred.as_ref().map(|why| json!(why))),
        given("judged_with", case.judged_with.as_ref().map(of_settings)),
    ];
    let around = super::surroundings::write(case).map(|(name, value)| given(name, value));
    fields.into_iter().chain(around).flatten().collect()
}

fn of_metric(metric: &CaseMetric) -> Value {
    let role = match metric.role {
        MetricRole::Judged => "judged",
        MetricRole::Context => "context",
    };
    let mut words = json!({"unit": metric.unit, "bad": metric.bad.as_str(), "role": role});
    if let Some(exposure) = &metric.exposure {
        words["exposure"] = json!(exposure);
    }
    words
}

fn of_host(host: &CaseHost) -> Value {
    let group = match host.group {
        HostGroup::Service => "service",
        HostGroup::Control => "control",
        HostGroup::Test => "test",
    };
    let mut words = json!({"group": group, "switch": host.switch});
    if !host.restarts.is_empty() {
        words["restarts"] = json!(host.restarts);
    }
    words
}

fn of_series(series: &CaseSeries) -> Value {
    json!({"metric": series.metric, "host": series.host, "start": series.start, "values": series.values})
}

fn of_settings(settings: &JudgeSettings) -> Value {
    json!({
        "fail": settings.thresholds.fail,
        "fail_at_end": settings.thresholds.fail_at_end,
        "rollback": settings.thresholds.rollback,
        "early_pass": settings.ending.early_pass,
        "extension_min": settings.ending.extension_min,
    })
}
