//! CDEvents on NATS: a verdict is a finished test suite run, what is wrong an incident, a rollback a service rolled back.
//! As CloudEvents, with the whole CDEvent as data.

use super::{Action, ActionError, ActionRequest, Done, Effect, Kind, Maker, Promise, Serves, Tells, Tools};
use crate::alert::{Alert, RollbackEnd, Severity, Stage};
use anyhow::Context as _;
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use vouch_proto::{Cause, Outcome, Verdict, subject};
use vouch_service::nats::{self, Nats};
use vouch_service::publish;
use vouch_service::settings::Section;

/// How long a publish may take to be acknowledged.
const TIMEOUT: Duration = Duration::from_secs(8);
const SOURCE: &str = "/vouch";

pub(super) static KIND: Kind = Kind {
    word: "cdevents",
    serves: Serves { rollback: false, alert: true, report: true },
    tells: Tells { updates: false, resolved: true },
    read,
};

/// The version of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    V04,
    V05,
}

impl std::str::FromStr for Spec {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "0.4" => Ok(Self::V04),
            "0.5" => Ok(Self::V05),
            other => Err(format!("unknown value `{other}`, expected one of 0.4, 0.5")),
        }
    }
}

#[derive(Debug, Clone)]
struct CdeventsSettings {
    spec: Spec,
    source: String,
    /// Where to publish; the service's own subject without it.
    subject: Option<String>,
}

fn read(section: &mut Section<'_>, _allowed_hosts: &[String]) -> Option<Arc<dyn Maker>> {
    let spec = section.parsed("spec").unwrap_or(Spec::V04);
    let source = section.text("source").unwrap_or_else(|| SOURCE.to_owned());
    if source.contains(|c: char| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}".contains(c)) {
        section.refuse(
            "source",
            format!("`{source}` is no URI reference; write e.g. /vouch or https://vouch.example.com"),
        );
    }
    let subject = section.text("subject");
    if let Some(subject) = &subject {
        let empty = subject.split('.').any(str::is_empty);
        if empty || subject.contains(|c: char| c.is_whitespace() || c == '*' || c == '>') {
            section.refuse(
                "subject",
                format!("`{subject}` is no subject that can be published on; write e.g. cdevents.vouch"),
            );
        }
    }
    Some(Arc::new(CdeventsSettings { spec, source, subject }))
}

impl Maker for CdeventsSettings {
    fn make(&self, tools: &Tools) -> anyhow::Result<Box<dyn Action>> {
        let nats =
            tools.nats.clone().context("CDEvents are published on NATS, and there is no connection to it")?;
        Ok(Box::new(Cdevents { settings: self.clone(), nats }))
    }
}

/// The action.
#[derive(Debug)]
struct Cdevents {
    settings: CdeventsSettings,
    nats: Nats,
}

#[async_trait]
impl Action for Cdevents {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        let Some(event) = event(&self.settings, request) else {
            return Ok(Done::new("there is no CDEvent for it: nothing was sent".to_owned()));
        };
        let text =
            |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut headers = vec![
            ("Nats-Msg-Id", request.key.clone()),
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", text("/context/id")),
            ("ce-source", text("/context/source")),
            ("ce-type", text("/context/type")),
            ("ce-subject", text("/subject/id")),
            ("ce-time", text("/context/timestamp")),
            ("content-type", "application/cdevents+json".to_owned()),
        ];
        headers.extend(request.traceparent.clone().map(|t| ("traceparent", t)));
        let verdict = &request.verdict;
        let own = || subject::cdevent(&verdict.environment, &verdict.service);
        let to = self.settings.subject.clone().unwrap_or_else(own);
        let body = event.to_string().into_bytes().into();
        let sent = publish::publish(&self.nats, to.clone(), nats::headers(headers), body);
        let detail = match tokio::time::timeout(TIMEOUT, sent).await {
            Ok(Ok(())) => return Ok(Done::new(format!("{} was published on {to}", text("/context/type")))),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => {
                format!("a publish on {to} was not acknowledged in time; does a stream take that subject?")
            }
        };
        Err(ActionError { retryable: true, effect: Effect::Possible, detail, retry_after: None })
    }

    fn promise(&self) -> Promise {
        Promise::of_a_channel(TIMEOUT, true)
    }
}

/// The event of a word, where the specification has one.
fn event(settings: &CdeventsSettings, request: &ActionRequest) -> Option<Value> {
    let (alert, verdict) = (&*request.alert, &*request.verdict);
    let environment = json!({ "id": alert.environment });
    let (kind, subject_type, id, content) = match (alert.stage, alert.rollback) {
        (Stage::Reports, None) => {
            let content = run(settings.spec, alert, verdict, environment);
            ("testsuiterun.finished", "testSuiteRun", &alert.verification_id, content)
        }
        (Stage::Reports, Some(RollbackEnd::Done)) => {
            let before = alert.previous_version.as_deref()?;
            let content = json!({ "environment": environment, "artifactId": purl(&alert.service, before) });
            ("service.rolledback", "service", &alert.service, content)
        }
        // That it was rolled back is reported; that it was not has no event.
        (Stage::Reports, Some(_)) | (Stage::Updates, Some(RollbackEnd::Done)) => return None,
        (Stage::Opens | Stage::Updates, _) => {
            ("incident.detected", "incident", &alert.incident, incident(alert, environment))
        }
        (Stage::Resolves, _) => {
            ("incident.resolved", "incident", &alert.incident, incident(alert, environment))
        }
    };
    let mut context = Map::new();
    let (spec_key, spec, version) = match settings.spec {
        Spec::V04 => ("version", "0.4.1", "0.2.0"),
        Spec::V05 => ("specversion", "0.5.0", "0.3.0"),
    };
    for (key, value) in [
        (spec_key, spec.to_owned()),
        ("id", request.key.clone()),
        ("chainId", verdict.deployment_id.clone()),
        ("source", settings.source.clone()),
        ("type", format!("dev.cdevents.{kind}.{version}")),
        ("timestamp", alert.decided_at.to_string()),
    ] {
        context.insert(key.to_owned(), Value::String(value));
    }
    let mut subject = json!({ "id": id, "source": settings.source, "content": content });
    if settings.spec == Spec::V04 {
        subject["type"] = json!(subject_type);
    }
    Some(json!({
        "context": context,
        "subject": subject,
        "customData": custom(alert, verdict),
        "customDataContentType": "application/json",
    }))
}

/// A verification as a test suite run. What cannot be told is no success and no failure: an error, or cancelled.
fn run(spec: Spec, alert: &Alert, verdict: &Verdict, environment: Value) -> Value {
    let (pass, fail) = match spec {
        Spec::V04 => ("pass", "fail"),
        Spec::V05 => ("success", "failure"),
    };
    let outcome = match (verdict.outcome, verdict.cause) {
        (Outcome::Pass, _) => pass,
        (Outcome::Fail, _) => fail,
        (_, Cause::Cancelled | Cause::Superseded | Cause::Aborted) => "cancel",
        (Outcome::Inconclusive | Outcome::Error, _) => "error",
    };
    let mut content = json!({
        "outcome": outcome,
        "reason": alert.reason,
        "environment": environment,
    });
    if !verdict.template.is_empty() {
        content["testSuite"] = json!({ "id": verdict.template, "name": verdict.template });
        if !verdict.judge_version.is_empty() {
            content["testSuite"]["version"] = json!(verdict.judge_version);
        }
    }
    let severity = match alert.severity {
        Severity::Critical => Some("critical"),
        Severity::Error => Some("high"),
        Severity::Warning => Some("medium"),
        Severity::Info => None,
    };
    if let Some(severity) = severity {
        content["severity"] = json!(severity);
    }
    content
}

fn incident(alert: &Alert, environment: Value) -> Value {
    let version = alert.opened.as_ref().map_or(&alert.version, |opened| &opened.version);
    json!({
        "description": format!("{}: {}", alert.headline, alert.reason),
        "environment": environment,
        "service": { "id": alert.service },
        "artifactId": purl(&alert.service, version),
    })
}

fn custom(alert: &Alert, verdict: &Verdict) -> Value {
    let mut custom = json!({
        "outcome": alert.outcome.as_str(),
        "service": alert.service,
        "version": alert.version,
        "verification": alert.verification_id,
        "deployment": verdict.deployment_id,
        "did": alert.did,
    });
    if let Some(evidence) = &alert.links.evidence {
        custom["evidence"] = json!(evidence);
    }
    custom
}

/// A version of a service as a package URL: Vouch knows no image.
fn purl(service: &str, version: &str) -> String {
    format!("pkg:generic/{}@{}", encoded(service), encoded(version))
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_package_url() {
        assert_eq!(purl("checkout", "2.1"), "pkg:generic/checkout@2.1");
        assert_eq!(purl("cart *", "1.0+a/b@c"), "pkg:generic/cart%20%2A@1.0%2Ba%2Fb%40c");
    }
}
