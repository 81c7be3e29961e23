//! Starts the finders that the settings ask for.

use crate::catalogue::Naming;
use crate::changes::Announcer;
use crate::changes::annotate::{self, Annotator};
use crate::changes::releases::Releases;
use crate::changes::source::Finder;
use crate::changes::topic::{self, Topic};
use crate::changes::webhook::{self, Webhooks};
use crate::config::ChangeSettings;
use crate::metrics::Metrics;
use crate::source::MetricSource;
use anyhow::Context as _;
use std::sync::Arc;
use tokio::net::TcpListener;
use vouch_proto::Templates;
use vouch_proto::subject::{CHANGES_BUCKET, DEPLOYMENT_BUCKET};
use vouch_service::clock::SharedClock;
use vouch_service::lease::Owned;
use vouch_service::nats::Nats;
use vouch_service::shutdown::Tasks;

/// What finders are made from.
#[derive(Debug)]
pub(crate) struct Finders {
    pub(crate) nats: Nats,
    pub(crate) clock: SharedClock,
    pub(crate) source: Arc<dyn MetricSource>,
    pub(crate) metrics: Metrics,
}

impl Finders {
    /// Starts their tasks; what watches releases goes to the keeper of the catalogue, who sees the versions.
    pub(crate) async fn start(
        self,
        (settings, templates): (ChangeSettings, Templates),
        tenants: Vec<(String, Naming)>,
        tasks: &Tasks,
        owned: Owned,
    ) -> anyhow::Result<Option<Releases>> {
        let stop = tasks.stop().clone();
        let announcer = Announcer::new(self.nats.clone(), self.clock.clone()).await?;
        let store = self.nats.bucket(&CHANGES_BUCKET).await?;
        if let Some(address) = settings.listen {
            let listener =
                TcpListener::bind(address).await.with_context(|| format!("changes.listen: {address}"))?;
            tracing::info!(address = %listener.local_addr()?, "webhooks are served");
            let webhooks = Webhooks {
                webhooks: settings.webhooks,
                announcer: announcer.clone(),
                templates,
                metrics: self.metrics.clone(),
            };
            tasks.spawn_vital("webhooks", webhook::serve(webhooks, listener, stop.clone()));
        }
        if settings.annotate {
            let annotator = Annotator {
                clock: self.clock.clone(),
                source: self.source.clone(),
                deployments: self.nats.bucket(&DEPLOYMENT_BUCKET).await?,
                store: store.clone(),
            };
            tasks.spawn_vital("annotations", annotate::run(self.nats.clone(), annotator, stop.clone()));
        }
        let topic = Topic { announcer: announcer.clone(), names: settings.cdevents };
        tasks.spawn_vital("cdevents", topic::run(self.nats, topic, stop.clone()));
        if let Some(look) = settings.events {
            let finder = Finder {
                announcer: announcer.clone(),
                clock: self.clock,
                metrics: self.metrics,
                store: store.clone(),
                source: self.source,
                tenants,
                look,
            };
            tasks.spawn_vital("changes", finder.run(owned, stop));
        }
        Ok(settings.releases.then(|| Releases::new(announcer, store)))
    }
}
