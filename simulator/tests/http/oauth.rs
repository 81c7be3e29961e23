//! OAuth clients and their access tokens.

use crate::harness::{CLIENT_ID, CLIENT_SECRET, Harness, MINUTE, START, TOKEN, message, read};
use reqwest::{Method, Response};
use serde_json::json;
use vouch_simulator::{Scenario, Simulator};

const PATH: &str = "/sso/oauth2/token";
const SCOPE: &str = "environment-api:metrics:read storage:buckets:read";
const METRICS: &str = "/platform/classic/environment-api/v2/metrics";

async fn ask(h: &Harness, fields: [(&str, &str); 4]) -> Response {
    let encode = |text: &str| text.replace(':', "%3A").replace(' ', "+");
    let body = fields.map(|(name, value)| format!("{name}={}", encode(value))).join("&");
    let call = h.anonymous(Method::POST, PATH).header("Content-Type", "application/x-www-form-urlencoded");
    call.body(body).send().await.unwrap()
}

fn fields<'a>(secret: &'a str, scope: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT_ID),
        ("client_secret", secret),
        ("scope", scope),
    ]
}

#[tokio::test]
async fn an_access_token_lives_five_minutes() {
    let h = Harness::scenario("demo", START).await;
    let answer = read(ask(&h, fields(CLIENT_SECRET, SCOPE)).await, 200).await;
    assert_eq!(
        (&answer["token_type"], &answer["expires_in"], &answer["scope"]),
        (&json!("Bearer"), &json!(300), &json!(SCOPE))
    );
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(token.split('.').count(), 3, "{token}");
    let call = async || h.bearer(Method::GET, METRICS, token).send().await.unwrap();
    read(call().await, 200).await;
    let entities = "/platform/classic/environment-api/v2/entities";
    let refused = read(h.bearer(Method::GET, entities, token).send().await.unwrap(), 403).await;
    assert_eq!(refused["error"]["details"]["missingScopes"], json!(["environment-api:entities:read"]));
    h.set_now(START + 299_999);
    read(call().await, 200).await;
    h.set_now(START + 300_000);
    assert_eq!(message(&read(call().await, 401).await), "jwt expired");
    let next = read(ask(&h, fields(CLIENT_SECRET, SCOPE)).await, 200).await;
    let next = next["access_token"].as_str().unwrap();
    assert_ne!(next, token);
    read(h.bearer(Method::GET, METRICS, next).send().await.unwrap(), 200).await;
    let log = format!("{:?}", h.handle.calls());
    assert!(log.contains(PATH) && !log.contains("SECRET5") && !log.contains(token), "no secret is logged");
    h.end().await;
}

#[tokio::test]
async fn bad_credentials_get_400() {
    let h = Harness::scenario("demo", START).await;
    let mut other_grant = fields(CLIENT_SECRET, SCOPE);
    other_grant[0].1 = "password";
    let mut other_client = fields(CLIENT_SECRET, SCOPE);
    other_client[1].1 = "dt0s02.OTHER";
    for (fields, error) in [
        (fields("dt0s02.CLIENT.WRONG", SCOPE), "invalid_client"),
        (other_client, "invalid_client"),
        (other_grant, "unsupported_grant_type"),
        (fields(CLIENT_SECRET, ""), "invalid_scope"),
        (fields(CLIENT_SECRET, "account-idm-read"), "invalid_scope"),
    ] {
        let answer = read(ask(&h, fields).await, 400).await;
        assert_eq!(answer["error"], error, "{fields:?}");
        assert!(answer["error_description"].is_string());
    }
    read(h.bearer(Method::GET, METRICS, "not.issued.here").send().await.unwrap(), 401).await;
    h.end().await;
}

#[tokio::test]
async fn tokens_that_expire() {
    let (api, platform) = ("dt0c01.SHORT.SECRET6", "dt0s16.SHORT.SECRET7");
    let builder = Simulator::builder()
        .scenario(Scenario::named("demo").unwrap())
        .start_ms(START)
        .token_until(api, &["metrics.read"], START + MINUTE)
        .platform_token_until(platform, &["environment-api:metrics:read"], START + MINUTE);
    let h = Harness::new(builder, START).await;
    let lookup = h.post("/api/v2/apiTokens/lookup", json!({"token": api}), 200).await;
    assert_eq!(lookup["expirationDate"], "2026-11-18T12:01:00.000Z");
    assert!(
        h.post("/api/v2/apiTokens/lookup", json!({"token": TOKEN}), 200)
            .await
            .get("expirationDate")
            .is_none()
    );
    let classic = async || {
        let call =
            h.anonymous(Method::GET, "/api/v2/metrics").header("Authorization", format!("Api-Token {api}"));
        call.send().await.unwrap().status().as_u16()
    };
    let mirrored = async || h.bearer(Method::GET, METRICS, platform).send().await.unwrap().status().as_u16();
    assert_eq!((classic().await, mirrored().await), (200, 200));
    h.set_now(START + MINUTE);
    assert_eq!((classic().await, mirrored().await), (401, 403));
    h.end().await;
}
