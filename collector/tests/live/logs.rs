//! Logs of a service with an open verification: every line once, through restarts, limits, budgets and outages.

use crate::support::{PLATFORM, TOKEN, World, eventually, name, noon};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use vouch_proto::subject::{LOG_BUCKET, SCAN_BUCKET, logs_key};
use vouch_proto::{Deployment, LogBatch, LogState, Timestamp, Window};
use vouch_simulator::{Fault, FaultRule, Scenario, service_id};

const CLASSIC: &str = "source: classic, before: 3m, settle: 2m";
const SPEED: f64 = 120.0;

fn access(logs: &str) -> String {
    format!("token: {TOKEN}, logs: {{{logs}}}")
}

fn grail(logs: &str, billed: &str) -> String {
    format!("token: {PLATFORM}, logs: {{source: grail, before: 3m, {logs}}}, billed: {{{billed}}}")
}

/// From three minutes before the deployment to the verification's end.
fn span(deployment: &Deployment) -> Window {
    let at = deployment.occurred_at.unwrap();
    Window::new(at.floor_minute().plus_minutes(-3), at.ceil_minute().plus_minutes(5)).unwrap()
}

/// The windows that are published to their end, once each, ascending.
fn ended(batches: &[LogBatch]) -> Vec<Window> {
    let mut windows: Vec<Window> = batches.iter().filter(|b| b.end.is_some()).map(|b| b.window).collect();
    windows.sort_unstable();
    windows
}

/// Whether windows that do not overlap cover all of it.
fn covers(span: Window) -> impl Fn(&[LogBatch]) -> bool {
    move |batches| {
        let minutes: i64 = ended(batches).iter().map(|window| window.minutes()).sum();
        minutes >= span.minutes()
    }
}

/// Stamps and contents, as published.
fn lines(batches: &[LogBatch]) -> Vec<(i64, String)> {
    let mut all: Vec<(i64, String)> = batches
        .iter()
        .flat_map(|b| b.lines.iter().map(|line| (line.at.as_millis(), line.content.clone())))
        .collect();
    all.sort();
    all
}

/// What the tenant itself has of the service.
async fn truth(world: &World, span: Window) -> Vec<(i64, String)> {
    let mut query = vec![
        ("query", format!("dt.entity.service=\"{}\"", service_id("checkout"))),
        ("from", span.start().as_millis().to_string()),
        ("to", span.end().as_millis().to_string()),
        ("pageSize", "10000".to_owned()),
    ];
    let (client, mut all) = (reqwest::Client::new(), Vec::new());
    loop {
        let call = client.get(format!("{}api/v2/logs/export", world.url)).query(&query);
        let answer = call.header("Authorization", format!("Api-Token {TOKEN}")).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let line = |line: &Value| {
            (line["timestamp"].as_i64().unwrap(), line["content"].as_str().unwrap().to_owned())
        };
        all.extend(answer["results"].as_array().unwrap().iter().map(line));
        match answer["nextPageKey"].as_str() {
            Some(key) => query = vec![("nextPageKey", key.to_owned())],
            None => break,
        }
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_published_once_from_either_source() {
    for settings in [access(CLASSIC), grail("buckets: [default_logs]", "scan_budget_gib_per_day: 1")] {
        let world = World::new(SPEED).await;
        let collector = world.collector_with(&settings).await;
        let deployment = world.deployment();
        world.announce(&deployment).await;
        let span = span(&deployment);
        let batches = world.logs(covers(span)).await;
        assert_eq!(lines(&batches), truth(&world, span).await, "{settings}");
        assert!(batches.iter().all(|b| b.end.as_ref().is_some_and(|end| end.state == LogState::Complete)));
        let windows = ended(&batches);
        assert_eq!((windows[0].start(), windows.last().unwrap().end()), (span.start(), span.end()));
        assert!(windows.iter().zip(&windows[1..]).all(|(a, b)| a.end() == b.start()), "{windows:?}");
        let one = &batches[0];
        assert_eq!(
            (one.source.as_str(), one.environment.as_str(), one.service.as_str()),
            ("simulated", "prod", "checkout")
        );
        let hosts: BTreeSet<&str> =
            batches.iter().flat_map(|b| &b.origins).filter_map(|o| o.host.as_deref()).collect();
        assert_eq!(hosts, BTreeSet::from(["checkout-1", "checkout-2", "checkout-3"]));
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_goes_on_where_one_stopped() {
    let world = World::new(60.0).await;
    let first = world.collector_with(&access(CLASSIC)).await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let span = span(&deployment);
    let seen = world.logs(|batches| ended(batches).len() >= 3).await;
    first.stop().await;
    // What stands on the subject counts, also where the note of it was lost.
    let store = world.nats.bucket(&LOG_BUCKET).await.unwrap();
    let key = logs_key(&name("prod"), &name("checkout"));
    let mut record: Value = serde_json::from_slice(&store.get(&key).await.unwrap().unwrap()).unwrap();
    let last = seen.last().unwrap().window;
    let covered = record["covered"].as_array().unwrap().clone();
    assert!(!covered.is_empty(), "{record}");
    let before = |text: &Value| text.as_str().unwrap().parse::<Timestamp>().unwrap();
    let kept: Vec<Value> = covered
        .into_iter()
        .filter_map(|mut window| {
            let end = before(&window["end"]).min(last.start());
            window["end"] = json!(end.to_string());
            (before(&window["start"]) < end).then_some(window)
        })
        .collect();
    record["covered"] = json!(kept);
    store.put(&key, serde_json::to_vec(&record).unwrap().into()).await.unwrap();
    let second = world.collector_with(&access(CLASSIC)).await;
    let batches = world.logs(covers(span)).await;
    assert_eq!(lines(&batches), truth(&world, span).await, "each line once");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_was_cut_off_is_published_anew_in_a_later_revision() {
    let text = "name: x\nservices:\n- {name: checkout, hosts: [a, b], logs: {per_minute: 1500}}\n";
    let world = World::of(Scenario::parse(text).unwrap(), 40.0).await;
    let deployment = world.deployment();
    let span = span(&deployment);
    // As a collector left it that was killed behind the first parts.
    let cut_off = Window::around(span.start(), 3, 4).unwrap();
    let record = json!({"version": 1, "covered": [], "begun": [{"window": cut_off, "revision": 4}]});
    let store = world.nats.bucket(&LOG_BUCKET).await.unwrap();
    let key = logs_key(&name("prod"), &name("checkout"));
    store.put(&key, record.to_string().into_bytes().into()).await.unwrap();
    let collector = world.collector_with(&access(CLASSIC)).await;
    world.announce(&deployment).await;
    let batches = world.logs(covers(span)).await;
    assert_eq!(lines(&batches), truth(&world, span).await);
    for window in ended(&batches) {
        let parts: Vec<&LogBatch> = batches.iter().filter(|b| b.window == window).collect();
        let numbers: Vec<u32> = parts.iter().map(|b| b.part).collect();
        assert!(parts.len() > 1 && numbers.iter().zip(1..).all(|(n, i)| *n == i), "{window}: {numbers:?}");
        assert!(parts.iter().all(|b| b.revision == if window == cut_off { 5 } else { 0 }), "{window}");
        let count: usize = parts.iter().map(|b| b.lines.len()).sum();
        assert_eq!(parts.last().unwrap().end.as_ref().unwrap().lines, count as u64);
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_beyond_the_limit_are_counted_and_named() {
    let world = World::new(SPEED).await;
    let collector = world.collector_with(&access(&format!("{CLASSIC}, lines_per_minute: 5"))).await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let batches = world.logs(covers(span(&deployment))).await;
    for batch in &batches {
        let most = usize::try_from(batch.window.minutes() * 5).unwrap();
        assert_eq!(batch.lines.len(), most);
        let LogState::Partial(gap, left_out) = &batch.end.as_ref().unwrap().state else {
            panic!("{batch:?}")
        };
        assert!(gap.name == "line_limit" && *left_out > 0, "{gap:?}");
        assert!(gap.message.contains("collector.logs.lines_per_minute"), "{gap:?}");
    }
    collector.stop().await;
}

/// What the account of noon's day says.
async fn account(world: &World) -> Value {
    let store = world.nats.bucket(&SCAN_BUCKET).await.unwrap();
    let bytes = store.get("simulated.2026-11-18").await.unwrap();
    bytes.map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap())
}

fn budget_used_up(batches: &[LogBatch]) -> bool {
    let missing = |b: &LogBatch| match &b.end.as_ref().unwrap().state {
        LogState::Missing(gap) => gap.name == "budget" && gap.message.contains("logs not analysed: budget"),
        LogState::Partial(..) | LogState::Complete => false,
    };
    batches.iter().any(missing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_is_used_up_ends_reading_and_survives_a_restart() {
    let world = World::new(SPEED).await;
    // About what two minutes of the service's logs hold.
    let settings = grail("settle: 2m", "scan_budget_gib_per_day: 0.00003");
    let first = world.collector_with(&settings).await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let batches = world.logs(budget_used_up).await;
    assert!(batches.iter().any(|b| !b.lines.is_empty()), "the first minutes were read");
    let spent = account(&world).await["bytes"].as_u64().unwrap();
    assert!(spent >= 32_212, "all of it: {spent}");
    first.stop().await;
    let calls =
        |world: &World| world.tenant.calls().iter().filter(|c| c.path.ends_with("query:execute")).count();
    let before = calls(&world);
    let second = world.collector_with(&settings).await;
    let all = world.logs(covers(span(&deployment))).await;
    assert_eq!(calls(&world), before, "nothing is asked any more");
    assert_eq!(account(&world).await["bytes"], spent);
    assert_eq!(account(&world).await["services"]["prod/checkout"], spent);
    assert!(all.iter().filter(|b| budget_used_up(std::slice::from_ref(b))).count() >= 2);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_has_used_its_share_stops_alone() {
    let text = "name: x\nservices:\n- {name: checkout, hosts: [a], logs: {per_minute: 200}}\n- {name: cart, hosts: [b], logs: {per_minute: 10}}\n";
    let world = World::of(Scenario::parse(text).unwrap(), SPEED).await;
    let checkout = world.deployment();
    world.announce(&checkout).await;
    // At another time: it is another event.
    let cart = Deployment { service: name("cart"), ..world.deployment() };
    world.announce(&cart).await;
    let share = "scan_budget_gib_per_day: 1, scan_budget_gib_per_day_and_service: 0.0002";
    let collector = world.collector_with(&grail("settle: 2m", share)).await;
    let of = |batches: &[LogBatch], service: &str| -> Vec<LogBatch> {
        batches.iter().filter(|b| b.service.as_str() == service).cloned().collect()
    };
    let (one, other) = (covers(span(&checkout)), covers(span(&cart)));
    let enough = |batches: &[LogBatch]| one(&of(batches, "checkout")) && other(&of(batches, "cart"));
    let batches = world.logs(enough).await;
    let stopped =
        of(&batches, "checkout").into_iter().find(|b| budget_used_up(std::slice::from_ref(b))).unwrap();
    let same = of(&batches, "cart").into_iter().find(|b| b.window == stopped.window).unwrap();
    assert_eq!(same.end.unwrap().state, LogState::Complete, "{}", stopped.window);
    assert!(!same.lines.is_empty());
    let account = account(&world).await;
    assert!(account["purposes"]["verification"].as_u64().unwrap() > 0, "{account}");
    let metrics = scanned_metrics(&collector);
    assert!(metrics.contains(r#"service="prod/checkout",purpose="history""#), "{metrics}");
    collector.stop().await;
}

/// What Prometheus is told about scanning.
fn scanned_metrics(collector: &crate::support::Collector) -> String {
    let mut text = String::new();
    collector
        .health
        .register(|registry| prometheus_client::encoding::text::encode(&mut text, registry).unwrap());
    text.lines().filter(|line| line.contains("scan")).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_caught_up_with_and_what_is_never_read_is_told() {
    let world = World::new(SPEED).await;
    let collector = world.collector_with(&access(CLASSIC)).await;
    let deployment = world.deployment();
    let begun = noon().as_millis();
    let minute = 60_000;
    world.fault(
        FaultRule::new(Fault::Status { code: 403 }).on("/api/v2/logs").during(begun, begun + 4 * minute),
    );
    world.announce(&deployment).await;
    let whole = span(&deployment);
    let batches = world.logs(covers(whole)).await;
    assert_eq!(lines(&batches), truth(&world, whole).await, "read in longer windows afterwards");
    assert!(collector.health.failures().is_empty());

    world.fault(FaultRule::new(Fault::MissingScope { scope: "logs.read".into() }).on("/api/v2/logs"));
    let later = world.deployment();
    world.announce(&later).await;
    let rest = span(&later);
    let told = world.logs(|batches| ended(batches).last().is_some_and(|w| w.end() >= rest.end())).await;
    let LogState::Missing(gap) = &told.last().unwrap().end.as_ref().unwrap().state else {
        panic!("{told:?}")
    };
    assert!(gap.name == "missing_scope" && gap.message.contains("could not be read in time"), "{gap:?}");
    assert!(collector.health.failures().keys().any(|condition| condition == "dynatrace logs"));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_the_same_minute_share_a_query() {
    let services: String = (0..12).map(|i| format!("- {{name: s{i}, hosts: [h{i}]}}\n")).collect();
    let world = World::of(Scenario::parse(&format!("name: x\nservices:\n{services}")).unwrap(), 60.0).await;
    let collector = world.collector_with(&grail("settle: 2m", "scan_budget_gib_per_day: 1")).await;
    for i in 0..12 {
        world.announce(&Deployment { service: name(&format!("s{i}")), ..world.deployment() }).await;
    }
    let count = AtomicUsize::new(0);
    eventually("the verifications are read", || {
        let calls = world.tenant.calls();
        count.store(calls.iter().filter(|c| c.path.ends_with("query:execute")).count(), Ordering::Relaxed);
        world.clock.now() > noon().plus_minutes(9)
    })
    .await;
    let calls = count.load(Ordering::Relaxed);
    assert!((8..=24).contains(&calls), "about one a minute for all of them, and the history: {calls}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    collector.stop().await;
}
