//! Ending other than at the end of the window: early, once a regression of practical size has been excluded, or later,
//! where it cannot be told. Neither is on by default, and neither goes with the calibrated look at the end.
//!
//! The question is turned round: for each unit, how surely is a lasting change of the smallest size that may fail not
//! there? Each must answer by itself (an intersection-union test, Berger 1982), so no unit has to share the error with
//! the others; the looks do (Bonferroni).

use crate::maths::ln;
use std::time::Duration;

/// Chance of excluding, at any look, a regression of just the smallest size that is there.
const ERROR: f64 = 0.05;
/// Fewest usable minutes before an early pass.
pub(crate) const LEAST_USABLE_MIN: i64 = 10;
/// Fewest samples of a unit.
const LEAST_SAMPLES: usize = 5;

/// When the judge may end, besides at the end of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// Passes as soon as a regression of practical size has been excluded.
    pub early_pass: bool,
    /// So many of the window's last minutes are an extension: from where it begins on, as `early_pass`.
    pub extension_min: i64,
}

impl Ending {
    /// What was asked of a verification.
    #[must_use]
    pub fn new(early_pass: bool, extend_by: Duration) -> Self {
        Self { early_pass, extension_min: i64::try_from(extend_by.as_secs() / 60).unwrap_or(i64::MAX) }
    }

    /// Whether looks beyond those of the window are taken.
    pub(crate) const fn is_open(self) -> bool {
        self.early_pass || self.extension_min > 0
    }

    /// Whether a pass is looked for `minutes` into a window of `total` minutes with the extension.
    pub(crate) const fn looks_at(self, minutes: i64, total: i64) -> bool {
        self.early_pass || (self.extension_min > 0 && minutes >= total.saturating_sub(self.extension_min))
    }
}

/// Nats that each unit needs, with so many looks.
pub(crate) fn needed(looks: usize) -> f64 {
    ln(looks.max(1) as f64 / ERROR)
}

/// What is known of a level: samples in the bad direction, the noise of each, and what makes them worth less.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level<'a> {
    /// Residuals (ln ratio) since it has settled.
    pub(crate) residuals: &'a [f64],
    /// Noise of a sample.
    pub(crate) sigma: f64,
    /// Lag-1 autocorrelation.
    pub(crate) autocorrelation: f64,
    /// How far the expected level may be off.
    pub(crate) doubt: f64,
    /// Smallest change that may fail.
    pub(crate) least: f64,
}

/// Nats against a lasting change of the smallest size: the tail of a normal mean, d^2 / 2 var.
pub(crate) fn of_level(level: Level<'_>) -> f64 {
    let n = level.residuals.len();
    if n < LEAST_SAMPLES {
        return 0.0;
    }
    let mean = level.residuals.iter().sum::<f64>() / n as f64;
    let dependence = (1.0 + level.autocorrelation) / (1.0 - level.autocorrelation);
    let variance = level.sigma * level.sigma * dependence / n as f64 + level.doubt * level.doubt;
    let distance = (level.least - mean).max(0.0);
    distance * distance / (2.0 * variance)
}

/// Nats against a ratio of events that may fail: the lower tail of a Poisson count (Chernoff), over its dispersion.
pub(crate) fn of_count(events: f64, least_mean: f64, dispersion: f64) -> f64 {
    if events >= least_mean || least_mean <= 0.0 {
        return 0.0;
    }
    let excess = if events > 0.0 { events * ln(events / least_mean) } else { 0.0 };
    (least_mean - events + excess).max(0.0) / dispersion
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Level<'_> =
        Level { residuals: &[], sigma: 0.05, autocorrelation: 0.3, doubt: 0.01, least: 0.065 };

    fn of(residuals: &[f64]) -> f64 {
        of_level(Level { residuals, ..QUIET })
    }

    #[test]
    fn more_samples_exclude_more_and_a_change_excludes_nothing() {
        assert_eq!(of(&[0.0; 4]), 0.0, "too few");
        assert!(of(&[0.0; 30]) > of(&[0.0; 10]));
        assert!(of(&[0.0; 30]) > needed(30));
        assert!(of(&[0.04; 30]) < needed(30));
        assert_eq!(of(&[0.2; 30]), 0.0);
    }

    #[test]
    fn a_level_that_is_not_known_excludes_nothing() {
        let doubtful = Level { residuals: &[0.0; 30], doubt: 0.1, ..QUIET };
        assert!(of_level(doubtful) < 1.0);
    }

    #[test]
    fn counts_exclude_a_ratio_once_enough_of_its_events_are_missing() {
        assert_eq!(of_count(12.0, 10.0, 1.3), 0.0);
        assert!(of_count(0.0, 2.0, 1.3) < needed(30));
        assert!(of_count(3.0, 30.0, 1.3) > needed(30));
        assert!(of_count(3.0, 30.0, 1.3) > of_count(3.0, 30.0, 5.0));
    }

    #[test]
    fn a_pass_is_looked_for_all_along_or_in_the_extension_alone() {
        let early = Ending { early_pass: true, extension_min: 0 };
        let later = Ending::new(false, Duration::from_secs(600));
        assert!(early.looks_at(10, 30) && !later.looks_at(19, 30) && later.looks_at(20, 30));
        assert!(!Ending::default().is_open() && !Ending::default().looks_at(30, 30));
    }
}
