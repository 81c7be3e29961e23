//! A Dynatrace tenant to develop, test and demonstrate against: scenarios with known answers, and recorded series.
//!
//! It answers over HTTP as Dynatrace does, also where Dynatrace is odd, and fails on demand. It reads no time of its
//! own: the clock is given to it, so that it can run at any speed.

mod base64;
mod calls;
mod dql;
mod entity;
mod error;
mod fault;
mod grid;
mod http;
mod line_protocol;
mod log_query;
mod metric;
mod noise;
mod point;
mod query;
#[cfg(test)]
mod recorded;
mod scan;
mod selector;
mod simulator;
mod time;
mod world;

pub use calls::Call;
pub use fault::{Fault, FaultRule, ThrottleHeader};
pub use line_protocol::{IngestedLine, Payload};
pub use simulator::{BuildError, Builder, Simulator, SimulatorHandle};
pub use world::effect::{Effect, Rollout, WarmUp};
pub use world::incident::{Incident, IncidentSpec, ProblemSpec};
pub use world::replay::{Case, CaseMetric, CaseSeries, ReplayError, read_cases};
pub use world::scenario::Deploy;
pub use world::spec::{
    CpuSpec, DeploymentSpec, ErrorSpec, LatencySpec, LoadSpec, LogSpec, MissingSpec, Scenario, ScenarioError,
    ServiceSpec,
};
pub use world::topology::DependencySpec;

/// The present, epoch milliseconds.
pub type Clock = std::sync::Arc<dyn Fn() -> i64 + Send + Sync>;

/// Every scope of API tokens that the simulator knows.
pub const ALL_SCOPES: [&str; 9] = [
    "metrics.read",
    "metrics.ingest",
    "entities.read",
    "events.read",
    "events.ingest",
    "problems.read",
    "releases.read",
    "slo.read",
    "logs.read",
];

/// Every scope of platform tokens and OAuth clients that the simulator knows.
pub const PLATFORM_SCOPES: [&str; 14] = [
    "environment-api:metrics:read",
    "environment-api:metrics:write",
    "environment-api:entities:read",
    "environment-api:events:read",
    "environment-api:events:write",
    "environment-api:problems:read",
    "environment-api:releases:read",
    "environment-api:slo:read",
    "storage:buckets:read",
    "storage:metrics:read",
    "storage:entities:read",
    "storage:logs:read",
    "storage:spans:read",
    "storage:bizevents:read",
];

/// The id of the simulated service of a name, e.g. `SERVICE-0123456789ABCDEF`.
#[must_use]
pub fn service_id(name: &str) -> String {
    entity::id_of(entity::SERVICE, name)
}

/// The id of the process group instance of a service's host.
#[must_use]
pub fn instance_id(service: &str, host: &str) -> String {
    entity::id_of(entity::INSTANCE, &format!("{}/{host}", service_id(service)))
}
