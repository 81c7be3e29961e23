//! Tells what waits: each action has a queue, a consumer and a bound of its own, so that one that is slow delays no other.

use crate::intake::{Failures, backoff, give_back, kept_alive};
use crate::ledger_store::Later;
use crate::metrics::Metrics;
use crate::outbox::{FORMAT, Waiting};
use crate::runner::Runner;
use anyhow::Context as _;
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::{AckKind, Message};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vouch_proto::Verdict;
use vouch_proto::subject::{self, ALERTS, NOTIFIER_ALERTS};
use vouch_service::health::Health;
use vouch_service::nats::{self, Nats};
use vouch_service::run::Context;
use vouch_service::shutdown::Tasks;

/// Readiness: alerts are being read.
const READS: &str = "alerts";
/// Time to acknowledge before an alert is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Alerts of an action that are being told or tried again later.
const MOST_PENDING: i64 = 512;
/// How long one request for messages waits at the server.
const EXPIRY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether alerts wait for actions that are not among the settings, and how many wait.
const LOOK: Duration = Duration::from_secs(30);
/// Alerts at once of an action that is not among the settings.
const OF_UNKNOWN: usize = 2;
/// Longest pause before an alert is tried again, whatever the receiver asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The reader of all queues.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    nats: Nats,
    health: Health,
    tasks: Tasks,
    metrics: Metrics,
    runner: Arc<Runner>,
    failures: Failures,
    /// The actions whose queues are being read.
    read: Arc<Mutex<BTreeSet<String>>>,
}

impl Delivery {
    pub(crate) fn new(context: &Context, metrics: Metrics, runner: Arc<Runner>) -> Self {
        Self {
            nats: context.nats.clone(),
            health: context.health.clone(),
            tasks: context.tasks.clone(),
            metrics,
            runner,
            failures: Failures::default(),
            read: Arc::default(),
        }
    }

    /// Reads the queue of every action, each in a task of its own.
    pub(crate) fn start(self) {
        self.health.fails(READS, "not read yet");
        for (action, most) in self.runner.actions() {
            self.clone().begin(action, most);
        }
        let tasks = self.tasks.clone();
        tasks.spawn_vital("alerts of other settings", self.look());
    }

    fn begin(self, action: String, most: usize) {
        if self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(action.clone()) {
            let tasks = self.tasks.clone();
            tasks.spawn_vital("alerts", self.run(action, most));
        }
    }

    /// Looks for queues that nobody reads: of actions that were renamed or dropped. What waits there is put off until it
    /// is too old to be told, since another replica may know the action, and then declared expired.
    async fn look(self) -> anyhow::Result<()> {
        let stop = self.tasks.stop().clone();
        while !stop.is_cancelled() {
            match self.waiting().await {
                Ok(actions) => {
                    for action in actions {
                        self.clone().begin(action, OF_UNKNOWN);
                    }
                }
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "the queues of alerts cannot be counted");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// The actions for which alerts wait; how many is a metric.
    async fn waiting(&self) -> anyhow::Result<Vec<String>> {
        let stream = self.nats.jetstream.get_stream_no_info(ALERTS.name).await?;
        let mut subjects = stream.info_with_subjects(ALERTS.subjects).await?;
        let mut waiting = Vec::new();
        while let Some((subject, count)) = subjects.try_next().await? {
            if let Some(action) = subject::action_of_alert(&subject) {
                waiting.push((action, count));
            }
        }
        self.metrics.waiting(&waiting);
        Ok(waiting.into_iter().map(|(action, _)| action).collect())
    }

    async fn run(self, action: String, most: usize) -> anyhow::Result<()> {
        let permits = Arc::new(Semaphore::new(most));
        let stop = self.tasks.stop().clone();
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                ended = self.consume(&action, &permits) => ended,
                () = stop.cancelled() => return Ok(()),
            };
            if let Err(error) = ended {
                let error = format!("{error:#}");
                tracing::warn!(action, error, "alerts cannot be read; trying again");
                self.health.fails(READS, error);
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        Ok(())
    }

    async fn consume(&self, action: &str, permits: &Arc<Semaphore>) -> anyhow::Result<()> {
        let named = (subject::alert_consumer(action), subject::alert(action));
        let consumer = self.nats.consumer_of(&ALERTS, named, (ACK_WAIT, MOST_PENDING)).await?;
        self.health.ok(READS);
        loop {
            self.batch(&consumer, permits).await?;
        }
    }

    /// Asks for as many as there is room for, so that none waits here while its time to acknowledge runs.
    async fn batch(&self, consumer: &Consumer<pull::Config>, permits: &Arc<Semaphore>) -> anyhow::Result<()> {
        let mut room = vec![Arc::clone(permits).acquire_owned().await?];
        while let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            room.push(permit);
        }
        let batch = consumer.batch().max_messages(room.len()).expires(EXPIRY).messages().await;
        let mut batch = batch.context("the queue of an action cannot be read")?;
        while let Some(message) = batch.next().await {
            let message = message
                .map_err(anyhow::Error::from_boxed)
                .context("the queue of an action cannot be read")?;
            let Some(permit) = room.pop() else { break };
            self.tasks.spawn(self.clone().handle(message, permit));
        }
        Ok(())
    }

    async fn handle(self, message: Message, _permit: OwnedSemaphorePermit) {
        let (delivered, position) = message.info().map_or((1, 0), |i| (i.delivered, i.stream_sequence));
        let answered = match decode(&message) {
            Decoded::Never(reason) => self.give_up(&message, &reason).await,
            Decoded::Newer => give_back(&message, LONGEST_WAIT).await,
            Decoded::Now(waiting, verdict) => {
                let work = AssertUnwindSafe(self.runner.deliver(&waiting, verdict)).catch_unwind();
                match kept_alive(&message, work).await {
                    Ok(Ok(())) => {
                        self.failures.forget(position);
                        message.double_ack().await.map_err(anyhow::Error::from_boxed)
                    }
                    Ok(Err(Later::Wait(wait))) => give_back(&message, wait.min(LONGEST_WAIT)).await,
                    Ok(Err(Later::Dependency(error))) => {
                        let (key, error) = (&waiting.key, format!("{error:#}"));
                        tracing::warn!(key, delivered, error, "an alert is put off");
                        give_back(&message, backoff(delivered)).await
                    }
                    Err(_) if self.failures.is_poison_now(position) => {
                        let reason = "the notifier failed at it again and again without a known cause";
                        self.give_up(&message, reason).await
                    }
                    Err(_) => give_back(&message, backoff(delivered)).await,
                }
            }
        };
        if let Err(error) = answered {
            tracing::warn!(error = format!("{error:#}"), "an alert is not acknowledged; it comes again");
        }
    }

    async fn give_up(&self, message: &Message, reason: &str) -> anyhow::Result<()> {
        nats::dead_letter(&self.nats, NOTIFIER_ALERTS, message, reason).await?;
        self.metrics.dead_lettered();
        message.ack_with(AckKind::Term).await.map_err(anyhow::Error::from_boxed)
    }
}

/// What a message of the queue is.
enum Decoded {
    /// To be told.
    Now(Box<Waiting>, Arc<Verdict>),
    /// Written by a newer notifier, and left to one.
    Newer,
    /// No alert.
    Never(String),
}

fn decode(message: &Message) -> Decoded {
    #[derive(serde::Deserialize)]
    struct Format {
        version: u32,
    }
    let bytes = message.payload.as_ref();
    match serde_json::from_slice::<Format>(bytes) {
        Err(e) => return Decoded::Never(format!("no alert: {e}")),
        Ok(format) if format.version > FORMAT => return Decoded::Newer,
        Ok(_) => {}
    }
    let waiting: Waiting = match serde_json::from_slice(bytes) {
        Ok(waiting) => waiting,
        Err(e) => return Decoded::Never(format!("no alert: {e}")),
    };
    if subject::action_of_alert(&message.subject).as_deref() != Some(&waiting.action) {
        return Decoded::Never(format!(
            "action: `{}` is not that of the subject {}",
            waiting.action, message.subject
        ));
    }
    match Verdict::try_from(waiting.verdict.clone()) {
        Ok(verdict) => Decoded::Now(Box::new(waiting), Arc::new(verdict)),
        Err(invalid) => Decoded::Never(format!("verdict: {invalid}")),
    }
}
