//! `/_simulator`: faults, the log of calls, deployments, incidents. Not part of Dynatrace; without tokens.

use super::App;
use super::input::body;
use crate::calls::Call;
use crate::error::ApiError;
use crate::fault::FaultRule;
use crate::world::effect::{Effect, Rollout, WarmUp};
use crate::world::incident::{Incident, ProblemSpec};
use crate::world::scenario::Deploy;
use crate::world::spec::ScenarioError;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `GET /_simulator/health`, and `/ready` for probes.
pub(super) async fn health(State(app): State<App>) -> Json<Value> {
    Json(json!({ "status": "ok", "now_ms": app.shared.now() }))
}

/// `GET /_simulator/faults`.
pub(super) async fn faults(State(app): State<App>) -> Json<Vec<FaultRule>> {
    Json(app.shared.faults.list())
}

/// `POST /_simulator/faults`.
pub(super) async fn add_fault(
    State(app): State<App>,
    bytes: Bytes,
) -> Result<(StatusCode, Json<FaultRule>), ApiError> {
    let rule: FaultRule = body(&bytes)?;
    app.shared.faults.add(rule.clone()).map_err(ApiError::bad)?;
    Ok((StatusCode::CREATED, Json(rule)))
}

/// `DELETE /_simulator/faults`.
pub(super) async fn clear_faults(State(app): State<App>) -> StatusCode {
    app.shared.faults.clear();
    StatusCode::NO_CONTENT
}

/// `GET /_simulator/calls`.
pub(super) async fn calls(State(app): State<App>) -> Json<Vec<Call>> {
    Json(app.shared.calls.list())
}

/// `DELETE /_simulator/calls`.
pub(super) async fn clear_calls(State(app): State<App>) -> StatusCode {
    app.shared.calls.clear();
    StatusCode::NO_CONTENT
}

/// A deployment to make.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeployBody {
    service: String,
    version: String,
    /// Epoch milliseconds; absent: now.
    at_ms: Option<i64>,
    effect: Effect,
    #[serde(default)]
    rollout: Rollout,
    #[serde(default)]
    warm_up: Option<WarmUp>,
}

fn refused(error: &ScenarioError) -> ApiError {
    let status = match error {
        ScenarioError::NoService(..) | ScenarioError::Unknown(_) => StatusCode::NOT_FOUND,
        ScenarioError::NothingToRollBack(_) | ScenarioError::Replayed => StatusCode::CONFLICT,
        ScenarioError::Unreadable(_) | ScenarioError::Invalid { .. } => StatusCode::BAD_REQUEST,
    };
    ApiError::new(status, error.to_string())
}

/// `POST /_simulator/deploy`.
pub(super) async fn deploy(
    State(app): State<App>,
    bytes: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let wanted: DeployBody = body(&bytes)?;
    let at_ms = wanted.at_ms.unwrap_or_else(|| app.shared.now());
    let answer = json!({ "service": wanted.service, "version": wanted.version, "at_ms": at_ms });
    let DeployBody { service, version, effect, rollout, warm_up, .. } = wanted;
    let deploy = Deploy { service, version, at_ms, effect, rollout, warm_up };
    app.shared.source.scenario().and_then(|s| s.deploy(deploy)).map_err(|e| refused(&e))?;
    Ok((StatusCode::CREATED, Json(answer)))
}

/// An incident to start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IncidentBody {
    on: String,
    /// Epoch milliseconds; absent: now.
    at_ms: Option<i64>,
    /// Absent: never.
    until_ms: Option<i64>,
    effect: Effect,
    #[serde(default)]
    shares: BTreeMap<String, f64>,
    problem: Option<ProblemSpec>,
}

/// `POST /_simulator/incident`.
pub(super) async fn incident(
    State(app): State<App>,
    bytes: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let IncidentBody { on, at_ms, until_ms, effect, shares, problem } = body(&bytes)?;
    let at_ms = at_ms.unwrap_or_else(|| app.shared.now());
    let answer = json!({ "on": on, "at_ms": at_ms, "until_ms": until_ms });
    let incident = Incident { on, at_ms, until_ms, effect, shares, problem };
    app.shared.source.scenario().and_then(|s| s.incident(&incident)).map_err(|e| refused(&e))?;
    Ok((StatusCode::CREATED, Json(answer)))
}

/// A service to roll back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    service: String,
}

/// `POST /_simulator/rollback`.
pub(super) async fn rollback(State(app): State<App>, bytes: Bytes) -> Result<Json<Value>, ApiError> {
    let wanted: RollbackBody = body(&bytes)?;
    let at_ms = app.shared.now();
    let version = app
        .shared
        .source
        .scenario()
        .and_then(|s| s.rollback(&wanted.service, at_ms))
        .map_err(|e| refused(&e))?;
    Ok(Json(json!({ "service": wanted.service, "rolled_back_version": version, "at_ms": at_ms })))
}
