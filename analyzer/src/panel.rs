//! Which detectors watch a case: one per judged metric that has a past; a mean and a high percentile share one.

use crate::case::{Case, CaseMetric};
use crate::detector::Detector;
use crate::detector::errors::{CountGate, ErrorDetector};
use crate::detector::joint::JointDetector;
use crate::detector::level::{LevelDetector, Shared};
use crate::dilution::{self, Demand};
use crate::emission::StandardEmission;
use crate::expected::Source;
use crate::frame::Frame;
use crate::judge::JudgeSettings;
use crate::profile::{self, Family, Profile};
use crate::strategy;
use vouch_proto::Direction;

/// The metrics that can fail the case.
pub(crate) fn judged_metrics<'a>(case: &'a Case, settings: &JudgeSettings) -> Vec<&'a str> {
    let muted = |name: &str| settings.metrics.get(name).is_some_and(|metric| metric.muted);
    let judged = case.metrics.iter().filter(|(name, metric)| metric.is_judged() && !muted(name));
    judged.map(|(name, _)| name.as_str()).collect()
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
pub(crate) fn detectors(case: &Case, frame: &Frame, settings: &JudgeSettings) -> Vec<Box<dyn Detector>> {
    let standard = StandardEmission::new();
    let traffic = traffic_metric(case);
    let shared = Shared { standard: &standard, traffic };
    let mut detectors: Vec<Box<dyn Detector>> = Vec::new();
    let (mut means, mut tails): (Vec<LevelDetector>, Vec<LevelDetector>) = (Vec::new(), Vec::new());
    for name in judged_metrics(case, settings) {
        let Some(metric) = case.metrics.get(name) else { continue };
        if let Some(exposure) = &metric.exposure {
            let errors = ErrorDetector::new(frame, name, exposure, count_gate(case));
            detectors.extend(errors.map(|errors| Box::new(errors) as Box<dyn Detector>));
            continue;
        }
        let source = source(case, frame, settings, (name, metric));
        let profile = source.profile;
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

/// Where a metric's expectation comes from, and what is assumed about it.
fn source<'a>(
    case: &'a Case,
    frame: &'a Frame,
    settings: &JudgeSettings,
    (name, metric): (&'a str, &'a CaseMetric),
) -> Source<'a> {
    let mut profile = Profile::of(name, metric);
    if let Some(ratio) = settings.metrics.get(name).and_then(|metric| metric.minimum_effect) {
        profile = profile.with_minimum_effect(ratio);
    }
    if let Some(share) = strategy::dilution(case) {
        profile = dilution::profile(profile, share);
    }
    let offered = load_metric(case).filter(|load| frame.tracks(load).next().is_some());
    let is_throughput = profile.family == Family::Throughput;
    let load = if is_throughput { offered } else { offered.or(traffic_metric(case)) };
    Source { frame, metric: name, profile, load }
}

fn count_gate(case: &Case) -> CountGate {
    let gate = CountGate::default();
    strategy::dilution(case).map_or(gate, |share| dilution::count_gate(gate, share))
}

/// By judged metric the smallest change in a diluted canary that could be found.
pub(crate) fn smallest_effects(
    case: &Case,
    frame: &Frame,
    settings: &JudgeSettings,
    demand: Demand,
) -> Vec<(String, f64)> {
    let of_metric = |name: &str| {
        let (name, metric) = case.metrics.get_key_value(name)?;
        let smallest = match &metric.exposure {
            Some(exposure) => dilution::smallest_count(frame, (name, exposure), count_gate(case), demand),
            None => dilution::smallest_level(&source(case, frame, settings, (name, metric)), demand),
        };
        Some((name.clone(), smallest?))
    };
    judged_metrics(case, settings).into_iter().filter_map(of_metric).collect()
}

fn directions(bad: Direction) -> &'static [Direction] {
    match bad {
        Direction::Increase => &[Direction::Increase],
        Direction::Decrease => &[Direction::Decrease],
        Direction::Either => &[Direction::Increase, Direction::Decrease],
        Direction::None => &[],
    }
}
