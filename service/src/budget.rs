//! The tenant's budget: its settings, which analyzer and notifier share, and what was spent of it, in its bucket.

use crate::bucket::{self, Change};
use crate::settings::Section;
use anyhow::Context as _;
use async_nats::jetstream::kv::Store;
use vouch_proto::spending::{Account, Spending};
use vouch_proto::subject::SPENDING_BUCKET;
use vouch_proto::{Invalid, TenantBudget, v1};

/// Reads the `budget` section; all of it may be missing.
pub fn read_budget(root: &mut Section<'_>, invalid: &mut Invalid) -> TenantBudget {
    let mut section = root.section("budget");
    let budget = TenantBudget { rollbacks: section.parsed("rollbacks"), pages: section.parsed("pages") };
    section.finish(invalid);
    budget
}

/// Reads what was spent.
///
/// # Errors
/// Where the bucket cannot be reached, or what stands there cannot be read.
pub async fn spent(store: &Store, account: Account) -> anyhow::Result<Spending> {
    match bucket::read(store, account.as_str()).await? {
        Some(bytes) => decode(account, &bytes),
        None => Ok(Spending::default()),
    }
}

/// Reads what was spent, lets `look` change it, and writes it where it did; again where somebody was faster.
///
/// # Errors
/// As for `spent`.
pub async fn spend<T>(
    store: &Store,
    account: Account,
    mut look: impl FnMut(&mut Spending) -> T,
) -> anyhow::Result<T> {
    bucket::change(store, account.as_str(), |bytes| {
        let before = bytes.map(|bytes| decode(account, bytes)).transpose()?.unwrap_or_default();
        let mut spending = before.clone();
        let answer = look(&mut spending);
        if spending == before {
            return Ok(Change::Keep(answer));
        }
        Ok(Change::Write(serde_json::to_vec(&v1::Spending::from(spending))?, answer))
    })
    .await
}

/// What cannot be read keeps everybody from spending: more may have been spent than is known.
fn decode(account: Account, bytes: &[u8]) -> anyhow::Result<Spending> {
    let key = account.as_str();
    let what = || format!("key {key} of bucket {} is no spending", SPENDING_BUCKET.name);
    let wire: v1::Spending = serde_json::from_slice(bytes).with_context(what)?;
    Spending::try_from(wire).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Document;

    fn read(yaml: &str) -> (TenantBudget, String) {
        let document = Document::parse(yaml).unwrap();
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let budget = read_budget(&mut root, &mut invalid);
        root.finish(&mut invalid);
        (budget, invalid.to_string())
    }

    #[test]
    fn none_set_is_none() {
        assert_eq!(read(""), (TenantBudget::default(), String::new()));
    }

    #[test]
    fn each_is_read_by_itself() {
        let (budget, said) = read("budget: {rollbacks: 1/90d, pages: 2/1w}");
        assert_eq!(said, "");
        assert_eq!(budget.rollbacks.unwrap().to_string(), "1/90d");
        assert_eq!(budget.pages.unwrap().to_string(), "2/7d");
        assert_eq!(read("budget: {pages: 1/7d}").0.rollbacks, None);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let (_, said) = read("budget: {rollbacks: 0/90d, pages: weekly, alerts: 1/7d}");
        for part in [
            "budget.rollbacks: `0/90d` allows 0, which is not within 1 to 1000",
            "budget.pages: `weekly` is no count in a period; write e.g. 1/90d",
            "budget.alerts: is no setting here, expected one of pages, rollbacks",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_no_empty_list() {
        assert!(decode(Account::Rollbacks, b"{\"expenses\":[{}]}").is_err());
        assert!(decode(Account::Rollbacks, b"oops").unwrap_err().to_string().contains("key rollbacks"));
    }
}
