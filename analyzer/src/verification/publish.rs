//! What a verification says when it ends: the verdict with its rows.

use super::{MAX_RESULTS, Step, Verification};
use crate::judge::{self, JUDGE_VERSION};
use crate::levels;
use crate::window::spec_of;
use vouch_proto::{
    Cause, Classification, Levels, MetricResult, MetricSettings, Outcome, Timestamp, Verdict, Window,
};

impl Verification {
    /// What was judged: without the part of the extension that was not needed.
    pub(super) fn window(&self) -> Option<Window> {
        let window = self.record.verification?;
        let needed = self.record.duration.as_secs() / 60;
        let needed = i64::try_from(needed).unwrap_or(i64::MAX).max(self.judged);
        Window::new(window.start(), window.end().min(window.start().plus_minutes(needed))).ok()
    }

    pub(super) fn results(&self) -> Vec<MetricResult> {
        let mut results: Vec<MetricResult> =
            self.judgement.iter().flat_map(|j| &j.metrics).map(|unit| self.result(unit)).collect();
        for error in self.assembly.errors() {
            let Some(metric) = &error.metric else { continue };
            if !results.iter().any(|r| &r.metric == metric && r.classification != Classification::NoData) {
                results.retain(|r| &r.metric != metric);
                results.push(MetricResult {
                    metric: metric.clone(),
                    host: "*".to_owned(),
                    classification: Classification::Error,
                    risk: 0.0,
                    score: 0.0,
                    reason: format!("{}: {}", error.name, error.message),
                    effect: None,
                    since_minute: None,
                    unit: String::new(),
                    settings: self.settings_of(metric),
                    fail_fast: false,
                    level: None,
                    interval: None,
                    placebo: 0.0,
                });
            }
        }
        results.truncate(MAX_RESULTS);
        results
    }

    fn result(&self, unit: &judge::UnitResult) -> MetricResult {
        let spec = spec_of(&self.template, &unit.metric);
        MetricResult {
            metric: unit.metric.clone(),
            host: unit.host.clone(),
            classification: unit.classification,
            risk: unit.risk,
            score: unit.score,
            reason: unit.reason.clone(),
            effect: unit.effect.is_finite().then_some(unit.effect),
            since_minute: unit.since_minute.and_then(|m| u32::try_from(m).ok()),
            unit: spec.map_or_else(String::new, |m| m.unit.clone()),
            settings: self.settings_of(&unit.metric),
            fail_fast: unit.fail_fast,
            level: unit.level.map(|level| [level.expected, level.observed]),
            interval: unit.interval,
            placebo: unit.placebo,
        }
    }

    /// How a metric is judged, where not by default.
    fn settings_of(&self, metric: &str) -> Option<MetricSettings> {
        let spec = spec_of(&self.template, metric)?;
        (spec.settings != MetricSettings::DEFAULT).then(|| spec.settings.clone())
    }

    /// How much evidence it asks for.
    fn levels(&self) -> Levels {
        self.record.levels.clone().unwrap_or_else(|| levels::of_thresholds(&self.settings.thresholds))
    }

    pub(super) fn end(&self, outcome: Outcome, cause: Cause, reason: String, now: Timestamp) -> Step {
        let record = &self.record;
        let deployment = &record.deployment;
        let judgement = self.judgement.as_ref();
        let failed = outcome == Outcome::Fail;
        // 1 is kept for Fail: what could not fail is below it.
        let risk = if failed { 1.0 } else { judgement.map_or(0.0, |j| j.risk).clamp(0.0, 0.999) };
        let data_final = record.verification.is_some_and(|w| self.assembly.is_final(w, self.judged));
        Step::Final(Box::new(Verdict {
            verification_id: record.verification_id.clone(),
            deployment_id: deployment.deployment_id.clone().unwrap_or_default(),
            revision: 0,
            outcome,
            rollback_grade: failed && judgement.is_some_and(|j| j.rollback_grade),
            cause,
            data_final,
            risk,
            reason,
            metrics: self.results(),
            judge_version: JUDGE_VERSION.to_owned(),
            template: record.template.clone(),
            strategy: judgement.map_or(record.strategy, |j| j.choice.strategy),
            strategy_reason: judgement
                .map_or_else(|| record.strategy_reason.clone(), |j| j.choice.reason.clone()),
            baseline: record.baseline.clone(),
            verification: self.window(),
            service: deployment.service.clone(),
            environment: deployment.environment.clone(),
            version: deployment.version.clone(),
            previous_version: deployment.previous_version.clone(),
            owner: deployment.owner.clone(),
            cluster: deployment.cluster.clone(),
            workload: deployment.workload.clone(),
            decided_at: now,
            failed_at_minute: judgement
                .filter(|_| failed)
                .and_then(|j| j.failed_at_minute)
                .and_then(|m| u32::try_from(m).ok()),
            usable_minutes: judgement.map_or(0, |j| u32::try_from(j.usable_minutes).unwrap_or(0)),
            transient: judgement.is_some_and(|j| j.transient),
            sensitivity: self.template.sensitivity,
            passed_at_minute: judgement
                .filter(|_| outcome == Outcome::Pass)
                .and_then(|j| j.passed_at_minute)
                .and_then(|m| u32::try_from(m).ok()),
            diluted_share: judgement.and_then(|j| j.diluted.as_ref()).map(|diluted| diluted.share),
            smallest_effects: judgement
                .and_then(|j| j.diluted.as_ref())
                .map_or_else(Vec::new, |diluted| diluted.smallest.clone()),
            levels: Some(self.levels()),
            reached: judgement.and_then(|j| j.reached),
            common_cause: judgement.and_then(|j| j.common_cause.clone()).filter(|_| !failed),
            left_out: self.assembly.left_out(record),
            problems: self.assembly.problems_within(self.window()),
            objectives: self.assembly.objectives(),
        }))
    }
}
