//! Errors of DQL queries, in Grail's form.

use super::token::Span;
use crate::error::ApiError;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// Why a query cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DqlError {
    /// `errorType`, which is also the message.
    pub(crate) kind: &'static str,
    /// `exceptionType`.
    pub(crate) exception: &'static str,
    /// `errorMessage`.
    pub(crate) message: String,
    /// `arguments`.
    pub(crate) arguments: Vec<String>,
    /// Where in the query.
    pub(crate) span: Option<Span>,
}

impl DqlError {
    /// A query that cannot be read.
    pub(super) fn syntax(kind: &'static str, message: impl Into<String>, span: Span) -> Self {
        let message = message.into();
        Self { kind, exception: "DQL-SYNTAX-ERROR", message, arguments: Vec::new(), span: Some(span) }
    }

    /// What Grail has and the simulator has not.
    pub(super) fn unsupported(what: &str, span: Span) -> Self {
        let message = format!("{what} isn't supported by this simulator.");
        Self::syntax("NOT_SUPPORTED_BY_SIMULATOR", message, span).about(what)
    }

    /// A field that no record has.
    pub(super) fn no_field(name: &str, span: Span) -> Self {
        Self {
            exception: "DQL-RESULT_TYPE",
            ..Self::syntax("FIELD_DOES_NOT_EXIST", format!("The field {name} doesn't exist."), span)
                .about(name)
        }
    }

    /// Names what the message is about.
    pub(super) fn about(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The answer: 400 with the position.
    pub(crate) fn answer(&self, query: &str, query_id: &str) -> ApiError {
        let mut format = self.message.clone();
        for (i, argument) in self.arguments.iter().enumerate() {
            format = format.replacen(argument.as_str(), &format!("%{}$s", i + 1), 1);
        }
        let mut details = json!({
            "exceptionType": self.exception,
            "errorType": self.kind,
            "errorMessage": self.message,
            "errorMessageFormat": format,
            "errorMessageFormatSpecifierTypes": vec!["INPUT_NAME"; self.arguments.len()],
            "arguments": self.arguments,
            "queryString": query,
            "queryId": query_id,
        });
        if let Some(span) = self.span {
            details["syntaxErrorPosition"] = token_position(query, span);
        }
        ApiError::new(StatusCode::BAD_REQUEST, self.kind).detailed(details)
    }
}

/// Where a stretch of a query stands; lines and columns from 1, indices from 0, the end included.
pub(crate) fn token_position(query: &str, span: Span) -> Value {
    let last = span.end.max(span.start + 1) - 1;
    json!({ "start": position(query, span.start), "end": position(query, last) })
}

fn position(query: &str, index: usize) -> Value {
    let (mut line, mut column) = (1, 1);
    for c in query.chars().take(index) {
        if c == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    json!({ "line": line, "column": column, "index": index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_recorded_form() {
        let query = "fetch logs\n| fields content";
        let error = DqlError::no_field("content", Span { start: 20, end: 27 });
        let answer = error.answer(query, "q").envelope();
        let details = &answer["error"]["details"];
        assert_eq!(
            (&answer["error"]["code"], &answer["error"]["message"]),
            (&json!(400), &json!("FIELD_DOES_NOT_EXIST"))
        );
        assert_eq!(details["exceptionType"], "DQL-RESULT_TYPE");
        assert_eq!(details["errorMessage"], "The field content doesn't exist.");
        assert_eq!(details["errorMessageFormat"], "The field %1$s doesn't exist.");
        assert_eq!(details["arguments"], json!(["content"]));
        assert_eq!(
            details["syntaxErrorPosition"],
            json!({
                "start": {"line": 2, "column": 10, "index": 20},
                "end": {"line": 2, "column": 16, "index": 26},
            })
        );
    }
}
