//! How often the judge is right on generated deployments: `cargo bench -p vouch-analyzer --bench accuracy`.
//! Exits with 1 where a figure misses its bound. `-- SEED CASES` chooses the seed and the cases per row.

#[path = "generator/mod.rs"]
mod generator;

use generator::around::{NOTHING, deployment, shared_database, slow};
use generator::{Change, Scenario};
use rayon::prelude::*;
use std::io::Write;
use vouch_analyzer::case::Case;
use vouch_analyzer::judge::{JudgeSettings, Judgement, judge};
use vouch_proto::{MetricSettings, MinimumEffect, Outcome};

/// What is counted, and what it must be.
enum Bound {
    FailedAtMost(f64),
    FailedAtLeast(f64),
    TransientAtLeast(f64),
}

struct Row {
    name: String,
    /// The deployment of a seed.
    case: Box<dyn Fn(u64) -> Case + Sync>,
    bound: Bound,
}

fn row(name: impl Into<String>, scenario: Scenario, bound: Bound) -> Row {
    Row { name: name.into(), case: Box::new(move |seed| scenario.case(seed)), bound }
}

/// Deployments with other services around them.
fn rows_with_neighbours() -> [Row; 3] {
    let named =
        |name: &str, case: Box<dyn Fn(u64) -> Case + Sync>, bound| Row { name: name.into(), case, bound };
    let alone = |seed| Case { neighbours: Vec::new(), ..shared_database(seed) };
    let regression = |seed| deployment(seed, slow((seed % 12) as i64, 0.3), &[NOTHING; 8]);
    [
        named("shared database, nobody is asked", Box::new(alone), Bound::FailedAtLeast(0.9)),
        named("shared database, six are asked", Box::new(shared_database), Bound::FailedAtMost(0.02)),
        named("+35 % among eight healthy ones", Box::new(regression), Bound::FailedAtLeast(0.95)),
    ]
}

fn rows() -> Vec<Row> {
    let usual = Scenario::default();
    let latency = |ratio, from| Scenario { change: Change::Latency { ratio, from }, ..usual };
    let mut rows = Vec::new();
    for autocorrelation in [0.0, 0.3, 0.5, 0.7, 0.9] {
        let name = format!("healthy, AR(1) {autocorrelation}");
        rows.push(row(name, Scenario { autocorrelation, ..usual }, Bound::FailedAtMost(0.01)));
    }
    let half = Scenario { autocorrelation: 0.5, ..usual };
    rows.push(row("healthy, daily season", Scenario { season: 0.5, ..half }, Bound::FailedAtMost(0.01)));
    let trend = Scenario { trend_per_hour: 0.1, ..half };
    rows.push(row("healthy, +10 % an hour", trend, Bound::FailedAtMost(0.01)));
    let job = Scenario { nightly: 0.5, ..half };
    rows.push(row("healthy, nightly job of +65 %", job, Bound::FailedAtMost(0.01)));
    rows.push(row("+20 %, 60 min", latency(1.2, 0), Bound::FailedAtLeast(0.95)));
    rows.push(row("+20 % in the last quarter", latency(1.2, 45), Bound::FailedAtLeast(0.95)));
    rows.push(row("+5 %", latency(1.05, 0), Bound::FailedAtMost(0.15)));
    let any = MinimumEffect { relative: Some(0.0), absolute: None };
    let settings = MetricSettings { minimum_effect: any, ..MetricSettings::default() };
    let small = latency(1.05, 0);
    rows.push(Row {
        name: "+5 %, minimum effect 0".into(),
        case: Box::new(move |seed| small.case(seed).with_settings("response_time", settings.clone())),
        bound: Bound::FailedAtLeast(0.60),
    });
    let errors = Scenario { change: Change::Errors { share: 0.004 }, ..usual };
    rows.push(row("errors 0.1 % to 0.4 %", errors, Bound::FailedAtLeast(0.95)));
    let spread = Scenario { change: Change::Spread { factor: 2.0 }, window_min: 30, ..usual };
    rows.push(row("standard deviation x2, 30 min", spread, Bound::FailedAtLeast(0.95)));
    for minutes in [1, 2] {
        let change = Change::Spike { ratio: 5.0, from: 20, minutes };
        let name = format!("x5 for {minutes} min: passes as transient");
        rows.push(row(name, Scenario { change, ..usual }, Bound::TransientAtLeast(0.95)));
    }
    rows.extend(rows_with_neighbours());
    rows
}

fn share(judgements: &[Judgement], is: impl Fn(&Judgement) -> bool) -> f64 {
    judgements.iter().filter(|judgement| is(judgement)).count() as f64 / judgements.len() as f64
}

fn main() -> std::io::Result<std::process::ExitCode> {
    let mut out = std::io::stdout().lock();
    let number = |n: usize, default: u64| {
        let given = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).nth(n);
        given.unwrap_or(default)
    };
    let (seed, cases) = (number(0, 1), number(1, 1000));
    writeln!(out, "seed {seed}, {cases} deployments a row, judged every minute")?;
    writeln!(out, "{:36} {:>8} {:>8} {:>10}  bound", "scenario", "failed", "passed", "median min")?;
    let mut missed = false;
    for row in rows() {
        let one = |i: u64| judge(&(row.case)(seed * 1_000_003 + i), &JudgeSettings::default());
        let judgements: Vec<Judgement> = (0..cases).into_par_iter().map(one).collect();
        let failed = share(&judgements, |j| j.outcome == Some(Outcome::Fail));
        let passed = share(&judgements, |j| j.outcome == Some(Outcome::Pass));
        let transient = share(&judgements, |j| j.outcome == Some(Outcome::Pass) && j.transient);
        let mut minutes: Vec<i64> = judgements.iter().filter_map(|j| j.failed_at_minute).collect();
        minutes.sort_unstable();
        let median = minutes.get(minutes.len() / 2).map_or("-".to_owned(), ToString::to_string);
        let (met, bound) = match row.bound {
            Bound::FailedAtMost(most) => (failed <= most, format!("failed <= {most}")),
            Bound::FailedAtLeast(least) => (failed >= least, format!("failed >= {least}")),
            Bound::TransientAtLeast(least) => {
                (transient >= least, format!("transient {transient:.3} >= {least}"))
            }
        };
        missed |= !met;
        let mark = if met { "" } else { "  MISSED" };
        writeln!(out, "{:36} {failed:8.3} {passed:8.3} {median:>10}  {bound}{mark}", row.name)?;
    }
    Ok(std::process::ExitCode::from(u8::from(missed)))
}
