//! Reads the logs of services with an open verification and publishes them, minute by minute: one task for each tenant,
//! in which all services that want the same minute are read together.

pub(crate) mod account;
pub(crate) mod meter;
mod plan;
mod publish;
mod record;

pub(crate) use plan::LogPace;
pub(crate) use publish::Bus;

use crate::config::LogSettings;
use crate::record::CollectionRecord;
use crate::source::logs::{Heard, LogAsk, LogSource, LoggedService, Meter};
use crate::source::{Failure, FailureKind};
use futures::StreamExt as _;
use plan::{Known, LogPlan, Round, Wanted, plan};
use publish::{Desk, Outgoing, not_in_time};
use record::{Begun, LogRecord};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vouch_proto::{LogGap, Name, Timestamp, Window, subject};
use vouch_service::clock;
use vouch_service::lease::Owned;

/// Pause after NATS failed, real time.
const PAUSE: Duration = Duration::from_secs(1);
/// Windows that are ended at once.
const AT_ONCE: usize = 16;

/// The lines that all verifications want, by the key of their collection.
#[derive(Debug, Default)]
pub(crate) struct WantedLogs(watch::Sender<BTreeMap<String, Wanted>>);

impl WantedLogs {
    /// Notes what a collection wants; `None` where it is gone.
    pub(crate) fn note(&self, key: &str, record: Option<&CollectionRecord>) {
        let wanted = record.and_then(Wanted::of);
        self.0.send_if_modified(|all| {
            let changes = all.get(key) != wanted.as_ref();
            match wanted {
                Some(wanted) if changes => all.insert(key.to_owned(), wanted),
                Some(_) => None,
                None => all.remove(key),
            };
            changes
        });
    }

    /// Forgets what nobody wants any more.
    fn prune(&self, pace: &LogPace, now: Timestamp) {
        self.0.send_if_modified(|all| {
            all.retain(|_, wanted| wanted.expires(pace) > now);
            // Nobody need plan anew for what is over.
            false
        });
    }
}

/// One tenant's logs.
#[derive(Debug)]
pub(crate) struct LogCollector {
    pub(crate) bus: Bus,
    pub(crate) logs: Arc<dyn LogSource>,
    pub(crate) meter: Arc<dyn Meter>,
    pub(crate) settings: LogSettings,
    pub(crate) pace: LogPace,
    /// The one environment that the tenant holds; `None` for any.
    pub(crate) environment: Option<Name>,
    pub(crate) wanted: Arc<WantedLogs>,
}

/// What is known of a service.
#[derive(Debug, Default)]
struct Service {
    record: LogRecord,
    not_before: Option<Timestamp>,
    failure: Option<Failure>,
}

/// Reads and publishes until the stop signal.
pub(crate) async fn run(
    collector: LogCollector,
    mut owned: Owned,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut changes = collector.wanted.0.subscribe();
    let mut services: BTreeMap<LoggedService, Service> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        owned.borrow_and_update();
        let wanted = collector.owned(&owned);
        let worked = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            worked = collector.step(&wanted, &mut services) => worked,
        };
        let wake = worked.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "reading logs was interrupted; trying again");
            // What was published meanwhile is known from the bucket alone.
            services.clear();
            Wake::Soon
        });
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = wake.sleep(&collector) => {}
            changed = changes.changed() => anyhow::ensure!(changed.is_ok(), "the collections are gone"),
            changed = owned.changed() => anyhow::ensure!(changed.is_ok(), "the leases are gone"),
        }
    }
}

/// When to plan again.
#[derive(Debug)]
enum Wake {
    Now,
    Soon,
    At(Timestamp),
    OnNews,
}

impl Wake {
    async fn sleep(&self, collector: &LogCollector) {
        match self {
            Self::Now => {}
            Self::Soon => tokio::time::sleep(PAUSE).await,
            Self::At(t) => clock::sleep_until(&*collector.bus.clock, *t).await,
            Self::OnNews => std::future::pending().await,
        }
    }
}

impl LogCollector {
    /// What is wanted of this tenant and of this replica.
    fn owned(&self, owned: &Owned) -> Vec<Wanted> {
        self.wanted.prune(&self.pace, self.bus.clock.now());
        let owned = owned.borrow();
        let wanted = self.wanted.0.borrow();
        let is_mine = |wanted: &&Wanted| {
            let LoggedService { environment, service } = &wanted.service;
            self.environment.as_ref().is_none_or(|held| held == environment)
                && owned.contains(&subject::partition(environment, service))
        };
        wanted.values().filter(is_mine).cloned().collect()
    }

    /// Plans once and does what is due.
    async fn step(
        &self,
        wanted: &[Wanted],
        services: &mut BTreeMap<LoggedService, Service>,
    ) -> anyhow::Result<Wake> {
        services.retain(|service, _| wanted.iter().any(|one| one.service == *service));
        for one in wanted {
            if !services.contains_key(&one.service) {
                let record = self.bus.record(&one.service).await?;
                services.insert(one.service.clone(), Service { record, ..Service::default() });
            }
        }
        let known: BTreeMap<LoggedService, Known> = services
            .iter()
            .map(|(name, service)| {
                let known = Known { covered: service.record.covered.clone(), not_before: service.not_before };
                (name.clone(), known)
            })
            .collect();
        let LogPlan { round, lost, wake } = plan(wanted, &known, &self.pace, self.bus.clock.now());
        for (service, window) in &lost {
            self.tell_lost(service, *window, services).await?;
        }
        if let Some(round) = round {
            self.round(round, services).await?;
            return Ok(Wake::Now);
        }
        Ok(if lost.is_empty() { wake.map_or(Wake::OnNews, Wake::At) } else { Wake::Now })
    }

    /// Nobody tries any more: it is told that nothing is known of the window.
    async fn tell_lost(
        &self,
        name: &LoggedService,
        window: Window,
        services: &mut BTreeMap<LoggedService, Service>,
    ) -> anyhow::Result<()> {
        let Some(service) = services.get_mut(name) else { return Ok(()) };
        let gap = match &service.failure {
            Some(failure) => {
                let LogGap { message, .. } = not_in_time(Some(failure.message.clone()));
                LogGap { name: failure.kind.as_str().to_owned(), message }
            }
            None => not_in_time(None),
        };
        tracing::warn!(service = %name.service, %window, reason = gap.message, "lines of logs are missing");
        let outgoing = Outgoing::new(name.clone(), window, Some(&service.record));
        service.record = outgoing.fail(&self.bus, gap).await?;
        Ok(())
    }

    /// Reads a window of some services and publishes what there is.
    async fn round(
        &self,
        round: Round,
        services: &mut BTreeMap<LoggedService, Service>,
    ) -> anyhow::Result<()> {
        let Round { purpose, window, services: names } = round;
        let ask = LogAsk { services: names, window, purpose };
        let (heard, outgoing) = {
            let records = |name: &LoggedService| services.get(name).map(|service| &service.record);
            let mut desk = Desk::new(&self.bus, &self.settings, &ask, records);
            let heard = self.logs.lines(&ask, &mut desk, &*self.meter).await?;
            (heard, desk.outgoing)
        };
        let ends = ask.services.into_iter().zip(heard.into_iter().zip(outgoing));
        let ended: Vec<_> = futures::stream::iter(ends)
            .map(|(name, (heard, outgoing))| self.end(name, heard, outgoing))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let now = self.bus.clock.now();
        for (name, ended) in ended {
            let Some(service) = services.get_mut(&name) else { continue };
            match ended? {
                Ok(record) => *service = Service { record, ..Service::default() },
                Err((failure, begun)) => {
                    begun.into_iter().for_each(|begun| service.record.note(begun));
                    self.failed(&name, window, (service, failure), now);
                }
            }
        }
        self.bus.metrics.log_lag(now.since(window.end().plus(self.pace.settle)));
        Ok(())
    }

    /// Ends what is on its way of a service, where there is an end; answers its record then.
    async fn end(
        &self,
        name: LoggedService,
        heard: Heard,
        outgoing: Outgoing,
    ) -> (LoggedService, anyhow::Result<Result<LogRecord, (Failure, Option<Begun>)>>) {
        let ended = match heard {
            Ok(gap) => outgoing.finish(&self.bus, gap).await.map(Ok),
            Err(failure) if failure.kind == FailureKind::Budget => {
                let name = failure.kind.as_str().to_owned();
                outgoing.fail(&self.bus, LogGap { name, message: failure.message }).await.map(Ok)
            }
            // The parts that went out have no end, and count for nothing.
            Err(failure) => Ok(Err((failure, outgoing.begun()))),
        };
        (name, ended)
    }

    /// Once a minute while it lasts; another attempt has another revision where parts went out.
    fn failed(
        &self,
        name: &LoggedService,
        window: Window,
        (service, failure): (&mut Service, Failure),
        now: Timestamp,
    ) {
        self.bus.metrics.failure(failure.kind.as_str());
        tracing::warn!(service = %name.service, %window, %failure, "no lines were read");
        service.not_before = Some(now.floor_minute().plus_minutes(1));
        service.failure = Some(failure);
    }
}
