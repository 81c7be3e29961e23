//! Events that may be deployments: which are asked for, and which services they are about.

use crate::server::{Tenant, answer, noon};
use serde_json::{Value, json};
use vouch_collector::source::{EventKind, FailureKind, MetricSource as _};
use vouch_proto::Window;

fn event(id: &str, entity: &str, properties: &[(&str, &str)]) -> Value {
    let properties: Vec<Value> =
        properties.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    json!({
        "eventId": id, "startTime": noon().as_millis(), "endTime": -1, "eventType": "CUSTOM_DEPLOYMENT",
        "title": "Deploy", "entityId": {"entityId": {"id": entity, "type": "x"}, "name": "n"},
        "properties": properties, "status": "OPEN", "somethingNew": {"a": 1},
    })
}

fn window() -> Window {
    Window::around(noon(), -10, 1).unwrap()
}

#[tokio::test]
async fn events_are_about_services_by_whatever_runs_them() {
    let first = json!({"totalCount": 4, "nextPageKey": "more", "events": [
        event("1", "SERVICE-1", &[("dt.event.deployment.version", "1.2"), ("dt.event.deployment.release_stage", "prod")]),
        event("2", "PROCESS_GROUP_INSTANCE-1", &[("deploymentVersion", "7")]),
        {"eventId": "x", "startTime": 1, "eventType": "CUSTOM_INFO"},
    ]});
    let second = json!({"totalCount": 4, "events": [
        event("3", "PROCESS_GROUP-1", &[("vouch.deployment.id", "01J"), ("dt.event.deployment.version", "1")]),
        event("4", "HOST-1", &[("dt.event.deployment.version", "")]),
    ]});
    let processes = json!({"entities": [{"entityId": "PROCESS_GROUP_INSTANCE-1", "displayName": "p",
        "toRelationships": {"runsOnProcessGroupInstance": [{"id": "SERVICE-2", "type": "SERVICE"}]}}]});
    let of_group = json!({"entities": [{"entityId": "SERVICE-3", "displayName": "s"}]});
    let tenant = Tenant::new(vec![
        answer("events", 200, first.to_string()),
        answer("events", 200, second.to_string()),
        answer("entities", 200, processes.to_string()),
        answer("entities", 200, of_group.to_string()),
    ])
    .await;
    let events = tenant.source.events(0, window(), &[EventKind::Deployment]).await.unwrap();
    let said: Vec<String> = events
        .iter()
        .map(|e| format!("{} {:?} {:?} {:?} {}", e.id, e.services, e.version, e.stage, e.is_own))
        .collect();
    assert_eq!(
        said,
        [
            r#"1 ["SERVICE-1"] Some("1.2") Some("prod") false"#,
            r#"2 ["SERVICE-2"] Some("7") None false"#,
            r#"3 ["SERVICE-3"] Some("1") None true"#,
            "4 [] None None false",
        ]
    );
    assert_eq!(events[0].at, noon());
    let asked = tenant.asked();
    assert!(asked[0].contains("eventSelector=eventType%28%22CUSTOM_DEPLOYMENT%22%29"), "{}", asked[0]);
    assert!(asked[1].contains("events?nextPageKey=more ["), "later pages send the key alone: {}", asked[1]);
    assert!(asked[3].contains("fromRelationships.runsOn"), "{}", asked[3]);
}

#[tokio::test]
async fn each_kind_is_asked_for_and_a_missing_scope_is_named() {
    let empty = || answer("events", 200, r#"{"totalCount":0,"events":[]}"#);
    let tenant = Tenant::new(vec![empty(), empty()]).await;
    let kinds = [EventKind::Deployment, EventKind::Restart];
    assert_eq!(tenant.source.events(0, window(), &kinds).await.unwrap(), []);
    assert!(tenant.asked()[1].contains("PROCESS_RESTART"));
    let refused = r#"{"error":{"code":403,"message":"Token is missing required scope. Use one of: events.read (Read events)"}}"#;
    let tenant = Tenant::new(vec![answer("events", 403, refused)]).await;
    let failure = tenant.source.events(0, window(), &kinds).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::MissingScope);
    assert!(failure.message.contains("events.read"), "{failure}");
    tenant.asked();
}

#[tokio::test]
async fn a_deployment_is_written_as_an_event_of_its_service() {
    let taken = r#"{"reportCount":1,"eventIngestResults":[{"correlationId":"c","status":"OK"}]}"#;
    let tenant = Tenant::new(vec![crate::server::entity(), answer("events/ingest", 201, taken)]).await;
    let name = |text: &str| vouch_proto::Name::new(text).unwrap();
    let mut deployment = vouch_proto::Deployment::new(name("prod"), name("checkout"), name("1.2"));
    deployment.deployment_id = Some("01J".into());
    deployment.previous_version = Some("1.1".into());
    tenant.source.write_event(&deployment, noon()).await.unwrap();
    let body: Value = serde_json::from_str(&tenant.bodies()[1]).unwrap();
    assert_eq!(
        body,
        json!({
            "eventType": "CUSTOM_DEPLOYMENT", "title": "Deployment of checkout 1.2", "startTime": noon().as_millis(),
            "entitySelector": "entityId(\"SERVICE-1\")",
            "properties": {
                "dt.event.deployment.name": "checkout 1.2", "dt.event.deployment.version": "1.2",
                "dt.event.deployment.release_product": "checkout", "dt.event.deployment.release_stage": "prod",
                "dt.event.source": "Vouch", "vouch.previous_version": "1.1", "vouch.deployment.id": "01J",
            },
        })
    );
    tenant.asked();
    let refused =
        r#"{"reportCount":1,"eventIngestResults":[{"correlationId":"c","status":"INVALID_TIMESTAMPS"}]}"#;
    let tenant = Tenant::new(vec![crate::server::entity(), answer("events/ingest", 201, refused)]).await;
    let failure = tenant.source.write_event(&deployment, noon()).await.unwrap_err();
    assert!(failure.message.contains("INVALID_TIMESTAMPS"), "{failure}");
    tenant.asked();
}
