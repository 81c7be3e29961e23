//! Analyze: judges series that the client sends, with the judge of the live path. Nothing is stored.

use super::refuse;
use crate::case::{Case, CaseMetric, HostGroup as CaseGroup, MetricRole};
use crate::judge::{self, JUDGE_VERSION, JudgeSettings, Judgement};
use crate::verification::inconclusive_cause;
use std::collections::BTreeSet;
use tonic::Status;
use vouch_proto::deployment::hosts;
use vouch_proto::series::read_series;
use vouch_proto::time::{self, MINUTE_MS};
use vouch_proto::{
    Cause, DeploymentHost, Direction, HostGroup, Invalid, MetricResult, Name, Outcome, Strategy, Timestamp,
    Verdict, Window, v1,
};

/// Most samples of one request.
const MAX_SAMPLES: usize = 2_000_000;
/// Most series of one request.
const MAX_SERIES: usize = 20_000;

pub(super) async fn analyze(request: v1::AnalyzeRequest, now: Timestamp) -> Result<Verdict, Status> {
    let samples: usize =
        request.series.iter().filter_map(|s| s.series.as_ref()).map(|s| s.values.len()).sum();
    if samples > MAX_SAMPLES {
        return Err(Status::resource_exhausted(format!(
            "series: {samples} samples, at most {MAX_SAMPLES} are judged"
        )));
    }
    if request.series.len() > MAX_SERIES {
        let count = request.series.len();
        return Err(Status::resource_exhausted(format!(
            "series: {count} series, at most {MAX_SERIES} are judged"
        )));
    }
    let (case, subject) = read(request, now).map_err(|e| refuse::invalid(&e))?;
    case.validate().map_err(|e| refuse::field(&e.field, e.message.clone()))?;
    let judged = tokio::task::spawn_blocking(move || judge::judge(&case, &JudgeSettings::default()));
    let judgement =
        judged.await.map_err(|_| Status::internal("the judge did not end; please report the request"))?;
    Ok(verdict(subject, judgement))
}

/// What the verdict says besides the judgement.
struct Subject {
    service: Name,
    environment: Name,
    version: Name,
    baseline: Vec<Window>,
    verification: Window,
    units: Vec<(String, String)>,
    now: Timestamp,
}

fn read(request: v1::AnalyzeRequest, now: Timestamp) -> Result<(Case, Subject), Invalid> {
    let mut invalid = Invalid::default();
    let service = invalid.check("service", Name::new(request.service));
    let environment = invalid.check("environment", Name::new(request.environment));
    let strategy = invalid.check("strategy", Strategy::from_wire(request.strategy));
    let window =
        request.verification.ok_or_else(|| Invalid::field("", "is missing")).and_then(Window::try_from);
    let verification = invalid.check("verification", window);
    let mut baseline = Vec::new();
    for (i, window) in request.baseline.into_iter().enumerate() {
        baseline.extend(invalid.check(&format!("baseline[{i}]"), Window::try_from(window)));
    }
    let hosts = invalid.check("", hosts(request.hosts));
    let step = request.resolution_seconds;
    if step == 0 || !step.is_multiple_of(60) {
        invalid.push("resolution_seconds", format!("{step} is not a whole number of minutes, e.g. 60"));
    }
    let (Some(service), Some(environment), Some(strategy), Some(verification), Some(hosts)) =
        (service, environment, strategy, verification, hosts)
    else {
        return Err(invalid);
    };
    let origin = verification.start();
    let minute = |t: Timestamp| t.minutes_since(origin);
    let mut case = Case::new("analyze", strategy, i64::from(step / 60), [0, verification.minutes()]);
    for window in &baseline {
        case = case.with_baseline([minute(window.start()), minute(window.end())]);
    }
    let mut units = Vec::new();
    for (i, metric) in request.metrics.into_iter().enumerate() {
        let bad = invalid.check(&format!("metrics[{i}].direction"), Direction::from_wire(metric.direction));
        let Some(bad) = bad else { continue };
        units.push((metric.name.clone(), metric.unit.clone()));
        case = case.with_metric(metric.name.clone(), read_metric(metric, bad));
    }
    case = with_series(with_hosts(case, &hosts, origin), request.series, origin, &mut invalid);
    invalid.into_result()?;
    let version = Name::new("unspecified")?;
    Ok((case, Subject { service, environment, version, baseline, verification, units, now }))
}

fn read_metric(metric: v1::AnalyzeMetric, bad: Direction) -> CaseMetric {
    let role = if bad == Direction::None { MetricRole::Context } else { MetricRole::Judged };
    let exposure = (!metric.exposure.is_empty()).then_some(metric.exposure);
    CaseMetric { unit: metric.unit, bad, exposure, role }
}

fn with_hosts(mut case: Case, hosts: &[DeploymentHost], origin: Timestamp) -> Case {
    for host in hosts {
        let switch = host.switched_at.map(|t| t.ceil_minute().minutes_since(origin).max(0));
        case = match host.group {
            HostGroup::Control => case.with_host(host.name.clone(), CaseGroup::Control, None),
            HostGroup::Test => case.with_host(host.name.clone(), CaseGroup::Test, Some(switch.unwrap_or(0))),
            HostGroup::Service => {
                case.with_host(host.name.clone(), CaseGroup::Service, Some(switch.unwrap_or(0)))
            }
        };
        for restart in &host.restarted_at {
            case = case.with_restart(&host.name, restart.minutes_since(origin));
        }
    }
    case
}

fn with_series(
    mut case: Case,
    series: Vec<v1::AnalyzeSeries>,
    origin: Timestamp,
    invalid: &mut Invalid,
) -> Case {
    let mut unnamed = BTreeSet::new();
    for (i, s) in series.into_iter().enumerate() {
        let start = invalid.check(&format!("series[{i}].start"), time::required(s.start));
        let Some(series) = s.series else {
            invalid.push(format!("series[{i}].series"), "is missing");
            continue;
        };
        let read = invalid.check(&format!("series[{i}].series"), read_series(series, None));
        let (Some(start), Some(read)) = (start, read) else { continue };
        if (start.as_millis() - origin.as_millis()) % MINUTE_MS != 0 {
            invalid.push(
                format!("series[{i}].start"),
                format!("{start} is not a whole number of minutes from {origin}"),
            );
        }
        if !case.metrics.contains_key(&read.metric) {
            invalid
                .push(format!("series[{i}].series.metric"), format!("`{}` is not in `metrics`", read.metric));
            continue;
        }
        let host = read.host.unwrap_or_else(|| crate::window::WHOLE_SERVICE.to_owned());
        if !case.hosts.contains_key(&host) && unnamed.insert(host.clone()) {
            case = case.with_host(host.clone(), CaseGroup::Service, Some(0));
        }
        case = case.with_series(&read.metric, &host, start.minutes_since(origin), read.samples);
    }
    case
}

fn verdict(subject: Subject, judgement: Judgement) -> Verdict {
    let outcome = judgement.outcome.unwrap_or(Outcome::Inconclusive);
    let failed = outcome == Outcome::Fail;
    let unit = |metric: &str| {
        subject
            .units
            .iter()
            .find(|(name, _)| name == metric)
            .map_or_else(String::new, |(_, unit)| unit.clone())
    };
    let cause = match outcome {
        Outcome::Pass => Cause::Healthy,
        Outcome::Fail => Cause::Regression,
        Outcome::Inconclusive => inconclusive_cause(&judgement),
        Outcome::Error => Cause::NotJudgeable,
    };
    let minute = |m: Option<i64>| m.and_then(|m| u32::try_from(m).ok());
    let metrics = judgement.metrics.into_iter().map(|m| MetricResult {
        unit: unit(&m.metric),
        metric: m.metric,
        host: m.host,
        classification: m.classification,
        risk: m.risk,
        score: m.score,
        reason: m.reason,
        effect: m.effect.is_finite().then_some(m.effect),
        since_minute: minute(m.since_minute),
    });
    Verdict {
        verification_id: "analyze".to_owned(),
        deployment_id: "analyze".to_owned(),
        revision: 0,
        outcome,
        rollback_grade: failed && judgement.rollback_grade,
        cause,
        data_final: true,
        risk: if failed { 1.0 } else { judgement.risk.clamp(0.0, 0.999) },
        reason: judgement.reason,
        metrics: metrics.collect(),
        judge_version: JUDGE_VERSION.to_owned(),
        template: String::new(),
        strategy: judgement.choice.strategy,
        strategy_reason: judgement.choice.reason,
        baseline: subject.baseline,
        verification: Some(subject.verification),
        service: subject.service,
        environment: subject.environment,
        version: subject.version,
        previous_version: None,
        owner: None,
        cluster: None,
        workload: None,
        decided_at: subject.now,
        failed_at_minute: minute(judgement.failed_at_minute.filter(|_| failed)),
        usable_minutes: minute(Some(judgement.usable_minutes)).unwrap_or(0),
        transient: judgement.transient,
        diluted_share: judgement.diluted.as_ref().map(|diluted| diluted.share),
        smallest_effects: judgement.diluted.map_or_else(Vec::new, |diluted| diluted.smallest),
    }
}
