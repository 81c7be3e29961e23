//! What a status, its headers and its body mean: the failure's name, the remedy, and how long to wait.

use crate::source::{Failure, FailureKind};
use jiff::fmt::rfc2822;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use serde_json::Value;
use std::time::Duration;
use vouch_proto::Timestamp;

/// Longest pause that a header may ask for and that is believed.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// Longest part of a foreign text in a message.
const LONGEST_QUOTE: usize = 300;

/// Names the failure of a call to `endpoint`, which needs `scope`. `now` is when the answer came.
#[must_use]
pub(super) fn refusal(
    (status, headers, body): (StatusCode, &HeaderMap, &[u8]),
    endpoint: &str,
    scope: &str,
    now: Timestamp,
) -> Failure {
    let envelope: Option<Value> = serde_json::from_slice(body).ok();
    let said = quote(&envelope.as_ref().and_then(message_of).unwrap_or_else(|| {
        if is_web_page(headers, body) {
            "a web page".to_owned()
        } else {
            String::from_utf8_lossy(body).into_owned()
        }
    }));
    let code = status.as_u16();
    let (kind, message) = match code {
        300..=399 => (FailureKind::WebPage, redirected(endpoint, headers)),
        401 => (
            FailureKind::Unauthorized,
            format!(
                "Dynatrace does not accept the token (401: {said}); put a valid access token (dt0c01...) of this tenant into collector.token_file, it is read again"
            ),
        ),
        403 => forbidden(envelope.as_ref(), &said, scope),
        404 => (
            FailureKind::NotFound,
            format!(
                "{endpoint} was not found (404: {said}); check collector.url, for Managed it ends in /e/<environment id>"
            ),
        ),
        413 | 414 => {
            (FailureKind::TooLarge, format!("{endpoint}: the request is too large ({code}: {said})"))
        }
        429 => (
            FailureKind::Throttled,
            format!("Dynatrace throttles {endpoint} (429: {said}); it is asked again later"),
        ),
        500 | 502..=504 => (
            FailureKind::Unavailable,
            format!("Dynatrace cannot answer {endpoint} now ({code}: {said}); it is asked again"),
        ),
        _ if is_web_page(headers, body) => (FailureKind::WebPage, web_page(endpoint)),
        _ => (
            FailureKind::BadRequest,
            format!("{endpoint} was refused ({code}: {said}); correct the query in the template"),
        ),
    };
    let retry_after = kind.is_retryable().then(|| pause_asked_for(headers, envelope.as_ref(), now)).flatten();
    Failure { kind, message, retry_after }
}

fn forbidden(envelope: Option<&Value>, said: &str, scope: &str) -> (FailureKind, String) {
    let named = envelope.map(missing_scopes).unwrap_or_default();
    let listed = said.split_once("Use one of:").map(|(_, scopes)| scopes.trim().to_owned());
    let about_scope = !named.is_empty() || listed.is_some() || said.to_lowercase().contains("scope");
    if about_scope {
        let missing =
            if named.is_empty() { listed.unwrap_or_else(|| scope.to_owned()) } else { named.join(", ") };
        let remedy = "Dynatrace > Access tokens > Generate new token, then put it into collector.token_file";
        (FailureKind::MissingScope, format!("the token lacks the scope {missing} (403); {remedy}"))
    } else {
        let message = format!(
            "Dynatrace refuses the token (403: {said}); it may be expired, disabled, or not allowed from this network"
        );
        (FailureKind::Forbidden, message)
    }
}

fn redirected(endpoint: &str, headers: &HeaderMap) -> String {
    let target = headers.get(LOCATION).and_then(|l| l.to_str().ok()).unwrap_or("elsewhere");
    let host = reqwest::Url::parse(target).ok().and_then(|u| u.host_str().map(ToOwned::to_owned));
    let host = quote(&host.unwrap_or_else(|| "another page".to_owned()));
    format!(
        "{endpoint} redirects to {host}, most likely a sign-in page; check collector.url: it is not that of the API"
    )
}

/// What to say about a page where an answer was due.
pub(super) fn web_page(endpoint: &str) -> String {
    format!(
        "{endpoint} answered with a web page; check collector.url (SaaS: https://<id>.live.dynatrace.com) and the proxy before it"
    )
}

/// Whether the body is HTML.
pub(super) fn is_web_page(headers: &HeaderMap, body: &[u8]) -> bool {
    let html = headers.get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).is_some_and(|t| t.contains("html"));
    html || body.trim_ascii_start().starts_with(b"<")
}

/// The words of an error envelope, alone or in an array, with the fields that it names.
fn message_of(envelope: &Value) -> Option<String> {
    let envelope = envelope.as_array().map_or(Some(envelope), |many| many.first())?;
    let error = envelope.get("error").unwrap_or(envelope);
    let mut said = error.get("message")?.as_str()?.to_owned();
    // Grail's message is a code; what is meant, and where, is in the details.
    let detail = |pointer: &str| error.pointer(pointer);
    if let Some(text) = detail("/details/errorMessage").and_then(Value::as_str) {
        said += &format!(": {text}");
    }
    let position =
        |key: &str| detail(&format!("/details/syntaxErrorPosition/start/{key}")).and_then(Value::as_i64);
    if let (Some(line), Some(column)) = (position("line"), position("column")) {
        said += &format!(" (line {line}, column {column})");
    }
    let violations = error.get("constraintViolations").and_then(Value::as_array);
    for violation in violations.into_iter().flatten() {
        let text = |key| violation.get(key).and_then(Value::as_str).unwrap_or_default();
        said += &format!(" {}: {}", text("path"), text("message"));
    }
    Some(said)
}

fn missing_scopes(envelope: &Value) -> Vec<String> {
    let details = envelope.pointer("/error/details");
    let scopes = details.and_then(|d| d.get("missingScopes")).and_then(Value::as_array);
    scopes.into_iter().flatten().filter_map(|s| s.as_str().map(quote)).collect()
}

/// A foreign text that fits in a message: one line, not too long.
pub(super) fn quote(text: &str) -> String {
    let clean: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_QUOTE).collect();
    clean.trim().to_owned()
}

/// `Retry-After` (seconds or a date), else `error.retryAfterSeconds`, else `X-RateLimit-Reset` (unit by magnitude).
fn pause_asked_for(headers: &HeaderMap, envelope: Option<&Value>, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let retry_after = text(RETRY_AFTER.as_str()).and_then(|text| match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => {
            let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Some(Timestamp::from_millis(date.as_millisecond()).since(now))
        }
    });
    let in_body = || {
        let seconds = envelope?.pointer("/error/retryAfterSeconds")?.as_f64()?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    let reset = || {
        let number: i64 = text("x-ratelimit-reset")?.parse().ok()?;
        let ms = match number {
            n if n > 100_000_000_000_000 => n / 1000,
            n if n > 100_000_000_000 => n,
            n => n.saturating_mul(1000),
        };
        Some(Timestamp::from_millis(ms).since(now))
    };
    retry_after.or_else(in_body).or_else(reset).map(|pause| pause.min(LONGEST_PAUSE))
}

pub(super) fn missing_metric(failure: Failure, key: &str) -> Failure {
    if failure.kind != FailureKind::NotFound {
        return failure;
    }
    let message = format!(
        "the tenant has no metric `{key}` ({}); correct the query in the template, or define the metric in Dynatrace",
        failure.message
    );
    Failure::new(FailureKind::UnknownMetric, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2020-10-23T09:28:00Z".parse().unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn refused(status: u16, pairs: &[(&'static str, &str)], body: &str) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        refusal((status, &headers(pairs), body.as_bytes()), "metrics/query", "metrics.read", now())
    }

    #[test]
    fn every_header_form_of_429_says_how_long() {
        let body = r#"{"error":{"code":429,"message":"Rate limit","retryAfterSeconds":9}}"#;
        for (pairs, body, seconds) in [
            (vec![("retry-after", "7")], body, Some(7)),
            (vec![("retry-after", "Fri, 23 Oct 2020 09:28:20 GMT")], body, Some(20)),
            (vec![("x-ratelimit-reset", "1603445295737000")], "{}", Some(15)),
            (vec![("x-ratelimit-reset", "1603445295737")], "{}", Some(15)),
            (vec![("x-ratelimit-reset", "1603445295")], "{}", Some(15)),
            (vec![("x-ratelimit-reset", "1603445295")], body, Some(9)),
            (vec![("retry-after", "999999")], "{}", Some(900)),
            (vec![("retry-after", "soon"), ("x-ratelimit-reset", "?")], "{}", None),
            (vec![("x-ratelimit-reset", "1")], "{}", Some(0)),
            (vec![], "", None),
        ] {
            let failure = refused(429, &pairs, body);
            assert_eq!(failure.kind, FailureKind::Throttled);
            assert_eq!(failure.retry_after.map(|d| d.as_secs()), seconds, "{pairs:?} {body}");
        }
    }

    #[test]
    fn each_status_has_its_name() {
        use FailureKind::*;
        for (status, kind) in [
            (302, WebPage),
            (400, BadRequest),
            (401, Unauthorized),
            (403, Forbidden),
            (404, NotFound),
            (406, BadRequest),
            (413, TooLarge),
            (429, Throttled),
            (500, Unavailable),
            (502, Unavailable),
            (503, Unavailable),
            (504, Unavailable),
        ] {
            assert_eq!(refused(status, &[], "{}").kind, kind, "{status}");
        }
    }

    #[test]
    fn a_missing_scope_is_named() {
        let said = "Token is missing required scope. Use one of: metrics.read (Read metrics)";
        let body = format!(r#"{{"error":{{"code":403,"message":"{said}"}}}}"#);
        let failure = refused(403, &[], &body);
        assert_eq!(failure.kind, FailureKind::MissingScope);
        assert!(failure.message.contains("lacks the scope metrics.read (Read metrics)"), "{failure}");
        let body = r#"{"error":{"code":403,"message":"no","details":{"missingScopes":["entities.read"]}}}"#;
        assert!(refused(403, &[], body).message.contains("scope entities.read"));
    }

    #[test]
    fn messages_quote_envelopes_arrays_and_pages() {
        let body = r#"[{"error":{"message":"Constraints violated.","constraintViolations":[{"path":"to","message":"is bad"}]}}]"#;
        assert!(refused(400, &[], body).message.contains("Constraints violated. to: is bad"));
        let body = r#"{"error":{"code":400,"message":"FIELD_DOES_NOT_EXIST","details":{"errorMessage":"The field x doesn't exist.","syntaxErrorPosition":{"start":{"column":49,"index":262,"line":3}}}}}"#;
        let failure = refused(400, &[], body);
        assert!(failure.message.contains("The field x doesn't exist. (line 3, column 49)"), "{failure}");
        let page = refused(400, &[("content-type", "text/html")], "<html>secret</html>");
        assert_eq!(page.kind, FailureKind::WebPage);
        assert!(page.message.contains("collector.url") && !page.message.contains("secret"));
        let sso = refused(302, &[("location", "https://sso.dynatrace.com/sso?token=x")], "");
        assert!(sso.message.contains("sso.dynatrace.com") && !sso.message.contains("token=x"), "{sso}");
        assert!(refused(503, &[], &"x".repeat(5000)).message.len() < 500);
    }
}
