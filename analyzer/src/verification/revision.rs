//! What may follow a verdict: more evidence for a Fail, and samples that have changed since a Pass.

use super::{Step, Verification};
use crate::judge::{self, Ending, JudgeSettings};
use crate::sequential::Thresholds;
use vouch_proto::{Outcome, Timestamp, Verdict};

/// How long a Fail whose evidence does not suffice to act alone is watched for more.
const CONFIRMATION_MINUTES: i64 = 10;

impl Verification {
    /// Goes on after a Fail until the evidence suffices to act alone, for some minutes.
    pub(super) fn confirm(&mut self, verdict: Verdict, now: Timestamp) -> Step {
        let (Some(window), Some(failed_at)) = (self.record.verification, verdict.failed_at_minute) else {
            return Step::Settled;
        };
        let last = (i64::from(failed_at) + CONFIRMATION_MINUTES).min(self.assembly.minutes_total(window));
        let confirmable =
            verdict.outcome == Outcome::Fail && !verdict.rollback_grade && self.record.ended_by().is_none();
        if !confirmable || self.judged >= last || now >= self.record.deadline {
            return Step::Settled;
        }
        let seen = self.assembly.minutes_seen(window).min(last);
        if seen <= self.judged || !self.has_baseline() {
            return Step::Wait;
        }
        let Some(case) = self.assembly.case(&self.record, &self.template) else { return Step::Wait };
        self.judged = seen;
        let strict = strict(&self.settings);
        let judgement = judge::judge_until(&case, seen, &strict);
        if judgement.outcome == Some(Outcome::Fail) {
            let reason = format!("{} (revised: the evidence has grown)", judgement.reason);
            let reached = judgement.reached;
            self.judgement = Some(judgement);
            return Step::Revised(Box::new(Verdict {
                revision: verdict.revision + 1,
                rollback_grade: true,
                reason,
                reached,
                metrics: self.results(),
                decided_at: now,
                ..verdict
            }));
        }
        if seen >= last { Step::Settled } else { Step::Wait }
    }

    /// After what is not a Fail: judges again where samples have been revised, until none is expected to change.
    pub(super) fn recheck(&mut self, verdict: &Verdict, now: Timestamp) -> Step {
        let Some(window) = self.record.verification else { return Step::Settled };
        let total = self.assembly.minutes_total(window);
        let last = verdict
            .passed_at_minute
            .map_or_else(|| verdict.verification.map_or(total, |w| w.minutes().min(total)), i64::from);
        let is_over = now >= self.record.deadline || self.assembly.is_final(window, last);
        let is_wanted = !verdict.data_final && self.record.ended_by().is_none();
        if !is_wanted || (is_over && self.judged >= last) {
            return Step::Settled;
        }
        let seen = self.assembly.minutes_seen(window).min(last);
        if self.judged >= last || seen < last || !self.has_baseline() {
            return if now >= self.record.deadline { Step::Settled } else { Step::Wait };
        }
        let Some(case) = self.assembly.case(&self.record, &self.template) else { return Step::Wait };
        let case = self.without_answer(case);
        let judgement = judge::judge_until(&case, seen, &self.settings);
        self.judged = seen;
        if judgement.outcome.is_none_or(|outcome| outcome == Outcome::Error) {
            return Step::Wait;
        }
        self.judgement = Some(judgement);
        match self.end_judged(now) {
            Step::Final(newest) if newest.outcome != verdict.outcome => Step::Revised(Box::new(Verdict {
                revision: verdict.revision + 1,
                reason: format!("{} (revised: samples have changed since)", newest.reason),
                ..*newest
            })),
            Step::Final(_) | Step::Wait | Step::Progress(_) | Step::Revised(_) | Step::Settled => Step::Wait,
        }
    }
}

/// Settings under which only evidence that suffices to act alone fails.
fn strict(settings: &JudgeSettings) -> JudgeSettings {
    let rollback = settings.thresholds.rollback;
    let thresholds = Thresholds { fail: rollback, fail_at_end: rollback, rollback };
    JudgeSettings { thresholds, evidence_alone: true, ending: Ending::default() }
}
