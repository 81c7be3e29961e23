//! Whose a line is: by the service that it names, else by the process that wrote it, else by that process's group.

use super::super::Dynatrace;
use super::super::joint::SERVICES_PER_CALL;
use super::super::listing::list_with;
use super::super::selector::{EntityKind, escape};
use super::line::RawLine;
use crate::source::Failure;
use crate::source::logs::SourceLine;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vouch_proto::{LogLine, LogOrigin, Timestamp, Window};

/// How long it is believed which process groups run a service: a deployment may bring another.
const FRESH: Duration = Duration::from_secs(2 * 60);
/// Most services that this is remembered of.
const REMEMBERED: usize = 20_000;
/// The field that says which services run on a process group.
const RUNS: &str = "+toRelationships.runsOn";

/// Process groups by the service that runs on them, and when that was looked up.
pub(super) type Groups = Mutex<BTreeMap<String, (Vec<String>, Timestamp)>>;

/// Services by the process that runs them.
type Runs = BTreeMap<String, Arc<Vec<String>>>;

/// The services of a reading, and by which ids their lines are found.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// By their place in what was asked: the entity, and its process groups.
    members: BTreeMap<usize, (String, Vec<String>)>,
    /// A condition of a person's own, in the place of ids: every line that fits is the only member's.
    condition: Option<String>,
}

impl Scope {
    /// What fits a condition in the source's own language; it is all taken by one who stands for everybody.
    pub(super) fn fitting(condition: &str) -> Self {
        let members = BTreeMap::from([(0, (String::new(), Vec::new()))]);
        Self { members, condition: Some(condition.to_owned()) }
    }

    pub(super) fn condition(&self) -> Option<&str> {
        self.condition.as_deref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Places of the services.
    pub(super) fn places(&self) -> Vec<usize> {
        self.members.keys().copied().collect()
    }

    pub(super) fn remove(&mut self, place: usize) {
        self.members.remove(&place);
    }

    /// Ids of the services, and of the process groups, each once.
    pub(super) fn ids(&self) -> (BTreeSet<&str>, BTreeSet<&str>) {
        let entities = self.members.values().map(|(entity, _)| entity.as_str()).collect();
        let groups =
            self.members.values().flat_map(|(_, groups)| groups.iter().map(String::as_str)).collect();
        (entities, groups)
    }

    /// The same services in parts of at most so many ids each; a service is never divided.
    pub(super) fn split(&self, most_ids: usize) -> Vec<Self> {
        let mut parts: Vec<(Self, usize)> = Vec::new();
        for (place, member) in &self.members {
            let ids = 1 + member.1.len();
            match parts.last_mut() {
                Some((part, count)) if *count + ids <= most_ids => {
                    part.members.insert(*place, member.clone());
                    *count += ids;
                }
                Some(_) | None => {
                    let members = BTreeMap::from([(*place, member.clone())]);
                    parts.push((Self { members, condition: self.condition.clone() }, ids));
                }
            }
        }
        parts.into_iter().map(|(part, _)| part).collect()
    }

    /// The services that a line is of.
    fn owners(&self, line: &RawLine, runs: &Runs) -> Vec<usize> {
        if self.condition.is_some() {
            return self.places();
        }
        let with = |is_own: &dyn Fn(&str, &[String]) -> bool| -> Vec<usize> {
            self.members
                .iter()
                .filter(|(_, (e, groups))| is_own(e, groups))
                .map(|(place, _)| *place)
                .collect()
        };
        let is_in = |all: &[String], one: &str| all.iter().any(|other| other == one);
        if !line.services.is_empty() {
            return with(&|entity, _| is_in(&line.services, entity));
        }
        let run: Vec<&String> = line
            .instances
            .iter()
            .filter_map(|id| runs.get(id))
            .flat_map(|services| services.iter())
            .collect();
        if !run.is_empty() {
            return with(&|entity, _| run.iter().any(|service| *service == entity));
        }
        // A process that is gone, or that nothing is known of.
        with(&|_, groups| line.groups.iter().any(|group| is_in(groups, group)))
    }
}

impl Dynatrace {
    /// The scope of some services by their places and entities.
    pub(super) async fn log_scope(&self, entities: BTreeMap<usize, String>) -> Result<Scope, Failure> {
        let ids: BTreeSet<&String> = entities.values().collect();
        let groups = self.groups_of(&ids.into_iter().cloned().collect::<Vec<_>>()).await?;
        let member = |(place, entity): (usize, String)| {
            let of = groups.get(&entity).cloned().unwrap_or_default();
            (place, (entity, of))
        };
        Ok(Scope { members: entities.into_iter().map(member).collect(), condition: None })
    }

    /// The process groups of services.
    async fn groups_of(&self, services: &[String]) -> Result<BTreeMap<String, Vec<String>>, Failure> {
        let now = self.client.now();
        let mut found: BTreeMap<String, Vec<String>> = {
            let known = self.logs.groups.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = |id: &String| known.get(id).filter(|(_, at)| now.since(*at) < FRESH);
            services.iter().filter_map(|id| Some((id.clone(), fresh(id)?.0.clone()))).collect()
        };
        let unknown: Vec<&String> = services.iter().filter(|id| !found.contains_key(*id)).collect();
        for some in unknown.chunks(SERVICES_PER_CALL) {
            let ids: Vec<String> = some.iter().map(|id| format!("\"{}\"", escape(id))).collect();
            let selector = format!(
                "type(\"PROCESS_GROUP\"),toRelationships.runsOn(type(\"SERVICE\"),entityId({}))",
                ids.join(",")
            );
            let groups = list_with(&self.client, &selector, Some(RUNS)).await?;
            let mut by_service: BTreeMap<String, Vec<String>> =
                some.iter().map(|id| ((*id).clone(), Vec::new())).collect();
            for group in groups {
                for service in group.to_relationships.runs_on {
                    by_service.entry(service.id).or_default().push(group.entity_id.clone());
                }
            }
            let mut known = self.logs.groups.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            for id in some {
                let groups = by_service.remove(*id).unwrap_or_default();
                known.insert((*id).clone(), (groups.clone(), now));
                found.insert((*id).clone(), groups);
            }
        }
        Ok(found)
    }

    /// Lines in the order of their time, by the place of the service that they are of; those of nobody are left out.
    pub(super) async fn attributed(
        &self,
        scope: &Scope,
        lines: Vec<RawLine>,
        window: Window,
    ) -> Result<BTreeMap<usize, Vec<SourceLine>>, Failure> {
        let instances: BTreeSet<&str> =
            lines.iter().flat_map(|line| line.instances.iter().map(String::as_str)).collect();
        let runs = self
            .entities
            .services_of(&self.client, EntityKind::ProcessGroupInstance, (&instances, window))
            .await?;
        let ids: Vec<String> = instances.into_iter().map(ToOwned::to_owned).collect();
        let names = self.entities.names(&self.client, &ids).await?;
        let mut all: BTreeMap<usize, Vec<SourceLine>> = BTreeMap::new();
        for line in lines {
            let owners = scope.owners(&line, &runs);
            let RawLine { at_ms, level, content, truncated, origin, services, .. } = line;
            let named = origin.process.as_ref().and_then(|id| names.get(id)).cloned();
            let host = named.or_else(|| origin.pod.clone()).or_else(|| origin.machine.clone());
            let line = LogLine { at: Timestamp::from_millis(at_ms), level, content, truncated, origin: 0 };
            for place in owners {
                let member = scope.members.get(&place).map(|(entity, _)| entity.clone());
                let entity = member.filter(|id| !id.is_empty()).or_else(|| services.first().cloned());
                let origin = LogOrigin { host: host.clone(), entity, ..origin.clone() };
                all.entry(place).or_default().push(SourceLine { line: line.clone(), origin });
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_proto::LogLevel;

    fn scope() -> Scope {
        let member = |entity: &str, groups: &[&str]| {
            (entity.to_owned(), groups.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>())
        };
        let members =
            [(0, member("S-1", &["G-1"])), (1, member("S-2", &["G-1", "G-2"])), (4, member("S-1", &["G-1"]))];
        Scope { members: members.into(), condition: None }
    }

    fn line(services: &[&str], instances: &[&str], groups: &[&str]) -> RawLine {
        let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        RawLine {
            at_ms: 0,
            level: LogLevel::Info,
            content: String::new(),
            truncated: false,
            services: texts(services),
            instances: texts(instances),
            groups: texts(groups),
            origin: LogOrigin::default(),
        }
    }

    #[test]
    fn a_line_is_of_whom_it_names_then_of_its_process_then_of_its_group() {
        let runs: Runs = [("P-1", vec!["S-2"]), ("P-2", vec!["S-9"]), ("P-3", vec![])]
            .into_iter()
            .map(|(id, all)| (id.to_owned(), Arc::new(all.into_iter().map(ToOwned::to_owned).collect())))
            .collect();
        let owners = |line| scope().owners(&line, &runs);
        assert_eq!(owners(line(&["S-1"], &["P-1"], &["G-1"])), [0, 4], "asked for twice under two names");
        assert_eq!(
            owners(line(&["S-9"], &["P-1"], &["G-1"])),
            [] as [usize; 0],
            "another's on the same process"
        );
        assert_eq!(owners(line(&[], &["P-1"], &["G-1"])), [1]);
        assert_eq!(owners(line(&[], &["P-2"], &["G-1"])), [] as [usize; 0], "another's process in the group");
        assert_eq!(owners(line(&[], &["P-3"], &["G-1"])), [0, 1, 4], "nothing is known of the process");
        assert_eq!(owners(line(&[], &["P-4"], &["G-2"])), [1]);
        assert_eq!(owners(line(&[], &[], &[])), [] as [usize; 0]);
    }

    #[test]
    fn parts_hold_whole_services() {
        let places = |most| scope().split(most).iter().map(Scope::places).collect::<Vec<_>>();
        assert_eq!(places(100), [vec![0, 1, 4]]);
        assert_eq!(places(5), [vec![0, 1], vec![4]]);
        assert_eq!(places(1), [vec![0], vec![1], vec![4]]);
        let mut scope = scope();
        scope.remove(1);
        let (entities, groups) = scope.ids();
        assert_eq!((entities.into_iter().collect::<Vec<_>>(), groups.len()), (vec!["S-1"], 1));
    }
}
