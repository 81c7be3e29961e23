//! Who calls, and what for: API tokens on classic addresses, bearer tokens on those of the platform.

use super::address::Address;
use super::{App, Shared};
use crate::error::ApiError;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde_json::json;
use std::fmt;

/// The scopes of the classic API: of API tokens, of bearer tokens, and the name that Dynatrace shows.
const SCOPES: [(&str, &str, &str); 10] = [
    ("metrics.read", "environment-api:metrics:read", "Read metrics"),
    ("metrics.ingest", "environment-api:metrics:write", "Ingest metrics"),
    ("entities.read", "environment-api:entities:read", "Read entities"),
    ("events.read", "environment-api:events:read", "Read events"),
    ("events.ingest", "environment-api:events:write", "Ingest events"),
    ("problems.read", "environment-api:problems:read", "Read problems"),
    ("releases.read", "environment-api:releases:read", "Read releases"),
    ("slo.read", "environment-api:slo:read", "Read SLO"),
    ("logs.read", "storage:logs:read", "Read logs"),
    ("apiTokens.read", "environment-api:api-tokens:read", "Read API tokens"),
];

/// Which tokens count at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Realm {
    /// `/api/v2`: `Authorization: Api-Token dt0c01...`.
    Classic,
    /// `/platform`: `Authorization: Bearer ...`, a platform token or an access token.
    Platform,
}

/// A token that may call: an API token, or a platform token.
#[derive(Clone)]
pub(crate) struct Token {
    /// The whole token.
    pub(crate) secret: String,
    /// What it may do.
    pub(crate) scopes: Vec<String>,
    /// From then on it is refused, epoch milliseconds; never unless given.
    pub(crate) expires_ms: Option<i64>,
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

    /// Whether it is still valid.
    fn is_valid(&self, now: i64) -> bool {
        self.expires_ms.is_none_or(|expires| now < expires)
    }

    /// Whether it is an API token.
    pub(crate) fn is_classic(&self) -> bool {
        self.secret.starts_with("dt0c01.")
    }
}

/// What is wrong with the form of a secret that must begin so, if anything; never quotes it.
pub(crate) fn check_token(prefix: &str, secret: &str) -> Result<(), String> {
    let parts: Vec<&str> = secret.split('.').collect();
    let capital = |s: &&str| !s.is_empty() && s.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    match parts.as_slice() {
        [first, id, rest] if *first == prefix && capital(id) && capital(rest) => Ok(()),
        _ => {
            Err(format!("has the form {prefix}.<A-Z and 0-9>.<A-Z and 0-9>, e.g. {prefix}.SIMULATOR.SECRET"))
        }
    }
}

/// Who makes a call: a valid token of the realm that was called.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    realm: Realm,
    scopes: Vec<String>,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let realm = parts.extensions.get::<Address>().map_or(Realm::Classic, |address| address.realm);
        let scopes = match realm {
            Realm::Classic => classic_scopes(&app.shared, parts)?,
            Realm::Platform => platform_scopes(&app.shared, parts)?,
        };
        Ok(Self { realm, scopes })
    }
}

impl Caller {
    /// Whether it may do what needs a scope of the classic API, named as API tokens name it.
    ///
    /// # Errors
    /// 403 with the scope's name in the realm that was called.
    pub(super) fn may(&self, scope: &str) -> Result<(), ApiError> {
        let needed = match self.realm {
            Realm::Classic => scope,
            Realm::Platform => {
                SCOPES.iter().find(|(c, ..)| *c == scope).map_or(scope, |(_, platform, _)| platform)
            }
        };
        if self.scopes.iter().any(|s| s == needed) {
            Ok(())
        } else {
            Err(missing_scope(self.realm, &[needed]))
        }
    }

    /// Whether it may do what needs all of these scopes of the platform.
    ///
    /// # Errors
    /// 403 with those that are missing.
    pub(super) fn may_all(&self, scopes: &[&str]) -> Result<(), ApiError> {
        let missing: Vec<&str> =
            scopes.iter().copied().filter(|needed| !self.scopes.iter().any(|s| s == needed)).collect();
        if missing.is_empty() { Ok(()) } else { Err(missing_scope(self.realm, &missing)) }
    }
}

/// 401 in the words of a realm.
pub(super) fn unauthorized(realm: Realm) -> ApiError {
    match realm {
        Realm::Classic => ApiError::new(StatusCode::UNAUTHORIZED, "Token Authentication failed"),
        Realm::Platform => ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized").by_gateway(),
    }
}

/// 403 in the words of a realm.
pub(super) fn missing_scope(realm: Realm, scopes: &[&str]) -> ApiError {
    match realm {
        Realm::Classic => {
            let scope = scopes.first().copied().unwrap_or_default();
            let name = SCOPES.iter().find(|(known, ..)| *known == scope).map_or("", |(.., name)| *name);
            ApiError::new(
                StatusCode::FORBIDDEN,
                format!("Token is missing required scope. Use one of: {scope} ({name})"),
            )
        }
        Realm::Platform => ApiError::new(StatusCode::FORBIDDEN, "Forbidden")
            .detailed(json!({ "missingScopes": scopes, "missingPermissions": [] })),
    }
}

/// The scopes of an API token; it may also stand in the query, where it would be logged.
fn classic_scopes(shared: &Shared, parts: &Parts) -> Result<Vec<String>, ApiError> {
    let refuse = || unauthorized(Realm::Classic);
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let secret = match header {
        Some(header) => header.strip_prefix("Api-Token ").ok_or_else(refuse)?.trim().to_owned(),
        None => {
            let query =
                Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|q| q.0).unwrap_or_default();
            let given = query.into_iter().find(|(key, _)| key.eq_ignore_ascii_case("api-token"));
            given.map(|(_, value)| value).ok_or_else(refuse)?
        }
    };
    let token = shared.tokens.iter().find(|t| t.is_classic() && t.secret == secret);
    token.filter(|t| t.is_valid(shared.now())).map(|t| t.scopes.clone()).ok_or_else(refuse)
}

/// The scopes of a platform token, or of an access token that has not expired.
fn platform_scopes(shared: &Shared, parts: &Parts) -> Result<Vec<String>, ApiError> {
    let refuse = || unauthorized(Realm::Platform);
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).ok_or_else(refuse)?;
    let secret = header.strip_prefix("Bearer ").ok_or_else(refuse)?.trim();
    if let Some(token) = shared.tokens.iter().find(|t| !t.is_classic() && t.secret == secret) {
        return if token.is_valid(shared.now()) {
            Ok(token.scopes.clone())
        } else {
            Err(ApiError::new(StatusCode::FORBIDDEN, "The token has expired").by_gateway())
        };
    }
    let issued = shared.issued.find(secret).ok_or_else(refuse)?;
    if shared.now() < issued.expires_ms {
        Ok(issued.scopes)
    } else {
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "jwt expired").by_gateway())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_tokens() {
        assert_eq!(check_token("dt0c01", "dt0c01.ABC123.DEF456"), Ok(()));
        assert_eq!(check_token("dt0s16", "dt0s16.ABC.DEF"), Ok(()));
        for wrong in ["", "dt0c01", "dt0c01.abc.DEF", "dt0s16.ABC.DEF", "dt0c01.A.B.C", "dt0c01..B"] {
            assert!(check_token("dt0c01", wrong).is_err(), "{wrong}");
        }
        let token = Token { secret: "dt0c01.ABC.VERYSECRET".into(), scopes: vec![], expires_ms: None };
        assert!(!format!("{token:?}").contains("VERYSECRET"));
        assert_eq!(
            missing_scope(Realm::Classic, &["metrics.read"]).message,
            "Token is missing required scope. Use one of: metrics.read (Read metrics)"
        );
    }

    #[test]
    fn each_realm_has_its_own_name_of_a_scope() {
        let caller = |realm, scope: &str| Caller { realm, scopes: vec![scope.to_owned()] };
        assert_eq!(caller(Realm::Classic, "metrics.read").may("metrics.read"), Ok(()));
        assert_eq!(caller(Realm::Platform, "environment-api:metrics:read").may("metrics.read"), Ok(()));
        let refused = caller(Realm::Platform, "metrics.read").may("metrics.read").unwrap_err();
        assert_eq!(
            refused.envelope()["error"]["details"]["missingScopes"],
            json!(["environment-api:metrics:read"])
        );
    }
}
