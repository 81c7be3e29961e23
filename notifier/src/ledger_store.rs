//! The ledger's rim: each step of the state machine as a compare-and-set, with leases in real time.

use crate::action::Promise;
use crate::ledger::{self, Entry, Lost, Probe, Resolution, State, Taken, Work};
use crate::policy::Rule;
use crate::world::World;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vouch_proto::Timestamp;
use vouch_service::clock::SharedClock;

/// Beyond its timeout, how long a call's owner may take to write down how it ended.
const MARGIN: Duration = Duration::from_secs(5);
/// Before looking again at an entry for which somebody else was faster.
pub(crate) const SHORTLY: Duration = Duration::from_millis(250);

/// Why a verdict is not handled yet.
#[derive(Debug)]
pub(crate) enum Later {
    /// Something has to be waited for, this long in real time.
    Wait(Duration),
    /// Something that is depended on fails.
    Dependency(anyhow::Error),
}

impl From<anyhow::Error> for Later {
    fn from(error: anyhow::Error) -> Self {
        Self::Dependency(error)
    }
}

/// The entries, as one worker sees them.
#[derive(Debug)]
pub(crate) struct LedgerStore {
    pub(crate) world: Arc<dyn World>,
    pub(crate) clock: SharedClock,
    pub(crate) stop: CancellationToken,
    /// How long a claim holds, in real time.
    pub(crate) lease: Duration,
}

impl LedgerStore {
    /// Claims an entry where that is allowed.
    pub(crate) async fn take(&self, work: &Work) -> Result<Taken, Later> {
        self.change(&work.key, |entry| {
            let (now, until) = self.lease_from_now();
            let taken = ledger::take(entry, work, now, until);
            let write = match &taken {
                Taken::Mine { entry, .. } => Some(entry.clone()),
                Taken::Held(_) | Taken::Orphan(_) | Taken::Over(_) | Taken::Elsewhere(_) => None,
            };
            (write, taken)
        })
        .await
    }

    /// Writes what an orphan becomes.
    pub(crate) async fn adopt(
        &self,
        seen: &Entry,
        work: &Work,
        (probe, resolution): (Probe, Resolution),
    ) -> Result<Entry, Later> {
        self.step(&work.key, |entry| {
            let becomes = ledger::adopted(seen, work, (probe, resolution), self.lease_from_now());
            ledger::adopt(entry, seen, &becomes)
        })
        .await
    }

    /// Notes that the audit stream has the end of this entry.
    pub(crate) async fn recorded(&self, entry: &Entry) -> Result<(), Later> {
        self.change(&entry.key, |now| (ledger::recorded(now, entry), ())).await
    }

    /// Keeps or gets back the claim, `for_another` time in real time; zero gives it up.
    pub(crate) async fn back_off(
        &self,
        entry: &Entry,
        for_another: Duration,
        maybe_sent: bool,
    ) -> Result<Entry, Later> {
        let until = self.clock.now().plus(self.shown(for_another));
        self.step(&entry.key, |now| ledger::back_off(now, &entry.owner, until, maybe_sent)).await
    }

    /// Writes `acting`. An error leaves open whether it was written: then nothing is sent.
    pub(crate) async fn begin(&self, entry: &Entry, promise: &Promise) -> Result<Entry, Later> {
        let longest = promise.timeout + MARGIN + promise.probe_after.unwrap_or_default();
        let since = self.clock.now();
        let times = (since, since.plus(self.shown(longest)));
        let attempt = entry.attempts + 1;
        self.step(&entry.key, |now| ledger::begin(now, &entry.owner, attempt, times)).await
    }

    /// Writes the end, for as long as it takes: what was done must not be forgotten for an outage of NATS.
    pub(crate) async fn settle(&self, entry: &Entry, rule: Rule, end: State) -> Result<Entry, Later> {
        loop {
            match self.step(&entry.key, |now| ledger::settle(now, &entry.owner, rule.as_str(), &end)).await {
                Err(Later::Dependency(error)) if !self.stop.is_cancelled() => {
                    tracing::error!(
                        key = entry.key,
                        error = format!("{error:#}"),
                        "an end is not recorded yet"
                    );
                    tokio::time::sleep(SHORTLY).await;
                }
                other => return other,
            }
        }
    }

    async fn step(
        &self,
        key: &str,
        step: impl Fn(Option<&Entry>) -> Result<Entry, Lost> + Send + Sync,
    ) -> Result<Entry, Later> {
        let stepped = self.change(key, |now| {
            let stepped = step(now);
            (stepped.clone().ok(), stepped)
        });
        stepped.await?.map_err(|Lost| {
            tracing::warn!(key, "the ledger's entry was taken over by another replica");
            Later::Wait(SHORTLY)
        })
    }

    async fn change<T: Send>(
        &self,
        key: &str,
        decide: impl Fn(Option<&Entry>) -> (Option<Entry>, T) + Send + Sync,
    ) -> Result<T, Later> {
        let mut answer = None;
        self.world
            .change(key, &mut |entry| {
                let (write, said) = decide(entry);
                answer = Some(said);
                write
            })
            .await?;
        answer.ok_or_else(|| Later::Dependency(anyhow::anyhow!("the ledger's entry {key} was not looked at")))
    }

    fn lease_from_now(&self) -> (Timestamp, Timestamp) {
        let now = self.clock.now();
        (now, now.plus(self.shown(self.lease)))
    }

    /// How far the clock advances in this much real time: leases last equally long whatever its speed.
    fn shown(&self, real: Duration) -> Duration {
        const HOUR: Duration = Duration::from_secs(3600);
        let speed = HOUR.as_secs_f64() / self.clock.real(HOUR).as_secs_f64();
        Duration::try_from_secs_f64(real.as_secs_f64() * speed).unwrap_or(real)
    }

    /// How long to wait in real time until the clock shows `until`.
    pub(crate) fn real_until(&self, until: Timestamp) -> Duration {
        self.clock.real(until.since(self.clock.now())).max(SHORTLY)
    }
}
