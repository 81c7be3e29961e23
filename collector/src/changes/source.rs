//! Deployments that the source was told of: events of pipelines, and processes that began again.

use crate::catalogue::Naming;
use crate::changes::announcer::Told;
use crate::changes::{Announcer, Certainty, Names, Seen};
use crate::metrics::Metrics;
use crate::source::{EventKind, MetricSource, SourceEvent};
use anyhow::Context as _;
use async_nats::jetstream::kv;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vouch_proto::subject::{ANY_ENVIRONMENT, seen_key};
use vouch_proto::{Name, Phase, Timestamp, Window};
use vouch_service::bucket;
use vouch_service::clock::{self, SharedClock};
use vouch_service::lease::Owned;

/// Name of this finder.
const FINDER: &str = "dynatrace";
/// The partition whose owner looks.
const KEEPER: u32 = 1;
/// How much later than it begins an event may be there.
const LATE: Duration = Duration::from_secs(10 * 60);
/// Oldest events that are looked at after an outage.
const OLDEST: Duration = Duration::from_secs(2 * 3600);
/// Most ids of events that are remembered.
const REMEMBERED: usize = 5000;

/// How to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Which events.
    pub kinds: Vec<EventKind>,
    /// How often, on the injected clock.
    pub every: Duration,
}

/// Looks for events of each tenant.
#[derive(Debug)]
pub(crate) struct Finder {
    pub(crate) announcer: Announcer,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    pub(crate) store: kv::Store,
    pub(crate) source: Arc<dyn MetricSource>,
    /// Each tenant, with its name.
    pub(crate) tenants: Vec<(String, Naming)>,
    pub(crate) look: Look,
}

/// What was seen of a tenant's events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    until_ms: i64,
    ids: BTreeSet<String>,
}

impl Finder {
    /// Looks until `stop`.
    pub(crate) async fn run(self, owned: Owned, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            if owned.borrow().contains(&KEEPER) {
                for number in 0..self.tenants.len() {
                    let looked = tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        looked = self.tenant(number) => looked,
                    };
                    self.report(number, looked);
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = clock::sleep(&*self.clock, self.look.every) => {}
            }
        }
    }

    /// Says what keeps it from looking: nobody would miss a deployment that is not found.
    fn report(&self, number: usize, looked: anyhow::Result<()>) {
        let Some((tenant, _)) = self.tenants.get(number) else { return };
        self.metrics.looked(tenant, looked.is_ok());
        if let Err(error) = looked {
            let error = format!("{error:#}");
            tracing::warn!(tenant, error, "deployments were not looked for; looking again");
        }
    }

    async fn tenant(&self, number: usize) -> anyhow::Result<()> {
        let Some((name, naming)) = self.tenants.get(number) else { return Ok(()) };
        let key = seen_key(FINDER, name);
        let now = self.clock.now();
        let stored = bucket::read(&self.store, &key).await?;
        let known: Option<Watched> = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        // The first look goes back no further than any other.
        let mut seen = known.unwrap_or_else(|| Watched { until_ms: now.as_millis(), ids: BTreeSet::new() });
        let until = Timestamp::from_millis(seen.until_ms).min(now);
        let from = until.minus(LATE).max(now.minus(OLDEST));
        let window = Window::new(from, now.max(from.plus(Duration::from_millis(1)))).context("no window")?;
        let events = self.source.events(number, window, &self.look.kinds).await?;
        let ids: BTreeSet<String> = events.iter().map(|event| event.id.clone()).collect();
        let first = Timestamp::from_millis(seen.until_ms).minus(LATE);
        let news: Vec<&SourceEvent> = events
            .iter()
            .filter(|event| !seen.ids.contains(&event.id) && event.at >= first.max(from))
            .collect();
        if news.iter().any(|event| !event.services.is_empty()) {
            let found = self.source.services_of(number).await?;
            self.announce(&news, &naming.by_id(&found)).await?;
        }
        seen = Watched { until_ms: now.as_millis(), ids: ids.into_iter().take(REMEMBERED).collect() };
        self.store.put(key, Bytes::from(serde_json::to_vec(&seen)?)).await.context("what was seen")?;
        Ok(())
    }

    async fn announce(
        &self,
        events: &[&SourceEvent],
        names: &BTreeMap<String, (Name, Name)>,
    ) -> anyhow::Result<()> {
        for event in events.iter().filter(|event| !event.is_own) {
            for (environment, service) in event.services.iter().filter_map(|id| names.get(id)) {
                let Some(environment) = environment_of(environment, event) else {
                    tracing::warn!(%service, event = event.id, "a deployment is not announced: name the environment in `services` or `collector.environment`");
                    continue;
                };
                let seen = seen(event, &environment, service);
                let Ok(change) = Names::exact(service, &environment).change(seen, FINDER) else {
                    tracing::warn!(%service, event = event.id, "an event names no version that can be used");
                    continue;
                };
                match self.announcer.announce(change, false).await? {
                    Told::Announced(found) => {
                        tracing::info!(%environment, %service, version = %found.version, "a deployment was found");
                    }
                    Told::Ignored(reason) => tracing::debug!(%environment, %service, reason, "no deployment"),
                }
            }
        }
        Ok(())
    }
}

/// The environment of the service, else the one that the event names.
fn environment_of(known: &Name, event: &SourceEvent) -> Option<Name> {
    if known.as_str() != ANY_ENVIRONMENT {
        return Some(known.clone());
    }
    Name::new(event.stage.clone()?).ok()
}

fn seen(event: &SourceEvent, environment: &Name, service: &Name) -> Seen {
    // Without a version all that is known is when: to the minute, so that several processes tell of one deployment.
    let minute = event.at.floor_minute();
    let word = match event.kind {
        EventKind::Deployment => "deployed",
        EventKind::Restart => "restarted",
    };
    let guess = || format!("{word}-{minute}");
    let version = event.version.clone().unwrap_or_else(guess);
    let mut seen = Seen::new(service.as_str(), environment.as_str(), &version);
    seen.certainty = if event.version.is_some() { Certainty::Act } else { Certainty::Guess };
    seen.phase = Phase::Traffic;
    seen.at = Some(event.at);
    seen
}
