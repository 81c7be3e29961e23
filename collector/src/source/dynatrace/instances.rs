//! Services that are several entities: which there are now, what each of them runs, and which side each is on.

use super::answer::Entity;
use super::client::Client;
use super::entities::Entities;
use super::facts::{describe, described};
use super::listing::{list_active, list_with};
use super::selector::{EntityKind, escape};
use crate::rules::{Facts, Matching, Named, Rule};
use crate::source::{Failure, FailureKind, KnownService};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vouch_proto::{HostGroup, Name, Timestamp};

/// How long is believed what instances run: a deployment changes it while it is watched.
const RENEWED: Duration = Duration::from_secs(60);
/// How long after it was asked for a service is looked at again with the others.
const WANTED: Duration = Duration::from_secs(15 * 60);
/// What has not been seen for so long runs nothing any more.
const ACTIVE: &str = "now-10m";
/// Entities first seen since then may be instances that no list has yet.
const NEW: &str = "firstSeenTms.gte(now-30m)";
/// What rules look at, of services and of processes.
const OF_SERVICES: &str = "+tags,+managementZones";
const OF_PROCESSES: &str =
    "+properties.metadata,+properties.releasesVersion,+tags,+toRelationships.runsOnProcessGroupInstance";
/// What a process says about the pod that it runs in.
const POD: &str = "KUBERNETES_FULL_POD_NAME";
/// Ids in one selector, which may hold 2,000 characters.
const IDS_PER_CALL: usize = 60;
/// Most entities of one service.
pub(super) const MOST_INSTANCES: usize = 40;

/// Environment and service.
type Names = (Name, Name);

/// What is asked for when a service is.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// One entity.
    One(String),
    /// Those that the rules make one service.
    Several(Arc<Group>),
}

impl Target {
    /// The ids of its entities.
    pub(super) fn ids(&self) -> Vec<String> {
        match self {
            Self::One(id) => vec![id.clone()],
            Self::Several(group) => group.entities.iter().map(|one| one.entity_id.clone()).collect(),
        }
    }
}

/// What is known of a host of series beside its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HostFacts {
    pub(super) version: Option<String>,
    pub(super) group: Option<HostGroup>,
}

/// The entities that are one service now.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    /// By their ids.
    pub(super) entities: Vec<Named>,
    /// By the name under which series have a process or a pod.
    pub(super) hosts: BTreeMap<String, HostFacts>,
}

impl Group {
    /// What is known of one of its entities.
    pub(super) fn facts(one: &Named) -> HostFacts {
        let group = one.instance.as_ref().and_then(|instance| instance.group);
        HostFacts { version: one.version.clone(), group }
    }
}

/// What is known of all services of several entities that are asked for.
#[derive(Debug, Default)]
pub(super) struct Instances {
    /// When each was asked for.
    wanted: Mutex<BTreeMap<Names, Timestamp>>,
    known: tokio::sync::Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    at: Option<Timestamp>,
    groups: BTreeMap<Names, Arc<Group>>,
}

impl Instances {
    /// The entities of a service, as they were at most a minute ago. All that are asked for lately are looked up
    /// together, by whoever comes first.
    pub(super) async fn group(
        &self,
        client: &Client,
        rules: &[Rule],
        (names, matching): (&Names, &Matching),
    ) -> Result<Arc<Group>, Failure> {
        self.want(names, client.now());
        let mut known = self.known.lock().await;
        let now = client.now();
        let is_fresh = known.at.is_some_and(|at| now.since(at) < RENEWED);
        if let Some(group) = known.groups.get(names).filter(|_| is_fresh) {
            return Ok(group.clone());
        }
        let wanted = self.wanted_since(now);
        match renewed(client, rules, (&wanted, matching), &known.groups).await {
            Ok(groups) => *known = Known { at: Some(now), groups },
            Err(failure) => match known.groups.get(names).cloned() {
                Some(group) => {
                    tracing::warn!(%failure, "instances are not looked up anew; they stand as they were");
                    known.at = Some(now);
                    return Ok(group);
                }
                None => return Err(failure),
            },
        }
        known.groups.get(names).cloned().ok_or_else(|| {
            let message = format!("no entity is an instance of `{}` any more", names.1);
            Failure::new(FailureKind::UnknownService, message)
        })
    }

    fn want(&self, names: &Names, now: Timestamp) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(names.clone(), now);
    }

    fn wanted_since(&self, now: Timestamp) -> BTreeSet<Names> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.retain(|_, at| now.since(*at) < WANTED);
        wanted.keys().cloned().collect()
    }
}

/// Looks up what runs now, for all services that are wanted.
async fn renewed(
    client: &Client,
    rules: &[Rule],
    (wanted, matching): (&BTreeSet<Names>, &Matching),
    before: &BTreeMap<Names, Arc<Group>>,
) -> Result<BTreeMap<Names, Arc<Group>>, Failure> {
    let known: BTreeMap<&Names, Vec<Named>> =
        wanted.iter().map(|names| (names, known_of(names, matching, before))).collect();
    let ids: BTreeSet<&str> = known.values().flatten().map(|one| one.entity_id.as_str()).collect();
    let mut services: BTreeMap<String, KnownService> = BTreeMap::new();
    let new = format!("type(\"SERVICE\"),{NEW}");
    services.extend(list_with(client, &new, Some(OF_SERVICES)).await?.into_iter().map(described));
    for some in quoted(&ids) {
        let selector = format!("type(\"SERVICE\"),entityId({some})");
        services.extend(list_with(client, &selector, Some(OF_SERVICES)).await?.into_iter().map(described));
    }
    let ids: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    let mut processes = Vec::new();
    for some in quoted(&ids) {
        let selector = EntityKind::ProcessGroupInstance.selector_of_ids(&some).unwrap_or_default();
        processes.extend(list_active(client, &selector, (OF_PROCESSES, ACTIVE)).await?);
    }
    for process in &processes {
        for service in &process.to_relationships.runs_on_process_group_instance {
            if let Some(service) = services.get_mut(&service.id) {
                describe(&mut service.facts, process);
            }
        }
    }
    let services: Vec<KnownService> = services.into_values().collect();
    let now = Matching::of(rules, &services);
    let group = |(names, known): (&Names, Vec<Named>)| {
        let group = group(rules, (known, now.find(&names.0, &names.1)), &processes);
        (names.clone(), Arc::new(group))
    };
    Ok(known.into_iter().map(group).filter(|(_, group)| !group.entities.is_empty()).collect())
}

/// The entities of a service as they were listed, and as they were known before.
fn known_of(names: &Names, matching: &Matching, before: &BTreeMap<Names, Arc<Group>>) -> Vec<Named> {
    let mut all: BTreeMap<String, Named> = BTreeMap::new();
    let listed = matching.find(&names.0, &names.1).into_iter().cloned();
    let seen = before.get(names).into_iter().flat_map(|group| group.entities.iter().cloned());
    for one in listed.chain(seen) {
        all.insert(one.entity_id.clone(), one);
    }
    all.into_values().collect()
}

/// What is known of a service: each entity as it is now, with the version that it had where it runs nothing.
fn group(rules: &[Rule], (known, now): (Vec<Named>, Vec<&Named>), processes: &[Entity]) -> Group {
    let mut entities: BTreeMap<String, Named> =
        known.into_iter().map(|one| (one.entity_id.clone(), one)).collect();
    for one in now.into_iter().filter(|one| one.instance.is_some()) {
        let before = entities.get(&one.entity_id).cloned();
        let version = one.version.clone().or_else(|| before.as_ref().and_then(|one| one.version.clone()));
        // Names stand once they are given: series are told apart by them.
        let instance = match (&one.instance, before.and_then(|one| one.instance)) {
            (Some(now), Some(before)) => Some(crate::rules::Instance { name: before.name, ..now.clone() }),
            (now, _) => now.clone(),
        };
        entities.insert(one.entity_id.clone(), Named { version, instance, ..one.clone() });
    }
    let entities: Vec<Named> = entities.into_values().collect();
    let hosts = hosts(rules, &entities, processes);
    Group { entities, hosts }
}

/// What is known of the processes of some entities, by each name that series may have them under.
fn hosts(rules: &[Rule], entities: &[Named], processes: &[Entity]) -> BTreeMap<String, HostFacts> {
    let mut hosts: BTreeMap<String, Option<HostFacts>> = BTreeMap::new();
    for process in processes {
        let runs = &process.to_relationships.runs_on_process_group_instance;
        let owner = entities.iter().find(|one| runs.iter().any(|service| service.id == one.entity_id));
        let Some((owner, rule)) = owner.and_then(|owner| Some((owner, rules.get(owner.rule)?))) else {
            continue;
        };
        let mut facts = Facts::default();
        describe(&mut facts, process);
        let pod = facts.metadata.get(POD).cloned();
        let (id, name) = (process.entity_id.clone(), process.display_name.clone());
        let one = KnownService { name: name.clone(), entity_id: id.clone(), facts, tenant: 0 };
        let own = || rule.instances.as_ref().and_then(|instances| instances.group(&one));
        let of_entity = Group::facts(owner);
        let known = HostFacts {
            version: rule.version_of(&one).or(of_entity.version),
            // Where entities are told apart, their processes are on their sides.
            group: if entities.len() > 1 { of_entity.group } else { own() },
        };
        let names = [Some(id.clone()), Some(format!("{name} ({id})")), Some(name), pod];
        for name in names.into_iter().flatten().collect::<BTreeSet<_>>() {
            // What two have in common is known of neither unless they are alike.
            let kept = hosts.entry(name).or_insert_with(|| Some(known.clone()));
            if kept.as_ref() != Some(&known) {
                *kept = None;
            }
        }
    }
    hosts.into_iter().filter_map(|(name, known)| Some((name, known?))).collect()
}

/// Ids as a selector has them, as many together as fit into one.
fn quoted(ids: &BTreeSet<&str>) -> Vec<String> {
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{}\"", escape(id))).collect();
    ids.chunks(IDS_PER_CALL).map(|some| some.join(",")).collect()
}

impl Entities {
    /// What is asked for when a service is: as the settings map it, else what the rules say, else the one of that name.
    pub(super) async fn target(
        &self,
        client: &Client,
        environment: &Name,
        service: &Name,
    ) -> Result<Target, Failure> {
        if !self.allows_instances() || self.is_mapped(environment, service) {
            return self.service(client, environment, service).await.map(Target::One);
        }
        let Some(matching) = self.matching_for(client, (environment, service)).await? else {
            return self.service(client, environment, service).await.map(Target::One);
        };
        let found = matching.find(environment, service);
        if found.is_empty() || found.iter().any(|one| one.instance.is_none()) {
            return self.service(client, environment, service).await.map(Target::One);
        }
        let names = (environment.clone(), service.clone());
        let group = self.instances.group(client, self.rules(), (&names, &matching)).await?;
        if group.entities.len() > MOST_INSTANCES {
            let message = format!(
                "{} entities are instances of `{service}`, at most {MOST_INSTANCES} can be; narrow `match` in `services`, `vouch services` shows which they are",
                group.entities.len()
            );
            return Err(Failure::new(FailureKind::AmbiguousService, message));
        }
        Ok(Target::Several(group))
    }

    /// The ids of a service's entities.
    pub(super) async fn ids(
        &self,
        client: &Client,
        environment: &Name,
        service: &Name,
    ) -> Result<Vec<String>, Failure> {
        self.target(client, environment, service).await.map(|target| target.ids())
    }
}
