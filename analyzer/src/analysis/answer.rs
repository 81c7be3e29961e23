//! What an analysis answers: a verdict of no deployment.

use crate::case::CaseTemplate;
use crate::judge::{JUDGE_VERSION, Judgement};
use crate::levels;
use crate::sequential::Thresholds;
use crate::verification::inconclusive_cause;
use vouch_proto::{Cause, MetricResult, Name, Outcome, Timestamp, Verdict, Window};

/// What the verdict says besides the judgement.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) service: Name,
    pub(super) environment: Name,
    pub(super) version: Name,
    pub(super) baseline: Vec<Window>,
    pub(super) verification: Window,
    /// Name and unit of each metric.
    pub(super) units: Vec<(String, String)>,
    pub(super) now: Timestamp,
}

impl Subject {
    pub(super) fn verdict(self, judgement: Judgement, template: &CaseTemplate) -> Verdict {
        let subject = self;
        let outcome = judgement.outcome.unwrap_or(Outcome::Inconclusive);
        let failed = outcome == Outcome::Fail;
        let unit = |metric: &str| {
            subject
                .units
                .iter()
                .find(|(name, _)| name == metric)
                .map_or_else(String::new, |(_, unit)| unit.clone())
        };
        let cause = cause(&judgement, outcome);
        let minute = |m: Option<i64>| m.and_then(|m| u32::try_from(m).ok());
        let metrics = judgement.metrics.into_iter().map(|m| MetricResult {
            unit: unit(&m.metric),
            settings: template.metrics.get(&m.metric).cloned(),
            fail_fast: m.fail_fast,
            level: m.level.map(|level| [level.expected, level.observed]),
            interval: m.interval,
            placebo: m.placebo,
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
            sensitivity: template.sensitivity,
            passed_at_minute: None,
            diluted_share: judgement.diluted.as_ref().map(|diluted| diluted.share),
            smallest_effects: judgement.diluted.map_or_else(Vec::new, |diluted| diluted.smallest),
            levels: Some(levels::of_thresholds(&Thresholds::default())),
            reached: judgement.reached,
            common_cause: judgement.common_cause,
            left_out: Vec::new(),
            problems: Vec::new(),
            objectives: Vec::new(),
        }
    }
}

fn cause(judgement: &Judgement, outcome: Outcome) -> Cause {
    match outcome {
        Outcome::Pass => Cause::Healthy,
        Outcome::Fail if judgement.no_data => Cause::NoData,
        Outcome::Fail => Cause::Regression,
        Outcome::Inconclusive => inconclusive_cause(judgement),
        Outcome::Error => Cause::NotJudgeable,
    }
}
