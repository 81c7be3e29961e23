//! The final word on a verification, validated.

use crate::convert::{enum_words, text};
use crate::levels::{Levels, Reached};
use crate::{
    Classification, CommonCause, Invalid, LeftOut, MetricSettings, Name, Objective, Outcome, Problem,
    Sensitivity, Strategy, Timestamp, Window, time, v1,
};

/// Why a verification ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A metric got worse (Fail).
    Regression,
    /// Nothing got worse up to the end of the window (Pass).
    Healthy,
    /// The source answered and had no data.
    NoData,
    /// There was no traffic.
    NoTraffic,
    /// Too few usable minutes.
    TooFewSamples,
    /// A part of the window was not measured before the deadline.
    LateData,
    /// The source could not be asked.
    SourceError,
    /// No collector answered before the deadline.
    CollectorSilent,
    /// Somebody cancelled it.
    Cancelled,
    /// A newer deployment of the service has started.
    Superseded,
    /// The deployment was given up.
    Aborted,
    /// It cannot be judged as asked.
    NotJudgeable,
    /// It degraded together with services that were not deployed, or with a problem whose root lies elsewhere.
    CommonCause,
}

enum_words!(
    Cause,
    v1::Cause,
    Regression,
    Healthy,
    NoData,
    NoTraffic,
    TooFewSamples,
    LateData,
    SourceError,
    CollectorSilent,
    Cancelled,
    Superseded,
    Aborted,
    NotJudgeable,
    CommonCause,
);

/// What one metric showed on one host, or on all new hosts together (`*`).
#[derive(Debug, Clone, PartialEq)]
pub struct MetricResult {
    /// Name of the metric.
    pub metric: String,
    /// The host, or `*`.
    pub host: String,
    /// What it showed.
    pub classification: Classification,
    /// 0 to 1.
    pub risk: f64,
    /// Evidence for a degradation, ln of an e-value.
    pub score: f64,
    /// For a person.
    pub reason: String,
    /// Relative change against what was expected; absolute for ratios of errors.
    pub effect: Option<f64>,
    /// First minute of the degradation.
    pub since_minute: Option<u32>,
    /// Unit of the metric.
    pub unit: String,
    /// How it was judged; `None` where by default.
    pub settings: Option<MetricSettings>,
    /// It failed by its `fail_fast` limit, not by evidence.
    pub fail_fast: bool,
    /// What was expected and what was there over the last quarter of an hour: in the unit, or as shares for errors.
    pub level: Option<[f64; 2]>,
    /// The 90 % interval of the effect, in the same terms.
    pub interval: Option<[f64; 2]>,
    /// The part of the evidence that a pretended deployment in the past reached, in nats; taken off already.
    pub placebo: f64,
}

/// The final word on a verification, or a later revision of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// `<deployment_id>.<n>`.
    pub verification_id: String,
    /// The deployment judged.
    pub deployment_id: String,
    /// 0 for the first.
    pub revision: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The evidence is strong enough to act alone.
    pub rollback_grade: bool,
    /// Why it ended so.
    pub cause: Cause,
    /// Every sample that it rests on was final.
    pub data_final: bool,
    /// 0 to 1, and 1 exactly for `Fail`.
    pub risk: f64,
    /// One sentence for a release manager.
    pub reason: String,
    /// By risk descending, metric, host.
    pub metrics: Vec<MetricResult>,
    /// The judge that decided; empty where none was asked.
    pub judge_version: String,
    /// Name of the template.
    pub template: String,
    /// The strategy used.
    pub strategy: Strategy,
    /// Why that strategy.
    pub strategy_reason: String,
    /// Reference windows.
    pub baseline: Vec<Window>,
    /// What was judged; `None` where no traffic ever came.
    pub verification: Option<Window>,
    /// The service.
    pub service: Name,
    /// The environment.
    pub environment: Name,
    /// The version judged.
    pub version: Name,
    /// The version before.
    pub previous_version: Option<String>,
    /// Whom to alert.
    pub owner: Option<String>,
    /// Where it runs.
    pub cluster: Option<String>,
    /// What to roll back.
    pub workload: Option<String>,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// Minutes since the start of the verification that had been seen when it failed.
    pub failed_at_minute: Option<u32>,
    /// Minutes of the window that held usable data.
    pub usable_minutes: u32,
    /// Bad for a moment, recovered by itself.
    pub transient: bool,
    /// That of the template; `None` where none was asked for.
    pub sensitivity: Option<Sensitivity>,
    /// Minutes after which a regression of practical size was excluded, where that ended it before the window did.
    pub passed_at_minute: Option<u32>,
    /// A canary that was seen through the service as a whole: its share of the traffic.
    pub diluted_share: Option<f64>,
    /// By metric, the smallest change in that canary that could be found.
    pub smallest_effects: Vec<(String, f64)>,
    /// How much evidence it asked for; `None` in verdicts of versions that did not say.
    pub levels: Option<Levels>,
    /// How far the evidence went; `None` where nothing that may fail was measured.
    pub reached: Option<Reached>,
    /// Why a degradation is no evidence against the deployment, where that is so.
    pub common_cause: Option<CommonCause>,
    /// Times that the reference windows left out.
    pub left_out: Vec<LeftOut>,
    /// Problems that the source knew of and that touch the verification.
    pub problems: Vec<Problem>,
    /// Objectives of the service as they stood at the end; never judged.
    pub objectives: Vec<Objective>,
}

impl TryFrom<v1::Verdict> for Verdict {
    type Error = Invalid;

    fn try_from(v: v1::Verdict) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        check_ids(&mut invalid, &v);
        let outcome = invalid.check("outcome", Outcome::from_wire(v.outcome));
        let cause = invalid.check("cause", Cause::from_wire(v.cause));
        let strategy = invalid.check("strategy", Strategy::from_wire(v.strategy));
        let service = invalid.check("service", Name::new(v.service));
        let environment = invalid.check("environment", Name::new(v.environment));
        let version = invalid.check("version", Name::new(v.version));
        let decided_at = invalid.check("decided_at", time::required(v.decided_at));
        let verification = invalid.check("verification", v.verification.map(Window::try_from).transpose());
        check_risk(&mut invalid, v.risk, outcome);
        let sensitivity = check_sensitivity(&mut invalid, v.sensitivity);
        check_share(&mut invalid, v.diluted_share);
        let levels = v.levels.and_then(|levels| invalid.check("levels", Levels::try_from(levels)));
        let reached = v.reached.and_then(|reached| invalid.check("reached", Reached::try_from(reached)));
        let left_out = each(&mut invalid, "left_out", v.left_out);
        let problems: Vec<Problem> = each(&mut invalid, "problems", v.problems);
        let objectives: Vec<Objective> = each(&mut invalid, "objectives", v.objectives);
        let baseline: Vec<Window> = each(&mut invalid, "baseline", v.baseline);
        let metrics: Vec<MetricResult> = each(&mut invalid, "metrics", v.metrics);
        match (outcome, cause, strategy, service, environment, version, (decided_at, verification)) {
            (
                Some(outcome),
                Some(cause),
                Some(strategy),
                Some(service),
                Some(environment),
                Some(version),
                (Some(decided_at), Some(verification)),
            ) if invalid.violations.is_empty() => Ok(Self {
                verification_id: v.verification_id,
                deployment_id: v.deployment_id,
                revision: v.revision,
                outcome,
                rollback_grade: v.rollback_grade,
                cause,
                data_final: v.data_final,
                risk: v.risk,
                reason: v.reason,
                metrics,
                judge_version: v.judge_version,
                template: v.template,
                strategy,
                strategy_reason: v.strategy_reason,
                baseline,
                verification,
                service,
                environment,
                version,
                previous_version: text(v.previous_version),
                owner: text(v.owner),
                cluster: text(v.cluster),
                workload: text(v.workload),
                decided_at,
                failed_at_minute: v.failed_at_minute,
                usable_minutes: v.usable_minutes,
                transient: v.transient,
                sensitivity,
                passed_at_minute: v.passed_at_minute,
                diluted_share: v.diluted_share,
                smallest_effects: v.smallest_effects.into_iter().map(|s| (s.metric, s.effect)).collect(),
                levels,
                reached,
                common_cause: v.common_cause.map(Into::into),
                left_out,
                problems,
                objectives,
            }),
            _ => Err(invalid),
        }
    }
}

fn check_ids(invalid: &mut Invalid, v: &v1::Verdict) {
    for (field, id) in [("verification_id", &v.verification_id), ("deployment_id", &v.deployment_id)] {
        if id.is_empty() {
            invalid.push(field, "is empty");
        }
    }
}

/// Risk is a share, and 1 exactly for `Fail`: a message that says otherwise contradicts itself.
fn check_risk(invalid: &mut Invalid, risk: f64, outcome: Option<Outcome>) {
    if !(0.0..=1.0).contains(&risk) {
        invalid.push("risk", format!("{risk} is not within 0 to 1"));
    } else if outcome.is_some_and(|outcome| (outcome == Outcome::Fail) != (risk >= 1.0)) {
        invalid.push("risk", format!("{risk} contradicts the outcome: it is 1 exactly when it fails"));
    }
}

/// 0 where it was not asked for.
fn check_sensitivity(invalid: &mut Invalid, word: i32) -> Option<Sensitivity> {
    if word == 0 { None } else { invalid.check("sensitivity", Sensitivity::from_wire(word)) }
}

fn check_share(invalid: &mut Invalid, share: Option<f64>) {
    if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
        invalid.push("diluted_share", format!("{share} is not within 0 to 1"));
    }
}

/// Reads each of a list; what is wrong is named by its place.
fn each<W, T: TryFrom<W, Error = Invalid>>(invalid: &mut Invalid, field: &str, wire: Vec<W>) -> Vec<T> {
    let mut read = Vec::with_capacity(wire.len());
    for (i, one) in wire.into_iter().enumerate() {
        read.extend(invalid.check(&format!("{field}[{i}]"), T::try_from(one)));
    }
    read
}

impl TryFrom<v1::MetricResult> for MetricResult {
    type Error = Invalid;

    fn try_from(m: v1::MetricResult) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let classification = invalid.check("classification", Classification::from_wire(m.classification));
        if !(0.0..=1.0).contains(&m.risk) {
            invalid.push("risk", format!("{} is not within 0 to 1", m.risk));
        }
        let settings = m.settings.and_then(|s| invalid.check("settings", MetricSettings::try_from(s)));
        match classification {
            Some(classification) if invalid.violations.is_empty() => Ok(Self {
                metric: m.metric,
                host: m.host,
                classification,
                risk: m.risk,
                score: m.score,
                reason: m.reason,
                effect: m.effect,
                since_minute: m.since_minute,
                unit: m.unit,
                settings,
                fail_fast: m.fail_fast,
                level: m.expected.zip(m.observed).map(Into::into),
                interval: m.effect_low.zip(m.effect_high).map(Into::into),
                placebo: m.placebo,
            }),
            _ => Err(invalid),
        }
    }
}

impl From<MetricResult> for v1::MetricResult {
    fn from(m: MetricResult) -> Self {
        Self {
            metric: m.metric,
            host: m.host,
            classification: m.classification.to_wire(),
            risk: m.risk,
            score: m.score,
            reason: m.reason,
            effect: m.effect,
            since_minute: m.since_minute,
            unit: m.unit,
            settings: m.settings.map(Into::into),
            fail_fast: m.fail_fast,
            expected: m.level.map(|level| level[0]),
            observed: m.level.map(|level| level[1]),
            effect_low: m.interval.map(|ends| ends[0]),
            effect_high: m.interval.map(|ends| ends[1]),
            placebo: m.placebo,
        }
    }
}

impl From<Verdict> for v1::Verdict {
    fn from(v: Verdict) -> Self {
        Self {
            verification_id: v.verification_id,
            deployment_id: v.deployment_id,
            revision: v.revision,
            outcome: v.outcome.to_wire(),
            rollback_grade: v.rollback_grade,
            cause: v.cause.to_wire(),
            data_final: v.data_final,
            risk: v.risk,
            reason: v.reason,
            metrics: v.metrics.into_iter().map(Into::into).collect(),
            judge_version: v.judge_version,
            template: v.template,
            strategy: v.strategy.to_wire(),
            strategy_reason: v.strategy_reason,
            baseline: v.baseline.into_iter().map(Into::into).collect(),
            verification: v.verification.map(Into::into),
            service: v.service.into(),
            environment: v.environment.into(),
            version: v.version.into(),
            previous_version: v.previous_version.unwrap_or_default(),
            owner: v.owner.unwrap_or_default(),
            cluster: v.cluster.unwrap_or_default(),
            workload: v.workload.unwrap_or_default(),
            decided_at: Some(v.decided_at.into()),
            failed_at_minute: v.failed_at_minute,
            usable_minutes: v.usable_minutes,
            transient: v.transient,
            sensitivity: v.sensitivity.map_or(0, Sensitivity::to_wire),
            passed_at_minute: v.passed_at_minute,
            diluted_share: v.diluted_share,
            smallest_effects: v
                .smallest_effects
                .into_iter()
                .map(|(metric, effect)| v1::SmallestEffect { metric, effect })
                .collect(),
            levels: v.levels.map(Into::into),
            reached: v.reached.map(Into::into),
            common_cause: v.common_cause.map(Into::into),
            left_out: v.left_out.into_iter().map(Into::into).collect(),
            problems: v.problems.into_iter().map(Into::into).collect(),
            objectives: v.objectives.into_iter().map(Into::into).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn what_is_written_is_read_back() {
        for verdict in [fixtures::verdict(), fixtures::verdict_with_settings()] {
            assert_eq!(Verdict::try_from(v1::Verdict::from(verdict.clone())).unwrap(), verdict);
        }
        let mut verdict = fixtures::verdict();
        verdict.diluted_share = Some(0.1);
        verdict.passed_at_minute = Some(12);
        verdict.metrics[0].level = Some([95.0, 131.0]);
        verdict.metrics[0].interval = Some([0.31, 0.45]);
        verdict.metrics[0].placebo = 0.2;
        verdict.smallest_effects = vec![("cpu".into(), 0.4)];
        assert_eq!(Verdict::try_from(v1::Verdict::from(verdict.clone())).unwrap(), verdict);
    }

    #[test]
    fn a_verdict_that_contradicts_itself_is_refused() {
        let said = |change: fn(&mut v1::Verdict)| {
            let mut wire = v1::Verdict::from(fixtures::verdict());
            change(&mut wire);
            Verdict::try_from(wire).unwrap_err().to_string()
        };
        assert!(said(|v| v.risk = 0.4).contains("1 exactly when it fails"));
        assert!(said(|v| v.outcome = v1::Outcome::Pass as i32).contains("1 exactly when it fails"));
        assert!(said(|v| v.risk = f64::NAN).contains("not within 0 to 1"));
        assert!(said(|v| v.outcome = 0).contains("outcome: unknown value"));
        assert!(said(|v| v.metrics[0].classification = 77).contains("metrics[0].classification"));
        assert!(said(|v| v.diluted_share = Some(1.1)).contains("diluted_share: 1.1 is not within"));
        assert!(said(|v| v.verification_id.clear()).contains("verification_id: is empty"));
    }
}
