//! What can be seen of the notifier from outside: counts, queue, latency.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;
use vouch_proto::{ActionOutcome, Purpose};
use vouch_service::health::Health;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    purpose: &'static str,
    outcome: &'static str,
    rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    action: String,
}

/// The metrics; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    ended: Family<Ended, Counter>,
    calls: Family<Called, Histogram, fn() -> Histogram>,
    takeovers: Counter,
    unknowns: Counter,
    dead_letters: Counter,
    in_flight: Gauge,
    waiting: Family<Called, Gauge>,
}

fn latency() -> Histogram {
    Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

impl Metrics {
    pub(crate) fn register(health: &Health) -> Self {
        let metrics = Self {
            ended: Family::default(),
            calls: Family::new_with_constructor(latency),
            takeovers: Counter::default(),
            unknowns: Counter::default(),
            dead_letters: Counter::default(),
            in_flight: Gauge::default(),
            waiting: Family::default(),
        };
        health.register(|registry| {
            let registry = registry.sub_registry_with_prefix("vouch_notifier");
            registry.register("actions", "Decisions recorded, by outcome and rule", metrics.ended.clone());
            registry.register("call_seconds", "Duration of calls to receivers", metrics.calls.clone());
            registry.register(
                "ledger_takeovers",
                "Entries taken over from the dead",
                metrics.takeovers.clone(),
            );
            registry.register("unknown", "Actions whose end is not known", metrics.unknowns.clone());
            registry.register(
                "dead_letters",
                "Verdicts that could not be used",
                metrics.dead_letters.clone(),
            );
            registry.register("in_flight", "Verdicts being worked on", metrics.in_flight.clone());
            registry.register("alerts_waiting", "Alerts that wait for their action", metrics.waiting.clone());
        });
        metrics
    }

    pub(crate) fn ended(&self, purpose: Purpose, outcome: ActionOutcome, rule: String) {
        let outcome = match outcome {
            ActionOutcome::Done => "done",
            ActionOutcome::Skipped => "skipped",
            ActionOutcome::Failed { .. } => "failed",
            ActionOutcome::Unknown => {
                self.unknowns.inc();
                "unknown"
            }
        };
        let labels = Ended { purpose: purpose.as_str(), outcome, rule };
        self.ended.get_or_create(&labels).inc();
    }

    pub(crate) fn called(&self, action: &str, took: Duration) {
        self.calls.get_or_create(&Called { action: action.to_owned() }).observe(took.as_secs_f64());
    }

    pub(crate) fn taken_over(&self) {
        self.takeovers.inc();
    }

    pub(crate) fn dead_lettered(&self) {
        self.dead_letters.inc();
    }

    /// How many alerts wait, by action; those that are not named have none.
    pub(crate) fn waiting(&self, counts: &[(String, usize)]) {
        self.waiting.clear();
        for (action, count) in counts {
            let labels = Called { action: action.clone() };
            self.waiting.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn begun(&self) {
        self.in_flight.inc();
    }

    pub(crate) fn over(&self) {
        self.in_flight.dec();
    }
}
