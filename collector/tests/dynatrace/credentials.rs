//! How calls are authorised: tokens by their prefix, and OAuth, whose tokens are kept until just before they expire.

use crate::server::{Answer, Tenant, answer};
use serde_json::json;
use std::time::Duration;
use vouch_collector::source::FailureKind;
use vouch_collector::source::MetricSource as _;
use vouch_collector::source::dynatrace::OAuthSettings;

const TOKEN: &str = "/sso/oauth2/token";
const ENTITIES: &str = "/platform/classic/environment-api/v2/entities";

async fn oauth(answers: Vec<Answer>) -> Tenant {
    Tenant::with(answers, |settings| {
        settings.token = String::new().into();
        settings.token_file = None;
        settings.oauth = Some(OAuthSettings {
            client_id: "dt0s02.ID".into(),
            client_secret: "dt0s02.ID.SECRET".to_owned().into(),
            token_url: settings.url.join("/e/1/sso/oauth2/token").unwrap(),
            resource: Some("urn:dtaccount:1".into()),
            scopes: "a b".into(),
        });
    })
    .await
}

fn granted(token: &str, seconds: u64) -> Answer {
    answer(
        TOKEN,
        200,
        json!({"token_type": "Bearer", "access_token": token, "expires_in": seconds}).to_string(),
    )
}

fn entities() -> Answer {
    answer(ENTITIES, 200, r#"{"totalCount":0,"entities":[]}"#)
}

#[tokio::test]
async fn one_token_serves_everybody_until_it_is_about_to_expire() {
    // 300 times as fast as real time: 270 seconds are 0.9.
    let tenant = oauth(vec![granted("eyJ.1.x", 300), entities(), entities(), entities()]).await;
    let all = || async { tenant.source.services().await.unwrap() };
    tokio::join!(all(), all(), all());
    let asked = tenant.asked();
    assert_eq!(asked.iter().filter(|call| call.contains("oauth2/token")).count(), 1, "{asked:?}");
    assert!(asked[1..].iter().all(|call| call.ends_with("[Bearer eyJ.1.x]")), "{asked:?}");
    let form = &tenant.bodies()[0];
    for part in
        ["grant_type=client_credentials", "client_id=dt0s02.ID", "scope=a+b", "resource=urn%3Adtaccount%3A1"]
    {
        assert!(form.contains(part), "{part} in {form}");
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_when_it_is_refused() {
    let tenant = oauth(vec![
        granted("eyJ.1.x", 60),
        entities(),
        granted("eyJ.2.x", 3000),
        entities(),
        answer(ENTITIES, 401, r#"{"error":{"message":"jwt expired"}}"#),
        granted("eyJ.3.x", 3000),
        entities(),
    ])
    .await;
    tenant.source.services().await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    tenant.source.services().await.unwrap();
    tenant.source.services().await.unwrap();
    assert!(tenant.asked().last().unwrap().ends_with("[Bearer eyJ.3.x]"));
}

#[tokio::test]
async fn a_client_that_is_refused_is_told_what_to_check() {
    let body = r#"{"error":"invalid_client","error_description":"Client authentication failed"}"#;
    let tenant = oauth(vec![answer(TOKEN, 400, body)]).await;
    let failure = tenant.source.services().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert!(
        failure.message.contains("invalid_client") && failure.message.contains("collector.oauth"),
        "{failure}"
    );
    assert!(!failure.message.contains("SECRET"), "{failure}");
    assert_eq!(tenant.asked().len(), 1);
    assert!(tenant.health.failures().contains_key("dynatrace"));
}

#[tokio::test]
async fn a_platform_token_is_a_bearer_of_the_mirrored_paths() {
    let tenant =
        Tenant::with(vec![entities()], |settings| settings.token = "dt0s16.ID.SECRET".to_owned().into())
            .await;
    tenant.source.services().await.unwrap();
    assert!(tenant.asked()[0].ends_with("[Bearer dt0s16.ID.SECRET]"));
}

#[tokio::test]
async fn calls_that_are_refused_together_all_get_the_new_token() {
    let refused = || answer("entities", 401, "{}");
    let good = || answer("entities", 200, r#"{"totalCount":0,"entities":[]}"#);
    let tenant = Tenant::new(vec![refused(), refused(), refused(), good(), good(), good()]).await;
    std::fs::write(&tenant.token_file, "dt0c01.NEW.SECRET").unwrap();
    let all = || async { tenant.source.services().await.unwrap() };
    tokio::join!(all(), all(), all());
    let asked = tenant.asked();
    assert_eq!(
        asked.iter().filter(|call| call.ends_with("[Api-Token dt0c01.NEW.SECRET]")).count(),
        3,
        "{asked:?}"
    );
}
