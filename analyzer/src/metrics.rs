//! What the analyzer counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use vouch_proto::Outcome;
use vouch_service::health::Health;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Counters and gauges of a running analyzer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Verifications owned by this replica.
    pub(crate) open: Gauge,
    /// Batches taken in.
    pub(crate) batches: Counter,
    /// Deployments taken in.
    pub(crate) deployments: Counter,
    /// Messages that could not be used.
    pub(crate) dead_letters: Counter,
    /// Verdicts whose evidence could not be kept.
    pub(crate) evidence_lost: Counter,
    verdicts: Family<OutcomeLabel, Counter>,
}

impl Metrics {
    pub(crate) fn register(health: &Health) -> Self {
        let metrics = Self::default();
        health.register(|registry| {
            let registry = registry.sub_registry_with_prefix("vouch_analyzer");
            registry.register(
                "open_verifications",
                "Verifications that this replica owns",
                metrics.open.clone(),
            );
            registry.register("batches", "Series batches taken in", metrics.batches.clone());
            registry.register("deployments", "Deployment messages taken in", metrics.deployments.clone());
            registry.register(
                "dead_letters",
                "Messages that could not be used",
                metrics.dead_letters.clone(),
            );
            registry.register(
                "evidence_lost",
                "Verdicts whose evidence could not be kept",
                metrics.evidence_lost.clone(),
            );
            registry.register("verdicts", "Final verdicts published, by outcome", metrics.verdicts.clone());
        });
        metrics
    }

    pub(crate) fn verdict(&self, outcome: Outcome) {
        self.verdicts.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }
}
