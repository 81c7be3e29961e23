//! Takes deployments in: each message becomes, or joins, a deployment and its verification. Acknowledged only then.

use super::Shared;
use super::store::Announcement;
use async_nats::jetstream::AckKind;
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use vouch_proto::announce::happened_at;
use vouch_proto::subject::ANALYZER_DEPLOYMENTS;
use vouch_proto::{Deployment, Invalid, Timestamp, envelope, v1};
use vouch_service::nats::{dead_letter, header, is_poison};

const RETRY_AFTER: Duration = Duration::from_secs(2);
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// Messages fetched ahead: few, so that none waits longer than its time to acknowledge.
const AHEAD: usize = 16;

/// Why a message was not taken in.
enum Refused {
    /// It can never be: for the dead letters.
    Unusable(String),
    /// NATS or a bucket was not there: again later, however often.
    Later(anyhow::Error),
    /// A record that it needs is not readable: again later, but not for ever.
    Damaged(anyhow::Error),
}

pub(super) async fn run(shared: Arc<Shared>) -> anyhow::Result<()> {
    let stop = shared.context.tasks.stop().clone();
    loop {
        let consumer = shared.context.nats.consumer(&ANALYZER_DEPLOYMENTS).await;
        let messages = match consumer {
            Ok(consumer) => {
                consumer.stream().max_messages_per_batch(AHEAD).messages().await.map_err(Into::into)
            }
            Err(e) => Err(e),
        };
        match messages {
            Ok(mut messages) => loop {
                let message = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    message = messages.next() => message,
                };
                match message {
                    Some(Ok(message)) => handle(&shared, &message).await,
                    Some(Err(error)) => tracing::warn!(%error, "deployments: reading again"),
                    None => break,
                }
            },
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "deployments cannot be read; trying again")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(REOPEN_AFTER) => {}
        }
    }
}

async fn handle(shared: &Shared, message: &async_nats::jetstream::Message) {
    shared.metrics.deployments.inc();
    let answer = match take_in(shared, message).await {
        Ok(()) => message.ack().await,
        Err(Refused::Unusable(reason)) => bury(shared, message, &reason).await,
        Err(Refused::Later(error)) => later(message, &error).await,
        Err(Refused::Damaged(error)) => {
            let delivered = message.info().map_or(1, |info| info.delivered);
            if is_poison(delivered, false) {
                bury(shared, message, &format!("not taken in after {delivered} deliveries: {error:#}")).await
            } else {
                later(message, &error).await
            }
        }
    };
    if let Err(error) = answer {
        tracing::warn!(%error, "a deployment was not acknowledged and will come again");
    }
}

async fn later(
    message: &async_nats::jetstream::Message,
    error: &anyhow::Error,
) -> Result<(), async_nats::Error> {
    tracing::warn!(error = format!("{error:#}"), "deployment not taken in; trying again");
    message.ack_with(AckKind::Nak(Some(RETRY_AFTER))).await
}

async fn bury(
    shared: &Shared,
    message: &async_nats::jetstream::Message,
    reason: &str,
) -> Result<(), async_nats::Error> {
    shared.metrics.dead_letters.inc();
    match dead_letter(&shared.context.nats, ANALYZER_DEPLOYMENTS.name, message, reason).await {
        Ok(()) => message.ack_with(AckKind::Term).await,
        Err(e) => Err(e.into()),
    }
}

async fn take_in(shared: &Shared, message: &async_nats::jetstream::Message) -> Result<(), Refused> {
    let wire: v1::Deployment =
        envelope::open(header(message, "content-type"), &message.payload).map_err(Refused::Unusable)?;
    let deployment = Deployment::try_from(wire).map_err(|e| Refused::Unusable(e.to_string()))?;
    shared.settings.templates.of(&deployment).map_err(|e| Refused::Unusable(format!("verification.{e}")))?;
    let info = message.info().map_err(|e| Refused::Unusable(e.to_string()))?;
    let published = real_instant(info.published);
    let news = Announcement {
        at: happened_at(deployment.occurred_at, shared.context.clock.at_real(published))
            .map_err(|e| Refused::Unusable(e.to_string()))?,
        deployment,
        published,
        now: shared.now(),
        traceparent: header(message, "traceparent").map(ToOwned::to_owned),
    };
    shared.store.take_in(&news, &shared.settings).await.map(|_| ()).map_err(|error| {
        if error.is::<Invalid>() || error.is::<serde_json::Error>() {
            Refused::Damaged(error)
        } else {
            Refused::Later(error)
        }
    })
}

/// The server's stamp of a message.
pub(crate) fn real_instant(stamp: async_nats::datetime::DateTime) -> Timestamp {
    Timestamp::from_millis(i64::try_from(stamp.unix_timestamp_nanos() / 1_000_000).unwrap_or(0))
}
