//! Releases: a service whose detected version is another than it was has been deployed.

use crate::changes::announcer::Told;
use crate::changes::{Announcer, Certainty, Names, Seen};
use anyhow::Context as _;
use async_nats::jetstream::kv;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::subject::{ANY_ENVIRONMENT, seen_key};
use vouch_proto::{Name, Phase, Timestamp};
use vouch_service::bucket;

/// Name of this finder.
const FINDER: &str = "releases";
/// Longest time before it was noticed that a new version is said to be there. Older ones ran the old version, too.
const UNSEEN: Duration = Duration::from_secs(15 * 60);

/// Watches the versions that the source detects.
#[derive(Debug)]
pub(crate) struct Releases {
    announcer: Announcer,
    store: kv::Store,
    seen: BTreeMap<(Name, Name), Version>,
}

/// A version, and when it was seen last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    version: String,
    at_ms: i64,
}

impl Releases {
    pub(crate) fn new(announcer: Announcer, store: kv::Store) -> Self {
        Self { announcer, store, seen: BTreeMap::new() }
    }

    /// Announces what is another version than before. Several services go on where one cannot be dealt with.
    pub(crate) async fn look(
        &mut self,
        running: impl Iterator<Item = (&(Name, Name), &str)> + Send,
    ) -> anyhow::Result<()> {
        let at = self.announcer.now();
        let mut failed = None;
        for (names, version) in running {
            if let Err(error) = self.see(names, version, at).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn see(&mut self, names: &(Name, Name), version: &str, at: Timestamp) -> anyhow::Result<()> {
        let (environment, service) = names;
        let key = seen_key(FINDER, &format!("{}.{}", environment.token(), service.token()));
        let before = match self.seen.get(names) {
            Some(known) => Some(known.clone()),
            None => {
                let stored = bucket::read(&self.store, &key).await?;
                stored.and_then(|bytes| serde_json::from_slice::<Version>(&bytes).ok())
            }
        };
        let now = Version { version: version.to_owned(), at_ms: at.as_millis() };
        let changed = before.as_ref().filter(|before| before.version != version);
        if let Some(before) = changed {
            self.announce(names, before, version, at).await?;
        }
        if changed.is_some() || before.is_none() {
            let bytes = serde_json::to_vec(&now)?;
            self.store.put(key, Bytes::from(bytes)).await.context("what was seen could not be kept")?;
        }
        self.seen.insert(names.clone(), now);
        Ok(())
    }

    async fn announce(
        &self,
        (environment, service): &(Name, Name),
        before: &Version,
        version: &str,
        at: Timestamp,
    ) -> anyhow::Result<()> {
        if environment.as_str() == ANY_ENVIRONMENT {
            tracing::warn!(%service, version, "a new version is not announced: name the environment in `services` or `collector.environment`");
            return Ok(());
        }
        let mut seen = Seen::new(service.as_str(), environment.as_str(), version);
        seen.certainty = Certainty::State;
        seen.phase = Phase::Traffic;
        seen.previous_version = Some(before.version.clone());
        // It came some time after the old one was seen; minutes of both are judged rather than taken for the baseline.
        seen.at = Some(Timestamp::from_millis(before.at_ms).max(at.minus(UNSEEN)));
        let Ok(change) = Names::exact(service, environment).change(seen, FINDER) else {
            tracing::warn!(%service, version, "a detected version is no name of a version");
            return Ok(());
        };
        match self.announcer.announce(change, false).await? {
            Told::Announced(_) => tracing::info!(%environment, %service, version, "a new version was found"),
            Told::Ignored(reason) => tracing::debug!(%environment, %service, reason, "no deployment"),
        }
        Ok(())
    }
}
