//! The part of a template that the judge uses: how each metric is judged. A case carries it, so that it replays alike.

use super::{Case, CaseError};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use vouch_proto::{Direction, Invalid, MetricSettings, OnNoData, Sensitivity, VerificationTemplate};

static DEFAULT: MetricSettings = MetricSettings::DEFAULT;

/// How the metrics of a case are judged. The default is what `vouch judge` does without a word.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CaseTemplate {
    /// Its name; echoed, never interpreted.
    pub name: String,
    /// For the metrics that do not say it themselves; `None`: medium.
    pub sensitivity: Option<Sensitivity>,
    /// By metric; a metric without an entry has the defaults.
    pub metrics: BTreeMap<String, MetricSettings>,
}

impl CaseTemplate {
    /// How a metric is judged.
    #[must_use]
    pub fn of(&self, metric: &str) -> &MetricSettings {
        self.metrics.get(metric).unwrap_or(&DEFAULT)
    }

    /// How much evidence a metric needs.
    #[must_use]
    pub fn sensitivity_of(&self, metric: &str) -> Sensitivity {
        self.of(metric).sensitivity.or(self.sensitivity).unwrap_or_default()
    }

    /// The same where evidence alone may fail, at the judge's own thresholds.
    #[must_use]
    pub fn evidence_alone(&self) -> Self {
        let mut alone = Self { sensitivity: None, ..self.clone() };
        for settings in alone.metrics.values_mut() {
            settings.sensitivity = None;
            settings.fail_fast = None;
            settings.on_no_data = settings.on_no_data.filter(|word| *word != OnNoData::Fail);
        }
        alone
    }

    /// The same for a source that could not deliver some metrics: their silence is never a Fail.
    #[must_use]
    pub fn without_answer(mut self, refused: impl Fn(&str) -> bool) -> Self {
        for (_, settings) in self.metrics.iter_mut().filter(|(metric, _)| refused(metric)) {
            settings.on_no_data = settings.on_no_data.filter(|word| *word != OnNoData::Fail);
        }
        self
    }

    /// Reads the object `template` of a case.
    pub(super) fn read(value: &Value) -> Result<Self, CaseError> {
        let mut invalid = Invalid::default();
        let mut template = Self::default();
        let known = ["name", "sensitivity", "metrics"];
        let Value::Object(map) = value else {
            let message = format!("is `{value}`, give an object of {}", known.join(", "));
            return Err(CaseError::new("template", message));
        };
        for word in map.keys().filter(|word| !known.contains(&word.as_str())) {
            invalid.push(word.as_str(), format!("is no setting here, expected one of {}", known.join(", ")));
        }
        let given = |word: &str| map.get(word).filter(|value| !value.is_null());
        if let Some(name) = given("name") {
            match name.as_str() {
                Some(name) => name.clone_into(&mut template.name),
                None => invalid.push("name", format!("is `{name}`, give a text")),
            }
        }
        if let Some(word) = given("sensitivity") {
            let text = word.as_str().map_or_else(|| word.to_string(), ToOwned::to_owned);
            match text.parse() {
                Ok(word) => template.sensitivity = Some(word),
                Err(e) => invalid.push("sensitivity", format!("{e}")),
            }
        }
        if let Some(metrics) = given("metrics") {
            if !metrics.is_object() {
                invalid.push("metrics", format!("is `{metrics}`, give an object of metrics"));
            }
            for (name, words) in metrics.as_object().into_iter().flatten() {
                let mut wrong = Invalid::default();
                let settings = MetricSettings::read_object(words, &mut wrong);
                invalid.extend(&format!("metrics.{name}"), wrong);
                template.metrics.insert(name.clone(), settings);
            }
        }
        refuse_all(invalid).map(|()| template)
    }

    /// The object that [`Case::from_json`] reads back; empty for the default.
    #[must_use]
    pub fn to_words(&self) -> Map<String, Value> {
        let metrics: Map<String, Value> = self
            .metrics
            .iter()
            .map(|(name, settings)| (name.clone(), Value::Object(settings.to_words())))
            .filter(|(_, words)| words.as_object().is_some_and(|words| !words.is_empty()))
            .collect();
        let words = [
            ("name", (!self.name.is_empty()).then(|| json!(self.name))),
            ("sensitivity", self.sensitivity.map(|word| json!(word.as_str()))),
            ("metrics", (!metrics.is_empty()).then_some(Value::Object(metrics))),
        ];
        words.into_iter().filter_map(|(word, value)| Some((word.to_owned(), value?))).collect()
    }

    /// Refuses settings of metrics that are not there, and those that contradict their metric.
    pub(super) fn check(&self, case: &Case) -> Result<(), CaseError> {
        let mut invalid = Invalid::default();
        for (name, settings) in &self.metrics {
            let field = format!("metrics.{name}");
            let Some(metric) = case.metrics.get(name) else {
                let known = case.metrics.keys().cloned().collect::<Vec<_>>().join(", ");
                invalid.push(field, format!("is no metric of the case, expected one of {known}"));
                continue;
            };
            let bad = if metric.is_judged() { metric.bad } else { Direction::None };
            invalid.check(&field, settings.check(bad, metric.exposure.is_some()));
        }
        refuse_all(invalid)
    }
}

/// Only what differs from the default is kept, so that a case with nothing said equals one with nothing written.
impl From<&VerificationTemplate> for CaseTemplate {
    fn from(template: &VerificationTemplate) -> Self {
        let said = template.metrics.iter().filter(|spec| spec.settings != MetricSettings::DEFAULT);
        Self {
            name: template.name.clone(),
            sensitivity: template.sensitivity,
            metrics: said.map(|spec| (spec.name.clone(), spec.settings.clone())).collect(),
        }
    }
}

/// All that is wrong, in the words of a refused case.
fn refuse_all(invalid: Invalid) -> Result<(), CaseError> {
    let mut all = Invalid::default();
    all.extend("template", invalid);
    let Some((first, rest)) = all.violations.split_first() else { return Ok(()) };
    let more: String = rest.iter().map(|v| format!("; {}: {}", v.field, v.message)).collect();
    Err(CaseError::new(first.field.clone(), format!("{}{more}", first.message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CaseMetric;
    use vouch_proto::Strategy;

    fn read(text: &str) -> Result<CaseTemplate, String> {
        CaseTemplate::read(&serde_json::from_str(text).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let template = read(
            r#"{"name":"strict","sensitivity":"high","metrics":{"rt":{"critical":true,"minimum_effect":{"absolute":5}}}}"#,
        )
        .unwrap();
        assert_eq!(template.sensitivity_of("rt"), Sensitivity::High);
        assert!(template.of("rt").critical && !template.of("cpu").critical);
        assert_eq!(read(&serde_json::to_string(&template.to_words()).unwrap()), Ok(template));
        assert!(CaseTemplate::default().to_words().is_empty());
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let said =
            read(r#"{"nam":1,"sensitivity":"loud","metrics":{"rt":{"weight":0,"x":1},"b":7}}"#).unwrap_err();
        for part in [
            "template.nam: is no setting here, expected one of name, sensitivity, metrics",
            "template.sensitivity: unknown value `loud`, expected one of low, medium, high",
            "template.metrics.rt.weight: is `0`",
            "template.metrics.rt.x: is no setting here",
            "template.metrics.b: is `7`, give a mapping",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(read("[]").unwrap_err().starts_with("template: is `[]`, give an object"));
    }

    #[test]
    fn settings_of_an_unknown_metric_and_contradictions_are_refused() {
        let mut case = Case::new("a", Strategy::Previous, 1, [0, 5])
            .with_metric("rt", CaseMetric::judged("ms", Direction::Increase))
            .with_metric("n", CaseMetric::context("1/min"));
        case.template = read(r#"{"metrics":{"rtt":{},"n":{"critical":true},"rt":{"muted":true}}}"#).unwrap();
        let said = case.template.check(&case).unwrap_err().to_string();
        assert!(
            said.contains("template.metrics.rtt: is no metric of the case, expected one of n, rt"),
            "{said}"
        );
        assert!(said.contains("template.metrics.n.critical: has no effect"), "{said}");
    }
}
