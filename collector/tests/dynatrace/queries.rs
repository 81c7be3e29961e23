//! What is asked, letter by letter, and what is made of the answers.

use crate::server::{QUERY, Tenant, answer, ask, body, data, descriptor, entity, noon};
use vouch_collector::config::ServiceMapping;
use vouch_collector::source::{FailureKind, MetricSource as _};
use vouch_proto::{Name, Window};

#[tokio::test]
async fn the_calls_of_a_reading_and_the_series() {
    let tenant = Tenant::new(vec![entity(), descriptor(), data(), data()]).await;
    let reading = tenant.source.read(&ask(QUERY)).await.unwrap();
    let chunk = &reading.chunks[0];
    assert_eq!(chunk.window, Window::around(noon(), -5, -2).unwrap());
    assert_eq!(chunk.series[0].samples, [Some(1.0), None, Some(3.0)], "milliseconds; the gap stays");
    assert_eq!((chunk.series[0].unit.as_str(), chunk.series[0].query.as_str()), ("ms", QUERY));
    tenant.source.read(&ask(QUERY)).await.unwrap();
    let asked = tenant.asked();
    assert_eq!(
        asked[0],
        "GET /e/1/api/v2/entities?entitySelector=type%28%22SERVICE%22%29%2CentityName.equals%28%22checkout%22%29&pageSize=500 [Api-Token dt0c01.OLD.SECRET]"
    );
    assert_eq!(
        asked[2],
        "GET /e/1/api/v2/metrics/query?metricSelector=builtin%3Aservice.response.time%3AsplitBy%28%22dt.entity.service%22%29%3Aavg&resolution=1m&from=1795002900000&to=1795003080000&entitySelector=type%28%22SERVICE%22%29%2CentityId%28%22SERVICE-1%22%29 [Api-Token dt0c01.OLD.SECRET]"
    );
    assert_eq!(asked[2], asked[3], "entity and descriptor are remembered");
}

#[tokio::test]
async fn hosts_get_their_names_and_names_are_remembered() {
    let by_host = r#"{"resolution":"1m","result":[{"data":[
        {"dimensions":["PROCESS_GROUP_INSTANCE-1"],"dimensionMap":{"dt.entity.process_group_instance":"PROCESS_GROUP_INSTANCE-1"},"timestamps":[1795002960000],"values":[7]}]}]}"#;
    let names = r#"{"entities":[{"entityId":"PROCESS_GROUP_INSTANCE-1","displayName":"checkout-7d9f"}]}"#;
    let cpu = answer("metrics/builtin:tech.generic.cpu.usage", 200, r#"{"unit":"Percent"}"#);
    let answers = vec![
        entity(),
        cpu,
        answer("metrics/query", 200, by_host),
        answer("entities", 200, names),
        answer("metrics/query", 200, by_host),
    ];
    let tenant = Tenant::new(answers).await;
    let mut ask = ask("builtin:tech.generic.cpu.usage:splitBy(\"dt.entity.process_group_instance\"):avg");
    ask.metrics[0].by_host = true;
    ask.metrics[0].unit = "percent".into();
    for _ in 0..2 {
        let reading = tenant.source.read(&ask).await.unwrap();
        let series = &reading.chunks[0].series[0];
        assert_eq!((series.host.as_deref(), series.samples[0]), (Some("checkout-7d9f"), Some(7.0)));
    }
    let asked = tenant.asked();
    assert!(asked[2].contains("toRelationships.runsOnProcessGroupInstance"), "{}", asked[2]);
    assert!(asked[3].contains("entityId%28%22PROCESS_GROUP_INSTANCE-1%22%29"), "{}", asked[3]);
}

#[tokio::test]
async fn pages_are_followed_by_their_key_alone() {
    let page = |key: &str, name: &str| {
        answer(
            "entities",
            200,
            format!(
                r#"{{"nextPageKey":{key},"entities":[{{"entityId":"S-{name}","displayName":"{name}"}}]}}"#
            ),
        )
    };
    let tenant = Tenant::new(vec![page(r#""AQ+/=""#, "a"), page("null", "b")]).await;
    let names: Vec<String> = tenant.source.services().await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(
        tenant.asked()[1].starts_with("GET /e/1/api/v2/entities?nextPageKey=AQ%2B%2F%3D ["),
        "{:?}",
        tenant.asked()
    );
}

#[tokio::test]
async fn a_mapped_service_and_a_foreign_environment() {
    let name = |s: &str| Name::new(s).unwrap();
    let mapping = ServiceMapping {
        service: name("checkout"),
        environment: None,
        entity_id: Some("SERVICE-MAPPED".into()),
        entity_name: None,
    };
    let tenant = Tenant::with(vec![descriptor(), data()], |settings| {
        settings.services = vec![mapping];
        settings.environment = Some(name("prod"));
    })
    .await;
    tenant.source.read(&ask(QUERY)).await.unwrap();
    assert!(tenant.asked()[1].contains("SERVICE-MAPPED"));
    let mut elsewhere = ask(QUERY);
    elsewhere.environment = name("staging");
    let failure = tenant.source.read(&elsewhere).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::OtherEnvironment);
    assert!(failure.message.contains("`prod`") && failure.message.contains("`staging`"), "{failure}");
}

#[tokio::test]
async fn a_coarser_answer_is_never_taken_for_minutes() {
    // The slots of five minutes that end at 11:55 and 12:00; only the first has settled.
    let coarse = r#"{"resolution":"5m","result":[{"data":[{"timestamps":[1795002900000,1795003200000],"values":[5000,9000]}]}]}"#;
    let tenant = Tenant::new(vec![entity(), descriptor(), answer("metrics/query", 200, coarse)]).await;
    let mut ask = ask(QUERY);
    ask.window = Window::around(noon(), -12, -2).unwrap();
    let reading = tenant.source.read(&ask).await.unwrap();
    assert_eq!(reading.step.as_secs(), 300);
    assert_eq!(
        reading.chunks[0].window,
        Window::around(noon(), -10, -5).unwrap(),
        "whole slots that have settled"
    );
    assert_eq!(reading.chunks[0].series[0].samples, [Some(5.0)]);
}

#[tokio::test]
async fn several_series_where_one_was_meant_are_refused_with_their_names() {
    let two = r#"{"resolution":"1m","result":[{"data":[
        {"dimensionMap":{"dt.entity.service":"SERVICE-1"},"timestamps":[],"values":[]},
        {"dimensionMap":{"dt.entity.service":"SERVICE-2"},"timestamps":[],"values":[]}]}]}"#;
    let tenant = Tenant::new(vec![entity(), descriptor(), answer("metrics/query", 200, two)]).await;
    let reading = tenant.source.read(&ask(QUERY)).await.unwrap();
    let failure = &reading.refused[0].1;
    assert_eq!(failure.kind, FailureKind::AmbiguousSeries);
    assert!(failure.message.contains("SERVICE-1") && failure.message.contains(":splitBy()"), "{failure}");
}

#[tokio::test]
async fn no_data_is_gaps_and_the_service_is_looked_up_anew() {
    let empty = r#"{"totalCount":0,"nextPageKey":null,"resolution":"1m","result":[{"data":[]}]}"#;
    let answers = vec![entity(), descriptor(), answer("metrics/query", 200, empty), entity(), data()];
    let tenant = Tenant::new(answers).await;
    let reading = tenant.source.read(&ask(QUERY)).await.unwrap();
    assert_eq!(reading.chunks[0].series[0].samples, [None; 3]);
    tenant.source.read(&ask(QUERY)).await.unwrap();
    tenant.asked();
}

#[tokio::test]
async fn an_expression_is_taken_in_the_templates_unit() {
    let tenant = Tenant::new(vec![entity(), answer("metrics/query", 200, body("1m", &[Some(2.0)]))]).await;
    let reading = tenant
        .source
        .read(&ask("(builtin:service.a:splitBy():avg)/(builtin:service.b:splitBy():avg)"))
        .await
        .unwrap();
    assert_eq!(reading.chunks[0].series[0].samples[0], Some(2.0));
    tenant.asked();
}

#[tokio::test]
async fn the_metrics_of_an_expression_are_described_where_their_keys_do_not_tell_what_they_are_of() {
    let of_hosts = r#"{"metricId":"a","unit":"Count","entityType":["HOST"]}"#;
    let value = || answer("metrics/query", 200, body("1m", &[Some(2.0)]));
    let query = "(a:splitBy():avg)/(b:splitBy():avg)";
    // What cannot be described is taken for a service's.
    let script = vec![entity(), answer("metrics/a", 404, "{}"), answer("metrics/b", 400, "{}"), value()];
    let tenant = Tenant::new(script).await;
    let reading = tenant.source.read(&ask(query)).await.unwrap();
    assert_eq!(reading.chunks[0].series[0].samples[0], Some(2.0));
    tenant.asked();
    let script =
        vec![entity(), answer("metrics/a", 200, of_hosts), answer("metrics/b", 200, of_hosts), value()];
    let tenant = Tenant::new(script).await;
    let reading = tenant.source.read(&ask(query)).await.unwrap();
    assert!(reading.refused.is_empty(), "{:?}", reading.refused);
    let asked = tenant.asked();
    assert!(asked[3].contains("HOST"), "{}", asked[3]);
}

#[tokio::test]
async fn a_split_that_the_descriptor_does_not_have_is_refused_without_a_call() {
    let described = r#"{"unit":"MicroSecond","dimensionDefinitions":[{"key":"dt.entity.service"}]}"#;
    let tenant = Tenant::new(vec![entity(), answer(crate::server::DESCRIPTOR, 200, described), data()]).await;
    let mut ask = ask(QUERY);
    let mut by_pod = ask.metrics[0].clone();
    by_pod.name = "by_pod".into();
    by_pod.query = "builtin:service.response.time:splitBy(\"k8s.pod.name\"):avg".into();
    ask.metrics.push(by_pod);
    let reading = tenant.source.read(&ask).await.unwrap();
    let [(metric, failure)] = reading.refused.as_slice() else { panic!("{:?}", reading.refused) };
    assert_eq!((metric.as_str(), failure.kind), ("by_pod", FailureKind::UnknownDimension));
    assert!(failure.message.contains("`k8s.pod.name`, which the metric does not have"), "{failure}");
    assert_eq!(reading.chunks[0].series.len(), 1, "the others are read");
    tenant.asked();
}
