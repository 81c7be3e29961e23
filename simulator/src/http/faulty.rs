//! Around every call: the log, the faults, and gzip.

use super::address::Address;
use super::auth::{Realm, missing_scope, unauthorized};
use super::{App, Line};
use crate::calls::Call;
use crate::error::ApiError;
use crate::fault::{Fault, ThrottleHeader};
use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::Duration;

/// Largest answer that is gzipped or cut.
const BODY_LIMIT: usize = 512 * 1024 * 1024;
/// Smaller answers are sent as they are.
const GZIP_FROM: usize = 1_024;
/// What is logged and can fail.
const LOGGED: [&str; 3] = ["/api/", "/platform/", "/sso/"];
/// Requests that are logged with their body.
const DQL: &str = "/platform/storage/query/";
/// Largest body of these.
const DQL_LIMIT: usize = 1024 * 1024;
/// Pieces of a slow body.
const PIECES: usize = 10;

/// Answers a call, or lets it meet its fault, and logs it.
pub(super) async fn layer(
    State(app): State<App>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    if !LOGGED.iter().any(|prefix| path.starts_with(prefix)) {
        return next.run(request).await;
    }
    let address = request.extensions().get::<Address>().cloned();
    let Address { realm, received } =
        address.unwrap_or_else(|| Address { realm: Realm::Classic, received: path.clone() });
    let (request, asked) = match with_body(request, &path).await {
        Ok(read) => read,
        Err(error) => return error.into_response(),
    };
    let now = app.shared.now();
    let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).map(|q| q.0).unwrap_or_default();
    let mut call = Call {
        at_ms: now,
        method: request.method().to_string(),
        path: received,
        query: query.into_iter().filter(|(key, _)| !key.eq_ignore_ascii_case("api-token")).collect(),
        body: asked,
        status: 0,
        fault: None,
    };
    let gzip = accepts_gzip(&request);
    let fault = app.shared.faults.strike(&path, now);
    call.fault = fault.as_ref().map(name);
    let response = match fault {
        None => zip(next.run(request).await, gzip).await,
        Some(fault) => strike(&app, &line, (fault, realm), next.run(request)).await,
    };
    if let Some(response) = &response {
        call.status = response.status().as_u16();
    }
    app.shared.calls.push(call);
    response.unwrap_or_else(|| {
        line.cut();
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    })
}

/// Reads the body of a DQL request for the log; others, which may hold secrets, are left alone.
async fn with_body(request: Request, path: &str) -> Result<(Request, Option<String>), ApiError> {
    if !path.starts_with(DQL) || request.method() == Method::GET {
        return Ok((request, None));
    }
    let (parts, body) = request.into_parts();
    let too_large = |_| ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "The request is larger than 1 MB");
    let bytes = to_bytes(body, DQL_LIMIT).await.map_err(too_large)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok((Request::from_parts(parts, Body::from(bytes)), (!text.is_empty()).then_some(text)))
}

/// `kind` of a fault.
fn name(fault: &Fault) -> String {
    let value = serde_json::to_value(fault).unwrap_or_default();
    value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What a fault makes of an answer; `None` breaks the connection.
async fn strike(
    app: &App,
    line: &Line,
    (fault, realm): (Fault, Realm),
    answer: impl Future<Output = Response>,
) -> Option<Response> {
    let status = |code| StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Some(match fault {
        Fault::Throttle { header, seconds } => throttle(app.shared.now(), realm, header, seconds),
        Fault::Status { code } => {
            let status = status(code);
            ApiError::new(status, status.canonical_reason().unwrap_or("Error")).into_response()
        }
        Fault::Html { code } => {
            let page = "<html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>";
            let headers = [(header::CONTENT_TYPE, "text/html;charset=utf-8")];
            (status(code), headers, page).into_response()
        }
        Fault::SlowFirstByte { delay_ms } => {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
                () = app.stop.cancelled() => return None,
            }
            answer.await
        }
        Fault::SlowBody { delay_ms } => slow_body(app, answer.await, delay_ms).await?,
        Fault::CutOffBody => cut_off(line, answer.await).await?,
        Fault::TruncatedGzip => truncated_gzip(answer.await).await?,
        Fault::Unauthorized => unauthorized(realm).into_response(),
        Fault::MissingScope { scope } => missing_scope(realm, &[&scope]).into_response(),
        Fault::Down { close: false } => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into_response()
        }
        Fault::DropConnection | Fault::Down { close: true } => return None,
        Fault::ArrayEnvelope { code } => {
            let status = status(code);
            let error = ApiError::new(status, status.canonical_reason().unwrap_or("Error"));
            (status, Json(json!([error.envelope()]))).into_response()
        }
        Fault::LatePoints { .. }
        | Fault::RewrittenPoints
        | Fault::QueryState { .. }
        | Fault::UnknownConstants
        | Fault::ScanLimit => answer.await,
    })
}

fn throttle(now: i64, realm: Realm, form: ThrottleHeader, seconds: u32) -> Response {
    let reset = now + i64::from(seconds) * 1000;
    let (name, value) = match form {
        ThrottleHeader::None | ThrottleHeader::RetryAfterSeconds => ("", 0),
        ThrottleHeader::RetryAfter => ("retry-after", i64::from(seconds)),
        ThrottleHeader::ResetSeconds => ("x-ratelimit-reset", reset.div_euclid(1000)),
        ThrottleHeader::ResetMilliseconds => ("x-ratelimit-reset", reset),
        ThrottleHeader::ResetMicroseconds => ("x-ratelimit-reset", reset * 1000),
    };
    let mut error = ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        format!("Rate limit of 50 requests/minute exceeded! Reset time: {reset}"),
    );
    let of_platform = realm == Realm::Platform && form == ThrottleHeader::RetryAfter;
    if of_platform || form == ThrottleHeader::RetryAfterSeconds {
        error.retry_after_seconds = Some(seconds);
    }
    let mut response = error.into_response();
    if !name.is_empty() {
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from(value));
        if name == "x-ratelimit-reset" {
            headers.insert("x-ratelimit-limit", HeaderValue::from(50));
            headers.insert("x-ratelimit-remaining", HeaderValue::from(0));
        }
    }
    response
}

/// Sends a body in pieces, each after a wait.
async fn slow_body(app: &App, response: Response, delay_ms: u64) -> Option<Response> {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, BODY_LIMIT).await.ok()?;
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let size = bytes.len().div_ceil(PIECES).max(1);
    let stop = app.stop.clone();
    let pieces = stream::unfold(bytes, move |mut left| {
        let stop = stop.clone();
        async move {
            if left.is_empty() {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
                () = stop.cancelled() => return Some((Err(io::Error::from(io::ErrorKind::Interrupted)), Bytes::new())),
            }
            let piece = left.split_to(size.min(left.len()));
            Some((Ok(piece), left))
        }
    });
    Some(Response::from_parts(parts, Body::from_stream(pieces)))
}

/// Promises the whole body and breaks the connection after half of it.
async fn cut_off(line: &Line, response: Response) -> Option<Response> {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, BODY_LIMIT).await.ok()?;
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let half = bytes.slice(..bytes.len() / 2);
    let line = line.clone();
    let pieces = stream::unfold(Some(half), move |half| {
        let line = line.clone();
        async move {
            if let Some(half) = half {
                return Some((Ok(half), None));
            }
            // Lets what was written so far leave before the break.
            tokio::time::sleep(Duration::from_millis(20)).await;
            line.cut();
            Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), None))
        }
    });
    Some(Response::from_parts(parts, Body::from_stream(pieces)))
}

async fn truncated_gzip(response: Response) -> Option<Response> {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, BODY_LIMIT).await.ok()?;
    let mut zipped = gzip(&bytes)?;
    zipped.truncate(zipped.len() / 2);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Some(Response::from_parts(parts, Body::from(zipped)))
}

fn accepts_gzip(request: &Request) -> bool {
    let header = request.headers().get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok());
    header.is_some_and(|v| v.split(',').any(|e| e.trim().split(';').next() == Some("gzip")))
}

fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// Compresses an answer that is worth it.
async fn zip(response: Response, accepted: bool) -> Option<Response> {
    if !accepted {
        return Some(response);
    }
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, BODY_LIMIT).await.ok()?;
    parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if bytes.len() < GZIP_FROM {
        return Some(Response::from_parts(parts, Body::from(bytes)));
    }
    let zipped = gzip(&bytes)?;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Some(Response::from_parts(parts, Body::from(zipped)))
}
