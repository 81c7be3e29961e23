//! Our side of `tests/compare/run`: medians in nanoseconds and the inputs of the others, as one object of JSON.

#[path = "../benches/generator/mod.rs"]
#[allow(dead_code, reason = "shared with the accuracy benchmark, which uses all of it")]
mod generator;

use generator::Scenario;
use serde_json::{Value, json};
use std::error::Error;
use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;
use vouch_analyzer::hmm::Hmm;
use vouch_analyzer::judge::{JudgeSettings, judge};
use vouch_analyzer::sax::{Breakpoints, paa};

const STATES: usize = 6;
const LETTERS: usize = 8;
const OBSERVATIONS: usize = 120;
const POINTS: usize = 1_000_000;
const SEGMENT: usize = 8;

/// Median over `rounds` of the nanoseconds that one of `calls` calls takes.
fn median_ns<T>(rounds: usize, calls: u32, mut call: impl FnMut() -> T) -> f64 {
    let mut round = || {
        let started = Instant::now();
        for _ in 0..calls {
            black_box(call());
        }
        started.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    let mut times: Vec<f64> = (0..rounds).map(|_| round()).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Rows that sum to 1, none like another.
fn rows(count: usize, length: usize) -> Vec<Vec<f64>> {
    let row = |i: usize| -> Vec<f64> {
        let weights: Vec<f64> = (0..length).map(|j| 1.0 + ((i * 7 + j * 5) % 11) as f64).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|w| w / sum).collect()
    };
    (0..count).map(row).collect()
}

fn hmm() -> Result<Value, Box<dyn Error>> {
    let (initial, transition, emission) =
        (rows(1, STATES).remove(0), rows(STATES, STATES), rows(STATES, LETTERS));
    let model = Hmm::new(initial.clone(), transition.clone(), emission.clone())?;
    let observations: Vec<usize> = (0..OBSERVATIONS).map(|i| (i * i + 3 * i) % LETTERS).collect();
    let score = || Ok::<_, Box<dyn Error>>(model.forward(&model.likelihoods(black_box(&observations))?)?);
    let log_likelihood = score()?.log_likelihood();
    Ok(json!({
        "initial": initial, "transition": transition, "emission": emission, "observations": observations,
        "log_likelihood": log_likelihood, "ns": median_ns(201, 200, score),
    }))
}

fn sax() -> Result<Value, Box<dyn Error>> {
    // No value lies on a cut: libraries differ in which side it belongs to.
    let series: Vec<f64> = (0..POINTS).map(|i| (i % 97) as f64 / 24.0 - 2.01).collect();
    let breakpoints = Breakpoints::equiprobable(LETTERS)?;
    let plain = median_ns(31, 1, || breakpoints.word(black_box(&series)));
    let segments = POINTS / SEGMENT;
    let cut = median_ns(31, 1, || paa(black_box(&series), segments).map(|means| breakpoints.word(&means)));
    Ok(json!({
        "points": POINTS, "letters": LETTERS, "segment": SEGMENT, "ns": plain, "ns_with_paa": cut,
        "first": breakpoints.word(&series[..97]).letters(),
    }))
}

/// Five metrics on one host: 180 minutes before, 30 judged minute by minute.
fn case() -> Value {
    let case = Scenario { window_min: 30, ..Scenario::default() }.case(7);
    let settings = JudgeSettings::default();
    let ns = median_ns(201, 10, || judge(black_box(&case), &settings));
    let series: Vec<Value> = case
        .series
        .iter()
        .map(|s| json!({ "metric": s.metric, "host": s.host, "start": s.start, "values": s.values }))
        .collect();
    json!({ "ns": ns, "baseline": case.baseline, "verification": case.verification, "series": series })
}

fn main() -> Result<(), Box<dyn Error>> {
    let all = json!({ "hmm": hmm()?, "sax": sax()?, "case": case() });
    writeln!(std::io::stdout(), "{all}")?;
    Ok(())
}
