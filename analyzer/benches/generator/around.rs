//! A deployment with other services around it, each of its own size, speed and noise.

use super::Random;
use vouch_analyzer::case::{Case, CaseMetric, HostGroup, Neighbour};
use vouch_proto::{Direction, Relation, Strategy};

const HISTORY: i64 = 120;
/// Length of the verification window, minutes.
pub(crate) const WINDOW: i64 = 30;

/// What happens to one service from a minute on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lift {
    /// First minute.
    pub(crate) from: i64,
    /// ln of the latency over the usual one.
    pub(crate) latency: f64,
    /// Share of errors.
    pub(crate) errors: f64,
}

/// Nothing does.
pub(crate) const NOTHING: Lift = Lift { from: 0, latency: 0.0, errors: 0.002 };

/// A service that gets slower.
pub(crate) const fn slow(from: i64, latency: f64) -> Lift {
    Lift { from, latency, errors: 0.002 }
}

/// Latency, requests and errors of a service of its own size, speed, noise and autocorrelation.
fn columns(random: &mut Random, lift: Lift) -> [(&'static str, Vec<Option<f64>>); 3] {
    let requests = 150.0 * (1.2 * random.uniform()).exp();
    let usual = 40.0 * (1.5 * random.uniform()).exp();
    let (noise, keeps) = (0.03 + 0.06 * random.uniform(), 0.5 * random.uniform());
    let mut state = 0.0;
    let mut all = [("response_time", Vec::new()), ("throughput", Vec::new()), ("errors", Vec::new())];
    for minute in -HISTORY..WINDOW {
        state = keeps * state + (1.0 - keeps * keeps).sqrt() * noise * random.normal();
        let now = if minute >= lift.from { lift } else { NOTHING };
        let count = random.poisson(requests);
        let failed = random.poisson(count * now.errors).min(count);
        for (column, value) in all.iter_mut().zip([usual * (now.latency + state).exp(), count, failed]) {
            column.1.push(Some(value));
        }
    }
    all
}

fn empty() -> Case {
    Case::new("generated", Strategy::Previous, 1, [0, WINDOW])
        .with_baseline([-HISTORY, 0])
        .with_metric("response_time", CaseMetric::judged("ms", Direction::Increase))
        .with_metric("throughput", CaseMetric::judged("1/min", Direction::Decrease))
        .with_metric("errors", CaseMetric::count("1/min", "throughput"))
        .with_host("service", HostGroup::Service, None)
}

/// A deployment with the services around it, the first half of which call the same database.
pub(crate) fn deployment(seed: u64, own: Lift, others: &[Lift]) -> Case {
    let random = &mut Random::new(seed);
    let mut case = empty();
    for (metric, column) in columns(random, own) {
        case = case.with_series(metric, "service", -HISTORY, column);
    }
    for (i, lift) in others.iter().enumerate() {
        let mut one = Neighbour::of(&case, format!("other-{i}"), Relation::Unrelated);
        one.case.metrics = case.metrics.clone();
        if 2 * i < others.len() {
            one = one.sharing("orders-db");
        }
        for (metric, column) in columns(random, *lift) {
            one = one.with_series(metric, -HISTORY, column);
        }
        case.neighbours.push(one);
    }
    case
}

/// A shared database gets slower at some minute, for each that calls it by its own amount.
pub(crate) fn shared_database(seed: u64) -> Case {
    let random = &mut Random::new(seed ^ 0xDB);
    let from = (20.0 * random.uniform()) as i64;
    let worst = 0.25 + 0.6 * random.uniform();
    let mut hit = || slow(from, worst * (0.6 + 0.4 * random.uniform()));
    let own = hit();
    let others = [hit(), hit(), hit(), NOTHING, NOTHING, NOTHING];
    deployment(seed, own, &others)
}
