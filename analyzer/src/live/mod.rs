//! The running analyzer: takes deployments in, owns verifications, publishes verdicts.

pub(crate) mod evidence;
mod history;
mod intake;
mod levels;
mod owner;
pub(crate) mod store;
mod task;

pub(crate) use intake::real_instant;

use crate::config::AnalyzerSettings;
use crate::grpc;
use std::sync::Arc;
use store::Store;
use vouch_proto::Timestamp;
use vouch_service::lease::Leases;
use vouch_service::run::Context;

/// What the parts of the running analyzer share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: AnalyzerSettings,
    pub(crate) context: Context,
    pub(crate) store: Store,
    pub(crate) metrics: crate::metrics::Metrics,
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }
}

/// Starts the analyzer in the context's tasks.
///
/// # Errors
/// Where its port or its buckets cannot be opened.
pub async fn build(settings: AnalyzerSettings, context: Context) -> anyhow::Result<()> {
    let tasks = context.tasks.clone();
    let store = Store::open(&context.nats).await?;
    let metrics = crate::metrics::Metrics::register(&context.health);
    let shared = Arc::new(Shared { settings, context, store, metrics });
    let health = shared.context.health.clone();
    let (leases, owned) = Leases::join(&shared.context.nats, "analyzer", health).await?;
    tasks.spawn_vital("leases", leases.run(tasks.stop().clone()));
    tasks.spawn_vital("intake", intake::run(shared.clone()));
    tasks.spawn_vital("owner", owner::run(shared.clone(), owned));
    let listener = grpc::bind(shared.settings.grpc_listen).await?;
    tasks.spawn_vital("grpc", grpc::serve(shared, listener));
    Ok(())
}
