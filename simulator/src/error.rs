//! Answers that are errors, in Dynatrace's envelope.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// One violated constraint of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The parameter or field.
    pub(crate) path: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// `QUERY` or `PAYLOAD_BODY`.
    pub(crate) location: &'static str,
}

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// Status of the answer, repeated in the body.
    pub(crate) status: StatusCode,
    /// `error.message`.
    pub(crate) message: String,
    /// `error.constraintViolations`; left out when empty.
    pub(crate) violations: Vec<Violation>,
}

impl ApiError {
    /// An error without violations.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), violations: Vec::new() }
    }

    /// 400 with a text.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404 with a text.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 400 "Constraints violated." about a query parameter.
    pub(crate) fn query(path: &'static str, message: impl Into<String>) -> Self {
        Self::constraint(path, message, "QUERY")
    }

    /// 400 "Constraints violated." about a field of the body.
    pub(crate) fn body(path: &'static str, message: impl Into<String>) -> Self {
        Self::constraint(path, message, "PAYLOAD_BODY")
    }

    fn constraint(path: &'static str, message: impl Into<String>, location: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: "Constraints violated.".into(),
            violations: vec![Violation { path, message: message.into(), location }],
        }
    }

    /// The envelope.
    pub(crate) fn envelope(&self) -> Value {
        let mut error = json!({ "code": self.status.as_u16(), "message": self.message });
        if !self.violations.is_empty() {
            let violations: Vec<Value> = self
                .violations
                .iter()
                .map(|v| {
                    json!({
                        "path": v.path, "message": v.message, "parameterLocation": v.location, "location": null,
                    })
                })
                .collect();
            error["constraintViolations"] = Value::Array(violations);
        }
        json!({ "error": error })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.envelope())).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_is_the_recorded_one() {
        let error =
            ApiError::query("nextPageKey", "expected one of nextPageKey or metricSelector to be specified");
        assert_eq!(
            error.envelope(),
            json!({"error": {"code": 400, "message": "Constraints violated.", "constraintViolations": [{
                "path": "nextPageKey",
                "message": "expected one of nextPageKey or metricSelector to be specified",
                "parameterLocation": "QUERY", "location": null,
            }]}})
        );
        assert_eq!(
            ApiError::not_found("x").envelope(),
            json!({"error": {"code": 404, "message": "x"}}),
            "no violations, no field"
        );
    }
}
