//! The evidence of a case: it is the judgement's own, and its bundle replays to the same judgement, bit for bit.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../benches/generator/mod.rs"]
#[allow(dead_code, reason = "the generator serves other tests besides")]
mod generator;

use generator::{Change, Random, Scenario};
use std::collections::BTreeMap;
use vouch_analyzer::case::{Case, CaseMetric, HostGroup};
use vouch_analyzer::evidence::{self, Evidence, bundle};
use vouch_analyzer::judge::{Ending, JudgeSettings, judge, judge_recorded, judge_until};
use vouch_proto::{
    Cause, Direction, MetricSettings, Name, Outcome, Sensitivity, Strategy, Timestamp, Verdict, Window,
};

fn of(case: &Case) -> Evidence {
    evidence::of_case(case, &JudgeSettings::default()).unwrap()
}

fn slow(ratio: f64) -> Scenario {
    Scenario { change: Change::Latency { ratio, from: 0 }, window_min: 30, ..Scenario::default() }
}

/// Two canaries beside three controls; the first one is slow.
fn canary(seed: u64) -> Case {
    let random = &mut Random::new(seed);
    let mut case = Case::new("canary", Strategy::Canary, 1, [0, 30])
        .with_baseline([-60, 0])
        .with_metric("response_time", CaseMetric::judged("ms", Direction::Increase))
        .with_metric("throughput", CaseMetric::judged("1/min", Direction::Decrease))
        .with_metric("errors", CaseMetric::count("1/min", "throughput"));
    for (host, group) in ["c1", "c2", "c3", "t1", "t2"].map(|host| (host, host.starts_with('t'))) {
        let (group, switch) = if group { (HostGroup::Test, Some(2)) } else { (HostGroup::Control, None) };
        case = case.with_host(host, group, switch);
        let mut rows: [Vec<Option<f64>>; 3] = Default::default();
        for minute in -60..30 {
            let lift = if host == "t1" && minute >= 2 { 0.5 } else { 0.0 };
            let requests = (300.0 * (0.05 * random.normal()).exp()).round();
            rows[0].push((minute != 9).then(|| 80.0 * (lift + 0.06 * random.normal()).exp()));
            rows[1].push(Some(requests));
            rows[2].push(Some(random.poisson(0.002 * requests).min(requests)));
        }
        for (metric, row) in ["response_time", "throughput", "errors"].into_iter().zip(rows) {
            case = case.with_series(metric, host, -60, row);
        }
    }
    case
}

fn verdict() -> Verdict {
    let at: Timestamp = "2026-11-24T10:30:00Z".parse().unwrap();
    let name = |text: &str| Name::new(text).unwrap();
    Verdict {
        verification_id: "01J.1".to_owned(),
        deployment_id: "01J".to_owned(),
        revision: 0,
        outcome: Outcome::Pass,
        rollback_grade: false,
        cause: Cause::Healthy,
        data_final: true,
        risk: 0.2,
        reason: "Nothing got worse".to_owned(),
        metrics: Vec::new(),
        judge_version: "1".to_owned(),
        template: "golden-signals".to_owned(),
        strategy: Strategy::Canary,
        strategy_reason: "asked for".to_owned(),
        baseline: Vec::new(),
        verification: Window::around(at, 0, 30).ok(),
        service: name("checkout"),
        environment: name("prod"),
        version: name("2"),
        previous_version: None,
        owner: None,
        cluster: None,
        workload: None,
        decided_at: at,
        failed_at_minute: None,
        usable_minutes: 30,
        transient: false,
        sensitivity: None,
        passed_at_minute: None,
        diluted_share: None,
        smallest_effects: Vec::new(),
        levels: None,
        reached: None,
        common_cause: None,
        left_out: Vec::new(),
        problems: Vec::new(),
        objectives: Vec::new(),
    }
}

#[test]
fn evidence_says_what_was_there_what_was_expected_and_since_when() {
    let evidence = of(&slow(1.5).case(3));
    assert_eq!(evidence.judgement, judge(&slow(1.5).case(3), &JudgeSettings::default()));
    let worst = &evidence.units[0];
    assert!(worst.metrics.iter().any(|metric| metric.starts_with("response_time")), "{:?}", worst.metrics);
    assert!(worst.ln_evidence() >= worst.needed && worst.since.is_some());
    let minute = usize::try_from(evidence.judgement.failed_at_minute.unwrap()).unwrap();
    assert_eq!((worst.steps.len(), worst.word().len(), worst.before.len()), (minute, minute, 60));
    let last = worst.steps.last().unwrap();
    assert!(last.observed > 1.2 * last.expected && last.state.starts_with("worse"), "{last:?}");
    assert!(last.band[0] < last.expected && last.expected < last.band[1]);
    assert_eq!(worst.states().iter().map(|(_, steps)| steps).sum::<usize>(), minute);
    let counts = evidence.units.iter().find(|unit| unit.is_share).unwrap();
    assert!(counts.word().is_empty() && counts.steps.iter().all(|step| step.observed < 0.05));
}

#[test]
fn hosts_and_all_of_them_have_evidence_from_their_switch_on() {
    let evidence = of(&canary(5));
    assert_eq!(evidence.judgement.outcome, Some(Outcome::Fail));
    let unit = |host: &str| {
        let of_latency =
            |unit: &&evidence::UnitEvidence| unit.metrics == ["response_time"] && unit.host == host;
        evidence.units.iter().find(of_latency).unwrap()
    };
    assert!(evidence.units.iter().all(|unit| unit.steps[..2].iter().all(|step| step.observed.is_nan())));
    assert!(unit("t1").ln_evidence() > unit("t2").ln_evidence());
    assert!((60.0..100.0).contains(&unit("*").steps[5].expected), "{:?}", unit("*").steps[5]);
    let throughput = evidence.units.iter().find(|unit| unit.metrics == ["throughput"]).unwrap();
    assert!((throughput.steps[4].observed - 300.0).abs() < 60.0, "{:?}", throughput.steps[4]);
}

#[test]
fn a_bundle_replays_to_the_same_judgement() {
    let low = MetricSettings { sensitivity: Some(Sensitivity::Low), ..MetricSettings::DEFAULT };
    let early = JudgeSettings { ending: Ending { early_pass: true, extension_min: 5 }, ..Default::default() };
    let quiet = Scenario { noise: 0.03, requests: 4000.0, ..Scenario::default() };
    let cases = [
        (slow(1.5).case(1), JudgeSettings::default(), 30),
        (slow(1.02).case(2).with_settings("cpu", low), JudgeSettings::default(), 30),
        (canary(7).with_restart("t2", 9), JudgeSettings::default(), 30),
        (canary(8), JudgeSettings::default(), 12),
        (quiet.case(4), early, 60),
    ];
    for (case, settings, seen) in cases {
        let live = judge_until(&case, seen, &settings);
        let recorded = Case { minutes_seen: Some(seen), judged_with: Some(settings), ..case };
        let queries: BTreeMap<String, String> = [("cpu".to_owned(), "builtin:cpu".to_owned())].into();
        let about = bundle::About { verdict: verdict(), queries };
        let text = bundle::write(&recorded, about.clone());
        let read = Case::from_json(&text).unwrap();
        assert_eq!(read, recorded);
        assert_eq!(bundle::about(&text).unwrap(), Some(about));
        let replayed = judge_recorded(&read, &JudgeSettings::default());
        assert_eq!(replayed, live);
        assert_eq!(replayed.risk.to_bits(), live.risk.to_bits());
        let mut output = Vec::new();
        let text = format!("{text}\n");
        vouch_analyzer::offline::run(text.as_bytes(), &mut output, &JudgeSettings::default(), 1).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&output).unwrap();
        assert_eq!(line["reason"], live.reason);
        assert_eq!(line["failed_at_minute"], serde_json::json!(live.failed_at_minute));
    }
}

#[test]
fn a_case_is_no_bundle_and_a_damaged_one_is_refused() {
    let case = serde_json::Value::Object(canary(1).to_json()).to_string();
    assert_eq!(bundle::about(&case), Ok(None));
    let damaged = case.replacen('{', "{\"evidence\":{\"verdict\":{\"outcome\":\"OUTCOME_PASS\"}},", 1);
    let said = bundle::about(&damaged).unwrap_err().to_string();
    assert!(said.contains("evidence.verdict.verification_id"), "{said}");
}
