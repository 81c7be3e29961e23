//! Every fault, as a client meets it.

use crate::harness::{Harness, MINUTE, START, message, read};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use vouch_simulator::{Fault, FaultRule, ThrottleHeader};

const QUERY: &str = "/api/v2/metrics/query";
const SELECTOR: [(&str, &str); 1] = [("metricSelector", "builtin:service.response.time")];

#[tokio::test]
async fn throttling_in_every_header_form() {
    let h = Harness::scenario("demo", START).await;
    for (header, name, value) in [
        (ThrottleHeader::RetryAfter, "retry-after", "7".to_owned()),
        (ThrottleHeader::ResetSeconds, "x-ratelimit-reset", format!("{}", (START + 7000) / 1000)),
        (ThrottleHeader::ResetMilliseconds, "x-ratelimit-reset", format!("{}", START + 7000)),
        (ThrottleHeader::ResetMicroseconds, "x-ratelimit-reset", format!("{}", (START + 7000) * 1000)),
    ] {
        h.handle.add_fault(FaultRule::new(Fault::Throttle { header, seconds: 7 }).calls(1)).unwrap();
        let response = h.send(QUERY, &SELECTOR).await;
        assert_eq!(
            (response.status().as_u16(), response.headers()[name].to_str().unwrap()),
            (429, value.as_str())
        );
        assert!(read(response, 429).await["error"]["message"].as_str().unwrap().starts_with("Rate limit of"));
    }
    h.handle
        .add_fault(FaultRule::new(Fault::Throttle { header: ThrottleHeader::None, seconds: 7 }).calls(1))
        .unwrap();
    let response = h.send(QUERY, &SELECTOR).await;
    assert_eq!(response.status(), 429);
    assert!(!response.headers().keys().any(|k| k == "retry-after" || k.as_str().starts_with("x-ratelimit")));
    h.get(QUERY, &SELECTOR, 200).await;
    h.end().await;
}

#[tokio::test]
async fn statuses_and_bodies() {
    let h = Harness::scenario("demo", START).await;
    for (fault, status, text) in [
        (Fault::Status { code: 500 }, 500, "Internal Server Error"),
        (Fault::Status { code: 502 }, 502, "Bad Gateway"),
        (Fault::Status { code: 503 }, 503, "Service Unavailable"),
        (Fault::Down { close: false }, 503, "Service Unavailable"),
        (Fault::Unauthorized, 401, "Token Authentication failed"),
        (
            Fault::MissingScope { scope: "metrics.read".into() },
            403,
            "Token is missing required scope. Use one of: metrics.read (Read metrics)",
        ),
    ] {
        h.handle.add_fault(FaultRule::new(fault.clone()).calls(1)).unwrap();
        assert_eq!(message(&h.get(QUERY, &SELECTOR, status).await), text, "{fault:?}");
    }
    h.handle.add_fault(FaultRule::new(Fault::Html { code: 200 }).calls(1)).unwrap();
    let response = h.send(QUERY, &SELECTOR).await;
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
        (200, "text/html;charset=utf-8")
    );
    assert!(response.text().await.unwrap().starts_with("<html>"));
    let statuses: Vec<(u16, String)> =
        h.handle.calls().into_iter().map(|c| (c.status, c.fault.unwrap_or_default())).collect();
    assert_eq!(statuses[3], (503, "down".into()));
    assert_eq!(statuses.last().unwrap(), &(200, "html".into()));
    h.end().await;
}

#[tokio::test]
async fn broken_answers() {
    let h = Harness::scenario("demo", START).await;
    h.handle.add_fault(FaultRule::new(Fault::CutOffBody).calls(1)).unwrap();
    let response = h.send(QUERY, &SELECTOR).await;
    assert_eq!(response.status(), 200, "the status came through");
    assert!(response.text().await.is_err(), "its body did not");
    h.handle.add_fault(FaultRule::new(Fault::TruncatedGzip).calls(1)).unwrap();
    let response = h.send(QUERY, &SELECTOR).await;
    assert_eq!(response.status(), 200);
    assert!(response.text().await.is_err(), "gzip without an end");
    for fault in [Fault::DropConnection, Fault::Down { close: true }] {
        h.handle
            .add_fault(FaultRule::new(fault).on("/api/v2/metrics").during(START, START + MINUTE))
            .unwrap();
        let sent = h.request(Method::GET, QUERY).query(&SELECTOR).send().await;
        assert!(sent.is_err(), "no answer at all");
        h.get("/api/v2/entities", &[("entitySelector", "type(SERVICE)")], 200).await;
        h.handle.clear_faults();
    }
    h.get(QUERY, &SELECTOR, 200).await;
    assert_eq!(h.handle.calls().iter().filter(|c| c.status == 0).count(), 2, "logged without a status");
    h.end().await;
}

#[tokio::test]
async fn slow_answers_arrive_whole_and_do_not_delay_the_stop() {
    let h = Harness::scenario("demo", START).await;
    let whole = h.get(QUERY, &SELECTOR, 200).await;
    for fault in [Fault::SlowFirstByte { delay_ms: 60 }, Fault::SlowBody { delay_ms: 6 }] {
        h.handle.add_fault(FaultRule::new(fault).calls(1)).unwrap();
        let begun = Instant::now();
        assert_eq!(h.get(QUERY, &SELECTOR, 200).await, whole);
        assert!(begun.elapsed() >= Duration::from_millis(60));
    }
    h.handle.add_fault(FaultRule::new(Fault::SlowFirstByte { delay_ms: 600_000 })).unwrap();
    let pending = h.request(Method::GET, QUERY).query(&SELECTOR);
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(pending.send(), async {
        while h.handle.faults().is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        h.stop_serving();
    });
    assert!(answer.is_err());
    h.end().await;
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn faults_end_with_their_time() {
    let h = Harness::scenario("demo", START).await;
    h.handle.add_fault(FaultRule::new(Fault::Status { code: 503 }).during(START, START + MINUTE)).unwrap();
    h.get(QUERY, &SELECTOR, 503).await;
    h.set_now(START + MINUTE);
    h.get(QUERY, &SELECTOR, 200).await;
    h.end().await;
}

#[tokio::test]
async fn late_and_rewritten_points() {
    let h = Harness::scenario("demo", START).await;
    let selector = "builtin:service.requestCount.total:splitBy():value";
    let window = (START - 10 * MINUTE, START);
    h.set_now(START + 3 * MINUTE);
    let usual = h.values(selector, window).await;
    h.handle.add_fault(FaultRule::new(Fault::LatePoints { by_ms: 5 * MINUTE })).unwrap();
    let late = h.values(selector, window).await;
    assert!(usual.iter().all(Option::is_some) && late[6..].iter().all(Option::is_none), "{late:?}");
    h.handle.clear_faults();
    h.handle.add_fault(FaultRule::new(Fault::RewrittenPoints)).unwrap();
    h.set_now(START);
    let first = h.values(selector, window).await;
    assert!(first[9].unwrap() < 0.7 * usual[9].unwrap(), "visible at once, incomplete");
    h.set_now(START + 3 * MINUTE);
    assert_eq!(h.values(selector, window).await, usual, "rewritten when settled");
    h.end().await;
}

#[tokio::test]
async fn constants_that_nobody_has_heard_of() {
    let h = Harness::scenario("shared-database", START + 20 * MINUTE).await;
    let severity = async || h.get("/api/v2/problems", &[], 200).await["problems"][0]["severityLevel"].clone();
    let kind = async || h.get("/api/v2/events", &[], 200).await["events"][0]["eventType"].clone();
    assert_eq!((severity().await, kind().await), (json!("PERFORMANCE"), json!("CUSTOM_DEPLOYMENT")));
    h.handle.add_fault(FaultRule::new(Fault::UnknownConstants)).unwrap();
    assert_eq!((severity().await, kind().await), (json!("UNHEARD_OF"), json!("UNHEARD_OF")));
    h.end().await;
}

#[tokio::test]
async fn faults_over_http() {
    let h = Harness::scenario("demo", START).await;
    let rule = json!({"fault": {"kind": "throttle", "header": "retry_after", "seconds": 2}, "path": QUERY, "calls": 2});
    h.post("/_simulator/faults", rule, 201).await;
    h.get(QUERY, &SELECTOR, 429).await;
    let left = h.get("/_simulator/faults", &[], 200).await;
    assert_eq!((&left[0]["calls"], &left[0]["fault"]["header"]), (&json!(1), &json!("retry_after")));
    let deleted = h.request(Method::DELETE, "/_simulator/faults").send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    h.get(QUERY, &SELECTOR, 200).await;
    for (rule, part) in [
        (json!({"fault": {"kind": "explode"}}), "unknown variant `explode`"),
        (json!({"fault": {"kind": "status", "code": 200}}), "fault.code: 200 is not within 400 to 599"),
        (json!({"fault": {"kind": "cut_off_body"}, "often": 1}), "unknown field `often`"),
    ] {
        let answer = h.post("/_simulator/faults", rule, 400).await;
        assert!(answer.to_string().contains(part), "{answer}");
    }
    let calls = h.get("/_simulator/calls", &[], 200).await;
    let calls: &Vec<Value> = calls.as_array().unwrap();
    assert_eq!(calls.len(), 2, "calls of the control endpoints are not logged");
    assert_eq!(calls[0]["query"], json!([["metricSelector", "builtin:service.response.time"]]));
    assert_eq!((&calls[0]["status"], &calls[0]["fault"]), (&json!(429), &json!("throttle")));
    h.end().await;
}
