//! How verifications end: each outcome, its cause, and what is done about it.

use vouch_proto::{ActionOutcome, Cause, Classification, Outcome, Purpose, Strategy, v1};
use vouch_simulator::{Deploy, Effect, Fault, FaultRule, Rollout};
use vouch_tests::{Telemetry, World};

const SPEED: f64 = 120.0;

#[tokio::test]
async fn a_healthy_deployment_passes_and_nothing_is_done() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let services = world.spawn_all().await;
    let mut client = services.client().await;
    let request = world.request("checkout", "1.1.0", 10);
    let started = client.start(request).await.unwrap().into_inner();
    let topics = world.topics().await;
    let verdict = topics.verdict(&started.verification_id).await;
    assert_eq!((verdict.outcome, verdict.cause), (Outcome::Pass, Cause::Healthy), "{}", verdict.reason);
    assert!(verdict.usable_minutes >= 9 && verdict.risk < 1.0);
    let action = topics.action(&started.verification_id, Purpose::Alert).await;
    assert_eq!((action.outcome, action.rule.as_str()), (ActionOutcome::Skipped, "pass-does-nothing"));
    assert_eq!(world.hook.calls().len(), 0);
}

#[tokio::test]
async fn a_regression_fails_with_its_metric_and_is_rolled_back_once() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let services = world.spawn_all().await;
    let request = world.request("payment", "2.4.0", 20);
    let at = world.now().floor_minute().as_millis();
    world.simulator.deploy("payment", "2.4.0", at, Effect::LatencyStep { factor: 2.0 }).unwrap();
    let started = services.client().await.start(request).await.unwrap().into_inner();
    let topics = world.topics().await;
    let verdict = topics.verdict(&started.verification_id).await;
    assert_eq!((verdict.outcome, verdict.cause), (Outcome::Fail, Cause::Regression), "{}", verdict.reason);
    assert!(verdict.metrics[0].metric.starts_with("response_time"), "{:?}", verdict.metrics[0]);
    assert_eq!(verdict.metrics[0].classification, Classification::High);
    let action = topics.action(&started.verification_id, Purpose::Rollback).await;
    assert_eq!((action.outcome, action.rule.as_str()), (ActionOutcome::Done, "fail-rolls-back"));
    let calls = world.hook.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(calls[0]["verdict"]["verificationId"], started.verification_id);
}

/// A request for the blue-green deployment of `checkout`, which its new hosts alone are named for.
fn blue_green(world: &World, effect: Effect) -> v1::StartRequest {
    let green = ["checkout-green-1", "checkout-green-2", "checkout-green-3"];
    let at = world.now().floor_minute();
    let deploy = Deploy {
        service: "checkout".to_owned(),
        version: "1.1.0".to_owned(),
        at_ms: at.as_millis(),
        effect,
        rollout: Rollout::BlueGreen { hosts: green.map(ToOwned::to_owned).to_vec() },
        warm_up: None,
    };
    world.simulator.deploy_with(deploy).unwrap();
    let mut request = world.request("checkout", "1.1.0", 12);
    request.started_at = Some(at.into());
    request.hosts = green
        .map(|name| v1::DeploymentHost {
            name: name.to_owned(),
            group: v1::HostGroup::Test as i32,
            ..Default::default()
        })
        .to_vec();
    let verification = request.verification.as_mut().unwrap();
    verification.strategy = v1::Strategy::BlueGreen as i32;
    verification.template = "golden-signals-by-host".to_owned();
    request
}

#[tokio::test]
async fn a_blue_green_deployment_is_compared_with_the_old_stack() {
    for (effect, expected) in
        [(Effect::Healthy, Outcome::Pass), (Effect::LatencyStep { factor: 1.6 }, Outcome::Fail)]
    {
        let world = World::start(Telemetry::Scenario("blue-green-bad"), SPEED).await;
        let services = world.spawn_all().await;
        let request = blue_green(&world, effect);
        let started = services.client().await.start(request).await.unwrap().into_inner();
        let verdict = world.topics().await.verdict(&started.verification_id).await;
        assert_eq!(verdict.outcome, expected, "{}", verdict.reason);
        assert_eq!(verdict.strategy, Strategy::BlueGreen);
        assert!(verdict.strategy_reason.contains("3 new hosts"), "{}", verdict.strategy_reason);
        assert!(verdict.strategy_reason.contains("3 old hosts"), "{}", verdict.strategy_reason);
    }
}

#[tokio::test]
async fn dynatrace_down_the_whole_time_is_an_error_at_the_deadline() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let services = world.spawn_all().await;
    world.simulator.add_fault(FaultRule::new(Fault::Status { code: 503 })).unwrap();
    let request = world.request("checkout", "1.1.0", 5);
    let started = services.client().await.start(request).await.unwrap().into_inner();
    let topics = world.topics().await;
    let verdict = topics.verdict(&started.verification_id).await;
    assert_eq!((verdict.outcome, verdict.cause), (Outcome::Error, Cause::SourceError), "{}", verdict.reason);
    let action = topics.action(&started.verification_id, Purpose::Alert).await;
    assert_eq!(action.outcome, ActionOutcome::Done, "{}", action.detail);
    assert_eq!(world.hook.calls().len(), 0, "an Error never rolls back");
}

#[tokio::test]
async fn a_tenant_that_is_down_for_half_an_hour_in_the_middle_delays_the_verdict_and_changes_nothing() {
    let world = World::start(Telemetry::Scenario("demo"), 240.0).await;
    let services = world.spawn_all().await;
    let topics = world.topics().await;
    let mut client = services.client().await;
    let start = world.now().floor_minute();
    world
        .simulator
        .deploy("payment", "2.4.0", start.plus_minutes(20).as_millis(), Effect::ErrorStep { rate: 0.3 })
        .unwrap();
    let bad = client.start(world.request("payment", "2.4.0", 45)).await.unwrap().into_inner();
    let good = client.start(world.request("checkout", "1.1.0", 45)).await.unwrap().into_inner();
    topics.batches(6).await;
    world.wait_until(start.plus_minutes(8)).await;
    world.simulator.add_fault(FaultRule::new(Fault::Status { code: 503 })).unwrap();
    world.wait_until(start.plus_minutes(38)).await;
    let early = topics.verdicts(&bad.verification_id).await;
    assert_eq!(early.len(), 0, "nothing is made up while nothing is measured");
    world.simulator.clear_faults();
    let (bad, good) =
        (topics.verdict(&bad.verification_id).await, topics.verdict(&good.verification_id).await);
    // The degradation began while nobody could see it, and is found at its own minute.
    assert_eq!(bad.outcome, Outcome::Fail, "{}", bad.reason);
    assert_eq!(good.outcome, Outcome::Pass, "{}", good.reason);
    assert!(good.usable_minutes >= 44, "the minutes of the outage came in the end: {}", good.usable_minutes);
}

#[tokio::test]
async fn no_data_is_inconclusive() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let services = world.spawn_all().await;
    let at = world.now().floor_minute().as_millis();
    world.simulator.deploy("checkout", "1.1.0", at, Effect::MissingData).unwrap();
    let request = world.request("checkout", "1.1.0", 6);
    let started = services.client().await.start(request).await.unwrap().into_inner();
    let topics = world.topics().await;
    let verdict = topics.verdict(&started.verification_id).await;
    assert_eq!(
        (verdict.outcome, verdict.cause),
        (Outcome::Inconclusive, Cause::NoData),
        "{}",
        verdict.reason
    );
    topics.action(&started.verification_id, Purpose::Alert).await;
    assert_eq!(world.hook.calls().len(), 0, "Inconclusive never rolls back");
}

#[tokio::test]
async fn no_collector_is_an_error_at_the_deadline() {
    let world = World::start(Telemetry::Scenario("demo"), 240.0).await;
    let analyzer = world.spawn("analyzer", "analyzer").await;
    analyzer.ready().await;
    let request = world.request("checkout", "1.1.0", 5);
    let started = analyzer.client().await.start(request).await.unwrap().into_inner();
    let verdict = world.topics().await.verdict(&started.verification_id).await;
    assert_eq!(
        (verdict.outcome, verdict.cause),
        (Outcome::Error, Cause::CollectorSilent),
        "{}",
        verdict.reason
    );
}
