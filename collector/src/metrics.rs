//! What the collector tells Prometheus about itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::sync::atomic::AtomicU64;
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
struct PartLabels {
    part: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WebhookLabels {
    webhook: String,
    status: u16,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LookLabels {
    tenant: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ScanLabels {
    tenant: String,
    service: String,
    purpose: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
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
    webhooks: Family<WebhookLabels, Counter>,
    looks: Family<LookLabels, Counter>,
    log_lines: Counter,
    log_parts: Counter,
    log_windows: Family<StateLabels, Counter>,
    log_lag: Histogram,
    scanned: Family<ScanLabels, Counter>,
    scan_budget: Family<TenantLabels, Gauge<f64, AtomicU64>>,
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
            webhooks: Family::default(),
            looks: Family::default(),
            log_lines: Counter::default(),
            log_parts: Counter::default(),
            log_windows: Family::default(),
            log_lag: Histogram::new(exponential_buckets(0.5, 2.0, 12)),
            scanned: Family::default(),
            scan_budget: Family::default(),
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
            let skew = "By how much the source's clock is ahead of the machine's";
            r.register("source_clock_skew_seconds", skew, self.skew.clone());
            r.register("webhook_calls", "Calls of webhooks by status", self.webhooks.clone());
            let looks = "How often a tenant was looked at for deployments, by outcome";
            r.register("change_looks", looks, self.looks.clone());
            r.register("log_lines", "Lines of logs published", self.log_lines.clone());
            r.register("log_parts", "Messages of logs published", self.log_parts.clone());
            let windows = "Windows of logs published: complete, or why lines are missing";
            r.register("log_windows", windows, self.log_windows.clone());
            let lag = "From a minute of logs being settled to its being published";
            r.register("log_lag_seconds", lag, self.log_lag.clone());
            let scanned = "Bytes that billed queries scanned, by service and purpose";
            r.register("scanned_bytes", scanned, self.scanned.clone());
            let budget = "Share of the day's scan budget that is used up";
            r.register("scan_budget_used_ratio", budget, self.scan_budget.clone());
            r.register("open_collections", "Collections that this replica works on", self.open.clone());
        });
    }

    /// Notes that a tenant was looked at for deployments.
    pub fn looked(&self, tenant: &str, is_ok: bool) {
        let outcome = if is_ok { "ok" } else { "failed" };
        self.looks.get_or_create(&LookLabels { tenant: tenant.to_owned(), outcome }).inc();
    }

    /// Notes how a call of a webhook was answered.
    pub fn webhook(&self, webhook: &str, status: u16) {
        self.webhooks.get_or_create(&WebhookLabels { webhook: webhook.to_owned(), status }).inc();
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

    /// Notes by how many seconds the source's clock is ahead of the machine's.
    pub(crate) fn skew(&self, seconds: i64) {
        self.skew.set(seconds);
    }

    /// Notes a published message of logs.
    pub(crate) fn log_part(&self, lines: usize) {
        self.log_parts.inc();
        self.log_lines.inc_by(u64::try_from(lines).unwrap_or(u64::MAX));
    }

    /// Notes how a published window of logs stands.
    pub(crate) fn log_window(&self, state: &str) {
        self.log_windows.get_or_create(&StateLabels { state: state.to_owned() }).inc();
    }

    /// Notes how long after it was settled a window of logs was published, in the injected clock's time.
    pub(crate) fn log_lag(&self, lag: Duration) {
        self.log_lag.observe(lag.as_secs_f64());
    }

    /// Notes what was scanned for a service.
    pub(crate) fn scanned(&self, (tenant, service): (&str, &str), purpose: &str, bytes: u64) {
        let labels = ScanLabels {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            purpose: purpose.to_owned(),
        };
        self.scanned.get_or_create(&labels).inc_by(bytes);
    }

    /// Notes how much of a tenant's budget is used up.
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    pub(crate) fn scan_budget(&self, tenant: &str, spent: u64, budget: u64) {
        let labels = TenantLabels { tenant: tenant.to_owned() };
        self.scan_budget.get_or_create(&labels).set(spent as f64 / budget.max(1) as f64);
    }

    /// Notes how many collections are being worked on.
    pub(crate) fn open(&self, collections: usize) {
        self.open.set(i64::try_from(collections).unwrap_or(i64::MAX));
    }
}
