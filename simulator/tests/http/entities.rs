//! Entities: selectors, fields, pages.

use crate::harness::{DAY, Harness, START, message};
use serde_json::{Value, json};
use vouch_simulator::{Scenario, Simulator, instance_id, service_id};

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

#[tokio::test]
async fn who_calls_whom() {
    let h = Harness::scenario("shared-database", START).await;
    let find = async |selector: &str| {
        let fields = "+fromRelationships.calls,+toRelationships.calls,+properties";
        let query = [("entitySelector", selector), ("fields", fields), ("sort", "+name")];
        h.get(PATH, &query, 200).await
    };
    let all = find("type(\"SERVICE\")").await;
    assert_eq!(
        names(&all),
        [
            "cart",
            "catalog",
            "checkout",
            "orders",
            "orders-db",
            "payment-gateway",
            "profile",
            "search",
            "storefront"
        ]
    );
    let related = |entity: usize, direction: &str| {
        let mut ids = Vec::new();
        for target in all["entities"][entity][direction]["calls"].as_array().into_iter().flatten() {
            assert_eq!(target["type"], "SERVICE");
            ids.push(target["id"].as_str().unwrap().to_owned());
        }
        ids
    };
    let ids = |names: &[&str]| names.iter().map(|name| service_id(name)).collect::<Vec<_>>();
    assert_eq!(related(2, "fromRelationships"), ids(&["orders-db", "payment-gateway"]));
    assert_eq!(related(2, "toRelationships"), ids(&["storefront"]));
    assert_eq!(related(4, "toRelationships"), ids(&["checkout", "cart", "orders"]));
    assert_eq!(all["entities"][4]["fromRelationships"], json!({}), "absent where there are none");
    assert_eq!(all["entities"][4]["properties"]["serviceType"], "DATABASE_SERVICE");
    assert!(all["entities"][5]["properties"].get("serviceType").is_none());
    for (selector, expected) in [
        (
            "type(SERVICE),fromRelationships.calls(type(SERVICE),entityName.equals(orders-db))",
            vec!["cart", "checkout", "orders"],
        ),
        (
            "type(SERVICE),toRelationships.calls(type(SERVICE),entityName.equals(checkout))",
            vec!["orders-db", "payment-gateway"],
        ),
        ("type(SERVICE),toRelationships.calls(type(SERVICE),entityName.equals(catalog))", vec![]),
    ] {
        assert_eq!(names(&find(selector).await), expected, "{selector}");
    }
    let id = service_id("checkout");
    let whole = h.get(&format!("{PATH}/{id}"), &[("fields", "+fromRelationships")], 200).await;
    assert_eq!(whole["fromRelationships"]["calls"].as_array().unwrap().len(), 2);
    let bare = h.get(&format!("{PATH}/{id}"), &[("fields", "+tags")], 200).await;
    assert!(bare.get("fromRelationships").is_none() && bare.get("toRelationships").is_none());
    h.end().await;
}

#[tokio::test]
async fn a_dependency_that_is_also_a_service_is_one_entity() {
    let text = "{name: x, dependencies: [{name: db, database: true}], services: [
        {name: a, hosts: [h], calls: [db, b]}, {name: b, hosts: [h], calls: [a]}, {name: db, hosts: [h]}]}";
    let builder = Simulator::builder().scenario(Scenario::parse(text).unwrap()).start_ms(START);
    let h = Harness::new(builder, START).await;
    let query =
        [("entitySelector", "type(SERVICE)"), ("fields", "+properties.serviceType"), ("sort", "name")];
    let answer = h.get(PATH, &query, 200).await;
    assert_eq!(names(&answer), ["a", "b", "db"]);
    assert_eq!(answer["entities"][2]["properties"]["serviceType"], "DATABASE_SERVICE");
    h.end().await;
}
