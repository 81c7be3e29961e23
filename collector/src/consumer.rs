//! Reading a durable consumer: each message is acknowledged when it is dealt with, comes again while a dependency fails,
//! and goes to the dead letters where it can never be used.

use async_nats::jetstream::{AckKind, Message};
use async_trait::async_trait;
use futures::StreamExt as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vouch_proto::subject::ConsumerSpec;
use vouch_service::nats::{Nats, dead_letter, is_poison};

const REOPEN_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a message was not taken in.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It can never be used.
    Unusable(String),
    /// A dependency failed: again later, as often as it takes.
    Dependency(anyhow::Error),
    /// Nobody knows; after many times it counts as poison.
    Unexplained(anyhow::Error),
}

/// Who reads a consumer.
#[async_trait]
pub(crate) trait Reader: Send + Sync {
    /// Deals with a message. Again is harmless.
    async fn take_in(&self, message: &Message) -> Result<(), Refused>;
}

/// Gives every message to the reader, one after the other, until `stop`.
pub(crate) async fn run(
    nats: &Nats,
    spec: &ConsumerSpec,
    reader: &dyn Reader,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        // What is cut off by the stop was not acknowledged, and comes again.
        let ended = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = messages(nats, spec, reader) => ended,
        };
        if let Err(error) = ended {
            let consumer = spec.name;
            tracing::warn!(consumer, error = format!("{error:#}"), "messages cannot be read; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(REOPEN_AFTER) => {}
        }
    }
}

/// Handles messages until the consumer fails.
async fn messages(nats: &Nats, spec: &ConsumerSpec, reader: &dyn Reader) -> anyhow::Result<()> {
    let consumer = nats.consumer(spec).await?;
    let mut messages = consumer.stream().max_messages_per_batch(16).messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        let taken_in = reader.take_in(&message).await;
        if let Err(error) = settle(nats, spec, &message, taken_in).await {
            tracing::warn!(consumer = spec.name, %error, "a message was not acknowledged and will come again");
        }
    }
    anyhow::bail!("the consumer ended")
}

async fn settle(
    nats: &Nats,
    spec: &ConsumerSpec,
    message: &Message,
    taken_in: Result<(), Refused>,
) -> Result<(), async_nats::Error> {
    let consumer = spec.name;
    let reason = match taken_in {
        Ok(()) => return message.ack().await,
        Err(Refused::Unusable(reason)) => reason,
        Err(Refused::Dependency(error)) => {
            tracing::warn!(
                consumer,
                error = format!("{error:#}"),
                "a message was not taken in; trying again"
            );
            return message.ack_with(AckKind::Nak(Some(RETRY_AFTER))).await;
        }
        Err(Refused::Unexplained(error)) => {
            let delivered = message.info().map_or(1, |info| info.delivered);
            tracing::error!(consumer, error = format!("{error:#}"), delivered, "a message was not taken in");
            if !is_poison(delivered, false) {
                return message.ack_with(AckKind::Nak(Some(RETRY_AFTER))).await;
            }
            format!("not taken in after {delivered} deliveries: {error:#}")
        }
    };
    dead_letter(nats, consumer, message, &reason).await?;
    message.ack_with(AckKind::Term).await
}
