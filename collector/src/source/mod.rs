//! Where series come from. A new source is one file here, its recordings, and its construction in `lib.rs`.

pub mod dynatrace;
mod failure;
pub mod logs;
mod purpose;
pub mod scripted;
pub mod tenants;
pub mod topology;

pub use failure::{Failure, FailureKind};
pub use purpose::Purpose;

use crate::rules::Facts;
use async_trait::async_trait;
use std::fmt::Debug;
use std::time::Duration;
use vouch_proto::{Deployment, Name, Objective, Problem, Relation, Series, Timestamp, Window};

/// Coarsest step that can be judged.
pub const COARSEST_STEP: Duration = Duration::from_secs(15 * 60);

/// One metric that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricAsk {
    /// Its name in the template.
    pub name: String,
    /// The source's own query.
    pub query: String,
    /// Unit wanted; empty takes the source's.
    pub unit: String,
    /// One series a host is meant, not one for the service.
    pub by_host: bool,
    /// The dimension each value of which is a thing of its own, e.g. a request.
    pub each: Option<String>,
}

/// A window of a service that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Environment of the service.
    pub environment: Name,
    /// The service.
    pub service: Name,
    /// What is wanted, each name once.
    pub metrics: Vec<MetricAsk>,
    /// Whole minutes.
    pub window: Window,
    /// Samples that end later are not complete yet and are left out.
    pub settled_until: Timestamp,
}

/// Series of one step over one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The step.
    pub resolution: Duration,
    /// What the samples cover: whole steps within the window asked for.
    pub window: Window,
    /// One sample a step each; a gap is `None`.
    pub series: Vec<Series>,
}

impl Chunk {
    /// The part within `window`; `None` where it does not hold all of it in whole steps.
    #[must_use]
    pub fn slice(&self, window: Window) -> Option<Self> {
        let step = i64::try_from(self.resolution.as_millis()).ok().filter(|s| *s > 0)?;
        let skip = window.start().as_millis() - self.window.start().as_millis();
        let length = window.end().as_millis() - window.start().as_millis();
        if skip < 0 || window.end() > self.window.end() || skip % step != 0 || length % step != 0 {
            return None;
        }
        let (skip, length) = (usize::try_from(skip / step).ok()?, usize::try_from(length / step).ok()?);
        let cut = |s: &Series| {
            let samples = s.samples.get(skip..skip + length)?.to_vec();
            Some(Series { samples, ..s.clone() })
        };
        let series = self.series.iter().map(cut).collect::<Option<Vec<_>>>()?;
        Some(Self { resolution: self.resolution, window, series })
    }
}

/// What a source answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    /// The finest first, one a step; empty where nothing is settled or everything was refused.
    pub chunks: Vec<Chunk>,
    /// The coarsest step that the source has for what was asked; zero where it did not say.
    pub step: Duration,
    /// Metrics that could not be had, by name; they have no series.
    pub refused: Vec<(String, Failure)>,
}

impl Reading {
    /// Whether every metric was refused.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.refused.is_empty() && self.chunks.iter().all(|chunk| chunk.series.is_empty())
    }

    /// Whether something was refused because the source keeps it in steps that are too long.
    #[must_use]
    pub fn is_too_coarse(&self) -> bool {
        self.refused.iter().any(|(_, failure)| failure.kind == FailureKind::TooCoarse)
    }
}

/// Another service over the window that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Bystander {
    /// As deployments name it.
    pub service: Name,
    /// How it is related to the service that was asked for.
    pub relation: Relation,
    /// Names of what both of them call.
    pub shares: Vec<String>,
    /// Its series, of the service as a whole.
    pub chunks: Vec<Chunk>,
}

/// A service that a source knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownService {
    /// As the source calls it.
    pub name: String,
    /// The source's own id.
    pub entity_id: String,
    /// What rules can name it by; nothing where no rule asks.
    pub facts: Facts,
    /// Which of several tenants has it, from 0.
    pub tenant: usize,
}

/// Something that the source was told of or has seen by itself, and that may be a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEvent {
    /// The source's own id.
    pub id: String,
    /// When it began.
    pub at: Timestamp,
    /// The services that it is about, by the source's ids; none where they cannot be told.
    pub services: Vec<String>,
    /// What it is.
    pub kind: EventKind,
    /// The version that it names.
    pub version: Option<String>,
    /// The environment that it names.
    pub stage: Option<String>,
    /// Whether it is an echo of what Vouch itself has written.
    pub is_own: bool,
}

/// What an event of the source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Somebody said that he deployed.
    Deployment,
    /// A process has begun again.
    Restart,
}

/// A source of series.
#[async_trait]
pub trait MetricSource: Debug + Send + Sync {
    /// Reads a window.
    ///
    /// # Errors
    /// Where nothing could be had for any metric; a metric that alone failed is in `Reading::refused`.
    async fn read(&self, ask: &Ask) -> Result<Reading, Failure>;

    /// At most `most` other services that the deployment of this one cannot have made worse, over the window of `ask`.
    /// A source that does not know who calls whom has none.
    ///
    /// # Errors
    /// Where they could not be read; nothing else suffers from it.
    async fn bystanders(&self, _ask: &Ask, _most: usize) -> Result<Vec<Bystander>, Failure> {
        Ok(Vec::new())
    }

    /// Problems that the source has found by itself, that the service is a part of, and that touch the window of `ask`.
    ///
    /// # Errors
    /// As for `bystanders`.
    async fn problems(&self, _ask: &Ask) -> Result<Vec<Problem>, Failure> {
        Ok(Vec::new())
    }

    /// Objectives of the service (SLOs) as the source evaluates them, at most a few minutes ago.
    ///
    /// # Errors
    /// As for `bystanders`.
    async fn objectives(&self, _ask: &Ask) -> Result<Vec<Objective>, Failure> {
        Ok(Vec::new())
    }

    /// What one of several tenants, from 0, knows of deployments that began in a window, of these kinds.
    /// A source that knows nothing of them has none.
    ///
    /// # Errors
    /// Where they could not be read.
    async fn events(
        &self,
        _tenant: usize,
        _window: Window,
        _kinds: &[EventKind],
    ) -> Result<Vec<SourceEvent>, Failure> {
        Ok(Vec::new())
    }

    /// Writes the beginning of a deployment into the source, for those who look there. A source that takes nothing in
    /// does nothing.
    ///
    /// # Errors
    /// Where it was not taken, or nobody knows whether it was.
    async fn write_event(&self, _deployment: &Deployment, _started_at: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    /// The source's own name for what a query measures: what is learned about it holds for every service.
    fn key(&self, _environment: &Name, query: &str) -> String {
        query.to_owned()
    }

    /// How long after its end a minute of what a query measures is complete, as the source declares; zero where it does
    /// not say.
    ///
    /// # Errors
    /// Where the source could not be asked.
    async fn latency(&self, _environment: &Name, _query: &str) -> Result<Duration, Failure> {
        Ok(Duration::ZERO)
    }

    /// By how much the source's clock is behind the machine's: so much later its minutes end.
    fn clock_behind(&self, _environment: &Name) -> Duration {
        Duration::ZERO
    }

    /// The services that the source knows now.
    ///
    /// # Errors
    /// Where they could not be listed.
    async fn services(&self) -> Result<Vec<KnownService>, Failure>;

    /// Those of one of several tenants, from 0.
    ///
    /// # Errors
    /// As for `services`; the other tenants are none the worse.
    async fn services_of(&self, _tenant: usize) -> Result<Vec<KnownService>, Failure> {
        self.services().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_holds_whole_steps_or_nothing() {
        let start: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let chunk = Chunk {
            resolution: Duration::from_secs(300),
            window: Window::around(start, 0, 15).unwrap(),
            series: vec![Series {
                metric: "cpu".into(),
                host: None,
                unit: String::new(),
                samples: vec![Some(1.0), None, Some(3.0)],
                query: String::new(),
                ..Series::default()
            }],
        };
        let part = chunk.slice(Window::around(start, 5, 15).unwrap()).unwrap();
        assert_eq!(part.series[0].samples, [None, Some(3.0)]);
        for (from, to) in [(1, 6), (-5, 5), (10, 20), (5, 9)] {
            assert_eq!(chunk.slice(Window::around(start, from, to).unwrap()), None, "{from} {to}");
        }
    }
}
