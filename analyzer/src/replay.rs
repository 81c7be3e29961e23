//! A case on its way through the detectors, one step after the other.

use crate::budget::{Budget, Seat};
use crate::case::{Case, CaseError, CaseTemplate};
use crate::coverage::{Coverage, MIN_USABLE_MINUTES};
use crate::detector::{ALL_HOSTS, Detector, Finding};
use crate::dilution::{self, Demand, Diluted};
use crate::ending::{self, Ending, LEAST_USABLE_MIN};
use crate::frame::{Frame, FrameHost, Track};
use crate::judge::{JudgeSettings, Judgement, UnitResult};
use crate::limit::{Crossing, Watch};
use crate::maths::{ln, ln_add};
use crate::no_data;
use crate::panel::{judged_metrics, seats, smallest_effects, traffic_metric};
use crate::reason;
use crate::rows::{add_silent, is_blamed, merge, row, unit_result, unit_risk};
use crate::sequential::Thresholds;
use crate::strategy;
use vouch_proto::{Classification, Direction, Outcome, Reached};

/// A case on its way through the detectors.
pub(crate) struct Replay<'a> {
    case: &'a Case,
    template: CaseTemplate,
    thresholds: Thresholds,
    frame: Frame,
    coverage: Coverage,
    seats: Vec<Seat>,
    budget: Budget,
    watches: Vec<Watch>,
    ending: Ending,
}

/// How it failed.
enum Failure {
    /// By evidence: the weights that added it up, and what they reached with the sensitivities and without.
    Evidence { of: Option<usize>, total: f64, unmoved: f64 },
    /// By a bound that a person gave.
    Limit(Crossing),
    /// By the silence of a metric.
    Silence(String),
}

/// Why it looks no further.
enum End {
    Failed(Failure),
    /// A regression of practical size has been excluded.
    Excluded,
    /// Everything that is there has been seen.
    Seen,
}

impl End {
    const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Excluded | Self::Seen => None,
        }
    }
}

impl<'a> Replay<'a> {
    pub(crate) fn new(
        case: &'a Case,
        minutes_seen: i64,
        settings: &'a JudgeSettings,
    ) -> Result<Self, CaseError> {
        let frame = Frame::new(case, minutes_seen)?;
        let template =
            if settings.evidence_alone { case.template.evidence_alone() } else { case.template.clone() };
        let judged = judged_metrics(case, &template);
        let traffic = traffic_metric(case);
        let coverage = Coverage::new(&frame, &judged, traffic);
        let seats = seats(case, &frame, &template);
        let budget = Budget::new(&seats);
        let watch = |name: &&str| {
            let (name, metric) = case.metrics.get_key_value(*name)?;
            Watch::new(&frame, (name, metric), template.of(name), traffic)
        };
        let watches = judged.iter().filter_map(watch).collect();
        let ending = settings.ending;
        let mut thresholds = settings.thresholds;
        if ending.is_open() {
            // The look at the end is the last one by chance alone.
            thresholds.fail_at_end = thresholds.fail;
        }
        let thresholds = thresholds.for_looks(frame.steps);
        Ok(Self { case, template, thresholds, frame, coverage, seats, budget, watches, ending })
    }

    /// To the end, or until `goes_on` says no.
    pub(crate) fn run(self, goes_on: &dyn Fn() -> bool) -> Judgement {
        self.run_watched(goes_on, &mut |_, _| {})
    }

    /// The same; after each step `watch` is shown what the detectors made of it.
    pub(crate) fn run_watched(
        mut self,
        goes_on: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(usize, &Self),
    ) -> Judgement {
        let seen = self.frame.seen();
        for t in 0..seen {
            if !goes_on() {
                return self.conclude(t, &End::Seen);
            }
            for seat in &mut self.seats {
                seat.detector.step(t);
            }
            for watch in &mut self.watches {
                watch.step(t);
            }
            watch(t, &self);
            if let Some(failure) = self.fails(t) {
                return self.conclude(t + 1, &End::Failed(failure));
            }
            if self.is_excluded(t + 1) {
                return self.conclude(t + 1, &End::Excluded);
            }
        }
        self.conclude(seen, &self.silence(seen).map_or(End::Seen, End::Failed))
    }

    /// Whether a regression of practical size has been excluded, where that ends it.
    fn is_excluded(&self, steps: usize) -> bool {
        let minutes = |steps: usize| steps as i64 * self.case.interval_min;
        if self.is_end(steps) || !self.ending.looks_at(minutes(steps), minutes(self.frame.steps)) {
            return false;
        }
        let usable = self.coverage.usable_minutes(steps);
        if usable < LEAST_USABLE_MIN || self.no_pass(steps, usable).is_some() {
            return false;
        }
        let needed = ending::needed(self.frame.steps);
        let mut counted = self.units(None).filter(|one| !one.seat.settings.muted);
        counted.all(|one| one.detector().exclusion(one.unit) >= needed)
    }

    fn is_end(&self, steps: usize) -> bool {
        steps == self.frame.steps
    }

    /// Whether it fails now: all metrics together, a critical one alone, or by a bound.
    fn fails(&self, t: usize) -> Option<Failure> {
        let needed = self.thresholds.now(self.is_end(t + 1));
        let alone = || (0..self.budget.critical.len()).find_map(|one| self.evidence(Some(one), needed));
        let crossing = || self.watches.iter().find_map(Watch::crossing).map(Failure::Limit);
        self.evidence(None, needed).or_else(alone).or_else(crossing)
    }

    /// The average evidence of the units that may fail, when it suffices: the average of e-values, with those left out
    /// that must not count, is an e-value still. Rolling back needs its evidence whatever the sensitivity.
    fn evidence(&self, of: Option<usize>, needed: f64) -> Option<Failure> {
        let counted = || self.units(of).filter(|unit| unit.ln_weight > f64::NEG_INFINITY);
        let all = counted().map(|one| one.detector().ln_evidence(one.unit) + one.pull());
        if all.fold(f64::NEG_INFINITY, ln_add_near) < needed {
            return None;
        }
        let (mut total, mut unmoved) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for one in counted() {
            let finding = self.finding(&one);
            if finding.may_fail {
                total = ln_add_near(total, finding.ln_evidence + one.pull());
                unmoved = ln_add_near(unmoved, finding.ln_evidence + one.ln_weight);
            }
        }
        (total >= needed).then_some(Failure::Evidence { of, total, unmoved })
    }

    /// At the end of the window: a metric whose silence fails the deployment.
    fn silence(&self, steps: usize) -> Option<Failure> {
        let at_end = self.is_end(steps);
        let silent = at_end.then(|| no_data::failing(self.case, &self.frame, &self.template)).flatten();
        silent.map(|metric| Failure::Silence(metric.to_owned()))
    }

    /// Each unit with its metric, detector and number, and the ln evidence that it alone needs to fail before the end.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (&dyn Detector, usize, f64)> {
        self.units(None).map(|one| (one.seat.detector.as_ref(), one.unit, self.thresholds.fail - one.pull()))
    }

    /// The grid of time.
    pub(crate) const fn frame(&self) -> &Frame {
        &self.frame
    }

    /// All units, with the weights of a critical metric or of the average.
    fn units(&self, of: Option<usize>) -> impl Iterator<Item = Unit<'_>> {
        let weights =
            of.and_then(|one| self.budget.critical.get(one)).map_or(&self.budget.average, |(_, w)| w);
        self.seats.iter().enumerate().flat_map(move |(at, seat)| {
            let units = 0..seat.detector.units();
            units.map(move |unit| Unit { seat, at, unit, ln_weight: weights.of(at, unit) })
        })
    }

    /// What a unit shows; what a bound rules out may not fail.
    fn finding(&self, one: &Unit<'_>) -> Finding {
        let mut finding = one.detector().finding(one.unit);
        if finding.may_fail
            && let Some(watch) = self.watches.iter().find(|watch| watch.metric == one.seat.metric)
        {
            finding.may_fail = watch.allows(&finding.host, finding.effect, finding.direction);
        }
        finding
    }

    /// How near a unit is to failing, and whether it is to blame that it failed.
    fn risk(&self, one: &Unit<'_>, finding: &Finding, failure: Option<&Failure>, is_end: bool) -> f64 {
        if one.seat.settings.muted {
            return 0.0;
        }
        if let Some(Failure::Evidence { of, total, .. }) = failure {
            let weights =
                of.and_then(|of| self.budget.critical.get(of)).map_or(&self.budget.average, |(_, w)| w);
            if is_blamed(finding, weights.of(one.at, one.unit) - one.seat.extra(), *total) {
                return 1.0;
            }
        }
        let alone = self.budget.critical.iter().map(|(_, weights)| weights.of(one.at, one.unit));
        let ln_weight = alone.fold(one.ln_weight, f64::max) - one.seat.extra();
        unit_risk(finding, self.thresholds.risk(finding.ln_evidence, ln_weight, is_end))
    }

    fn conclude(&self, steps: usize, end: &End) -> Judgement {
        let failure = end.failure();
        let (failed, excluded) = (failure.is_some(), matches!(end, End::Excluded));
        let is_end = self.is_end(steps);
        let minute_of = |step: usize| self.case.verification[0] + step as i64 * self.case.interval_min;
        let usable_minutes = self.coverage.usable_minutes(steps);
        let mut metrics: Vec<UnitResult> = Vec::new();
        let mut transient = false;
        let (mut total, mut unmoved) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for one in self.units(None) {
            let finding = self.finding(&one);
            if finding.may_fail && one.ln_weight > f64::NEG_INFINITY {
                total = ln_add_near(total, finding.ln_evidence + one.pull());
                unmoved = ln_add_near(unmoved, finding.ln_evidence + one.ln_weight);
            }
            let risk = self.risk(&one, &finding, failure, is_end);
            transient |= finding.transient && !one.seat.settings.muted;
            for metric in &finding.metrics {
                let unit = self.case.metrics.get(metric).map_or("", |metric| metric.unit.as_str());
                let since = finding.since.map(minute_of);
                let mut result = unit_result((metric, unit), &finding, risk, since);
                if one.seat.settings.muted {
                    result.reason = format!("muted: {}", result.reason);
                }
                merge(&mut metrics, result);
            }
        }
        add_silent(&mut metrics, self.case);
        self.blame(&mut metrics, failure);
        metrics.sort_by(|a, b| {
            b.risk.total_cmp(&a.risk).then_with(|| a.metric.cmp(&b.metric)).then_with(|| a.host.cmp(&b.host))
        });
        let risk = metrics.first().map_or(0.0, |unit| unit.risk);
        let cause = self.no_pass(steps, usable_minutes);
        let outcome = match (failed, is_end || excluded, &cause) {
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
            passed_at_minute: excluded.then(|| minute_of(steps)),
            rollback_grade: self.is_rollback_grade(failure),
            reached: self.reached(failure, (total, unmoved), is_end),
            transient: transient && outcome == Some(Outcome::Pass),
            no_data: matches!(failure, Some(Failure::Silence(_)))
                || (outcome == Some(Outcome::Inconclusive) && cause.as_ref().is_some_and(|why| why.no_data)),
            reason: match end {
                End::Excluded => reason::of_early_pass(metrics.first(), usable_minutes),
                End::Failed(_) | End::Seen => {
                    reason::of_case(outcome, cause.map(|why| why.text), metrics.first(), usable_minutes)
                }
            },
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
        let counted = self.seats.iter().filter(|seat| !seat.settings.muted);
        let questions: f64 = counted.map(|seat| seat.detector.questions()).sum();
        let nats = self.thresholds.fail_at_end + ln(questions.max(1.0));
        let demand = Demand { nats, share };
        Some(Diluted { share, smallest: smallest_effects(self.case, &self.frame, &self.template, demand) })
    }

    fn is_rollback_grade(&self, failure: Option<&Failure>) -> bool {
        match failure {
            Some(Failure::Evidence { unmoved, .. }) => *unmoved >= self.thresholds.rollback,
            Some(Failure::Limit(_) | Failure::Silence(_)) | None => false,
        }
    }

    /// How far the evidence went: what failed it, else the average of all.
    fn reached(&self, failure: Option<&Failure>, average: (f64, f64), is_end: bool) -> Option<Reached> {
        let (evidence, rollback_evidence) = match failure {
            Some(Failure::Evidence { total, unmoved, .. }) => (*total, *unmoved),
            Some(Failure::Limit(_) | Failure::Silence(_)) | None => average,
        };
        let needed = self.thresholds.now(is_end);
        let reached = Reached { evidence, needed, rollback_evidence };
        (evidence.is_finite() && rollback_evidence.is_finite()).then_some(reached)
    }

    /// Names what failed other than by the evidence of its units, and says where a metric decided alone.
    fn blame(&self, metrics: &mut Vec<UnitResult>, failure: Option<&Failure>) {
        match failure {
            None | Some(Failure::Evidence { of: None, .. }) => {}
            Some(Failure::Evidence { of: Some(_), .. }) => {
                for unit in metrics.iter_mut().filter(|unit| unit.risk >= 1.0) {
                    unit.reason.push_str("; the metric is critical and decides alone");
                }
            }
            Some(Failure::Limit(crossing)) => {
                let classification = match crossing.direction {
                    Direction::Decrease => Classification::Low,
                    Direction::Increase | Direction::Either | Direction::None => Classification::High,
                };
                let unit = row(metrics, &crossing.metric, &crossing.host);
                unit.reason.clone_from(&crossing.reason);
                (unit.classification, unit.risk) = (classification, 1.0);
                (unit.effect, unit.fail_fast) = (crossing.effect, true);
            }
            Some(Failure::Silence(metric)) => {
                let unit = row(metrics, metric, ALL_HOSTS);
                unit.risk = 1.0;
                unit.reason =
                    format!("{metric} has no sample after the deployment, which fails it (on_no_data)");
            }
        }
    }

    /// Why this cannot be a Pass.
    fn no_pass(&self, steps: usize, usable_minutes: i64) -> Option<NoPass> {
        let because = |text: String| Some(NoPass { text, no_data: false });
        if let Some(barred) = &self.case.barred {
            return because(barred.clone());
        }
        let judged = judged_metrics(self.case, &self.template);
        if judged.is_empty() {
            return because("no metric is judged: all are context or muted".to_owned());
        }
        if self.seats.iter().all(|seat| seat.settings.muted) {
            return because(
                "no judged metric has any sample before the deployment to compare with".to_owned(),
            );
        }
        if usable_minutes < MIN_USABLE_MINUTES {
            return because(format!(
                "only {usable_minutes} usable minutes were measured, at least {MIN_USABLE_MINUTES} are needed"
            ));
        }
        if self.coverage.ends_without_traffic(steps) {
            return because("the window ends without traffic".to_owned());
        }
        if self.coverage.ends_in_silence(steps) {
            return because("nothing usable was measured in the last minutes of the window".to_owned());
        }
        if let Some(metric) = no_data::inconclusive(self.case, &self.frame, &self.template) {
            let text = format!("{metric} has no sample after the deployment");
            return Some(NoPass { text, no_data: true });
        }
        let unreferenced = judged.into_iter().find(|metric| self.is_unreferenced(metric))?;
        because(format!("{unreferenced} has samples after the deployment and none to compare them with"))
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

/// Why it cannot be a Pass.
struct NoPass {
    text: String,
    /// Because a metric was not measured.
    no_data: bool,
}

/// A unit with the weight that is being looked at.
struct Unit<'a> {
    seat: &'a Seat,
    at: usize,
    unit: usize,
    ln_weight: f64,
}

impl Unit<'_> {
    fn detector(&self) -> &dyn Detector {
        self.seat.detector.as_ref()
    }

    /// ln of its weight, less what its sensitivity asks for beyond the threshold.
    fn pull(&self) -> f64 {
        self.ln_weight - self.seat.extra()
    }
}

/// Adds logarithms; what is far below the rest is left out, so that most units cost no exponential.
fn ln_add_near(a: f64, b: f64) -> f64 {
    if (a - b).abs() > 30.0 { a.max(b) } else { ln_add(a, b) }
}
