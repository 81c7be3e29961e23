//! A case on its way through the detectors, one step after the other.

mod conclude;

use crate::budget::{Budget, Seat};
use crate::case::{Case, CaseError, CaseTemplate};
use crate::common_cause::{Around, Suspect};
use crate::coverage::Coverage;
use crate::detector::{Detector, Finding};
use crate::ending::{self, Ending, LEAST_USABLE_MIN};
use crate::frame::Frame;
use crate::judge::{JudgeSettings, Judgement};
use crate::limit::{Crossing, Watch};
use crate::maths::ln_add;
use crate::no_data;
use crate::panel::{judged_metrics, seats, traffic_metric};
use crate::sequential::Thresholds;
use std::collections::BTreeSet;
use vouch_proto::CommonCause;

/// A case on its way through the detectors.
#[derive(Debug)]
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
    around: Around<'a>,
    /// The last time that it would have failed: what was explained once is no Pass, as a Fail would have stayed one.
    explained: Option<Explained>,
}

/// Units that would fail it now, and why they are no evidence against it.
#[derive(Debug)]
struct Explained {
    units: BTreeSet<Place>,
    cause: CommonCause,
}

/// Number of a seat, and of a unit of its detector.
type Place = (usize, usize);

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
        settings: &JudgeSettings,
    ) -> Result<Self, CaseError> {
        let frame = Frame::new(case, minutes_seen)?;
        let template =
            if settings.evidence_alone { case.template.evidence_alone() } else { case.template.clone() };
        let judged = judged_metrics(case, &template);
        let traffic = traffic_metric(case);
        let coverage = Coverage::new(&frame, &judged, traffic);
        let seats = seats(case, &frame, &template, !settings.ending.is_open());
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
        Ok(Self {
            case,
            template,
            thresholds,
            frame,
            coverage,
            seats,
            budget,
            watches,
            ending,
            around: Around::new(case, minutes_seen),
            explained: None,
        })
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
            self.observe(t);
            watch(t, &self);
            if let Some(failure) = self.fails_by_itself(t) {
                // What was explained before counts again, or another unit fails it.
                self.explained = None;
                return self.conclude(t + 1, &End::Failed(failure));
            }
            if self.is_excluded(t + 1) {
                return self.conclude(t + 1, &End::Excluded);
            }
        }
        self.conclude(seen, &self.silence(seen).map_or(End::Seen, End::Failed))
    }

    /// Takes in the samples of a step.
    pub(crate) fn observe(&mut self, t: usize) {
        for seat in &mut self.seats {
            seat.detector.step(t);
        }
        for watch in &mut self.watches {
            watch.step(t);
        }
    }

    /// Whether a regression of practical size has been excluded, where that ends it.
    fn is_excluded(&self, steps: usize) -> bool {
        let minutes = |steps: usize| steps as i64 * self.case.interval_min;
        if self.explained.is_some()
            || self.is_end(steps)
            || !self.ending.looks_at(minutes(steps), minutes(self.frame.steps))
        {
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

    /// Whether it fails now by what nothing around the service explains.
    fn fails_by_itself(&mut self, t: usize) -> Option<Failure> {
        let failure = self.fails(t, &BTreeSet::new())?;
        if self.around.is_empty() || !matches!(failure, Failure::Evidence { .. }) {
            return Some(failure);
        }
        self.around.step(t);
        let mut explained: Option<Explained> = None;
        let mut most = f64::NEG_INFINITY;
        for (place, suspect, weight) in self.suspects(t) {
            let Some(cause) = self.around.explanation(&suspect, t) else { continue };
            let known =
                explained.get_or_insert_with(|| Explained { units: BTreeSet::new(), cause: cause.clone() });
            known.units.insert(place);
            if weight > most {
                (most, known.cause) = (weight, cause);
            }
        }
        let Some(explained) = explained else { return Some(failure) };
        let left = self.fails(t, &explained.units);
        if left.is_none() {
            self.explained = Some(explained);
        }
        left
    }

    /// What may fail it, with how much it pulls.
    fn suspects(&self, t: usize) -> Vec<(Place, Suspect, f64)> {
        let of = |one: Unit<'_>| {
            let finding = self.finding(&one);
            let counts = finding.may_fail && finding.ln_evidence > 0.0 && !one.seat.settings.muted;
            let suspect = counts.then(|| self.around.suspect(&finding, t)).flatten()?;
            Some((one.place(), suspect, finding.ln_evidence + one.pull()))
        };
        self.units(None).filter_map(of).collect()
    }

    /// Whether it fails now without what is explained: all metrics together, a critical one alone, or by a bound.
    fn fails(&self, t: usize, explained: &BTreeSet<Place>) -> Option<Failure> {
        let needed = self.thresholds.now(self.is_end(t + 1));
        let evidence = |of: Option<usize>| self.evidence(of, needed, explained);
        let alone = || (0..self.budget.critical.len()).find_map(|one| evidence(Some(one)));
        let crossing = || self.watches.iter().find_map(Watch::crossing).map(Failure::Limit);
        evidence(None).or_else(alone).or_else(crossing)
    }

    /// The average evidence of the units that may fail, when it suffices: the average of e-values, with those left out
    /// that must not count, is an e-value still. Rolling back needs its evidence whatever the sensitivity.
    fn evidence(&self, of: Option<usize>, needed: f64, explained: &BTreeSet<Place>) -> Option<Failure> {
        let counts = |one: &Unit<'_>| one.ln_weight > f64::NEG_INFINITY && !explained.contains(&one.place());
        let counted = || self.units(of).filter(counts);
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

    const fn place(&self) -> Place {
        (self.at, self.unit)
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
