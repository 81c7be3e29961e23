//! Incidents, pure: what was told about a deployment, what is folded, what is new, and what is over.
//!
//! An incident is about one deployment. It opens with the first alert, is told again only where it changes in kind or
//! something was done about it, and closes with a later healthy verdict on the service, or with a rollback that is known to
//! have worked. The same event leads to the same words however often it is seen: a compare-and-set and the ledger do the
//! rest.

use crate::action::Tells;
use crate::alert::{About, Opened, RollbackEnd, Stage};
use crate::policy::{Decision, Rule, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vouch_proto::{Outcome, Purpose, Verdict};

/// The format that this version writes. A newer one is refused, never guessed.
pub const FORMAT: u32 = 1;
/// Most incidents of a service that are remembered; the oldest go first.
const MOST_INCIDENTS: usize = 32;
/// Most events of one incident that are remembered.
const MOST_EVENTS: usize = 24;

/// What an incident was told as. The same again is not told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It failed, with evidence to act alone.
    StrongFail,
    /// It failed, with weaker evidence.
    WeakFail,
    /// It cannot be told.
    Inconclusive,
    /// It could not be measured.
    Error,
}

/// Something that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Event {
    /// E.g. `verdict/<verification>/<revision>` or `rollback/done`.
    id: String,
    /// Where it stood.
    stage: Stage,
    /// By action, the key of what it was told.
    keys: BTreeMap<String, String>,
}

/// How an incident ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Closed {
    /// A later verdict is healthy.
    Healthy,
    /// The rollback is known to have worked.
    RolledBack,
}

/// One incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Incident {
    deployment_id: String,
    opened: Opened,
    kind: Kind,
    /// What was told, in order.
    events: Vec<Event>,
    closed: Option<Closed>,
}

/// The incidents of one service in one environment, one a deployment, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incidents {
    /// Format.
    pub version: u32,
    incidents: Vec<Incident>,
}

impl Default for Incidents {
    fn default() -> Self {
        Self { version: FORMAT, incidents: Vec::new() }
    }
}

/// Something to be told, by one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The decision, which is to act.
    pub decision: Decision,
    /// Where it stands.
    pub about: About,
    /// Keys of what this action was told about the incident before, oldest first.
    pub before: Vec<String>,
}

/// Who is told what besides what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channels {
    /// By name of the action.
    pub tells: BTreeMap<String, Tells>,
    /// The actions that record every verdict and every end of a rollback.
    pub reports: Vec<String>,
}

impl Incident {
    fn opened_by(verdict: &Verdict, kind: Kind) -> Self {
        let deployment_id = verdict.deployment_id.clone();
        Self { deployment_id, opened: opened(verdict), kind, events: Vec::new(), closed: None }
    }

    /// It was over, and is not: what is told from now on is about this verdict.
    fn reopen(&mut self, verdict: &Verdict, kind: Kind) {
        (self.opened, self.kind, self.closed) = (opened(verdict), kind, None);
    }

    fn about(&self, stage: Stage, did: &str) -> About {
        About {
            stage: Some(stage),
            incident: self.deployment_id.clone(),
            opened: (stage != Stage::Opens).then(|| self.opened.clone()),
            did: did.to_owned(),
            ..About::default()
        }
    }

    fn saw(&self, event: &str) -> Option<&Event> {
        self.events.iter().find(|told| told.id == event)
    }

    fn note(&mut self, event: &str, stage: Stage, alerts: &[Decision]) {
        if self.events.len() >= MOST_EVENTS {
            self.events.remove(0);
        }
        let keys = alerts.iter().map(|alert| (alert.action.clone(), alert.key.clone())).collect();
        self.events.push(Event { id: event.to_owned(), stage, keys });
    }

    /// Who was told about it before an event.
    fn listeners(&self, event: &str) -> Vec<String> {
        let earlier = self.events.iter().take_while(|told| told.id != event);
        let mut actions: Vec<String> = earlier.flat_map(|told| told.keys.keys().cloned()).collect();
        actions.sort();
        actions.dedup();
        actions
    }

    /// The words of an event: where it was seen before, the same as then.
    fn tell(
        &mut self,
        (event, stage): (&str, Stage),
        alerts: Vec<Decision>,
        about: impl Fn(&Self, Stage) -> About,
    ) -> Vec<Told> {
        let stage = match self.saw(event) {
            Some(seen) => seen.stage,
            None => {
                self.note(event, stage, &alerts);
                stage
            }
        };
        let about = about(self, stage);
        let before = |action: &str| {
            let earlier = self.events.iter().take_while(|told| told.id != event);
            earlier.filter_map(|told| told.keys.get(action).cloned()).collect()
        };
        let told = |decision: Decision| Told {
            before: before(&decision.action),
            about: About { notice: decision.rule == Rule::PageBudgetSpent, ..about.clone() },
            decision,
        };
        alerts.into_iter().map(told).collect()
    }
}

fn opened(verdict: &Verdict) -> Opened {
    Opened { version: verdict.version.to_string(), reason: verdict.reason.clone(), at: verdict.decided_at }
}

impl Incidents {
    /// What a verdict leads to: `alerts` are what the policy wants told about it, `did` what is done about it. Answers
    /// what is told, and the alerts that are not.
    #[must_use]
    pub fn on_verdict(
        &mut self,
        verdict: &Verdict,
        alerts: Vec<Decision>,
        did: &str,
        channels: &Channels,
    ) -> (Vec<Told>, Vec<Decision>) {
        let event = format!("verdict/{}/{}", verdict.verification_id, verdict.revision);
        let mut reports = report_verdict(verdict, did, channels);
        let (mut told, folded) = match kind(verdict) {
            None => (self.resolve(verdict, &event, channels), alerts),
            Some(_) if alerts.is_empty() => (Vec::new(), alerts),
            Some(kind) => self.open_or_update(verdict, (kind, &event), alerts, did),
        };
        told.append(&mut reports);
        (told, folded)
    }

    fn open_or_update(
        &mut self,
        verdict: &Verdict,
        (kind, event): (Kind, &str),
        alerts: Vec<Decision>,
        did: &str,
    ) -> (Vec<Told>, Vec<Decision>) {
        let incident = self.of(verdict, kind);
        let stage = match incident.closed {
            _ if incident.events.is_empty() => Stage::Opens,
            // Seen before, or not acknowledged: the ledger keeps the same words at one.
            _ if incident.saw(event).is_some() => Stage::Updates,
            None if incident.kind == kind => return (Vec::new(), fold(alerts, incident)),
            None => {
                incident.kind = kind;
                Stage::Updates
            }
            // A late revision of what was rolled back changes nothing for anybody.
            Some(Closed::RolledBack) if incident.knows_verification(verdict) => {
                return (Vec::new(), fold(alerts, incident));
            }
            Some(Closed::RolledBack | Closed::Healthy) => {
                incident.reopen(verdict, kind);
                Stage::Opens
            }
        };
        let told = incident.tell((event, stage), alerts, |incident, stage| incident.about(stage, did));
        (told, Vec::new())
    }

    /// A healthy verdict closes what was open about the service, of this deployment and of those before it.
    fn resolve(&mut self, verdict: &Verdict, event: &str, channels: &Channels) -> Vec<Told> {
        let detail = format!(
            "{} {} in {} is healthy: {}",
            verdict.service, verdict.version, verdict.environment, verdict.reason
        );
        let path = format!("resolved/{}.{}", verdict.verification_id, verdict.revision);
        let mut told = Vec::new();
        for incident in &mut self.incidents {
            let later = verdict.decided_at > incident.opened.at
                && verdict.deployment_id.as_str() >= incident.deployment_id.as_str();
            match incident.saw(event) {
                Some(_) => {}
                None if incident.closed.is_none() && later => incident.closed = Some(Closed::Healthy),
                None => continue,
            }
            let mut listeners = incident.listeners(event);
            listeners.retain(|action| channels.resolved(action));
            let alerts = follow(&listeners, &incident.deployment_id, &path, (Rule::HealthyResolves, &detail));
            let about = |incident: &Incident, stage| incident.about(stage, &detail);
            told.extend(incident.tell((event, Stage::Resolves), alerts, about));
        }
        told
    }

    /// What the end of a rollback leads to. `alerts` are what the policy wants told about an end that is no good one;
    /// `worked` says that the version before is known to be live and healthy.
    #[must_use]
    pub fn on_rollback(
        &mut self,
        verdict: &Verdict,
        (end, worked, detail): (RollbackEnd, bool, &str),
        alerts: Vec<Decision>,
        channels: &Channels,
    ) -> Vec<Told> {
        let mut told = report_rollback(verdict, (end, detail), channels);
        let event = format!("rollback/{}", end_word(end));
        let about =
            |incident: &Incident, stage| About { rollback: Some(end), ..incident.about(stage, detail) };
        if end == RollbackEnd::Done {
            let Some(incident) = self.known(verdict) else { return told };
            if incident.saw(&event).is_none() && incident.closed.is_some() {
                return told;
            }
            let alerts = incident.after_rollback(&event, (worked, detail), channels);
            let stage = if worked { Stage::Resolves } else { Stage::Updates };
            if worked && incident.saw(&event).is_none() {
                incident.closed = Some(Closed::RolledBack);
            }
            told.extend(incident.tell((&event, stage), alerts, about));
            return told;
        }
        let kind = kind(verdict).unwrap_or(Kind::StrongFail);
        let incident = self.of(verdict, kind);
        let over = incident.closed.is_some() && incident.saw(&event).is_none();
        let stage = if over || incident.events.is_empty() { Stage::Opens } else { Stage::Updates };
        if over {
            incident.reopen(verdict, kind);
        }
        told.extend(incident.tell((&event, stage), alerts, about));
        told
    }

    fn known(&mut self, verdict: &Verdict) -> Option<&mut Incident> {
        self.incidents.iter_mut().find(|incident| incident.deployment_id == verdict.deployment_id)
    }

    /// The incident of a verdict's deployment; a new one, of which nothing was told, where there is none.
    fn of(&mut self, verdict: &Verdict, kind: Kind) -> &mut Incident {
        let known = self.incidents.iter().position(|i| i.deployment_id == verdict.deployment_id);
        let at = known.unwrap_or_else(|| {
            if self.incidents.len() >= MOST_INCIDENTS {
                // What is closed is forgotten before what is open.
                let closed = self.incidents.iter().position(|i| i.closed.is_some());
                self.incidents.remove(closed.unwrap_or(0));
            }
            self.incidents.push(Incident::opened_by(verdict, kind));
            self.incidents.len() - 1
        });
        &mut self.incidents[at]
    }
}

impl Incident {
    fn knows_verification(&self, verdict: &Verdict) -> bool {
        let verification = format!("verdict/{}/", verdict.verification_id);
        self.events.iter().any(|told| told.id.starts_with(&verification))
    }

    /// Whom it concerns that the rollback was done.
    fn after_rollback(
        &self,
        event: &str,
        (worked, detail): (bool, &str),
        channels: &Channels,
    ) -> Vec<Decision> {
        let mut listeners = self.listeners(event);
        let (rule, path) = if worked {
            listeners.retain(|action| channels.resolved(action));
            (Rule::RollbackResolves, "resolved/rollback")
        } else {
            listeners.retain(|action| channels.updates(action));
            (Rule::RollbackDoneUpdates, "rollback/done")
        };
        follow(&listeners, &self.deployment_id, path, (rule, detail))
    }
}

impl Channels {
    fn updates(&self, action: &str) -> bool {
        self.tells.get(action).is_some_and(|tells| tells.updates)
    }

    fn resolved(&self, action: &str) -> bool {
        self.tells.get(action).is_some_and(|tells| tells.resolved)
    }
}

const fn kind(verdict: &Verdict) -> Option<Kind> {
    match verdict.outcome {
        Outcome::Pass => None,
        Outcome::Fail if verdict.rollback_grade => Some(Kind::StrongFail),
        Outcome::Fail => Some(Kind::WeakFail),
        Outcome::Inconclusive => Some(Kind::Inconclusive),
        Outcome::Error => Some(Kind::Error),
    }
}

const fn end_word(end: RollbackEnd) -> &'static str {
    match end {
        RollbackEnd::Done => "done",
        RollbackEnd::Failed => "failed",
        RollbackEnd::Unknown => "unknown",
    }
}

/// The alerts that are not told, each with the reason.
fn fold(alerts: Vec<Decision>, incident: &Incident) -> Vec<Decision> {
    let folded = |alert: Decision| Decision {
        step: Step::Skip { dry_run: false },
        rule: Rule::AlertFolded,
        detail: format!(
            "folded: the incident of deployment {} was told, and has not changed in kind",
            incident.deployment_id
        ),
        ..alert
    };
    alerts.into_iter().map(folded).collect()
}

/// Alerts that the policy does not make: they follow from what was told.
fn follow(actions: &[String], deployment: &str, path: &str, (rule, detail): (Rule, &str)) -> Vec<Decision> {
    let alert = |action: &String| act(rule, action, format!("{deployment}/{path}/alert/{action}"), detail);
    actions.iter().map(alert).collect()
}

fn act(rule: Rule, action: &str, key: String, detail: &str) -> Decision {
    Decision {
        purpose: Purpose::Alert,
        step: Step::Act,
        rule,
        action: action.to_owned(),
        key,
        detail: detail.to_owned(),
        budget: None,
    }
}

fn report_verdict(verdict: &Verdict, did: &str, channels: &Channels) -> Vec<Told> {
    let path = format!("{}/{}", verdict.verification_id, verdict.revision);
    report(verdict, (&path, &verdict.reason), channels, &About { did: did.to_owned(), ..About::default() })
}

fn report_rollback(verdict: &Verdict, (end, detail): (RollbackEnd, &str), channels: &Channels) -> Vec<Told> {
    let path = format!("{}/rollback/{}", verdict.deployment_id, end_word(end));
    let about = About { rollback: Some(end), did: detail.to_owned(), ..About::default() };
    report(verdict, (&path, detail), channels, &about)
}

fn report(verdict: &Verdict, (path, detail): (&str, &str), channels: &Channels, about: &About) -> Vec<Told> {
    let told = |action: &String| Told {
        decision: act(Rule::VerdictReported, action, format!("{path}/report/{action}"), detail),
        about: About {
            stage: Some(Stage::Reports),
            incident: verdict.deployment_id.clone(),
            ..about.clone()
        },
        before: Vec::new(),
    };
    channels.reports.iter().map(told).collect()
}

/// Reads what the bucket holds of a service.
///
/// # Errors
/// Where it is of a newer format, or no incidents at all.
pub fn read(bytes: Option<&[u8]>) -> Result<Incidents, String> {
    let Some(bytes) = bytes else { return Ok(Incidents::default()) };
    #[derive(Deserialize)]
    struct Format {
        version: u32,
    }
    let format: Format = serde_json::from_slice(bytes).map_err(|e| format!("it has no format ({e})"))?;
    if format.version > FORMAT {
        return Err(format!(
            "it has a newer format than {FORMAT}, the newest that this notifier reads; update it"
        ));
    }
    serde_json::from_slice(bytes).map_err(|e| format!("it cannot be read ({e})"))
}

#[cfg(test)]
mod tests;
