//! Reads verdicts from the stream, has them handled, and acknowledges them once everything about them is recorded.

use crate::ledger_store::Later;
use crate::metrics::Metrics;
use crate::runner::{Case, Runner};
use anyhow::Context as _;
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::{AckKind, Message};
use futures::{FutureExt as _, StreamExt as _};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vouch_proto::subject::NOTIFIER_VERDICTS;
use vouch_proto::{Name, Verdict, envelope, subject, v1};
use vouch_service::health::Health;
use vouch_service::nats::{self, Nats};
use vouch_service::shutdown::Tasks;

/// Readiness: verdicts are being read.
const READS: &str = "verdicts";
/// Readiness: what the last verdict needed could be reached.
const HANDLES: &str = "ledger";
/// How long one request for messages waits at the server.
const EXPIRY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest a message is given back for while somebody else works on it: most calls are over long before their lease.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The reader.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    pub(crate) nats: Nats,
    pub(crate) health: Health,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    pub(crate) runner: Arc<Runner>,
    pub(crate) failures: Failures,
}

/// Failures without a known cause, by the position of the verdict in the stream: at most as many as are in flight.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failures(Arc<Mutex<BTreeMap<u64, i64>>>);

impl Failures {
    /// Counts one, and says whether the message counts as poison now.
    pub(crate) fn is_poison_now(&self, position: u64) -> bool {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(position).or_default();
        *count += 1;
        let poison = nats::is_poison(*count, false);
        if poison {
            failures.remove(&position);
        }
        poison
    }

    pub(crate) fn forget(&self, position: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&position);
    }
}

impl Intake {
    /// Reads until the stop signal, at most `max_in_flight` verdicts at once.
    pub(crate) async fn run(self, max_in_flight: usize) -> anyhow::Result<()> {
        self.health.fails(READS, "not read yet");
        let permits = Arc::new(Semaphore::new(max_in_flight));
        let stop = self.tasks.stop().clone();
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                ended = self.read(&permits) => ended,
                () = stop.cancelled() => return Ok(()),
            };
            if let Err(error) = ended {
                tracing::warn!(error = format!("{error:#}"), "verdicts cannot be read; trying again");
                self.health.fails(READS, format!("{error:#}"));
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        Ok(())
    }

    async fn read(&self, permits: &Arc<Semaphore>) -> anyhow::Result<()> {
        let consumer = self.nats.consumer(&NOTIFIER_VERDICTS).await?;
        self.health.ok(READS);
        loop {
            self.batch(&consumer, permits).await?;
        }
    }

    /// Asks for as many messages as there is room for, so that none waits here while its time to acknowledge runs.
    async fn batch(&self, consumer: &Consumer<pull::Config>, permits: &Arc<Semaphore>) -> anyhow::Result<()> {
        let mut room = vec![Arc::clone(permits).acquire_owned().await?];
        while let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            room.push(permit);
        }
        let batch = consumer.batch().max_messages(room.len()).expires(EXPIRY).messages().await;
        let mut batch = batch.context("the verdict stream cannot be read")?;
        while let Some(message) = batch.next().await {
            let message =
                message.map_err(anyhow::Error::from_boxed).context("the verdict stream cannot be read")?;
            let Some(permit) = room.pop() else { break };
            self.tasks.spawn(self.clone().handle(message, permit));
        }
        Ok(())
    }

    async fn handle(self, message: Message, _permit: OwnedSemaphorePermit) {
        self.metrics.begun();
        let (delivered, position) = message.info().map_or((1, 0), |i| (i.delivered, i.stream_sequence));
        let answered = match decode(&message) {
            Err(reason) => self.give_up(&message, &reason).await,
            Ok(case) => {
                let work = AssertUnwindSafe(self.runner.handle(&case)).catch_unwind();
                match kept_alive(&message, work).await {
                    Ok(Ok(())) => {
                        self.failures.forget(position);
                        self.acknowledge(&message).await
                    }
                    Ok(Err(later)) => self.put_off(&message, delivered, later).await,
                    Err(_) if self.failures.is_poison_now(position) => {
                        let reason = "the notifier failed at it again and again without a known cause";
                        self.give_up(&message, reason).await
                    }
                    Err(_) => give_back(&message, backoff(delivered)).await,
                }
            }
        };
        if let Err(error) = answered {
            tracing::warn!(error = format!("{error:#}"), "a verdict is not acknowledged; it comes again");
        }
        self.metrics.over();
    }

    async fn acknowledge(&self, message: &Message) -> anyhow::Result<()> {
        self.health.ok(HANDLES);
        message.double_ack().await.map_err(anyhow::Error::from_boxed)
    }

    async fn put_off(&self, message: &Message, delivered: i64, later: Later) -> anyhow::Result<()> {
        match later {
            Later::Wait(wait) => give_back(message, wait.min(LONGEST_WAIT)).await,
            Later::Dependency(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(delivered, error = reason, "a verdict is put off");
                self.health.fails(HANDLES, reason);
                give_back(message, backoff(delivered)).await
            }
        }
    }

    async fn give_up(&self, message: &Message, reason: &str) -> anyhow::Result<()> {
        nats::dead_letter(&self.nats, NOTIFIER_VERDICTS.name, message, reason).await?;
        self.metrics.dead_lettered();
        message.ack_with(AckKind::Term).await.map_err(anyhow::Error::from_boxed)
    }
}

pub(crate) async fn give_back(message: &Message, wait: Duration) -> anyhow::Result<()> {
    message.ack_with(AckKind::Nak(Some(wait))).await.map_err(anyhow::Error::from_boxed)
}

/// Tells the server now and then that the message is being worked on.
pub(crate) async fn kept_alive<T>(message: &Message, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(NOTIFIER_VERDICTS.ack_wait / 3) => {
                if let Err(error) = message.ack_with(AckKind::Progress).await {
                    tracing::warn!(%error, "the server was not told that a verdict is being worked on");
                }
            }
        }
    }
}

pub(crate) fn backoff(delivered: i64) -> Duration {
    let doublings = u32::try_from(delivered.clamp(1, 6) - 1).unwrap_or(0);
    (PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// The verdict of a message, or why it can never be used.
fn decode(message: &Message) -> Result<Case, String> {
    let content_type = nats::header(message, "content-type");
    let wire = envelope::open::<v1::Verdict>(content_type, &message.payload)?;
    let verdict = Verdict::try_from(wire).map_err(|invalid| invalid.to_string())?;
    check(&message.subject, &verdict)?;
    let traceparent = nats::header(message, "traceparent").filter(|t| is_traceparent(t)).map(str::to_owned);
    Ok(Case { verdict: Arc::new(verdict), traceparent, about: None })
}

/// The ids become keys of the ledger; and who may publish for one service must not speak for another.
fn check(subject: &str, verdict: &Verdict) -> Result<(), String> {
    for (field, id) in
        [("verification_id", &verdict.verification_id), ("deployment_id", &verdict.deployment_id)]
    {
        Name::new(id.clone()).map_err(|invalid| format!("{field}{invalid}"))?;
    }
    let about = (verdict.environment.clone(), verdict.service.clone());
    if subject::environment_and_service(subject) != Some(about) {
        return Err(format!(
            "environment and service: {} and {} are not those of the subject {subject}",
            verdict.environment, verdict.service
        ));
    }
    Ok(())
}

fn is_traceparent(text: &str) -> bool {
    text.len() == 55 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_off_comes_back_ever_later() {
        let pauses: Vec<u64> = [1, 2, 4, 20, 5000].map(backoff).iter().map(Duration::as_secs).collect();
        assert_eq!(pauses, [1, 2, 8, 30, 30]);
    }

    #[test]
    fn only_failures_without_a_cause_make_poison() {
        let failures = Failures::default();
        assert!((1..20).all(|_| !failures.is_poison_now(7)));
        failures.forget(7);
        assert!((1..20).all(|_| !failures.is_poison_now(7)) && !failures.is_poison_now(8));
        assert!(failures.is_poison_now(7));
    }

    #[test]
    fn only_a_trace_context_is_passed_on() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX: y"));
        assert!(!is_traceparent(""));
    }
}
