//! CDEvents on NATS: whoever may publish there tells of deployments with what their tools send anyway.

use crate::changes::announcer::Told;
use crate::changes::webhook::Said;
use crate::changes::{Announcer, Names, cdevents};
use crate::consumer::{self, Reader, Refused};
use async_nats::jetstream::Message;
use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use vouch_proto::announce::happened_at;
use vouch_proto::subject::COLLECTOR_CHANGES;
use vouch_service::nats::{Nats, header};

/// Who told of what comes this way.
const SOURCE: &str = "cdevents";

/// Reads CDEvents.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) announcer: Announcer,
    pub(crate) names: Names,
}

/// Reads events until `stop`.
pub(crate) async fn run(nats: Nats, topic: Topic, stop: CancellationToken) -> anyhow::Result<()> {
    consumer::run(&nats, &COLLECTOR_CHANGES, &topic, stop).await
}

#[async_trait]
impl Reader for Topic {
    async fn take_in(&self, message: &Message) -> Result<(), Refused> {
        let unusable = |e: &dyn std::fmt::Display| Refused::Unusable(e.to_string());
        let body: Value = serde_json::from_slice(&message.payload).map_err(|e| unusable(&e))?;
        let declared = header(message, "ce-type").unwrap_or_default();
        let seen = match cdevents::read(declared, &body).map_err(|e| unusable(&e))? {
            Said::Seen(seen) => seen,
            Said::Change(_) | Said::Nothing(_) => return Ok(()),
        };
        for one in seen {
            let change = self.names.change(one, SOURCE).map_err(|e| unusable(&e))?;
            let deployment = &change.deployment;
            happened_at(deployment.occurred_at, self.announcer.now()).map_err(|e| unusable(&e))?;
            let (environment, service) = (deployment.environment.clone(), deployment.service.clone());
            match self.announcer.announce(change, true).await.map_err(Refused::Dependency)? {
                Told::Announced(_) => {}
                Told::Ignored(reason) => {
                    tracing::info!(%environment, %service, reason, "an event announces nothing")
                }
            }
        }
        Ok(())
    }
}
