//! What an alert says, pure: what, where, how much, since when, against what, what Vouch did about it, and where to look.
//!
//! Every channel tells the same from this one value; it writes it in its own words and within its own limits. Nothing
//! but the verdict's own fields is in it.

mod compared;
mod text;

pub use compared::against;
pub use text::{cut, plain};

use serde::{Deserialize, Serialize};
use std::time::Duration;
use vouch_proto::{Classification, MetricResult, Outcome, Strategy, Timestamp, Verdict};

/// Most metrics that an alert shows.
pub const MOST_METRICS: usize = 5;

/// Where an alert stands in its incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Something is wrong: the first word about it.
    Opens,
    /// It has changed in kind, or something was done about it.
    Updates,
    /// It is over.
    Resolves,
    /// No incident: a verdict, or what was done about it, for whoever records them all.
    Reports,
}

impl Stage {
    /// The word used in bodies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opens => "opens",
            Self::Updates => "updates",
            Self::Resolves => "resolves",
            Self::Reports => "reports",
        }
    }
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To be known, nothing to be done: over, healthy, or a notice for want of budget.
    Info,
    /// It could not be told, or not be measured.
    Warning,
    /// It got worse, and the evidence is too weak to act alone.
    Error,
    /// It got worse, or a rollback did not come to a good end.
    Critical,
}

impl Severity {
    /// The word used in bodies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// How the rollback of the deployment ended, where that is what is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackEnd {
    /// It was done.
    Done,
    /// It was surely not done.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// One metric on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricLine {
    /// Its name.
    pub metric: String,
    /// The host, or `all new hosts`.
    pub host: String,
    /// It got worse.
    pub worse: bool,
    /// In words, from the verdict.
    pub reason: String,
    /// What is there as a multiple of what was expected, where both are known.
    pub ratio: Option<f64>,
}

/// Where the alert's service is in Dynatrace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// Name of the tenant.
    pub source: String,
    /// E.g. `SERVICE-0123456789ABCDEF`.
    pub id: String,
}

/// Where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Links {
    /// The evidence page.
    pub evidence: Option<String>,
    /// The service in Dynatrace.
    pub dynatrace: Option<String>,
}

/// How an incident began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The version that it is about.
    pub version: String,
    /// What was wrong.
    pub reason: String,
    /// When it was first told.
    pub at: Timestamp,
}

/// What is told about a verdict, besides the verdict itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Where it stands in its incident; `None` outside of one.
    pub stage: Option<Stage>,
    /// Id of the incident; empty outside of one.
    pub incident: String,
    /// How it began.
    pub opened: Option<Opened>,
    /// What Vouch did about it.
    pub did: String,
    /// How the rollback ended, where that is what is told.
    pub rollback: Option<RollbackEnd>,
    /// It is told without haste: the budget of pages is spent.
    pub notice: bool,
    /// Where to look.
    pub links: Links,
    /// Where the service is in Dynatrace.
    pub entity: Option<Entity>,
}

/// What an alert says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Where it stands in its incident.
    pub stage: Stage,
    /// The same for everything that is told about one incident, e.g. the id of a deployment.
    pub incident: String,
    /// How much it matters.
    pub severity: Severity,
    /// One line: what and where.
    pub headline: String,
    /// One sentence: how much, since when, against what.
    pub reason: String,
    /// What Vouch did about it.
    pub did: String,
    /// How the incident began, where this is a later word about it.
    pub opened: Option<Opened>,
    /// How the rollback ended, where that is what is told.
    pub rollback: Option<RollbackEnd>,
    /// How the verification ended.
    pub outcome: Outcome,
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The version judged.
    pub version: String,
    /// The version before.
    pub previous_version: Option<String>,
    /// Whom it concerns.
    pub owner: Option<String>,
    /// Where it runs.
    pub cluster: Option<String>,
    /// What runs there.
    pub workload: Option<String>,
    /// Since when it is worse.
    pub since: Option<Timestamp>,
    /// What it was compared with.
    pub against: String,
    /// The most suspicious metrics.
    pub metrics: Vec<MetricLine>,
    /// How many more there are.
    pub more_metrics: usize,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// The verification.
    pub verification_id: String,
    /// Where to look.
    pub links: Links,
    /// Where the service is in Dynatrace.
    pub entity: Option<Entity>,
}

impl Alert {
    /// What is told about a verdict.
    #[must_use]
    pub fn new(verdict: &Verdict, about: About) -> Self {
        let stage = about.stage.unwrap_or(Stage::Reports);
        let shown = verdict.metrics.iter().filter(|row| row.classification != Classification::Pass);
        // A healthy verdict shows what was looked at.
        let worse = shown.clone().count();
        let rows: Vec<&MetricResult> =
            if worse == 0 { verdict.metrics.iter().collect() } else { shown.collect() };
        Self {
            stage,
            severity: severity(verdict, stage, about.rollback, about.notice),
            headline: headline(verdict, stage, &about),
            incident: if about.incident.is_empty() { verdict.deployment_id.clone() } else { about.incident },
            reason: verdict.reason.clone(),
            did: about.did,
            opened: about.opened,
            rollback: about.rollback,
            outcome: verdict.outcome,
            service: verdict.service.to_string(),
            environment: verdict.environment.to_string(),
            version: verdict.version.to_string(),
            previous_version: verdict.previous_version.clone(),
            owner: verdict.owner.clone(),
            cluster: verdict.cluster.clone(),
            workload: verdict.workload.clone(),
            since: since(verdict),
            against: against(verdict),
            metrics: rows.iter().take(MOST_METRICS).map(|row| line(row)).collect(),
            more_metrics: rows.len().saturating_sub(MOST_METRICS),
            decided_at: verdict.decided_at,
            verification_id: verdict.verification_id.clone(),
            links: about.links,
            entity: about.entity,
        }
    }

    /// What is known beside the sentences, as label and text, in the order in which a person asks.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let version = match &self.previous_version {
            Some(previous) => format!("{} (before: {previous})", self.version),
            None => self.version.clone(),
        };
        let place = [Some(&self.environment), self.cluster.as_ref(), self.workload.as_ref()];
        let place: Vec<&str> = place.into_iter().flatten().map(String::as_str).collect();
        let was = self.opened.as_ref().filter(|_| self.stage == Stage::Resolves);
        let facts = [
            ("Was", was.map(|opened| format!("{} ({})", opened.reason, text::minute(opened.at)))),
            ("Service", Some(self.service.clone())),
            ("Version", Some(version)),
            ("Where", Some(place.join(", "))),
            ("Since", self.since.map(text::minute)),
            ("Against", Some(self.against.clone())),
            ("What Vouch did", Some(self.did.clone())),
            ("Owner", self.owner.clone()),
        ];
        let facts = facts.into_iter().filter_map(|(label, text)| Some((label, text?)));
        facts.filter(|(_, text)| !text.is_empty()).collect()
    }

    /// The links that there are, as label and address.
    #[must_use]
    pub fn links(&self) -> Vec<(&'static str, &str)> {
        let links = [("Evidence", &self.links.evidence), ("Dynatrace", &self.links.dynatrace)];
        links.into_iter().filter_map(|(label, url)| Some((label, url.as_deref()?))).collect()
    }

    /// One word for where it stands, for labels and colours.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match (self.stage, self.outcome) {
            (Stage::Resolves, _) => "resolved",
            (Stage::Opens | Stage::Updates | Stage::Reports, outcome) => outcome.as_str(),
        }
    }
}

fn severity(verdict: &Verdict, stage: Stage, rollback: Option<RollbackEnd>, notice: bool) -> Severity {
    match (stage, rollback, verdict.outcome) {
        (Stage::Resolves, _, _) => Severity::Info,
        (_, Some(RollbackEnd::Failed | RollbackEnd::Unknown), _) => Severity::Critical,
        (_, _, Outcome::Pass) => Severity::Info,
        (_, _, Outcome::Fail) if notice => Severity::Info,
        (_, _, Outcome::Fail) if verdict.rollback_grade => Severity::Critical,
        (_, _, Outcome::Fail) => Severity::Error,
        (_, _, Outcome::Inconclusive | Outcome::Error) => Severity::Warning,
    }
}

fn headline(verdict: &Verdict, stage: Stage, about: &About) -> String {
    let what = |version: &str| format!("{} {version} in {}", verdict.service, verdict.environment);
    let before = verdict.previous_version.as_deref().unwrap_or("the version before");
    let said = match (stage, about.rollback, verdict.outcome) {
        (Stage::Resolves, _, _) => {
            let version = about.opened.as_ref().map_or(verdict.version.as_str(), |opened| &opened.version);
            return format!("Resolved: {}", what(version));
        }
        (_, Some(RollbackEnd::Done), _) => format!("was rolled back to {before}"),
        (_, Some(RollbackEnd::Failed), _) => "was not rolled back: the rollback failed".to_owned(),
        (_, Some(RollbackEnd::Unknown), _) => "may or may not have been rolled back".to_owned(),
        (_, None, Outcome::Pass) => "passed its verification".to_owned(),
        (_, None, Outcome::Fail) => "failed its verification".to_owned(),
        (_, None, Outcome::Inconclusive) => "has an inconclusive verification".to_owned(),
        (_, None, Outcome::Error) => "could not be verified".to_owned(),
    };
    let revised = if verdict.revision == 0 { "" } else { " (revised)" };
    format!("{} {said}{revised}", what(verdict.version.as_str()))
}

/// The beginning of the first degradation, in the clock's time.
fn since(verdict: &Verdict) -> Option<Timestamp> {
    let start = verdict.verification?.start();
    let worse = verdict.metrics.iter().filter(|row| is_worse(row));
    let minute = worse.filter_map(|row| row.since_minute).min()?;
    Some(start.plus(Duration::from_secs(60 * u64::from(minute))))
}

const fn is_worse(row: &MetricResult) -> bool {
    match row.classification {
        Classification::High | Classification::Low => true,
        Classification::Pass | Classification::NoData | Classification::Error => false,
    }
}

fn line(row: &MetricResult) -> MetricLine {
    let ratio = row.level.and_then(|[expected, observed]| {
        let ratio = observed / expected;
        (expected > 0.0 && ratio.is_finite() && ratio >= 0.0).then_some(ratio)
    });
    MetricLine {
        metric: row.metric.clone(),
        host: if row.host == "*" { "all new hosts".to_owned() } else { row.host.clone() },
        worse: is_worse(row),
        reason: row.reason.clone(),
        ratio: ratio.or_else(|| row.effect.map(|effect| 1.0 + effect).filter(|ratio| *ratio >= 0.0)),
    }
}

/// How a strategy compares, in words.
const fn strategy_in_words(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Previous => "the same service before the deployment",
        Strategy::Canary => "the hosts that still run the version before",
        Strategy::Rolling => "the hosts that were not switched yet",
        Strategy::BlueGreen => "the old stack before the switch",
        Strategy::LoadTest => "the pinned run",
        Strategy::Auto => "what was expected",
    }
}

#[cfg(test)]
mod tests;
