//! Works on one collection until it is done: plan, read, publish, note the progress, wait.

use crate::around::Misses;
use crate::logs::WantedLogs;
use crate::metrics::Metrics;
use crate::record::{CollectionRecord, Progress};
use crate::round::Round;
use crate::schedule::{Pace, State, plan};
use crate::source::MetricSource;
use crate::watermark::Watermarks;
use async_nats::jetstream::kv;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vouch_proto::{Name, Templates, Timestamp, subject, v1};
use vouch_service::bucket::{self, Change};
use vouch_service::clock::{self, SharedClock};
use vouch_service::nats::Nats;

/// Pause after NATS failed, real time.
const PAUSE: Duration = Duration::from_secs(1);

/// What all collections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) nats: Nats,
    pub(crate) clock: SharedClock,
    pub(crate) source: Arc<dyn MetricSource>,
    /// Names of the tenants in batches, by their environments.
    pub(crate) source_names: Vec<(Option<Name>, String)>,
    pub(crate) pace: Pace,
    /// How late the metrics are.
    pub(crate) watermarks: Mutex<Watermarks>,
    pub(crate) templates: Templates,
    pub(crate) collections: kv::Store,
    /// Where the analyzer says how verifications end.
    pub(crate) verifications: kv::Store,
    /// When other services were deployed.
    pub(crate) deployments: kv::Store,
    /// Most other services that are looked at around one that is deployed.
    pub(crate) neighbours: usize,
    pub(crate) misses: Misses,
    pub(crate) metrics: Metrics,
    /// Whose logs are wanted.
    pub(crate) wanted_logs: Arc<WantedLogs>,
}

/// Works on a collection until it is done or `stop`; `news` brings what later announcements say.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut news: watch::Receiver<CollectionRecord>,
    stop: CancellationToken,
) {
    let mut record = news.borrow_and_update().clone();
    let mut tried = false;
    loop {
        let worked = tokio::select! {
            () = stop.cancelled() => return,
            worked = step(&shared, &record, &mut tried) => worked,
        };
        let wake = match worked {
            Ok((now, wake)) => {
                record = now;
                wake
            }
            Err(error) => {
                let id = &record.verification_id;
                tracing::warn!(
                    verification_id = id,
                    error = format!("{error:#}"),
                    "collection interrupted; trying again"
                );
                Wake::Soon
            }
        };
        if !record.is_open() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.sleep(&shared.clock) => {}
            heard = hear(&mut news, &mut record) => if !heard { return },
        }
    }
}

/// Waits until a later announcement changes the record; `false` where none can come any more.
async fn hear(news: &mut watch::Receiver<CollectionRecord>, record: &mut CollectionRecord) -> bool {
    loop {
        if news.changed().await.is_err() {
            return false;
        }
        let before = record.clone();
        record.take_news(&news.borrow_and_update());
        if *record != before {
            return true;
        }
    }
}

/// When to plan again.
#[derive(Debug)]
enum Wake {
    Now,
    Soon,
    At(Timestamp),
    OnNews,
}

impl Wake {
    async fn sleep(&self, clock: &SharedClock) {
        match self {
            Self::Now => {}
            Self::Soon => tokio::time::sleep(PAUSE).await,
            Self::At(t) => clock::sleep_until(&**clock, *t).await,
            Self::OnNews => std::future::pending().await,
        }
    }
}

/// Plans once and does what is due. Answers the record as it is then, and when to plan again.
async fn step(
    shared: &Shared,
    record: &CollectionRecord,
    tried: &mut bool,
) -> anyhow::Result<(CollectionRecord, Wake)> {
    let Ok(template) = shared.templates.get(Some(&record.template)) else {
        let (id, template) = (&record.verification_id, &record.template);
        tracing::error!(
            verification_id = id,
            template,
            "the collection's template is in no settings any more; add it again"
        );
        return Ok((record.clone(), Wake::OnNews));
    };
    if shared.is_settled(record).await {
        let record = advance(shared, record, |progress| progress.done = true).await?;
        return Ok((record, Wake::Now));
    }
    let timing = shared.timing(record, template).await;
    let plan = plan(record, template, &timing, shared.clock.now());
    let over = match plan.state {
        State::Open => false,
        State::Complete => true,
        State::Late => *tried || !plan.is_due(),
    };
    if over {
        if plan.state == State::Late {
            tracing::warn!(
                verification_id = record.verification_id,
                "collection ends incomplete: the time is up"
            );
        }
        let record = advance(shared, record, |progress| progress.done = true).await?;
        return Ok((record, Wake::Now));
    }
    if !plan.is_due() {
        return Ok((record.clone(), plan.wake.map_or(Wake::OnNews, Wake::At)));
    }
    let round = shared.round(record, (template, &timing), &plan).await?;
    *tried = true;
    Ok(match round {
        Round::Done(record) => (record, Wake::Now),
        // Once a minute while it lasts.
        Round::Failed(record) => (record, Wake::At(shared.clock.now().floor_minute().plus_minutes(1))),
    })
}

/// Notes progress in the bucket, on top of what it holds.
pub(crate) async fn advance(
    shared: &Shared,
    record: &CollectionRecord,
    apply: impl Fn(&mut Progress),
) -> anyhow::Result<CollectionRecord> {
    let key = subject::id_key(&record.verification_id);
    bucket::change(&shared.collections, &key, |stored| {
        let mut now = record.clone();
        if let Some(bytes) = stored {
            now.take_news(&CollectionRecord::read(bytes)?);
        }
        apply(&mut now.progress);
        Ok(Change::Write(now.write()?, now))
    })
    .await
}

impl Shared {
    /// Name of the tenant that holds an environment.
    pub(crate) fn source_name(&self, environment: &Name) -> &str {
        let held = self.source_names.iter().find(|(held, _)| held.as_ref() == Some(environment));
        held.or_else(|| self.source_names.first()).map_or("", |(_, name)| name.as_str())
    }

    /// Whether the verification has ended and no revision will follow: the rest of its window need not be asked for.
    async fn is_settled(&self, record: &CollectionRecord) -> bool {
        let key = subject::id_key(&record.verification_id);
        let Ok(Some(bytes)) = self.verifications.get(key).await else { return false };
        serde_json::from_slice::<v1::Verification>(&bytes).is_ok_and(|verification| verification.settled)
    }
}
