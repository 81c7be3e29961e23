//! Writes deployments into the source, once each, where people look at its charts.

use crate::consumer::{self, Reader, Refused};
use crate::source::MetricSource;
use anyhow::Context as _;
use async_nats::jetstream::{Message, kv};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vouch_proto::subject::{self, COLLECTOR_ANNOTATIONS, seen_key};
use vouch_proto::{Deployment, DeploymentRecord, Phase, envelope, v1};
use vouch_service::bucket;
use vouch_service::clock::SharedClock;
use vouch_service::nats::{Nats, header};

/// Name of what it has written.
const WRITTEN: &str = "annotations";
/// How long after its beginning a deployment is still written.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Writes deployments into the source.
#[derive(Debug)]
pub(crate) struct Annotator {
    pub(crate) clock: SharedClock,
    pub(crate) source: Arc<dyn MetricSource>,
    pub(crate) deployments: kv::Store,
    pub(crate) store: kv::Store,
}

/// Writes until `stop`.
pub(crate) async fn run(nats: Nats, annotator: Annotator, stop: CancellationToken) -> anyhow::Result<()> {
    consumer::run(&nats, &COLLECTOR_ANNOTATIONS, &annotator, stop).await
}

#[async_trait]
impl Reader for Annotator {
    async fn take_in(&self, message: &Message) -> Result<(), Refused> {
        let wire = envelope::open::<v1::Deployment>(header(message, "content-type"), &message.payload);
        // What cannot be read is put to the dead letters by those who need it.
        let Ok(deployment) = wire.and_then(|d| Deployment::try_from(d).map_err(|e| e.to_string())) else {
            return Ok(());
        };
        if deployment.cancelled_by.is_some() || deployment.phase == Phase::Aborted {
            return Ok(());
        }
        self.write(&deployment).await.map_err(Refused::Dependency)
    }
}

impl Annotator {
    async fn write(&self, news: &Deployment) -> anyhow::Result<()> {
        let key = subject::deployment_key(&news.environment, &news.service, &news.version);
        let stored = bucket::read(&self.deployments, &key).await?;
        // The other consumer of this message makes the record.
        let stored = stored.context("the deployment has not been taken in yet")?;
        let Ok(wire) = serde_json::from_slice::<v1::DeploymentRecord>(&stored) else { return Ok(()) };
        let Ok(record) = DeploymentRecord::try_from(wire) else { return Ok(()) };
        // What the source told us it knows.
        let is_its_own = record.deployment.source.as_deref() == Some("dynatrace");
        if is_its_own || self.clock.now().since(record.started_at) > PATIENCE {
            return Ok(());
        }
        let id = record.deployment.deployment_id.clone().unwrap_or_default();
        let written = seen_key(WRITTEN, &id);
        if bucket::read(&self.store, &written).await?.is_some() {
            return Ok(());
        }
        match self.source.write_event(&record.deployment, record.started_at).await {
            Ok(()) => {}
            Err(failure) if failure.kind.is_retryable() => return Err(failure.into()),
            Err(failure) => tracing::warn!(deployment_id = id, %failure, "not written into Dynatrace"),
        }
        self.store.put(written, Bytes::from_static(b"{}")).await.context("what was written")?;
        Ok(())
    }
}
