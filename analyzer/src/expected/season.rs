//! What comes back at the same clock time: a nightly job, a backup, the opening of the shops. Learnt from the earlier
//! windows of the case, each against the time right before its own copy of the deployment.

use super::past::{LoadModel, Scaled};
use crate::robust;

const DAY_MIN: i64 = 1440;
/// Minutes before the same clock time that say what was usual in that window, at most.
const LEAD_MIN: i64 = 60;
/// Fewest samples of them.
const LEAST_LEAD: usize = 10;
/// Samples on either side that a lift is smoothed over.
const REACH: usize = 2;
/// A lift of fewer standard errors, over all windows, may be noise, and is not expected.
const SURE: f64 = 2.5;
/// A median's standard error is so much larger than a mean's, for normal values: the root of pi / 2.
const OF_MEDIAN: f64 = 1.2533;
/// Fewest earlier windows that must agree.
const LEAST_WINDOWS: usize = 2;

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Lift {
    /// ln ratio.
    pub(super) size: f64,
    /// Its standard error; 0 where nothing is expected.
    pub(super) error: f64,
}

/// Where the earlier windows lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Earlier<'a> {
    /// Their starts, in steps from the verification.
    pub(super) starts: &'a [i64],
    pub(super) step_min: i64,
}

/// By how much each step of the verification is expected to differ from the time before, since it did so on the days
/// before, and how unsure that is: the median of the windows where all
/// go the same way; ln, 0 where they do not. Empty where nothing is
/// expected.
pub(super) fn season(
    metric: &Scaled,
    load: Option<&LoadModel>,
    earlier: Earlier<'_>,
    steps: usize,
) -> Vec<Lift> {
    if metric.earlier.len() < LEAST_WINDOWS {
        return Vec::new();
    }
    let windows = metric.earlier.iter().enumerate().zip(earlier.starts);
    let lifts: Vec<Vec<Lift>> = windows
        .filter_map(|((i, values), start)| {
            let shift = |at: usize| load.map_or(0.0, |load| load.earlier_shift(i, at));
            let adjusted: Vec<f64> = values.iter().enumerate().map(|(at, value)| value - shift(at)).collect();
            lift(&adjusted, *start, earlier.step_min, steps)
        })
        .collect();
    if lifts.len() < LEAST_WINDOWS {
        return Vec::new();
    }
    (0..steps).map(|t| agreed(lifts.iter().filter_map(|lift| lift.get(t)).copied())).collect()
}

/// What a window did at the clock time of each step, beyond what it did before.
fn lift(adjusted: &[f64], start: i64, step_min: i64, steps: usize) -> Option<Vec<Lift>> {
    // The copy of the deployment lies whole days earlier, within the window.
    let days = (-start * step_min).div_euclid(DAY_MIN);
    let copy =
        usize::try_from(-days * DAY_MIN / step_min - start).ok().filter(|copy| *copy < adjusted.len())?;
    let lead = usize::try_from(LEAD_MIN / step_min.max(1)).unwrap_or(0).min(copy);
    let before = robust::finite(&adjusted[copy - lead..copy]);
    if days < 1 || before.len() < LEAST_LEAD {
        return None;
    }
    let usual = robust::summary(&before)?;
    let phi = usual.autocorrelation.clamp(0.0, 0.9);
    let of = |n: usize| OF_MEDIAN * usual.sigma * ((1.0 + phi) / (1.0 - phi) / n as f64).sqrt();
    let at = |t: usize| {
        let from = (copy + t).saturating_sub(REACH).max(copy);
        let near = adjusted.get(from..(copy + t + REACH + 1).min(adjusted.len()))?;
        let near = robust::finite(near);
        let error = (of(near.len()).powi(2) + of(before.len()).powi(2)).sqrt();
        Some(Lift { size: robust::median(&near)? - usual.median, error })
    };
    Some((0..steps).map(|t| at(t).unwrap_or_default()).collect())
}

/// The median lift, where all windows have one in the same direction and it is no noise.
fn agreed(lifts: impl Iterator<Item = Lift>) -> Lift {
    let lifts: Vec<Lift> = lifts.collect();
    let is_one = lifts.iter().all(|lift| lift.size > 0.0) || lifts.iter().all(|lift| lift.size < 0.0);
    if !is_one {
        return Lift::default();
    }
    let sizes: Vec<f64> = lifts.iter().map(|lift| lift.size).collect();
    let errors: Vec<f64> = lifts.iter().map(|lift| lift.error).collect();
    let (Some(size), Some(error)) = (robust::median(&sizes), robust::mean(&errors)) else {
        return Lift::default();
    };
    let error = error / (lifts.len() as f64).sqrt();
    if size.abs() > SURE * error { Lift { size, error } } else { Lift::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour before and half an hour after, a lift in minutes 10 to 20.
    fn window(lift: f64) -> Vec<f64> {
        let wobble = |i: usize| [0.0, 0.02, -0.01, 0.01, -0.02][i % 5];
        (0..90).map(|i| 4.0 + wobble(i) + if (70..80).contains(&i) { lift } else { 0.0 }).collect()
    }

    #[test]
    fn a_lift_is_placed_at_its_clock_time() {
        let found = lift(&window(0.5), -1440 - 60, 1, 30).unwrap();
        assert!(found[14].size > 0.4 && found[14].size <= 0.52 && found[14].error > 0.0, "{found:?}");
        assert!(found[..7].iter().chain(&found[23..]).all(|lift| lift.size.abs() < 0.03), "{found:?}");
        assert_eq!(lift(&window(0.5), -1440 + 10, 1, 30), None, "no time before");
        assert_eq!(lift(&window(0.5), -300, 1, 30), None, "no whole day");
    }

    #[test]
    fn windows_must_agree() {
        let of = |lifts: &[f64]| agreed(lifts.iter().map(|size| Lift { size: *size, error: 0.1 })).size;
        assert_eq!(of(&[0.5, 0.3]), 0.4);
        assert_eq!(of(&[-0.5, -0.3]), -0.4);
        assert_eq!(of(&[0.5, -0.3]), 0.0);
        assert_eq!(of(&[0.5, 0.0]), 0.0);
        assert_eq!(of(&[0.1, 0.5, 0.3]), 0.3);
        assert_eq!(of(&[]), 0.0);
    }
}
