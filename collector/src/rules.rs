//! Which service of the source is which service of a deployment: rules over what the source knows, so that a handful
//! of lines name hundreds. Pure.

mod instances;

pub use instances::{Instance, Instances, is_version};

use crate::source::KnownService;
use std::collections::BTreeMap;
use std::str::FromStr;
use vouch_proto::{Glob, Name};

/// Keys of tags that name where a service runs, the first that is there.
const CLUSTER_TAGS: [&str; 3] = ["k8s.cluster.name", "dt.kubernetes.cluster.name", "cluster"];
const NAMESPACE_TAGS: [&str; 2] = ["k8s.namespace.name", "namespace"];
const WORKLOAD_TAGS: [&str; 2] = ["k8s.workload.name", "workload"];
/// Context of tags that are labels of Kubernetes.
pub(crate) const KUBERNETES: &str = "KUBERNETES";

/// A tag of an entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// `KUBERNETES`, `CONTEXTLESS`, ...
    pub context: String,
    /// Its key.
    pub key: String,
    /// Its value; empty for a tag without.
    pub value: String,
}

/// What the source knows about a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Its tags, and those of its processes.
    pub tags: Vec<Tag>,
    /// Names of the management zones that it is in.
    pub management_zones: Vec<String>,
    /// What its processes say about themselves, e.g. `KUBERNETES_NAMESPACE`.
    pub metadata: BTreeMap<String, String>,
}

impl Facts {
    fn tagged(&self, key: &str, wanted: impl Fn(&Tag) -> bool) -> Option<&str> {
        let tag = self.tags.iter().find(|tag| tag.key == key && !tag.value.is_empty() && wanted(tag))?;
        Some(&tag.value)
    }

    fn tag(&self, key: &str) -> Option<&str> {
        self.tagged(key, |_| true)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.tagged(key, |tag| tag.context.eq_ignore_ascii_case(KUBERNETES))
    }

    fn property(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn first_tag(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.tag(key))
    }

    fn cluster(&self) -> Option<&str> {
        self.first_tag(&CLUSTER_TAGS).or_else(|| self.property("KUBERNETES_CLUSTER"))
    }

    fn namespace(&self) -> Option<&str> {
        self.first_tag(&NAMESPACE_TAGS).or_else(|| self.property("KUBERNETES_NAMESPACE"))
    }

    fn workload(&self) -> Option<&str> {
        // A pod's base name is its workload's, with a pattern for what changes.
        let of_pod = || self.property("KUBERNETES_BASE_POD_NAME").map(|pod| pod.trim_end_matches(['*', '-']));
        self.first_tag(&WORKLOAD_TAGS).or_else(of_pod)
    }

    /// The part of the image's name after its last colon.
    fn image_tag(&self) -> Option<&str> {
        let image =
            self.property("CONTAINER_IMAGE_NAME").or_else(|| self.property("KUBERNETES_CONTAINER_IMAGE"))?;
        let (_, tag) = image.rsplit_once(':')?;
        (!tag.contains('/')).then_some(tag)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// A label of Kubernetes.
    Label(String),
    /// A tag of any context.
    Tag(String),
    /// What a process says about itself.
    Property(String),
    /// One of [`FIELDS`].
    Field(&'static str),
    /// Always the same.
    Text(String),
}

/// Words for what a service has by itself.
pub const FIELDS: [&str; 5] = ["name", "cluster", "namespace", "workload", "image-tag"];

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(field) = FIELDS.into_iter().find(|field| *field == text) {
            return Ok(Self::Field(field));
        }
        let of: fn(String) -> Self = match text.split_once(':') {
            Some(("label", _)) => Self::Label,
            Some(("tag", _)) => Self::Tag,
            Some(("property", _)) => Self::Property,
            Some(("text", _)) => Self::Text,
            _ => return Ok(Self::Text(text.to_owned())),
        };
        match text.split_once(':').map(|(_, rest)| rest.trim()) {
            Some(key) if !key.is_empty() => Ok(of(key.to_owned())),
            _ => Err(format!("`{text}` names no key; write e.g. label:app.kubernetes.io/name")),
        }
    }
}

impl std::fmt::Display for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Label(key) => write!(f, "label:{key}"),
            Self::Tag(key) => write!(f, "tag:{key}"),
            Self::Property(key) => write!(f, "property:{key}"),
            Self::Field(field) => f.write_str(field),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Expression {
    /// Its value for a service; `None` where it has none.
    #[must_use]
    pub fn value(&self, service: &KnownService) -> Option<String> {
        let facts = &service.facts;
        let value = match self {
            Self::Label(key) => facts.label(key),
            Self::Tag(key) => facts.tag(key),
            Self::Property(key) => facts.property(key),
            Self::Field("cluster") => facts.cluster(),
            Self::Field("namespace") => facts.namespace(),
            Self::Field("workload") => facts.workload(),
            Self::Field("image-tag") => facts.image_tag(),
            Self::Field(_) => Some(service.name.as_str()),
            Self::Text(text) => Some(text.as_str()),
        };
        value.map(str::trim).filter(|value| !value.is_empty()).map(ToOwned::to_owned)
    }
}

/// A condition: what is looked at, and the patterns of which one must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What is looked at; several values for management zones.
    pub subject: Subject,
    /// `*` and `?` stand for anything.
    pub patterns: Vec<Glob>,
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One value.
    Value(Expression),
    /// Any of the management zones.
    ManagementZone,
}

impl Condition {
    fn fits(&self, service: &KnownService) -> bool {
        let any = |value: &str| self.patterns.iter().any(|pattern| pattern.fits(value));
        match &self.subject {
            Subject::Value(expression) => expression.value(service).is_some_and(|value| any(&value)),
            Subject::ManagementZone => service.facts.management_zones.iter().any(|zone| any(zone)),
        }
    }

    /// Why it does not fit.
    fn misfit(&self, service: &KnownService) -> String {
        let patterns = self.patterns.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(" or ");
        match &self.subject {
            Subject::ManagementZone => format!("no management zone is {patterns}"),
            Subject::Value(expression) => match expression.value(service) {
                Some(value) => format!("{expression} `{value}` is not {patterns}"),
                None => format!("it has no {expression}"),
            },
        }
    }
}

/// Names the services that fit it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All of them must fit.
    pub conditions: Vec<Condition>,
    /// The name that deployments use: the first that has a value.
    pub service: Vec<Expression>,
    /// The environment; empty for the tenant's.
    pub environment: Vec<Expression>,
    /// The version that runs.
    pub version: Vec<Expression>,
    /// Whom to alert.
    pub owner: Vec<Expression>,
    /// How several entities of one name are told apart; `None` where they must not be.
    pub instances: Option<Instances>,
}

/// A service as deployments name it, and what travels with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The source's own id.
    pub entity_id: String,
    /// As deployments name it.
    pub service: Name,
    /// `None` for the tenant's environment.
    pub environment: Option<Name>,
    /// The version that the source sees.
    pub version: Option<String>,
    /// Whom to alert.
    pub owner: Option<String>,
    /// Where it runs.
    pub cluster: Option<String>,
    /// What to roll back, as namespace/workload.
    pub workload: Option<String>,
    /// Number of the rule, from 0.
    pub rule: usize,
    /// What it is among the entities of that name, where the rule allows for several.
    pub instance: Option<Instance>,
}

/// What the rules made of the services of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matching {
    /// Each name stands for one service.
    pub named: Vec<Named>,
    /// Services that share a name.
    pub ambiguous: Vec<Vec<Named>>,
    /// Services of one or several entities each, as their rules allow; by the entities' ids.
    pub instances: Vec<Vec<Named>>,
    /// Services without a name: name, id and why.
    pub unmatched: Vec<(String, String, String)>,
}

impl Matching {
    /// Applies the rules; the first that fits a service names it.
    #[must_use]
    pub fn of(rules: &[Rule], services: &[KnownService]) -> Self {
        let mut by_name: BTreeMap<(Option<Name>, Name), Vec<Named>> = BTreeMap::new();
        let mut matching = Self::default();
        for service in services {
            match name(rules, service) {
                Ok(named) => {
                    by_name
                        .entry((named.environment.clone(), named.service.clone()))
                        .or_default()
                        .push(named);
                }
                Err(why) => {
                    matching.unmatched.push((service.name.clone(), service.entity_id.clone(), why));
                }
            }
        }
        for mut same in by_name.into_values() {
            if same.iter().all(|one| one.instance.is_some()) {
                same.sort_by(|a, b| a.entity_id.cmp(&b.entity_id));
                instances::tell_apart(&mut same);
                matching.instances.push(same);
                continue;
            }
            match same.pop() {
                Some(one) if same.is_empty() => matching.named.push(one),
                Some(one) => {
                    same.push(one);
                    matching.ambiguous.push(same);
                }
                None => {}
            }
        }
        matching.unmatched.sort();
        matching
    }

    /// The services of a name in an environment; several where it is ambiguous.
    #[must_use]
    pub fn find(&self, environment: &Name, service: &Name) -> Vec<&Named> {
        self.all()
            .filter(|one| {
                one.service == *service && one.environment.as_ref().is_none_or(|e| e == environment)
            })
            .collect()
    }

    /// Every entity that has a name.
    pub fn all(&self) -> impl Iterator<Item = &Named> {
        self.named.iter().chain(self.ambiguous.iter().chain(&self.instances).flatten())
    }
}

fn name(rules: &[Rule], service: &KnownService) -> Result<Named, String> {
    let mut misfits = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        match rule.conditions.iter().find(|condition| !condition.fits(service)) {
            Some(condition) => misfits.push(format!("services[{i}]: {}", condition.misfit(service))),
            None => return rule.name(i, service),
        }
    }
    misfits.truncate(3);
    Err(if misfits.is_empty() { "there is no rule".to_owned() } else { misfits.join("; ") })
}

impl Rule {
    /// What holds where there are no rules: each service has the name that the source shows.
    #[must_use]
    pub fn by_display_name() -> Self {
        let service = vec![Expression::Field("name")];
        Self {
            conditions: Vec::new(),
            service,
            environment: Vec::new(),
            version: Vec::new(),
            owner: Vec::new(),
            instances: None,
        }
    }

    /// The version that something runs.
    #[must_use]
    pub fn version_of(&self, one: &KnownService) -> Option<String> {
        self.version.iter().find_map(|expression| expression.value(one))
    }

    fn name(&self, number: usize, service: &KnownService) -> Result<Named, String> {
        let first = |all: &[Expression]| all.iter().find_map(|expression| expression.value(service));
        let words = |all: &[Expression]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let named = |field: &str, all: &[Expression]| {
            let value = first(all).ok_or_else(|| {
                format!("services[{number}] fits, but it has no {} for {field}", words(all))
            })?;
            Name::new(value.clone()).map_err(|_| {
                format!("services[{number}] fits, but `{value}` cannot be a {field}; see the limits of names in docs/settings.md")
            })
        };
        let environment =
            if self.environment.is_empty() { None } else { Some(named("environment", &self.environment)?) };
        let facts = &service.facts;
        let workload = facts.workload().map(|workload| match facts.namespace() {
            Some(namespace) => format!("{namespace}/{workload}"),
            None => workload.to_owned(),
        });
        let name = named("service", &self.service)?;
        Ok(Named {
            entity_id: service.entity_id.clone(),
            instance: self.instances.as_ref().map(|instances| instances.of(&name, service)),
            service: name,
            environment,
            version: self.version_of(service),
            owner: first(&self.owner),
            cluster: facts.cluster().map(ToOwned::to_owned),
            workload,
            rule: number,
        })
    }
}

/// A service with tags: context, key, value.
#[cfg(test)]
pub(crate) fn tagged(name: &str, tags: &[(&str, &str, &str)]) -> KnownService {
    let tag = |(context, key, value): &(&str, &str, &str)| Tag {
        context: (*context).into(),
        key: (*key).into(),
        value: (*value).into(),
    };
    let facts = Facts { tags: tags.iter().map(tag).collect(), ..Facts::default() };
    KnownService { name: name.into(), entity_id: format!("SERVICE-{name}"), facts, tenant: 0 }
}

#[cfg(test)]
mod tests {
    use super::tagged as service;
    use super::*;

    fn pod(name: &str, app: &str, namespace: &str, cluster: &str) -> KnownService {
        let mut service = service(
            name,
            &[
                ("KUBERNETES", "app.kubernetes.io/name", app),
                ("KUBERNETES", "team", "blue"),
                ("CONTEXTLESS", "k8s.cluster.name", cluster),
            ],
        );
        service.facts.metadata = BTreeMap::from([
            ("KUBERNETES_NAMESPACE".to_owned(), namespace.to_owned()),
            ("KUBERNETES_BASE_POD_NAME".to_owned(), format!("{app}-*")),
            ("CONTAINER_IMAGE_NAME".to_owned(), format!("registry:5000/{app}:1.2.3")),
        ]);
        service
    }

    fn all(words: &[&str]) -> Vec<Expression> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    fn rule(conditions: &[(&str, &str)]) -> Rule {
        let condition = |(subject, pattern): &(&str, &str)| Condition {
            subject: Subject::Value(subject.parse().unwrap()),
            patterns: vec![pattern.parse().unwrap()],
        };
        Rule {
            conditions: conditions.iter().map(condition).collect(),
            service: all(&["label:app.kubernetes.io/name"]),
            environment: all(&["prod"]),
            version: all(&["label:app.kubernetes.io/version", "image-tag"]),
            owner: all(&["label:team"]),
            instances: None,
        }
    }

    #[test]
    fn a_rule_names_every_service_that_fits_it() {
        let services = [
            pod("cart@1", "cart", "shop-eu", "prod-1"),
            pod("pay", "payment", "shop-us", "prod-2"),
            pod("cart@2", "cart", "shop-us", "prod-2"),
            pod("web", "web", "edge", "prod-1"),
            service("db", &[]),
        ];
        let rules = [rule(&[("cluster", "prod-*"), ("namespace", "shop-*")])];
        let matching = Matching::of(&rules, &services);
        let [payment] = matching.named.as_slice() else { panic!("{matching:?}") };
        assert_eq!(
            (payment.service.as_str(), payment.environment.as_ref().unwrap().as_str()),
            ("payment", "prod")
        );
        assert_eq!(payment.version.as_deref(), Some("1.2.3"), "of the image");
        assert_eq!((payment.owner.as_deref(), payment.cluster.as_deref()), (Some("blue"), Some("prod-2")));
        assert_eq!(payment.workload.as_deref(), Some("shop-us/payment"));
        assert_eq!(matching.ambiguous.iter().map(Vec::len).collect::<Vec<_>>(), [2], "two carts");
        let why: Vec<&str> = matching.unmatched.iter().map(|(_, _, why)| why.as_str()).collect();
        assert_eq!(why, ["services[0]: it has no cluster", "services[0]: namespace `edge` is not `shop-*`"]);
        let prod = Name::new("prod").unwrap();
        assert_eq!(matching.find(&prod, &Name::new("cart").unwrap()).len(), 2);
        assert_eq!(matching.find(&Name::new("test").unwrap(), &payment.service).len(), 0);
    }

    #[test]
    fn the_first_rule_that_fits_decides_even_where_it_cannot_name() {
        let rules = [rule(&[("name", "web*")]), Rule { service: all(&["name"]), ..rule(&[]) }];
        let matching = Matching::of(&rules, &[service("web-1", &[]), service("api", &[])]);
        assert_eq!(matching.named[0].service.as_str(), "api");
        assert_eq!(
            matching.unmatched[0].2,
            "services[0] fits, but it has no label:app.kubernetes.io/name for service"
        );
    }

    #[test]
    fn expressions_are_read_and_written_alike() {
        for text in ["label:a/b", "tag:k", "property:P", "name", "image-tag", "prod"] {
            assert_eq!(text.parse::<Expression>().unwrap().to_string(), text);
        }
        assert!("label:".parse::<Expression>().unwrap_err().contains("names no key"));
        assert_eq!("text:name".parse::<Expression>().unwrap(), Expression::Text("name".into()));
    }
}
