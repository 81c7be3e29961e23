//! Settings for a tenant, proposed from what it has: what most services can be named by. Pure.

use crate::rules::{Expression, Facts, KUBERNETES, Matching, Rule};
use crate::source::KnownService;
use std::collections::{BTreeMap, BTreeSet};

/// Share of the services that must have what a rule reads.
const MOST: f64 = 0.8;
/// What may name a service, the best first.
const NAMES: [&str; 4] = ["label:app.kubernetes.io/name", "label:app", "tag:service", "tag:app"];
const ENVIRONMENTS: [&str; 7] = [
    "label:environment",
    "label:env",
    "tag:environment",
    "tag:env",
    "tag:stage",
    "tag:dt.release_stage",
    "property:DT_RELEASE_STAGE",
];
const VERSIONS: [&str; 5] = [
    "label:app.kubernetes.io/version",
    "label:version",
    "property:releasesVersion",
    "tag:version",
    "image-tag",
];
const OWNERS: [&str; 5] = ["label:team", "label:owner", "tag:dt.owner", "tag:owner", "tag:team"];
/// Environment where nothing tells it.
const ONLY: &str = "prod";

/// Settings, and what was read off the tenant to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// In YAML.
    pub settings: String,
    /// What they make of the services.
    pub matching: Matching,
}

/// Proposes settings for a tenant at `url`, whose token is in `token_file`.
#[must_use]
pub fn propose(url: &str, token_file: &str, services: &[KnownService]) -> Proposal {
    let rules = rules(services);
    let matching = Matching::of(&rules, services);
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line(
        "# Written by `vouch init`. `vouch services` shows what the rules make of the tenant's services."
            .into(),
    );
    line("collector:".into());
    line(format!("  url: {}", quoted(url)));
    line(format!("  token_file: {}", quoted(token_file)));
    line(String::new());
    line("# The first rule that fits a service names it; * stands for any text.".into());
    line("services:".into());
    for rule in &rules {
        line("- match: { name: \"*\" }".into());
        for (field, all) in [
            ("service", &rule.service),
            ("environment", &rule.environment),
            ("version", &rule.version),
            ("owner", &rule.owner),
        ] {
            match all.as_slice() {
                [] => {}
                [one] => line(format!("  {field}: {}", quoted(&one.to_string()))),
                many => {
                    let words: Vec<String> = many.iter().map(|one| quoted(&one.to_string())).collect();
                    line(format!("  {field}: [{}]", words.join(", ")));
                }
            }
        }
    }
    line(String::new());
    line("# Another template, or none of the defaults, for some of them:".into());
    line("# overrides:".into());
    line("# - match: { service: checkout }".into());
    line("#   template: golden-signals-by-host".into());
    Proposal { settings: text, matching }
}

fn rules(services: &[KnownService]) -> Vec<Rule> {
    let in_kubernetes = services.iter().filter(|service| is_in_kubernetes(&service.facts)).count();
    let parse =
        |words: &[&str]| -> Vec<Expression> { words.iter().filter_map(|word| word.parse().ok()).collect() };
    let having = |words: &[&str], share: f64| -> Vec<Expression> {
        parse(words).into_iter().filter(|one| covered(services, one) >= share).collect()
    };
    // A name must tell services apart, or it is none.
    let names: Vec<Expression> = having(&NAMES, if in_kubernetes > 0 { 0.0 } else { MOST })
        .into_iter()
        .filter(|one| covered(services, one) > 0.0 && tells_apart(services, one))
        .collect();
    let environments = having(&ENVIRONMENTS, MOST);
    let fixed = || vec![Expression::Text(ONLY.to_owned())];
    let environment = environments.into_iter().next().map_or_else(fixed, |one| vec![one]);
    // Each that some service has, where none before it has a value.
    let some = |words: &[&str]| -> Vec<Expression> {
        let mut left: Vec<&KnownService> = services.iter().collect();
        let mut useful = |one: &Expression| {
            let before = left.len();
            left.retain(|service| one.value(service).is_none());
            left.len() < before
        };
        parse(words).into_iter().filter(|one| useful(one)).collect()
    };
    // Of those that most services have the first in the list.
    let better = |best: Expression, one: Expression| {
        if covered(services, &one) > covered(services, &best) { one } else { best }
    };
    let name = names.into_iter().reduce(better);
    let mut service: Vec<Expression> = name.into_iter().collect();
    service.push(Expression::Field("name"));
    vec![Rule {
        instances: None,
        conditions: Vec::new(),
        service,
        environment,
        version: some(&VERSIONS),
        owner: some(&OWNERS),
    }]
}

fn is_in_kubernetes(facts: &Facts) -> bool {
    facts.tags.iter().any(|tag| tag.context.eq_ignore_ascii_case(KUBERNETES))
}

/// Share of the services that have a value.
fn covered(services: &[KnownService], expression: &Expression) -> f64 {
    let having = services.iter().filter(|service| expression.value(service).is_some()).count();
    having as f64 / services.len().max(1) as f64
}

/// Whether most values stand for one service of their cluster and namespace.
fn tells_apart(services: &[KnownService], expression: &Expression) -> bool {
    let mut seen: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for service in services {
        if let Some(value) = expression.value(service) {
            seen.entry(value).or_default().insert(&service.entity_id);
        }
    }
    let alone = seen.values().filter(|ids| ids.len() == 1).count();
    alone as f64 >= MOST * seen.len() as f64
}

/// A text as YAML takes it for a text.
fn quoted(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '.')
        && !text.ends_with(':')
        && !matches!(text, "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::tagged as service;

    #[test]
    fn kubernetes_labels_name_services_where_they_have_them() {
        let labelled = |name: &str, app: &str| {
            service(
                name,
                &[
                    ("KUBERNETES", "app.kubernetes.io/name", app),
                    ("KUBERNETES", "team", "blue"),
                    ("CONTEXTLESS", "env", "live"),
                ],
            )
        };
        let services =
            [labelled("CartController", "cart"), labelled("PayServlet", "payment"), labelled("Web", "web")];
        let proposal = propose("https://abc.live.dynatrace.com", "/run/secrets/token", &services);
        for part in [
            "url: https://abc.live.dynatrace.com\n",
            "service: [label:app.kubernetes.io/name, name]\n",
            "environment: tag:env\n",
            "owner: label:team\n",
        ] {
            assert!(proposal.settings.contains(part), "{part} in {}", proposal.settings);
        }
        let names: Vec<&str> = proposal.matching.named.iter().map(|one| one.service.as_str()).collect();
        assert_eq!(names, ["cart", "payment", "web"]);
        assert!(proposal.settings.lines().count() <= 20, "{}", proposal.settings);
    }

    #[test]
    fn without_labels_display_names_do() {
        let proposal = propose("https://a", "my token", &[service("cart", &[]), service("web", &[])]);
        assert!(proposal.settings.contains("service: name\n  environment: prod\n"), "{}", proposal.settings);
        assert!(proposal.settings.contains("token_file: \"my token\"\n"), "{}", proposal.settings);
        assert_eq!(proposal.matching.named.len(), 2);
    }

    #[test]
    fn a_label_that_many_share_names_nobody() {
        let services: Vec<KnownService> =
            (0..10).map(|i| service(&format!("s{i}"), &[("KUBERNETES", "app", "shop")])).collect();
        let proposal = propose("https://a", "t", &services);
        assert_eq!(proposal.matching.named.len(), 10, "{}", proposal.settings);
    }
}
