//! A scenario in its place in time: its entities, series, deployments and incidents.

use super::effect::{Effect, Rollout, WarmUp};
use super::incident::{Incident, ProblemNote};
use super::lines::{LogEntry, LogSource};
use super::service::{History, Rolled, ServiceModel, Signal};
use super::spec::{Scenario, ScenarioError, ServiceSpec, invalid};
use super::topology::Topology;
use super::{DeploymentNote, Tuple, World};
use crate::entity::{Entity, GROUP, Registry, SERVICE, Tag, host_id_of, id_of};
use crate::grid::floor;
use crate::metric::{HOST_DIMENSION, INSTANCE_DIMENSION, Metric, SERVICE_DIMENSION, Shape};
use crate::point::Point;
use crate::time::MINUTE;
use std::sync::{Arc, PoisonError, RwLock};

/// A deployment at run time.
#[derive(Debug, Clone, PartialEq)]
pub struct Deploy {
    /// Name of the service.
    pub service: String,
    /// The version.
    pub version: String,
    /// When it begins, epoch milliseconds.
    pub at_ms: i64,
    /// What it does.
    pub effect: Effect,
    /// Where.
    pub rollout: Rollout,
    /// Slow first minutes.
    pub warm_up: Option<WarmUp>,
}

/// What a metric of a scenario is split by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    Service,
    Instance,
    ServiceAndInstance,
    Host,
}

impl Split {
    fn keys(self) -> Vec<&'static str> {
        match self {
            Self::Service => vec![SERVICE_DIMENSION],
            Self::Instance => vec![INSTANCE_DIMENSION],
            Self::ServiceAndInstance => vec![SERVICE_DIMENSION, INSTANCE_DIMENSION],
            Self::Host => vec![HOST_DIMENSION],
        }
    }
}

/// The metrics of a scenario: key, name, unit, shape, signal, and what it is split by.
const METRICS: [(&str, &str, &str, Shape, Signal, Split); 8] = [
    (
        "builtin:service.response.time",
        "Response time",
        "MicroSecond",
        Shape::Timer,
        Signal::Latency,
        Split::Service,
    ),
    (
        "builtin:service.requestCount.total",
        "Request count",
        "Count",
        Shape::Counter,
        Signal::Requests,
        Split::Service,
    ),
    (
        "builtin:service.errors.total.count",
        "Number of errors",
        "Count",
        Shape::Counter,
        Signal::Errors,
        Split::Service,
    ),
    (
        "builtin:tech.generic.cpu.usage",
        "Process CPU usage",
        "Percent",
        Shape::Gauge,
        Signal::Cpu,
        Split::Instance,
    ),
    (
        "calc:service.response_time",
        "Response time by instance",
        "MicroSecond",
        Shape::Timer,
        Signal::Latency,
        Split::ServiceAndInstance,
    ),
    (
        "calc:service.request_count",
        "Request count by instance",
        "Count",
        Shape::Counter,
        Signal::Requests,
        Split::ServiceAndInstance,
    ),
    (
        "calc:service.error_count",
        "Error count by instance",
        "Count",
        Shape::Counter,
        Signal::Errors,
        Split::ServiceAndInstance,
    ),
    // One process runs on each host, and nothing beside it.
    ("builtin:host.cpu.usage", "CPU usage %", "Percent", Shape::Gauge, Signal::Cpu, Split::Host),
];

/// A scenario in its place in time.
#[derive(Debug)]
pub(crate) struct ScenarioWorld {
    registry: Registry,
    metrics: Vec<Metric>,
    services: Vec<ServiceModel>,
    /// By series: service, and host where there is one series per host.
    series: Vec<(usize, Option<usize>)>,
    tuples: Vec<Vec<Tuple>>,
    /// Where lines of logs come from: a service's hosts.
    sources: Vec<Vec<Arc<LogSource>>>,
    topology: Topology,
    timeline: RwLock<Timeline>,
}

/// What happened, and what will.
#[derive(Debug, Default)]
struct Timeline {
    /// By service.
    histories: Vec<History>,
    problems: Vec<ProblemNote>,
}

impl Timeline {
    fn add(&mut self, incident: &Incident, topology: &Topology) {
        for (service, felt) in incident.felt(topology) {
            self.histories[service].felt.push(felt);
        }
        self.problems.extend(incident.note(topology));
    }
}

impl ScenarioWorld {
    /// Puts a scenario's start at `start_ms`.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "minutes of a scenario")]
    pub(crate) fn new(scenario: &Scenario, start_ms: i64) -> Result<Self, ScenarioError> {
        let topology = scenario.check()?;
        let (mut registry, mut series) = (Registry::default(), Vec::new());
        let mut tuples = vec![Vec::new(); METRICS.len()];
        let (mut timeline, mut sources) = (Timeline::default(), Vec::new());
        for (index, spec) in scenario.services.iter().enumerate() {
            let id = id_of(SERVICE, &spec.name);
            let mut entity = Entity::new(SERVICE, id.clone(), &spec.name);
            entity.tags = spec.tags.iter().map(|t| Tag::parse(t)).collect();
            let instances = registry.add_service(entity, &spec.hosts);
            sources.push(log_sources(spec, &id, &instances));
            let whole = series.len();
            series.push((index, None));
            series.extend((0..instances.len()).map(|host| (index, Some(host))));
            for (list, metric) in tuples.iter_mut().zip(&METRICS) {
                let of = |dimensions, series| Tuple { dimensions, native: MINUTE, series };
                if metric.5 == Split::Service {
                    list.push(of(vec![id.clone()], whole));
                    continue;
                }
                for (host, (instance, name)) in instances.iter().zip(&spec.hosts).enumerate() {
                    let dimensions = match metric.5 {
                        Split::Instance => vec![instance.clone()],
                        Split::Host => vec![host_id_of(&id, name)],
                        Split::Service | Split::ServiceAndInstance => vec![id.clone(), instance.clone()],
                    };
                    list.push(of(dimensions, whole + 1 + host));
                }
            }
            let mut all: Vec<Rolled> = spec
                .deployments
                .iter()
                .map(|d| Rolled {
                    version: d.version.clone(),
                    at_ms: start_ms + (d.at_minutes * MINUTE as f64) as i64,
                    effect: d.effect.clone(),
                    rollout: d.rollout.clone(),
                    warm_up: d.warm_up,
                    until_ms: None,
                })
                .collect();
            all.sort_by_key(|d| d.at_ms);
            timeline.histories.push(History { rolled: all, felt: Vec::new() });
        }
        topology.register(&mut registry);
        for incident in &scenario.incidents {
            timeline.add(&incident.starting_at(start_ms, &str::to_owned)?, &topology);
        }
        let services =
            scenario.services.iter().map(|s| ServiceModel::new(s.clone(), scenario.seed, start_ms)).collect();
        Ok(Self {
            registry,
            metrics: metrics(),
            services,
            series,
            tuples,
            sources,
            topology,
            timeline: RwLock::new(timeline),
        })
    }

    fn index(&self, service: &str) -> Result<usize, ScenarioError> {
        self.services.iter().position(|s| s.spec.name == service).ok_or_else(|| {
            let names: Vec<&str> = self.services.iter().map(|s| s.spec.name.as_str()).collect();
            ScenarioError::NoService(service.to_owned(), names.join(", "))
        })
    }

    /// Deploys at run time.
    pub(crate) fn deploy(&self, deploy: Deploy) -> Result<(), ScenarioError> {
        let index = self.index(&deploy.service)?;
        self.services[index].spec.check_change(
            &deploy.effect,
            &deploy.rollout,
            deploy.warm_up,
            &str::to_owned,
        )?;
        if deploy.version.is_empty() {
            return Err(invalid("version".into(), "is empty; name the version"));
        }
        let Deploy { version, at_ms, effect, rollout, warm_up, .. } = deploy;
        let mut timeline = self.timeline.write().unwrap_or_else(PoisonError::into_inner);
        let rolled = &mut timeline.histories[index].rolled;
        rolled.push(Rolled { version, at_ms, effect, rollout, warm_up, until_ms: None });
        rolled.sort_by_key(|d| d.at_ms);
        Ok(())
    }

    /// Starts an incident at run time.
    pub(crate) fn incident(&self, incident: &Incident) -> Result<(), ScenarioError> {
        incident.check(&self.topology, &str::to_owned)?;
        self.timeline.write().unwrap_or_else(PoisonError::into_inner).add(incident, &self.topology);
        Ok(())
    }

    /// Takes the newest deployment of a service back from `at_ms` on; says which version that was.
    pub(crate) fn rollback(&self, service: &str, at_ms: i64) -> Result<String, ScenarioError> {
        let index = self.index(service)?;
        let mut timeline = self.timeline.write().unwrap_or_else(PoisonError::into_inner);
        let newest = timeline.histories[index]
            .rolled
            .iter_mut()
            .rev()
            .find(|d| d.until_ms.is_none() && d.at_ms <= at_ms);
        let newest = newest.ok_or_else(|| ScenarioError::NothingToRollBack(service.to_owned()))?;
        newest.until_ms = Some(at_ms);
        Ok(newest.version.clone())
    }
}

fn log_sources(spec: &ServiceSpec, service: &str, instances: &[String]) -> Vec<Arc<LogSource>> {
    let of = |(name, instance): (&String, &String)| {
        Arc::new(LogSource {
            service: service.to_owned(),
            group: id_of(GROUP, service),
            instance: instance.clone(),
            host: host_id_of(service, name),
            host_name: name.clone(),
            bucket: spec.logs.bucket.clone(),
        })
    };
    spec.hosts.iter().zip(instances).map(of).collect()
}

fn metrics() -> Vec<Metric> {
    METRICS
        .iter()
        .map(|(key, name, unit, shape, _, split)| Metric {
            key: (*key).into(),
            name: (*name).into(),
            unit,
            shape: *shape,
            dimensions: split.keys(),
        })
        .collect()
}

impl World for ScenarioWorld {
    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    fn tuples(&self, metric: usize) -> &[Tuple] {
        &self.tuples[metric]
    }

    fn points(&self, metric: usize, tuple: &Tuple, start: i64, end: i64) -> Vec<Option<Point>> {
        let (service, host) = self.series[tuple.series];
        let (model, signal) = (&self.services[service], METRICS[metric].4);
        let timeline = self.timeline.read().unwrap_or_else(PoisonError::into_inner);
        let history = &timeline.histories[service];
        let mut points = Vec::new();
        let mut at = start;
        while at + MINUTE <= end {
            points.push(match host {
                Some(host) => model.host_point(signal, host, at, history),
                None => (0..model.spec.hosts.len())
                    .filter_map(|host| model.host_point(signal, host, at, history))
                    .reduce(|mut all, point| {
                        all.merge(&point);
                        all
                    }),
            });
            at += MINUTE;
        }
        points
    }

    fn deployments(&self) -> Vec<DeploymentNote> {
        let timeline = self.timeline.read().unwrap_or_else(PoisonError::into_inner);
        let notes = self.services.iter().zip(&timeline.histories).flat_map(|(model, history)| {
            history.rolled.iter().map(|d| DeploymentNote {
                service_id: id_of(SERVICE, &model.spec.name),
                service: model.spec.name.clone(),
                version: d.version.clone(),
                at_ms: d.at_ms,
                until_ms: d.until_ms,
                hosts: d.switches(&model.spec.hosts),
            })
        });
        notes.collect()
    }

    fn problems(&self) -> Vec<ProblemNote> {
        self.timeline.read().unwrap_or_else(PoisonError::into_inner).problems.clone()
    }

    fn lines(&self, start: i64, end: i64) -> Vec<LogEntry> {
        let timeline = self.timeline.read().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        let mut at = floor(start, MINUTE);
        while at < end {
            for ((model, history), hosts) in self.services.iter().zip(&timeline.histories).zip(&self.sources)
            {
                for (host, source) in hosts.iter().enumerate() {
                    lines.extend(model.lines(host, at, history, source));
                }
            }
            at += MINUTE;
        }
        lines.retain(|line| (start..end).contains(&line.at_ms));
        lines.sort_by_key(|line| line.at_ms);
        lines
    }
}
