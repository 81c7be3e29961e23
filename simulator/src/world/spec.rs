//! The scenario language: what is written in YAML, and its limits.

use super::effect::{Effect, Rollout, WarmUp};
use super::incident::IncidentSpec;
use super::topology::{DependencySpec, Topology};
use serde::Deserialize;
use std::collections::BTreeSet;

/// A scenario, as written in YAML.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Seed of everything that looks random.
    #[serde(default)]
    pub seed: u64,
    /// What the services call besides each other.
    #[serde(default)]
    pub dependencies: Vec<DependencySpec>,
    /// The services.
    pub services: Vec<ServiceSpec>,
    /// Troubles of services and dependencies.
    #[serde(default)]
    pub incidents: Vec<IncidentSpec>,
}

/// A service of a scenario.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Display name.
    pub name: String,
    /// Tags: `key`, `key:value` or `[context]key:value`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Names of the hosts or pods; one process group instance each.
    pub hosts: Vec<String>,
    /// Names of the services and dependencies that it calls.
    #[serde(default)]
    pub calls: Vec<String>,
    /// Requests.
    #[serde(default)]
    pub load: LoadSpec,
    /// Response times.
    #[serde(default)]
    pub latency: LatencySpec,
    /// Failures.
    #[serde(default)]
    pub errors: ErrorSpec,
    /// CPU use.
    #[serde(default)]
    pub cpu: CpuSpec,
    /// What it writes.
    #[serde(default)]
    pub logs: LogSpec,
    /// Times without data.
    #[serde(default)]
    pub missing: Vec<MissingSpec>,
    /// What is deployed, and when.
    #[serde(default)]
    pub deployments: Vec<DeploymentSpec>,
}

/// Requests to a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadSpec {
    /// On average, over all hosts.
    pub per_minute: f64,
    /// Amplitude of the day, 0..1.
    pub daily: f64,
    /// Amplitude of the week, 0..1.
    pub weekly: f64,
    /// Standard deviation of the logarithm.
    pub noise: f64,
}

impl Default for LoadSpec {
    fn default() -> Self {
        Self { per_minute: 600.0, daily: 0.3, weekly: 0.1, noise: 0.04 }
    }
}

/// Response times of a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LatencySpec {
    /// Median in milliseconds.
    pub median_ms: f64,
    /// Standard deviation of the logarithm within a minute.
    pub spread: f64,
    /// Standard deviation of the logarithm from minute to minute.
    pub noise: f64,
    /// Latency grows with load to this power.
    pub load_exponent: f64,
}

impl Default for LatencySpec {
    fn default() -> Self {
        Self { median_ms: 80.0, spread: 0.5, noise: 0.04, load_exponent: 0.15 }
    }
}

/// Failures of a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorSpec {
    /// Share of the requests that fail.
    pub rate: f64,
}

impl Default for ErrorSpec {
    fn default() -> Self {
        Self { rate: 0.002 }
    }
}

/// CPU use of a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CpuSpec {
    /// Percent at average load.
    pub percent: f64,
    /// Standard deviation of the logarithm.
    pub noise: f64,
}

impl Default for CpuSpec {
    fn default() -> Self {
        Self { percent: 30.0, noise: 0.05 }
    }
}

/// Lines of a service's log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSpec {
    /// Usual lines, on average, over all hosts; one more for each failed request. None at all where it is 0.
    pub per_minute: f64,
    /// The bucket of Grail that keeps them.
    pub bucket: String,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self { per_minute: 30.0, bucket: "default_logs".into() }
    }
}

/// A time without data, in minutes since the scenario's start.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingSpec {
    /// From then on.
    pub from_minutes: f64,
    /// Until then.
    pub to_minutes: f64,
    /// On these hosts; all where empty.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// A deployment of a scenario.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentSpec {
    /// Minutes since the scenario's start.
    pub at_minutes: f64,
    /// The version.
    pub version: String,
    /// What it does.
    pub effect: Effect,
    /// Where.
    #[serde(default)]
    pub rollout: Rollout,
    /// Slow first minutes.
    #[serde(default)]
    pub warm_up: Option<WarmUp>,
}

/// Why a scenario or a deployment cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// No such embedded scenario.
    #[error("there is no scenario `{0}`; there are {names}", names = Scenario::names().join(", "))]
    Unknown(String),
    /// Not YAML, or not a scenario.
    #[error("the scenario cannot be read: {0}")]
    Unreadable(String),
    /// A field is wrong.
    #[error("{field}: {message}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What is wrong and what is right.
        message: String,
    },
    /// No such service.
    #[error("there is no service `{0}` in the scenario; there are {1}")]
    NoService(String, String),
    /// Nothing to roll back.
    #[error("service `{0}` has no deployment that could be rolled back")]
    NothingToRollBack(String),
    /// Recorded cases cannot be deployed to.
    #[error("recorded cases are replayed: there is nothing to deploy to")]
    Replayed,
}

/// The scenarios that come with the simulator.
const EMBEDDED: [(&str, &str); 8] = [
    ("healthy", include_str!("../../scenarios/healthy.yaml")),
    ("bad-deployment", include_str!("../../scenarios/bad-deployment.yaml")),
    ("blue-green-bad", include_str!("../../scenarios/blue-green-bad.yaml")),
    ("canary-bad", include_str!("../../scenarios/canary-bad.yaml")),
    ("rolling-bad", include_str!("../../scenarios/rolling-bad.yaml")),
    ("no-data", include_str!("../../scenarios/no-data.yaml")),
    ("shared-database", include_str!("../../scenarios/shared-database.yaml")),
    ("demo", include_str!("../../scenarios/demo.yaml")),
];

impl Scenario {
    /// Names of the scenarios that come with the simulator.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        EMBEDDED.iter().map(|(name, _)| *name).collect()
    }

    /// A scenario that comes with the simulator.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn named(name: &str) -> Result<Self, ScenarioError> {
        let (_, text) = EMBEDDED
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| ScenarioError::Unknown(name.to_owned()))?;
        Self::parse(text)
    }

    /// Reads a scenario.
    ///
    /// # Errors
    /// Where it is no YAML, a field is unknown, or a value is out of its limits.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            serde_saphyr::from_str(text).map_err(|e| ScenarioError::Unreadable(e.to_string()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The scenario without what is deployed in it, to deploy at run time instead.
    #[must_use]
    pub fn without_deployments(mut self) -> Self {
        for service in &mut self.services {
            service.deployments.clear();
        }
        self
    }

    /// The scenario without its incidents, to start them at run time instead.
    #[must_use]
    pub fn without_incidents(mut self) -> Self {
        self.incidents.clear();
        self
    }

    /// Checks everything, and says who calls whom.
    pub(crate) fn check(&self) -> Result<Topology, ScenarioError> {
        let mut names = BTreeSet::new();
        for (i, service) in self.services.iter().enumerate() {
            let at = |field: &str| format!("services[{i}].{field}");
            if !names.insert(&service.name) {
                return Err(invalid(at("name"), format!("`{}` is there twice", service.name)));
            }
            service.check(&at)?;
        }
        let topology = Topology::new(self)?;
        for (i, incident) in self.incidents.iter().enumerate() {
            let at = |field: &str| format!("incidents[{i}].{field}");
            incident.starting_at(0, &at)?.check(&topology, &at)?;
        }
        Ok(topology)
    }
}

pub(super) fn invalid(field: String, message: impl Into<String>) -> ScenarioError {
    ScenarioError::Invalid { field, message: message.into() }
}

impl ServiceSpec {
    fn check(&self, at: &dyn Fn(&str) -> String) -> Result<(), ScenarioError> {
        let limits = [
            ("load.per_minute", self.load.per_minute, 0.0, 1e9),
            ("load.daily", self.load.daily, 0.0, 0.99),
            ("load.weekly", self.load.weekly, 0.0, 0.99),
            ("load.noise", self.load.noise, 0.0, 2.0),
            ("latency.median_ms", self.latency.median_ms, 1e-3, 1e7),
            ("latency.spread", self.latency.spread, 0.0, 3.0),
            ("latency.noise", self.latency.noise, 0.0, 2.0),
            ("latency.load_exponent", self.latency.load_exponent, 0.0, 3.0),
            ("errors.rate", self.errors.rate, 0.0, 1.0),
            ("cpu.percent", self.cpu.percent, 0.0, 100.0),
            ("cpu.noise", self.cpu.noise, 0.0, 2.0),
            ("logs.per_minute", self.logs.per_minute, 0.0, 1e6),
        ];
        for (field, value, low, high) in limits {
            if !(low..=high).contains(&value) {
                return Err(invalid(at(field), format!("{value} is not within {low} to {high}")));
            }
        }
        let distinct: BTreeSet<&String> = self.hosts.iter().collect();
        if self.hosts.is_empty() || distinct.len() != self.hosts.len() {
            return Err(invalid(at("hosts"), "give one or more names, each once"));
        }
        for (i, gap) in self.missing.iter().enumerate() {
            self.check_hosts(&gap.hosts, || at(&format!("missing[{i}].hosts")))?;
        }
        for (i, deployment) in self.deployments.iter().enumerate() {
            let at = |field: &str| at(&format!("deployments[{i}].{field}"));
            self.check_change(&deployment.effect, &deployment.rollout, deployment.warm_up, &at)?;
            if !deployment.at_minutes.is_finite() || deployment.version.is_empty() {
                return Err(invalid(at("version"), "give a version, and finite minutes in `at_minutes`"));
            }
        }
        Ok(())
    }

    fn check_hosts(&self, hosts: &[String], field: impl Fn() -> String) -> Result<(), ScenarioError> {
        match hosts.iter().find(|h| !self.hosts.contains(h)) {
            None => Ok(()),
            Some(host) => Err(invalid(
                field(),
                format!("`{host}` is no host of `{}`; it has {}", self.name, self.hosts.join(", ")),
            )),
        }
    }

    pub(super) fn check_change(
        &self,
        effect: &Effect,
        rollout: &Rollout,
        warm_up: Option<WarmUp>,
        at: &dyn Fn(&str) -> String,
    ) -> Result<(), ScenarioError> {
        effect
            .check(&self.hosts)
            .map_err(|(field, message)| invalid(at(&format!("effect.{field}")), message))?;
        match rollout {
            Rollout::All => {}
            Rollout::Canary { hosts } | Rollout::BlueGreen { hosts } => {
                self.check_hosts(hosts, || at("rollout.hosts"))?;
                if hosts.is_empty() {
                    return Err(invalid(at("rollout.hosts"), "name the hosts that get the new version"));
                }
            }
            Rollout::Rolling { every_minutes } if !(0.0..=1440.0).contains(every_minutes) => {
                return Err(invalid(
                    at("rollout.every_minutes"),
                    format!("{every_minutes} is not within 0 to 1440 minutes"),
                ));
            }
            Rollout::Rolling { .. } => {}
        }
        match warm_up {
            Some(w) if !(w.factor >= 1.0 && w.factor <= 100.0 && w.minutes > 0.0 && w.minutes <= 1440.0) => {
                Err(invalid(at("warm_up"), "`factor` must be within 1 to 100, `minutes` within (0, 1440]"))
            }
            _ => Ok(()),
        }
    }
}
