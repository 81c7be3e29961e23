//! Runs a task for every open collection whose partition this replica owns, and only for those.

use crate::collect::{self, Shared};
use crate::record::CollectionRecord;
use async_nats::jetstream::kv::{Entry, Operation};
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vouch_proto::subject;
use vouch_service::lease::Owned;
use vouch_service::shutdown::Tasks;

const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// A collection that is open somewhere.
struct Open {
    record: CollectionRecord,
    task: Option<Task>,
}

/// A task of this replica.
struct Task {
    news: watch::Sender<CollectionRecord>,
    stop: CancellationToken,
}

/// Follows the bucket and the leases until the stop signal.
pub(crate) async fn run(shared: Arc<Shared>, tasks: Tasks, mut owned: Owned) -> anyhow::Result<()> {
    let stop = tasks.stop().clone();
    let mut supervisor = Supervisor { shared, tasks, open: BTreeMap::new() };
    loop {
        match supervisor.shared.collections.watch_with_history(">").await {
            Err(error) => tracing::warn!(%error, "collections cannot be watched; trying again"),
            Ok(mut entries) => loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    changed = owned.changed() => {
                        anyhow::ensure!(changed.is_ok(), "the leases are gone");
                        supervisor.reconcile(&owned);
                    }
                    entry = entries.next() => match entry {
                        Some(Ok(entry)) => supervisor.take(&entry, &owned),
                        Some(Err(error)) => {
                            tracing::warn!(%error, "collections: watching again");
                            break;
                        }
                        None => break,
                    }
                }
            },
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(REOPEN_AFTER) => {}
        }
    }
}

struct Supervisor {
    shared: Arc<Shared>,
    tasks: Tasks,
    open: BTreeMap<String, Open>,
}

impl Supervisor {
    fn take(&mut self, entry: &Entry, owned: &Owned) {
        let record = match entry.operation {
            Operation::Put => match CollectionRecord::read(&entry.value) {
                Ok(record) => Some(record),
                Err(error) => {
                    tracing::error!(
                        key = entry.key,
                        error = format!("{error:#}"),
                        "a collection record cannot be used"
                    );
                    None
                }
            },
            Operation::Delete | Operation::Purge => None,
        };
        self.shared.wanted_logs.note(&entry.key, record.as_ref());
        match record.filter(CollectionRecord::is_open) {
            None => {
                if let Some(task) = self.open.remove(&entry.key).and_then(|open| open.task) {
                    task.stop.cancel();
                }
            }
            Some(record) => {
                let known = self
                    .open
                    .entry(entry.key.clone())
                    .or_insert_with(|| Open { record: record.clone(), task: None });
                known.record = record;
                if let Some(task) = &known.task {
                    task.news.send_replace(known.record.clone());
                }
            }
        }
        self.reconcile(owned);
    }

    /// Starts what is owned and stops what is not.
    fn reconcile(&mut self, owned: &Owned) {
        let owned = owned.borrow();
        let mut working = 0;
        for open in self.open.values_mut() {
            let mine = owned.contains(&subject::partition(&open.record.environment, &open.record.service));
            match (mine, &open.task) {
                (true, None) => {
                    let (news, receiver) = watch::channel(open.record.clone());
                    let stop = self.tasks.stop().child_token();
                    self.tasks.spawn(collect::run(self.shared.clone(), receiver, stop.clone()));
                    open.task = Some(Task { news, stop });
                }
                (false, Some(task)) => {
                    task.stop.cancel();
                    open.task = None;
                }
                (true, Some(_)) | (false, None) => {}
            }
            working += usize::from(mine);
        }
        self.shared.metrics.open(working);
    }
}
