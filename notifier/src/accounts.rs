//! What the tenant's budget leaves for a verdict: a place is kept free before the call and settled once its end is known.

use crate::ledger::{Entry, State};
use crate::world::World;
use std::sync::Arc;
use vouch_proto::spending::{Account, Exhausted, Expense};
use vouch_proto::{Allowance, TenantBudget, Timestamp, Verdict};
use vouch_service::clock::SharedClock;

/// The accounts, as one worker sees them. Where no budget is set nothing is read and nothing is written.
#[derive(Debug)]
pub(crate) struct Accounts {
    pub(crate) world: Arc<dyn World>,
    pub(crate) clock: SharedClock,
    pub(crate) budget: TenantBudget,
}

impl Accounts {
    /// Keeps a place free for what is wanted about a verdict; answers where nothing is left. Again is harmless.
    pub(crate) async fn claim(
        &self,
        account: Account,
        verdict: &Verdict,
    ) -> anyhow::Result<Option<Exhausted>> {
        let Some(allowance) = self.allowance(account) else { return Ok(None) };
        let now = self.clock.now();
        let expense = expense(account, verdict, now);
        let mut exhausted = None;
        self.world
            .spend(account, &mut |spending| {
                exhausted = spending.claim((account, allowance), expense.clone(), now).err();
            })
            .await?;
        Ok(exhausted)
    }

    /// Notes how a rollback ended: one that may have been done is spent, from then on; else its place is given back.
    pub(crate) async fn settle(&self, verdict: &Verdict, entry: &Entry) -> anyhow::Result<()> {
        if self.budget.rollbacks.is_none() {
            return Ok(());
        }
        let done_at = match &entry.state {
            State::Done { at, dry_run: false, .. } | State::Unknown { at, .. } => Some(*at),
            State::Done { .. } | State::Failed { .. } | State::Skipped { .. } => None,
            // Not over: its place stays kept.
            State::Claimed { .. } | State::Acting { .. } => return Ok(()),
        };
        let expense = expense(Account::Rollbacks, verdict, self.clock.now());
        self.world.spend(Account::Rollbacks, &mut |spending| spending.settle(expense.clone(), done_at)).await
    }

    fn allowance(&self, account: Account) -> Option<Allowance> {
        match account {
            Account::Rollbacks => self.budget.rollbacks,
            Account::Pages => self.budget.pages,
        }
    }
}

/// A deployment is rolled back once, and somebody is paged once about a verification, whatever its revisions.
fn expense(account: Account, verdict: &Verdict, at: Timestamp) -> Expense {
    let id = match account {
        Account::Rollbacks => crate::policy::rollback_key(&verdict.deployment_id),
        Account::Pages => verdict.verification_id.clone(),
    };
    Expense {
        id,
        deployment_id: verdict.deployment_id.clone(),
        verdict: (verdict.verification_id.clone(), verdict.revision),
        service: verdict.service.to_string(),
        environment: verdict.environment.to_string(),
        version: verdict.version.to_string(),
        at,
        done: account == Account::Pages,
    }
}
