//! Two replicas share the calls that a tenant may be asked in a minute.

use crate::support::{World, name, watermark};
use std::time::Duration;
use vouch_proto::{Deployment, SeriesBatch};

/// Services of the scenario that are deployed at the same time.
const SERVICES: [&str; 6] = ["checkout", "cart", "orders", "search", "catalog", "profile"];
const MINUTE: i64 = 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_together_ask_no_more_than_the_budget() {
    let mut world = World::of(vouch_simulator::Scenario::named("shared-database").unwrap(), 40.0).await;
    world.more = ", calls_per_minute: 10, neighbours: 0".into();
    let first = world.collector().await;
    let second = world.collector().await;
    // The first hears of the second when it renews its leases, which real time decides; what it asked before is over
    // a minute later.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let shared_from = world.clock.now();
    for service in SERVICES {
        let deployment = Deployment::new(name("prod"), name(service), name("2.0.0"));
        let mut deployment = Deployment { occurred_at: Some(world.clock.now()), ..deployment };
        deployment.verification.duration = Some(Duration::from_secs(300));
        world.announce(&deployment).await;
    }
    let end = world.clock.now().floor_minute().plus_minutes(6);
    let is_read = |batches: &[SeriesBatch], service: &str| {
        let own: Vec<SeriesBatch> =
            batches.iter().filter(|b| b.service.as_str() == service).cloned().collect();
        watermark(&own) >= Some(end)
    };
    let (batches, _) = world.batches(|b| SERVICES.iter().all(|service| is_read(b, service))).await;
    let errors: Vec<_> = batches.iter().flat_map(|b| &b.errors).collect();
    assert!(errors.is_empty(), "late, and nothing lost: {errors:?}");

    let begun: Vec<i64> = world.tenant.calls().iter().map(|call| call.at_ms).collect();
    let from = shared_from.as_millis();
    let in_minute = |start: i64| begun.iter().filter(|at| (start..start + MINUTE).contains(*at)).count();
    // A call reaches the tenant some milliseconds after its turn, up to a second of this clock.
    let most = begun.iter().filter(|at| **at >= from).map(|at| in_minute(*at)).max().unwrap();
    assert!((7..=12).contains(&most), "{most} calls in a minute");
    assert!(begun.len() > 30, "{} calls: more than three minutes' worth", begun.len());
    first.stop().await;
    second.stop().await;
}
