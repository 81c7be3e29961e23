//! How long the minutes of each metric are waited for: what the source declares, what was learned, and its clock.

use crate::collect::Shared;
use crate::record::CollectionRecord;
use crate::schedule::Timing;
use crate::source::MetricAsk;
use crate::watermark::MetricKey;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;
use vouch_proto::VerificationTemplate;

/// How long the source is waited for to say what it declares, real time; without it what is known stands.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a template asks the source for.
pub(crate) fn asks(template: &VerificationTemplate, by_host: bool) -> Vec<MetricAsk> {
    let ask = |metric: &vouch_proto::MetricSpec| {
        let host_query = metric.host_query.as_ref().filter(|_| by_host);
        MetricAsk {
            name: metric.name.clone(),
            query: host_query.unwrap_or(&metric.query).clone(),
            unit: metric.unit.clone(),
            by_host: host_query.is_some(),
            each: metric.each.clone(),
        }
    };
    template.metrics.iter().map(ask).collect()
}

impl Shared {
    /// What is known of a metric under.
    pub(crate) fn key_of(&self, record: &CollectionRecord, ask: &MetricAsk) -> MetricKey {
        let tenant = self.source_name(&record.environment).to_owned();
        MetricKey { tenant, key: self.source.key(&record.environment, &ask.query) }
    }

    /// When the minutes of a collection's metrics are read.
    pub(crate) async fn timing(&self, record: &CollectionRecord, template: &VerificationTemplate) -> Timing {
        let asks = asks(template, template.by_host);
        let keys: Vec<MetricKey> = asks.iter().map(|ask| self.key_of(record, ask)).collect();
        self.ask_for_declared(record, asks.iter().zip(&keys)).await;
        let (now, behind) = (self.clock.now(), self.source.clock_behind(&record.environment));
        let watermarks = self.watermarks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settles = BTreeMap::new();
        for (ask, key) in asks.iter().zip(&keys) {
            let settle = watermarks.settle(key, &ask.name, now) + behind;
            self.metrics.settle(&key.tenant, &key.key, settle);
            if settle != self.pace.settle {
                settles.insert(ask.name.clone(), settle);
            }
        }
        Timing { pace: self.pace, settles }
    }

    /// Asks the source how late it says that metrics are, of which that is not known.
    async fn ask_for_declared<'a>(
        &self,
        record: &CollectionRecord,
        metrics: impl Iterator<Item = (&'a MetricAsk, &'a MetricKey)>,
    ) {
        let now = self.clock.now();
        let unknown: Vec<(&MetricAsk, &MetricKey)> = {
            let watermarks = self.watermarks.lock().unwrap_or_else(PoisonError::into_inner);
            metrics.filter(|(_, key)| watermarks.is_unknown(key, now)).collect()
        };
        if unknown.is_empty() {
            return;
        }
        let asked = unknown.iter().map(|(ask, _)| self.source.latency(&record.environment, &ask.query));
        let answers = tokio::time::timeout(PATIENCE, join_all(asked)).await.unwrap_or_default();
        let mut watermarks = self.watermarks.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = answers.into_iter().map(Result::ok).chain(std::iter::repeat(None));
        for ((_, key), declared) in unknown.iter().zip(answers) {
            watermarks.declare(key, declared, now);
        }
    }

    /// Notes of each metric whether a minute of it had changed when it was read once more.
    pub(crate) fn learn(
        &self,
        record: &CollectionRecord,
        asks: &[MetricAsk],
        changed: &BTreeMap<String, bool>,
    ) {
        let now = self.clock.now();
        for ask in asks {
            let Some(changed) = changed.get(&ask.name) else { continue };
            let key = self.key_of(record, ask);
            self.metrics.reread(&key.tenant, &key.key, *changed);
            self.watermarks.lock().unwrap_or_else(PoisonError::into_inner).learn(&key, *changed, now);
        }
    }
}
