//! Analysis: whole or in pieces, judged like a case; every limit; input that nobody should send.

use super::*;
use proptest::prelude::*;
use vouch_proto::{Limit, MetricSettings, Outcome, When, WireTimestamp};

const ORIGIN: i64 = 1_795_514_400;

fn at(minute: i64) -> Option<WireTimestamp> {
    Some(WireTimestamp { seconds: ORIGIN.saturating_add(minute.saturating_mul(60)), nanos: 0 })
}

fn now() -> Timestamp {
    Timestamp::from_millis(ORIGIN * 1000).plus_minutes(30)
}

fn window(start: i64, end: i64) -> v1::Window {
    v1::Window { start: at(start), end: at(end) }
}

fn metric(name: &str, exposure: &str) -> v1::AnalyzeMetric {
    let direction = v1::Direction::Increase as i32;
    let (unit, settings) = ("ms".into(), None);
    v1::AnalyzeMetric { name: name.into(), unit, direction, exposure: exposure.into(), settings }
}

fn series(metric: &str, host: &str, start: i64, values: Vec<f64>) -> v1::AnalyzeSeries {
    let series = v1::Series { metric: metric.into(), host: host.into(), values, ..Default::default() };
    v1::AnalyzeSeries { start: at(start), series: Some(series) }
}

/// A response time that is 1.0 times as high from minute 0 on, or as given.
fn request(factor: f64) -> v1::AnalyzeRequest {
    let values = (0..80).map(|i| f64::from(100 + i * 7 % 5) * if i < 60 { 1.0 } else { factor }).collect();
    v1::AnalyzeRequest {
        service: "checkout".into(),
        environment: "prod".into(),
        strategy: v1::Strategy::Previous as i32,
        baseline: vec![window(-60, 0)],
        verification: Some(window(0, 20)),
        metrics: vec![metric("response_time", "")],
        resolution_seconds: 60,
        series: vec![series("response_time", "", -60, values)],
        ..Default::default()
    }
}

fn refusal(change: impl FnOnce(&mut v1::AnalyzeRequest)) -> (&'static str, String) {
    let mut wrong = request(1.0);
    change(&mut wrong);
    match analyze(wrong, now()).unwrap_err() {
        Refusal::Wrong(invalid) => ("wrong", invalid.to_string()),
        Refusal::TooMuch(violation) => ("too much", format!("{}: {}", violation.field, violation.message)),
    }
}

#[test]
fn the_verdict_is_that_of_the_judge_on_the_same_case() {
    for factor in [1.0, 1.6] {
        let analysis = Draft::whole(request(factor), now()).unwrap();
        let judgement = judge::judge(analysis.case(), &JudgeSettings::default());
        let verdict = analysis.judge(&|| true);
        assert_eq!(Some(verdict.outcome), judgement.outcome);
        assert_eq!(verdict.reason, judgement.reason);
        assert_eq!(verdict.failed_at_minute.map(i64::from), judgement.failed_at_minute);
        assert_eq!(verdict.outcome == Outcome::Fail, factor > 1.0, "{}", verdict.reason);
    }
}

#[test]
fn pieces_give_the_verdict_of_the_whole() {
    let whole = analyze(request(1.6), now()).unwrap();
    for length in [1, 7, 60, 80] {
        let mut header = request(1.6);
        let values = header.series.remove(0).series.unwrap().values;
        let mut draft = Draft::open(header, now()).unwrap();
        for (i, piece) in (0_i64..).zip(values.chunks(length)) {
            let start = -60 + i * i64::try_from(length).unwrap();
            draft.add(vec![series("response_time", "", start, piece.to_vec())]).unwrap();
        }
        assert_eq!(draft.finish().unwrap().judge(&|| true), whole);
    }
}

#[test]
fn a_request_says_how_its_metrics_are_judged() {
    let plain = analyze(request(1.0), now()).unwrap();
    assert_eq!((plain.outcome, plain.metrics[0].settings.clone()), (Outcome::Pass, None));
    let limit = Limit { absolute: Some(90.0), percent: None, when: When::AtOnce };
    let settings = MetricSettings { fail_fast: Some(limit), ..MetricSettings::DEFAULT };
    let mut asked = request(1.0);
    asked.metrics[0].settings = Some(settings.clone().into());
    let verdict = analyze(asked, now()).unwrap();
    assert_eq!((verdict.outcome, verdict.failed_at_minute), (Outcome::Fail, Some(1)));
    assert!(verdict.metrics[0].fail_fast && !verdict.rollback_grade);
    assert_eq!(verdict.metrics[0].settings, Some(settings));
}

#[test]
fn wrong_settings_are_refused_by_field() {
    let wrong = v1::MetricSettings { sensitivity: 77, weight: Some(f64::NAN), ..Default::default() };
    let (kind, said) = refusal(|r| r.metrics[0].settings = Some(wrong));
    assert!(kind == "wrong" && said.contains("metrics[0].settings.weight"), "{said}");
}

#[test]
fn nobody_waiting_ends_it_undecided() {
    let verdict = Draft::whole(request(1.6), now()).unwrap().judge(&|| false);
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
}

#[test]
fn what_is_too_much_names_field_value_limit_and_remedy() {
    type Change = fn(&mut v1::AnalyzeRequest);
    let cases: [(Change, &str); 8] = [
        (
            |r| r.series = vec![v1::AnalyzeSeries::default(); MAX_SERIES + 1],
            "series: 20001 series, at most 20000 are judged at once; split the hosts",
        ),
        (
            |r| r.series = vec![series("response_time", "", 0, vec![1.0; MAX_SAMPLES + 1])],
            "series: 2000001 samples, at most 2000000 are judged at once; shorten the windows",
        ),
        (
            |r| r.metrics = vec![metric("a", ""); MAX_METRICS + 1],
            "metrics: 201 metrics, at most 200 are judged at once; split the metrics",
        ),
        (
            |r| r.hosts = vec![v1::DeploymentHost::default(); MAX_HOSTS + 1],
            "hosts: 2001 hosts, at most 2000 are judged at once; split the hosts",
        ),
        (
            |r| r.baseline = vec![window(-60, 0); 65],
            "baseline: 65 windows, at most 64 are judged at once; give those",
        ),
        (
            |r| {
                r.series =
                    (0..2001).map(|i| series("response_time", &format!("h{i}"), 0, vec![1.0])).collect()
            },
            "hosts: 2001 hosts, at most 2000",
        ),
        (
            |r| r.verification = Some(window(0, 5_000_000)),
            "verification: 5000062 steps of all windows, at most 4000000",
        ),
        (
            |r| {
                r.baseline = vec![window(-20_000, 0)];
                r.series =
                    (0..300).map(|i| series("response_time", &format!("h{i}"), 0, vec![1.0])).collect();
            },
            "series: 4004400 steps of the windows times series, at most 4000000",
        ),
    ];
    for (change, expected) in cases {
        let (kind, message) = refusal(change);
        assert_eq!(kind, "too much", "{message}");
        assert!(message.starts_with(expected), "{message}\n  instead of\n{expected}");
    }
}

#[test]
fn what_is_wrong_is_named_all_at_once() {
    let (kind, message) = refusal(|r| {
        r.service.clear();
        r.metrics.push(metric("response_time", ""));
        r.resolution_seconds = 90;
        r.verification = None;
        r.template = "golden-signals".into();
    });
    assert_eq!(kind, "wrong");
    for field in ["service", "metrics[1].name", "resolution_seconds", "verification", "template"] {
        assert!(message.contains(&format!("{field}: ")), "{field} in {message}");
    }
    let (_, message) = refusal(|r| {
        let one = |host: &str, start: i64, value: f64| series("response_time", host, start, vec![value]);
        r.series = vec![one("a", 0, f64::NAN), series("x", "", 0, vec![]), one(&"h".repeat(257), 0, 1.0)];
    });
    for field in ["series[0].series.values[0]", "series[1].series.metric", "series[2].series.host"] {
        assert!(message.contains(&format!("{field}: ")), "{field} in {message}");
    }
    let (_, message) = refusal(|r| r.series.push(r.series[0].clone()));
    assert!(message.starts_with("series[1].start: ") && message.contains("overlap"), "{message}");
}

/// Numbers that nobody should send, and some that everybody does.
fn nasty() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..1000.0,
        1 => prop::sample::select(vec![
            f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, -1.0, -0.0, 5e-324, 1e-308, f64::MAX,
        ]),
    ]
}

fn minutes() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -70..30_i64, 1 => prop::sample::select(vec![i64::MIN, i64::MAX, 1 << 40, -(1 << 40)])]
}

prop_compose! {
    fn nasty_series()(
        metric in prop::sample::select(vec!["response_time", "errors", "requests", "unknown", ""]),
        host in prop::sample::select(vec!["", "h0", "h1", "h2", "h9"]),
        start in minutes(),
        values in prop::collection::vec(nasty(), 0..90),
        gaps in prop::collection::vec(0..100_u32, 0..4),
    ) -> v1::AnalyzeSeries {
        let mut one = series(metric, host, start, values);
        one.series.as_mut().unwrap().gaps = gaps;
        one
    }
}

prop_compose! {
    fn nasty_request()(
        strategy in -1..9_i32,
        windows in prop::collection::vec((minutes(), minutes()), 0..3),
        verification in (minutes(), minutes()),
        exposure in prop::sample::select(vec!["", "requests", "missing", "errors"]),
        resolution_seconds in prop::sample::select(vec![0, 60, 60, 60, 61, 300, u32::MAX]),
        hosts in 0..11_usize,
        group in 0..5_i32,
        switched in prop::option::of(minutes()),
        restarted in prop::option::of(minutes()),
        series in prop::collection::vec(nasty_series(), 0..6),
        usual in any::<bool>(),
    ) -> v1::AnalyzeRequest {
        let host = |i| v1::DeploymentHost {
            name: format!("h{i}"), group, switched_at: switched.and_then(at),
            restarted_at: restarted.and_then(at).into_iter().collect(),
        };
        let mut wild = v1::AnalyzeRequest {
            strategy,
            metrics: vec![metric("response_time", ""), metric("errors", exposure), metric("requests", "")],
            hosts: (0..hosts).map(host).collect(),
            resolution_seconds,
            series,
            ..request(1.0)
        };
        if !usual {
            wild.baseline = windows.into_iter().map(|(start, end)| window(start, end)).collect();
            wild.verification = Some(window(verification.0, verification.1));
        }
        wild
    }
}

/// Whether a request has a number in its verification window: without one nothing can be known.
fn tells_nothing(request: &v1::AnalyzeRequest) -> bool {
    request.series.iter().filter_map(|s| s.series.as_ref()).all(|s| s.values.len() <= s.gaps.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_is_sent_there_is_a_refusal_or_a_verdict_and_no_pass_on_nothing(request in nasty_request()) {
        let silent = tells_nothing(&request);
        match analyze(request.clone(), now()) {
            Ok(verdict) => {
                prop_assert!(!(silent && verdict.outcome == Outcome::Pass), "{}", verdict.reason);
                prop_assert!((0.0..=1.0).contains(&verdict.risk));
                prop_assert!(verdict.metrics.iter().all(|m| m.risk.is_finite() && m.score.is_finite()));
                prop_assert_eq!(analyze(request, now()).unwrap(), verdict);
            }
            Err(Refusal::Wrong(invalid)) => prop_assert!(!invalid.violations.is_empty()),
            Err(Refusal::TooMuch(violation)) => prop_assert!(!violation.field.is_empty()),
        }
    }

    #[test]
    fn ten_hosts_of_which_nine_are_empty_never_pass_on_the_empty(values in prop::collection::vec(nasty(), 80)) {
        let mut request = request(1.0);
        let empty = |i: usize| series("response_time", &format!("h{i}"), -60, Vec::new());
        request.series = (1..10).map(empty).collect();
        prop_assert_ne!(analyze(request.clone(), now()).unwrap().outcome, Outcome::Pass);
        request.series.push(series("response_time", "h0", -60, values));
        if let Err(refused) = analyze(request, now()) {
            prop_assert!(matches!(refused, Refusal::Wrong(_)));
        }
    }

    #[test]
    fn the_case_reader_refuses_or_judges_any_text(
        minutes in prop::collection::vec(minutes(), 7),
        step in prop::sample::select(vec![i64::MIN, -1, 0, 1, 1, 5, 1440, i64::MAX]),
        values in prop::collection::vec(prop::sample::select(vec!["1", "1e308", "-1", "null", "1e999", "NaN"]), 0..80),
        kind in prop::sample::select(vec!["previous", "canary", "rolling", "auto", ""]),
        name in prop::sample::select(vec!["", "rt", "\\u0000"]),
        depth in 0..400_usize,
    ) {
        let text = format!(
            "{{\"id\":\"{name}\",\"kind\":\"{kind}\",\"interval_min\":{step},\"baseline\":[[{},{}]],\
             \"verification\":[{},{}],\"metrics\":{{\"{name}\":{{\"bad\":\"up\",\"exposure\":null}}}},\
             \"hosts\":{{\"\":{{\"group\":\"service\",\"switch\":{}}}}},\"deep\":{}{},\
             \"series\":[{{\"metric\":\"{name}\",\"host\":\"\",\"start\":{},\"values\":[{}]}}]}}",
            minutes[0], minutes[1], minutes[2], minutes[3], minutes[4], "[".repeat(depth), "]".repeat(depth),
            minutes[5], values.join(","),
        );
        match Case::from_json(&text) {
            Err(refused) => prop_assert!(!refused.field.is_empty()),
            Ok(case) => {
                let judged = judge::judge(&case, &JudgeSettings::default());
                let nothing = values.iter().all(|v| *v == "null");
                prop_assert!(!(nothing && judged.outcome == Some(Outcome::Pass)), "{}", judged.reason);
            }
        }
    }
}
