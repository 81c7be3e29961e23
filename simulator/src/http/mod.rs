//! The HTTP server: routes, what every handler shares, and the loop that serves.

mod auth;
mod control;
mod entities;
mod events;
mod faulty;
mod input;
mod listener;
mod metrics;
mod page;
mod problems;
mod tokens;

pub(crate) use auth::{Token, check_token};
pub(crate) use events::EventStore;
pub(crate) use listener::{Line, SimulatorListener};

use crate::Clock;
use crate::calls::CallLog;
use crate::error::ApiError;
use crate::fault::Faults;
use crate::query::Visibility;
use crate::world::World;
use crate::world::replay::ReplayWorld;
use crate::world::scenario::ScenarioWorld;
use crate::world::spec::ScenarioError;
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is simulated.
#[derive(Debug)]
pub(crate) enum Source {
    /// A scenario.
    Scenario(ScenarioWorld),
    /// Recorded cases.
    Replay(ReplayWorld),
}

impl Source {
    /// Either as a world.
    pub(crate) fn world(&self) -> &dyn World {
        match self {
            Self::Scenario(world) => world,
            Self::Replay(world) => world,
        }
    }

    /// The scenario, which can be deployed to.
    pub(crate) fn scenario(&self) -> Result<&ScenarioWorld, ScenarioError> {
        match self {
            Self::Scenario(world) => Ok(world),
            Self::Replay(_) => Err(ScenarioError::Replayed),
        }
    }
}

/// What every handler shares.
pub(crate) struct Shared {
    /// What is simulated.
    pub(crate) source: Source,
    /// The present.
    pub(crate) clock: Clock,
    /// Who may call.
    pub(crate) tokens: Vec<Token>,
    /// Least and greatest time for a point to appear.
    pub(crate) settle_ms: (i64, i64),
    /// What goes wrong.
    pub(crate) faults: Faults,
    /// What was asked.
    pub(crate) calls: CallLog,
    /// Events sent in.
    pub(crate) events: EventStore,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("now", &(self.clock)())
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The present, epoch milliseconds.
    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    /// What can be seen now.
    pub(crate) fn visibility(&self, path: &str) -> Visibility {
        let now = self.now();
        let (late_ms, rewritten) = self.faults.of_data(path, now);
        Visibility { now, settle_ms: self.settle_ms, late_ms, rewritten }
    }
}

/// State of the handlers: what they share, and the signal to stop.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// What they share.
    pub(crate) shared: Arc<Shared>,
    /// Ends waits.
    pub(crate) stop: CancellationToken,
}

/// All routes.
pub(crate) fn router(app: App) -> Router {
    let api = Router::new()
        .route("/metrics", get(metrics::list))
        .route("/metrics/query", get(metrics::query))
        .route("/metrics/{*key}", get(metrics::descriptor))
        .route("/entities", get(entities::list))
        .route("/entities/{id}", get(entities::one))
        .route("/events", get(events::list))
        .route("/events/ingest", post(events::ingest))
        .route("/problems", get(problems::list))
        .route("/problems/{id}", get(problems::one))
        .route("/apiTokens/lookup", post(tokens::lookup));
    let control = Router::new()
        .route("/health", get(control::health))
        .route("/faults", get(control::faults).post(control::add_fault).delete(control::clear_faults))
        .route("/calls", get(control::calls).delete(control::clear_calls))
        .route("/deploy", post(control::deploy))
        .route("/rollback", post(control::rollback))
        .route("/incident", post(control::incident));
    Router::new()
        .nest("/api/v2", api)
        .nest("/_simulator", control)
        .route("/ready", get(control::health))
        .fallback(async || ApiError::not_found("Not found"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "HTTP method not allowed")
        })
        .layer(from_fn_with_state(app.clone(), faulty::layer))
        .with_state(app)
}
