//! The HTTP server: routes, what every handler shares, and the loop that serves.

mod address;
mod auth;
mod control;
mod entities;
mod events;
mod faulty;
mod grail;
mod ingest;
mod input;
mod listener;
mod logs;
mod metrics;
mod oauth;
mod page;
mod problems;
mod releases;
mod slo;
mod tokens;

pub(crate) use auth::{Token, check_token};
pub(crate) use events::EventStore;
pub(crate) use grail::QueryStore;
pub(crate) use ingest::LineStore;
pub(crate) use listener::{Line, SimulatorListener};
pub(crate) use oauth::{IssuedTokens, OAuthClient};

use crate::Clock;
use crate::calls::CallLog;
use crate::error::ApiError;
use crate::fault::{DataFaults, Faults};
use crate::query::Visibility;
use crate::world::World;
use crate::world::replay::ReplayWorld;
use crate::world::scenario::ScenarioWorld;
use crate::world::spec::ScenarioError;
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
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
    /// Who may ask for access tokens.
    pub(crate) oauth_clients: Vec<OAuthClient>,
    /// The access tokens issued.
    pub(crate) issued: IssuedTokens,
    /// Least and greatest time for a point to appear.
    pub(crate) settle_ms: (i64, i64),
    /// What goes wrong.
    pub(crate) faults: Faults,
    /// What was asked.
    pub(crate) calls: CallLog,
    /// Queries whose results wait.
    pub(crate) queries: QueryStore,
    /// Seconds that a result waits.
    pub(crate) result_ttl_s: i64,
    /// Measurements sent in.
    pub(crate) lines: LineStore,
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

    /// The constant that a fault puts in the place of a known one.
    pub(crate) fn constant<'a>(&self, path: &str, known: &'a str) -> &'a str {
        if self.faults.of_data(path, self.now()).unknown_constants { "UNHEARD_OF" } else { known }
    }

    /// What can be seen now.
    pub(crate) fn visibility(&self, path: &str) -> Visibility {
        let now = self.now();
        let DataFaults { late_ms, rewritten, .. } = self.faults.of_data(path, now);
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
        .route("/metrics/ingest", post(ingest::ingest))
        .route("/metrics/{*key}", get(metrics::descriptor))
        .route("/entities", get(entities::list))
        .route("/entities/{id}", get(entities::one))
        .route("/events", get(events::list))
        .route("/events/ingest", post(events::ingest))
        .route("/events/{id}", get(events::one))
        .route("/problems", get(problems::list))
        .route("/problems/{id}", get(problems::one))
        .route("/releases", get(releases::list))
        .route("/logs/search", get(logs::search))
        .route("/logs/export", get(logs::export))
        .route("/logs/aggregate", get(logs::aggregate))
        .route("/slo", get(slo::list))
        .route("/slo/{id}", get(slo::one))
        .route("/apiTokens/lookup", post(tokens::lookup));
    let grail = Router::new()
        .route("/query:execute", post(grail::execute))
        .route("/query:poll", get(grail::poll))
        .route("/query:cancel", post(grail::cancel))
        .route("/query:verify", post(grail::verify))
        .route("/query:parse", post(grail::parse));
    let platform = Router::new()
        .nest("/classic/environment-api/v2", api.clone())
        .nest("/storage/query/v1", grail)
        .layer(map_response(grail::of_cluster));
    let control = Router::new()
        .route("/health", get(control::health))
        .route("/faults", get(control::faults).post(control::add_fault).delete(control::clear_faults))
        .route("/calls", get(control::calls).delete(control::clear_calls))
        .route("/deploy", post(control::deploy))
        .route("/rollback", post(control::rollback))
        .route("/incident", post(control::incident));
    let routes = Router::new()
        .nest("/api/v2", api)
        .nest("/platform", platform)
        .route("/sso/oauth2/token", post(oauth::token))
        .nest("/_simulator", control)
        .route("/ready", get(control::health))
        .fallback(async || ApiError::not_found("Not found"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "HTTP method not allowed")
        })
        .layer(from_fn_with_state(app.clone(), faulty::layer))
        .with_state(app);
    // Addresses are brought to their one form before they are routed.
    Router::new().fallback_service(routes).layer(from_fn(address::normalize))
}
