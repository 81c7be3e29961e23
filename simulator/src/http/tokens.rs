//! `/api/v2/apiTokens/lookup`.

use super::App;
use super::auth::Caller;
use super::input::body;
use crate::dql::timestamp;
use crate::error::ApiError;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};

/// The token asked about. It has no `Debug`, so that it cannot reach a log.
#[derive(Deserialize)]
struct Lookup {
    token: String,
}

/// `POST /api/v2/apiTokens/lookup`: any scope suffices.
pub(super) async fn lookup(State(app): State<App>, _: Caller, bytes: Bytes) -> Result<Json<Value>, ApiError> {
    let lookup: Lookup = body(&bytes)?;
    let token = app.shared.tokens.iter().find(|t| t.is_classic() && t.secret == lookup.token);
    let token = token.ok_or_else(|| ApiError::not_found("Token does not exist."))?;
    let mut answer = json!({
        "id": token.id(),
        "name": "simulator",
        "enabled": true,
        "personalAccessToken": false,
        "owner": "simulator",
        "creationDate": "2025-01-01T00:00:00.000Z",
        "scopes": token.scopes,
    });
    if let Some(expires_ms) = token.expires_ms {
        // Milliseconds, where Grail has nanoseconds.
        let text = timestamp(expires_ms, &TimeZone::UTC);
        answer["expirationDate"] = json!(format!("{}Z", text.get(..23).unwrap_or_default()));
    }
    Ok(Json(answer))
}
