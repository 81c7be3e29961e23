//! Services that are several entities: which are asked for, under which names they are published, and on which side.

use crate::server::{Answer, Tenant, answer, ask, descriptor, noon};
use serde_json::{Value, json};
use vouch_collector::config::TenantSettings;
use vouch_collector::rules::{Condition, Expression, Instances, Rule, Subject};
use vouch_collector::source::{Ask, FailureKind, MetricAsk, MetricSource as _, Reading};
use vouch_proto::{HostGroup, Name};

const RESPONSE_TIME: &str = "builtin:service.response.time:splitBy():avg";
const ERRORS: &str = "builtin:service.errors.total.count:splitBy():value:default(0,always)";
const CPU: &str = "builtin:tech.generic.cpu.usage:splitBy(\"dt.entity.process_group_instance\"):avg";

fn rule(instances: Instances) -> Rule {
    Rule {
        service: vec!["label:app".parse().unwrap()],
        version: vec!["property:releasesVersion".parse().unwrap()],
        instances: Some(instances),
        ..Rule::by_display_name()
    }
}

fn with_rule(instances: Instances) -> impl FnOnce(&mut TenantSettings) {
    move |settings| settings.rules = vec![rule(instances)]
}

fn service(id: &str, name: &str) -> Value {
    let label = json!([{"context": "KUBERNETES", "key": "app", "value": "checkout"}]);
    json!({"entityId": id, "displayName": name, "tags": label})
}

fn process(id: u8, service: &str, version: &str, pod: &str) -> Value {
    json!({"entityId": format!("PROCESS_GROUP_INSTANCE-{id}"), "displayName": pod,
        "properties": {"releasesVersion": version, "metadata": [{"key": "KUBERNETES_FULL_POD_NAME", "value": pod}]},
        "toRelationships": {"runsOnProcessGroupInstance": [{"id": service, "type": "SERVICE"}]}})
}

fn list(all: &[Value]) -> Answer {
    answer("entities", 200, json!({"totalCount": all.len(), "entities": all}).to_string())
}

fn old() -> (Value, Value) {
    (service("SERVICE-1", "checkout-v1"), process(1, "SERVICE-1", "1.0", "pod-a"))
}

fn new() -> (Value, Value) {
    (service("SERVICE-2", "checkout-v2"), process(2, "SERVICE-2", "2.0", "pod-b"))
}

/// The lists of both, and what is looked up about them as they are now.
fn looked_up() -> Vec<Answer> {
    let ((a, on_a), (b, on_b)) = (old(), new());
    vec![
        list(&[a.clone(), b.clone()]),
        list(&[on_a.clone(), on_b.clone()]),
        list(&[]),
        list(&[a, b]),
        list(&[on_a, on_b]),
    ]
}

fn series(dimensions: &Value, values: Value) -> Value {
    let stamps: Vec<i64> = (-4..=-2).map(|minute| noon().plus_minutes(minute).as_millis()).collect();
    let all: Vec<Value> = dimensions.as_object().unwrap().values().cloned().collect();
    json!({"dimensions": all, "dimensionMap": dimensions, "timestamps": stamps, "values": values})
}

fn of_service(id: &str, values: Value) -> Value {
    series(&json!({"dt.entity.service": id}), values)
}

fn data(results: &[Value]) -> Answer {
    let results: Vec<Value> = results.iter().map(|data| json!({"metricId": "m", "data": data})).collect();
    answer("metrics/query", 200, json!({"resolution": "1m", "result": results}).to_string())
}

fn metric(name: &str, query: &str, unit: &str) -> MetricAsk {
    MetricAsk { name: name.into(), query: query.into(), unit: unit.into(), by_host: false, each: None }
}

/// Metric, host, version, side and samples of each series, in order.
fn told(reading: &Reading) -> Vec<String> {
    let side = |group: Option<HostGroup>| group.map_or("-".to_owned(), |group| format!("{group:?}"));
    let mut all: Vec<String> = reading
        .chunks
        .iter()
        .flat_map(|chunk| &chunk.series)
        .map(|one| {
            let host = one.host.as_deref().unwrap_or("whole");
            let version = one.version.as_deref().unwrap_or("-");
            format!("{} {host} {version} {} {:?}", one.metric, side(one.group), one.samples)
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn each_entity_is_a_host_with_its_version_and_both_are_asked_for_in_one_call() {
    let all = json!([
        of_service("SERVICE-1", json!([1000, 2000, 3000])),
        of_service("SERVICE-2", json!([9000, null, 9000]))
    ]);
    let script = [looked_up(), vec![descriptor(), data(&[all])]].concat();
    let tenant = Tenant::with(script, with_rule(Instances::default())).await;
    let reading = tenant.source.read(&ask(RESPONSE_TIME)).await.unwrap();
    assert_eq!(
        told(&reading),
        [
            "response_time checkout-v1 1.0 - [Some(1.0), Some(2.0), Some(3.0)]",
            "response_time checkout-v2 2.0 - [Some(9.0), None, Some(9.0)]"
        ]
    );
    let asked = tenant.asked();
    assert!(asked[2].contains("firstSeenTms.gte%28now-30m%29"), "{}", asked[2]);
    assert!(asked[3].contains("entityId%28%22SERVICE-1%22%2C%22SERVICE-2%22%29"), "{}", asked[3]);
    assert!(asked[4].contains("from=now-10m"), "what runs now: {}", asked[4]);
    let query = asked.last().unwrap();
    assert!(query.contains("entityId%28%22SERVICE-1%22%2C%22SERVICE-2%22%29"), "{query}");
    assert!(query.contains("splitBy%28%22dt.entity.service%22%29"), "{query}");
}

#[tokio::test]
async fn patterns_put_entities_on_sides_and_their_processes_with_them() {
    let on = |id: u8, values| {
        series(&json!({"dt.entity.process_group_instance": format!("PROCESS_GROUP_INSTANCE-{id}")}), values)
    };
    let runs = list(&[old().1, new().1]);
    let script = [
        looked_up(),
        vec![
            answer("metrics/builtin:tech.generic.cpu.usage", 200, r#"{"unit":"Percent"}"#),
            data(&[json!([on(1, json!([1, 1, 1])), on(2, json!([2, 2, 2]))])]),
            runs,
        ],
    ]
    .concat();
    let Ok(pattern) = "*-v2".parse();
    let name = Subject::Value(Expression::Field("name"));
    let test = vec![Condition { subject: name, patterns: vec![pattern] }];
    let tenant = Tenant::with(script, with_rule(Instances { test, ..Instances::default() })).await;
    let cpu = MetricAsk { by_host: true, ..metric("cpu", CPU, "percent") };
    let reading = tenant.source.read(&Ask { metrics: vec![cpu], ..ask(CPU) }).await.unwrap();
    assert_eq!(
        told(&reading),
        [
            "cpu pod-a 1.0 Control [Some(1.0), Some(1.0), Some(1.0)]",
            "cpu pod-b 2.0 Test [Some(2.0), Some(2.0), Some(2.0)]"
        ]
    );
    tenant.asked();
}

#[tokio::test]
async fn one_that_reports_nothing_is_no_host_though_its_errors_are_zero_by_default() {
    let script = [
        looked_up(),
        vec![
            descriptor(),
            answer("metrics/builtin:service.errors.total.count", 200, r#"{"unit":"Count"}"#),
            data(&[json!([of_service("SERVICE-2", json!([1000, 1000, 1000]))]), json!([])]),
        ],
    ]
    .concat();
    let tenant = Tenant::with(script, with_rule(Instances::default())).await;
    let metrics = vec![metric("response_time", RESPONSE_TIME, "ms"), metric("errors", ERRORS, "count")];
    let reading = tenant.source.read(&Ask { metrics, ..ask(RESPONSE_TIME) }).await.unwrap();
    assert_eq!(
        told(&reading),
        [
            "errors checkout-v2 2.0 - [Some(0.0), Some(0.0), Some(0.0)]",
            "response_time checkout-v2 2.0 - [Some(1.0), Some(1.0), Some(1.0)]"
        ]
    );
    tenant.asked();
}

#[tokio::test]
async fn what_says_itself_what_it_is_about_is_asked_for_once_for_the_service_as_a_whole() {
    let script = [
        looked_up(),
        vec![
            answer("metrics/custom:depth", 200, r#"{"unit":"Count"}"#),
            data(&[json!([series(&json!({}), json!([1, 2, 3]))])]),
        ],
    ]
    .concat();
    let tenant = Tenant::with(script, with_rule(Instances::default())).await;
    let metrics = vec![metric("depth", "custom:depth:splitBy():avg", "count")];
    let reading = tenant.source.read(&Ask { metrics, ..ask("x") }).await.unwrap();
    assert_eq!(told(&reading), ["depth whole - - [Some(1.0), Some(2.0), Some(3.0)]"]);
    tenant.asked();
}

#[tokio::test]
async fn a_new_entity_is_found_a_minute_later_and_names_stand() {
    let ((a, on_a), (b, on_b)) = (old(), new());
    let one = |id: &str, values| json!([of_service(id, values)]);
    let script = vec![
        list(std::slice::from_ref(&a)),
        list(std::slice::from_ref(&on_a)),
        list(&[]),
        list(std::slice::from_ref(&a)),
        list(std::slice::from_ref(&on_a)),
        descriptor(),
        data(&[one("SERVICE-1", json!([1000, 1000, 1000]))]),
        // A minute later: the other one is new.
        list(std::slice::from_ref(&b)),
        list(std::slice::from_ref(&a)),
        list(&[on_a, on_b]),
        data(&[json!([
            of_service("SERVICE-1", json!([1000, 1000, 1000])),
            of_service("SERVICE-2", json!([2000, 2000, 2000]))
        ])]),
    ];
    let tenant = Tenant::with(script, with_rule(Instances::default())).await;
    let reading = tenant.source.read(&ask(RESPONSE_TIME)).await.unwrap();
    assert_eq!(told(&reading).len(), 1);
    // The test's clock runs 300 times as fast.
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    let reading = tenant.source.read(&ask(RESPONSE_TIME)).await.unwrap();
    let hosts: Vec<_> = reading.chunks[0].series.iter().filter_map(|one| one.host.clone()).collect();
    assert_eq!(hosts, ["checkout-v1", "checkout-v2"]);
    tenant.asked();
}

#[tokio::test]
async fn too_many_entities_are_refused_with_what_to_narrow() {
    let all: Vec<Value> =
        (0..41).map(|i| service(&format!("SERVICE-{i}"), &format!("checkout-{i}"))).collect();
    let script = vec![list(&all), list(&[]), list(&[]), list(&all), list(&[])];
    let tenant = Tenant::with(script, with_rule(Instances::default())).await;
    let failure = tenant.source.read(&ask(RESPONSE_TIME)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::AmbiguousService);
    assert!(failure.message.contains("41 entities are instances of `checkout`, at most 40"), "{failure}");
}

#[tokio::test]
async fn problems_of_any_of_them_are_the_services() {
    let problem = |id: &str, root: &str| {
        let entity = |id: &str| json!({"entityId": {"id": id, "type": "SERVICE"}, "name": id});
        json!({"displayId": id, "title": "slow", "startTime": noon().plus_minutes(-9).as_millis(), "endTime": -1,
            "rootCauseEntity": entity(root), "affectedEntities": [entity("SERVICE-2")]})
    };
    let problems = json!({"problems": [problem("P-1", "SERVICE-1"), problem("P-2", "SERVICE-9")]});
    let script = [looked_up(), vec![answer("problems", 200, problems.to_string())]].concat();
    let tenant = Tenant::with(script, with_rule(Instances::default())).await;
    let found = tenant.source.problems(&ask(RESPONSE_TIME)).await.unwrap();
    let told: Vec<(&str, bool)> = found.iter().map(|one| (one.id.as_str(), one.elsewhere)).collect();
    assert_eq!(told, [("P-1", false), ("P-2", true)], "one instance is no other service");
    tenant.asked();
}

#[tokio::test]
async fn what_instances_there_are_is_explained() {
    let mut template = vouch_proto::template::golden_signals();
    template.metrics.truncate(1);
    template.metrics[0].host_query = None;
    let script = [
        looked_up(),
        vec![list(&[old().1]), list(&[new().1]), descriptor(), answer("metrics", 200, r#"{"metrics":[]}"#)],
    ]
    .concat();
    let tenant = Tenant::with(script, with_rule(Instances::default())).await;
    let name = |text: &str| Name::new(text).unwrap();
    let splits = tenant.source.splits(&name("prod"), &name("checkout"), &template).await.unwrap();
    let instances = splits.instances.unwrap();
    let told: Vec<_> = instances.iter().map(|one| (one.entity_id.as_str(), one.version.as_deref())).collect();
    assert_eq!(told, [("SERVICE-1", Some("1.0")), ("SERVICE-2", Some("2.0"))]);
    assert_eq!(splits.processes.len(), 2);
    tenant.asked();
}
