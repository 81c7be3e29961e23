//! `query:verify` and `query:parse`: what a query says, without an answer to it.

use super::super::App;
use super::super::auth::Caller;
use super::{body, query_id};
use crate::dql::{Query, token_position};
use crate::error::ApiError;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

/// A query to look at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    query: String,
    #[serde(default)]
    generate_canonical_query: bool,
}

/// `POST query:verify`: whether a query is valid; what is wrong is a notification.
pub(in crate::http) async fn verify(_: Caller, bytes: Bytes) -> Result<Json<Value>, ApiError> {
    let asked: Asked = body(&bytes)?;
    Ok(Json(match Query::parse(&asked.query) {
        Ok(query) => {
            let mut answer = json!({ "valid": true, "notifications": [] });
            if asked.generate_canonical_query {
                answer["canonicalQuery"] = json!(query.canonical());
            }
            answer
        }
        Err(error) => {
            let mut notification = json!({
                "severity": "ERROR", "notificationType": error.kind, "message": error.message,
                "arguments": error.arguments,
            });
            if let Some(span) = error.span {
                notification["syntaxPosition"] = token_position(&asked.query, span);
            }
            json!({ "valid": false, "notifications": [notification] })
        }
    }))
}

/// `POST query:parse`: the commands of a query; their arguments are left out.
pub(in crate::http) async fn parse(
    State(app): State<App>,
    _: Caller,
    bytes: Bytes,
) -> Result<Json<Value>, ApiError> {
    let asked: Asked = body(&bytes)?;
    let id = query_id(&asked.query, app.shared.now(), 0);
    let query = Query::parse(&asked.query).map_err(|e| e.answer(&asked.query, &id))?;
    let commands = query.command_names().map(|(name, span)| {
        let position = token_position(&asked.query, span);
        let name = json!({
            "nodeType": "TERMINAL", "type": "COMMAND_NAME", "canonicalString": name, "isOptional": false,
            "isMandatoryOnUserOrder": false, "tokenPosition": position,
        });
        json!({
            "nodeType": "CONTAINER", "type": "COMMAND", "isOptional": false, "tokenPosition": position,
            "children": [name],
        })
    });
    let children: Vec<Value> = commands.collect();
    Ok(Json(json!({ "nodeType": "CONTAINER", "type": "QUERY", "isOptional": false, "children": children })))
}
