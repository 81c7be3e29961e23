//! Metrics that are measured for several things each, e.g. key requests: every one of them is a metric of its own.

use super::Assembly;
use crate::case::Case;
use std::collections::BTreeSet;
use vouch_proto::{MetricSettings, MetricSpec, Series, VerificationTemplate};

/// Between the name of a metric and what it is measured for.
const OF: &str = " of ";

/// The metric that a series is of: with what it is measured for, where the template's metric is for several.
pub(super) fn metric_of(series: &Series) -> String {
    named(&series.metric, series.item.as_deref())
}

fn named(metric: &str, item: Option<&str>) -> String {
    item.map_or_else(|| metric.to_owned(), |item| format!("{metric}{OF}{item}"))
}

/// The template's metric that a metric of a case or a verdict comes from.
pub(crate) fn spec_of<'a>(template: &'a VerificationTemplate, metric: &str) -> Option<&'a MetricSpec> {
    let is_it =
        |spec: &&MetricSpec| spec.name == metric || (spec.each.is_some() && item_of(spec, metric).is_some());
    template.metrics.iter().find(is_it)
}

fn item_of<'m>(spec: &MetricSpec, metric: &'m str) -> Option<&'m str> {
    metric.strip_prefix(spec.name.as_str())?.strip_prefix(OF)
}

impl Assembly {
    /// Adds the template's metrics to a case; those for several things once for each of them.
    pub(super) fn with_metrics(&self, mut case: Case, template: &VerificationTemplate) -> Case {
        let items = self.items(template);
        for spec in &template.metrics {
            if spec.each.is_none() || items.is_empty() {
                case = case.with_metric(spec.name.clone(), self.metric(spec));
                continue;
            }
            case.template.metrics.remove(&spec.name);
            for item in &items {
                let name = named(&spec.name, Some(item));
                let mut metric = self.metric(spec);
                let is_each =
                    |name: &str| template.metrics.iter().any(|m| m.name == name && m.each.is_some());
                if let Some(exposure) = metric.exposure.as_mut().filter(|name| is_each(name)) {
                    *exposure = named(exposure, Some(item));
                }
                if spec.settings != MetricSettings::DEFAULT {
                    case.template.metrics.insert(name.clone(), spec.settings.clone());
                }
                case = case.with_metric(name, metric);
            }
        }
        case
    }

    /// All things that metrics of the template were measured for.
    fn items(&self, template: &VerificationTemplate) -> BTreeSet<String> {
        let each: Vec<&MetricSpec> = template.metrics.iter().filter(|spec| spec.each.is_some()).collect();
        let metrics = self.cells.keys().map(|(metric, _)| metric);
        let item =
            |metric: &String| each.iter().find_map(|spec| item_of(spec, metric)).map(ToOwned::to_owned);
        metrics.filter_map(item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::batch;
    use super::*;
    use crate::record::tests::running;
    use vouch_proto::template::golden_signals;

    fn template() -> VerificationTemplate {
        let mut template = golden_signals();
        template
            .metrics
            .retain(|m| ["response_time", "error_count", "throughput"].contains(&m.name.as_str()));
        template.metrics.iter_mut().for_each(|m| m.each = Some("dt.entity.service_method".into()));
        template.metrics[0].settings.weight = 2.0;
        template
    }

    #[test]
    fn each_thing_is_a_metric_of_its_own_with_its_own_exposure_and_settings() {
        let mut assembly = Assembly::default();
        for (minutes, item) in [((-180, 0), "/cart"), ((0, 5), "/cart"), ((0, 5), "/pay")] {
            let mut batch = batch(minutes.0, minutes.1, 100.0);
            batch.series[0].item = Some(item.into());
            assembly.absorb(&batch);
        }
        let case = assembly.case(&running(), &template()).unwrap();
        let names: Vec<&str> = case.metrics.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "error_count of /cart",
                "error_count of /pay",
                "response_time of /cart",
                "response_time of /pay",
                "throughput of /cart",
                "throughput of /pay"
            ]
        );
        assert_eq!(case.metrics["error_count of /pay"].exposure.as_deref(), Some("throughput of /pay"));
        assert!((case.template.of("response_time of /pay").weight - 2.0).abs() < 1e-9);
        assert!(case.series.iter().any(|one| one.metric == "response_time of /pay"));
        assert_eq!(case.validate(), Ok(()));
    }

    #[test]
    fn without_any_the_metrics_stand_alone_and_silent() {
        let mut assembly = Assembly::default();
        assembly.absorb(&batch(-180, 0, 1.0));
        let case = assembly.case(&running(), &template()).unwrap();
        assert_eq!(case.metrics.len(), 3);
    }

    #[test]
    fn a_metric_is_traced_back_to_its_template() {
        let template = template();
        assert_eq!(spec_of(&template, "throughput of /a of b").unwrap().name, "throughput");
        assert_eq!(spec_of(&template, "throughput").unwrap().name, "throughput");
        assert!(spec_of(&template, "through of /a").is_none());
        assert!(spec_of(&golden_signals(), "throughput of /a").is_none(), "it is for the service as a whole");
    }
}
