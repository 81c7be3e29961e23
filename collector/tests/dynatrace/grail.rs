//! Queries of Grail over HTTP: executed, polled, given up, and their records as series.

use crate::server::{Answer, Tenant, answer, noon};
use serde_json::{Value, json};
use std::time::Duration;
use vouch_collector::source::dynatrace::{Query, QueryAsk, When};
use vouch_collector::source::{Ask, Failure, FailureKind, MetricAsk, MetricSource as _};

const EXECUTE: &str = "/platform/storage/query/v1/query:execute";
const POLL: &str = "/platform/storage/query/v1/query:poll";
const CANCEL: &str = "/platform/storage/query/v1/query:cancel";
const DQL: &str =
    "timeseries p95 = percentile(dt.service.request.response_time, 95), by:{dt.entity.service}, interval:1m";

fn ask() -> QueryAsk {
    let when = |minutes| {
        let at = noon().plus_minutes(minutes);
        When { text: at.to_string(), at }
    };
    QueryAsk {
        query: Query::Dql { query: DQL.into(), scan_limit_gb: 3, patience: Duration::from_secs(60) },
        from: when(-5),
        to: when(-2),
        resolution: None,
    }
}

async fn tenant(answers: Vec<Answer>) -> Tenant {
    Tenant::with(answers, |settings| settings.token = "dt0s16.PLATFORM.SECRET".to_owned().into()).await
}

fn running(state: &str) -> String {
    json!({"state": state, "requestToken": "tok/en+=", "ttlSeconds": 400}).to_string()
}

fn succeeded(records: Value, notifications: Value) -> String {
    json!({"state": "SUCCEEDED", "progress": 100, "result": {"records": records, "types": [], "metadata": {
        "grail": {"notifications": notifications, "queryId": "q"},
        "metrics": [{"metric.key": "dt.service.request.response_time", "unit": "us", "fieldName": "p95"}]}}})
    .to_string()
}

fn record(values: Value) -> Value {
    json!({"timeframe": {"start": "2026-11-18T11:55:00.000000000Z", "end": "2026-11-18T11:58:00.000000000Z"},
           "interval": "60000000000", "p95": values, "dt.entity.service": "SERVICE-1"})
}

#[tokio::test]
async fn a_query_is_polled_to_its_records_which_are_series() {
    let done = succeeded(json!([record(json!([1500.0, null, "3000"]))]), json!([]));
    let tenant = tenant(vec![
        answer(EXECUTE, 202, running("RUNNING")),
        answer(POLL, 200, running("RUNNING")),
        answer(POLL, 200, running("")),
        answer(POLL, 200, done),
    ])
    .await;
    let read = tenant.source.query_series(&ask()).await.unwrap();
    assert_eq!(
        serde_json::to_value(&read).unwrap(),
        json!([{"metric": "p95", "dimensions": {"dt.entity.service": "SERVICE-1"}, "unit": "ms", "resolution": "PT1M",
            "samples": [[noon().plus_minutes(-5).as_millis(), 1.5], [noon().plus_minutes(-4).as_millis(), null],
                        [noon().plus_minutes(-3).as_millis(), 3.0]], "warnings": [], "refused": null}])
    );
    let asked = tenant.asked();
    assert!(asked.iter().all(|call| call.ends_with("[Bearer dt0s16.PLATFORM.SECRET]")), "{asked:?}");
    assert!(asked[1].contains("request-token=tok%2Fen%2B%3D"), "{}", asked[1]);
    let body: Value = serde_json::from_str(&tenant.bodies()[0]).unwrap();
    assert_eq!(
        (&body["query"], &body["timezone"], &body["defaultScanLimitGbytes"]),
        (&json!(DQL), &json!("UTC"), &json!(3))
    );
    assert_eq!(body["defaultTimeframeStart"], json!(noon().plus_minutes(-5).to_string()));
}

#[tokio::test]
async fn what_is_no_series_or_not_all_of_it_is_refused_by_name() {
    let warning = json!([{"severity": "WARNING", "notificationType": "SCAN_LIMIT_GBYTES", "message": "stopped after 3 gigabytes"}]);
    let info =
        json!([{"severity": "INFO", "notificationType": "DEPRECATED_ENTITY_DATAOBJECT", "message": "old"}]);
    let whole = || json!([record(json!([1, 2, 3]))]);
    for (body, resolution, refused) in [
        (succeeded(json!([]), json!([])), None, Some(FailureKind::NoData)),
        (succeeded(json!([{"count()": "194414758"}]), json!([])), None, Some(FailureKind::NotASeries)),
        (succeeded(json!([record(json!([1, 2]))]), json!([])), None, Some(FailureKind::BadAnswer)),
        (succeeded(whole(), warning), None, Some(FailureKind::Incomplete)),
        (succeeded(whole(), info), None, None),
        (succeeded(whole(), json!([])), Some("30m"), None),
        (
            succeeded(json!([record(json!([1, 2, 3])), record(json!([4, 5, 6]))]), json!([])),
            None,
            Some(FailureKind::AmbiguousSeries),
        ),
    ] {
        let tenant = tenant(vec![answer(EXECUTE, 200, body.clone())]).await;
        let asked = QueryAsk { resolution: resolution.map(ToOwned::to_owned), ..ask() };
        let read = tenant.source.query_series(&asked).await.unwrap();
        assert_eq!(read[0].refused, refused, "{body}");
        assert_eq!(read[0].samples.is_empty(), refused.is_some(), "{body}");
    }
}

async fn failed(answers: Vec<Answer>) -> (Failure, usize) {
    let tenant = tenant(answers).await;
    let failure = tenant.source.query_series(&ask()).await.unwrap_err();
    (failure, tenant.asked().len())
}

#[tokio::test]
async fn every_end_without_a_result_has_a_name() {
    let started = || answer(EXECUTE, 202, running("RUNNING"));
    let denied =
        r#"{"error":{"code":403,"message":"no","details":{"missingScopes":["storage:metrics:read"]}}}"#;
    let syntax = r#"{"error":{"code":400,"message":"UNKNOWN_COMMAND","details":{"errorMessage":"`x` is no command","syntaxErrorPosition":{"start":{"column":1,"line":2}}}}}"#;
    for (answers, kind, words) in [
        (vec![answer(EXECUTE, 400, syntax)], FailureKind::BadRequest, "`x` is no command (line 2, column 1)"),
        (vec![answer(EXECUTE, 403, denied)], FailureKind::MissingScope, "storage:metrics:read"),
        (vec![started(), answer(POLL, 410, "{}")], FailureKind::ResultGone, "ask again"),
        (
            vec![started(), answer(POLL, 200, r#"{"state":"RESULT_GONE"}"#)],
            FailureKind::ResultGone,
            "ask again",
        ),
        (
            vec![started(), answer(POLL, 200, r#"{"state":"FAILED","error":{"message":"out of memory"}}"#)],
            FailureKind::QueryFailed,
            "out of memory",
        ),
        (vec![answer(EXECUTE, 202, "{}")], FailureKind::BadAnswer, "neither a result nor a token"),
        (
            vec![answer(EXECUTE, 200, "<html>").header("content-type", "text/html")],
            FailureKind::WebPage,
            "collector.url",
        ),
    ] {
        let count = answers.len();
        let (failure, calls) = failed(answers).await;
        assert_eq!((failure.kind, calls), (kind, count), "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_cancelled() {
    let short = json!({"state": "RUNNING", "requestToken": "t", "ttlSeconds": 2}).to_string();
    let (failure, _) = failed(vec![
        answer(EXECUTE, 202, short.clone()),
        // The clock runs fast: by the first poll the time of the result is up.
        answer(POLL, 200, short).late(Duration::from_millis(50)),
        answer(CANCEL, 202, ""),
    ])
    .await;
    assert_eq!(failure.kind, FailureKind::Timeout);
}

#[tokio::test]
async fn a_throttled_query_waits_as_long_as_it_is_told() {
    let throttled = r#"{"error":{"code":429,"message":"too many","retryAfterSeconds":5}}"#;
    let done = succeeded(json!([record(json!([1, 2, 3]))]), json!([]));
    let tenant = tenant(vec![answer(EXECUTE, 429, throttled), answer(EXECUTE, 200, done)]).await;
    assert_eq!(tenant.source.query_series(&ask()).await.unwrap().len(), 1);
    assert_eq!(tenant.asked().len(), 2);
}

fn metric(name: &str, query: &str, by_host: bool) -> MetricAsk {
    MetricAsk { name: name.into(), query: query.into(), unit: "ms".into(), by_host, each: None }
}

#[tokio::test]
async fn a_metric_of_a_template_may_be_a_query_in_dql() {
    let host = |pod: &str, values: Value| {
        json!({"timeframe": {"start": "2026-11-18T11:54:00.000000000Z", "end": "2026-11-18T11:59:00.000000000Z"},
               "interval": "60000000000", "p95": values, "k8s.pod.name": pod})
    };
    let done = succeeded(
        json!([host("a", json!([9, 1000, 2000, null, 9])), host("b", json!([9, 5000, 6000, 7000, 9]))]),
        json!([]),
    );
    let tenant = tenant(vec![
        answer(
            "/platform/classic/environment-api/v2/entities",
            200,
            r#"{"entities":[{"entityId":"SERVICE-1","displayName":"checkout"}]}"#,
        ),
        answer(EXECUTE, 200, done),
    ])
    .await;
    let query = "timeseries p95 = percentile(dt.service.request.response_time, 95), by:{k8s.pod.name}, filter:{dt.entity.service == $entity}, interval:1m";
    let asked = Ask { metrics: vec![metric("response_time", query, true)], ..crate::server::ask("x") };
    let reading = tenant.source.read(&asked).await.unwrap();
    let chunk = &reading.chunks[0];
    assert_eq!(chunk.window, asked.window, "whole slots of the window alone");
    let read: Vec<_> = chunk.series.iter().map(|s| (s.host.as_deref().unwrap(), s.samples.clone())).collect();
    assert_eq!(read, [("a", vec![Some(1.0), Some(2.0), None]), ("b", vec![Some(5.0), Some(6.0), Some(7.0)])]);
    assert!(tenant.bodies()[1].contains(r#"dt.entity.service == \"SERVICE-1\""#), "{}", tenant.bodies()[1]);
    tenant.asked();
}

#[tokio::test]
async fn a_query_that_cannot_be_asked_is_refused_alone() {
    let entity = || {
        answer(
            "/platform/classic/environment-api/v2/entities",
            200,
            r#"{"entities":[{"entityId":"SERVICE-1","displayName":"checkout"}]}"#,
        )
    };
    let billed = metric("errors", "fetch logs | makeTimeseries count()", false);
    let wrong = metric("p95", DQL, false);
    let asked = Ask { metrics: vec![billed.clone(), wrong], ..crate::server::ask("x") };
    let tenant = tenant(vec![entity(), answer(EXECUTE, 400, r#"{"error":{"message":"PARSE_ERROR"}}"#)]).await;
    let refused = tenant.source.read(&asked).await.unwrap().refused;
    assert_eq!(refused[0].1.kind, FailureKind::Billed, "{refused:?}");
    assert_eq!((refused[1].0.as_str(), refused[1].1.kind), ("p95", FailureKind::BadRequest));
    tenant.asked();
    let classic = Tenant::new(vec![crate::server::entity()]).await;
    let asked = Ask { metrics: vec![billed], ..asked };
    let refused = classic.source.read(&asked).await.unwrap().refused;
    assert!(refused[0].1.message.contains("platform token"), "{refused:?}");
    classic.asked();
}
