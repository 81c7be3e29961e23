//! The built-in templates, letter by letter: what is asked for each, and what is made of the answers.

use crate::server::{Answer, Tenant, answer, ask, entity, noon};
use serde_json::{Value, json};
use vouch_collector::source::{Ask, MetricAsk, MetricSource as _, Reading};
use vouch_proto::{VerificationTemplate, packs};

const METHOD: &str = "dt.entity.service_method";
const PROCESS: &str = "dt.entity.process_group_instance";
const CONTAINER: &str = "dt.entity.container_group_instance";

/// What the collector asks for a template.
fn asks(template: &VerificationTemplate) -> Ask {
    let metric = |spec: &vouch_proto::MetricSpec| {
        let host_query = spec.host_query.clone().filter(|_| template.by_host);
        MetricAsk {
            name: spec.name.clone(),
            by_host: host_query.is_some(),
            query: host_query.unwrap_or_else(|| spec.query.clone()),
            unit: spec.unit.clone(),
            each: spec.each.clone(),
        }
    };
    Ask { metrics: template.metrics.iter().map(metric).collect(), ..ask("x") }
}

fn described(key: &str, unit: &str, dimensions: &[&str]) -> Answer {
    let all: Vec<Value> = dimensions.iter().map(|key| json!({"key": key})).collect();
    let body = json!({"metricId": key, "unit": unit, "dimensionDefinitions": all});
    answer(&format!("metrics/{key}"), 200, body.to_string())
}

fn series(dimension: &str, id: &str, values: Value) -> Value {
    let stamps: Vec<i64> = (-4..=-2).map(|minute| noon().plus_minutes(minute).as_millis()).collect();
    json!({"dimensions": [id], "dimensionMap": {dimension: id}, "timestamps": stamps, "values": values})
}

fn whole(values: Value) -> Value {
    let stamps: Vec<i64> = (-4..=-2).map(|minute| noon().plus_minutes(minute).as_millis()).collect();
    json!([{"dimensions": [], "dimensionMap": {}, "timestamps": stamps, "values": values}])
}

fn data(results: &[Value]) -> Answer {
    let results: Vec<Value> = results.iter().map(|data| json!({"metricId": "m", "data": data})).collect();
    answer("metrics/query", 200, json!({"resolution": "1m", "result": results}).to_string())
}

fn names(all: &[(&str, &str)]) -> Answer {
    let all: Vec<Value> = all.iter().map(|(id, name)| json!({"entityId": id, "displayName": name})).collect();
    answer("entities", 200, json!({"entities": all}).to_string())
}

/// The selectors of metrics and of entities of each query, in order.
fn queries(asked: &[String]) -> Vec<(String, String)> {
    let of = |line: &String| {
        let url = line.split(' ').nth(1)?;
        let url = reqwest::Url::parse(&format!("http://x{url}")).ok()?;
        let field = |name: &str| {
            let found = url.query_pairs().find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        url.path().ends_with("metrics/query").then(|| (field("metricSelector"), field("entitySelector")))
    };
    asked.iter().filter_map(of).collect()
}

/// Metric, what it is measured for, host and samples of each series, sorted.
fn told(reading: &Reading) -> Vec<String> {
    assert_eq!(reading.refused, []);
    let mut all: Vec<String> = reading
        .chunks
        .iter()
        .flat_map(|chunk| &chunk.series)
        .map(|one| {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            let samples: Vec<String> =
                one.samples.iter().map(|v| v.map_or("-".into(), |v| v.to_string())).collect();
            format!(
                "{} {} {} {} {}",
                one.metric,
                text(&one.item),
                text(&one.host),
                one.unit,
                samples.join(" ")
            )
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn key_requests_are_asked_for_each_by_itself_and_named() {
    let of = |id: &str, values: Value| series(METHOD, id, values);
    let (cart, pay) = ("SERVICE_METHOD-1", "SERVICE_METHOD-2");
    let dimensions = [METHOD];
    let script = vec![
        entity(),
        described("builtin:service.keyRequest.response.time", "MicroSecond", &dimensions),
        described("builtin:service.keyRequest.errors.server.count", "Count", &dimensions),
        described("builtin:service.keyRequest.count.total", "Count", &dimensions),
        data(&[
            json!([of(cart, json!([1000, 2000, 3000])), of(pay, json!([9000, null, 9000]))]),
            json!([of(cart, json!([2000, 4000, 6000])), of(pay, json!([9500, null, 9500]))]),
            json!([of(pay, json!([1, null, null]))]),
            json!([of(cart, json!([10, 20, 30])), of(pay, json!([5, null, 7]))]),
        ]),
        names(&[(cart, "/cart"), (pay, "/pay")]),
    ];
    let tenant = Tenant::new(script).await;
    let reading = tenant.source.read(&asks(&packs::key_requests())).await.unwrap();
    assert_eq!(
        told(&reading),
        [
            "key_request_errors /cart - count 0 0 0",
            "key_request_errors /pay - count 1 - 0",
            "key_request_time /cart - ms 1 2 3",
            "key_request_time /pay - ms 9 - 9",
            "key_request_time_p95 /cart - ms 2 4 6",
            "key_request_time_p95 /pay - ms 9.5 - 9.5",
            "key_requests /cart - count 10 20 30",
            "key_requests /pay - count 5 - 7",
        ]
    );
    let key = |key: &str| format!("builtin:service.keyRequest.{key}");
    let split = format!("splitBy(\"{METHOD}\")");
    let selectors = [
        format!("{}:{split}:avg", key("response.time")),
        format!("{}:{split}:percentile(95)", key("response.time")),
        format!("{}:{split}:value:default(0)", key("errors.server.count")),
        format!("{}:{split}:value", key("count.total")),
    ];
    let entities = "type(\"SERVICE_METHOD\"),fromRelationships.isServiceMethodOfService(type(\"SERVICE\"),entityId(\"SERVICE-1\"))";
    assert_eq!(queries(&tenant.asked()), [(selectors.join(","), entities.to_owned())]);
}

#[tokio::test]
async fn key_requests_of_several_services_share_a_call_and_each_gets_its_own() {
    let mapping = |name: &str, id: &str| vouch_collector::config::ServiceMapping {
        service: vouch_proto::Name::new(name).unwrap(),
        environment: None,
        entity_id: Some(id.into()),
        entity_name: None,
    };
    let belongs = |id: &str, name: &str, service: &str| json!({"entityId": id, "displayName": name, "fromRelationships": {"isServiceMethodOfService": [{"id": service, "type": "SERVICE"}]}});
    let (cart, pay) = ("SERVICE_METHOD-1", "SERVICE_METHOD-2");
    let methods =
        json!({"entities": [belongs(cart, "/cart", "SERVICE-A"), belongs(pay, "/cart", "SERVICE-B")]});
    let script = vec![
        described("builtin:service.keyRequest.count.total", "Count", &[METHOD]),
        data(&[json!([series(METHOD, cart, json!([1, 1, 1])), series(METHOD, pay, json!([2, 2, 2]))])]),
        answer("entities", 200, methods.to_string()),
    ];
    let tenant = Tenant::with(script, |settings| {
        settings.services = vec![mapping("a", "SERVICE-A"), mapping("b", "SERVICE-B")];
    })
    .await;
    tenant.source.has_metric("builtin:service.keyRequest.count.total").await.unwrap();
    let of = |service: &str| {
        let mut ask = asks(&packs::key_requests());
        ask.metrics.retain(|metric| metric.name == "key_requests");
        Ask { service: vouch_proto::Name::new(service).unwrap(), ..ask }
    };
    let (a, b) = (of("a"), of("b"));
    let (a, b) = tokio::join!(tenant.source.read(&a), tenant.source.read(&b));
    assert_eq!(told(&a.unwrap()), ["key_requests /cart - count 1 1 1"]);
    assert_eq!(told(&b.unwrap()), ["key_requests /cart - count 2 2 2"]);
    let asked = queries(&tenant.asked());
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].1.contains("entityId(\"SERVICE-A\",\"SERVICE-B\")"), "{asked:?}");
}

#[tokio::test]
async fn processes_are_asked_for_one_by_one_heap_included() {
    let of = |values: Value| json!([series(PROCESS, "PROCESS_GROUP_INSTANCE-1", values)]);
    let dimensions = [PROCESS];
    let script = vec![
        entity(),
        described("builtin:tech.generic.cpu.usage", "Percent", &dimensions),
        described("builtin:tech.generic.mem.workingSetSize", "Byte", &dimensions),
        described("builtin:tech.jvm.memory.gc.suspensionTime", "Percent", &dimensions),
        described("builtin:tech.jvm.threads.count", "Count", &[PROCESS, "rx_pid"]),
        data(&[of(json!([1, 1, 1])), of(json!([2, 2, 2])), of(json!([3, 3, 3])), of(json!([50, 50, 50]))]),
        names(&[("PROCESS_GROUP_INSTANCE-1", "pod-1")]),
        data(&[of(json!([4, 4, 4]))]),
    ];
    let tenant = Tenant::new(script).await;
    let reading = tenant.source.read(&asks(&packs::processes())).await.unwrap();
    assert_eq!(
        told(&reading),
        [
            "gc_suspension - pod-1 % 3 3 3",
            "heap_used - pod-1 bytes 4 4 4",
            "process_cpu - pod-1 % 1 1 1",
            "process_memory - pod-1 bytes 2 2 2",
            "threads - pod-1 count 50 50 50",
        ]
    );
    let asked = queries(&tenant.asked());
    let split = format!("splitBy(\"{PROCESS}\"):avg");
    let heap = format!(
        "builtin:tech.jvm.memory.runtime.total:{split} - builtin:tech.jvm.memory.runtime.free:{split}"
    );
    assert_eq!(asked[1].0, heap);
    let entities = "type(\"PROCESS_GROUP_INSTANCE\"),toRelationships.runsOnProcessGroupInstance(type(\"SERVICE\"),entityId(\"SERVICE-1\"))";
    assert!(asked.iter().all(|(_, selector)| selector == entities), "{asked:?}");
}

#[tokio::test]
async fn containers_are_those_of_the_services_processes() {
    let of = |values: Value| json!([series(CONTAINER, "CONTAINER_GROUP_INSTANCE-1", values)]);
    let dimensions = ["Container", CONTAINER];
    let script = vec![
        entity(),
        described("builtin:containers.cpu.usagePercent", "Percent", &dimensions),
        described("builtin:containers.cpu.throttledMilliCores", "MilliCores", &dimensions),
        described("builtin:containers.memory.usagePercent", "Percent", &dimensions),
        described("builtin:containers.memory.residentSetBytes", "Byte", &dimensions),
        data(&[of(json!([1, 1, 1])), of(json!([2, 2, 2])), of(json!([3, 3, 3])), of(json!([4, 4, 4]))]),
        names(&[("CONTAINER_GROUP_INSTANCE-1", "pod-1 checkout")]),
    ];
    let tenant = Tenant::new(script).await;
    let reading = tenant.source.read(&asks(&packs::containers())).await.unwrap();
    assert_eq!(
        told(&reading),
        [
            "container_cpu - pod-1 checkout % 1 1 1",
            "container_cpu_throttled - pod-1 checkout MilliCores 2 2 2",
            "container_memory - pod-1 checkout % 3 3 3",
            "container_memory_resident - pod-1 checkout bytes 4 4 4",
        ]
    );
    let asked = queries(&tenant.asked());
    let entities = "type(\"CONTAINER_GROUP_INSTANCE\"),toRelationships.isPgiOfCgi(type(\"PROCESS_GROUP_INSTANCE\"),toRelationships.runsOnProcessGroupInstance(type(\"SERVICE\"),entityId(\"SERVICE-1\")))";
    assert_eq!(asked[0].1, entities);
}

#[tokio::test]
async fn workloads_are_filtered_within_every_metric_of_every_expression() {
    let dimensions = ["k8s.workload.name", "dt.entity.cloud_application"];
    let script = vec![
        entity(),
        described("builtin:kubernetes.container.restarts", "Count", &dimensions),
        described("builtin:kubernetes.container.oom_kills", "Count", &dimensions),
        described("builtin:kubernetes.workload.cpu_throttled", "MilliCores", &dimensions),
        described("builtin:kubernetes.pods", "Count", &["dt.entity.cloud_application", "pod_phase"]),
        data(&[
            whole(json!([0, 1, 0])),
            whole(json!([0, 0, 0])),
            whole(json!([40, 41, 42])),
            whole(json!([5, 5, 5])),
            whole(json!([70, 71, 72])),
            whole(json!([100, 100, 50])),
            whole(json!([3, 3, 3])),
        ]),
    ];
    let tenant = Tenant::new(script).await;
    let reading = tenant.source.read(&asks(&packs::kubernetes())).await.unwrap();
    assert_eq!(
        told(&reading),
        [
            "container_restarts - - count 0 1 0",
            "oom_kills - - count 0 0 0",
            "pods - - count 3 3 3",
            "pods_running - - % 100 100 50",
            "workload_cpu - - % 40 41 42",
            "workload_cpu_throttled - - MilliCores 5 5 5",
            "workload_memory - - % 70 71 72",
        ]
    );
    let asked = queries(&tenant.asked());
    let filter = ":filter(in(\"dt.entity.cloud_application\",entitySelector(\"type(~\"CLOUD_APPLICATION~\"),toRelationships.isPgOfCa(type(~\"PROCESS_GROUP~\"),toRelationships.runsOn(type(~\"SERVICE~\"),entityId(~\"SERVICE-1~\")))\")))";
    let (selector, entities) = &asked[0];
    assert_eq!(entities, "");
    assert_eq!(selector.matches(filter).count(), 10, "{selector}");
    let cpu = format!(
        "builtin:kubernetes.workload.cpu_usage{filter}:splitBy():sum / builtin:kubernetes.workload.limits_cpu{filter}:splitBy():sum * 100"
    );
    assert!(selector.contains(&cpu), "{selector}");
}
