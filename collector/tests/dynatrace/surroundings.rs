//! What goes on around a service: who is asked for, letter by letter, and what is made of the answers.

use crate::server::{QUERY, Tenant, answer, ask, descriptor, entity, noon};
use vouch_collector::config::ServiceMapping;
use vouch_collector::source::{FailureKind, MetricSource as _};
use vouch_proto::{Name, Relation};

const TOPOLOGY: &str = r#"{"entities":[
    {"entityId":"SERVICE-1","displayName":"checkout","fromRelationships":{"calls":[{"id":"SERVICE-DB","type":"SERVICE"}]}},
    {"entityId":"SERVICE-2","displayName":"cart","fromRelationships":{"calls":[{"id":"SERVICE-DB","type":"SERVICE"}]}},
    {"entityId":"SERVICE-3","displayName":"Search (prod)","fromRelationships":{"calls":[{"id":"SERVICE-9","type":"SERVICE"}]}},
    {"entityId":"SERVICE-4","displayName":"storefront","fromRelationships":{"calls":[{"id":"SERVICE-1","type":"SERVICE"}]}},
    {"entityId":"SERVICE-DB","displayName":"orders-db"}]}"#;
const OF_EACH: &str = r#"{"resolution":"1m","result":[{"data":[
    {"dimensions":["SERVICE-2"],"dimensionMap":{"dt.entity.service":"SERVICE-2"},"timestamps":[1795002960000,1795003020000,1795003080000],"values":[1000,null,3000]},
    {"dimensions":["SERVICE-3"],"dimensionMap":{"dt.entity.service":"SERVICE-3"},"timestamps":[1795002960000],"values":[7000]}]}]}"#;

#[tokio::test]
async fn services_that_have_nothing_to_do_with_it_are_read_in_one_call() {
    let answers = vec![
        entity(),
        answer("entities", 200, TOPOLOGY),
        descriptor(),
        answer("metrics/query", 200, OF_EACH),
        answer("metrics/query", 200, OF_EACH),
    ];
    let mapping = ServiceMapping {
        service: Name::new("search").unwrap(),
        environment: None,
        entity_id: None,
        entity_name: Some("Search (prod)".into()),
    };
    let tenant = Tenant::with(answers, |settings| settings.services = vec![mapping]).await;
    let found = tenant.source.bystanders(&ask(QUERY), 9).await.unwrap();
    let told: Vec<_> = found.iter().map(|one| (one.service.as_str(), one.shares.join(","))).collect();
    assert_eq!(told, [("cart", "orders-db".to_owned()), ("search", String::new())]);
    assert!(found.iter().all(|one| one.relation == Relation::Unrelated));
    assert_eq!(found[0].chunks[0].series[0].samples, [Some(1.0), None, Some(3.0)], "milliseconds");
    assert_eq!(found[1].chunks[0].series[0].samples, [Some(7.0), None, None]);
    tenant.source.bystanders(&ask(QUERY), 9).await.unwrap();
    let asked = tenant.asked();
    assert_eq!(
        asked[1],
        "GET /e/1/api/v2/entities?entitySelector=type%28%22SERVICE%22%29&pageSize=500&fields=%2BfromRelationships.calls [Api-Token dt0c01.OLD.SECRET]"
    );
    assert_eq!(
        asked[3],
        "GET /e/1/api/v2/metrics/query?metricSelector=builtin%3Aservice.response.time%3AsplitBy%28%22dt.entity.service%22%29%3Aavg&resolution=1m&from=1795002900000&to=1795003080000&entitySelector=type%28%22SERVICE%22%29%2CentityId%28%22SERVICE-2%22%2C%22SERVICE-3%22%29 [Api-Token dt0c01.OLD.SECRET]"
    );
    assert_eq!(asked[3], asked[4], "who calls whom is remembered");
}

#[tokio::test]
async fn a_tenant_that_does_not_know_who_calls_whom_has_no_bystanders() {
    let bare = r#"{"entities":[{"entityId":"SERVICE-1","displayName":"checkout"},{"entityId":"SERVICE-2","displayName":"cart"}]}"#;
    let tenant = Tenant::new(vec![entity(), answer("entities", 200, bare)]).await;
    assert_eq!(tenant.source.bystanders(&ask(QUERY), 9).await.unwrap(), []);
    tenant.asked();
}

#[tokio::test]
async fn without_any_sample_a_service_is_no_bystander_and_odd_answers_are_named() {
    let empty = r#"{"resolution":"1m","result":[{"data":[]}]}"#;
    let coarse = OF_EACH.replace("\"1m\"", "\"1h\"");
    let answers = vec![
        entity(),
        answer("entities", 200, TOPOLOGY),
        descriptor(),
        answer("metrics/query", 200, empty),
        answer("metrics/query", 200, coarse),
    ];
    let tenant = Tenant::new(answers).await;
    assert_eq!(tenant.source.bystanders(&ask(QUERY), 9).await.unwrap(), []);
    let failure = tenant.source.bystanders(&ask(QUERY), 9).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooCoarse);
    tenant.asked();
}

#[tokio::test]
async fn problems_are_read_as_dynatrace_tells_them() {
    let page = r#"{"totalCount":2,"pageSize":50,"warnings":[],"problems":[
        {"problemId":"-1_1V2","displayId":"P-1","title":"Response time degradation","severityLevel":"PERFORMANCE","status":"OPEN",
         "startTime":1795002600000,"endTime":-1,"rootCauseEntity":{"entityId":{"id":"SERVICE-DB","type":"SERVICE"},"name":"orders-db"}},
        {"problemId":"-1_2V2","displayId":"P-2","title":"Failure rate","severityLevel":"A_NEW_ONE","status":"CLOSED",
         "startTime":1795002600000,"endTime":1795002900000,"rootCauseEntity":null}]}"#;
    let tenant = Tenant::new(vec![entity(), answer("problems", 200, page)]).await;
    let problems = tenant.source.problems(&ask(QUERY)).await.unwrap();
    let told: Vec<_> =
        problems.iter().map(|p| (p.id.as_str(), p.elsewhere, p.root_cause.as_deref())).collect();
    assert_eq!(told, [("P-1", true, Some("orders-db")), ("P-2", false, None)]);
    assert_eq!((problems[0].started_at, problems[0].ended_at), (noon().plus_minutes(-10), None));
    assert_eq!(problems[1].ended_at, Some(noon().plus_minutes(-5)));
    assert_eq!(problems[0].known_at, noon().plus_minutes(-2), "the end of the window");
    assert_eq!(
        tenant.asked()[1],
        "GET /e/1/api/v2/problems?problemSelector=affectedEntities%28%22SERVICE-1%22%29&from=1795002300000&to=1795003080000&pageSize=500 [Api-Token dt0c01.OLD.SECRET]"
    );
}

#[tokio::test]
async fn a_token_that_may_not_see_problems_is_asked_once_and_stays_ready() {
    let refused = r#"{"error":{"code":403,"message":"Token is missing required scope. Use one of: problems.read (Read problems)"}}"#;
    let tenant = Tenant::new(vec![entity(), answer("problems", 403, refused)]).await;
    let failure = tenant.source.problems(&ask(QUERY)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::MissingScope);
    assert!(failure.to_string().contains("problems.read"), "{failure}");
    assert_eq!(tenant.source.problems(&ask(QUERY)).await.unwrap(), []);
    assert!(tenant.health.failures().is_empty(), "collecting goes on without");
    tenant.asked();
}

#[tokio::test]
async fn objectives_of_a_service_are_evaluated_together_and_asked_for_once() {
    let listed = serde_json::json!({"totalCount": 3, "pageSize": 500, "slo": [
        {"id": "a", "name": "availability", "enabled": true, "evaluatedPercentage": -1.0, "error": "NONE",
         "target": 99.5, "filter": "type(\"SERVICE\"),entityId(\"SERVICE-1\")", "timeframe": "-1w"},
        {"id": "b", "name": "another's", "enabled": true, "target": 99.0, "filter": "entityId(\"SERVICE-2\")"},
        {"id": "c", "name": "off", "enabled": false, "target": 99.0, "filter": "entityId(\"SERVICE-1\")"},
    ]});
    let evaluated = serde_json::json!({"totalCount": 1, "slo": [
        {"id": "a", "name": "availability", "enabled": true, "evaluatedPercentage": 99.2, "errorBudget": -0.3,
         "status": "FAILURE", "error": "NONE", "target": 99.5, "timeframe": "60000 to 120000"}]});
    let tenant = Tenant::new(vec![
        entity(),
        answer("slo", 200, listed.to_string()),
        answer("slo", 200, evaluated.to_string()),
    ])
    .await;
    for _ in 0..2 {
        let objectives = tenant.source.objectives(&ask(QUERY)).await.unwrap();
        assert_eq!((objectives.len(), objectives[0].reached), (1, Some(99.2)));
        assert!(objectives[0].is_missed());
    }
    let asked = tenant.asked();
    assert!(asked[2].contains("slo?sloSelector=id%28%22a%22%29&evaluate=true&pageSize=25"), "{}", asked[2]);
}

#[tokio::test]
async fn without_the_scope_objectives_are_left_alone_for_a_while() {
    let refused = r#"{"error":{"code":403,"message":"Token is missing required scope. Use one of: slo.read (Read SLO)"}}"#;
    let tenant = Tenant::new(vec![entity(), answer("slo", 403, refused)]).await;
    let failure = tenant.source.objectives(&ask(QUERY)).await.unwrap_err();
    assert!(failure.message.contains("slo.read"), "{failure}");
    assert_eq!(tenant.source.objectives(&ask(QUERY)).await.unwrap(), []);
    tenant.asked();
}
