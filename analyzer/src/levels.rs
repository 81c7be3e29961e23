//! From the tenant's budget and the deployments that were counted to the thresholds of a verification. Pure.
//!
//! A threshold of t nats errs on at most a share e^-t of the healthy deployments (`sequential`). A budget allows so
//! many false rollbacks or pages in a period, in which so many deployments are expected; the quotient is the rate that
//! a deployment may have, and t = ln(1 / rate). The defaults are a floor: a budget asks for more evidence, never less.

use crate::census::Census;
use crate::judge::JudgeSettings;
use crate::maths::ln;
use crate::sequential::Thresholds;
use vouch_proto::{Allowance, Counted, Levels, TenantBudget};

/// Deployments a day that are expected of an installation that has not shown more yet.
const FEWEST_A_DAY: f64 = 1.0;
const DAY_S: f64 = 86_400.0;

/// The thresholds that a budget asks for.
#[must_use]
pub fn thresholds(budget: &TenantBudget, counted: Counted) -> Thresholds {
    let default = Thresholds::default();
    let asked = |allowance: Option<Allowance>| {
        allowance.map_or(0.0, |allowance| ln(deployments_a_day(counted) / allowance.per_day()))
    };
    // The look at the end keeps its distance: else it would go on failing what no look before it may fail.
    let more = (asked(budget.pages) - default.fail).max(0.0);
    Thresholds {
        fail: default.fail + more,
        fail_at_end: default.fail_at_end + more,
        // Rolling back keeps its distance from failing too.
        rollback: asked(budget.rollbacks).max(default.rollback + more),
    }
}

/// The levels of a verification that is opened now; `None` where no budget is set.
#[must_use]
pub fn levels(budget: &TenantBudget, census: &Census) -> Option<Levels> {
    if *budget == TenantBudget::default() {
        return None;
    }
    let counted = census.counted();
    Some(Levels {
        counted: Some(counted),
        rollbacks: budget.rollbacks.map(|allowance| allowance.to_string()),
        pages: budget.pages.map(|allowance| allowance.to_string()),
        ..of_thresholds(&thresholds(budget, counted))
    })
}

/// What goes with thresholds that follow from no budget.
#[must_use]
pub fn of_thresholds(thresholds: &Thresholds) -> Levels {
    Levels {
        fail: thresholds.fail,
        fail_at_end: thresholds.fail_at_end,
        rollback: thresholds.rollback,
        fail_rate: libm::exp(-thresholds.fail),
        rollback_rate: libm::exp(-thresholds.rollback),
        counted: None,
        rollbacks: None,
        pages: None,
    }
}

/// How to judge under recorded levels.
#[must_use]
pub fn judge_settings(levels: Option<&Levels>) -> JudgeSettings {
    let thresholds = levels.map(|levels| Thresholds {
        fail: levels.fail,
        fail_at_end: levels.fail_at_end,
        rollback: levels.rollback,
    });
    JudgeSettings { thresholds: thresholds.unwrap_or_default(), ..JudgeSettings::default() }
}

/// Deployments a day, from what was counted.
#[must_use]
pub fn deployments_a_day(counted: Counted) -> f64 {
    (f64::from(counted.deployments) / (counted.over.as_secs_f64() / DAY_S).max(1.0)).max(FEWEST_A_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn counted(deployments: u32, days: u64) -> Counted {
        Counted { deployments, services: 1, over: Duration::from_secs(days * 86_400) }
    }

    fn budget(rollbacks: &str, pages: &str) -> TenantBudget {
        TenantBudget { rollbacks: rollbacks.parse().ok(), pages: pages.parse().ok() }
    }

    #[test]
    fn without_a_budget_the_defaults_hold_exactly() {
        assert_eq!(thresholds(&TenantBudget::default(), counted(28_000, 28)), Thresholds::default());
        assert_eq!(levels(&TenantBudget::default(), &Census::default()), None);
        assert_eq!(judge_settings(None), JudgeSettings::default());
    }

    #[test]
    fn a_quiet_installation_keeps_the_defaults() {
        let quiet = thresholds(&budget("1/90d", "1/7d"), counted(10, 28));
        assert_eq!(quiet, Thresholds::default());
    }

    #[test]
    fn ten_deployments_a_day_ask_for_the_quotient() {
        let busy = thresholds(&budget("1/90d", "1/7d"), counted(280, 28));
        assert!((busy.rollback - ln(900.0)).abs() < 1e-12, "{busy:?}");
        assert!((busy.fail - ln(70.0)).abs() < 1e-12, "{busy:?}");
        assert!((busy.fail - busy.fail_at_end - 2.5).abs() < 1e-12, "the end keeps its distance");
    }

    #[test]
    fn a_strict_budget_of_pages_moves_rolling_back_too() {
        let strict = thresholds(&budget("", "1/90d"), counted(2800, 28));
        assert!((strict.fail - ln(9000.0)).abs() < 1e-12);
        assert!((strict.rollback - strict.fail - 1.7).abs() < 1e-9);
    }

    #[test]
    fn the_first_hour_of_an_installation_is_counted_as_a_day() {
        assert_eq!(deployments_a_day(Counted { over: Duration::from_secs(3600), ..counted(3, 0) }), 3.0);
        assert_eq!(deployments_a_day(counted(0, 1)), FEWEST_A_DAY);
    }

    #[test]
    fn recorded_levels_judge_as_their_thresholds() {
        let asked = thresholds(&budget("1/90d", "1/7d"), counted(280, 28));
        let recorded = Levels::try_from(vouch_proto::v1::Levels::from(of_thresholds(&asked))).unwrap();
        assert_eq!(judge_settings(Some(&recorded)).thresholds, asked);
    }

    proptest! {
        #[test]
        fn never_weaker_than_the_defaults_nor_for_more_deployments(
            per in (1..1000u32, 1..365u32),
            pages in (1..1000u32, 1..365u32),
            deployments in 0..1_000_000u32,
            days in 1..28u64,
        ) {
            let budget = budget(&format!("{}/{}d", per.0, per.1), &format!("{}/{}d", pages.0, pages.1));
            let default = Thresholds::default();
            let asked = thresholds(&budget, counted(deployments, days));
            prop_assert!(asked.fail >= default.fail && asked.fail_at_end >= default.fail_at_end);
            prop_assert!(asked.rollback >= default.rollback && asked.rollback > asked.fail);
            let busier = thresholds(&budget, counted(deployments * 2, days));
            prop_assert!(busier.fail >= asked.fail && busier.rollback >= asked.rollback);
            let allowed = budget.rollbacks.unwrap().per_day();
            let expected = deployments_a_day(counted(deployments, days)) * libm::exp(-asked.rollback);
            prop_assert!(expected <= allowed * (1.0 + 1e-9), "{expected} of {allowed}");
        }
    }
}
