//! Reads of several services at the same time, in calls that serve them all.

use super::answer::{DataSeries, MetricData, MetricResult};
use super::client::Call;
use super::normalise::warning;
use super::selector::{EntityKind, escape, split_by_service};
use super::surroundings::{is_zero_by_default, service_of};
use super::{Dynatrace, Prepared, SCOPE};
use crate::source::{Failure, FailureKind};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vouch_proto::Window;

const SERVICE_SPLIT: &str = "splitBy(\"dt.entity.service\"";
const INSTANCE: &str = "dt.entity.process_group_instance";
const METHOD: &str = "dt.entity.service_method";
/// Services asked for in one call: so many ids fit into an entity selector, which may hold 2,000 characters.
pub(super) const SERVICES_PER_CALL: usize = 68;

/// How values of several processes become one of their service, slot by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    Mean,
    Sum,
    Least,
    Most,
}

/// How a metric is asked for many services at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JointForm {
    /// Tells the services apart, or what runs them.
    pub(super) selector: String,
    /// Where processes were told apart that are meant together.
    pub(super) merge: Option<Merge>,
    /// A service without a series has zeros: what `:default(0,always)` says of an empty split alone.
    pub(super) zero: bool,
}

/// What is asked for together: selectors of like entities.
pub(super) type Key = (EntityKind, Vec<String>);

/// Services by the process that runs them, or by their requests.
type Owners = BTreeMap<String, Arc<Vec<String>>>;

/// The answer of one call, and the services that it was about.
#[derive(Debug)]
pub(super) struct Part {
    services: BTreeSet<String>,
    /// One call that fails is no failure of the others.
    pub(super) data: Result<MetricData, Failure>,
    /// Where processes or requests were told apart: the services that they run, or belong to.
    owners: Owners,
}

impl JointForm {
    /// Of a query; `None` where its services cannot be told apart.
    pub(super) fn of(query: &str, kind: EntityKind, by_host: bool) -> Option<Self> {
        // These look at all series of the answer, which then are not those of one service.
        if [":limit(", ":sort(", ":merge("].iter().any(|across| query.contains(across)) {
            return None;
        }
        let splits = query.matches(":splitBy(").count();
        let plain = |selector: &str| Some(Self { selector: selector.to_owned(), merge: None, zero: false });
        match kind {
            EntityKind::Service if splits == 1 && query.contains(":splitBy()") => {
                super::selector::metric_key(query)?;
                if query.contains(":default(") && !is_zero_by_default(query) {
                    return None;
                }
                let form = plain(&split_by_service(query))?;
                Some(Self { zero: is_zero_by_default(query), ..form })
            }
            EntityKind::Service if splits > 0 && query.matches(SERVICE_SPLIT).count() == splits => {
                plain(query)
            }
            // Calculated service metrics have the service beside what they are split by.
            EntityKind::Service
                if splits == 1 && by_host && query.trim_start().starts_with("calc:service.") =>
            {
                super::selector::metric_key(query)?;
                let (before, after) = query.split_once(":splitBy(")?;
                plain(&format!("{before}:{SERVICE_SPLIT},{after}"))
            }
            EntityKind::ProcessGroupInstance if splits == 1 && by_host && query.contains(INSTANCE) => {
                plain(query)
            }
            EntityKind::ProcessGroupInstance if splits == 1 && !by_host => Self::of_processes(query),
            EntityKind::ServiceMethod if splits == 1 && query.contains(METHOD) => plain(query),
            EntityKind::Service
            | EntityKind::ServiceMethod
            | EntityKind::ProcessGroupInstance
            | EntityKind::Host
            | EntityKind::Container
            | EntityKind::Workload
            | EntityKind::Other => None,
        }
    }

    /// What the API would aggregate over the processes of one service is aggregated here, where that is the same.
    fn of_processes(query: &str) -> Option<Self> {
        let (before, aggregation) = query.trim().rsplit_once(":splitBy():")?;
        let merge = match aggregation {
            "avg" => Merge::Mean,
            "sum" => Merge::Sum,
            "min" => Merge::Least,
            "max" => Merge::Most,
            _ => return None,
        };
        super::selector::metric_key(query)?;
        let selector = format!("{before}:splitBy(\"{INSTANCE}\"):{aggregation}");
        Some(Self { selector, merge: Some(merge), zero: false })
    }
}

impl Dynatrace {
    /// The data of one service; with those of others in the same call where they are asked for at the same time.
    pub(super) async fn data_of(
        &self,
        window: Window,
        service: &str,
        some: &[Prepared<'_>],
    ) -> Result<MetricData, Failure> {
        let kind = some.first().map_or(EntityKind::Other, |q| q.kind);
        let forms: Option<Vec<&JointForm>> = some.iter().map(|q| q.joint.as_ref()).collect();
        let mut data = match forms {
            Some(forms) => {
                let selectors = forms.iter().map(|form| form.selector.clone()).collect();
                let members = BTreeSet::from([service.to_owned()]);
                let parts = self.joint_data((kind, selectors), (&members, window)).await;
                let parts = parts.as_ref().as_ref().map_err(Clone::clone)?;
                let part = parts.iter().find(|part| part.services.contains(service));
                let part = part.ok_or_else(|| {
                    Failure::new(FailureKind::BadAnswer, "a service was left out of its call")
                })?;
                part.own(service, kind)?
            }
            None => {
                let selectors: Vec<String> =
                    some.iter().map(|q| kind.restricted(q.alone(), service)).collect();
                let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
                self.metric_data(window, kind.selector(service), &selectors).await?
            }
        };
        for (query, result) in some.iter().zip(&mut data.result) {
            if let Some(merge) = query.joint.as_ref().and_then(|form| form.merge) {
                result.data = merged(&result.data, merge);
            }
        }
        Ok(data)
    }

    /// The data of several services, told apart, in as few calls as their ids fit into.
    pub(super) async fn joint_data(
        &self,
        key: Key,
        (services, window): (&BTreeSet<String>, Window),
    ) -> Arc<Result<Vec<Part>, Failure>> {
        let run = |members: BTreeSet<String>, hull: Window| {
            let key = &key;
            async move {
                let members: Vec<String> = members.into_iter().collect();
                let calls = members.chunks(SERVICES_PER_CALL).map(|some| self.parts(key, some, hull));
                Ok(join_all(calls).await.into_iter().flatten().collect())
            }
        };
        self.joint.join(&key, (services, window), run).await
    }

    /// One call about some services; where its answer is not sure about each of them, one for each half of them.
    async fn parts(&self, key: &Key, services: &[String], window: Window) -> Vec<Part> {
        let read = self.told_apart(key, services, window).await;
        let (one, other) = services.split_at(services.len() / 2);
        if services.len() > 1 && is_unsure(&read, services, key.0) {
            let mut all = Box::pin(self.parts(key, one, window)).await;
            all.extend(Box::pin(self.parts(key, other, window)).await);
            return all;
        }
        let (data, owners) = match read {
            Ok((data, owners)) => (Ok(data), owners),
            Err(failure) => (Err(failure), BTreeMap::new()),
        };
        vec![Part { services: services.iter().cloned().collect(), data, owners }]
    }

    /// One call about several services, and who runs on the processes that it names.
    async fn told_apart(
        &self,
        (kind, selectors): &Key,
        services: &[String],
        window: Window,
    ) -> Result<(MetricData, Owners), Failure> {
        let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
        let data = self.metric_data(window, kind.selector_of(services), &selectors).await?;
        let mut owners = BTreeMap::new();
        if services.len() > 1 {
            // Their names are known by then as well.
            let seen =
                data.result.iter().flat_map(|r| &r.data).filter_map(|one| member_of(one, *kind)).collect();
            owners = self.entities.services_of(&self.client, *kind, (&seen, window)).await?;
        }
        Ok((data, owners))
    }

    /// One call of `metrics/query`.
    async fn metric_data(
        &self,
        window: Window,
        entities: Option<String>,
        selectors: &[&str],
    ) -> Result<MetricData, Failure> {
        let mut query = vec![
            ("metricSelector", selectors.join(",")),
            ("resolution", "1m".to_owned()),
            ("from", window.start().as_millis().to_string()),
            ("to", window.end().as_millis().to_string()),
        ];
        query.extend(entities.map(|s| ("entitySelector", s)));
        let data: MetricData = self.client.send(&Call::get(&["metrics", "query"], query, SCOPE)).await?;
        if data.result.len() != selectors.len() {
            let message = format!(
                "metrics/query answered {} results for {} metrics",
                data.result.len(),
                selectors.len()
            );
            return Err(Failure::new(FailureKind::BadAnswer, message));
        }
        Ok(data)
    }
}

/// Whether fewer services might get a better answer: what was too much, or a process that none of them is known to run.
fn is_unsure(read: &Result<(MetricData, Owners), Failure>, services: &[String], kind: EntityKind) -> bool {
    match read {
        // A tenant that is slow throughout is not asked more and more.
        Err(failure) if failure.kind == FailureKind::Timeout => services.len() > SERVICES_PER_CALL / 2,
        Err(failure) => failure.kind == FailureKind::TooLarge,
        Ok((data, owners)) => {
            let warnings = data.warnings.iter().chain(data.result.iter().filter_map(|r| r.warnings.as_ref()));
            let is_cut = |text: &String| warning(text).is_some_and(|f| f.kind == FailureKind::Incomplete);
            let is_owned = |data: &DataSeries| {
                let owner = member_of(data, kind).and_then(|member| owners.get(member));
                owner.is_some_and(|owner| owner.iter().any(|one| services.contains(one)))
            };
            let mut series = data.result.iter().flat_map(|r| &r.data);
            warnings.flatten().any(is_cut)
                || (kind != EntityKind::Service && series.any(|data| !is_owned(data)))
        }
    }
}

impl Part {
    /// What the call answered about one of its services.
    fn own(&self, service: &str, kind: EntityKind) -> Result<MetricData, Failure> {
        let is_own = |data: &DataSeries| match kind {
            _ if self.services.len() == 1 => true,
            EntityKind::Service => service_of(data) == Some(service),
            EntityKind::ServiceMethod
            | EntityKind::ProcessGroupInstance
            | EntityKind::Host
            | EntityKind::Container
            | EntityKind::Workload
            | EntityKind::Other => {
                let owner = member_of(data, kind).and_then(|member| self.owners.get(member));
                owner.is_some_and(|services| services.iter().any(|one| one == service))
            }
        };
        Ok(only(self.data.as_ref().map_err(Clone::clone)?, is_own))
    }

    /// Whether it was asked about a service.
    pub(super) fn is_about(&self, service: &str) -> bool {
        self.services.contains(service)
    }
}

/// The series that are wanted.
fn only(data: &MetricData, wanted: impl Fn(&DataSeries) -> bool) -> MetricData {
    let result = |result: &MetricResult| MetricResult {
        metric_id: result.metric_id.clone(),
        warnings: result.warnings.clone(),
        data: result.data.iter().filter(|data| wanted(data)).cloned().collect(),
    };
    MetricData {
        next_page_key: data.next_page_key.clone(),
        resolution: data.resolution.clone(),
        warnings: data.warnings.clone(),
        result: data.result.iter().map(result).collect(),
    }
}

impl EntityKind {
    /// The selector of these entities for several services; `None` where the query decides.
    fn selector_of(self, services: &[String]) -> Option<String> {
        let ids: Vec<String> = services.iter().map(|id| format!("\"{}\"", escape(id))).collect();
        self.selector_of_ids(&ids.join(","))
    }
}

/// The process, or the request, that a series is about.
fn member_of(data: &DataSeries, kind: EntityKind) -> Option<&str> {
    let (key, prefix) = match kind {
        EntityKind::ServiceMethod => (METHOD, "SERVICE_METHOD-"),
        EntityKind::Service
        | EntityKind::ProcessGroupInstance
        | EntityKind::Host
        | EntityKind::Container
        | EntityKind::Workload
        | EntityKind::Other => (INSTANCE, "PROCESS_GROUP_INSTANCE-"),
    };
    let named = data.dimension_map.get(key).and_then(Option::as_deref);
    let first = || data.dimensions.iter().flatten().find(|value| value.starts_with(prefix));
    named.or_else(|| first().map(String::as_str))
}

/// One series of several, slot by slot; a slot without any value is a gap.
fn merged(all: &[DataSeries], merge: Merge) -> Vec<DataSeries> {
    let mut slots: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for data in all {
        for (stamp, value) in data.timestamps.iter().zip(&data.values) {
            slots.entry(*stamp).or_default().extend(*value);
        }
    }
    if all.is_empty() {
        return Vec::new();
    }
    let of = |values: &Vec<f64>| {
        let sum = || values.iter().sum::<f64>();
        match merge {
            _ if values.is_empty() => None,
            Merge::Mean => Some(sum() / values.len() as f64),
            Merge::Sum => Some(sum()),
            Merge::Least => values.iter().copied().reduce(f64::min),
            Merge::Most => values.iter().copied().reduce(f64::max),
        }
    };
    vec![DataSeries {
        dimensions: Vec::new(),
        dimension_map: BTreeMap::new(),
        timestamps: slots.keys().copied().collect(),
        values: slots.values().map(of).collect(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_asked_jointly_where_its_services_can_be_told_apart() {
        let form = |query: &str, kind, by_host| {
            JointForm::of(query, kind, by_host).map(|form| (form.selector, form.merge))
        };
        let (service, process) = (EntityKind::Service, EntityKind::ProcessGroupInstance);
        assert_eq!(
            form("builtin:service.response.time:splitBy():avg", service, false),
            Some(("builtin:service.response.time:splitBy(\"dt.entity.service\"):avg".to_owned(), None))
        );
        let zero = JointForm::of("a:splitBy():value:default(0,always)", service, false).unwrap();
        assert!(zero.zero && zero.selector.starts_with("a:splitBy(\"dt.entity.service\")"), "{zero:?}");
        let ratio = "a:splitBy(\"dt.entity.service\"):value / b:splitBy(\"dt.entity.service\"):value";
        assert_eq!(form(ratio, service, false), Some((ratio.to_owned(), None)));
        assert_eq!(
            form("builtin:tech.generic.cpu.usage:splitBy():avg", process, false),
            Some((
                "builtin:tech.generic.cpu.usage:splitBy(\"dt.entity.process_group_instance\"):avg".to_owned(),
                Some(Merge::Mean)
            ))
        );
        assert_eq!(
            form("calc:service.rt:splitBy(\"dt.entity.process_group_instance\"):avg", service, true),
            Some((
                "calc:service.rt:splitBy(\"dt.entity.service\",\"dt.entity.process_group_instance\"):avg"
                    .to_owned(),
                None
            ))
        );
        for (query, kind, by_host) in [
            ("a:splitBy():value / b:splitBy():value", service, false),
            ("a:splitBy():value:default(1,always)", service, false),
            ("builtin:service.response.time:avg", service, false),
            (
                "builtin:service.response.time:splitBy():avg:sort(value(avg,descending)):limit(10)",
                service,
                false,
            ),
            ("a:splitBy(\"dt.entity.service\"):value / b:splitBy(\"x\"):value", service, false),
            ("a:splitBy(\"x\"):sum:splitBy():max", service, false),
            ("builtin:tech.generic.cpu.usage:splitBy():percentile(95)", process, false),
            ("builtin:tech.generic.cpu.usage:splitBy(\"dt.entity.host\"):avg", process, true),
            ("builtin:host.cpu.usage:splitBy():avg", EntityKind::Host, false),
        ] {
            assert_eq!(form(query, kind, by_host), None, "{query}");
        }
    }

    #[test]
    fn the_ids_of_a_call_fit_into_a_selector() {
        let ids: Vec<String> = (0..SERVICES_PER_CALL).map(|i| format!("SERVICE-{i:016X}")).collect();
        for kind in [EntityKind::Service, EntityKind::ProcessGroupInstance, EntityKind::Host] {
            let selector = kind.selector_of(&ids).unwrap();
            assert!(selector.len() <= 2000, "{}", selector.len());
        }
    }

    #[test]
    fn processes_are_taken_together_slot_by_slot() {
        let data = |stamps: &[i64], values: &[Option<f64>]| DataSeries {
            dimensions: vec![],
            dimension_map: BTreeMap::new(),
            timestamps: stamps.to_vec(),
            values: values.to_vec(),
        };
        let all = [data(&[1, 2, 3], &[Some(1.0), None, None]), data(&[1, 2], &[Some(3.0), Some(5.0)])];
        let of = |merge| merged(&all, merge)[0].values.clone();
        assert_eq!(of(Merge::Mean), [Some(2.0), Some(5.0), None]);
        assert_eq!(of(Merge::Sum), [Some(4.0), Some(5.0), None]);
        assert_eq!((of(Merge::Least)[0], of(Merge::Most)[0]), (Some(1.0), Some(3.0)));
        assert_eq!(merged(&[], Merge::Mean).len(), 0);
    }
}
