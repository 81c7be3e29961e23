//! The deterministic twin of a source: answers from a script, remembers what it was asked.

use super::{Ask, Chunk, Failure, KnownService, MetricSource, Reading};
use crate::rules::Facts;
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use vouch_proto::{Name, Series, Timestamp, Window};

type Value = fn(metric: &str, start: Timestamp) -> Option<f64>;

/// A source that answers `value(metric, start of the step)` for everything, after the scripted failures.
#[derive(Debug)]
pub struct Scripted {
    value: Value,
    step: Duration,
    failures: Mutex<VecDeque<Failure>>,
    refusals: Mutex<VecDeque<Failure>>,
    asked: Mutex<Vec<Ask>>,
    latencies: Mutex<BTreeMap<String, Duration>>,
    services: Vec<KnownService>,
}

impl Scripted {
    /// Answers with samples of `step`.
    #[must_use]
    pub fn new(step: Duration, value: Value) -> Self {
        Self {
            value,
            step,
            failures: Mutex::default(),
            refusals: Mutex::default(),
            asked: Mutex::default(),
            latencies: Mutex::default(),
            services: vec![KnownService {
                name: "checkout".into(),
                entity_id: "SERVICE-1".into(),
                facts: Facts::default(),
                tenant: 0,
            }],
        }
    }

    /// The next `times` calls fail like this.
    pub fn fail(&self, times: usize, failure: &Failure) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.extend(std::iter::repeat_n(failure.clone(), times));
    }

    /// The next `times` calls after that refuse every metric like this.
    pub fn refuse(&self, times: usize, failure: &Failure) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.extend(std::iter::repeat_n(failure.clone(), times));
    }

    /// Declares that what a query measures is late.
    pub fn declare(&self, query: &str, latency: Duration) {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.insert(query.to_owned(), latency);
    }

    /// The windows asked for so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Ask> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl MetricSource for Scripted {
    async fn read(&self, ask: &Ask) -> Result<Reading, Failure> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(ask.clone());
        let failure = self.failures.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(failure) = failure {
            return Err(failure);
        }
        let refusal = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(failure) = refusal {
            let refused = ask.metrics.iter().map(|metric| (metric.name.clone(), failure.clone()));
            return Ok(Reading { refused: refused.collect(), ..Reading::default() });
        }
        let step = i64::try_from(self.step.as_millis()).unwrap_or(60_000);
        let (from, to) =
            (ask.window.start().as_millis(), ask.window.end().min(ask.settled_until).as_millis());
        let first = (from + step - 1).div_euclid(step) * step;
        let last = to.div_euclid(step) * step;
        let mut reading = Reading { step: self.step, ..Reading::default() };
        let (first_step, end) = (Timestamp::from_millis(first), Timestamp::from_millis(last));
        if let Ok(window) = Window::new(first_step, end) {
            let starts = (0..(last - first) / step).map(|i| Timestamp::from_millis(first + i * step));
            let series = ask.metrics.iter().map(|metric| Series {
                metric: metric.name.clone(),
                host: None,
                unit: metric.unit.clone(),
                samples: starts.clone().map(|start| (self.value)(&metric.name, start)).collect(),
                query: metric.query.clone(),
                ..Series::default()
            });
            reading.chunks.push(Chunk { resolution: self.step, window, series: series.collect() });
        }
        Ok(reading)
    }

    async fn latency(&self, _environment: &Name, query: &str) -> Result<Duration, Failure> {
        let latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(latencies.get(query).copied().unwrap_or_default())
    }

    async fn services(&self) -> Result<Vec<KnownService>, Failure> {
        Ok(self.services.clone())
    }
}
