//! Where deployments get their ids: an announcement joins the deployment that is open, or begins a new one.
//! Pure; every adapter writes the answer by compare-and-set under `subject::deployment_key`.

use crate::deployment::{Deployment, HostGroup, MAX_HOSTS, MAX_RESTARTS, Phase};
use crate::{Invalid, Timestamp, time, v1};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// How far the clock of whoever announces may be ahead.
const FORGIVEN_SKEW: Duration = Duration::from_secs(600);
/// Oldest announcement that is taken in.
const OLDEST: Duration = Duration::from_secs(14 * 24 * 3600);

/// A deployment as the announcements so far describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentRecord {
    /// All that is known; it has an id.
    pub deployment: Deployment,
    /// When it was first announced to have begun.
    pub started_at: Timestamp,
    /// When the new version got its first traffic: judging starts there.
    pub traffic_at: Option<Timestamp>,
    /// How many verifications of it have been opened.
    pub verifications: u32,
    /// A further `started` or first `traffic` up to this instant is the same deployment again.
    pub joins_until: Timestamp,
}

/// What an announcement turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// A new deployment.
    Created(DeploymentRecord),
    /// News of one that is known.
    Joined(DeploymentRecord),
    /// The end of a deployment that nobody announced: nothing to verify.
    Ignored,
}

/// When an announcement happened: as it says, or when it was stored. A clock that is a little ahead is forgiven.
///
/// # Errors
/// Where it says to have happened far in the future or more than two weeks ago: a wrong unit or clock, which would
/// make it the newest deployment for years.
pub fn happened_at(occurred_at: Option<Timestamp>, stored_at: Timestamp) -> Result<Timestamp, Invalid> {
    let Some(at) = occurred_at else { return Ok(stored_at) };
    if at > stored_at.plus(FORGIVEN_SKEW) || at < stored_at.minus(OLDEST) {
        let message = format!(
            "{at} is not within 14 days before and 10 minutes after its publication at {stored_at}; \
             check the clock and the unit of whoever announces"
        );
        return Err(Invalid::field("occurred_at", message));
    }
    Ok(at.min(stored_at))
}

/// Joins an announcement that happened at `at` to what is known under its key, or begins a new deployment.
///
/// Only `started` and `traffic` begin a new deployment of a version that was deployed before, and only once the
/// earlier one is over (`joins_until`): a duplicate or late announcement never opens a second.
#[must_use]
pub fn announce(
    known: Option<DeploymentRecord>,
    news: &Deployment,
    at: Timestamp,
    window: Duration,
) -> Announced {
    match known {
        Some(record) if !begins_anew(&record, news, at) => Announced::Joined(join(record, news, at, window)),
        _ if news.phase == Phase::Aborted => Announced::Ignored,
        _ => {
            let id = deployment_id(news, at);
            let deployment = Deployment {
                verification_id: Some(verification_id(&id, 1)),
                deployment_id: Some(id),
                ..news.clone()
            };
            let record = DeploymentRecord {
                started_at: at,
                traffic_at: brings_traffic(news).then_some(at),
                verifications: 1,
                joins_until: at.plus(window),
                deployment: hosts_stamped(deployment, at),
            };
            Announced::Created(record)
        }
    }
}

fn begins_anew(record: &DeploymentRecord, news: &Deployment, at: Timestamp) -> bool {
    if news.deployment_id.is_some() && news.deployment_id == record.deployment.deployment_id {
        return false;
    }
    match news.phase {
        Phase::Started | Phase::Traffic => at > record.joins_until,
        Phase::Switched | Phase::Finished | Phase::Aborted => false,
    }
}

fn brings_traffic(news: &Deployment) -> bool {
    match news.phase {
        Phase::Traffic => news.traffic_percent > 0,
        Phase::Switched | Phase::Finished => true,
        Phase::Started | Phase::Aborted => false,
    }
}

fn join(
    mut record: DeploymentRecord,
    news: &Deployment,
    at: Timestamp,
    window: Duration,
) -> DeploymentRecord {
    if news.cancelled_by.is_some() {
        // A cancellation ends one verification; the deployment goes on.
        return record;
    }
    let news = hosts_stamped(news.clone(), at);
    let traffic = brings_traffic(&news);
    let known = &mut record.deployment;
    known.phase = known.phase.max(news.phase);
    known.traffic_percent = news.traffic_percent;
    for (old, new) in [(&mut known.previous_version, news.previous_version), (&mut known.reason, news.reason)]
    {
        *old = old.take().or(new);
    }
    // What is known may have been read off the source; whoever says so knows better.
    for (old, new) in [
        (&mut known.owner, news.owner),
        (&mut known.cluster, news.cluster),
        (&mut known.workload, news.workload),
    ] {
        *old = new.or(old.take());
    }
    for host in news.hosts {
        let full = known.hosts.len() >= MAX_HOSTS;
        match known.hosts.iter_mut().find(|h| h.name == host.name) {
            Some(h) => {
                h.group = host.group;
                h.switched_at = h.switched_at.or(host.switched_at);
                h.restarted_at.extend(host.restarted_at);
                h.restarted_at.sort_unstable();
                h.restarted_at.dedup();
                h.restarted_at.truncate(MAX_RESTARTS);
            }
            None if !full => known.hosts.push(host),
            // A record with more hosts than a message may name could not be read again.
            None => {}
        }
    }
    if news.phase == Phase::Aborted {
        // Over: the same version announced again is a new deployment.
        record.joins_until = record.joins_until.min(at);
    }
    if matches!(news.phase, Phase::Traffic | Phase::Switched) && at <= record.joins_until {
        record.joins_until = record.joins_until.max(at.plus(window));
    }
    record.started_at = record.started_at.min(at);
    if traffic {
        record.traffic_at = record.traffic_at.or(Some(at));
    }
    record
}

/// In a `switched` announcement the hosts switched when it happened, where it does not say otherwise.
fn hosts_stamped(mut deployment: Deployment, at: Timestamp) -> Deployment {
    if deployment.phase == Phase::Switched {
        for host in deployment.hosts.iter_mut().filter(|h| h.group != HostGroup::Control) {
            host.switched_at = host.switched_at.or(Some(at));
        }
    }
    deployment
}

/// A ULID whose time is that of the announcement and whose other bits are a hash of what was deployed where and when:
/// the same announcement gives the same id on every machine.
fn deployment_id(deployment: &Deployment, at: Timestamp) -> String {
    let mut hash = Sha256::new();
    for part in [&deployment.environment, &deployment.service, &deployment.version] {
        hash.update(part.as_str().as_bytes());
        hash.update([0]);
    }
    hash.update(at.as_millis().to_be_bytes());
    let random = hash.finalize().iter().take(10).fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
    id_at(at, random)
}

/// The id of a deployment that began at `at`; `random` tells it from others of that millisecond.
#[must_use]
pub fn id_at(at: Timestamp, random: u128) -> String {
    ulid::Ulid::from_parts(u64::try_from(at.as_millis()).unwrap_or(0), random).to_string()
}

/// The deployment that a verification is of.
#[must_use]
pub fn deployment_of(verification_id: &str) -> &str {
    verification_id.rsplit_once('.').map_or(verification_id, |(deployment, _)| deployment)
}

/// When the deployment of a verification began, as its id says; `None` where it is none of ours.
#[must_use]
pub fn begun_at(verification_id: &str) -> Option<Timestamp> {
    let id = ulid::Ulid::from_string(deployment_of(verification_id)).ok()?;
    i64::try_from(id.timestamp_ms()).ok().map(Timestamp::from_millis)
}

/// Id of the n-th verification of a deployment, from 1.
#[must_use]
pub fn verification_id(deployment_id: &str, n: u32) -> String {
    format!("{deployment_id}.{n}")
}

impl From<DeploymentRecord> for v1::DeploymentRecord {
    fn from(record: DeploymentRecord) -> Self {
        Self {
            deployment: Some(record.deployment.into()),
            started_at: Some(record.started_at.into()),
            traffic_at: record.traffic_at.map(Into::into),
            verifications: record.verifications,
            joins_until: Some(record.joins_until.into()),
        }
    }
}

impl TryFrom<v1::DeploymentRecord> for DeploymentRecord {
    type Error = Invalid;

    fn try_from(record: v1::DeploymentRecord) -> Result<Self, Invalid> {
        let deployment = record.deployment.ok_or_else(|| Invalid::field("deployment", "is missing"))?;
        Ok(Self {
            deployment: deployment.try_into()?,
            started_at: time::required(record.started_at)?,
            traffic_at: time::optional(record.traffic_at)?,
            verifications: record.verifications,
            joins_until: time::required(record.joins_until)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;
    use crate::deployment::DeploymentHost;

    const WINDOW: Duration = Duration::from_secs(30 * 60);

    fn at(minute: i64) -> Timestamp {
        "2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap().plus_minutes(minute)
    }

    fn news(phase: Phase) -> Deployment {
        let name = |s| Name::new(s).unwrap();
        Deployment { phase, ..Deployment::new(name("prod"), name("checkout"), name("2.1")) }
    }

    fn created(phase: Phase) -> DeploymentRecord {
        match announce(None, &news(phase), at(0), WINDOW) {
            Announced::Created(record) => record,
            Announced::Joined(_) | Announced::Ignored => panic!("not created"),
        }
    }

    #[test]
    fn the_same_announcement_gives_the_same_id_everywhere() {
        let (one, two) = (created(Phase::Traffic), created(Phase::Traffic));
        assert_eq!(one, two);
        let id = one.deployment.deployment_id.unwrap();
        assert_eq!(id.len(), 26);
        assert_eq!(one.deployment.verification_id.unwrap(), format!("{id}.1"));
    }

    #[test]
    fn an_id_says_when_its_deployment_began() {
        let id = verification_id(&id_at(at(7), 42), 3);
        assert_eq!((begun_at(&id), begun_at("by hand.1")), (Some(at(7)), None));
        assert_eq!(deployment_of(&id), id_at(at(7), 42));
    }

    #[test]
    fn a_duplicate_or_a_later_phase_joins() {
        let record = created(Phase::Started);
        let id = record.deployment.deployment_id.clone();
        for (phase, minute) in [(Phase::Started, 1), (Phase::Traffic, 20), (Phase::Finished, 500)] {
            match announce(Some(record.clone()), &news(phase), at(minute), WINDOW) {
                Announced::Joined(joined) => {
                    assert_eq!(joined.deployment.deployment_id, id);
                    assert_eq!(joined.deployment.phase, phase);
                    assert_eq!(joined.started_at, at(0));
                }
                Announced::Created(_) | Announced::Ignored => panic!("not joined"),
            }
        }
    }

    #[test]
    fn the_same_version_again_after_the_window_is_a_new_deployment() {
        let record = created(Phase::Traffic);
        match announce(Some(record.clone()), &news(Phase::Traffic), at(31), WINDOW) {
            Announced::Created(again) => {
                assert_ne!(again.deployment.deployment_id, record.deployment.deployment_id);
            }
            Announced::Joined(_) | Announced::Ignored => panic!("not created"),
        }
    }

    #[test]
    fn judging_starts_with_the_first_traffic() {
        let mut record = created(Phase::Started);
        assert_eq!(record.traffic_at, None);
        for (phase, percent, minute) in
            [(Phase::Traffic, 0, 1), (Phase::Traffic, 5, 3), (Phase::Finished, 100, 9)]
        {
            let news = Deployment { traffic_percent: percent, ..news(phase) };
            record = match announce(Some(record), &news, at(minute), WINDOW) {
                Announced::Joined(joined) => joined,
                Announced::Created(_) | Announced::Ignored => panic!("not joined"),
            };
        }
        assert_eq!(record.traffic_at, Some(at(3)), "the first with any weight");
    }

    #[test]
    fn hosts_add_up_and_keep_their_first_switch() {
        let switched = |name: &str| Deployment {
            hosts: vec![DeploymentHost {
                name: name.into(),
                group: HostGroup::Test,
                switched_at: None,
                restarted_at: vec![],
            }],
            ..news(Phase::Switched)
        };
        let mut record = created(Phase::Started);
        for (name, minute) in [("h0", 1), ("h1", 4), ("h0", 9)] {
            record = match announce(Some(record), &switched(name), at(minute), WINDOW) {
                Announced::Joined(joined) => joined,
                Announced::Created(_) | Announced::Ignored => panic!("not joined"),
            };
        }
        let hosts: Vec<_> =
            record.deployment.hosts.iter().map(|h| (h.name.as_str(), h.switched_at)).collect();
        assert_eq!(hosts, [("h0", Some(at(1))), ("h1", Some(at(4)))]);
    }

    #[test]
    fn a_cancellation_leaves_the_deployment_as_it_is() {
        let record = created(Phase::Traffic);
        let cancel = Deployment { cancelled_by: Some("ann".into()), ..news(Phase::Aborted) };
        let joined = announce(Some(record.clone()), &cancel, at(3), WINDOW);
        assert_eq!(joined, Announced::Joined(record));
    }

    #[test]
    fn an_aborted_version_announced_again_is_a_new_deployment() {
        let record = created(Phase::Traffic);
        let Announced::Joined(aborted) = announce(Some(record), &news(Phase::Aborted), at(2), WINDOW) else {
            panic!("not joined")
        };
        let again = announce(Some(aborted), &news(Phase::Traffic), at(3), WINDOW);
        assert!(matches!(again, Announced::Created(_)));
    }

    #[test]
    fn hosts_never_outgrow_what_can_be_read_again() {
        let many = |prefix: &str| Deployment {
            hosts: (0..1500)
                .map(|i| DeploymentHost {
                    name: format!("{prefix}{i}"),
                    group: HostGroup::Test,
                    switched_at: None,
                    restarted_at: vec![],
                })
                .collect(),
            ..news(Phase::Switched)
        };
        let first = announce(None, &many("a"), at(0), WINDOW);
        let Announced::Created(record) = first else { panic!("not created") };
        let Announced::Joined(record) = announce(Some(record), &many("b"), at(1), WINDOW) else {
            panic!("not joined")
        };
        let wire = v1::DeploymentRecord::from(record.clone());
        assert_eq!(DeploymentRecord::try_from(wire).unwrap(), record);
    }

    #[test]
    fn an_impossible_time_is_refused_and_a_hasty_clock_forgiven() {
        assert_eq!(happened_at(None, at(0)), Ok(at(0)));
        assert_eq!(happened_at(Some(at(-9)), at(0)), Ok(at(-9)));
        assert_eq!(happened_at(Some(at(3)), at(0)), Ok(at(0)));
        for wrong in [at(11), at(-15 * 1440), at(40_000_000)] {
            assert!(happened_at(Some(wrong), at(0)).unwrap_err().to_string().contains("occurred_at"));
        }
    }

    #[test]
    fn an_abort_of_nothing_is_ignored() {
        assert_eq!(announce(None, &news(Phase::Aborted), at(0), WINDOW), Announced::Ignored);
    }

    #[test]
    fn a_record_survives_the_bucket() {
        let record = created(Phase::Traffic);
        let wire = v1::DeploymentRecord::from(record.clone());
        assert_eq!(DeploymentRecord::try_from(wire).unwrap(), record);
    }
}
