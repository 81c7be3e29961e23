//! The account of what was scanned, in a bucket: it survives restarts, and all replicas share it.

use super::account::{Charge, ScanDay, day_of};
use crate::config::BilledSettings;
use crate::metrics::Metrics;
use crate::source::logs::{Allowance, LogAsk, LoggedService, Meter};
use crate::source::{Failure, FailureKind};
use async_nats::jetstream::kv;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use vouch_proto::subject;
use vouch_service::bucket::{self, Change};
use vouch_service::clock::SharedClock;

/// What waits to be noted: bytes by day, service and purpose. It stays small: nothing is scanned while something waits.
type Pending = BTreeMap<(String, String, String), u64>;

/// Watches over one tenant.
#[derive(Debug)]
pub(crate) struct ScanMeter {
    pub(crate) store: kv::Store,
    pub(crate) clock: SharedClock,
    pub(crate) tenant: String,
    pub(crate) limits: BilledSettings,
    pub(crate) metrics: Metrics,
    /// What could not be noted yet.
    pending: Mutex<Pending>,
}

impl ScanMeter {
    pub(crate) fn new(
        (store, clock): (kv::Store, SharedClock),
        tenant: String,
        limits: BilledSettings,
        metrics: Metrics,
    ) -> Self {
        Self { store, clock, tenant, limits, metrics, pending: Mutex::default() }
    }

    /// Notes what was scanned on a day; answers the account.
    async fn note(&self, day: &str, charges: &[Charge]) -> anyhow::Result<ScanDay> {
        let key = subject::scan_key(&self.tenant, day);
        let (account, told) = bucket::change(&self.store, &key, |stored| {
            let before = ScanDay::read(stored)?;
            if charges.is_empty() {
                return Ok(Change::Keep((before, Vec::new())));
            }
            let mut after = before.clone();
            after.charge(charges);
            let told = after.crossed(&before, &self.limits);
            Ok(Change::Write(after.write()?, (after, told)))
        })
        .await?;
        for said in told {
            tracing::warn!(tenant = self.tenant, "{said}");
        }
        if let Some(budget) = self.limits.bytes_per_day {
            self.metrics.scan_budget(&self.tenant, account.bytes, budget);
        }
        Ok(account)
    }

    /// The account of today, once all that waits is noted.
    async fn today(&self) -> anyhow::Result<ScanDay> {
        let waiting = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let mut days: BTreeMap<String, Vec<Charge>> = BTreeMap::new();
        for ((day, service, purpose), bytes) in waiting {
            days.entry(day).or_default().push(Charge { service, purpose, bytes });
        }
        while let Some((day, charges)) = days.pop_first() {
            if let Err(error) = self.note(&day, &charges).await {
                days.insert(day, charges);
                days.into_iter().for_each(|(day, charges)| self.wait(&day, charges));
                return Err(error);
            }
        }
        self.note(&day_of(self.clock.now()), &[]).await
    }

    fn wait(&self, day: &str, charges: Vec<Charge>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for Charge { service, purpose, bytes } in charges {
            let sum = pending.entry((day.to_owned(), service, purpose)).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
}

/// As accounts name a service.
fn key(service: &LoggedService) -> String {
    format!("{}/{}", service.environment, service.service)
}

#[async_trait]
impl Meter for ScanMeter {
    async fn allow(&self, ask: &LogAsk, services: &[usize]) -> Result<Allowance, Failure> {
        let account = self.today().await.map_err(|error| {
            // Who does not know what was spent spends nothing.
            let message = format!(
                "what was scanned today cannot be read, so that nothing is: {error:#}; it is tried again"
            );
            Failure::new(FailureKind::Unavailable, message)
        })?;
        let budget = |message: String| Failure::new(FailureKind::Budget, message);
        let scan_limit_gb = account.allows(&self.limits).map_err(budget)?;
        let refused = services.iter().filter_map(|place| {
            let service = ask.services.get(*place)?;
            let refused = account.allows_service(&self.limits, &key(service)).err()?;
            Some((*place, budget(refused)))
        });
        Ok(Allowance { scan_limit_gb, refused: refused.collect() })
    }

    async fn charge(&self, ask: &LogAsk, shares: &[(usize, u64)]) {
        let purpose = ask.purpose.as_str();
        let charge = |(place, bytes): &(usize, u64)| {
            let service = ask.services.get(*place)?;
            self.metrics.scanned((&self.tenant, &key(service)), purpose, *bytes);
            Some(Charge { service: key(service), purpose: purpose.to_owned(), bytes: *bytes })
        };
        self.wait(&day_of(self.clock.now()), shares.iter().filter_map(charge).collect());
        if let Err(error) = self.today().await {
            tracing::warn!(
                tenant = self.tenant,
                error = format!("{error:#}"),
                "what was scanned is not noted yet; nothing is scanned until it is"
            );
        }
    }
}
