//! Recorded cases, one JSON object a line, served as calculated service metrics.

use super::incident::ProblemNote;
use super::lines::LogEntry;
use super::{DeploymentNote, Tuple, World};
use crate::entity::{Entity, Registry, SERVICE, id_of};
use crate::metric::{INSTANCE_DIMENSION, Metric, SERVICE_DIMENSION, Shape};
use crate::point::Point;
use crate::time::MINUTE;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// A recorded case. Fields that the simulator needs not are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Case {
    /// Its id, which names the service.
    pub id: String,
    /// Minutes from sample to sample.
    #[serde(default = "one")]
    pub interval_min: i64,
    /// The metrics.
    pub metrics: BTreeMap<String, CaseMetric>,
    /// The samples.
    pub series: Vec<CaseSeries>,
}

fn one() -> i64 {
    1
}

/// A metric of a case.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CaseMetric {
    /// `ms`, `%`, `1/min`, ...
    #[serde(default)]
    pub unit: String,
}

/// Samples of one metric and host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CaseSeries {
    /// The metric.
    pub metric: String,
    /// The host.
    pub host: String,
    /// Minute of the first sample, relative to the deployment.
    pub start: i64,
    /// The samples; `null` is a gap.
    pub values: Vec<Option<f64>>,
}

/// Why cases cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line is no case.
    #[error("{path}, line {line}: is no case: {error}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        error: serde_json::Error,
    },
    /// A case cannot be replayed.
    #[error("case `{id}`: {message}")]
    Case {
        /// The case.
        id: String,
        /// What is wrong.
        message: String,
    },
}

/// Reads cases from a file of JSON lines, gzipped or not; empty lines are skipped.
///
/// # Errors
/// Where the file cannot be read, or a line is no case.
pub fn read_cases(path: &Path) -> Result<Vec<Case>, ReplayError> {
    let io = |error| ReplayError::Io { path: path.to_owned(), error };
    let mut file = BufReader::new(std::fs::File::open(path).map_err(io)?);
    let gzipped = file.fill_buf().map_err(io)?.starts_with(&[0x1F, 0x8B]);
    let reader: Box<dyn Read> =
        if gzipped { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut cases = Vec::new();
    for (index, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.map_err(io)?;
        if line.trim().is_empty() {
            continue;
        }
        let case = serde_json::from_str(&line).map_err(|error| ReplayError::Line {
            path: path.to_owned(),
            line: index + 1,
            error,
        })?;
        cases.push(case);
    }
    Ok(cases)
}

/// Dynatrace's name of a case's unit.
fn unit(unit: &str) -> &'static str {
    match unit {
        "ms" => "MilliSecond",
        "us" | "µs" => "MicroSecond",
        "s" => "Second",
        "%" => "Percent",
        "1/min" => "PerMinute",
        "1/s" => "PerSecond",
        "count" | "1" => "Count",
        "bytes" | "B" => "Byte",
        _ => "Unspecified",
    }
}

/// The recorded samples of one series.
#[derive(Debug)]
struct Recorded {
    native: i64,
    /// First slot and its samples.
    segments: Vec<(i64, Vec<Option<f64>>)>,
}

/// Cases at a deployment time.
#[derive(Debug)]
pub(crate) struct ReplayWorld {
    registry: Registry,
    metrics: Vec<Metric>,
    tuples: Vec<Vec<Tuple>>,
    series: Vec<Recorded>,
}

impl ReplayWorld {
    /// Puts minute 0 of the cases at `t0_ms`.
    pub(crate) fn new(cases: Vec<Case>, t0_ms: i64) -> Result<Self, ReplayError> {
        let mut world = Self {
            registry: Registry::default(),
            metrics: Vec::new(),
            tuples: Vec::new(),
            series: Vec::new(),
        };
        let mut by_key = HashMap::new();
        let mut ids = BTreeSet::new();
        for case in cases {
            let refuse = |message: String| ReplayError::Case { id: case.id.clone(), message };
            if !ids.insert(case.id.clone()) {
                return Err(refuse("is there twice".into()));
            }
            world.add(case.clone(), t0_ms, &mut by_key).map_err(refuse)?;
        }
        Ok(world)
    }

    fn add(&mut self, case: Case, t0_ms: i64, by_key: &mut HashMap<String, usize>) -> Result<(), String> {
        let step = case.interval_min.checked_mul(MINUTE).filter(|s| *s > 0);
        let step = step.ok_or_else(|| format!("interval_min {} is not positive", case.interval_min))?;
        if t0_ms.rem_euclid(step) != 0 {
            return Err(format!(
                "the deployment time {t0_ms} is no multiple of its {} minutes; choose one that is",
                case.interval_min
            ));
        }
        let hosts: BTreeSet<&str> = case.series.iter().map(|s| s.host.as_str()).collect();
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let id = id_of(SERVICE, &case.id);
        let instances = self.registry.add_service(Entity::new(SERVICE, id.clone(), &case.id), &hosts);
        let instance: HashMap<String, String> = hosts.into_iter().zip(instances).collect();
        let mut own: BTreeMap<(usize, String), usize> = BTreeMap::new();
        for series in case.series {
            let metric = self.metric(&series.metric, &case.metrics, by_key)?;
            if series.start.rem_euclid(case.interval_min) != 0 {
                return Err(format!(
                    "start {} is no multiple of {} minutes",
                    series.start, case.interval_min
                ));
            }
            let first = t0_ms + series.start * MINUTE;
            let index = *own.entry((metric, series.host.clone())).or_insert_with(|| {
                self.series.push(Recorded { native: step, segments: Vec::new() });
                let dimensions = vec![id.clone(), instance[&series.host].clone()];
                self.tuples[metric].push(Tuple { dimensions, native: step, series: self.series.len() - 1 });
                self.series.len() - 1
            });
            self.series[index].segments.push((first, series.values));
        }
        Ok(())
    }

    fn metric(
        &mut self,
        name: &str,
        specs: &BTreeMap<String, CaseMetric>,
        by_key: &mut HashMap<String, usize>,
    ) -> Result<usize, String> {
        let spec =
            specs.get(name).ok_or_else(|| format!("has samples of `{name}`, which its metrics lack"))?;
        let key = format!("calc:service.{name}");
        let unit = unit(&spec.unit);
        let index = *by_key.entry(key.clone()).or_insert_with(|| {
            self.tuples.push(Vec::new());
            self.metrics.push(Metric {
                key,
                name: name.to_owned(),
                unit,
                shape: Shape::Recorded,
                dimensions: vec![SERVICE_DIMENSION, INSTANCE_DIMENSION],
            });
            self.metrics.len() - 1
        });
        if self.metrics[index].unit == unit {
            Ok(index)
        } else {
            Err(format!("`{name}` is in {unit} here and in {} in another case", self.metrics[index].unit))
        }
    }
}

impl World for ReplayWorld {
    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    fn tuples(&self, metric: usize) -> &[Tuple] {
        &self.tuples[metric]
    }

    fn points(&self, _metric: usize, tuple: &Tuple, start: i64, end: i64) -> Vec<Option<Point>> {
        let recorded = &self.series[tuple.series];
        let mut points = Vec::new();
        let mut at = start;
        while at + recorded.native <= end {
            let value = recorded.segments.iter().find_map(|(first, values)| {
                let index = usize::try_from((at - first).div_euclid(recorded.native)).ok()?;
                *values.get(index)?
            });
            points.push(value.map(Point::plain));
            at += recorded.native;
        }
        points
    }

    fn deployments(&self) -> Vec<DeploymentNote> {
        Vec::new()
    }

    fn problems(&self) -> Vec<ProblemNote> {
        Vec::new()
    }

    fn lines(&self, _start: i64, _end: i64) -> Vec<LogEntry> {
        Vec::new()
    }
}
