//! Back to Dynatrace, by Events API v2: a verdict is an event on the service, a rollback a deployment event.

use super::http::{Http, HttpSettings, read_endpoint, read_secret};
use super::{Action, ActionError, ActionRequest, Done, Endpoint, Kind, Maker, Promise, Serves, Tells, Tools};
use crate::alert::{Alert, RollbackEnd, cut};
use async_trait::async_trait;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use vouch_proto::{Timestamp, Verdict};
use vouch_service::settings::Section;

// What the API takes.
const MOST_TITLE: usize = 500;
const MOST_VALUE: usize = 4096;
/// An answer names every entity that the event was put on.
const MOST_ANSWER_BYTES: usize = 64 * 1024;

pub(super) static KIND: Kind = Kind {
    word: "dynatrace",
    serves: Serves { rollback: false, alert: true, report: true },
    tells: Tells { updates: false, resolved: true },
    read,
};

#[derive(Debug, Clone)]
struct DynatraceSettings {
    url: Endpoint,
    token: SecretString,
    /// Name of the tenant; events of services of other tenants are left out.
    tenant: Option<String>,
    http: HttpSettings,
}

fn read(section: &mut Section<'_>, allowed_hosts: &[String]) -> Option<Arc<dyn Maker>> {
    let http = HttpSettings::read(section);
    let tenant = section.text("tenant");
    let url = read_endpoint(section, ("url", "url_file"), None, allowed_hosts);
    let what = "give an access token with the scope events.ingest, or a platform token (dt0s16...)";
    let token = read_secret(section, ("token", "token_file"), what);
    Some(Arc::new(DynatraceSettings { url: url?, token: token?, tenant, http }))
}

impl Maker for DynatraceSettings {
    fn make(&self, _tools: &Tools) -> anyhow::Result<Box<dyn Action>> {
        Ok(Box::new(Dynatrace { http: Http::new(&self.http)?, settings: self.clone() }))
    }
}

impl DynatraceSettings {
    /// A platform token has its own paths, and its own word before it.
    fn is_platform(&self) -> bool {
        self.token.expose_secret().starts_with("dt0s16.")
    }

    fn target(&self) -> Endpoint {
        if self.is_platform() {
            self.url.below(&["platform", "classic", "environment-api", "v2", "events", "ingest"])
        } else {
            self.url.below(&["api", "v2", "events", "ingest"])
        }
    }
}

/// The action.
#[derive(Debug)]
struct Dynatrace {
    settings: DynatraceSettings,
    http: Http,
}

/// What the API answers: how it went for each entity.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingested {
    event_ingest_results: Vec<IngestedOn>,
}

#[derive(Debug, Deserialize)]
struct IngestedOn {
    status: String,
}

#[async_trait]
impl Action for Dynatrace {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        let alert = &request.alert;
        if let (Some(tenant), Some(entity)) = (&self.settings.tenant, &alert.entity)
            && entity.source != *tenant
        {
            return Ok(Done::new(format!(
                "{} is of the tenant {}: nothing was sent",
                alert.service, entity.source
            )));
        }
        let body = event(alert, &request.verdict, request.sent_at);
        let to = self.settings.target();
        let word = if self.settings.is_platform() { "Bearer" } else { "Api-Token" };
        let call = self
            .http
            .call(Method::POST, &to)
            .header("authorization", format!("{word} {}", self.settings.token.expose_secret()))
            .header("content-type", "application/json; charset=utf-8")
            .body(body.to_string());
        let answer = self.http.send(call, &to, MOST_ANSWER_BYTES).await?;
        let ingested: Option<Ingested> = serde_json::from_slice(&answer.body).ok();
        let missing_scope = answer.status.as_u16() == 403;
        let mut done = answer.judge().map_err(|mut error| {
            if missing_scope {
                error.detail.push_str("; give the token the scope events.ingest");
            }
            error
        })?;
        let results = ingested.map(|ingested| ingested.event_ingest_results).unwrap_or_default();
        match results.iter().find(|result| result.status != "OK") {
            Some(refused) => Err(ActionError::never_sent(format!("{}: {}", done.detail, refused.status))),
            None => {
                done.detail = format!("an event on {} entities was taken", results.len());
                Ok(done)
            }
        }
    }

    fn promise(&self) -> Promise {
        Promise::of_a_channel(self.settings.http.timeout, false)
    }
}

fn event(alert: &Alert, verdict: &Verdict, now: Timestamp) -> Value {
    let mut properties = Map::new();
    let mut note = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            properties.insert(key.to_owned(), json!(cut(value, MOST_VALUE)));
        }
    };
    note("dt.event.description", Some(&format!("{}\n{}", alert.reason, alert.did)));
    note("dt.event.source", Some("Vouch"));
    note("vouch.outcome", Some(alert.outcome.as_str()));
    note("vouch.status", Some(alert.status()));
    note("vouch.service", Some(&alert.service));
    note("vouch.environment", Some(&alert.environment));
    note("vouch.version", Some(&alert.version));
    note("vouch.previous_version", alert.previous_version.as_deref());
    note("vouch.verification", Some(&alert.verification_id));
    note("vouch.deployment", Some(&verdict.deployment_id));
    note("vouch.against", Some(&alert.against));
    note("vouch.evidence", alert.links.evidence.as_deref());
    let is_rollback = alert.rollback == Some(RollbackEnd::Done);
    let (from, to) = if is_rollback {
        let before = alert.previous_version.as_deref().unwrap_or("the version before");
        note("dt.event.deployment.name", Some(&format!("Rollback of {} {}", alert.service, alert.version)));
        note("dt.event.deployment.version", Some(before));
        note("dt.event.deployment.release_product", Some(&alert.service));
        note("dt.event.deployment.release_stage", Some(&alert.environment));
        note("dt.event.deployment.ci_back_link", alert.links.evidence.as_deref());
        (now, now)
    } else {
        // The event covers what was judged.
        let start = verdict.verification.map_or(alert.decided_at, |window| window.start());
        (start.min(alert.decided_at), alert.decided_at)
    };
    json!({
        "eventType": if is_rollback { "CUSTOM_DEPLOYMENT" } else { "CUSTOM_INFO" },
        "title": cut(&alert.headline, MOST_TITLE),
        "startTime": from.as_millis(),
        "endTime": to.as_millis(),
        "entitySelector": selector(alert),
        "properties": properties,
    })
}

/// The service by its id where the catalogue has it, else by its name.
fn selector(alert: &Alert) -> String {
    match &alert.entity {
        Some(entity) => format!("type(\"SERVICE\"),entityId(\"{}\")", escaped(&entity.id)),
        None => format!("type(\"SERVICE\"),entityName.equals(\"{}\")", escaped(&alert.service)),
    }
}

/// A text between quotes of a selector.
fn escaped(text: &str) -> String {
    text.replace('~', "~~").replace('"', "~\"")
}
