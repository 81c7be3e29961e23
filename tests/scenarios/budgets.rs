//! The tenant's budget: the first bad deployment is rolled back, the second is alert only and says so.

use serde_json::Value;
use std::process::{Command, Output};
use vouch_proto::{ActionOutcome, Outcome, Purpose};
use vouch_simulator::Effect;
use vouch_tests::{Services, Telemetry, Topics, World, program};

/// Deploys something bad and waits for its Fail.
async fn bad(world: &World, services: &Services, topics: &Topics, service: &str, version: &str) -> String {
    let request = world.request(service, version, 20);
    let at = world.now().floor_minute().as_millis();
    world.simulator.deploy(service, version, at, Effect::LatencyStep { factor: 2.0 }).unwrap();
    let started = services.client().await.start(request).await.unwrap().into_inner();
    let verdict = topics.verdict(&started.verification_id).await;
    assert_eq!(verdict.outcome, Outcome::Fail, "{}", verdict.reason);
    let (levels, reached) = (verdict.levels.unwrap(), verdict.reached.unwrap());
    assert_eq!(levels.rollbacks.as_deref(), Some("1/90d"));
    assert_eq!(levels.counted, started.levels.unwrap().counted.map(Into::into), "fixed when it was opened");
    assert!(reached.evidence >= reached.needed && levels.rollback > levels.fail, "{levels:?} {reached:?}");
    started.verification_id
}

async fn budget(server: &str, more: &[&str]) -> Output {
    let arguments: Vec<String> =
        ["budget", "--server", server].iter().chain(more).map(|a| (*a).to_owned()).collect();
    let run = move || Command::new(program("vouch")).args(arguments).output().expect("vouch runs");
    tokio::task::spawn_blocking(run).await.expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_budget_of_rollbacks_is_alert_only_and_survives_a_restart() {
    let world = World::start(Telemetry::Scenario("demo"), 120.0).await.with("budget: {rollbacks: 1/90d}");
    let mut services = world.spawn_all().await;
    let topics = world.topics().await;

    let first = bad(&world, &services, &topics, "payment", "2.4.0").await;
    let rollback = topics.action(&first, Purpose::Rollback).await;
    assert_eq!((rollback.outcome, rollback.rule.as_str()), (ActionOutcome::Done, "fail-rolls-back"));

    services.notifier.kill();
    services.notifier.restart().await;
    let second = bad(&world, &services, &topics, "checkout", "1.1.0").await;
    let withheld = topics.action(&second, Purpose::Rollback).await;
    let rule = (withheld.outcome, withheld.rule.as_str());
    assert_eq!(rule, (ActionOutcome::Skipped, "rollback-budget-spent"), "{}", withheld.detail);
    let said = "the budget of rollbacks, 1/90d, is spent and free again at ";
    assert!(
        withheld.detail.starts_with(&format!("Not rolled back, alert only: {said}")),
        "{}",
        withheld.detail
    );
    let same = |action: &vouch_proto::Action| action.budget.as_deref().is_some_and(|b| b.starts_with(said));
    let alerts = topics.actions(&second).await;
    assert!(alerts.iter().any(|a| a.purpose == Purpose::Alert && same(a)), "{alerts:?}");
    assert_eq!(world.hook.calls().len(), 1, "one rollback in all");

    let server = services.analyzer.grpc_url();
    let shown = budget(&server, &[]).await;
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    let shown = text(&shown.stdout);
    assert!(shown.contains("rollbacks  1/90d; SPENT, alert only until "), "{shown}");
    assert!(shown.contains("payment 2.4.0 in prod") && shown.contains("pages      no budget"), "{shown}");
    let json: Value = serde_json::from_slice(&budget(&server, &["--output", "json"]).await.stdout).unwrap();
    let spent = &json["rollbacks"]["spent"];
    assert_eq!(spent.as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!(spent[0]["id"], rollback.action_id.as_str());
    assert_eq!(spent[0]["done"], true);
    assert!(json["rollbacks"]["freeAt"].is_string() && json["rollbacks"]["exhausted"] == true, "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_analyzer_it_is_3_and_says_so() {
    let shown = budget("http://127.0.0.1:1", &[]).await;
    assert_eq!(shown.status.code(), Some(3));
    assert!(text(&shown.stderr).contains("does not answer"), "{}", text(&shown.stderr));
}
