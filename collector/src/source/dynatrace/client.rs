//! The HTTP client of one tenant: authentication, deadlines, retries, throttling, and what is told about each call.

use super::address::{Api, endpoint, is_in_the_clear};
use super::credential::{Credential, Scheme};
use super::pressure::Pressure;
use super::refusal::{is_web_page, refusal, web_page};
use super::share::{CallBudget, Share};
use crate::config::TenantSettings;
use crate::metrics::Metrics;
use crate::source::{Failure, FailureKind, Purpose};
use jiff::fmt::rfc2822;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response, Url};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use vouch_proto::Timestamp;
use vouch_service::clock::{self, Clock as _, SharedClock, SystemClock};
use vouch_service::health::Health;

/// Largest body that is read.
const LONGEST_BODY: usize = 64 << 20;
/// Attempts of one call.
const ATTEMPTS: u32 = 4;
/// No further attempt begins when this much has passed since the first, on the injected clock.
const PATIENCE: Duration = Duration::from_secs(45);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The scopes that a query of metrics needs in Grail.
const GRAIL_SCOPES: &str = "storage:buckets:read and storage:metrics:read";
/// Seconds by which the clocks may differ: less than it takes a minute to settle.
const MOST_SKEW: u64 = 60;
/// The condition of readiness that calls decide.
const CONDITION: &str = "dynatrace";

/// One call: what is asked, and which scope it needs.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) api: Api,
    /// Below the API's own.
    pub(super) path: &'a [&'a str],
    pub(super) query: Vec<(&'a str, String)>,
    pub(super) body: Option<serde_json::Value>,
    pub(super) scope: &'a str,
    /// Whether a failure that may pass is asked again.
    pub(super) again: bool,
    pub(super) purpose: Purpose,
}

impl<'a> Call<'a> {
    pub(super) const fn get(path: &'a [&'a str], query: Vec<(&'a str, String)>, scope: &'a str) -> Self {
        let purpose = Purpose::Verification;
        Self { method: Method::GET, api: Api::Classic, path, query, body: None, scope, again: true, purpose }
    }

    /// A call of Grail, which answers queries in DQL.
    pub(super) const fn grail(method: Method, path: &'a [&'a str], query: Vec<(&'a str, String)>) -> Self {
        let (scope, purpose) = (GRAIL_SCOPES, Purpose::Verification);
        Self { method, api: Api::Grail, path, query, body: None, scope, again: true, purpose }
    }

    /// The same, asked only once.
    pub(super) fn once(self) -> Self {
        Self { again: false, ..self }
    }

    /// The same, for a purpose.
    pub(super) fn for_the(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// Name of the endpoint in messages and metrics: no ids, no selectors.
    fn name(&self) -> String {
        self.path.iter().take(2).copied().collect::<Vec<_>>().join("/")
    }

    /// As `name`, where the second segment is a key that would make too many labels.
    fn label(&self) -> String {
        match self.path {
            ["metrics", key] if *key != "query" => "metrics/key".to_owned(),
            _ => self.name(),
        }
    }
}

/// The client of one tenant.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    settings: TenantSettings,
    credential: Credential,
    clock: SharedClock,
    health: Health,
    metrics: Metrics,
    pressure: Pressure,
    blocked_until: Mutex<Option<Timestamp>>,
    /// How far the tenant's clock is ahead of the machine's, in seconds; as its answers are stamped.
    skew: Mutex<Option<i64>>,
}

impl Client {
    pub(super) fn new(
        settings: &TenantSettings,
        clock: SharedClock,
        health: Health,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        if is_in_the_clear(&settings.url) {
            tracing::warn!(
                "collector.url is http: the token travels in the clear; use https where the tenant has it"
            );
        }
        // The provider is the process's; whoever installed one first is kept.
        rustls::crypto::ring::default_provider().install_default().ok();
        if settings.insecure {
            tracing::warn!(
                "collector.insecure accepts any certificate: whoever is in between can read the token"
            );
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("vouch-collector/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.request_timeout)
            .connect_timeout(settings.request_timeout.min(Duration::from_secs(10)))
            .danger_accept_invalid_certs(settings.insecure)
            .tls_certs_merge(settings.ca.iter().cloned())
            .build()?;
        Ok(Self {
            http,
            base: settings.url.clone(),
            credential: Credential::new(
                settings.token.clone(),
                settings.token_file.clone(),
                settings.oauth.clone(),
            ),
            settings: settings.clone(),
            health,
            metrics,
            pressure: pressure(settings, alone(), clock.clone()),
            clock,
            blocked_until: Mutex::default(),
            skew: Mutex::default(),
        })
    }

    /// From now on the calls of a minute are shared with other replicas.
    pub(super) fn share(&mut self, replicas: watch::Receiver<usize>) {
        self.pressure = pressure(&self.settings, replicas, self.clock.clone());
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn clock(&self) -> &dyn clock::Clock {
        &*self.clock
    }

    pub(super) fn settings(&self) -> &TenantSettings {
        &self.settings
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// The name of a condition of readiness: about the tenant, or a part of it; of several tenants with its name.
    pub(super) fn condition(&self, part: &str) -> String {
        let name = if self.settings.is_one_of_several { self.settings.name.as_str() } else { "" };
        [CONDITION, name, part].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn token(&self) -> SecretString {
        self.credential.token()
    }

    /// Sends a call, again where that may help, and reads its answer.
    pub(super) async fn send<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, Failure> {
        let answer = self.send_aside(call).await;
        match &answer {
            Ok(_) => self.health.ok(&self.condition("")),
            Err(failure) if failure.kind.stops_readiness() => {
                self.health.fails(&self.condition(""), failure.to_string());
            }
            Err(_) => {}
        }
        answer
    }

    /// As `send`; readiness does not depend on how it ends.
    pub(super) async fn send_aside<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, Failure> {
        let body = self.with_retries(call).await?;
        serde_json::from_slice(&body).map_err(|e| {
            let message = format!("{} answered what is not understood: {e}", call.name());
            Failure::new(FailureKind::BadAnswer, message)
        })
    }

    async fn with_retries(&self, call: &Call<'_>) -> Result<Vec<u8>, Failure> {
        let begun = self.clock.now();
        let mut pause = FIRST_PAUSE;
        let mut token_reloaded = false;
        let mut attempt = 1;
        loop {
            self.wait_while_blocked(begun).await?;
            if let Some(failure) = self.pressure.closed(self.clock.now()) {
                return Err(failure);
            }
            let authorization = self.credential.header(&self.http, self.clock.now()).await?;
            let failure = match self.once(call, &authorization).await {
                Ok(body) => return Ok(body),
                Err(failure) => failure,
            };
            if failure.kind == FailureKind::Unauthorized
                && !token_reloaded
                && self.credential.renew(&authorization).await
            {
                token_reloaded = true;
                continue;
            }
            if !failure.kind.is_retryable() || !call.again {
                return Err(failure);
            }
            let asked = failure.retry_after;
            let wait = asked.unwrap_or_else(|| pause.mul_f64(rand::random_range(0.5..1.0)));
            if let (FailureKind::Throttled, Some(asked)) = (failure.kind, asked) {
                self.block(asked);
            }
            let spent = self.clock.now().since(begun);
            if attempt >= ATTEMPTS || spent + wait > PATIENCE {
                return Err(failure);
            }
            tracing::debug!(endpoint = call.name(), attempt, ?wait, error = %failure, "asking again");
            clock::sleep(&*self.clock, wait).await;
            pause *= 2;
            attempt += 1;
        }
    }

    /// Everybody leaves a throttling tenant alone until it said it may be asked again.
    fn block(&self, pause: Duration) {
        let until = self.clock.now().plus(pause);
        let mut blocked = self.blocked_until.lock().unwrap_or_else(PoisonError::into_inner);
        *blocked = (*blocked).max(Some(until));
    }

    async fn wait_while_blocked(&self, begun: Timestamp) -> Result<(), Failure> {
        let blocked = *self.blocked_until.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = blocked else { return Ok(()) };
        let now = self.clock.now();
        if until.since(begun) > PATIENCE && until > now {
            let left = until.since(now);
            let message =
                format!("Dynatrace throttles and wants no request until {until}; it is asked again then");
            return Err(Failure { kind: FailureKind::Throttled, message, retry_after: Some(left) });
        }
        clock::sleep_until(&*self.clock, until).await;
        Ok(())
    }

    async fn once(&self, call: &Call<'_>, authorization: &str) -> Result<Vec<u8>, Failure> {
        let _turn = self.pressure.turn(call.purpose).await?;
        let begun = Instant::now();
        let answer = self.exchange(call, authorization).await;
        let outcome = answer.as_ref().map_or_else(|e| e.kind.as_str(), |_| "ok");
        let bytes = answer.as_ref().map_or(0, Vec::len);
        let limit = self.pressure.note(answer.as_ref().map(|_| ()), self.clock.now());
        self.metrics.concurrency(limit);
        let standing = self.pressure.standing(call.purpose);
        self.metrics.turns(&self.settings.name, call.purpose.as_str(), standing);
        self.metrics.call(&call.label(), outcome, (bytes, begun.elapsed()));
        answer
    }

    async fn exchange(&self, call: &Call<'_>, authorization: &str) -> Result<Vec<u8>, Failure> {
        let name = call.name();
        let address = endpoint(&self.base, call.api, self.credential.scheme(), call.path);
        let mut request = self
            .http
            .request(call.method.clone(), address)
            .query(&call.query)
            .header("Authorization", authorization)
            .header("Accept", "application/json");
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|e| self.broken(&name, &e))?;
        let (status, headers) = (response.status(), response.headers().clone());
        self.note_skew(&headers);
        let body = self.body(&name, response).await;
        if !status.is_success() {
            // The status says enough where the body of a refusal broke off.
            let body = body.unwrap_or_default();
            return Err(refusal((status, &headers, &body), &name, call.scope, self.clock.now()));
        }
        let body = body?;
        if is_web_page(&headers, &body) {
            return Err(Failure::new(FailureKind::WebPage, web_page(&name)));
        }
        Ok(body)
    }

    /// Compares the stamp of an answer with the machine's clock, not the injected one: the tenant does not know that.
    fn note_skew(&self, headers: &HeaderMap) {
        let stamp = headers.get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
        let Some(stamp) = stamp.and_then(|text| rfc2822::DateTimeParser::new().parse_timestamp(text).ok())
        else {
            return;
        };
        let skew = stamp.as_second() - SystemClock.now().as_millis().div_euclid(1000);
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = Some(skew);
        self.metrics.skew(skew);
        match skewed(skew) {
            None => self.health.ok(&self.condition("clock")),
            Some(message) => self.health.fails(&self.condition("clock"), message),
        }
    }

    /// What is wrong with the clocks, in words, once an answer has come.
    pub(super) fn skew(&self) -> Option<Result<i64, String>> {
        let skew = (*self.skew.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(skewed(skew).map_or(Ok(skew), Err))
    }

    /// By how much the tenant's clock is behind the machine's.
    pub(super) fn clock_behind(&self) -> Duration {
        let skew = self.skew.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(0);
        Duration::from_secs(u64::try_from(-skew).unwrap_or(0))
    }

    /// How calls are authorised.
    pub(super) fn scheme(&self) -> Scheme {
        self.credential.scheme()
    }

    async fn body(&self, name: &str, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|e| self.broken(name, &e))? {
            if body.len() + part.len() > LONGEST_BODY {
                let message =
                    format!("{name} answered more than {LONGEST_BODY} bytes; ask for less in the template");
                return Err(Failure::new(FailureKind::TooLarge, message));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    /// Names a failure of the connection. The URL is left out: it may hold what is nobody's business.
    fn broken(&self, name: &str, error: &reqwest::Error) -> Failure {
        let cause = root_cause(error);
        if error.is_timeout() {
            let limit = self.settings.request_timeout;
            let message = format!("{name} was not answered within {limit:?} (collector.request_timeout)");
            return Failure::new(FailureKind::Timeout, message);
        }
        if error.is_connect() || error.is_request() {
            let host = self.base.host_str().unwrap_or_default();
            let message = format!(
                "{host} cannot be reached ({cause}); check collector.url, the proxy, DNS and the certificate"
            );
            return Failure::new(FailureKind::Unreachable, message);
        }
        Failure::new(
            FailureKind::CutOff,
            format!("the answer of {name} broke off ({cause}); it is asked again"),
        )
    }
}

/// What a skew means, where it is too large for minutes to be told apart.
fn skewed(skew: i64) -> Option<String> {
    let (seconds, word) = (skew.unsigned_abs(), if skew > 0 { "behind" } else { "ahead of" });
    (seconds > MOST_SKEW).then(|| {
        format!(
            "the machine's clock is {seconds} s {word} Dynatrace's, so that minutes are asked for too {}; synchronise it (NTP)",
            if skew > 0 { "late" } else { "early" }
        )
    })
}

fn pressure(settings: &TenantSettings, replicas: watch::Receiver<usize>, clock: SharedClock) -> Pressure {
    let budget = CallBudget { calls_per_minute: settings.calls_per_minute, replicas };
    let share = Share::new(budget, clock.now());
    Pressure::new(settings.concurrency, share, clock)
}

/// Nobody else asks the tenant.
fn alone() -> watch::Receiver<usize> {
    watch::channel(1).1
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
