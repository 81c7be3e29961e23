//! `/sso/oauth2/token`: access tokens for OAuth clients.

use super::App;
use super::input::form;
use crate::base64::Alphabet;
use crate::noise::{hash, stream};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Seconds that an access token lives.
const LIFETIME_S: i64 = 300;
/// Most access tokens remembered.
const ISSUED_LIMIT: usize = 10_000;

/// A client that may ask for access tokens.
#[derive(Clone)]
pub(crate) struct OAuthClient {
    /// The whole secret, `dt0s02.<public>.<secret>`; its first two parts are the client id.
    pub(crate) secret: String,
    /// What its tokens may do at most.
    pub(crate) scopes: Vec<String>,
}

impl OAuthClient {
    /// The client id.
    fn id(&self) -> &str {
        self.secret.rsplit_once('.').map_or("", |(id, _)| id)
    }
}

impl fmt::Debug for OAuthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthClient")
            .field("id", &self.id())
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// An access token.
#[derive(Clone)]
pub(crate) struct Issued {
    text: String,
    /// What it may do.
    pub(crate) scopes: Vec<String>,
    /// From then on it is refused, epoch milliseconds.
    pub(crate) expires_ms: i64,
}

/// The access tokens issued, the newest ones.
#[derive(Default)]
pub(crate) struct IssuedTokens {
    tokens: Mutex<VecDeque<Issued>>,
}

impl IssuedTokens {
    /// The token of this text, expired or not.
    pub(super) fn find(&self, text: &str) -> Option<Issued> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.iter().rev().find(|t| t.text == text).cloned()
    }

    fn push(&self, token: Issued) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() == ISSUED_LIMIT {
            tokens.pop_front();
        }
        tokens.push_back(token);
    }
}

/// `POST /sso/oauth2/token`.
pub(super) async fn token(State(app): State<App>, bytes: Bytes) -> Response {
    let form = form(&bytes);
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    if field("grant_type") != "client_credentials" {
        return refuse("unsupported_grant_type", "grant_type must be client_credentials");
    }
    let clients = &app.shared.oauth_clients;
    let client = clients.iter().find(|c| c.id() == field("client_id") && c.secret == field("client_secret"));
    let Some(client) = client else {
        return refuse("invalid_client", "UNSUCCESSFUL_OAUTH_CLIENT_CREDENTIALS_VALIDATION_FAILED");
    };
    let wanted: Vec<String> = field("scope").split_whitespace().map(str::to_owned).collect();
    if wanted.is_empty() || !wanted.iter().all(|scope| client.scopes.contains(scope)) {
        return refuse("invalid_scope", "the client may not ask for these scopes");
    }
    let now = app.shared.now();
    let expires_ms = now + LIFETIME_S * 1000;
    let text = jwt(client, &wanted, expires_ms);
    let mut answer = json!({
        "token_type": "Bearer",
        "access_token": text,
        "expires_in": LIFETIME_S,
        "scope": wanted.join(" "),
    });
    if !field("resource").is_empty() {
        answer["resource"] = json!(field("resource"));
    }
    app.shared.issued.push(Issued { text, scopes: wanted, expires_ms });
    Json(answer).into_response()
}

/// A text that looks like a signed token; the same for the same client, scopes and time.
fn jwt(client: &OAuthClient, scopes: &[String], expires_ms: i64) -> String {
    let part = |value: &Value| Alphabet::UrlSafe.encode(value.to_string().as_bytes());
    let head = part(&json!({ "alg": "ES256", "typ": "JWT" }));
    let claims = json!({ "sub": client.id(), "scope": scopes.join(" "), "exp": expires_ms.div_euclid(1000) });
    let body = format!("{head}.{}", part(&claims));
    let seed = stream(hash(&client.secret), &format!("{body}/{expires_ms}"));
    let signature: Vec<u8> = (0..8_u8).flat_map(|i| stream(seed, &i.to_string()).to_be_bytes()).collect();
    format!("{body}.{}", Alphabet::UrlSafe.encode(&signature))
}

/// 400: OAuth's form of an error, also where the secret is wrong.
fn refuse(error: &str, description: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error, "error_description": description })))
        .into_response()
}
