//! A verification case: everything the judge may know about one deployment, live or read from a file.

mod check;
mod json;
mod surroundings;
mod template;
mod write;

use crate::judge::JudgeSettings;
use std::collections::BTreeMap;
pub use surroundings::{LeftOut, MAX_NEIGHBOURS, Neighbour, Problem};
pub use template::CaseTemplate;
use vouch_proto::{Direction, Strategy};

/// Longest history or verification window, in samples per metric and host: two weeks of minutes.
pub const MAX_SAMPLES: i64 = 20_160;
/// Most windows to compare with.
pub const MAX_BASELINE_WINDOWS: usize = 64;
/// Furthest a minute may be from the deployment: ten years.
pub const MAX_MINUTE: i64 = 5_256_000;
/// Most metrics times hosts.
pub const MAX_SERIES: usize = 20_000;

/// One deployment with its telemetry. Time is in whole minutes relative to the deployment at 0;
/// a sample at minute m covers `[m, m + interval_min)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Name of the case; echoed, never interpreted.
    pub id: String,
    /// What the new version is compared with.
    pub strategy: Strategy,
    /// Sampling step in minutes.
    pub interval_min: i64,
    /// Reference windows `[start, end)`; the one that ends last is compared with, the others teach seasons and load.
    pub baseline: Vec<[i64; 2]>,
    /// The window `[start, end)` that is judged, sample by sample.
    pub verification: [i64; 2],
    /// What was measured.
    pub metrics: BTreeMap<String, CaseMetric>,
    /// Where it was measured.
    pub hosts: BTreeMap<String, CaseHost>,
    /// The samples.
    pub series: Vec<CaseSeries>,
    /// How the metrics are judged.
    pub template: CaseTemplate,
    /// For a canary that is judged on the service as a whole: its share of the traffic, above 0 to 1.
    pub diluted: Option<f64>,
    /// Other services over the same windows; see [`crate::common_cause`].
    pub neighbours: Vec<Neighbour>,
    /// Problems of the service that the source has found by itself.
    pub problems: Vec<Problem>,
    /// Times before the verification that the references leave out.
    pub left_out: Vec<LeftOut>,
    /// Of evidence that was recorded: the minutes of the window that had been seen; `None`: all.
    pub minutes_seen: Option<i64>,
    /// Of evidence that was recorded: why it could not be a Pass, where that does not show in the samples.
    pub barred: Option<String>,
    /// Of evidence that was recorded: what it was judged with; `None`: the defaults.
    pub judged_with: Option<JudgeSettings>,
}

/// What a metric means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseMetric {
    /// Unit of its values, e.g. `ms`, `%`, `1/min`.
    pub unit: String,
    /// In which direction it is bad.
    pub bad: Direction,
    /// For counts of events: the metric that counts the trials.
    pub exposure: Option<String>,
    /// Whether it is judged.
    pub role: MetricRole,
}

/// Whether a metric is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricRole {
    /// It can fail a deployment.
    Judged,
    /// It only explains the others, such as the load offered at the entry.
    Context,
}

/// One host, pod or instance; or the service as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseHost {
    /// Its part in the comparison.
    pub group: HostGroup,
    /// The minute from which it runs the new version; `None`: never, or for `service`: from 0.
    pub switch: Option<i64>,
    /// Minutes at which its process started again with the version that it had.
    pub restarts: Vec<i64>,
}

/// A host's part in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostGroup {
    /// All hosts measured as one.
    Service,
    /// Keeps the old version.
    Control,
    /// Gets the new version.
    Test,
}

/// A run of samples of one metric on one host.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseSeries {
    /// Key in `metrics`.
    pub metric: String,
    /// Key in `hosts`.
    pub host: String,
    /// Minute of the first sample.
    pub start: i64,
    /// One value per `interval_min`; `None` is a gap, never zero.
    pub values: Vec<Option<f64>>,
}

/// Why a case cannot be judged: which field, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct CaseError {
    /// Path of the field, e.g. `series[3].start`.
    pub field: String,
    /// Its value, the limit and the remedy.
    pub message: String,
}

impl CaseError {
    /// A refusal of one field.
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl Case {
    /// An empty case to be filled by the `with_` methods.
    #[must_use]
    pub fn new(id: impl Into<String>, strategy: Strategy, interval_min: i64, verification: [i64; 2]) -> Self {
        Self {
            id: id.into(),
            strategy,
            interval_min,
            baseline: Vec::new(),
            verification,
            metrics: BTreeMap::new(),
            hosts: BTreeMap::new(),
            series: Vec::new(),
            template: CaseTemplate::default(),
            diluted: None,
            neighbours: Vec::new(),
            problems: Vec::new(),
            left_out: Vec::new(),
            minutes_seen: None,
            barred: None,
            judged_with: None,
        }
    }

    /// Adds a reference window `[start, end)`.
    #[must_use]
    pub fn with_baseline(mut self, window: [i64; 2]) -> Self {
        self.baseline.push(window);
        self
    }

    /// Adds or replaces a metric.
    #[must_use]
    pub fn with_metric(mut self, name: impl Into<String>, metric: CaseMetric) -> Self {
        self.metrics.insert(name.into(), metric);
        self
    }

    /// Adds or replaces a host.
    #[must_use]
    pub fn with_host(mut self, name: impl Into<String>, group: HostGroup, switch: Option<i64>) -> Self {
        self.hosts.insert(name.into(), CaseHost { group, switch, restarts: Vec::new() });
        self
    }

    /// Notes that a host's process started again; of a host that is not there, nothing.
    #[must_use]
    pub fn with_restart(mut self, name: &str, minute: i64) -> Self {
        self.hosts.entry(name.to_owned()).and_modify(|host| host.restarts.push(minute));
        self
    }

    /// Has a canary judged on the service as a whole, of whose traffic it has this share.
    #[must_use]
    pub const fn diluted_by(mut self, share: f64) -> Self {
        self.diluted = Some(share);
        self
    }

    /// Adds samples.
    #[must_use]
    pub fn with_series(mut self, metric: &str, host: &str, start: i64, values: Vec<Option<f64>>) -> Self {
        self.series.push(CaseSeries { metric: metric.to_owned(), host: host.to_owned(), start, values });
        self
    }

    /// Judges a metric by these settings.
    #[must_use]
    pub fn with_settings(mut self, metric: impl Into<String>, settings: vouch_proto::MetricSettings) -> Self {
        self.template.metrics.insert(metric.into(), settings);
        self
    }

    /// Reads a case from one JSON object. Unknown fields, such as labels, are ignored.
    ///
    /// # Errors
    /// Where it is not such an object, or [`Case::validate`] refuses it.
    pub fn from_json(text: &str) -> Result<Self, CaseError> {
        json::read(text)
    }

    /// The JSON object that [`Case::from_json`] reads back to the same case.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        write::write(self)
    }

    /// The `id` of a JSON object that may be refused otherwise.
    #[must_use]
    pub fn id_from_json(text: &str) -> Option<String> {
        json::read_id(text)
    }

    /// Refuses what cannot be judged: wrong windows, unknown names, negative counts, overlapping samples, ...
    ///
    /// # Errors
    /// The first wrong field, with its value, the limit and the remedy.
    pub fn validate(&self) -> Result<(), CaseError> {
        check::check(self)
    }
}

impl CaseMetric {
    /// A judged metric that is bad in one direction.
    #[must_use]
    pub fn judged(unit: impl Into<String>, bad: Direction) -> Self {
        Self { unit: unit.into(), bad, exposure: None, role: MetricRole::Judged }
    }

    /// A judged count of events out of the trials that `exposure` counts.
    #[must_use]
    pub fn count(unit: impl Into<String>, exposure: impl Into<String>) -> Self {
        Self { exposure: Some(exposure.into()), ..Self::judged(unit, Direction::Increase) }
    }

    /// A metric that only explains the others.
    #[must_use]
    pub fn context(unit: impl Into<String>) -> Self {
        Self { unit: unit.into(), bad: Direction::None, exposure: None, role: MetricRole::Context }
    }

    /// Whether it can fail a deployment.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.role == MetricRole::Judged && self.bad != Direction::None
    }
}
