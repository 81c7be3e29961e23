//! What the collector tells Prometheus about itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vouch_service::health::Health;

/// Most metrics that have labels of their own.
const MOST_LABELS: usize = 200;
/// The label of all others.
const OTHER_METRICS: &str = "other";

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
struct MetricLabels {
    tenant: String,
    metric: String,
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
    waiting: Family<PurposeLabels, Gauge>,
    share: Family<TenantLabels, Gauge>,
    /// The metrics that have labels of their own.
    labelled: Arc<Mutex<BTreeSet<String>>>,
    settle: Family<MetricLabels, Gauge<f64, AtomicU64>>,
    watermark: Family<MetricLabels, Gauge<f64, AtomicU64>>,
    rereads: Family<MetricLabels, Counter>,
    revised: Family<MetricLabels, Counter>,
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
            waiting: Family::default(),
            share: Family::default(),
            labelled: Arc::default(),
            settle: Family::default(),
            watermark: Family::default(),
            rereads: Family::default(),
            revised: Family::default(),
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
            let settle = "How long after its end a minute of a metric is waited for";
            r.register("settle_seconds", settle, self.settle.clone());
            let watermark = "How long after its end the newest minute of a metric was published";
            r.register("watermark_lag_seconds", watermark, self.watermark.clone());
            let rereads = "Minutes of a metric that were read once more";
            r.register("reread_minutes", rereads, self.rereads.clone());
            let revised = "Minutes of a metric that had changed when they were read once more";
            r.register("revised_minutes", revised, self.revised.clone());
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

    /// The labels of a metric; those of too many share one.
    fn labels(&self, tenant: &str, metric: &str) -> MetricLabels {
        let mut labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = labelled.contains(metric);
        let metric = if is_known || labelled.len() < MOST_LABELS { metric } else { OTHER_METRICS };
        if !is_known {
            labelled.insert(metric.to_owned());
        }
        MetricLabels { tenant: tenant.to_owned(), metric: metric.to_owned() }
    }

    /// Notes how long minutes of a metric are waited for.
    pub(crate) fn settle(&self, tenant: &str, metric: &str, settle: Duration) {
        self.settle.get_or_create(&self.labels(tenant, metric)).set(settle.as_secs_f64());
    }

    /// Notes how long after its end a minute of a metric was published.
    pub(crate) fn watermark(&self, tenant: &str, metric: &str, lag: Duration) {
        self.watermark.get_or_create(&self.labels(tenant, metric)).set(lag.as_secs_f64());
    }

    /// Notes that a minute of a metric was read once more, and whether it had changed.
    pub(crate) fn reread(&self, tenant: &str, metric: &str, changed: bool) {
        let labels = self.labels(tenant, metric);
        self.rereads.get_or_create(&labels).inc();
        self.revised.get_or_create(&labels).inc_by(u64::from(changed));
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
