//! Where data for each host, pod or version of a service comes from: what the descriptors say, not what one would wish.

use super::Dynatrace;
use super::answer::{Descriptor, MetricPage};
use super::client::Call;
use super::entities::Process;
use super::instances::Target;
use super::selector::metric_key;
use super::timeseries::is_dql;
use crate::rules::Named;
use crate::source::Failure;
use vouch_proto::{Name, VerificationTemplate};

const SCOPE: &str = "metrics.read";
/// Most pages of calculated metrics that are looked at.
const PAGES: usize = 20;
/// Dimensions that tell hosts, pods or versions apart.
const TELLS_APART: [&str; 9] = [
    "dt.entity.process_group_instance",
    "dt.entity.container_group_instance",
    "dt.entity.host",
    "k8s.pod.name",
    "pod",
    "host",
    "version",
    "release",
    "dt.release_version",
];

/// What there is about one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splits {
    /// The service's entity; the first of several.
    pub entity_id: String,
    /// Its entities, where the rules allow for several: with their versions and sides.
    pub instances: Option<Vec<Named>>,
    /// What runs it.
    pub processes: Vec<Process>,
    /// The metrics of the template.
    pub metrics: Vec<MetricSplit>,
    /// Calculated service metrics that tell hosts or versions apart: key and dimensions.
    pub calculated: Vec<(String, Vec<String>)>,
}

/// What one metric of a template can be split by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSplit {
    /// Its name in the template.
    pub name: String,
    /// The metric's key; the query where it is an expression.
    pub key: String,
    /// The dimensions that its descriptor has; or why it cannot be read.
    pub dimensions: Result<Vec<String>, String>,
    /// Those that tell hosts, pods or versions apart.
    pub tells_apart: Vec<String>,
}

impl Dynatrace {
    /// What the descriptors say about a service's metrics.
    ///
    /// # Errors
    /// Where the service is not found, or the tenant does not answer.
    pub async fn splits(
        &self,
        environment: &Name,
        service: &Name,
        template: &VerificationTemplate,
    ) -> Result<Splits, Failure> {
        let target = self.entities.target(&self.client, environment, service).await?;
        let ids = target.ids();
        let instances = match target {
            Target::One(_) => None,
            Target::Several(group) => Some(group.entities.clone()),
        };
        let mut processes: Vec<Process> = Vec::new();
        for id in &ids {
            let found = self.entities.processes_of(&self.client, id).await?;
            processes.extend(found.into_iter().filter(|one| !processes.contains(one)).collect::<Vec<_>>());
        }
        let mut metrics = Vec::new();
        for metric in &template.metrics {
            metrics.push(self.split_of(&metric.name, &metric.query).await?);
            if let Some(query) = &metric.host_query {
                metrics.push(self.split_of(&format!("{}, by host", metric.name), query).await?);
            }
        }
        let entity_id = ids.into_iter().next().unwrap_or_default();
        Ok(Splits { entity_id, instances, processes, metrics, calculated: self.calculated().await? })
    }

    async fn split_of(&self, name: &str, query: &str) -> Result<MetricSplit, Failure> {
        let of = |key: String, dimensions: Result<Vec<String>, String>| {
            let known = dimensions.iter().flatten().filter(|key| tells_apart(key)).cloned().collect();
            MetricSplit { name: name.to_owned(), key, dimensions, tells_apart: known }
        };
        let key = if is_dql(query) { None } else { metric_key(query) };
        let Some(key) = key else {
            return Ok(of(
                query.to_owned(),
                Err("an expression, or a query in DQL: it says itself what it is split by".to_owned()),
            ));
        };
        Ok(match self.descriptor(&key).await {
            Ok(descriptor) => of(key, Ok(dimensions(&descriptor))),
            Err(failure)
                if failure.kind.is_about_a_query()
                    || failure.kind == crate::source::FailureKind::UnknownMetric =>
            {
                of(key, Err(failure.to_string()))
            }
            Err(failure) => return Err(failure),
        })
    }

    /// Calculated service metrics that tell hosts or versions apart.
    async fn calculated(&self) -> Result<Vec<(String, Vec<String>)>, Failure> {
        let mut query = vec![
            ("metricSelector", "calc:service.*".to_owned()),
            ("fields", "+dimensionDefinitions".to_owned()),
            ("pageSize", "500".to_owned()),
        ];
        let mut found = Vec::new();
        for _ in 0..PAGES {
            let page: MetricPage = self.client.send(&Call::get(&["metrics"], query, SCOPE)).await?;
            let of = |descriptor: Descriptor| {
                let dimensions = dimensions(&descriptor);
                let key = descriptor.metric_id?;
                dimensions.iter().any(|key| tells_apart(key)).then_some((key, dimensions))
            };
            found.extend(page.metrics.into_iter().filter_map(of));
            match page.next_page_key.filter(|key| !key.is_empty()) {
                Some(key) => query = vec![("nextPageKey", key)],
                None => break,
            }
        }
        Ok(found)
    }
}

pub(super) fn dimensions(descriptor: &Descriptor) -> Vec<String> {
    descriptor.dimension_definitions.iter().map(|one| one.key.clone()).collect()
}

fn tells_apart(key: &str) -> bool {
    TELLS_APART.iter().any(|known| key.eq_ignore_ascii_case(known))
}
