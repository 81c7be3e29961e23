//! Which partitions this replica owns: every replica says that it lives, each partition has one preferred owner among
//! the living (rendezvous hashing), and a lease in a bucket, which vanishes when it is not renewed, keeps a second
//! owner out until the first is gone. A lease spreads the work; it is no fence: publishing expects a sequence for that.

use crate::health::Health;
use crate::nats::Nats;
use async_nats::jetstream::kv::{Operation, Store};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vouch_proto::subject::{self, LEASE_BUCKET, PARTITIONS};

/// How often leases are renewed: three times within their life.
const RENEWAL: Duration = Duration::from_millis(1500);

/// How long a renewal may take: the lease still holds then.
const RENEWAL_LIMIT: Duration = Duration::from_secs(3);
/// Leases renewed at once.
const AT_ONCE: usize = 16;
/// The condition of readiness.
const CONDITION: &str = "leases";

/// The partitions that this replica owns now.
pub type Owned = watch::Receiver<BTreeSet<u32>>;

/// How many replicas of its kind live, this one among them.
pub type Replicas = watch::Receiver<usize>;

/// A name for this replica: host, process and a unique suffix of its connection.
#[must_use]
fn member_name(nats: &Nats) -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let unique = nats.client.new_inbox();
    format!("{}-{}-{}", host.trim(), std::process::id(), unique.rsplit('.').next().unwrap_or_default())
}

/// The preferred owner of a partition among the living members.
#[must_use]
pub fn preferred_owner(partition: u32, members: &BTreeSet<String>) -> Option<&String> {
    members.iter().max_by_key(|member| {
        let bytes = partition.to_be_bytes().into_iter().chain(member.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // FNV leaves like inputs alike; the finalizer of splitmix64 spreads them.
        let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    })
}

/// Takes part in the sharing of the partitions among replicas of `kind`.
#[derive(Debug)]
pub struct Leases {
    store: Store,
    kind: &'static str,
    member: String,
    health: Health,
    owned: watch::Sender<BTreeSet<u32>>,
    replicas: watch::Sender<usize>,
}

impl Leases {
    /// Joins the replicas of `kind` under a name of its own.
    ///
    /// # Errors
    /// Where the bucket cannot be opened.
    pub async fn join(nats: &Nats, kind: &'static str, health: Health) -> anyhow::Result<(Self, Owned)> {
        let store = nats.bucket(&LEASE_BUCKET).await?;
        let (owned, receiver) = watch::channel(BTreeSet::new());
        health.fails(CONDITION, "no lease has been taken yet");
        let (replicas, _) = watch::channel(1);
        let leases = Self { store, kind, member: member_name(nats), health, owned, replicas };
        // Whoever shares something with the others knows from the first moment on how many they are.
        leases.announce().await?;
        leases.survey().await?;
        Ok((leases, receiver))
    }

    /// How many replicas live; as it was last known while NATS is away.
    #[must_use]
    pub fn replicas(&self) -> Replicas {
        self.replicas.subscribe()
    }

    /// Says that this replica lives.
    async fn announce(&self) -> anyhow::Result<()> {
        let me = Bytes::from(self.member.clone());
        self.store.put(subject::member_key(self.kind, &self.member), me).await?;
        Ok(())
    }

    /// Renews, takes and gives back leases until `stop`, then gives all back.
    ///
    /// # Errors
    /// Never while the bucket can be reached again: an outage empties the set of owned partitions until it is over.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut renewed = tokio::time::Instant::now();
        loop {
            match tokio::time::timeout(RENEWAL_LIMIT, self.renew()).await {
                Ok(Ok(owned)) => {
                    self.health.ok(CONDITION);
                    renewed = tokio::time::Instant::now();
                    self.owned.send_if_modified(|now| std::mem::replace(now, owned.clone()) != owned);
                }
                Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "leases not renewed"),
                Err(_) => tracing::warn!("leases not renewed in time"),
            }
            if renewed.elapsed() > LEASE_BUCKET.max_age {
                self.health.fails(CONDITION, "the leases cannot be renewed: NATS is away or too slow");
                self.owned.send_if_modified(|now| !std::mem::take(now).is_empty());
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RENEWAL) => {}
            }
        }
        let mine: Vec<u32> = self.owned.borrow().iter().copied().collect();
        self.owned.send_replace(BTreeSet::new());
        let give_back = async {
            for partition in mine {
                self.store.delete(subject::lease_key(self.kind, partition)).await.ok();
            }
            self.store.delete(subject::member_key(self.kind, &self.member)).await.ok();
        };
        tokio::time::timeout(Duration::from_secs(2), give_back).await.ok();
        Ok(())
    }

    async fn renew(&self) -> anyhow::Result<BTreeSet<u32>> {
        self.announce().await?;
        let (members, owners) = self.survey().await?;
        let claims = (0..PARTITIONS).map(|partition| {
            let wanted = preferred_owner(partition, &members) == Some(&self.member);
            self.claim(partition, wanted, owners.get(&partition))
        });
        let owned: Vec<Option<u32>> = futures::stream::iter(claims).buffer_unordered(AT_ONCE).collect().await;
        Ok(owned.into_iter().flatten().collect())
    }

    /// Takes, renews or gives back one lease. Answers the partition where it is owned now.
    async fn claim(&self, partition: u32, wanted: bool, owner: Option<&(String, u64)>) -> Option<u32> {
        let (key, me) = (subject::lease_key(self.kind, partition), Bytes::from(self.member.clone()));
        let is_mine = owner.is_some_and(|(owner, _)| *owner == self.member);
        match (wanted, owner) {
            (true, Some((_, revision))) if is_mine => {
                self.store.update(&key, me, *revision).await.is_ok().then_some(partition)
            }
            (true, None) => self.store.create(&key, me).await.is_ok().then_some(partition),
            (false, Some((_, revision))) if is_mine => {
                self.store.delete_expect_revision(&key, Some(*revision)).await.ok();
                None
            }
            (true | false, None | Some(_)) => None,
        }
    }

    /// The living members, and the owners of leases by partition, with their revisions.
    async fn survey(&self) -> anyhow::Result<(BTreeSet<String>, BTreeMap<u32, (String, u64)>)> {
        let mut members = BTreeSet::from([self.member.clone()]);
        let mut owners = BTreeMap::new();
        let mut entries = self.store.watch_with_history(subject::lease_pattern(self.kind)).await?;
        // There is at least this replica's own entry; each tells how many are still to come.
        while let Some(entry) = entries.try_next().await? {
            if entry.operation == Operation::Put {
                let value = String::from_utf8_lossy(&entry.value).into_owned();
                match subject::leased_partition(self.kind, &entry.key) {
                    Some(partition) => {
                        owners.insert(partition, (value, entry.revision));
                    }
                    None => {
                        members.insert(value);
                    }
                }
            }
            if entry.delta == 0 {
                break;
            }
        }
        self.replicas.send_if_modified(|now| std::mem::replace(now, members.len()) != members.len());
        Ok((members, owners))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn partitions_are_shared_and_few_move_when_a_member_goes() {
        let (three, two) = (members(&["a", "b", "c"]), members(&["a", "b"]));
        let count = |m: &str| (0..PARTITIONS).filter(|p| preferred_owner(*p, &three).unwrap() == m).count();
        for member in ["a", "b", "c"] {
            assert!((8..=40).contains(&count(member)), "{member} has {}", count(member));
        }
        for partition in 0..PARTITIONS {
            let before = preferred_owner(partition, &three).unwrap();
            if before != "c" {
                assert_eq!(preferred_owner(partition, &two).unwrap(), before, "only c's partitions move");
            }
        }
        assert_eq!(preferred_owner(0, &members(&[])), None);
    }
}
