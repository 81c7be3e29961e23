//! Logs through the real programs: every line of a deployment once on its topic, through a kill; and by hand.

use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::subject::LOGS;
use vouch_proto::{LogBatch, LogLevel, LogState, Outcome, Timestamp, Window, v1};
use vouch_simulator::{Effect, service_id};
use vouch_tests::{PLATFORM_TOKEN, TOKEN, Telemetry, Topics, World, program};

const MINUTES: u64 = 10;

/// The parts of every window that was published to its end, the latest revision of each.
async fn windows(topics: &Topics) -> BTreeMap<(i64, i64), Vec<LogBatch>> {
    let mut found: BTreeMap<(i64, i64), BTreeMap<u32, Vec<LogBatch>>> = BTreeMap::new();
    for stored in topics.all(&LOGS).await {
        assert_eq!(stored.subject, "vouch.v1.logs.prod.payment");
        let batch = LogBatch::try_from(v1::LogBatch::decode(stored.body).unwrap()).unwrap();
        let key = (batch.window.start().as_millis(), batch.window.end().as_millis());
        found.entry(key).or_default().entry(batch.revision).or_default().push(batch);
    }
    let ended = |revisions: BTreeMap<u32, Vec<LogBatch>>| {
        revisions.into_values().rev().find(|parts| parts.iter().any(|part| part.end.is_some()))
    };
    found.into_iter().filter_map(|(window, revisions)| Some((window, ended(revisions)?))).collect()
}

/// Minutes that windows cover.
fn minutes(windows: &BTreeMap<(i64, i64), Vec<LogBatch>>) -> i64 {
    windows.keys().map(|(start, end)| (end - start) / 60_000).sum()
}

async fn run(arguments: Vec<String>) -> std::process::Output {
    let run = move || std::process::Command::new(program("vouch")).args(arguments).output();
    tokio::task::spawn_blocking(run).await.unwrap().expect("vouch runs")
}

/// What `vouch logs` prints of the service over a window.
async fn by_hand(world: &World, token: &str, window: Window, more: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, token).unwrap();
    let (from, to) = (window.start().as_millis().to_string(), window.end().as_millis().to_string());
    let (url, file) = (world.dynatrace_url(), file.display().to_string());
    let fixed = ["logs", "--url", &url, "--token-file", &file, "--from", &from, "--to", &to];
    run(fixed.iter().chain(more).map(|text| (*text).to_owned()).collect()).await
}

fn printed(output: &std::process::Output) -> Vec<(i64, String)> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["at"].as_i64().unwrap(), line["content"].as_str().unwrap().to_owned())
    };
    let mut all: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(line).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_deployment_arrives_once_through_a_kill_and_a_takeover() {
    let world = World::start(Telemetry::Scenario("demo"), 40.0)
        .await
        .with_collector(&format!("token: {TOKEN}, logs: {{source: classic, before: 5m}}"));
    let mut services = world.spawn_all().await;
    let topics = world.topics().await;
    let request = world.request("payment", "2.4.0", MINUTES);
    let started: Timestamp = request.started_at.unwrap().try_into().unwrap();
    let at = started.plus_minutes(3).as_millis();
    world.simulator.deploy("payment", "2.4.0", at, Effect::ErrorStep { rate: 0.2 }).unwrap();
    let id = services.client().await.start(request).await.unwrap().into_inner().verification_id;
    while minutes(&windows(&topics).await) < 7 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    services.collector.kill();
    let second = world.spawn("collector", "collector-2").await;
    second.ready().await;
    let verdict = topics.verdict(&id).await;
    assert_eq!(verdict.outcome, Outcome::Fail, "{}", verdict.reason);

    // What was verified until it failed, and five minutes before it.
    let found = windows(&topics).await;
    let (first, last) = (found.keys().next().unwrap().0, found.keys().next_back().unwrap().1);
    let span = Window::new(Timestamp::from_millis(first), Timestamp::from_millis(last)).unwrap();
    assert_eq!(
        (span.start(), minutes(&found)),
        (started.plus_minutes(-5), span.minutes()),
        "no gap, no overlap"
    );
    let parts: Vec<&LogBatch> = found.values().flatten().collect();
    assert!(parts.iter().all(|b| b.end.as_ref().is_none_or(|end| end.state == LogState::Complete)));
    let mut lines: Vec<(i64, String)> = parts
        .iter()
        .flat_map(|b| b.lines.iter().map(|line| (line.at.as_millis(), line.content.clone())))
        .collect();
    lines.sort();
    let truth = printed(&by_hand(&world, TOKEN, span, &["--service", "payment"]).await);
    assert_eq!(lines, truth);
    let new: Vec<_> =
        parts.iter().flat_map(|b| &b.lines).filter(|l| l.content.contains("currency is missing")).collect();
    assert!(
        new.len() > 20 && new.iter().all(|l| l.level == LogLevel::Error && l.at.as_millis() >= at),
        "{}",
        new.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_printed_by_hand_and_what_is_billed_has_to_be_said() {
    let world = World::start(Telemetry::Scenario("demo"), 1.0).await;
    let end = world.now().floor_minute().plus_minutes(-3);
    let window = Window::new(end.plus_minutes(-5), end).unwrap();
    let classic = by_hand(&world, TOKEN, window, &["--service", "payment"]).await;
    let refused = by_hand(&world, PLATFORM_TOKEN, window, &["--service", "payment"]).await;
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--billed is missing"), "{refused:?}");
    let grail = by_hand(&world, PLATFORM_TOKEN, window, &["--service", "payment", "--billed"]).await;
    assert_eq!(printed(&classic), printed(&grail));
    assert!(printed(&classic).len() > 20);
    assert!(String::from_utf8_lossy(&grail.stderr).contains("bytes were scanned"), "{grail:?}");
    let condition = format!("dt.entity.service=\"{}\" AND status=\"ERROR\"", service_id("payment"));
    let errors = by_hand(&world, TOKEN, window, &["--filter", &condition, "--output", "text"]).await;
    let text = String::from_utf8_lossy(&errors.stdout).into_owned();
    // How many there are in five minutes is chance: those that the search without a filter found.
    let all = printed(&classic);
    let expected: Vec<&String> = all.iter().map(|(_, line)| line).filter(|l| l.contains(" ERROR ")).collect();
    let shown: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(shown.len(), expected.len(), "{text}");
    assert!(shown.iter().all(|line| line.contains(" ERROR payment-5c4b-")), "{text}");
    assert!(expected.iter().all(|line| text.contains(line.as_str())), "{text}");
    let unknown = by_hand(&world, TOKEN, window, &["--service", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("unknown_service"), "{unknown:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, PLATFORM_TOKEN).unwrap();
    let (url, file) = (world.dynatrace_url(), file.display().to_string());
    let query = |more: &[&str]| {
        let fixed = ["query", "--url", &url, "--token-file", &file, "--from", "now-20m", "--to", "now-10m"];
        run(fixed.iter().chain(more).map(|text| (*text).to_owned()).collect())
    };
    let dql = "fetch logs | summarize count()";
    let asleep = query(&["--dql", dql]).await;
    assert_eq!(asleep.status.code(), Some(5));
    let said: serde_json::Value = serde_json::from_slice(&asleep.stdout).unwrap();
    assert_eq!(said["refused"], "billed");
    assert!(said["warnings"][0].as_str().unwrap().contains("was not sent"), "{said}");
    let sent = query(&["--dql", dql, "--billed"]).await;
    let said: serde_json::Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(said["refused"], "not_a_series", "{said}");
    assert!(said["warnings"][0].as_str().unwrap().contains("bytes were scanned"), "{said}");
    let executed = world.simulator.calls().iter().filter(|call| call.path.ends_with("query:execute")).count();
    assert_eq!(executed, 2, "one of `vouch logs`, one of `vouch query`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_is_scanned_and_what_that_costs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vouch.yaml");
    let settings = |logs: &str| {
        let text = format!(
            "collector:\n  url: https://abc.apps.dynatrace.com\n  token: {PLATFORM_TOKEN}\n  {logs}\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    let plan = |more: &[&str]| {
        let path = file.display().to_string();
        let fixed = ["plan", "--settings", &path, "--verifications", "40"];
        run(fixed.iter().chain(more).map(|text| (*text).to_owned()).collect())
    };
    settings("");
    let off = plan(&[]).await;
    assert!(String::from_utf8_lossy(&off.stdout).contains("is not read: 0 GiB a day"), "{off:?}");
    settings(
        "logs: {source: grail, buckets: [default_logs], before: 10m}\n  billed: {scan_budget_gib_per_day: 50, price_per_gib: 0.0035}",
    );
    let unknown = plan(&[]).await;
    let text = String::from_utf8_lossy(&unknown.stdout).into_owned();
    assert!(text.contains("at most 50.00 GiB a day") && text.contains("say --log-gib-a-day"), "{text}");
    assert!(text.contains("8.0  shared    query:execute"), "40,000 lines a minute: {text}");
    let known = plan(&["--log-gib-a-day", "144", "--deployments-a-day", "10"]).await;
    let text = String::from_utf8_lossy(&known.stdout).into_owned();
    assert!(text.contains("37.08 GiB of logs are scanned a day, 0.13 at the price"), "{text}");
    assert!(
        text.contains("27.08 for verifications, 10.00 for what was before; 74 % of the budget"),
        "{text}"
    );
}
