//! Services named by rules: what they say travels with the deployment, into the verdict and what is done about it.

use serde_json::Value;
use std::process::Command;
use vouch_proto::{Outcome, v1};
use vouch_simulator::Effect;
use vouch_tests::{TOKEN, Telemetry, World, program};

const RULES: &str = "services:\n- match: {label: app=*}\n  service: label:app\n  environment: tag:environment\n  \
                     owner: tag:team\noverrides:\n- {match: {service: pay*}, template: quick}";
const QUICK: &str = "templates:\n- name: quick\n  days_before: []\n  metrics:\n  - {name: errors, \
                     query: 'builtin:service.errors.total.count:splitBy(\"dt.entity.service\"):value', direction: increase, unit: count, exposure: requests}\n  \
                     - {name: requests, query: 'builtin:service.requestCount.total:splitBy(\"dt.entity.service\"):value', direction: decrease, unit: count}\n";

#[tokio::test(flavor = "multi_thread")]
async fn owner_and_template_follow_from_the_rules() {
    let world = World::start(Telemetry::Scenario("demo"), 120.0).await.with(RULES).with_templates(QUICK);
    let services = world.spawn_all().await;
    let topics = world.topics().await;
    let mut client = services.client().await;
    let at = world.now().floor_minute().as_millis();
    world.simulator.deploy("payment", "2.4.0", at, Effect::ErrorStep { rate: 0.3 }).unwrap();
    let request = v1::StartRequest { owner: String::new(), ..world.request("payment", "2.4.0", 10) };
    let started = client.start(request).await.unwrap().into_inner();
    assert_eq!(started.template, "quick", "by the override");
    assert_eq!(started.deployment.unwrap().owner, "billing", "as the rule says");
    let verdict = topics.verdict_on("payment", "2.4.0").await;
    assert_eq!(
        (verdict.outcome, verdict.owner.as_deref()),
        (Outcome::Fail, Some("billing")),
        "{}",
        verdict.reason
    );
    let action = topics.action(&verdict.verification_id, vouch_proto::Purpose::Rollback).await;
    assert_eq!(action.owner.as_deref(), Some("billing"));
}

fn vouch(arguments: &[&str]) -> std::process::Output {
    Command::new(program("vouch")).args(arguments).output().expect("vouch runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn init_writes_settings_that_name_every_service() {
    let world = World::start(Telemetry::Scenario("demo"), 1.0).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token").display().to_string();
    std::fs::write(&token, TOKEN).unwrap();
    let file = folder.path().join("vouch.yaml").display().to_string();
    let url = world.dynatrace_url();
    let init = ["init", "--url", &url, "--token-file", &token, "--file", &file].map(ToOwned::to_owned);
    let run = move |all: Vec<String>| async move {
        let run = move || vouch(&all.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.unwrap()
    };
    let written = run(init.to_vec()).await;
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    assert!(
        String::from_utf8_lossy(&written.stdout).contains("2 named, 0 ambiguous, 0 unmatched"),
        "{written:?}"
    );
    let again = run(init.to_vec()).await;
    assert_eq!(again.status.code(), Some(64), "a file is not overwritten unasked");
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"), "{again:?}");
    let arguments = ["services", "--settings", &file, "--output", "json"].map(ToOwned::to_owned);
    let shown = run(arguments.to_vec()).await;
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let names: Vec<&str> =
        shown["named"].as_array().unwrap().iter().filter_map(|one| one["service"].as_str()).collect();
    assert_eq!(names, ["checkout", "payment"]);
    let arguments = ["services", "--settings", &file, "--explain", "checkout"].map(ToOwned::to_owned);
    let explained = run(arguments.to_vec()).await;
    assert_eq!(explained.status.code(), Some(0), "{explained:?}");
    let said = String::from_utf8_lossy(&explained.stdout);
    for part in [
        "run by 3 processes",
        "for the service as a whole only: it has dt.entity.service",
        "for each dt.entity.process_group_instance",
        "calc:service.response_time  by dt.entity.service, dt.entity.process_group_instance",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
