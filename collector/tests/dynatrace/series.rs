//! One query, series by series: slots, units, gaps, and what is refused by name.

use crate::server::{Answer, Tenant, answer, descriptor, noon};
use serde_json::{Value, json};
use vouch_collector::source::FailureKind;
use vouch_collector::source::dynatrace::{Query, QueryAsk, QuerySeries, When};
use vouch_proto::Timestamp;

const SELECTOR: &str = "builtin:service.response.time:splitBy():avg";
const MINUTE: i64 = 60_000;

fn at(minutes: i64) -> i64 {
    noon().plus_minutes(minutes).as_millis()
}

fn ask(selector: &str, resolution: Option<&str>) -> QueryAsk {
    let when = |minutes| When { text: at(minutes).to_string(), at: Timestamp::from_millis(at(minutes)) };
    QueryAsk {
        query: Query::Metrics { selector: selector.into(), entities: None, management_zones: None },
        from: when(-5),
        to: when(-2),
        resolution: resolution.map(ToOwned::to_owned),
    }
}

fn series(dimensions: Value, stamps: &[i64], values: Value) -> Value {
    let values_of_map: Vec<Value> = dimensions.as_object().unwrap().values().cloned().collect();
    json!({"dimensions": values_of_map, "dimensionMap": dimensions, "timestamps": stamps, "values": values})
}

fn result(data: &[Value]) -> Value {
    json!({"metricId": SELECTOR, "data": data})
}

fn body(resolution: &str, results: &[Value]) -> Answer {
    let text = json!({"totalCount": 1, "nextPageKey": null, "resolution": resolution, "result": results})
        .to_string();
    answer("metrics/query", 200, text)
}

async fn query(ask: &QueryAsk, answers: Vec<Answer>) -> Vec<QuerySeries> {
    let tenant = Tenant::new(answers).await;
    let series = tenant.source.query_series(ask).await.unwrap();
    tenant.asked();
    series
}

#[tokio::test]
async fn a_series_is_on_slot_starts_in_its_own_kind_of_unit() {
    let one = series(json!({}), &[at(-4), at(-3), at(-2)], json!([1500, null, 3000.5]));
    let tenant = Tenant::new(vec![body("1m", &[result(&[one])]), descriptor()]).await;
    let mut asked = ask(SELECTOR, None);
    asked.query = Query::Metrics {
        selector: SELECTOR.into(),
        entities: Some("type(SERVICE),tag(\"a b\")".into()),
        management_zones: Some("mzName(\"z\")".into()),
    };
    let read = tenant.source.query_series(&asked).await.unwrap();
    assert_eq!(read[0].samples, [(at(-5), Some(1.5)), (at(-4), None), (at(-3), Some(3.0005))]);
    assert_eq!((read[0].unit.as_str(), read[0].resolution.to_string().as_str()), ("ms", "PT1M"));
    let line = serde_json::to_value(&read[0]).unwrap();
    assert_eq!(
        line,
        json!({"metric": SELECTOR, "dimensions": {}, "unit": "ms", "resolution": "PT1M", "warnings": [], "refused": null,
               "samples": [[at(-5), 1.5], [at(-4), null], [at(-3), 3.0005]]})
    );
    let calls = tenant.asked();
    assert!(calls[0].contains("entitySelector=type%28SERVICE%29%2Ctag%28%22a+b%22%29"), "{}", calls[0]);
    assert!(
        calls[0].contains("mzSelector=mzName%28%22z%22%29") && !calls[0].contains("resolution="),
        "{}",
        calls[0]
    );
}

#[tokio::test]
async fn a_metric_that_is_not_described_has_its_documented_unit() {
    let one = series(json!({}), &[at(-2)], json!([1000]));
    for status in [404, 403, 500] {
        let missing = answer(crate::server::DESCRIPTOR, status, "{}");
        let read =
            query(&ask(SELECTOR, None), vec![body("1m", &[result(std::slice::from_ref(&one))]), missing])
                .await;
        assert_eq!((read[0].unit.as_str(), read[0].samples[0].1), ("ms", Some(1.0)), "{status}");
    }
    let missing = answer("metrics/custom:depth", 404, "{}");
    let read = query(&ask("custom:depth:avg", None), vec![body("1m", &[result(&[one])]), missing]).await;
    assert_eq!((read[0].unit.as_str(), read[0].refused), ("", None));
    assert!(read[0].warnings[0].contains("the unit is not known"), "{:?}", read[0].warnings);
}

#[tokio::test]
async fn coarser_than_asked_is_refused_and_finer_is_not() {
    let hour = |end: i64| series(json!({}), &[end], json!([1000]));
    let refused = |read: &[QuerySeries]| (read[0].refused, read[0].samples.len());
    for (resolution, answered, expected) in [
        (None, "1h", (None, 1)),
        (Some("1m"), "1h", (Some(FailureKind::TooCoarse), 0)),
        (Some("1h"), "1h", (None, 1)),
        (Some("60m"), "1h", (None, 1)),
        (Some("1d"), "1h", (None, 1)),
        (Some("1m"), "Inf", (Some(FailureKind::TooCoarse), 0)),
        (Some("inf"), "INF", (None, 1)),
        (None, "1M", (None, 1)),
        (None, "later", (Some(FailureKind::BadAnswer), 0)),
    ] {
        let read = query(
            &ask(SELECTOR, resolution),
            vec![body(answered, &[result(&[hour(at(-60))])]), descriptor()],
        )
        .await;
        assert_eq!(refused(&read), expected, "{resolution:?} {answered}");
    }
    let read = query(&ask(SELECTOR, None), vec![body("1M", &[result(&[hour(at(0))])]), descriptor()]).await;
    let month_before: Timestamp = "2026-10-18T12:00:00Z".parse().unwrap();
    assert_eq!(
        (read[0].samples[0].0, read[0].resolution.to_string().as_str()),
        (month_before.as_millis(), "P1M")
    );
}

#[tokio::test]
async fn one_value_for_the_whole_time_is_never_taken_for_a_slot() {
    let one = series(json!({}), &[at(-2)], json!([97.5]));
    let selector = "(builtin:pgi.availability:splitBy()):fold";
    let folded = json!({"metricId": selector, "data": [one]});
    let unit = answer("metrics/builtin:pgi.availability", 200, r#"{"unit":"Percent"}"#);
    let read = query(&ask(selector, None), vec![body("10m", &[folded]), unit]).await;
    assert_eq!((read[0].resolution.to_string().as_str(), read[0].samples[0]), ("Inf", (at(-5), Some(97.5))));
    let two = series(json!({}), &[at(-3), at(-2)], json!([1, 2]));
    let read = query(&ask(SELECTOR, Some("Inf")), vec![body("Inf", &[result(&[two])]), descriptor()]).await;
    assert_eq!(read[0].refused, Some(FailureKind::BadAnswer));
}

#[tokio::test]
async fn what_must_not_be_used_has_a_name_and_no_samples() {
    let of = |dimensions: Value| series(dimensions, &[at(-2)], json!([1000]));
    let host = |id: &str| of(json!({"dt.entity.host": id}));
    let warned = |text: &str| json!({"metricId": SELECTOR, "warnings": [text], "data": [host("HOST-1")]});
    let off_grid = series(json!({}), &[at(-3), at(-2) + 1000], json!([1, 2]));
    let backwards = series(json!({}), &[at(-2), at(-3)], json!([1, 2]));
    let uneven = series(json!({}), &[at(-2)], json!([1, 2]));
    for (results, kinds) in [
        (vec![result(&[])], vec![Some(FailureKind::NoData)]),
        (
            vec![result(&[host("HOST-1"), of(json!({"dt.entity.host": null}))])],
            vec![None, Some(FailureKind::Remainder)],
        ),
        (vec![result(&[host("HOST-1"), host("HOST-1")])], vec![Some(FailureKind::AmbiguousSeries); 2]),
        (vec![result(&[host("HOST-1"), host("HOST-2")])], vec![None, None]),
        (vec![result(&[off_grid])], vec![Some(FailureKind::BadAnswer)]),
        (vec![result(&[backwards])], vec![Some(FailureKind::BadAnswer)]),
        (vec![result(&[uneven])], vec![Some(FailureKind::BadAnswer)]),
        (
            vec![warned("The dimension key `x` has been referenced, but the metric has no such key.")],
            vec![Some(FailureKind::UnknownDimension)],
        ),
        (
            vec![warned("SourceUnit 'MicroSecond' cannot be converted to targetUnit 'Byte'.")],
            vec![Some(FailureKind::UnitMismatch)],
        ),
        (vec![warned("The tuple limit has been exceeded")], vec![Some(FailureKind::Incomplete)]),
        (vec![warned("This key is deprecated")], vec![None]),
    ] {
        let read = query(&ask(SELECTOR, None), vec![body("1m", &results), descriptor()]).await;
        assert_eq!(read.iter().map(|one| one.refused).collect::<Vec<_>>(), kinds, "{results:?}");
        for one in &read {
            assert_eq!(one.refused.is_some(), one.samples.is_empty(), "{one:?}");
            assert!(one.refused.is_none() || !one.warnings.is_empty(), "{one:?}");
        }
    }
    let read = query(&ask(SELECTOR, None), vec![body("1m", &[])]).await;
    assert_eq!(
        (read.len(), read[0].refused, read[0].metric.as_str()),
        (1, Some(FailureKind::NoData), SELECTOR)
    );
}

#[tokio::test]
async fn slots_that_are_left_out_are_gaps_and_those_that_have_not_ended_are_none() {
    let holes = series(json!({}), &[at(-4), at(-1)], json!([1000, 2000]));
    let read = query(&ask(SELECTOR, None), vec![body("1m", &[result(&[holes])]), descriptor()]).await;
    let expected = [(at(-5), Some(1.0)), (at(-4), None), (at(-3), None), (at(-2), Some(2.0))];
    assert_eq!(read[0].samples, expected);
    let future = series(json!({}), &[at(-60), at(0), at(60) + 24 * 60 * MINUTE], json!([1, 2, 3]));
    let read = query(&ask(SELECTOR, None), vec![body("1h", &[result(&[future])]), descriptor()]).await;
    assert_eq!(read[0].samples.last().unwrap().0, at(-60), "the last one lies in the future");
    assert!(read[0].warnings[0].contains("have not ended yet"), "{:?}", read[0].warnings);
}

#[tokio::test]
async fn every_expression_has_its_own_unit() {
    let one = |id: &str| json!({"metricId": id, "data": [series(json!({}), &[at(-2)], json!([2048]))]});
    let selector = "a:avg,(b:splitBy(\"x\",\"y\"):sum):limit(5),(a:avg)/1000,c:value:rate(1s)";
    let described =
        |key: &str, unit: &str| answer(&format!("metrics/{key}"), 200, json!({"unit": unit}).to_string());
    let read = query(
        &ask(selector, None),
        vec![
            body("1m", &["1", "2", "3", "4"].map(one)),
            described("a", "Second"),
            described("b", "KibiByte"),
            described("c", "Count"),
        ],
    )
    .await;
    let units: Vec<(&str, Option<f64>)> =
        read.iter().map(|one| (one.unit.as_str(), one.samples[0].1)).collect();
    assert_eq!(
        units,
        [
            ("ms", Some(2_048_000.0)),
            ("bytes", Some(2_097_152.0)),
            ("", Some(2048.0)),
            ("1/min", Some(122_880.0))
        ]
    );
}

#[tokio::test]
async fn a_metric_that_does_not_exist_is_told_from_a_wrong_address() {
    for (body, kind) in [
        (r#"{"error":{"code":404,"message":"Metric with key 'a' not found."}}"#, FailureKind::UnknownMetric),
        (r#"{"error":{"code":404,"message":"no such environment"}}"#, FailureKind::NotFound),
    ] {
        let tenant = Tenant::new(vec![answer("metrics/query", 404, body)]).await;
        assert_eq!(tenant.source.query_series(&ask("a", None)).await.unwrap_err().kind, kind);
    }
}

#[tokio::test]
async fn a_dimension_that_the_metric_does_not_have_is_refused_with_those_that_it_has() {
    let warning = "The dimension key `k8s.pod.name` has been referenced, but the metric has no such key.";
    let warned = json!({"resolution": "1m", "warnings": [warning], "result": [{"metricId": SELECTOR, "data": [], "warnings": [warning]}]});
    let described = json!({"unit": "MicroSecond", "dimensionDefinitions": [{"key": "dt.entity.service"}]});
    let script = vec![
        answer("metrics/query", 200, warned.to_string()),
        answer(crate::server::DESCRIPTOR, 200, described.to_string()),
    ];
    let read = query(&ask(SELECTOR, None), script).await;
    assert_eq!(read[0].refused, Some(FailureKind::UnknownDimension));
    let said = read[0].warnings.last().unwrap();
    assert!(said.ends_with("; the metric has dt.entity.service"), "{said}");
}

#[tokio::test]
async fn a_series_outside_of_the_time_that_was_asked_for_is_shown_and_said() {
    let far = |years: i64| at(years * 365 * 1440);
    let one = series(json!({}), &[far(10), far(10) + MINUTE], json!([1000, 2000]));
    let read = query(&ask(SELECTOR, None), vec![body("1m", &[result(&[one])]), descriptor()]).await;
    assert_eq!(read[0].samples, [(far(10) - MINUTE, Some(1.0)), (far(10), Some(2.0))]);
    assert!(read[0].warnings[0].contains("all slots lie outside of"), "{:?}", read[0].warnings);
    let mut asked = ask(SELECTOR, None);
    asked.to = When { text: "now".into(), at: Timestamp::from_millis(at(30)) };
    let pending = series(json!({}), &[at(-1), at(20)], json!([1000, 2000]));
    let read = query(&asked, vec![body("1m", &[result(&[pending])]), descriptor()]).await;
    assert!(read[0].warnings.iter().any(|w| w.contains("have not ended yet")), "{:?}", read[0].warnings);
    assert_eq!(read[0].samples.last().unwrap().0, at(-1), "up to now");
}
