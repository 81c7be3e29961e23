//! The ledger's state machine, pure: who may do what with an entry, and what it becomes. `ledger_store` writes it.
//!
//! `claimed` -> `acting` (written just before the call) -> `done | failed | unknown`; a claim may end in `skipped`.
//! Every function answers what to write; a compare-and-set makes two replicas agree on one order.

use serde::{Deserialize, Serialize};
use vouch_proto::{Purpose, Timestamp};

/// The format that this version writes. A newer one is refused, never guessed.
pub const FORMAT: u32 = 1;

/// Where an entry stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    /// Somebody is about to act. After `until` anybody may take it over: nothing has been sent.
    Claimed {
        /// End of the lease.
        until: Timestamp,
    },
    /// The call may have been sent. After `until` its owner is gone, and only a probe or an idempotent receiver
    /// allows another call.
    Acting {
        /// When the call began.
        since: Timestamp,
        /// When its owner has surely ended.
        until: Timestamp,
    },
    /// It was done.
    Done {
        /// When that was known.
        at: Timestamp,
        /// For a person.
        detail: String,
        /// It only said what it would have done.
        dry_run: bool,
    },
    /// It was surely not done, and is not tried again.
    Failed {
        /// When it was given up.
        at: Timestamp,
        /// For a person.
        detail: String,
        /// Whether trying again could have helped.
        retryable: bool,
    },
    /// The call was begun and its end is not known: a person decides.
    Unknown {
        /// When it was given up.
        at: Timestamp,
        /// For a person.
        detail: String,
    },
    /// The policy decided against it, for this verdict.
    Skipped {
        /// When it was decided.
        at: Timestamp,
        /// For a person.
        detail: String,
        /// It would have been done but for the dry run.
        dry_run: bool,
    },
}

impl State {
    /// Whether it is over.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Claimed { .. } | Self::Acting { .. } => false,
            Self::Done { .. } | Self::Failed { .. } | Self::Unknown { .. } | Self::Skipped { .. } => true,
        }
    }

    /// The word used in the entry, in logs and in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Claimed { .. } => "claimed",
            Self::Acting { .. } => "acting",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
            Self::Skipped { .. } => "skipped",
        }
    }
}

/// One entry: one action for one deployment (rollback) or one verdict (alert).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Format of this entry.
    pub version: u32,
    /// Its key, which is also the `Idempotency-Key` and the id of the action.
    pub key: String,
    /// The verification whose verdict it answers.
    pub verification_id: String,
    /// The revision of that verdict.
    pub revision: u32,
    /// Name of the action in the settings.
    pub action: String,
    /// Type of the action.
    pub kind: String,
    /// The rule that decided.
    pub rule: String,
    /// Who works on it, or did last; unique per attempt at handling a verdict.
    pub owner: String,
    /// Calls begun.
    pub attempts: u32,
    /// One of them may have been carried out, although its end is not known.
    pub maybe_sent: bool,
    /// Where it stands.
    pub state: State,
    /// The audit stream has its end.
    pub recorded: bool,
}

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Key of the entry.
    pub key: String,
    /// The verification whose verdict is answered.
    pub verification_id: String,
    /// The revision of that verdict.
    pub revision: u32,
    /// Name of the action.
    pub action: String,
    /// Type of the action.
    pub kind: String,
    /// The rule that decided.
    pub rule: String,
    /// Who wants it.
    pub owner: String,
}

impl Work {
    fn answers_the_same_verdict(&self, entry: &Entry) -> bool {
        self.verification_id == entry.verification_id && self.revision == entry.revision
    }

    fn claim(&self, before: Option<&Entry>, until: Timestamp) -> Entry {
        Entry {
            version: FORMAT,
            key: self.key.clone(),
            verification_id: self.verification_id.clone(),
            revision: self.revision,
            action: self.action.clone(),
            kind: self.kind.clone(),
            rule: self.rule.clone(),
            owner: self.owner.clone(),
            attempts: before.map_or(0, |entry| entry.attempts),
            maybe_sent: before.is_some_and(|entry| entry.maybe_sent),
            state: State::Claimed { until },
            recorded: false,
        }
    }
}

/// What taking an entry came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Claimed: write this entry (it may be there already) and act. `from` names an owner it was taken over from.
    Mine {
        /// The claim.
        entry: Entry,
        /// Whose claim had expired.
        from: Option<String>,
    },
    /// Somebody else works on it, at most until then.
    Held(Timestamp),
    /// Somebody began the call and is gone.
    Orphan(Entry),
    /// It is over, for this very verdict.
    Over(Entry),
    /// It is over for good, by another verdict on the same deployment.
    Elsewhere(Entry),
}

/// Claims an entry where that is allowed.
#[must_use]
pub fn take(entry: Option<&Entry>, work: &Work, now: Timestamp, until: Timestamp) -> Taken {
    let Some(entry) = entry else { return Taken::Mine { entry: work.claim(None, until), from: None } };
    match &entry.state {
        State::Claimed { .. } if entry.owner == work.owner => {
            Taken::Mine { entry: entry.clone(), from: None }
        }
        State::Claimed { until: lease } | State::Acting { until: lease, .. } if now < *lease => {
            Taken::Held(*lease)
        }
        State::Claimed { .. } => {
            let from = Some(entry.owner.clone());
            Taken::Mine { entry: work.claim(Some(entry), until), from }
        }
        State::Acting { .. } => Taken::Orphan(entry.clone()),
        // Deciding against it binds one verdict only; a later verification may find reason to act.
        State::Skipped { .. } if !work.answers_the_same_verdict(entry) => {
            Taken::Mine { entry: work.claim(Some(entry), until), from: None }
        }
        State::Done { .. } | State::Failed { .. } | State::Unknown { .. } | State::Skipped { .. } => {
            if work.answers_the_same_verdict(entry) {
                Taken::Over(entry.clone())
            } else {
                Taken::Elsewhere(entry.clone())
            }
        }
    }
}

/// The entry is another's now: start again from reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ledger's entry was taken over by another replica")]
pub struct Lost;

/// `claimed` -> `acting`: written just before call number `attempt`.
///
/// # Errors
/// Where the claim is no longer the owner's.
pub fn begin(
    entry: Option<&Entry>,
    owner: &str,
    attempt: u32,
    (since, until): (Timestamp, Timestamp),
) -> Result<Entry, Lost> {
    let entry = entry.filter(|e| e.owner == owner).ok_or(Lost)?;
    match &entry.state {
        State::Claimed { .. } if entry.attempts + 1 == attempt => {
            Ok(Entry { attempts: attempt, state: State::Acting { since, until }, ..entry.clone() })
        }
        // Its own write, whose acknowledgement was lost.
        State::Acting { .. } if entry.attempts == attempt => Ok(entry.clone()),
        State::Claimed { .. }
        | State::Acting { .. }
        | State::Done { .. }
        | State::Failed { .. }
        | State::Unknown { .. }
        | State::Skipped { .. } => Err(Lost),
    }
}

/// Back to `claimed`, or another lease on a claim: the next call is allowed and due later. `maybe_sent` says that the
/// last one may have been carried out.
///
/// # Errors
/// Where the entry is no longer the owner's.
pub fn back_off(
    entry: Option<&Entry>,
    owner: &str,
    until: Timestamp,
    maybe_sent: bool,
) -> Result<Entry, Lost> {
    let entry = entry.filter(|e| e.owner == owner && !e.state.is_final()).ok_or(Lost)?;
    let maybe_sent = entry.maybe_sent || maybe_sent;
    Ok(Entry { state: State::Claimed { until }, maybe_sent, ..entry.clone() })
}

/// Ends it, by `rule`. A claim may end in `skipped`, or in `unknown` where an earlier call may have been carried out;
/// a call in anything but `skipped`.
///
/// # Errors
/// Where the entry is no longer the owner's, or may not end so.
pub fn settle(entry: Option<&Entry>, owner: &str, rule: &str, end: &State) -> Result<Entry, Lost> {
    let entry = entry.filter(|e| e.owner == owner).ok_or(Lost)?;
    let allowed = match (&entry.state, end) {
        (State::Claimed { .. }, State::Skipped { .. }) => !entry.maybe_sent,
        (State::Claimed { .. }, State::Unknown { .. }) => entry.maybe_sent,
        (State::Acting { .. }, State::Done { .. } | State::Failed { .. } | State::Unknown { .. }) => true,
        (was, end) if was == end => true,
        _ => false,
    };
    if !allowed {
        return Err(Lost);
    }
    Ok(Entry { state: end.clone(), rule: rule.to_owned(), ..entry.clone() })
}

/// Notes that the audit stream has the end of this entry.
#[must_use]
pub fn recorded(entry: Option<&Entry>, seen: &Entry) -> Option<Entry> {
    let entry = entry.filter(|e| e.state.is_final() && e.state == seen.state && !e.recorded)?;
    Some(Entry { recorded: true, ..entry.clone() })
}

/// What the receiver says about a call that was begun by somebody who is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It was done.
    Done,
    /// It was surely not done.
    NotDone,
    /// Nobody can say.
    CannotTell,
}

/// What becomes of an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It was done: say so.
    WasDone,
    /// It is claimed anew and sent again.
    SendAgain,
    /// It was surely not done, and the policy no longer wants it.
    NoLongerWanted,
    /// A person decides.
    Unknown,
}

/// What to do with an orphan. A rollback is sent again only where the receiver surely did not do it, or takes
/// idempotency keys; an alert is sent at least once.
#[must_use]
pub const fn resolve(purpose: Purpose, probe: Probe, idempotent: bool, wanted: bool) -> Resolution {
    match (purpose, probe) {
        (_, Probe::Done) => Resolution::WasDone,
        (Purpose::Rollback, Probe::NotDone) if !wanted => Resolution::NoLongerWanted,
        (Purpose::Rollback, Probe::NotDone) => Resolution::SendAgain,
        (Purpose::Rollback, Probe::CannotTell) if idempotent && wanted => Resolution::SendAgain,
        (Purpose::Rollback, Probe::CannotTell) => Resolution::Unknown,
        (Purpose::Alert, Probe::NotDone | Probe::CannotTell) if wanted => Resolution::SendAgain,
        (Purpose::Alert, Probe::NotDone | Probe::CannotTell) => Resolution::Unknown,
    }
}

/// What an orphan becomes under its new owner. A new claim holds until `until`.
#[must_use]
pub fn adopted(
    seen: &Entry,
    work: &Work,
    (probe, resolution): (Probe, Resolution),
    (now, until): (Timestamp, Timestamp),
) -> Entry {
    let begun = format!("the call was begun by {}, who is gone", seen.owner);
    let (state, maybe_sent) = match resolution {
        Resolution::WasDone => {
            let detail = format!("{begun}; the receiver says that it was done");
            (State::Done { at: now, detail, dry_run: false }, false)
        }
        Resolution::SendAgain => (State::Claimed { until }, probe == Probe::CannotTell),
        Resolution::NoLongerWanted => {
            let detail = format!("{begun}; it was not done, and the policy no longer wants it");
            (State::Skipped { at: now, detail, dry_run: false }, false)
        }
        Resolution::Unknown => {
            let detail = format!("{begun}; whether it was done cannot be told, so it is not sent again");
            (State::Unknown { at: now, detail }, true)
        }
    };
    Entry { owner: work.owner.clone(), state, maybe_sent, ..seen.clone() }
}

/// Writes what an orphan becomes, where it is still the one that was `seen`.
///
/// # Errors
/// Where somebody else was faster.
pub fn adopt(entry: Option<&Entry>, seen: &Entry, becomes: &Entry) -> Result<Entry, Lost> {
    // Its own write, whose acknowledgement was lost, counts as well.
    entry.filter(|e| *e == seen || *e == becomes).map(|_| becomes.clone()).ok_or(Lost)
}

/// Whether a claim may be sent: what may have been carried out already is sent again only where that does no harm.
#[must_use]
pub const fn may_send(entry: &Entry, purpose: Purpose, idempotent: bool) -> bool {
    match purpose {
        Purpose::Alert => true,
        Purpose::Rollback => !entry.maybe_sent || idempotent,
    }
}

#[cfg(test)]
mod tests;
