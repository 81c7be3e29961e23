//! What came in: query parameters and JSON bodies, with Dynatrace's errors instead of the framework's.

use crate::error::ApiError;
use crate::time;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::convert::Infallible;

/// The query parameters; of several with one name the first counts, unknown ones are ignored.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Query::try_from_uri(&parts.uri).map(|q| q.0).unwrap_or_default()))
    }
}

impl Parameters {
    /// A parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// A parameter, owned.
    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// `from` and `to`; the last `default_ms` unless given.
    ///
    /// # Errors
    /// 400 where one is no time.
    pub(super) fn window(&self, now: i64, default_ms: i64) -> Result<(i64, i64), ApiError> {
        let at = |name, default| match self.get(name) {
            None => Ok(default),
            Some(text) => time::parse(text, now).map_err(|e| ApiError::query(name, e)),
        };
        Ok((at("from", now - default_ms)?, at("to", now)?))
    }

    /// Whether one of these is given.
    pub(super) fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some())
    }
}

/// `+tags,+properties.detectedName` to its names.
pub(super) fn fields(text: &str) -> Vec<String> {
    text.split(',')
        .map(|f| f.trim().trim_start_matches('+'))
        .filter(|f| !f.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The fields of a form; what is no text is replaced, as browsers do.
pub(super) fn form(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (percent_decoded(key), percent_decoded(value)))
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [a, b, ..]) => {
                std::str::from_utf8(&[*a, *b]).ok().and_then(|h| u8::from_str_radix(h, 16).ok())
            }
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a JSON body.
///
/// # Errors
/// 400 with what is wrong.
pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| ApiError::body("body", format!("Could not map JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            form(b"scope=a%3Ab+c d&empty=&bare&odd=%zz%2&umlaut=%C3%BC"),
            [
                pair("scope", "a:b c d"),
                pair("empty", ""),
                pair("bare", ""),
                pair("odd", "%zz%2"),
                pair("umlaut", "\u{fc}"),
            ]
        );
        assert!(form(b"").is_empty());
    }
}
