//! A case on its way through the detectors, one step after the other.

use crate::case::{Case, CaseError};
use crate::coverage::{Coverage, MIN_USABLE_MINUTES};
use crate::detector::{Change, Detector, Finding};
use crate::dilution::{self, Demand, Diluted};
use crate::frame::{Frame, FrameHost, Track};
use crate::judge::{JudgeSettings, Judgement, UnitResult};
use crate::maths::{ln, ln_add};
use crate::panel::{detectors, judged_metrics, smallest_effects, traffic_metric};
use crate::reason;
use crate::sequential::{Thresholds, ln_weights};
use crate::strategy;
use std::collections::BTreeSet;
use vouch_proto::{Classification, Direction, Outcome};

/// Highest risk of what did not fail.
const ALMOST: f64 = 0.99;
/// Risk of strong evidence whose effect is too small to matter, at most.
const TOO_SMALL: f64 = 0.95;
/// An effect that is worth full attention: ln ratio, or share of the trials.
const NOTABLE: f64 = 0.15;
/// A unit is blamed for a failure when this share of the evidence is its own.
const BLAMED: f64 = 0.1;

/// A case on its way through the detectors.
pub(crate) struct Replay<'a> {
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
    pub(crate) fn new(
        case: &'a Case,
        minutes_seen: i64,
        settings: &'a JudgeSettings,
    ) -> Result<Self, CaseError> {
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

    pub(crate) fn run(mut self) -> Judgement {
        let seen = self.frame.seen();
        for t in 0..seen {
            for detector in &mut self.detectors {
                detector.step(t);
            }
            let reached = self.fails(t);
            if reached.is_some() {
                return self.conclude(t + 1, reached);
            }
        }
        self.conclude(seen, None)
    }

    fn is_end(&self, steps: usize) -> bool {
        steps == self.frame.steps
    }

    /// ln of the average evidence of the units that may fail, when it suffices: the average of e-values, with
    /// those left out that must not count, is an e-value still.
    fn fails(&self, t: usize) -> Option<f64> {
        let needed = self.thresholds.now(self.is_end(t + 1));
        let all = self.units().map(|(detector, unit, ln_weight)| detector.ln_evidence(unit) + ln_weight);
        if all.fold(f64::NEG_INFINITY, ln_add_near) < needed {
            return None;
        }
        let may_fail = |(detector, unit, ln_weight): (&dyn Detector, usize, f64)| {
            let finding = detector.finding(unit);
            finding.may_fail.then_some(finding.ln_evidence + ln_weight)
        };
        let total = self.units().filter_map(may_fail).fold(f64::NEG_INFINITY, ln_add_near);
        (total >= needed).then_some(total)
    }

    fn units(&self) -> impl Iterator<Item = (&dyn Detector, usize, f64)> {
        self.detectors.iter().zip(&self.ln_weights).flat_map(|(detector, weights)| {
            weights.iter().enumerate().map(move |(unit, weight)| (detector.as_ref(), unit, *weight))
        })
    }

    fn conclude(&self, steps: usize, reached: Option<f64>) -> Judgement {
        let failed = reached.is_some();
        let is_end = self.is_end(steps);
        let minute_of = |step: usize| self.case.verification[0] + step as i64 * self.case.interval_min;
        let usable_minutes = self.coverage.usable_minutes(steps);
        let mut metrics: Vec<UnitResult> = Vec::new();
        let mut transient = false;
        for (detector, unit, ln_weight) in self.units() {
            let finding = detector.finding(unit);
            let risk = match reached {
                Some(total) if is_blamed(&finding, ln_weight, total) => 1.0,
                Some(_) | None => {
                    unit_risk(&finding, self.thresholds.risk(finding.ln_evidence, ln_weight, is_end))
                }
            };
            transient |= finding.transient;
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
        let mut judgement = Judgement {
            outcome,
            risk,
            failed_at_minute,
            rollback_grade: reached.is_some_and(|total| total >= self.thresholds.rollback),
            transient: transient && outcome == Some(Outcome::Pass),
            reason: reason::of_case(outcome, cause, metrics.first(), usable_minutes),
            usable_minutes,
            metrics,
            choice: strategy::choose(self.case),
            diluted: None,
        };
        if let Some(diluted) = self.dilution() {
            dilution::label(&mut judgement, self.case, diluted);
        }
        judgement
    }

    /// How far a canary is diluted, and what could be found of it.
    fn dilution(&self) -> Option<Diluted> {
        let share = strategy::dilution(self.case)?;
        let questions: f64 = self.detectors.iter().map(|detector| detector.questions()).sum();
        let nats = self.thresholds.fail_at_end + ln(questions.max(1.0));
        let demand = Demand { nats, share };
        Some(Diluted { share, smallest: smallest_effects(self.case, &self.frame, self.settings, demand) })
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
        if self.coverage.ends_without_traffic(steps) {
            return Some("the window ends without traffic".to_owned());
        }
        if self.coverage.ends_in_silence(steps) {
            return Some("nothing usable was measured in the last minutes of the window".to_owned());
        }
        let unreferenced =
            judged_metrics(self.case, self.settings).into_iter().find(|m| self.is_unreferenced(m));
        unreferenced
            .map(|metric| format!("{metric} has samples after the deployment and none to compare them with"))
    }

    /// Whether a metric was measured on the new version and there is nothing to say what it should have been.
    fn is_unreferenced(&self, metric: &str) -> bool {
        let is_live = |track: &Track| track.live.iter().any(|v| v.is_finite());
        let tracks = |hosts: &[FrameHost]| -> Vec<&Track> {
            hosts.iter().filter_map(|host| self.frame.track(metric, &host.name)).collect()
        };
        let (new, controls) = (tracks(&self.frame.new_hosts), tracks(&self.frame.controls));
        let measured = new.iter().any(|track| is_live(track));
        measured && !new.iter().any(|t| t.has_past()) && !controls.iter().any(|t| is_live(t) || t.has_past())
    }
}

/// Adds logarithms; what is far below the rest is left out, so that most units cost no exponential.
fn ln_add_near(a: f64, b: f64) -> f64 {
    if (a - b).abs() > 30.0 { a.max(b) } else { ln_add(a, b) }
}

/// Whether a failure is, for a good part, this unit's doing.
fn is_blamed(finding: &Finding, ln_weight: f64, total: f64) -> bool {
    finding.may_fail && finding.ln_evidence + ln_weight >= total + crate::maths::ln(BLAMED)
}

/// How near a unit is to failing, below 1.
fn unit_risk(finding: &Finding, raw: f64) -> f64 {
    if finding.usable == 0 || raw.is_nan() {
        return 0.0;
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
