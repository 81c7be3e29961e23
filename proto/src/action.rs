//! What was done, or not done, about a verdict, validated.

use crate::convert::{enum_words, text};
use crate::{Invalid, Name, Outcome, Timestamp, time, v1};

/// What an action is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Puts the previous version back.
    Rollback,
    /// Tells somebody.
    Alert,
}

enum_words!(Purpose, v1::ActionPurpose, Rollback, Alert);

impl Purpose {
    /// The word used in settings and ledger keys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Alert => "alert",
        }
    }
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActionOutcome {
    /// It was done.
    Done,
    /// Decided against.
    Skipped,
    /// The receiver refused it, or could not be reached.
    Failed {
        /// Whether trying again could have helped.
        retryable: bool,
    },
    /// Begun, and its end is not known: a person decides.
    Unknown,
}

/// One entry of the audit stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Key in the ledger; empty where nothing was to be done.
    pub action_id: String,
    /// The deployment.
    pub deployment_id: String,
    /// The verification.
    pub verification_id: String,
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
    /// Name of the action in the settings; `None` where nothing was to be done.
    pub name: Option<String>,
    /// Type of the action.
    pub kind: Option<String>,
    /// What it is for.
    pub purpose: Purpose,
    /// How it ended.
    pub outcome: ActionOutcome,
    /// It only said what it would have done.
    pub dry_run: bool,
    /// The rule of the policy that decided.
    pub rule: String,
    /// For a person.
    pub detail: String,
    /// How often the receiver was called.
    pub attempts: u32,
    /// The outcome of the verdict that it answers.
    pub verdict_outcome: Outcome,
    /// Its revision.
    pub verdict_revision: u32,
    /// Its reason.
    pub verdict_reason: String,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What the tenant's budget says about it; `None` where it says nothing.
    pub budget: Option<String>,
}

impl From<Action> for v1::Action {
    fn from(a: Action) -> Self {
        let (outcome, retryable) = match a.outcome {
            ActionOutcome::Done => (v1::ActionOutcome::Done, false),
            ActionOutcome::Skipped => (v1::ActionOutcome::Skipped, false),
            ActionOutcome::Failed { retryable } => (v1::ActionOutcome::Failed, retryable),
            ActionOutcome::Unknown => (v1::ActionOutcome::Unknown, false),
        };
        Self {
            action_id: a.action_id,
            deployment_id: a.deployment_id,
            verification_id: a.verification_id,
            service: a.service.into(),
            environment: a.environment.into(),
            version: a.version.into(),
            previous_version: a.previous_version.unwrap_or_default(),
            owner: a.owner.unwrap_or_default(),
            cluster: a.cluster.unwrap_or_default(),
            workload: a.workload.unwrap_or_default(),
            name: a.name.unwrap_or_default(),
            r#type: a.kind.unwrap_or_default(),
            purpose: a.purpose.to_wire(),
            outcome: outcome as i32,
            retryable,
            dry_run: a.dry_run,
            rule: a.rule,
            detail: a.detail,
            attempts: a.attempts,
            verdict_outcome: a.verdict_outcome.to_wire(),
            verdict_revision: a.verdict_revision,
            verdict_reason: a.verdict_reason,
            finished_at: Some(a.finished_at.into()),
            budget: a.budget.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Action> for Action {
    type Error = Invalid;

    fn try_from(a: v1::Action) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let service = invalid.check("service", Name::new(a.service));
        let environment = invalid.check("environment", Name::new(a.environment));
        let version = invalid.check("version", Name::new(a.version));
        let purpose = invalid.check("purpose", Purpose::from_wire(a.purpose));
        let verdict_outcome = invalid.check("verdict_outcome", Outcome::from_wire(a.verdict_outcome));
        let finished_at = invalid.check("finished_at", time::required(a.finished_at));
        let outcome = match v1::ActionOutcome::try_from(a.outcome) {
            Ok(v1::ActionOutcome::Done) => Some(ActionOutcome::Done),
            Ok(v1::ActionOutcome::Skipped) => Some(ActionOutcome::Skipped),
            Ok(v1::ActionOutcome::Failed) => Some(ActionOutcome::Failed { retryable: a.retryable }),
            Ok(v1::ActionOutcome::Unknown) => Some(ActionOutcome::Unknown),
            Ok(v1::ActionOutcome::Unspecified) | Err(_) => {
                invalid.push("outcome", format!("unknown value `{}`", a.outcome));
                None
            }
        };
        match (service, environment, version, purpose, verdict_outcome, finished_at, outcome) {
            (
                Some(service),
                Some(environment),
                Some(version),
                Some(purpose),
                Some(verdict_outcome),
                Some(finished_at),
                Some(outcome),
            ) => Ok(Self {
                action_id: a.action_id,
                deployment_id: a.deployment_id,
                verification_id: a.verification_id,
                service,
                environment,
                version,
                previous_version: text(a.previous_version),
                owner: text(a.owner),
                cluster: text(a.cluster),
                workload: text(a.workload),
                name: text(a.name),
                kind: text(a.r#type),
                purpose,
                outcome,
                dry_run: a.dry_run,
                rule: a.rule,
                detail: a.detail,
                attempts: a.attempts,
                verdict_outcome,
                verdict_revision: a.verdict_revision,
                verdict_reason: a.verdict_reason,
                finished_at,
                budget: text(a.budget),
            }),
            _ => Err(invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn what_is_written_is_read_back() {
        for outcome in [
            ActionOutcome::Done,
            ActionOutcome::Skipped,
            ActionOutcome::Failed { retryable: true },
            ActionOutcome::Unknown,
        ] {
            let action = Action { outcome, ..fixtures::action() };
            assert_eq!(Action::try_from(v1::Action::from(action.clone())).unwrap(), action);
        }
    }

    #[test]
    fn an_unknown_outcome_is_refused() {
        let mut wire = v1::Action::from(fixtures::action());
        wire.outcome = 0;
        assert!(Action::try_from(wire).unwrap_err().to_string().contains("outcome: unknown value `0`"));
    }
}
