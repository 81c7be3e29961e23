//! Opsgenie (and the same calls of Jira Service Management): an alert is created, acknowledged and closed under one alias.

use super::http::{Http, HttpSettings, read_endpoint, read_secret};
use super::{Action, ActionError, ActionRequest, Done, Endpoint, Kind, Maker, Promise, Serves, Tells, Tools};
use crate::alert::{Alert, RollbackEnd, Severity, Stage, cut, plain};
use async_trait::async_trait;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use vouch_service::settings::Section;

const URL: &str = "https://api.opsgenie.com";
// What the Alert API takes.
const MOST_MESSAGE: usize = 130;
const MOST_DESCRIPTION: usize = 15_000;
const MOST_ALIAS: usize = 512;
const MOST_ENTITY: usize = 512;
const MOST_NOTE: usize = 25_000;
const MOST_TAG: usize = 50;
const MOST_TAGS: usize = 20;
/// All details together may have 8000 characters.
const MOST_DETAIL: usize = 600;

pub(super) static KIND: Kind = Kind {
    word: "opsgenie",
    serves: Serves { rollback: false, alert: true, report: false },
    tells: Tells { updates: true, resolved: true },
    read,
};

#[derive(Debug, Clone)]
struct OpsgenieSettings {
    url: Endpoint,
    api_key: SecretString,
    http: HttpSettings,
    responders: Vec<Value>,
    tags: Vec<String>,
    acknowledge_on_rollback: bool,
}

fn read(section: &mut Section<'_>, allowed_hosts: &[String]) -> Option<Arc<dyn Maker>> {
    let http = HttpSettings::read(section);
    let url = read_endpoint(section, ("url", "url_file"), Some(URL), allowed_hosts);
    let acknowledge_on_rollback = section.flag("acknowledge_on_rollback", true);
    let mut responders = Vec::new();
    for text in section.texts("responders") {
        match responder(&text) {
            Some(responder) => responders.push(responder),
            None => section.refuse(
                "responders",
                format!("`{text}` is no responder; write team:NAME, schedule:NAME, escalation:NAME or user:ADDRESS"),
            ),
        }
    }
    let tags = section.texts("tags");
    if tags.len() > MOST_TAGS || tags.iter().any(|tag| tag.chars().count() > MOST_TAG) {
        section.refuse("tags", format!("are at most {MOST_TAGS}, each of at most {MOST_TAG} characters"));
    }
    let api_key = read_secret(section, ("api_key", "api_key_file"), "give the key of an API integration")?;
    Some(Arc::new(OpsgenieSettings { url: url?, api_key, http, responders, tags, acknowledge_on_rollback }))
}

fn responder(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    match kind {
        _ if name.trim().is_empty() => None,
        "team" | "schedule" | "escalation" => Some(json!({ "type": kind, "name": name.trim() })),
        "user" => Some(json!({ "type": kind, "username": name.trim() })),
        _ => None,
    }
}

impl Maker for OpsgenieSettings {
    fn make(&self, _tools: &Tools) -> anyhow::Result<Box<dyn Action>> {
        Ok(Box::new(Opsgenie { http: Http::new(&self.http)?, settings: self.clone() }))
    }
}

/// The action.
#[derive(Debug)]
struct Opsgenie {
    settings: OpsgenieSettings,
    http: Http,
}

#[async_trait]
impl Action for Opsgenie {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        let alert = &request.alert;
        let (verb, body) = match (alert.stage, alert.rollback) {
            (Stage::Opens | Stage::Reports, _) => (None, self.create(alert)),
            (Stage::Resolves, _) => (Some("close"), noted(alert)),
            (Stage::Updates, Some(RollbackEnd::Done)) if self.settings.acknowledge_on_rollback => {
                (Some("acknowledge"), noted(alert))
            }
            (Stage::Updates, _) => (Some("notes"), noted(alert)),
        };
        let alias = alias(alert);
        let path: Vec<&str> =
            ["v2", "alerts"].into_iter().chain(verb.into_iter().flat_map(|verb| [&*alias, verb])).collect();
        let to = self.settings.url.below(&path);
        let mut call = self.http.call(Method::POST, &to);
        if verb.is_some() {
            call = call.query(&[("identifierType", "alias")]);
        }
        let call =
            call.header("authorization", format!("GenieKey {}", self.settings.api_key.expose_secret()));
        self.http.post_json(call, &to, &body).await
    }

    fn promise(&self) -> Promise {
        Promise::of_a_channel(self.settings.http.timeout, true)
    }
}

/// The same for everything about one incident.
fn alias(alert: &Alert) -> String {
    cut(&format!("vouch/{}", alert.incident), MOST_ALIAS)
}

fn noted(alert: &Alert) -> Value {
    json!({ "source": "Vouch", "user": "Vouch", "note": plain(alert, MOST_NOTE) })
}

impl Opsgenie {
    fn create(&self, alert: &Alert) -> Value {
        let mut details = Map::new();
        for (label, fact) in alert.facts() {
            details.insert(label.to_lowercase(), json!(cut(&fact, MOST_DETAIL)));
        }
        for (label, url) in alert.links() {
            details.insert(label.to_lowercase(), json!(cut(url, MOST_DETAIL)));
        }
        json!({
            "message": cut(&alert.headline, MOST_MESSAGE),
            "alias": alias(alert),
            "description": plain(alert, MOST_DESCRIPTION),
            "responders": self.settings.responders,
            "tags": self.settings.tags,
            "details": details,
            "entity": cut(&format!("{}/{}", alert.environment, alert.service), MOST_ENTITY),
            "source": "Vouch",
            "priority": priority(alert.severity),
        })
    }
}

const fn priority(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "P1",
        Severity::Error => "P2",
        Severity::Warning => "P3",
        Severity::Info => "P5",
    }
}
