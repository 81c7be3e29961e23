//! How a window is cut into slices of time, so that the answer to each is below the source's limits. Pure.

/// Slices that are stopped by what they scan are not made shorter: each try is billed.
const SHORTEST_SCAN_MS: i64 = 5_000;

/// A slice of time, epoch milliseconds, its end not included.
pub(super) type Slice = (i64, i64);

/// Walks through a window from its beginning on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slices {
    at: i64,
    end: i64,
    length: i64,
    /// No slice is longer: that was too much.
    most: i64,
}

/// What follows from an answer that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// What is before this instant is whole; the rest is asked for anew.
    Before(i64),
    /// Nothing is shorter than this slice: what came of it is all that can be had.
    Unsplittable,
}

impl Slices {
    /// Through `[start, end)` in slices of at most `length`.
    pub(super) fn new((start, end): Slice, length: i64) -> Self {
        let most = (end - start).max(1);
        Self { at: start, end, length: length.clamp(1, most), most }
    }

    /// The slice to ask for.
    pub(super) fn next(&self) -> Option<Slice> {
        (self.at < self.end).then(|| (self.at, self.at.saturating_add(self.length).min(self.end)))
    }

    /// How long slices are now.
    pub(super) const fn length(&self) -> i64 {
        self.length
    }

    /// All of a slice came. With much room left the next are longer.
    pub(super) fn whole(&mut self, slice: Slice, has_room: bool) {
        self.at = slice.1;
        if has_room {
            self.length = self.length.saturating_mul(2).min(self.most);
        }
    }

    /// The answer was cut off behind records of `last`, in the order of time: there may be more of that instant.
    pub(super) fn cut(&mut self, slice: Slice, last: i64) -> Cut {
        let last = last.clamp(slice.0, slice.1 - 1);
        if last > slice.0 {
            self.length = last - slice.0;
            self.at = last;
            return Cut::Before(last);
        }
        if slice.1 - slice.0 > 1 {
            self.length = 1;
            return Cut::Before(slice.0);
        }
        self.at = slice.1;
        self.length = SHORTEST_SCAN_MS;
        Cut::Unsplittable
    }

    /// The slice was too much altogether. Whether a shorter one is asked for; otherwise it is over with.
    pub(super) fn halve(&mut self, slice: Slice) -> bool {
        let half = (slice.1 - slice.0) / 2;
        if half < SHORTEST_SCAN_MS {
            self.at = slice.1;
            return false;
        }
        (self.length, self.most) = (half, half);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a log through an answer of at most `limit` records; answers what was read, and how many could not be.
    fn walk(log: &[i64], window: Slice, limit: usize) -> (Vec<i64>, usize, usize) {
        let mut slices = Slices::new(window, i64::MAX);
        let (mut read, mut calls, mut lost) = (Vec::new(), 0, 0);
        while let Some(slice) = slices.next() {
            calls += 1;
            assert!(calls < 10_000, "it ends");
            let all: Vec<i64> = log.iter().copied().filter(|t| (slice.0..slice.1).contains(t)).collect();
            if all.len() < limit {
                slices.whole(slice, all.len() < limit / 2);
                read.extend(all);
                continue;
            }
            let came = &all[..limit];
            match slices.cut(slice, came[limit - 1]) {
                Cut::Before(until) => read.extend(came.iter().filter(|t| **t < until)),
                Cut::Unsplittable => {
                    lost += all.len() - limit;
                    read.extend(came);
                }
            }
        }
        (read, calls, lost)
    }

    #[test]
    fn a_busy_minute_takes_little_more_than_its_pages() {
        let log: Vec<i64> = (0..35_000).map(|i| i * 60_000 / 35_000).collect();
        let (read, calls, lost) = walk(&log, (0, 60_000), 5_000);
        assert_eq!((read, lost), (log, 0));
        assert!(calls <= 10, "{calls}");
    }

    #[test]
    fn an_instant_that_holds_more_than_an_answer_cannot_be_split() {
        let mut log: Vec<i64> = vec![500; 30];
        log.extend([501, 900]);
        let (read, _, lost) = walk(&log, (0, 60_000), 20);
        assert_eq!((read.len(), lost, read.last()), (22, 10, Some(&900)));
    }

    #[test]
    fn what_is_too_much_to_scan_is_halved_as_long_as_that_helps() {
        let mut slices = Slices::new((0, 60_000), i64::MAX);
        let mut lengths = Vec::new();
        while let Some(slice) = slices.next() {
            lengths.push(slice.1 - slice.0);
            if !slices.halve(slice) {
                break;
            }
        }
        assert_eq!(lengths, [60_000, 30_000, 15_000, 7_500]);
        assert_eq!(slices.next(), Some((7_500, 15_000)), "the next is no longer");
        slices.whole((7_500, 15_000), true);
        assert_eq!(slices.next(), Some((15_000, 22_500)), "none is longer again in this window");
    }

    proptest! {
        #[test]
        fn every_line_is_read_once(
            mut log in proptest::collection::vec(0_i64..2_000, 0..400), limit in 2_usize..60, from in 0_i64..500
        ) {
            log.sort_unstable();
            let window = (from, 1_800);
            let wanted = log.iter().filter(|t| (window.0..window.1).contains(*t)).count();
            let (read, _, lost) = walk(&log, window, limit);
            prop_assert!(read.is_sorted());
            prop_assert_eq!(read.len() + lost, wanted);
        }
    }
}
