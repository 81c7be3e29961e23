//! Where alerts wait until their action has told them, and what is kept about incidents: the rim of telling.

#[cfg(test)]
pub(crate) mod memory;

use crate::alert::{About, Entity};
use crate::incident::{self, Incidents, Told};
use crate::policy::{Decision, Rule, Step};
use anyhow::Context as _;
use async_nats::jetstream::kv::Store;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use vouch_proto::subject::{self, CATALOGUE_BUCKET, INCIDENT_BUCKET};
use vouch_proto::{Name, Purpose, Timestamp, Verdict, v1};
use vouch_service::bucket::{self, Change};
use vouch_service::nats::{self, Nats};
use vouch_service::publish;

/// The format of a waiting alert. A newer one is left to a newer notifier.
pub(crate) const FORMAT: u32 = 1;
/// Longest alert, in bytes; a server takes messages of 1 MiB. Rows of metrics beyond it are left out, the last ones first.
const MOST_BYTES: usize = 900 << 10;

/// Looks at a service's incidents and changes them. Called again where somebody was faster.
pub(crate) type LookAt<'a> = &'a mut (dyn FnMut(&mut Incidents) + Send);

/// What telling needs from outside. Every error is an outage of something that it depends on.
#[async_trait]
pub(crate) trait Outbox: Debug + Send + Sync {
    /// Reads a service's incidents, lets `look` change them, writes by compare-and-set.
    async fn incidents(&self, environment: &Name, service: &Name, look: LookAt<'_>) -> anyhow::Result<()>;
    /// Puts an alert into the queue of its action; once per key.
    async fn queue(&self, waiting: &Waiting) -> anyhow::Result<()>;
    /// What an action keeps about an incident.
    async fn memory(&self, incident: &str, action: &str) -> anyhow::Result<Option<String>>;
    /// Keeps something about an incident.
    async fn remember(&self, incident: &str, action: &str, memory: &str) -> anyhow::Result<()>;
    /// Where the source knows the service.
    async fn entity(&self, environment: &Name, service: &Name) -> anyhow::Result<Option<Entity>>;
}

/// An alert that waits for its action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// Format.
    pub(crate) version: u32,
    /// Key in the ledger.
    pub(crate) key: String,
    /// Name of the action.
    pub(crate) action: String,
    /// The rule that decided.
    pub(crate) rule: Rule,
    /// For a person: what is wrong and what is done about it.
    pub(crate) detail: String,
    /// What the tenant's budget says about it.
    pub(crate) budget: Option<String>,
    /// Where it stands in its incident.
    pub(crate) about: About,
    /// What this action was told about the incident before.
    pub(crate) before: Vec<String>,
    /// When it was queued.
    pub(crate) queued_at: Timestamp,
    /// The verdict.
    pub(crate) verdict: v1::Verdict,
    /// W3C trace context of the verdict.
    pub(crate) traceparent: Option<String>,
}

impl Waiting {
    pub(crate) fn new(
        told: &Told,
        verdict: &Verdict,
        (traceparent, queued_at): (Option<&str>, Timestamp),
    ) -> Self {
        Self {
            version: FORMAT,
            key: told.decision.key.clone(),
            action: told.decision.action.clone(),
            rule: told.decision.rule,
            detail: told.decision.detail.clone(),
            budget: told.decision.budget.clone(),
            about: told.about.clone(),
            before: told.before.clone(),
            queued_at,
            verdict: v1::Verdict::from(verdict.clone()),
            traceparent: traceparent.map(str::to_owned),
        }
    }

    /// The decision that it waits for.
    pub(crate) fn decision(&self) -> Decision {
        Decision {
            purpose: Purpose::Alert,
            step: Step::Act,
            rule: self.rule,
            action: self.action.clone(),
            key: self.key.clone(),
            detail: self.detail.clone(),
            budget: self.budget.clone(),
        }
    }

    fn bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut waiting = self.clone();
        loop {
            let bytes = serde_json::to_vec(&waiting)?;
            let rows = waiting.verdict.metrics.len();
            if bytes.len() <= MOST_BYTES || rows == 0 {
                return Ok(bytes);
            }
            waiting.verdict.metrics.truncate(rows / 2);
        }
    }
}

/// NATS.
#[derive(Debug)]
pub(crate) struct NatsOutbox {
    nats: Nats,
    incidents: Store,
    catalogue: Store,
}

impl NatsOutbox {
    pub(crate) async fn open(nats: Nats) -> anyhow::Result<Self> {
        let incidents = nats.bucket(&INCIDENT_BUCKET).await?;
        let catalogue = nats.bucket(&CATALOGUE_BUCKET).await?;
        Ok(Self { nats, incidents, catalogue })
    }
}

#[async_trait]
impl Outbox for NatsOutbox {
    async fn incidents(&self, environment: &Name, service: &Name, look: LookAt<'_>) -> anyhow::Result<()> {
        let key = subject::incidents_key(environment, service);
        bucket::change(&self.incidents, &key, |bytes| {
            let before = incident::read(bytes).map_err(|why| {
                anyhow::anyhow!("key {key} of bucket {} cannot be used: {why}", INCIDENT_BUCKET.name)
            })?;
            let mut after = before.clone();
            look(&mut after);
            Ok(if after == before {
                Change::Keep(())
            } else {
                Change::Write(serde_json::to_vec(&after)?, ())
            })
        })
        .await
    }

    async fn queue(&self, waiting: &Waiting) -> anyhow::Result<()> {
        let mut headers =
            vec![("Nats-Msg-Id", waiting.key.clone()), ("content-type", "application/json".to_owned())];
        headers.extend(waiting.traceparent.clone().map(|t| ("traceparent", t)));
        let body = waiting.bytes().context("an alert cannot be written")?;
        publish::publish(&self.nats, subject::alert(&waiting.action), nats::headers(headers), body.into())
            .await
    }

    async fn memory(&self, incident: &str, action: &str) -> anyhow::Result<Option<String>> {
        let bytes = bucket::read(&self.incidents, &subject::memory_key(incident, action)).await?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()))
    }

    async fn remember(&self, incident: &str, action: &str, memory: &str) -> anyhow::Result<()> {
        let key = subject::memory_key(incident, action);
        bucket::change(&self.incidents, &key, |bytes| {
            Ok(if bytes == Some(memory.as_bytes()) {
                Change::Keep(())
            } else {
                Change::Write(memory.as_bytes().to_vec(), ())
            })
        })
        .await
    }

    async fn entity(&self, environment: &Name, service: &Name) -> anyhow::Result<Option<Entity>> {
        let entry = bucket::catalogue_entry(&self.catalogue, environment, service).await?;
        let entry = entry.filter(|entry| !entry.entity_id.is_empty());
        Ok(entry.map(|entry| Entity { source: entry.source, id: entry.entity_id }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Stage;
    use crate::fixtures::verdict;

    fn waiting() -> Waiting {
        let about = About {
            stage: Some(Stage::Opens),
            incident: "d".into(),
            did: "Rolling back.".into(),
            ..About::default()
        };
        let decision = Decision {
            purpose: Purpose::Alert,
            step: Step::Act,
            rule: Rule::FailAlerts,
            action: "chat".into(),
            key: "d.1/0/alert/chat".into(),
            detail: "it failed".into(),
            budget: None,
        };
        let told = Told { decision, about, before: vec!["d.0/0/alert/chat".into()] };
        Waiting::new(&told, &verdict(), (Some("00-aa"), verdict().decided_at))
    }

    #[test]
    fn released_alerts_are_read_and_written_alike() {
        let released = include_str!("../golden/waiting_alert.json");
        assert_eq!(serde_json::to_string_pretty(&waiting()).unwrap(), released.trim_end());
        let read: Waiting = serde_json::from_str(released).unwrap();
        assert_eq!(read, waiting());
        assert_eq!(read.decision().key, "d.1/0/alert/chat");
    }

    #[test]
    fn a_huge_verdict_waits_without_its_last_rows() {
        let mut waiting = waiting();
        let row = waiting.verdict.metrics[0].clone();
        waiting.verdict.metrics = vec![row; 20_000];
        let bytes = waiting.bytes().unwrap();
        assert!(bytes.len() <= MOST_BYTES, "{}", bytes.len());
        let read: Waiting = serde_json::from_slice(&bytes).unwrap();
        assert!(read.verdict.metrics.len() > 1000);
    }
}
