//! The whole way of a verification's data, resumed, coarser, late, ahead of traffic, in the past.

use crate::support::{World, name, noon, watermark};
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vouch_collector::source::scripted::Scripted;
use vouch_proto::subject::{ANY_ENVIRONMENT, CATALOGUE_BUCKET, catalogue_key};
use vouch_proto::{Deployment, Phase, SeriesBatch, Timestamp, Window, v1};
use vouch_simulator::{Fault, FaultRule};

/// Samples of the verification by minute and metric, the latest revision of each.
fn samples(batches: &[SeriesBatch], window: Window) -> BTreeMap<(String, i64), Option<f64>> {
    let mut sorted: Vec<&SeriesBatch> = batches.iter().collect();
    sorted.sort_by_key(|b| b.revision);
    let mut all = BTreeMap::new();
    for batch in sorted {
        for series in &batch.series {
            for (i, sample) in (0_i64..).zip(&series.samples) {
                let start = batch.window.start().plus(batch.resolution * u32::try_from(i).unwrap());
                if window.contains(start) {
                    all.insert((series.metric.clone(), start.minutes_since(window.start())), *sample);
                }
            }
        }
    }
    all
}

fn reached(end: Timestamp) -> impl Fn(&[SeriesBatch]) -> bool {
    move |batches| watermark(batches) >= Some(end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_references_and_then_every_minute() {
    let world = World::new(240.0).await;
    let collector = world.collector().await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let start = deployment.occurred_at.unwrap().ceil_minute();
    let window = Window::around(start, 0, 5).unwrap();
    let (batches, heads) = world.batches(reached(window.end())).await;

    let references: Vec<i64> =
        batches.iter().filter(|b| b.window.start() < start).map(|b| b.window.minutes()).collect();
    assert_eq!(references, [65, 65, 180], "the week before, the day before, the recent past");
    assert!(batches.iter().take(3).all(|b| b.is_final && b.window.start() < start), "they come first");
    let samples = samples(&batches, window);
    let metrics = ["cpu", "error_count", "response_time", "response_time_p95", "throughput"];
    for metric in metrics {
        for minute in 0..5 {
            let sample = samples[&(metric.to_owned(), minute)];
            assert!(sample.is_some(), "{metric} at {minute}: {samples:?}");
        }
    }
    let latency = samples[&("response_time".to_owned(), 2)].unwrap();
    assert!((40.0..400.0).contains(&latency), "{latency} ms, not microseconds");
    let batch = batches.last().unwrap();
    assert_eq!((batch.source.as_str(), batch.errors.len()), ("simulated", 0));

    let record = world.collection(|record| record.progress.done).await;
    assert_eq!(record.progress.collected_until, Some(window.end()));
    assert!(record.verification_id.ends_with(".1"));
    let head = |key: &str| heads[0].get(key).map(|v| v.as_str().to_owned());
    assert_eq!(head("content-type").as_deref(), Some("application/protobuf"));
    assert!(head("Nats-Msg-Id").unwrap().starts_with(&format!("{}/2026-11-1", record.verification_id)));
    assert!(head("traceparent").unwrap().starts_with("00-0af7"));
    assert_eq!(head("ce-subject").as_deref(), Some("prod/checkout"));
    let queries = world.tenant.calls().iter().filter(|c| c.path.ends_with("/metrics/query")).count();
    assert!(
        queries <= 2 * (3 + 5 + 4),
        "{queries} queries: two kinds of entities, each window once, re-read once"
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_lists_what_the_tenant_has() {
    let world = World::new(240.0).await;
    let collector = world.collector().await;
    let store = world.nats.bucket(&CATALOGUE_BUCKET).await.unwrap();
    let mut entries = store.watch_with_history(">").await.unwrap();
    let entry =
        tokio::time::timeout(Duration::from_secs(20), entries.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(entry.key, catalogue_key(&name(ANY_ENVIRONMENT), &name("checkout")));
    let listed: v1::ServiceEntry = serde_json::from_slice(&entry.value).unwrap();
    assert!(listed.entity_id.starts_with("SERVICE-"), "{listed:?}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_goes_on_where_one_stopped() {
    let world = World::new(60.0).await;
    let first = world.collector().await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let start = deployment.occurred_at.unwrap().ceil_minute();
    world.batches(reached(start.plus_minutes(2))).await;
    first.stop().await;
    let second = world.collector().await;
    let window = Window::around(start, 0, 5).unwrap();
    let (batches, _) = world.batches(reached(window.end())).await;
    let cpu = samples(&batches, window).into_iter().filter(|((metric, _), _)| metric == "cpu");
    assert_eq!(
        cpu.map(|(_, sample)| sample.is_some()).collect::<Vec<_>>(),
        [true; 5],
        "no minute is missing"
    );
    let references = batches.iter().filter(|b| b.window.start() < start).count();
    assert_eq!(references, 3, "the references are not read again");
    world.collection(|record| record.progress.done).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_points_are_gaps_first_and_a_revision_then() {
    let world = World::new(120.0).await;
    let from = noon().as_millis() - 60_000;
    let late = Fault::LatePoints { by_ms: 100_000 };
    world.fault(FaultRule::new(late).during(from, from + 3_600_000));
    let collector = world.collector().await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let start = deployment.occurred_at.unwrap().ceil_minute();
    let is_revised = |b: &&SeriesBatch| b.revision > 0 && b.is_final;
    let (batches, _) = world.batches(|b| b.iter().filter(is_revised).count() >= 3).await;
    let gaps = |b: &SeriesBatch| b.series.iter().flat_map(|s| &s.samples).filter(|s| s.is_none()).count();
    let revised = batches.iter().find(|b| b.revision == 1).unwrap();
    let before = batches.iter().find(|b| b.revision == 0 && b.window == revised.window).unwrap();
    assert!(gaps(before) > gaps(revised), "{before:?} {revised:?}");
    assert!(!before.is_final && revised.window.start() >= start);
    assert!(!revised.is_final, "what has changed is read yet again");
    let last = batches.iter().rfind(|b| b.window == revised.window).unwrap();
    assert_eq!((last.is_final, last.revision, &last.series), (true, 1, &revised.series));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coarser_source_is_published_in_its_own_steps() {
    let world = World::new(240.0).await;
    let source = Arc::new(Scripted::new(Duration::from_secs(300), |_, start| Some(start.as_millis() as f64)));
    let collector = world.collector_of(source.clone()).await;
    let mut deployment = world.deployment();
    deployment.verification.duration = Some(Duration::from_secs(600));
    world.announce(&deployment).await;
    let traffic = deployment.occurred_at.unwrap();
    let (batches, _) = world.batches(reached(traffic.plus_minutes(10))).await;
    let verification: Vec<&SeriesBatch> = batches.iter().filter(|b| b.window.start() >= traffic).collect();
    assert!(verification.iter().all(|b| b.resolution == Duration::from_secs(300)));
    for batch in &verification {
        assert_eq!(batch.window.start().as_millis() % 300_000, 0);
        let first = batch.series[0].samples[0].unwrap();
        assert_eq!(first as i64, batch.window.start().as_millis(), "a sample stays at its slot");
    }
    world.collection(|record| record.progress.done && record.progress.step_seconds == Some(300)).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_are_read_before_the_traffic_and_completed_with_it() {
    let world = World::new(240.0).await;
    let collector = world.collector().await;
    let started = Deployment { phase: Phase::Started, ..world.deployment() };
    world.announce(&started).await;
    let (ahead, _) = world.batches(|b| b.len() >= 3).await;
    assert!(ahead.iter().all(|b| b.window.end() <= started.occurred_at.unwrap()));
    let traffic = world.deployment();
    world.announce(&traffic).await;
    let start = traffic.occurred_at.unwrap().ceil_minute();
    let (batches, _) = world.batches(reached(start.plus_minutes(5))).await;
    let minutes: i64 = batches.iter().filter(|b| b.window.start() < start).map(|b| b.window.minutes()).sum();
    assert!((310..340).contains(&minutes), "{minutes}: nothing twice");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_of_the_past_comes_at_once() {
    let world = World::new(10.0).await;
    let collector = world.collector().await;
    let deployment = Deployment { occurred_at: Some(noon().plus_minutes(-60)), ..world.deployment() };
    world.announce(&deployment).await;
    let (batches, _) = world.batches(reached(noon().plus_minutes(-55))).await;
    assert_eq!(batches.len(), 4, "three references, and the five minutes in one");
    let record = world.collection(|record| record.progress.done).await;
    assert!(record.progress.to_reread.is_empty(), "all of it had settled");
    collector.stop().await;
}
