//! What to do about a verdict, pure: every decision, also "do nothing", names the rule that made it.

use crate::config::{Mode, PolicySettings};
use serde::{Deserialize, Serialize};
use std::fmt;
use vouch_proto::spending::{Account, Exhausted};
use vouch_proto::{Outcome, Purpose, Timestamp, Verdict};

/// What the policy knows besides the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The instant of the decision.
    pub now: Timestamp,
    /// The newest deployment of the service in this environment; `None` where none is recorded.
    pub newest_deployment_id: Option<String>,
    /// The budget of rollbacks, where nothing is left of it for this deployment.
    pub rollbacks_exhausted: Option<Exhausted>,
    /// The budget of pages, where nothing is left of it for this verification.
    pub pages_exhausted: Option<Exhausted>,
}

/// The rules, each with its name in the audit stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A Fail of rollback grade, in an environment whose mode is `act`.
    FailRollsBack,
    /// As above, where the mode is `dry-run`: only said.
    DryRun,
    /// As above, where the mode is `off`.
    RollbackOff,
    /// The verdict is older than `max_verdict_age`, or dated in the future by more than that.
    VerdictExpired,
    /// A newer deployment of the service has begun.
    Superseded,
    /// No deployment of the service is recorded: whether it is the newest cannot be known.
    NewestUnknown,
    /// The tenant's budget of rollbacks is spent: alert only.
    RollbackBudgetSpent,
    /// The deployment's rollback has ended already, by another verdict.
    OneRollbackPerDeployment,
    /// A Fail of rollback grade is told, whatever becomes of the rollback.
    FailAlerts,
    /// A Fail whose evidence is too weak to act alone.
    FailBelowRollbackGradeAlerts,
    /// It was measured, and cannot be told.
    InconclusiveAlerts,
    /// It could not be measured.
    ErrorAlerts,
    /// A later revision of a verdict that is not a Pass.
    RevisionAlerts,
    /// A Fail that is told as a notice, not as a page: the tenant's budget of pages is spent.
    PageBudgetSpent,
    /// The verdict is older than `alert.max_age`.
    AlertExpired,
    /// Nothing is wrong.
    PassDoesNothing,
    /// A rollback ended in `failed`.
    RollbackFailedAlerts,
    /// A rollback ended in `unknown`.
    RollbackUnknownAlerts,
    /// A rollback was done: who was told that something is wrong is told so.
    RollbackDoneUpdates,
    /// A rollback was done by an action that waits for the version before to be healthy.
    RollbackResolves,
    /// A later verdict is healthy.
    HealthyResolves,
    /// The incident was told, and has not changed in kind.
    AlertFolded,
    /// Every verdict, and every end of a rollback, is recorded elsewhere.
    VerdictReported,
}

impl Rule {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailRollsBack => "fail-rolls-back",
            Self::DryRun => "dry-run",
            Self::RollbackOff => "rollback-off",
            Self::VerdictExpired => "verdict-expired",
            Self::Superseded => "superseded",
            Self::NewestUnknown => "newest-deployment-unknown",
            Self::RollbackBudgetSpent => "rollback-budget-spent",
            Self::PageBudgetSpent => "page-budget-spent",
            Self::OneRollbackPerDeployment => "one-rollback-per-deployment",
            Self::FailAlerts => "fail-alerts",
            Self::FailBelowRollbackGradeAlerts => "fail-below-rollback-grade-alerts",
            Self::InconclusiveAlerts => "inconclusive-alerts",
            Self::ErrorAlerts => "error-alerts",
            Self::RevisionAlerts => "revision-alerts",
            Self::AlertExpired => "alert-expired",
            Self::PassDoesNothing => "pass-does-nothing",
            Self::RollbackFailedAlerts => "rollback-failed-alerts",
            Self::RollbackUnknownAlerts => "rollback-unknown-alerts",
            Self::RollbackDoneUpdates => "rollback-done-updates",
            Self::RollbackResolves => "rollback-resolves",
            Self::HealthyResolves => "healthy-resolves",
            Self::AlertFolded => "alert-folded",
            Self::VerdictReported => "verdict-reported",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a decision wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Do it.
    Act,
    /// Do not do it, and say why.
    Skip {
        /// It would have been done but for the dry run.
        dry_run: bool,
    },
    /// There is nothing to be done.
    Nothing,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What it is about.
    pub purpose: Purpose,
    /// What is wanted.
    pub step: Step,
    /// Who decided.
    pub rule: Rule,
    /// Name of the action; empty for `Step::Nothing`.
    pub action: String,
    /// Key in the ledger; empty for `Step::Nothing`.
    pub key: String,
    /// For a person: what is wrong and what is done about it.
    pub detail: String,
    /// What the tenant's budget says about it; `None` where it says nothing.
    pub budget: Option<String>,
}

/// Decides about a verdict. Never empty.
#[must_use]
pub fn decide(verdict: &Verdict, facts: &Facts, settings: &PolicySettings) -> Vec<Decision> {
    let alert = match (verdict.outcome, verdict.revision) {
        (Outcome::Pass, _) => return vec![nothing(verdict)],
        (Outcome::Fail | Outcome::Inconclusive | Outcome::Error, 1..) => Rule::RevisionAlerts,
        (Outcome::Inconclusive, 0) => Rule::InconclusiveAlerts,
        (Outcome::Error, 0) => Rule::ErrorAlerts,
        (Outcome::Fail, 0) if verdict.rollback_grade => Rule::FailAlerts,
        (Outcome::Fail, 0) => Rule::FailBelowRollbackGradeAlerts,
    };
    let mut decisions = Vec::new();
    // A revision may bring the evidence that the first word lacked; the ledger keeps it at one rollback a deployment.
    if verdict.outcome == Outcome::Fail && verdict.rollback_grade {
        decisions.push(rollback(verdict, facts, settings));
    }
    let about = decisions.first().map_or_else(String::new, |rollback| format!(" {}", rollback.detail));
    let summary = format!("{}{about}", describe(verdict));
    for action in &settings.alert_actions {
        let key = format!("{}/{}/alert/{action}", verdict.verification_id, verdict.revision);
        decisions.push(Decision { key, ..alert_by(action, alert, &summary) });
    }
    if verdict.outcome == Outcome::Fail {
        within_budget(&mut decisions, facts);
    }
    if facts.now.since(verdict.decided_at) > settings.max_alert_age {
        for decision in decisions.iter_mut().filter(|d| d.purpose == Purpose::Alert) {
            expire(decision, verdict, settings);
        }
    }
    decisions
}

/// Decides anew about an alert right before it is sent: it ages while it waits for its receiver.
#[must_use]
pub fn alert_again(
    alert: &Decision,
    verdict: &Verdict,
    now: Timestamp,
    settings: &PolicySettings,
) -> Decision {
    let mut alert = alert.clone();
    if now.since(verdict.decided_at) > settings.max_alert_age && alert.step == Step::Act {
        expire(&mut alert, verdict, settings);
    }
    alert
}

fn expire(alert: &mut Decision, verdict: &Verdict, settings: &PolicySettings) {
    alert.step = Step::Skip { dry_run: false };
    alert.rule = Rule::AlertExpired;
    alert.detail = format!(
        "no alert: the verdict of {} is older than alert.max_age, {:?}",
        verdict.decided_at, settings.max_alert_age
    );
}

/// Whether the decisions take a place of an account.
#[must_use]
pub fn spends(verdict: &Verdict, decisions: &[Decision], account: Account) -> bool {
    let acts = |purpose: Purpose| decisions.iter().any(|d| d.purpose == purpose && d.step == Step::Act);
    match account {
        Account::Rollbacks => acts(Purpose::Rollback),
        Account::Pages => verdict.outcome == Outcome::Fail && acts(Purpose::Alert),
    }
}

/// What the budget changes about alerts of a Fail. Where it withholds the rollback a person has to act, so that alert
/// is a page whatever is left of the pages.
fn within_budget(decisions: &mut [Decision], facts: &Facts) {
    let withheld = decisions.iter().find(|d| d.rule == Rule::RollbackBudgetSpent);
    let withheld = withheld.and_then(|rollback| rollback.budget.clone());
    for alert in decisions.iter_mut().filter(|d| d.purpose == Purpose::Alert) {
        if withheld.is_some() {
            alert.budget.clone_from(&withheld);
        } else if let Some(exhausted) = facts.pages_exhausted {
            alert.rule = Rule::PageBudgetSpent;
            alert.detail.push_str(&format!(" A notice, not a page: {exhausted}."));
            alert.budget = Some(exhausted.to_string());
        }
    }
}

/// What follows where a rollback did not come to a good end: alerts.
#[must_use]
pub fn escalate(verdict: &Verdict, rule: Rule, detail: &str, settings: &PolicySettings) -> Vec<Decision> {
    let end = if rule == Rule::RollbackUnknownAlerts { "unknown" } else { "failed" };
    let advice = if rule == Rule::RollbackUnknownAlerts {
        "nobody knows whether it was done, and it is not sent again: look and decide"
    } else {
        "it was not done: roll back by hand"
    };
    let (service, version, environment) = (&verdict.service, &verdict.version, &verdict.environment);
    let summary = format!(
        "the rollback of {service} {version} in {environment} ended as {end} ({detail}); {advice}. {}",
        verdict.reason
    );
    let by = |action: &String| {
        let key = format!("{}/rollback/{end}/alert/{action}", verdict.deployment_id);
        Decision { key, ..alert_by(action, rule, &summary) }
    };
    settings.alert_actions.iter().map(by).collect()
}

/// Key of a deployment's rollback. It names no action, so that a deployment is rolled back at most once
/// whatever the actions are called.
#[must_use]
pub fn rollback_key(deployment_id: &str) -> String {
    format!("{deployment_id}/rollback")
}

fn nothing(verdict: &Verdict) -> Decision {
    Decision {
        purpose: Purpose::Alert,
        step: Step::Nothing,
        rule: Rule::PassDoesNothing,
        action: String::new(),
        key: String::new(),
        detail: describe(verdict),
        budget: None,
    }
}

fn alert_by(action: &str, rule: Rule, summary: &str) -> Decision {
    Decision {
        purpose: Purpose::Alert,
        step: Step::Act,
        rule,
        action: action.to_owned(),
        key: String::new(),
        detail: summary.to_owned(),
        budget: None,
    }
}

fn rollback(verdict: &Verdict, facts: &Facts, settings: &PolicySettings) -> Decision {
    let action = &settings.rollback_action;
    let age = facts.now.since(verdict.decided_at).max(verdict.decided_at.since(facts.now));
    let what = format!(
        "{} {} in {} to {} by `{action}`",
        verdict.service,
        verdict.version,
        verdict.environment,
        verdict.previous_version.as_deref().unwrap_or("the version before"),
    );
    let skip = Step::Skip { dry_run: false };
    let (step, rule, detail) = if age > settings.max_verdict_age {
        let limit = settings.max_verdict_age;
        let said = format!(
            "Not rolled back: decided at {}, which is not within max_verdict_age, {limit:?}, of {}.",
            verdict.decided_at, facts.now
        );
        (skip, Rule::VerdictExpired, said)
    } else {
        match (&facts.newest_deployment_id, settings.mode(&verdict.environment)) {
            (None, _) => (
                skip,
                Rule::NewestUnknown,
                "Not rolled back: no deployment of the service is recorded, so it may not be the newest."
                    .to_owned(),
            ),
            (Some(newest), _) if *newest != verdict.deployment_id => (
                skip,
                Rule::Superseded,
                format!("Not rolled back: deployment {newest} of the service is newer."),
            ),
            (Some(_), Mode::Off) => {
                (skip, Rule::RollbackOff, "Not rolled back: rollback is off in this environment.".to_owned())
            }
            (Some(_), Mode::DryRun) => (
                Step::Skip { dry_run: true },
                Rule::DryRun,
                format!("Dry run: would have rolled back {what}."),
            ),
            (Some(_), Mode::Act) => match facts.rollbacks_exhausted {
                None => (Step::Act, Rule::FailRollsBack, format!("Rolling back {what}.")),
                Some(exhausted) => {
                    let said = format!("Not rolled back, alert only: {exhausted}.");
                    (skip, Rule::RollbackBudgetSpent, said)
                }
            },
        }
    };
    let exhausted = facts.rollbacks_exhausted.filter(|_| rule == Rule::RollbackBudgetSpent);
    Decision {
        purpose: Purpose::Rollback,
        step,
        rule,
        action: action.clone(),
        key: rollback_key(&verdict.deployment_id),
        detail,
        budget: exhausted.map(|exhausted| exhausted.to_string()),
    }
}

/// One sentence on what was found.
fn describe(verdict: &Verdict) -> String {
    let found = match verdict.outcome {
        Outcome::Pass => "passed its verification",
        Outcome::Fail => "failed its verification",
        Outcome::Inconclusive => "has an inconclusive verification",
        Outcome::Error => "could not be verified",
    };
    let revised = match verdict.revision {
        0 => String::new(),
        revision => format!(" (revision {revision} of the verdict)"),
    };
    let reason = verdict.reason.trim_end_matches('.');
    format!("{} {} in {} {found}{revised}: {reason}.", verdict.service, verdict.version, verdict.environment)
}

#[cfg(test)]
mod tests;
