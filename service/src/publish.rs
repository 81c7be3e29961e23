//! Publishing with acknowledgement: again until it is acknowledged, or once only where a subject may hold one message.

use crate::nats::Nats;
use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use std::time::Duration;

/// Attempts before a publish is given back as failed; with the pauses about a minute.
const ATTEMPTS: u32 = 30;
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What became of a publish that may happen once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once {
    /// Stored, at this sequence of the stream.
    Stored(u64),
    /// The subject's last message is another one: somebody was there before.
    Taken,
}

/// Publishes, and again with the same headers until it is acknowledged. Give a `Nats-Msg-Id`, so that it is stored once.
///
/// # Errors
/// Where it was not acknowledged in about a minute.
pub async fn publish(nats: &Nats, subject: String, headers: HeaderMap, body: Bytes) -> anyhow::Result<()> {
    publish_at(nats, subject, headers, body).await.map(|_| ())
}

/// As `publish`; answers the sequence in the stream.
///
/// # Errors
/// Where it was not acknowledged in about a minute.
pub async fn publish_at(
    nats: &Nats,
    subject: String,
    headers: HeaderMap,
    body: Bytes,
) -> anyhow::Result<u64> {
    let message = PublishMessage::build().headers(headers).payload(body);
    match attempt(nats, subject, message).await? {
        Once::Stored(sequence) => Ok(sequence),
        Once::Taken => anyhow::bail!("refused for a sequence that was not asked for"),
    }
}

/// Publishes where the subject's last message is the one at `expected` (0: where it has none).
///
/// A retry after a lost acknowledgement finds its own message and answers `Taken`: read the subject to see whose it is.
///
/// # Errors
/// Where it was not acknowledged in about a minute.
pub async fn publish_once(
    nats: &Nats,
    subject: String,
    headers: HeaderMap,
    body: Bytes,
    expected: u64,
) -> anyhow::Result<Once> {
    let message =
        PublishMessage::build().headers(headers).payload(body).expected_last_subject_sequence(expected);
    attempt(nats, subject, message).await
}

async fn attempt(nats: &Nats, subject: String, message: PublishMessage) -> anyhow::Result<Once> {
    let mut pause = PAUSE;
    for attempt in 1..=ATTEMPTS {
        let sent = nats.jetstream.send_publish(subject.clone(), message.clone()).await;
        let error = match sent {
            Ok(acknowledgement) => match acknowledgement.await {
                Ok(ack) => return Ok(Once::Stored(ack.sequence)),
                Err(e) => e,
            },
            Err(e) => e,
        };
        if error.kind() == PublishErrorKind::WrongLastSequence || error.to_string().contains("10164") {
            return Ok(Once::Taken);
        }
        if error.kind() == PublishErrorKind::MaxPayloadExceeded {
            return Err(error.into());
        }
        tracing::warn!(subject, attempt, %error, "publish not acknowledged; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    anyhow::bail!("publishing on {subject} was not acknowledged after {ATTEMPTS} attempts")
}
