//! Which comparison a case gets, and why. Chosen from the hosts and from what was measured before the verification
//! alone: no later minute can change it. Pure.

use crate::case::{Case, CaseHost, CaseMetric, HostGroup};
use std::collections::BTreeSet;
use vouch_proto::Strategy;

/// A set of new hosts is a whole new stack when it has at least one host for so many of the old ones.
const OLD_HOSTS_PER_NEW: usize = 2;

/// The strategy that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Never `Auto`.
    pub strategy: Strategy,
    /// One phrase for a person.
    pub reason: String,
}

impl Choice {
    fn new(strategy: Strategy, reason: impl Into<String>) -> Self {
        Self { strategy, reason: reason.into() }
    }
}

/// The strategy to judge a case with.
#[must_use]
pub fn choose(case: &Case) -> Choice {
    match case.strategy {
        Strategy::Previous | Strategy::Rolling => Choice::new(case.strategy, "asked for"),
        Strategy::LoadTest => {
            Choice::new(case.strategy, "asked for: minute by minute against the pinned run, load corrected")
        }
        Strategy::Canary => match dilution(case) {
            Some(share) => Choice::new(
                case.strategy,
                format!(
                    "asked for, diluted: only the service as a whole is measured, and the canary has {:.1} % of its traffic",
                    100.0 * share
                ),
            ),
            None => Choice::new(case.strategy, "asked for"),
        },
        Strategy::BlueGreen => blue_green(case),
        Strategy::Auto => auto(case),
    }
}

/// The canary's share of the traffic, where it is to be seen through the service as a whole: asked for, and no control
/// host was measured before the verification.
#[must_use]
pub fn dilution(case: &Case) -> Option<f64> {
    let share = case.diluted.filter(|_| case.strategy == Strategy::Canary)?;
    (Sets::of(case).measured_controls == 0).then_some(share)
}

/// The hosts of a case, as far as they are known before the verification.
struct Sets {
    controls: usize,
    tests: usize,
    measured_controls: usize,
    measured_tests: usize,
    switches: BTreeSet<i64>,
}

impl Sets {
    fn of(case: &Case) -> Self {
        let measured: BTreeSet<&str> = measured_before(case).collect();
        let count = |group: HostGroup, is_measured: bool| {
            let counts = |(name, host): &(&String, &CaseHost)| {
                host.group == group && (!is_measured || measured.contains(name.as_str()))
            };
            case.hosts.iter().filter(counts).count()
        };
        let tests = case.hosts.values().filter(|host| host.group == HostGroup::Test);
        Self {
            controls: count(HostGroup::Control, false),
            tests: count(HostGroup::Test, false),
            measured_controls: count(HostGroup::Control, true),
            measured_tests: count(HostGroup::Test, true),
            switches: tests.map(|host| host.switch.unwrap_or(0)).collect(),
        }
    }
}

/// Hosts with a judged sample before the verification.
fn measured_before(case: &Case) -> impl Iterator<Item = &str> {
    let is_judged = |metric: &str| case.metrics.get(metric).is_some_and(CaseMetric::is_judged);
    let begin = case.verification[0];
    case.series.iter().filter(move |series| is_judged(&series.metric)).filter_map(move |series| {
        let before = usize::try_from((begin - series.start).div_euclid(case.interval_min)).unwrap_or(0);
        let known = &series.values[..before.min(series.values.len())];
        known.iter().any(Option::is_some).then_some(series.host.as_str())
    })
}

fn blue_green(case: &Case) -> Choice {
    let sets = Sets::of(case);
    if sets.measured_controls == 0 {
        return Choice::new(
            Strategy::Previous,
            "blue-green was asked for, and no host of the old stack was measured: \
             the service as a whole is compared with the time before",
        );
    }
    let (new, old) = (sets.tests, sets.measured_controls);
    Choice::new(
        Strategy::BlueGreen,
        format!("asked for: {} after the switch against {} before it", hosts(new, "new"), hosts(old, "old")),
    )
}

fn auto(case: &Case) -> Choice {
    let sets = Sets::of(case);
    if sets.measured_controls + sets.measured_tests == 0 {
        return Choice::new(
            Strategy::Previous,
            "chosen: no host that was named was measured before, so the service is compared with the time before",
        );
    }
    if sets.controls > 0 && sets.tests > 0 {
        let (new, old) = (sets.tests, sets.controls);
        let is_new_set = sets.measured_tests == 0 && sets.switches.len() == 1;
        if is_new_set && OLD_HOSTS_PER_NEW * new >= old {
            let reason = format!(
                "chosen: {} without a past take over from {} at one switch",
                hosts(new, "new"),
                hosts(old, "old")
            );
            return Choice::new(Strategy::BlueGreen, reason);
        }
        let reason = format!("chosen: {new} test and {old} control hosts at the same time");
        return Choice::new(Strategy::Canary, reason);
    }
    if sets.switches.len() > 1 {
        let reason =
            format!("chosen: {} hosts switch at {} different times", sets.tests, sets.switches.len());
        return Choice::new(Strategy::Rolling, reason);
    }
    Choice::new(Strategy::Previous, "chosen: all hosts switch at once, so each is compared with its own past")
}

fn hosts(count: usize, kind: &str) -> String {
    format!("{count} {kind} {}", if count == 1 { "host" } else { "hosts" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_proto::Direction;

    /// Name, group, switch, and whether it was measured before the verification.
    type Host<'a> = (&'a str, HostGroup, Option<i64>, bool);

    fn case(strategy: Strategy, hosts: &[Host<'_>]) -> Case {
        let mut case = Case::new("a", strategy, 1, [0, 10])
            .with_baseline([-10, 0])
            .with_metric("rt", CaseMetric::judged("ms", Direction::Increase));
        for (name, group, switch, is_measured) in hosts {
            let start = if *is_measured { -10 } else { 0 };
            case = case.with_host(*name, *group, *switch).with_series("rt", name, start, vec![Some(1.0); 11]);
        }
        case
    }

    const SERVICE: Host<'_> = ("service", HostGroup::Service, Some(0), true);

    fn old(name: &str) -> Host<'_> {
        (name, HostGroup::Control, None, true)
    }

    fn new(name: &str, switch: i64, is_measured: bool) -> Host<'_> {
        (name, HostGroup::Test, Some(switch), is_measured)
    }

    #[test]
    fn auto_chooses_from_the_hosts_and_says_why() {
        let of = |hosts: &[_]| choose(&case(Strategy::Auto, hosts));
        let chosen = of(&[SERVICE]);
        assert_eq!(chosen.strategy, Strategy::Previous);
        assert!(chosen.reason.contains("no host that was named was measured"), "{}", chosen.reason);
        let canary = of(&[old("a"), old("b"), old("c"), new("d", 0, false)]);
        let reason = "chosen: 1 test and 3 control hosts at the same time";
        assert_eq!(canary, Choice::new(Strategy::Canary, reason));
        assert_eq!(
            of(&[old("a"), new("b", 0, true)]).strategy,
            Strategy::Canary,
            "it ran the old version before"
        );
        let stack = of(&[old("a"), old("b"), new("c", 0, false), new("d", 0, false)]);
        assert_eq!(stack.strategy, Strategy::BlueGreen);
        let said = "2 new hosts without a past take over from 2 old hosts";
        assert!(stack.reason.contains(said), "{}", stack.reason);
        assert_eq!(of(&[new("a", 0, true), new("b", 4, true)]).strategy, Strategy::Rolling);
        assert_eq!(of(&[new("a", 0, true), new("b", 0, true)]).strategy, Strategy::Previous);
    }

    #[test]
    fn blue_green_without_the_old_hosts_is_previous_and_says_so() {
        let chosen = choose(&case(Strategy::BlueGreen, &[SERVICE]));
        assert_eq!(chosen.strategy, Strategy::Previous);
        assert!(chosen.reason.contains("the service as a whole"), "{}", chosen.reason);
        let chosen = choose(&case(Strategy::BlueGreen, &[old("a"), new("b", 3, false)]));
        assert_eq!(chosen.strategy, Strategy::BlueGreen);
        let said = "1 new host after the switch against 1 old host";
        assert!(chosen.reason.contains(said), "{}", chosen.reason);
    }

    #[test]
    fn a_canary_is_diluted_where_no_control_host_is_measured() {
        let whole = case(Strategy::Canary, &[SERVICE]).diluted_by(0.1);
        assert_eq!(dilution(&whole), Some(0.1));
        assert!(choose(&whole).reason.contains("has 10.0 % of its traffic"));
        let hosts = case(Strategy::Canary, &[old("a"), new("b", 0, false)]).diluted_by(0.1);
        assert_eq!((dilution(&hosts), choose(&hosts).reason.as_str()), (None, "asked for"));
    }

    #[test]
    fn no_later_minute_changes_the_choice() {
        let all = case(Strategy::Auto, &[old("a"), new("b", 0, false)]);
        let mut early = all.clone();
        early.series.iter_mut().for_each(|series| {
            let keep = usize::try_from(-series.start).unwrap();
            series.values.truncate(keep);
        });
        assert_eq!(choose(&early), choose(&all));
    }
}
