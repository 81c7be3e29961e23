//! The notifier: from a verdict, by the policy, over the ledger, to an action and its record.

mod accounts;
pub mod action;
pub mod alert;
mod audit;
pub mod config;
mod delivery;
#[cfg(test)]
mod fixtures;
pub mod incident;
mod intake;
pub mod ledger;
mod ledger_store;
mod metrics;
mod outbox;
pub mod policy;
pub mod retry;
mod runner;
mod teller;
pub mod trial;
mod world;

pub use config::NotifierSettings;

use crate::action::Tools;
use crate::delivery::Delivery;
use crate::intake::{Failures, Intake};
use crate::metrics::Metrics;
use crate::outbox::NatsOutbox;
use crate::runner::{Runner, Surroundings};
use crate::world::NatsWorld;
use std::sync::Arc;
use vouch_service::run::Context;

/// Starts the notifier's tasks in the context and returns.
///
/// # Errors
/// Where the buckets cannot be opened or an action cannot be set up.
pub async fn build(settings: NotifierSettings, context: Context) -> anyhow::Result<()> {
    // A second notifier in the process finds the provider installed; so does one beside another TLS user.
    rustls::crypto::ring::default_provider().install_default().ok();
    let metrics = Metrics::register(&context.health);
    let around = Surroundings {
        world: Arc::new(NatsWorld::open(context.nats.clone()).await?),
        outbox: Arc::new(NatsOutbox::open(context.nats.clone()).await?),
        tools: Tools { nats: Some(context.nats.clone()) },
        clock: context.clock.clone(),
        metrics: metrics.clone(),
        stop: context.tasks.stop().clone(),
        instance: context.nats.client.new_inbox().trim_start_matches("_INBOX.").to_owned(),
    };
    let runner = Arc::new(Runner::new(&settings, around)?);
    let tasks = context.tasks.clone();
    Delivery::new(&context, metrics.clone(), runner.clone()).start();
    let intake = Intake {
        nats: context.nats,
        health: context.health,
        tasks: context.tasks,
        metrics,
        runner,
        failures: Failures::default(),
    };
    tasks.spawn_vital("verdicts", intake.run(settings.max_in_flight));
    Ok(())
}
