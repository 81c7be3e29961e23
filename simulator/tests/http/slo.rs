//! Service-level objectives.

use crate::harness::{HOUR, Harness, MINUTE, START, message};
use serde_json::{Value, json};
use vouch_simulator::{Scenario, Simulator};

const PATH: &str = "/api/v2/slo";

#[tokio::test]
async fn the_share_of_good_requests() {
    let h = Harness::scenario("bad-deployment", START + HOUR).await;
    let list = h.get(PATH, &[("pageSize", "4")], 200).await;
    assert_eq!((&list["totalCount"], &list["pageSize"]), (&json!(9), &json!(4)));
    let first = &list["slo"][0];
    assert_eq!(
        (&first["evaluatedPercentage"], &first["errorBudget"], &first["error"], &first["timeframe"]),
        (&json!(-1.0), &json!(-1.0), &json!("NONE"), &json!("-1d")),
        "nothing is evaluated unless that is wanted"
    );
    let key = list["nextPageKey"].as_str().unwrap();
    assert!(!key.contains(['+', '/', '=']));
    assert_eq!(h.get(PATH, &[("nextPageKey", key)], 200).await["slo"].as_array().unwrap().len(), 4);
    let payment =
        h.get(PATH, &[("sloSelector", "name(\"payment availability\")"), ("evaluate", "true")], 200).await;
    assert_eq!(payment["totalCount"], 1);
    let id = payment["slo"][0]["id"].as_str().unwrap();
    let one = format!("{PATH}/{id}");
    let during = async |from: i64, to: i64| {
        let (from, to) = (from.to_string(), to.to_string());
        h.get(&one, &[("from", from.as_str()), ("to", &to), ("timeFrame", "GTF")], 200).await
    };
    let before = during(START - HOUR, START).await;
    let after = during(START + 10 * MINUTE, START + 40 * MINUTE).await;
    let percentage = |slo: &Value| slo["evaluatedPercentage"].as_f64().unwrap();
    assert!((99.5..100.0).contains(&percentage(&before)) && before["status"] == "SUCCESS", "{before}");
    assert!((95.0..97.0).contains(&percentage(&after)) && after["status"] == "FAILURE", "{after}");
    let budget = 100.0 * (percentage(&after) - 99.0);
    assert!((after["errorBudget"].as_f64().unwrap() - budget).abs() < 1e-9, "{after}");
    assert_eq!(after["timeframe"], format!("{} to {}", START + 10 * MINUTE, START + 40 * MINUTE));
    let selector = "builtin:service.errors.total.count:filter(in(\"dt.entity.service\",\
                    entitySelector(\"type(SERVICE),entityName.equals(payment)\"))):splitBy():fold";
    let fold = async |selector: &str| {
        let answer = h.query(selector, (START + 10 * MINUTE, START + 40 * MINUTE), &[]).await;
        answer["result"][0]["data"][0]["values"][0].as_f64().unwrap()
    };
    let (errors, requests) =
        (fold(selector).await, fold(&selector.replace("errors.total.count", "requestCount.total")).await);
    assert!(
        (percentage(&after) - 100.0 * (1.0 - errors / requests)).abs() < 1e-9,
        "as the Metrics API has it"
    );
    h.end().await;
}

#[tokio::test]
async fn without_data_the_evaluation_fails_with_200() {
    let text = "{name: quiet, services: [{name: a, hosts: [h], load: {per_minute: 0}}]}";
    let builder = Simulator::builder().scenario(Scenario::parse(text).unwrap()).start_ms(START);
    let h = Harness::new(builder, START + HOUR).await;
    let slo = h.get(PATH, &[("evaluate", "true")], 200).await["slo"][0].clone();
    assert_eq!((&slo["evaluatedPercentage"], &slo["status"]), (&json!(-1.0), &json!("FAILURE")));
    assert!(slo["error"].as_str().unwrap().contains("provides no data"));
    h.end().await;
}

#[tokio::test]
async fn refusals() {
    let h = Harness::scenario("demo", START).await;
    let missing = "7d07efde-b714-3e6e-ad95-08490e2540c5";
    let answer = h.get(&format!("{PATH}/{missing}"), &[], 404).await;
    assert_eq!(message(&answer), format!("SLO with ID '{missing}' not found."));
    for query in [
        [("evaluate", "true"), ("timeFrame", "GTF"), ("from", "now-2y")],
        [("evaluate", "true"), ("timeFrame", "GTF"), ("from", "now+1h")],
    ] {
        h.get(PATH, &query, 400).await;
    }
    for query in [
        [("evaluate", "true"), ("pageSize", "26")],
        [("evaluate", "true"), ("timeFrame", "LAST")],
        [("sloSelector", "colour(red)"), ("pageSize", "5")],
    ] {
        h.get(PATH, &query, 400).await;
    }
    h.end().await;
}
