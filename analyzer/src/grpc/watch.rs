//! Watch: progress as it is published, then the verdict, then the end of the stream.

use super::unavailable;
use crate::live::Shared;
use crate::record::{Record, State};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::{Stream, StreamExt as _};
use std::pin::Pin;
use tonic::Status;
use vouch_proto::envelope;
use vouch_proto::subject::{self, PROGRESS};
use vouch_proto::{Verdict, v1};
use vouch_service::nats::header;

pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

fn verdict_event(verdict: Verdict) -> v1::WatchResponse {
    v1::WatchResponse { event: Some(v1::watch_response::Event::Verdict(verdict.into())) }
}

pub(super) async fn watch(shared: &Shared, record: Record) -> Result<EventStream, Status> {
    if let Some(verdict) = record.verdict {
        return Ok(Box::pin(futures::stream::once(async { Ok(verdict_event(verdict)) })));
    }
    let failed = |e: &dyn std::fmt::Display| unavailable(anyhow::anyhow!("{e}"));
    let deployment = &record.deployment;
    let topic = subject::progress(&deployment.environment, &deployment.service, &record.verification_id);
    let stream =
        shared.context.nats.jetstream.get_stream_no_info(PROGRESS.name).await.map_err(|e| failed(&e))?;
    let config = pull::OrderedConfig {
        filter_subject: topic,
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(|e| failed(&e))?;
    let progress = consumer.messages().await.map_err(|e| failed(&e))?;
    let key = subject::id_key(&record.verification_id);
    let records = shared.store.verifications.watch_with_history(key).await.map_err(|e| failed(&e))?;

    let progress = progress.filter_map(|message| async {
        let message = message.ok()?;
        let read = envelope::open::<v1::Progress>(header(&message, "content-type"), &message.payload).ok()?;
        Some(Ok(v1::WatchResponse { event: Some(v1::watch_response::Event::Progress(read)) }))
    });
    let verdicts = records.filter_map(|entry| async move {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => return Some(Err(unavailable(anyhow::Error::from(e)))),
        };
        let wire: v1::Verification = serde_json::from_slice(&entry.value).ok()?;
        let record = Record::try_from(wire).ok()?;
        if record.state != State::Final {
            return None;
        }
        record.verdict.map(|verdict| Ok(verdict_event(verdict)))
    });
    let stop = shared.context.tasks.stop().clone();
    let events = futures::stream::select(Box::pin(progress), Box::pin(verdicts));
    let events = futures::stream::unfold((Box::pin(events), false), |(mut events, ended)| async move {
        if ended {
            return None;
        }
        let event = events.next().await?;
        // The verdict, or an error, is the last word.
        let last =
            !matches!(&event, Ok(v1::WatchResponse { event: Some(v1::watch_response::Event::Progress(_)) }));
        Some((event, (events, last)))
    });
    Ok(Box::pin(events.take_until(async move { stop.cancelled().await })))
}
