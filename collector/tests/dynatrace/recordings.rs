//! Answers of real tenants, replayed over HTTP: each becomes series, or is refused by name. Left out where they are missing.

use crate::server::{Answer, Tenant, answer, entity};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vouch_collector::source::dynatrace::{Query, QueryAsk, When};
use vouch_collector::source::{Ask, MetricAsk, MetricSource as _};
use vouch_proto::{Name, Timestamp, Window};

fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/dynatrace/recordings");
    if folder.join("index.jsonl").exists() {
        return Some(folder);
    }
    println!("left out: {} is not there", folder.display());
    None
}

/// The recorded calls of an API, with their index line.
fn recorded(folder: &Path, api: &str) -> Vec<(Value, Vec<u8>)> {
    let index = std::fs::read_to_string(folder.join("index.jsonl")).unwrap();
    let lines = index.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["api"] == api)
        .filter_map(|line| {
            let body = std::fs::read(folder.join(line["response_file"].as_str()?)).ok()?;
            Some((line, body))
        })
        .collect()
}

/// The window that the first series of an answer spans, and how many samples it holds.
fn span(data: &Value) -> Option<(Window, Vec<Option<f64>>)> {
    let series = &data["result"][0]["data"][0];
    let stamps: Vec<i64> = series["timestamps"].as_array()?.iter().filter_map(Value::as_i64).collect();
    let spacing = stamps.iter().zip(stamps.iter().skip(1)).map(|(a, b)| b - a).min();
    let step = match data["resolution"].as_str() {
        Some("1m") => 60_000,
        Some("5m") => 300_000,
        Some("10m") => 600_000,
        Some(_) | None => spacing.unwrap_or(3_600_000),
    };
    let window =
        Window::new(Timestamp::from_millis(stamps.first()? - step), Timestamp::from_millis(*stamps.last()?));
    let values = series["values"].as_array()?.iter().map(Value::as_f64).collect();
    Some((window.ok()?, values))
}

#[tokio::test]
async fn every_recorded_query_is_read_or_refused_by_name() {
    let Some(folder) = folder() else { return };
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for (line, body) in recorded(&folder, "metrics-query") {
        let status = u16::try_from(line["status"].as_u64().unwrap()).unwrap();
        let data: Value = serde_json::from_slice(&body).unwrap_or_default();
        let span = span(&data);
        let fallback = Window::new(Timestamp::from_millis(0), Timestamp::from_millis(60_000)).unwrap();
        let window = span.as_ref().map_or(fallback, |(window, _)| *window);
        let metrics = data["result"].as_array().map_or(1, Vec::len).max(1);
        let ask = Ask {
            environment: Name::new("prod").unwrap(),
            service: Name::new("checkout").unwrap(),
            metrics: (0..metrics)
                .map(|i| MetricAsk {
                    name: format!("m{i}"),
                    query: format!("(builtin:service.a + {i})"),
                    unit: String::new(),
                    by_host: false,
                    each: None,
                })
                .collect(),
            window,
            settled_until: window.end(),
        };
        let asked_again = if status == 429 { 4 } else { 1 };
        let answers: Vec<Answer> = vec![answer("metrics/query", status, body); asked_again];
        let tenant = Tenant::new([vec![entity()], answers].concat()).await;
        let file = line["response_file"].as_str().unwrap();
        let word = match tenant.source.read(&ask).await {
            Err(failure) => {
                println!("{failure}");
                failure.kind.as_str().to_owned()
            }
            Ok(reading) => match reading.refused.first() {
                Some((_, failure)) => {
                    println!("{failure}");
                    failure.kind.as_str().to_owned()
                }
                None => {
                    let read = &reading.chunks[0].series[0].samples;
                    let (_, recorded) = span.unwrap_or_else(|| (window, vec![None; read.len()]));
                    assert_eq!(*read, recorded, "{file}");
                    "series".to_owned()
                }
            },
        };
        println!("{word:18} {file}");
        if status == 200 {
            let resolution = data["resolution"].as_str().unwrap_or_default();
            let coarse = ["inf", "1h", "30m"].iter().any(|c| resolution.eq_ignore_ascii_case(c));
            let empty = data["result"]
                .as_array()
                .is_some_and(|r| r.iter().all(|r| r["data"] == serde_json::json!([])));
            let warned = data["warnings"].is_array();
            assert!(!coarse || empty || warned || word == "too_coarse", "{file}: {resolution} became {word}");
        }
        *counts.entry(word).or_default() += 1;
    }
    println!("recorded queries: {counts:?}");
    assert!(counts.get("series").is_some_and(|n| *n > 10), "{counts:?}");
    assert_eq!(counts.get("throttled"), Some(&1));
}

#[tokio::test]
async fn recorded_entities_are_read() {
    let Some(folder) = folder() else { return };
    for (line, body) in recorded(&folder, "entities") {
        let recorded: Value = serde_json::from_slice(&body).unwrap();
        let Some(entities) = recorded["entities"].as_array() else { continue };
        let mut answers = vec![answer("entities", 200, body.clone())];
        if recorded["nextPageKey"].as_str().is_some_and(|key| !key.is_empty()) {
            answers.push(answer("entities", 200, r#"{"entities":[]}"#));
        }
        let tenant = Tenant::new(answers).await;
        let services = tenant.source.services().await.unwrap();
        assert_eq!(services.len(), entities.len(), "{}", line["response_file"]);
        tenant.asked();
    }
}

/// What was asked when it was recorded, as one query.
fn as_query(line: &Value) -> QueryAsk {
    let url = format!("http://recorded{}", line["url"].as_str().unwrap());
    let pairs: BTreeMap<String, String> = reqwest::Url::parse(&url)
        .unwrap()
        .query_pairs()
        .map(|(k, v)| (k.into_owned(), v.into_owned()))
        .collect();
    let field = |name: &str| pairs.get(name).cloned();
    let now = crate::server::noon();
    let when =
        |name: &str, default: &str| When::parse(&field(name).unwrap_or_else(|| default.into()), now).unwrap();
    let query = match line["api"].as_str() {
        Some("dql") => Query::Dql {
            query: "timeseries avg(dt.host.cpu.usage), interval:1h".into(),
            scan_limit_gb: 1,
            patience: Duration::from_secs(60),
        },
        _ => Query::Metrics {
            selector: field("metricSelector").unwrap_or_else(|| "a:avg".into()),
            entities: field("entitySelector"),
            management_zones: field("mzSelector"),
        },
    };
    QueryAsk {
        query,
        from: when("from", "2022-09-28"),
        to: when("to", "2022-09-29"),
        resolution: field("resolution"),
    }
}

/// For each metric: series, samples and gaps, as the index counts them.
fn counted(parsed: &Value) -> BTreeMap<String, [u64; 3]> {
    let mut counts: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for result in parsed["results"].as_array().unwrap() {
        let count = counts.entry(result["metricId"].as_str().unwrap().to_owned()).or_default();
        for (sum, key) in count.iter_mut().zip(["series", "points", "nulls"]) {
            *sum += result[key].as_u64().unwrap();
        }
    }
    counts
}

#[tokio::test]
async fn every_recorded_query_is_printed_as_it_was_or_refused_by_name() {
    let Some(folder) = folder() else { return };
    let mut words: BTreeMap<String, u32> = BTreeMap::new();
    for (line, body) in recorded(&folder, "metrics-query") {
        let status = u16::try_from(line["status"].as_u64().unwrap()).unwrap();
        let asked_again = if status == 429 { 4 } else { 1 };
        let tenant = Tenant::lenient(vec![answer("metrics/query", status, body); asked_again]).await;
        let ask = as_query(&line);
        let word = match tenant.source.query_series(&ask).await {
            Err(failure) => failure.kind.as_str(),
            Ok(series) => {
                let mut read: BTreeMap<String, [u64; 3]> = BTreeMap::new();
                let refused: Vec<&str> = series
                    .iter()
                    .filter(|one| one.refused.is_some())
                    .map(|one| one.metric.as_str())
                    .collect();
                for one in series.iter().filter(|one| one.refused.is_none()) {
                    let gaps = one.samples.iter().filter(|(_, value)| value.is_none()).count();
                    let count = read.entry(one.metric.clone()).or_default();
                    for (sum, more) in count.iter_mut().zip([1, one.samples.len(), gaps]) {
                        *sum += more as u64;
                    }
                }
                let mut recorded = counted(&line["parsed"]);
                recorded.retain(|metric, _| !refused.contains(&metric.as_str()));
                if refused.len() < series.len() {
                    assert_eq!(read, recorded, "{}", line["response_file"]);
                }
                series.iter().find_map(|one| one.refused).map_or("series", |kind| kind.as_str())
            }
        };
        println!("{word:18} {}", line["response_file"]);
        *words.entry(word.to_owned()).or_default() += 1;
    }
    println!("recorded queries, printed: {words:?}");
    assert!(words.get("series").is_some_and(|n| *n > 50), "{words:?}");
}

#[tokio::test]
async fn every_recorded_answer_of_grail_is_read_or_refused_by_name() {
    let Some(folder) = folder() else { return };
    const QUERY: &str = "/platform/storage/query/v1/query";
    for (line, body) in recorded(&folder, "dql") {
        let status = u16::try_from(line["status"].as_u64().unwrap()).unwrap();
        let started =
            answer(&format!("{QUERY}:execute"), 202, r#"{"state":"RUNNING","requestToken":"my-token"}"#);
        let is_poll = line["url"].as_str().unwrap().contains("query:poll");
        let answers = if is_poll {
            vec![started, answer(&format!("{QUERY}:poll"), status, body)]
        } else {
            vec![answer(&format!("{QUERY}:execute"), status, body)]
        };
        let tenant = Tenant::lenient(answers).await;
        let word = match tenant.source.query_series(&as_query(&line)).await {
            Err(failure) => failure.kind.as_str().to_owned(),
            Ok(series) => match series[0].refused {
                Some(kind) => kind.as_str().to_owned(),
                None => format!("{:.6}", series[0].samples.last().unwrap().1.unwrap()),
            },
        };
        println!("{word:18} {}", line["response_file"]);
        let kind = line["kind"].as_str().unwrap();
        let expected = match (status, line["expected"][0]["value"].as_str()) {
            (_, Some(value)) => value,
            (403, _) => "missing_scope",
            _ if kind.contains("empty records") => "no_data",
            // Under way, and asked about once more, which was not recorded.
            _ => "not_found",
        };
        assert_eq!(word, expected, "{}", line["response_file"]);
    }
}

#[tokio::test]
async fn recorded_descriptors_say_what_a_metric_is_measured_in() {
    let Some(folder) = folder() else { return };
    let mut read = 0;
    for (line, body) in recorded(&folder, "metrics-descriptor") {
        let recorded: Value = serde_json::from_slice(&body).unwrap();
        let (Some(key), Some(unit)) = (recorded["metricId"].as_str(), recorded["unit"].as_str()) else {
            continue;
        };
        // A key alone: what is asked for is the metric's descriptor, not that of a chain.
        let stamps = [1_795_002_960_000_i64];
        let data = serde_json::json!({"resolution": "1m", "result": [{"data": [
            {"dimensions": [], "dimensionMap": {}, "timestamps": stamps, "values": [1000.0]}]}]});
        let tenant = Tenant::lenient(vec![
            answer("metrics/query", 200, data.to_string()),
            answer("metrics/my.metric", 200, body.clone()),
        ])
        .await;
        let ask = QueryAsk {
            query: Query::Metrics {
                selector: "my.metric:avg".into(),
                entities: None,
                management_zones: None,
            },
            from: When::parse("2026-11-18T11:55:00Z", crate::server::noon()).unwrap(),
            to: When::parse("2026-11-18T11:56:00Z", crate::server::noon()).unwrap(),
            resolution: None,
        };
        let series = tenant.source.query_series(&ask).await.unwrap();
        let known = match unit {
            "MicroSecond" => "ms",
            "Percent" => "percent",
            "Count" => "count",
            "Byte" => "bytes",
            other => other,
        };
        let expected = if matches!(unit, "Unspecified" | "NotApplicable") { "" } else { known };
        assert_eq!(series[0].unit, expected, "{key} {}", line["response_file"]);
        assert_eq!(series[0].refused, None, "{key}");
        read += 1;
    }
    println!("recorded descriptors: {read}");
    assert!(read > 20, "{read}");
}

#[tokio::test]
async fn recorded_problems_are_read() {
    let Some(folder) = folder() else { return };
    let mut read = 0;
    for (line, body) in recorded(&folder, "problems") {
        let recorded: Value = serde_json::from_slice(&body).unwrap();
        let Some(problems) = recorded["problems"].as_array() else { continue };
        let tenant = Tenant::new(vec![entity(), answer("problems", 200, body.clone())]).await;
        let first = problems.iter().filter_map(|one| one["startTime"].as_i64()).min();
        let start = Timestamp::from_millis(first.unwrap_or(0)).floor_minute();
        let ask = Ask { window: Window::around(start, -5, 60 * 24 * 3).unwrap(), ..crate::server::ask("a") };
        let found = tenant.source.problems(&ask).await.unwrap();
        assert!(found.len() <= problems.len(), "{}", line["response_file"]);
        read += found.len();
        tenant.asked();
    }
    println!("recorded problems: {read}");
    assert!(read > 3, "{read}");
}
