//! The section `changes`: how deployments are found by themselves, and what is told from outside.

use crate::changes::webhook::{Kind, Webhook};
use crate::changes::{Look, Names};
use crate::source::EventKind;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use vouch_proto::{Glob, Invalid, Name};
use vouch_service::settings::Section;

const MINUTE: Duration = Duration::from_secs(60);
/// Where webhooks are served.
const LISTEN: &str = "127.0.0.1:8090";
/// Shortest secret.
const SECRET: usize = 16;

/// How deployments are found.
#[derive(Debug, Clone, Default)]
pub struct ChangeSettings {
    /// Where webhooks are served; none where there are none.
    pub listen: Option<SocketAddr>,
    /// The webhooks.
    pub webhooks: Vec<Webhook>,
    /// How the words of CDEvents on NATS are translated.
    pub cdevents: Names,
    /// Which events of Dynatrace are looked for; none where none are.
    pub events: Option<Look>,
    /// Whether another detected version is a deployment.
    pub releases: bool,
    /// Whether deployments are written into Dynatrace.
    pub annotate: bool,
}

impl ChangeSettings {
    pub(super) fn read(root: &mut Section<'_>, invalid: &mut Invalid) -> Self {
        let mut section = root.section("changes");
        let mut webhooks: Vec<Webhook> = Vec::new();
        for one in section.sections("webhooks") {
            webhooks.extend(webhook(one, &webhooks, invalid));
        }
        let listen = section.text("listen").unwrap_or_else(|| LISTEN.to_owned());
        let listen = listen.parse().map_err(|_| {
            section
                .refuse("listen", format!("`{listen}` is no address with a port; write e.g. 0.0.0.0:8090"));
        });
        let mut events = section.section("cdevents");
        let cdevents = names(&mut events, None);
        events.finish(invalid);
        let (events, releases, annotate) = dynatrace(section.section("dynatrace"), invalid);
        section.finish(invalid);
        let listen = listen.ok().filter(|_| !webhooks.is_empty());
        Self { listen, webhooks, cdevents, events, releases, annotate }
    }
}

fn dynatrace(mut section: Section<'_>, invalid: &mut Invalid) -> (Option<Look>, bool, bool) {
    let mut kinds = Vec::new();
    for (key, kind) in [("events", EventKind::Deployment), ("restarts", EventKind::Restart)] {
        if section.flag(key, false) {
            kinds.push(kind);
        }
    }
    let every = section.duration("every", MINUTE, MINUTE / 2..=60 * MINUTE);
    let releases = section.flag("releases", false);
    let annotate = section.flag("annotate", false);
    section.finish(invalid);
    ((!kinds.is_empty()).then_some(Look { kinds, every }), releases, annotate)
}

fn webhook(mut section: Section<'_>, others: &[Webhook], invalid: &mut Invalid) -> Option<Webhook> {
    let name = required(&mut section, "name", "name the last part of its address, e.g. github")
        .and_then(|text| as_name(&mut section, "name", &text));
    let words = Kind::ALL.map(|(word, _)| word).join(", ");
    let kind =
        required(&mut section, "kind", &format!("say who calls it, one of {words}")).and_then(|text| {
            let kind = Kind::ALL.iter().find(|(word, _)| *word == text).map(|(_, kind)| *kind);
            if kind.is_none() {
                section.refuse("kind", format!("`{text}` is no caller that is known; one of {words}"));
            }
            kind
        });
    let named = name.as_ref().filter(|name| others.iter().any(|other| other.name == **name));
    if let Some(name) = named {
        section.refuse("name", format!("`{name}` is named twice"));
    }
    let secrets = secrets(&mut section);
    let names = names(&mut section, kind);
    let unknown_services = section.flag("unknown_services", kind == Some(Kind::Generic));
    section.finish(invalid);
    Some(Webhook { name: name?, kind: kind?, secrets, names, unknown_services })
}

/// One secret a line, so that a new one works before the old one is taken away.
fn secrets(section: &mut Section<'_>) -> Vec<SecretString> {
    let given = section.text("secret_file").is_some() || section.text("secret").is_some();
    let Some(all) = section.secret("secret", "secret_file") else {
        if !given {
            section.refuse("secret_file", "is missing; name the file with the secret that its caller knows");
        }
        return Vec::new();
    };
    let lines: Vec<SecretString> = all
        .expose_secret()
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(|l| l.to_owned().into())
        .collect();
    if lines.iter().any(|secret| secret.expose_secret().len() < SECRET) {
        section.refuse(
            "secret_file",
            format!("holds a secret of fewer than {SECRET} characters; make one with `openssl rand -hex 32`"),
        );
    }
    lines
}

fn names(section: &mut Section<'_>, kind: Option<Kind>) -> Names {
    let environment = section.text("environment").and_then(|text| as_name(section, "environment", &text));
    let names = Names {
        environment,
        environments: translations(section, "environments"),
        services: translations(section, "services"),
    };
    let is_translated =
        names.environment.is_some() || !names.environments.is_empty() || !names.services.is_empty();
    if kind == Some(Kind::Generic) && is_translated {
        section.refuse(
            "environment",
            "or another translation is not for `generic`, whose callers use the names of deployments",
        );
    }
    if names.environment.is_some() && !names.environments.is_empty() {
        section.refuse("environments", "and `environment` exclude each other");
    }
    names
}

/// Patterns and the names that they stand for: exact words first, then the longer pattern.
fn translations(section: &mut Section<'_>, key: &'static str) -> Vec<(Glob, Name)> {
    let map: &Map<String, Value> = match section.raw(key) {
        None => return Vec::new(),
        Some(Value::Object(map)) => map,
        Some(_) => {
            section.refuse(
                key,
                "must be a mapping from what the caller says to a name, e.g. {production: prod}",
            );
            return Vec::new();
        }
    };
    let mut sorted: BTreeSet<(bool, std::cmp::Reverse<usize>, &String)> = BTreeSet::new();
    sorted.extend(map.keys().map(|word| (word.contains(['*', '?']), std::cmp::Reverse(word.len()), word)));
    let mut all = Vec::new();
    for (_, _, word) in sorted {
        let name = map.get(word).and_then(Value::as_str).unwrap_or_default();
        if let (Some(name), Ok(pattern)) = (as_name(section, key, name), word.parse()) {
            all.push((pattern, name));
        }
    }
    all
}

fn required(section: &mut Section<'_>, key: &'static str, remedy: &str) -> Option<String> {
    let missing = section.raw(key).is_none();
    let text = section.text(key);
    if missing {
        section.refuse(key, format!("is missing; {remedy}"));
    }
    text
}

fn as_name(section: &mut Section<'_>, key: &str, text: &str) -> Option<Name> {
    match Name::new(text) {
        Ok(name) => Some(name),
        Err(refused) => {
            refused.violations.into_iter().for_each(|v| section.refuse(key, v.message));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_service::settings::Document;

    fn read(yaml: &str) -> (ChangeSettings, String) {
        let document = Document::parse(yaml).unwrap();
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let settings = ChangeSettings::read(&mut root, &mut invalid);
        root.finish(&mut invalid);
        (settings, invalid.to_string())
    }

    #[test]
    fn webhooks_are_read_with_their_secrets_and_translations() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "0123456789abcdef0123\n\nfedcba98765432100123\n").unwrap();
        let (settings, said) = read(&format!(
            "changes:\n  listen: 0.0.0.0:9000\n  webhooks:\n  - name: github\n    kind: github\n    secret_file: {}\n    \
             environments: {{'prod*': prod, production: live}}\n    services: {{shop/web: storefront}}\n",
            file.display()
        ));
        assert_eq!(said, "");
        assert_eq!(settings.listen.unwrap().port(), 9000);
        let hook = &settings.webhooks[0];
        assert_eq!((hook.secrets.len(), hook.unknown_services), (2, false));
        assert_eq!(hook.names.environments[0].1.as_str(), "live", "a word goes before a pattern");
        assert!(!format!("{settings:?}").contains("0123456789abcdef"), "secrets are never shown");
        let (none, said) = read("");
        assert_eq!((none.listen, said.as_str()), (None, ""));
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let (_, said) = read(
            "changes:\n  listen: 9000\n  webhooks:\n  - {name: a, kind: github, secret: short}\n  - {name: a, kind: svn}\n  \
             - {kind: generic, secret: 0123456789abcdef, environment: prod}\n  \
             - {name: b, kind: gitlab, secret: 0123456789abcdef, environment: x, environments: {y: ''}, services: 3, oops: 1}\n",
        );
        for part in [
            "changes.listen: `9000` is no address with a port",
            "changes.webhooks[0].secret_file: holds a secret of fewer than 16",
            "changes.webhooks[1].kind: `svn` is no caller that is known; one of generic, cdevents",
            "changes.webhooks[1].secret_file: is missing",
            "changes.webhooks[2].name: is missing",
            "changes.webhooks[2].environment: or another translation is not for `generic`",
            "changes.webhooks[3].environments",
            "changes.webhooks[3].services: must be a mapping",
            "changes.webhooks[3].oops: is no setting here",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
