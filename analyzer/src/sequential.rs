//! Evidence that may be looked at every minute: e-values, their average over all units, and the thresholds.
//!
//! exp(ln evidence) is a likelihood ratio, a non-negative martingale of mean 1 when nothing degrades, so the chance
//! that it ever exceeds 1/alpha is at most alpha (Ville 1939; Howard, Ramdas, McAuliffe, Sekhon 2021). A weighted
//! average of such e-values is one again, whatever their dependence (Vovk & Wang 2021), so a unit of weight w
//! fails at ln evidence + ln w >= ln(1/alpha). H0 is estimated from a finite baseline, so the bound holds only
//! approximately: what is reached is measured, see docs/analysis.md.

use crate::maths::ln;

/// How much evidence is asked for, in nats, after averaging over all units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// To fail before the end of the window.
    pub fail: f64,
    /// To fail at its end: no more looks follow. Calibrated on labelled cases, not a theorem.
    pub fail_at_end: f64,
    /// To act on the failure without a person; what fails at the end only does not reach it.
    pub rollback: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { fail: 4.0, fail_at_end: 1.5, rollback: 5.7 }
    }
}

impl Thresholds {
    /// For a window of so many looks. Few looks need no bound over endless ones: with alpha / n for each of n,
    /// they err together no more than a single look at the end (Bonferroni).
    #[must_use]
    pub fn for_looks(mut self, looks: usize) -> Self {
        self.fail = self.fail.min(self.fail_at_end + ln(looks.max(1) as f64));
        self
    }

    /// What has to be reached now.
    #[must_use]
    pub fn now(&self, is_end: bool) -> f64 {
        if is_end { self.fail_at_end } else { self.fail }
    }

    /// Weighted evidence as a share of what has to be reached now, 1 and above to fail.
    #[must_use]
    pub fn risk(&self, ln_evidence: f64, ln_weight: f64, is_end: bool) -> f64 {
        let reached = ln_evidence + ln_weight;
        if reached > 0.0 { reached / self.now(is_end) } else { reached / self.fail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_reached_at_the_threshold_and_earlier_at_the_end() {
        let thresholds = Thresholds { fail: 4.0, fail_at_end: 2.0, rollback: 5.0 };
        assert_eq!(thresholds.risk(6.0, -2.0, false), 1.0);
        assert_eq!(thresholds.risk(4.0, -2.0, true), 1.0);
        assert_eq!(thresholds.risk(4.0, -2.0, false), 0.5);
        assert!(thresholds.risk(1.0, -2.0, true) < 0.0);
    }

    #[test]
    fn few_looks_need_less_each_and_many_no_more_than_the_bound() {
        let thresholds = Thresholds { fail: 4.0, fail_at_end: 2.0, rollback: 5.0 };
        assert!((thresholds.for_looks(3).fail - (2.0 + ln(3.0))).abs() < 1e-12);
        assert_eq!(thresholds.for_looks(60), thresholds);
    }
}
