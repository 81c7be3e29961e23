//! Measurements sent in.

use crate::harness::{HOUR, Harness, METRICS_ONLY, PLATFORM, START, message, read};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use vouch_simulator::{IngestedLine, Payload};

const PATH: &str = "/api/v2/metrics/ingest";

async fn send(h: &Harness, body: &str) -> Response {
    let call = h.request(Method::POST, PATH).header("Content-Type", "text/plain; charset=utf-8");
    call.body(body.to_owned()).send().await.unwrap()
}

#[tokio::test]
async fn good_lines_are_accepted() {
    let h = Harness::scenario("demo", START).await;
    let body = format!(
        "#vouch.risk gauge dt.meta.unit=\"Ratio\"\nvouch.risk,service=\"check out\",stage=prod gauge,0.25 {START}\n\n\
         vouch.verdicts count,delta=3"
    );
    let answer = read(send(&h, &body).await, 202).await;
    assert_eq!(
        (&answer["linesOk"], &answer["linesInvalid"], &answer["error"]),
        (&json!(3), &json!(0), &Value::Null)
    );
    assert_eq!(
        answer["warnings"],
        json!({"message": "First 1 warnings reported", "warningLines": [
            {"line": 4, "warning": "metric key 'vouch.verdicts' changed to 'vouch.verdicts.count'"}]})
    );
    let lines = h.handle.ingested();
    assert_eq!(
        lines,
        [
            IngestedLine {
                key: "vouch.risk".into(),
                dimensions: vec![("service".into(), "check out".into()), ("stage".into(), "prod".into())],
                payload: Payload::Gauge { min: 0.25, max: 0.25, sum: 0.25, count: 1.0 },
                at_ms: START,
            },
            IngestedLine {
                key: "vouch.verdicts.count".into(),
                dimensions: vec![],
                payload: Payload::Count { delta: 3.0 },
                at_ms: START,
            },
        ]
    );
    let mirrored = h
        .bearer(Method::POST, "/platform/classic/environment-api/v2/metrics/ingest", PLATFORM)
        .header("Content-Type", "text/plain");
    assert!(read(mirrored.body("abc 1").send().await.unwrap(), 202).await.get("warnings").is_none());
    h.end().await;
}

#[tokio::test]
async fn bad_lines_are_named_and_the_others_taken() {
    let h = Harness::scenario("demo", START).await;
    let body = format!("abc 1\ndt.abc 1\nabc 2 {}\nabc 3", START - 2 * HOUR);
    let answer = read(send(&h, &body).await, 400).await;
    assert_eq!((&answer["linesOk"], &answer["linesInvalid"]), (&json!(2), &json!(2)));
    assert_eq!((&answer["error"]["code"], message(&answer)), (&json!(400), "2 invalid lines"));
    let lines: Vec<&Value> =
        answer["error"]["invalidLines"].as_array().unwrap().iter().map(|l| &l["line"]).collect();
    assert_eq!(lines, [&json!(2), &json!(3)]);
    assert_eq!(h.handle.ingested().len(), 2, "the good ones are accepted all the same");
    h.end().await;
}

#[tokio::test]
async fn refusals() {
    let h = Harness::scenario("demo", START).await;
    let json = h.request(Method::POST, PATH).header("Content-Type", "application/json").body("[]");
    read(json.send().await.unwrap(), 415).await;
    let large = format!("abc 1\n{}", "#abc gauge\n".repeat(100_000));
    read(send(&h, &large).await, 413).await;
    let other = h.anonymous(Method::POST, PATH).header("Authorization", format!("Api-Token {METRICS_ONLY}"));
    assert_eq!(
        message(&read(other.body("abc 1").send().await.unwrap(), 403).await),
        "Token is missing required scope. Use one of: metrics.ingest (Ingest metrics)"
    );
    assert!(h.handle.ingested().is_empty());
    h.end().await;
}
