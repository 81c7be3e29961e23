//! Deployments announced on the topic by somebody who knows nothing of Vouch but its messages.

use serde_json::json;
use vouch_proto::subject;
use vouch_proto::{Cause, Name, Outcome, v1};
use vouch_tests::{ENVIRONMENT, Telemetry, Topics, World};

async fn announce(world: &World, topics: &Topics, service: &str, more: serde_json::Value) {
    let (environment, name) = (Name::new(ENVIRONMENT).unwrap(), Name::new(service).unwrap());
    let mut body = json!({
        "service": service,
        "environment": ENVIRONMENT,
        "occurredAt": world.now().floor_minute().to_string(),
        "verification": { "duration": "480s" },
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    topics.publish(subject::deployment(&environment, &name), body.to_string().into_bytes()).await;
}

#[tokio::test]
async fn plain_json_on_the_topic_is_enough_and_duplicates_join() {
    let world = World::start(Telemetry::Scenario("demo"), 120.0).await;
    let _services = world.spawn_all().await;
    let topics = world.topics().await;
    for phase in ["DEPLOYMENT_PHASE_STARTED", "DEPLOYMENT_PHASE_STARTED", "DEPLOYMENT_PHASE_TRAFFIC"] {
        announce(&world, &topics, "checkout", json!({ "version": "1.1.0", "phase": phase })).await;
    }
    let verdict = topics.verdict_on("checkout", "1.1.0").await;
    assert_eq!(verdict.outcome, Outcome::Pass, "{}", verdict.reason);
    assert_eq!(topics.verdicts(&verdict.verification_id).await.len(), 1);
    assert!(verdict.verification_id.ends_with(".1"));
}

#[tokio::test]
async fn a_newer_deployment_supersedes_and_an_abort_ends() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let _services = world.spawn_all().await;
    let topics = world.topics().await;
    let traffic = "DEPLOYMENT_PHASE_TRAFFIC";
    announce(&world, &topics, "checkout", json!({ "version": "1.1.0", "phase": traffic })).await;
    topics.batches(1).await;
    announce(&world, &topics, "checkout", json!({ "version": "1.2.0", "phase": traffic })).await;
    let old = topics.verdict_on("checkout", "1.1.0").await;
    assert_eq!((old.outcome, old.cause), (Outcome::Inconclusive, Cause::Superseded), "{}", old.reason);
    let aborted =
        json!({ "version": "1.2.0", "phase": "DEPLOYMENT_PHASE_ABORTED", "reason": "tests failed" });
    announce(&world, &topics, "checkout", aborted).await;
    let new = topics.verdict_on("checkout", "1.2.0").await;
    assert_eq!((new.outcome, new.cause), (Outcome::Inconclusive, Cause::Aborted), "{}", new.reason);
    assert!(new.reason.contains("tests failed"));
}

#[tokio::test]
async fn a_cancelled_verification_is_inconclusive_and_can_be_asked_for_again() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let services = world.spawn_all().await;
    let mut client = services.client().await;
    let started = client.start(world.request("checkout", "1.1.0", 30)).await.unwrap().into_inner();
    let joined = client.start(world.request("checkout", "1.1.0", 30)).await.unwrap().into_inner();
    assert_eq!(joined.verification_id, started.verification_id, "a second start joins the first");
    let cancel = v1::CancelRequest {
        verification_id: started.verification_id.clone(),
        cancelled_by: "ann".to_owned(),
        reason: "wrong window".to_owned(),
    };
    let ended = client.cancel(cancel.clone()).await.unwrap().into_inner();
    let verdict = ended.verdict.unwrap();
    assert_eq!(verdict.outcome, v1::Outcome::Inconclusive as i32);
    assert_eq!(verdict.cause, v1::Cause::Cancelled as i32);
    assert!(verdict.reason.contains("ann") && verdict.reason.contains("wrong window"));
    assert_eq!(client.cancel(cancel).await.unwrap_err().code(), tonic::Code::FailedPrecondition);

    let again = client.start(world.request("checkout", "1.1.0", 6)).await.unwrap().into_inner();
    let (first, second) = (&started.verification_id, &again.verification_id);
    assert!(first.ends_with(".1") && second.ends_with(".2"), "{first} then {second}");
    let verdict = world.topics().await.verdict(second).await;
    assert_eq!(verdict.outcome, Outcome::Pass, "{}", verdict.reason);

    let list =
        client.list(v1::ListRequest { page_size: 1, ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(list.verifications[0].verification_id, *second, "newest first");
    let rest = v1::ListRequest { page_token: list.next_page_token, ..Default::default() };
    let rest = client.list(rest).await.unwrap().into_inner();
    assert_eq!(rest.verifications[0].verification_id, *first);
    assert_eq!((rest.verifications.len(), rest.next_page_token.as_str()), (1, ""));
}
