//! Carries decisions out: claim, act, record, for one verdict at a time and all of its actions at once.

use crate::accounts::Accounts;
use crate::action::{Action, ActionError, ActionRequest, Effect, Tools};
use crate::alert::{About, Alert, RollbackEnd};
use crate::audit::{self, End};
use crate::config::{ActionSettings, NotifierSettings, PolicySettings, RetrySettings};
use crate::ledger::{self, Entry, Probe, Resolution, State, Taken, Work};
use crate::ledger_store::{Later, LedgerStore, SHORTLY};
use crate::metrics::Metrics;
use crate::outbox::{Outbox, Waiting};
use crate::policy::{self, Decision, Facts, Rule, Step};
use crate::retry::{self, Next, Progress};
use crate::teller::Teller;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vouch_proto::spending::Account;
use vouch_proto::{Purpose, Verdict};
use vouch_service::clock::SharedClock;

/// How long an alert is put off whose action is not among the settings.
const UNKNOWN_ACTION: Duration = Duration::from_secs(10);

/// A verdict and the trace that it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) verdict: Arc<Verdict>,
    pub(crate) traceparent: Option<String>,
    /// What an alert tells, while it is delivered; `None` while the verdict is decided on.
    pub(crate) about: Option<About>,
}

/// An action, and how much of it may happen at once.
#[derive(Debug)]
struct Slot {
    action: Box<dyn Action>,
    kind: &'static str,
    retry: RetrySettings,
    permits: Semaphore,
}

/// Does what the policy decides, with the ledger between.
#[derive(Debug)]
pub(crate) struct Runner {
    world: Arc<dyn World>,
    clock: SharedClock,
    metrics: Metrics,
    stop: CancellationToken,
    policy: PolicySettings,
    ledger: LedgerStore,
    accounts: Accounts,
    teller: Teller,
    slots: BTreeMap<String, Slot>,
    instance: String,
    works: AtomicU64,
}

/// What surrounds a runner.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) world: Arc<dyn World>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) tools: Tools,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    /// A name that no other replica has or had.
    pub(crate) instance: String,
}

impl Runner {
    pub(crate) fn new(settings: &NotifierSettings, around: Surroundings) -> anyhow::Result<Self> {
        let slot = |settings: &ActionSettings| -> anyhow::Result<(String, Slot)> {
            let slot = Slot {
                action: settings.kind.build(&around.tools)?,
                kind: settings.kind.as_str(),
                retry: settings.retry,
                permits: Semaphore::new(settings.max_in_flight),
            };
            Ok((settings.name.clone(), slot))
        };
        let ledger = LedgerStore {
            world: around.world.clone(),
            clock: around.clock.clone(),
            stop: around.stop.clone(),
            lease: settings.lease,
        };
        let accounts =
            Accounts { world: around.world.clone(), clock: around.clock.clone(), budget: settings.budget };
        let rim = (around.outbox.clone(), around.world.clone());
        Ok(Self {
            ledger,
            accounts,
            teller: Teller::new(settings, rim, around.clock.clone()),
            slots: settings.actions.iter().map(slot).collect::<anyhow::Result<_>>()?,
            policy: settings.policy.clone(),
            world: around.world,
            clock: around.clock,
            metrics: around.metrics,
            stop: around.stop,
            instance: around.instance,
            works: AtomicU64::new(0),
        })
    }

    /// Handles a verdict. `Ok` means that every decision about it is in the audit stream.
    pub(crate) async fn handle(&self, case: &Case) -> Result<(), Later> {
        let decisions = self.decide(case, &[Account::Rollbacks, Account::Pages]).await?;
        for decision in decisions.iter().filter(|d| d.budget.is_some()) {
            let (key, said) = (&decision.key, &decision.detail);
            tracing::warn!(key, rule = %decision.rule, "over budget: {said}");
        }
        // Alerts wait in the queues of their actions, so that a slow receiver holds no verdict open.
        let split = self.teller.on_verdict(case, decisions).await?;
        let works = split.others.iter().map(|decision| self.carry_out(case, decision));
        let works = futures::future::join_all(works);
        let (queued, mut ended) = futures::future::join(self.teller.queue(case, &split.told), works).await;
        ended.push(queued);
        first_obstacle(ended)
    }

    /// Delivers an alert that waited in the queue of its action. `Ok` means that its end is in the audit stream.
    pub(crate) async fn deliver(&self, waiting: &Waiting, verdict: Arc<Verdict>) -> Result<(), Later> {
        let (decision, about) = self.teller.ready(waiting, &verdict).await?;
        let case = Case { verdict, traceparent: waiting.traceparent.clone(), about: Some(about) };
        if self.slots.contains_key(&decision.action) {
            return self.carry_out(&case, &decision).await;
        }
        // Of another replica's settings, or of older ones.
        match policy::alert_again(&decision, &case.verdict, self.clock.now(), &self.policy) {
            alert if alert.step == Step::Act => Err(Later::Wait(UNKNOWN_ACTION)),
            alert => self.record(&case, &alert, End::Nothing { at: self.clock.now() }).await,
        }
    }

    /// The actions, each with how many of its alerts may be worked on at once.
    pub(crate) fn actions(&self) -> BTreeMap<String, usize> {
        let most = |slot: &Slot| slot.permits.available_permits();
        self.slots.iter().map(|(name, slot)| (name.clone(), most(slot))).collect()
    }

    /// Decides; what takes a place of one of the accounts has it once this returns.
    async fn decide(&self, case: &Case, accounts: &[Account]) -> Result<Vec<Decision>, Later> {
        let verdict = &case.verdict;
        let newest = self.world.newest_deployment(&verdict.environment, &verdict.service).await?;
        let mut facts = Facts {
            now: self.clock.now(),
            newest_deployment_id: newest,
            rollbacks_exhausted: None,
            pages_exhausted: None,
        };
        let wanted = policy::decide(verdict, &facts, &self.policy);
        for account in accounts.iter().filter(|account| policy::spends(verdict, &wanted, **account)) {
            let exhausted = self.accounts.claim(*account, verdict).await?;
            match account {
                Account::Rollbacks => facts.rollbacks_exhausted = exhausted,
                Account::Pages => facts.pages_exhausted = exhausted,
            }
        }
        Ok(policy::decide(verdict, &facts, &self.policy))
    }

    async fn carry_out(&self, case: &Case, decision: &Decision) -> Result<(), Later> {
        if decision.step == Step::Nothing {
            return self.record(case, decision, End::Nothing { at: self.clock.now() }).await;
        }
        let Some(slot) = self.slots.get(&decision.action) else {
            return Err(anyhow::anyhow!("no action is called `{}`", decision.action).into());
        };
        let ended = self.work(case, decision, slot).await?;
        if decision.purpose == Purpose::Rollback {
            let (Ok(entry) | Err(entry)) = &ended;
            self.accounts.settle(&case.verdict, entry).await?;
        }
        let entry = match ended {
            Ok(entry) => entry,
            Err(elsewhere) => {
                let at = self.clock.now();
                return self.record(case, decision, End::Elsewhere { at, entry: &elsewhere }).await;
            }
        };
        if !entry.recorded {
            self.record(case, decision, End::Over { entry: &entry, kind: slot.kind }).await?;
            self.ledger.recorded(&entry).await?;
        }
        Box::pin(self.escalate(case, decision.purpose, &entry)).await
    }

    /// How a rollback ended is told: to everybody where that is no good end.
    async fn escalate(&self, case: &Case, purpose: Purpose, entry: &Entry) -> Result<(), Later> {
        let bad = |rule, detail: &str| policy::escalate(&case.verdict, rule, detail, &self.policy);
        let (end, detail, alerts) = match (purpose, &entry.state) {
            (Purpose::Rollback, State::Done { detail, dry_run: false, .. }) => {
                (RollbackEnd::Done, detail, Vec::new())
            }
            (Purpose::Rollback, State::Failed { detail, .. }) => {
                (RollbackEnd::Failed, detail, bad(Rule::RollbackFailedAlerts, detail))
            }
            (Purpose::Rollback, State::Unknown { detail, .. }) => {
                (RollbackEnd::Unknown, detail, bad(Rule::RollbackUnknownAlerts, detail))
            }
            _ => return Ok(()),
        };
        let worked = self.slots.get(&entry.action).is_some_and(|slot| slot.action.promise().confirms);
        let told = self.teller.on_rollback(case, (end, worked, detail), alerts).await?;
        self.teller.queue(case, &told).await
    }

    async fn record(&self, case: &Case, decision: &Decision, end: End<'_>) -> Result<(), Later> {
        let (record, id) = audit::record(&case.verdict, decision, end);
        let (purpose, outcome, rule) = (record.purpose, record.outcome, record.rule.clone());
        self.world.publish(record, &id, case.traceparent.as_deref()).await?;
        self.metrics.ended(purpose, outcome, rule);
        Ok(())
    }

    /// Brings the entry of a decision to an end: `Ok` for this verdict, `Err` where another verdict has ended it.
    async fn work(
        &self,
        case: &Case,
        decision: &Decision,
        slot: &Slot,
    ) -> Result<Result<Entry, Entry>, Later> {
        let _permit = match decision.step {
            Step::Act => Some(self.permit(slot).await?),
            Step::Skip { .. } | Step::Nothing => None,
        };
        let work = Work {
            key: decision.key.clone(),
            verification_id: case.verdict.verification_id.clone(),
            revision: case.verdict.revision,
            action: decision.action.clone(),
            kind: slot.kind.to_owned(),
            rule: decision.rule.as_str().to_owned(),
            owner: format!("{}.{}", self.instance, self.works.fetch_add(1, Ordering::Relaxed)),
        };
        loop {
            match self.ledger.take(&work).await? {
                Taken::Mine { entry, from } => {
                    // An alert that is tried again later gives its claim up in between.
                    if let Some(from) = from.filter(|_| decision.purpose == Purpose::Rollback) {
                        tracing::warn!(key = entry.key, from, "took over an expired claim");
                        self.metrics.taken_over();
                    }
                    return self.act(case, decision, slot, entry).await.map(Ok);
                }
                Taken::Held(until) => return Err(Later::Wait(self.ledger.real_until(until))),
                Taken::Over(entry) => return Ok(Ok(entry)),
                Taken::Elsewhere(entry) => return Ok(Err(entry)),
                Taken::Orphan(seen) => self.adopt(case, (decision, &work), slot, &seen).await?,
            }
        }
    }

    async fn permit<'a>(&self, slot: &'a Slot) -> Result<tokio::sync::SemaphorePermit<'a>, Later> {
        tokio::select! {
            permit = slot.permits.acquire() => permit.map_err(|e| Later::Dependency(e.into())),
            () = self.stop.cancelled() => Err(Later::Wait(Duration::ZERO)),
        }
    }

    /// Finds out what became of a call whose owner is gone, and takes the entry over.
    async fn adopt(
        &self,
        case: &Case,
        (decision, work): (&Decision, &Work),
        slot: &Slot,
        seen: &Entry,
    ) -> Result<(), Later> {
        let promise = slot.action.promise();
        let request = self.request(case, decision, seen.attempts).await?;
        let same_action = seen.action == decision.action;
        let probe = match decision.purpose {
            Purpose::Rollback if same_action => slot.action.probe(&request).await,
            Purpose::Rollback | Purpose::Alert => Probe::CannotTell,
        };
        let same_verdict = seen.verification_id == work.verification_id && seen.revision == work.revision;
        let wanted = decision.step == Step::Act && same_action && same_verdict;
        let resolution = ledger::resolve(decision.purpose, probe, promise.idempotent, wanted);
        tracing::warn!(
            key = seen.key,
            owner = seen.owner,
            ?probe,
            ?resolution,
            "a call was begun and its owner is gone"
        );
        self.ledger.adopt(seen, work, (probe, resolution)).await?;
        if resolution == Resolution::SendAgain {
            self.metrics.taken_over();
        }
        Ok(())
    }

    /// From a claim to its end.
    async fn act(
        &self,
        case: &Case,
        decision: &Decision,
        slot: &Slot,
        mut entry: Entry,
    ) -> Result<Entry, Later> {
        let started = Instant::now();
        for calls in 1.. {
            let decision = self.decide_again(case, decision).await?;
            if let Some(end) = self.without_a_call(&decision, slot, &entry) {
                return self.ledger.settle(&entry, decision.rule, end).await;
            }
            entry = self.ledger.begin(&entry, &slot.action.promise()).await?;
            let begun = Instant::now();
            let request = self.request(case, &decision, entry.attempts).await?;
            let answer = slot.action.execute(&request).await;
            self.metrics.called(&decision.action, begun.elapsed());
            let error = match answer {
                Ok(done) => {
                    if let (Some(about), Some(memory)) = (&case.about, &done.memory) {
                        self.teller.remember(about, &decision.action, memory).await;
                    }
                    let end =
                        State::Done { at: self.clock.now(), detail: done.detail, dry_run: done.dry_run };
                    return self.ledger.settle(&entry, decision.rule, end).await;
                }
                Err(error) => error,
            };
            let progress = Progress {
                purpose: decision.purpose,
                calls: if decision.purpose == Purpose::Alert { entry.attempts } else { calls },
                spent: started.elapsed(),
                maybe_sent: entry.maybe_sent,
                jitter: rand::random(),
            };
            let next = retry::after_failure(&error, &progress, &slot.action.promise(), &slot.retry);
            tracing::warn!(key = entry.key, attempt = entry.attempts, %error, ?next, "an action failed");
            match self.ended_by(next, &error) {
                Some(end) => return self.ledger.settle(&entry, decision.rule, end).await,
                None => entry = self.pause(&entry, next, &error).await?,
            }
        }
        Err(Later::Wait(SHORTLY))
    }

    /// A rollback is decided anew right before every call: the verdict ages, and a newer deployment may have begun.
    async fn decide_again(&self, case: &Case, decision: &Decision) -> Result<Decision, Later> {
        match decision.purpose {
            Purpose::Alert => {
                Ok(policy::alert_again(decision, &case.verdict, self.clock.now(), &self.policy))
            }
            Purpose::Rollback => {
                let rollback = self.decide(case, &[Account::Rollbacks]).await?;
                let rollback = rollback.into_iter().find(|d| d.purpose == Purpose::Rollback);
                Ok(rollback.unwrap_or_else(|| decision.clone()))
            }
        }
    }

    /// How a claim ends that is not to be sent (any more); `None` where it is.
    fn without_a_call(&self, decision: &Decision, slot: &Slot, entry: &Entry) -> Option<State> {
        let at = self.clock.now();
        let idempotent = slot.action.promise().idempotent;
        let unknown = |why: &str| {
            let detail = format!("an earlier call may have been carried out, and {why}");
            Some(State::Unknown { at, detail })
        };
        match decision.step {
            Step::Act if ledger::may_send(entry, decision.purpose, idempotent) => None,
            Step::Act => unknown("the receiver takes no idempotency keys"),
            Step::Skip { .. } | Step::Nothing if entry.maybe_sent => unknown(&decision.detail),
            Step::Skip { dry_run } => Some(State::Skipped { at, detail: decision.detail.clone(), dry_run }),
            Step::Nothing => Some(State::Skipped { at, detail: decision.detail.clone(), dry_run: false }),
        }
    }

    fn ended_by(&self, next: Next, error: &ActionError) -> Option<State> {
        let (at, detail) = (self.clock.now(), error.detail.clone());
        match next {
            Next::Failed { retryable } => Some(State::Failed { at, detail, retryable }),
            Next::Unknown => Some(State::Unknown { at, detail }),
            Next::Again(_) | Next::Later(_) | Next::Ask => None,
        }
    }

    /// Waits for the next call with the entry back in `claimed`, or leaves it in `acting` until the receiver can tell.
    async fn pause(&self, entry: &Entry, next: Next, error: &ActionError) -> Result<Entry, Later> {
        let wait = match (next, &entry.state) {
            (Next::Again(wait), _) => wait,
            (Next::Later(wait), _) => {
                self.ledger.back_off(entry, Duration::ZERO, error.effect == Effect::Possible).await?;
                return Err(Later::Wait(wait));
            }
            (_, State::Acting { until, .. }) => return Err(Later::Wait(self.ledger.real_until(*until))),
            (_, _) => return Err(Later::Wait(SHORTLY)),
        };
        let maybe_sent = error.effect == Effect::Possible;
        let entry = self.ledger.back_off(entry, wait + self.ledger.lease, maybe_sent).await?;
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(entry),
            () = self.stop.cancelled() => {
                self.ledger.back_off(&entry, Duration::ZERO, false).await?;
                Err(Later::Wait(Duration::ZERO))
            }
        }
    }

    async fn request(&self, case: &Case, decision: &Decision, attempt: u32) -> Result<ActionRequest, Later> {
        let about = case.about.clone();
        let remembers = self.slots.get(&decision.action).is_some_and(|slot| slot.action.remembers());
        let memory = match &about {
            Some(about) if remembers => self.teller.memory(about, &decision.action).await?,
            Some(_) | None => None,
        };
        let about = about.unwrap_or_else(|| About { did: decision.detail.clone(), ..About::default() });
        Ok(ActionRequest {
            key: decision.key.clone(),
            purpose: decision.purpose,
            rule: decision.rule,
            summary: decision.detail.clone(),
            verdict: case.verdict.clone(),
            alert: Arc::new(Alert::new(&case.verdict, about)),
            memory,
            traceparent: case.traceparent.clone(),
            attempt,
            sent_at: self.clock.now(),
        })
    }
}

/// An outage before a wait, the shortest wait before the others.
fn first_obstacle(ended: Vec<Result<(), Later>>) -> Result<(), Later> {
    let obstacles = ended.into_iter().filter_map(Result::err);
    let first = obstacles.min_by_key(|later| match later {
        Later::Dependency(_) => (0, Duration::ZERO),
        Later::Wait(wait) => (1, *wait),
    });
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
