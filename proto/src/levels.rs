//! How much evidence a verification asks for, with what that follows from, and how far the evidence went.

use crate::convert::text;
use crate::{Invalid, v1};
use std::time::Duration;

/// Rates below this are nominal: no data at hand can verify them.
const VERIFIABLE_RATE: f64 = 1e-3;

/// What an installation was seen to deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Deployments.
    pub deployments: u32,
    /// Of so many services.
    pub services: u32,
    /// In so long.
    pub over: Duration,
}

/// Thresholds in nats, the rates that go with them, and what they follow from.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    /// To fail before the end of the window.
    pub fail: f64,
    /// To fail at its end.
    pub fail_at_end: f64,
    /// To roll back.
    pub rollback: f64,
    /// e^-`fail`: the bound on false Fails a deployment.
    pub fail_rate: f64,
    /// e^-`rollback`: the bound on false rollbacks a deployment.
    pub rollback_rate: f64,
    /// What was counted; `None` where no budget is set.
    pub counted: Option<Counted>,
    /// The budget of rollbacks, as it was written.
    pub rollbacks: Option<String>,
    /// The budget of pages, as it was written.
    pub pages: Option<String>,
}

impl Levels {
    /// Whether a rate is too small to be verified.
    #[must_use]
    pub fn is_nominal(rate: f64) -> bool {
        rate < VERIFIABLE_RATE
    }
}

/// How far the evidence of a verdict went, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reached {
    /// As it is compared with `needed`: sensitivities are in it.
    pub evidence: f64,
    /// What had to be reached to fail at that minute.
    pub needed: f64,
    /// As it is compared with the level of rolling back.
    pub rollback_evidence: f64,
}

impl TryFrom<v1::Levels> for Levels {
    type Error = Invalid;

    fn try_from(l: v1::Levels) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        for (field, level) in [("fail", l.fail), ("fail_at_end", l.fail_at_end), ("rollback", l.rollback)] {
            if !(level.is_finite() && level > 0.0) {
                invalid.push(field, format!("{level} is no number above 0"));
            }
        }
        for (field, rate) in [("fail_rate", l.fail_rate), ("rollback_rate", l.rollback_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                invalid.push(field, format!("{rate} is not within 0 to 1"));
            }
        }
        invalid.into_result()?;
        Ok(Self {
            fail: l.fail,
            fail_at_end: l.fail_at_end,
            rollback: l.rollback,
            fail_rate: l.fail_rate,
            rollback_rate: l.rollback_rate,
            counted: l.counted.map(Into::into),
            rollbacks: text(l.rollbacks),
            pages: text(l.pages),
        })
    }
}

impl From<Levels> for v1::Levels {
    fn from(l: Levels) -> Self {
        Self {
            fail: l.fail,
            fail_at_end: l.fail_at_end,
            rollback: l.rollback,
            fail_rate: l.fail_rate,
            rollback_rate: l.rollback_rate,
            fail_nominal: Levels::is_nominal(l.fail_rate),
            rollback_nominal: Levels::is_nominal(l.rollback_rate),
            counted: l.counted.map(Into::into),
            rollbacks: l.rollbacks.unwrap_or_default(),
            pages: l.pages.unwrap_or_default(),
        }
    }
}

impl From<v1::Counted> for Counted {
    fn from(c: v1::Counted) -> Self {
        let seconds = c.over.map_or(0, |over| u64::try_from(over.seconds).unwrap_or(0));
        Self { deployments: c.deployments, services: c.services, over: Duration::from_secs(seconds) }
    }
}

impl From<Counted> for v1::Counted {
    fn from(c: Counted) -> Self {
        let over = crate::deployment::wire_duration(c.over);
        Self { deployments: c.deployments, services: c.services, over: Some(over) }
    }
}

impl TryFrom<v1::Reached> for Reached {
    type Error = Invalid;

    fn try_from(r: v1::Reached) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        for (field, nats) in
            [("evidence", r.evidence), ("needed", r.needed), ("rollback_evidence", r.rollback_evidence)]
        {
            if !nats.is_finite() {
                invalid.push(field, format!("{nats} is no finite number"));
            }
        }
        invalid.into_result()?;
        Ok(Self { evidence: r.evidence, needed: r.needed, rollback_evidence: r.rollback_evidence })
    }
}

impl From<Reached> for v1::Reached {
    fn from(r: Reached) -> Self {
        Self { evidence: r.evidence, needed: r.needed, rollback_evidence: r.rollback_evidence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn what_is_written_is_read_back_and_small_rates_are_nominal() {
        let levels = fixtures::levels();
        let wire = v1::Levels::from(levels.clone());
        assert!(!wire.fail_nominal && wire.rollback_nominal);
        assert_eq!(Levels::try_from(wire), Ok(levels));
    }

    #[test]
    fn what_is_no_level_is_refused() {
        let wire = v1::Levels { fail: f64::NAN, rollback_rate: 2.0, ..fixtures::levels().into() };
        let said = Levels::try_from(wire).unwrap_err().to_string();
        assert!(said.contains("fail: NaN") && said.contains("rollback_rate: 2"), "{said}");
        let endless = v1::Reached { evidence: f64::INFINITY, needed: 4.0, rollback_evidence: 1.0 };
        assert!(Reached::try_from(endless).unwrap_err().to_string().contains("evidence: inf"));
    }
}
