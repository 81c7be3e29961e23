//! Entity selectors: `type("SERVICE"),tag("app:checkout")`.

use super::{Entity, Registry, Tag};
use crate::error::ApiError;
use crate::scan::{self, Arg, Call};

/// Longest selector.
const LENGTH_LIMIT: usize = 2_000;

/// A parsed entity selector: all criteria must hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EntitySelector {
    criteria: Vec<Criterion>,
}

#[derive(Debug, Clone, PartialEq)]
enum Criterion {
    Type(String),
    Ids(Vec<String>),
    Name {
        how: NameMatch,
        values: Vec<String>,
        case_sensitive: bool,
    },
    Tags(Vec<Tag>),
    From(String, EntitySelector),
    To(String, EntitySelector),
    Health(Vec<String>),
    /// Management zones: the simulated tenant has none.
    Zone,
    Not(Box<Criterion>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameMatch {
    Contains,
    StartsWith,
    Equals,
}

impl EntitySelector {
    /// Parses a selector.
    ///
    /// # Errors
    /// 400 where it does not parse, does not begin with `type` or `entityId`, or uses what is not supported.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.chars().count() > LENGTH_LIMIT {
            return Err(refuse(format!(
                "The entity selector must not be longer than {LENGTH_LIMIT} characters"
            )));
        }
        Self::from_args(&scan::list(text)?)
    }

    fn from_args(args: &[Arg]) -> Result<Self, ApiError> {
        let criteria: Vec<Criterion> = args.iter().map(criterion).collect::<Result<_, _>>()?;
        if !criteria.iter().any(|c| matches!(c, Criterion::Type(_) | Criterion::Ids(_))) {
            return Err(refuse(
                "The entity selector must contain either a type(...) or an entityId(...) criterion",
            ));
        }
        if criteria.iter().filter(|c| matches!(c, Criterion::Type(_))).count() > 1 {
            return Err(refuse("The entity selector must contain only one type(...) criterion"));
        }
        Ok(Self { criteria })
    }

    /// The ids that it names, if it names any.
    pub(super) fn ids(&self) -> Option<&[String]> {
        self.criteria
            .iter()
            .find_map(|c| if let Criterion::Ids(ids) = c { Some(ids.as_slice()) } else { None })
    }

    /// Whether an entity fulfils it.
    pub(crate) fn matches(&self, entity: &Entity, registry: &Registry) -> bool {
        self.criteria.iter().all(|c| c.matches(entity, registry))
    }
}

impl Criterion {
    fn matches(&self, entity: &Entity, registry: &Registry) -> bool {
        match self {
            Self::Type(kind) => entity.kind == kind,
            Self::Ids(ids) => ids.contains(&entity.id),
            Self::Name { how, values, case_sensitive } => {
                let fold = |s: &str| if *case_sensitive { s.to_owned() } else { s.to_lowercase() };
                let name = fold(&entity.name);
                values.iter().map(|v| fold(v)).any(|value| match how {
                    NameMatch::Contains => name.contains(&value),
                    NameMatch::StartsWith => name.starts_with(&value),
                    NameMatch::Equals => name == value,
                })
            }
            Self::Tags(tags) => {
                tags.iter().any(|wanted| entity.tags.iter().any(|tag| tag_matches(wanted, tag)))
            }
            Self::From(name, selector) => related(&entity.from, name, selector, registry),
            Self::To(name, selector) => related(&entity.to, name, selector, registry),
            Self::Health(states) => states.iter().any(|s| s == "HEALTHY"),
            Self::Zone => false,
            Self::Not(inner) => !inner.matches(entity, registry),
        }
    }
}

fn related(
    all: &[(&'static str, String)],
    name: &str,
    selector: &EntitySelector,
    registry: &Registry,
) -> bool {
    all.iter()
        .filter(|(relation, _)| *relation == name)
        .filter_map(|(_, id)| registry.get(id))
        .any(|entity| selector.matches(entity, registry))
}

/// A pattern without a context matches every context.
fn tag_matches(wanted: &Tag, tag: &Tag) -> bool {
    (wanted.context == "CONTEXTLESS" || wanted.context == tag.context)
        && wanted.key == tag.key
        && wanted.value == tag.value
}

fn refuse(message: impl Into<String>) -> ApiError {
    ApiError::query("entitySelector", message)
}

fn texts(call: &Call) -> Result<Vec<String>, ApiError> {
    let texts: Option<Vec<String>> = call.args.iter().map(|a| a.text().map(str::to_owned)).collect();
    texts
        .filter(|t| !t.is_empty())
        .ok_or_else(|| refuse(format!("'{}' needs one or more values", call.canonical())))
}

fn criterion(arg: &Arg) -> Result<Criterion, ApiError> {
    let Arg::Call(call) = arg else {
        return Err(refuse(format!("'{}' is no criterion", arg.canonical())));
    };
    if let Some((direction, name)) = call.name.split_once('.') {
        // The singular is seen in Dynatrace's own examples.
        match direction {
            "fromRelationships" | "fromRelationship" => {
                return Ok(Criterion::From(name.into(), EntitySelector::from_args(&call.args)?));
            }
            "toRelationships" | "toRelationship" => {
                return Ok(Criterion::To(name.into(), EntitySelector::from_args(&call.args)?));
            }
            _ => {}
        }
    }
    let name = |how| Ok(Criterion::Name { how, values: texts(call)?, case_sensitive: false });
    match call.name.as_str() {
        "type" => match texts(call)?.as_slice() {
            [kind] => Ok(Criterion::Type(entity_type(kind))),
            _ => Err(refuse("The entity selector must contain only one type")),
        },
        "entityId" => texts(call).map(Criterion::Ids),
        "entityName" => name(NameMatch::Contains),
        "entityName.startsWith" => name(NameMatch::StartsWith),
        "entityName.equals" | "entityName.in" => name(NameMatch::Equals),
        "caseSensitive" => case_sensitive(call),
        "tag" => {
            Ok(Criterion::Tags(texts(call)?.iter().map(|t| Tag::parse(&t.replace("\\:", ":"))).collect()))
        }
        "healthState" => texts(call).map(Criterion::Health),
        "mzId" | "mzName" => texts(call).map(|_| Criterion::Zone),
        "not" => match call.args.as_slice() {
            [inner] => criterion(inner).map(|c| Criterion::Not(Box::new(c))),
            _ => Err(refuse("'not' needs one criterion")),
        },
        other => {
            Err(refuse(format!("The criterion '{other}' is unknown, or not supported by this simulator")))
        }
    }
}

fn case_sensitive(call: &Call) -> Result<Criterion, ApiError> {
    if let [inner] = call.args.as_slice()
        && let Criterion::Name { how, values, .. } = criterion(inner)?
    {
        return Ok(Criterion::Name { how, values, case_sensitive: true });
    }
    Err(refuse("'caseSensitive' needs one entityName criterion"))
}

fn entity_type(text: &str) -> String {
    text.strip_prefix("dt.entity.").unwrap_or(text).to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::super::{INSTANCE, SERVICE, id_of};
    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        for (name, tags) in
            [("checkout", ["[Kubernetes]app:checkout", "prod"]), ("Payment", ["app:pay", "staging"])]
        {
            let mut service = Entity::new(SERVICE, id_of(SERVICE, name), name);
            service.tags = tags.map(Tag::parse).to_vec();
            registry.add_service(service, &[format!("{name}-1"), format!("{name}-2")]);
        }
        registry
    }

    #[test]
    fn what_is_found() {
        let registry = registry();
        let checkout = id_of(SERVICE, "checkout");
        for (selector, mut names) in [
            ("type(\"SERVICE\")".to_owned(), vec!["checkout", "Payment"]),
            ("type(dt.entity.service),entityName(pay)".into(), vec!["Payment"]),
            ("type(service),caseSensitive(entityName(\"pay\"))".into(), vec![]),
            ("type(SERVICE),entityName.startsWith(\"check\")".into(), vec!["checkout"]),
            ("type(SERVICE),entityName.equals(\"check\")".into(), vec![]),
            ("type(SERVICE),entityName.in(\"checkout\",\"payment\")".into(), vec!["checkout", "Payment"]),
            ("type(SERVICE),tag(\"app:checkout\",\"staging\")".into(), vec!["checkout", "Payment"]),
            ("type(SERVICE),tag(\"[Kubernetes]app:checkout\")".into(), vec!["checkout"]),
            ("type(SERVICE),tag(\"[AWS]app:checkout\")".into(), vec![]),
            ("type(SERVICE),tag(app\\:pay)".into(), vec!["Payment"]),
            ("type(SERVICE),not(tag(prod))".into(), vec!["Payment"]),
            ("type(SERVICE),mzName(\"x\")".into(), vec![]),
            ("type(SERVICE),healthState(HEALTHY)".into(), vec!["checkout", "Payment"]),
            (format!("entityId({checkout})"), vec!["checkout"]),
            (format!("type(HOST),entityId(\"{checkout}\")"), vec![]),
            (
                format!("type({INSTANCE}),toRelationships.runsOnProcessGroupInstance(type(SERVICE),entityId({checkout}))"),
                vec!["checkout-1", "checkout-2"],
            ),
            (
                "type(process_group_instance),fromRelationship.isInstanceOf(type(PROCESS_GROUP),entityName(pay))".into(),
                vec!["Payment-1", "Payment-2"],
            ),
            (
                "type(SERVICE),fromRelationships.runsOn(type(PROCESS_GROUP),entityName.equals(checkout))".into(),
                vec!["checkout"],
            ),
        ] {
            let parsed = EntitySelector::parse(&selector).unwrap_or_else(|e| panic!("{selector}: {e:?}"));
            let mut found: Vec<&str> = registry.find(&parsed).iter().map(|e| e.name.as_str()).collect();
            found.sort_unstable();
            names.sort_unstable();
            assert_eq!(found, names, "{selector}");
        }
    }

    #[test]
    fn refusals() {
        let long = format!("type(SERVICE),entityName(\"{}\")", "x".repeat(2000));
        for (selector, part) in [
            ("tag(x)", "must contain either a type"),
            ("type(SERVICE),type(HOST)", "only one type"),
            ("type(SERVICE),tag()", "needs one or more values"),
            ("type(SERVICE),cloudType(AZURE)", "not supported by this simulator"),
            ("type(SERVICE),caseSensitive(tag(x))", "needs one entityName"),
            ("SERVICE", "is no criterion"),
            (long.as_str(), "not be longer than 2000"),
        ] {
            let error = EntitySelector::parse(selector).unwrap_err();
            assert!(error.violations[0].message.contains(part), "{selector}: {error:?}");
        }
        assert!(
            EntitySelector::parse("type(SERVICE")
                .unwrap_err()
                .message
                .starts_with("Failed to parse selector")
        );
    }
}
