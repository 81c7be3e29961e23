//! Recorded cases through the API: exactly what was recorded.

use crate::harness::{DAY, Harness, MINUTE, START, message};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use vouch_simulator::{Case, Simulator, instance_id, read_cases, service_id};

fn case() -> Value {
    json!({
        "id": "case-1", "kind": "canary", "interval_min": 1, "label": {"verdict": "fail"}, "source": "x",
        "metrics": {
            "response_time": {"unit": "ms", "bad": "up", "role": "judged"},
            "error_count": {"unit": "1/min", "bad": "up", "exposure": "throughput"},
            "load": {"unit": "1/min", "bad": "none", "role": "context"},
        },
        "hosts": {"a": {"group": "control", "switch": null}, "b": {"group": "test", "switch": 0}},
        "series": [
            {"metric": "response_time", "host": "a", "start": -10080, "values": [1.5, 0.1]},
            {"metric": "response_time", "host": "a", "start": -1440, "values": [7]},
            {"metric": "response_time", "host": "a", "start": -2, "values": [507.6, null, 470.3, 3]},
            {"metric": "response_time", "host": "b", "start": -2, "values": [1, 2, 3, 1e-7]},
            {"metric": "error_count", "host": "b", "start": 0, "values": [0, 1]},
            {"metric": "load", "host": "a", "start": 0, "values": [355, 384]},
        ],
    })
}

fn cases(values: &[Value]) -> Vec<Case> {
    values.iter().map(|v| serde_json::from_value(v.clone()).unwrap()).collect()
}

async fn replaying(values: &[Value], now: i64) -> Harness {
    Harness::new(Simulator::builder().replay_cases(cases(values), START), now).await
}

#[tokio::test]
async fn values_pass_through_exactly() {
    let h = replaying(&[case()], START + 2 * MINUTE).await;
    let entity = format!("type(SERVICE),entityId({})", service_id("case-1"));
    let more = [("resolution", "1m"), ("entitySelector", entity.as_str())];
    let split = ":splitBy(\"dt.entity.service\",\"dt.entity.process_group_instance\")";
    let ask = async |metric: &str, from: i64, to: i64| {
        h.query(&format!("calc:service.{metric}{split}:avg:names"), (START + from, START + to), &more).await
    };
    let answer = ask("response_time", -2 * MINUTE, 2 * MINUTE).await;
    assert_eq!((&answer["resolution"], &answer["totalCount"]), (&json!("1m"), &json!(2)));
    for (data, (host, values)) in answer["result"][0]["data"].as_array().unwrap().iter().zip([
        ("a", [Some(507.6), None, Some(470.3), Some(3.0)]),
        ("b", [Some(1.0), Some(2.0), Some(3.0), Some(1e-7)]),
    ]) {
        assert_eq!(
            data["dimensions"],
            json!(["case-1", service_id("case-1"), host, instance_id("case-1", host)])
        );
        let got: Vec<Option<f64>> = data["values"].as_array().unwrap().iter().map(Value::as_f64).collect();
        assert_eq!(got, values, "{host}: nulls stay nulls, values keep their bits");
    }
    let week = ask("response_time", -7 * DAY, -7 * DAY + 2 * MINUTE).await;
    assert_eq!(week["result"][0]["data"][0]["values"], json!([1.5, 0.1]), "a week ago");
    assert_eq!(ask("response_time", -DAY, -DAY + MINUTE).await["result"][0]["data"][0]["values"], json!([7]));
    assert_eq!(
        ask("load", 0, 2 * MINUTE).await["result"][0]["data"][0]["values"],
        json!([355, 384]),
        "context too"
    );
    h.set_now(START + MINUTE + 59_999);
    let partial = ask("error_count", 0, 2 * MINUTE).await;
    assert_eq!(
        partial["result"][0]["data"][0]["values"],
        json!([0, null]),
        "nothing from a slot that has not ended"
    );
    let unit = h.get("/api/v2/metrics/calc:service.response_time", &[], 200).await;
    assert_eq!(
        (&unit["unit"], unit["dimensionDefinitions"].as_array().unwrap().len()),
        (&json!("MilliSecond"), 2)
    );
    assert_eq!(
        message(&h.get("/api/v2/metrics/calc:service.cpu", &[], 404).await),
        "Metric with key 'calc:service.cpu' not found."
    );
    let deploy = json!({"service": "case-1", "version": "2", "effect": {"kind": "healthy"}});
    h.post("/_simulator/deploy", deploy, 409).await;
    h.end().await;
}

#[tokio::test]
async fn a_native_interval_of_five_minutes_is_answered_as_such() {
    let mut slow = case();
    slow["id"] = json!("case-5");
    slow["interval_min"] = json!(5);
    slow["series"] = json!([{"metric": "response_time", "host": "svc", "start": -10, "values": [1, 2.5, 3]}]);
    let h = replaying(&[case(), slow], START + 10 * MINUTE).await;
    let ask = async |service: &str, to: i64| {
        let entity = format!("type(SERVICE),entityId({})", service_id(service));
        let more = [("resolution", "1m"), ("entitySelector", entity.as_str())];
        h.query("calc:service.response_time:avg", (START - 10 * MINUTE, START + to), &more).await
    };
    let answer = ask("case-5", 5 * MINUTE).await;
    assert_eq!(answer["resolution"], "5m");
    let data = &answer["result"][0]["data"][0];
    assert_eq!(data["values"], json!([1, 2.5, 3]));
    assert_eq!(data["timestamps"], json!([START - 5 * MINUTE, START, START + 5 * MINUTE]));
    assert_eq!(ask("case-1", 0).await["resolution"], "1m", "the other case is not slowed");
    h.end().await;
}

#[tokio::test]
async fn files_gzipped_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, zipped) = (folder.path().join("c.jsonl"), folder.path().join("c.jsonl.gz"));
    let text = format!("{}\n\n{}\n", case(), json!({"id": "two", "metrics": {}, "series": []}));
    std::fs::write(&plain, &text).unwrap();
    let mut encoder = GzEncoder::new(std::fs::File::create(&zipped).unwrap(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap();
    assert_eq!(read_cases(&plain).unwrap(), read_cases(&zipped).unwrap());
    std::fs::write(&plain, format!("{}\n{{\"id\": 5}}\n", case())).unwrap();
    let error = read_cases(&plain).unwrap_err().to_string();
    assert!(error.contains("line 2: is no case"), "{error}");
    assert!(read_cases(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
}

#[test]
fn impossible_cases_are_refused_with_their_id() {
    let change = |edit: &dyn Fn(&mut Value)| {
        let mut value = case();
        edit(&mut value);
        value
    };
    for (values, t0, part) in [
        (vec![case(), case()], START, "case `case-1`: is there twice"),
        (vec![case()], START + 1, "is no multiple of its 1 minutes"),
        (vec![change(&|v| v["interval_min"] = json!(0))], START, "interval_min 0 is not positive"),
        (
            vec![change(&|v| v["interval_min"] = json!(7))],
            START - START % (7 * MINUTE),
            "start -1440 is no multiple of 7",
        ),
        (vec![change(&|v| v["metrics"] = json!({}))], START, "which its metrics lack"),
        (
            vec![
                case(),
                change(&|v| {
                    v["id"] = json!("x");
                    v["metrics"]["response_time"]["unit"] = json!("s");
                }),
            ],
            START,
            "`response_time` is in Second here and in MilliSecond",
        ),
    ] {
        let built = Simulator::builder()
            .replay_cases(cases(&values), t0)
            .clock(std::sync::Arc::new(|| START))
            .token("dt0c01.A.B", &[])
            .build();
        let error = built.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn recorded_cases_beside_the_checkout_come_back_bit_for_bit() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/bench/dev.jsonl.gz");
    if !path.exists() {
        println!("left out: there is no {}", path.display());
        return;
    }
    let cases: Vec<Case> = read_cases(&path).unwrap().into_iter().step_by(60).collect();
    let t0 = START - START % (5 * MINUTE);
    let h = Harness::new(Simulator::builder().replay_cases(cases.clone(), t0), t0 + DAY).await;
    let mut samples = 0;
    for case in &cases {
        for series in &case.series {
            let from = t0 + series.start * MINUTE;
            let to = from + case.interval_min * MINUTE * i64::try_from(series.values.len()).unwrap();
            let selector = format!(
                "calc:service.{}:filter(eq(\"dt.entity.process_group_instance\",{})):avg",
                series.metric,
                instance_id(&case.id, &series.host)
            );
            let answer = h.query(&selector, (from, to), &[("resolution", "1m")]).await;
            let Some(data) = answer["result"][0]["data"].get(0) else {
                assert!(series.values.iter().all(Option::is_none), "{} {selector}", case.id);
                continue;
            };
            let got: Vec<Option<u64>> =
                data["values"].as_array().unwrap().iter().map(|v| v.as_f64().map(f64::to_bits)).collect();
            let recorded: Vec<Option<u64>> = series.values.iter().map(|v| v.map(f64::to_bits)).collect();
            assert_eq!(got, recorded, "{} {selector}", case.id);
            samples += got.len();
        }
    }
    println!("{samples} samples of {} cases", cases.len());
    h.end().await;
}
