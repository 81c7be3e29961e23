//! Ending early or late, on generated series: what is excluded is not there, and nothing is passed on silence.

#[path = "../benches/generator/mod.rs"]
#[allow(dead_code, reason = "the generator serves other tests besides")]
mod generator;

use generator::{Change, Scenario};
use vouch_analyzer::judge::{Ending, JudgeSettings, Judgement, judge, judge_until};
use vouch_proto::Outcome;

const EARLY: JudgeSettings = with(Ending { early_pass: true, extension_min: 0 });

const fn with(ending: Ending) -> JudgeSettings {
    let thresholds = vouch_analyzer::sequential::Thresholds { fail: 4.0, fail_at_end: 1.5, rollback: 5.7 };
    JudgeSettings { thresholds, evidence_alone: false, ending }
}

fn quiet(change: Change) -> Scenario {
    Scenario { noise: 0.04, requests: 3000.0, change, ..Scenario::default() }
}

fn runs(scenario: Scenario, settings: &JudgeSettings) -> Vec<Judgement> {
    (0..60).map(|seed| judge(&scenario.case(seed), settings)).collect()
}

fn early(judgements: &[Judgement]) -> usize {
    judgements.iter().filter(|judgement| judgement.passed_at_minute.is_some()).count()
}

#[test]
fn the_settings_of_this_test_are_the_defaults_but_for_the_ending() {
    assert_eq!(with(Ending::default()), JudgeSettings::default());
}

#[test]
fn a_quiet_healthy_service_passes_early_and_a_loud_one_at_the_end() {
    let quiet = runs(quiet(Change::None), &EARLY);
    assert!(early(&quiet) >= 54, "{} of 60", early(&quiet));
    let minutes = quiet.iter().filter_map(|judgement| judgement.passed_at_minute);
    assert!(minutes.clone().all(|minute| (10..60).contains(&minute)), "{:?}", minutes.collect::<Vec<_>>());
    let loud = runs(Scenario { noise: 0.4, autocorrelation: 0.6, ..Scenario::default() }, &EARLY);
    assert_eq!(early(&loud), 0);
    assert!(loud.iter().filter(|judgement| judgement.outcome == Some(Outcome::Pass)).count() >= 57);
}

#[test]
fn what_is_there_from_the_start_is_not_excluded() {
    for change in [
        Change::Latency { ratio: 1.08, from: 0 },
        Change::Latency { ratio: 1.3, from: 0 },
        Change::Errors { share: 0.01 },
    ] {
        let judgements = runs(quiet(change), &EARLY);
        assert!(early(&judgements) <= 3, "{change:?}: {} of 60 passed early", early(&judgements));
    }
}

#[test]
fn an_extension_looks_no_earlier_than_at_the_end_of_the_window_and_gains_the_rest() {
    let settings = with(Ending { early_pass: false, extension_min: 30 });
    for judgement in runs(quiet(Change::None), &settings) {
        assert!(judgement.passed_at_minute.is_none_or(|minute| minute >= 30), "{judgement:?}");
    }
    let late = quiet(Change::Latency { ratio: 1.4, from: 29 });
    let failed = |judgement: &Judgement| judgement.outcome == Some(Outcome::Fail);
    let found = runs(late, &settings).iter().filter(|judgement| failed(judgement)).count();
    assert!(found >= 54, "{found} of 60 that begin in the last minute of the window");
}

#[test]
fn what_was_passed_early_stays_so_whatever_comes_later_and_silence_is_never_excluded() {
    for seed in 0..12 {
        let case = quiet(Change::None).case(seed);
        let Some(minute) = judge(&case, &EARLY).passed_at_minute else { continue };
        let known = judge_until(&case, minute, &EARLY);
        assert_eq!((known.outcome, known.passed_at_minute), (Some(Outcome::Pass), Some(minute)));
        assert_eq!(judge_until(&case, minute - 1, &EARLY).outcome, None);
        let mut silent = case;
        silent.series.retain(|series| series.metric != "response_time_p95");
        let baseline = quiet(Change::None).case(seed);
        let past = baseline.series.into_iter().find(|series| series.metric == "response_time_p95");
        silent.series.extend(past.map(|mut series| {
            series.values.truncate(180);
            series
        }));
        assert_eq!(judge(&silent, &EARLY).passed_at_minute, None, "seed {seed}");
    }
}
