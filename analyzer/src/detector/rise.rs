//! Whether a unit changed at a moment that something else has named: no search over onsets, no state, a single test.

use super::Change;
use crate::maths::student_t_cdf;
use crate::robust;

/// Degrees of freedom of the tails: spread and autocorrelation are estimated, and telemetry is no normal noise.
const DEGREES: u32 = 7;
/// A median's standard error is so much larger than a mean's, for normal values: the root of pi / 2.
const OF_MEDIAN: f64 = 1.2533;
/// Fewest samples before the moment that tell where it was by then.
const LEAST_BEFORE: usize = 3;

/// A change in the bad direction since a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rise {
    /// Its size.
    pub change: Change,
    /// Chance of one as large where nothing changed.
    pub chance: f64,
}

/// What the size of a change is held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    /// Standard deviation of a sample.
    pub(super) sigma: f64,
    /// From sample to sample.
    pub(super) autocorrelation: f64,
    /// Standard error of the expected level.
    pub(super) doubt: f64,
}

/// Events out of trials.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) events: f64,
    pub(super) trials: f64,
}

impl Rise {
    /// Of a level: the median residual since the moment, over that of a while before it, where it was above the
    /// expected one already.
    pub(super) fn of_level(before: &[f64], since: &[f64], noise: Noise) -> Option<Self> {
        let (before, since) = (robust::finite(before), robust::finite(since));
        let level = robust::median(&since)?;
        let phi = noise.autocorrelation;
        let of = |samples: usize| {
            let wide = if samples > 2 { OF_MEDIAN } else { 1.0 };
            (wide * noise.sigma).powi(2) * (1.0 + phi) / (1.0 - phi) / samples as f64
        };
        let (mut size, mut variance) = (level, of(since.len()) + noise.doubt * noise.doubt);
        if let Some(was) = robust::median(&before).filter(|was| before.len() >= LEAST_BEFORE && *was > 0.0) {
            size -= was;
            variance += of(before.len());
        }
        let chance = 1.0 - student_t_cdf(size / variance.sqrt(), DEGREES);
        (size.is_finite() && chance.is_finite()).then_some(Self { change: Change::LnRatio(size), chance })
    }

    /// Of a ratio of events: the root of the count is about normal, with a variance of a quarter (Anscombe 1948) times
    /// the dispersion.
    pub(super) fn of_count(before: Tally, since: Tally, usual: f64, dispersion: f64) -> Option<Self> {
        let was = if before.trials > 0.0 { before.events / before.trials } else { 0.0 };
        let expected = usual.max(was);
        let observed = since.events / since.trials;
        let root = |count: f64| (count + 0.375).sqrt();
        let z = 2.0 * (root(since.events) - root(expected * since.trials)) / dispersion.sqrt();
        let chance = 1.0 - student_t_cdf(z, DEGREES);
        let change = Change::Share { observed, expected };
        (observed.is_finite() && chance.is_finite()).then_some(Self { change, chance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: Noise = Noise { sigma: 0.1, autocorrelation: 0.0, doubt: 0.0 };

    #[test]
    fn a_lasting_level_is_no_chance_and_noise_is() {
        let rise = Rise::of_level(&[0.0; 10], &[0.3; 10], NOISE).unwrap();
        assert!((rise.change.size() - 0.3).abs() < 1e-12 && rise.chance < 1e-3, "{rise:?}");
        let none = Rise::of_level(&[], &[0.02, -0.03, 0.04, f64::NAN], NOISE).unwrap();
        assert!(none.chance > 0.3, "{none:?}");
        assert_eq!(Rise::of_level(&[], &[f64::NAN], NOISE), None);
    }

    #[test]
    fn what_was_there_before_is_no_rise() {
        let rise = Rise::of_level(&[0.3; 10], &[0.3; 10], NOISE).unwrap();
        assert!(rise.chance >= 0.5, "{rise:?}");
        let was = Tally { events: 40.0, trials: 1000.0 };
        let rise = Rise::of_count(was, was, 0.002, 1.3).unwrap();
        assert!(rise.chance >= 0.5, "{rise:?}");
    }

    #[test]
    fn one_sample_or_an_outlier_is_weak() {
        let noise = Noise { autocorrelation: 0.5, ..NOISE };
        let one = Rise::of_level(&[], &[0.2], noise).unwrap();
        assert!(one.chance > 0.05, "{one:?}");
        let outlier = Rise::of_level(&[], &[0.0, 3.0, 0.0, 0.0], noise).unwrap();
        assert!(outlier.chance > 0.3, "{outlier:?}");
    }

    #[test]
    fn many_more_events_are_no_chance_and_a_few_are() {
        let of = |events: f64| {
            let since = Tally { events, trials: 5000.0 };
            Rise::of_count(Tally::default(), since, 0.002, 1.3).unwrap()
        };
        assert!(of(60.0).chance < 1e-3, "{:?}", of(60.0));
        assert!(of(12.0).chance > 0.2, "{:?}", of(12.0));
        assert_eq!(Rise::of_count(Tally::default(), Tally::default(), 0.002, 1.3), None);
    }
}
