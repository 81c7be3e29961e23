//! Lines of logs: searched, exported and counted by Logs v2, fetched by DQL, and what the simulated services write.

use crate::harness::{GRAIL_METRICS, Harness, METRICS_ONLY, PLATFORM, START, message, read};
use reqwest::Method;
use serde_json::{Value, json};
use vouch_simulator::{Effect, Fault, FaultRule, Scenario, Simulator, service_id};

const MINUTE: i64 = 60_000;
const NOW: i64 = START + 30 * MINUTE;
const EXECUTE: &str = "/platform/storage/query/v1/query:execute";

async fn demo() -> Harness {
    let scenario = Scenario::named("demo").unwrap().without_deployments();
    Harness::new(Simulator::builder().scenario(scenario).start_ms(START), NOW).await
}

/// Every page of an export of `[from, to)` minutes, oldest first.
async fn export(h: &Harness, query: &str, minutes: (i64, i64), size: &str) -> Vec<Value> {
    let (from, to) = ((START + minutes.0 * MINUTE).to_string(), (START + minutes.1 * MINUTE).to_string());
    let first = [("query", query), ("from", &from), ("to", &to), ("pageSize", size), ("sort", "+timestamp")];
    let mut page = h.get("/api/v2/logs/export", &first, 200).await;
    let mut found = Vec::new();
    loop {
        let results = page["results"].as_array().unwrap();
        assert_eq!(page["pageSize"], results.len(), "as recorded");
        found.extend(results.iter().cloned());
        let Some(key) = page["nextPageKey"].as_str().map(ToOwned::to_owned) else {
            assert_eq!(page["totalCount"], found.len());
            return found;
        };
        page = h.get("/api/v2/logs/export", &[("nextPageKey", &key)], 200).await;
    }
}

fn contents(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_export_has_every_line_once_in_pages() {
    let h = demo().await;
    let query = format!("dt.entity.service=\"{}\"", service_id("checkout"));
    let (whole, paged) = (export(&h, &query, (0, 10), "5000").await, export(&h, &query, (0, 10), "7").await);
    assert_eq!(whole, paged);
    assert!((200..500).contains(&whole.len()), "{} lines in ten minutes", whole.len());
    let times: Vec<i64> = whole.iter().map(|line| line["timestamp"].as_i64().unwrap()).collect();
    assert!(times.is_sorted() && times.iter().all(|t| (START..START + 10 * MINUTE).contains(t)));
    let line = &whole[0];
    let columns = &line["additionalColumns"];
    assert_eq!(columns["dt.entity.service"], json!([service_id("checkout")]), "{line}");
    assert_eq!(columns["loglevel"].as_array().unwrap().len(), 1);
    assert_eq!((&line["eventType"], columns["k8s.pod.name"][0].as_str().unwrap().len()), (&json!("LOG"), 15));
    let (first, second) =
        (export(&h, &query, (0, 4), "1000").await, export(&h, &query, (4, 10), "1000").await);
    assert_eq!([first, second].concat(), whole, "windows are half open");
    h.end().await;
}

#[tokio::test]
async fn a_search_has_the_first_records_alone_in_slices() {
    let h = demo().await;
    let window = [("from", (START).to_string()), ("to", (START + 25 * MINUTE).to_string())];
    let mut query: Vec<(&str, &str)> = window.iter().map(|(k, v)| (*k, v.as_str())).collect();
    query.push(("limit", "900"));
    let mut slice = h.get("/api/v2/logs/search", &query, 200).await;
    let mut sizes = Vec::new();
    let mut times = Vec::new();
    loop {
        sizes.push(slice["sliceSize"].as_u64().unwrap());
        times.extend(slice["results"].as_array().unwrap().iter().map(|l| l["timestamp"].as_i64().unwrap()));
        let Some(key) = slice["nextSliceKey"].as_str().map(ToOwned::to_owned) else { break };
        slice = h.get("/api/v2/logs/search", &[("nextSliceKey", &key)], 200).await;
    }
    assert_eq!(sizes, [400, 400, 100]);
    assert!(times.is_sorted_by(|a, b| a >= b), "the newest first");
    for (wrong, path) in [
        (("limit", "1001"), "limit"),
        (("sort", "content"), "sort"),
        (("query", "status"), "query"),
        (("nextSliceKey", "AAAA"), "nextSliceKey"),
    ] {
        let refused = h.get("/api/v2/logs/search", &[wrong], 400).await;
        assert_eq!(refused["error"]["constraintViolations"][0]["path"], path, "{refused}");
    }
    h.end().await;
}

#[tokio::test]
async fn lines_are_counted_by_fields_and_slots() {
    let h = demo().await;
    let (from, to) = (START.to_string(), (START + 10 * MINUTE).to_string());
    let asked = [
        ("from", from.as_str()),
        ("to", &to),
        ("timeBuckets", "2"),
        ("groupBy", "status"),
        ("groupBy", "host.name"),
    ];
    let result = h.get("/api/v2/logs/aggregate", &asked, 200).await["aggregationResult"].clone();
    let sum = |group: &str| -> u64 {
        let values = result[group].as_object().unwrap().values();
        values.flat_map(|counts| counts.as_array().unwrap()).map(|n| n.as_u64().unwrap()).sum()
    };
    assert_eq!(result.as_object().unwrap().len(), 2);
    assert_eq!(result["status"]["INFO"].as_array().unwrap().len(), 2);
    let all = export(&h, "", (0, 10), "10000").await.len();
    assert_eq!((sum("status"), sum("host.name")), (all as u64, all as u64));
    h.end().await;
}

#[tokio::test]
async fn a_line_appears_when_it_has_settled_and_the_scope_is_needed() {
    let scenario = Scenario::named("demo").unwrap().without_deployments();
    let builder = Simulator::builder().scenario(scenario).start_ms(START).settle_ms(60_000);
    let h = Harness::new(builder, START + 5 * MINUTE).await;
    let seen = export(&h, "", (0, 5), "10000").await;
    let last = seen.last().unwrap()["timestamp"].as_i64().unwrap();
    assert!((START + 3 * MINUTE..=START + 4 * MINUTE).contains(&last), "a minute late");
    h.handle.add_fault(FaultRule::new(Fault::LatePoints { by_ms: 2 * MINUTE }).on("/api/v2/logs")).unwrap();
    assert!(export(&h, "", (0, 5), "10000").await.len() < seen.len());
    let request = h.anonymous(Method::GET, "/api/v2/logs/export");
    let request = request.header("Authorization", format!("Api-Token {METRICS_ONLY}"));
    let refused = read(request.send().await.unwrap(), 403).await;
    assert!(message(&refused).contains("logs.read (Read logs)"), "{refused}");
    h.end().await;
}

async fn fetch(h: &Harness, query: &str, more: Value) -> Value {
    let mut body = json!({"query": query, "requestTimeoutMilliseconds": 5000, "maxResultRecords": 10_000});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    read(h.bearer(Method::POST, EXECUTE, PLATFORM).json(&body).send().await.unwrap(), 200).await["result"]
        .clone()
}

#[tokio::test]
async fn dql_fetches_the_same_lines_and_says_what_that_scanned() {
    let h = demo().await;
    let frame = json!({"defaultTimeframeStart": "2026-11-18T12:00:00Z", "defaultTimeframeEnd": "2026-11-18T12:10:00Z"});
    assert_eq!(START, 1_795_003_200_000, "noon");
    let query = format!(
        "fetch logs | filter dt.entity.service == \"{}\" | sort timestamp asc",
        service_id("checkout")
    );
    let result = fetch(&h, &query, frame.clone()).await;
    let records = result["records"].as_array().unwrap();
    let exported =
        export(&h, &format!("dt.entity.service=\"{}\"", service_id("checkout")), (0, 10), "10000").await;
    assert_eq!(contents(records), contents(&exported));
    assert!(records[0]["timestamp"].as_str().unwrap().starts_with("2026-11-18T12:00:0"), "{}", records[0]);
    assert_eq!(result["types"][0]["mappings"]["timestamp"]["type"], "timestamp");
    let scanned = |result: &Value| result["metadata"]["grail"]["scannedBytes"].as_u64().unwrap();
    let whole = scanned(&result);
    assert!(whole > 10_000, "{whole}");
    let other = fetch(&h, "fetch logs | filter dt.system.bucket == \"other\"", frame.clone()).await;
    assert_eq!(
        (scanned(&other), other["records"].as_array().unwrap().len()),
        (0, 0),
        "its own bucket alone is read"
    );
    let pods = fetch(&h, "fetch logs | filter contains(content, \"nowhere\")", frame.clone()).await;
    assert_eq!(scanned(&pods), whole, "other filters read all the same");

    let mut limited = frame.clone();
    limited["defaultScanLimitGbytes"] = json!(10e3 / 1e9);
    let limited = fetch(&h, "fetch logs", limited).await;
    let notes = &limited["metadata"]["grail"]["notifications"];
    assert_eq!(notes[0]["notificationType"], "SCAN_LIMIT_GBYTES", "{notes}");
    assert!(scanned(&limited) < 12_000 && limited["records"].as_array().unwrap().len() < 100);
    let body = json!({"query": "fetch logs"});
    let refused =
        read(h.bearer(Method::POST, EXECUTE, GRAIL_METRICS).json(&body).send().await.unwrap(), 403).await;
    assert_eq!(refused["error"]["details"]["missingScopes"], json!(["storage:logs:read"]));
    h.end().await;
}

#[tokio::test]
async fn a_bad_deployment_writes_what_was_never_written_before() {
    let h = demo().await;
    let broken =
        |lines: &[Value]| contents(lines).iter().filter(|c| c.contains("currency is missing")).count();
    h.handle.deploy("payment", "2.4.0", START + 10 * MINUTE, Effect::ErrorStep { rate: 0.05 }).unwrap();
    let query = format!("dt.entity.service=\"{}\"", service_id("payment"));
    let (before, after) =
        (export(&h, &query, (0, 10), "10000").await, export(&h, &query, (10, 20), "10000").await);
    assert_eq!(broken(&before), 0);
    assert!(
        contents(&before).iter().any(|c| c.contains("upstream answered 503")),
        "it failed before as well"
    );
    let count = broken(&after);
    assert!((200..360).contains(&count), "five of a hundred of 420 requests a minute: {count}");
    assert!(contents(&after).iter().any(|c| c.ends_with("payment 2.4.0 started")));
    let errors = export(&h, &format!("{query} AND status=\"ERROR\""), (10, 20), "10000").await;
    assert_eq!(broken(&errors), count);
    let other =
        export(&h, &format!("dt.entity.service=\"{}\"", service_id("checkout")), (10, 20), "10000").await;
    assert_eq!(broken(&other), 0);

    h.handle.deploy("checkout", "1.1.0", START + 10 * MINUTE, Effect::LatencyStep { factor: 2.0 }).unwrap();
    let slow = export(&h, "content=\"more than 500 ms\"", (0, 20), "10000").await;
    assert!((80..160).contains(&slow.len()), "four a minute of each host: {}", slow.len());
    assert!(slow.iter().all(|line| line["status"] == "WARN"));
    h.end().await;
}

#[tokio::test]
async fn a_scenario_may_be_silent_or_keep_its_lines_elsewhere() {
    let text = "name: x\nservices:\n- {name: a, hosts: [a-1], logs: {per_minute: 0}}\n- {name: b, hosts: [b-1], logs: {per_minute: 600, bucket: shop_logs}}\n";
    let builder = Simulator::builder().scenario(Scenario::parse(text).unwrap()).start_ms(START);
    let h = Harness::new(builder, NOW).await;
    let lines = export(&h, "", (0, 5), "10000").await;
    assert!((2_500..3_600).contains(&lines.len()), "{}", lines.len());
    assert!(lines.iter().all(|l| l["additionalColumns"]["host.name"][0] == "b-1"));
    let counted = fetch(
        &h,
        "fetch logs, from:now()-20m | filter dt.system.bucket == \"shop_logs\" | summarize count()",
        json!({}),
    )
    .await;
    assert!(counted["records"][0]["count()"].as_str().unwrap().parse::<u64>().unwrap() > 2_500);
    let refused = Scenario::parse("name: x\nservices:\n- {name: a, hosts: [a-1], logs: {per_minute: -1}}\n")
        .unwrap_err();
    assert!(refused.to_string().contains("services[0].logs.per_minute: -1 is not within"), "{refused}");
    h.end().await;
}
