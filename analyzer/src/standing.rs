//! What the tenant's budget allows, what is expected of it and what was spent, as `GetBudget` answers it. Pure.

use crate::census::Census;
use crate::levels::{deployments_a_day, levels, of_thresholds};
use crate::sequential::Thresholds;
use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::deployment::wire_duration;
use vouch_proto::spending::{Account, Spending};
use vouch_proto::{Allowance, Counted, Levels, TenantBudget, Timestamp, v1};

/// The period that is spoken of where no budget is set.
const USUAL: Duration = Duration::from_secs(90 * 24 * 3600);
const DAY_S: f64 = 86_400.0;

/// What was spent of both accounts.
#[derive(Debug, Clone, Default)]
pub struct Spent {
    /// Rollbacks.
    pub rollbacks: Spending,
    /// Pages.
    pub pages: Spending,
}

/// The answer.
#[must_use]
pub fn answer(
    budget: &TenantBudget,
    census: &Census,
    spent: &Spent,
    now: Timestamp,
) -> v1::GetBudgetResponse {
    let counted = census.counted();
    let by_default = || Levels { counted: Some(counted), ..of_thresholds(&Thresholds::default()) };
    let levels = levels(budget, census).unwrap_or_else(by_default);
    let a_day = deployments_a_day(counted);
    let of = |account: Account| match account {
        Account::Rollbacks => (budget.rollbacks, &spent.rollbacks, levels.rollback_rate),
        Account::Pages => (budget.pages, &spent.pages, levels.fail_rate),
    };
    let standing = |account: Account| {
        let (allowance, spending, rate) = of(account);
        let expected = a_day * days(allowance) * rate;
        v1::BudgetStanding { expected, ..standing(account, allowance, spending, now) }
    };
    let (rollbacks, pages) = (standing(Account::Rollbacks), standing(Account::Pages));
    v1::GetBudgetResponse {
        environments: environments(budget, census, &levels, (&rollbacks.spent, &pages.spent)),
        rollbacks: Some(rollbacks),
        pages: Some(pages),
        levels: Some(levels.into()),
        at: Some(now.into()),
    }
}

fn period(allowance: Option<Allowance>) -> Duration {
    allowance.map_or(USUAL, |allowance| allowance.period())
}

fn days(allowance: Option<Allowance>) -> f64 {
    period(allowance).as_secs_f64() / DAY_S
}

fn standing(
    account: Account,
    allowance: Option<Allowance>,
    spending: &Spending,
    now: Timestamp,
) -> v1::BudgetStanding {
    let period = Some(wire_duration(period(allowance)));
    let Some(allowance) = allowance else { return v1::BudgetStanding { period, ..Default::default() } };
    let spent: Vec<v1::Expense> =
        spending.within(allowance, now).map(|expense| expense.clone().into()).collect();
    let exhausted = spending.exhausted(account, allowance, now);
    v1::BudgetStanding {
        allowed: allowance.to_string(),
        period,
        expected: 0.0,
        left: allowance.count().saturating_sub(u32::try_from(spent.len()).unwrap_or(u32::MAX)),
        spent,
        exhausted: exhausted.is_some(),
        free_at: exhausted.map(|exhausted| exhausted.free_at.into()),
    }
}

/// Each environment that deployed or spent something.
fn environments(
    budget: &TenantBudget,
    census: &Census,
    levels: &Levels,
    (rollbacks, pages): (&[v1::Expense], &[v1::Expense]),
) -> Vec<v1::BudgetEnvironment> {
    let mut all: BTreeMap<String, v1::BudgetEnvironment> = BTreeMap::new();
    for (name, counted) in census.by_environment() {
        let environment = all.entry(name.to_string()).or_default();
        environment.deployments = counted.deployments;
        environment.services = counted.services;
        environment.expected_rollbacks = per_day(counted) * days(budget.rollbacks) * levels.rollback_rate;
        environment.expected_pages = per_day(counted) * days(budget.pages) * levels.fail_rate;
    }
    for expense in rollbacks {
        all.entry(expense.environment.clone()).or_default().rollbacks += 1;
    }
    for expense in pages {
        all.entry(expense.environment.clone()).or_default().pages += 1;
    }
    let named = |(environment, counts)| v1::BudgetEnvironment { environment, ..counts };
    all.into_iter().map(named).collect()
}

/// Deployments a day as counted, with no floor: the floor is of all environments together.
fn per_day(counted: Counted) -> f64 {
    f64::from(counted.deployments) / (counted.over.as_secs_f64() / DAY_S).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_proto::Name;
    use vouch_proto::announce::id_at;
    use vouch_proto::spending::Expense;

    fn now() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    /// Ten deployments a day, for four weeks.
    fn census() -> Census {
        let name = |s: &str| Name::new(s).unwrap();
        let verdict = |n: i64| {
            let id = id_at(now().plus_minutes(-n * 144), 0);
            let environment = if n % 4 == 0 { "staging" } else { "prod" };
            (name(environment), name("checkout"), format!("{id}.1"))
        };
        Census::take((0..281).map(verdict), now())
    }

    fn rolled_back(at: Timestamp) -> Expense {
        Expense {
            id: "d/rollback".into(),
            deployment_id: "d".into(),
            verdict: ("d.1".into(), 0),
            service: "checkout".into(),
            environment: "prod".into(),
            version: "2".into(),
            at,
            done: true,
        }
    }

    #[test]
    fn a_spent_budget_says_what_was_spent_and_when_it_is_free() {
        let budget = TenantBudget { rollbacks: "1/90d".parse().ok(), pages: "2/7d".parse().ok() };
        let mut spent = Spent::default();
        spent.rollbacks.settle(rolled_back(now()), Some(now().plus_minutes(-60)));
        let answer = answer(&budget, &census(), &spent, now());
        let rollbacks = answer.rollbacks.unwrap();
        assert!(rollbacks.exhausted && rollbacks.left == 0 && rollbacks.spent.len() == 1);
        assert_eq!(rollbacks.free_at, Some(now().plus_minutes(90 * 1440 - 60).into()));
        assert!((rollbacks.expected - 1.0).abs() < 1e-9, "what is expected is what is allowed");
        let pages = answer.pages.unwrap();
        assert!(!pages.exhausted && pages.left == 2 && pages.free_at.is_none());
        let each: Vec<_> =
            answer.environments.iter().map(|e| (&*e.environment, e.deployments, e.rollbacks)).collect();
        assert_eq!(each, [("prod", 210, 1), ("staging", 70, 0)]);
        let sum: f64 = answer.environments.iter().map(|e| e.expected_rollbacks).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn without_a_budget_it_says_what_is_expected_at_the_defaults() {
        let answer = answer(&TenantBudget::default(), &census(), &Spent::default(), now());
        let rollbacks = answer.rollbacks.unwrap();
        assert_eq!((rollbacks.allowed.as_str(), rollbacks.exhausted), ("", false));
        assert!((rollbacks.expected - 900.0 * libm::exp(-5.7)).abs() < 1e-9);
        assert_eq!(answer.levels.unwrap().counted.unwrap().deployments, 280);
    }
}
