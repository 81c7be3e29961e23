//! What went wrong with a service before: its verdicts that stand, and the rollbacks in the audit stream.

use super::store::Store;
use super::task::server_time;
use crate::spoilt::{Failed, MOST, RolledBack, spoilt};
use anyhow::Context as _;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use futures::{StreamExt as _, TryStreamExt as _};
use std::time::Duration;
use vouch_proto::announce::begun_at;
use vouch_proto::subject::{self, ACTIONS, VERDICTS};
use vouch_proto::{Action, ActionOutcome, LeftOut, Name, Outcome, Purpose, Timestamp, Verdict, envelope, v1};
use vouch_service::nats::header;

/// How far back references may lie: two weeks, and the longest of their windows.
const LONGEST: Duration = Duration::from_secs(15 * 24 * 3600);
/// How long the audit stream may take, real time.
const PATIENCE: Duration = Duration::from_secs(20);

impl Store {
    /// Times in which the service ran a version that failed. `now` is the injected clock's time, `stored` the server's.
    pub(crate) async fn spoilt(
        &self,
        environment: &Name,
        service: &Name,
        (now, stored): (Timestamp, Timestamp),
    ) -> anyhow::Result<Vec<LeftOut>> {
        let failed = self.failed(environment, service, now).await?;
        let rollbacks =
            if failed.is_empty() { Vec::new() } else { self.rollbacks(environment, service, stored).await? };
        Ok(spoilt(&failed, &rollbacks))
    }

    /// The newest versions of the service that failed.
    async fn failed(
        &self,
        environment: &Name,
        service: &Name,
        now: Timestamp,
    ) -> anyhow::Result<Vec<Failed>> {
        let stream = self.nats.jetstream.get_stream_no_info(VERDICTS.name).await?;
        let mut subjects = stream.info_with_subjects(subject::verdicts_of(environment, service)).await?;
        let from = now.minus(LONGEST);
        let mut recent: Vec<(Timestamp, String)> = Vec::new();
        while let Some((topic, _)) = subjects.try_next().await? {
            let begun = subject::verification_of_verdict(&topic).and_then(|id| begun_at(&id));
            recent.extend(begun.filter(|begun| *begun > from && *begun <= now).map(|begun| (begun, topic)));
        }
        recent.sort_unstable();
        let mut failed = Vec::new();
        for (_, topic) in recent.into_iter().rev() {
            let message = match stream.get_last_raw_message_by_subject(&topic).await {
                Ok(message) => message,
                Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => continue,
                Err(e) => return Err(e.into()),
            };
            let content_type = message.headers.get("content-type").map(async_nats::HeaderValue::as_str);
            let wire: Result<v1::Verdict, _> = envelope::open(content_type, &message.payload);
            let Some(verdict) = wire.ok().and_then(|wire| Verdict::try_from(wire).ok()) else {
                tracing::warn!(topic, "a verdict cannot be read; its time stays in the references");
                continue;
            };
            if let Some(window) = verdict.verification.filter(|_| verdict.outcome == Outcome::Fail) {
                failed.push(Failed {
                    deployment_id: verdict.deployment_id,
                    verification_id: verdict.verification_id,
                    version: verdict.version,
                    window,
                });
            }
            if failed.len() == MOST {
                break;
            }
        }
        Ok(failed)
    }

    /// Rollbacks of the service that were done; `stored` is the server's time of what opens the verification.
    async fn rollbacks(
        &self,
        environment: &Name,
        service: &Name,
        stored: Timestamp,
    ) -> anyhow::Result<Vec<RolledBack>> {
        let stream = self.nats.jetstream.get_stream_no_info(ACTIONS.name).await?;
        let config = pull::OrderedConfig {
            filter_subject: subject::action(environment, service),
            deliver_policy: DeliverPolicy::ByStartTime { start_time: server_time(stored.minus(LONGEST))? },
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let pending = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
        let mut messages = consumer.messages().await?.take(pending);
        let mut done = Vec::new();
        let read = async {
            while let Some(message) = messages.next().await {
                let message = message?;
                let wire: Result<v1::Action, _> =
                    envelope::open(header(&message, "content-type"), &message.payload);
                let Some(action) = wire.ok().and_then(|wire| Action::try_from(wire).ok()) else { continue };
                let is_rollback = action.purpose == Purpose::Rollback && !action.dry_run;
                if is_rollback && action.outcome == ActionOutcome::Done {
                    done.push(RolledBack { deployment_id: action.deployment_id, at: action.finished_at });
                }
            }
            Ok::<(), anyhow::Error>(())
        };
        tokio::time::timeout(PATIENCE, read).await.context("the audit stream took too long")??;
        Ok(done)
    }
}
