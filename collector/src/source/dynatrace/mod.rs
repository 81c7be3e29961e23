//! Dynatrace's Metrics API v2 as a source: plans the calls, names every odd answer, normalises the series.

mod address;
mod admission;
mod answer;
mod batcher;
mod billed;
mod builtin;
mod client;
mod credential;
mod entities;
mod events;
mod expression;
mod facts;
mod grail;
mod instances;
mod items;
mod joint;
mod lateness;
mod listing;
mod logs;
mod normalise;
mod objectives;
mod plan;
mod pressure;
mod query;
mod reading;
mod refusal;
mod robustness;
mod selector;
mod several;
mod share;
mod splits;
mod surroundings;
mod timeseries;
mod token;
mod unit;

pub use address::{base_url, fits};
pub use billed::billed;
pub(crate) use credential::{OAUTH_CLIENT, OAUTH_SCOPES, TOKEN_URL};
pub use credential::{OAuthSettings, Scheme};
pub use entities::Process;
pub(crate) use events::WRITE_SCOPE;
pub use logs::{LogLoad, PlannedScan, plan_logs, plan_scan};
pub use plan::{Load, PlannedCalls, plan};
pub use query::{Query, QueryAsk, QuerySeries, Slot, When};
pub use robustness::read_anything;
pub use splits::{MetricSplit, Splits};
pub use token::{SCOPES, TokenState, watch_token};

use self::answer::{Descriptor, MetricData, MetricResult};
use self::batcher::Batcher;
use self::client::{Call, Client};
use self::entities::Entities;
use self::instances::Target;
use self::joint::JointForm;
use self::logs::LogState;
use self::reading::{add, general_failure, grid, spacing_minutes};
use self::refusal::missing_metric;
use self::selector::EntityKind;
use self::timeseries::is_dql;
use self::unit::{Conversion, conversion};
use super::logs::Meter;
use super::{
    Ask, Bystander, Chunk, EventKind, Failure, FailureKind, KnownService, MetricAsk, MetricSource, Reading,
    SourceEvent,
};
use crate::config::TenantSettings;
use crate::metrics::Metrics;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use vouch_proto::{Deployment, Name, Objective, Problem, Timestamp, Window};
use vouch_service::clock::SharedClock;
use vouch_service::health::Health;

const SCOPE: &str = "metrics.read";
/// Most expressions of one metric selector.
const SELECTORS_PER_CALL: usize = 10;
/// Longest metric selector of one call; what is longer may not fit into a URL on the way.
const LONGEST_SELECTOR: usize = 4000;
/// As long as the id of a service.
const LIKE_AN_ID: &str = "SERVICE-0123456789ABCDEF";
/// How long what a descriptor says is believed.
const DESCRIPTOR_FRESH: Duration = Duration::from_secs(3600);
/// How long a metric counts as missing before it is looked for again.
const MISSING_FRESH: Duration = Duration::from_secs(120);

/// One tenant.
#[derive(Debug)]
pub struct Dynatrace {
    client: Client,
    entities: Entities,
    environment: Option<Name>,
    descriptors: Mutex<BTreeMap<String, Described>>,
    /// Until when problems are not asked for: the token may not see them.
    problems_refused: Mutex<Option<Timestamp>>,
    joint: Batcher<joint::Key, Vec<joint::Part>>,
    problems: Batcher<(), (usize, Vec<answer::ProblemItem>)>,
    describing: Batcher<String, Descriptor>,
    objectives: tokio::sync::Mutex<objectives::Known>,
    logs: LogState,
    /// On whose account billed queries of templates go.
    meter: OnceLock<Arc<dyn Meter>>,
}

/// What a descriptor said, and when.
type Described = (Result<Descriptor, Failure>, Timestamp);

/// A metric that is ready to be asked for.
#[derive(Debug, Clone)]
struct Prepared<'a> {
    ask: &'a MetricAsk,
    kind: EntityKind,
    conversion: Conversion,
    /// How it is asked for several services at once; `None` where it cannot.
    joint: Option<JointForm>,
}

impl Prepared<'_> {
    /// How it is asked for one service alone.
    fn alone(&self) -> &String {
        self.joint.as_ref().filter(|form| form.merge.is_some()).map_or(&self.ask.query, |form| &form.selector)
    }
}

impl Dynatrace {
    /// A client of the tenant; nothing is sent yet.
    ///
    /// # Errors
    /// Where the machine's certificates cannot be read.
    pub fn new(
        settings: &TenantSettings,
        clock: SharedClock,
        health: Health,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::new(settings, clock, health, metrics)?,
            entities: Entities::new(settings.services.clone(), settings.rules.clone()),
            environment: settings.environment.clone(),
            descriptors: Mutex::default(),
            problems_refused: Mutex::default(),
            joint: Batcher::default(),
            problems: Batcher::default(),
            describing: Batcher::default(),
            objectives: tokio::sync::Mutex::default(),
            logs: LogState::default(),
            meter: OnceLock::new(),
        })
    }

    /// The same for one of several replicas, which share the tenant's calls of a minute.
    #[must_use]
    pub fn among(mut self, replicas: watch::Receiver<usize>) -> Self {
        self.client.share(replicas);
        self
    }

    /// What the tenant says about the token.
    ///
    /// # Errors
    /// Where the tenant does not answer or refuses the token.
    pub async fn token_state(&self) -> Result<TokenState, Failure> {
        token::look_up(&self.client).await
    }

    /// By how many seconds the tenant's clock is ahead, or what is wrong with that; `None` before the first answer.
    #[must_use]
    pub fn clock_skew(&self) -> Option<Result<i64, String>> {
        self.client.skew()
    }

    /// Every service with all that rules can look at, whether or not there are rules.
    ///
    /// # Errors
    /// Where they could not be listed.
    pub async fn described_services(&self) -> Result<Vec<KnownService>, Failure> {
        self.entities.described_services(&self.client).await
    }

    /// Whether a metric's descriptor can be read.
    ///
    /// # Errors
    /// Where the tenant does not answer, refuses, or has no such metric.
    pub async fn has_metric(&self, key: &str) -> Result<(), Failure> {
        self.descriptor(key).await.map(|_| ())
    }

    /// Whether this tenant does not hold the environment of what is asked.
    fn is_elsewhere(&self, ask: &Ask) -> bool {
        self.environment.as_ref().is_some_and(|e| *e != ask.environment)
    }

    /// Unit and entities of a metric; `Err` where it is missing or its unit is of another kind than the template's.
    async fn prepare<'a>(&self, ask: &'a MetricAsk) -> Result<Prepared<'a>, Failure> {
        if let Some(failure) = selector::percentile_of_parts(&ask.query) {
            return Err(failure);
        }
        let key = selector::metric_key(&ask.query);
        let (unit, entity_types) = match &key {
            Some(key) => {
                let descriptor = self.descriptor(key).await?;
                if let Some(failure) = selector::unknown_split(&ask.query, &splits::dimensions(&descriptor)) {
                    return Err(failure);
                }
                (descriptor.unit.unwrap_or_default(), descriptor.entity_type.unwrap_or_default())
            }
            None => (String::new(), Vec::new()),
        };
        let unit = selector::unit_set_by(&ask.query).unwrap_or(unit);
        let conversion = conversion(&unit, &ask.unit).ok_or_else(|| {
            let message = format!(
                "`{}` is in {unit}, which cannot be converted to {}; correct the metric's unit in the template",
                ask.query, ask.unit
            );
            Failure::new(FailureKind::UnitMismatch, message)
        })?;
        let kind = self.kind_of(&ask.query, key.as_deref(), entity_types).await?;
        Ok(Prepared { ask, kind, conversion, joint: JointForm::of(&ask.query, kind, ask.by_host) })
    }

    /// What a query is about: by the prefixes of its keys where they tell, else by the descriptors of its metrics.
    async fn kind_of(
        &self,
        query: &str,
        key: Option<&str>,
        entity_types: Vec<String>,
    ) -> Result<EntityKind, Failure> {
        let mut types: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        match key {
            Some(key) => {
                types.insert(key, entity_types);
            }
            None => {
                for key in expression::keys(query).into_iter().filter(|key| EntityKind::is_open(key)) {
                    let described = match self.descriptor(key).await {
                        Ok(descriptor) => descriptor.entity_type.unwrap_or_default(),
                        // The query itself says what is wrong with the metric.
                        Err(failure) if failure.kind.is_about_a_metric() => Vec::new(),
                        Err(failure) if failure.kind == FailureKind::UnknownMetric => Vec::new(),
                        Err(failure) => return Err(failure),
                    };
                    types.insert(key, described);
                }
            }
        }
        EntityKind::of_query(query, |key| types.get(key).cloned().unwrap_or_default())
    }

    /// Unit and dimensions of a metric, as the tenant describes it now.
    async fn metric_described(&self, key: &str) -> Result<(String, Vec<String>), Failure> {
        let path = ["metrics", key];
        let call = Call::get(&path, Vec::new(), SCOPE).once();
        let described = self.client.send_aside::<Descriptor>(&call).await;
        described.map(|one| (one.unit.clone().unwrap_or_default(), splits::dimensions(&one)))
    }

    async fn descriptor(&self, key: &str) -> Result<Descriptor, Failure> {
        let now = self.client.now();
        let known = self.descriptors.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some((descriptor, at)) = known {
            let fresh = if descriptor.is_ok() { DESCRIPTOR_FRESH } else { MISSING_FRESH };
            if now.since(at) < fresh {
                return descriptor;
            }
        }
        // Many may ask at once, when many verifications begin.
        let (nobody, always) = (BTreeSet::new(), Window::around(Timestamp::from_millis(0), 0, 1));
        let always = always.map_err(|e| Failure::new(FailureKind::BadAnswer, e.to_string()))?;
        let fetch = |_, _| async {
            self.client.send::<Descriptor>(&Call::get(&["metrics", key], Vec::new(), SCOPE)).await
        };
        let answer = self.describing.join(&key.to_owned(), (&nobody, always), fetch).await;
        let answer = answer.as_ref().clone().map_err(|f| missing_metric(f, key));
        let settled = answer.as_ref().map_or_else(|f| f.kind == FailureKind::UnknownMetric, |_| true);
        if settled {
            let mut descriptors = self.descriptors.lock().unwrap_or_else(PoisonError::into_inner);
            descriptors.insert(key.to_owned(), (answer.clone(), now));
        }
        answer
    }

    /// Asks for some metrics of like entities; each alone where one of them spoils the call for the others.
    async fn query(
        &self,
        ask: &Ask,
        service: &str,
        some: &[Prepared<'_>],
        reading: &mut Reading,
    ) -> Result<(), Failure> {
        match self.data_of(ask.window, service, some).await {
            Ok(data) => self.take(ask, some, data, reading).await,
            Err(failure) if failure.kind.is_about_a_metric() => match some {
                [one] => {
                    let failure = missing_metric(failure, &one.ask.query);
                    reading.refused.push((one.ask.name.clone(), failure));
                    Ok(())
                }
                _ => {
                    for one in some {
                        Box::pin(self.query(ask, service, std::slice::from_ref(one), reading)).await?;
                    }
                    Ok(())
                }
            },
            Err(failure) => Err(failure),
        }
    }

    /// Adds an answer's series to the reading, or the reason why a metric has none.
    async fn take(
        &self,
        ask: &Ask,
        some: &[Prepared<'_>],
        data: MetricData,
        reading: &mut Reading,
    ) -> Result<(), Failure> {
        let names = self.host_names(some, &data.result).await?;
        let grid = grid(ask, &data);
        let general = general_failure(&data);
        for (query, result) in some.iter().zip(&data.result) {
            let is_zero = result.data.is_empty() && query.joint.as_ref().is_some_and(|form| form.zero);
            let read = match (&general, &grid) {
                (Some(failure), _) => Err(failure.clone()),
                (None, Err(failure)) => Err(failure.clone()),
                (None, Ok(grid)) => normalise::series(query.ask, result, grid, &query.conversion, &names),
            };
            match (read, &grid) {
                (Ok(mut series), Ok(grid)) => {
                    if is_zero {
                        series.iter_mut().flat_map(|one| &mut one.samples).for_each(|v| *v = Some(0.0));
                    }
                    add(reading, grid, series);
                }
                (Err(failure), _) => reading.refused.push((query.ask.name.clone(), failure)),
                (Ok(_), Err(_)) => {}
            }
        }
        Ok(())
    }

    /// Reads a window of one entity.
    async fn read_entity(&self, ask: &Ask, service: &str) -> Result<Reading, Failure> {
        let mut reading = Reading::default();
        let mut queries = Vec::new();
        let (dql, classic): (Vec<_>, Vec<_>) = ask.metrics.iter().partition(|metric| is_dql(&metric.query));
        for metric in classic {
            match self.prepare(metric).await {
                Ok(query) => queries.push(query),
                Err(failure)
                    if matches!(
                        failure.kind,
                        FailureKind::UnitMismatch
                            | FailureKind::UnknownMetric
                            | FailureKind::UnknownDimension
                            | FailureKind::NotAggregable
                    ) =>
                {
                    reading.refused.push((metric.name.clone(), failure));
                }
                Err(failure) if failure.kind == FailureKind::BadRequest => {
                    reading.refused.push((metric.name.clone(), failure));
                }
                Err(failure) => return Err(failure),
            }
        }
        queries.sort_by_key(|q| (q.kind, q.joint.is_none()));
        for some in calls(&queries) {
            self.query(ask, service, some, &mut reading).await?;
        }
        for metric in dql {
            self.read_dql(ask, service, metric, &mut reading).await?;
        }
        items::fill(&mut reading, &ask.metrics);
        reading.chunks.sort_by_key(|c| c.resolution);
        Ok(reading)
    }

    async fn host_names(
        &self,
        some: &[Prepared<'_>],
        results: &[MetricResult],
    ) -> Result<BTreeMap<String, String>, Failure> {
        let by_host =
            some.iter().zip(results).filter(|(query, _)| query.ask.by_host || query.ask.each.is_some());
        let values = by_host
            .flat_map(|(_, r)| &r.data)
            .flat_map(|d| d.dimension_map.values().flatten().chain(d.dimensions.iter().flatten()));
        let ids: BTreeSet<String> = values.filter(|v| is_instance_id(v)).cloned().collect();
        let ids: Vec<String> = ids.into_iter().collect();
        self.entities.names(&self.client, &ids).await
    }
}

/// Whether a dimension's value is the id of something that a service runs on.
fn is_instance_id(value: &str) -> bool {
    ["PROCESS_GROUP_INSTANCE-", "HOST-", "CONTAINER_GROUP_INSTANCE-", "SERVICE_METHOD-", "CLOUD_APPLICATION"]
        .iter()
        .any(|prefix| value.starts_with(prefix))
}

/// Cuts metrics of like entities into calls; what services can share is not held up by what they cannot.
fn calls<'q, 'a>(queries: &'q [Prepared<'a>]) -> Vec<&'q [Prepared<'a>]> {
    let mut calls = Vec::new();
    let (mut from, mut length) = (0, 0);
    for (i, query) in queries.iter().enumerate() {
        let more = query.kind.restricted(&query.ask.query, LIKE_AN_ID).len() + 1;
        let alike = |q: &Prepared<'_>| q.kind == query.kind && q.joint.is_some() == query.joint.is_some();
        let other = i > from && queries.get(from).is_some_and(|q| !alike(q));
        if i > from && (other || i - from == SELECTORS_PER_CALL || length + more > LONGEST_SELECTOR) {
            calls.extend(queries.get(from..i));
            (from, length) = (i, 0);
        }
        length += more;
    }
    calls.extend(queries.get(from..).filter(|rest| !rest.is_empty()));
    calls
}

#[async_trait]
impl MetricSource for Dynatrace {
    async fn read(&self, ask: &Ask) -> Result<Reading, Failure> {
        if let Some(environment) = self.environment.as_ref().filter(|e| **e != ask.environment) {
            let message = format!(
                "this tenant holds environment `{environment}`, not `{}`; correct the deployment or collector.environment",
                ask.environment
            );
            return Err(Failure::new(FailureKind::OtherEnvironment, message));
        }
        match self.entities.target(&self.client, &ask.environment, &ask.service).await? {
            Target::Several(group) => self.read_instances(ask, &group).await,
            Target::One(service) => {
                let reading = self.read_entity(ask, &service).await?;
                let gaps = |c: &Chunk| c.series.iter().all(|s| s.samples.iter().all(Option::is_none));
                if !reading.chunks.is_empty() && reading.chunks.iter().all(gaps) {
                    // Nothing at all: perhaps the service has got another entity.
                    self.entities.forget(&service, self.client.now()).await;
                }
                Ok(reading)
            }
        }
    }

    async fn bystanders(&self, ask: &Ask, most: usize) -> Result<Vec<Bystander>, Failure> {
        if self.is_elsewhere(ask) { Ok(Vec::new()) } else { self.unrelated_services(ask, most).await }
    }

    async fn problems(&self, ask: &Ask) -> Result<Vec<Problem>, Failure> {
        if self.is_elsewhere(ask) { Ok(Vec::new()) } else { self.problems_of(ask).await }
    }

    async fn objectives(&self, ask: &Ask) -> Result<Vec<Objective>, Failure> {
        if self.is_elsewhere(ask) { Ok(Vec::new()) } else { self.objectives_of(ask).await }
    }

    async fn events(
        &self,
        _tenant: usize,
        window: Window,
        kinds: &[EventKind],
    ) -> Result<Vec<SourceEvent>, Failure> {
        self.events_within(window, kinds).await
    }

    async fn write_event(&self, deployment: &Deployment, started_at: Timestamp) -> Result<(), Failure> {
        self.write_deployment(deployment, started_at).await
    }

    fn key(&self, _environment: &Name, query: &str) -> String {
        lateness::key(query)
    }

    async fn latency(&self, _environment: &Name, query: &str) -> Result<Duration, Failure> {
        self.declared_latency(query).await
    }

    fn clock_behind(&self, _environment: &Name) -> Duration {
        self.client.clock_behind()
    }

    async fn services(&self) -> Result<Vec<KnownService>, Failure> {
        self.entities.all_services(&self.client).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_hold_ten_metrics_of_like_entities() {
        let ask = MetricAsk {
            name: "m".into(),
            query: "q".repeat(100),
            unit: String::new(),
            by_host: false,
            each: None,
        };
        let query = |kind| Prepared { ask: &ask, kind, conversion: Conversion::none(), joint: None };
        let mut queries = vec![query(EntityKind::Service); 12];
        queries.extend(vec![query(EntityKind::Host); 3]);
        let sizes: Vec<usize> = calls(&queries).iter().map(|c| c.len()).collect();
        assert_eq!(sizes, [10, 2, 3]);
        assert!(calls(&[]).is_empty());
        let long = MetricAsk { query: "q".repeat(1500), ..ask.clone() };
        let long = vec![Prepared { ask: &long, ..query(EntityKind::Host) }; 3];
        assert_eq!(calls(&long).iter().map(|c| c.len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_warning_on_top_counts_unless_a_result_claims_it() {
        let data = |top: &str, own: &str| -> MetricData {
            serde_json::from_value(serde_json::json!({
                "resolution": "1m", "warnings": [top], "result": [{"data": [], "warnings": [own]}]
            }))
            .unwrap()
        };
        let warning = "the metric has no such key";
        assert_eq!(general_failure(&data(warning, warning)), None);
        assert_eq!(general_failure(&data(warning, "other")).unwrap().kind, FailureKind::UnknownDimension);
        assert_eq!(general_failure(&data("be nice", "")), None);
    }
}
