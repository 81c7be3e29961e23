//! Dynatrace's Metrics API v2 as a source: plans the calls, names every odd answer, normalises the series.

mod address;
mod answer;
mod batcher;
mod billed;
mod builtin;
mod client;
mod credential;
mod entities;
mod grail;
mod joint;
mod listing;
mod logs;
mod normalise;
mod plan;
mod pressure;
mod query;
mod refusal;
mod robustness;
mod selector;
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
use self::joint::JointForm;
use self::logs::LogState;
use self::normalise::Grid;
use self::selector::EntityKind;
use self::timeseries::is_dql;
use self::unit::{Conversion, conversion};
use super::logs::Meter;
use super::{Ask, Bystander, Chunk, Failure, FailureKind, KnownService, MetricAsk, MetricSource, Reading};
use crate::config::TenantSettings;
use crate::metrics::Metrics;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use vouch_proto::{Name, Problem, Timestamp, Window};
use vouch_service::clock::SharedClock;
use vouch_service::health::Health;

const SCOPE: &str = "metrics.read";
/// Most expressions of one metric selector.
const SELECTORS_PER_CALL: usize = 10;
/// Longest metric selector of one call; what is longer may not fit into a URL on the way.
const LONGEST_SELECTOR: usize = 4000;
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
            logs: LogState::default(),
            meter: OnceLock::new(),
        })
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
        let kind = EntityKind::of(key.as_deref(), &entity_types);
        Ok(Prepared { ask, kind, conversion, joint: JointForm::of(&ask.query, kind, ask.by_host) })
    }

    /// The unit of a metric, as the tenant describes it now.
    async fn unit_of_metric(&self, key: &str) -> Result<String, Failure> {
        let path = ["metrics", key];
        let call = Call::get(&path, Vec::new(), SCOPE).once();
        let described = self.client.send_aside::<Descriptor>(&call).await;
        described.map(|descriptor| descriptor.unit.unwrap_or_default())
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

    async fn host_names(
        &self,
        some: &[Prepared<'_>],
        results: &[MetricResult],
    ) -> Result<BTreeMap<String, String>, Failure> {
        let by_host = some.iter().zip(results).filter(|(query, _)| query.ask.by_host);
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
    ["PROCESS_GROUP_INSTANCE-", "HOST-", "CONTAINER_GROUP_INSTANCE-"]
        .iter()
        .any(|prefix| value.starts_with(prefix))
}

fn missing_metric(failure: Failure, key: &str) -> Failure {
    if failure.kind != FailureKind::NotFound {
        return failure;
    }
    let message = format!(
        "the tenant has no metric `{key}` ({}); correct the query in the template, or define the metric in Dynatrace",
        failure.message
    );
    Failure::new(FailureKind::UnknownMetric, message)
}

/// The grid of an answer. One without any data says nothing about its step and is taken as asked; old clusters leave
/// the resolution out, and the spacing of the stamps tells it.
fn grid(ask: &Ask, data: &MetricData) -> Result<Grid, Failure> {
    let empty = data.result.iter().all(|r| r.data.is_empty());
    let spacing = spacing_minutes(data).map(|minutes| format!("{minutes}m"));
    let resolution = if empty { Some("1m") } else { data.resolution.as_deref().or(spacing.as_deref()) };
    Grid::of(resolution, ask.window, ask.settled_until)
}

/// The spacing of all stamps, where it is one of whole minutes.
fn spacing_minutes(data: &MetricData) -> Option<i64> {
    let series = data.result.iter().flat_map(|r| &r.data);
    let mut spacings = series.flat_map(|d| {
        d.timestamps.iter().zip(d.timestamps.iter().skip(1)).map(|(a, b)| b.saturating_sub(*a))
    });
    let first = spacings.next().filter(|ms| *ms > 0 && ms % 60_000 == 0)?;
    spacings.all(|ms| ms == first).then_some(first / 60_000)
}

/// What is wrong with the whole answer. A warning on top is repeated on the result that it is about: where one of
/// them carries it, the others are none the worse.
fn general_failure(data: &MetricData) -> Option<Failure> {
    if data.next_page_key.as_deref().is_some_and(|key| !key.is_empty() && key != "null") {
        return Some(Failure::new(
            FailureKind::Incomplete,
            "metrics/query answered with a further page; ask for fewer series",
        ));
    }
    let repeated: Vec<&String> = data.result.iter().flat_map(|r| r.warnings.iter().flatten()).collect();
    let unclaimed = data.warnings.iter().flatten().filter(|w| !repeated.contains(w));
    unclaimed.filter_map(|w| normalise::warning(w)).next()
}

/// Adds series to the chunk of their step.
fn add(reading: &mut Reading, grid: &Grid, series: Vec<vouch_proto::Series>) {
    if !series.is_empty() {
        reading.step = reading.step.max(grid.step);
    }
    let Some(window) = grid.window else { return };
    match reading.chunks.iter_mut().find(|c| c.resolution == grid.step) {
        Some(chunk) => chunk.series.extend(series),
        None => reading.chunks.push(Chunk { resolution: grid.step, window, series }),
    }
}

/// Cuts metrics of like entities into calls; what services can share is not held up by what they cannot.
fn calls<'q, 'a>(queries: &'q [Prepared<'a>]) -> Vec<&'q [Prepared<'a>]> {
    let mut calls = Vec::new();
    let (mut from, mut length) = (0, 0);
    for (i, query) in queries.iter().enumerate() {
        let more = query.ask.query.len() + 1;
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
        let service = self.entities.service(&self.client, &ask.environment, &ask.service).await?;
        let mut reading = Reading::default();
        let mut queries = Vec::new();
        let (dql, classic): (Vec<_>, Vec<_>) = ask.metrics.iter().partition(|metric| is_dql(&metric.query));
        for metric in classic {
            match self.prepare(metric).await {
                Ok(query) => queries.push(query),
                Err(failure)
                    if matches!(
                        failure.kind,
                        FailureKind::UnitMismatch | FailureKind::UnknownMetric | FailureKind::NotAggregable
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
            self.query(ask, &service, some, &mut reading).await?;
        }
        for metric in dql {
            self.read_dql(ask, &service, metric, &mut reading).await?;
        }
        let gaps = |c: &Chunk| c.series.iter().all(|s| s.samples.iter().all(Option::is_none));
        if !reading.chunks.is_empty() && reading.chunks.iter().all(gaps) {
            // Nothing at all: perhaps the service has got another entity.
            self.entities.forget(&service, self.client.now()).await;
        }
        reading.chunks.sort_by_key(|c| c.resolution);
        Ok(reading)
    }

    async fn bystanders(&self, ask: &Ask, most: usize) -> Result<Vec<Bystander>, Failure> {
        if self.is_elsewhere(ask) { Ok(Vec::new()) } else { self.unrelated_services(ask, most).await }
    }

    async fn problems(&self, ask: &Ask) -> Result<Vec<Problem>, Failure> {
        if self.is_elsewhere(ask) { Ok(Vec::new()) } else { self.problems_of(ask).await }
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
        let ask = MetricAsk { name: "m".into(), query: "q".repeat(100), unit: String::new(), by_host: false };
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
