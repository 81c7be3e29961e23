//! What DQL queries answer.

use crate::grail::{Query, run};
use crate::harness::{DAY, HOUR, Harness, MINUTE, START};
use serde_json::{Value, json};
use vouch_simulator::{Scenario, Simulator, instance_id, service_id};

/// A part of a query that names the window `[start, end]`, epoch milliseconds.
fn during(start: i64, end: i64) -> String {
    format!("from:\"{}\", to:\"{}\"", iso(start), iso(end))
}

/// ISO 8601 of a time of the day on which scenarios start; other days by their distance in days.
fn iso(at: i64) -> String {
    let (day, rest) = ((at - START + 12 * HOUR).div_euclid(DAY), (at - START + 12 * HOUR).rem_euclid(DAY));
    let (hour, minute, second) = (rest / HOUR, rest % HOUR / MINUTE, rest % MINUTE / 1000);
    format!("2026-11-{:02}T{hour:02}:{minute:02}:{second:02}Z", 18 + day)
}

fn numbers(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

#[tokio::test]
async fn the_shape_of_a_result() {
    let h = Harness::scenario("demo", START).await;
    let id = service_id("checkout");
    let query = format!(
        "timeseries p95 = percentile(dt.service.request.response_time, 95), by:{{dt.entity.service}}, \
         filter:{{dt.entity.service == \"{id}\"}}, interval:1m, {}",
        during(START - HOUR, START - 55 * MINUTE)
    );
    let answer = run(&h, Query::new(&query).enriched()).await;
    assert_eq!((&answer["state"], &answer["progress"]), (&json!("SUCCEEDED"), &json!(100)));
    let result = &answer["result"];
    let record = &result["records"][0];
    assert_eq!(
        record["timeframe"],
        json!({"start": "2026-11-18T11:00:00.000000000Z", "end": "2026-11-18T11:05:00.000000000Z"})
    );
    assert_eq!((&record["interval"], &record["dt.entity.service"]), (&json!("60000000000"), &json!(id)));
    assert_eq!(record["p95"].as_array().unwrap().len(), 5);
    assert_eq!(
        result["types"],
        json!([{"indexRange": [0, 0], "mappings": {
            "timeframe": {"type": "timeframe"}, "interval": {"type": "duration"},
            "dt.entity.service": {"type": "string"},
            "p95": {"type": "array", "types": [{"indexRange": [0, 4], "mappings": {"element": {"type": "double"}}}]},
        }}])
    );
    let grail = &result["metadata"]["grail"];
    assert_eq!(grail["query"], query);
    assert!(grail["canonicalQuery"].as_str().unwrap().starts_with("timeseries by:{dt.entity.service}, "));
    assert_eq!(
        grail["analysisTimeframe"],
        json!({"start": "2026-11-18T11:00:00.000000000Z", "end": "2026-11-18T11:05:00.000000000Z"})
    );
    assert_eq!(grail["queryId"].as_str().unwrap().len(), 36);
    for (field, expected) in [
        ("timezone", json!("Z")),
        ("locale", json!("en_US")),
        ("dqlVersion", json!("V1_0")),
        ("scannedBytes", json!(0)),
        ("scannedDataPoints", json!(5)),
        ("sampled", json!(false)),
        ("notifications", json!([])),
    ] {
        assert_eq!(grail[field], expected, "{field}");
    }
    let metric = &result["metadata"]["metrics"][0];
    assert_eq!(
        (&metric["metric.key"], &metric["fieldName"], &metric["aggregation"], &metric["unit"]),
        (&json!("dt.service.request.response_time"), &json!("p95"), &json!("percentile"), &json!("\u{b5}s"))
    );
    let plain = run(&h, Query::new(&query)).await;
    assert!(plain["result"]["metadata"].get("metrics").is_none(), "only where they are wanted");
    h.end().await;
}

#[tokio::test]
async fn grail_and_the_metrics_api_hold_the_same_data() {
    let h = Harness::scenario("bad-deployment", START + HOUR).await;
    let window = (START, START + 30 * MINUTE);
    for (dql, selector, dimension) in [
        (
            "percentile(dt.service.request.response_time, 95)",
            "builtin:service.response.time:percentile(95)",
            "dt.entity.service",
        ),
        ("avg(dt.service.request.response_time)", "builtin:service.response.time:avg", "dt.entity.service"),
        ("sum(dt.service.request.count)", "builtin:service.requestCount.total:value", "dt.entity.service"),
        (
            "sum(dt.service.request.failure_count)",
            "builtin:service.errors.total.count:value",
            "dt.entity.service",
        ),
        (
            "avg(dt.process.cpu.usage)",
            "builtin:tech.generic.cpu.usage:avg",
            "dt.entity.process_group_instance",
        ),
        ("max(dt.host.cpu.usage)", "builtin:host.cpu.usage:max", "dt.entity.host"),
        (
            "median(dt.service.request.response_time)",
            "calc:service.response_time:splitBy(\"dt.entity.process_group_instance\"):median",
            "dt.entity.process_group_instance",
        ),
    ] {
        let query =
            format!("timeseries v = {dql}, by:{{{dimension}}}, interval:1m, {}", during(window.0, window.1));
        let grail = run(&h, Query::new(&query)).await;
        let records = grail["result"]["records"].as_array().unwrap();
        let classic = h.query(selector, window, &[("resolution", "1m")]).await;
        let data = classic["result"][0]["data"].as_array().unwrap();
        assert_eq!(records.len(), data.len(), "{dql}");
        for series in data {
            let id = &series["dimensionMap"][dimension];
            let record = records.iter().find(|r| &r[dimension] == id).unwrap_or_else(|| panic!("{dql} {id}"));
            assert_eq!(numbers(&record["v"]), numbers(&series["values"]), "{dql} {id}");
        }
    }
    h.end().await;
}

#[tokio::test]
async fn grids_are_floored_and_ceiled() {
    let h = Harness::scenario("healthy", START).await;
    let day = (START - 6 * HOUR - 7 * MINUTE - DAY, START - 6 * HOUR - 7 * MINUTE);
    for (more, window, interval, first, last, length) in [
        ("interval:10m", day, "600000000000", "2026-11-17T05:50:00", "2026-11-18T06:00:00", 145),
        ("", day, "600000000000", "2026-11-17T05:50:00", "2026-11-18T06:00:00", 145),
        ("bins:24", day, "3600000000000", "2026-11-17T05:00:00", "2026-11-18T06:00:00", 25),
        (
            "interval:1m",
            (START - 10 * MINUTE + 30_000, START),
            "60000000000",
            "2026-11-18T11:50:00",
            "2026-11-18T12:00:00",
            10,
        ),
        (
            "interval:7m",
            (START - HOUR, START),
            "420000000000",
            "2026-11-18T10:56:00",
            "2026-11-18T12:06:00",
            10,
        ),
    ] {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let query = format!("timeseries avg(dt.host.cpu.usage){more}, {}", during(window.0, window.1));
        let answer = run(&h, Query::new(&query)).await;
        let record = &answer["result"]["records"][0];
        let at = |end: &str| record["timeframe"][end].as_str().unwrap()[..19].to_owned();
        let values = record["avg(dt.host.cpu.usage)"].as_array().unwrap();
        assert_eq!(
            (record["interval"].as_str().unwrap(), at("start").as_str(), at("end").as_str(), values.len()),
            (interval, first, last, length),
            "{query}"
        );
    }
    // What has not settled is null, in the last slot and in those that lie in the future.
    let query =
        "timeseries n = count(dt.service.request.response_time), interval:1m, from:now()-10m, to:now()+5m";
    let answer = run(&h, Query::new(query)).await;
    let values = numbers(&answer["result"]["records"][0]["n"]);
    assert_eq!(values.len(), 15);
    assert!(values[..8].iter().all(Option::is_some) && values[9..].iter().all(Option::is_none), "{values:?}");
    h.end().await;
}

#[tokio::test]
async fn timeframes_and_time_zones() {
    let h = Harness::scenario("healthy", START).await;
    let window = json!({
        "defaultTimeframeStart": "2026-11-18T10:00:00Z", "defaultTimeframeEnd": "2026-11-18T11:00:00+00:00",
    });
    let query = "timeseries a = avg(dt.host.cpu.usage), interval:1h";
    for (more, text, start, end) in [
        (json!({}), query.to_owned(), "2026-11-18T10:00:00.000000000Z", "2026-11-18T12:00:00.000000000Z"),
        (
            window.clone(),
            query.to_owned(),
            "2026-11-18T10:00:00.000000000Z",
            "2026-11-18T11:00:00.000000000Z",
        ),
        (
            json!({"defaultTimeframeStart": "2026-11-18T08:00:00Z"}),
            query.to_owned(),
            "2026-11-18T10:00:00.000000000Z",
            "2026-11-18T12:00:00.000000000Z",
        ),
        (
            window,
            format!("{query}, from:now()-3h"),
            "2026-11-18T09:00:00.000000000Z",
            "2026-11-18T12:00:00.000000000Z",
        ),
        (
            json!({"timezone": "Europe/Vienna"}),
            query.to_owned(),
            "2026-11-18T11:00:00.000000000+01:00",
            "2026-11-18T13:00:00.000000000+01:00",
        ),
    ] {
        let answer = run(&h, Query::new(&text).with(more.clone())).await;
        let record = &answer["result"]["records"][0];
        assert_eq!(record["timeframe"], json!({"start": start, "end": end}), "{text} {more}");
        let analysed = answer["result"]["metadata"]["grail"]["analysisTimeframe"]["start"].as_str().unwrap();
        assert!(analysed.ends_with('Z'), "{analysed}");
    }
    h.end().await;
}

#[tokio::test]
async fn filters_defaults_rates_and_several_metrics() {
    let h = Harness::scenario("demo", START + HOUR).await;
    let window = during(START, START + 10 * MINUTE);
    let checkout = service_id("checkout");
    let of = async |query: String| run(&h, Query::new(&query)).await["result"]["records"].clone();
    let one = of(format!("timeseries n = sum(dt.service.request.count), interval:1m, {window}")).await;
    let two = of(format!(
        "timeseries n = sum(dt.service.request.count), by:dt.entity.service, interval:1m, {window}"
    ))
    .await;
    assert_eq!((one.as_array().unwrap().len(), two.as_array().unwrap().len()), (1, 2));
    let sums: Vec<f64> = numbers(&two[0]["n"])
        .into_iter()
        .zip(numbers(&two[1]["n"]))
        .map(|(a, b)| a.unwrap() + b.unwrap())
        .collect();
    assert_eq!(numbers(&one[0]["n"]), sums.into_iter().map(Some).collect::<Vec<_>>());
    for filter in [
        format!("dt.entity.service == \"{checkout}\""),
        format!("in(dt.entity.service, {{\"{checkout}\"}})"),
        "in(dt.entity.service, classicEntitySelector(\"type(SERVICE),entityName.equals(checkout)\"))"
            .to_owned(),
        "entityName(dt.entity.service) == \"checkout\"".to_owned(),
    ] {
        let found = of(format!(
            "timeseries n = sum(dt.service.request.count), by:{{dt.entity.service}}, filter:{{{filter}}}, {window}"
        ))
        .await;
        assert_eq!(found.as_array().unwrap().len(), 1, "{filter}");
        assert_eq!(found[0]["dt.entity.service"], checkout);
    }
    let rated = of(format!(
        "timeseries {{n = sum(dt.service.request.count), r = sum(dt.service.request.count, rate:1s), \
         f = sum(dt.service.request.failure_count, filter:{{dt.entity.service == \"{checkout}\"}}, default:0)}}, \
         interval:5m, {window}"
    ))
    .await;
    let (n, r) = (numbers(&rated[0]["n"]), numbers(&rated[0]["r"]));
    assert!((n[0].unwrap() / 300.0 - r[0].unwrap()).abs() < 1e-9);
    assert_eq!(numbers(&rated[0]["f"]).len(), 2);
    h.end().await;
}

#[tokio::test]
async fn commands_behind_a_pipe() {
    let h = Harness::scenario("demo", START + HOUR).await;
    let window = during(START, START + 10 * MINUTE);
    let query = format!(
        "timeseries p = avg(dt.service.request.response_time), by:{{pod = dt.entity.process_group_instance}}, {window}
         | fieldsAdd name = entityName(pod), mean = arrayAvg(p), n = arraySize(p)
         | filter startsWith(name, \"payment\")
         | sort mean desc
         | limit 2
         | fields pod, name, mean, n"
    );
    let answer = run(&h, Query::new(&query)).await;
    let records = answer["result"]["records"].as_array().unwrap();
    assert_eq!(records.len(), 2);
    assert!(records[0]["mean"].as_f64() > records[1]["mean"].as_f64());
    assert_eq!((&records[0]["n"], records[0].as_object().unwrap().len()), (&json!("10"), 4));
    let name = records[0]["name"].as_str().unwrap();
    assert_eq!(records[0]["pod"], instance_id("payment", name));
    assert_eq!(answer["result"]["types"][0]["mappings"]["n"], json!({"type": "long"}));
    for (tail, expected) in [
        ("| summarize count()", json!([{"count()": "6"}])),
        ("| summarize n = count(), by:{s}", json!([{"s": "c", "n": "3"}, {"s": "p", "n": "3"}])),
        ("| filterOut s == \"c\" | fieldsKeep s | limit 1", json!([{"s": "p"}])),
        ("| fieldsRemove s, x | limit 0", json!([])),
        ("| sort s asc, x desc | fields x | limit 1", json!([{"x": "3"}])),
    ] {
        let data = "data record(s=\"c\", x=1), record(s=\"c\", x=2), record(s=\"c\", x=3), record(s=\"p\", x=4), \
                    record(s=\"p\", x=5), record(s=\"p\", x=6)";
        let answer = run(&h, Query::new(&format!("{data} {tail}"))).await;
        assert_eq!(answer["result"]["records"], expected, "{tail}");
    }
    let logs = run(&h, Query::new("fetch logs, from:now()-1h | filter contains(content, \"error\")")).await;
    assert_eq!((&logs["result"]["records"], &logs["result"]["types"]), (&json!([]), &json!([])));
    h.end().await;
}

#[tokio::test]
async fn no_data_and_unknown_metrics_give_no_records() {
    let gap = "{name: gap, services: [{name: a, hosts: [h], missing: [{from_minutes: 2, to_minutes: 4}]},
               {name: b, hosts: [k], missing: [{from_minutes: -100, to_minutes: 100}]}]}";
    let builder = Simulator::builder().scenario(Scenario::parse(gap).unwrap()).start_ms(START).settle_ms(0);
    let h = Harness::new(builder, START + HOUR).await;
    let window = during(START, START + 6 * MINUTE);
    let of = async |query: String| run(&h, Query::new(&query)).await["result"].clone();
    let both =
        of(format!("timeseries v = avg(dt.host.cpu.usage), by:{{dt.entity.host}}, interval:1m, {window}"))
            .await;
    assert_eq!(both["records"].as_array().unwrap().len(), 1, "a series without any point is absent");
    let values = numbers(&both["records"][0]["v"]);
    assert_eq!(
        values.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, true, false, false, true, true]
    );
    let filled = of(format!("timeseries v = avg(dt.host.cpu.usage, default:0), interval:1m, {window}")).await;
    assert_eq!(numbers(&filled["records"][0]["v"])[2..4], [Some(0.0), Some(0.0)]);
    let nothing = format!("filter:{{dt.entity.service == \"{}\"}}, interval:1m, {window}", service_id("b"));
    let empty = of(format!("timeseries v = sum(dt.service.request.count), {nothing}")).await;
    assert_eq!((&empty["records"], &empty["metadata"]["grail"]["notifications"]), (&json!([]), &json!([])));
    let nonempty =
        of(format!("timeseries v = sum(dt.service.request.count, default:0), nonempty:true, {nothing}"))
            .await;
    assert_eq!(nonempty["records"][0]["v"], json!([0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    let by = "by:{dt.entity.service}, interval:1m";
    let absent = "x = sum(dt.service.request.count, filter:{dt.entity.service == \"SERVICE-0\"})";
    for (union, count) in [("", 0), (", union:true", 1)] {
        let joined =
            of(format!("timeseries v = sum(dt.service.request.count), {absent}, {by}{union}, {window}"))
                .await;
        assert_eq!(joined["records"].as_array().unwrap().len(), count, "{union}");
    }
    let unknown = of("timeseries avg(dt.service.request.responsetime)".into()).await;
    assert_eq!(unknown["records"], json!([]));
    let notification = &unknown["metadata"]["grail"]["notifications"][0];
    assert_eq!(
        (&notification["severity"], &notification["arguments"][0]),
        (&json!("WARNING"), &json!("dt.service.request.responsetime"))
    );
    let yesterday =
        of(format!("timeseries v = sum(dt.service.request.count), shift:-1d, interval:1m, {window}")).await;
    let shifted = of(format!(
        "timeseries v = sum(dt.service.request.count), interval:1m, {}",
        during(START - DAY, START - DAY + 6 * MINUTE)
    ))
    .await;
    assert_eq!(yesterday["records"][0]["v"], shifted["records"][0]["v"]);
    assert_ne!(yesterday["records"][0]["timeframe"], shifted["records"][0]["timeframe"]);
    let scalar =
        of(format!("timeseries v = sum(dt.service.request.count, scalar:true), interval:1m, {window}")).await;
    assert!(scalar["records"][0]["v"].is_f64(), "{scalar}");
    h.end().await;
}

#[tokio::test]
async fn entities_are_fetched_with_a_notice() {
    let h = Harness::scenario("demo", START).await;
    let query = "fetch dt.entity.service | fieldsAdd n = lower(entity.name) | sort entity.name desc";
    let answer = run(&h, Query::new(query)).await;
    assert_eq!(
        answer["result"]["records"],
        json!([
            {"entity.name": "payment", "id": service_id("payment"), "n": "payment"},
            {"entity.name": "checkout", "id": service_id("checkout"), "n": "checkout"},
        ])
    );
    let notification = &answer["result"]["metadata"]["grail"]["notifications"][0];
    assert_eq!(
        (&notification["severity"], &notification["notificationType"]),
        (&json!("INFO"), &json!("DEPRECATED_ENTITY_DATAOBJECT")),
        "noise"
    );
    h.end().await;
}

#[tokio::test]
async fn recorded_cases_have_the_keys_of_the_metrics_api() {
    let case = json!({"id": "case", "interval_min": 5, "metrics": {"m": {"unit": "ms"}},
        "series": [{"metric": "m", "host": "pod", "start": 0, "values": [101.5, null, 0.1, 7]}]});
    let cases = vec![serde_json::from_value(case).unwrap()];
    let h = Harness::new(Simulator::builder().replay_cases(cases, START), START + HOUR).await;
    let query = format!(
        "timeseries v = avg(calc:service.m), interval:1m, by:{{dt.entity.process_group_instance}}, {}",
        during(START, START + 20 * MINUTE)
    );
    let record = run(&h, Query::new(&query)).await["result"]["records"][0].clone();
    assert_eq!(record["v"], json!([101.5, null, 0.1, 7.0]));
    assert_eq!(record["interval"], "300000000000", "the interval answered is the truth");
    assert_eq!(record["dt.entity.process_group_instance"], instance_id("case", "pod"));
    h.end().await;
}
