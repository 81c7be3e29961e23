//! Which detectors watch a case: one per judged metric that has a past; a mean and a high percentile share one.

use crate::budget::Seat;
use crate::case::{Case, CaseMetric, CaseTemplate};
use crate::detector::Detector;
use crate::detector::errors::{CountGate, ErrorDetector};
use crate::detector::joint::JointDetector;
use crate::detector::level::{LevelDetector, Shared};
use crate::dilution::{self, Demand};
use crate::emission::StandardEmission;
use crate::expected::Source;
use crate::frame::Frame;
use crate::limit::highest_usual;
use crate::minimum;
use crate::profile::{self, Family, Profile};
use crate::strategy;
use vouch_proto::Direction;

/// The metrics that can fail the case.
pub(crate) fn judged_metrics<'a>(case: &'a Case, template: &CaseTemplate) -> Vec<&'a str> {
    reported_metrics(case).into_iter().filter(|name| !template.of(name).muted).collect()
}

/// Those and the muted ones.
pub(crate) fn reported_metrics(case: &Case) -> Vec<&str> {
    case.metrics.iter().filter(|(_, metric)| metric.is_judged()).map(|(name, _)| name.as_str()).collect()
}

/// The metric that counts requests: the exposure of a judged count, or a throughput.
pub(crate) fn traffic_metric(case: &Case) -> Option<&str> {
    let exposure =
        case.metrics.values().filter(|metric| metric.is_judged()).find_map(|m| m.exposure.as_deref());
    exposure.or_else(|| {
        let is_throughput =
            |(name, metric): &(&String, &CaseMetric)| Profile::of(name, metric).family == Family::Throughput;
        case.metrics.iter().find(is_throughput).map(|(name, _)| name.as_str())
    })
}

/// The offered load, which a deployment does not change.
fn load_metric(case: &Case) -> Option<&str> {
    let is_load = |metric: &CaseMetric| !metric.is_judged() && profile::is_rate(&metric.unit);
    let exposures: Vec<&str> =
        case.metrics.values().filter_map(|metric| metric.exposure.as_deref()).collect();
    let mut found = case.metrics.iter().filter(|(name, m)| is_load(m) && !exposures.contains(&name.as_str()));
    found.next().map(|(name, _)| name.as_str())
}

/// The detectors of a case, in the order of the metrics.
pub(crate) fn seats(case: &Case, frame: &Frame, template: &CaseTemplate, last_look: bool) -> Vec<Seat> {
    let shared = Shared {
        standard: StandardEmission::shared(),
        traffic: traffic_metric(case),
        last_look: last_look && strategy::dilution(case).is_none(),
    };
    let asked = Asked { case, frame, template };
    let mut seats: Vec<Seat> = Vec::new();
    let (mut means, mut tails): (Vec<LevelDetector>, Vec<LevelDetector>) = (Vec::new(), Vec::new());
    for name in reported_metrics(case) {
        let Some(metric) = case.metrics.get(name) else { continue };
        if let Some(exposure) = &metric.exposure {
            let errors = ErrorDetector::new(frame, name, exposure, asked.of_count(name));
            seats.extend(errors.map(|errors| seat(template, name, Box::new(errors))));
            continue;
        }
        for direction in directions(metric.bad) {
            let source = asked.of_level(name, metric, *direction);
            let Some(level) = LevelDetector::new(&source, *direction, &shared) else { continue };
            match (source.profile.family, direction) {
                (Family::Latency, Direction::Increase) => means.push(level),
                (Family::TailLatency, Direction::Increase) => tails.push(level),
                _ => seats.push(seat(template, name, Box::new(level))),
            }
        }
    }
    seats.extend(latencies(means, tails, template, frame.step_minutes()));
    seats
}

/// A mean and a percentile that are judged alike share a seat.
fn latencies(
    means: Vec<LevelDetector>,
    mut tails: Vec<LevelDetector>,
    template: &CaseTemplate,
    step_min: f64,
) -> Vec<Seat> {
    let mut seats = Vec::new();
    for mean in means {
        let only = tails.len() == 1;
        let name = mean.metric().to_owned();
        let of_mean = |tail: &LevelDetector| only || tail.metric().starts_with(&name);
        let tail = tails.iter().position(|tail| of_mean(tail) && are_alike(template, &name, tail.metric()));
        let detector: Box<dyn Detector> = match tail {
            Some(tail) => Box::new(JointDetector::new(mean, tails.remove(tail), step_min)),
            None => Box::new(mean),
        };
        seats.push(seat(template, &name, detector));
    }
    let alone = tails.into_iter().map(|tail| {
        let name = tail.metric().to_owned();
        seat(template, &name, Box::new(tail))
    });
    seats.extend(alone);
    seats
}

fn seat(template: &CaseTemplate, metric: &str, detector: Box<dyn Detector>) -> Seat {
    let (settings, sensitivity) = (template.of(metric).clone(), template.sensitivity_of(metric));
    Seat { detector, metric: metric.to_owned(), settings, sensitivity }
}

/// Whether two metrics can speak with one voice: same part in the decision, and nothing that only one is held to.
fn are_alike(template: &CaseTemplate, a: &str, b: &str) -> bool {
    let part = |metric: &str| {
        let settings = template.of(metric).clone();
        let bounds = settings.ignore.is_some() || settings.minimum_effect.absolute.is_some();
        let part = (settings.weight, settings.group, settings.critical, settings.muted);
        (part, template.sensitivity_of(metric), bounds)
    };
    let ((one, sensitivity, bounded), other) = (part(a), part(b));
    !bounded && (one, sensitivity, bounded) == other
}

/// What is asked of each metric, and where its expectation comes from.
struct Asked<'a> {
    case: &'a Case,
    frame: &'a Frame,
    template: &'a CaseTemplate,
}

impl<'a> Asked<'a> {
    fn of_level(&self, name: &'a str, metric: &CaseMetric, bad: Direction) -> Source<'a> {
        let (frame, least) = (self.frame, self.template.of(name).minimum_effect);
        let usual = if least.absolute.is_some() { highest_usual(frame, name) } else { f64::NAN };
        let profile = minimum::of_level(Profile::of(name, metric), least, bad, usual);
        let profile =
            strategy::dilution(self.case).map_or(profile, |share| dilution::profile(profile, share));
        let offered = load_metric(self.case).filter(|load| frame.tracks(load).next().is_some());
        let is_throughput = profile.family == Family::Throughput;
        let load = if is_throughput { offered } else { offered.or(traffic_metric(self.case)) };
        Source { frame, metric: name, profile, load }
    }

    fn of_count(&self, name: &str) -> CountGate {
        let gate = minimum::of_count(self.template.of(name).minimum_effect);
        strategy::dilution(self.case).map_or(gate, |share| dilution::count_gate(gate, share))
    }
}

/// By judged metric the smallest change in a diluted canary that could be found.
pub(crate) fn smallest_effects(
    case: &Case,
    frame: &Frame,
    template: &CaseTemplate,
    demand: Demand,
) -> Vec<(String, f64)> {
    let asked = Asked { case, frame, template };
    let of_metric = |name: &str| {
        let (name, metric) = case.metrics.get_key_value(name)?;
        let level = |bad: &Direction| dilution::smallest_level(&asked.of_level(name, metric, *bad), demand);
        let smallest = match &metric.exposure {
            Some(exposure) => dilution::smallest_count(frame, (name, exposure), asked.of_count(name), demand),
            None => directions(metric.bad).iter().filter_map(level).reduce(f64::min),
        };
        Some((name.clone(), smallest?))
    };
    judged_metrics(case, template).into_iter().filter_map(of_metric).collect()
}

fn directions(bad: Direction) -> &'static [Direction] {
    match bad {
        Direction::Increase => &[Direction::Increase],
        Direction::Decrease => &[Direction::Decrease],
        Direction::Either => &[Direction::Increase, Direction::Decrease],
        Direction::None => &[],
    }
}
