//! Analyze on any message: a refusal that names a field, or a verdict; never a panic, never a Pass on nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use vouch_analyzer::analysis::{Draft, Refusal};
use vouch_proto::{Outcome, Timestamp, v1};

/// Steps of all windows times series: beyond it one input takes seconds, and finds nothing more.
const MAX_CELLS: i64 = 20_000;

fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = v1::AnalyzeRequest::decode(bytes) else { return };
    let analysis = match Draft::whole(request, Timestamp::from_millis(1_795_514_400_000)) {
        Ok(analysis) => analysis,
        Err(Refusal::Wrong(invalid)) => return assert!(!invalid.violations.is_empty()),
        Err(Refusal::TooMuch(violation)) => return assert!(!violation.field.is_empty()),
    };
    let case = analysis.case();
    let windows = case.baseline.iter().chain([&case.verification]);
    let steps: i64 = windows.map(|[start, end]| (end - start) / case.interval_min).sum();
    let size = i64::try_from(case.series.len().max(1)).unwrap_or(i64::MAX);
    if steps.saturating_mul(size) > MAX_CELLS {
        return;
    }
    let silent = case.series.iter().all(|series| series.values.iter().all(Option::is_none));
    let verdict = analysis.judge(&|| true);
    assert!(!silent || verdict.outcome != Outcome::Pass, "a Pass on nothing");
    assert!((0.0..=1.0).contains(&verdict.risk), "risk {}", verdict.risk);
});
