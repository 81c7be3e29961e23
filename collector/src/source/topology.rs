//! Who calls whom. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most dependencies that two services are asked to share; those called directly go first.
const MOST_DEPENDENCIES: usize = 50;
/// Most shared dependencies that are told of one neighbour.
const MOST_SHARED: usize = 8;

/// The services of a tenant by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    names: BTreeMap<String, String>,
    calls: BTreeMap<String, BTreeSet<String>>,
    called_by: BTreeMap<String, BTreeSet<String>>,
}

/// A service that neither calls another one nor is called by it, not even through others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrelated {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Names of what both of them call, maybe through others.
    pub shares: Vec<String>,
}

impl Topology {
    /// Adds a service and the ids of what it calls.
    pub fn add(&mut self, id: String, name: String, calls: impl IntoIterator<Item = String>) {
        for callee in calls {
            self.called_by.entry(callee.clone()).or_default().insert(id.clone());
            self.calls.entry(id.clone()).or_default().insert(callee);
        }
        self.names.insert(id, name);
    }

    /// At most `most` services that are unrelated to each of several; those that nothing is known of are left out of it.
    #[must_use]
    pub fn unrelated_to_all(&self, ids: &[String], most: usize) -> Vec<Unrelated> {
        if let [only] = ids {
            return self.unrelated(only, most);
        }
        let each: Vec<Vec<Unrelated>> =
            ids.iter().map(|id| self.unrelated(id, usize::MAX)).filter(|found| !found.is_empty()).collect();
        let Some((first, rest)) = each.split_first() else { return Vec::new() };
        let is_common = |one: &&Unrelated| {
            !ids.contains(&one.id) && rest.iter().all(|all| all.iter().any(|other| other.id == one.id))
        };
        first.iter().filter(is_common).take(most).cloned().collect()
    }

    /// At most `most` services that are unrelated to one: those that share most with it first, then those that call
    /// anything, by name. None where nothing is known of whom it calls or who calls it: any of them may then.
    #[must_use]
    pub fn unrelated(&self, id: &str, most: usize) -> Vec<Unrelated> {
        let (callees, callers) = (reach(&self.calls, id), reach(&self.called_by, id));
        if callees.is_empty() && callers.is_empty() {
            return Vec::new();
        }
        let mut shares: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for dependency in callees.iter().take(MOST_DEPENDENCIES) {
            for other in reach(&self.called_by, dependency) {
                shares.entry(other).or_default().push(dependency);
            }
        }
        let related: BTreeSet<&str> = callees.into_iter().chain(callers).chain([id]).collect();
        let name = |id: &str| self.names.get(id).cloned();
        let mut all: Vec<Unrelated> = Vec::new();
        for (other, other_name) in &self.names {
            if related.contains(other.as_str()) {
                continue;
            }
            let shared = shares.get(other.as_str()).map_or(&[][..], Vec::as_slice);
            let shares = shared.iter().filter_map(|id| name(id)).take(MOST_SHARED).collect();
            all.push(Unrelated { id: other.clone(), name: other_name.clone(), shares });
        }
        let rank = |one: &Unrelated| {
            (
                std::cmp::Reverse(one.shares.len()),
                !self.calls.contains_key(&one.id),
                one.name.clone(),
                one.id.clone(),
            )
        };
        all.sort_by_cached_key(rank);
        all.truncate(most);
        all
    }
}

/// What can be reached from a service, the nearest first, without itself.
fn reach<'a>(edges: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> Vec<&'a str> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut order: Vec<&str> = Vec::new();
    let mut next: VecDeque<&str> = edges.get(from).into_iter().flatten().map(String::as_str).collect();
    while let Some(one) = next.pop_front() {
        if one == from || !seen.insert(one) {
            continue;
        }
        order.push(one);
        next.extend(edges.get(one).into_iter().flatten().map(String::as_str));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(edges: &[(&str, &[&str])]) -> Topology {
        let mut topology = Topology::default();
        for (id, calls) in edges {
            topology.add((*id).to_owned(), (*id).to_owned(), calls.iter().map(|id| (*id).to_owned()));
        }
        topology
    }

    fn told(found: &[Unrelated]) -> Vec<String> {
        found.iter().map(|one| format!("{}:{}", one.name, one.shares.join("+"))).collect()
    }

    #[test]
    fn callers_and_callees_are_left_out_through_others_too() {
        let shop = topology(&[
            ("web", &["checkout", "search"]),
            ("checkout", &["orders", "bank"]),
            ("orders", &["orders-db"]),
            ("cart", &["orders-db", "bank"]),
            ("report", &["orders-db"]),
            ("search", &["index"]),
            ("gateway", &["web"]),
            ("orders-db", &[]),
            ("index", &[]),
            ("bank", &[]),
        ]);
        assert_eq!(
            told(&shop.unrelated("checkout", 9)),
            ["cart:bank+orders-db", "report:orders-db", "search:", "index:"]
        );
        assert_eq!(told(&shop.unrelated("checkout", 2)), ["cart:bank+orders-db", "report:orders-db"]);
        assert_eq!(told(&shop.unrelated("web", 9)), ["cart:bank+orders-db", "report:orders-db"]);
    }

    #[test]
    fn cycles_end_and_the_unknown_has_none() {
        let ring = topology(&[
            ("a", &["b"]),
            ("b", &["c"]),
            ("c", &["a"]),
            ("d", &["e"]),
            ("e", &[]),
            ("lone", &[]),
        ]);
        assert_eq!(told(&ring.unrelated("a", 9)), ["d:", "e:", "lone:"]);
        assert_eq!(ring.unrelated("lone", 9), []);
        assert_eq!(ring.unrelated("nobody", 9), []);
    }
}
