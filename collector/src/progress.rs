//! How far a collection is: what has been published of each metric, most of which come together. Pure.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use vouch_proto::{Timestamp, Window};

/// What has been published. A takeover goes on from here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Reference windows that have been read of every metric, merged, ascending.
    #[serde(default)]
    pub baseline: Vec<Window>,
    /// The verification window has been read of every metric up to here.
    #[serde(default)]
    pub collected_until: Option<Timestamp>,
    /// Windows that will be read once more.
    #[serde(default)]
    pub to_reread: Vec<Published>,
    /// Step of the source, where it is coarser than a minute.
    #[serde(default)]
    pub step_seconds: Option<u64>,
    /// Nothing is left to do.
    #[serde(default)]
    pub done: bool,
    /// The metrics of which more has been read, since they are complete earlier than the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ahead: BTreeMap<String, Ahead>,
}

/// What has been read of one metric.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ahead {
    /// Reference windows, merged, ascending.
    #[serde(default)]
    pub baseline: Vec<Window>,
    /// The verification window up to here.
    #[serde(default)]
    pub collected_until: Option<Timestamp>,
}

/// A published window of the verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// What it covers.
    pub window: Window,
    /// Its latest revision.
    pub revision: u32,
    /// Digest of its series, to see whether they changed.
    pub digest: u64,
    /// The same of each metric; empty where it was not noted: then it is about all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, u64>,
    /// How often it has been read once more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rereads: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Published {
    /// Whether it is about a metric.
    #[must_use]
    pub fn is_about(&self, metric: &str) -> bool {
        self.digests.is_empty() || self.digests.contains_key(metric)
    }
}

impl Progress {
    /// The reference windows that have been read of a metric.
    #[must_use]
    pub fn baseline_of(&self, metric: &str) -> &[Window] {
        self.ahead.get(metric).map_or(&self.baseline, |ahead| &ahead.baseline)
    }

    /// Up to where the verification window has been read of a metric.
    #[must_use]
    pub fn until_of(&self, metric: &str) -> Option<Timestamp> {
        self.ahead.get(metric).map_or(self.collected_until, |ahead| ahead.collected_until)
    }

    /// Notes that a reference window has been read of some of all metrics.
    pub fn note_baseline(&mut self, all: &[String], some: &[String], window: Window) {
        self.note(all, some, |ahead| cover(&mut ahead.baseline, window));
    }

    /// Notes that the verification window has been read up to an instant of some of all metrics.
    pub fn note_until(&mut self, all: &[String], some: &[String], until: Timestamp) {
        self.note(all, some, |ahead| ahead.collected_until = ahead.collected_until.max(Some(until)));
    }

    fn note(&mut self, all: &[String], some: &[String], read: impl Fn(&mut Ahead)) {
        let some: BTreeSet<&String> = some.iter().collect();
        let mut each: BTreeMap<String, Ahead> = BTreeMap::new();
        for metric in all {
            let (baseline, collected_until) = (self.baseline_of(metric).to_vec(), self.until_of(metric));
            let mut ahead = Ahead { baseline, collected_until };
            if some.contains(metric) {
                read(&mut ahead);
            }
            each.insert(metric.clone(), ahead);
        }
        let common = |so_far: Ahead, one: &Ahead| Ahead {
            baseline: shared(&so_far.baseline, &one.baseline),
            collected_until: so_far.collected_until.min(one.collected_until),
        };
        let Some(first) = each.values().next().cloned() else { return };
        let common = each.values().fold(first, common);
        each.retain(|_, one| *one != common);
        self.ahead = each;
        (self.baseline, self.collected_until) = (common.baseline, common.collected_until);
    }

    /// The parts of a window that some metrics have been read over, each with those of all that it lacks: others, which
    /// come later.
    #[must_use]
    pub fn pieces(
        &self,
        all: &[String],
        some: &[String],
        window: Window,
        start: Option<Timestamp>,
    ) -> Vec<(Window, Vec<String>)> {
        let has: BTreeSet<&String> = some.iter().collect();
        let others: Vec<(&String, Vec<Window>)> = all
            .iter()
            .filter(|metric| !has.contains(metric))
            .map(|metric| {
                let until =
                    start.zip(self.until_of(metric)).and_then(|(from, to)| Window::new(from, to).ok());
                let mut read = self.baseline_of(metric).to_vec();
                until.into_iter().for_each(|window| cover(&mut read, window));
                (metric, read)
            })
            .collect();
        let bounds = others.iter().flat_map(|(_, read)| read.iter().flat_map(|w| [w.start(), w.end()]));
        let mut cuts: BTreeSet<Timestamp> = bounds.filter(|t| window.contains(*t)).collect();
        cuts.extend([window.start(), window.end()]);
        let cuts: Vec<Timestamp> = cuts.into_iter().collect();
        let lacking = |piece: Window| {
            let lacks = |read: &[Window]| !uncovered(piece, read).is_empty();
            others.iter().filter(|(_, read)| lacks(read)).map(|(metric, _)| (*metric).clone()).collect()
        };
        let mut pieces: Vec<(Window, Vec<String>)> = Vec::new();
        for piece in cuts.iter().zip(cuts.iter().skip(1)).filter_map(|(a, b)| Window::new(*a, *b).ok()) {
            let lacking: Vec<String> = lacking(piece);
            match pieces.last_mut() {
                Some((before, same)) if *same == lacking => {
                    *before = Window::new(before.start(), piece.end()).unwrap_or(*before);
                }
                Some(_) | None => pieces.push((piece, lacking)),
            }
        }
        pieces
    }
}

/// Adds a window to merged, ascending ones.
pub fn cover(covered: &mut Vec<Window>, window: Window) {
    covered.push(window);
    covered.sort_unstable();
    let mut merged: Vec<Window> = Vec::with_capacity(covered.len());
    for window in covered.drain(..) {
        match merged.last_mut() {
            Some(last) if window.start() <= last.end() => {
                if let Ok(longer) = Window::new(last.start(), last.end().max(window.end())) {
                    *last = longer;
                }
            }
            Some(_) | None => merged.push(window),
        }
    }
    *covered = merged;
}

/// What is left of a window, oldest first, given merged, ascending ones.
#[must_use]
pub fn uncovered(window: Window, covered: &[Window]) -> Vec<Window> {
    let mut left = Vec::new();
    let mut from = window.start();
    for done in covered {
        if done.end() > from && done.start() < window.end() {
            left.extend(Window::new(from, done.start()));
            from = done.end();
        }
    }
    left.extend(Window::new(from, window.end()));
    left
}

/// What lies in both of two lists of merged, ascending windows.
fn shared(one: &[Window], other: &[Window]) -> Vec<Window> {
    let within = |a: &Window, b: &Window| Window::new(a.start().max(b.start()), a.end().min(b.end())).ok();
    let mut both = Vec::new();
    for window in one.iter().flat_map(|a| other.iter().filter_map(move |b| within(a, b))) {
        cover(&mut both, window);
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{at, window};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_covered_is_not_asked_again() {
        let mut covered = vec![];
        for (from, to) in [(10, 20), (0, 5), (5, 7), (18, 25)] {
            cover(&mut covered, window(from, to));
        }
        assert_eq!(covered, [window(0, 7), window(10, 25)]);
        assert_eq!(uncovered(window(-5, 30), &covered), [window(-5, 0), window(7, 10), window(25, 30)]);
        assert_eq!(uncovered(window(1, 6), &covered), []);
    }

    #[test]
    fn metrics_that_come_earlier_are_noted_until_the_others_have_followed() {
        let all = names(&["cpu", "queue"]);
        let mut progress = Progress::default();
        progress.note_baseline(&all, &all, window(-60, 0));
        progress.note_until(&all, &all[..1], at(3));
        assert_eq!(
            (progress.collected_until, progress.until_of("cpu"), progress.until_of("queue")),
            (None, Some(at(3)), None)
        );
        assert_eq!(progress.ahead.keys().collect::<Vec<_>>(), ["cpu"]);
        assert_eq!(progress.baseline_of("cpu"), [window(-60, 0)]);
        progress.note_until(&all, &all[1..], at(2));
        assert_eq!((progress.collected_until, progress.until_of("cpu")), (Some(at(2)), Some(at(3))));
        progress.note_until(&all, &all[1..], at(3));
        assert_eq!((progress.collected_until, progress.ahead.len()), (Some(at(3)), 0), "as one again");
    }

    #[test]
    fn a_window_is_cut_where_another_metric_has_been_read_so_far() {
        let all = names(&["cpu", "queue"]);
        let mut progress = Progress::default();
        let pieces = |progress: &Progress, some: usize| {
            progress.pieces(&all, &all[some..=some], window(0, 6), Some(at(0)))
        };
        assert_eq!(pieces(&progress, 0), [(window(0, 6), names(&["queue"]))]);
        progress.note_until(&all, &all[..1], at(4));
        assert_eq!(pieces(&progress, 1), [(window(0, 4), vec![]), (window(4, 6), names(&["cpu"]))]);
        assert_eq!(progress.pieces(&all, &all, window(0, 6), Some(at(0))), [(window(0, 6), vec![])]);
        let mut progress = Progress::default();
        progress.note_baseline(&all, &all[1..], window(-30, -10));
        let cut = progress.pieces(&all, &all[..1], window(-60, 0), None);
        let expected = [(-60, -30, vec!["queue"]), (-30, -10, vec![]), (-10, 0, vec!["queue"])];
        assert_eq!(cut, expected.map(|(from, to, lacking)| (window(from, to), names(&lacking))));
    }

    proptest! {
        #[test]
        fn covering_what_is_left_leaves_nothing(
            done in proptest::collection::vec((0_i64..50, 1_i64..20), 0..6), from in 0_i64..40, length in 1_i64..30
        ) {
            let mut covered = vec![];
            for (start, minutes) in done {
                cover(&mut covered, window(start, start + minutes));
            }
            let wanted = window(from, from + length);
            for piece in uncovered(wanted, &covered) {
                prop_assert!(wanted.start() <= piece.start() && piece.end() <= wanted.end());
                cover(&mut covered, piece);
            }
            prop_assert!(uncovered(wanted, &covered).is_empty());
        }

        #[test]
        fn each_metric_is_noted_as_if_it_were_alone(
            steps in proptest::collection::vec((0_usize..7, 0_i64..20, 1_i64..8), 0..12)
        ) {
            let all = names(&["a", "b", "c"]);
            let mut progress = Progress::default();
            let mut alone: BTreeMap<String, Ahead> = all.iter().map(|m| (m.clone(), Ahead::default())).collect();
            let mut lacked: Vec<Window> = vec![];
            for (mask, from, length) in steps {
                let some: Vec<String> =
                    all.iter().enumerate().filter(|(i, _)| (mask + 1) & (1 << i) != 0).map(|(_, m)| m.clone()).collect();
                let read = window(from, from + length);
                for (piece, lacking) in progress.pieces(&all, &some, read, None) {
                    if lacking.is_empty() {
                        cover(&mut lacked, piece);
                    }
                }
                progress.note_baseline(&all, &some, read);
                progress.note_until(&all, &some, at(from + length));
                for metric in &some {
                    let one = alone.get_mut(metric).unwrap();
                    cover(&mut one.baseline, read);
                    one.collected_until = one.collected_until.max(Some(at(from + length)));
                }
            }
            for metric in &all {
                prop_assert_eq!(progress.baseline_of(metric), &alone[metric].baseline[..]);
                prop_assert_eq!(progress.until_of(metric), alone[metric].collected_until);
            }
            prop_assert_eq!(&progress.baseline, &lacked, "what lacks nothing is what has been read of every metric");
        }
    }
}
