//! What to read next for a collection, and when. Pure: a function of the record, the template, the pace and the time.

use crate::record::{CollectionRecord, Published, uncovered};
use std::time::Duration;
use vouch_proto::{Timestamp, VerificationTemplate, Window};

/// How long a started deployment may stay without traffic.
const LONGEST_WAIT_FOR_TRAFFIC: Duration = Duration::from_secs(24 * 3600);

/// How patient the collector is with the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long after its end a minute counts as settled.
    pub settle: Duration,
    /// How much later it is read once more.
    pub reread_after: Duration,
    /// How long after the end, and the settling, the collection goes on trying.
    pub give_up_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let minutes = |m: u64| Duration::from_secs(60 * m);
        Self { settle: minutes(2), reread_after: minutes(3), give_up_after: minutes(5) }
    }
}

/// How a collection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Something is left, now or later.
    Open,
    /// Everything has been read.
    Complete,
    /// The time is up; what is due may be tried once more by who has not tried yet.
    Late,
}

/// What to read of the verification window, in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The minutes that have not been read yet.
    pub first: Option<Window>,
    /// Windows to read once more.
    pub again: Vec<Published>,
    /// From the earliest to the latest of them.
    pub hull: Window,
}

/// What is due now, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Reference windows, oldest first: they go before the verification's.
    pub baseline: Vec<Window>,
    /// The verification's minutes.
    pub due: Option<Due>,
    /// The next instant at which something becomes due; `None` where only news can change the plan.
    pub wake: Option<Timestamp>,
    /// How it stands.
    pub state: State,
}

impl Plan {
    fn over(state: State) -> Self {
        Self { baseline: Vec::new(), due: None, wake: None, state }
    }

    /// Whether something is due now.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        !self.baseline.is_empty() || self.due.is_some()
    }
}

/// Start of the verification window: the first whole minute with traffic.
#[must_use]
pub fn verification_start(record: &CollectionRecord) -> Option<Timestamp> {
    record.traffic_at.map(Timestamp::ceil_minute)
}

/// Plans a collection at `now`.
#[must_use]
pub fn plan(record: &CollectionRecord, template: &VerificationTemplate, pace: &Pace, now: Timestamp) -> Plan {
    if record.aborted || record.progress.done {
        return Plan::over(State::Complete);
    }
    match record.traffic_at {
        None => before_traffic(record, template, pace, now),
        Some(traffic_at) => with_traffic(record, template, pace, (traffic_at, now)),
    }
}

/// The reference windows of a deployment whose last minute on the old version ends at `end`.
fn baseline_windows(
    record: &CollectionRecord,
    template: &VerificationTemplate,
    end: Timestamp,
) -> Vec<Window> {
    if record.baseline.is_empty() {
        template.baseline(record.strategy, end, record.duration())
    } else {
        record.baseline.clone()
    }
}

/// Before the first traffic the references can be read ahead, once; what is missing then follows with the traffic.
fn before_traffic(
    record: &CollectionRecord,
    template: &VerificationTemplate,
    pace: &Pace,
    now: Timestamp,
) -> Plan {
    let give_up = record.started_at.max(record.opened_at).plus(LONGEST_WAIT_FOR_TRAFFIC);
    if now >= give_up {
        return Plan::over(State::Late);
    }
    let mut plan = Plan { wake: Some(give_up), ..Plan::over(State::Open) };
    if record.progress.baseline.is_empty() {
        let settled = now.minus(pace.settle).floor_minute();
        let windows = baseline_windows(record, template, record.started_at.floor_minute());
        plan.baseline =
            windows.iter().filter_map(|w| Window::new(w.start(), w.end().min(settled)).ok()).collect();
    }
    plan
}

fn with_traffic(
    record: &CollectionRecord,
    template: &VerificationTemplate,
    pace: &Pace,
    (traffic_at, now): (Timestamp, Timestamp),
) -> Plan {
    let mut wakes = Vec::new();
    let mut baseline = Vec::new();
    for window in baseline_windows(record, template, traffic_at.floor_minute()) {
        for piece in uncovered(window, &record.progress.baseline) {
            let settled = piece.end().plus(pace.settle);
            if settled <= now { baseline.push(piece) } else { wakes.push(settled) }
        }
    }

    let step = record.progress.step_seconds.map_or(60_000, |s| i64::try_from(s).unwrap_or(60).max(60) * 1000);
    let start = align_up(traffic_at.ceil_minute(), step);
    let end = align_up(traffic_at.ceil_minute().plus(record.duration()), step);
    let collected = record.progress.collected_until.unwrap_or(start).max(start);
    let ready = align_down(now.minus(pace.settle), step).min(end);
    let first = Window::new(collected, ready).ok();
    let next = collected.max(ready);
    if next < end {
        wakes.push(Timestamp::from_millis(next.as_millis() + step).plus(pace.settle));
    }

    let reread_at = |p: &Published| p.window.end().plus(pace.settle).plus(pace.reread_after);
    let (again, later): (Vec<_>, Vec<_>) =
        record.progress.to_reread.iter().cloned().partition(|p| reread_at(p) <= now);
    wakes.extend(later.iter().map(reread_at));

    let give_up = end.max(record.opened_at).plus(pace.settle).plus(pace.give_up_after);
    let due = hull(first, &again).map(|hull| Due { first, again, hull });
    let left = !baseline.is_empty() || due.is_some() || !wakes.is_empty();
    let state = match (left, now >= give_up) {
        (false, _) => State::Complete,
        (true, true) => State::Late,
        (true, false) => State::Open,
    };
    wakes.push(give_up);
    Plan { baseline, due, wake: wakes.into_iter().filter(|w| *w > now).min(), state }
}

fn hull(first: Option<Window>, again: &[Published]) -> Option<Window> {
    let windows = || first.into_iter().chain(again.iter().map(|p| p.window));
    let start = windows().map(Window::start).min()?;
    let end = windows().map(Window::end).max()?;
    Window::new(start, end).ok()
}

/// Whether a window that is read at `now` is to be read once more later.
#[must_use]
pub fn needs_reread(window: Window, pace: &Pace, now: Timestamp) -> bool {
    now < window.end().plus(pace.settle).plus(pace.reread_after)
}

fn align_up(t: Timestamp, step: i64) -> Timestamp {
    Timestamp::from_millis((t.as_millis() + step - 1).div_euclid(step) * step)
}

fn align_down(t: Timestamp, step: i64) -> Timestamp {
    Timestamp::from_millis(t.as_millis().div_euclid(step) * step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::cover;
    use crate::record::tests::{at, record, window};
    use vouch_proto::template::golden_signals;

    fn plan_at(record: &CollectionRecord, now: Timestamp) -> Plan {
        plan(record, &golden_signals(), &Pace::default(), now)
    }

    fn with_baseline() -> CollectionRecord {
        let mut record = record();
        for window in golden_signals().baseline(record.strategy, at(0), record.duration()) {
            cover(&mut record.progress.baseline, window);
        }
        record
    }

    fn after_traffic(seconds: u64) -> Timestamp {
        at(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn references_come_first_and_the_recent_one_once_it_has_settled() {
        let record = record();
        let now = plan_at(&record, at(0));
        let day = 1440;
        assert_eq!(now.baseline, [window(-7 * day - 60, -7 * day + 15), window(-day - 60, -day + 15)]);
        assert_eq!((now.due, now.wake), (None, Some(at(2))));
        assert_eq!(plan_at(&record, at(2)).baseline.last(), Some(&window(-180, 0)));
    }

    #[test]
    fn one_minute_after_the_other_each_once_settled_and_read_once_more() {
        let mut record = with_baseline();
        assert_eq!(
            plan_at(&record, after_traffic(179)).wake,
            Some(at(3)),
            "minute 0 ends at 1, settles at 3"
        );
        let due = plan_at(&record, at(3)).due.unwrap();
        assert_eq!((due.first, due.hull), (Some(window(0, 1)), window(0, 1)));
        record.progress.collected_until = Some(at(3));
        record.progress.to_reread =
            (0..3).map(|m| Published { window: window(m, m + 1), revision: 0, digest: 0 }).collect();
        assert!(!plan_at(&record, after_traffic(330)).is_due());
        let due = plan_at(&record, at(6)).due.unwrap();
        assert_eq!((due.first, due.again.len(), due.hull), (Some(window(3, 4)), 1, window(0, 4)), "one call");
    }

    #[test]
    fn what_failed_is_asked_again_in_one_call() {
        let due = plan_at(&with_baseline(), after_traffic(12 * 60 + 20)).due.unwrap();
        assert_eq!(due.first, Some(window(0, 10)));
    }

    #[test]
    fn the_end_is_complete_or_late() {
        let mut record = with_baseline();
        assert_eq!(plan_at(&record, at(21)).state, State::Open);
        let late = plan_at(&record, at(22));
        assert_eq!((late.state, late.due.unwrap().first), (State::Late, Some(window(0, 15))));
        record.progress.collected_until = Some(at(15));
        assert_eq!(plan_at(&record, at(18)), Plan { wake: Some(at(22)), ..Plan::over(State::Complete) });
        record.aborted = true;
        assert_eq!(plan_at(&record, at(1)), Plan::over(State::Complete));
    }

    #[test]
    fn a_verification_in_the_past_is_read_at_once() {
        let mut record = with_baseline();
        record.opened_at = at(500);
        let plan = plan_at(&record, at(500));
        assert_eq!((plan.state, plan.due.unwrap().first), (State::Open, Some(window(0, 15))));
        assert!(!needs_reread(window(0, 15), &Pace::default(), at(500)));
        assert!(needs_reread(window(0, 1), &Pace::default(), at(3)));
    }

    #[test]
    fn references_are_read_ahead_while_there_is_no_traffic() {
        let mut record = CollectionRecord { traffic_at: None, ..record() };
        let ahead = plan_at(&record, at(0)).baseline;
        assert_eq!(ahead.last(), Some(&window(-181, -2)), "settled up to two minutes ago");
        for window in ahead {
            cover(&mut record.progress.baseline, window);
        }
        assert!(!plan_at(&record, at(30)).is_due());
        record.traffic_at = Some(at(20));
        let rest = plan_at(&record, at(22)).baseline;
        assert_eq!(rest.last(), Some(&window(-2, 20)), "only what is missing");
        record.traffic_at = None;
        assert_eq!(plan_at(&record, at(1440)).state, State::Late, "a day without traffic");
    }

    #[test]
    fn a_coarser_source_is_read_in_its_own_steps() {
        let mut record = with_baseline();
        record.traffic_at = Some(at(2));
        record.progress.step_seconds = Some(300);
        cover(&mut record.progress.baseline, window(-181, 2));
        let due = |now| plan_at(&record, now).due.and_then(|d| d.first);
        assert_eq!(due(at(11)), None, "the slot from 5 to 10 settles at 12");
        assert_eq!(due(at(12)), Some(window(5, 10)), "the slot that the deployment falls into is left out");
        assert_eq!(due(at(22)), Some(window(5, 20)), "the last slot holds the end");
    }

    #[test]
    fn windows_that_were_asked_for_replace_the_templates() {
        let record = CollectionRecord { baseline: vec![window(-400, -370)], ..record() };
        assert_eq!(plan_at(&record, at(0)).baseline, [window(-400, -370)]);
    }

    #[test]
    fn traffic_within_a_minute_belongs_to_neither_side() {
        let mut record = with_baseline();
        record.traffic_at = Some(after_traffic(30));
        assert_eq!(verification_start(&record), Some(at(1)));
        assert_eq!(plan_at(&record, at(4)).due.unwrap().first, Some(window(1, 2)));
    }
}
