//! Who calls whom: the services of a scenario and what they depend on.

use super::spec::{Scenario, ScenarioError, invalid};
use crate::entity::{Entity, Registry, SERVICE, id_of};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;

/// Something that services call: a database, a queue, another system.
///
/// It has an entity, and measurements only if there is a service of its name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DependencySpec {
    /// Display name.
    pub name: String,
    /// Whether it is a database.
    #[serde(default)]
    pub database: bool,
}

/// Who calls whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topology {
    /// Name of each service and what it calls.
    services: Vec<(String, Vec<String>)>,
    dependencies: Vec<DependencySpec>,
}

impl Topology {
    /// The topology of a scenario.
    ///
    /// # Errors
    /// Where a dependency is there twice or nameless, or a service calls what is not there, itself, or one thing twice.
    pub(super) fn new(scenario: &Scenario) -> Result<Self, ScenarioError> {
        let services = scenario.services.iter().map(|s| (s.name.clone(), s.calls.clone())).collect();
        let topology = Self { services, dependencies: scenario.dependencies.clone() };
        let mut names = BTreeSet::new();
        for (i, dependency) in topology.dependencies.iter().enumerate() {
            let message = match dependency.name.as_str() {
                "" => "is empty; name it".to_owned(),
                name if !names.insert(name) => format!("`{name}` is there twice"),
                _ => continue,
            };
            return Err(invalid(format!("dependencies[{i}].name"), message));
        }
        for (i, (name, calls)) in topology.services.iter().enumerate() {
            let mut called = BTreeSet::new();
            for (j, callee) in calls.iter().enumerate() {
                let message = if callee == name {
                    format!("`{callee}` is the service itself; name others")
                } else if !topology.knows(callee) {
                    topology.unknown(callee)
                } else if !called.insert(callee) {
                    format!("`{callee}` is there twice")
                } else {
                    continue;
                };
                return Err(invalid(format!("services[{i}].calls[{j}]"), message));
            }
        }
        Ok(topology)
    }

    /// Whether there is a service or dependency of this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.services.iter().any(|(s, _)| s == name) || self.dependencies.iter().any(|d| d.name == name)
    }

    /// The complaint about a name that is not there.
    pub(super) fn unknown(&self, name: &str) -> String {
        let known = self.services.iter().map(|(s, _)| s).chain(self.dependencies.iter().map(|d| &d.name));
        let known: BTreeSet<&str> = known.map(String::as_str).collect();
        let known: Vec<&str> = known.into_iter().collect();
        format!("`{name}` is no service and no dependency; there are {}", known.join(", "))
    }

    /// The services that a trouble of `name` hits, by index and name: its callers, and itself if it is a service.
    pub(super) fn hit_by<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        let services = self.services.iter().enumerate();
        services
            .filter(move |(_, (service, calls))| service == name || calls.iter().any(|c| c == name))
            .map(|(index, (service, _))| (index, service.as_str()))
    }

    /// Adds dependencies and calls to a registry that has the services.
    pub(super) fn register(&self, registry: &mut Registry) {
        for dependency in &self.dependencies {
            let id = id_of(SERVICE, &dependency.name);
            if registry.get(&id).is_none() {
                registry.add(Entity::new(SERVICE, id.clone(), &dependency.name));
            }
            if dependency.database {
                registry.set_property(&id, "serviceType", json!("DATABASE_SERVICE"));
            }
        }
        for (name, calls) in &self.services {
            for callee in calls {
                registry.relate("calls", &id_of(SERVICE, name), &id_of(SERVICE, callee));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(text: &str) -> Result<Topology, ScenarioError> {
        Topology::new(&serde_saphyr::from_str(text).unwrap())
    }

    #[test]
    fn who_is_hit() {
        let topology = topology(
            "{name: x, dependencies: [{name: db}, {name: idle}], services: [
              {name: a, hosts: [h], calls: [db, b]}, {name: b, hosts: [h], calls: [a]}, {name: c, hosts: [h]}]}",
        )
        .unwrap();
        let hit = |name| topology.hit_by(name).map(|(index, _)| index).collect::<Vec<_>>();
        assert_eq!((hit("db"), hit("a"), hit("b"), hit("c")), (vec![0], vec![0, 1], vec![0, 1], vec![2]));
        assert_eq!(hit("idle"), Vec::<usize>::new());
    }

    #[test]
    fn wrong_names_are_named() {
        for (dependencies, calls, expected) in [
            ("{name: db}, {name: db}", "db", "dependencies[1].name: `db` is there twice"),
            ("{name: ''}", "", "dependencies[0].name: is empty; name it"),
            (
                "{name: db}",
                "db, cache",
                "services[0].calls[1]: `cache` is no service and no dependency; there are a, db",
            ),
            ("{name: db}", "a", "services[0].calls[0]: `a` is the service itself; name others"),
            ("{name: db}", "db, db", "services[0].calls[1]: `db` is there twice"),
        ] {
            let text = format!(
                "{{name: x, dependencies: [{dependencies}], services: [{{name: a, hosts: [h], calls: [{calls}]}}]}}"
            );
            assert_eq!(topology(&text).unwrap_err().to_string(), expected);
        }
    }
}
