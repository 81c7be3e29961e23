//! A world in memory whose every call may fail before or after it took effect, for tests.

use super::{Look, Spend, World};
use crate::ledger::Entry;
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::sync::Mutex;
use vouch_proto::spending::{Account, Spending};
use vouch_proto::{Action, Name};

#[derive(Debug)]
struct State {
    random: StdRng,
    outages: bool,
    ledger: BTreeMap<String, Entry>,
    newest: BTreeMap<Name, String>,
    audit: BTreeMap<String, Action>,
    spending: BTreeMap<Account, Spending>,
}

/// The world.
#[derive(Debug)]
pub(crate) struct Memory(Mutex<State>);

impl Memory {
    pub(crate) fn new(seed: u64, outages: bool) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let (ledger, newest, audit) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let spending = BTreeMap::new();
        Self(Mutex::new(State { random, outages, ledger, newest, audit, spending }))
    }

    pub(crate) fn set_newest(&self, service: &Name, deployment_id: &str) {
        self.0.lock().unwrap().newest.insert(service.clone(), deployment_id.to_owned());
    }

    pub(crate) fn ledger(&self) -> BTreeMap<String, Entry> {
        self.0.lock().unwrap().ledger.clone()
    }

    pub(crate) fn spending(&self, account: Account) -> Spending {
        self.0.lock().unwrap().spending.get(&account).cloned().unwrap_or_default()
    }

    pub(crate) fn audit(&self) -> BTreeMap<String, Action> {
        self.0.lock().unwrap().audit.clone()
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
impl World for Memory {
    async fn change(&self, key: &str, look: Look<'_>) -> anyhow::Result<()> {
        self.maybe_out().await?;
        loop {
            let seen = self.0.lock().unwrap().ledger.get(key).cloned();
            let Some(new) = look(seen.as_ref()) else { break };
            tokio::task::yield_now().await;
            let mut state = self.0.lock().unwrap();
            if state.ledger.get(key) == seen.as_ref() {
                state.ledger.insert(key.to_owned(), new);
                break;
            }
        }
        self.maybe_out().await
    }

    async fn newest_deployment(&self, _: &Name, service: &Name) -> anyhow::Result<Option<String>> {
        self.maybe_out().await?;
        Ok(self.0.lock().unwrap().newest.get(service).cloned())
    }

    async fn spend(&self, account: Account, look: Spend<'_>) -> anyhow::Result<()> {
        self.maybe_out().await?;
        loop {
            let seen = self.spending(account);
            let mut new = seen.clone();
            look(&mut new);
            tokio::task::yield_now().await;
            let mut state = self.0.lock().unwrap();
            let entry = state.spending.entry(account).or_default();
            if *entry == seen {
                *entry = new;
                break;
            }
        }
        self.maybe_out().await
    }

    async fn publish(&self, record: Action, id: &str, _: Option<&str>) -> anyhow::Result<()> {
        self.maybe_out().await?;
        self.0.lock().unwrap().audit.entry(id.to_owned()).or_insert(record);
        self.maybe_out().await
    }
}
