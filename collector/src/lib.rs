//! The collector: from a deployment to the series of its verification, read from Dynatrace and published as facts.

mod around;
mod batch;
mod catalogue;
pub mod changes;
mod check;
mod collect;
pub mod config;
mod consumer;
mod intake;
mod logs;
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
use crate::catalogue::{Keeper, Naming};
use crate::changes::start::Finders;
use crate::collect::Shared;
use crate::config::{LogSourceKind, TenantSettings};
use crate::intake::Intake;
use crate::logs::meter::ScanMeter;
use crate::logs::{Bus, LogCollector, LogPace, WantedLogs};
use crate::metrics::Metrics;
use crate::source::MetricSource;
use crate::source::dynatrace::{Dynatrace, watch_token};
use crate::source::logs::{LogSource, Meter};
use crate::source::tenants::Tenants;
use std::sync::{Arc, Mutex};
use vouch_proto::Name;
use vouch_proto::subject::{
    CATALOGUE_BUCKET, COLLECTION_BUCKET, DEPLOYMENT_BUCKET, LOG_BUCKET, SCAN_BUCKET, VERIFICATION_BUCKET,
};
use vouch_service::clock::SharedClock;
use vouch_service::lease::{Leases, Owned};
use vouch_service::nats::Nats;
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
    let mut log_sources: LogSources = Vec::new();
    for tenant in &settings.tenants {
        let (clock, health) = (context.clock.clone(), context.health.clone());
        let source = Dynatrace::new(tenant, clock, health, metrics.clone())?;
        let source = Arc::new(source.among(leases.replicas()));
        let (watched, clock, stop) = (source.clone(), context.clock.clone(), context.tasks.stop().clone());
        context.tasks.spawn(async move { watch_token(&watched, clock, stop).await });
        let meter = scan_meter((&context.nats, &context.clock), tenant, &metrics).await?;
        source.watch_over(meter);
        if tenant.logs.source != LogSourceKind::Off {
            log_sources.push((tenant.clone(), source.clone()));
        }
        sources.push((tenant.environment.clone(), source));
    }
    let source: Arc<dyn MetricSource> = match sources.as_slice() {
        [(_, only)] => only.clone(),
        several => {
            let held = several.iter().filter_map(|(held, source)| Some((held.clone()?, source.clone())));
            Arc::new(Tenants::new(held.collect()))
        }
    };
    let sources = (source, log_sources);
    build_all(settings, context, (sources, metrics), (leases, owned)).await
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
    build_all(settings, context, ((source, Vec::new()), metrics), shares).await
}

/// The tenants whose logs are read.
type LogSources = Vec<(TenantSettings, Arc<dyn LogSource>)>;
/// Where series and lines of logs come from.
type Sources = (Arc<dyn MetricSource>, LogSources);

async fn build_all(
    settings: CollectorSettings,
    context: Context,
    ((source, log_sources), metrics): (Sources, Metrics),
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
    let naming = |tenant: &TenantSettings| {
        let TenantSettings { name, environment, services: mappings, rules, .. } = tenant.clone();
        (name, Naming { environment, mappings, rules })
    };
    let tenants: Vec<(String, Naming)> = settings.tenants.iter().map(naming).collect();
    let finders = Finders {
        nats: nats.clone(),
        clock: clock.clone(),
        source: source.clone(),
        metrics: metrics.clone(),
    };
    let changes = (settings.changes, settings.templates.clone());
    let releases = finders.start(changes, tenants.clone(), &tasks, owned.clone()).await?;
    let wanted_logs = Arc::<WantedLogs>::default();
    for (tenant, source) in log_sources {
        let pace = LogPace::of(&tenant.logs, settings.pace.give_up_after);
        let wanted = (wanted_logs.clone(), pace);
        let collector = log_collector((&nats, &clock), (tenant, source), wanted, &metrics).await?;
        tasks.spawn_vital("logs", logs::run(collector, owned.clone(), stop.clone()));
    }
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
        wanted_logs,
    });
    tasks.spawn_vital("leases", leases.run(stop.clone()));
    tasks.spawn_vital("deployments", intake.run(stop.clone()));
    let namings = tenants.into_iter().map(|(_, naming)| naming).collect();
    let keeper = Keeper { namings, releases };
    tasks.spawn_vital("catalogue", catalogue::run(shared.clone(), keeper, owned.clone(), stop));
    tasks.spawn_vital("collections", supervisor::run(shared, tasks.clone(), owned));
    Ok(())
}

/// The account of what is scanned of a tenant.
async fn scan_meter(
    (nats, clock): (&Nats, &SharedClock),
    tenant: &TenantSettings,
    metrics: &Metrics,
) -> anyhow::Result<Arc<dyn Meter>> {
    let store = nats.bucket(&SCAN_BUCKET).await?;
    let (name, limits) = (tenant.name.clone(), tenant.billed.clone());
    Ok(Arc::new(ScanMeter::new((store, clock.clone()), name, limits, metrics.clone())))
}

/// What reads a tenant's logs.
async fn log_collector(
    (nats, clock): (&Nats, &SharedClock),
    (tenant, source): (TenantSettings, Arc<dyn LogSource>),
    (wanted, pace): (Arc<WantedLogs>, LogPace),
    metrics: &Metrics,
) -> anyhow::Result<LogCollector> {
    let meter = scan_meter((nats, clock), &tenant, metrics).await?;
    Ok(LogCollector {
        bus: Bus {
            nats: nats.clone(),
            clock: clock.clone(),
            records: nats.bucket(&LOG_BUCKET).await?,
            source: tenant.name.clone(),
            metrics: metrics.clone(),
        },
        logs: source,
        meter,
        settings: tenant.logs,
        pace,
        environment: tenant.environment,
        wanted,
    })
}
