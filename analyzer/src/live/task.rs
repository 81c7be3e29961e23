//! Runs one verification: reads its service's series in order from the stream, steps, publishes progress and verdict.

use super::{Shared, evidence};
use crate::levels::judge_settings;
use crate::record::{Record, State};
use crate::verification::{Step, Verification};
use anyhow::Context as _;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use bytes::Bytes;
use futures::StreamExt as _;
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vouch_proto::envelope::{self, Origin, PROTOBUF};
use vouch_proto::subject::{self, ANALYZER_SERIES, SERIES};
use vouch_proto::{SeriesBatch, Verdict, v1};
use vouch_service::nats::{dead_letter, header, headers};

/// How often an idle verification looks at the clock.
const TICK: Duration = Duration::from_secs(10);
/// How long a verdict waits for its evidence to be kept.
const EVIDENCE_WAIT: Duration = Duration::from_secs(5);
const SHORTEST_TICK: Duration = Duration::from_millis(20);
const LONGEST_TICK: Duration = Duration::from_secs(1);

pub(super) async fn run(
    shared: Arc<Shared>,
    mut records: watch::Receiver<Record>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let record = records.borrow_and_update().clone();
    let (mut messages, mut behind) = open(&shared, &record).await?;
    let mut verification = match shared.settings.templates.get(Some(&record.template)) {
        Ok(template) => {
            let settings = judge_settings(record.levels.as_ref());
            Verification::new(record, template.clone(), settings)
        }
        Err(missing) => Verification::unjudgeable(record, format!("it cannot be judged: {missing}")),
    };
    let tick = shared.context.clock.real(TICK).clamp(SHORTEST_TICK, LONGEST_TICK);
    let mut last_sequence = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = records.changed() => {
                changed.context("the owner has ended")?;
                verification.on_record(records.borrow_and_update().clone());
            }
            message = messages.next() => {
                let message = message.context("the series have ended")??;
                let info = message.info().map_err(anyhow::Error::from_boxed)?;
                (behind, last_sequence) = (info.pending > 0, info.stream_sequence);
                take(&shared, &mut verification, &message).await?;
            }
            () = tokio::time::sleep(tick) => {}
        }
        // Deciding on half of what is already there would decide on less than a neighbour knows.
        if behind {
            continue;
        }
        let step;
        (verification, step) = take_step(verification, shared.now()).await;
        match step {
            Step::Wait => {}
            Step::Progress(progress) => tell(&shared, &progress).await,
            Step::Final(verdict) => {
                if newest_sequence(&shared, verification.record()).await? > last_sequence {
                    verification.rejudge();
                    continue;
                }
                keep_evidence(&shared, &verification, &verdict).await;
                let decided = conclude(&shared, verification.record(), *verdict).await?;
                let record =
                    Record { state: State::Final, verdict: Some(decided), ..verification.record().clone() };
                verification.on_record(record);
            }
            Step::Revised(verdict) => {
                let before = verification.record().verdict.as_ref().map(|before| before.outcome);
                if before != Some(verdict.outcome) {
                    keep_evidence(&shared, &verification, &verdict).await;
                }
                let newest = shared.store.revise(verification.record(), *verdict).await?;
                tracing::info!(
                    verification = newest.verification_id,
                    revision = newest.revision,
                    "verdict revised"
                );
                verification.on_record(Record { verdict: Some(newest), ..verification.record().clone() });
            }
            Step::Settled => return shared.store.settle(&verification.record().verification_id).await,
        }
    }
}

/// Judges beside the tasks that must not wait. A judge that fails on its data ends the verification in Error.
async fn take_step(mut verification: Verification, now: vouch_proto::Timestamp) -> (Verification, Step) {
    let record = verification.record().clone();
    let judged = tokio::task::spawn_blocking(move || {
        let step = verification.step(now);
        (verification, step)
    });
    judged.await.unwrap_or_else(|error| {
        tracing::error!(verification = record.verification_id, %error, "the judge failed");
        let reason = "the judge failed on this data; please report it with the verification's id";
        let mut verification = Verification::unjudgeable(record, reason);
        let step = verification.step(now);
        (verification, step)
    })
}

/// The service's series from the announcement on, and whether there are any yet.
async fn open(shared: &Shared, record: &Record) -> anyhow::Result<(pull::Ordered, bool)> {
    let stream = shared.context.nats.jetstream.get_stream_no_info(SERIES.name).await?;
    let from = server_time(record.series_from)?;
    let consumer = stream
        .create_consumer(pull::OrderedConfig {
            filter_subject: subject::series(&record.deployment.environment, &record.deployment.service),
            deliver_policy: DeliverPolicy::ByStartTime { start_time: from },
            ..Default::default()
        })
        .await?;
    let pending = consumer.cached_info().num_pending > 0;
    Ok((consumer.messages().await?, pending))
}

/// An instant as the server takes it.
pub(super) fn server_time(t: vouch_proto::Timestamp) -> anyhow::Result<async_nats::datetime::DateTime> {
    Ok(async_nats::datetime::DateTime::from_unix_timestamp_nanos(i128::from(t.as_millis()) * 1_000_000)?)
}

/// Sequence of the newest batch of the service in the stream; 0 where there is none.
async fn newest_sequence(shared: &Shared, record: &Record) -> anyhow::Result<u64> {
    use async_nats::jetstream::stream::LastRawMessageErrorKind;
    let stream = shared.context.nats.jetstream.get_stream_no_info(SERIES.name).await?;
    let topic = subject::series(&record.deployment.environment, &record.deployment.service);
    match stream.get_last_raw_message_by_subject(&topic).await {
        Ok(message) => {
            let stored = super::real_instant(message.time);
            Ok(if stored < record.series_from { 0 } else { message.sequence })
        }
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Takes a batch in; one that cannot be used goes to the dead letters, once.
async fn take(shared: &Shared, verification: &mut Verification, message: &Message) -> anyhow::Result<()> {
    shared.metrics.batches.inc();
    let read = match header(message, "content-type") {
        Some(PROTOBUF) | None => v1::SeriesBatch::decode(message.payload.clone())
            .map_err(|e| format!("no series batch in protobuf: {e}")),
        Some(other) => Err(format!("content-type `{other}` is not understood, send {PROTOBUF}")),
    };
    match read.and_then(|wire| SeriesBatch::try_from(wire).map_err(|e| e.to_string())) {
        Ok(batch) => verification.on_batch(&batch),
        Err(reason) => {
            shared.metrics.dead_letters.inc();
            dead_letter(&shared.context.nats, ANALYZER_SERIES, message, &reason).await?;
        }
    }
    Ok(())
}

/// Publishes progress; the next minute brings newer, so a lost one is not sent again.
async fn tell(shared: &Shared, progress: &v1::Progress) {
    let (Ok(environment), Ok(service)) =
        (vouch_proto::Name::new(&*progress.environment), vouch_proto::Name::new(&*progress.service))
    else {
        return;
    };
    let topic = subject::progress(&environment, &service, &progress.verification_id);
    let id = format!("{}.{}.{}", progress.verification_id, progress.minutes_seen, progress.waiting_for);
    let origin = Origin { source: "vouch/analyzer", id: &id, time: shared.now(), traceparent: None };
    let Ok((mut sealed, body)) = envelope::seal(progress, &origin) else { return };
    sealed.retain(|(name, _)| *name != "Nats-Msg-Id");
    let jetstream = &shared.context.nats.jetstream;
    if let Err(error) = jetstream.publish_with_headers(topic, headers(sealed), Bytes::from(body)).await {
        tracing::debug!(%error, "progress not published");
    }
}

/// Keeps what a verdict rests on. A verdict does not wait for it long, and never fails for it.
async fn keep_evidence(shared: &Shared, verification: &Verification, verdict: &Verdict) {
    let Some(bundle) = verification.bundle(verdict) else { return };
    let kept = tokio::time::timeout(EVIDENCE_WAIT, evidence::store(shared, verdict, bundle)).await;
    let error = match kept {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("not acknowledged within {EVIDENCE_WAIT:?}"),
    };
    shared.metrics.evidence_lost.inc();
    tracing::warn!(
        verification = verdict.verification_id,
        error,
        "the evidence is not kept; the verdict stands without it"
    );
}

async fn conclude(shared: &Shared, record: &Record, verdict: Verdict) -> anyhow::Result<Verdict> {
    let decided = shared.store.conclude(record, verdict).await?;
    shared.metrics.verdict(decided.outcome);
    tracing::info!(
        verification = decided.verification_id,
        service = %decided.service,
        environment = %decided.environment,
        version = %decided.version,
        outcome = %decided.outcome,
        risk = decided.risk,
        reason = decided.reason,
        "verdict"
    );
    Ok(decided)
}
