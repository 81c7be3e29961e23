//! What to read next for a collection, and when. Pure: a function of the record, the template, the timing and the time.

use crate::record::{CollectionRecord, Published, uncovered};
use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::{Timestamp, VerificationTemplate, Window};

/// How long a started deployment may stay without traffic.
const LONGEST_WAIT_FOR_TRAFFIC: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
/// So many minutes that nobody asked for may lie between what is read in one call.
const BETWEEN_MINUTES: i64 = 15;
/// Most times that a window is read once more while it goes on changing.
const MOST_REREADS: u32 = 3;

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

impl Pace {
    /// How long after it has settled a window that was read once more so many times is read again; `None`: no more.
    fn reread_after(&self, rereads: u32) -> Option<Duration> {
        let after = |n: u32| match n {
            0 => self.reread_after,
            // Before the time is up.
            _ => (self.reread_after * (n + 1)).min(self.give_up_after.saturating_sub(MINUTE)),
        };
        let is_later = rereads == 0 || after(rereads) > after(rereads - 1);
        (rereads < MOST_REREADS && is_later).then(|| after(rereads))
    }
}

/// How patient the collector is with each metric.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timing {
    /// What holds for all.
    pub pace: Pace,
    /// How long after its end a minute of a metric counts as settled, by its name, where that is not the pace's.
    pub settles: BTreeMap<String, Duration>,
}

impl Timing {
    /// How long after its end a minute of a metric counts as settled.
    #[must_use]
    pub fn settle(&self, metric: &str) -> Duration {
        self.settles.get(metric).copied().unwrap_or(self.pace.settle)
    }

    /// The longest of some metrics.
    #[must_use]
    pub fn longest<'a>(&self, metrics: impl Iterator<Item = &'a str>) -> Duration {
        metrics.map(|metric| self.settle(metric)).max().unwrap_or(self.pace.settle)
    }

    /// The shortest of some metrics.
    #[must_use]
    pub fn shortest<'a>(&self, metrics: impl Iterator<Item = &'a str>) -> Duration {
        metrics.map(|metric| self.settle(metric)).min().unwrap_or(self.pace.settle)
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

/// A window of some metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The window.
    pub window: Window,
    /// Their names, in the order of the template.
    pub metrics: Vec<String>,
}

/// What to read of the verification window in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The minutes that have not been read yet.
    pub first: Vec<Piece>,
    /// Windows to read once more.
    pub again: Vec<Published>,
    /// From the earliest to the latest of them.
    pub hull: Window,
}

impl Due {
    /// Whether a metric is to be read.
    #[must_use]
    pub fn is_about(&self, metric: &str) -> bool {
        self.first.iter().any(|piece| piece.metrics.iter().any(|one| one == metric))
            || self.again.iter().any(|published| published.is_about(metric))
    }

    /// From the earliest to the latest of the minutes that are new.
    #[must_use]
    pub fn new_minutes(&self) -> Option<Window> {
        hull(self.first.iter().map(|piece| piece.window))
    }
}

/// What is due now, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Reference windows, oldest first: they go before the verification's.
    pub baseline: Vec<Piece>,
    /// The verification's minutes, a call each.
    pub due: Vec<Due>,
    /// The next instant at which something becomes due; `None` where only news can change the plan.
    pub wake: Option<Timestamp>,
    /// How it stands.
    pub state: State,
}

impl Plan {
    fn over(state: State) -> Self {
        Self { baseline: Vec::new(), due: Vec::new(), wake: None, state }
    }

    /// Whether something is due now.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        !self.baseline.is_empty() || !self.due.is_empty()
    }
}

/// Start of the verification window: the first whole minute with traffic.
#[must_use]
pub fn verification_start(record: &CollectionRecord) -> Option<Timestamp> {
    record.traffic_at.map(Timestamp::ceil_minute)
}

/// Plans a collection at `now`.
#[must_use]
pub fn plan(
    record: &CollectionRecord,
    template: &VerificationTemplate,
    timing: &Timing,
    now: Timestamp,
) -> Plan {
    if record.aborted || record.progress.done {
        return Plan::over(State::Complete);
    }
    match record.traffic_at {
        None => before_traffic(record, template, timing, now),
        Some(traffic_at) => with_traffic(record, template, timing, (traffic_at, now)),
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

/// Metrics by the window that is to be read of them: those of the same are read together.
#[derive(Debug, Default)]
struct Grouped(BTreeMap<Window, Vec<String>>);

impl Grouped {
    fn add(&mut self, window: Window, metric: &str) {
        self.0.entry(window).or_default().push(metric.to_owned());
    }

    fn pieces(self) -> Vec<Piece> {
        self.0.into_iter().map(|(window, metrics)| Piece { window, metrics }).collect()
    }
}

/// Before the first traffic the references can be read ahead, once; what is missing then follows with the traffic.
fn before_traffic(
    record: &CollectionRecord,
    template: &VerificationTemplate,
    timing: &Timing,
    now: Timestamp,
) -> Plan {
    let give_up = record.started_at.max(record.opened_at).plus(LONGEST_WAIT_FOR_TRAFFIC);
    if now >= give_up {
        return Plan::over(State::Late);
    }
    let windows = baseline_windows(record, template, record.started_at.floor_minute());
    let mut ahead = Grouped::default();
    let unread = |metric: &&str| record.progress.baseline_of(metric).is_empty();
    for metric in names(template).filter(unread) {
        let settled = now.minus(timing.settle(metric)).floor_minute();
        let cut = windows.iter().filter_map(|w| Window::new(w.start(), w.end().min(settled)).ok());
        cut.for_each(|window| ahead.add(window, metric));
    }
    Plan { baseline: ahead.pieces(), wake: Some(give_up), ..Plan::over(State::Open) }
}

fn names(template: &VerificationTemplate) -> impl Iterator<Item = &str> {
    template.metrics.iter().map(|metric| metric.name.as_str())
}

fn with_traffic(
    record: &CollectionRecord,
    template: &VerificationTemplate,
    timing: &Timing,
    (traffic_at, now): (Timestamp, Timestamp),
) -> Plan {
    let progress = &record.progress;
    let mut wakes = Vec::new();
    let mut baseline = Grouped::default();
    for window in baseline_windows(record, template, traffic_at.floor_minute()) {
        for metric in names(template) {
            for piece in uncovered(window, progress.baseline_of(metric)) {
                let settled = piece.end().plus(timing.settle(metric));
                if settled <= now { baseline.add(piece, metric) } else { wakes.push(settled) }
            }
        }
    }

    let step = progress.step_seconds.map_or(60_000, |s| i64::try_from(s).unwrap_or(60).max(60) * 1000);
    let start = align_up(traffic_at.ceil_minute(), step);
    let end = align_up(traffic_at.ceil_minute().plus(record.duration()), step);
    let mut first = Grouped::default();
    for metric in names(template) {
        let settle = timing.settle(metric);
        let collected = progress.until_of(metric).unwrap_or(start).max(start);
        let ready = align_down(now.minus(settle), step).min(end);
        if let Ok(window) = Window::new(collected, ready) {
            first.add(window, metric);
        }
        let next = collected.max(ready);
        if next < end {
            wakes.push(Timestamp::from_millis(next.as_millis() + step).plus(settle));
        }
    }

    let reread_at = |p: &Published| {
        let settle = timing.longest(names(template).filter(|metric| p.is_about(metric)));
        p.window.end().plus(settle).plus(timing.pace.reread_after(p.rereads).unwrap_or_default())
    };
    let (again, later): (Vec<_>, Vec<_>) =
        progress.to_reread.iter().cloned().partition(|p| reread_at(p) <= now);
    wakes.extend(later.iter().map(reread_at));

    let longest = timing.longest(names(template));
    let give_up = end.max(record.opened_at).plus(longest).plus(timing.pace.give_up_after);
    let (baseline, due) = (baseline.pieces(), calls(first.pieces(), again));
    let left = !baseline.is_empty() || !due.is_empty() || !wakes.is_empty();
    let state = match (left, now >= give_up) {
        (false, _) => State::Complete,
        (true, true) => State::Late,
        (true, false) => State::Open,
    };
    wakes.push(give_up);
    Plan { baseline, due, wake: wakes.into_iter().filter(|w| *w > now).min(), state }
}

/// What is due, as few calls as reach over it without much in between; the newest minutes first.
fn calls(first: Vec<Piece>, again: Vec<Published>) -> Vec<Due> {
    enum Part {
        First(Piece),
        Again(Published),
    }
    let window = |part: &Part| match part {
        Part::First(piece) => piece.window,
        Part::Again(published) => published.window,
    };
    let mut parts: Vec<Part> = first.into_iter().map(Part::First).collect();
    parts.extend(again.into_iter().map(Part::Again));
    parts.sort_by_key(|part| std::cmp::Reverse(window(part).end()));
    let mut calls: Vec<Due> = Vec::new();
    for part in parts {
        let own = window(&part);
        let with =
            calls.last().and_then(|last| hull([last.hull, own].into_iter()).map(|all| (last.hull, all)));
        let fits =
            with.filter(|(last, all)| all.minutes() - last.minutes() - own.minutes() <= BETWEEN_MINUTES);
        if let (Some((_, all)), Some(last)) = (fits, calls.last_mut()) {
            last.hull = all;
        } else {
            calls.push(Due { first: Vec::new(), again: Vec::new(), hull: own });
        }
        if let Some(last) = calls.last_mut() {
            match part {
                Part::First(piece) => last.first.push(piece),
                Part::Again(published) => last.again.push(published),
            }
        }
    }
    calls
}

fn hull(windows: impl Iterator<Item = Window> + Clone) -> Option<Window> {
    let start = windows.clone().map(Window::start).min()?;
    let end = windows.map(Window::end).max()?;
    Window::new(start, end).ok()
}

/// Whether a window that is read at `now` is to be read once more later, after so many times.
#[must_use]
pub fn needs_reread(window: Window, settle: Duration, pace: &Pace, now: Timestamp) -> bool {
    now < window.end().plus(settle).plus(pace.reread_after)
}

/// Whether a window that had changed when it was read once more is read yet again.
#[must_use]
pub fn is_reread_again(rereads: u32, pace: &Pace) -> bool {
    pace.reread_after(rereads).is_some()
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
        plan(record, &golden_signals(), &Timing::default(), now)
    }

    fn all() -> Vec<String> {
        names(&golden_signals()).map(ToOwned::to_owned).collect()
    }

    /// The windows of pieces that are each about every metric.
    fn windows(pieces: &[Piece]) -> Vec<Window> {
        assert!(pieces.iter().all(|piece| piece.metrics == all()), "{pieces:?}");
        pieces.iter().map(|piece| piece.window).collect()
    }

    /// What is due, in one call.
    fn due_at(record: &CollectionRecord, now: Timestamp) -> Due {
        let mut due = plan_at(record, now).due;
        assert_eq!(due.len(), 1, "{due:?}");
        due.remove(0)
    }

    fn published(from: i64, to: i64) -> Published {
        let digests = BTreeMap::new();
        Published { window: window(from, to), revision: 0, digest: 0, digests, rereads: 0 }
    }

    /// Error counts come ten minutes late.
    fn late() -> Timing {
        let settles = BTreeMap::from([("error_count".to_owned(), 10 * MINUTE)]);
        Timing { settles, ..Timing::default() }
    }

    fn others() -> Vec<String> {
        all().into_iter().filter(|metric| metric != "error_count").collect()
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
        let old = [window(-7 * day - 60, -7 * day + 15), window(-day - 60, -day + 15)];
        assert_eq!(windows(&now.baseline), old);
        assert_eq!((now.due, now.wake), (vec![], Some(at(2))));
        assert_eq!(windows(&plan_at(&record, at(2)).baseline).last(), Some(&window(-180, 0)));
    }

    #[test]
    fn one_minute_after_the_other_each_once_settled_and_read_once_more() {
        let mut record = with_baseline();
        assert_eq!(
            plan_at(&record, after_traffic(179)).wake,
            Some(at(3)),
            "minute 0 ends at 1, settles at 3"
        );
        let due = due_at(&record, at(3));
        assert_eq!((windows(&due.first), due.hull), (vec![window(0, 1)], window(0, 1)));
        record.progress.collected_until = Some(at(3));
        record.progress.to_reread = (0..3).map(|m| published(m, m + 1)).collect();
        assert!(!plan_at(&record, after_traffic(330)).is_due());
        let due = due_at(&record, at(6));
        let expected = (vec![window(3, 4)], 1, window(0, 4));
        assert_eq!((windows(&due.first), due.again.len(), due.hull), expected, "one call");
    }

    #[test]
    fn what_failed_is_asked_again_in_one_call() {
        let due = due_at(&with_baseline(), after_traffic(12 * 60 + 20));
        assert_eq!(windows(&due.first), [window(0, 10)]);
    }

    #[test]
    fn the_end_is_complete_or_late() {
        let mut record = with_baseline();
        assert_eq!(plan_at(&record, at(21)).state, State::Open);
        let late = plan_at(&record, at(22));
        assert_eq!((late.state, windows(&late.due[0].first)), (State::Late, vec![window(0, 15)]));
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
        assert_eq!((plan.state, windows(&plan.due[0].first)), (State::Open, vec![window(0, 15)]));
        let (pace, settle) = (Pace::default(), Pace::default().settle);
        assert!(!needs_reread(window(0, 15), settle, &pace, at(500)));
        assert!(needs_reread(window(0, 1), settle, &pace, at(3)));
    }

    #[test]
    fn references_are_read_ahead_while_there_is_no_traffic() {
        let mut record = CollectionRecord { traffic_at: None, ..record() };
        let ahead = windows(&plan_at(&record, at(0)).baseline);
        assert_eq!(ahead.last(), Some(&window(-181, -2)), "settled up to two minutes ago");
        for window in ahead {
            cover(&mut record.progress.baseline, window);
        }
        assert!(!plan_at(&record, at(30)).is_due());
        record.traffic_at = Some(at(20));
        let rest = windows(&plan_at(&record, at(22)).baseline);
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
        let due =
            |now| plan_at(&record, now).due.iter().flat_map(|due| windows(&due.first)).collect::<Vec<_>>();
        assert_eq!(due(at(11)), [], "the slot from 5 to 10 settles at 12");
        assert_eq!(due(at(12)), [window(5, 10)], "the slot that the deployment falls into is left out");
        assert_eq!(due(at(22)), [window(5, 20)], "the last slot holds the end");
    }

    #[test]
    fn windows_that_were_asked_for_replace_the_templates() {
        let record = CollectionRecord { baseline: vec![window(-400, -370)], ..record() };
        assert_eq!(windows(&plan_at(&record, at(0)).baseline), [window(-400, -370)]);
    }

    #[test]
    fn traffic_within_a_minute_belongs_to_neither_side() {
        let mut record = with_baseline();
        record.traffic_at = Some(after_traffic(30));
        assert_eq!(verification_start(&record), Some(at(1)));
        assert_eq!(windows(&due_at(&record, at(4)).first), [window(1, 2)]);
    }

    #[test]
    fn a_metric_that_comes_later_is_read_later_and_in_the_same_call() {
        let mut record = with_baseline();
        let due = |record: &CollectionRecord, now| plan(record, &golden_signals(), &late(), now);
        let first = due(&record, at(3)).due.remove(0).first;
        assert_eq!(first, [Piece { window: window(0, 1), metrics: others() }]);
        record.progress.note_until(&all(), &others(), at(8));
        assert_eq!(due(&record, at(10)).wake, Some(at(11)), "both are due then");
        let plan = due(&record, at(11));
        assert_eq!(plan.due.len(), 1);
        let late = Piece { window: window(0, 1), metrics: vec!["error_count".into()] };
        assert_eq!(plan.due[0].first, [Piece { window: window(8, 9), metrics: others() }, late]);
        assert_eq!((plan.due[0].hull, plan.due[0].new_minutes()), (window(0, 9), Some(window(0, 9))));
        assert!(all().iter().all(|metric| plan.due[0].is_about(metric)));
        // It is given up later as well.
        record.progress.note_until(&all(), &others(), at(15));
        assert_eq!(due(&record, at(29)).state, State::Open);
        assert_eq!(due(&record, at(30)).state, State::Late);
    }

    #[test]
    fn a_metric_that_comes_much_later_is_read_in_a_call_of_its_own() {
        let mut record = CollectionRecord { duration_seconds: 3600, ..with_baseline() };
        record.progress.note_baseline(&all(), &all(), window(-180, 0));
        record.progress.note_until(&all(), &others(), at(57));
        let settles = BTreeMap::from([("error_count".to_owned(), 30 * MINUTE)]);
        record.progress.note_until(&all(), &all(), at(29));
        let plan = plan(&record, &golden_signals(), &Timing { settles, ..Timing::default() }, at(60));
        let hulls: Vec<Window> = plan.due.iter().map(|due| due.hull).collect();
        assert_eq!(hulls, [window(57, 58), window(29, 30)]);
        assert!(!plan.due[0].is_about("error_count") && plan.due[1].is_about("error_count"));
    }

    #[test]
    fn references_of_a_late_metric_follow_and_old_ones_are_read_with_the_others() {
        let mut record = record();
        let plan_of = |record: &CollectionRecord, now| plan(record, &golden_signals(), &late(), now);
        let now = plan_of(&record, at(2));
        assert_eq!(windows(&now.baseline[..2]).len(), 2);
        assert_eq!(now.baseline[2..], [Piece { window: window(-180, 0), metrics: others() }]);
        for piece in now.baseline {
            record.progress.note_baseline(&all(), &piece.metrics, piece.window);
        }
        assert_eq!(plan_of(&record, at(9)).baseline, []);
        let late = [Piece { window: window(-180, 0), metrics: vec!["error_count".into()] }];
        assert_eq!(plan_of(&record, at(10)).baseline, late);
    }

    #[test]
    fn what_goes_on_changing_is_read_again_before_the_time_is_up() {
        let pace = Pace::default();
        let minutes = |pace: Pace| (0..9).map_while(move |n| pace.reread_after(n)).map(|d| d.as_secs() / 60);
        assert_eq!(minutes(pace).collect::<Vec<_>>(), [3, 4]);
        let patient = Pace { give_up_after: 30 * MINUTE, ..pace };
        assert_eq!(minutes(patient).collect::<Vec<_>>(), [3, 6, 9]);
        let hasty = Pace { give_up_after: 3 * MINUTE, ..pace };
        assert_eq!(minutes(hasty).collect::<Vec<_>>(), [3], "once in any case");
        assert!(is_reread_again(1, &pace) && !is_reread_again(2, &pace));
        let mut record = with_baseline();
        record.progress.collected_until = Some(at(15));
        record.progress.to_reread = vec![Published { rereads: 1, ..published(14, 15) }];
        assert_eq!(plan_at(&record, at(20)).wake, Some(at(21)));
        assert_eq!(due_at(&record, at(21)).again.len(), 1);
    }
}
