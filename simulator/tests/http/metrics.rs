//! `metrics/query` and descriptors.

use crate::harness::{DAY, HOUR, Harness, METRICS_ONLY, MINUTE, START, message, read};
use reqwest::Method;
use serde_json::{Value, json};
use vouch_simulator::{instance_id, service_id};

const QUERY: &str = "/api/v2/metrics/query";
const LATENCY: &str = "builtin:service.response.time";

#[tokio::test]
async fn the_shape_of_an_answer() {
    let h = Harness::scenario("demo", START).await;
    let service = service_id("checkout");
    let entity = format!("type(SERVICE),entityId(\"{service}\")");
    let selector = format!("{LATENCY}:splitBy(\"dt.entity.service\"):percentile(95.000000):names");
    let window = (START - HOUR, START - HOUR + 5 * MINUTE);
    let answer = h.query(&selector, window, &[("entitySelector", &entity), ("resolution", "1m")]).await;
    assert_eq!(answer["totalCount"], 1);
    assert_eq!(answer["nextPageKey"], Value::Null);
    assert!(answer.as_object().unwrap().contains_key("nextPageKey"), "present, and null");
    assert_eq!(answer["resolution"], "1m");
    assert!(answer.get("warnings").is_none());
    let result = &answer["result"][0];
    assert_eq!(result["metricId"], selector.replace("95.000000", "95.0"));
    assert_eq!(result["dimensionCountRatio"], 1e-5);
    assert_eq!(result["dataPointCountRatio"], 2.5e-7_f64.mul_add(1e7, 0.0).round() / 1e7);
    let data = &result["data"][0];
    assert_eq!(data["dimensions"], json!(["checkout", service]));
    assert_eq!(
        data["dimensionMap"],
        json!({"dt.entity.service.name": "checkout", "dt.entity.service": service})
    );
    let ends: Vec<i64> = (1..=5).map(|m| window.0 + m * MINUTE).collect();
    assert_eq!(data["timestamps"], json!(ends), "stamped at the ends of the slots");
    let values: Vec<f64> = data["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(values.iter().all(|v| (100_000.0..500_000.0).contains(v)), "microseconds: {values:?}");
    h.end().await;
}

#[tokio::test]
async fn grids_as_recorded() {
    let now = START + 20 * MINUTE + 30_000;
    let h = Harness::scenario("demo", now).await;
    let midnight = START - 12 * HOUR;
    // (from, to, resolution) -> (label, points, first stamp, last stamp)
    for ((from, to, resolution), (label, n, first, last)) in [
        ((midnight - DAY, midnight, None), ("10m", 144, midnight - DAY + 10 * MINUTE, midnight)),
        (
            (midnight - 21 * DAY, midnight - 20 * DAY, None),
            ("10m", 144, midnight - 21 * DAY + 10 * MINUTE, midnight - 20 * DAY),
        ),
        (
            (midnight - 40 * DAY, midnight - 39 * DAY, None),
            ("1h", 24, midnight - 40 * DAY + HOUR, midnight - 39 * DAY),
        ),
        (
            (midnight - 40 * DAY, midnight - 39 * DAY, Some("10m")),
            ("1h", 24, midnight - 40 * DAY + HOUR, midnight - 39 * DAY),
        ),
        (
            (midnight - 21 * DAY, midnight - 20 * DAY, Some("30m")),
            ("30m", 48, midnight - 21 * DAY + 30 * MINUTE, midnight - 20 * DAY),
        ),
        (
            (midnight - 21 * DAY, midnight - 20 * DAY, Some("1m")),
            ("5m", 288, midnight - 21 * DAY + 5 * MINUTE, midnight - 20 * DAY),
        ),
        ((midnight - DAY, midnight, Some("INF")), ("Inf", 1, midnight, midnight)),
        ((now - 2 * HOUR, now, Some("1h")), ("1h", 3, START - HOUR, START + HOUR)),
        ((now - 2 * HOUR, now, None), ("1m", 121, START - 2 * HOUR + 21 * MINUTE, START + 21 * MINUTE)),
        (
            (midnight - 300 * DAY - MINUTE, midnight - 300 * DAY, Some("1m")),
            ("1h", 1, midnight - 300 * DAY, midnight - 300 * DAY),
        ),
    ] {
        let more: Vec<_> = resolution.map(|r| ("resolution", r)).into_iter().collect();
        let answer = h.query(&format!("{LATENCY}:splitBy():avg"), (from, to), &more).await;
        let stamps = answer["result"][0]["data"][0]["timestamps"].as_array().unwrap();
        assert_eq!(answer["resolution"], label, "{from} {to} {resolution:?}");
        assert_eq!(
            (stamps.len(), &stamps[0], &stamps[n - 1]),
            (n, &json!(first), &json!(last)),
            "{resolution:?}"
        );
        assert_eq!(answer["result"][0]["data"][0]["values"].as_array().unwrap().len(), n);
    }
    h.end().await;
}

#[tokio::test]
async fn points_settle_and_then_stay() {
    let h = Harness::scenario("demo", START).await;
    let selector = "builtin:service.requestCount.total:filter(eq(\"dt.entity.service\",ID)):value"
        .replace("ID", &service_id("checkout"));
    let window = (START - 10 * MINUTE, START);
    let early = h.values(&selector, window).await;
    assert_eq!(early.len(), 10, "unsettled slots are null, not missing");
    assert!(early[..8].iter().all(Option::is_some), "settled after two minutes: {early:?}");
    assert_eq!(early[9], None, "no point appears within the first minute");
    h.set_now(START + 59_999);
    assert_eq!(h.values(&selector, window).await[9], None);
    h.set_now(START + 2 * MINUTE);
    let settled = h.values(&selector, window).await;
    assert!(settled.iter().all(Option::is_some));
    for (before, after) in early.iter().zip(&settled) {
        assert!(before.is_none() || before == after, "what was seen does not change");
    }
    h.set_now(START + DAY);
    assert_eq!(h.values(&selector, window).await, settled, "nor a day later");
    let newest = h.values(&selector, (START + DAY - 3 * MINUTE, START + DAY + 30_000)).await;
    assert!(newest.len() == 4 && newest[0].is_some(), "{newest:?}");
    assert_eq!(newest[2..], [None, None], "the newest slot lies in the future");
    h.end().await;
}

#[tokio::test]
async fn aggregations_and_folds_agree() {
    let h = Harness::scenario("healthy", START + DAY).await;
    let window = (START, START + 10 * MINUTE);
    let counts = h.values("builtin:service.requestCount.total:splitBy():value", window).await;
    let total: f64 = counts.iter().flatten().sum();
    let by_host = h.query("calc:service.request_count:value", window, &[("resolution", "Inf")]).await;
    assert_eq!(by_host["resolution"], "Inf");
    let parts: Vec<f64> = by_host["result"][0]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            assert_eq!(d["timestamps"], json!([window.1]), "one point at the end of the window");
            d["values"][0].as_f64().unwrap()
        })
        .collect();
    assert_eq!(parts.len(), 3, "one series per host");
    assert!((parts.iter().sum::<f64>() - total).abs() < 1e-9, "{parts:?} {total}");
    let folded = h.query("builtin:service.requestCount.total:splitBy():fold(value)", window, &[]).await;
    assert_eq!(folded["result"][0]["data"][0]["values"][0].as_f64(), Some(total));
    let one = |aggregation: &str| format!("{LATENCY}:splitBy():{aggregation}:fold");
    let mut seen = Vec::new();
    for aggregation in ["min", "median", "percentile(95)", "max"] {
        let answer = h.query(&one(aggregation), window, &[]).await;
        seen.push(answer["result"][0]["data"][0]["values"][0].as_f64().unwrap());
    }
    assert!(seen.is_sorted(), "{seen:?}");
    let rate = h
        .query("builtin:service.requestCount.total:splitBy():value:rate(1h)", window, &[("resolution", "1m")])
        .await;
    assert_eq!(rate["result"][0]["data"][0]["values"][0].as_f64().unwrap(), counts[0].unwrap() * 60.0);
    let unit = h
        .query(
            &format!("{LATENCY}:splitBy():avg:toUnit(MicroSecond,MilliSecond)"),
            window,
            &[("resolution", "1m")],
        )
        .await;
    let plain = h.values(&format!("{LATENCY}:splitBy():avg"), window).await;
    assert_eq!(unit["result"][0]["data"][0]["values"][0].as_f64().unwrap(), plain[0].unwrap() / 1000.0);
    h.end().await;
}

#[tokio::test]
async fn series_are_filtered_sorted_and_limited() {
    let h = Harness::scenario("bad-deployment", START + DAY).await;
    let window = (START + HOUR, START + HOUR + 5 * MINUTE);
    let names = |answer: &Value| -> Vec<String> {
        let data = answer["result"][0]["data"].as_array().unwrap();
        data.iter()
            .map(|d| d["dimensionMap"]["dt.entity.service.name"].as_str().unwrap().to_owned())
            .collect()
    };
    let top =
        h.query(&format!("({LATENCY}:median:sort(value(min,descending)):limit(1)):names"), window, &[]).await;
    assert_eq!(names(&top), ["catalog"], "twice as slow");
    let slow = h.query(&format!("{LATENCY}:filter(series(avg,gt(120000))):avg:names"), window, &[]).await;
    assert!(names(&slow).contains(&"catalog".to_owned()) && !names(&slow).contains(&"search".to_owned()));
    let prefix = format!(
        "{LATENCY}:filter(or(in(\"dt.entity.service\",entitySelector(\"type(service),entityName.startsWith(~\"s~\")\")),\
         eq(\"dt.entity.service\",\"{}\"))):names:sort(dimension(\"dt.entity.service\",ascending))",
        service_id("mail")
    );
    let mut found = names(&h.query(&prefix, window, &[]).await);
    found.sort();
    assert_eq!(found, ["mail", "search", "shipping", "stock"]);
    let tagged = h
        .query(&format!("{LATENCY}:names"), window, &[("entitySelector", "type(SERVICE),tag(app:mail)")])
        .await;
    assert_eq!((names(&tagged), &tagged["totalCount"]), (vec!["mail".to_owned()], &json!(1)));
    let cpu = "builtin:tech.generic.cpu.usage:filter(in(\"dt.entity.process_group_instance\",entitySelector(\"type(PROCESS_GROUP_INSTANCE),\
         toRelationships.runsOnProcessGroupInstance(type(SERVICE),entityName.equals(~\"stock~\"))\"))):names";
    let cpu = h.query(cpu, window, &[]).await;
    assert_eq!(cpu["totalCount"], 4);
    let map = &cpu["result"][0]["data"][0]["dimensionMap"];
    assert_eq!(
        map["dt.entity.process_group_instance"],
        instance_id("stock", map["dt.entity.process_group_instance.name"].as_str().unwrap())
    );
    h.end().await;
}

#[tokio::test]
async fn a_metric_has_only_its_own_dimensions() {
    let h = Harness::scenario("demo", START).await;
    let window = (START - HOUR, START - 50 * MINUTE);
    let text = "The dimension key `dt.entity.process_group_instance` has been referenced, but the metric has no such key.";
    for selector in [
        format!("{LATENCY}:splitBy(\"dt.entity.process_group_instance\"):avg"),
        format!("{LATENCY}:filter(eq(\"dt.entity.process_group_instance\",X)):avg"),
    ] {
        let answer = h.query(&selector, window, &[]).await;
        assert_eq!(answer["warnings"], json!([text]), "{selector}");
        assert_eq!(answer["result"][0]["warnings"], json!([text]));
        assert_eq!((&answer["totalCount"], &answer["result"][0]["data"]), (&json!(0), &json!([])));
    }
    let odd = h.query(&format!("{LATENCY}:merge(\"dt.entity.services\"):avg"), window, &[]).await;
    assert!(
        odd["warnings"][0].as_str().unwrap().ends_with("`services` is not a known entity type."),
        "{odd}"
    );
    let split = h
        .query("calc:service.response_time:splitBy(\"dt.entity.process_group_instance\"):avg", window, &[])
        .await;
    assert_eq!(split["totalCount"], 6, "calculated metrics have the instances");
    h.end().await;
}

#[tokio::test]
async fn gaps_are_null_and_defaults_fill_them() {
    let h = Harness::scenario("no-data", START + DAY).await;
    let window = (START + 8 * MINUTE, START + 13 * MINUTE);
    let of = |service: &str, rest: &str| {
        format!(
            "builtin:service.requestCount.total:filter(eq(\"dt.entity.service\",{})){rest}",
            service_id(service)
        )
    };
    let silent = h.values(&of("silent", ":splitBy():value"), window).await;
    assert!(silent[..2].iter().all(Option::is_some) && silent[2..].iter().all(Option::is_none), "{silent:?}");
    let filled = h.values(&of("silent", ":splitBy():value:default(0)"), window).await;
    assert_eq!(filled[2..], [Some(0.0); 3]);
    let unborn = h.query(&of("unborn", ":splitBy():value"), window, &[]).await;
    assert_eq!(
        (&unborn["totalCount"], &unborn["result"][0]["data"]),
        (&json!(0), &json!([])),
        "200 and nothing"
    );
    let warned = h.query(&of("unborn", ":splitBy():value:default(0)"), window, &[]).await;
    assert!(warned["warnings"][0].as_str().unwrap().contains("requires at least one written data point"));
    assert_eq!(h.values(&of("unborn", ":splitBy():value:default(0,always)"), window).await, [Some(0.0); 5]);
    let cpu = h
        .query(
            &format!(
                "builtin:tech.generic.cpu.usage:filter(eq(\"dt.entity.process_group_instance\",{})):avg",
                instance_id("idle", "idle-1")
            ),
            window,
            &[("resolution", "1m")],
        )
        .await;
    assert!(
        cpu["result"][0]["data"][0]["values"].as_array().unwrap().iter().all(Value::is_number),
        "an idle process still has CPU"
    );
    h.end().await;
}

#[tokio::test]
async fn refusals() {
    let h = Harness::scenario("demo", START).await;
    let absent = h.get(QUERY, &[], 400).await;
    assert_eq!(
        absent,
        json!({"error": {"code": 400, "message": "Constraints violated.", "constraintViolations": [{
            "path": "nextPageKey", "message": "expected one of nextPageKey or metricSelector to be specified",
            "parameterLocation": "QUERY", "location": null}]}})
    );
    let eleven = [LATENCY; 11].join(",");
    for (query, status, text) in [
        (vec![("metricSelector", "builtin:nothing")], 404, "Metric with key 'builtin:nothing' not found."),
        (vec![("metricSelector", "a:splitBy((")], 400, "unexpected opening parenthesis"),
        (vec![("metricSelector", &eleven)], 400, "11 metrics are selected"),
        (vec![("metricSelector", LATENCY), ("from", "tomorrow")], 400, "'tomorrow' is no timestamp"),
        (vec![("metricSelector", LATENCY), ("from", "now-11y")], 400, "must not be longer than ten years"),
        (
            vec![("metricSelector", "builtin:tech.generic.cpu.usage"), ("from", "now-9y")],
            400,
            "reads more than 20000000 data points",
        ),
        (vec![("metricSelector", LATENCY), ("from", "now"), ("to", "now-1h")], 400, "timeframe is empty"),
        (vec![("metricSelector", LATENCY), ("resolution", "5s")], 400, "is no resolution"),
        (vec![("metricSelector", LATENCY), ("entitySelector", "tag(x)")], 400, "must contain either a type"),
        (
            vec![("metricSelector", "builtin:service.requestCount.total:percentile(95)")],
            400,
            "not supported by the metric",
        ),
    ] {
        let answer = h.get(QUERY, &query, status).await;
        assert!(answer.to_string().contains(text), "{query:?}: {answer}");
        assert_eq!(answer["error"]["code"], status);
    }
    for accept in ["image/png", "text/html, text/plain"] {
        let other =
            h.request(Method::GET, QUERY).query(&[("metricSelector", LATENCY)]).header("Accept", accept);
        read(other.send().await.unwrap(), 406).await;
    }
    let ignored = h
        .get(QUERY, &[("metricSelector", LATENCY), ("includeData", "1"), ("metricSelector", "b")], 200)
        .await;
    assert_eq!(ignored["result"][0]["metricId"], LATENCY, "unknown and repeated parameters are ignored");
    h.end().await;
}

#[tokio::test]
async fn csv_tables() {
    let h = Harness::scenario("demo", START).await;
    let window = ((START - 3 * MINUTE).to_string(), (START + MINUTE).to_string());
    let selector = format!(
        "{LATENCY}:filter(in(\"dt.entity.service\",entitySelector(\"type(SERVICE),entityName(checkout)\"))):count:names"
    );
    let query =
        [("metricSelector", selector.as_str()), ("resolution", "1m"), ("from", &window.0), ("to", &window.1)];
    let table = async |accept: &str| {
        let response =
            h.request(Method::GET, QUERY).query(&query).header("Accept", accept).send().await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (response.status().as_u16(), kind, response.text().await.unwrap())
    };
    let (status, kind, text) = table("text/csv; header=present; charset=utf-8").await;
    assert_eq!((status, kind.as_str()), (200, "text/csv; header=present; charset=utf-8"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "metricId,dt.entity.service.name,dt.entity.service,time,value");
    assert_eq!(lines.len(), 5);
    let id = service_id("checkout");
    assert!(lines[1].contains(&format!("\",checkout,{id},2026-11-18 11:58:00,")), "{}", lines[1]);
    assert!(lines[4].ends_with("2026-11-18 12:01:00,"), "a gap is empty: {}", lines[4]);
    let (_, kind, without) = table("text/csv; header=absent").await;
    assert_eq!(kind, "text/csv; header=absent; charset=utf-8");
    assert_eq!(without.lines().collect::<Vec<_>>(), lines[1..]);
    assert_eq!(table("text/html, application/json;q=0.9").await.1, "application/json");
    h.end().await;
}

#[tokio::test]
async fn several_expressions_and_resolutions() {
    let h = Harness::scenario("demo", START).await;
    let window = (START - HOUR, START - 50 * MINUTE);
    let answer = h
        .query(
            "builtin:service.(requestCount.total,errors.total.count):splitBy():value",
            window,
            &[("resolution", "0:1m,1:Inf")],
        )
        .await;
    let ids: Vec<&str> =
        answer["result"].as_array().unwrap().iter().map(|r| r["metricId"].as_str().unwrap()).collect();
    assert_eq!(
        ids,
        [
            "builtin:service.requestCount.total:splitBy():value",
            "builtin:service.errors.total.count:splitBy():value"
        ]
    );
    let points = |i: usize| answer["result"][i]["data"][0]["values"].as_array().unwrap().len();
    assert_eq!((points(0), points(1)), (10, 1));
    h.end().await;
}

#[tokio::test]
async fn tokens_and_scopes() {
    let h = Harness::scenario("demo", START).await;
    let ask = async |header: Option<&str>, path: &str| {
        let mut request = reqwest::Client::new().get(format!("{}{path}", h.url));
        if let Some(header) = header {
            request = request.header("Authorization", header);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    for header in [
        None,
        Some("Api-Token dt0c01.X.Y"),
        Some("Bearer dt0c01.ALLSCOPES.SECRET1"),
        Some("dt0c01.ALLSCOPES.SECRET1"),
    ] {
        let (status, answer) = ask(header, "/api/v2/metrics/query?metricSelector=x").await;
        assert_eq!((status, message(&answer)), (401, "Token Authentication failed"), "{header:?}");
    }
    let limited = format!("Api-Token {METRICS_ONLY}");
    let (status, answer) = ask(Some(&limited), "/api/v2/entities?entitySelector=type(SERVICE)").await;
    assert_eq!(status, 403);
    assert_eq!(
        message(&answer),
        "Token is missing required scope. Use one of: entities.read (Read entities)"
    );
    assert_eq!(ask(Some(&limited), "/api/v2/metrics").await.0, 200);
    let looked_up = h.post("/api/v2/apiTokens/lookup", json!({"token": METRICS_ONLY}), 200).await;
    assert_eq!(
        (&looked_up["id"], &looked_up["scopes"]),
        (&json!("dt0c01.METRICSONLY"), &json!(["metrics.read"]))
    );
    assert_eq!(looked_up["enabled"], true);
    let unknown = h.post("/api/v2/apiTokens/lookup", json!({"token": "dt0c01.A.B"}), 404).await;
    assert!(!unknown.to_string().contains("dt0c01.A.B"));
    h.post("/api/v2/apiTokens/lookup", json!({}), 400).await;
    h.end().await;
}

#[tokio::test]
async fn descriptors() {
    let h = Harness::scenario("demo", START).await;
    let all = h.get("/api/v2/metrics", &[], 200).await;
    assert_eq!((&all["totalCount"], &all["nextPageKey"]), (&json!(8), &Value::Null));
    let cpu = h.get("/api/v2/metrics/builtin:tech.generic.cpu.usage", &[], 200).await;
    assert_eq!(cpu["unit"], "Percent");
    assert_eq!(cpu["entityType"], json!(["PROCESS_GROUP_INSTANCE"]));
    assert_eq!(cpu["dimensionDefinitions"][0]["key"], "dt.entity.process_group_instance");
    assert_eq!(cpu["aggregationTypes"], json!(["auto", "avg", "max", "min"]));
    let chain =
        h.get("/api/v2/metrics/builtin:service.response.time:splitBy%28%29:avg:names", &[], 200).await;
    assert_eq!(chain["metricId"], "builtin:service.response.time:splitBy():avg:names");
    assert_eq!(chain["dimensionDefinitions"], json!([]), "as they are after the chain");
    assert_eq!(
        message(&h.get("/api/v2/metrics/builtin:x", &[], 404).await),
        "Metric with key 'builtin:x' not found."
    );
    let first =
        h.get("/api/v2/metrics", &[("pageSize", "2"), ("metricSelector", "builtin:service.*")], 200).await;
    assert_eq!(first["totalCount"], 3);
    let key = first["nextPageKey"].as_str().unwrap();
    assert!(!key.contains(['+', '/', '=']), "needs no percent-encoding: {key}");
    let rest = h.get("/api/v2/metrics", &[("nextPageKey", key)], 200).await;
    assert_eq!((rest["metrics"].as_array().unwrap().len(), &rest["nextPageKey"]), (1, &Value::Null));
    h.get("/api/v2/metrics", &[("nextPageKey", key), ("pageSize", "2")], 400).await;
    h.get("/api/v2/nothing", &[], 404).await;
    h.end().await;
}

#[tokio::test]
async fn several_services_in_one_query() {
    let h = Harness::scenario("shared-database", START + HOUR).await;
    let mut wanted = ["checkout", "cart", "search"].map(service_id);
    wanted.sort();
    let quoted = wanted.clone().map(|id| format!("\"{id}\"")).join(",");
    let entities = format!("type(SERVICE),entityId({quoted})");
    let inner = entities.replace('"', "~\"");
    let window = (START, START + 5 * MINUTE);
    let split = "splitBy(\"dt.entity.service\"):percentile(95)";
    let by_parameter = h
        .query(&format!("{LATENCY}:{split}"), window, &[("entitySelector", &entities), ("resolution", "1m")])
        .await;
    let filter = format!("filter(in(\"dt.entity.service\",entitySelector(\"{inner}\")))");
    let by_filter = h.query(&format!("{LATENCY}:{filter}:{split}"), window, &[("resolution", "1m")]).await;
    let by_or = wanted.clone().map(|id| format!("eq(\"dt.entity.service\",\"{id}\")")).join(",");
    let by_or =
        h.query(&format!("{LATENCY}:filter(or({by_or})):{split}"), window, &[("resolution", "1m")]).await;
    let data = by_filter["result"][0]["data"].as_array().unwrap();
    let mut found: Vec<&str> = data.iter().map(|d| d["dimensions"][0].as_str().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, wanted);
    assert!(
        data.iter().all(|d| d["values"].as_array().unwrap().iter().filter(|v| v.is_number()).count() == 5)
    );
    for answer in [by_parameter, by_or] {
        assert_eq!(answer["result"][0]["data"], by_filter["result"][0]["data"]);
    }
    let databases = format!("type(SERVICE),entityId(\"{}\")", service_id("orders-db"));
    let none = h.query(&format!("{LATENCY}:{split}"), window, &[("entitySelector", &databases)]).await;
    assert_eq!(none["result"][0]["data"], json!([]), "dependencies measure nothing");
    h.end().await;
}
