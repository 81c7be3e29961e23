//! The audit record of a decision, pure. Its id is the same whenever the same end is recorded again.

use crate::ledger::{Entry, State};
use crate::policy::{Decision, Rule};
use vouch_proto::{Action, ActionOutcome, Timestamp, Verdict};

/// How a decision ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a> {
    /// There was nothing to be done.
    Nothing { at: Timestamp },
    /// The ledger's entry is over.
    Over { entry: &'a Entry, kind: &'static str },
    /// The ledger's entry is over, by another verdict.
    Elsewhere { at: Timestamp, entry: &'a Entry },
}

/// The record, and the id under which it is published once.
pub(crate) fn record(verdict: &Verdict, decision: &Decision, end: End<'_>) -> (Action, String) {
    let mut record = blank(verdict, decision);
    match end {
        End::Nothing { at } => record.finished_at = at,
        End::Over { entry, kind } => {
            record.name = Some(entry.action.clone());
            record.kind =
                Some(if entry.action == decision.action { kind.to_owned() } else { entry.kind.clone() });
            record.rule.clone_from(&entry.rule);
            record.attempts = entry.attempts;
            over(&mut record, &entry.state);
        }
        End::Elsewhere { at, entry } => {
            record.finished_at = at;
            record.name = Some(entry.action.clone());
            record.kind = Some(entry.kind.clone());
            record.rule = Rule::OneRollbackPerDeployment.as_str().to_owned();
            record.detail = format!(
                "not done: by the verdict on {} it has ended as {} already",
                entry.verification_id,
                entry.state.as_str()
            );
        }
    }
    let outcome = match record.outcome {
        ActionOutcome::Done => "done",
        ActionOutcome::Skipped => "skipped",
        ActionOutcome::Failed { .. } => "failed",
        ActionOutcome::Unknown => "unknown",
    };
    let (verification, revision) = (&verdict.verification_id, verdict.revision);
    let what = if record.action_id.is_empty() { &record.rule } else { &record.action_id };
    let id = format!("{what}#{verification}.{revision}#{outcome}");
    (record, id)
}

fn over(record: &mut Action, state: &State) {
    let (outcome, at, said, dry_run) = match state {
        State::Done { at, detail, dry_run } => (ActionOutcome::Done, at, detail, *dry_run),
        State::Failed { at, detail, retryable } => {
            (ActionOutcome::Failed { retryable: *retryable }, at, detail, false)
        }
        State::Unknown { at, detail } => (ActionOutcome::Unknown, at, detail, false),
        State::Skipped { at, detail, dry_run } => (ActionOutcome::Skipped, at, detail, *dry_run),
        // Not reached: only what is over is recorded. If it were, a person should look at it.
        State::Claimed { .. } | State::Acting { .. } => return record.outcome = ActionOutcome::Unknown,
    };
    record.outcome = outcome;
    record.finished_at = *at;
    record.detail.clone_from(said);
    record.dry_run = dry_run;
}

fn blank(verdict: &Verdict, decision: &Decision) -> Action {
    Action {
        action_id: decision.key.clone(),
        deployment_id: verdict.deployment_id.clone(),
        verification_id: verdict.verification_id.clone(),
        service: verdict.service.clone(),
        environment: verdict.environment.clone(),
        version: verdict.version.clone(),
        previous_version: verdict.previous_version.clone(),
        owner: verdict.owner.clone(),
        cluster: verdict.cluster.clone(),
        workload: verdict.workload.clone(),
        name: None,
        kind: None,
        purpose: decision.purpose,
        outcome: ActionOutcome::Skipped,
        dry_run: false,
        rule: decision.rule.as_str().to_owned(),
        detail: decision.detail.clone(),
        attempts: 0,
        verdict_outcome: verdict.outcome,
        verdict_revision: verdict.revision,
        verdict_reason: verdict.reason.clone(),
        finished_at: verdict.decided_at,
        budget: decision.budget.clone(),
    }
}
