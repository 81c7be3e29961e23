//! A scripted receiver in memory: the deterministic twin of an action, for tests.

use super::{Action, ActionError, ActionRequest, Done, Effect, Promise};
use crate::ledger::Probe;
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the receiver has seen.
#[derive(Debug)]
struct Seen {
    random: StdRng,
    calls: BTreeMap<String, u32>,
    effects: BTreeMap<String, u32>,
    /// Keys in the order in which they first took effect.
    order: Vec<String>,
}

/// A receiver that does, refuses, fails and loses answers by a seed, and never lies about it.
#[derive(Debug, Clone)]
pub struct Twin {
    promise: Promise,
    seen: Arc<Mutex<Seen>>,
}

impl Twin {
    pub(crate) fn new(seed: u64, idempotent: bool, probes: bool) -> Self {
        let second = Duration::from_secs(1);
        let probe_after = probes.then_some(second);
        let promise = Promise { timeout: second, idempotent, probe_after, confirms: seed.is_multiple_of(2) };
        let random = StdRng::seed_from_u64(seed);
        let seen = Seen { random, calls: BTreeMap::new(), effects: BTreeMap::new(), order: Vec::new() };
        Self { promise, seen: Arc::new(Mutex::new(seen)) }
    }

    /// Calls by key.
    pub(crate) fn calls(&self) -> BTreeMap<String, u32> {
        self.seen.lock().unwrap().calls.clone()
    }

    /// What was really done, by key.
    pub(crate) fn effects(&self) -> BTreeMap<String, u32> {
        self.seen.lock().unwrap().effects.clone()
    }

    /// Keys in the order in which they first took effect.
    pub(crate) fn order(&self) -> Vec<String> {
        self.seen.lock().unwrap().order.clone()
    }

    fn roll(&self, sides: u32) -> u32 {
        self.seen.lock().unwrap().random.random_range(0..sides)
    }

    /// Less than half of the timeout.
    async fn takes_a_while(&self) {
        tokio::time::sleep(self.promise.timeout * self.roll(10) / 21).await;
    }

    fn carry_out(&self, key: &str) {
        let mut seen = self.seen.lock().unwrap();
        if !seen.effects.contains_key(key) {
            seen.order.push(key.to_owned());
        }
        let done = seen.effects.entry(key.to_owned()).or_default();
        if *done == 0 || !self.promise.idempotent {
            *done += 1;
        }
    }
}

#[async_trait]
impl Action for Twin {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        *self.seen.lock().unwrap().calls.entry(request.key.clone()).or_default() += 1;
        let (fate, retryable) = (self.roll(6), self.roll(3) > 0);
        self.takes_a_while().await;
        if fate < 4 {
            self.carry_out(&request.key);
        }
        self.takes_a_while().await;
        let error = |effect, detail: &str| {
            Err(ActionError { retryable, effect, detail: detail.to_owned(), retry_after: None })
        };
        match fate {
            0..=2 => Ok(Done::new("done".to_owned())),
            3 => error(Effect::Possible, "done, and the answer was lost"),
            4 => error(Effect::Possible, "lost before it was done"),
            _ => error(Effect::None, "refused"),
        }
    }

    async fn probe(&self, request: &ActionRequest) -> Probe {
        self.takes_a_while().await;
        let done = self.effects().get(&request.key).is_some_and(|n| *n > 0);
        match (self.promise.probe_after, self.roll(4)) {
            (None, _) | (_, 0) => Probe::CannotTell,
            (Some(_), _) if done => Probe::Done,
            (Some(_), _) => Probe::NotDone,
        }
    }

    fn promise(&self) -> Promise {
        self.promise
    }
}
