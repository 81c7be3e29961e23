//! Owns verifications: runs a task for each open one in a partition that this replica holds, and ends it when the
//! partition goes to another.

use super::{Shared, task};
use crate::record::Record;
use anyhow::Context as _;
use async_nats::jetstream::kv::{Entry, Operation};
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use vouch_proto::{subject, v1};
use vouch_service::lease::Owned;

const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// An open verification, and the task that runs it where this replica owns it.
struct Open {
    record: watch::Sender<Record>,
    running: Option<(u64, CancellationToken)>,
}

struct Owner {
    shared: Arc<Shared>,
    open: BTreeMap<String, Open>,
    /// Id and number of a task that has ended.
    ended: mpsc::Sender<(String, u64)>,
    tasks: u64,
}

pub(super) async fn run(shared: Arc<Shared>, mut owned: Owned) -> anyhow::Result<()> {
    let stop = shared.context.tasks.stop().clone();
    let (ended, mut ends) = mpsc::channel(64);
    let mut owner = Owner { shared: shared.clone(), open: BTreeMap::new(), ended, tasks: 0 };
    loop {
        // Everything that is kept, then every change.
        let mut records = match shared.store.verifications.watch_with_history(">").await {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(%error, "verifications cannot be watched; trying again");
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(REOPEN_AFTER) => continue,
                }
            }
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = owned.changed() => changed.context("the leases have ended")?,
                Some((id, task)) = ends.recv() => owner.ended(&id, task),
                entry = records.next() => match entry {
                    Some(Ok(entry)) => owner.learn(&entry),
                    Some(Err(error)) => { tracing::warn!(%error, "verifications: watching again"); break; }
                    None => break,
                },
            }
            owner.assign(&owned);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Owner {
    fn learn(&mut self, entry: &Entry) {
        if entry.operation != Operation::Put {
            return;
        }
        let read = serde_json::from_slice::<v1::Verification>(&entry.value)
            .map_err(anyhow::Error::from)
            .and_then(|wire| Ok(Record::try_from(wire)?));
        match read {
            Err(error) => {
                tracing::error!(
                    key = entry.key,
                    error = format!("{error:#}"),
                    "a verification's record is unreadable"
                );
            }
            Ok(record) if !record.is_open() => {
                if let Some(open) = self.open.remove(&record.verification_id)
                    && let Some((_, task)) = open.running
                {
                    task.cancel();
                }
            }
            Ok(record) => match self.open.get(&record.verification_id) {
                Some(open) => {
                    open.record.send_replace(record);
                }
                None => {
                    let id = record.verification_id.clone();
                    self.open.insert(id, Open { record: watch::channel(record).0, running: None });
                }
            },
        }
    }

    /// A task has ended without a verdict: it is begun again at the next occasion, where it is still open.
    fn ended(&mut self, id: &str, task: u64) {
        if let Some(open) = self.open.get_mut(id)
            && open.running.as_ref().is_some_and(|(number, _)| *number == task)
        {
            open.running = None;
        }
    }

    /// Starts what is owned and not running, and stops what runs and is not owned any more.
    fn assign(&mut self, owned: &Owned) {
        let partitions = owned.borrow();
        let mut running = 0;
        for (id, open) in &mut self.open {
            let partition = {
                let record = open.record.borrow();
                subject::partition(&record.deployment.environment, &record.deployment.service)
            };
            match (partitions.contains(&partition), &open.running) {
                (true, None) => {
                    let stop = self.shared.context.tasks.stop().child_token();
                    self.tasks += 1;
                    let number = self.tasks;
                    open.running = Some((number, stop.clone()));
                    let (shared, record, ended, id) =
                        (self.shared.clone(), open.record.subscribe(), self.ended.clone(), id.clone());
                    self.shared.context.tasks.spawn(async move {
                        if let Err(error) = task::run(shared, record, stop).await {
                            tracing::warn!(verification = id, error = format!("{error:#}"), "begun again");
                            tokio::time::sleep(REOPEN_AFTER).await;
                        }
                        ended.send((id, number)).await.ok();
                    });
                }
                (false, Some((_, task))) => {
                    task.cancel();
                    open.running = None;
                }
                (true, Some(_)) | (false, None) => {}
            }
            running += i64::from(open.running.is_some());
        }
        self.shared.metrics.open.set(running);
    }
}
