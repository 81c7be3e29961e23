//! What the notifier needs from outside besides its actions: the ledger, the deployments, the audit stream.

#[cfg(test)]
pub(crate) mod memory;

use crate::ledger::{Entry, FORMAT};
use anyhow::Context as _;
use async_nats::jetstream::kv::Store;
use async_trait::async_trait;
use std::fmt::Debug;
use vouch_proto::envelope::{self, Origin};
use vouch_proto::spending::{Account, Spending};
use vouch_proto::subject::{self, DEPLOYMENT_BUCKET, LEDGER_BUCKET, SPENDING_BUCKET};
use vouch_proto::{Action, DeploymentRecord, Name, v1};
use vouch_service::bucket::{self, Change};
use vouch_service::budget;
use vouch_service::nats::{self, Nats};
use vouch_service::publish;

/// Looks at an entry and answers what to write in its place, if anything. Called again where somebody was faster.
pub(crate) type Look<'a> = &'a mut (dyn for<'e> FnMut(Option<&'e Entry>) -> Option<Entry> + Send);

/// Looks at what was spent of an account and changes it, if at all. Called again where somebody was faster.
pub(crate) type Spend<'a> = &'a mut (dyn FnMut(&mut Spending) + Send);

/// The rim of the notifier. Every error is an outage of something that it depends on.
#[async_trait]
pub(crate) trait World: Debug + Send + Sync {
    /// Reads a ledger entry, lets `look` decide, writes by compare-and-set.
    async fn change(&self, key: &str, look: Look<'_>) -> anyhow::Result<()>;
    /// The id of the service's newest deployment.
    async fn newest_deployment(&self, environment: &Name, service: &Name) -> anyhow::Result<Option<String>>;
    /// Reads what was spent, lets `look` change it, writes by compare-and-set.
    async fn spend(&self, account: Account, look: Spend<'_>) -> anyhow::Result<()>;
    /// Publishes an audit record; once per `id`.
    async fn publish(&self, record: Action, id: &str, traceparent: Option<&str>) -> anyhow::Result<()>;
}

/// NATS.
#[derive(Debug)]
pub(crate) struct NatsWorld {
    nats: Nats,
    ledger: Store,
    deployments: Store,
    spending: Store,
}

impl NatsWorld {
    pub(crate) async fn open(nats: Nats) -> anyhow::Result<Self> {
        let ledger = nats.bucket(&LEDGER_BUCKET).await?;
        let deployments = nats.bucket(&DEPLOYMENT_BUCKET).await?;
        let spending = nats.bucket(&SPENDING_BUCKET).await?;
        Ok(Self { nats, ledger, deployments, spending })
    }
}

#[async_trait]
impl World for NatsWorld {
    async fn change(&self, key: &str, look: Look<'_>) -> anyhow::Result<()> {
        bucket::change(&self.ledger, &subject::id_key(key), |bytes| {
            let entry = bytes.map(|bytes| read_entry(key, bytes)).transpose()?;
            Ok(match look(entry.as_ref()) {
                Some(new) if entry.as_ref() != Some(&new) => Change::Write(serde_json::to_vec(&new)?, ()),
                Some(_) | None => Change::Keep(()),
            })
        })
        .await
    }

    async fn newest_deployment(&self, environment: &Name, service: &Name) -> anyhow::Result<Option<String>> {
        let key = subject::newest_deployment_key(environment, service);
        let Some(bytes) = bucket::read(&self.deployments, &key).await? else { return Ok(None) };
        let record: v1::DeploymentRecord = serde_json::from_slice(&bytes)
            .with_context(|| format!("key {key} of bucket {} is no deployment", DEPLOYMENT_BUCKET.name))?;
        let record = DeploymentRecord::try_from(record)
            .with_context(|| format!("key {key} of bucket {} is no deployment", DEPLOYMENT_BUCKET.name))?;
        Ok(record.deployment.deployment_id)
    }

    async fn spend(&self, account: Account, look: Spend<'_>) -> anyhow::Result<()> {
        budget::spend(&self.spending, account, look).await
    }

    async fn publish(&self, record: Action, id: &str, traceparent: Option<&str>) -> anyhow::Result<()> {
        let subject = subject::action(&record.environment, &record.service);
        let origin = Origin { source: "vouch/notifier", id, time: record.finished_at, traceparent };
        let (headers, body) = envelope::seal(&v1::Action::from(record), &origin)?;
        publish::publish(&self.nats, subject, nats::headers(headers), body.into()).await
    }
}

/// Reads an entry. One that cannot be read keeps everybody from acting: it may hold a rollback that was done.
fn read_entry(key: &str, bytes: &[u8]) -> anyhow::Result<Entry> {
    #[derive(serde::Deserialize)]
    struct Format {
        version: u32,
    }
    let format = serde_json::from_slice::<Format>(bytes).map(|f| f.version);
    anyhow::ensure!(
        !matches!(format, Ok(version) if version > FORMAT),
        "the ledger's entry {key} has a newer format than {FORMAT}, the newest that this notifier reads; update it"
    );
    serde_json::from_slice(bytes).with_context(|| {
        format!(
            "the ledger's entry {key} cannot be read; look at it with `nats kv get {}`",
            LEDGER_BUCKET.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_a_newer_format_is_refused() {
        let said = read_entry("d/rollback", br#"{"version": 2, "surprise": true}"#).unwrap_err().to_string();
        assert!(said.contains("d/rollback") && said.contains("newer format than 1"), "{said}");
        let said = read_entry("d/rollback", b"{}").unwrap_err().to_string();
        assert!(said.contains("cannot be read"), "{said}");
    }
}
