//! Queries of Grail: executed, polled until they are done, cancelled where nobody waits any more.

use super::Dynatrace;
use super::client::{Call, Client};
use super::refusal::quote;
use crate::source::{Failure, FailureKind};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;
use vouch_proto::Timestamp;
use vouch_service::clock;

/// How long an answer to `query:execute` is waited for by the server itself.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Between two polls.
const POLL: Duration = Duration::from_secs(1);
/// Most records of an answer.
const MOST_RECORDS: u32 = 10_000;
/// Asks for the units of metrics.
const ENRICH: (&str, &str) = ("enrich", "metric-metadata");

/// A query in the Dynatrace Query Language.
#[derive(Debug, Clone)]
pub(super) struct DqlAsk<'a> {
    pub(super) query: &'a str,
    /// The time that it is about, where it does not say so itself.
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// Most that it may read.
    pub(super) scan_limit_gb: u32,
    /// How long its result is waited for, on the injected clock.
    pub(super) patience: Duration,
}

/// What `query:execute` and `query:poll` answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    request_token: Option<String>,
    #[serde(default)]
    ttl_seconds: Option<u64>,
    #[serde(default)]
    result: Option<DqlResult>,
    #[serde(default)]
    error: Option<Value>,
}

/// The result of a query that has succeeded.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DqlResult {
    #[serde(default)]
    pub(super) records: Vec<Option<Map<String, Value>>>,
    #[serde(default)]
    metadata: Metadata,
    /// What is said of what was scanned.
    #[serde(skip)]
    scanned_note: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    grail: Option<Scan>,
    #[serde(default)]
    metrics: Vec<MetricColumn>,
    /// Some answers have them here.
    #[serde(default)]
    notifications: Vec<Notification>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scan {
    #[serde(default)]
    notifications: Vec<Notification>,
    /// A number, or a long as a text.
    #[serde(default)]
    scanned_bytes: Option<Value>,
}

/// Why a result may not be all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Reading was stopped: anything may be missing.
    ScanLimit,
    /// More was found than is answered: what is behind the last record is missing.
    ResultLimit,
    /// It says so in other words.
    Other,
}

/// What a column holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricColumn {
    #[serde(default)]
    field_name: Option<String>,
    #[serde(default)]
    unit: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notification {
    #[serde(default)]
    severity: String,
    #[serde(default)]
    notification_type: String,
    #[serde(default)]
    message: String,
}

impl DqlResult {
    /// The unit of a column, as the source names it.
    pub(super) fn unit_of(&self, column: &str) -> Option<&str> {
        let named = |metric: &&MetricColumn| metric.field_name.as_deref() == Some(column);
        self.metadata.metrics.iter().find(named)?.unit.as_deref()
    }

    fn notifications(&self) -> impl Iterator<Item = &Notification> {
        let of_grail = self.metadata.grail.iter().flat_map(|grail| &grail.notifications);
        of_grail.chain(&self.metadata.notifications)
    }

    /// What the source says besides, in words.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notifications().map(Notification::text).chain(self.scanned_note.clone()).collect()
    }

    /// Says what was scanned among the notes, where that is billed.
    pub(super) fn note_scanned(&mut self, is_billed: bool) {
        let bytes = self.scanned_bytes();
        self.scanned_note = is_billed.then(|| format!("{bytes} bytes were scanned, which are billed"));
    }

    /// Whether something was left out: a limit was reached, or the answer was cut.
    pub(super) fn incomplete(&self) -> Option<Failure> {
        self.doubt().map(|(_, failure)| failure)
    }

    /// The same, and what was left out; the worst where several things are said.
    pub(super) fn doubt(&self) -> Option<(Doubt, Failure)> {
        let matters = |one: &&Notification| {
            let severity = one.severity.to_uppercase();
            severity == "WARN" || severity == "WARNING" || severity == "ERROR"
        };
        let matter: Vec<&Notification> = self.notifications().filter(matters).collect();
        let worst = matter.iter().find(|one| one.doubt() == Doubt::ScanLimit);
        let worst =
            worst.or_else(|| matter.iter().find(|one| one.doubt() == Doubt::Other)).or(matter.first())?;
        let message = format!("Grail warns: {}; ask for less, or raise the limit", worst.text());
        Some((worst.doubt(), Failure::new(FailureKind::Incomplete, message)))
    }

    /// Bytes that the query has read: what is billed.
    pub(super) fn scanned_bytes(&self) -> u64 {
        let said = self.metadata.grail.as_ref().and_then(|grail| grail.scanned_bytes.as_ref());
        said.and_then(|said| said.as_u64().or_else(|| said.as_str()?.parse().ok())).unwrap_or(0)
    }
}

impl Notification {
    fn doubt(&self) -> Doubt {
        let kind = self.notification_type.to_uppercase();
        if kind.contains("SCAN_LIMIT") {
            Doubt::ScanLimit
        } else if kind == "LIMIT_ADDED" || kind.contains("RESULT_LIMIT") || kind.contains("RESULT_BYTES") {
            Doubt::ResultLimit
        } else {
            Doubt::Other
        }
    }

    fn text(&self) -> String {
        quote(format!("{} {}", self.notification_type, self.message).trim())
    }
}

/// How far a query is.
enum Progress {
    Done(Box<DqlResult>),
    /// Under way, and until when its result is kept.
    Running(Option<String>, Option<Duration>),
}

impl Dynatrace {
    /// Runs a query to its result.
    pub(super) async fn dql(&self, ask: &DqlAsk<'_>) -> Result<DqlResult, Failure> {
        self.run(ask, false).await
    }

    /// As `dql`; readiness does not depend on how it ends.
    pub(super) async fn dql_aside(&self, ask: &DqlAsk<'_>) -> Result<DqlResult, Failure> {
        self.run(ask, true).await
    }

    async fn run(&self, ask: &DqlAsk<'_>, is_aside: bool) -> Result<DqlResult, Failure> {
        let client = &self.client;
        let send = async |call: Call<'_>| -> Result<Answer, Failure> {
            if is_aside { client.send_aside(&call).await } else { client.send(&call).await }
        };
        let begun = client.now();
        let (mut token, mut kept) = match progress(send(execute(ask)).await?)? {
            Progress::Done(result) => return Ok(*result),
            Progress::Running(Some(token), kept) => (token, kept),
            Progress::Running(None, _) => {
                let message = "query:execute answered neither a result nor a token to ask for it";
                return Err(Failure::new(FailureKind::BadAnswer, message));
            }
        };
        loop {
            clock::sleep(client.clock(), POLL).await;
            match progress(send(poll(&token)).await.map_err(gone)?)? {
                Progress::Done(result) => return Ok(*result),
                Progress::Running(renewed, ttl) => {
                    token = renewed.unwrap_or(token);
                    kept = ttl.or(kept);
                }
            }
            let waited = client.now().since(begun);
            if waited >= ask.patience.min(kept.unwrap_or(ask.patience)) {
                cancel(client, &token).await;
                let message = format!(
                    "the query was not done within {} s and is cancelled; ask for less, or wait longer",
                    waited.as_secs()
                );
                return Err(Failure::new(FailureKind::Timeout, message));
            }
        }
    }
}

fn execute<'a>(ask: &DqlAsk<'_>) -> Call<'a> {
    let body = serde_json::json!({
        "query": ask.query,
        "defaultTimeframeStart": ask.from.to_string(),
        "defaultTimeframeEnd": ask.to.to_string(),
        "timezone": "UTC",
        "locale": "en_US",
        "maxResultRecords": MOST_RECORDS,
        "requestTimeoutMilliseconds": AT_ONCE.as_millis(),
        "fetchTimeoutSeconds": ask.patience.as_secs().clamp(1, 900),
        "defaultScanLimitGbytes": ask.scan_limit_gb,
        "enablePreview": false,
    });
    let call = Call::grail(Method::POST, &["query:execute"], vec![(ENRICH.0, ENRICH.1.to_owned())]);
    Call { body: Some(body), ..call }
}

fn poll<'a>(token: &str) -> Call<'a> {
    let query = vec![("request-token", token.to_owned()), (ENRICH.0, ENRICH.1.to_owned())];
    Call::grail(Method::GET, &["query:poll"], query)
}

async fn cancel(client: &Client, token: &str) {
    let query = vec![("request-token", token.to_owned())];
    let call = Call::grail(Method::POST, &["query:cancel"], query).once();
    if let Err(failure) = client.send_aside::<serde::de::IgnoredAny>(&call).await {
        // It ends by itself.
        tracing::debug!(%failure, "a query could not be cancelled");
    }
}

/// A result that is not kept any more is answered with 410.
fn gone(failure: Failure) -> Failure {
    if failure.kind == FailureKind::BadRequest && failure.message.contains("(410") {
        return result_gone();
    }
    failure
}

fn result_gone() -> Failure {
    Failure::new(FailureKind::ResultGone, "Grail has dropped the result before it was fetched; ask again")
}

/// A state that is not known, or none at all, is under way until its time is up.
fn progress(answer: Answer) -> Result<Progress, Failure> {
    let failed = |what: &str| {
        let said = answer.error.as_ref().and_then(|e| e.get("message")).and_then(Value::as_str);
        let message = format!("the query {what} in Grail ({})", quote(said.unwrap_or("no reason was given")));
        Err(Failure::new(FailureKind::QueryFailed, message))
    };
    match answer.state.as_deref() {
        Some("SUCCEEDED") => match answer.result {
            Some(result) => Ok(Progress::Done(Box::new(result))),
            None => Err(Failure::new(FailureKind::BadAnswer, "the query has succeeded and has no result")),
        },
        Some("FAILED") => failed("failed"),
        Some("CANCELLED") => failed("was cancelled"),
        Some("RESULT_GONE") => Err(result_gone()),
        Some(_) | None => {
            Ok(Progress::Running(answer.request_token, answer.ttl_seconds.map(Duration::from_secs)))
        }
    }
}

/// The result that an answer holds, whatever its state.
pub(super) fn result_of(body: &[u8]) -> Option<DqlResult> {
    serde_json::from_slice::<Answer>(body).ok()?.result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Progress, Failure> {
        progress(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn states_are_told_apart_and_unknown_ones_are_under_way() {
        for state in ["RUNNING", "NOT_STARTED", "", "SOMETHING_NEW"] {
            let text = format!(r#"{{"state":"{state}","ttlSeconds":30}}"#);
            assert!(matches!(read(&text), Ok(Progress::Running(None, Some(_)))), "{state}");
        }
        assert!(matches!(read(r#"{"requestToken":"a b+/="}"#), Ok(Progress::Running(Some(_), None))));
        for (state, kind) in [
            ("FAILED", FailureKind::QueryFailed),
            ("CANCELLED", FailureKind::QueryFailed),
            ("RESULT_GONE", FailureKind::ResultGone),
            ("SUCCEEDED", FailureKind::BadAnswer),
        ] {
            let failure = read(&format!(r#"{{"state":"{state}"}}"#)).err().unwrap();
            assert_eq!(failure.kind, kind, "{state}");
        }
    }

    #[test]
    fn warnings_mean_that_something_is_missing() {
        let result = |severity: &str, place: &str| -> DqlResult {
            let one = serde_json::json!([{"severity": severity, "notificationType": "SCAN_LIMIT_GBYTES", "message": "limit"}]);
            let metadata = match place {
                "grail" => serde_json::json!({"grail": {"notifications": one}}),
                _ => serde_json::json!({"notifications": one}),
            };
            serde_json::from_value(serde_json::json!({"records": [], "metadata": metadata})).unwrap()
        };
        assert_eq!(result("INFO", "grail").incomplete(), None);
        for place in ["grail", "top"] {
            let failure = result("WARNING", place).incomplete().unwrap();
            assert!(failure.message.contains("SCAN_LIMIT_GBYTES limit"), "{failure}");
        }
        assert_eq!(result("INFO", "grail").notes(), ["SCAN_LIMIT_GBYTES limit"]);
    }
}
