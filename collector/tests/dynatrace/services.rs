//! Services by rules: what is asked for them, and which entity a deployment's service is.

use crate::server::{Answer, QUERY, Tenant, answer, ask, data, descriptor};
use serde_json::json;
use vouch_collector::rules::{Condition, Expression, Rule, Subject};
use vouch_collector::source::{FailureKind, MetricSource as _};

fn rules() -> Vec<Rule> {
    let read = |text: &str| -> Vec<Expression> { vec![text.parse().unwrap()] };
    let namespace = Condition {
        subject: Subject::Value("namespace".parse().unwrap()),
        patterns: vec!["shop-*".parse().unwrap()],
    };
    vec![Rule {
        conditions: vec![namespace],
        service: read("label:app"),
        environment: read("prod"),
        version: read("property:releasesVersion"),
        owner: read("tag:owner"),
        instances: None,
    }]
}

fn entities(list: &serde_json::Value) -> Answer {
    answer("entities", 200, json!({"totalCount": 1, "entities": list}).to_string())
}

fn services() -> Answer {
    let label = |app: &str| json!([{"context": "KUBERNETES", "key": "app", "value": app}, {"context": "CONTEXTLESS", "key": "owner", "value": "blue"}, {"context": "CONTEXTLESS", "key": "canary"}]);
    entities(&json!([
        {"entityId": "SERVICE-1", "displayName": "CheckoutController", "tags": label("checkout"), "managementZones": [{"id": "1", "name": "shop"}]},
        {"entityId": "SERVICE-2", "displayName": "PayServlet", "tags": label("payment")},
        {"entityId": "SERVICE-3", "displayName": "PayServlet2", "tags": label("payment")},
        {"entityId": "SERVICE-4", "displayName": "Legacy"},
    ]))
}

fn processes() -> Answer {
    let process = |id: u8, services: &[&str], version: &str| {
        let on: Vec<_> = services.iter().map(|id| json!({"id": id, "type": "SERVICE"})).collect();
        json!({"entityId": format!("PROCESS_GROUP_INSTANCE-{id}"), "displayName": "java",
            "properties": {"metadata": [{"key": "KUBERNETES_NAMESPACE", "value": "shop-eu"}], "releasesVersion": version},
            "toRelationships": {"runsOnProcessGroupInstance": on}})
    };
    entities(&json!([
        process(1, &["SERVICE-1", "SERVICE-2"], "1.3"),
        process(2, &["SERVICE-1", "SERVICE-3", "SERVICE-9"], "1.2")
    ]))
}

#[tokio::test]
async fn a_deployments_service_is_the_entity_that_the_rules_name_so() {
    let script = vec![services(), processes(), descriptor(), data()];
    let tenant = Tenant::with(script, |settings| settings.rules = rules()).await;
    let reading = tenant.source.read(&ask(QUERY)).await.unwrap();
    assert_eq!(reading.chunks[0].series.len(), 1);
    let asked = tenant.asked();
    assert!(asked[0].contains("fields=%2Btags%2C%2BmanagementZones"), "{}", asked[0]);
    assert!(asked[1].contains("toRelationships.runsOnProcessGroupInstance"), "{}", asked[1]);
    assert!(asked[3].contains("entityId%28%22SERVICE-1%22%29"), "{}", asked[3]);
}

#[tokio::test]
async fn what_processes_say_is_known_of_their_services() {
    let tenant = Tenant::new(vec![services(), processes()]).await;
    let found = tenant.source.described_services().await.unwrap();
    let matching = vouch_collector::rules::Matching::of(&rules(), &found);
    let named = &matching.named[0];
    assert_eq!(
        (named.service.as_str(), named.version.as_deref()),
        ("checkout", None),
        "its processes disagree"
    );
    assert_eq!((named.owner.as_deref(), matching.ambiguous[0].len()), (Some("blue"), 2));
    assert_eq!(matching.unmatched[0].2, "services[0]: it has no namespace");
    assert_eq!(found[0].facts.management_zones, ["shop"]);
    tenant.asked();
}

#[tokio::test]
async fn a_name_that_two_services_share_is_ambiguous() {
    let tenant = Tenant::with(vec![services(), processes()], |settings| settings.rules = rules()).await;
    let payment =
        vouch_collector::source::Ask { service: vouch_proto::Name::new("payment").unwrap(), ..ask(QUERY) };
    let failure = tenant.source.read(&payment).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::AmbiguousService);
    assert!(
        failure.message.contains("SERVICE-2, SERVICE-3") && failure.message.contains("vouch services"),
        "{failure}"
    );
}

#[tokio::test]
async fn what_a_service_can_be_split_by_is_read_off_the_descriptors() {
    let descriptor = |key: &str, dimensions: &[&str]| {
        let all: Vec<_> = dimensions.iter().map(|key| json!({"key": key, "type": "ENTITY"})).collect();
        answer(
            &format!("metrics/{key}"),
            200,
            json!({"metricId": key, "unit": "Count", "dimensionDefinitions": all}).to_string(),
        )
    };
    let process = json!({"entities": [{"entityId": "PROCESS_GROUP_INSTANCE-1", "displayName": "checkout-7d9f", "properties": {"releasesVersion": "1.2"}}]});
    let calculated = json!({"metrics": [
        {"metricId": "calc:service.rt", "dimensionDefinitions": [{"key": "dt.entity.service"}, {"key": "dt.entity.process_group_instance"}]},
        {"metricId": "calc:service.by_tenant", "dimensionDefinitions": [{"key": "dt.entity.service"}, {"key": "Tenant"}]},
    ]});
    let service = "dt.entity.service";
    let tenant = Tenant::new(vec![
        crate::server::entity(),
        answer("entities", 200, process.to_string()),
        descriptor("builtin:service.response.time", &[service]),
        answer("metrics/builtin:service.errors.total.count", 404, "{}"),
        descriptor("builtin:service.requestCount.total", &[service]),
        descriptor("builtin:tech.generic.cpu.usage", &["dt.entity.process_group_instance"]),
        answer("metrics", 200, calculated.to_string()),
    ])
    .await;
    let name = |text: &str| vouch_proto::Name::new(text).unwrap();
    let mut template = vouch_proto::template::golden_signals();
    template.metrics.iter_mut().for_each(|metric| metric.host_query = None);
    let splits = tenant.source.splits(&name("prod"), &name("checkout"), &template).await.unwrap();
    assert_eq!(splits.processes[0].version.as_deref(), Some("1.2"));
    let of = |name: &str| splits.metrics.iter().find(|metric| metric.name == name).unwrap();
    assert_eq!(
        (of("response_time").dimensions.as_deref(), of("response_time").tells_apart.len()),
        (Ok(&["dt.entity.service".to_owned()][..]), 0)
    );
    assert!(of("error_count").dimensions.as_ref().unwrap_err().contains("has no metric"));
    assert_eq!(of("cpu").tells_apart, ["dt.entity.process_group_instance"]);
    assert_eq!(
        splits.calculated.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["calc:service.rt"]
    );
    tenant.asked();
}

#[tokio::test]
async fn a_display_name_does_not_stand_in_for_a_service_that_rules_name_otherwise() {
    let by_name = entities(&json!([{"entityId": "SERVICE-1", "displayName": "CheckoutController"}]));
    let tenant =
        Tenant::with(vec![services(), processes(), by_name], |settings| settings.rules = rules()).await;
    let name = vouch_proto::Name::new("CheckoutController").unwrap();
    let other = vouch_collector::source::Ask { service: name, ..ask(QUERY) };
    let failure = tenant.source.read(&other).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::UnknownService);
    assert!(failure.message.contains("named otherwise"), "{failure}");
    tenant.asked();
}
