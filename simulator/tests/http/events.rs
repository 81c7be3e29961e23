//! Events: sent in, and of the scenario.

use crate::harness::{HOUR, Harness, MINUTE, START};
use serde_json::json;
use vouch_simulator::service_id;

const PATH: &str = "/api/v2/events";
const INGEST: &str = "/api/v2/events/ingest";

#[tokio::test]
async fn deployments_of_the_scenario_are_events_once_they_happened() {
    let h = Harness::scenario("demo", START).await;
    let selector = [("eventSelector", "eventType(\"CUSTOM_DEPLOYMENT\")")];
    assert_eq!(h.get(PATH, &selector, 200).await["totalCount"], 0);
    h.set_now(START + HOUR);
    let answer = h.get(PATH, &selector, 200).await;
    assert_eq!((&answer["totalCount"], &answer["warnings"]), (&json!(2), &json!([])));
    assert!(answer.get("nextPageKey").is_none());
    let newest = &answer["events"][0];
    assert_eq!(newest["startTime"], START + 25 * MINUTE);
    assert_eq!(
        newest["entityId"],
        json!({"entityId": {"id": service_id("payment"), "type": "SERVICE"}, "name": "payment"})
    );
    assert!(
        newest["properties"]
            .as_array()
            .unwrap()
            .contains(&json!({"key": "dt.event.deployment.version", "value": "2.4.0"}))
    );
    h.end().await;
}

#[tokio::test]
async fn an_event_sent_in_is_found() {
    let h = Harness::scenario("demo", START).await;
    let body = json!({
        "eventType": "CUSTOM_INFO", "title": "Vouch: Pass", "timeout": 30,
        "entitySelector": "type(SERVICE)", "properties": {"verdict": "Pass"},
    });
    let answer = h.post(INGEST, body, 201).await;
    assert_eq!(answer["reportCount"], 2);
    assert!(answer["eventIngestResults"].as_array().unwrap().iter().all(|r| r["status"] == "OK"));
    let find = async |selector: &str| h.get(PATH, &[("eventSelector", selector)], 200).await;
    let open = find("property.verdict(\"Pass\"),status(\"OPEN\")").await;
    assert_eq!(
        (&open["totalCount"], &open["events"][0]["endTime"]),
        (&json!(2), &json!(-1)),
        "open ends are -1"
    );
    let id = service_id("checkout");
    assert_eq!(find(&format!("entityId(\"{id}\")")).await["totalCount"], 1);
    let one = format!("{PATH}/{}", open["events"][0]["eventId"].as_str().unwrap());
    assert_eq!(h.get(&one, &[], 200).await, open["events"][0]);
    h.get(&format!("{PATH}/1_2"), &[], 404).await;
    h.set_now(START + HOUR);
    assert_eq!(find("status(OPEN)").await["totalCount"], 0);
    assert_eq!(
        find("status(CLOSED),eventType(CUSTOM_INFO)").await["events"][0]["endTime"],
        START + 30 * MINUTE
    );
    let page = h.get(PATH, &[("pageSize", "1")], 200).await;
    let key = page["nextPageKey"].as_str().unwrap();
    assert_eq!(h.get(PATH, &[("nextPageKey", key)], 200).await["events"].as_array().unwrap().len(), 1);
    let nowhere = json!({
        "eventType": "CUSTOM_INFO", "title": "x", "entitySelector": "type(HOST),entityName(none)",
        "properties": null, "startTime": null,
    });
    assert_eq!(h.post(INGEST, nowhere, 201).await["reportCount"], 1, "goes to the environment");
    h.end().await;
}

#[tokio::test]
async fn refusals() {
    let h = Harness::scenario("demo", START).await;
    for (body, path) in [
        (json!({"title": "x"}), "body"),
        (json!({"eventType": "DEPLOYED", "title": "x"}), "eventType"),
        (json!({"eventType": "CUSTOM_INFO", "title": " "}), "title"),
        (json!({"eventType": "CUSTOM_INFO", "title": "x", "properties": {"n": 1}}), "properties"),
        (
            json!({"eventType": "CUSTOM_INFO", "title": "x", "properties": {"n": "y".repeat(4097)}}),
            "properties",
        ),
        (json!({"eventType": "CUSTOM_INFO", "title": "x", "entitySelector": "tag(x)"}), "entitySelector"),
    ] {
        let answer = h.post(INGEST, body, 400).await;
        assert_eq!(answer["error"]["constraintViolations"][0]["path"], path, "{answer}");
    }
    for (kind, start, status) in [
        ("CUSTOM_INFO", START - 29 * 24 * HOUR, "OK"),
        ("CUSTOM_INFO", START - 31 * 24 * HOUR, "INVALID_TIMESTAMPS"),
        ("ERROR_EVENT", START - 7 * HOUR, "INVALID_TIMESTAMPS"),
        ("ERROR_EVENT", START + 6 * MINUTE, "INVALID_TIMESTAMPS"),
    ] {
        let answer = h.post(INGEST, json!({"eventType": kind, "title": "x", "startTime": start}), 201).await;
        assert_eq!(answer["eventIngestResults"][0]["status"], status, "{kind} {start}");
    }
    h.get(PATH, &[("eventSelector", "colour(red)")], 400).await;
    h.end().await;
}
