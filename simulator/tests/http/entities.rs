//! Entities: selectors, fields, pages.

use crate::harness::{DAY, Harness, START, message};
use serde_json::{Value, json};
use vouch_simulator::{instance_id, service_id};

const PATH: &str = "/api/v2/entities";

fn names(answer: &Value) -> Vec<&str> {
    answer["entities"].as_array().unwrap().iter().map(|e| e["displayName"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn instances_of_a_service() {
    let h = Harness::scenario("demo", START).await;
    let id = service_id("payment");
    let selector = format!(
        "type(PROCESS_GROUP_INSTANCE),toRelationships.runsOnProcessGroupInstance(type(SERVICE),entityId(\"{id}\"))"
    );
    let answer = h.get(PATH, &[("entitySelector", &selector), ("sort", "+name")], 200).await;
    assert_eq!(names(&answer), ["payment-5c4b-a", "payment-5c4b-b", "payment-5c4b-c"]);
    assert_eq!((&answer["totalCount"], &answer["pageSize"]), (&json!(3), &json!(50)));
    assert!(answer.get("nextPageKey").is_none(), "absent on the last page");
    let first = answer["entities"][0].as_object().unwrap();
    assert_eq!(first["entityId"], instance_id("payment", "payment-5c4b-a"));
    assert_eq!(first.len(), 3, "only id, type and name without `fields`");
    let fields = "+fromRelationships.runsOnProcessGroupInstance,+tags,+firstSeenTms";
    let selector = "type(SERVICE),tag(\"team:billing\")";
    let answer = h.get(PATH, &[("entitySelector", selector), ("fields", fields)], 200).await;
    let service = &answer["entities"][0];
    assert_eq!(service["entityId"], id);
    assert_eq!(service["fromRelationships"]["runsOnProcessGroupInstance"].as_array().unwrap().len(), 3);
    assert_eq!(service["tags"][0]["stringRepresentation"], "[KUBERNETES]app:payment");
    assert_eq!(service["firstSeenTms"], START - 3 * DAY);
    h.end().await;
}

#[tokio::test]
async fn pages_are_pinned_and_their_key_comes_alone() {
    let h = Harness::scenario("bad-deployment", START).await;
    let all = h.get(PATH, &[("entitySelector", "type(SERVICE)")], 200).await;
    let first = [("entitySelector", "type(SERVICE)"), ("pageSize", "4"), ("fields", "+lastSeenTms")];
    let mut page = h.get(PATH, &first, 200).await;
    let mut seen: Vec<String> = names(&page).into_iter().map(str::to_owned).collect();
    let mut pages = 1;
    while let Some(key) = page["nextPageKey"].as_str().map(str::to_owned) {
        h.set_now(START + i64::from(pages) * DAY);
        let odd = h.get(PATH, &[("nextPageKey", &key), ("entitySelector", "type(SERVICE)")], 400).await;
        assert_eq!(odd["error"]["constraintViolations"][0]["path"], "nextPageKey");
        page = h.get(PATH, &[("nextPageKey", &key)], 200).await;
        assert_eq!((&page["totalCount"], &page["pageSize"]), (&json!(9), &json!(4)));
        assert_eq!(page["entities"][0]["lastSeenTms"], START, "the window stays that of the first call");
        seen.extend(names(&page).into_iter().map(str::to_owned));
        pages += 1;
    }
    assert_eq!((pages, seen.iter().map(String::as_str).collect::<Vec<_>>()), (3, names(&all)));
    h.get(PATH, &[("nextPageKey", "+/==")], 400).await;
    h.end().await;
}

#[tokio::test]
async fn one_entity_and_refusals() {
    let h = Harness::scenario("demo", START).await;
    let id = service_id("checkout");
    let one = h.get(&format!("{PATH}/{id}"), &[], 200).await;
    assert_eq!((&one["displayName"], &one["type"]), (&json!("checkout"), &json!("SERVICE")));
    assert_eq!(one["fromRelationships"]["runsOn"][0]["type"], "PROCESS_GROUP");
    let narrow = h.get(&format!("{PATH}/{id}"), &[("fields", "+properties.detectedName")], 200).await;
    assert_eq!(narrow["properties"], json!({"detectedName": "checkout"}));
    assert!(narrow.get("tags").is_none());
    let unknown = h.get(&format!("{PATH}/SERVICE-0000000000000000"), &[], 404).await;
    assert!(message(&unknown).contains("not found"));
    for (query, path) in [
        (vec![], "nextPageKey"),
        (vec![("entitySelector", "tag(x)")], "entitySelector"),
        (vec![("entitySelector", "type(SERVICE)"), ("pageSize", "0")], "pageSize"),
        (vec![("entitySelector", "type(SERVICE)"), ("from", "x")], "from"),
        (vec![("entitySelector", "type(SERVICE)"), ("sort", "age")], "sort"),
    ] {
        let answer = h.get(PATH, &query, 400).await;
        assert_eq!(answer["error"]["constraintViolations"][0]["path"], path, "{query:?}");
    }
    h.end().await;
}
