//! Decides with the incidents what is told about a verdict or a rollback, queues it, and readies it when its turn comes.

use crate::alert::{About, RollbackEnd, Stage};
use crate::config::NotifierSettings;
use crate::incident::{Channels, Told};
use crate::ledger::{Entry, State};
use crate::ledger_store::Later;
use crate::outbox::{Outbox, Waiting};
use crate::policy::{Decision, Rule, Step};
use crate::runner::Case;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vouch_proto::{Outcome, Purpose, Timestamp, Verdict};
use vouch_service::clock::SharedClock;
use vouch_service::evidence::EvidenceSettings;

/// How long a word waits, in real time, before it looks again whether the one before it was told.
const SHORTLY: Duration = Duration::from_secs(1);
/// How long it waits for one that was never queued, on the injected clock: its verdict may have been given up.
const PATIENCE: Duration = Duration::from_secs(3600);
/// What is shown of Dynatrace before and after the verification.
const AROUND: Duration = Duration::from_secs(1800);

/// What is told of a verdict, and what is left to be carried out.
#[derive(Debug)]
pub(crate) struct Split {
    /// To be queued.
    pub(crate) told: Vec<Told>,
    /// To be carried out: rollbacks, and what is only recorded.
    pub(crate) others: Vec<Decision>,
}

/// The teller.
#[derive(Debug)]
pub(crate) struct Teller {
    outbox: Arc<dyn Outbox>,
    world: Arc<dyn World>,
    clock: SharedClock,
    channels: Channels,
    evidence: EvidenceSettings,
    pub(crate) patience: Duration,
}

impl Teller {
    pub(crate) fn new(
        settings: &NotifierSettings,
        (outbox, world): (Arc<dyn Outbox>, Arc<dyn World>),
        clock: SharedClock,
    ) -> Self {
        let tells = settings.actions.iter().map(|action| (action.name.clone(), action.kind.tells()));
        let channels =
            Channels { tells: tells.collect::<BTreeMap<_, _>>(), reports: settings.reports.clone() };
        let evidence = settings.evidence.clone();
        Self { outbox, world, clock, channels, evidence, patience: PATIENCE }
    }

    /// Takes out of the decisions about a verdict what is to be told.
    pub(crate) async fn on_verdict(&self, case: &Case, decisions: Vec<Decision>) -> Result<Split, Later> {
        let verdict = &case.verdict;
        let is_alert = |d: &Decision| d.purpose == Purpose::Alert && d.step == Step::Act;
        let did = did(verdict, &decisions);
        let (alerts, mut others): (Vec<_>, Vec<_>) = decisions.into_iter().partition(is_alert);
        let healthy = verdict.outcome == Outcome::Pass;
        if alerts.is_empty() && !healthy && self.channels.reports.is_empty() {
            return Ok(Split { told: Vec::new(), others });
        }
        let (mut told, mut folded) = (Vec::new(), Vec::new());
        self.outbox
            .incidents(&verdict.environment, &verdict.service, &mut |incidents| {
                (told, folded) = incidents.on_verdict(verdict, alerts.clone(), &did, &self.channels);
            })
            .await?;
        others.append(&mut folded);
        Ok(Split { told, others })
    }

    /// What is told of the end of a rollback; `alerts` are what the policy wants told of it.
    pub(crate) async fn on_rollback(
        &self,
        case: &Case,
        (end, worked, detail): (RollbackEnd, bool, &str),
        alerts: Vec<Decision>,
    ) -> Result<Vec<Told>, Later> {
        let verdict = &case.verdict;
        let mut told = Vec::new();
        self.outbox
            .incidents(&verdict.environment, &verdict.service, &mut |incidents| {
                let alerts = alerts.clone();
                told = incidents.on_rollback(verdict, (end, worked, detail), alerts, &self.channels);
            })
            .await?;
        Ok(told)
    }

    /// Queues what is to be told.
    pub(crate) async fn queue(&self, case: &Case, told: &[Told]) -> Result<(), Later> {
        for told in told {
            let from = (case.traceparent.as_deref(), self.clock.now());
            let waiting = Waiting::new(told, &case.verdict, from);
            self.outbox.queue(&waiting).await?;
        }
        Ok(())
    }

    /// Readies an alert whose turn has come: waits for what its action was told before, and fills in where to look.
    pub(crate) async fn ready(
        &self,
        waiting: &Waiting,
        verdict: &Verdict,
    ) -> Result<(Decision, About), Later> {
        let mut decision = waiting.decision();
        let now = self.clock.now();
        let mut reached = false;
        for key in &waiting.before {
            match self.entry(key).await? {
                Some(entry) if entry.state.is_final() => reached |= was_told(&entry),
                None if now.since(waiting.queued_at) > self.patience => {}
                Some(_) | None => return Err(Later::Wait(SHORTLY)),
            }
        }
        if waiting.about.stage == Some(Stage::Resolves) && !reached {
            decision.step = Step::Skip { dry_run: false };
            decision.rule = Rule::AlertFolded;
            decision.detail =
                format!("not told that it is over: `{}` was never told that it began", decision.action);
        }
        let entity = self.outbox.entity(&verdict.environment, &verdict.service).await?;
        let mut about = waiting.about.clone();
        about.links.evidence = self.evidence.page(&verdict.verification_id, now);
        about.links.dynatrace = entity
            .as_ref()
            .and_then(|entity| self.evidence.entity(&entity.source, &entity.id, shown(verdict)));
        about.entity = entity;
        Ok((decision, about))
    }

    /// What an action keeps about the incident of an alert.
    pub(crate) async fn memory(&self, about: &About, action: &str) -> Result<Option<String>, Later> {
        Ok(self.outbox.memory(&about.incident, action).await?)
    }

    /// Keeps something about the incident of an alert. What cannot be kept costs a thread, not the alert.
    pub(crate) async fn remember(&self, about: &About, action: &str, memory: &str) {
        if let Err(error) = self.outbox.remember(&about.incident, action, memory).await {
            let error = format!("{error:#}");
            tracing::warn!(incident = about.incident, action, error, "what a channel keeps is lost");
        }
    }

    async fn entry(&self, key: &str) -> Result<Option<Entry>, Later> {
        let mut seen = None;
        self.world
            .change(key, &mut |entry| {
                seen = entry.cloned();
                None
            })
            .await?;
        Ok(seen)
    }
}

/// Whether the receiver has, or may have, what an entry stands for.
const fn was_told(entry: &Entry) -> bool {
    match entry.state {
        State::Done { .. } | State::Unknown { .. } => true,
        State::Failed { .. } => entry.maybe_sent,
        State::Skipped { .. } | State::Claimed { .. } | State::Acting { .. } => false,
    }
}

/// The verification and what surrounds it.
fn shown(verdict: &Verdict) -> (Timestamp, Timestamp) {
    let (start, end) =
        verdict.verification.map_or((verdict.decided_at, verdict.decided_at), |w| (w.start(), w.end()));
    (start.minus(AROUND), end.plus(AROUND))
}

/// What Vouch does about a verdict, in a sentence.
fn did(verdict: &Verdict, decisions: &[Decision]) -> String {
    let rollback = decisions.iter().find(|d| d.purpose == Purpose::Rollback);
    match (rollback, verdict.outcome) {
        (Some(rollback), _) => rollback.detail.clone(),
        (None, Outcome::Pass) => "Nothing: it is healthy.".to_owned(),
        (None, Outcome::Fail) => "Not rolled back: the evidence is too weak to act alone.".to_owned(),
        (None, Outcome::Inconclusive | Outcome::Error) => "Not rolled back: only a Fail ever is.".to_owned(),
    }
}
