//! Bad input over gRPC, and a tenant that refuses the token.

use std::time::Duration;
use tonic_types::StatusExt as _;
use vouch_proto::deployment::wire_duration;
use vouch_proto::{Outcome, v1};
use vouch_tests::{Telemetry, World};

fn fields(status: &tonic::Status) -> Vec<String> {
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    let details = status.get_error_details();
    let violations = details.bad_request().map(|b| b.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|v| v.field).collect()
}

#[tokio::test]
async fn bad_requests_are_refused_with_the_field_named() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let services = world.spawn_all().await;
    let mut client = services.client().await;
    // The catalogue has been read once the collector is ready and has looked.
    let known = client.start(world.request("checkout", "9", 5)).await;
    assert!(known.is_ok(), "{known:?}");

    let empty = client.start(v1::StartRequest::default()).await.unwrap_err();
    assert_eq!(fields(&empty), ["service", "environment", "version"]);

    let mut future = world.request("checkout", "1.1.0", 10);
    future.started_at = Some(world.now().plus_minutes(90).into());
    assert_eq!(fields(&client.start(future).await.unwrap_err()), ["started_at"]);

    for (duration, word) in [(-60, "negative"), (60, "too short"), (90_000, "too long")] {
        let mut request = world.request("checkout", "1.1.0", 10);
        let duration = pbjson_types::Duration { seconds: duration, nanos: 0 };
        request.verification.as_mut().unwrap().duration = Some(duration);
        let refused = client.start(request).await.unwrap_err();
        assert_eq!(fields(&refused), ["verification.duration"]);
        assert!(refused.message().contains(word), "{refused}");
    }

    let mut template = world.request("checkout", "1.1.0", 10);
    template.verification.as_mut().unwrap().template = "gold".to_owned();
    let refused = client.start(template).await.unwrap_err();
    assert_eq!(fields(&refused), ["verification.template"]);
    assert!(refused.message().contains("golden-signals"), "{refused}");

    let mut canary = world.request("checkout", "1.1.0", 10);
    canary.verification = Some(v1::VerificationRequest {
        strategy: v1::Strategy::Canary as i32,
        duration: Some(wire_duration(Duration::from_secs(600))),
        ..Default::default()
    });
    assert_eq!(fields(&client.start(canary).await.unwrap_err()), ["verification.strategy"]);

    let missing = client.get(v1::GetRequest { verification_id: "nope".into() }).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);
    let no_id = client.get(v1::GetRequest::default()).await.unwrap_err();
    assert_eq!(fields(&no_id), ["verification_id"]);
}

#[tokio::test]
async fn an_unknown_service_is_refused_with_similar_names() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let services = world.spawn_all().await;
    let mut client = services.client().await;
    let begun = std::time::Instant::now();
    // Until the catalogue has been read once, nothing can be said about a name.
    let refused = loop {
        match client.start(world.request("chekout", "1.1.0", 5)).await {
            Err(refused) => break refused,
            Ok(_) => assert!(begun.elapsed() < vouch_tests::LIMIT, "never refused"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(fields(&refused), ["service"]);
    assert!(refused.message().contains("`chekout`") && refused.message().contains("checkout"), "{refused}");
}

#[tokio::test]
async fn a_wrong_token_stops_readiness_and_ends_in_error() {
    let wrong = vouch_tests::TOKEN.replace('T', "X");
    let world =
        World::start(Telemetry::Scenario("demo"), 120.0).await.with_collector(&format!("token: {wrong}"));
    let collector = world.spawn("collector", "collector").await;
    let analyzer = world.spawn("analyzer", "analyzer").await;
    analyzer.ready().await;
    let why = collector.not_ready("token").await;
    assert!(why.contains("503"), "{why}");
    assert!(!why.contains(&wrong), "the token is never shown");
    let started =
        analyzer.client().await.start(world.request("checkout", "1.1.0", 30)).await.unwrap().into_inner();
    let verdict = world.topics().await.verdict(&started.verification_id).await;
    assert_eq!(verdict.outcome, Outcome::Error, "{}", verdict.reason);
    assert!(verdict.reason.contains("unauthorized"), "{}", verdict.reason);
    let early = started.deadline.unwrap().seconds - verdict.decided_at.as_millis() / 1000;
    assert!(early > 600, "it does not wait for the deadline: {early} s");
}
