//! What must hold for every judgement, whatever the data: nothing looks ahead, no order and no unit matters,
//! silence never passes, and bigger regressions are never called smaller.

#[path = "../benches/generator/mod.rs"]
mod generator;

use generator::{Change, Random, Scenario};
use proptest::prelude::*;
use vouch_analyzer::case::{Case, CaseMetric, HostGroup};
use vouch_analyzer::judge::{JudgeSettings, Judgement, judge, judge_until};
use vouch_analyzer::offline;
use vouch_proto::{Classification, Direction, Outcome, Strategy as Compare};

fn settings() -> JudgeSettings {
    JudgeSettings::default()
}

/// A small case of any strategy, with gaps, restarts and, at times, a regression.
fn any_case(seed: u64) -> Case {
    let random = &mut Random::new(seed);
    let strategy = [Compare::Previous, Compare::Canary, Compare::Rolling][(random.uniform() * 3.0) as usize];
    let window = 12 + (random.uniform() * 20.0) as i64;
    let mut case = Case::new("any", strategy, 1, [0, window])
        .with_baseline([-60, 0])
        .with_baseline([-1500, -1470])
        .with_metric("response_time", CaseMetric::judged("ms", Direction::Increase))
        .with_metric("response_time_p95", CaseMetric::judged("ms", Direction::Increase))
        .with_metric("cpu", CaseMetric::judged("%", Direction::Either))
        .with_metric("throughput", CaseMetric::judged("1/min", Direction::Decrease))
        .with_metric("errors", CaseMetric::count("1/min", "throughput"));
    for (i, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let is_control = strategy == Compare::Canary && i < 2;
        let switch = if strategy == Compare::Rolling { 4 * i as i64 } else { 0 };
        let group = if is_control { HostGroup::Control } else { HostGroup::Test };
        case = case.with_host(name, group, (!is_control).then_some(switch));
    }
    let lift = if random.uniform() < 0.5 { 0.5 } else { 0.0 };
    for host in ["a", "b", "c", "d"] {
        for (metric, usual) in [
            ("response_time", 80.0),
            ("response_time_p95", 200.0),
            ("cpu", 30.0),
            ("throughput", 300.0),
            ("errors", 1.0),
        ] {
            for (start, end) in [(-60, window), (-1500, -1470)] {
                let value = |minute: i64| {
                    let is_new = case.hosts[host].switch.is_some_and(|switch| minute >= switch);
                    let up = if is_new && metric != "errors" { lift } else { 0.0 };
                    let gap = random.uniform() < 0.05;
                    let value = usual * (up + 0.1 * random.normal()).exp();
                    (!gap).then_some(if usual == 1.0 { value.round() } else { value })
                };
                case.series.push(vouch_analyzer::case::CaseSeries {
                    metric: metric.to_owned(),
                    host: host.to_owned(),
                    start,
                    values: (start..end).map(value).collect(),
                });
            }
        }
    }
    case
}

/// The case with every sample from minute `t` on removed.
fn without_the_future(case: &Case, t: i64) -> Case {
    let mut cut = case.clone();
    for series in &mut cut.series {
        let keep = usize::try_from(t - series.start).unwrap_or(0);
        series.values.truncate(keep);
    }
    cut
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_looks_ahead(seed in any::<u64>(), part in 0.0..1.0_f64) {
        let case = any_case(seed);
        let t = (part * case.verification[1] as f64) as i64;
        let known = judge_until(&case, t, &settings());
        prop_assert_eq!(&known, &judge_until(&without_the_future(&case, t), t, &settings()));
        let whole = judge(&case, &settings());
        match whole.failed_at_minute {
            Some(minute) if minute <= t => prop_assert_eq!(&known, &whole),
            Some(_) | None => prop_assert_eq!(known.failed_at_minute, None),
        }
    }

    #[test]
    fn the_last_minute_is_the_whole_judgement(seed in any::<u64>()) {
        let case = any_case(seed);
        prop_assert_eq!(judge(&case, &settings()), judge_until(&case, case.verification[1], &settings()));
    }

    #[test]
    fn order_does_not_matter(seed in any::<u64>()) {
        let case = any_case(seed);
        let mut turned = case.clone();
        turned.series.reverse();
        turned.baseline.reverse();
        prop_assert_eq!(judge(&case, &settings()), judge(&turned, &settings()));
    }

    #[test]
    fn units_do_not_matter(seed in any::<u64>(), power in -9..=9_i32) {
        let case = any_case(seed);
        let mut scaled = case.clone();
        let factor = 10.0_f64.powi(power);
        for series in &mut scaled.series {
            if !["throughput", "errors"].contains(&series.metric.as_str()) {
                series.values.iter_mut().flatten().for_each(|value| *value *= factor);
            }
        }
        let (ours, theirs) = (judge(&case, &settings()), judge(&scaled, &settings()));
        prop_assert_eq!(ours.outcome, theirs.outcome);
        prop_assert_eq!(ours.failed_at_minute, theirs.failed_at_minute);
    }

    #[test]
    fn risk_is_one_exactly_when_it_fails(seed in any::<u64>()) {
        let judgement = judge(&any_case(seed), &settings());
        prop_assert_eq!(judgement.risk == 1.0, judgement.outcome == Some(Outcome::Fail));
        prop_assert_eq!(judgement.failed_at_minute.is_some(), judgement.outcome == Some(Outcome::Fail));
        prop_assert!(judgement.metrics.iter().all(|unit| (0.0..=1.0).contains(&unit.risk)));
        let is_flagged = |class| matches!(class, Classification::High | Classification::Low);
        prop_assert!(judgement.metrics.iter().all(|unit| is_flagged(unit.classification) == (unit.risk == 1.0)));
        let order = |a: &(f64, &str, &str), b: &(f64, &str, &str)| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2)));
        let keys: Vec<_> =
            judgement.metrics.iter().map(|unit| (unit.risk, unit.metric.as_str(), unit.host.as_str())).collect();
        prop_assert!(keys.is_sorted_by(|a, b| order(a, b).is_le()));
    }

    #[test]
    fn wild_values_never_panic(values in prop::collection::vec(
        prop::option::of(prop::sample::select(vec![0.0, 1e308, 1e-308, 5e-324, 1.0, 7.5])), 40), step in 1..6_i64)
    {
        let mut case = Scenario { window_min: 10, ..Scenario::default() }.case(1);
        case.series.clear();
        case.interval_min = step;
        case.verification = [0, 10 * step];
        case.baseline = vec![[-30 * step, 0]];
        for metric in case.metrics.keys() {
            case.series.push(vouch_analyzer::case::CaseSeries {
                metric: metric.clone(), host: "svc".to_owned(), start: -30 * step, values: values.clone(),
            });
        }
        let judgement = judge(&case, &settings());
        prop_assert!(judgement.outcome.is_some() && judgement.risk.is_finite());
    }
}

fn usual(change: Change) -> Case {
    Scenario { change, window_min: 30, ..Scenario::default() }.case(3)
}

fn outcome_without(case: &Case, is_gone: impl Fn(&str, i64) -> bool) -> Judgement {
    let mut case = case.clone();
    for series in &mut case.series {
        for (i, value) in series.values.iter_mut().enumerate() {
            if is_gone(&series.metric, series.start + i as i64) {
                *value = None;
            }
        }
    }
    judge(&case, &settings())
}

#[test]
fn silence_never_passes() {
    let case = usual(Change::None);
    assert_eq!(judge(&case, &settings()).outcome, Some(Outcome::Pass));
    let none = outcome_without(&case, |_, minute| minute >= 0);
    assert_eq!((none.outcome, none.usable_minutes), (Some(Outcome::Inconclusive), 0));
    assert!(none.metrics.iter().all(|unit| unit.classification == Classification::NoData));
    let four = outcome_without(&case, |_, minute| minute >= 4);
    assert_eq!((four.outcome, four.usable_minutes), (Some(Outcome::Inconclusive), 4));
    assert!(four.reason.contains("only 4 usable minutes"), "{}", four.reason);
    let past = outcome_without(&case, |_, minute| minute < 0);
    assert_eq!(past.outcome, Some(Outcome::Inconclusive));
    assert_eq!(judge_until(&case, 29, &settings()).outcome, None);
}

#[test]
fn a_service_that_goes_silent_never_passes() {
    let case = usual(Change::None);
    for last in [6, 20] {
        let silent = outcome_without(&case, |_, minute| minute >= last);
        assert_eq!(silent.outcome, Some(Outcome::Inconclusive), "{}", silent.reason);
        assert!(silent.reason.contains("last minutes of the window"), "{}", silent.reason);
    }
}

#[test]
fn a_metric_with_nothing_to_compare_it_with_never_passes() {
    let case = usual(Change::None);
    let unreferenced = outcome_without(&case, |metric, minute| metric == "error_count" && minute < 0);
    assert_eq!(unreferenced.outcome, Some(Outcome::Inconclusive), "{}", unreferenced.reason);
    assert!(unreferenced.reason.contains("error_count"), "{}", unreferenced.reason);
}

#[test]
fn no_traffic_never_passes() {
    let mut case = usual(Change::None);
    for series in
        case.series.iter_mut().filter(|series| series.metric == "throughput" || series.metric == "load")
    {
        let from = usize::try_from(-series.start + 15).unwrap();
        series.values[from..].fill(Some(0.0));
    }
    let judgement = judge(&case, &settings());
    assert_ne!(judgement.outcome, Some(Outcome::Pass), "{}", judgement.reason);
}

#[test]
fn nothing_judged_never_passes() {
    let mut case = usual(Change::None);
    for (name, _) in case.metrics.iter().filter(|(_, metric)| metric.is_judged()) {
        case.template.metrics.entry(name.clone()).or_default().muted = true;
    }
    let judgement = judge(&case, &settings());
    assert_eq!(judgement.outcome, Some(Outcome::Inconclusive));
    assert!(judgement.reason.contains("context or muted"), "{}", judgement.reason);
}

#[test]
fn a_case_that_cannot_be_judged_is_an_error() {
    let mut case = usual(Change::None);
    case.interval_min = 0;
    let judgement = judge(&case, &settings());
    assert_eq!(judgement.outcome, Some(Outcome::Error));
    assert!(judgement.reason.contains("interval_min: is 0"), "{}", judgement.reason);
}

#[test]
fn under_five_usable_minutes_may_fail() {
    let case = usual(Change::Latency { ratio: 4.0, from: 0 });
    let judgement = outcome_without(&case, |_, minute| minute >= 4);
    assert_eq!(judgement.outcome, Some(Outcome::Fail), "{}", judgement.reason);
    assert!(judgement.usable_minutes < 5);
}

#[test]
fn the_reported_effect_grows_with_the_regression() {
    let effect = |ratio: f64| {
        let judgement = judge_until(&usual(Change::Latency { ratio, from: 0 }), 2, &settings());
        let unit = judgement.metrics.iter().find(|unit| unit.metric == "response_time").cloned();
        unit.unwrap().effect
    };
    let effects: Vec<f64> = [1.0, 1.1, 1.2, 1.4, 2.0].into_iter().map(effect).collect();
    assert!(effects.is_sorted_by(|a, b| a < b), "{effects:?}");
}

#[test]
fn a_short_spike_passes_and_is_told() {
    let judgement = judge(&usual(Change::Spike { ratio: 5.0, from: 12, minutes: 1 }), &settings());
    assert_eq!((judgement.outcome, judgement.transient), (Some(Outcome::Pass), true), "{}", judgement.reason);
    assert!(!judge(&usual(Change::None), &settings()).transient);
}

#[test]
fn errors_and_spread_are_found_and_named() {
    let blamed = |change| {
        let judgement = judge(&usual(change), &settings());
        assert_eq!(judgement.outcome, Some(Outcome::Fail), "{}", judgement.reason);
        let is_high = |unit: &&vouch_analyzer::judge::UnitResult| unit.classification == Classification::High;
        judgement.metrics.iter().filter(is_high).map(|unit| unit.metric.clone()).collect::<Vec<_>>()
    };
    assert_eq!(blamed(Change::Errors { share: 0.02 }), ["error_count"]);
    assert!(blamed(Change::Spread { factor: 4.0 }).iter().all(|metric| metric.starts_with("response_time")));
}

#[test]
fn a_failure_says_what_where_how_much_and_since_when() {
    let judgement = judge(&usual(Change::Latency { ratio: 1.6, from: 5 }), &settings());
    assert_eq!(judgement.outcome, Some(Outcome::Fail));
    for word in ["response_time", "svc", "%", "before the deployment", "since minute"] {
        assert!(judgement.reason.contains(word), "{word} is missing in: {}", judgement.reason);
    }
    assert!(judgement.failed_at_minute.is_some_and(|minute| (6..20).contains(&minute)));
}

#[test]
fn lines_are_judged_in_order_on_any_number_of_threads_bit_for_bit() {
    let lines: String =
        (0..20).map(|i| if i == 7 { "{\"id\":\"odd\"}\n".to_owned() } else { to_json(i) }).collect();
    let run = |threads| {
        let mut out = Vec::new();
        let summary = offline::run(lines.as_bytes(), &mut out, &settings(), threads).unwrap();
        assert_eq!((summary.cases, summary.malformed), (20, 1));
        String::from_utf8(out).unwrap()
    };
    let alone = run(1);
    assert_eq!(alone, run(4));
    let odd: serde_json::Value = serde_json::from_str(alone.lines().nth(7).unwrap()).unwrap();
    assert_eq!(
        (odd["id"].as_str(), odd["outcome"].as_str(), odd["line"].as_u64()),
        (Some("odd"), Some("error"), Some(8))
    );
    let ids =
        alone.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone());
    assert_eq!(ids.take(3).collect::<Vec<_>>(), ["case-0", "case-1", "case-2"]);
    let packed = {
        use std::io::Write;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(lines.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let mut out = Vec::new();
    offline::run(packed.as_slice(), &mut out, &settings(), 2).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), alone);
    assert!(offline::run(&packed[..packed.len() / 2], &mut Vec::new(), &settings(), 2).is_err());
}

/// A generated case as a line of JSON, with labels that the judge must not read.
fn to_json(i: u64) -> String {
    let change = if i.is_multiple_of(2) { Change::None } else { Change::Latency { ratio: 1.5, from: 0 } };
    let case = Scenario { change, window_min: 15, ..Scenario::default() }.case(i);
    let word = |bad| {
        if bad == Direction::Decrease {
            "down"
        } else if bad == Direction::None {
            "none"
        } else {
            "up"
        }
    };
    let metrics: serde_json::Map<_, _> = case
        .metrics
        .iter()
        .map(|(name, m)| {
            let role = if m.is_judged() { "judged" } else { "context" };
            (
                name.clone(),
                serde_json::json!({"unit": m.unit, "bad": word(m.bad), "exposure": m.exposure, "role": role}),
            )
        })
        .collect();
    let series: Vec<_> = case
        .series
        .iter()
        .map(
            |s| serde_json::json!({"metric": s.metric, "host": s.host, "start": s.start, "values": s.values}),
        )
        .collect();
    let line = serde_json::json!({
        "id": format!("case-{i}"), "kind": "previous", "interval_min": 1, "baseline": case.baseline,
        "verification": case.verification, "metrics": metrics, "label": {"verdict": "pass"}, "source": "x",
        "hosts": {"svc": {"group": "service", "switch": 0}}, "series": series,
    });
    format!("{line}\n")
}
