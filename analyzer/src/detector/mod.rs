//! Detectors: each watches some metrics and says, after every step, what it found.
//! A new one is a file here and a line in `panel::detectors`.

pub mod errors;
pub mod joint;
mod last_look;
pub mod level;
pub mod rise;
mod unit;

pub use rise::Rise;
use vouch_proto::Direction;

/// Name that stands for all new hosts together.
pub const ALL_HOSTS: &str = "*";

/// Watches some metrics step by step. Its units - a metric on a host - are numbered from 0, in a fixed order.
pub trait Detector: std::fmt::Debug {
    /// Takes in the samples of a step of the verification; steps come in order, none is left out.
    fn step(&mut self, t: usize);

    /// How many units there are.
    fn units(&self) -> usize;

    /// ln of a unit's evidence for a degradation now, placebo taken off. Called for every unit after every step.
    fn ln_evidence(&self, unit: usize) -> f64;

    /// How many questions the detector asks: the sum of the shares of its units.
    fn questions(&self) -> f64;

    /// A unit's share of the detector's questions.
    fn share(&self, unit: usize) -> f64;

    /// How surely a lasting change of the smallest size that may fail is not there, in nats; 0 where nothing tells.
    fn exclusion(&self, unit: usize) -> f64;

    /// How a unit changed at a step that something else has named; `None` where nothing tells.
    fn rise(&self, unit: usize, from: usize) -> Option<Rise>;

    /// What a unit made of the newest step. Only evidence for a person asks.
    fn sample(&self, unit: usize) -> Sample;

    /// The metrics that a unit watches.
    fn watches(&self, unit: usize) -> Vec<String> {
        self.finding(unit).metrics
    }

    /// Everything about a unit now.
    fn finding(&self, unit: usize) -> Finding;
}

/// What a unit shows now.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The metrics it speaks for, the first one most; several for a joint unit.
    pub metrics: Vec<String>,
    /// The host, or [`ALL_HOSTS`].
    pub host: String,
    /// Direction of the degradation that is looked for: increase or decrease.
    pub direction: Direction,
    /// What the comparison was with, in words.
    pub against: &'static str,
    /// ln of the evidence for a degradation, placebo taken off.
    pub ln_evidence: f64,
    /// The part of the evidence that a pretended deployment in the past reached.
    pub placebo: f64,
    /// Whether effect and state allow to fail.
    pub may_fail: bool,
    /// Size of the change.
    pub effect: Change,
    /// Standard error of that size, in the same terms; `NaN` where unknown.
    pub error: f64,
    /// Where it is a level: what was expected and what is there, in the metric's unit.
    pub level: Option<Level>,
    /// Step at which the run of degraded minutes began.
    pub since: Option<usize>,
    /// Usable samples so far.
    pub usable: usize,
    /// Whether a short disturbance was seen that has ended.
    pub transient: bool,
}

/// One step as a unit saw it: in the metric's unit, or as events per trial. `NaN` for what is not there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// What was measured.
    pub observed: f64,
    /// What was expected without the deployment.
    pub expected: f64,
    /// Where 95 % of the samples lie without it: two standard deviations either way.
    pub band: [f64; 2],
    /// SAX letter of the whitened residual, from 0.
    pub letter: Option<usize>,
    /// The state that was most likely by then, given that it degrades at some time.
    pub state: &'static str,
    /// ln of the evidence by then, placebo taken off.
    pub ln_evidence: f64,
}

impl Sample {
    /// Before the first step.
    pub(crate) const NONE: Self = Self {
        observed: f64::NAN,
        expected: f64::NAN,
        band: [f64::NAN; 2],
        letter: None,
        state: "",
        ln_evidence: 0.0,
    };
}

/// A level over the last quarter of an hour, in the metric's unit; the typical one for several hosts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Without the deployment.
    pub expected: f64,
    /// With it.
    pub observed: f64,
}

/// Size of a change, above zero in the bad direction; `NaN` where nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// ln(observed / expected), in the bad direction.
    LnRatio(f64),
    /// Events per trial: observed and expected.
    Share {
        /// Over the last quarter of an hour.
        observed: f64,
        /// In the baseline or at the controls.
        expected: f64,
    },
}

impl Change {
    /// One number, comparable among findings of the same metric.
    #[must_use]
    pub fn size(self) -> f64 {
        match self {
            Self::LnRatio(size) => size,
            Self::Share { observed, expected } => observed - expected,
        }
    }
}

/// Steps that are looked at before a named step, and those right before it that may belong to either side.
pub(crate) const BEFORE_STEPS: usize = 15;
pub(crate) const UNSURE_STEPS: usize = 3;

/// The steps before a named one that say where a unit was.
pub(crate) fn steps_before(switch: usize, from: usize) -> std::ops::Range<usize> {
    let end = from.saturating_sub(UNSURE_STEPS).max(switch);
    end.saturating_sub(BEFORE_STEPS).max(switch)..end
}

/// The weight of a group of hosts against that of its hosts.
pub(crate) const GROUP_SHARE: f64 = 0.5;

/// Share of a host, or of the group, in one question about `hosts` hosts.
pub(crate) fn host_share(is_group: bool, has_group: bool, hosts: usize) -> f64 {
    match (is_group, has_group) {
        (true, _) => GROUP_SHARE,
        (false, true) => (1.0 - GROUP_SHARE) / hosts as f64,
        (false, false) => 1.0 / hosts as f64,
    }
}
