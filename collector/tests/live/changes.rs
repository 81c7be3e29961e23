//! Deployments that nobody announced: found in the tenant's events, in versions that change, in CDEvents on NATS.

use crate::support::{World, name, noon};
use async_trait::async_trait;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use vouch_collector::rules::Facts;
use vouch_collector::source::scripted::Scripted;
use vouch_collector::source::{Ask, Failure, FailureKind, KnownService, MetricSource, Reading};
use vouch_proto::Phase;
use vouch_proto::subject::DEAD_LETTERS;
use vouch_service::publish::publish;
use vouch_simulator::{Effect, Fault, FaultRule};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_the_tenant_was_told_of_is_found_once() {
    let world = World::new(60.0).await;
    let settings = "changes: {dynatrace: {events: true, every: 30s}}";
    let collector = world.finder(settings).await;
    let at = world.clock.now();
    world.tenant.deploy("checkout", "1.2.0", at.as_millis(), Effect::Healthy).unwrap();
    let all = world.announced_at_least(1).await;
    assert_eq!((all[0].service.as_str(), all[0].environment.as_str()), ("checkout", "prod"));
    assert_eq!((all[0].version.as_str(), all[0].phase), ("1.2.0", Phase::Traffic));
    assert_eq!((all[0].source.as_deref(), all[0].occurred_at), (Some("dynatrace"), Some(at)));
    collector.stop().await;
    // Another replica goes on from what this one has seen.
    let collector = world.finder(settings).await;
    world.tenant.deploy("checkout", "1.3.0", world.clock.now().as_millis(), Effect::Healthy).unwrap();
    let all = world.announced_at_least(2).await;
    let versions: Vec<&str> = all.iter().map(|one| one.version.as_str()).collect();
    assert_eq!(versions, ["1.2.0", "1.3.0"]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_while_the_tenant_is_away_is_found_afterwards() {
    let world = World::new(60.0).await;
    world.fault(FaultRule::new(Fault::MissingScope { scope: "events.read".into() }).on("/api/v2/events"));
    let collector = world.finder("changes: {dynatrace: {events: true, every: 30s}}").await;
    world.tenant.deploy("checkout", "1.2.0", world.clock.now().as_millis(), Effect::Healthy).unwrap();
    let health = collector.health.clone();
    crate::support::eventually("the failure", || {
        health.metrics().unwrap().contains(r#"change_looks_total{tenant="simulated",outcome="failed"} 2"#)
    })
    .await;
    assert_eq!(world.announced().await, []);
    world.tenant.clear_faults();
    assert_eq!(world.announced_at_least(1).await[0].version.as_str(), "1.2.0");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_are_written_into_the_tenant_once_and_not_found_there_again() {
    let world = World::new(60.0).await;
    let settings = "changes: {dynatrace: {events: true, annotate: true, every: 30s}}";
    let collector = world.finder(settings).await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let ingested = || world.tenant.calls().iter().filter(|call| call.path == "/api/v2/events/ingest").count();
    crate::support::eventually("the event", || ingested() > 0).await;
    world.announce(&vouch_proto::Deployment { phase: Phase::Finished, ..deployment.clone() }).await;
    let looks = || world.tenant.calls().iter().filter(|call| call.path == "/api/v2/events").count();
    let seen = looks();
    crate::support::eventually("another look", || looks() > seen + 2).await;
    assert_eq!(ingested(), 1);
    let all = world.announced().await;
    assert!(all.iter().all(|one| one.source.is_none()), "{all:?}");
    collector.stop().await;
}

/// A service whose version changes when the test says so.
#[derive(Debug)]
struct Versioned {
    series: Scripted,
    version: AtomicUsize,
}

#[async_trait]
impl MetricSource for Versioned {
    async fn read(&self, ask: &Ask) -> Result<Reading, Failure> {
        self.series.read(ask).await
    }

    async fn services(&self) -> Result<Vec<KnownService>, Failure> {
        let mut facts = Facts::default();
        match self.version.load(Ordering::Relaxed) {
            0 => return Err(Failure::new(FailureKind::Unavailable, "later")),
            // While its processes disagree there is none.
            2 => {}
            number => {
                facts.metadata.insert("releasesVersion".into(), format!("1.{number}"));
            }
        }
        Ok(vec![KnownService { name: "checkout".into(), entity_id: "SERVICE-1".into(), facts, tenant: 0 }])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_than_before_is_a_deployment() {
    let world = World::new(600.0).await;
    let series = Scripted::new(Duration::from_secs(60), |_, _| Some(1.0));
    let source = Arc::new(Versioned { series, version: AtomicUsize::new(1) });
    let settings = "changes: {dynatrace: {releases: true}}\nservices:\n- {service: name, version: property:releasesVersion}";
    let collector = world.finder_of(source.clone(), settings).await;
    let minutes = |count: u64| Duration::from_secs(count * 60) / 600;
    tokio::time::sleep(minutes(16)).await;
    assert_eq!(world.announced().await, [], "the version that was there is no deployment");
    source.version.store(2, Ordering::Relaxed);
    tokio::time::sleep(minutes(12)).await;
    source.version.store(3, Ordering::Relaxed);
    let all = world.announced_at_least(1).await;
    assert_eq!((all[0].version.as_str(), all[0].previous_version.as_deref()), ("1.3", Some("1.1")));
    assert_eq!(all[0].source.as_deref(), Some("releases"));
    let ago = world.clock.now().since(all[0].occurred_at.unwrap());
    assert!(ago >= Duration::from_secs(60) && ago < Duration::from_secs(3600), "{ago:?}");
    collector.stop().await;
    // Changed while nobody looked.
    source.version.store(4, Ordering::Relaxed);
    let collector = world.finder_of(source, settings).await;
    let all = world.announced_at_least(2).await;
    assert_eq!((all[1].version.as_str(), all.len()), ("1.4", 2));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cdevents_on_nats_are_deployments_and_nonsense_is_a_dead_letter() {
    let world = World::new(1.0).await;
    let collector = world.finder("changes: {cdevents: {environments: {'cluster-*': prod}}}").await;
    let event = json!({
        "context": {"type": "dev.cdevents.service.deployed.0.2.0", "timestamp": noon().to_string()},
        "subject": {"id": "shop/checkout", "content": {
            "environment": {"id": "cluster-1"}, "artifactId": "pkg:oci/checkout@sha256%3Aaa?tag=2.0"}},
    });
    let tell = async |body: String| {
        publish(&world.nats, "vouch.v1.change.ci".into(), async_nats::HeaderMap::new(), body.into())
            .await
            .unwrap();
    };
    tell("{".to_owned()).await;
    tell(event.to_string().replace("pkg:oci/checkout@sha256%3Aaa?tag=2.0", "")).await;
    tell(event.to_string().replace("deployed", "removed")).await;
    tell(event.to_string()).await;
    let all = world.announced_at_least(1).await;
    assert_eq!((all[0].service.as_str(), all[0].environment.as_str()), ("checkout", "prod"));
    assert_eq!((all[0].version.as_str(), all.len()), ("2.0", 1));
    let dead = world.nats.jetstream.get_stream(DEAD_LETTERS.name).await.unwrap();
    assert_eq!(dead.get_info().await.unwrap().state.messages, 2);
    assert_eq!(all[0].environment, name("prod"));
    collector.stop().await;
}
