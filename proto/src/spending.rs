//! What was spent of a tenant's budget, pure: what may still be spent, and when there is room again.
//!
//! An expense is kept free before the call that it stands for (`claim`), and becomes final, or is given back, when the
//! end of that call is known (`settle`). So two replicas cannot spend the same place. What a crash leaves behind is
//! counted for a day: no verdict is acted on later than that.

use crate::{Allowance, Invalid, Timestamp, time, v1};
use std::time::Duration;

/// How long a place is kept free for a call whose end nobody has told: the longest `max_verdict_age`.
const KEPT_FREE: Duration = Duration::from_secs(24 * 3600);

/// What a budget is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// Rollbacks carried out.
    Rollbacks,
    /// Verdicts of Fail that somebody was paged about.
    Pages,
}

impl Account {
    /// Its key in the bucket, and its word in the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rollbacks => "rollbacks",
            Self::Pages => "pages",
        }
    }
}

/// One rollback or page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expense {
    /// Of a rollback, its action's id; of a page, the verification's id.
    pub id: String,
    /// The deployment.
    pub deployment_id: String,
    /// Whose verdict it answers, and which revision of it.
    pub verdict: (String, u32),
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The version.
    pub version: String,
    /// When it was done, or kept free.
    pub at: Timestamp,
    /// It was done.
    pub done: bool,
}

impl Expense {
    fn counts(&self, allowance: Allowance, now: Timestamp) -> bool {
        self.at > now.minus(allowance.period()) && (self.done || self.at > now.minus(KEPT_FREE))
    }
}

/// All of one account that is remembered, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spending {
    expenses: Vec<Expense>,
}

/// Nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// Of what.
    pub account: Account,
    /// What is allowed.
    pub allowance: Allowance,
    /// When there is room again.
    pub free_at: Timestamp,
}

/// For a person, in the middle of a sentence.
impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (account, allowance) = (self.account.as_str(), self.allowance);
        write!(f, "the budget of {account}, {allowance}, is spent and free again at {}", self.free_at)
    }
}

impl Spending {
    /// What counts at `now`, oldest first.
    pub fn within(&self, allowance: Allowance, now: Timestamp) -> impl Iterator<Item = &Expense> {
        self.expenses.iter().filter(move |expense| expense.counts(allowance, now))
    }

    /// Whether nothing is left at `now`.
    #[must_use]
    pub fn exhausted(&self, account: Account, allowance: Allowance, now: Timestamp) -> Option<Exhausted> {
        let most = usize::try_from(allowance.count()).unwrap_or(usize::MAX);
        let counted: Vec<Timestamp> = self.within(allowance, now).map(|expense| expense.at).collect();
        let first_to_go = counted.len().checked_sub(most).and_then(|at| counted.get(at))?;
        let free_at = first_to_go.plus(allowance.period());
        Some(Exhausted { account, allowance, free_at })
    }

    /// Keeps a place free. Again is harmless: what has a place keeps it.
    ///
    /// # Errors
    /// Where nothing is left.
    pub fn claim(
        &mut self,
        (account, allowance): (Account, Allowance),
        expense: Expense,
        now: Timestamp,
    ) -> Result<(), Exhausted> {
        let mine =
            |known: &&mut Expense| known.id == expense.id && (known.done || known.counts(allowance, now));
        if let Some(mine) = self.expenses.iter_mut().find(mine) {
            if !mine.done {
                mine.verdict = expense.verdict;
            }
            return Ok(());
        }
        if let Some(exhausted) = self.exhausted(account, allowance, now) {
            return Err(exhausted);
        }
        self.expenses.retain(|known| known.counts(allowance, now));
        self.insert(expense);
        Ok(())
    }

    /// Takes in how it ended: done (or nobody knows) at `at`, or, with `None`, surely not done.
    pub fn settle(&mut self, expense: Expense, done_at: Option<Timestamp>) {
        match done_at {
            Some(at) => {
                self.expenses.retain(|known| known.id != expense.id);
                self.insert(Expense { at, done: true, ..expense });
            }
            // A place that another verdict keeps free is not this one's to give back.
            None => self
                .expenses
                .retain(|known| known.id != expense.id || known.done || known.verdict != expense.verdict),
        }
    }

    fn insert(&mut self, expense: Expense) {
        let at = self.expenses.partition_point(|known| known.at <= expense.at);
        self.expenses.insert(at, expense);
    }
}

impl From<Expense> for v1::Expense {
    fn from(e: Expense) -> Self {
        let (verification_id, verdict_revision) = e.verdict;
        Self {
            id: e.id,
            deployment_id: e.deployment_id,
            verification_id,
            verdict_revision,
            service: e.service,
            environment: e.environment,
            version: e.version,
            at: Some(e.at.into()),
            done: e.done,
        }
    }
}

impl TryFrom<v1::Expense> for Expense {
    type Error = Invalid;

    fn try_from(e: v1::Expense) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        if e.id.is_empty() {
            invalid.push("id", "is empty");
        }
        let at = invalid.check("at", time::required(e.at));
        match at {
            Some(at) if invalid.violations.is_empty() => Ok(Self {
                id: e.id,
                deployment_id: e.deployment_id,
                verdict: (e.verification_id, e.verdict_revision),
                service: e.service,
                environment: e.environment,
                version: e.version,
                at,
                done: e.done,
            }),
            _ => Err(invalid),
        }
    }
}

impl From<Spending> for v1::Spending {
    fn from(s: Spending) -> Self {
        Self { expenses: s.expenses.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<v1::Spending> for Spending {
    type Error = Invalid;

    fn try_from(s: v1::Spending) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let mut spending = Self::default();
        for (i, expense) in s.expenses.into_iter().enumerate() {
            if let Some(expense) = invalid.check(&format!("expenses[{i}]"), Expense::try_from(expense)) {
                spending.insert(expense);
            }
        }
        invalid.into_result().map(|()| spending)
    }
}

#[cfg(test)]
mod tests;
