//! Services and their instances: from a name to the entity that metrics are asked for, and back to names.

use super::answer::Entity;
use super::batcher::Batcher;
use super::client::Client;
use super::facts::{describe, described};
use super::instances::Instances;
use super::listing::{list, list_since, list_with};
use super::selector::{EntityKind, escape};
use crate::config::ServiceMapping;
use crate::rules::{Facts, Matching, Named, Rule};
use crate::source::topology::{Topology, Unrelated};
use crate::source::{Failure, FailureKind, KnownService};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vouch_proto::{Name, Timestamp, Window};

/// How long an id that was found for a name is used.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// How soon services are listed anew for a name that no rule knows.
const MISSED_FRESH: Duration = Duration::from_secs(60);
/// How long a process that runs no service is believed.
const UNRELATED_FRESH: Duration = Duration::from_secs(60);
/// Most names that are remembered of each sort.
const REMEMBERED: usize = 50_000;
/// Ids asked for in one selector, which may hold 2,000 characters.
const IDS_PER_CALL: usize = 30;
/// Characters of names in one selector, beside what else it holds.
const NAMES_LENGTH: usize = 1900;
/// The field that says which services a process runs.
const RUNS: &str = "+toRelationships.runsOnProcessGroupInstance";
/// The field that says which service a request belongs to.
const BELONGS: &str = "+fromRelationships.isServiceMethodOfService";
/// So many processes are looked up one by one; more are listed with all others.
const FEW_PROCESSES: usize = 300;
/// The field that says whom an entity calls.
const CALLS: &str = "+fromRelationships.calls";

/// The services that a process runs, and when that was looked up.
type Owned = (Arc<Vec<String>>, Timestamp);

/// What the rules made of the services, or why not, and when that was tried.
type Tried = (Result<Arc<Matching>, Failure>, Timestamp);

/// What is known of the tenant's entities.
#[derive(Debug, Default)]
pub(super) struct Entities {
    mappings: Vec<ServiceMapping>,
    rules: Vec<Rule>,
    /// What the rules made of the tenant's services, and when.
    matching: tokio::sync::Mutex<Option<Tried>>,
    services: Mutex<BTreeMap<String, (String, Timestamp)>>,
    /// Looks up who is named so, for all that ask at once.
    finding: Batcher<(), Vec<Entity>>,
    names: Mutex<BTreeMap<String, String>>,
    /// Services by the process that runs them, and when that was looked up.
    owners: Mutex<BTreeMap<String, Owned>>,
    looking: tokio::sync::Mutex<()>,
    topology: tokio::sync::Mutex<Option<(Arc<Topology>, Timestamp)>>,
    /// Services that are several entities.
    pub(super) instances: Instances,
}

impl Entities {
    pub(super) fn new(mappings: Vec<ServiceMapping>, rules: Vec<Rule>) -> Self {
        Self { mappings, rules, ..Self::default() }
    }

    /// The entity of a service: as the settings map it, else the one of that name.
    pub(super) async fn service(
        &self,
        client: &Client,
        environment: &Name,
        service: &Name,
    ) -> Result<String, Failure> {
        let mapping = self.mapping(environment, service);
        if let Some(id) = mapping.and_then(|m| m.entity_id.clone()) {
            return Ok(id);
        }
        if mapping.is_none()
            && let Some(id) = self.by_rules(client, environment, service).await?
        {
            return Ok(id);
        }
        let name = mapping.and_then(|m| m.entity_name.clone()).unwrap_or_else(|| service.to_string());
        let id = self.of_display_name(client, name).await?;
        if mapping.is_none() && self.is_named_otherwise(client, &id, (environment, service)).await? {
            let message = format!(
                "no rule names a service `{service}` in `{environment}`; the one of that display name ({id}) is named otherwise, `vouch services` shows how"
            );
            return Err(Failure::new(FailureKind::UnknownService, message));
        }
        Ok(id)
    }

    fn mapping(&self, environment: &Name, service: &Name) -> Option<&ServiceMapping> {
        let is_meant = |m: &&ServiceMapping| {
            m.service == *service && m.environment.as_ref().is_none_or(|e| e == environment)
        };
        self.mappings.iter().find(is_meant)
    }

    /// Whether the settings name the entity of a service.
    pub(super) fn is_mapped(&self, environment: &Name, service: &Name) -> bool {
        self.mapping(environment, service).is_some()
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a rule makes several entities one service.
    pub(super) fn allows_instances(&self) -> bool {
        self.rules.iter().any(|rule| rule.instances.is_some())
    }

    /// The one service of a display name, as it was at most ten minutes ago.
    async fn of_display_name(&self, client: &Client, name: String) -> Result<String, Failure> {
        if let Some((id, at)) = self.services.lock().unwrap_or_else(PoisonError::into_inner).get(&name)
            && client.now().since(*at) < FRESH
        {
            return Ok(id.clone());
        }
        let always = Window::around(Timestamp::from_millis(0), 0, 1);
        let always = always.map_err(|e| Failure::new(FailureKind::BadAnswer, e.to_string()))?;
        let wanted = BTreeSet::from([name.clone()]);
        let found = self.finding.join(&(), (&wanted, always), |names, _| named(client, names)).await;
        let found = found.as_ref().as_ref().map_err(Clone::clone)?;
        let same = found.iter().filter(|entity| entity.display_name.to_lowercase() == name.to_lowercase());
        let id = pick(&name, same.cloned().collect())?;
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.len() >= REMEMBERED {
            services.clear();
        }
        services.insert(name, (id.clone(), client.now()));
        Ok(id)
    }

    /// The entity that the rules name so; `None` where there is none, or there are no rules.
    async fn by_rules(
        &self,
        client: &Client,
        environment: &Name,
        service: &Name,
    ) -> Result<Option<String>, Failure> {
        let Some(matching) = self.matching_for(client, (environment, service)).await? else {
            return Ok(None);
        };
        match matching.find(environment, service).as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.entity_id.clone())),
            many => {
                let ids: Vec<&str> = many.iter().map(|one| one.entity_id.as_str()).take(5).collect();
                let message = format!(
                    "the rules name {} services `{service}` ({}); tell them apart in `services`, `vouch services` shows what they have",
                    many.len(),
                    ids.join(", ")
                );
                Err(Failure::new(FailureKind::AmbiguousService, message))
            }
        }
    }

    /// What the rules make of the tenant's services; listed anew where they know none of a name. `None` without rules.
    pub(super) async fn matching_for(
        &self,
        client: &Client,
        (environment, service): (&Name, &Name),
    ) -> Result<Option<Arc<Matching>>, Failure> {
        let matching = self.matching(client, FRESH).await?;
        let is_missing = |known: &Arc<Matching>| known.find(environment, service).is_empty();
        // It may be new.
        if matching.as_ref().is_some_and(is_missing) {
            self.matching(client, MISSED_FRESH).await
        } else {
            Ok(matching)
        }
    }

    /// What the rules make of the tenant's services, no older than `fresh`; `None` without rules. One that cannot be
    /// renewed stands on, and is tried again after a minute.
    async fn matching(&self, client: &Client, fresh: Duration) -> Result<Option<Arc<Matching>>, Failure> {
        if self.rules.is_empty() {
            return Ok(None);
        }
        let mut known = self.matching.lock().await;
        let now = client.now();
        if let Some((known, tried)) = &*known
            && (now.since(*tried) < fresh.min(if known.is_ok() { FRESH } else { MISSED_FRESH }))
        {
            return known.clone().map(Some);
        }
        let listed = self.all_services(client).await;
        let renewed = match (listed, known.take()) {
            (Ok(services), _) => Ok(Arc::new(Matching::of(&self.rules, &services))),
            (Err(failure), Some((Ok(old), _))) => {
                tracing::warn!(%failure, "services are not listed anew; the rules stand as they were");
                Ok(old)
            }
            (Err(failure), _) => Err(failure),
        };
        *known = Some((renewed.clone(), now));
        renewed.map(Some)
    }

    /// Whether the rules name an entity otherwise than it is asked for.
    async fn is_named_otherwise(
        &self,
        client: &Client,
        id: &str,
        (environment, service): (&Name, &Name),
    ) -> Result<bool, Failure> {
        let Some(matching) = self.matching(client, FRESH).await? else { return Ok(false) };
        let other = |one: &&Named| {
            let elsewhere = one.environment.as_ref().is_some_and(|held| held != environment);
            one.entity_id == id && (one.service != *service || elsewhere)
        };
        Ok(matching.all().any(|one| other(&one)))
    }

    /// Forgets a service, so that its id is looked up anew, and what the rules made of it.
    pub(super) async fn forget(&self, id: &str, now: Timestamp) {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (known, _)| known != id);
        if let Some((_, tried)) = self.matching.lock().await.as_mut()
            && now.since(*tried) >= MISSED_FRESH
        {
            // What is known stands until services are listed anew.
            *tried = tried.minus(FRESH);
        }
    }

    /// Display names of entity ids; an id that the tenant does not know has none.
    pub(super) async fn names(
        &self,
        client: &Client,
        ids: &[String],
    ) -> Result<BTreeMap<String, String>, Failure> {
        let mut all: BTreeMap<String, String> = {
            let known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            ids.iter().filter_map(|id| Some((id.clone(), known.get(id)?.clone()))).collect()
        };
        let unknown: Vec<&String> = ids.iter().filter(|id| !all.contains_key(*id)).collect();
        for some in unknown.chunks(IDS_PER_CALL) {
            let quoted: Vec<String> = some.iter().map(|id| format!("\"{}\"", escape(id))).collect();
            let entities = list(client, &format!("entityId({})", quoted.join(","))).await?;
            let mut known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            let found: Vec<(String, String)> =
                entities.into_iter().map(|e| (e.entity_id, e.display_name)).collect();
            known.extend(found.iter().cloned());
            all.extend(found);
        }
        Ok(all)
    }

    /// The services that processes run, by the process, or that requests belong to; one that the tenant does not know
    /// has none.
    pub(super) async fn services_of(
        &self,
        client: &Client,
        kind: EntityKind,
        (processes, window): (&BTreeSet<&str>, Window),
    ) -> Result<BTreeMap<String, Arc<Vec<String>>>, Failure> {
        if processes.is_empty() {
            return Ok(BTreeMap::new());
        }
        // Who comes while they are looked up finds them known.
        let _turn = self.looking.lock().await;
        let unknown: Vec<&str> = {
            let known = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known = |id: &&str| {
                // A process that has just begun may not be related to its service yet.
                let fresh =
                    |services: &Vec<String>| if services.is_empty() { UNRELATED_FRESH } else { FRESH };
                known.get(*id).is_some_and(|(services, at)| client.now().since(*at) < fresh(services))
            };
            processes.iter().copied().filter(|id| !is_known(id)).collect()
        };
        // What ran in an old window may be gone since; the list holds three days where nothing is said.
        let since = window.start();
        let mut found = Vec::new();
        let is_request = kind == EntityKind::ServiceMethod;
        let (all, fields) = if is_request {
            ("type(\"SERVICE_METHOD\")", BELONGS)
        } else {
            ("type(\"PROCESS_GROUP_INSTANCE\")", RUNS)
        };
        if unknown.len() > FEW_PROCESSES {
            found = list_since(client, all, (fields, since)).await?;
        } else {
            for some in unknown.chunks(IDS_PER_CALL) {
                let quoted: Vec<String> = some.iter().map(|id| format!("\"{}\"", escape(id))).collect();
                let selector = format!("entityId({})", quoted.join(","));
                found.extend(list_since(client, &selector, (fields, since)).await?);
            }
        }
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= REMEMBERED {
            let now = client.now();
            owners.retain(|id, (_, at)| processes.contains(id.as_str()) || now.since(*at) < FRESH);
        }
        // What the tenant does not know runs nothing, for now.
        let now = client.now();
        owners.extend(unknown.iter().map(|id| ((*id).to_owned(), (Arc::default(), now))));
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= REMEMBERED {
            names.clear();
        }
        for process in found {
            let services = if is_request {
                process.from_relationships.is_service_method_of_service
            } else {
                process.to_relationships.runs_on_process_group_instance
            };
            let services = services.into_iter().map(|service| service.id).collect();
            owners.insert(process.entity_id.clone(), (Arc::new(services), now));
            names.insert(process.entity_id, process.display_name);
        }
        let known = processes.iter().filter_map(|id| Some(((*id).to_owned(), owners.get(*id)?.0.clone())));
        Ok(known.collect())
    }

    /// What runs a service.
    pub(super) async fn processes_of(&self, client: &Client, service: &str) -> Result<Vec<Process>, Failure> {
        let Some(selector) = EntityKind::ProcessGroupInstance.selector(service) else {
            return Ok(Vec::new());
        };
        let found = list_with(client, &selector, Some("+properties.releasesVersion")).await?;
        let process = |e: Entity| Process {
            entity_id: e.entity_id,
            name: e.display_name,
            version: e.properties.releases_version.filter(|version| !version.is_empty()),
        };
        Ok(found.into_iter().map(process).collect())
    }

    /// Who calls whom, as it was at most ten minutes ago. Who asks meanwhile waits for the same answer.
    pub(super) async fn topology(&self, client: &Client) -> Result<Arc<Topology>, Failure> {
        let mut known = self.topology.lock().await;
        if let Some((topology, at)) = &*known
            && client.now().since(*at) < FRESH
        {
            return Ok(topology.clone());
        }
        let mut topology = Topology::default();
        for entity in list_with(client, "type(\"SERVICE\")", Some(CALLS)).await? {
            let calls = entity.from_relationships.calls.into_iter().map(|callee| callee.id);
            topology.add(entity.entity_id, entity.display_name, calls);
        }
        let topology = Arc::new(topology);
        *known = Some((topology.clone(), client.now()));
        Ok(topology)
    }

    /// The name that deployments use for a service of the tenant; `None` where it can be none, or is not sure.
    pub(super) async fn deployed_name(
        &self,
        client: &Client,
        service: &Unrelated,
        environment: &Name,
    ) -> Result<Option<Name>, Failure> {
        let is_meant = |m: &&ServiceMapping| {
            let is_here = m.environment.as_ref().is_none_or(|e| e == environment);
            let by_id = m.entity_id.as_ref() == Some(&service.id);
            is_here && (by_id || m.entity_name.as_ref() == Some(&service.name))
        };
        if let Some(mapping) = self.mappings.iter().find(is_meant) {
            return Ok(Some(mapping.service.clone()));
        }
        Ok(match self.matching(client, FRESH).await? {
            None => Name::new(service.name.clone()).ok(),
            // Nobody knows when one without a name was deployed.
            Some(matching) => {
                let is_here = |one: &&Named| one.environment.as_ref().is_none_or(|e| e == environment);
                let named = matching.named.iter().filter(is_here).find(|one| one.entity_id == service.id);
                named.map(|one| one.service.clone())
            }
        })
    }

    /// Every service of the tenant; with what rules look at, where there are rules.
    pub(super) async fn all_services(&self, client: &Client) -> Result<Vec<KnownService>, Failure> {
        if self.rules.is_empty() {
            let service = |e: Entity| KnownService {
                name: e.display_name,
                entity_id: e.entity_id,
                facts: Facts::default(),
                tenant: 0,
            };
            return Ok(list(client, "type(\"SERVICE\")").await?.into_iter().map(service).collect());
        }
        self.described_services(client).await
    }

    /// Every service of the tenant with its tags and zones, and with what its processes say about themselves.
    pub(super) async fn described_services(&self, client: &Client) -> Result<Vec<KnownService>, Failure> {
        let services = list_with(client, "type(\"SERVICE\")", Some("+tags,+managementZones")).await?;
        let of_processes = "+properties.metadata,+properties.releasesVersion,+tags,+toRelationships.runsOnProcessGroupInstance";
        let processes = list_with(client, "type(\"PROCESS_GROUP_INSTANCE\")", Some(of_processes)).await?;
        let mut known: BTreeMap<String, KnownService> = services.into_iter().map(described).collect();
        for process in processes {
            for service in &process.to_relationships.runs_on_process_group_instance {
                if let Some(service) = known.get_mut(&service.id) {
                    describe(&mut service.facts, &process);
                }
            }
        }
        known.values_mut().for_each(|service| {
            service.facts.tags.sort();
            service.facts.tags.dedup();
        });
        Ok(known.into_values().collect())
    }
}

/// A process that runs a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Of a process group instance.
    pub entity_id: String,
    /// Its display name: that of the pod, mostly.
    pub name: String,
    /// The version that Dynatrace detects.
    pub version: Option<String>,
}

/// The services of some names.
async fn named(client: &Client, names: BTreeSet<String>) -> Result<Vec<Entity>, Failure> {
    let mut found = Vec::new();
    for some in fitting(&names) {
        let selector = match some.as_slice() {
            [one] => format!("type(\"SERVICE\"),entityName.equals({one})"),
            many => format!("type(\"SERVICE\"),entityName.in({})", many.join(",")),
        };
        found.extend(list(client, &selector).await?);
    }
    Ok(found)
}

/// Names, quoted, as many together as fit into a selector.
fn fitting(names: &BTreeSet<String>) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for name in names {
        let quoted = format!("\"{}\"", escape(name));
        if quoted.len() + 1 > room {
            all.push(Vec::new());
            room = NAMES_LENGTH;
        }
        room = room.saturating_sub(quoted.len() + 1);
        if let Some(last) = all.last_mut() {
            last.push(quoted);
        }
    }
    all
}

/// The one entity that is meant by a name: the same spelling goes before the same letters.
fn pick(name: &str, mut found: Vec<Entity>) -> Result<String, Failure> {
    if found.iter().any(|e| e.display_name == name) {
        found.retain(|e| e.display_name == name);
    }
    match found.as_slice() {
        [one] => Ok(one.entity_id.clone()),
        [] => Err(Failure::new(
            FailureKind::UnknownService,
            format!(
                "Dynatrace knows no service named `{name}`; correct the name, or map it in collector.services with its entity_id"
            ),
        )),
        many => {
            let ids: Vec<&str> = many.iter().take(5).map(|e| e.entity_id.as_str()).collect();
            let message = format!(
                "{} services are named `{name}` ({}); name the one meant in collector.services with its entity_id",
                many.len(),
                ids.join(", ")
            );
            Err(Failure::new(FailureKind::AmbiguousService, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Properties, Relationships};
    use super::*;

    fn entity(id: &str, name: &str) -> Entity {
        Entity {
            entity_id: id.into(),
            display_name: name.into(),
            from_relationships: Relationships::default(),
            to_relationships: Relationships::default(),
            tags: Vec::new(),
            management_zones: Vec::new(),
            properties: Properties::default(),
        }
    }

    #[test]
    fn a_name_means_one_service_or_is_refused() {
        assert_eq!(pick("cart", vec![entity("S-1", "Cart"), entity("S-2", "cart")]).unwrap(), "S-2");
        assert_eq!(pick("cart", vec![entity("S-1", "Cart")]).unwrap(), "S-1");
        assert_eq!(pick("cart", vec![]).unwrap_err().kind, FailureKind::UnknownService);
        let said = pick("cart", vec![entity("S-1", "cart"), entity("S-2", "cart")]).unwrap_err();
        assert_eq!(said.kind, FailureKind::AmbiguousService);
        assert!(said.message.contains("S-1, S-2") && said.message.contains("collector.services"), "{said}");
    }
}
