//! Liveness, readiness and metrics over HTTP, and the probe for containers that have no shell.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Json, Router, routing::get};
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What the service needs to be ready, each with the reason why it is not.
#[derive(Debug, Clone, Default)]
pub struct Health {
    conditions: Arc<Mutex<BTreeMap<String, Result<(), String>>>>,
    registry: Arc<Mutex<Registry>>,
}

impl Health {
    /// Says that a condition holds.
    pub fn ok(&self, condition: &str) {
        self.set(condition, Ok(()));
    }

    /// Says that a condition does not hold, and why.
    pub fn fails(&self, condition: &str, reason: impl Into<String>) {
        self.set(condition, Err(reason.into()));
    }

    fn set(&self, condition: &str, state: Result<(), String>) {
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.insert(condition.to_owned(), state);
    }

    /// Everything that keeps it from being ready, by condition.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, String> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.iter().filter_map(|(name, state)| Some((name.clone(), state.clone().err()?))).collect()
    }

    /// Registers metrics.
    pub fn register(&self, registrar: impl FnOnce(&mut Registry)) {
        registrar(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The metrics as Prometheus reads them.
    ///
    /// # Errors
    /// Where they cannot be written as text.
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Serves `/live`, `/ready` and `/metrics` until `stop`.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(health: Health, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await?;
    Ok(())
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    let failures = health.failures();
    let status = if failures.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "ready": failures.is_empty(), "not_ready": failures })))
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    match health.metrics() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// Asks a running service whether it is ready.
///
/// # Errors
/// With what the service answered, or that it did not.
pub async fn probe(address: &str) -> anyhow::Result<()> {
    let answer = tokio::time::timeout(Duration::from_secs(3), async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    });
    let answer = answer.await.map_err(|_| anyhow::anyhow!("{address} did not answer in 3 s"))??;
    let status = answer.split_whitespace().nth(1).unwrap_or("no status");
    anyhow::ensure!(status == "200", "{address} answered {status}: {}", answer.lines().last().unwrap_or(""));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_says_what_is_missing_and_the_probe_sees_it() {
        let health = Health::default();
        health.fails("dynatrace", "401: the token is not valid");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let server = serve(health.clone(), listener, stop.clone());
        let client = async {
            let said = probe(&address).await.unwrap_err().to_string();
            assert!(said.contains("503") && said.contains("the token is not valid"), "{said}");
            health.ok("dynatrace");
            probe(&address).await.unwrap();
            stop.cancel();
        };
        let (served, ()) = tokio::join!(server, client);
        served.unwrap();
        assert!(probe(&address).await.is_err(), "nobody listens any more");
    }
}
