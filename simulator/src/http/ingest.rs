//! `/api/v2/metrics/ingest`: measurements sent in.

use super::App;
use super::auth::Caller;
use crate::error::ApiError;
use crate::line_protocol::{IngestedLine, Line, parse};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Most bytes of a request.
const BODY_LIMIT: usize = 1_048_576;
/// Most lines kept.
const LINES_LIMIT: usize = 10_000;
/// Most invalid lines and warnings reported.
const REPORTED_LIMIT: usize = 100;

/// The lines sent in, the newest ones.
#[derive(Debug, Default)]
pub(crate) struct LineStore {
    lines: Mutex<VecDeque<IngestedLine>>,
}

impl LineStore {
    fn push(&self, line: IngestedLine) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_LIMIT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines, oldest first.
    pub(crate) fn list(&self) -> Vec<IngestedLine> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// `POST /api/v2/metrics/ingest`: 202, or 400 where a line is wrong; the others are taken in all the same.
pub(super) async fn ingest(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.may("metrics.ingest")?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("text/plain");
    if kind.split(';').next().map(str::trim) != Some("text/plain") {
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Use text/plain; charset=utf-8"));
    }
    if bytes.len() > BODY_LIMIT {
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "The request is larger than 1 MB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| ApiError::bad("The body is no UTF-8"))?;
    let now = app.shared.now();
    let (mut good, mut invalid, mut warnings) = (0_usize, Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        match parse(line, now) {
            Ok(Line::Blank) => {}
            Ok(Line::Metadata) => good += 1,
            Ok(Line::Measured(line, warning)) => {
                good += 1;
                app.shared.lines.push(line);
                warnings.extend(warning.map(|w| json!({ "line": index + 1, "warning": w })));
            }
            Err(error) => invalid.push(json!({ "line": index + 1, "error": error })),
        }
    }
    let (status, error) = match invalid.len() {
        0 => (StatusCode::ACCEPTED, Value::Null),
        count => {
            invalid.truncate(REPORTED_LIMIT);
            let message = format!("{count} invalid lines");
            (StatusCode::BAD_REQUEST, json!({ "code": 400, "message": message, "invalidLines": invalid }))
        }
    };
    let invalid_count = text.lines().filter(|l| !l.trim().is_empty()).count() - good;
    let mut answer = json!({ "linesOk": good, "linesInvalid": invalid_count, "error": error });
    if !warnings.is_empty() {
        warnings.truncate(REPORTED_LIMIT);
        let message = format!("First {} warnings reported", warnings.len());
        answer["warnings"] = json!({ "message": message, "warningLines": warnings });
    }
    Ok((status, Json(answer)))
}
