//! What each transformation makes of known numbers, and the grid of any window.

use crate::harness::{DAY, HOUR, Harness, MINUTE, START, TOKEN};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use vouch_simulator::{Case, Simulator, instance_id, service_id};

/// Two services: `a` on two hosts, `b` on one that misses the second minute.
fn cases() -> Vec<Case> {
    let metrics = json!({"m": {"unit": "ms"}});
    let series =
        |host: &str, values: Value| json!({"metric": "m", "host": host, "start": 0, "values": values});
    let a = json!({"id": "a", "metrics": metrics,
        "series": [series("a-1", json!([10, 20, 30, 40])), series("a-2", json!([1, 2, 3, 4]))]});
    let b = json!({"id": "b", "metrics": metrics, "series": [series("b-1", json!([100, null, 300, 400]))]});
    [a, b].into_iter().map(|case| serde_json::from_value(case).unwrap()).collect()
}

async fn known() -> Harness {
    Harness::new(Simulator::builder().replay_cases(cases(), START), START + DAY).await
}

const WINDOW: (i64, i64) = (START, START + 4 * MINUTE);

/// The values of every series, in the order answered.
async fn values(h: &Harness, chain: &str) -> Value {
    let chain = chain.replace("SERVICE_A", &service_id("a")).replace("INSTANCE_A1", &instance_id("a", "a-1"));
    let answer = h.query(&format!("calc:service.m{chain}"), WINDOW, &[("resolution", "1m")]).await;
    assert_eq!(answer["totalCount"], answer["result"][0]["data"].as_array().unwrap().len(), "{chain}");
    answer["result"][0]["data"].as_array().unwrap().iter().map(|d| d["values"].clone()).collect()
}

#[tokio::test]
async fn chains_and_their_values() {
    let h = known().await;
    let by_service = ":splitBy(\"dt.entity.service\")";
    for (chain, expected) in [
        (":splitBy():sum".to_owned(), json!([[111, 22, 333, 444]])),
        (":splitBy():min".into(), json!([[1, 2, 3, 4]])),
        (":splitBy():max".into(), json!([[100, 20, 300, 400]])),
        (":splitBy():avg".into(), json!([[37, 11, 111, 148]])),
        (":splitBy():count".into(), json!([[3, 2, 3, 3]])),
        (":filter(eq(\"dt.entity.service\",SERVICE_A)):splitBy():sum".into(), json!([[11, 22, 33, 44]])),
        (":filter(ne(\"dt.entity.service\",SERVICE_A)):splitBy():sum".into(), json!([[100, null, 300, 400]])),
        (":filter(not(eq(\"dt.entity.service\",SERVICE_A))):avg".into(), json!([[100, null, 300, 400]])),
        (
            ":filter(and(prefix(\"dt.entity.process_group_instance\",PROCESS),suffix(\"dt.entity.process_group_instance\",INSTANCE_A1)))"
                .into(),
            json!([[10, 20, 30, 40]]),
        ),
        (":filter(contains(\"dt.entity.service\",nothing))".into(), json!([])),
        (":filter(existsKey(\"dt.entity.service\"),series(sum,lt(50)))".into(), json!([[1, 2, 3, 4]])),
        (":filter(existsKey(\"host\"))".into(), json!([])),
        (":filter(remainder(\"dt.entity.service\"))".into(), json!([])),
        (":merge(\"dt.entity.service\"):sort(value(max,descending)):limit(1)".into(), json!([[100, null, 300, 400]])),
        (":avg:sort(value(min,ascending)):limit(2)".into(), json!([[1, 2, 3, 4], [10, 20, 30, 40]])),
        (format!("{by_service}:sum:sort(value(avg,ascending)):limit(1)"), json!([[11, 22, 33, 44]])),
        (":splitBy():sum:fold".into(), json!([[910]])),
        (":splitBy():max:fold".into(), json!([[400]])),
        (":splitBy():fold(max)".into(), json!([[400]])),
        (":splitBy():fold(min)".into(), json!([[1]])),
        (":splitBy():fold(sum)".into(), json!([[910]])),
        // Dynatrace sums averages that are folded.
        (":splitBy():avg:fold".into(), json!([[307]])),
        (":splitBy():avg:fold(max)".into(), json!([[307]])),
        (":filter(eq(\"dt.entity.process_group_instance\",INSTANCE_A1)):fold(avg)".into(), json!([[25]])),
        (":splitBy():sum:rate(1h)".into(), json!([[6660, 1320, 19980, 26640]])),
        (":splitBy():sum:toUnit(MilliSecond,Second)".into(), json!([[0.111, 0.022, 0.333, 0.444]])),
        (":splitBy():sum:toUnit(MilliSecond,MicroSecond)".into(), json!([[111_000, 22_000, 333_000, 444_000]])),
        (":filter(ne(\"dt.entity.service\",SERVICE_A)):avg:default(-1)".into(), json!([[100, -1, 300, 400]])),
        (":filter(eq(\"dt.entity.service\",X)):splitBy():sum:default(0,always)".into(), json!([[0, 0, 0, 0]])),
        (":filter(eq(\"dt.entity.service\",X)):sum:default(0,always)".into(), json!([])),
        (":splitBy():percentile(0)".into(), json!([[1, 2, 3, 4]])),
        (":splitBy():percentile(100)".into(), json!([[100, 20, 300, 400]])),
        (":auto:splitBy():auto".into(), json!([[111, 22, 333, 444]])),
    ] {
        assert_eq!(values(&h, &chain).await, expected, "{chain}");
    }
    h.end().await;
}

#[tokio::test]
async fn arithmetic_joins_series_point_by_point() {
    let h = known().await;
    let (a, b) = (service_id("a"), service_id("b"));
    let of = |id: &str| format!("calc:service.m:filter(eq(\"dt.entity.service\",{id})):splitBy():sum");
    let (a, b) = (of(&a), of(&b));
    for (selector, resolution, expected) in [
        (format!("{a}/2"), "1m", json!([[5.5, 11, 16.5, 22]])),
        (format!("100 - {a}"), "1m", json!([[89, 78, 67, 56]])),
        (format!("{b} - {a} * 2"), "1m", json!([[78, null, 234, 312]])),
        (format!("({b} - {a}) * 2"), "1m", json!([[178, null, 534, 712]])),
        (format!("{a} / ({b} - {b})"), "1m", json!([[null, null, null, null]])),
        (format!("(100)*({a})/({a}:fold)"), "1m", json!([[10, 20, 30, 40]])),
        (format!("({b} - {a}):fold(max)"), "Inf", json!([[356]])),
        (format!("({b} - {a}):fold"), "Inf", json!([[237.333_333_333_333_34]])),
        (format!("(({a}):fold)/1000"), "Inf", json!([[0.11]])),
        (
            format!("calc:service.m:splitBy(\"dt.entity.service\"):sum:sort(value(avg,ascending)) / {a}"),
            "1m",
            json!([
                [1, 1, 1, 1],
                [9.090_909_090_909_092, null, 9.090_909_090_909_092, 9.090_909_090_909_092]
            ]),
        ),
        (format!("({b}:default(0) + {a}):delta"), "1m", json!([[null, 0, 311, 111]])),
        (format!("{b}:smooth(skipfirst):setUnit(Byte)"), "1m", json!([[null, null, null, 400]])),
        (format!("{a}:timeshift(-2m)"), "1m", json!([[null, null, 11, 22]])),
        (format!("({a} - {a}:timeshift(-1m)):timeshift(1m)"), "1m", json!([[11, 11, 11, null]])),
    ] {
        let answer = h.query(&selector, WINDOW, &[("resolution", "1m")]).await;
        let data = answer["result"][0]["data"].as_array().unwrap();
        let values: Value = data.iter().map(|d| d["values"].clone()).collect();
        assert_eq!((&values, &answer["resolution"]), (&expected, &json!(resolution)), "{selector}");
        assert_eq!(
            answer["result"][0]["metricId"],
            selector.replace(" - ", "-").replace(" * ", "*").replace(" / ", "/").replace(" + ", "+")
        );
    }
    let operands = h.query(&format!("{a} / {b}"), WINDOW, &[("resolution", "1m")]).await;
    assert_eq!(operands["result"][0]["dimensionCountRatio"], 3e-5, "what the operands read adds up");
    let split = |key: &str| format!("calc:service.m:splitBy(\"{key}\"):sum");
    let apart = format!("{} / {}", split("dt.entity.service"), split("dt.entity.process_group_instance"));
    for selector in [apart.as_str(), "calc:service.m / calc:service.nothing", "5"] {
        let status = if selector.contains("nothing") { 404 } else { 400 };
        h.get("/api/v2/metrics/query", &[("metricSelector", selector)], status).await;
    }
    h.end().await;
}

#[tokio::test]
async fn warnings_and_refusals_of_units() {
    let h = known().await;
    let ask = |unit: &str| format!("calc:service.m:splitBy():sum:toUnit({unit})");
    let odd = h.query(&ask("MilliSecond,Byte"), WINDOW, &[]).await;
    assert_eq!(
        odd["warnings"],
        json!(["SourceUnit 'MilliSecond' cannot be converted to targetUnit 'Byte'."])
    );
    assert_eq!(odd["result"][0]["data"][0]["values"][0], 111, "and the values stay");
    let unknown = ask("MilliSecond,Kilo");
    let refused = h.get("/api/v2/metrics/query", &[("metricSelector", &unknown)], 400).await;
    assert_eq!(refused["error"]["message"], "No unit found using the Unit Id: 'Kilo'.");
    h.end().await;
}

#[tokio::test]
async fn coarser_slots_merge_what_is_there() {
    let h = known().await;
    let window = (START - 5 * MINUTE, START + 5 * MINUTE);
    let answer = h.query("calc:service.m:splitBy():sum", window, &[("resolution", "5m")]).await;
    assert_eq!(answer["result"][0]["data"][0]["values"], json!([null, 910]));
    h.set_now(START + 2 * MINUTE + 30_000);
    let partial = h.query("calc:service.m:splitBy():sum", window, &[("resolution", "5m")]).await;
    let data = &partial["result"][0]["data"][0];
    assert_eq!(data["values"], json!([null, 133]), "the newest slot is partial");
    assert_eq!(data["timestamps"][1], START + 5 * MINUTE, "and ends in the future");
    h.end().await;
}

#[tokio::test]
async fn every_form_of_time_means_the_same() {
    let h = known().await;
    h.set_now(START + HOUR);
    let ask = async |from: &str, to: &str| {
        let query = [
            ("metricSelector", "calc:service.m:splitBy():sum"),
            ("from", from),
            ("to", to),
            ("resolution", "1m"),
        ];
        h.get("/api/v2/metrics/query", &query, 200).await
    };
    let expected = ask(&START.to_string(), &(START + 4 * MINUTE).to_string()).await;
    assert_eq!(expected["result"][0]["data"][0]["values"], json!([111, 22, 333, 444]));
    for (from, to) in [
        ("2026-11-18T12:00:00.000Z", "2026-11-18T13:04:00.000+01:00"),
        ("2026-11-18 12:00", "2026-11-18T12:04"),
        ("now-60m", "now-56m"),
        ("now-1h/h", "now-56m"),
    ] {
        assert_eq!(ask(from, to).await, expected, "{from} {to}");
    }
    h.end().await;
}

#[tokio::test]
async fn answers_are_gzipped_where_that_is_wanted() {
    let h = Harness::scenario("bad-deployment", START).await;
    let url = format!("{}/api/v2/metrics/query?metricSelector=builtin:service.response.time", h.url);
    let plain = reqwest::Client::builder().no_gzip().build().unwrap();
    let ask = async |encoding: &str| {
        let request = plain.get(&url).header("Authorization", format!("Api-Token {TOKEN}"));
        let response = request.header("Accept-Encoding", encoding).send().await.unwrap();
        let encoded = response.headers().get("content-encoding").map(|v| v.to_str().unwrap().to_owned());
        (encoded, response.bytes().await.unwrap())
    };
    let (encoding, zipped) = ask("br, gzip;q=0.5").await;
    assert_eq!(encoding.as_deref(), Some("gzip"));
    let (encoding, body) = ask("identity").await;
    assert_eq!(encoding, None);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&zipped[..]), &mut text).unwrap();
    assert_eq!(text.as_bytes(), &body[..]);
    h.end().await;
}

#[test]
fn any_window_has_one_grid_of_slot_ends() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let h = runtime.block_on(Harness::scenario("demo", START));
    let strategy = (
        0_i64..30 * DAY,
        MINUTE..6 * HOUR,
        prop_oneof![Just("1m"), Just("5m"), Just("30m"), Just("1h"), Just("50"), Just("Inf")],
    );
    let checked = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() }).run(
        &strategy,
        |(age, length, resolution)| {
            let (from, to) = (START - age - length, START - age);
            let answer = runtime.block_on(h.query(
                "builtin:service.requestCount.total,builtin:tech.generic.cpu.usage:avg",
                (from, to),
                &[("resolution", resolution)],
            ));
            let label = answer["resolution"].as_str().unwrap();
            let unit = if label.ends_with('h') { HOUR } else { MINUTE };
            let results = answer["result"].as_array().unwrap();
            let series: Vec<&Value> = results.iter().flat_map(|r| r["data"].as_array().unwrap()).collect();
            for data in &series {
                prop_assert_eq!(&data["timestamps"], &series[0]["timestamps"], "one grid");
                prop_assert_eq!(
                    data["timestamps"].as_array().unwrap().len(),
                    data["values"].as_array().unwrap().len()
                );
            }
            let Some(first) = series.first() else { return Ok(()) };
            let stamps: Vec<i64> =
                first["timestamps"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap()).collect();
            if label == "Inf" {
                prop_assert_eq!(stamps, vec![to]);
                return Ok(());
            }
            let step = label[..label.len() - 1].parse::<i64>().unwrap() * unit;
            let last = *stamps.last().unwrap();
            prop_assert!(stamps[0] - step <= from && from < stamps[0], "the first slot holds `from`");
            prop_assert!(last - step < to && to <= last, "the last slot holds `to`");
            prop_assert!(
                stamps.iter().all(|s| s % step == 0) && stamps.windows(2).all(|w| w[1] - w[0] == step)
            );
            let finest = if age + length > 28 * DAY {
                HOUR
            } else if age + length > 14 * DAY {
                5 * MINUTE
            } else {
                MINUTE
            };
            prop_assert!(step >= finest, "never finer than what is stored");
            Ok(())
        },
    );
    checked.unwrap_or_else(|e| panic!("{e}"));
    runtime.block_on(h.end());
}
