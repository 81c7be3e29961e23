//! Posts a CloudEvent to an address, signed. The body is described in docs/actions.md, or is a template of one's own.

use super::http::{Http, HttpSettings, LITTLE, read_endpoint};
use super::template::Template;
use super::{
    Action, ActionError, ActionRequest, Done, Endpoint, Kind, Maker, Promise, Serves, Tells, Tools, sample,
    signature,
};
use crate::alert::{Links, Stage};
use crate::ledger::Probe;
use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use vouch_proto::{Purpose, v1};
use vouch_service::settings::Section;

/// Version of the body that is sent.
const PAYLOAD_VERSION: u32 = 1;
const SECOND: Duration = Duration::from_secs(1);

pub(super) static KIND: Kind = Kind {
    word: "webhook",
    serves: Serves { rollback: true, alert: true, report: true },
    tells: Tells { updates: false, resolved: true },
    read,
};

/// Where and how to post.
#[derive(Debug, Clone)]
struct WebhookSettings {
    url: Endpoint,
    http: HttpSettings,
    /// Signs; `None` where `unsigned: true` was asked for.
    secret: Option<SecretString>,
    /// Bearer token.
    token: Option<SecretString>,
    /// The receiver honours `Idempotency-Key`.
    idempotent: bool,
    /// Where to ask which version is live.
    probe_url: Option<Endpoint>,
    /// How long after a call that answer is to be trusted.
    probe_after: Duration,
    /// It answers only once the version before is live and healthy.
    confirms: bool,
    /// The body, where it is one of one's own.
    body: Option<Template>,
}

fn read(section: &mut Section<'_>, allowed_hosts: &[String]) -> Option<Arc<dyn Maker>> {
    let insecure = section.flag("insecure_http", false);
    let url = read_endpoint(section, ("url", "url_file"), None, allowed_hosts);
    let probe_url = section.text("probe_url").and_then(|address| {
        let endpoint = Endpoint::new(&address, insecure, allowed_hosts);
        endpoint.map_err(|e| section.refuse("probe_url", e)).ok()
    });
    let secret = section.secret("secret", "secret_file");
    match (section.flag("unsigned", false), &secret) {
        (false, None) if section.raw("secret_file").is_some() => {}
        (false, None) => section.refuse(
            "secret_file",
            "is missing; it signs what is sent. Set `unsigned: true` where the receiver cannot check it",
        ),
        (true, Some(_)) => section.refuse("unsigned", "and `secret_file` exclude each other; drop one"),
        (true, None) | (false, Some(_)) => {}
    }
    let token = section.secret("token", "token_file");
    let http = HttpSettings::read(section);
    let idempotent = section.flag("idempotent", false);
    let probe_after = section.duration("probe_after", 30 * SECOND, SECOND / 100..=600 * SECOND);
    let confirms = section.flag("confirms", false);
    let body = Template::read(section, "body", "body_file");
    if let Some(Err(e)) = body.as_ref().map(try_out) {
        section.refuse("body", format!("does not render: {e}"));
    }
    let url = url?;
    let settings =
        WebhookSettings { url, http, secret, token, idempotent, probe_url, probe_after, confirms, body };
    Some(Arc::new(settings))
}

/// A template that does not render is found before anything is wrong.
fn try_out(template: &Template) -> Result<(), String> {
    for stage in [Stage::Opens, Stage::Resolves] {
        let sample = sample::request(stage, None, Links::default()).map_err(|e| format!("{e:#}"))?;
        template.render(&payload(&sample))?;
    }
    Ok(())
}

impl Maker for WebhookSettings {
    fn make(&self, _tools: &Tools) -> anyhow::Result<Box<dyn Action>> {
        Ok(Box::new(Webhook { http: Http::new(&self.http)?, settings: self.clone() }))
    }
}

/// The body, version 1. The same bytes for every attempt.
#[derive(Debug, Serialize)]
struct Payload<'a> {
    version: u32,
    purpose: &'static str,
    key: &'a str,
    rule: &'static str,
    summary: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<&'a crate::alert::Alert>,
    verdict: v1::Verdict,
}

fn payload(request: &ActionRequest) -> Payload<'_> {
    Payload {
        version: PAYLOAD_VERSION,
        purpose: request.purpose.as_str(),
        key: &request.key,
        rule: request.rule.as_str(),
        summary: &request.summary,
        alert: (request.purpose == Purpose::Alert).then_some(&request.alert),
        verdict: v1::Verdict::from((*request.verdict).clone()),
    }
}

/// What a probe answers.
#[derive(Debug, Deserialize)]
struct Live {
    live_version: String,
}

/// The action.
#[derive(Debug)]
struct Webhook {
    settings: WebhookSettings,
    http: Http,
}

impl Webhook {
    fn authorized(&self, method: Method, to: &Endpoint) -> RequestBuilder {
        let call = self.http.call(method, to);
        match &self.settings.token {
            Some(token) => call.bearer_auth(token.expose_secret()),
            None => call,
        }
    }

    async fn live_version(&self, to: &Endpoint, request: &ActionRequest) -> Option<String> {
        let verdict = &request.verdict;
        let query = [
            ("environment", verdict.environment.as_str()),
            ("service", verdict.service.as_str()),
            ("cluster", verdict.cluster.as_deref().unwrap_or_default()),
            ("workload", verdict.workload.as_deref().unwrap_or_default()),
            ("key", request.key.as_str()),
        ];
        let call = self.authorized(Method::GET, to).query(&query);
        let answer = self.http.send(call, to, LITTLE).await.ok()?;
        if answer.status != StatusCode::OK {
            return None;
        }
        let live: Live = serde_json::from_slice(&answer.body).ok()?;
        (!live.live_version.trim().is_empty()).then_some(live.live_version)
    }

    fn body(&self, request: &ActionRequest) -> Result<Vec<u8>, ActionError> {
        let payload = payload(request);
        let written = match &self.settings.body {
            Some(template) => template.render(&payload).map(String::into_bytes),
            None => serde_json::to_vec(&payload).map_err(|e| e.to_string()),
        };
        written.map_err(|e| ActionError::never_sent(format!("the body cannot be written: {e}")))
    }
}

#[async_trait]
impl Action for Webhook {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        let body = self.body(request)?;
        let content_type = self.settings.body.as_ref().map_or("application/json", Template::content_type);
        let headers = headers(request, content_type, (self.settings.secret.as_ref(), &body))?;
        let to = &self.settings.url;
        let call = self.authorized(Method::POST, to).headers(headers).body(body);
        self.http.send(call, to, LITTLE).await?.judge()
    }

    async fn probe(&self, request: &ActionRequest) -> Probe {
        let Some(to) = &self.settings.probe_url else { return Probe::CannotTell };
        match self.live_version(to, request).await {
            None => Probe::CannotTell,
            Some(live) if live == request.verdict.version.as_str() => Probe::NotDone,
            Some(_) => Probe::Done,
        }
    }

    fn promise(&self) -> Promise {
        Promise {
            timeout: self.settings.http.timeout,
            idempotent: self.settings.idempotent,
            probe_after: self.settings.probe_url.as_ref().map(|_| self.settings.probe_after),
            confirms: self.settings.confirms,
        }
    }
}

/// The attributes of a CloudEvent in binary mode, the signature, and the key.
fn headers(
    request: &ActionRequest,
    content_type: &str,
    (secret, body): (Option<&SecretString>, &[u8]),
) -> Result<HeaderMap, ActionError> {
    let verdict = &request.verdict;
    let signature = secret.map(|secret| signature::sign(secret, request.sent_at, body));
    let subject = encoded(&format!("{}/{}", verdict.environment, verdict.service));
    let (attempt, decided_at) = (request.attempt.to_string(), verdict.decided_at.to_string());
    let kind = format!("dev.vouch.v1.{}", request.purpose.as_str());
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", Some(content_type)),
        ("ce-specversion", Some("1.0")),
        ("ce-type", Some(&kind)),
        ("ce-source", Some("vouch/notifier")),
        ("ce-id", Some(&encoded(&request.key))),
        ("ce-subject", Some(&subject)),
        ("ce-time", Some(&decided_at)),
        ("idempotency-key", Some(&request.key)),
        ("vouch-attempt", Some(&attempt)),
        ("traceparent", request.traceparent.as_deref()),
        ("vouch-signature", signature.as_deref()),
    ] {
        if let Some(value) = value {
            let value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|e| ActionError::never_sent(format!("the header {name} cannot be written: {e}")))?;
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

/// As the HTTP binding of CloudEvents writes attributes: what is not printable ASCII, and space, quote and percent sign,
/// as `%XX`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => out.push_str(&format!("%{byte:02X}")),
            0x21..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_as_the_binding_says() {
        assert_eq!(encoded("prod/checkout"), "prod/checkout");
        assert_eq!(encoded("prod/Füße \"1%\""), "prod/F%C3%BC%C3%9Fe%20%221%25%22");
    }
}
