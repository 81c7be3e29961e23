//! API tokens and their scopes.

use super::Shared;
use crate::error::ApiError;
use axum::http::{HeaderMap, StatusCode, header};
use std::fmt;

/// The scopes that the simulator knows, with the names that Dynatrace shows.
const SCOPES: [(&str, &str); 5] = [
    ("metrics.read", "Read metrics"),
    ("entities.read", "Read entities"),
    ("events.read", "Read events"),
    ("events.ingest", "Ingest events"),
    ("problems.read", "Read problems"),
];

/// An API token.
#[derive(Clone)]
pub(crate) struct Token {
    /// The whole token.
    pub(crate) secret: String,
    /// What it may do.
    pub(crate) scopes: Vec<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id()).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl Token {
    /// The part that may be logged: `dt0c01.<24 characters>`.
    pub(crate) fn id(&self) -> &str {
        self.secret.rsplit_once('.').map_or("", |(id, _)| id)
    }
}

/// What is wrong with a token's form, if anything; never quotes it.
pub(crate) fn check_token(secret: &str) -> Result<(), String> {
    let parts: Vec<&str> = secret.split('.').collect();
    let capital = |s: &&str| !s.is_empty() && s.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    match parts.as_slice() {
        ["dt0c01", id, rest] if capital(id) && capital(rest) => Ok(()),
        _ => {
            Err("a token has the form dt0c01.<A-Z and 0-9>.<A-Z and 0-9>, e.g. dt0c01.SIMULATOR.SECRET"
                .into())
        }
    }
}

/// The token of a call, if it is a valid one.
///
/// # Errors
/// 401 without one, with an unknown one, or with one of another realm.
pub(super) fn authenticate<'a>(shared: &'a Shared, headers: &HeaderMap) -> Result<&'a Token, ApiError> {
    let refuse = || ApiError::new(StatusCode::UNAUTHORIZED, "Token Authentication failed");
    let header = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).ok_or_else(refuse)?;
    let secret = header.strip_prefix("Api-Token ").ok_or_else(refuse)?.trim();
    shared.tokens.iter().find(|t| t.secret == secret).ok_or_else(refuse)
}

/// Whether a call may do what needs a scope.
///
/// # Errors
/// 401 without a valid token, 403 with the scope's name.
pub(super) fn authorize(shared: &Shared, headers: &HeaderMap, scope: &str) -> Result<(), ApiError> {
    let token = authenticate(shared, headers)?;
    if token.scopes.iter().any(|s| s == scope) { Ok(()) } else { Err(missing_scope(scope)) }
}

/// 403 in Dynatrace's words.
pub(super) fn missing_scope(scope: &str) -> ApiError {
    let name = SCOPES.iter().find(|(known, _)| *known == scope).map_or("", |(_, name)| *name);
    ApiError::new(
        StatusCode::FORBIDDEN,
        format!("Token is missing required scope. Use one of: {scope} ({name})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_tokens() {
        assert_eq!(check_token("dt0c01.ABC123.DEF456"), Ok(()));
        for wrong in ["", "dt0c01", "dt0c01.abc.DEF", "dt0s16.ABC.DEF", "dt0c01.A.B.C", "dt0c01..B"] {
            assert!(check_token(wrong).is_err(), "{wrong}");
        }
        let token = Token { secret: "dt0c01.ABC.VERYSECRET".into(), scopes: vec![] };
        assert!(!format!("{token:?}").contains("VERYSECRET"));
        assert_eq!(
            missing_scope("metrics.read").message,
            "Token is missing required scope. Use one of: metrics.read (Read metrics)"
        );
    }
}
