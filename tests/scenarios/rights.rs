//! The users of `deploy/nats.conf`: each program has the rights that it needs, and nothing is refused to it.

use vouch_proto::subject::LOGS;
use vouch_proto::{Outcome, Purpose, v1};
use vouch_simulator::Effect;
use vouch_tests::{PLATFORM_TOKEN, Telemetry, World};

const SPEED: f64 = 120.0;

#[tokio::test]
async fn every_program_gets_by_with_the_rights_of_its_user() {
    let world = World::start_guarded(Telemetry::Scenario("shared-database"), SPEED)
        .await
        .with("budget: {rollbacks: 5/30d, pages: 5/7d}")
        .with_collector(&format!(
            "token: {PLATFORM_TOKEN}, logs: {{source: grail, before: 5m}}, billed: {{scan_budget_gib_per_day: 1}}"
        ));
    let services = world.spawn_all().await;
    let mut client = services.client().await;
    let topics = world.topics().await;
    let at = world.now().floor_minute().as_millis();
    world.simulator.deploy("checkout", "1.1.0", at, Effect::LatencyStep { factor: 2.0 }).unwrap();
    let bad = client.start(world.request("checkout", "1.1.0", 15)).await.unwrap().into_inner();
    let mut watched = client
        .watch(v1::WatchRequest { verification_id: bad.verification_id.clone() })
        .await
        .unwrap()
        .into_inner();
    while watched.message().await.unwrap().is_some() {}
    let verdict = topics.verdict(&bad.verification_id).await;
    assert_eq!(verdict.outcome, Outcome::Fail, "{}", verdict.reason);
    topics.action(&bad.verification_id, Purpose::Rollback).await;
    world.simulator.rollback("checkout").unwrap();

    // What the first verification left is read by the second: rollbacks, spending, evidence.
    world.wait_until(world.now().floor_minute().plus_minutes(3)).await;
    let good = client.start(world.request("checkout", "1.2.0", 6)).await.unwrap().into_inner();
    let verdict = topics.verdict(&good.verification_id).await;
    assert_eq!((verdict.outcome, verdict.left_out.len()), (Outcome::Pass, 1), "{}", verdict.reason);
    let evidence = v1::GetEvidenceRequest { verification_id: bad.verification_id.clone() };
    client.get_evidence(evidence).await.unwrap();
    let all = client.list(v1::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.verifications.len(), 2);
    assert!(!topics.all(&LOGS).await.is_empty());
    assert_eq!(world.refused(), Vec::<String>::new());
}
