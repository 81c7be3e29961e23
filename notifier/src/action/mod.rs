//! What can be done about a verdict: the trait, its types, and the one list of actions. One file per action.

mod endpoint;
mod log;
mod signature;
#[cfg(test)]
pub(crate) mod twin;
mod webhook;

pub use endpoint::Endpoint;
pub use signature::{sign, verify};
pub use webhook::WebhookSettings;

use crate::ledger::Probe;
use crate::policy::Rule;
use async_trait::async_trait;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use vouch_proto::{Purpose, Timestamp, Verdict};
use vouch_service::settings::Section;

/// One thing to be done.
#[derive(Debug, Clone)]
pub struct ActionRequest {
    /// Key of the ledger entry: the same for every attempt.
    pub key: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The rule that decided.
    pub rule: Rule,
    /// For a person: what is wrong and what is done about it.
    pub summary: String,
    /// The verdict that it answers.
    pub verdict: Arc<Verdict>,
    /// W3C trace context of the verdict.
    pub traceparent: Option<String>,
    /// Number of this call, from 1.
    pub attempt: u32,
    /// When this call is made.
    pub sent_at: Timestamp,
}

/// It was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// For a person, e.g. what the receiver answered.
    pub detail: String,
    /// It only said what it would have done.
    pub dry_run: bool,
}

/// What a failed call may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Surely nothing: it was not sent, or the receiver refused it.
    None,
    /// It may have been done.
    Possible,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ActionError {
    /// Whether trying again makes sense.
    pub retryable: bool,
    /// What it may have changed.
    pub effect: Effect,
    /// For a person: what happened.
    pub detail: String,
    /// When the receiver asked to be called again.
    pub retry_after: Option<Duration>,
}

/// A rollback or an alert of one kind.
#[async_trait]
pub trait Action: Debug + Send + Sync {
    /// Does it, once.
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError>;

    /// Whether it was done: asked where an earlier call has no known end.
    async fn probe(&self, request: &ActionRequest) -> Probe;

    /// What the receiver guarantees, and how long a call takes.
    fn promise(&self) -> Promise;
}

/// What holds for every call of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// A call takes at most this long.
    pub timeout: Duration,
    /// The receiver honours idempotency keys: a second call with the same key changes nothing.
    pub idempotent: bool,
    /// How long after a call `probe` tells the truth; `None` where it never can.
    pub probe_after: Option<Duration>,
}

/// What an action is, with its settings.
#[derive(Debug, Clone)]
pub enum ActionKind {
    /// Says what it would have done.
    Log,
    /// Posts JSON.
    Webhook(Box<WebhookSettings>),
    /// A scripted receiver.
    #[cfg(test)]
    Twin(twin::Twin),
}

impl ActionKind {
    /// The word used in settings and in the audit stream.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Webhook(_) => "webhook",
            #[cfg(test)]
            Self::Twin(_) => "twin",
        }
    }

    /// Whether it changes nothing outside.
    #[must_use]
    pub const fn only_says(&self) -> bool {
        matches!(self, Self::Log)
    }

    /// Makes the action.
    ///
    /// # Errors
    /// Where what it needs cannot be set up, e.g. a certificate cannot be read.
    pub fn build(&self) -> anyhow::Result<Box<dyn Action>> {
        Ok(match self {
            Self::Log => Box::new(log::Log),
            Self::Webhook(settings) => Box::new(webhook::Webhook::new((**settings).clone())?),
            #[cfg(test)]
            Self::Twin(twin) => Box::new(twin.clone()),
        })
    }
}

/// Reads the part of an action's settings that depends on its type. What was refused reads as `log`.
pub(crate) fn read_kind(section: &mut Section<'_>, allowed_hosts: &[String]) -> ActionKind {
    match section.text("type").as_deref() {
        Some("log") => ActionKind::Log,
        Some("webhook") => WebhookSettings::read(section, allowed_hosts)
            .map_or(ActionKind::Log, |settings| ActionKind::Webhook(Box::new(settings))),
        None => {
            section.refuse("type", "is missing, expected one of log, webhook");
            ActionKind::Log
        }
        Some(other) => {
            section.refuse("type", format!("unknown value `{other}`, expected one of log, webhook"));
            ActionKind::Log
        }
    }
}
