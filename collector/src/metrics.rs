//! What the collector tells Prometheus about itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::time::Duration;
use vouch_service::health::Health;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    endpoint: String,
    outcome: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FailureLabels {
    failure: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PurposeLabels {
    tenant: String,
    purpose: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartLabels {
    part: String,
}

/// The collector's metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    bytes: Counter,
    seconds: Histogram,
    failures: Family<FailureLabels, Counter>,
    missed_around: Family<PartLabels, Counter>,
    batches: Counter,
    lag: Histogram,
    open: Gauge,
    skew: Gauge,
    concurrency: Gauge,
    waiting: Family<PurposeLabels, Gauge>,
    share: Family<TenantLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            bytes: Counter::default(),
            seconds: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
            failures: Family::default(),
            missed_around: Family::default(),
            batches: Counter::default(),
            lag: Histogram::new(exponential_buckets(0.5, 2.0, 12)),
            open: Gauge::default(),
            skew: Gauge::default(),
            concurrency: Gauge::default(),
            waiting: Family::default(),
            share: Family::default(),
        }
    }
}

impl Metrics {
    /// Registers them with the service's endpoint.
    pub fn register(&self, health: &Health) {
        health.register(|registry| {
            let r = registry.sub_registry_with_prefix("vouch_collector");
            r.register("source_calls", "Calls to the source by endpoint and outcome", self.calls.clone());
            r.register("source_bytes", "Bytes read from the source", self.bytes.clone());
            r.register("source_call_seconds", "Duration of a call to the source", self.seconds.clone());
            r.register("source_failures", "Readings and metrics that failed, by name", self.failures.clone());
            let missed = "Readings without what goes on around the service, by part";
            r.register("missed_surroundings", missed, self.missed_around.clone());
            r.register("batches", "Messages published", self.batches.clone());
            r.register("lag_seconds", "From a minute being settled to its being published", self.lag.clone());
            let concurrency = "Calls at once that the source is asked at most, now";
            r.register("source_concurrency", concurrency, self.concurrency.clone());
            let waiting = "Calls that wait for their turn, by what they are for";
            r.register("source_waiting_calls", waiting, self.waiting.clone());
            let share = "Calls a minute that are this replica's share of the budget; 0 for no budget";
            r.register("source_calls_per_minute", share, self.share.clone());
            let skew = "By how much the source's clock is ahead of the machine's";
            r.register("source_clock_skew_seconds", skew, self.skew.clone());
            r.register("open_collections", "Collections that this replica works on", self.open.clone());
        });
    }

    /// Notes a call, its bytes and its duration.
    pub(crate) fn call(&self, endpoint: &str, outcome: &str, (bytes, took): (usize, Duration)) {
        let labels = CallLabels { endpoint: endpoint.to_owned(), outcome: outcome.to_owned() };
        self.calls.get_or_create(&labels).inc();
        self.bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.seconds.observe(took.as_secs_f64());
    }

    /// Notes a failure that a batch carries.
    pub(crate) fn failure(&self, name: &str) {
        self.failures.get_or_create(&FailureLabels { failure: name.to_owned() }).inc();
    }

    /// Notes that a part of the surroundings could not be had.
    pub(crate) fn missed_around(&self, part: &str) {
        self.missed_around.get_or_create(&PartLabels { part: part.to_owned() }).inc();
    }

    /// Notes published messages.
    pub(crate) fn published(&self, messages: usize) {
        self.batches.inc_by(u64::try_from(messages).unwrap_or(u64::MAX));
    }

    /// Notes how long after it was settled a minute was published, in the injected clock's time.
    pub(crate) fn lag(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    /// Notes how many calls at once the source is asked.
    pub(crate) fn concurrency(&self, calls: usize) {
        self.concurrency.set(i64::try_from(calls).unwrap_or(i64::MAX));
    }

    /// Notes how many calls wait for a purpose, and how many a minute are this replica's share.
    pub(crate) fn turns(
        &self,
        tenant: &str,
        purpose: &'static str,
        (waiting, share): (usize, Option<usize>),
    ) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let labels = PurposeLabels { tenant: tenant.to_owned(), purpose };
        self.waiting.get_or_create(&labels).set(gauge(waiting));
        let labels = TenantLabels { tenant: tenant.to_owned() };
        self.share.get_or_create(&labels).set(share.map_or(0, gauge));
    }

    /// Notes by how many seconds the source's clock is ahead of the machine's.
    pub(crate) fn skew(&self, seconds: i64) {
        self.skew.set(seconds);
    }

    /// Notes how many collections are being worked on.
    pub(crate) fn open(&self, collections: usize) {
        self.open.set(i64::try_from(collections).unwrap_or(i64::MAX));
    }
}
