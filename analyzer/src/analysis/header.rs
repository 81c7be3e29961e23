//! Reads the header of an analysis: windows, metrics and hosts.

use super::answer::Subject;
use super::{Draft, MAX_CELLS, MAX_METRICS, Refusal, at_most, check_label};
use crate::case::{self, Case, CaseMetric, HostGroup as CaseGroup, MAX_BASELINE_WINDOWS, MetricRole};
use std::collections::BTreeSet;
use vouch_proto::deployment::{MAX_HOSTS, hosts};
use vouch_proto::{
    DeploymentHost, Direction, HostGroup, Invalid, MetricSettings, Name, Strategy, Timestamp, Window, v1,
};

/// See [`Draft::open`].
pub(super) fn read(mut header: v1::AnalyzeRequest, now: Timestamp) -> Result<Draft, Refusal> {
    check_size(&header)?;
    let mut invalid = Invalid::default();
    if header.collected {
        invalid.push("collected", "is set; what was collected is judged by Analyze, not by a stream");
    }
    if !header.template.is_empty() {
        invalid.push("template", "is set; it goes with `collected`, or name the metrics");
    }
    let metrics = metrics(std::mem::take(&mut header.metrics), &mut invalid);
    let hosts = invalid.check("", hosts(std::mem::take(&mut header.hosts)));
    for (i, host) in hosts.iter().flatten().enumerate() {
        check_label(&format!("hosts[{i}].name"), &host.name, &mut invalid);
    }
    let service = invalid.check("service", Name::new(header.service));
    let environment = invalid.check("environment", Name::new(header.environment));
    let version = invalid.check("", Name::new("unspecified"));
    let strategy = invalid.check("strategy", Strategy::from_wire(header.strategy));
    let verification = header.verification.ok_or_else(|| Invalid::field("", "is missing; give a window"));
    let verification = invalid.check("verification", verification.and_then(Window::try_from));
    let mut baseline = Vec::new();
    for (i, window) in header.baseline.into_iter().enumerate() {
        baseline.extend(invalid.check(&format!("baseline[{i}]"), Window::try_from(window)));
    }
    let step = header.resolution_seconds;
    if step == 0 || !step.is_multiple_of(60) {
        invalid.push("resolution_seconds", format!("{step} is not a whole number of minutes, e.g. 60"));
    }
    let (Some(service), Some(environment), Some(version), Some(strategy), Some(verification), Some(hosts)) =
        (service, environment, version, strategy, verification, hosts)
    else {
        return Err(Refusal::Wrong(invalid));
    };
    invalid.into_result()?;
    let origin = verification.start();
    let minute = |t: Timestamp| t.minutes_since(origin);
    let mut case = Case::new("analyze", strategy, i64::from(step / 60), [0, verification.minutes()]);
    for window in &baseline {
        case = case.with_baseline([minute(window.start()), minute(window.end())]);
    }
    let units = metrics.iter().map(|m| (m.name.clone(), m.metric.unit.clone())).collect();
    for Asked { name, metric, settings } in metrics {
        if settings != MetricSettings::DEFAULT {
            case = case.with_settings(name.clone(), settings);
        }
        case = case.with_metric(name, metric);
    }
    let case = with_hosts(case, &hosts, origin);
    let steps = steps(&case);
    at_most("verification", steps, MAX_CELLS, "steps of all windows", "shorten the windows")?;
    let subject = Subject { service, environment, version, baseline, verification, units, now };
    let tracks = BTreeSet::new();
    Ok(Draft { subject, case, origin, steps, series: 0, samples: 0, tracks })
}

fn check_size(header: &v1::AnalyzeRequest) -> Result<(), Refusal> {
    let (metrics, hosts) = (header.metrics.len(), header.hosts.len());
    at_most("metrics", metrics, MAX_METRICS, "metrics", "split the metrics over several calls")?;
    let remedy = "split the hosts over several calls";
    at_most("hosts", hosts, MAX_HOSTS, "hosts", remedy)?;
    at_most("hosts", hosts.saturating_mul(metrics), case::MAX_SERIES, "hosts times metrics", remedy)?;
    let windows = header.baseline.len();
    at_most("baseline", windows, MAX_BASELINE_WINDOWS, "windows", "give those that are most alike")
}

/// Steps of all windows together.
fn steps(case: &Case) -> usize {
    let windows = case.baseline.iter().chain([&case.verification]);
    let steps = windows.map(|[start, end]| (end - start).max(0) / case.interval_min.max(1) + 1);
    usize::try_from(steps.fold(0_i64, i64::saturating_add)).unwrap_or(usize::MAX)
}

/// A metric, and how it is to be judged.
struct Asked {
    name: String,
    metric: CaseMetric,
    settings: MetricSettings,
}

fn metrics(wire: Vec<v1::AnalyzeMetric>, invalid: &mut Invalid) -> Vec<Asked> {
    let mut read = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, metric) in wire.into_iter().enumerate() {
        let field = format!("metrics[{i}].name");
        if metric.name.is_empty() {
            invalid.push(&field, "is empty; name it as in the series");
        }
        check_label(&field, &metric.name, invalid);
        if !seen.insert(metric.name.clone()) {
            invalid.push(&field, "is named twice; name each metric once");
        }
        let bad = invalid.check(&format!("metrics[{i}].direction"), Direction::from_wire(metric.direction));
        let Some(bad) = bad else { continue };
        let role = if bad == Direction::None { MetricRole::Context } else { MetricRole::Judged };
        let exposure = (!metric.exposure.is_empty()).then_some(metric.exposure);
        let settings = metric.settings.map_or(Ok(MetricSettings::DEFAULT), |settings| {
            let settings = MetricSettings::try_from(settings)?;
            settings.check(bad, exposure.is_some()).map(|()| settings)
        });
        let Some(settings) = invalid.check(&format!("metrics[{i}].settings"), settings) else { continue };
        let judged = CaseMetric { unit: metric.unit, bad, exposure, role };
        read.push(Asked { name: metric.name, metric: judged, settings });
    }
    read
}

fn with_hosts(mut case: Case, hosts: &[DeploymentHost], origin: Timestamp) -> Case {
    for host in hosts {
        let switch = host.switched_at.map_or(0, |t| t.ceil_minute().minutes_since(origin).max(0));
        let (group, switch) = match host.group {
            HostGroup::Control => (CaseGroup::Control, None),
            HostGroup::Test => (CaseGroup::Test, Some(switch)),
            HostGroup::Service => (CaseGroup::Service, Some(switch)),
        };
        case = case.with_host(host.name.clone(), group, switch);
        for restart in &host.restarted_at {
            case = case.with_restart(&host.name, restart.minutes_since(origin));
        }
    }
    case
}
