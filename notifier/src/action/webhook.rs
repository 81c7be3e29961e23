//! Posts JSON to an address, signed. The body is described in docs/actions.md; what each answer means is decided here.

use super::{Action, ActionError, ActionRequest, Done, Effect, Endpoint, Promise, signature};
use crate::ledger::Probe;
use anyhow::Context as _;
use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use vouch_proto::v1;
use vouch_service::settings::Section;

/// Version of the body that is sent.
const PAYLOAD_VERSION: u32 = 1;
/// Most that is read of an answer.
const MOST_ANSWER_BYTES: usize = 4096;
/// How long the body of an answer is waited for: its status has decided already.
const ANSWER_BODY: Duration = Duration::from_secs(1);
/// Most that is repeated of an answer.
const MOST_EXCERPT_CHARS: usize = 200;
const SECOND: Duration = Duration::from_secs(1);

/// Where and how to post.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Where to post.
    pub url: Endpoint,
    /// Signs; `None` where `unsigned: true` was asked for.
    pub secret: Option<SecretString>,
    /// Bearer token.
    pub token: Option<SecretString>,
    /// Longest call.
    pub timeout: Duration,
    /// The receiver honours `Idempotency-Key`.
    pub idempotent: bool,
    /// Where to ask which version is live.
    pub probe_url: Option<Endpoint>,
    /// How long after a call that answer is to be trusted.
    pub probe_after: Duration,
}

impl WebhookSettings {
    /// Reads the fields of a webhook; `None` where one was refused.
    pub(super) fn read(section: &mut Section<'_>, allowed_hosts: &[String]) -> Option<Self> {
        let insecure = section.flag("insecure_http", false);
        let endpoint = |key: &'static str, address: Option<SecretString>, section: &mut Section<'_>| {
            match Endpoint::new(address?.expose_secret(), insecure, allowed_hosts) {
                Ok(endpoint) => Some(endpoint),
                Err(e) => {
                    section.refuse(key, e);
                    None
                }
            }
        };
        let address = section.secret("url", "url_file");
        if address.is_none() && section.raw("url_file").is_none() {
            section
                .refuse("url", "is missing; give the address to post to, or `url_file` where it is a secret");
        }
        let url = endpoint("url", address, section);
        let probe_address = section.text("probe_url").map(SecretString::from);
        let probe_url = endpoint("probe_url", probe_address, section);
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
        let timeout = section.duration("timeout", 8 * SECOND, SECOND / 10..=60 * SECOND);
        let idempotent = section.flag("idempotent", false);
        let probe_after = section.duration("probe_after", 30 * SECOND, SECOND / 100..=600 * SECOND);
        Some(Self { url: url?, secret, token, timeout, idempotent, probe_url, probe_after })
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
    verdict: v1::Verdict,
}

/// What a probe answers.
#[derive(Debug, Deserialize)]
struct Live {
    live_version: String,
}

/// The action.
#[derive(Debug)]
pub(super) struct Webhook {
    settings: WebhookSettings,
    client: Client,
}

impl Webhook {
    pub(super) fn new(settings: WebhookSettings) -> anyhow::Result<Self> {
        // A connection of its own for every call: on a used one, a reset leaves open whether the call was seen.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(settings.timeout / 2)
            .timeout(settings.timeout)
            .user_agent(concat!("vouch-notifier/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTP client of a webhook cannot be set up")?;
        Ok(Self { settings, client })
    }

    fn authorized(&self, method: Method, to: &Endpoint) -> RequestBuilder {
        let call = self.client.request(method, to.url());
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
        let answer = self.authorized(Method::GET, to).query(&query).send().await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        let live: Live = serde_json::from_slice(&read_some(answer).await).ok()?;
        (!live.live_version.trim().is_empty()).then_some(live.live_version)
    }
}

#[async_trait]
impl Action for Webhook {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        let body = payload(request)?;
        let headers = headers(request, self.settings.secret.as_ref(), &body)?;
        let to = &self.settings.url;
        let answer = self.authorized(Method::POST, to).headers(headers).body(body).send().await;
        let answer = answer.map_err(|e| not_answered(to, e))?;
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let body = read_some(answer).await;
        judge(status, retry_after, &format!("{to} answered {}{}", status.as_u16(), excerpt(&body)))
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
            timeout: self.settings.timeout,
            idempotent: self.settings.idempotent,
            probe_after: self.settings.probe_url.as_ref().map(|_| self.settings.probe_after),
        }
    }
}

fn never_sent(detail: String) -> ActionError {
    ActionError { retryable: false, effect: Effect::None, detail, retry_after: None }
}

fn payload(request: &ActionRequest) -> Result<Vec<u8>, ActionError> {
    let payload = Payload {
        version: PAYLOAD_VERSION,
        purpose: request.purpose.as_str(),
        key: &request.key,
        rule: request.rule.as_str(),
        summary: &request.summary,
        verdict: v1::Verdict::from((*request.verdict).clone()),
    };
    serde_json::to_vec(&payload).map_err(|e| never_sent(format!("the body cannot be written: {e}")))
}

fn headers(
    request: &ActionRequest,
    secret: Option<&SecretString>,
    body: &[u8],
) -> Result<HeaderMap, ActionError> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("vouch-attempt", HeaderValue::from(request.attempt));
    let signature = secret.map(|secret| signature::sign(secret, request.sent_at, body));
    for (name, value) in [
        ("idempotency-key", Some(request.key.as_str())),
        ("traceparent", request.traceparent.as_deref()),
        ("vouch-signature", signature.as_deref()),
    ] {
        if let Some(value) = value {
            let value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|e| never_sent(format!("the header {name} cannot be written: {e}")))?;
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

/// A call without an answer: only where no connection was made was it surely not carried out.
fn not_answered(to: &Endpoint, error: reqwest::Error) -> ActionError {
    let effect = if error.is_connect() || error.is_builder() { Effect::None } else { Effect::Possible };
    let how = match (effect, error.is_timeout()) {
        (Effect::None, true) => "could not be reached in time",
        (Effect::None, false) => "could not be reached",
        (Effect::Possible, true) => "did not answer in time",
        (Effect::Possible, false) => "ended the connection without an answer",
    };
    let error = anyhow::Error::from(error.without_url());
    ActionError { retryable: true, effect, detail: format!("{to} {how}: {error:#}"), retry_after: None }
}

/// What an answer means. 408, 425 and 429 say that the call was not taken, as does a 503 that names a later time; every
/// other 5xx may come from a gateway behind which it was carried out. The rest is the receiver's final word.
fn judge(status: StatusCode, retry_after: Option<Duration>, said: &str) -> Result<Done, ActionError> {
    let (retryable, effect) = match status.as_u16() {
        200..=299 => return Ok(Done { detail: said.to_owned(), dry_run: false }),
        408 | 425 | 429 => (true, Effect::None),
        503 if retry_after.is_some() => (true, Effect::None),
        500..=599 => (true, Effect::Possible),
        _ => (false, Effect::None),
    };
    Err(ActionError { retryable, effect, detail: said.to_owned(), retry_after })
}

/// Seconds, or an instant by the receiver's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let instant = |text: &str| jiff::fmt::rfc2822::parse(text).ok();
    let wait = instant(value)?.timestamp().duration_since(instant(text("date")?)?.timestamp());
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// The beginning of an answer's body, however long it is and however slowly it comes.
async fn read_some(mut answer: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(chunk.get(..MOST_ANSWER_BYTES - body.len()).unwrap_or(&chunk));
            if body.len() >= MOST_ANSWER_BYTES {
                break;
            }
        }
    };
    tokio::time::timeout(ANSWER_BODY, read).await.ok();
    body
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.chars().filter(|c| !c.is_control()).take(MOST_EXCERPT_CHARS).collect();
    if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) }
}
