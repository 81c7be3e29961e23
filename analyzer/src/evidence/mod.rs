//! The evidence behind a judgement, for a person and for a replay: what was expected and what was there, minute by
//! minute, and the case that led to it. Made by judging once more while writing down what the detectors see.

pub mod bundle;

use crate::case::{Case, CaseError};
use crate::detector::{ALL_HOSTS, Detector, Sample};
use crate::frame::Frame;
use crate::judge::{JudgeSettings, Judgement};
use crate::replay::Replay;
use crate::robust;
use std::collections::BTreeMap;
use vouch_proto::Direction;

/// Samples before the deployment that are shown.
const BEFORE_STEPS: usize = 60;

/// Everything that a case shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// How it was judged.
    pub judgement: Judgement,
    /// Minutes between samples.
    pub step_min: i64,
    /// Minute of the first step.
    pub start: i64,
    /// Each metric on each host: the one that failed it first, then by evidence.
    pub units: Vec<UnitEvidence>,
}

/// What one metric showed on one host.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitEvidence {
    /// The metrics it speaks for; two where a mean and a percentile were judged together.
    pub metrics: Vec<String>,
    /// The host, or `*` for all new ones together.
    pub host: String,
    /// Unit of the samples; empty for events per trial.
    pub unit: String,
    /// Whether the samples are events per trial.
    pub is_share: bool,
    /// The direction in which it is bad.
    pub direction: Direction,
    /// What the comparison is with, in words.
    pub against: &'static str,
    /// Nats that a pretended deployment in the past reached; taken off the evidence.
    pub placebo: f64,
    /// Nats that this unit alone needs to fail before the end of the window.
    pub needed: f64,
    /// The newest samples before the deployment, oldest first; `NaN` for gaps.
    pub before: Vec<f64>,
    /// One for each step that was seen.
    pub steps: Vec<Sample>,
    /// First step of the degraded run at the end.
    pub since: Option<usize>,
}

impl Evidence {
    /// Minute at which a step begins.
    #[must_use]
    pub fn minute(&self, step: usize) -> i64 {
        self.start + self.step_min.saturating_mul(i64::try_from(step).unwrap_or(i64::MAX))
    }
}

impl UnitEvidence {
    /// The SAX word: a letter for each step, `-` for a gap; empty for counts, which are not letters.
    #[must_use]
    pub fn word(&self) -> String {
        if self.is_share {
            return String::new();
        }
        let letter = |sample: &Sample| match sample.letter.and_then(|letter| u8::try_from(letter).ok()) {
            Some(letter) => char::from(b'a' + letter.min(25)),
            None => '-',
        };
        self.steps.iter().map(letter).collect()
    }

    /// The states in their order, each with the number of steps that it was the most likely one.
    #[must_use]
    pub fn states(&self) -> Vec<(&'static str, usize)> {
        let mut runs: Vec<(&'static str, usize)> = Vec::new();
        for sample in self.steps.iter().filter(|sample| !sample.state.is_empty()) {
            match runs.last_mut() {
                Some((state, steps)) if *state == sample.state => *steps += 1,
                Some(_) | None => runs.push((sample.state, 1)),
            }
        }
        runs
    }

    /// Evidence by the last step.
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        self.steps.last().map_or(0.0, |sample| sample.ln_evidence)
    }
}

/// The evidence of a case, judged as [`crate::judge::judge_recorded`] judges it.
///
/// # Errors
/// Where the case cannot be judged.
pub fn of_case(case: &Case, settings: &JudgeSettings) -> Result<Evidence, CaseError> {
    let settings = case.judged_with.as_ref().unwrap_or(settings);
    let replay = Replay::new(case, case.minutes_seen.unwrap_or(i64::MAX), settings)?;
    let step_min = case.interval_min;
    let mut units: Vec<UnitEvidence> = replay
        .watched()
        .map(|(detector, unit, needed)| open(case, replay.frame(), detector, (unit, needed)))
        .collect();
    let mut last = BTreeMap::new();
    let judgement = replay.run_watched(&|| true, &mut |_, replay| {
        for (i, (detector, unit, _)) in replay.watched().enumerate() {
            units[i].steps.push(detector.sample(unit));
            let finding = detector.finding(unit);
            last.insert(i, (finding.placebo, finding.since));
        }
    });
    for (i, (placebo, since)) in last {
        (units[i].placebo, units[i].since) = (placebo, since);
    }
    let blamed = judgement.metrics.first().filter(|unit| unit.risk >= 1.0).cloned();
    units.sort_by(|a, b| {
        let is_blamed = |unit: &UnitEvidence| {
            blamed.as_ref().is_some_and(|row| unit.metrics == [row.metric.as_str()] && unit.host == row.host)
        };
        let beyond = |unit: &UnitEvidence| unit.ln_evidence() - unit.needed;
        is_blamed(b)
            .cmp(&is_blamed(a))
            .then_with(|| beyond(b).total_cmp(&beyond(a)))
            .then_with(|| a.metrics.cmp(&b.metrics))
            .then_with(|| a.host.cmp(&b.host))
    });
    Ok(Evidence { judgement, step_min, start: case.verification[0], units })
}

fn open(case: &Case, frame: &Frame, detector: &dyn Detector, (unit, needed): (usize, f64)) -> UnitEvidence {
    let finding = detector.finding(unit);
    let metric = finding.metrics.first().map_or("", String::as_str);
    let exposure = case.metrics.get(metric).and_then(|metric| metric.exposure.as_deref());
    UnitEvidence {
        unit: match exposure {
            Some(_) => String::new(),
            None => case.metrics.get(metric).map_or_else(String::new, |metric| metric.unit.clone()),
        },
        is_share: exposure.is_some(),
        direction: finding.direction,
        against: finding.against,
        placebo: finding.placebo,
        needed,
        before: before(frame, (metric, exposure), &finding.host),
        steps: Vec::new(),
        since: None,
        metrics: detector.watches(unit),
        host: finding.host,
    }
}

/// The newest samples of a host before the deployment; the mean over the new hosts for all of them.
fn before(frame: &Frame, (metric, exposure): (&str, Option<&str>), host: &str) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = frame
        .new_hosts
        .iter()
        .filter(|one| host == ALL_HOSTS || one.name == host)
        .filter_map(|one| {
            let values = &frame.track(metric, &one.name)?.recent;
            let Some(exposure) = exposure else { return Some(values.clone()) };
            let trials = &frame.track(exposure, &one.name)?.recent;
            Some(
                values
                    .iter()
                    .zip(trials)
                    .map(|(count, n)| if *n > 0.0 { count / n } else { f64::NAN })
                    .collect(),
            )
        })
        .collect();
    let steps = rows.iter().map(Vec::len).max().unwrap_or(0);
    (steps.saturating_sub(BEFORE_STEPS)..steps)
        .map(|t| {
            let here: Vec<f64> =
                rows.iter().filter_map(|row| row.get(t).copied()).filter(|v| v.is_finite()).collect();
            robust::mean(&here).unwrap_or(f64::NAN)
        })
        .collect()
}
