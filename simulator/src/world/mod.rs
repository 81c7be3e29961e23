//! What is simulated: a scenario, or recorded cases.

pub(crate) mod effect;
pub(crate) mod incident;
pub(crate) mod lines;
pub(crate) mod replay;
pub(crate) mod scenario;
pub(crate) mod service;
pub(crate) mod spec;
pub(crate) mod topology;

use crate::entity::Registry;
use crate::metric::Metric;
use crate::point::Point;
use incident::ProblemNote;
use lines::LogEntry;
use std::fmt::Debug;

/// One series of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tuple {
    /// Dimension values (entity ids), in the order of the metric's dimensions.
    pub(crate) dimensions: Vec<String>,
    /// Length of its slots in milliseconds.
    pub(crate) native: i64,
    /// What the world calls it.
    pub(crate) series: usize,
}

/// A deployment as an event shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeploymentNote {
    /// Id of the service.
    pub(crate) service_id: String,
    /// The service.
    pub(crate) service: String,
    /// The version.
    pub(crate) version: String,
    /// When it began, epoch milliseconds.
    pub(crate) at_ms: i64,
    /// When it was rolled back.
    pub(crate) until_ms: Option<i64>,
    /// The hosts that get it, and when.
    pub(crate) hosts: Vec<(String, i64)>,
}

/// The source of entities and measurements. It knows no present: any slot can be asked at any time.
pub(crate) trait World: Debug + Send + Sync {
    /// Every entity.
    fn registry(&self) -> &Registry;
    /// Every metric.
    fn metrics(&self) -> &[Metric];
    /// The series of a metric, by its index.
    fn tuples(&self, metric: usize) -> &[Tuple];
    /// The stored points of a series: one per native slot from `start`, as many as fit before `end`.
    fn points(&self, metric: usize, tuple: &Tuple, start: i64, end: i64) -> Vec<Option<Point>>;
    /// Deployments so far and to come.
    fn deployments(&self) -> Vec<DeploymentNote>;
    /// Problems so far and to come, in the order of their making.
    fn problems(&self) -> Vec<ProblemNote>;
    /// What is written into logs within `[start, end)`, in the order of time.
    fn lines(&self, start: i64, end: i64) -> Vec<LogEntry>;
}
