//! How much an installation deploys, counted from the verdicts that stand. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use vouch_proto::announce::{begun_at, deployment_of};
use vouch_proto::{Counted, Name, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How far back is counted: whole weeks, so that every day of the week counts as often.
const LONGEST: Duration = Duration::from_secs(28 * 24 * 3600);

/// What one environment deployed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Environment {
    deployments: BTreeSet<String>,
    services: BTreeSet<Name>,
}

/// What was deployed lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    environments: BTreeMap<Name, Environment>,
    over: Duration,
}

impl Census {
    /// Counts verifications with a verdict: environment, service and id of each. A deployment counts once, however
    /// often it was verified, and one that began before the period not at all.
    pub fn take(verdicts: impl IntoIterator<Item = (Name, Name, String)>, now: Timestamp) -> Self {
        let from = now.minus(LONGEST);
        let mut census = Self { environments: BTreeMap::new(), over: DAY };
        for (environment, service, verification_id) in verdicts {
            let Some(at) = begun_at(&verification_id) else { continue };
            // What is older tells how long there was something to count.
            census.over = census.over.max(now.since(at)).min(LONGEST);
            if at <= from {
                continue;
            }
            let known = census.environments.entry(environment).or_default();
            known.services.insert(service);
            known.deployments.insert(deployment_of(&verification_id).to_owned());
        }
        census
    }

    /// All environments together.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let sum = |count: fn(&Environment) -> usize| self.environments.values().map(count).sum();
        self.of(sum(|e| e.deployments.len()), sum(|e| e.services.len()))
    }

    /// Each environment by itself.
    pub fn by_environment(&self) -> impl Iterator<Item = (&Name, Counted)> {
        self.environments.iter().map(|(name, e)| (name, self.of(e.deployments.len(), e.services.len())))
    }

    fn of(&self, deployments: usize, services: usize) -> Counted {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let over = Duration::from_secs(self.over.max(DAY).as_secs());
        Counted { deployments: count(deployments), services: count(services), over }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(
        environment: &str,
        service: &str,
        now: Timestamp,
        days_ago: i64,
        n: u32,
    ) -> (Name, Name, String) {
        let at = now.plus_minutes(-days_ago * 1440);
        let id = vouch_proto::announce::id_at(at, u128::from(service.len() as u64));
        (Name::new(environment).unwrap(), Name::new(service).unwrap(), format!("{id}.{n}"))
    }

    #[test]
    fn deployments_of_the_last_four_weeks_count_once_each() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let verdicts = [
            verified("prod", "checkout", now, 1, 1),
            verified("prod", "checkout", now, 1, 2),
            verified("prod", "payment", now, 10, 1),
            verified("staging", "checkout", now, 27, 1),
            verified("prod", "checkout", now, 40, 1),
        ];
        let census = Census::take(verdicts, now);
        let counted = census.counted();
        assert_eq!((counted.deployments, counted.services, counted.over), (3, 3, LONGEST));
        let each: Vec<_> = census.by_environment().map(|(e, c)| (e.as_str(), c.deployments)).collect();
        assert_eq!(each, [("prod", 2), ("staging", 1)]);
    }

    #[test]
    fn a_young_installation_is_counted_over_its_age_and_at_least_a_day() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        assert_eq!(Census::take([], now).counted(), Counted { deployments: 0, services: 0, over: DAY });
        let young = Census::take([verified("prod", "checkout", now, 0, 1)], now).counted();
        assert_eq!((young.deployments, young.over), (1, DAY));
        let older = Census::take([verified("prod", "checkout", now, 5, 1)], now).counted();
        assert_eq!(older.over, 5 * DAY);
    }

    #[test]
    fn an_id_that_carries_no_time_is_left_out() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let name = |s| Name::new(s).unwrap();
        assert_eq!(Census::take([(name("prod"), name("x"), "by hand".into())], now).counted().deployments, 0);
    }
}
