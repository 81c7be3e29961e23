//! Takes deployments in: each announcement becomes, or joins, a deployment and its collection. Acknowledged only then.

use crate::record::{CollectionRecord, Progress, VERSION};
use anyhow::Context as _;
use async_nats::jetstream::{AckKind, Message, kv};
use futures::StreamExt as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vouch_proto::announce::{Announced, announce, happened_at, verification_id};
use vouch_proto::subject::{self, COLLECTOR_DEPLOYMENTS};
use vouch_proto::{Deployment, DeploymentRecord, Phase, Templates, Timestamp, envelope, v1};
use vouch_service::bucket::{self, Change};
use vouch_service::clock::SharedClock;
use vouch_service::nats::{Nats, dead_letter, header, is_poison};

const REOPEN_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why an announcement was not taken in.
#[derive(Debug)]
enum Refused {
    /// It can never be used.
    Unusable(String),
    /// A dependency failed: again later, as often as it takes.
    Dependency(anyhow::Error),
    /// Nobody knows; after many times it counts as poison.
    Unexplained(anyhow::Error),
}

/// A record in a bucket that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a record cannot be read: {0}")]
struct Damaged(String);

/// An announcement with what the message around it says.
#[derive(Debug, Clone)]
pub(crate) struct Announcement {
    pub(crate) deployment: Deployment,
    /// When it happened.
    pub(crate) at: Timestamp,
    /// When the server stored it, on the injected clock.
    pub(crate) published: Timestamp,
    pub(crate) traceparent: Option<String>,
}

/// The intake of one replica.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) nats: Nats,
    pub(crate) clock: SharedClock,
    pub(crate) templates: Templates,
    pub(crate) deployments: kv::Store,
    pub(crate) collections: kv::Store,
    pub(crate) catalogue: kv::Store,
}

impl Intake {
    /// Reads announcements until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            // What is cut off by the stop was not acknowledged, and comes again.
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.messages() => ended,
            };
            if let Err(error) = ended {
                tracing::warn!(error = format!("{error:#}"), "deployments cannot be read; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(REOPEN_AFTER) => {}
            }
        }
    }

    /// Handles messages until the consumer fails.
    async fn messages(&self) -> anyhow::Result<()> {
        let consumer = self.nats.consumer(&COLLECTOR_DEPLOYMENTS).await?;
        let mut messages = consumer.stream().max_messages_per_batch(16).messages().await?;
        while let Some(message) = messages.next().await {
            self.handle(&message?).await;
        }
        anyhow::bail!("the consumer ended")
    }

    async fn handle(&self, message: &Message) {
        let answer = match self.take_in(message).await {
            Ok(()) => message.ack().await,
            Err(Refused::Unusable(reason)) => self.bury(message, &reason).await,
            Err(Refused::Dependency(error)) => {
                tracing::warn!(error = format!("{error:#}"), "deployment not taken in; trying again");
                message.ack_with(AckKind::Nak(Some(RETRY_AFTER))).await
            }
            Err(Refused::Unexplained(error)) => {
                let delivered = message.info().map_or(1, |info| info.delivered);
                tracing::error!(error = format!("{error:#}"), delivered, "deployment not taken in");
                if is_poison(delivered, false) {
                    self.bury(message, &format!("not taken in after {delivered} deliveries: {error:#}")).await
                } else {
                    message.ack_with(AckKind::Nak(Some(RETRY_AFTER))).await
                }
            }
        };
        if let Err(error) = answer {
            tracing::warn!(%error, "a deployment was not acknowledged and will come again");
        }
    }

    async fn bury(&self, message: &Message, reason: &str) -> Result<(), async_nats::Error> {
        dead_letter(&self.nats, COLLECTOR_DEPLOYMENTS.name, message, reason).await?;
        message.ack_with(AckKind::Term).await
    }

    async fn take_in(&self, message: &Message) -> Result<(), Refused> {
        let news = self.decode(message).map_err(Refused::Unusable)?;
        self.apply(&news).await.map_err(|error| {
            if error.is::<Damaged>() { Refused::Unexplained(error) } else { Refused::Dependency(error) }
        })
    }

    fn decode(&self, message: &Message) -> Result<Announcement, String> {
        let wire: v1::Deployment = envelope::open(header(message, "content-type"), &message.payload)?;
        let deployment = Deployment::try_from(wire).map_err(|e| e.to_string())?;
        let template = self.templates.of(&deployment);
        template.map_err(|e| format!("verification.{e}"))?;
        let info = message.info().map_err(|e| e.to_string())?;
        let ms = i64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let published = self.clock.at_real(Timestamp::from_millis(ms));
        Ok(Announcement {
            at: happened_at(deployment.occurred_at, published).map_err(|e| e.to_string())?,
            deployment,
            published,
            traceparent: header(message, "traceparent").map(ToOwned::to_owned),
        })
    }

    /// Writes what an announcement says. Again is harmless.
    pub(crate) async fn apply(&self, news: &Announcement) -> anyhow::Result<()> {
        let deployment = &news.deployment;
        if deployment.cancelled_by.is_some() {
            // A cancellation ends one verification; the deployment goes on.
            return match &deployment.verification_id {
                Some(id) => self.abort(id).await,
                None => Ok(()),
            };
        }
        let Some(known) = self.announce(news).await? else { return Ok(()) };
        let id = deployment.verification_id.clone().or_else(|| known.deployment.verification_id.clone());
        let id = id.context("a deployment without a verification id")?;
        if deployment.phase == Phase::Aborted {
            let deployment_id = known.deployment.deployment_id.clone().unwrap_or_default();
            for n in 1..=known.verifications {
                self.abort(&verification_id(&deployment_id, n)).await?;
            }
            return self.abort(&id).await;
        }
        let opened = self.opened(&id, &known, news)?;
        bucket::change(&self.collections, &subject::id_key(&id), |stored| {
            let before = stored.map(read_collection).transpose()?;
            let mut record = before.clone().unwrap_or_else(|| opened.clone());
            record.take_news(&opened);
            Ok(if before.as_ref() == Some(&record) {
                Change::Keep(())
            } else {
                Change::Write(record.write()?, ())
            })
        })
        .await
    }

    /// Joins the announcement to its deployment, or begins a new one. `None`: nothing to verify.
    async fn announce(&self, news: &Announcement) -> anyhow::Result<Option<DeploymentRecord>> {
        let deployment = &news.deployment;
        let entry =
            bucket::catalogue_entry(&self.catalogue, &deployment.environment, &deployment.service).await?;
        let entry = entry.unwrap_or_default();
        let template = self.templates.of(deployment)?;
        let (_, window) = deployment.verification.length(template);
        let key = subject::deployment_key(&deployment.environment, &deployment.service, &deployment.version);
        bucket::change(&self.deployments, &key, |stored| {
            let known = stored.map(read_deployment).transpose()?;
            Ok(match announce(known, deployment, news.at, window) {
                Announced::Ignored => Change::Keep(None),
                Announced::Created(mut record) | Announced::Joined(mut record) => {
                    record.deployment.fill(&entry);
                    let bytes = serde_json::to_vec(&v1::DeploymentRecord::from(record.clone()))?;
                    Change::Write(bytes, Some(record))
                }
            })
        })
        .await
    }

    /// The collection that an announcement opens. The first verification has its deployment's times and request; a
    /// later one brings its own.
    fn opened(
        &self,
        id: &str,
        known: &DeploymentRecord,
        news: &Announcement,
    ) -> anyhow::Result<CollectionRecord> {
        let is_first = known.deployment.verification_id.as_deref() == Some(id);
        let deployment = &news.deployment;
        let request = &deployment.verification;
        let template = self.templates.of(deployment)?;
        let own_traffic = if is_first { known.traffic_at } else { Some(news.at) };
        Ok(CollectionRecord {
            version: VERSION,
            verification_id: id.to_owned(),
            environment: deployment.environment.clone(),
            service: deployment.service.clone(),
            template: template.name.clone(),
            // What the analyzer chooses under `auto` needs no more than what `auto` reads.
            strategy: request.strategy.unwrap_or(template.strategy),
            duration_seconds: request.length(template).1.as_secs(),
            baseline: request.baseline.clone(),
            started_at: if is_first { known.started_at } else { news.at },
            traffic_at: own_traffic,
            opened_at: news.published,
            aborted: false,
            traceparent: news.traceparent.clone(),
            progress: Progress::default(),
        })
    }

    async fn abort(&self, id: &str) -> anyhow::Result<()> {
        bucket::change(&self.collections, &subject::id_key(id), |stored| {
            Ok(match stored.map(read_collection).transpose()? {
                Some(mut record) if record.is_open() => {
                    record.aborted = true;
                    Change::Write(record.write()?, ())
                }
                Some(_) | None => Change::Keep(()),
            })
        })
        .await
    }
}

fn read_deployment(bytes: &[u8]) -> anyhow::Result<DeploymentRecord> {
    let wire: v1::DeploymentRecord = serde_json::from_slice(bytes).map_err(|e| Damaged(e.to_string()))?;
    Ok(DeploymentRecord::try_from(wire).map_err(|e| Damaged(e.to_string()))?)
}

fn read_collection(bytes: &[u8]) -> anyhow::Result<CollectionRecord> {
    Ok(CollectionRecord::read(bytes).map_err(|e| Damaged(format!("{e:#}")))?)
}
