//! Which call goes next: those of running verifications before the guard's, the guard's before history's, and none of them
//! never. Pure.

use crate::source::Purpose;
use std::collections::VecDeque;

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Calls under way.
    pub(super) busy: usize,
    /// Most calls at once.
    pub(super) most: usize,
    /// Calls of the last minute.
    pub(super) spent: usize,
    /// Most calls of a minute; `None` for any number.
    pub(super) share: Option<usize>,
}

impl Room {
    /// Whether a call may go. A part is kept free for what is more urgent, which comes in bursts at the turn of a
    /// minute; who has waited for long may take that as well.
    fn has(self, purpose: Purpose, is_overdue: bool) -> bool {
        let part = |all: usize| match purpose {
            _ if is_overdue => all,
            Purpose::Verification => all,
            Purpose::Guard => (3 * all).div_ceil(4),
            Purpose::History => all.div_ceil(2),
        };
        self.busy < part(self.most) && self.share.is_none_or(|share| self.spent < part(share))
    }
}

/// After how many calls that went before a waiting one goes first: no purpose waits for ever.
const fn patience(purpose: Purpose) -> u32 {
    match purpose {
        Purpose::Verification => u32::MAX,
        Purpose::Guard => 8,
        Purpose::History => 32,
    }
}

/// Those who wait for one purpose.
#[derive(Debug)]
struct Line<T> {
    waiting: VecDeque<T>,
    /// How many of more urgent purposes went before since one of these went.
    passed_over: u32,
}

/// Those who wait.
#[derive(Debug)]
pub(super) struct Queue<T>([Line<T>; Purpose::ALL.len()]);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self([(); Purpose::ALL.len()].map(|()| Line { waiting: VecDeque::new(), passed_over: 0 }))
    }
}

impl<T> Queue<T> {
    fn lines(&self) -> impl DoubleEndedIterator<Item = (Purpose, &Line<T>)> {
        Purpose::ALL.into_iter().zip(&self.0)
    }

    /// Puts one at the end of its line.
    pub(super) fn push(&mut self, purpose: Purpose, one: T) {
        let line = Purpose::ALL.iter().zip(&mut self.0).find(|(p, _)| **p == purpose);
        if let Some((_, line)) = line {
            if line.waiting.is_empty() {
                line.passed_over = 0;
            }
            line.waiting.push_back(one);
        }
    }

    /// Keeps those who still wait.
    pub(super) fn retain(&mut self, waits: impl Fn(&T) -> bool) {
        self.0.iter_mut().for_each(|line| line.waiting.retain(|one| waits(one)));
    }

    /// How many wait for a purpose.
    pub(super) fn len(&self, purpose: Purpose) -> usize {
        self.lines().find(|(p, _)| *p == purpose).map_or(0, |(_, line)| line.waiting.len())
    }

    /// Takes out whoever goes next, where there is room.
    pub(super) fn pop(&mut self, room: Room) -> Option<T> {
        let waits = |line: &Line<T>| !line.waiting.is_empty();
        let is_overdue = |(purpose, line): &(Purpose, &Line<T>)| {
            waits(line) && line.passed_over >= patience(*purpose) && room.has(*purpose, true)
        };
        let is_next = |(purpose, line): &(Purpose, &Line<T>)| waits(line) && room.has(*purpose, false);
        let next = self.lines().find(is_overdue).or_else(|| self.lines().find(is_next))?.0;
        let mut taken = None;
        for (purpose, line) in Purpose::ALL.into_iter().zip(&mut self.0) {
            if purpose == next {
                line.passed_over = 0;
                taken = line.waiting.pop_front();
            } else if purpose > next && !line.waiting.is_empty() {
                line.passed_over = line.passed_over.saturating_add(1);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::Purpose::*;
    use super::*;

    fn room(spent: usize) -> Room {
        Room { busy: 0, most: 8, spent, share: Some(8) }
    }

    /// A queue in which so many wait for each purpose.
    fn queue(verifications: usize, guards: usize, histories: usize) -> Queue<Purpose> {
        let mut queue = Queue::default();
        for (purpose, count) in [(History, histories), (Guard, guards), (Verification, verifications)] {
            (0..count).for_each(|_| queue.push(purpose, purpose));
        }
        queue
    }

    #[test]
    fn verifications_go_before_the_guard_and_the_guard_before_history() {
        let mut queue = queue(2, 2, 2);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(room(0))).collect();
        assert_eq!(order, [Verification, Verification, Guard, Guard, History, History]);
    }

    #[test]
    fn a_part_of_the_room_is_kept_for_what_is_more_urgent() {
        for (spent, purpose, goes) in [
            (3, History, true),
            (4, History, false),
            (5, Guard, true),
            (6, Guard, false),
            (7, Verification, true),
            (8, Verification, false),
        ] {
            let mut queue = Queue::default();
            queue.push(purpose, ());
            assert_eq!(queue.pop(room(spent)).is_some(), goes, "{purpose:?} after {spent} of 8");
            queue.push(purpose, ());
            let busy = Room { busy: spent, ..room(0) };
            assert_eq!(queue.pop(busy).is_some(), goes, "{purpose:?} beside {spent} of 8");
        }
        let mut queue = queue(0, 0, 1);
        let one = Room { busy: 0, most: 1, spent: 0, share: Some(1) };
        assert!(queue.pop(one).is_some(), "a tenant that throttles down to one call is still asked");
        let mut queue = Queue::default();
        queue.push(History, ());
        assert!(queue.pop(Room { share: None, ..room(1000) }).is_some(), "no budget, no bound");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut queue = queue(500, 20, 5);
        let order: Vec<_> = (0..200).filter_map(|_| queue.pop(room(7))).collect();
        let places = |purpose| order.iter().enumerate().filter(move |(_, p)| **p == purpose).map(|(i, _)| i);
        let guards: Vec<usize> = places(Guard).collect();
        assert_eq!(guards[0], 8, "after eight others");
        assert!(guards.windows(2).all(|two| two[1] - two[0] <= 10), "{guards:?}");
        let histories: Vec<usize> = places(History).collect();
        assert!(histories[0] <= 33 && histories.windows(2).all(|two| two[1] - two[0] <= 35), "{histories:?}");
        assert!(places(Verification).count() > 160);
        // Not even then beyond the whole.
        let mut waiting = queue_of_overdue();
        assert_eq!(waiting.pop(room(8)), None);
        assert_eq!(waiting.pop(room(7)), Some(History));
    }

    fn queue_of_overdue() -> Queue<Purpose> {
        let mut queue = queue(40, 0, 1);
        (0..32).for_each(|_| assert_eq!(queue.pop(room(0)), Some(Verification)));
        queue
    }

    #[test]
    fn who_has_gone_away_is_left_out() {
        let mut queue = queue(2, 1, 0);
        queue.retain(|one| *one != Verification);
        assert_eq!((queue.len(Verification), queue.len(Guard)), (0, 1));
        assert_eq!(queue.pop(room(0)), Some(Guard));
    }
}
