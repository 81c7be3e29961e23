//! What the settings of a metric change: each in the direction that a person expects, and none by looking ahead.

use proptest::prelude::*;
use proptest::sample::select;
use vouch_analyzer::case::{Case, CaseMetric, HostGroup};
use vouch_analyzer::judge::{JudgeSettings, Judgement, judge, judge_until};
use vouch_analyzer::offline;
use vouch_proto::{
    Classification, Direction, Limit, MetricSettings, MinimumEffect, OnNoData, Outcome, Sensitivity,
    Strategy as Compare, When,
};

const WINDOW: i64 = 30;
const DEFAULT: MetricSettings = MetricSettings::DEFAULT;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed on any machine.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Mean 0, variance 1, near to normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// One service, half an hour, 5 % noise; `change` says by which factor a metric is off at a minute.
fn service(seed: u64, change: impl Fn(&str, i64) -> f64) -> Case {
    let random = &mut Random::new(seed);
    let mut case = Case::new("small", Compare::Previous, 1, [0, WINDOW])
        .with_baseline([-120, 0])
        .with_metric("response_time", CaseMetric::judged("ms", Direction::Increase))
        .with_metric("cpu", CaseMetric::judged("%", Direction::Increase))
        .with_metric("queue", CaseMetric::judged("", Direction::Increase))
        .with_metric("throughput", CaseMetric::judged("1/min", Direction::Decrease))
        .with_metric("errors", CaseMetric::count("1/min", "throughput"))
        .with_host("service", HostGroup::Service, None);
    for (metric, usual) in
        [("response_time", 80.0), ("cpu", 30.0), ("queue", 10.0), ("throughput", 1000.0), ("errors", 10.0)]
    {
        let value = |minute: i64| {
            let factor = if minute < 0 { 1.0 } else { change(metric, minute) };
            let value = usual * factor * (0.05 * random.normal()).exp();
            Some(if metric == "errors" { value.round() } else { value })
        };
        case = case.with_series(metric, "service", -120, (-120..WINDOW).map(value).collect());
    }
    case
}

/// A metric that is `factor` times what it was, from the start on.
fn lifted(seed: u64, lifted: &'static str, factor: f64) -> Case {
    service(seed, move |metric, _| if metric == lifted { factor } else { 1.0 })
}

fn judged(case: &Case) -> Judgement {
    judge(case, &JudgeSettings::default())
}

fn outcome(case: &Case) -> Option<Outcome> {
    judged(case).outcome
}

/// The minute of a Fail; of none, later than all.
fn failed_at(case: &Case) -> i64 {
    judged(case).failed_at_minute.unwrap_or(i64::MAX)
}

fn limit(absolute: Option<f64>, percent: Option<f64>, when: When) -> Limit {
    Limit { absolute, percent, when }
}

fn fail_fast(limit: Limit) -> MetricSettings {
    MetricSettings { fail_fast: Some(limit), ..DEFAULT }
}

fn ignore(limit: Limit) -> MetricSettings {
    MetricSettings { ignore: Some(limit), ..DEFAULT }
}

fn at_least(relative: Option<f64>, absolute: Option<f64>) -> MetricSettings {
    MetricSettings { minimum_effect: MinimumEffect { relative, absolute }, ..DEFAULT }
}

/// Compares when two ways to judge fail, over small regressions: the first never later, and earlier at times.
fn fails_sooner(first: impl Fn(Case) -> Case, second: impl Fn(Case) -> Case) {
    let mut sooner = 0;
    for seed in 0..20 {
        let case = lifted(seed, "response_time", 1.1);
        let (a, b) = (failed_at(&first(case.clone())), failed_at(&second(case)));
        assert!(a <= b, "seed {seed}: {a} after {b}");
        sooner += usize::from(a < b);
    }
    assert!(sooner > 0, "they are judged alike");
}

fn with(settings: MetricSettings) -> impl Fn(Case) -> Case {
    move |case| case.with_settings("response_time", settings.clone())
}

fn sensitivity(sensitivity: Sensitivity) -> MetricSettings {
    MetricSettings { sensitivity: Some(sensitivity), ..DEFAULT }
}

#[test]
fn higher_sensitivity_fails_on_less() {
    fails_sooner(with(sensitivity(Sensitivity::High)), with(sensitivity(Sensitivity::Medium)));
    fails_sooner(with(sensitivity(Sensitivity::Medium)), with(sensitivity(Sensitivity::Low)));
}

#[test]
fn medium_is_the_default_and_a_metric_outdoes_its_template() {
    let case = lifted(1, "response_time", 1.1);
    assert_eq!(judged(&with(sensitivity(Sensitivity::Medium))(case.clone())), judged(&case));
    let mut template = case.clone();
    template.template.sensitivity = Some(Sensitivity::Low);
    assert!(failed_at(&template) > failed_at(&case));
    for metric in ["response_time", "cpu", "queue", "throughput", "errors"] {
        template = template.with_settings(metric, sensitivity(Sensitivity::Medium));
    }
    assert_eq!(judged(&template), judged(&case));
}

#[test]
fn sensitivity_does_not_move_what_rolling_back_needs() {
    let grade = |word| judged(&with(sensitivity(word))(lifted(3, "response_time", 1.2)));
    let (low, high) = (grade(Sensitivity::Low), grade(Sensitivity::High));
    assert!(low.failed_at_minute < Some(WINDOW) && low.rollback_grade, "{low:?}");
    assert!(high.failed_at_minute < low.failed_at_minute && !high.rollback_grade, "{high:?}");
}

#[test]
fn weight_moves_the_evidence_and_a_critical_metric_decides_alone() {
    let weight = |weight| MetricSettings { weight, ..DEFAULT };
    fails_sooner(with(weight(10.0)), with(DEFAULT));
    fails_sooner(with(DEFAULT), with(weight(0.01)));
    fails_sooner(with(MetricSettings { critical: true, ..DEFAULT }), with(DEFAULT));
    let settings = |critical| with(MetricSettings { critical, ..weight(0.01) });
    let diluted = (0..40).map(|seed| lifted(seed, "response_time", 1.09));
    let found = diluted.filter(|case| outcome(&settings(false)(case.clone())) == Some(Outcome::Pass));
    let alone: Vec<Judgement> = found.map(|case| judged(&settings(true)(case))).collect();
    let failed: Vec<&Judgement> = alone.iter().filter(|said| said.outcome == Some(Outcome::Fail)).collect();
    assert!(!failed.is_empty(), "{} passed without, none fails with it", alone.len());
    for said in failed {
        assert!(said.reason.ends_with("the metric is critical and decides alone"), "{}", said.reason);
    }
}

#[test]
fn a_group_shares_one_weight() {
    let group = MetricSettings { group: Some("saturation".to_owned()), ..DEFAULT };
    let grouped = move |case: Case| {
        ["cpu", "queue"].into_iter().fold(case, |case, metric| case.with_settings(metric, group.clone()))
    };
    // What the two no longer claim, the others have.
    fails_sooner(&grouped, |case| case);
    for seed in 0..10 {
        let case = lifted(seed, "cpu", 1.25);
        assert!(failed_at(&grouped(case.clone())) >= failed_at(&case), "seed {seed}");
    }
}

#[test]
fn a_muted_metric_is_reported_and_never_fails() {
    let case = with(MetricSettings { muted: true, ..DEFAULT })(lifted(1, "response_time", 1.5));
    let said = judged(&case);
    assert_eq!(said.outcome, Some(Outcome::Pass));
    let row = said.metrics.iter().find(|unit| unit.metric == "response_time").unwrap();
    assert_eq!((row.risk, row.classification), (0.0, Classification::Pass));
    assert!(
        row.reason.starts_with("muted: response_time on service is 117 ms instead of "),
        "{}",
        row.reason
    );
    assert!(said.risk < 1.0);
}

#[test]
fn nothing_that_counts_is_inconclusive() {
    let all = |settings: &MetricSettings, case: Case| {
        let names: Vec<String> = case.metrics.keys().cloned().collect();
        names.into_iter().fold(case, |case, metric| case.with_settings(metric, settings.clone()))
    };
    let muted = all(&MetricSettings { muted: true, ..DEFAULT }, lifted(1, "response_time", 1.5));
    assert_eq!(outcome(&muted), Some(Outcome::Inconclusive));
    let ignored = MetricSettings { on_no_data: Some(OnNoData::Ignore), ..DEFAULT };
    let mut silent = all(&ignored, lifted(1, "response_time", 1.0));
    silent.series.iter_mut().for_each(|series| series.values.truncate(120));
    let said = judge_until(&silent, WINDOW, &JudgeSettings::default());
    assert_ne!(said.outcome, Some(Outcome::Pass), "{}", said.reason);
}

#[test]
fn an_absolute_minimum_effect_is_in_the_metrics_own_unit() {
    let case = |settings| with(settings)(lifted(2, "response_time", 1.5));
    assert_eq!(outcome(&case(DEFAULT)), Some(Outcome::Fail));
    assert_eq!(outcome(&case(at_least(None, Some(20.0)))), Some(Outcome::Fail));
    assert_eq!(outcome(&case(at_least(None, Some(60.0)))), Some(Outcome::Pass));
    assert_eq!(outcome(&case(at_least(Some(0.7), None))), Some(Outcome::Pass));
    assert_eq!(outcome(&case(at_least(Some(0.7), Some(20.0)))), Some(Outcome::Pass));
}

#[test]
fn a_minimum_effect_below_the_default_lets_smaller_changes_fail() {
    let fails = |settings: &MetricSettings| {
        let small = |seed| with(settings.clone())(lifted(seed, "response_time", 1.055));
        (0..20).filter(|seed| outcome(&small(*seed)) == Some(Outcome::Fail)).count()
    };
    let (default, one_ms) = (fails(&DEFAULT), fails(&at_least(None, Some(1.0))));
    assert!(default <= 3 && one_ms >= 15, "{default} and {one_ms} of 20");
}

#[test]
fn for_counts_an_absolute_minimum_effect_is_the_rise_of_the_ratio() {
    let case = |settings| lifted(2, "errors", 3.0).with_settings("errors", settings);
    assert_eq!(outcome(&case(DEFAULT)), Some(Outcome::Fail));
    assert_eq!(outcome(&case(at_least(None, Some(0.01)))), Some(Outcome::Fail));
    assert_eq!(outcome(&case(at_least(None, Some(0.05)))), Some(Outcome::Pass));
    assert_eq!(outcome(&case(at_least(Some(4.0), None))), Some(Outcome::Pass));
}

#[test]
fn a_drop_has_a_minimum_effect_too() {
    let case = |settings| lifted(2, "throughput", 0.7).with_settings("throughput", settings);
    assert_eq!(outcome(&case(at_least(None, Some(100.0)))), Some(Outcome::Fail));
    assert_eq!(outcome(&case(at_least(None, Some(500.0)))), Some(Outcome::Pass));
    assert_eq!(outcome(&case(at_least(Some(0.5), None))), Some(Outcome::Pass));
}

/// One minute at five times the usual latency, which is no regression.
fn spike(minutes: i64) -> Case {
    service(
        5,
        move |metric, minute| {
            if metric == "response_time" && (10..10 + minutes).contains(&minute) { 5.0 } else { 1.0 }
        },
    )
}

#[test]
fn a_fail_fast_limit_fails_without_the_statistics_and_says_so() {
    assert_eq!(outcome(&spike(1)), Some(Outcome::Pass));
    let said = judged(&with(fail_fast(limit(Some(200.0), None, When::AtOnce)))(spike(1)));
    assert_eq!((said.outcome, said.failed_at_minute), (Some(Outcome::Fail), Some(11)));
    assert!(!said.rollback_grade, "a limit is no evidence");
    assert!(said.metrics[0].fail_fast && said.metrics[0].classification == Classification::High);
    assert!(
        said.reason.contains("beyond its fail-fast limit of 200 ms (at once; no statistics)"),
        "{}",
        said.reason
    );
    let in_a_row = with(fail_fast(limit(None, Some(100.0), When::AfterInARow(2))));
    assert_eq!(outcome(&in_a_row(spike(1))), Some(Outcome::Pass));
    assert_eq!(failed_at(&in_a_row(spike(2))), 12);
    let alone = JudgeSettings { evidence_alone: true, ..JudgeSettings::default() };
    let case = with(fail_fast(limit(Some(200.0), None, When::AtOnce)))(spike(1));
    assert_eq!(judge(&case, &alone).outcome, Some(Outcome::Pass));
}

#[test]
fn a_fail_fast_limit_of_what_is_bad_when_it_falls() {
    let dip = service(6, |metric, minute| if metric == "throughput" && minute == 20 { 0.3 } else { 1.0 });
    assert_eq!(outcome(&dip), Some(Outcome::Pass));
    let said = judged(&dip.with_settings("throughput", fail_fast(limit(Some(500.0), None, When::AtOnce))));
    assert_eq!((said.failed_at_minute, said.metrics[0].classification), (Some(21), Classification::Low));
}

#[test]
fn a_fail_fast_limit_of_counts_is_a_ratio() {
    let burst = service(7, |metric, minute| if metric == "errors" && minute == 9 { 6.0 } else { 1.0 });
    let said = judged(&burst.with_settings("errors", fail_fast(limit(Some(0.04), None, When::AtOnce))));
    assert_eq!(said.failed_at_minute, Some(10));
    assert!(said.reason.contains("% of the requests, beyond its fail-fast limit of 4 %"), "{}", said.reason);
}

#[test]
fn within_an_ignore_limit_nothing_is_a_regression() {
    let case = |settings| with(settings)(lifted(2, "response_time", 1.5));
    let after = When::After(3);
    assert_eq!(outcome(&case(ignore(limit(Some(200.0), None, after)))), Some(Outcome::Pass));
    assert_eq!(outcome(&case(ignore(limit(Some(100.0), None, after)))), Some(Outcome::Fail));
    assert_eq!(outcome(&case(ignore(limit(None, Some(80.0), after)))), Some(Outcome::Pass));
    assert_eq!(outcome(&case(ignore(limit(None, Some(20.0), after)))), Some(Outcome::Fail));
    assert_eq!(outcome(&case(ignore(limit(Some(100.0), Some(80.0), after)))), Some(Outcome::Pass));
}

/// `queue` has no sample after the deployment, and before it only where asked for.
fn silent_queue(was_measured: bool, on_no_data: Option<OnNoData>) -> Judgement {
    let mut case = service(1, |_, _| 1.0);
    for series in case.series.iter_mut().filter(|series| series.metric == "queue") {
        let from = if was_measured { 120 } else { 0 };
        series.values[from..].iter_mut().for_each(|value| *value = None);
    }
    judged(&case.with_settings("queue", MetricSettings { on_no_data, ..DEFAULT }))
}

#[test]
fn silence_means_what_was_asked_for() {
    let said = |was_measured, word| silent_queue(was_measured, word).outcome.unwrap();
    assert_eq!(said(true, None), Outcome::Inconclusive);
    assert_eq!(said(false, None), Outcome::Pass, "what never was measured is reported");
    assert_eq!(said(true, Some(OnNoData::Ignore)), Outcome::Pass);
    for was_measured in [true, false] {
        assert_eq!(said(was_measured, Some(OnNoData::Inconclusive)), Outcome::Inconclusive);
        let failed = silent_queue(was_measured, Some(OnNoData::Fail));
        assert_eq!((failed.outcome, failed.risk), (Some(Outcome::Fail), 1.0));
        assert!(failed.no_data && !failed.rollback_grade, "{failed:?}");
        assert_eq!(failed.reason, "queue has no sample after the deployment, which fails it (on_no_data)");
        assert_eq!(failed.failed_at_minute, Some(WINDOW), "only when all of the window was seen");
    }
}

#[test]
fn a_case_replays_with_its_settings() {
    let mut settings = fail_fast(limit(Some(200.0), None, When::AfterInARow(2)));
    settings.critical = true;
    let case = with(settings)(spike(2));
    let series: Vec<_> = case
        .series
        .iter()
        .map(
            |s| serde_json::json!({"metric": s.metric, "host": s.host, "start": s.start, "values": s.values}),
        )
        .collect();
    let metrics: serde_json::Map<_, _> = case
        .metrics
        .iter()
        .map(|(name, m)| {
            let metric = serde_json::json!({"unit": m.unit, "bad": m.bad.as_str(), "exposure": m.exposure});
            (name.clone(), metric)
        })
        .collect();
    let text = serde_json::json!({
        "id": "small", "kind": "previous", "interval_min": 1, "baseline": [[-120, 0]], "verification": [0, WINDOW],
        "metrics": metrics, "hosts": {"service": {"group": "service"}}, "series": series,
        "template": case.template.to_words(),
    });
    let read = Case::from_json(&text.to_string()).unwrap();
    assert_eq!(read, case);
    assert_eq!(judged(&read).failed_at_minute, Some(12));
    let mut line = Vec::new();
    offline::run(format!("{text}\n").as_bytes(), &mut line, &JudgeSettings::default(), 1).unwrap();
    let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&line["outcome"], &line["failed_at_minute"]), (&"fail".into(), &12.into()));
}

fn any_limit(level: f64) -> impl Strategy<Value = Limit> {
    let when = select(vec![When::AtOnce, When::After(2), When::After(4), When::AfterInARow(3)]);
    (1..4_u8, 0.5..3.0, 5.0..90.0, when).prop_map(move |(given, absolute, percent, when)| Limit {
        absolute: (given & 1 > 0).then_some(absolute * level),
        percent: (given & 2 > 0).then_some(percent),
        when,
    })
}

/// Any settings of `response_time`, whose level is about 80 ms.
fn any_settings() -> impl Strategy<Value = MetricSettings> {
    let option = proptest::option::of::<proptest::sample::Select<Sensitivity>>;
    let numbers = (0.1..10.0, proptest::option::of(0.0..1.0), proptest::option::of(1.0..60.0));
    let words =
        (option(select(Sensitivity::ALL)), any::<bool>(), proptest::option::of(select(OnNoData::ALL)));
    let limits = (proptest::option::of(any_limit(80.0)), proptest::option::of(any_limit(80.0)));
    (numbers, words, limits).prop_map(
        |((weight, relative, absolute), (sensitivity, critical, on_no_data), (fail_fast, ignore))| {
            MetricSettings {
                minimum_effect: MinimumEffect { relative, absolute },
                sensitivity,
                critical,
                muted: false,
                weight,
                group: None,
                fail_fast,
                ignore,
                on_no_data,
            }
        },
    )
}

/// A small case with a disturbance somewhere and gaps.
fn disturbed(seed: u64) -> Case {
    let random = &mut Random::new(seed ^ 0x5eed);
    let (from, length) = ((random.uniform() * 25.0) as i64, 1 + (random.uniform() * 12.0) as i64);
    let factor = 0.5 + 2.5 * random.uniform();
    let mut case = service(seed, |metric, minute| {
        if metric == "response_time" && (from..from + length).contains(&minute) { factor } else { 1.0 }
    });
    for value in case.series.iter_mut().flat_map(|series| &mut series.values) {
        if random.uniform() < 0.05 {
            *value = None;
        }
    }
    case
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_setting_looks_ahead(seed in any::<u64>(), settings in any_settings(), t in 0..WINDOW) {
        let case = with(settings)(disturbed(seed));
        let mut cut = case.clone();
        cut.series.iter_mut().for_each(|s| s.values.truncate(usize::try_from(t - s.start).unwrap()));
        let judge_settings = JudgeSettings::default();
        let known = judge_until(&case, t, &judge_settings);
        prop_assert_eq!(&known, &judge_until(&cut, t, &judge_settings));
        let whole = judge(&case, &judge_settings);
        match whole.failed_at_minute {
            Some(minute) if minute <= t => prop_assert_eq!(&known, &whole),
            Some(_) | None => prop_assert_eq!(known.failed_at_minute, None),
        }
    }

    #[test]
    fn a_metric_in_another_unit_is_judged_alike(
        seed in any::<u64>(), settings in any_settings(), power in -9..=9_i32
    ) {
        let factor = 10.0_f64.powi(power);
        let case = with(settings.clone())(disturbed(seed));
        let mut scaled = settings;
        let scale = |value: &mut Option<f64>| if let Some(value) = value { *value *= factor };
        scale(&mut scaled.minimum_effect.absolute);
        for limit in [&mut scaled.fail_fast, &mut scaled.ignore].into_iter().flatten() {
            scale(&mut limit.absolute);
        }
        let mut other = case.clone().with_settings("response_time", scaled);
        for series in other.series.iter_mut().filter(|series| series.metric == "response_time") {
            series.values.iter_mut().for_each(scale);
        }
        let (ours, theirs) = (judged(&case), judged(&other));
        prop_assert_eq!((ours.outcome, ours.failed_at_minute), (theirs.outcome, theirs.failed_at_minute));
    }

    #[test]
    fn risk_is_one_exactly_when_it_fails(seed in any::<u64>(), settings in any_settings()) {
        let said = judged(&with(settings)(disturbed(seed)));
        prop_assert_eq!(said.outcome == Some(Outcome::Fail), said.risk >= 1.0);
        prop_assert!(said.metrics.iter().all(|unit| (0.0..=1.0).contains(&unit.risk)));
    }
}
