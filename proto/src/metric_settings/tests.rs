//! The words read back as they are written, in JSON and in messages, and what is wrong is named.

use super::*;
use proptest::prelude::*;
use proptest::strategy::Strategy;

fn read(text: &str) -> (MetricSettings, String) {
    let mut invalid = Invalid::default();
    let settings = MetricSettings::read_object(&serde_json::from_str(text).unwrap(), &mut invalid);
    (settings, invalid.to_string())
}

#[test]
fn no_words_are_the_default() {
    assert_eq!(read("{}"), (MetricSettings::default(), String::new()));
    assert!(MetricSettings::default().to_words().is_empty());
}

#[test]
fn every_word_is_read() {
    let (settings, said) = read(
        r#"{"minimum_effect":{"relative":0.2,"absolute":5},"sensitivity":"high","critical":true,"weight":2,
            "group":"latency","fail_fast":{"absolute":2000,"after_in_a_row":3},"ignore":{"percent":10},
            "on_no_data":"fail"}"#,
    );
    assert_eq!(said, "");
    assert_eq!(settings.minimum_effect, MinimumEffect { relative: Some(0.2), absolute: Some(5.0) });
    assert_eq!((settings.sensitivity, settings.on_no_data), (Some(Sensitivity::High), Some(OnNoData::Fail)));
    assert_eq!((settings.weight, settings.group.as_deref()), (2.0, Some("latency")));
    let fail_fast = Limit { absolute: Some(2000.0), percent: None, when: When::AfterInARow(3) };
    let ignore = Limit { absolute: None, percent: Some(10.0), when: IGNORE_AFTER };
    assert_eq!((settings.fail_fast, settings.ignore), (Some(fail_fast), Some(ignore)));
}

#[test]
fn everything_wrong_is_named_with_value_and_choices() {
    let (_, said) = read(
        r#"{"sensitivity":"extreme","critical":"yes","weight":0,"group":" ","on_no_data":"pass","oops":1,
            "minimum_effect":{"relative":-1,"rel":1},"fail_fast":{"at_once":false,"after":3,"after_in_a_row":99},
            "ignore":{"percent":0,"after":2,"at_once":true}}"#,
    );
    for part in [
        "oops: is no setting here, expected one of minimum_effect, sensitivity, critical",
        "sensitivity: unknown value `extreme`, expected one of low, medium, high",
        "critical: is `\"yes\"`, give `true` or `false`",
        "weight: is `0`, give a number, 0.01 to 100",
        "group: is `\" \"`, give a non-empty text",
        "on_no_data: unknown value `pass`, expected one of inconclusive, fail, ignore",
        "minimum_effect.rel: is no setting here, expected one of relative, absolute",
        "minimum_effect.relative: is `-1`, give a number, 0 to 100",
        "fail_fast: has no bound; give `absolute`, `percent` or both",
        "fail_fast.at_once: is `false`",
        "fail_fast.after_in_a_row: is `99`, give a whole number of samples, 1 to 15",
        "ignore.percent: is `0`",
        "ignore: has several of `at_once`, `after` and `after_in_a_row`; give one",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(read("7").1.contains("is `7`, give a mapping of minimum_effect"));
}

#[test]
fn what_contradicts_the_metric_is_refused() {
    let check = |text: &str, bad, is_count| {
        read(text).0.check(bad, is_count).map_err(|e| e.to_string()).err().unwrap_or_default()
    };
    assert_eq!(check(r#"{"fail_fast":{"absolute":9}}"#, Direction::Increase, false), "");
    assert!(check(r#"{"fail_fast":{"absolute":9}}"#, Direction::Either, false).contains("one direction"));
    assert!(check(r#"{"ignore":{"percent":100}}"#, Direction::Decrease, false).contains("below 100"));
    assert!(check(r#"{"fail_fast":{"absolute":5}}"#, Direction::Increase, true).contains("at most 1"));
    assert!(check(r#"{"minimum_effect":{"absolute":5}}"#, Direction::Increase, true).contains("at most 1"));
    assert!(check(r#"{"critical":true}"#, Direction::None, false).starts_with("critical: has no effect"));
    assert!(check(r#"{"critical":true,"muted":true}"#, Direction::Increase, false).contains("exclude each"));
}

#[test]
fn a_message_is_refused_by_the_same_rules() {
    let wire = v1::MetricSettings {
        sensitivity: 9,
        weight: Some(1000.0),
        fail_fast: Some(v1::Limit::default()),
        ..Default::default()
    };
    let said = MetricSettings::try_from(wire).unwrap_err().to_string();
    let nan = v1::Limit { percent: Some(f64::NAN), ..Default::default() };
    let wire_nan =
        v1::MetricSettings { ignore: Some(nan), weight: Some(f64::INFINITY), ..Default::default() };
    let not_finite = MetricSettings::try_from(wire_nan).unwrap_err().to_string();
    assert!(not_finite.contains("weight: is inf") && not_finite.contains("ignore.percent: is NaN"));
    assert!(said.contains("sensitivity: unknown value `9`, expected one of SENSITIVITY_LOW"), "{said}");
    assert!(said.contains("weight: is `1000.0`") && said.contains("fail_fast: has no bound"), "{said}");
}

fn limit() -> impl Strategy<Value = Limit> {
    let when = prop_oneof![
        Just(When::AtOnce),
        (1..=MOST_SAMPLES).prop_map(When::After),
        (1..=MOST_SAMPLES).prop_map(When::AfterInARow)
    ];
    (1u8..4, 0.0..1e9, 0.1..1e6, when).prop_map(|(given, absolute, percent, when)| Limit {
        absolute: (given & 1 > 0).then_some(absolute),
        percent: (given & 2 > 0).then_some(percent),
        when,
    })
}

fn settings() -> impl Strategy<Value = MetricSettings> {
    let option = proptest::option::of::<proptest::sample::Select<Sensitivity>>;
    let first = (
        proptest::option::of(0.0..100.0),
        proptest::option::of(0.0..1e9),
        option(proptest::sample::select(Sensitivity::ALL)),
        any::<(bool, bool)>(),
    );
    let second = (
        0.01..100.0,
        proptest::option::of("[a-z]{1,8}"),
        proptest::option::of(limit()),
        proptest::option::of(limit()),
        proptest::option::of(proptest::sample::select(OnNoData::ALL)),
    );
    (first, second).prop_map(
        |(
            (relative, absolute, sensitivity, (critical, muted)),
            (weight, group, fail_fast, ignore, on_no_data),
        )| {
            MetricSettings {
                minimum_effect: MinimumEffect { relative, absolute },
                sensitivity,
                critical,
                muted,
                weight,
                group,
                fail_fast,
                ignore,
                on_no_data,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(settings in settings()) {
        let text = serde_json::to_string(&settings.to_words()).unwrap();
        prop_assert_eq!(read(&text), (settings.clone(), String::new()));
        let wire = v1::MetricSettings::from(settings.clone());
        prop_assert_eq!(MetricSettings::try_from(wire).unwrap(), settings);
    }
}
