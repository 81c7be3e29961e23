//! Monitored entities and how they are found.

mod selector;

pub(crate) use selector::EntitySelector;

use crate::noise::hash;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Entity type of services.
pub(crate) const SERVICE: &str = "SERVICE";
/// Entity type of process group instances: what Dynatrace calls a process on a host or in a pod.
pub(crate) const INSTANCE: &str = "PROCESS_GROUP_INSTANCE";
/// Entity type of process groups.
pub(crate) const GROUP: &str = "PROCESS_GROUP";
/// Entity type of hosts.
pub(crate) const HOST: &str = "HOST";

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    /// `CONTEXTLESS`, `KUBERNETES`, ...
    pub(crate) context: String,
    /// Its key.
    pub(crate) key: String,
    /// Its value.
    pub(crate) value: Option<String>,
}

impl Tag {
    /// Parses `key`, `key:value` or `[context]key:value`.
    pub(crate) fn parse(text: &str) -> Self {
        let (context, rest) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
            Some((context, rest)) => (context.to_uppercase(), rest),
            None => ("CONTEXTLESS".to_owned(), text),
        };
        match rest.split_once(':') {
            Some((key, value)) => Self { context, key: key.into(), value: Some(value.into()) },
            None => Self { context, key: rest.into(), value: None },
        }
    }

    fn json(&self) -> Value {
        let mut text = String::new();
        if self.context != "CONTEXTLESS" {
            text = format!("[{}]", self.context);
        }
        text.push_str(&self.key);
        let mut tag = json!({ "context": self.context, "key": self.key });
        if let Some(value) = &self.value {
            text.push(':');
            text.push_str(value);
            tag["value"] = json!(value);
        }
        tag["stringRepresentation"] = json!(text);
        tag
    }
}

/// A monitored entity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entity {
    /// `SERVICE-0123456789ABCDEF`.
    pub(crate) id: String,
    /// `SERVICE`, `PROCESS_GROUP_INSTANCE`, ...
    pub(crate) kind: &'static str,
    /// Display name.
    pub(crate) name: String,
    /// Tags.
    pub(crate) tags: Vec<Tag>,
    /// Properties.
    pub(crate) properties: Map<String, Value>,
    /// Relationships from it: name and target's id.
    pub(crate) from: Vec<(&'static str, String)>,
    /// Relationships to it: name and source's id.
    pub(crate) to: Vec<(&'static str, String)>,
}

/// The id of the entity of a type and name: the same in every run.
pub(crate) fn id_of(kind: &str, name: &str) -> String {
    format!("{kind}-{:016X}", hash(&format!("{kind}/{name}")))
}

/// The id of the host of a service, by the service's id and the host's name.
pub(crate) fn host_id_of(service_id: &str, name: &str) -> String {
    id_of(HOST, &format!("{service_id}/{name}"))
}

/// The type of an entity by its id.
pub(crate) fn kind_of(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(kind, _)| kind)
}

/// The entity type behind a dimension key such as `dt.entity.service`.
pub(crate) fn kind_of_dimension(key: &str) -> Option<String> {
    key.strip_prefix("dt.entity.").map(str::to_uppercase)
}

impl Entity {
    /// An entity without tags and relationships.
    pub(crate) fn new(kind: &'static str, id: String, name: &str) -> Self {
        let mut properties = Map::new();
        properties.insert("detectedName".into(), json!(name));
        Self { id, kind, name: name.into(), tags: Vec::new(), properties, from: Vec::new(), to: Vec::new() }
    }

    /// The JSON with the fields wanted: `properties`, `tags`, `fromRelationships.runsOn`, ...
    pub(crate) fn json(&self, fields: &[String], seen: (i64, i64)) -> Value {
        let mut out = json!({ "entityId": self.id, "type": self.kind, "displayName": self.name });
        for field in fields {
            let (head, tail) = field.split_once('.').map_or((field.as_str(), None), |(h, t)| (h, Some(t)));
            match head {
                "firstSeenTms" => out["firstSeenTms"] = json!(seen.0),
                "lastSeenTms" => out["lastSeenTms"] = json!(seen.1),
                "tags" => out["tags"] = self.tags.iter().map(Tag::json).collect(),
                "managementZones" => out["managementZones"] = json!([]),
                "icon" => out["icon"] = json!({}),
                "properties" => pick(&mut out, "properties", tail, &self.properties),
                "fromRelationships" => pick(&mut out, head, tail, &grouped(&self.from)),
                "toRelationships" => pick(&mut out, head, tail, &grouped(&self.to)),
                _ => {}
            }
        }
        out
    }
}

fn grouped(relations: &[(&'static str, String)]) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, id) in relations {
        let list = map.entry(*name).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({ "id": id, "type": kind_of(id) }));
        }
    }
    map
}

fn pick(out: &mut Value, head: &str, tail: Option<&str>, all: &Map<String, Value>) {
    match tail {
        None => out[head] = Value::Object(all.clone()),
        Some(name) => {
            if out.get(head).is_none() {
                out[head] = json!({});
            }
            if let Some(value) = all.get(name) {
                out[head][name] = value.clone();
            }
        }
    }
}

/// All entities, by id and in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    entities: Vec<Entity>,
    by_id: HashMap<String, usize>,
}

impl Registry {
    /// Adds a service with its process group and one process group instance per host.
    ///
    /// Returns the ids of the instances in the order of the hosts.
    pub(crate) fn add_service(&mut self, service: Entity, hosts: &[String]) -> Vec<String> {
        let mut service = service;
        let group_id = id_of(GROUP, &service.id);
        let mut group = Entity::new(GROUP, group_id.clone(), &service.name);
        service.from.push(("runsOn", group_id.clone()));
        group.to.push(("runsOn", service.id.clone()));
        let mut ids = Vec::new();
        for name in hosts {
            let host_id = host_id_of(&service.id, name);
            let id = id_of(INSTANCE, &format!("{}/{name}", service.id));
            let mut instance = Entity::new(INSTANCE, id.clone(), name);
            let mut host = Entity::new(HOST, host_id.clone(), name);
            instance.tags.clone_from(&service.tags);
            instance.from = vec![("isInstanceOf", group_id.clone()), ("isProcessOf", host_id.clone())];
            instance.to = vec![("runsOnProcessGroupInstance", service.id.clone())];
            host.to = vec![("isProcessOf", id.clone()), ("runsOnHost", service.id.clone())];
            service.from.push(("runsOnProcessGroupInstance", id.clone()));
            service.from.push(("runsOnHost", host_id));
            group.to.push(("isInstanceOf", id.clone()));
            self.add(instance);
            self.add(host);
            ids.push(id);
        }
        self.add(service);
        self.add(group);
        ids
    }

    /// Adds an entity.
    pub(crate) fn add(&mut self, entity: Entity) {
        self.by_id.insert(entity.id.clone(), self.entities.len());
        self.entities.push(entity);
    }

    /// Sets a property of an entity.
    pub(crate) fn set_property(&mut self, id: &str, name: &str, value: Value) {
        if let Some(entity) = self.by_id.get(id).map(|i| &mut self.entities[*i]) {
            entity.properties.insert(name.to_owned(), value);
        }
    }

    /// Relates two entities, both ways.
    pub(crate) fn relate(&mut self, name: &'static str, from: &str, to: &str) {
        let (Some(source), Some(target)) = (self.by_id.get(from).copied(), self.by_id.get(to).copied())
        else {
            return;
        };
        self.entities[source].from.push((name, to.to_owned()));
        self.entities[target].to.push((name, from.to_owned()));
    }

    /// The entity with an id.
    pub(crate) fn get(&self, id: &str) -> Option<&Entity> {
        self.by_id.get(id).map(|i| &self.entities[*i])
    }

    /// All entities that a selector finds, sorted by id.
    pub(crate) fn find(&self, selector: &EntitySelector) -> Vec<&Entity> {
        let mut found: Vec<&Entity> = match selector.ids() {
            Some(ids) => {
                ids.iter().filter_map(|id| self.get(id)).filter(|e| selector.matches(e, self)).collect()
            }
            None => self.entities.iter().filter(|e| selector.matches(e, self)).collect(),
        };
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        found
    }

    /// All entities of a type.
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Entity> {
        self.entities.iter().filter(move |e| e.kind == kind)
    }

    /// Whether an entity of this type exists in the simulated tenant, or is one of Dynatrace's that matter here.
    pub(crate) fn knows_kind(kind: &str) -> bool {
        matches!(
            kind,
            SERVICE | INSTANCE | GROUP | HOST | "SERVICE_METHOD" | "KUBERNETES_CLUSTER" | "CLOUD_APPLICATION"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relationships_point_both_ways() {
        let mut registry = Registry::default();
        let mut service = Entity::new(SERVICE, id_of(SERVICE, "checkout"), "checkout");
        service.tags = vec![Tag::parse("[Kubernetes]app:checkout")];
        let ids = registry.add_service(service, &["pod-1".into(), "pod-2".into()]);
        let service = registry.get(&id_of(SERVICE, "checkout")).unwrap();
        let fields =
            ["fromRelationships.runsOnProcessGroupInstance".to_owned(), "tags".into(), "firstSeenTms".into()];
        let json = service.json(&fields, (5, 6));
        let related: Vec<_> =
            json["fromRelationships"]["runsOnProcessGroupInstance"].as_array().unwrap().clone();
        assert_eq!(related.len(), 2);
        assert_eq!(related[0]["id"], ids[0]);
        assert_eq!(related[0]["type"], INSTANCE);
        assert_eq!(json["fromRelationships"].as_object().unwrap().len(), 1, "only the one asked for");
        assert_eq!(json["tags"][0]["stringRepresentation"], "[KUBERNETES]app:checkout");
        assert_eq!(json["firstSeenTms"], 5);
        assert!(json.get("lastSeenTms").is_none());
    }
}
