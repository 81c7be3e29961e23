//! Puts a change on the topic, once for all who tell of it.

use crate::changes::same::{NEAR, Relation, relation};
use crate::changes::{Certainty, Change as Found};
use anyhow::Context as _;
use async_nats::jetstream::kv;
use bytes::Bytes;
use vouch_proto::envelope::{self, Origin};
use vouch_proto::subject::{CATALOGUE_BUCKET, CATALOGUE_COMPLETE, CHANGES_BUCKET, DEPLOYMENT_BUCKET};
use vouch_proto::{Deployment, DeploymentRecord, Name, Phase, Timestamp, subject, v1};
use vouch_service::bucket::{self, Change};
use vouch_service::clock::SharedClock;
use vouch_service::nats::{Nats, headers};
use vouch_service::publish::publish;

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is on the topic, as this.
    Announced(Box<Deployment>),
    /// It is no deployment, for this reason.
    Ignored(String),
}

/// Puts changes on the topic.
#[derive(Debug, Clone)]
pub struct Announcer {
    nats: Nats,
    clock: SharedClock,
    deployments: kv::Store,
    catalogue: kv::Store,
    changes: kv::Store,
}

impl Announcer {
    /// One that publishes over this connection.
    ///
    /// # Errors
    /// Where the buckets cannot be reached.
    pub async fn new(nats: Nats, clock: SharedClock) -> anyhow::Result<Self> {
        let deployments = nats.bucket(&DEPLOYMENT_BUCKET).await?;
        let catalogue = nats.bucket(&CATALOGUE_BUCKET).await?;
        let changes = nats.bucket(&CHANGES_BUCKET).await?;
        Ok(Self { nats, clock, deployments, catalogue, changes })
    }

    /// The injected clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Announces a change, or says why it is no deployment. `strict` refuses services that the source does not have.
    ///
    /// # Errors
    /// Where NATS does not answer: nothing was announced, or it comes again harmlessly.
    pub async fn announce(&self, change: Found, strict: bool) -> anyhow::Result<Told> {
        let Found { mut deployment, certainty, restores } = change;
        let (environment, service) = (deployment.environment.clone(), deployment.service.clone());
        if strict && !self.may_be_known(&environment, &service).await? {
            return Ok(Told::Ignored(format!(
                "`{service}` in `{environment}` is not known to Dynatrace; translate the name in `services`, or \
                 deploy it again once it is (a new service appears within 5 minutes)"
            )));
        }
        let at = *deployment.occurred_at.get_or_insert(self.clock.now());
        let (before, relation) = self.place(&deployment, at, certainty).await?;
        match relation {
            Relation::Standing => {
                let version = &deployment.version;
                return Ok(Told::Ignored(format!("`{service}` has run version {version} before")));
            }
            Relation::Same(version) => deployment.version = version,
            Relation::New if certainty == Certainty::Guess && deployment.phase == Phase::Aborted => {
                return Ok(Told::Ignored(format!("no deployment of `{service}` is open")));
            }
            Relation::New => {
                if let Some(before) = before.filter(|before| before.started_at <= at) {
                    let version = before.deployment.version.to_string();
                    deployment.previous_version.get_or_insert(version);
                    if restores && at <= before.joins_until {
                        self.publish(&ended(&before.deployment, &deployment)).await?;
                    }
                }
            }
        }
        self.publish(&deployment).await?;
        Ok(Told::Announced(Box::new(deployment)))
    }

    /// What a change is beside the newest deployment that is known. One at a time for each service, so that two who
    /// tell of the same deployment at the same moment agree on its version.
    async fn place(
        &self,
        deployment: &Deployment,
        at: Timestamp,
        certainty: Certainty,
    ) -> anyhow::Result<(Option<DeploymentRecord>, Relation)> {
        let newest = self.newest(&deployment.environment, &deployment.service).await?;
        let key = subject::told_key(&deployment.environment, &deployment.service);
        bucket::change(&self.changes, &key, |told| {
            // What another version wrote and cannot be read is no reason to keep a deployment back.
            let told = told.and_then(|bytes| read(bytes).ok());
            let before = [told, newest.clone()].into_iter().flatten().max_by_key(|record| record.started_at);
            let relation = relation(before.as_ref(), &deployment.version, at, (certainty, deployment.phase));
            if relation != Relation::New || deployment.phase == Phase::Aborted {
                return Ok(Change::Keep((before, relation)));
            }
            let record = DeploymentRecord {
                deployment: deployment.clone(),
                started_at: at,
                traffic_at: None,
                verifications: 1,
                joins_until: at.plus(NEAR),
            };
            let bytes = serde_json::to_vec(&v1::DeploymentRecord::from(record))?;
            Ok(Change::Write(bytes, (before, relation)))
        })
        .await
    }

    async fn publish(&self, deployment: &Deployment) -> anyhow::Result<()> {
        let topic = subject::deployment(&deployment.environment, &deployment.service);
        let at = deployment.occurred_at.unwrap_or_else(|| self.clock.now());
        // Told twice, e.g. again after an answer that was lost, it is stored once.
        let id = format!(
            "{}.{topic}.{}.{}.{}.{}",
            deployment.source.as_deref().unwrap_or_default(),
            deployment.version.token(),
            deployment.phase.to_wire(),
            deployment.traffic_percent,
            at.as_millis()
        );
        let origin = Origin { source: "vouch/collector", id: &id, time: self.clock.now(), traceparent: None };
        let (sealed, body) = envelope::seal(&v1::Deployment::from(deployment.clone()), &origin)?;
        publish(&self.nats, topic, headers(sealed), Bytes::from(body)).await
    }

    /// Whether the source has the service, as far as its catalogue tells.
    async fn may_be_known(&self, environment: &Name, service: &Name) -> anyhow::Result<bool> {
        // Read before the entry, which is written before it: else one that is listed in between counts as missing.
        let is_complete = bucket::read(&self.catalogue, CATALOGUE_COMPLETE).await?.is_some();
        let entry = bucket::catalogue_entry(&self.catalogue, environment, service).await?;
        Ok(entry.is_some() || !is_complete)
    }

    /// The newest deployment of a service, as far as it has been taken in.
    async fn newest(&self, environment: &Name, service: &Name) -> anyhow::Result<Option<DeploymentRecord>> {
        let key = subject::newest_deployment_key(environment, service);
        let Some(bytes) = bucket::read(&self.deployments, &key).await? else { return Ok(None) };
        let newest = read(&bytes).with_context(|| format!("the newest deployment of {service}"))?;
        // That entry is as of its beginning; its own knows until when it is open.
        let key = subject::deployment_key(environment, service, &newest.deployment.version);
        let Some(bytes) = bucket::read(&self.deployments, &key).await? else { return Ok(Some(newest)) };
        Ok(Some(read(&bytes).with_context(|| format!("the deployment of {service}"))?))
    }
}

fn read(bytes: &[u8]) -> anyhow::Result<DeploymentRecord> {
    let record: v1::DeploymentRecord = serde_json::from_slice(bytes)?;
    Ok(DeploymentRecord::try_from(record)?)
}

/// The end of a deployment whose version was put back.
fn ended(before: &Deployment, restored: &Deployment) -> Deployment {
    Deployment {
        phase: Phase::Aborted,
        occurred_at: restored.occurred_at,
        source: restored.source.clone(),
        reason: Some(format!("rolled back to {}", restored.version)),
        ..Deployment::new(before.environment.clone(), before.service.clone(), before.version.clone())
    }
}
