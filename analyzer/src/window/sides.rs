//! Which side each host is on, where the deployment does not name it: by the version that it was seen to run, or as the
//! settings say.

use crate::case::HostGroup as CaseGroup;
use crate::record::Record;
use std::collections::BTreeMap;
use vouch_proto::time::MINUTE_MS;
use vouch_proto::{HostGroup, SeriesBatch, Timestamp};

/// A version, and the side that the settings say.
type Fact = (Option<String>, Option<HostGroup>);

/// What was seen of the hosts, and when first and last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sides(BTreeMap<String, BTreeMap<Fact, (Timestamp, Timestamp)>>);

impl Sides {
    /// Takes in what a batch says about hosts.
    pub(super) fn absorb(&mut self, batch: &SeriesBatch) {
        let at = batch.collected_at;
        for series in &batch.series {
            let Some(host) = &series.host else { continue };
            if series.version.is_none() && series.group.is_none() {
                continue;
            }
            let fact = (series.version.clone(), series.group);
            let facts = self.0.entry(host.clone()).or_default();
            let seen = facts.entry(fact).or_insert((at, at));
            *seen = (seen.0.min(at), seen.1.max(at));
        }
    }

    /// How many facts there are.
    pub(super) fn seen(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// The side of a host and when it switched, in minutes since `origin`; `None` where nothing is known of it.
    pub(super) fn of(&self, host: &str, record: &Record, origin: i64) -> Option<(CaseGroup, Option<i64>)> {
        let facts = self.0.get(host)?;
        let new = facts.iter().filter(|(fact, _)| is_new(fact, record)).map(|(_, seen)| seen.0).min();
        let Some(new) = new else { return Some((CaseGroup::Control, None)) };
        let was_old = facts.iter().any(|(fact, seen)| !is_new(fact, record) && seen.0 < new);
        let minute = (new.floor_minute().as_millis() - origin).div_euclid(MINUTE_MS);
        Some((CaseGroup::Test, Some(if was_old { minute.max(0) } else { 0 })))
    }

    /// The versions that run, where sides are known and no host is on the new one: there is nothing to judge yet.
    pub(super) fn only_old(&self, record: &Record) -> Option<Vec<String>> {
        let facts = || self.0.values().flat_map(BTreeMap::keys);
        let named = record.deployment.hosts.iter().any(|host| host.group == HostGroup::Test);
        if named || self.0.is_empty() || facts().any(|fact| is_new(fact, record)) {
            return None;
        }
        let mut versions: Vec<String> = facts().filter_map(|(version, _)| version.clone()).collect();
        versions.sort();
        versions.dedup();
        Some(versions)
    }
}

fn is_new((version, group): &Fact, record: &Record) -> bool {
    match group {
        Some(HostGroup::Test) => true,
        Some(HostGroup::Control | HostGroup::Service) => false,
        None => version.as_deref().is_some_and(|seen| is_same(seen, record.deployment.version.as_str())),
    }
}

/// Whether two texts name the same version: a leading `v` says nothing.
fn is_same(a: &str, b: &str) -> bool {
    let plain = |text: &str| text.trim().trim_start_matches(['v', 'V']).to_owned();
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::super::tests::batch;
    use super::*;
    use crate::record::tests::{at, running};
    use vouch_proto::Series;

    fn seen(sides: &mut Sides, minute: i64, hosts: &[(&str, Option<&str>, Option<HostGroup>)]) {
        let mut batch = batch(minute, minute + 1, 1.0);
        batch.collected_at = at(minute);
        let one = batch.series.remove(0);
        let of = |(host, version, group): &(&str, Option<&str>, Option<HostGroup>)| Series {
            host: Some((*host).into()),
            version: version.map(ToOwned::to_owned),
            group: *group,
            ..one.clone()
        };
        batch.series = hosts.iter().map(of).collect();
        sides.absorb(&batch);
    }

    fn origin() -> i64 {
        at(0).as_millis()
    }

    #[test]
    fn the_deployed_version_is_test_and_another_is_control() {
        let record = running();
        let version = record.deployment.version.to_string();
        let mut sides = Sides::default();
        seen(&mut sides, 2, &[("a", Some("0.9"), None), ("b", Some(&format!("v{version}")), None)]);
        assert_eq!(sides.of("a", &record, origin()), Some((CaseGroup::Control, None)));
        assert_eq!(sides.of("b", &record, origin()), Some((CaseGroup::Test, Some(0))));
        assert_eq!(sides.of("c", &record, origin()), None, "nothing is known of it");
        seen(&mut sides, 3, &[("a", Some("0.9"), None)]);
        assert_eq!(sides.seen(), 2, "no news");
        assert_eq!(sides.only_old(&record), None);
    }

    #[test]
    fn a_host_that_changes_its_version_has_switched_and_stays_new() {
        let record = running();
        let new = record.deployment.version.to_string();
        let mut all: Vec<(i64, &str)> = vec![(2, "0.9"), (7, &new), (9, "0.9")];
        for _ in 0..2 {
            let mut sides = Sides::default();
            for (minute, version) in &all {
                seen(&mut sides, *minute, &[("a", Some(version), None)]);
            }
            assert_eq!(sides.of("a", &record, origin()), Some((CaseGroup::Test, Some(7))), "in any order");
            all.reverse();
        }
    }

    #[test]
    fn the_settings_go_before_versions_and_nothing_new_is_told() {
        let record = running();
        let new = record.deployment.version.to_string();
        let (control, test) = (Some(HostGroup::Control), Some(HostGroup::Test));
        let mut sides = Sides::default();
        seen(&mut sides, 2, &[("a", Some(&new), control), ("b", None, control)]);
        assert_eq!(sides.of("a", &record, origin()), Some((CaseGroup::Control, None)));
        assert_eq!(sides.only_old(&record), Some(vec![new.clone()]));
        seen(&mut sides, 3, &[("c", Some("0.9"), test)]);
        assert_eq!(sides.of("c", &record, origin()), Some((CaseGroup::Test, Some(0))));
        assert_eq!(sides.only_old(&record), None);
    }
}
