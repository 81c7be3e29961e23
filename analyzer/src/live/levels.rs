//! The levels of verifications that are opened now: counts the verdicts that stand, now and then.

use super::store::Store;
use crate::census::Census;
use crate::levels;
use futures::TryStreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use vouch_proto::subject::{self, ALL_VERDICTS, VERDICTS};
use vouch_proto::{Levels, TenantBudget, Timestamp};

/// How old a count may be, real time: what a verification asks for is fixed when it is opened, not to the minute.
const FRESH: Duration = Duration::from_secs(300);

/// The last count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counter(Arc<Mutex<Option<(Instant, Census)>>>);

impl Store {
    /// What a verification that is opened now asks for; `None` where no budget is set.
    pub(crate) async fn levels(
        &self,
        budget: &TenantBudget,
        now: Timestamp,
    ) -> anyhow::Result<Option<Levels>> {
        if *budget == TenantBudget::default() {
            return Ok(None);
        }
        Ok(levels::levels(budget, &self.census(now).await?))
    }

    /// What was deployed lately, at most a few minutes old.
    pub(crate) async fn census(&self, now: Timestamp) -> anyhow::Result<Census> {
        let mut last = self.counter.0.lock().await;
        if let Some((taken, census)) = last.as_ref()
            && taken.elapsed() < FRESH
        {
            return Ok(census.clone());
        }
        let census = self.count(now).await?;
        *last = Some((Instant::now(), census.clone()));
        Ok(census)
    }

    /// Every verdict has a subject of its own, which names all that is counted: no message is read.
    async fn count(&self, now: Timestamp) -> anyhow::Result<Census> {
        let stream = self.nats.jetstream.get_stream_no_info(VERDICTS.name).await?;
        let mut subjects = stream.info_with_subjects(ALL_VERDICTS).await?;
        let mut verdicts = Vec::new();
        while let Some((topic, _)) = subjects.try_next().await? {
            let names = subject::environment_and_service(&topic);
            if let (Some((environment, service)), Some(id)) =
                (names, subject::verification_of_verdict(&topic))
            {
                verdicts.push((environment, service, id));
            }
        }
        Ok(Census::take(verdicts, now))
    }
}
