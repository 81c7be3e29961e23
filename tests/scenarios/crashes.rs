//! Kills, outages, replicas, and stopping: nothing is lost, nothing is done twice.

use std::time::Duration;
use vouch_proto::{ActionOutcome, Outcome, Purpose};
use vouch_simulator::Effect;
use vouch_tests::{Services, Telemetry, World};

/// Slow enough that a lease of 5 s is a few minutes of the world's clock.
const SPEED: f64 = 40.0;
/// A verification that lasts long enough for something to be killed in its middle.
const MINUTES: u64 = 16;

/// Begins to verify a version of `payment` whose latency grows slowly, so that it fails late.
async fn begin(world: &World, services: &Services) -> String {
    let at = world.now().floor_minute().plus_minutes(4).as_millis();
    world.simulator.deploy("payment", "2.4.0", at, Effect::LatencyStep { factor: 2.2 }).unwrap();
    let request = world.request("payment", "2.4.0", MINUTES);
    services.client().await.start(request).await.unwrap().into_inner().verification_id
}

/// Exactly one final verdict, a Fail, and exactly one rollback.
async fn ends_once(world: &World, id: &str) {
    let topics = world.topics().await;
    let verdict = topics.verdict(id).await;
    assert_eq!(verdict.outcome, Outcome::Fail, "{}", verdict.reason);
    let action = topics.action(id, Purpose::Rollback).await;
    assert_eq!(action.outcome, ActionOutcome::Done, "{}", action.detail);
    // Whatever else would come has had the time to come.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let verdicts = topics.verdicts(id).await;
    assert_eq!(verdicts.iter().filter(|v| v.revision == 0).count(), 1, "one final verdict");
    assert_eq!(world.hook.calls().len(), 1, "one rollback");
    let rollbacks = topics.actions(id).await.into_iter().filter(|a| a.purpose == Purpose::Rollback);
    assert_eq!(rollbacks.filter(|a| a.outcome == ActionOutcome::Done).count(), 1);
}

#[tokio::test]
async fn an_analyzer_killed_in_the_middle_goes_on_after_its_restart() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let mut services = world.spawn_all().await;
    let id = begin(&world, &services).await;
    world.topics().await.batches(5).await;
    services.analyzer.kill();
    services.analyzer.restart().await;
    ends_once(&world, &id).await;
}

#[tokio::test]
async fn a_collector_killed_in_the_middle_goes_on_after_its_restart() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let mut services = world.spawn_all().await;
    let id = begin(&world, &services).await;
    world.topics().await.batches(5).await;
    services.collector.kill();
    services.collector.restart().await;
    ends_once(&world, &id).await;
}

#[tokio::test]
async fn a_notifier_that_is_away_acts_when_it_is_back() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let mut services = world.spawn_all().await;
    let id = begin(&world, &services).await;
    world.topics().await.batches(5).await;
    services.notifier.kill();
    world.topics().await.verdict(&id).await;
    assert_eq!(world.hook.calls().len(), 0);
    services.notifier.restart().await;
    ends_once(&world, &id).await;
}

#[tokio::test]
async fn a_nats_server_killed_in_the_middle_loses_nothing() {
    let mut world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let services = world.spawn_all().await;
    let id = begin(&world, &services).await;
    world.topics().await.batches(5).await;
    world.nats.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.nats.restart().unwrap();
    ends_once(&world, &id).await;
}

#[tokio::test]
async fn two_of_each_give_one_verdict_and_one_rollback() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let services = world.spawn_all().await;
    let more = [
        world.spawn("collector", "collector-2").await,
        world.spawn("analyzer", "analyzer-2").await,
        world.spawn("notifier", "notifier-2").await,
    ];
    for program in &more {
        program.ready().await;
    }
    let id = begin(&world, &services).await;
    ends_once(&world, &id).await;
}

#[tokio::test]
async fn a_replica_takes_over_from_one_that_is_killed() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let mut services = world.spawn_all().await;
    let id = begin(&world, &services).await;
    world.topics().await.batches(5).await;
    // The owner goes, and only then another comes: what it knows is in the streams alone.
    services.analyzer.kill();
    services.collector.kill();
    let analyzer = world.spawn("analyzer", "analyzer-2").await;
    let collector = world.spawn("collector", "collector-2").await;
    analyzer.ready().await;
    collector.ready().await;
    ends_once(&world, &id).await;
}

#[tokio::test]
async fn sigterm_drains_in_time() {
    let world = World::start(Telemetry::Scenario("demo"), SPEED).await;
    let Services { collector, analyzer, notifier } = {
        let services = world.spawn_all().await;
        begin(&world, &services).await;
        world.topics().await.batches(4).await;
        services
    };
    for mut program in [collector, analyzer, notifier] {
        let (status, took) = program.terminate().await;
        assert!(status.success(), "{program:?} ended with {status}");
        assert!(took < Duration::from_secs(10), "{program:?} took {took:?}");
    }
}
