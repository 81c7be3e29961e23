//! HTTP as every action uses it: one call, one connection, a deadline, a bounded answer, and what a status means.

use super::{ActionError, Done, Effect, Endpoint};
use anyhow::Context as _;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, Identity, Method, RequestBuilder, Response, StatusCode, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use std::time::Duration;
use vouch_service::settings::Section;

/// Most that is read of an answer whose status says everything.
pub(super) const LITTLE: usize = 4096;
/// How long the body of an answer is waited for: its status has decided already.
const ANSWER_BODY: Duration = Duration::from_secs(1);
/// Most that is repeated of an answer.
const MOST_EXCERPT_CHARS: usize = 200;
const SECOND: Duration = Duration::from_secs(1);

/// What all actions over HTTP have in common.
#[derive(Debug, Clone)]
pub(super) struct HttpSettings {
    /// Longest call, connecting included.
    pub(super) timeout: Duration,
    /// Authorities that are trusted besides the machine's.
    ca: Vec<Certificate>,
    /// The certificate and key that are shown, PEM.
    identity: Option<SecretString>,
}

impl HttpSettings {
    /// Reads `timeout`, `ca_file`, `client_cert_file` and `client_key_file`.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let timeout = section.duration("timeout", 8 * SECOND, SECOND / 10..=60 * SECOND);
        let ca = read_ca(section);
        let certificate = section.secret("client_cert", "client_cert_file");
        let key = section.secret("client_key", "client_key_file");
        let given = |section: &mut Section<'_>, a, b| section.raw(a).is_some() || section.raw(b).is_some();
        let with_certificate = given(section, "client_cert", "client_cert_file");
        let with_key = given(section, "client_key", "client_key_file");
        if with_certificate != with_key {
            let (missing, there) = if with_key {
                ("client_cert_file", "client_key_file")
            } else {
                ("client_key_file", "client_cert_file")
            };
            section.refuse(missing, format!("is missing; `{there}` needs it"));
        }
        let identity = certificate.zip(key).and_then(|(certificate, key)| {
            let pem = format!("{}\n{}\n", certificate.expose_secret(), key.expose_secret());
            if Identity::from_pem(pem.as_bytes()).is_err() {
                section.refuse(
                    "client_cert_file",
                    "and `client_key_file` are no certificate and its key in PEM",
                );
                return None;
            }
            Some(SecretString::from(pem))
        });
        Self { timeout, ca, identity }
    }
}

fn read_ca(section: &mut Section<'_>) -> Vec<Certificate> {
    let Some(path) = section.path("ca_file") else { return Vec::new() };
    let read = std::fs::read(&path).map_err(|e| format!("{} cannot be read: {e}", path.display()));
    let parsed = read.and_then(|pem| match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(format!("{} holds no certificate in PEM", path.display())),
    });
    parsed.unwrap_or_else(|e| {
        section.refuse("ca_file", e);
        Vec::new()
    })
}

/// Reads an address from `<key>` or `<key>_file`, since many are secrets; `default` where neither is given.
pub(super) fn read_endpoint(
    section: &mut Section<'_>,
    (key, file_key): (&'static str, &'static str),
    default: Option<&str>,
    allowed_hosts: &[String],
) -> Option<Endpoint> {
    let insecure = section.flag("insecure_http", false);
    let given = section.raw(key).is_some() || section.raw(file_key).is_some();
    let address = section.secret(key, file_key);
    let address = match (given, address, default) {
        (true, address, _) => address?,
        (false, _, Some(default)) => SecretString::from(default),
        (false, _, None) => {
            section.refuse(
                key,
                format!("is missing; give the address to post to, or `{file_key}` where it is a secret"),
            );
            return None;
        }
    };
    match Endpoint::new(address.expose_secret(), insecure, allowed_hosts) {
        Ok(endpoint) => Some(endpoint),
        Err(e) => {
            section.refuse(key, e);
            None
        }
    }
}

/// A secret that has to be there.
pub(super) fn read_secret(
    section: &mut Section<'_>,
    (key, file_key): (&'static str, &'static str),
    what: &str,
) -> Option<SecretString> {
    let given = section.raw(key).is_some() || section.raw(file_key).is_some();
    let secret = section.secret(key, file_key);
    if !given {
        section.refuse(file_key, format!("is missing; {what}"));
    }
    secret
}

/// The client of one action.
#[derive(Debug, Clone)]
pub(super) struct Http(Client);

/// An answer, as much of it as was read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
    /// For a person: who answered what.
    pub(super) said: String,
}

impl Http {
    pub(super) fn new(settings: &HttpSettings) -> anyhow::Result<Self> {
        // A connection of its own for every call: on a used one, a reset leaves open whether the call was seen.
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .http1_only()
            .pool_max_idle_per_host(0)
            .tls_certs_merge(settings.ca.iter().cloned())
            .connect_timeout(settings.timeout / 2)
            .timeout(settings.timeout)
            .user_agent(concat!("vouch-notifier/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &settings.identity {
            builder = builder.identity(Identity::from_pem(pem.expose_secret().as_bytes())?);
        }
        Ok(Self(builder.build().context("an action's HTTP client cannot be set up")?))
    }

    pub(super) fn call(&self, method: Method, to: &Endpoint) -> RequestBuilder {
        self.0.request(method, to.url())
    }

    /// Sends a call and reads at most `most` bytes of its answer.
    pub(super) async fn send(
        &self,
        call: RequestBuilder,
        to: &Endpoint,
        most: usize,
    ) -> Result<Answer, ActionError> {
        let answer = call.send().await.map_err(|e| not_answered(to, e))?;
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let body = read_some(answer, most).await;
        let said = format!("{to} answered {}{}", status.as_u16(), excerpt(&body));
        Ok(Answer { status, retry_after, body, said })
    }

    /// Sends JSON; the status decides.
    pub(super) async fn post_json(
        &self,
        call: RequestBuilder,
        to: &Endpoint,
        body: &serde_json::Value,
    ) -> Result<Done, ActionError> {
        let call = call.header("content-type", "application/json").body(body.to_string());
        self.send(call, to, LITTLE).await?.judge()
    }
}

impl Answer {
    /// What an answer means. 408, 425 and 429 say that the call was not taken, as does a 503 that names a later time;
    /// every other 5xx may come from a gateway behind which it was carried out. The rest is the receiver's final word.
    pub(super) fn judge(self) -> Result<Done, ActionError> {
        let (retryable, effect) = match self.status.as_u16() {
            200..=299 => return Ok(Done::new(self.said)),
            408 | 425 | 429 => (true, Effect::None),
            503 if self.retry_after.is_some() => (true, Effect::None),
            500..=599 => (true, Effect::Possible),
            _ => (false, Effect::None),
        };
        Err(ActionError { retryable, effect, detail: self.said, retry_after: self.retry_after })
    }
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
async fn read_some(mut answer: Response, most: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(chunk.get(..most - body.len()).unwrap_or(&chunk));
            if body.len() >= most {
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
