//! Which windows of which services' logs to read next, and when. Pure.

use crate::config::LogSettings;
use crate::record::{CollectionRecord, uncovered};
use crate::source::logs::{LoggedService, Purpose};
use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::{Timestamp, Window};

/// Longest window that is read at once: what was missed, and what was before a deployment.
const LONGEST_MINUTES: i64 = 10;

/// The lines that a verification wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) service: LoggedService,
    /// From the beginning of the deployment on: a new version may already fail while it starts.
    pub(crate) from: Timestamp,
    /// Until the end of the verification, as far as that is known.
    pub(crate) until: Timestamp,
    /// When it was announced: one in the past is read all the same.
    pub(crate) opened_at: Timestamp,
}

/// How patient the collector is with the source of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogPace {
    pub(crate) settle: Duration,
    /// How long before a deployment lines are read as well.
    pub(crate) before: Duration,
    /// How long after a window has settled it is tried.
    pub(crate) give_up_after: Duration,
}

impl LogPace {
    pub(crate) const fn of(settings: &LogSettings, give_up_after: Duration) -> Self {
        Self { settle: settings.settle, before: settings.before, give_up_after }
    }
}

/// What is known about a service's windows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Known {
    /// What has been published, merged, ascending.
    pub(crate) covered: Vec<Window>,
    /// Not before this instant: it failed.
    pub(crate) not_before: Option<Timestamp>,
}

/// One window of some services, to be read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) purpose: Purpose,
    pub(crate) window: Window,
    pub(crate) services: Vec<LoggedService>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogPlan {
    /// What to read now.
    pub(crate) round: Option<Round>,
    /// Windows that nobody tries any more: it is told that they are missing.
    pub(crate) lost: Vec<(LoggedService, Window)>,
    /// The next instant at which something becomes due.
    pub(crate) wake: Option<Timestamp>,
}

impl Wanted {
    /// Of a collection; `None` where it was given up.
    pub(crate) fn of(record: &CollectionRecord) -> Option<Self> {
        if record.aborted {
            return None;
        }
        let from = record.traffic_at.map_or(record.started_at, |at| at.min(record.started_at)).floor_minute();
        let end = record.traffic_at.unwrap_or(record.started_at).ceil_minute().plus(record.duration());
        // One that ended early was decided by then.
        let until =
            if record.progress.done { record.progress.collected_until.unwrap_or(from).min(end) } else { end };
        let service =
            LoggedService { environment: record.environment.clone(), service: record.service.clone() };
        Some(Self { service, from, until: until.max(from), opened_at: record.opened_at })
    }

    /// When nobody cares any more.
    pub(crate) fn expires(&self, pace: &LogPace) -> Timestamp {
        self.until.max(self.opened_at).plus(pace.settle).plus(pace.give_up_after).plus_minutes(1)
    }
}

/// Plans at `now` for those services that `known` knows.
pub(crate) fn plan(
    wanted: &[Wanted],
    known: &BTreeMap<LoggedService, Known>,
    pace: &LogPace,
    now: Timestamp,
) -> LogPlan {
    let mut plan = LogPlan::default();
    let mut due: BTreeMap<(Purpose, Window), Vec<LoggedService>> = BTreeMap::new();
    let mut wakes = Vec::new();
    let settled = now.minus(pace.settle).floor_minute();
    for one in wanted {
        let Some(of_service) = known.get(&one.service) else { continue };
        let before = Window::new(one.from.minus(pace.before), one.from).ok();
        let during = Window::new(one.from, one.until).ok();
        for (purpose, window) in [(Purpose::Verification, during), (Purpose::History, before)] {
            let Some(window) = window else { continue };
            let patience = if purpose == Purpose::History { one.until } else { window.start() };
            for piece in uncovered(window, &of_service.covered) {
                let Ok(ready) = Window::new(piece.start(), piece.end().min(settled)) else {
                    wakes.push(piece.start().plus_minutes(1).plus(pace.settle));
                    continue;
                };
                if ready.end() < piece.end() {
                    wakes.push(ready.end().plus_minutes(1).plus(pace.settle));
                }
                let length = ready.end().minutes_since(ready.start()).min(LONGEST_MINUTES);
                let Ok(first) = Window::around(ready.start(), 0, length) else { continue };
                let given_up = first.end().max(patience).max(one.opened_at);
                let given_up = given_up.plus(pace.settle).plus(pace.give_up_after);
                match of_service.not_before {
                    _ if given_up <= now => {
                        let lost = (one.service.clone(), first);
                        if !plan.lost.contains(&lost) {
                            plan.lost.push(lost);
                        }
                    }
                    Some(later) if later > now => wakes.extend([later, given_up]),
                    Some(_) | None => {
                        let services = due.entry((purpose, first)).or_default();
                        if !services.contains(&one.service) {
                            services.push(one.service.clone());
                        }
                    }
                }
            }
        }
    }
    // Verifications before history, the oldest window first.
    plan.round =
        due.into_iter().next().map(|((purpose, window), services)| Round { purpose, window, services });
    plan.wake = wakes.into_iter().filter(|wake| *wake > now).min();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Progress;
    use crate::record::tests::{at, record, window};
    use vouch_proto::Name;

    fn pace() -> LogPace {
        LogPace::of(&LogSettings::default(), Duration::from_secs(300))
    }

    fn named(name: &str) -> LoggedService {
        LoggedService {
            environment: Name::new("prod").unwrap(),
            service: Name::new(name.to_owned()).unwrap(),
        }
    }

    fn wanted(name: &str) -> Wanted {
        Wanted { service: named(name), ..Wanted::of(&record()).unwrap() }
    }

    fn known(names: &[(&str, &[Window])]) -> BTreeMap<LoggedService, Known> {
        let of = |(name, covered): &(&str, &[Window])| {
            (named(name), Known { covered: covered.to_vec(), not_before: None })
        };
        names.iter().map(of).collect()
    }

    #[test]
    fn a_verification_wants_its_deployment_and_its_window() {
        let wanted = Wanted::of(&record()).unwrap();
        assert_eq!((wanted.from, wanted.until), (at(-1), at(15)), "from the deployment's beginning on");
        let waiting = CollectionRecord { traffic_at: None, ..record() };
        assert_eq!(Wanted::of(&waiting).unwrap().until, at(14), "so long at most while there is no traffic");
        let progress = Progress { collected_until: Some(at(6)), done: true, ..Progress::default() };
        assert_eq!(
            Wanted::of(&CollectionRecord { progress, ..record() }).unwrap().until,
            at(6),
            "decided early"
        );
        assert_eq!(Wanted::of(&CollectionRecord { aborted: true, ..record() }), None);
        assert_eq!(wanted.expires(&pace()), at(23));
    }

    #[test]
    fn minutes_come_first_and_together_and_then_what_was_before() {
        let all = [wanted("cart"), wanted("checkout")];
        let none = known(&[("cart", &[]), ("checkout", &[])]);
        let now = plan(&all, &none, &pace(), at(2));
        let round = now.round.unwrap();
        assert_eq!(
            (round.purpose, round.window, round.services.len()),
            (Purpose::Verification, window(-1, 0), 2)
        );
        assert_eq!(now.wake, Some(at(3)), "the minute from 0 to 1 settles at 3");
        let one_minute: &[Window] = &[window(-1, 0)];
        let then = plan(&all, &known(&[("cart", one_minute), ("checkout", one_minute)]), &pace(), at(2));
        let round = then.round.unwrap();
        assert_eq!((round.purpose, round.window), (Purpose::History, window(-31, -21)));
        let all_before: &[Window] = &[window(-31, 0)];
        let idle = plan(&all, &known(&[("cart", all_before), ("checkout", all_before)]), &pace(), at(2));
        assert_eq!((idle.round, idle.lost.len(), idle.wake), (None, 0, Some(at(3))));
    }

    #[test]
    fn what_was_missed_is_read_in_longer_windows_each_service_its_own() {
        let all = [wanted("cart"), wanted("checkout")];
        let uneven = known(&[("cart", &[window(-31, 9)]), ("checkout", &[window(-31, 0)])]);
        let round = plan(&all, &uneven, &pace(), at(14)).round.unwrap();
        assert_eq!((round.window, round.services), (window(0, 10), vec![named("checkout")]));
        let unknown = plan(&all, &BTreeMap::new(), &pace(), at(14));
        assert_eq!(unknown, LogPlan::default(), "a service of another replica is not touched");
    }

    #[test]
    fn verifications_of_one_service_share_what_was_read() {
        let later = Wanted { from: at(5), until: at(20), ..wanted("cart") };
        let known = known(&[("cart", &[window(-31, 12)])]);
        let round = plan(&[wanted("cart"), later], &known, &pace(), at(15)).round.unwrap();
        assert_eq!((round.window, round.services.len()), (window(12, 13), 1), "once");
    }

    #[test]
    fn what_fails_is_tried_again_later_and_told_as_missing_in_the_end() {
        let all = [wanted("cart")];
        let mut known = known(&[("cart", &[window(-31, 3)])]);
        known.get_mut(&named("cart")).unwrap().not_before = Some(at(7));
        let waits = plan(&all, &known, &pace(), at(6));
        assert_eq!((waits.round, waits.wake), (None, Some(at(7))));
        assert_eq!(plan(&all, &known, &pace(), at(7)).round.unwrap().window, window(3, 5));
        known.get_mut(&named("cart")).unwrap().not_before = Some(at(60));
        let over = plan(&all, &known, &pace(), at(20));
        assert_eq!(over.lost, [(named("cart"), window(3, 13))]);
        assert_eq!(over.round, None);
    }

    #[test]
    fn a_verification_in_the_past_is_read_at_once() {
        let past = Wanted { opened_at: at(500), ..wanted("cart") };
        let plan = plan(&[past], &known(&[("cart", &[])]), &pace(), at(500));
        assert_eq!((plan.round.unwrap().window, plan.lost.len()), (window(-1, 9), 0));
    }
}
