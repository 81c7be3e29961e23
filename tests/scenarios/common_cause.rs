//! What a deployment did not cause: a shared database slows down, and nobody is rolled back for it.

use vouch_proto::{ActionOutcome, Cause, Outcome, Purpose, v1};
use vouch_simulator::{Effect, Fault, FaultRule, Incident, ProblemSpec};
use vouch_tests::{Telemetry, World};

const SPEED: f64 = 120.0;

/// The database of `checkout`, `cart` and `orders` slows down in so many minutes.
fn slow_database(world: &World, in_minutes: i64, problem: Option<ProblemSpec>) {
    let at = world.now().floor_minute().plus_minutes(in_minutes).as_millis();
    let incident = Incident::new("orders-db", at, Effect::LatencyStep { factor: 1.8 });
    let shares = [("cart".to_owned(), 0.8), ("orders".to_owned(), 0.9)].into();
    world.simulator.incident(Incident { shares, problem, ..incident }).unwrap();
}

async fn verdict_of(world: &World, id: &str) -> vouch_proto::Verdict {
    world.topics().await.verdict(id).await
}

#[tokio::test]
async fn services_that_share_a_database_bear_witness_and_nothing_is_rolled_back() {
    let world = World::start(Telemetry::Scenario("shared-database"), SPEED).await;
    let services = world.spawn_all().await;
    let request = world.request("checkout", "1.1.0", 15);
    slow_database(&world, 4, None);
    let started = services.client().await.start(request).await.unwrap().into_inner();
    let verdict = verdict_of(&world, &started.verification_id).await;
    let ended = (verdict.outcome, verdict.cause);
    assert_eq!(ended, (Outcome::Inconclusive, Cause::CommonCause), "{}", verdict.reason);
    let cause = verdict.common_cause.unwrap();
    let mut witnesses: Vec<&str> = cause.witnesses.iter().map(|one| one.service.as_str()).collect();
    witnesses.sort_unstable();
    assert_eq!(
        (witnesses, cause.shares.as_deref()),
        (vec!["cart", "orders"], Some("orders-db")),
        "{}",
        cause.text
    );
    let action = world.topics().await.action(&started.verification_id, Purpose::Alert).await;
    assert_eq!(action.outcome, ActionOutcome::Done, "{}", action.detail);
    assert_eq!(world.hook.calls().len(), 0, "an Inconclusive never rolls back");
}

#[tokio::test]
async fn a_problem_with_its_root_elsewhere_speaks_for_services_that_are_deployed_together() {
    let world = World::start(Telemetry::Scenario("shared-database"), SPEED).await;
    let services = world.spawn_all().await;
    slow_database(&world, 4, Some(ProblemSpec { after_minutes: 0.0, ..ProblemSpec::default() }));
    let mut client = services.client().await;
    let mut started = Vec::new();
    for service in ["checkout", "cart", "orders"] {
        let request = world.request(service, "1.1.0", 15);
        started.push(client.start(request).await.unwrap().into_inner().verification_id);
    }
    for id in started {
        let verdict = verdict_of(&world, &id).await;
        let ended = (verdict.outcome, verdict.cause);
        assert_eq!(ended, (Outcome::Inconclusive, Cause::CommonCause), "{}", verdict.reason);
        let cause = verdict.common_cause.unwrap();
        assert_eq!((cause.witnesses.len(), cause.problems.len()), (0, 1), "{}", cause.text);
        assert!(verdict.reason.contains("orders-db"), "{}", verdict.reason);
        assert!(verdict.problems.iter().any(|problem| cause.problems.contains(&problem.id)));
        assert!(verdict.objectives.iter().all(|one| one.reached.is_some()) && !verdict.objectives.is_empty());
    }
    assert_eq!(world.hook.calls().len(), 0);
}

#[tokio::test]
async fn a_bad_version_among_healthy_services_is_rolled_back_and_its_time_is_left_out_later() {
    let world = World::start(Telemetry::Scenario("shared-database"), SPEED).await;
    let services = world.spawn_all().await;
    let mut client = services.client().await;
    let request = world.request("checkout", "1.1.0", 15);
    let at = world.now().floor_minute().as_millis();
    world.simulator.deploy("checkout", "1.1.0", at, Effect::LatencyStep { factor: 2.0 }).unwrap();
    let started = client.start(request).await.unwrap().into_inner();
    let verdict = verdict_of(&world, &started.verification_id).await;
    assert_eq!((verdict.outcome, verdict.cause), (Outcome::Fail, Cause::Regression), "{}", verdict.reason);
    assert_eq!((verdict.common_cause, verdict.left_out), (None, vec![]));
    let action = world.topics().await.action(&started.verification_id, Purpose::Rollback).await;
    assert_eq!(action.outcome, ActionOutcome::Done, "{}", action.detail);
    world.simulator.rollback("checkout").unwrap();

    // Against a past of which the slow minutes were a part, a version that is slow again would look better.
    let next = world.now().floor_minute().plus_minutes(3);
    world.wait_until(next).await;
    let again = client.start(world.request("checkout", "1.2.0", 6)).await.unwrap().into_inner();
    let verdict = verdict_of(&world, &again.verification_id).await;
    assert_eq!(verdict.outcome, Outcome::Pass, "{}", verdict.reason);
    assert_eq!(verdict.left_out.len(), 1, "{:?}", verdict.left_out);
    let left_out = &verdict.left_out[0];
    assert_eq!(left_out.window.end(), action.finished_at.ceil_minute());
    let why = format!("version 1.1.0 failed and was rolled back (verification {})", started.verification_id);
    assert_eq!(left_out.why, why);
}

#[tokio::test]
async fn a_tenant_that_tells_nothing_of_the_surroundings_is_judged_without() {
    let world = World::start(Telemetry::Scenario("shared-database"), SPEED).await;
    let no_problems = FaultRule::new(Fault::Status { code: 403 }).on("/api/v2/problems");
    world.simulator.add_fault(no_problems).unwrap();
    let services = world.spawn_all().await;
    let request = world.request("checkout", "1.1.0", 6);
    let started = services.client().await.start(request).await.unwrap().into_inner();
    let verdict = verdict_of(&world, &started.verification_id).await;
    assert_eq!(verdict.outcome, Outcome::Pass, "{}", verdict.reason);
    services.collector.ready().await;
    let _: v1::Verdict = verdict.into();
}
