//! Building, serving and steering a simulator.

use crate::Clock;
use crate::calls::{Call, CallLog};
use crate::fault::{FaultRule, Faults};
use crate::grid::floor;
use crate::http::{
    App, EventStore, IssuedTokens, Line, LineStore, OAuthClient, QueryStore, Shared, SimulatorListener,
    Source, Token, check_token, router,
};
use crate::line_protocol::IngestedLine;
use crate::time::MINUTE;
use crate::world::effect::{Effect, Rollout};
use crate::world::incident::Incident;
use crate::world::replay::{Case, ReplayError, ReplayWorld, read_cases};
use crate::world::scenario::{Deploy, ScenarioWorld};
use crate::world::spec::{Scenario, ScenarioError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long points take to appear unless `settle_ms` says otherwise.
const SETTLE_MS: (i64, i64) = (60_000, 120_000);

/// How long the result of a DQL query waits unless `result_ttl_s` says otherwise.
const RESULT_TTL_S: i64 = 400;

/// Why a simulator cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing to simulate, or two things.
    #[error("give either a scenario or cases to replay, and one of them only")]
    Source,
    /// No clock.
    #[error("give a clock: the simulator reads no time of its own")]
    Clock,
    /// No token, or a malformed one.
    #[error("token: {0}")]
    Token(String),
    /// A malformed platform token.
    #[error("platform_token: {0}")]
    PlatformToken(String),
    /// A malformed secret of an OAuth client.
    #[error("oauth_client: {0}")]
    OAuthClient(String),
    /// An impossible settle time.
    #[error("settle_ms: {0} to {1} is no range of milliseconds from 0 on")]
    Settle(i64, i64),
    /// The scenario is wrong.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The cases are wrong.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

#[derive(Debug)]
enum Cases {
    File(PathBuf),
    Given(Vec<Case>),
}

/// Builds a [`Simulator`].
#[derive(Default)]
pub struct Builder {
    scenario: Option<Scenario>,
    start_ms: Option<i64>,
    replay: Option<(Cases, i64)>,
    clock: Option<Clock>,
    tokens: Vec<Token>,
    platform_tokens: Vec<Token>,
    oauth_clients: Vec<OAuthClient>,
    settle_ms: Option<(i64, i64)>,
    result_ttl_s: Option<i64>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("scenario", &self.scenario)
            .field("replay", &self.replay.as_ref().map(|(_, t0)| t0))
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Simulates a scenario.
    #[must_use]
    pub fn scenario(mut self, scenario: Scenario) -> Self {
        self.scenario = Some(scenario);
        self
    }

    /// Minute 0 of the scenario, epoch milliseconds; the clock's minute at the time of building unless given.
    #[must_use]
    pub fn start_ms(mut self, start_ms: i64) -> Self {
        self.start_ms = Some(start_ms);
        self
    }

    /// Replays a file of cases (JSON lines, gzipped or not), deployed at `t0_ms`.
    #[must_use]
    pub fn replay(mut self, path: impl Into<PathBuf>, t0_ms: i64) -> Self {
        self.replay = Some((Cases::File(path.into()), t0_ms));
        self
    }

    /// Replays cases, deployed at `t0_ms`.
    #[must_use]
    pub fn replay_cases(mut self, cases: Vec<Case>, t0_ms: i64) -> Self {
        self.replay = Some((Cases::Given(cases), t0_ms));
        self
    }

    /// The present, epoch milliseconds.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// An API token, `dt0c01.<public>.<secret>`, and its scopes.
    #[must_use]
    pub fn token(mut self, secret: impl Into<String>, scopes: &[&str]) -> Self {
        self.tokens.push(token(secret, scopes, None));
        self
    }

    /// An API token that is refused from `expires_ms` on.
    #[must_use]
    pub fn token_until(mut self, secret: impl Into<String>, scopes: &[&str], expires_ms: i64) -> Self {
        self.tokens.push(token(secret, scopes, Some(expires_ms)));
        self
    }

    /// A platform token, `dt0s16.<public>.<secret>`, and its scopes, for what lies below `/platform`.
    #[must_use]
    pub fn platform_token(mut self, secret: impl Into<String>, scopes: &[&str]) -> Self {
        self.platform_tokens.push(token(secret, scopes, None));
        self
    }

    /// A platform token that is refused from `expires_ms` on.
    #[must_use]
    pub fn platform_token_until(
        mut self,
        secret: impl Into<String>,
        scopes: &[&str],
        expires_ms: i64,
    ) -> Self {
        self.platform_tokens.push(token(secret, scopes, Some(expires_ms)));
        self
    }

    /// An OAuth client by its secret, `dt0s02.<public>.<secret>`, and the scopes that it may ask for.
    #[must_use]
    pub fn oauth_client(mut self, secret: impl Into<String>, scopes: &[&str]) -> Self {
        let scopes = scopes.iter().map(|s| (*s).to_owned()).collect();
        self.oauth_clients.push(OAuthClient { secret: secret.into(), scopes });
        self
    }

    /// Every point appears so long after the end of its slot.
    #[must_use]
    pub fn settle_ms(self, settle_ms: i64) -> Self {
        self.settle_range_ms(settle_ms, settle_ms)
    }

    /// Every point appears within this time after the end of its slot, each with its own delay.
    #[must_use]
    pub fn settle_range_ms(mut self, least: i64, greatest: i64) -> Self {
        self.settle_ms = Some((least, greatest));
        self
    }

    /// Results of DQL queries wait so many simulated seconds to be fetched; 400 unless given.
    #[must_use]
    pub fn result_ttl_s(mut self, seconds: u32) -> Self {
        self.result_ttl_s = Some(i64::from(seconds));
        self
    }

    /// Builds the simulator; reads the cases.
    ///
    /// Points settle 60 to 120 seconds after their slot in a scenario and at once in a replay, unless said otherwise.
    ///
    /// # Errors
    /// Where something is missing or wrong; the message names it.
    pub fn build(self) -> Result<Simulator, BuildError> {
        let clock = self.clock.ok_or(BuildError::Clock)?;
        let mut tokens = self.tokens;
        if tokens.is_empty() && self.platform_tokens.is_empty() && self.oauth_clients.is_empty() {
            return Err(BuildError::Token("give one or more; the simulator answers nobody else".into()));
        }
        for token in &tokens {
            check_token("dt0c01", &token.secret).map_err(BuildError::Token)?;
        }
        for token in &self.platform_tokens {
            check_token("dt0s16", &token.secret).map_err(BuildError::PlatformToken)?;
        }
        for client in &self.oauth_clients {
            check_token("dt0s02", &client.secret).map_err(BuildError::OAuthClient)?;
        }
        tokens.extend(self.platform_tokens);
        let (source, settle) = match (self.scenario, self.replay) {
            (Some(scenario), None) => {
                let start = self.start_ms.unwrap_or_else(|| floor(clock(), MINUTE));
                (Source::Scenario(ScenarioWorld::new(&scenario, start)?), SETTLE_MS)
            }
            (None, Some((cases, t0_ms))) => {
                let cases = match cases {
                    Cases::File(path) => read_cases(&path)?,
                    Cases::Given(cases) => cases,
                };
                (Source::Replay(ReplayWorld::new(cases, t0_ms)?), (0, 0))
            }
            _ => return Err(BuildError::Source),
        };
        let settle_ms = self.settle_ms.unwrap_or(settle);
        if settle_ms.0 < 0 || settle_ms.0 > settle_ms.1 {
            return Err(BuildError::Settle(settle_ms.0, settle_ms.1));
        }
        let shared = Shared {
            source,
            clock,
            tokens,
            oauth_clients: self.oauth_clients,
            issued: IssuedTokens::default(),
            settle_ms,
            faults: Faults::default(),
            calls: CallLog::default(),
            queries: QueryStore::default(),
            result_ttl_s: self.result_ttl_s.unwrap_or(RESULT_TTL_S),
            lines: LineStore::default(),
            events: EventStore::default(),
        };
        Ok(Simulator { shared: Arc::new(shared) })
    }
}

fn token(secret: impl Into<String>, scopes: &[&str], expires_ms: Option<i64>) -> Token {
    Token { secret: secret.into(), scopes: scopes.iter().map(|s| (*s).to_owned()).collect(), expires_ms }
}

/// A simulated Dynatrace tenant.
#[derive(Debug, Clone)]
pub struct Simulator {
    shared: Arc<Shared>,
}

impl Simulator {
    /// Begins to build one.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A handle to steer it by, also while it serves.
    #[must_use]
    pub fn handle(&self) -> SimulatorHandle {
        SimulatorHandle { shared: Arc::clone(&self.shared) }
    }

    /// Serves until `stop`, then finishes the calls that are running; slow answers are cut short.
    ///
    /// # Errors
    /// Where the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let app = App { shared: self.shared, stop: stop.clone() };
        let service = router(app).into_make_service_with_connect_info::<Line>();
        axum::serve(SimulatorListener(listener), service).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

/// Steers a simulator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SimulatorHandle {
    shared: Arc<Shared>,
}

impl SimulatorHandle {
    /// Sets a fault. Of several that fit a call, the first set meets it.
    ///
    /// # Errors
    /// Where the rule is impossible; the message names the field.
    pub fn add_fault(&self, rule: FaultRule) -> Result<(), String> {
        self.shared.faults.add(rule)
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// The faults that are left.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultRule> {
        self.shared.faults.list()
    }

    /// The calls received, oldest first; the newest 10,000 are kept.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.list()
    }

    /// Forgets the calls.
    pub fn clear_calls(&self) {
        self.shared.calls.clear();
    }

    /// The measurements sent in, oldest first; the newest 10,000 are kept.
    #[must_use]
    pub fn ingested(&self) -> Vec<IngestedLine> {
        self.shared.lines.list()
    }

    /// Deploys a version to all hosts of a service at once.
    ///
    /// # Errors
    /// Where there is no such service, or the effect is impossible.
    pub fn deploy(
        &self,
        service: &str,
        version: &str,
        at_ms: i64,
        effect: Effect,
    ) -> Result<(), ScenarioError> {
        let (service, version) = (service.to_owned(), version.to_owned());
        self.deploy_with(Deploy { service, version, at_ms, effect, rollout: Rollout::All, warm_up: None })
    }

    /// Deploys a version: canary, rolling, with a warm-up.
    ///
    /// # Errors
    /// Where there is no such service, or the deployment is impossible.
    pub fn deploy_with(&self, deploy: Deploy) -> Result<(), ScenarioError> {
        self.shared.source.scenario()?.deploy(deploy)
    }

    /// Starts an incident: trouble of a service or dependency, felt by those who call it.
    ///
    /// # Errors
    /// Where there is no such service or dependency, or the incident is impossible.
    pub fn incident(&self, incident: Incident) -> Result<(), ScenarioError> {
        self.shared.source.scenario()?.incident(&incident)
    }

    /// Takes the newest deployment of a service back, from now on. Says which version that was.
    ///
    /// # Errors
    /// Where there is no such service, or nothing to take back.
    pub fn rollback(&self, service: &str) -> Result<String, ScenarioError> {
        self.shared.source.scenario()?.rollback(service, self.shared.now())
    }
}
