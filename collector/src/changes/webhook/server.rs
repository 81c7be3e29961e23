//! The HTTP server of the webhooks: `POST /webhooks/<name>`. It answers when the announcement is stored.

use super::{Said, Webhook, signature};
use crate::changes::announcer::Told;
use crate::changes::{Announcer, Change};
use crate::metrics::Metrics;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use vouch_proto::announce::happened_at;
use vouch_proto::{Deployment, Invalid, Templates, Timestamp};

/// Longest body: an application of Argo CD with all that it manages.
const BODY: usize = 2 << 20;
/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long storing may take before the caller is asked to come again.
const DEADLINE: Duration = Duration::from_secs(8);
/// Calls at once; what they hold in memory is at most this often a body.
const AT_ONCE: usize = 32;

/// The webhooks, and what they need.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// Those of the settings.
    pub webhooks: Vec<Webhook>,
    /// Where changes go.
    pub announcer: Announcer,
    /// What a deployment can be verified by.
    pub templates: Templates,
    /// The collector's metrics.
    pub metrics: Metrics,
}

#[derive(Debug)]
struct Shared {
    own: Webhooks,
    room: Semaphore,
}

/// Serves until `stop`; calls in flight are answered.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(webhooks: Webhooks, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let shared = Arc::new(Shared { own: webhooks, room: Semaphore::new(AT_ONCE) });
    let router = Router::new().route("/webhooks/{name}", post(call)).with_state(shared);
    axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await?;
    Ok(())
}

async fn call(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Response {
    let Some(webhook) = shared.own.webhooks.iter().find(|webhook| webhook.name.as_str() == name) else {
        return answer(StatusCode::NOT_FOUND, "no webhook of this name is in `changes.webhooks`");
    };
    let response = match shared.room.try_acquire() {
        Err(_) => busy("too many calls at once"),
        Ok(_room) => answered(&shared.own, webhook, request).await,
    };
    shared.own.metrics.webhook(webhook.name.as_str(), response.status().as_u16());
    response
}

async fn answered(own: &Webhooks, webhook: &Webhook, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let now = own.announcer.now();
    if let Err(remedy) = signature::check(webhook, &parts.headers, &body, now) {
        tracing::warn!(webhook = %webhook.name, "a call without the secret was refused");
        return answer(StatusCode::UNAUTHORIZED, remedy);
    }
    let changes = changes(webhook, &parts.headers, &body, now).and_then(|changes| {
        for change in changes.iter().flatten() {
            usable(&change.deployment, &own.templates, now)?;
        }
        Ok(changes)
    });
    match changes {
        Err(invalid) => {
            tracing::warn!(webhook = %webhook.name, error = %invalid, "a call cannot be used");
            let fields: Vec<Value> = invalid
                .violations
                .iter()
                .map(|violation| json!({ "field": violation.field, "message": violation.message }))
                .collect();
            let said = json!({ "error": invalid.to_string(), "violations": fields });
            (StatusCode::BAD_REQUEST, Json(said)).into_response()
        }
        Ok(Err(reason)) => ignored(webhook, &reason),
        Ok(Ok(changes)) => announced(own, webhook, changes).await,
    }
}

/// The changes that a call tells of, or why there are none.
fn changes(
    webhook: &Webhook,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Result<Vec<Change>, String>, Invalid> {
    let source = format!("webhook/{}", webhook.name);
    match webhook.read(headers, body, now)? {
        Said::Nothing(reason) => Ok(Err(reason)),
        Said::Change(mut change) => {
            change.deployment.source.get_or_insert(source);
            Ok(Ok(vec![*change]))
        }
        Said::Seen(seen) => {
            seen.into_iter().map(|one| webhook.names.change(one, &source)).collect::<Result<_, _>>().map(Ok)
        }
    }
}

/// Refuses here what the topic's readers would put to the dead letters.
fn usable(deployment: &Deployment, templates: &Templates, now: Timestamp) -> Result<(), Invalid> {
    happened_at(deployment.occurred_at, now)?;
    templates.of(deployment).map(|_| ()).map_err(|mut invalid| {
        invalid.violations.iter_mut().for_each(|one| one.field = format!("verification.{}", one.field));
        invalid
    })
}

async fn announced(own: &Webhooks, webhook: &Webhook, changes: Vec<Change>) -> Response {
    let (mut announced, mut reasons) = (Vec::new(), Vec::new());
    for change in changes {
        let told = own.announcer.announce(change, !webhook.unknown_services);
        match tokio::time::timeout(DEADLINE, told).await {
            Ok(Ok(Told::Announced(deployment))) => announced.push(json!({
                "environment": deployment.environment.as_str(),
                "service": deployment.service.as_str(),
                "version": deployment.version.as_str(),
                "phase": vouch_proto::v1::DeploymentPhase::try_from(deployment.phase.to_wire())
                    .map_or("", |phase| phase.as_str_name()),
            })),
            Ok(Ok(Told::Ignored(reason))) => reasons.push(reason),
            Ok(Err(error)) => {
                tracing::warn!(webhook = %webhook.name, error = format!("{error:#}"), "a call was not stored");
                return busy("NATS does not answer; nothing is lost if this is sent again");
            }
            Err(_) => return busy("NATS does not answer; nothing is lost if this is sent again"),
        }
    }
    if announced.is_empty() {
        return ignored(webhook, &reasons.join("; "));
    }
    (StatusCode::ACCEPTED, Json(json!({ "announced": announced, "ignored": reasons }))).into_response()
}

async fn read(body: Body) -> Result<bytes::Bytes, Response> {
    match tokio::time::timeout(PATIENCE, to_bytes(body, BODY)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_too_long(&error) => {
            Err(answer(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 2 MiB"))
        }
        Ok(Err(_)) => Err(answer(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(answer(StatusCode::REQUEST_TIMEOUT, "the body did not come within 10 s")),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause = Some(error as &dyn std::error::Error);
    while let Some(one) = cause {
        if one.to_string().contains("length limit exceeded") {
            return true;
        }
        cause = one.source();
    }
    false
}

fn ignored(webhook: &Webhook, reason: &str) -> Response {
    tracing::info!(webhook = %webhook.name, reason, "a call announces nothing");
    (StatusCode::OK, Json(json!({ "announced": [], "ignored": [reason] }))).into_response()
}

fn busy(message: &str) -> Response {
    let retry = [(header::RETRY_AFTER, "5")];
    (StatusCode::SERVICE_UNAVAILABLE, retry, Json(json!({ "error": message }))).into_response()
}

fn answer(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}
