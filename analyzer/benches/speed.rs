//! Speed of the judge and of its parts: `cargo bench -p vouch-analyzer --bench speed`.

#[path = "generator/mod.rs"]
#[allow(dead_code, reason = "shared with the accuracy benchmark, which uses all of it")]
mod generator;

use divan::{Bencher, black_box};
use generator::Scenario;
use vouch_analyzer::case::Case;
use vouch_analyzer::hmm::Hmm;
use vouch_analyzer::judge::{JudgeSettings, judge};
use vouch_analyzer::sax::{Breakpoints, paa};

fn main() {
    divan::main();
}

/// One metric on one host: 180 minutes of baseline, a window to verify.
fn one_metric(window_min: i64) -> Case {
    let mut case = Scenario { window_min, ..Scenario::default() }.case(7);
    case.metrics.retain(|name, _| name == "cpu");
    case.series.retain(|series| series.metric == "cpu");
    case
}

/// All of it, placebo included; the difference of two windows over their minutes is the price of a minute more.
#[divan::bench(args = [30, 60, 240])]
fn one_metric_on_one_host(bencher: Bencher<'_, '_>, window_min: i64) {
    let (case, settings) = (one_metric(window_min), JudgeSettings::default());
    bencher.bench(|| judge(black_box(&case), &settings));
}

/// Five metrics, mean and percentile jointly.
#[divan::bench]
fn five_metrics_on_one_host(bencher: Bencher<'_, '_>) {
    let (case, settings) =
        (Scenario { window_min: 30, ..Scenario::default() }.case(7), JudgeSettings::default());
    bencher.bench(|| judge(black_box(&case), &settings));
}

/// A dense model of 6 states and 8 letters over 120 samples.
#[divan::bench]
fn general_forward_pass(bencher: Bencher<'_, '_>) {
    let row = |n: usize| vec![1.0 / n as f64; n];
    let Ok(model) = Hmm::new(row(6), vec![row(6); 6], vec![row(8); 6]) else { return };
    let letters: Vec<usize> = (0..120).map(|i| i % 8).collect();
    let Ok(likelihoods) = model.likelihoods(&letters) else { return };
    bencher.bench(|| model.forward(black_box(&likelihoods)));
}

/// A million samples to letters, in segments of 1, 4 and 8.
#[divan::bench(args = [1, 4, 8])]
fn sax_of_a_million(bencher: Bencher<'_, '_>, size: usize) {
    let series: Vec<f64> = (0..1_000_000).map(|i| f64::from(i % 97) / 24.0 - 2.0).collect();
    let Ok(breakpoints) = Breakpoints::equiprobable(8) else { return };
    bencher.bench(|| paa(black_box(&series), series.len() / size).map(|means| breakpoints.word(&means)));
}
