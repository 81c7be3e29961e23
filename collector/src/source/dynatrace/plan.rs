//! The calls that collecting makes, counted before it makes them. Pure.

use super::joint::{JointForm, SERVICES_PER_CALL};
use super::selector::EntityKind;
use super::timeseries::is_dql;
use super::{LONGEST_SELECTOR, SELECTORS_PER_CALL};
use std::collections::BTreeSet;
use vouch_proto::VerificationTemplate;

/// What is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Verifications that run at the same time.
    pub verifications: usize,
    /// Services of the tenant.
    pub services: usize,
    /// Most other services that are looked at around each.
    pub neighbours: usize,
}

/// Calls for one purpose.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCalls {
    /// The endpoint.
    pub endpoint: &'static str,
    /// What is asked: selectors, or what the call is for.
    pub about: String,
    /// Calls a minute while the verifications run.
    pub a_minute: f64,
    /// Whether services share them.
    pub is_shared: bool,
}

/// A selector, and the entities that it is about.
type Asked = (EntityKind, String);

/// The calls a minute under a load, by purpose.
#[must_use]
pub fn plan(template: &VerificationTemplate, load: Load) -> Vec<PlannedCalls> {
    let calls = |services: usize| services.div_ceil(SERVICES_PER_CALL) as f64;
    let mut planned = Vec::new();
    let (mut shared, mut alone): (Vec<Asked>, Vec<Asked>) = (Vec::new(), Vec::new());
    for metric in &template.metrics {
        let by_host = template.by_host && metric.host_query.is_some();
        let query = metric.host_query.as_ref().filter(|_| by_host).unwrap_or(&metric.query);
        if is_dql(query) {
            let a_minute = load.verifications as f64;
            planned.push(PlannedCalls {
                endpoint: "query:execute",
                about: query.clone(),
                a_minute,
                is_shared: false,
            });
            continue;
        }
        let kind = EntityKind::of_query(query, |_| Vec::new()).unwrap_or(EntityKind::Other);
        match JointForm::of(query, kind, by_host) {
            Some(form) => shared.push((kind, form.selector)),
            None => alone.push((kind, query.clone())),
        }
    }
    for some in batches(shared.clone()) {
        let a_minute = calls(load.verifications);
        planned.push(PlannedCalls {
            endpoint: "metrics/query",
            about: some.join(", "),
            a_minute,
            is_shared: true,
        });
    }
    for some in batches(alone) {
        let a_minute = load.verifications as f64;
        planned.push(PlannedCalls {
            endpoint: "metrics/query",
            about: some.join(", "),
            a_minute,
            is_shared: false,
        });
    }
    if load.neighbours > 0 && load.verifications > 0 {
        // Services around others are asked for in the calls of their own where those ask the same.
        let around = load.services.min(load.verifications.saturating_mul(load.neighbours + 1));
        let same = !template.by_host && shared.iter().any(|(kind, _)| *kind == EntityKind::Service);
        let own = if same { calls(load.verifications) } else { 0.0 };
        planned.push(PlannedCalls {
            endpoint: "metrics/query",
            about: format!("up to {} services around each", load.neighbours),
            a_minute: (calls(around) - own).max(0.0),
            is_shared: true,
        });
    }
    let about = "problems that the services are a part of".to_owned();
    planned.push(PlannedCalls {
        endpoint: "problems",
        about,
        a_minute: calls(load.verifications),
        is_shared: true,
    });
    let about = "names, who calls whom, and the catalogue".to_owned();
    let pages = load.services.div_ceil(500).max(1) as f64;
    planned.push(PlannedCalls {
        endpoint: "entities",
        about,
        a_minute: pages / 10.0 + pages / 5.0,
        is_shared: true,
    });
    planned
}

/// Selectors of like entities, as many together as a call holds.
fn batches(mut queries: Vec<Asked>) -> Vec<Vec<String>> {
    queries.sort();
    let kinds: BTreeSet<EntityKind> = queries.iter().map(|(kind, _)| *kind).collect();
    let mut all: Vec<Vec<String>> = Vec::new();
    for kind in kinds {
        let mut length = usize::MAX;
        for (_, query) in queries.iter().filter(|(one, _)| *one == kind) {
            let fits = length.saturating_add(query.len() + 1) <= LONGEST_SELECTOR;
            let last = all.last_mut().filter(|some| fits && some.len() < SELECTORS_PER_CALL);
            match last {
                Some(some) => {
                    some.push(query.clone());
                    length += query.len() + 1;
                }
                None => {
                    all.push(vec![query.clone()]);
                    length = query.len() + 1;
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_proto::template::{golden_signals, golden_signals_by_host};

    fn a_minute(template: &VerificationTemplate, verifications: usize, neighbours: usize) -> f64 {
        plan(template, Load { verifications, services: 1000, neighbours })
            .iter()
            .map(|one| one.a_minute)
            .sum()
    }

    #[test]
    fn calls_grow_with_the_services_by_the_batch() {
        let template = golden_signals();
        let (one, many) = (a_minute(&template, 1, 0), a_minute(&template, 68, 0));
        assert!((one - many).abs() < 1e-9 && (3.0..5.0).contains(&one), "{one} {many}");
        let thousand = a_minute(&golden_signals_by_host(), 1000, 0);
        assert!((45.0..60.0).contains(&thousand), "{thousand}");
        assert!(a_minute(&template, 1000, 12) < 60.0, "those around are asked for anyway");
    }

    #[test]
    fn what_cannot_be_shared_is_counted_for_each() {
        let mut template = golden_signals();
        template.metrics.truncate(1);
        template.metrics[0].query = "(a:splitBy():avg)/(b:splitBy():avg)".to_owned();
        template.metrics[0].host_query = None;
        let planned = plan(&template, Load { verifications: 200, services: 400, neighbours: 0 });
        assert_eq!((planned[0].a_minute, planned[0].is_shared), (200.0, false));
    }
}
