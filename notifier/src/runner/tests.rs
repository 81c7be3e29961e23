//! The runner under random verdicts, kills at any await, duplicates, outages and clock jumps.

use super::*;
use crate::action::ActionKind;
use crate::action::twin::Twin;
use crate::config::{Mode, RetrySettings};
use crate::fixtures::{TokioClock, at, verdict_of};
use crate::outbox::memory::MemoryOutbox;
use crate::world::memory::Memory;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use vouch_proto::spending::Spending;
use vouch_proto::{ActionOutcome, Name, Outcome, TenantBudget};
use vouch_service::health::Health;

/// Ends a future after so many polls, as `kill -9` would.
struct Killed<F>(Pin<Box<F>>, u32);

impl<F: Future> Future for Killed<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.1 == 0 {
            return Poll::Ready(None);
        }
        self.1 -= 1;
        self.0.as_mut().poll(context).map(Some)
    }
}

/// What a replica gets.
#[derive(Clone)]
enum Delivery {
    Verdict(usize, Box<Case>),
    Alert(Box<Waiting>),
}

struct Stage {
    random: StdRng,
    world: Arc<Memory>,
    outbox: Arc<MemoryOutbox>,
    clock: SharedClock,
    undo: Twin,
    chat: Twin,
    budget: TenantBudget,
    lives: u32,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let (idempotent, probes) = (random.random_bool(0.3), random.random_bool(0.4));
        Self {
            world: Arc::new(Memory::new(seed ^ 1, random.random_bool(0.5))),
            outbox: Arc::new(MemoryOutbox::new(seed ^ 4, random.random_bool(0.5))),
            clock: Arc::new(TokioClock::starting_at(at(0))),
            undo: Twin::new(seed ^ 2, idempotent, probes),
            chat: Twin::new(seed ^ 3, false, false),
            budget: TenantBudget {
                rollbacks: ["", "1/90d", "2/90d"][random.random_range(0..3)].parse().ok(),
                pages: ["", "1/7d", "3/7d"][random.random_range(0..3)].parse().ok(),
            },
            lives: 0,
            random,
        }
    }

    fn runner(&mut self) -> Runner {
        self.lives += 1;
        let retry = RetrySettings { give_up_after: Duration::from_secs(5), ..RetrySettings::default() };
        let action = |name: &str, twin: &Twin| ActionSettings {
            name: name.to_owned(),
            max_in_flight: 2,
            retry,
            kind: ActionKind::Twin(twin.clone()),
        };
        let settings = NotifierSettings {
            policy: PolicySettings {
                default_mode: Mode::Act,
                rollback_action: "undo".to_owned(),
                alert_actions: vec!["chat".to_owned()],
                ..PolicySettings::default()
            },
            budget: self.budget,
            actions: vec![action("undo", &self.undo), action("chat", &self.chat)],
            ..NotifierSettings::default()
        };
        let around = Surroundings {
            world: self.world.clone(),
            outbox: self.outbox.clone(),
            tools: Tools::default(),
            clock: self.clock.clone(),
            metrics: Metrics::register(&Health::default()),
            stop: CancellationToken::new(),
            instance: format!("life-{}", self.lives),
        };
        let mut runner = Runner::new(&settings, around).unwrap();
        // Verdicts are put off for very long here, and none is given up.
        runner.teller.patience = Duration::MAX;
        runner
    }

    /// A few deployments of two services, each judged once or twice, some verdicts revised.
    fn cases(&mut self) -> Vec<Case> {
        let mut cases = Vec::new();
        for deployment in 0..4 {
            let service = Name::new(format!("service-{}", deployment % 2)).unwrap();
            for n in 1..=self.random.random_range(1..=2) {
                for revision in 0..=self.random.random_range(0..=1) {
                    let outcome = match self.random.random_range(0..6) {
                        0 => Outcome::Pass,
                        1 => Outcome::Inconclusive,
                        2 => Outcome::Error,
                        _ => Outcome::Fail,
                    };
                    let verdict = Verdict {
                        verification_id: format!("d{deployment}.{n}"),
                        deployment_id: format!("d{deployment}"),
                        service: service.clone(),
                        revision,
                        outcome,
                        rollback_grade: self.random.random_bool(0.7),
                        decided_at: self
                            .clock
                            .now()
                            .minus(Duration::from_secs(self.random.random_range(0..1000))),
                        ..verdict_of(outcome)
                    };
                    cases.push(Case { verdict: Arc::new(verdict), traceparent: None, about: None });
                }
            }
        }
        cases
    }

    /// Handles a delivery after a moment, and may be killed on the way: at any await, or after a time.
    async fn life(
        runner: Runner,
        delivery: Delivery,
        (delay, polls, time): (u64, u32, u64),
    ) -> Option<Result<(), Later>> {
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let work = async {
            match &delivery {
                Delivery::Verdict(_, case) => runner.handle(case).await,
                Delivery::Alert(waiting) => {
                    let verdict = Verdict::try_from(waiting.verdict.clone()).unwrap();
                    runner.deliver(waiting, Arc::new(verdict)).await
                }
            }
        };
        let killed = Killed(Box::pin(work), polls);
        tokio::time::timeout(Duration::from_millis(time), killed).await.ok().flatten()
    }

    /// A verdict of the stream, or an alert of a queue.
    fn next(&mut self, open: &[Case]) -> Delivery {
        let waiting = self.outbox.waiting();
        if open.is_empty() || (!waiting.is_empty() && self.random.random_bool(0.5)) {
            let at = self.random.random_range(0..waiting.len());
            return Delivery::Alert(Box::new(waiting[at].clone()));
        }
        let at = self.random.random_range(0..open.len());
        Delivery::Verdict(at, Box::new(open[at].clone()))
    }

    fn fate(&mut self) -> (u64, u32, u64) {
        let polls = if self.random.random_bool(0.2) { self.random.random_range(1..60) } else { u32::MAX };
        let time = if self.random.random_bool(0.3) { self.random.random_range(0..1500) } else { 60_000 };
        (self.random.random_range(0..800), polls, time)
    }

    /// Two replicas get a delivery each, perhaps of the same verdict or alert.
    async fn deliver(&mut self, open: &mut Vec<Case>) {
        let (first, other) = (self.next(open), self.next(open));
        let second = if self.random.random_bool(0.7) { first.clone() } else { other };
        let (one, two) = (self.runner(), self.runner());
        let both = futures::future::join(
            Self::life(one, first.clone(), self.fate()),
            Self::life(two, second.clone(), self.fate()),
        );
        let (ended_a, ended_b) = both.await;
        let mut handled = BTreeSet::new();
        for (delivery, ended) in [(first, ended_a), (second, ended_b)] {
            match (ended, delivery) {
                (Some(Ok(())), Delivery::Verdict(i, _)) => {
                    handled.insert(i);
                }
                (Some(Ok(())), Delivery::Alert(waiting)) => {
                    // Now and then an acknowledgement is lost.
                    if self.random.random_bool(0.8) {
                        self.outbox.acknowledge(&waiting.key);
                    }
                }
                (Some(Err(Later::Wait(wait))), _) => tokio::time::sleep(wait).await,
                (Some(Err(Later::Dependency(_))) | None, _) => {}
            }
        }
        for i in handled.into_iter().rev() {
            // Now and then an acknowledgement is lost, and the verdict comes again.
            if self.random.random_bool(0.8) {
                open.remove(i);
            }
        }
    }
}

fn check(seed: u64, stage: &Stage, cases: &[Case]) {
    let audit = stage.world.audit();
    for (key, effects) in stage.undo.effects() {
        assert!(effects <= 1, "seed {seed}: {key} was done {effects} times");
        let allowed = cases.iter().any(|case| {
            let v = &case.verdict;
            policy::rollback_key(&v.deployment_id) == key
                && (v.outcome, v.rollback_grade) == (Outcome::Fail, true)
        });
        assert!(allowed, "seed {seed}: {key} was rolled back without a Fail of rollback grade");
        let told = audit.values().any(|a| {
            a.action_id == key
                && match a.outcome {
                    ActionOutcome::Done | ActionOutcome::Unknown => true,
                    ActionOutcome::Skipped | ActionOutcome::Failed { .. } => effects == 0,
                }
        });
        assert!(told, "seed {seed}: {key} was done, and the audit does not say so");
    }
    for case in cases {
        let v = &case.verdict;
        let records = audit
            .values()
            .filter(|a| (&a.verification_id, a.verdict_revision) == (&v.verification_id, v.revision));
        let records: Vec<_> = records.collect();
        let rollbacks = records.iter().filter(|a| a.purpose == Purpose::Rollback).count();
        let wanted = usize::from((v.outcome, v.rollback_grade) == (Outcome::Fail, true));
        assert_eq!(rollbacks, wanted, "seed {seed}: {v:?} has the records {records:?}");
        assert!(
            records.iter().any(|a| a.purpose == Purpose::Alert),
            "seed {seed}: {v:?} has no alert's record"
        );
    }
    for entry in stage.world.ledger().values() {
        assert!(entry.state.is_final() && entry.recorded, "seed {seed}: {entry:?} is not over");
    }
    within_budget(seed, stage);
    in_order(seed, stage);
    let keys: BTreeSet<String> = stage.undo.calls().into_keys().collect();
    assert!(keys.iter().all(|key| key.ends_with("/rollback")), "seed {seed}: {keys:?}");
}

/// Everything that was queued is told or declared in the audit; nobody hears the end of an incident before its beginning.
fn in_order(seed: u64, stage: &Stage) {
    let (audit, order) = (stage.world.audit(), stage.chat.order());
    let place = |key: &String| order.iter().position(|told| told == key);
    for (key, waiting) in stage.outbox.seen() {
        assert!(audit.values().any(|a| a.action_id == key), "seed {seed}: nothing is known of {key}");
        for before in &waiting.before {
            if let (Some(earlier), Some(later)) = (place(before), place(&key)) {
                assert!(earlier < later, "seed {seed}: {key} was told before {before}");
            }
        }
    }
}

/// Never more rollbacks than the budget allows, each of them counted, and no place kept for longer than a day for what is over.
fn within_budget(seed: u64, stage: &Stage) {
    let (a_day_later, budget) = (stage.clock.now().plus(Duration::from_secs(86_400)), stage.budget);
    let may_be_done = |entry: &&Entry| {
        let rollback = entry.key.ends_with("/rollback");
        rollback && matches!(entry.state, State::Done { .. } | State::Unknown { .. })
    };
    let ledger = stage.world.ledger();
    let done: BTreeSet<&String> = ledger.values().filter(may_be_done).map(|entry| &entry.key).collect();
    let spending = stage.world.spending(Account::Rollbacks);
    let Some(allowance) = budget.rollbacks else {
        return assert_eq!(spending, Spending::default(), "seed {seed}: nothing is counted without a budget");
    };
    let counted: Vec<_> = spending.within(allowance, a_day_later).collect();
    assert!(done.len() <= allowance.count() as usize, "seed {seed}: {done:?} of {allowance}");
    assert!(stage.undo.effects().len() <= allowance.count() as usize, "seed {seed}: more than {allowance}");
    assert_eq!(counted.iter().map(|e| &e.id).collect::<BTreeSet<_>>(), done, "seed {seed}: {counted:?}");
    assert!(counted.iter().all(|expense| expense.done), "seed {seed}: {counted:?}");
    if let Some(allowance) = budget.pages {
        let pages = stage.world.spending(Account::Pages);
        assert!(
            pages.within(allowance, a_day_later).count() <= allowance.count() as usize,
            "seed {seed}: {pages:?}"
        );
    }
}

/// Never two rollbacks of a deployment, never one on anything but a Fail, no decision without a record, and an end.
#[tokio::test(start_paused = true)]
async fn whatever_happens_a_deployment_is_rolled_back_at_most_once_and_everything_is_recorded() {
    let mut done = 0;
    for seed in 0..1000 {
        let mut stage = Stage::new(seed);
        let cases = stage.cases();
        for service in 0..2 {
            let newest = format!("d{}", stage.random.random_range(0..2) * 2 + service);
            stage.world.set_newest(&Name::new(format!("service-{service}")).unwrap(), &newest);
        }
        let mut open = cases.clone();
        for round in 0.. {
            let waiting = stage.outbox.waiting().len();
            assert!(round < 6000, "seed {seed}: {} verdicts and {waiting} alerts never end", open.len());
            if open.is_empty() && waiting == 0 {
                break;
            }
            stage.deliver(&mut open).await;
            if stage.random.random_bool(0.1) {
                tokio::time::advance(Duration::from_secs(stage.random.random_range(0..90))).await;
            }
        }
        check(seed, &stage, &cases);
        done += stage.undo.effects().len();
    }
    assert!(done > 500, "{done} rollbacks: the test would prove nothing");
}
