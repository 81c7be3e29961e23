//! Verification templates: which metrics, which reference windows, how long.

use crate::builtin::{databases, infrastructure};
use crate::packs::{containers, key_requests, kubernetes, processes};
use crate::{
    Deployment, Direction, Glob, Invalid, MetricSettings, Name, Sensitivity, Strategy, Timestamp, Window,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Whether a metric is judged or only explains others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricRole {
    /// Counts for the verdict.
    Judged,
    /// Explains others, e.g. the load offered at the entry.
    Context,
}

/// One metric of a template.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricSpec {
    /// Its name in series and verdicts.
    pub name: String,
    /// Selector for the service as a whole.
    pub query: String,
    /// Selector that is split by host, where the source has one.
    pub host_query: Option<String>,
    /// The dimension each value of which is judged by itself, and never taken together with others.
    pub each: Option<String>,
    /// Unit after normalisation, e.g. `ms`.
    pub unit: String,
    /// The direction in which it is bad.
    pub direction: Direction,
    /// The metric that counts the trials, for counts.
    pub exposure: Option<String>,
    /// Judged or context.
    pub role: MetricRole,
    /// How it is judged.
    pub settings: MetricSettings,
}

/// What to measure, against what, for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct VerificationTemplate {
    /// Its name.
    pub name: String,
    /// Default strategy.
    pub strategy: Strategy,
    /// Default length of the verification window.
    pub duration: Duration,
    /// Ask the source for data split by host where the metric has a `host_query`.
    pub by_host: bool,
    /// Length of the recent history before the deployment.
    pub recent: Duration,
    /// How much evidence the metrics need that do not say it themselves; `None`: medium.
    pub sensitivity: Option<Sensitivity>,
    /// Also the same clock time this many days before, e.g. 7 and 1.
    pub days_before: Vec<u32>,
    /// Pass as soon as a regression of practical size has been excluded.
    pub early_pass: bool,
    /// Longest extension of the window, where it ends before that can be told.
    pub extend_by: Duration,
    /// The metrics, each name once.
    pub metrics: Vec<MetricSpec>,
}

/// Minutes before the same clock time that a seasonal window begins.
const SEASON_LEAD_MINUTES: i64 = 60;
/// Reference minutes of a canary: test and control hosts side by side, so the recent past is enough.
const CANARY_RECENT: Duration = Duration::from_secs(60 * 60);
/// Reference minutes of a rolling deployment.
const ROLLING_RECENT: Duration = Duration::from_secs(120 * 60);

impl VerificationTemplate {
    /// Reference windows of a verification that starts at `start` and lasts `duration`, oldest first.
    #[must_use]
    pub fn baseline(&self, strategy: Strategy, start: Timestamp, duration: Duration) -> Vec<Window> {
        let minutes = i64::try_from(duration.as_secs() / 60).unwrap_or(i64::MAX);
        let (recent, seasons) = match strategy {
            Strategy::Canary => (self.recent.min(CANARY_RECENT), &[][..]),
            Strategy::Rolling => (self.recent.min(ROLLING_RECENT), &[][..]),
            Strategy::Previous | Strategy::BlueGreen | Strategy::LoadTest | Strategy::Auto => {
                (self.recent, self.days_before.as_slice())
            }
        };
        let mut windows: Vec<Window> = seasons
            .iter()
            .filter_map(|days| {
                let same_time = start.plus_minutes(-i64::from(*days) * 1440);
                Window::around(same_time, -SEASON_LEAD_MINUTES, minutes).ok()
            })
            .collect();
        windows.extend(Window::new(start.minus(recent), start));
        windows.sort_unstable();
        windows
    }
}

/// The templates that a verification can name.
#[derive(Debug, Clone, PartialEq)]
pub struct Templates {
    by_name: BTreeMap<String, VerificationTemplate>,
    default: String,
    overrides: Vec<TemplateOverride>,
}

/// Gives some services another template than the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateOverride {
    /// Patterns of their names; empty for all.
    pub services: Vec<Glob>,
    /// Patterns of their environments; empty for all.
    pub environments: Vec<Glob>,
    /// Name of the template.
    pub template: String,
}

impl TemplateOverride {
    fn fits(&self, deployment: &Deployment) -> bool {
        let any = |patterns: &[Glob], name: &Name| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(name.as_str()))
        };
        any(&self.services, &deployment.service) && any(&self.environments, &deployment.environment)
    }
}

impl Default for Templates {
    fn default() -> Self {
        let builtin = golden_signals();
        let default = builtin.name.clone();
        let all = [
            builtin,
            golden_signals_by_host(),
            infrastructure(),
            databases(),
            key_requests(),
            processes(),
            containers(),
            kubernetes(),
        ];
        let by_name = all.into_iter().map(|t| (t.name.clone(), t)).collect();
        Self { by_name, default, overrides: Vec::new() }
    }
}

impl Templates {
    /// Adds a template, or replaces the one of that name.
    pub fn insert(&mut self, template: VerificationTemplate) {
        self.by_name.insert(template.name.clone(), template);
    }

    /// Makes the named template the default.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn set_default(&mut self, name: &str) -> Result<(), Invalid> {
        self.get(Some(name))?;
        name.clone_into(&mut self.default);
        Ok(())
    }

    /// Gives some services another template; the first that fits a deployment decides.
    ///
    /// # Errors
    /// Where there is no such template.
    pub fn add_override(&mut self, one: TemplateOverride) -> Result<(), Invalid> {
        self.get(Some(&one.template))?;
        self.overrides.push(one);
        Ok(())
    }

    /// The template of a deployment: the one that it names, else that of its service, else the default.
    ///
    /// # Errors
    /// Where there is none of the name that it gives.
    pub fn of(&self, deployment: &Deployment) -> Result<&VerificationTemplate, Invalid> {
        let of_service =
            || self.overrides.iter().find(|one| one.fits(deployment)).map(|one| one.template.as_str());
        self.get(deployment.verification.template.as_deref().or_else(of_service))
    }

    /// The template of that name, or the default.
    ///
    /// # Errors
    /// Where there is none of that name: the message lists those there are.
    pub fn get(&self, name: Option<&str>) -> Result<&VerificationTemplate, Invalid> {
        let name = name.unwrap_or(&self.default);
        self.by_name.get(name).ok_or_else(|| {
            let known = self.by_name.keys().cloned().collect::<Vec<_>>().join(", ");
            Invalid::field("template", format!("unknown template `{name}`, expected one of {known}"))
        })
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &VerificationTemplate> {
        self.by_name.values()
    }
}

pub(crate) fn metric(
    name: &str,
    query: &str,
    host_query: Option<&str>,
    unit: &str,
    direction: Direction,
) -> MetricSpec {
    MetricSpec {
        name: name.to_owned(),
        query: query.to_owned(),
        host_query: host_query.map(ToOwned::to_owned),
        each: None,
        unit: unit.to_owned(),
        direction,
        exposure: None,
        role: MetricRole::Judged,
        settings: MetricSettings::default(),
    }
}

/// Latency, errors, traffic and CPU of a service as a whole, from Dynatrace's built-in metrics. Needs no set-up.
#[must_use]
pub fn golden_signals() -> VerificationTemplate {
    let mut errors = metric(
        "error_count",
        // No error writes no point: a minute with traffic and no point had none, and must be told from a gap.
        "builtin:service.errors.total.count:splitBy():value:default(0,always)",
        Some("calc:service.error_count:splitBy(\"dt.entity.process_group_instance\"):value:default(0)"),
        "count",
        Direction::Increase,
    );
    errors.exposure = Some("throughput".to_owned());
    VerificationTemplate {
        name: "golden-signals".to_owned(),
        strategy: Strategy::Auto,
        duration: Duration::from_secs(30 * 60),
        by_host: false,
        recent: Duration::from_secs(180 * 60),
        sensitivity: None,
        days_before: vec![7, 1],
        early_pass: false,
        extend_by: Duration::ZERO,
        metrics: vec![
            metric(
                "response_time",
                "builtin:service.response.time:splitBy(\"dt.entity.service\"):avg",
                Some("calc:service.response_time:splitBy(\"dt.entity.process_group_instance\"):avg"),
                "ms",
                Direction::Increase,
            ),
            metric(
                "response_time_p95",
                "builtin:service.response.time:splitBy(\"dt.entity.service\"):percentile(95)",
                Some(
                    "calc:service.response_time:splitBy(\"dt.entity.process_group_instance\"):percentile(95)",
                ),
                "ms",
                Direction::Increase,
            ),
            errors,
            metric(
                "throughput",
                "builtin:service.requestCount.total:splitBy(\"dt.entity.service\"):value",
                Some("calc:service.request_count:splitBy(\"dt.entity.process_group_instance\"):value"),
                "count",
                Direction::Decrease,
            ),
            metric(
                "cpu",
                "builtin:tech.generic.cpu.usage:splitBy():avg",
                Some("builtin:tech.generic.cpu.usage:splitBy(\"dt.entity.process_group_instance\"):avg"),
                "percent",
                Direction::Increase,
            ),
        ],
    }
}

/// The same signals split by process group instance. Latency, errors and traffic by instance come from calculated
/// service metrics that the tenant must define: Dynatrace's built-in service metrics have the service alone.
#[must_use]
pub fn golden_signals_by_host() -> VerificationTemplate {
    VerificationTemplate { name: "golden-signals-by-host".to_owned(), by_host: true, ..golden_signals() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn previous_compares_with_the_recent_past_and_the_same_time_of_day_and_week() {
        let windows = golden_signals().baseline(Strategy::Previous, start(), Duration::from_secs(15 * 60));
        let text: Vec<String> = windows.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "[2026-11-17T09:00:00Z, 2026-11-17T10:15:00Z)",
                "[2026-11-23T09:00:00Z, 2026-11-23T10:15:00Z)",
                "[2026-11-24T07:00:00Z, 2026-11-24T10:00:00Z)",
            ]
        );
    }

    #[test]
    fn a_canary_needs_the_last_hour_only() {
        let windows = golden_signals().baseline(Strategy::Canary, start(), Duration::from_secs(900));
        assert_eq!(windows.len(), 1);
        assert_eq!(windows[0].minutes(), 60);
    }

    #[test]
    fn an_unknown_template_names_the_known_ones() {
        let said = Templates::default().get(Some("golden")).unwrap_err().to_string();
        assert!(said.contains("`golden`") && said.contains("golden-signals-by-host"), "{said}");
        assert_eq!(Templates::default().get(None).unwrap().name, "golden-signals");
    }

    #[test]
    fn exposures_name_metrics_of_the_template() {
        for template in Templates::default().iter() {
            for exposure in template.metrics.iter().filter_map(|m| m.exposure.as_ref()) {
                assert!(template.metrics.iter().any(|m| &m.name == exposure));
            }
        }
    }
}
