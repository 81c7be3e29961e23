//! What the notifier's rollback calls: records every call and answers 200.

use axum::extract::State;
use axum::{Json, Router, routing::post};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A rollback hook.
#[derive(Debug, Clone)]
pub struct Hook {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    pub(crate) async fn open(tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let hook = Self { address: listener.local_addr().expect("an address"), calls: Arc::default() };
        let router = Router::new().route("/rollback", post(record)).with_state(hook.clone());
        let serve = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        tracker.spawn(async move { serve.await.expect("the hook serves") });
        hook
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/rollback", self.address)
    }

    /// The bodies of the calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Value> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn record(State(hook): State<Hook>, Json(body): Json<Value>) -> &'static str {
    hook.calls.lock().unwrap_or_else(PoisonError::into_inner).push(body);
    "rolled back"
}
