//! The collector: from a deployment to the series of its verification, read from Dynatrace and published as facts.

mod around;
mod batch;
mod catalogue;
mod check;
mod collect;
pub mod config;
mod intake;
pub mod metrics;
mod progress;
pub mod propose;
pub mod record;
mod round;
pub mod rules;
pub mod schedule;
pub mod source;
mod supervisor;
mod timing;
pub mod watermark;

pub use check::{Finding, check};
pub use config::CollectorSettings;

use crate::around::Misses;
use crate::catalogue::Naming;
use crate::collect::Shared;
use crate::config::TenantSettings;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::source::MetricSource;
use crate::source::dynatrace::{Dynatrace, watch_token};
use crate::source::tenants::Tenants;
use std::sync::{Arc, Mutex};
use vouch_proto::Name;
use vouch_proto::subject::{CATALOGUE_BUCKET, COLLECTION_BUCKET, DEPLOYMENT_BUCKET, VERIFICATION_BUCKET};
use vouch_service::lease::{Leases, Owned};
use vouch_service::run::Context;

/// Name under which the replicas share the partitions.
const KIND: &str = "collector";

/// Starts the collector's tasks against the tenant of the settings.
///
/// # Errors
/// Where NATS does not answer, or the machine's certificates cannot be read.
pub async fn build(settings: CollectorSettings, context: Context) -> anyhow::Result<()> {
    let metrics = Metrics::default();
    metrics.register(&context.health);
    let (leases, owned) = Leases::join(&context.nats, KIND, context.health.clone()).await?;
    let mut sources: Vec<(Option<Name>, Arc<dyn MetricSource>)> = Vec::new();
    for tenant in &settings.tenants {
        let (clock, health) = (context.clock.clone(), context.health.clone());
        let source = Dynatrace::new(tenant, clock, health, metrics.clone())?;
        let source = Arc::new(source.among(leases.replicas()));
        let (watched, clock, stop) = (source.clone(), context.clock.clone(), context.tasks.stop().clone());
        context.tasks.spawn(async move { watch_token(&watched, clock, stop).await });
        sources.push((tenant.environment.clone(), source));
    }
    let source: Arc<dyn MetricSource> = match sources.as_slice() {
        [(_, only)] => only.clone(),
        several => {
            let held = several.iter().filter_map(|(held, source)| Some((held.clone()?, source.clone())));
            Arc::new(Tenants::new(held.collect()))
        }
    };
    start(settings, context, (source, metrics), (leases, owned)).await
}

/// Starts the collector's tasks against any source.
///
/// # Errors
/// Where NATS does not answer.
pub async fn build_with(
    settings: CollectorSettings,
    context: Context,
    source: Arc<dyn MetricSource>,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let shares = Leases::join(&context.nats, KIND, context.health.clone()).await?;
    start(settings, context, (source, metrics), shares).await
}

async fn start(
    settings: CollectorSettings,
    context: Context,
    (source, metrics): (Arc<dyn MetricSource>, Metrics),
    (leases, owned): (Leases, Owned),
) -> anyhow::Result<()> {
    let Context { nats, clock, tasks, health: _ } = context;
    let stop = tasks.stop().clone();
    let collections = nats.bucket(&COLLECTION_BUCKET).await?;
    let verifications = nats.bucket(&VERIFICATION_BUCKET).await?;
    let deployments = nats.bucket(&DEPLOYMENT_BUCKET).await?;
    let intake = Intake {
        nats: nats.clone(),
        clock: clock.clone(),
        templates: settings.templates.clone(),
        deployments: deployments.clone(),
        collections: collections.clone(),
        catalogue: nats.bucket(&CATALOGUE_BUCKET).await?,
    };
    let shared = Arc::new(Shared {
        nats,
        clock,
        source,
        source_names: settings.tenants.iter().map(|t| (t.environment.clone(), t.name.clone())).collect(),
        pace: settings.pace,
        watermarks: Mutex::new(settings.watermarks),
        templates: settings.templates,
        collections,
        verifications,
        deployments,
        neighbours: settings.neighbours,
        misses: Misses::default(),
        metrics,
    });
    let naming = |tenant: TenantSettings| {
        let TenantSettings { environment, services: mappings, rules, .. } = tenant;
        Naming { environment, mappings, rules }
    };
    let namings: Vec<Naming> = settings.tenants.into_iter().map(naming).collect();
    tasks.spawn_vital("leases", leases.run(stop.clone()));
    tasks.spawn_vital("deployments", intake.run(stop.clone()));
    tasks.spawn_vital("catalogue", catalogue::run(shared.clone(), namings, owned.clone(), stop));
    tasks.spawn_vital("collections", supervisor::run(shared, tasks.clone(), owned));
    Ok(())
}
