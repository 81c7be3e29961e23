//! The catalogue of services: what the source knows, for whoever checks a request's service.

use crate::changes::releases::Releases;
use crate::collect::Shared;
use crate::config::ServiceMapping;
use crate::rules::{Matching, Named, Rule};
use crate::source::KnownService;
use async_nats::jetstream::kv;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vouch_proto::subject::{ANY_ENVIRONMENT, CATALOGUE_BUCKET, CATALOGUE_COMPLETE, catalogue_key};
use vouch_proto::{Name, Timestamp, v1};
use vouch_service::clock;
use vouch_service::lease::Owned;

/// How often the source is asked, on the injected clock.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// How soon again where it did not answer.
const AGAIN: Duration = Duration::from_secs(60);
/// Entries vanish a real day after they were written; they are written again well before, unchanged or not.
const REWRITE: Duration = Duration::from_secs(6 * 3600);
/// The partition whose owner keeps the catalogue.
const KEEPER: u32 = 0;

/// Which names the entries are written under.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    /// The tenant's one environment; `None` writes under `ANY_ENVIRONMENT`.
    pub(crate) environment: Option<Name>,
    pub(crate) mappings: Vec<ServiceMapping>,
    pub(crate) rules: Vec<Rule>,
}

/// What is listed of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Entry {
    entity_id: String,
    owner: Option<String>,
    cluster: Option<String>,
    workload: Option<String>,
    version: Option<String>,
    instances: usize,
}

impl Entry {
    fn of_id(entity_id: String) -> Self {
        Self { entity_id, ..Self::default() }
    }

    /// Of several entities that are one service: what all of them say.
    fn of_instances(same: &[Named]) -> Option<(Self, Named)> {
        let first = same.first()?;
        let agreed = |field: fn(&Named) -> &Option<String>| {
            field(first).clone().filter(|_| same.iter().all(|one| field(one) == field(first)))
        };
        let entry = Self {
            entity_id: first.entity_id.clone(),
            owner: agreed(|one| &one.owner),
            cluster: agreed(|one| &one.cluster),
            workload: agreed(|one| &one.workload),
            version: agreed(|one| &one.version),
            instances: same.len(),
        };
        Some((entry, first.clone()))
    }
}

impl From<Named> for Entry {
    fn from(named: Named) -> Self {
        let Named { entity_id, owner, cluster, workload, version, .. } = named;
        Self { entity_id, owner, cluster, workload, version, instances: 0 }
    }
}

/// What was written, and when.
type Written = BTreeMap<(Name, Name), (Entry, tokio::time::Instant)>;
/// Entries by environment and service.
type Listed = BTreeMap<(Name, Name), Entry>;

impl Naming {
    /// What to list for the services found. A mapped service is listed under the names that deployments use.
    fn listed(&self, found: &[KnownService]) -> Listed {
        let any = self.environment.clone().or_else(|| Name::new(ANY_ENVIRONMENT).ok());
        let mut listed = Listed::new();
        let matching = Matching::of(&self.rules, found);
        let by_rules: BTreeSet<String> = matching.all().map(|named| named.entity_id.clone()).collect();
        for service in found.iter().filter(|service| !by_rules.contains(&service.entity_id)) {
            if let (Some(environment), Ok(name)) = (&any, Name::new(service.name.clone())) {
                listed.insert((environment.clone(), name), Entry::of_id(service.entity_id.clone()));
            }
        }
        // A tenant that holds one environment is asked for no other.
        let is_held = |named: &Named| match (&self.environment, &named.environment) {
            (Some(held), Some(other)) => held == other,
            (None, _) | (_, None) => true,
        };
        // Several of a name are listed by the first of them, without what travels: asking for it says what is wrong.
        let ambiguous = matching.ambiguous.into_iter().filter_map(|same| same.into_iter().next());
        let ambiguous = ambiguous.map(|named| (Entry::of_id(named.entity_id.clone()), named));
        let sure = matching.named.into_iter().map(|named| (Entry::from(named.clone()), named));
        let several = matching.instances.iter().filter_map(|same| Entry::of_instances(same));
        for (entry, named) in ambiguous.chain(sure).chain(several).filter(|(_, named)| is_held(named)) {
            if let Some(environment) = named.environment.or_else(|| any.clone()) {
                listed.insert((environment, named.service), entry);
            }
        }
        for mapping in &self.mappings {
            let by_name = || {
                let name = mapping.entity_name.as_ref()?;
                found.iter().find(|s| s.name == *name).map(|s| s.entity_id.clone())
            };
            let environment = mapping.environment.as_ref().or(any.as_ref());
            if let (Some(environment), Some(id)) = (environment, mapping.entity_id.clone().or_else(by_name)) {
                listed.insert((environment.clone(), mapping.service.clone()), Entry::of_id(id));
            }
        }
        listed
    }
}

impl Naming {
    /// The names that deployments use, by the source's ids. A service of several names has the last of them.
    pub(crate) fn by_id(&self, found: &[KnownService]) -> BTreeMap<String, (Name, Name)> {
        self.listed(found).into_iter().map(|(names, entry)| (entry.entity_id, names)).collect()
    }
}

/// Who keeps the catalogue.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Of each tenant.
    pub(crate) namings: Vec<Naming>,
    /// Who is told which versions run, where releases are deployments.
    pub(crate) releases: Option<Releases>,
}

impl Keeper {
    /// Tells which versions run.
    async fn look(&mut self, written: &Written) {
        let Some(releases) = &mut self.releases else { return };
        let running =
            written.iter().filter_map(|(names, (entry, _))| Some((names, entry.version.as_deref()?)));
        if let Err(error) = releases.look(running).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "a new version may not have been announced; looking again"
            );
        }
    }
}

/// Keeps the catalogue until `stop`: at the start every replica writes it, then the owner of one partition.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut keeper: Keeper,
    owned: Owned,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let store = shared.nats.bucket(&CATALOGUE_BUCKET).await?;
    let mut written = Written::new();
    let mut first = true;
    loop {
        let mut pause = REFRESH;
        let keeps = owned.borrow().contains(&KEEPER);
        if first || keeps {
            let refreshed = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                refreshed = refresh(&shared, &store, &keeper.namings, &mut written) => refreshed,
            };
            match refreshed {
                Ok(services) => {
                    first = false;
                    tracing::debug!(services, "catalogue refreshed");
                    if keeps {
                        tokio::select! {
                            () = stop.cancelled() => return Ok(()),
                            () = keeper.look(&written) => {}
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "catalogue not refreshed");
                    pause = AGAIN;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = clock::sleep(&*shared.clock, pause) => {}
        }
    }
}

async fn refresh(
    shared: &Shared,
    store: &kv::Store,
    namings: &[Naming],
    written: &mut Written,
) -> anyhow::Result<usize> {
    let mut listed = Listed::new();
    let mut failed = None;
    for (tenant, naming) in namings.iter().enumerate() {
        match shared.source.services_of(tenant).await {
            Ok(found) => listed.extend(naming.listed(&found)),
            Err(failure) => failed = Some(failure),
        }
    }
    if failed.is_none() {
        written.retain(|names, _| listed.contains_key(names));
    }
    for ((environment, service), entry) in &listed {
        let names = (environment.clone(), service.clone());
        if written.get(&names).is_some_and(|(before, at)| before == entry && at.elapsed() < REWRITE) {
            continue;
        }
        let wire = wire(shared, &names, entry, shared.clock.now());
        let body = Bytes::from(serde_json::to_vec(&wire)?);
        store.put(catalogue_key(environment, service), body).await?;
        written.insert(names, (entry.clone(), tokio::time::Instant::now()));
    }
    // Whoever asks for a service that is not listed yet must not be told that it is unknown before.
    if let Some(failure) = failed {
        // The other tenants are listed; what this one has is not known to be all.
        return Err(failure.into());
    }
    let complete: Vec<&str> = shared.source_names.iter().map(|(_, name)| name.as_str()).collect();
    let complete = complete.join(", ");
    store.put(CATALOGUE_COMPLETE, Bytes::from(complete)).await?;
    Ok(listed.len())
}

fn wire(shared: &Shared, names: &(Name, Name), entry: &Entry, now: Timestamp) -> v1::ServiceEntry {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    v1::ServiceEntry {
        environment: names.0.to_string(),
        service: names.1.to_string(),
        source: shared.source_name(&names.0).to_owned(),
        entity_id: entry.entity_id.clone(),
        seen_at: Some(now.into()),
        owner: text(&entry.owner),
        cluster: text(&entry.cluster),
        workload: text(&entry.workload),
        version: text(&entry.version),
        instances: u32::try_from(entry.instances).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Facts;

    #[test]
    fn services_are_listed_under_the_names_that_deployments_use() {
        let name = |s: &str| Name::new(s).unwrap();
        let found = |n: &str, id: &str| KnownService {
            name: n.into(),
            entity_id: id.into(),
            facts: Facts::default(),
            tenant: 0,
        };
        let mapping = |service: &str, environment: Option<&str>, entity_name: &str| ServiceMapping {
            service: name(service),
            environment: environment.map(name),
            entity_id: None,
            entity_name: Some(entity_name.into()),
        };
        let services = [found("cart", "S-1"), found("", "S-2"), found("Cart Staging", "S-3")];
        let mut naming = Naming {
            environment: None,
            rules: vec![],
            mappings: vec![
                mapping("cart", Some("staging"), "Cart Staging"),
                mapping("gone", None, "nowhere"),
            ],
        };
        let keys = |naming: &Naming| -> Vec<String> {
            naming
                .listed(&services)
                .iter()
                .map(|((e, s), entry)| format!("{e}/{s}={}", entry.entity_id))
                .collect()
        };
        assert_eq!(keys(&naming), ["any/Cart Staging=S-3", "any/cart=S-1", "staging/cart=S-3"]);
        naming.environment = Some(name("prod"));
        assert_eq!(keys(&naming), ["prod/Cart Staging=S-3", "prod/cart=S-1", "staging/cart=S-3"]);
    }
}
