//! Takes deployments in: each announcement becomes, or joins, a deployment and its collection. Acknowledged only then.

use crate::consumer::{self, Reader, Refused};
use crate::record::{CollectionRecord, Progress, VERSION};
use anyhow::Context as _;
use async_nats::jetstream::{Message, kv};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use vouch_proto::announce::{Announced, announce, happened_at, verification_id};
use vouch_proto::subject::{self, COLLECTOR_DEPLOYMENTS};
use vouch_proto::{Deployment, DeploymentRecord, Phase, Templates, Timestamp, envelope, v1};
use vouch_service::bucket::{self, Change};
use vouch_service::clock::SharedClock;
use vouch_service::nats::{Nats, header};

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
        consumer::run(&self.nats, &COLLECTOR_DEPLOYMENTS, &self, stop).await
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

#[async_trait]
impl Reader for Intake {
    async fn take_in(&self, message: &Message) -> Result<(), Refused> {
        let news = self.decode(message).map_err(Refused::Unusable)?;
        self.apply(&news).await.map_err(|error| {
            if error.is::<Damaged>() { Refused::Unexplained(error) } else { Refused::Dependency(error) }
        })
    }
}

fn read_deployment(bytes: &[u8]) -> anyhow::Result<DeploymentRecord> {
    let wire: v1::DeploymentRecord = serde_json::from_slice(bytes).map_err(|e| Damaged(e.to_string()))?;
    Ok(DeploymentRecord::try_from(wire).map_err(|e| Damaged(e.to_string()))?)
}

fn read_collection(bytes: &[u8]) -> anyhow::Result<CollectionRecord> {
    Ok(CollectionRecord::read(bytes).map_err(|e| Damaged(format!("{e:#}")))?)
}
