//! An outbox in memory whose every call may fail before or after it took effect, for tests.

use super::{LookAt, Outbox, Waiting};
use crate::alert::Entity;
use crate::incident::Incidents;
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::sync::Mutex;
use vouch_proto::Name;

#[derive(Debug)]
struct State {
    random: StdRng,
    outages: bool,
    incidents: BTreeMap<Name, Incidents>,
    waiting: BTreeMap<String, Waiting>,
    seen: BTreeMap<String, Waiting>,
    memory: BTreeMap<(String, String), String>,
}

/// The outbox.
#[derive(Debug)]
pub(crate) struct MemoryOutbox(Mutex<State>);

impl MemoryOutbox {
    pub(crate) fn new(seed: u64, outages: bool) -> Self {
        Self(Mutex::new(State {
            random: StdRng::seed_from_u64(seed),
            outages,
            incidents: BTreeMap::new(),
            waiting: BTreeMap::new(),
            seen: BTreeMap::new(),
            memory: BTreeMap::new(),
        }))
    }

    /// What waits now.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        self.0.lock().unwrap().waiting.values().cloned().collect()
    }

    /// Everything that was ever put in, by key.
    pub(crate) fn seen(&self) -> BTreeMap<String, Waiting> {
        self.0.lock().unwrap().seen.clone()
    }

    /// It was worked on.
    pub(crate) fn acknowledge(&self, key: &str) {
        self.0.lock().unwrap().waiting.remove(key);
    }

    async fn maybe_out(&self) -> anyhow::Result<()> {
        tokio::task::yield_now().await;
        let out = {
            let mut state = self.0.lock().unwrap();
            state.outages && state.random.random_range(0..25) == 0
        };
        anyhow::ensure!(!out, "an outage");
        Ok(())
    }
}

#[async_trait]
impl Outbox for MemoryOutbox {
    async fn incidents(&self, _: &Name, service: &Name, look: LookAt<'_>) -> anyhow::Result<()> {
        self.maybe_out().await?;
        loop {
            let seen = self.0.lock().unwrap().incidents.get(service).cloned().unwrap_or_default();
            let mut new = seen.clone();
            look(&mut new);
            tokio::task::yield_now().await;
            let mut state = self.0.lock().unwrap();
            let entry = state.incidents.entry(service.clone()).or_default();
            if *entry == seen {
                *entry = new;
                break;
            }
        }
        self.maybe_out().await
    }

    async fn queue(&self, waiting: &Waiting) -> anyhow::Result<()> {
        self.maybe_out().await?;
        {
            let mut state = self.0.lock().unwrap();
            // A queue forgets what it had seen after a while: now and then a duplicate comes in again.
            let again = state.random.random_bool(0.1);
            let is_new = state.seen.insert(waiting.key.clone(), waiting.clone()).is_none();
            if is_new || again {
                state.waiting.insert(waiting.key.clone(), waiting.clone());
            }
        }
        self.maybe_out().await
    }

    async fn memory(&self, incident: &str, action: &str) -> anyhow::Result<Option<String>> {
        self.maybe_out().await?;
        Ok(self.0.lock().unwrap().memory.get(&(incident.to_owned(), action.to_owned())).cloned())
    }

    async fn remember(&self, incident: &str, action: &str, memory: &str) -> anyhow::Result<()> {
        self.maybe_out().await?;
        let key = (incident.to_owned(), action.to_owned());
        self.0.lock().unwrap().memory.insert(key, memory.to_owned());
        self.maybe_out().await
    }

    async fn entity(&self, _: &Name, _: &Name) -> anyhow::Result<Option<Entity>> {
        self.maybe_out().await?;
        Ok(None)
    }
}
