//! From a case to a judgement: builds the detectors, shows them one step after the other, and stops at the first
//! that fails. Live and offline run this same code.

use crate::case::{Case, CaseError};
use crate::coverage::Coverage;
pub use crate::coverage::MIN_USABLE_MINUTES;
use crate::detector::errors::{CountGate, ErrorDetector};
use crate::detector::joint::JointDetector;
use crate::detector::level::{LevelDetector, Shared};
use crate::detector::{Change, Detector, Finding};
use crate::emission::StandardEmission;
use crate::expected::Source;
use crate::frame::Frame;
use crate::profile::{self, Family, Profile};
use crate::reason;
use crate::sequential::{Thresholds, ln_weights};
use std::collections::{BTreeMap, BTreeSet};
use vouch_proto::{Classification, Direction, Outcome};

/// Version of the judge: changes whenever a verdict may change.
pub const JUDGE_VERSION: &str = "1.0.0";

/// Highest risk of what did not fail.
const ALMOST: f64 = 0.99;
/// Risk of strong evidence whose effect is too small to matter, at most.
const TOO_SMALL: f64 = 0.95;
/// An effect that is worth full attention: ln ratio, or share of the trials.
const NOTABLE: f64 = 0.15;

/// How to judge. The defaults are those of `vouch judge`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JudgeSettings {
    /// How much evidence is asked for.
    pub thresholds: Thresholds,
    /// By metric; a metric without an entry has the defaults.
    pub metrics: BTreeMap<String, MetricSettings>,
}

/// How to judge one metric.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MetricSettings {
    /// Smallest relative change in the bad direction that may fail, e.g. 0.2 for 20 %; `None`: by kind of metric.
    pub minimum_effect: Option<f64>,
    /// Reported, never judged.
    pub muted: bool,
}

/// What is known after some minutes of a verification.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// `None` while it is undecided.
    pub outcome: Option<Outcome>,
    /// 0 to 1; exactly 1 when, and only when, it failed.
    pub risk: f64,
    /// End of the sample after which it failed, in minutes since the deployment.
    pub failed_at_minute: Option<i64>,
    /// Whether the evidence suffices to roll back without a person: [`Thresholds::rollback`].
    pub rollback_grade: bool,
    /// Whether it passed in spite of a short disturbance that has ended.
    pub transient: bool,
    /// One sentence for a release manager.
    pub reason: String,
    /// Minutes that told anything.
    pub usable_minutes: i64,
    /// Each judged metric on each host, the most suspicious first.
    pub metrics: Vec<UnitResult>,
}

/// What one metric shows on one host.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitResult {
    /// Key of the case's metrics.
    pub metric: String,
    /// Key of the case's hosts, or `*` for all new hosts together.
    pub host: String,
    /// `High` or `Low` only for a degradation that failed.
    pub classification: Classification,
    /// 0 to 1; 1 when it failed.
    pub risk: f64,
    /// ln evidence for a degradation.
    pub score: f64,
    /// The part of it that a pretended deployment in the past reached.
    pub placebo: f64,
    /// Size of the change in the bad direction: relative, or events per trial for counts; 0 without samples.
    pub effect: f64,
    /// First minute of the degraded run.
    pub since_minute: Option<i64>,
    /// One sentence.
    pub reason: String,
}

/// Judges all of a case as if live: minute by minute, until one fails or the window ends.
#[must_use]
pub fn judge(case: &Case, settings: &JudgeSettings) -> Judgement {
    judge_until(case, i64::MAX, settings)
}

/// What is known after that many minutes of the verification window. Nothing later is looked at.
#[must_use]
pub fn judge_until(case: &Case, minutes_seen: i64, settings: &JudgeSettings) -> Judgement {
    match Replay::new(case, minutes_seen, settings) {
        Ok(replay) => replay.run(),
        Err(refused) => Judgement {
            outcome: Some(Outcome::Error),
            risk: 0.0,
            failed_at_minute: None,
            rollback_grade: false,
            transient: false,
            reason: format!("The case cannot be judged: {refused}"),
            usable_minutes: 0,
            metrics: Vec::new(),
        },
    }
}

/// A case on its way through the detectors.
struct Replay<'a> {
    case: &'a Case,
    settings: &'a JudgeSettings,
    thresholds: Thresholds,
    frame: Frame,
    coverage: Coverage,
    detectors: Vec<Box<dyn Detector>>,
    /// By detector and unit.
    ln_weights: Vec<Vec<f64>>,
}

impl<'a> Replay<'a> {
    fn new(case: &'a Case, minutes_seen: i64, settings: &'a JudgeSettings) -> Result<Self, CaseError> {
        let frame = Frame::new(case, minutes_seen)?;
        let judged = judged_metrics(case, settings);
        let traffic = traffic_metric(case);
        let coverage = Coverage::new(&frame, &judged, traffic);
        let detectors = detectors(case, &frame, settings);
        let questions: f64 = detectors.iter().map(|detector| detector.questions()).sum();
        let shares = |detector: &dyn Detector| -> Vec<f64> {
            (0..detector.units()).map(|unit| detector.share(unit)).collect()
        };
        let ln_weights =
            detectors.iter().map(|detector| ln_weights(&shares(detector.as_ref()), questions)).collect();
        let thresholds = settings.thresholds.for_looks(frame.steps);
        Ok(Self { case, settings, thresholds, frame, coverage, detectors, ln_weights })
    }

    fn run(mut self) -> Judgement {
        let seen = self.frame.seen();
        for t in 0..seen {
            for detector in &mut self.detectors {
                detector.step(t);
            }
            if self.fails(t) {
                return self.conclude(t + 1, true);
            }
        }
        self.conclude(seen, false)
    }

    fn is_end(&self, steps: usize) -> bool {
        steps == self.frame.steps
    }

    fn fails(&self, t: usize) -> bool {
        let is_end = self.is_end(t + 1);
        self.units().any(|(detector, unit, ln_weight)| {
            let risk = self.thresholds.risk(detector.ln_evidence(unit), ln_weight, is_end);
            risk >= 1.0 && detector.finding(unit).may_fail
        })
    }

    fn units(&self) -> impl Iterator<Item = (&dyn Detector, usize, f64)> {
        self.detectors.iter().zip(&self.ln_weights).flat_map(|(detector, weights)| {
            weights.iter().enumerate().map(move |(unit, weight)| (detector.as_ref(), unit, *weight))
        })
    }

    fn conclude(&self, steps: usize, failed: bool) -> Judgement {
        let is_end = self.is_end(steps);
        let minute_of = |step: usize| self.case.verification[0] + step as i64 * self.case.interval_min;
        let usable_minutes = self.coverage.usable_minutes(steps);
        let mut metrics: Vec<UnitResult> = Vec::new();
        let (mut reached, mut transient) = (f64::NEG_INFINITY, false);
        for (detector, unit, ln_weight) in self.units() {
            let finding = detector.finding(unit);
            let raw = self.thresholds.risk(finding.ln_evidence, ln_weight, is_end);
            let risk = unit_risk(&finding, raw, failed);
            transient |= finding.transient;
            if risk >= 1.0 {
                reached = reached.max(finding.ln_evidence + ln_weight);
            }
            for metric in &finding.metrics {
                merge(&mut metrics, unit_result(metric, &finding, risk, finding.since.map(minute_of)));
            }
        }
        add_silent(&mut metrics, self.case, self.settings);
        metrics.sort_by(|a, b| {
            b.risk.total_cmp(&a.risk).then_with(|| a.metric.cmp(&b.metric)).then_with(|| a.host.cmp(&b.host))
        });
        let risk = metrics.first().map_or(0.0, |unit| unit.risk);
        let cause = self.no_pass(steps, usable_minutes);
        let outcome = match (failed, is_end, &cause) {
            (true, _, _) => Some(Outcome::Fail),
            (false, false, _) => None,
            (false, true, Some(_)) => Some(Outcome::Inconclusive),
            (false, true, None) => Some(Outcome::Pass),
        };
        let failed_at_minute = failed.then(|| minute_of(steps));
        Judgement {
            outcome,
            risk,
            failed_at_minute,
            rollback_grade: failed && reached >= self.thresholds.rollback,
            transient: transient && outcome == Some(Outcome::Pass),
            reason: reason::of_case(outcome, cause, metrics.first(), usable_minutes),
            usable_minutes,
            metrics,
        }
    }

    /// Why this cannot be a Pass.
    fn no_pass(&self, steps: usize, usable_minutes: i64) -> Option<String> {
        if judged_metrics(self.case, self.settings).is_empty() {
            return Some("no metric is judged: all are context or muted".to_owned());
        }
        if self.detectors.is_empty() {
            return Some("no judged metric has any sample before the deployment to compare with".to_owned());
        }
        if usable_minutes < MIN_USABLE_MINUTES {
            return Some(format!(
                "only {usable_minutes} usable minutes were measured, at least {MIN_USABLE_MINUTES} are needed"
            ));
        }
        let ends = self.coverage.ends_without_traffic(steps);
        ends.then(|| "the window ends without traffic".to_owned())
    }
}

fn unit_risk(finding: &Finding, raw: f64, failed: bool) -> f64 {
    if finding.usable == 0 || raw.is_nan() {
        return 0.0;
    }
    if raw >= 1.0 && finding.may_fail && failed {
        return 1.0;
    }
    let size = finding.effect.size();
    let attention = if size.is_nan() { 0.0 } else { (size / NOTABLE).clamp(0.0, 1.0) };
    let most = if finding.may_fail { ALMOST } else { TOO_SMALL * attention };
    raw.clamp(0.0, most)
}

fn unit_result(metric: &str, finding: &Finding, risk: f64, since_minute: Option<i64>) -> UnitResult {
    let classification = match finding.direction {
        _ if finding.usable == 0 => Classification::NoData,
        Direction::Decrease if risk >= 1.0 => Classification::Low,
        Direction::Increase | Direction::Either | Direction::None if risk >= 1.0 => Classification::High,
        Direction::Increase | Direction::Decrease | Direction::Either | Direction::None => {
            Classification::Pass
        }
    };
    let effect = match finding.effect {
        Change::LnRatio(size) => libm::expm1(size),
        Change::Share { .. } => finding.effect.size(),
    };
    UnitResult {
        metric: metric.to_owned(),
        host: finding.host.clone(),
        classification,
        risk,
        score: finding.ln_evidence,
        placebo: finding.placebo,
        effect: if effect.is_finite() { effect } else { 0.0 },
        since_minute,
        reason: reason::of_unit(metric, finding, risk, since_minute),
    }
}

/// Keeps the more suspicious of two results for the same metric and host.
fn merge(results: &mut Vec<UnitResult>, new: UnitResult) {
    match results.iter_mut().find(|old| old.metric == new.metric && old.host == new.host) {
        Some(old) if new.risk > old.risk => *old = new,
        Some(_) => {}
        None => results.push(new),
    }
}

/// Names the judged metrics and hosts that no detector could watch.
fn add_silent(results: &mut Vec<UnitResult>, case: &Case, settings: &JudgeSettings) {
    let known: BTreeSet<(String, String)> =
        results.iter().map(|result| (result.metric.clone(), result.host.clone())).collect();
    for metric in judged_metrics(case, settings) {
        for (host, info) in &case.hosts {
            let is_new = info.group != crate::case::HostGroup::Control;
            if is_new && !known.contains(&(metric.to_owned(), host.clone())) {
                results.push(UnitResult {
                    metric: metric.to_owned(),
                    host: host.clone(),
                    classification: Classification::NoData,
                    risk: 0.0,
                    score: 0.0,
                    placebo: 0.0,
                    effect: 0.0,
                    since_minute: None,
                    reason: format!("{metric} on {host} has no sample before the deployment to compare with"),
                });
            }
        }
    }
}

fn judged_metrics<'a>(case: &'a Case, settings: &JudgeSettings) -> Vec<&'a str> {
    let muted = |name: &str| settings.metrics.get(name).is_some_and(|metric| metric.muted);
    let judged = case.metrics.iter().filter(|(name, metric)| metric.is_judged() && !muted(name));
    judged.map(|(name, _)| name.as_str()).collect()
}

/// The metric that counts requests: the exposure of a judged count, or a throughput.
fn traffic_metric(case: &Case) -> Option<&str> {
    let exposure =
        case.metrics.values().filter(|metric| metric.is_judged()).find_map(|m| m.exposure.as_deref());
    exposure.or_else(|| {
        let is_throughput = |(name, metric): &(&String, &crate::case::CaseMetric)| {
            Profile::of(name, metric).family == Family::Throughput
        };
        case.metrics.iter().find(is_throughput).map(|(name, _)| name.as_str())
    })
}

/// The offered load, which a deployment does not change.
fn load_metric(case: &Case) -> Option<&str> {
    let is_load = |metric: &crate::case::CaseMetric| !metric.is_judged() && profile::is_rate(&metric.unit);
    let exposures: Vec<&str> =
        case.metrics.values().filter_map(|metric| metric.exposure.as_deref()).collect();
    let mut found = case.metrics.iter().filter(|(name, m)| is_load(m) && !exposures.contains(&name.as_str()));
    found.next().map(|(name, _)| name.as_str())
}

/// One detector per judged metric that has a past; a mean and a high percentile share one.
fn detectors(case: &Case, frame: &Frame, settings: &JudgeSettings) -> Vec<Box<dyn Detector>> {
    let standard = StandardEmission::new();
    let traffic = traffic_metric(case);
    let offered = load_metric(case).filter(|load| frame.tracks(load).next().is_some());
    let shared = Shared { standard: &standard, traffic };
    let mut detectors: Vec<Box<dyn Detector>> = Vec::new();
    let (mut means, mut tails): (Vec<LevelDetector>, Vec<LevelDetector>) = (Vec::new(), Vec::new());
    for name in judged_metrics(case, settings) {
        let Some(metric) = case.metrics.get(name) else { continue };
        let mut profile = Profile::of(name, metric);
        if let Some(ratio) = settings.metrics.get(name).and_then(|metric| metric.minimum_effect) {
            profile = profile.with_minimum_effect(ratio);
        }
        if let Some(exposure) = &metric.exposure {
            let errors = ErrorDetector::new(frame, name, exposure, CountGate::default());
            detectors.extend(errors.map(|errors| Box::new(errors) as Box<dyn Detector>));
            continue;
        }
        let is_throughput = profile.family == Family::Throughput;
        let load = if is_throughput { offered } else { offered.or(traffic) };
        let source = Source { frame, metric: name, profile, load };
        for direction in directions(metric.bad) {
            let Some(level) = LevelDetector::new(&source, *direction, &shared) else { continue };
            match (profile.family, direction) {
                (Family::Latency, Direction::Increase) => means.push(level),
                (Family::TailLatency, Direction::Increase) => tails.push(level),
                _ => detectors.push(Box::new(level)),
            }
        }
    }
    let step_min = frame.step_minutes();
    for mean in means {
        let only = tails.len() == 1;
        let tail = tails.iter().position(|tail| only || tail.metric().starts_with(mean.metric()));
        match tail {
            Some(tail) => detectors.push(Box::new(JointDetector::new(mean, tails.remove(tail), step_min))),
            None => detectors.push(Box::new(mean)),
        }
    }
    detectors.extend(tails.into_iter().map(|tail| Box::new(tail) as Box<dyn Detector>));
    detectors
}

fn directions(bad: Direction) -> &'static [Direction] {
    match bad {
        Direction::Increase => &[Direction::Increase],
        Direction::Decrease => &[Direction::Decrease],
        Direction::Either => &[Direction::Increase, Direction::Decrease],
        Direction::None => &[],
    }
}
