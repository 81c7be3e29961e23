//! A source that fails: it is told every minute, nothing is invented, and what was missed follows.

use crate::support::{TOKEN, World, eventually, watermark};
use std::sync::Arc;
use std::time::Duration;
use vouch_collector::source::scripted::Scripted;
use vouch_collector::source::{Failure, FailureKind};
use vouch_proto::{SeriesBatch, Window};
use vouch_simulator::{Fault, FaultRule};

fn named(batches: &[SeriesBatch], name: &str) -> usize {
    batches.iter().filter(|b| b.errors.iter().any(|e| e.name == name)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_told_by_readiness_and_batches_until_it_is_rotated() {
    let world = World::new(60.0).await;
    std::fs::write(&world.token_file, "dt0c01.WRONG.TOKEN").unwrap();
    let collector = world.collector().await;
    let health = collector.health.clone();
    eventually("readiness fails", || health.failures().contains_key("dynatrace")).await;
    let said = health.failures()["dynatrace"].clone();
    assert!(said.starts_with("unauthorized: ") && said.contains("collector.token_file"), "{said}");
    assert!(!said.contains("WRONG.TOKEN"), "{said}");

    let deployment = world.deployment();
    world.announce(&deployment).await;
    let start = deployment.occurred_at.unwrap().ceil_minute();
    let (told, _) = world.batches(|b| named(b, "unauthorized") >= 2).await;
    assert!(told.iter().all(|b| b.series.is_empty() && !b.errors[0].retryable));
    assert!(watermark(&told) <= Some(start), "the watermark stays");

    std::fs::write(&world.token_file, TOKEN).unwrap();
    let (batches, _) = world.batches(|b| watermark(b) >= Some(start.plus_minutes(5))).await;
    let covered: i64 = batches
        .iter()
        .filter(|b| b.window.start() >= start && !b.series.is_empty())
        .map(|b| b.window.minutes())
        .sum();
    assert!(covered >= 5, "what was missed follows");
    eventually("readiness is back", || health.failures().is_empty()).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_was_down_is_read_from_where_it_stopped() {
    let world = World::new(60.0).await;
    let collector = world.collector().await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let start = deployment.occurred_at.unwrap().ceil_minute();
    world.batches(|b| watermark(b) >= Some(start.plus_minutes(1))).await;
    world.fault(FaultRule::new(Fault::Down { close: false }));
    let (down, _) = world.batches(|b| named(b, "unavailable") >= 2).await;
    let outage = down.iter().rfind(|b| !b.errors.is_empty()).unwrap();
    assert!(outage.errors[0].retryable && outage.watermark <= outage.window.end());
    world.tenant.clear_faults();
    let (batches, _) = world.batches(|b| watermark(b) >= Some(start.plus_minutes(5))).await;
    let mut minutes: Vec<i64> = batches
        .iter()
        .filter(|b| !b.is_final && b.window.start() >= start && !b.series.is_empty())
        .flat_map(|b| b.window.start().minutes_since(start)..b.window.end().minutes_since(start))
        .collect();
    minutes.dedup();
    assert_eq!(minutes, [0, 1, 2, 3, 4], "every minute once, in order");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_stays_down_ends_the_collection_incomplete() {
    let world = World::new(240.0).await;
    world.fault(FaultRule::new(Fault::DropConnection));
    let collector = world.collector().await;
    world.announce(&world.deployment()).await;
    let record = world.collection(|record| record.progress.done).await;
    assert_eq!(record.progress.collected_until, None);
    let (batches, _) = world.batches(|b| !b.is_empty()).await;
    assert!(batches.iter().all(|b| b.series.is_empty()), "nothing is invented");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_the_references_is_told_and_asked_again() {
    let world = World::new(240.0).await;
    let source = Arc::new(Scripted::new(Duration::from_secs(60), |_, _| None));
    source.fail(2, &Failure::new(FailureKind::Throttled, "slow down"));
    let collector = world.collector_of(source.clone()).await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let start = deployment.occurred_at.unwrap().ceil_minute();
    let (batches, _) = world.batches(|b| watermark(b) >= Some(start.plus_minutes(5))).await;
    assert_eq!(named(&batches, "throttled"), 2);
    assert!(
        batches.iter().flat_map(|b| &b.series).all(|s| s.samples.iter().all(Option::is_none)),
        "gaps stay gaps"
    );
    let asked: Vec<_> = source.asked().iter().take(3).map(|a| a.window).collect();
    assert!(asked[0] == asked[1] && asked[1] == asked[2], "the same window until it comes");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minutes_of_which_every_metric_was_refused_are_asked_for_again() {
    let world = World::new(240.0).await;
    let source = Arc::new(Scripted::new(Duration::from_secs(60), |_, _| Some(1.0)));
    let mut deployment = world.deployment();
    let traffic = deployment.occurred_at.unwrap();
    deployment.verification.baseline = vec![Window::around(traffic.floor_minute(), -60, -5).unwrap()];
    let collector = world.collector_of(source.clone()).await;
    source.refuse(1, &Failure::new(FailureKind::UnitMismatch, "soon corrected"));
    source.refuse(1, &Failure::new(FailureKind::TooCoarse, "hours"));
    world.announce(&deployment).await;
    let start = traffic.ceil_minute();
    world.batches(|b| named(b, "too_coarse") >= 1).await;
    source.refuse(2, &Failure::new(FailureKind::UnknownMetric, "none"));
    let (batches, _) = world.batches(|b| watermark(b) >= Some(start.plus_minutes(5))).await;
    let told: Vec<&SeriesBatch> =
        batches.iter().filter(|b| b.errors.iter().any(|e| e.name == "unknown_metric")).collect();
    assert_eq!((told.len(), named(&batches, "unit_mismatch"), named(&batches, "too_coarse")), (2, 1, 1));
    assert!(told.iter().all(|b| b.errors.len() == 5 && b.watermark <= b.window.start()));
    let minutes: i64 = batches
        .iter()
        .filter(|b| b.window.start() >= start && b.revision == 0 && !b.series.is_empty())
        .map(|b| b.window.minutes())
        .sum();
    assert_eq!(minutes, 5, "none is lost");
    collector.stop().await;
}
