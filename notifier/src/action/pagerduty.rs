//! PagerDuty, Events API v2: an incident is triggered, acknowledged and resolved under one key; verdicts and rollbacks are
//! change events.

use super::http::{Http, HttpSettings, read_endpoint, read_secret};
use super::{Action, ActionError, ActionRequest, Done, Endpoint, Kind, Maker, Promise, Serves, Tells, Tools};
use crate::alert::{Alert, RollbackEnd, Stage, cut};
use async_trait::async_trait;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use vouch_service::settings::Section;

const URL: &str = "https://events.pagerduty.com";
/// Longest summary, and longest key.
const MOST_SUMMARY: usize = 1024;
const MOST_KEY: usize = 255;
/// Longest text of a detail; an event may have 512 KB.
const MOST_DETAIL: usize = 4000;
/// An integration key.
const KEY_LENGTH: usize = 32;

pub(super) static KIND: Kind = Kind {
    word: "pagerduty",
    serves: Serves { rollback: false, alert: true, report: true },
    tells: Tells { updates: true, resolved: true },
    read,
};

#[derive(Debug, Clone)]
struct PagerDutySettings {
    url: Endpoint,
    routing_key: SecretString,
    http: HttpSettings,
    acknowledge_on_rollback: bool,
}

fn read(section: &mut Section<'_>, allowed_hosts: &[String]) -> Option<Arc<dyn Maker>> {
    let http = HttpSettings::read(section);
    let url = read_endpoint(section, ("url", "url_file"), Some(URL), allowed_hosts);
    let acknowledge_on_rollback = section.flag("acknowledge_on_rollback", true);
    let what = "give the integration key of an Events API v2 integration";
    let routing_key = read_secret(section, ("routing_key", "routing_key_file"), what)?;
    let key = routing_key.expose_secret();
    if key.len() != KEY_LENGTH || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let said = format!(
            "holds {} characters, expected the {KEY_LENGTH} letters and digits of an integration key",
            key.chars().count()
        );
        section.refuse("routing_key_file", said);
        return None;
    }
    Some(Arc::new(PagerDutySettings { url: url?, routing_key, http, acknowledge_on_rollback }))
}

impl Maker for PagerDutySettings {
    fn make(&self, _tools: &Tools) -> anyhow::Result<Box<dyn Action>> {
        Ok(Box::new(PagerDuty { http: Http::new(&self.http)?, settings: self.clone() }))
    }
}

/// The action.
#[derive(Debug)]
struct PagerDuty {
    settings: PagerDutySettings,
    http: Http,
}

#[async_trait]
impl Action for PagerDuty {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        let alert = &request.alert;
        let (path, mut event): (&[&str], Value) = match (alert.stage, alert.rollback) {
            (Stage::Reports, _) => (&["v2", "change", "enqueue"], change(alert)),
            (Stage::Resolves, _) => (&["v2", "enqueue"], about("resolve", alert)),
            (Stage::Updates, Some(RollbackEnd::Done)) if self.settings.acknowledge_on_rollback => {
                (&["v2", "enqueue"], about("acknowledge", alert))
            }
            (Stage::Opens | Stage::Updates, _) => (&["v2", "enqueue"], trigger(alert)),
        };
        event["routing_key"] = json!(self.settings.routing_key.expose_secret());
        let to = self.settings.url.below(path);
        self.http.post_json(self.http.call(Method::POST, &to), &to, &event).await
    }

    fn promise(&self) -> Promise {
        Promise::of_a_channel(self.settings.http.timeout, true)
    }
}

/// The same for everything about one incident.
fn dedup_key(alert: &Alert) -> String {
    cut(&format!("vouch/{}", alert.incident), MOST_KEY)
}

fn about(action: &str, alert: &Alert) -> Value {
    json!({ "event_action": action, "dedup_key": dedup_key(alert) })
}

fn trigger(alert: &Alert) -> Value {
    let mut event = about("trigger", alert);
    event["client"] = json!("Vouch");
    if let Some(evidence) = &alert.links.evidence {
        event["client_url"] = json!(evidence);
    }
    event["links"] = links(alert);
    event["payload"] = json!({
        "summary": summary(alert),
        "timestamp": alert.decided_at.to_string(),
        "severity": alert.severity.as_str(),
        "source": format!("{}/{}", alert.environment, alert.service),
        "component": alert.service,
        "group": alert.environment,
        "class": "deployment verification",
        "custom_details": details(alert),
    });
    event
}

fn change(alert: &Alert) -> Value {
    json!({
        "links": links(alert),
        "payload": {
            "summary": summary(alert),
            "timestamp": alert.decided_at.to_string(),
            "source": format!("{}/{}", alert.environment, alert.service),
            "custom_details": details(alert),
        },
    })
}

fn summary(alert: &Alert) -> String {
    cut(&format!("{}: {}", alert.headline, alert.reason), MOST_SUMMARY)
}

fn links(alert: &Alert) -> Value {
    alert.links().iter().map(|(text, href)| json!({ "href": href, "text": text })).collect()
}

fn details(alert: &Alert) -> Value {
    let mut details = Map::new();
    for (label, fact) in alert.facts() {
        details.insert(label.to_lowercase(), json!(cut(&fact, MOST_DETAIL)));
    }
    details.insert("reason".to_owned(), json!(cut(&alert.reason, MOST_DETAIL)));
    details.insert("verification".to_owned(), json!(alert.verification_id));
    let lines = alert.metrics.iter().filter(|line| line.worse);
    let lines: Vec<String> =
        lines.map(|l| cut(&format!("{} on {}: {}", l.metric, l.host, l.reason), MOST_DETAIL)).collect();
    if !lines.is_empty() {
        details.insert("metrics".to_owned(), json!(lines));
    }
    Value::Object(details)
}
