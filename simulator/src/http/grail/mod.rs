//! `/platform/storage/query/v1`: DQL queries, executed, polled, cancelled, verified and parsed.

mod assist;
mod result;
mod store;

pub(super) use assist::{parse, verify};
pub(crate) use store::QueryStore;

use super::App;
use super::auth::Caller;
use super::input::Parameters;
use crate::dql::{self, Query, Source, zone};
use crate::error::ApiError;
use crate::noise::{hash, stream};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use result::{Answer, Limits};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use store::Kept;

/// Where the faults of the data are looked up.
const EXECUTE: &str = "/platform/storage/query/v1/query:execute";
/// Most records of a result unless the request says otherwise.
const RECORDS: usize = 1_000;

/// A query to execute; what has no meaning here is ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Execute {
    query: String,
    default_timeframe_start: Option<String>,
    default_timeframe_end: Option<String>,
    timezone: Option<String>,
    locale: Option<String>,
    max_result_records: Option<usize>,
    max_result_bytes: Option<usize>,
    request_timeout_milliseconds: Option<u64>,
    default_scan_limit_gbytes: Option<f64>,
    include_types: Option<bool>,
}

impl Execute {
    /// The timeframe of the request; with one end alone there is none.
    fn timeframe(&self) -> Result<Option<(i64, i64)>, ApiError> {
        let (Some(start), Some(end)) = (&self.default_timeframe_start, &self.default_timeframe_end) else {
            return Ok(None);
        };
        let read = |name: &'static str, text: &str| {
            dql::iso(text).ok_or_else(|| violation(name, &format!("'{text}' is no ISO 8601 time")))
        };
        Ok(Some((read("defaultTimeframeStart", start)?, read("defaultTimeframeEnd", end)?)))
    }

    fn zone(&self) -> Result<TimeZone, ApiError> {
        let Some(name) = &self.timezone else { return Ok(TimeZone::UTC) };
        zone(name).ok_or_else(|| violation("timezone", &format!("'{name}' is no time zone")))
    }

    /// Most bytes that it may read; below 0 there is no limit.
    fn most_bytes(&self) -> Option<u64> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not below 0")]
        self.default_scan_limit_gbytes.filter(|limit| *limit >= 0.0).map(|limit| (limit * 1e9) as u64)
    }

    /// Whether the call waits for a result at all.
    fn waits(&self) -> bool {
        self.request_timeout_milliseconds.is_some_and(|wait| wait > 0)
    }
}

/// 400 about a parameter, in the platform's form.
fn violation(name: &str, message: &str) -> ApiError {
    let violation =
        json!({ "message": message, "parameterLocation": "PAYLOAD_BODY", "parameterDescriptor": name });
    ApiError::bad("Constraints violated.").detailed(json!({ "constraintViolations": [violation] }))
}

/// Reads a JSON body, with the platform's errors.
fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| violation("body", &format!("Could not map JSON: {e}")))
}

/// Whether descriptions of the metrics are wanted.
fn is_enriched(params: &Parameters) -> bool {
    params.get("enrich").is_some_and(|wanted| wanted.split(',').any(|w| w.trim() == "metric-metadata"))
}

/// An id in the form of a UUID, from what identifies the query.
fn query_id(query: &str, now: i64, number: u64) -> String {
    let (a, b) = (hash(&format!("{query}/{now}")), stream(number, query));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xFFFF,
        a & 0xFFF,
        0x8000 | ((b >> 48) & 0x3FFF),
        b & 0xFFFF_FFFF_FFFF
    )
}

/// Marks an answer as one of the service behind the gateway.
pub(super) async fn of_cluster(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(crate::error::SOURCE_HEADER).or_insert(HeaderValue::from_static("Cluster"));
    response
}

/// `POST query:execute`.
pub(super) async fn execute(
    State(app): State<App>,
    caller: Caller,
    params: Parameters,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let request: Execute = body(&bytes)?;
    let now = app.shared.now();
    let id = query_id(&request.query, now, app.shared.queries.next_number());
    let query = Query::parse(&request.query).map_err(|e| e.answer(&request.query, &id))?;
    caller.may_all(&query.scopes())?;
    let (requested, zone) = (request.timeframe()?, request.zone()?);
    let faults = app.shared.faults.of_data(EXECUTE, now);
    let scan_limit = faults.scan_limit;
    let (shared, asked, most_bytes) = (app.shared.clone(), query.clone(), request.most_bytes());
    let ran = tokio::task::spawn_blocking(move || {
        let visibility = shared.visibility(EXECUTE);
        asked.run(Source { world: shared.source.world(), visibility, requested, scan_limit, most_bytes })
    });
    let outcome = ran
        .await
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?
        .map_err(|e| e.answer(&request.query, &id))?;
    let limits = Limits {
        records: request.max_result_records.unwrap_or(RECORDS),
        bytes: request.max_result_bytes,
        scan: scan_limit || outcome.scanned.is_limited,
    };
    let answer = Answer {
        query: &request.query,
        canonical: query.canonical(),
        id: &id,
        timezone: request.timezone.as_deref(),
        locale: request.locale.as_deref(),
        with_types: request.include_types != Some(false),
        zone,
    };
    let kept = Kept { result: answer.result(&outcome, &limits), metrics: outcome.metrics };
    if request.waits() && faults.query_state.is_none() {
        let result = kept.json(is_enriched(&params));
        return Ok(Json(json!({ "state": "SUCCEEDED", "progress": 100, "result": result })).into_response());
    }
    let ttl = app.shared.result_ttl_s;
    let token = app.shared.queries.keep(kept, faults.query_state, now + ttl * 1000);
    let started = json!({ "state": "RUNNING", "progress": 0, "requestToken": token, "ttlSeconds": ttl });
    Ok((StatusCode::ACCEPTED, Json(started)).into_response())
}

fn request_token(params: &Parameters) -> Result<&str, ApiError> {
    params.get("request-token").ok_or_else(|| {
        let violation = json!({
            "message": "must be given", "parameterLocation": "QUERY", "parameterDescriptor": "request-token",
        });
        ApiError::bad("Constraints violated.").detailed(json!({ "constraintViolations": [violation] }))
    })
}

fn gone() -> ApiError {
    ApiError::new(StatusCode::GONE, "RESULT_GONE").detailed(json!({
        "errorType": "RESULT_GONE",
        "errorMessage": "The result of the query has been fetched, cancelled or has expired.",
    }))
}

/// `GET query:poll`.
pub(super) async fn poll(
    State(app): State<App>,
    _: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    let token = request_token(&params)?;
    let now = app.shared.now();
    let polled = app.shared.queries.poll(token, now).ok_or_else(gone)?;
    Ok(Json(polled.json(is_enriched(&params), now)))
}

/// `POST query:cancel`.
pub(super) async fn cancel(
    State(app): State<App>,
    _: Caller,
    params: Parameters,
) -> Result<Response, ApiError> {
    let token = request_token(&params)?;
    let now = app.shared.now();
    let finished = app.shared.queries.cancel(token, now).ok_or_else(gone)?;
    Ok(match finished {
        Some(kept) => {
            let result = kept.json(is_enriched(&params));
            Json(json!({ "state": "SUCCEEDED", "progress": 100, "result": result })).into_response()
        }
        None => StatusCode::ACCEPTED.into_response(),
    })
}
