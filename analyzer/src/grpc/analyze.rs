//! Analyze and AnalyzeStream: receives what is to be judged, judges beside the tasks that must not wait, and answers.

use super::{refuse, unavailable};
use crate::analysis::collected::Collected;
use crate::analysis::{Draft, Refusal};
use crate::live::Shared;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::StreamExt as _;
use prost::Message as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status, Streaming};
use vouch_proto::subject::{self, SERIES};
use vouch_proto::v1::analyze_stream_request::Part;
use vouch_proto::{FieldViolation, SeriesBatch, Timestamp, Verdict, v1};

/// Analyses at once: judging takes memory and a core.
const AT_ONCE: usize = 2;
/// Longest time from the first message to the verdict: a little less than any call may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Room for a few analyses.
#[derive(Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{AT_ONCE} analyses are running, and at most {AT_ONCE} at once; ask again in a moment"
            ))
        })
    }
}

/// Says when nobody waits any more: the call was cancelled, or its deadline has passed.
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

pub(super) async fn analyze(
    shared: &Shared,
    room: &Room,
    request: v1::AnalyzeRequest,
) -> Result<Verdict, Status> {
    let permit = room.enter()?;
    let now = shared.now();
    if request.collected {
        return in_time(collected(shared, permit, request, now)).await;
    }
    in_time(judge(permit, move |goes_on| Ok(Draft::whole(request, now)?.judge(goes_on)))).await
}

pub(super) async fn analyze_stream(
    shared: &Shared,
    room: &Room,
    messages: Streaming<v1::AnalyzeStreamRequest>,
) -> Result<Verdict, Status> {
    let permit = room.enter()?;
    let now = shared.now();
    let verdict = async move {
        let draft = receive(messages, now).await?;
        judge(permit, move |goes_on| Ok(draft.finish()?.judge(goes_on))).await
    };
    in_time(verdict).await
}

/// Reads the header and the series; ends with the first message that is wrong or too much.
async fn receive(mut messages: Streaming<v1::AnalyzeStreamRequest>, now: Timestamp) -> Result<Draft, Status> {
    let mut draft: Option<Draft> = None;
    while let Some(message) = messages.message().await.map_err(too_large)? {
        match (message.part, &mut draft) {
            (Some(Part::Header(header)), None) => {
                if !header.series.is_empty() {
                    return Err(refuse::field("header.series", "is set; send the series as chunks after it"));
                }
                draft = Some(Draft::open(header, now).map_err(|e| refused(&e))?);
            }
            (Some(Part::Chunk(chunk)), Some(draft)) => draft.add(chunk.series).map_err(|e| refused(&e))?,
            (Some(Part::Header(_)), Some(_)) => {
                return Err(refuse::field("header", "comes a second time; send it once, first"));
            }
            (Some(Part::Chunk(_)), None) => {
                return Err(refuse::field("header", "is missing; send it before the first chunk"));
            }
            (None, _) => return Err(refuse::field("part", "is missing; give `header` or `chunk`")),
        }
    }
    draft.ok_or_else(|| refuse::field("header", "is missing; the stream ended without one"))
}

/// Runs the judge beside the tasks that must not wait. The room is taken until it has ended, wanted or not.
async fn judge<F>(permit: OwnedSemaphorePermit, run: F) -> Result<Verdict, Status>
where
    F: FnOnce(&dyn Fn() -> bool) -> Result<Verdict, Refusal> + Send + 'static,
{
    let caller = Caller(Arc::new(AtomicBool::new(true)));
    let waits = caller.0.clone();
    let judged = tokio::task::spawn_blocking(move || {
        let verdict = run(&|| waits.load(Ordering::Relaxed));
        drop(permit);
        verdict
    });
    let judged = judged.await;
    judged
        .map_err(|_| Status::internal("the judge did not end; please report the request"))?
        .map_err(|e| refused(&e))
}

async fn in_time(verdict: impl Future<Output = Result<Verdict, Status>>) -> Result<Verdict, Status> {
    tokio::time::timeout(LIMIT, verdict).await.unwrap_or_else(|_| {
        let limit = LIMIT.as_secs();
        let message = format!("no verdict within {limit} s; send fewer series, or send them faster");
        Err(Status::deadline_exceeded(message))
    })
}

/// Judges what the collector has delivered.
async fn collected(
    shared: &Shared,
    permit: OwnedSemaphorePermit,
    request: v1::AnalyzeRequest,
    now: Timestamp,
) -> Result<Verdict, Status> {
    let mut collected =
        Collected::open(request, &shared.settings.templates, now).map_err(|e| refuse::invalid(&e))?;
    absorb(shared, &mut collected).await.map_err(unavailable)?;
    if !collected.is_heard() {
        return Err(Status::not_found(collected.nothing()));
    }
    if let Some(missing) = collected.missing() {
        return Err(Status::failed_precondition(missing));
    }
    judge(permit, move |_| Ok(collected.judge(now)?)).await
}

/// Shows every batch of the service that the stream still has.
async fn absorb(shared: &Shared, collected: &mut Collected) -> anyhow::Result<()> {
    let stream = shared.context.nats.jetstream.get_stream_no_info(SERIES.name).await?;
    let (environment, service) = collected.subject();
    let config = pull::OrderedConfig {
        filter_subject: subject::series(environment, service),
        deliver_policy: DeliverPolicy::All,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    if consumer.cached_info().num_pending == 0 {
        return Ok(());
    }
    let mut messages = consumer.messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        let pending = message.info().map_err(anyhow::Error::from_boxed)?.pending;
        // What cannot be read is a dead letter of whoever verifies; it is no fact here.
        let wire = v1::SeriesBatch::decode(message.payload.clone());
        if let Some(batch) = wire.ok().and_then(|wire| SeriesBatch::try_from(wire).ok()) {
            collected.on_batch(&batch);
        }
        if pending == 0 {
            break;
        }
    }
    Ok(())
}

fn refused(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Wrong(invalid) => refuse::invalid(invalid),
        Refusal::TooMuch(violation) => refuse::too_much(violation),
    }
}

/// A message beyond the limit is too much, not out of range.
pub(super) fn too_large(status: Status) -> Status {
    if status.code() != Code::OutOfRange {
        return status;
    }
    let message = format!("{}; send the series in several messages with AnalyzeStream", status.message());
    refuse::too_much(&FieldViolation { field: "message".to_owned(), message })
}
