//! The rules that name services, as the section `services` has them.

use crate::rules::{Condition, Expression, FIELDS, Instances, Rule, Subject};
use vouch_proto::Invalid;
use vouch_service::settings::Section;
use vouch_service::templates::globs;

/// A rule of the section `services`.
pub(super) fn rule(mut section: Section<'_>, invalid: &mut Invalid) -> Option<Rule> {
    let before = invalid.violations.len();
    let conditions = conditions(section.section("match"), invalid);
    let version = expressions(&mut section, "version", false);
    let rule = Rule {
        conditions,
        service: expressions(&mut section, "service", false),
        environment: expressions(&mut section, "environment", true),
        owner: expressions(&mut section, "owner", true),
        instances: instances(&mut section, version.is_empty(), invalid),
        version,
    };
    if section.texts("service").is_empty() {
        section.refuse(
            "service",
            "is missing; say what names the service, e.g. name or label:app.kubernetes.io/name",
        );
    }
    section.finish(invalid);
    (invalid.violations.len() == before).then_some(rule)
}

/// How several entities of one name are told apart, where the rule allows for them.
fn instances(section: &mut Section<'_>, no_version: bool, invalid: &mut Invalid) -> Option<Instances> {
    let by_version = section.raw("instances")?.as_str().map(ToOwned::to_owned);
    let instances = match by_version.as_deref() {
        Some("version") => Instances::default(),
        Some(other) => {
            let message = format!(
                "`{other}` tells no instances apart; write `version`, or a mapping of name, test and control"
            );
            section.refuse("instances", message);
            return None;
        }
        None => {
            let mut own = section.section("instances");
            let name = expressions(&mut own, "name", false);
            let test = conditions(own.section("test"), invalid);
            let control = conditions(own.section("control"), invalid);
            own.finish(invalid);
            Instances { name, test, control }
        }
    };
    if no_version && instances.test.is_empty() {
        section.refuse(
            "instances",
            "cannot tell which instance runs the new version; give `version`, or instances.test",
        );
    }
    Some(instances)
}

/// Conditions of `match`, and of the sides of instances.
fn conditions(mut fits: Section<'_>, invalid: &mut Invalid) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for field in ["name", "cluster", "namespace", "workload"] {
        let patterns = globs(&mut fits, field);
        if let (false, Ok(expression)) = (patterns.is_empty(), field.parse()) {
            conditions.push(Condition { subject: Subject::Value(expression), patterns });
        }
    }
    let patterns = globs(&mut fits, "management_zone");
    if !patterns.is_empty() {
        conditions.push(Condition { subject: Subject::ManagementZone, patterns });
    }
    for (field, of) in [("label", Expression::Label as fn(String) -> Expression), ("tag", Expression::Tag)] {
        for text in fits.texts(field) {
            let (key, pattern) = text.split_once('=').unwrap_or((text.as_str(), "*"));
            let Ok(pattern) = pattern.parse();
            conditions
                .push(Condition { subject: Subject::Value(of(key.to_owned())), patterns: vec![pattern] });
        }
    }
    fits.finish(invalid);
    conditions
}

/// Where a value comes from, the first that has one; a word of its own is a value only where `may_be_text`.
fn expressions(section: &mut Section<'_>, key: &'static str, may_be_text: bool) -> Vec<Expression> {
    let mut all = Vec::new();
    for text in section.texts(key) {
        match text.parse() {
            Ok(Expression::Text(word)) if !may_be_text && !text.starts_with("text:") => section.refuse(
                key,
                format!(
                    "`{word}` is nothing to read; expected one of label:KEY, tag:KEY, property:KEY, {}, or text:{word} for the word itself",
                    FIELDS.join(", ")
                ),
            ),
            Ok(expression) => all.push(expression),
            Err(message) => section.refuse(key, message),
        }
    }
    all
}
