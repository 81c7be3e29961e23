//! Which slots an answer has: the resolution asked for, what is still stored, and slot ends as stamps.

use crate::error::ApiError;
use crate::time::{DAY, FIRST_MONDAY, HOUR, MINUTE, WEEK};

/// Slot lengths that an answer may have.
const LADDER: [i64; 11] = [
    MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    WEEK,
];
/// Points aimed at where no resolution is given.
pub(crate) const DEFAULT_POINTS: f64 = 120.0;
/// How far the aim may be exceeded: a day is answered with 144 points of ten minutes.
pub(crate) const POINTS_TOLERANCE: f64 = 1.2;
/// Most points of one series.
pub(crate) const POINTS_LIMIT: i64 = 10_080;

/// A resolution as asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wish {
    /// So many points; a hint.
    Points(f64),
    /// A slot length in milliseconds; a hint.
    Span(i64),
    /// One point for the whole window.
    Inf,
}

impl Default for Wish {
    fn default() -> Self {
        Self::Points(DEFAULT_POINTS)
    }
}

/// The wishes of a request: one for all, or one per expression.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Wishes {
    all: Wish,
    by_index: Vec<(usize, Wish)>,
}

impl Wishes {
    /// Parses `resolution`: `1m`, `Inf`, `240`, `0:Inf,1:10m`.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let refuse = || {
            ApiError::query(
                "resolution",
                format!("'{text}' is no resolution. Use a number of points, a span such as 5m, or Inf"),
            )
        };
        if !text.contains(':') {
            return Ok(Self { all: parse_wish(text).ok_or_else(refuse)?, by_index: Vec::new() });
        }
        let mut by_index = Vec::new();
        for part in text.split(',') {
            let (index, wish) = part.split_once(':').ok_or_else(refuse)?;
            let index = index.trim().parse().map_err(|_| refuse())?;
            by_index.push((index, parse_wish(wish).ok_or_else(refuse)?));
        }
        Ok(Self { all: Wish::default(), by_index })
    }

    /// The wish for the expression at `index`.
    pub(crate) fn at(&self, index: usize) -> Wish {
        self.by_index.iter().find(|(i, _)| *i == index).map_or(self.all, |(_, wish)| *wish)
    }
}

fn parse_wish(text: &str) -> Option<Wish> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("inf") {
        return Some(Wish::Inf);
    }
    if let Ok(points) = text.parse::<u32>() {
        return (points > 0).then_some(Wish::Points(f64::from(points)));
    }
    let unit = match text.chars().last()? {
        'm' => MINUTE,
        'h' => HOUR,
        'd' => DAY,
        'w' => WEEK,
        'M' => 30 * DAY,
        'q' => 91 * DAY,
        'y' => 365 * DAY,
        _ => return None,
    };
    let number: i64 = text[..text.len() - 1].parse().ok().filter(|n| *n > 0)?;
    Some(Wish::Span(number.checked_mul(unit)?))
}

/// Length of the slots that are still stored for data of this age.
pub(crate) fn stored_resolution(age_ms: i64) -> i64 {
    match age_ms {
        _ if age_ms <= 14 * DAY => MINUTE,
        _ if age_ms <= 28 * DAY => 5 * MINUTE,
        _ if age_ms <= 400 * DAY => HOUR,
        _ => DAY,
    }
}

/// One slot, `[start, end)`, in epoch milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Where it begins.
    pub(crate) start: i64,
    /// Where it ends.
    pub(crate) end: i64,
}

/// The slots of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Slot length; `None` for `Inf`.
    pub(crate) step: Option<i64>,
    /// Length of the stored slots that are read.
    pub(crate) stored: i64,
    /// The slots in order.
    pub(crate) slots: Vec<Slot>,
    /// End of the window asked for, which stamps an `Inf` point.
    pub(crate) to: i64,
}

impl Grid {
    /// Lays the grid for `[from, to]` as seen at `now`, over series whose native slots are `native` long.
    ///
    /// A slot into which `from` or `to` falls is included whole.
    pub(crate) fn lay(wish: Wish, (from, to): (i64, i64), now: i64, native: i64) -> Self {
        let stored = stored_resolution(now - from).max(native);
        let window = to - from;
        let step = match wish {
            Wish::Inf => {
                let slot = Slot { start: floor(from, stored), end: ceil(to, stored) };
                return Self { step: None, stored, slots: vec![slot], to };
            }
            Wish::Span(span) => ladder_at_least(span),
            Wish::Points(points) => step_for_points(window, points * POINTS_TOLERANCE),
        };
        let fits = ladder_where(|step| window / step <= POINTS_LIMIT);
        let step = step.max(stored).max(fits);
        let mut slots = Vec::new();
        let mut start = floor(from, step);
        while start < to {
            slots.push(Slot { start, end: start + step });
            start += step;
        }
        Self { step: Some(step), stored, slots, to }
    }

    /// The stamps: slot ends, or the end of the window for `Inf`.
    pub(crate) fn stamps(&self) -> Vec<i64> {
        match self.step {
            None => vec![self.to],
            Some(_) => self.slots.iter().map(|slot| slot.end).collect(),
        }
    }

    /// The resolution as answered: `1m`, `10m`, `1h`, `1d`, `1w`, `Inf`.
    pub(crate) fn label(&self) -> String {
        match self.step {
            None => "Inf".into(),
            Some(step) if step % WEEK == 0 => format!("{}w", step / WEEK),
            Some(step) if step % DAY == 0 => format!("{}d", step / DAY),
            Some(step) if step % HOUR == 0 => format!("{}h", step / HOUR),
            Some(step) => format!("{}m", step / MINUTE),
        }
    }

    /// Stored points read per series, for `dataPointCountRatio`: whole UTC days are kept folded.
    pub(crate) fn points_read(&self) -> i64 {
        let (Some(first), Some(last)) = (self.slots.first(), self.slots.last()) else { return 0 };
        let window = last.end - first.start;
        let whole_days = self.step.is_none() && first.start % DAY == 0 && window % DAY == 0;
        window / if whole_days { DAY } else { self.stored }
    }
}

/// The shortest slots of which so many fill a window at most.
pub(crate) fn step_for_points(window: i64, points: f64) -> i64 {
    #[allow(clippy::cast_precision_loss, reason = "a window of milliseconds fits a double")]
    ladder_where(|step| window as f64 / step as f64 <= points)
}

fn ladder_at_least(span: i64) -> i64 {
    ladder_where(|step| step >= span)
}

fn ladder_where(fits: impl Fn(i64) -> bool) -> i64 {
    LADDER.into_iter().find(|step| fits(*step)).unwrap_or(WEEK)
}

/// The start of the slot of length `step` that holds `at`.
pub(crate) fn floor(at: i64, step: i64) -> i64 {
    let origin = if step % WEEK == 0 { FIRST_MONDAY } else { 0 };
    at - (at - origin).rem_euclid(step)
}

/// The end of the slot of length `step` that holds `at`; `at` itself where one ends.
pub(crate) fn ceil(at: i64, step: i64) -> i64 {
    let start = floor(at, step);
    if start == at { at } else { start + step }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_START: i64 = 1_664_323_200_000;

    fn grid(resolution: &str, window: (i64, i64), now: i64) -> Grid {
        Grid::lay(Wishes::parse(resolution).unwrap().at(0), window, now, MINUTE)
    }

    /// (resolution, window, now) to (label, points, first stamp, last stamp, points read)
    #[test]
    fn recorded_grids() {
        let day = (DAY_START, DAY_START + DAY);
        let afternoon = DAY_START + 16 * HOUR + 20 * MINUTE + 30_000;
        for (resolution, window, now, label, n, first, last, read) in [
            ("120", day, day.1 + 20 * DAY, "10m", 144, day.0 + 10 * MINUTE, day.1, 288),
            ("120", day, day.1 + 60 * DAY, "1h", 24, day.0 + HOUR, day.1, 24),
            ("30m", day, day.1 + 20 * DAY, "30m", 48, day.0 + 30 * MINUTE, day.1, 288),
            ("10m", day, day.1 + 60 * DAY, "1h", 24, day.0 + HOUR, day.1, 24),
            ("Inf", day, day.1 + 20 * DAY, "Inf", 1, day.1, day.1, 1),
            ("iNF", day, day.1 + 20 * DAY, "Inf", 1, day.1, day.1, 1),
            ("1m", (day.1 - MINUTE, day.1), day.1 + 300 * DAY, "1h", 1, day.1, day.1, 1),
            ("1m", (day.0, day.0 + 2 * HOUR), day.1, "1m", 120, day.0 + MINUTE, day.0 + 2 * HOUR, 120),
            (
                "1h",
                (afternoon - 2 * HOUR, afternoon),
                afternoon,
                "1h",
                3,
                DAY_START + 15 * HOUR,
                DAY_START + 17 * HOUR,
                180,
            ),
        ] {
            let grid = grid(resolution, window, now);
            let stamps = grid.stamps();
            let got = (grid.label(), stamps.len(), stamps[0], *stamps.last().unwrap(), grid.points_read());
            assert_eq!(got, (label.to_owned(), n, first, last, read), "{resolution} {window:?}");
        }
    }

    #[test]
    fn a_coarser_native_interval_is_the_truth() {
        let grid = Grid::lay(Wish::Span(MINUTE), (DAY_START, DAY_START + HOUR), DAY_START + HOUR, 5 * MINUTE);
        assert_eq!((grid.label(), grid.slots.len()), ("5m".to_owned(), 12));
    }

    #[test]
    fn wishes_by_expression_and_refusals() {
        let wishes = Wishes::parse("0:Inf,1:10m").unwrap();
        assert_eq!(wishes.at(0), Wish::Inf);
        assert_eq!(wishes.at(1), Wish::Span(10 * MINUTE));
        assert_eq!(wishes.at(2), Wish::default());
        for text in ["", "m", "0m", "0", "-5m", "5s", "1:", "x:1m", "1µ"] {
            let error = Wishes::parse(text).unwrap_err();
            assert_eq!(error.violations[0].path, "resolution", "{text}");
        }
    }

    proptest! {
        #[test]
        fn slots_tile_the_window(
            from in 1_600_000_000_000_i64..1_700_000_000_000, window in 1_i64..40 * DAY, age in 0_i64..500 * DAY,
            wish in prop_oneof![
                (1_u32..2000).prop_map(|n| Wish::Points(f64::from(n))),
                (1_i64..3000).prop_map(|n| Wish::Span(n * MINUTE)),
            ],
        ) {
            let (to, now) = (from + window, from + window + age);
            let grid = Grid::lay(wish, (from, to), now, MINUTE);
            let step = grid.step.unwrap();
            prop_assert!(step >= stored_resolution(now - from), "never finer than what is stored");
            prop_assert!(grid.slots.len() as i64 <= POINTS_LIMIT + 2);
            prop_assert!(grid.slots[0].start <= from && from < grid.slots[0].end);
            let last = grid.slots.last().unwrap();
            prop_assert!(last.start < to && to <= last.end);
            for pair in grid.slots.windows(2) {
                prop_assert_eq!(pair[0].end, pair[1].start);
            }
            for (slot, stamp) in grid.slots.iter().zip(grid.stamps()) {
                prop_assert_eq!(floor(slot.start, step), slot.start, "aligned");
                prop_assert_eq!(slot.end - slot.start, step);
                prop_assert_eq!(stamp, slot.end, "stamped at its end");
            }
        }
    }
}
