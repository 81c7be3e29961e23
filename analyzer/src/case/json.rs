//! Reads a case from JSON: what the words mean, and what to say when one is wrong.

use super::surroundings::{self, RawLeftOut, RawNeighbour, RawProblem};
use super::{Case, CaseError, CaseHost, CaseMetric, CaseSeries, CaseTemplate, HostGroup, MetricRole};
use crate::judge::{Ending, JudgeSettings};
use crate::sequential::Thresholds;
use serde::Deserialize;
use std::collections::BTreeMap;
use vouch_proto::{Direction, Strategy};

/// The object as it is written; nothing in here is trusted yet.
#[derive(Deserialize)]
struct RawCase {
    id: Option<String>,
    kind: Option<String>,
    interval_min: Option<i64>,
    baseline: Option<Vec<[i64; 2]>>,
    verification: Option<[i64; 2]>,
    metrics: Option<BTreeMap<String, RawMetric>>,
    hosts: Option<BTreeMap<String, RawHost>>,
    series: Option<Vec<RawSeries>>,
    template: Option<serde_json::Value>,
    diluted: Option<f64>,
    #[serde(default)]
    neighbours: Vec<RawNeighbour>,
    #[serde(default)]
    problems: Vec<RawProblem>,
    #[serde(default)]
    left_out: Vec<RawLeftOut>,
    minutes_seen: Option<i64>,
    barred: Option<String>,
    judged_with: Option<RawSettings>,
}

/// What recorded evidence was judged with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    fail: f64,
    fail_at_end: f64,
    rollback: f64,
    #[serde(default)]
    early_pass: bool,
    #[serde(default)]
    extension_min: i64,
}

impl From<RawSettings> for JudgeSettings {
    fn from(raw: RawSettings) -> Self {
        let RawSettings { fail, fail_at_end, rollback, early_pass, extension_min } = raw;
        let thresholds = Thresholds { fail, fail_at_end, rollback };
        Self { thresholds, ending: Ending { early_pass, extension_min }, ..Self::default() }
    }
}

#[derive(Deserialize)]
pub(super) struct RawMetric {
    #[serde(default)]
    unit: String,
    bad: Option<String>,
    exposure: Option<String>,
    role: Option<String>,
}

#[derive(Deserialize)]
struct RawHost {
    group: Option<String>,
    switch: Option<i64>,
    restarts: Option<Vec<i64>>,
}

#[derive(Deserialize)]
pub(super) struct RawSeries {
    metric: Option<String>,
    pub(super) host: Option<String>,
    start: Option<i64>,
    values: Option<Vec<Option<f64>>>,
}

#[derive(Deserialize)]
struct OnlyId {
    id: Option<String>,
}

/// See [`Case::from_json`].
pub(super) fn read(text: &str) -> Result<Case, CaseError> {
    let raw: RawCase = serde_json::from_str(text).map_err(|error| {
        CaseError::new("case", format!("is not a verification case in JSON: {error}; see docs/analysis.md"))
    })?;
    let mut case = Case {
        id: required(raw.id, "id", "a text")?,
        strategy: strategy(&required(
            raw.kind,
            "kind",
            "`previous`, `canary`, `rolling`, `blue-green`, `load-test` or `auto`",
        )?)?,
        interval_min: required(raw.interval_min, "interval_min", "whole minutes, at least 1")?,
        baseline: required(raw.baseline, "baseline", "windows `[[start, end], ...]` in minutes")?,
        verification: required(raw.verification, "verification", "a window `[start, end]` in minutes")?,
        metrics: metrics(required(raw.metrics, "metrics", "an object of metrics")?)?,
        hosts: hosts(required(raw.hosts, "hosts", "an object of hosts")?)?,
        series: series(required(raw.series, "series", "a list of series")?)?,
        template: raw.template.as_ref().map(CaseTemplate::read).transpose()?.unwrap_or_default(),
        diluted: raw.diluted,
        neighbours: Vec::new(),
        problems: surroundings::problems(raw.problems)?,
        left_out: surroundings::left_out(raw.left_out)?,
        minutes_seen: raw.minutes_seen,
        barred: raw.barred,
        judged_with: raw.judged_with.map(Into::into),
    };
    case.neighbours = surroundings::neighbours(raw.neighbours, &case)?;
    case.validate()?;
    Ok(case)
}

/// See [`Case::id_from_json`].
pub(super) fn read_id(text: &str) -> Option<String> {
    serde_json::from_str::<OnlyId>(text).ok()?.id
}

pub(super) fn required<T>(value: Option<T>, field: &str, expected: &str) -> Result<T, CaseError> {
    value.ok_or_else(|| CaseError::new(field, format!("is missing; give {expected}")))
}

fn strategy(word: &str) -> Result<Strategy, CaseError> {
    word.parse().map_err(|unknown: vouch_proto::UnknownWord| CaseError::new("kind", unknown.to_string()))
}

fn unknown(field: String, word: &str, expected: &str) -> CaseError {
    CaseError::new(field, format!("unknown value `{word}`, expected {expected}"))
}

pub(super) fn metrics(raw: BTreeMap<String, RawMetric>) -> Result<BTreeMap<String, CaseMetric>, CaseError> {
    let read = |(name, metric): (String, RawMetric)| {
        let path = |field: &str| format!("metrics.{name}.{field}");
        let bad = match metric.bad.as_deref() {
            Some("up" | "increase") => Direction::Increase,
            Some("down" | "decrease") => Direction::Decrease,
            Some("either") => Direction::Either,
            Some("none") => Direction::None,
            Some(word) => return Err(unknown(path("bad"), word, "`up`, `down`, `either` or `none`")),
            None => {
                return Err(CaseError::new(path("bad"), "is missing; give `up`, `down`, `either` or `none`"));
            }
        };
        let role = match metric.role.as_deref() {
            Some("judged") | None => MetricRole::Judged,
            Some("context") => MetricRole::Context,
            Some(word) => return Err(unknown(path("role"), word, "`judged` or `context`")),
        };
        Ok((name, CaseMetric { unit: metric.unit, bad, exposure: metric.exposure, role }))
    };
    raw.into_iter().map(read).collect()
}

fn hosts(raw: BTreeMap<String, RawHost>) -> Result<BTreeMap<String, CaseHost>, CaseError> {
    let read = |(name, host): (String, RawHost)| {
        let field = format!("hosts.{name}.group");
        let group = match host.group.as_deref() {
            Some("service") => HostGroup::Service,
            Some("control") => HostGroup::Control,
            Some("test") => HostGroup::Test,
            Some(word) => return Err(unknown(field, word, "`service`, `control` or `test`")),
            None => return Err(CaseError::new(field, "is missing; give `service`, `control` or `test`")),
        };
        Ok((name, CaseHost { group, switch: host.switch, restarts: host.restarts.unwrap_or_default() }))
    };
    raw.into_iter().map(read).collect()
}

pub(super) fn series(raw: Vec<RawSeries>) -> Result<Vec<CaseSeries>, CaseError> {
    let read = |(i, series): (usize, RawSeries)| {
        let missing = |field: &str, expected: &str| {
            CaseError::new(format!("series[{i}].{field}"), format!("is missing; give {expected}"))
        };
        Ok(CaseSeries {
            metric: series.metric.ok_or_else(|| missing("metric", "a key of `metrics`"))?,
            host: series.host.ok_or_else(|| missing("host", "a key of `hosts`"))?,
            start: series.start.ok_or_else(|| missing("start", "the minute of the first sample"))?,
            values: series.values.ok_or_else(|| missing("values", "numbers, `null` for a gap"))?,
        })
    };
    raw.into_iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"id":"a","kind":"canary","interval_min":1,"baseline":[[-3,0]],"verification":[0,2],
        "metrics":{"rt":{"unit":"ms","bad":"up"},"errors":{"unit":"1/min","bad":"up","exposure":"n","role":"judged"},
                   "n":{"unit":"1/min","bad":"down","role":"context"}},
        "hosts":{"c":{"group":"control","switch":null},"t":{"group":"test","switch":0,"restarts":[4,9]}},
        "label":{"verdict":"fail"},"surprise":[1],
        "series":[{"metric":"rt","host":"t","start":-3,"values":[1,2.5,null,4,5]}]}"#;

    #[test]
    fn a_case_is_read_and_the_rest_ignored() {
        let case = Case::from_json(SMALL).unwrap();
        assert_eq!((case.id.as_str(), case.strategy, case.interval_min), ("a", Strategy::Canary, 1));
        assert_eq!(case.metrics["rt"], CaseMetric::judged("ms", Direction::Increase));
        assert_eq!(case.metrics["errors"].exposure.as_deref(), Some("n"));
        assert!(!case.metrics["n"].is_judged());
        assert_eq!(
            case.hosts["t"],
            CaseHost { group: HostGroup::Test, switch: Some(0), restarts: vec![4, 9] }
        );
        assert_eq!(case.series[0].values, [Some(1.0), Some(2.5), None, Some(4.0), Some(5.0)]);
    }

    #[test]
    fn a_case_says_how_its_metrics_are_judged() {
        let template = r#""template":{"name":"t","metrics":{"rt":{"muted":true}}},"label""#;
        let case = Case::from_json(&SMALL.replace("\"label\"", template)).unwrap();
        assert!(case.template.of("rt").muted && !case.template.of("errors").muted);
        assert_eq!(Case::from_json(SMALL).unwrap().template, CaseTemplate::default());
    }

    #[test]
    fn a_refusal_names_the_field_the_value_and_the_remedy() {
        let cases = [
            (
                SMALL.replace("\"kind\":\"canary\",", ""),
                "kind: is missing; give `previous`, `canary`, `rolling`, `blue-green`",
            ),
            (
                SMALL.replace("canary", "canari"),
                "kind: unknown value `canari`, expected one of previous, canary",
            ),
            (
                SMALL.replace("\"up\"", "\"upp\""),
                "metrics.errors.bad: unknown value `upp`, expected `up`, `down`",
            ),
            (
                SMALL.replace("\"context\"", "\"ctx\""),
                "metrics.n.role: unknown value `ctx`, expected `judged`",
            ),
            (SMALL.replace("\"test\"", "\"tst\""), "hosts.t.group: unknown value `tst`, expected `service`"),
            (SMALL.replace("\"start\":-3,", ""), "series[0].start: is missing; give the minute"),
            (SMALL.replace("\"verification\":[0,2],", ""), "verification: is missing; give a window"),
            (SMALL.replace("2.5", "\"x\""), "case: is not a verification case in JSON: invalid type: string"),
            (
                SMALL.replace("\"label\"", "\"template\":{\"metrics\":{\"rt\":{\"weight\":-1}}},\"label\""),
                "template.metrics.rt.weight: is `-1`, give a number, 0.01 to 100",
            ),
            ("[".to_owned(), "case: is not a verification case in JSON: EOF"),
        ];
        for (text, expected) in cases {
            let message = Case::from_json(&text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}\n  instead of\n{expected}");
        }
    }

    #[test]
    fn the_id_of_a_refused_case_is_still_read() {
        assert_eq!(Case::id_from_json(r#"{"id":"x","kind":7}"#).as_deref(), Some("x"));
        assert_eq!(Case::id_from_json("{\"id\":7}"), None);
        assert_eq!(Case::id_from_json("nonsense"), None);
    }
}
