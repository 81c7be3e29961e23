//! Answers that are errors, in Dynatrace's envelope.

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The header in which the platform says who answers.
pub(crate) const SOURCE_HEADER: &str = "dynatrace-response-source";

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
    /// `error.details`; left out unless given.
    pub(crate) details: Option<Box<Value>>,
    /// `error.retryAfterSeconds`; left out unless given.
    pub(crate) retry_after_seconds: Option<u32>,
    /// Whether the gateway of the platform answers, and not the service behind it.
    pub(crate) gateway: bool,
}

impl ApiError {
    /// An error without violations.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            violations: Vec::new(),
            details: None,
            retry_after_seconds: None,
            gateway: false,
        }
    }

    /// With `error.details`.
    pub(crate) fn detailed(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// As the gateway of the platform answers.
    pub(crate) fn by_gateway(mut self) -> Self {
        self.gateway = true;
        self
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
        let violations = vec![Violation { path, message: message.into(), location }];
        Self { violations, ..Self::bad("Constraints violated.") }
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
        if let Some(details) = &self.details {
            error["details"] = Value::clone(details);
        }
        if let Some(seconds) = self.retry_after_seconds {
            error["retryAfterSeconds"] = json!(seconds);
        }
        json!({ "error": error })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.envelope())).into_response();
        if self.gateway {
            response.headers_mut().insert(SOURCE_HEADER, HeaderValue::from_static("API Gateway"));
        }
        response
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
