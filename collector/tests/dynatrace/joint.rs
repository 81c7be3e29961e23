//! Services that are asked for at the same time share calls, and each gets its own.

use crate::server::{Answer, Tenant, answer, ask, noon};
use serde_json::{Value, json};
use std::time::Duration;
use vouch_collector::config::ServiceMapping;
use vouch_collector::source::{Ask, MetricAsk, MetricSource as _};
use vouch_proto::{Name, Window};

const RESPONSE_TIME: &str = "builtin:service.response.time:splitBy():avg";
const CPU: &str = "builtin:tech.generic.cpu.usage:splitBy():avg";

fn of(service: &str, metrics: &[(&str, &str, &str)], minutes: (i64, i64)) -> Ask {
    let metric = |(name, query, unit): &(&str, &str, &str)| MetricAsk {
        name: (*name).into(),
        query: (*query).into(),
        unit: (*unit).into(),
        by_host: false,
        each: None,
    };
    Ask {
        service: Name::new(service).unwrap(),
        metrics: metrics.iter().map(metric).collect(),
        window: Window::around(noon(), minutes.0, minutes.1).unwrap(),
        ..ask(RESPONSE_TIME)
    }
}

fn mappings() -> Vec<ServiceMapping> {
    let mapping = |name: &str, id: &str| ServiceMapping {
        service: Name::new(name).unwrap(),
        environment: None,
        entity_id: Some(id.into()),
        entity_name: None,
    };
    vec![mapping("a", "SERVICE-A"), mapping("b", "SERVICE-B"), mapping("c", "SERVICE-C")]
}

fn series(dimension: &str, id: &str, values: Value) -> Value {
    let stamps: Vec<i64> = (-4..=-2).map(|minute| noon().plus_minutes(minute).as_millis()).collect();
    json!({"dimensions": [id], "dimensionMap": {dimension: id}, "timestamps": stamps, "values": values})
}

fn data(results: &[Value]) -> Answer {
    let results: Vec<Value> = results.iter().map(|data| json!({"metricId": "m", "data": data})).collect();
    answer("metrics/query", 200, json!({"resolution": "1m", "result": results}).to_string())
}

fn unit(key: &str, unit: &str) -> Answer {
    answer(&format!("metrics/{key}"), 200, json!({"unit": unit}).to_string())
}

async fn tenant(answers: Vec<Answer>) -> Tenant {
    Tenant::with(answers, |settings| settings.services = mappings()).await
}

#[tokio::test]
async fn services_that_are_read_at_the_same_time_share_a_call() {
    let service = |id, values| series("dt.entity.service", id, values);
    let all = json!([
        service("SERVICE-A", json!([1000, 2000, 3000])),
        service("SERVICE-C", json!([7000, null, 9000]))
    ]);
    let tenant = tenant(vec![unit("builtin:service.response.time", "MicroSecond"), data(&[all])]).await;
    // The descriptor is known by then.
    tenant.source.has_metric("builtin:service.response.time").await.unwrap();
    let metrics = [("response_time", RESPONSE_TIME, "ms")];
    let (a, b, c) = (of("a", &metrics, (-5, -2)), of("b", &metrics, (-3, -2)), of("c", &metrics, (-4, -2)));
    let (a, b, c) = tokio::join!(tenant.source.read(&a), tenant.source.read(&b), tenant.source.read(&c));
    let samples = |reading: Result<vouch_collector::source::Reading, _>| {
        reading.unwrap().chunks[0].series[0].samples.clone()
    };
    assert_eq!(samples(a), [Some(1.0), Some(2.0), Some(3.0)]);
    assert_eq!(samples(b), [None], "nothing is known of it, over its own window");
    assert_eq!(samples(c), [None, Some(9.0)]);
    let asked = tenant.asked();
    assert_eq!(asked.len(), 2, "one call for three: {asked:?}");
    let ids = "entityId%28%22SERVICE-A%22%2C%22SERVICE-B%22%2C%22SERVICE-C%22%29";
    assert!(
        asked[1].contains(ids) && asked[1].contains("splitBy%28%22dt.entity.service%22%29"),
        "{}",
        asked[1]
    );
    let from = format!("from={}", noon().plus_minutes(-5).as_millis());
    assert!(asked[1].contains(&from), "the hull of the windows: {}", asked[1]);
}

#[tokio::test]
async fn processes_are_told_apart_by_what_they_run_and_taken_together() {
    let process = |id: &str, values| series("dt.entity.process_group_instance", id, values);
    let all = json!([
        process("PROCESS_GROUP_INSTANCE-1", json!([10, 20, null])),
        process("PROCESS_GROUP_INSTANCE-2", json!([30, null, null])),
        process("PROCESS_GROUP_INSTANCE-3", json!([50, 60, 70])),
    ]);
    let runs = |id: &str, services: &[&str]| {
        let on: Vec<Value> = services.iter().map(|id| json!({"id": id, "type": "SERVICE"})).collect();
        json!({"entityId": id, "displayName": id, "toRelationships": {"runsOnProcessGroupInstance": on}})
    };
    let processes = json!({"entities": [
        runs("PROCESS_GROUP_INSTANCE-1", &["SERVICE-A"]),
        runs("PROCESS_GROUP_INSTANCE-2", &["SERVICE-A"]),
        runs("PROCESS_GROUP_INSTANCE-3", &["SERVICE-A", "SERVICE-B"]),
    ]});
    let script = vec![
        unit("builtin:tech.generic.cpu.usage", "Percent"),
        data(&[all]),
        answer("entities", 200, processes.to_string()),
    ];
    let tenant = tenant(script).await;
    tenant.source.has_metric("builtin:tech.generic.cpu.usage").await.unwrap();
    let metrics = [("cpu", CPU, "percent")];
    let (a, b) = (of("a", &metrics, (-5, -2)), of("b", &metrics, (-5, -2)));
    let (a, b) = tokio::join!(tenant.source.read(&a), async {
        // The names and owners are looked up once: the second finds them known.
        tokio::time::sleep(Duration::from_millis(5)).await;
        tenant.source.read(&b).await
    });
    assert_eq!(a.unwrap().chunks[0].series[0].samples, [Some(30.0), Some(40.0), Some(70.0)]);
    assert_eq!(b.unwrap().chunks[0].series[0].samples, [Some(50.0), Some(60.0), Some(70.0)]);
}

#[tokio::test]
async fn a_service_alone_is_asked_for_with_the_same_selector() {
    let process = |id: &str, values| series("dt.entity.process_group_instance", id, values);
    let all = json!([
        process("PROCESS_GROUP_INSTANCE-1", json!([10, 20, null])),
        process("PROCESS_GROUP_INSTANCE-2", json!([30, null, null])),
    ]);
    let tenant = tenant(vec![unit("builtin:tech.generic.cpu.usage", "Percent"), data(&[all])]).await;
    let read = tenant.source.read(&of("a", &[("cpu", CPU, "percent")], (-5, -2))).await.unwrap();
    assert_eq!(read.chunks[0].series[0].samples, [Some(20.0), Some(20.0), None]);
    assert!(tenant.asked()[1].contains("splitBy%28%22dt.entity.process_group_instance%22%29"));
}

#[tokio::test]
async fn what_spoils_a_shared_call_is_asked_for_alone_and_the_others_are_read() {
    let service = |id, values| series("dt.entity.service", id, values);
    let refused = || answer("metrics/query", 400, r#"{"error":{"message":"Metric selector parse error"}}"#);
    let good =
        data(&[json!([service("SERVICE-A", json!([1, 2, 3])), service("SERVICE-B", json!([4, 5, 6]))])]);
    let keys = ["builtin:service.requestCount.total", "builtin:service.oops"];
    let script = vec![unit(keys[0], "Count"), unit(keys[1], "Count"), refused(), good, refused()];
    let tenant = tenant(script).await;
    for key in keys {
        tenant.source.has_metric(key).await.unwrap();
    }
    let queries = keys.map(|key| format!("{key}:splitBy(\"dt.entity.service\"):value"));
    let metrics = [("requests", queries[0].as_str(), "count"), ("oops", queries[1].as_str(), "count")];
    let (a, b) = (of("a", &metrics, (-5, -2)), of("b", &metrics, (-5, -2)));
    let (a, b) = tokio::join!(tenant.source.read(&a), tenant.source.read(&b));
    for (reading, expected) in [(a.unwrap(), [1.0, 2.0, 3.0]), (b.unwrap(), [4.0, 5.0, 6.0])] {
        assert_eq!(reading.chunks[0].series[0].samples, expected.map(Some));
        assert_eq!(reading.refused[0].0, "oops");
    }
    assert_eq!(tenant.asked().len(), 5, "each call serves both");
}

#[tokio::test]
async fn a_count_without_events_is_zero_for_each_service_as_it_is_for_one() {
    let key = "builtin:service.errors.total.count";
    let query = format!("{key}:splitBy():value:default(0,always)");
    let all = json!([series("dt.entity.service", "SERVICE-A", json!([3, 0, 1]))]);
    let alone = json!([]);
    let tenant = tenant(vec![unit(key, "Count"), data(&[all]), data(&[alone])]).await;
    tenant.source.has_metric(key).await.unwrap();
    let metrics = [("errors", query.as_str(), "count")];
    let (a, b) = (of("a", &metrics, (-5, -2)), of("b", &metrics, (-5, -2)));
    let (a, c) = tokio::join!(tenant.source.read(&a), tenant.source.read(&b));
    assert_eq!(a.unwrap().chunks[0].series[0].samples, [Some(3.0), Some(0.0), Some(1.0)]);
    assert_eq!(c.unwrap().chunks[0].series[0].samples, [Some(0.0); 3]);
    let alone = tenant.source.read(&b).await.unwrap();
    assert_eq!(alone.chunks[0].series[0].samples, [Some(0.0); 3]);
    tenant.asked();
}

#[tokio::test]
async fn a_call_that_fails_is_no_failure_of_the_services_in_another() {
    let names: Vec<String> = (0..70).map(|i| format!("s{i:02}")).collect();
    let forbidden = answer("metrics/query", 403, "{}");
    let script = vec![unit("builtin:service.response.time", "MicroSecond"), forbidden, data(&[json!([])])];
    let tenant = Tenant::with(script, |settings| {
        settings.services = names
            .iter()
            .map(|name| ServiceMapping {
                service: Name::new(name.clone()).unwrap(),
                environment: None,
                entity_id: Some(format!("SERVICE-{name}")),
                entity_name: None,
            })
            .collect();
    })
    .await;
    tenant.source.has_metric("builtin:service.response.time").await.unwrap();
    let asks: Vec<Ask> =
        names.iter().map(|name| of(name, &[("rt", RESPONSE_TIME, "ms")], (-5, -2))).collect();
    let read = futures::future::join_all(asks.iter().map(|ask| tenant.source.read(ask))).await;
    let failed = read.iter().filter(|reading| reading.is_err()).count();
    assert!(failed == 2 || failed == 68, "{failed} of 70, in two calls");
    tenant.asked();
}

#[tokio::test]
async fn a_process_that_has_just_begun_is_looked_up_again_until_it_runs_something() {
    let process = |values| series("dt.entity.process_group_instance", "PROCESS_GROUP_INSTANCE-1", values);
    let runs = |services: &[&str]| {
        let on: Vec<Value> = services.iter().map(|id| json!({"id": id, "type": "SERVICE"})).collect();
        let one = json!({"entityId": "PROCESS_GROUP_INSTANCE-1", "displayName": "a-1", "toRelationships": {"runsOnProcessGroupInstance": on}});
        answer("entities", 200, json!({"entities": [one]}).to_string())
    };
    let measured = || data(&[json!([process(json!([1, 2, 3]))])]);
    let nothing = || data(&[json!([])]);
    let script = vec![
        unit("builtin:tech.generic.cpu.usage", "Percent"),
        // Whose it is cannot be told yet, so that each is asked for alone.
        measured(),
        runs(&[]),
        measured(),
        nothing(),
        measured(),
        runs(&["SERVICE-A"]),
    ];
    let tenant = tenant(script).await;
    tenant.source.has_metric("builtin:tech.generic.cpu.usage").await.unwrap();
    let (a, b) =
        (of("a", &[("cpu", CPU, "percent")], (-5, -2)), of("b", &[("cpu", CPU, "percent")], (-5, -2)));
    for _ in 0..2 {
        let (a, b) = tokio::join!(tenant.source.read(&a), tenant.source.read(&b));
        assert_eq!(a.unwrap().chunks[0].series[0].samples, [Some(1.0), Some(2.0), Some(3.0)]);
        assert_eq!(b.unwrap().chunks[0].series[0].samples, [None; 3]);
        // A minute of this clock is a fifth of a second.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    tenant.asked();
}

#[tokio::test]
async fn what_cannot_be_shared_does_not_keep_the_rest_from_it() {
    let keys = ["builtin:service.response.time", "builtin:service.requestCount.total"];
    let service = |id, values| series("dt.entity.service", id, values);
    let shared = data(&[json!([
        service("SERVICE-A", json!([1000, 2000, 3000])),
        service("SERVICE-B", json!([4000, 5000, 6000]))
    ])]);
    let alone = || data(&[json!([series("x", "y", json!([1, 2, 3]))])]);
    let tenant =
        tenant(vec![unit(keys[0], "MicroSecond"), unit(keys[1], "Count"), shared, alone(), alone()]).await;
    for key in keys {
        tenant.source.has_metric(key).await.unwrap();
    }
    let limited = format!("{}:splitBy():value:sort(value(sum,descending)):limit(1)", keys[1]);
    let metrics = [("response_time", RESPONSE_TIME, "ms"), ("requests", limited.as_str(), "count")];
    let (a, b) = (of("a", &metrics, (-5, -2)), of("b", &metrics, (-5, -2)));
    let (a, b) = tokio::join!(tenant.source.read(&a), tenant.source.read(&b));
    assert_eq!(a.unwrap().chunks[0].series[0].samples, [Some(1.0), Some(2.0), Some(3.0)]);
    assert_eq!(b.unwrap().chunks[0].series[1].samples, [Some(1.0), Some(2.0), Some(3.0)]);
    let asked = tenant.asked();
    assert!(asked[2].contains("SERVICE-A%22%2C%22SERVICE-B") && !asked[2].contains("limit"), "{asked:?}");
    assert!(asked[3].contains("limit") && asked[4].contains("limit"), "each by itself: {asked:?}");
}

#[tokio::test]
async fn processes_of_an_old_window_are_looked_up_in_its_time() {
    let week = 7 * 24 * 60;
    let stamps: Vec<i64> = (-4..=-2).map(|minute| noon().plus_minutes(minute - week).as_millis()).collect();
    let process = json!({"dimensions": ["PROCESS_GROUP_INSTANCE-1"],
        "dimensionMap": {"dt.entity.process_group_instance": "PROCESS_GROUP_INSTANCE-1"}, "timestamps": stamps, "values": [1, 2, 3]});
    let runs = json!({"entities": [{"entityId": "PROCESS_GROUP_INSTANCE-1", "displayName": "a-1",
        "toRelationships": {"runsOnProcessGroupInstance": [{"id": "SERVICE-A", "type": "SERVICE"}]}}]});
    let script = vec![
        unit("builtin:tech.generic.cpu.usage", "Percent"),
        data(&[json!([process])]),
        answer("entities", 200, runs.to_string()),
    ];
    let tenant = tenant(script).await;
    tenant.source.has_metric("builtin:tech.generic.cpu.usage").await.unwrap();
    let old = |name| of(name, &[("cpu", CPU, "percent")], (-5 - week, -2 - week));
    let (a, b) = (old("a"), old("b"));
    let (a, _) = tokio::join!(tenant.source.read(&a), tenant.source.read(&b));
    assert_eq!(a.unwrap().chunks[0].series[0].samples, [Some(1.0), Some(2.0), Some(3.0)]);
    let from = format!("from={}", noon().plus_minutes(-5 - week).as_millis());
    let asked = tenant.asked();
    assert!(asked[2].contains("entities") && asked[2].contains(&from), "{}", asked[2]);
}
