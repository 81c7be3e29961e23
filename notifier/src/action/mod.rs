//! What can be done about a verdict: the trait, its types, and the one list of actions. One file per action.

mod cdevents;
mod dynatrace;
mod email;
mod endpoint;
mod http;
mod log;
mod opsgenie;
mod pagerduty;
pub mod sample;
mod signature;
mod slack;
mod teams;
mod template;
#[cfg(test)]
pub(crate) mod twin;
mod webhook;

pub use endpoint::Endpoint;
pub use signature::{sign, verify};

use crate::alert::Alert;
use crate::ledger::Probe;
use crate::policy::Rule;
use async_trait::async_trait;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use vouch_proto::{Purpose, Timestamp, Verdict};
use vouch_service::nats::Nats;
use vouch_service::settings::Section;

/// Every action that settings can name, besides `log`. A new one has its file, its `mod` above, and its line here.
const KINDS: [&Kind; 8] = [
    &cdevents::KIND,
    &dynatrace::KIND,
    &email::KIND,
    &opsgenie::KIND,
    &pagerduty::KIND,
    &slack::KIND,
    &teams::KIND,
    &webhook::KIND,
];

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
    /// What an alert says, ready to be written in the channel's own words.
    pub alert: Arc<Alert>,
    /// What an earlier call of this action about the same incident asked to be kept, e.g. the id of its message.
    pub memory: Option<String>,
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
    /// What later calls about the same incident are to be given; `None` keeps what there is.
    pub memory: Option<String>,
}

impl Done {
    /// Done, with nothing to be kept.
    #[must_use]
    pub const fn new(detail: String) -> Self {
        Self { detail, dry_run: false, memory: None }
    }
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

impl ActionError {
    /// It was never sent, and would not be if it were tried again.
    #[must_use]
    pub const fn never_sent(detail: String) -> Self {
        Self { retryable: false, effect: Effect::None, detail, retry_after: None }
    }
}

/// A rollback or an alert of one kind.
#[async_trait]
pub trait Action: Debug + Send + Sync {
    /// Does it, once.
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError>;

    /// Whether it was done: asked where an earlier call has no known end. By default nobody can tell.
    async fn probe(&self, _request: &ActionRequest) -> Probe {
        Probe::CannotTell
    }

    /// What the receiver guarantees, and how long a call takes.
    fn promise(&self) -> Promise;

    /// Whether it keeps something about an incident from one call to the next (`Done::memory`).
    fn remembers(&self) -> bool {
        false
    }
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
    /// `Done` of a rollback says that the version before is live and healthy, not only that the request was taken.
    pub confirms: bool,
}

impl Promise {
    /// Of a channel: nobody can be asked.
    #[must_use]
    pub const fn of_a_channel(timeout: Duration, idempotent: bool) -> Self {
        Self { timeout, idempotent, probe_after: None, confirms: false }
    }
}

/// What an action may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serves {
    /// It can put the previous version back.
    pub rollback: bool,
    /// It can tell somebody.
    pub alert: bool,
    /// It can record every verdict.
    pub report: bool,
}

/// What a channel is told besides what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tells {
    /// What was done about it, e.g. that the rollback was done.
    pub updates: bool,
    /// That it is over.
    pub resolved: bool,
}

/// What actions may be made with, besides their settings.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// The connection of the notifier.
    pub nats: Option<Nats>,
}

/// The settings of an action, from which it is made.
pub trait Maker: Debug + Send + Sync {
    /// Makes the action.
    ///
    /// # Errors
    /// Where what it needs cannot be set up.
    fn make(&self, tools: &Tools) -> anyhow::Result<Box<dyn Action>>;
}

/// Reads the fields of a type, which hosts may be called being known; `None` where one was refused.
pub type Read = fn(&mut Section<'_>, &[String]) -> Option<Arc<dyn Maker>>;

/// A type of action: its word in settings, and how its settings are read.
#[derive(Debug)]
pub struct Kind {
    /// The word.
    pub word: &'static str,
    /// What it may be used for.
    pub serves: Serves,
    /// What it is told where the settings do not say it.
    pub tells: Tells,
    /// Reads its fields.
    pub read: Read,
}

/// An action of the list, with its settings.
#[derive(Debug, Clone)]
pub struct Listed {
    kind: &'static Kind,
    tells: Tells,
    maker: Arc<dyn Maker>,
}

/// What an action is, with its settings.
#[derive(Debug, Clone)]
pub enum ActionKind {
    /// Says what it would have done.
    Log,
    /// One of the list.
    Listed(Listed),
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
            Self::Listed(listed) => listed.kind.word,
            #[cfg(test)]
            Self::Twin(_) => "twin",
        }
    }

    /// Whether it changes nothing outside.
    #[must_use]
    pub const fn only_says(&self) -> bool {
        matches!(self, Self::Log)
    }

    /// What it may be used for.
    #[must_use]
    pub const fn serves(&self) -> Serves {
        match self {
            Self::Log => Serves { rollback: true, alert: true, report: true },
            Self::Listed(listed) => listed.kind.serves,
            #[cfg(test)]
            Self::Twin(_) => Serves { rollback: true, alert: true, report: true },
        }
    }

    /// What it is told besides what is wrong.
    #[must_use]
    pub const fn tells(&self) -> Tells {
        match self {
            Self::Log => Tells { updates: false, resolved: true },
            Self::Listed(listed) => listed.tells,
            #[cfg(test)]
            Self::Twin(_) => Tells { updates: true, resolved: true },
        }
    }

    /// Makes the action.
    ///
    /// # Errors
    /// Where what it needs cannot be set up, e.g. there is no connection to NATS.
    pub fn build(&self, tools: &Tools) -> anyhow::Result<Box<dyn Action>> {
        match self {
            Self::Log => Ok(Box::new(log::Log)),
            Self::Listed(listed) => listed.maker.make(tools),
            #[cfg(test)]
            Self::Twin(twin) => Ok(Box::new(twin.clone())),
        }
    }
}

/// The words of all types, for messages.
fn words() -> String {
    let words = KINDS.iter().map(|kind| kind.word);
    let mut words: Vec<&str> = std::iter::once("log").chain(words).collect();
    words.sort_unstable();
    words.join(", ")
}

/// Reads the part of an action's settings that depends on its type. What was refused reads as `log`.
pub(crate) fn read_kind(section: &mut Section<'_>, allowed_hosts: &[String]) -> ActionKind {
    let word = section.text("type");
    match word.as_deref() {
        None => section.refuse("type", format!("is missing, expected one of {}", words())),
        Some("log") => {}
        Some(word) => match KINDS.iter().find(|kind| kind.word == word) {
            Some(kind) => {
                let tells = read_tells(section, kind);
                if let Some(maker) = (kind.read)(section, allowed_hosts) {
                    return ActionKind::Listed(Listed { kind, tells, maker });
                }
            }
            None => {
                section.refuse("type", format!("unknown value `{word}`, expected one of {}", words()));
            }
        },
    }
    ActionKind::Log
}

fn read_tells(section: &mut Section<'_>, kind: &Kind) -> Tells {
    if !kind.serves.alert {
        return kind.tells;
    }
    Tells {
        updates: section.flag("send_updates", kind.tells.updates),
        resolved: section.flag("send_resolved", kind.tells.resolved),
    }
}
