//! What goes on around a service: the series of unrelated ones, and the problems that Dynatrace has found.

use super::answer::{DataSeries, MetricResult, ProblemItem, ProblemPage};
use super::client::Call;
use super::joint::{Part, SERVICES_PER_CALL};
use super::selector::{EntityKind, escape, metric_key, split_by_service};
use super::timeseries::is_dql;
use super::{Dynatrace, Prepared, add, calls, general_failure, grid, normalise};
use crate::source::topology::Unrelated;
use crate::source::{Ask, Bystander, Failure, FailureKind, MetricAsk, Reading};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;
use vouch_proto::{Name, Problem, Relation, Timestamp, Window};

const SCOPE: &str = "problems.read";
const SERVICE_DIMENSION: &str = "dt.entity.service";
/// How much earlier than a window a problem may have ended that still tells of it.
const ENDED_BEFORE: Duration = Duration::from_secs(10 * 60);
/// Most problems of a call's services that are looked at.
const MOST_PROBLEMS: usize = 500;
/// How long a refused scope is not tried again.
const REFUSED: Duration = Duration::from_secs(10 * 60);

impl ProblemItem {
    fn affects(&self, service: &str) -> bool {
        self.affected_entities.iter().any(|entity| entity.entity_id.id == service)
    }
}

impl Dynatrace {
    /// Series of services that neither call this one nor are called by it.
    pub(super) async fn unrelated_services(&self, ask: &Ask, most: usize) -> Result<Vec<Bystander>, Failure> {
        let own = self.entities.ids(&self.client, &ask.environment, &ask.service).await?;
        let topology = self.entities.topology(&self.client).await?;
        let mut unrelated: BTreeMap<Name, Unrelated> = BTreeMap::new();
        for one in topology.unrelated_to_all(&own, most) {
            let name = self.entities.deployed_name(&self.client, &one, &ask.environment).await?;
            if let Some(name) = name.filter(|name| *name != ask.service) {
                unrelated.entry(name).or_insert(one);
            }
        }
        if unrelated.is_empty() {
            return Ok(Vec::new());
        }
        let asks: Vec<MetricAsk> = ask.metrics.iter().filter_map(of_each_service).collect();
        let mut queries = Vec::new();
        for one in &asks {
            // What its own service cannot be asked for has been refused there.
            queries.extend(self.prepare(one).await.ok().filter(|query| query.kind == EntityKind::Service));
        }
        let mut readings: BTreeMap<&str, Reading> = BTreeMap::new();
        for some in calls(&queries) {
            self.read_of_each(ask, &unrelated, some, &mut readings).await?;
        }
        let of = |(service, one): (&Name, &Unrelated)| {
            let chunks = readings.remove(one.id.as_str())?.chunks;
            let has_any =
                chunks.iter().flat_map(|c| &c.series).any(|s| s.samples.iter().any(Option::is_some));
            has_any.then(|| Bystander {
                service: service.clone(),
                relation: Relation::Unrelated,
                shares: one.shares.clone(),
                chunks,
            })
        };
        Ok(unrelated.iter().filter_map(of).collect())
    }

    async fn read_of_each<'u>(
        &self,
        ask: &Ask,
        unrelated: &'u BTreeMap<Name, Unrelated>,
        some: &[Prepared<'_>],
        readings: &mut BTreeMap<&'u str, Reading>,
    ) -> Result<(), Failure> {
        let selectors: Vec<String> = some.iter().map(|query| query.ask.query.clone()).collect();
        let ids: BTreeSet<String> = unrelated.values().map(|one| one.id.clone()).collect();
        let parts = self.joint_data((EntityKind::Service, selectors), (&ids, ask.window)).await;
        for part in parts.as_ref().as_ref().map_err(Clone::clone)? {
            self.take_of_each(ask, unrelated, (some, part), readings)?;
        }
        Ok(())
    }

    /// Adds what one call says about them.
    fn take_of_each<'u>(
        &self,
        ask: &Ask,
        unrelated: &'u BTreeMap<Name, Unrelated>,
        (some, part): (&[Prepared<'_>], &Part),
        readings: &mut BTreeMap<&'u str, Reading>,
    ) -> Result<(), Failure> {
        let data = part.data.as_ref().map_err(Clone::clone)?;
        if let Some(failure) = general_failure(data) {
            return Err(failure);
        }
        let grid = grid(ask, data)?;
        for (query, result) in some.iter().zip(&data.result) {
            for one in unrelated.values().filter(|one| part.is_about(&one.id)) {
                let own = result.data.iter().filter(|data| service_of(data) == Some(one.id.as_str()));
                let own = MetricResult {
                    metric_id: None,
                    warnings: result.warnings.clone(),
                    data: own.cloned().collect(),
                };
                let is_absent = own.data.is_empty();
                let read = normalise::series(query.ask, &own, &grid, &query.conversion, &BTreeMap::new());
                let Ok(mut series) = read else { continue };
                if is_absent && is_zero_by_default(&query.ask.query) {
                    let samples = series.iter_mut().flat_map(|series| &mut series.samples);
                    samples.for_each(|sample| *sample = Some(0.0));
                }
                add(readings.entry(one.id.as_str()).or_default(), &grid, series);
            }
        }
        Ok(())
    }

    /// Problems that this service is a part of and that touch the window; none where the token may not see them.
    pub(super) async fn problems_of(&self, ask: &Ask) -> Result<Vec<Problem>, Failure> {
        let now = self.client.now();
        if self.problems_refused_until().is_some_and(|until| now < until) {
            return Ok(Vec::new());
        }
        let own = self.entities.ids(&self.client, &ask.environment, &ask.service).await?;
        let members: BTreeSet<String> = own.iter().cloned().collect();
        let found = self
            .problems
            .join(&(), (&members, ask.window), |services, window| self.problems_within(services, window));
        match found.await.as_ref() {
            Ok((services, items)) => {
                let is_own =
                    |item: &&ProblemItem| *services == own.len() || own.iter().any(|id| item.affects(id));
                let of = |item: &ProblemItem| problem(item.clone(), &own, ask.window.end());
                Ok(items.iter().filter(is_own).filter_map(of).collect())
            }
            Err(failure) if matches!(failure.kind, FailureKind::MissingScope | FailureKind::Forbidden) => {
                *self.problems_refused.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(now.plus(REFUSED));
                Err(failure.clone())
            }
            Err(failure) => Err(failure.clone()),
        }
    }

    /// Problems that some services are a part of, and how many services there are.
    async fn problems_within(
        &self,
        services: BTreeSet<String>,
        window: Window,
    ) -> Result<(usize, Vec<ProblemItem>), Failure> {
        let ids: Vec<String> = services.iter().map(|id| format!("\"{}\"", escape(id))).collect();
        let call = |some: &[String]| {
            let query = vec![
                ("problemSelector", format!("affectedEntities({})", some.join(","))),
                ("from", window.start().minus(ENDED_BEFORE).as_millis().to_string()),
                ("to", window.end().as_millis().to_string()),
                ("pageSize", MOST_PROBLEMS.to_string()),
            ];
            async move { self.client.send_aside::<ProblemPage>(&Call::get(&["problems"], query, SCOPE)).await }
        };
        let pages = join_all(ids.chunks(SERVICES_PER_CALL).map(call)).await;
        let pages = pages.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok((services.len(), pages.into_iter().flat_map(|page| page.problems).collect()))
    }

    /// Whether problems can be read.
    ///
    /// # Errors
    /// Where the tenant does not answer, or the token may not see them.
    pub async fn has_problems(&self) -> Result<(), Failure> {
        let query = vec![("pageSize", "1".to_owned())];
        self.client.send_aside::<ProblemPage>(&Call::get(&["problems"], query, SCOPE)).await.map(|_| ())
    }

    fn problems_refused_until(&self) -> Option<Timestamp> {
        *self.problems_refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metric of each service apart; `None` where it cannot be told apart.
fn of_each_service(ask: &MetricAsk) -> Option<MetricAsk> {
    if is_dql(&ask.query) || ask.each.is_some() {
        return None;
    }
    metric_key(&ask.query)?;
    Some(MetricAsk { query: split_by_service(&ask.query), by_host: false, ..ask.clone() })
}

/// Whether a series that is absent stands for zeros.
pub(super) fn is_zero_by_default(query: &str) -> bool {
    query.replace(' ', "").contains(":default(0,always)")
}

pub(super) fn service_of(data: &DataSeries) -> Option<&str> {
    let named = data.dimension_map.get(SERVICE_DIMENSION).and_then(Option::as_deref);
    let first = || data.dimensions.iter().flatten().find(|value| value.starts_with("SERVICE-"));
    named.or_else(|| first().map(String::as_str))
}

/// What a problem says; `None` where its times make no sense. `seen_at` is the end of the window that it was asked for.
pub(super) fn problem(item: ProblemItem, own: &[String], seen_at: Timestamp) -> Option<Problem> {
    let started_at = Timestamp::from_millis(item.start_time);
    // An open problem ends at -1.
    let ended_at = item.end_time.filter(|end| *end > 0).map(Timestamp::from_millis);
    if item.start_time <= 0 || ended_at.is_some_and(|end| end < started_at) {
        return None;
    }
    let root = item.root_cause_entity.as_ref();
    // A process or host may be what the service runs on.
    let elsewhere =
        root.is_some_and(|root| root.entity_id.kind == "SERVICE" && !own.contains(&root.entity_id.id));
    Some(Problem {
        id: item.display_id,
        title: item.title,
        root_cause: root.map(|root| root.name.clone()).filter(|name| !name.is_empty()),
        elsewhere,
        started_at,
        ended_at,
        known_at: seen_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(root: Option<(&str, &str)>, end_time: Option<i64>) -> ProblemItem {
        let root =
            root.map(|(kind, id)| serde_json::json!({"entityId": {"id": id, "type": kind}, "name": "x"}));
        let item = serde_json::json!({
            "problemId": "-1_2V2", "displayId": "P-1", "title": "t", "severityLevel": "SOMETHING_NEW",
            "startTime": 60_000, "endTime": end_time, "rootCauseEntity": root,
        });
        serde_json::from_value(item).unwrap()
    }

    fn own() -> Vec<String> {
        vec!["SERVICE-1".to_owned()]
    }

    #[test]
    fn the_root_is_elsewhere_only_where_it_is_another_service() {
        let seen_at = Timestamp::from_millis(600_000);
        let elsewhere = |root| problem(item(root, Some(-1)), &own(), seen_at).unwrap().elsewhere;
        assert!(elsewhere(Some(("SERVICE", "SERVICE-2"))));
        for root in [None, Some(("SERVICE", "SERVICE-1")), Some(("HOST", "HOST-1"))] {
            assert!(!elsewhere(root), "{root:?}");
        }
    }

    #[test]
    fn an_open_problem_has_no_end_and_one_that_ends_before_it_begins_is_none() {
        let seen_at = Timestamp::from_millis(600_000);
        let of = |end| problem(item(None, end), &own(), seen_at);
        assert_eq!(of(Some(-1)).unwrap().ended_at, None);
        assert_eq!(of(None).unwrap().ended_at, None);
        assert_eq!(of(Some(90_000)).unwrap().ended_at, Some(Timestamp::from_millis(90_000)));
        assert_eq!(of(Some(30_000)), None);
        assert_eq!(of(None).unwrap().known_at, seen_at);
    }

    #[test]
    fn each_service_is_asked_for_apart() {
        let ask = |query: &str| MetricAsk {
            name: "m".into(),
            query: query.into(),
            unit: String::new(),
            by_host: true,
            each: None,
        };
        let split = |query: &str| of_each_service(&ask(query)).map(|ask| ask.query);
        assert_eq!(
            split("builtin:service.errors.total.count:splitBy():value:default(0,always)").unwrap(),
            "builtin:service.errors.total.count:splitBy(\"dt.entity.service\"):value:default(0,always)"
        );
        assert_eq!(split("builtin:service.response.time:avg").unwrap(), "builtin:service.response.time:avg");
        assert_eq!(split("(a:avg)/(b:avg)"), None);
        assert!(is_zero_by_default("a:value:default(0, always)") && !is_zero_by_default("a:value"));
        assert!(
            !is_zero_by_default("a:value:default(0)") && !is_zero_by_default("a:value:default(0.5,always)")
        );
    }
}
