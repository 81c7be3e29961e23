//! Every base address of a tenant.

use crate::harness::{Harness, METRICS_ONLY, PLATFORM, START, TOKEN, read};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn base_addresses_lead_to_the_same_api() {
    let h = Harness::scenario("demo", START).await;
    let list = h.get("/api/v2/metrics", &[("pageSize", "3")], 200).await;
    for path in [
        "/e/abc12345/api/v2/metrics",
        "/e/19a3ed3a-8f44-4b6c-b1b5-3b5e7a5c8c6f/api/v2/metrics/",
        "//api/v2/metrics",
        "/api/v2/metrics/",
    ] {
        assert_eq!(h.get(path, &[("pageSize", "3")], 200).await, list, "{path}");
    }
    for path in [
        "/platform/classic/environment-api/v2/metrics",
        "/e/abc/platform/classic/environment-api/v2/metrics/",
    ] {
        let call = h.bearer(Method::GET, path, PLATFORM).query(&[("pageSize", "3")]);
        let response = call.send().await.unwrap();
        assert_eq!(response.headers()["dynatrace-response-source"], "Cluster");
        assert_eq!(read(response, 200).await, list, "{path}");
        h.get(path, &[], 401).await;
    }
    h.get("/e/abc/api/v3/metrics", &[], 404).await;
    let calls = h.handle.calls();
    assert_eq!(calls[1].path, "/e/abc12345/api/v2/metrics", "logged as received");
    h.end().await;
}

#[tokio::test]
async fn the_mirror_has_every_call() {
    let h = Harness::scenario("demo", START).await;
    for path in [
        "entities?entitySelector=type(SERVICE)",
        "events",
        "problems",
        "metrics/query?metricSelector=builtin:host.cpu.usage",
    ] {
        let path = format!("/platform/classic/environment-api/v2/{path}");
        read(h.bearer(Method::GET, &path, PLATFORM).send().await.unwrap(), 200).await;
    }
    let event = json!({"eventType": "CUSTOM_INFO", "title": "x"});
    let call =
        h.bearer(Method::POST, "/platform/classic/environment-api/v2/events/ingest", PLATFORM).json(&event);
    read(call.send().await.unwrap(), 201).await;
    h.end().await;
}

#[tokio::test]
async fn a_token_may_stand_in_the_query() {
    let h = Harness::scenario("demo", START).await;
    let call = async |name: &str, token: &str, path: &str| {
        h.anonymous(Method::GET, path).query(&[(name, token)]).send().await.unwrap()
    };
    read(call("api-token", TOKEN, "/api/v2/metrics").await, 200).await;
    read(call("Api-Token", TOKEN, "/api/v2/metrics").await, 200).await;
    read(call("api-token", METRICS_ONLY, "/api/v2/problems").await, 403).await;
    read(call("api-token", "dt0c01.NO.NO", "/api/v2/metrics").await, 401).await;
    read(call("api-token", PLATFORM, "/api/v2/metrics").await, 401).await;
    assert!(!format!("{:?}", h.handle.calls()).contains("SECRET"), "no token is logged");
    h.end().await;
}
