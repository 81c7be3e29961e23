//! The case reader and the judge on any text: a refusal or a judgement, never a panic, never a Pass on nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vouch_analyzer::case::Case;
use vouch_analyzer::judge::{JudgeSettings, judge};
use vouch_proto::Outcome;

/// Steps of all windows times series: beyond it one input takes seconds, and finds nothing more.
const MAX_CELLS: i64 = 20_000;

fuzz_target!(|text: &str| {
    let Ok(case) = Case::from_json(text) else { return };
    let windows = case.baseline.iter().chain([&case.verification]);
    let steps: i64 = windows.map(|[start, end]| (end - start) / case.interval_min).sum();
    let size = i64::try_from(case.series.len().max(1)).unwrap_or(i64::MAX);
    if steps.saturating_mul(size) > MAX_CELLS {
        return;
    }
    let judgement = judge(&case, &JudgeSettings::default());
    let silent = case.series.iter().all(|series| series.values.iter().all(Option::is_none));
    assert!(!silent || judgement.outcome != Some(Outcome::Pass), "a Pass on nothing");
    assert!((0.0..=1.0).contains(&judgement.risk), "risk {}", judgement.risk);
});
