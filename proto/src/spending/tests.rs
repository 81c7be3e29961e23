//! What may be spent, and when there is room again.

use super::*;
use crate::fixtures::expense;
use proptest::prelude::*;
use std::time::Duration;

const ROLLBACKS: Account = Account::Rollbacks;

fn allowed(text: &str) -> (Account, Allowance) {
    (ROLLBACKS, text.parse().unwrap())
}

fn hour(n: i64) -> Timestamp {
    expense("x").at.plus_minutes(60 * n)
}

fn of(id: &str, at: Timestamp) -> Expense {
    Expense { id: id.into(), verdict: (format!("{id}.1"), 0), at, done: false, ..expense(id) }
}

#[test]
fn the_second_of_one_waits_for_the_period_to_pass() {
    let (mut spending, one) = (Spending::default(), allowed("1/10h"));
    assert_eq!(spending.claim(one, of("a", hour(0)), hour(0)), Ok(()));
    let refused = spending.claim(one, of("b", hour(3)), hour(3)).unwrap_err();
    assert_eq!(refused.free_at, hour(10));
    assert!(refused.to_string().starts_with("the budget of rollbacks, 1/10h, is spent and free again at "));
    assert_eq!(spending.claim(one, of("a", hour(4)), hour(4)), Ok(()), "what has a place keeps it");
    assert_eq!(spending.claim(one, of("b", hour(10)), hour(10)), Ok(()));
}

#[test]
fn what_was_not_done_is_given_back_and_what_was_done_counts_from_then() {
    let (mut spending, one) = (Spending::default(), allowed("1/10h"));
    spending.claim(one, of("a", hour(0)), hour(0)).unwrap();
    spending.settle(of("a", hour(1)), None);
    assert_eq!(spending, Spending::default());
    spending.claim(one, of("b", hour(1)), hour(1)).unwrap();
    spending.settle(of("b", hour(2)), Some(hour(2)));
    spending.settle(of("b", hour(3)), None);
    assert_eq!(spending.exhausted(one.0, one.1, hour(3)).unwrap().free_at, hour(12));
}

#[test]
fn a_place_that_another_verdict_keeps_free_stays() {
    let (mut spending, one) = (Spending::default(), allowed("1/10h"));
    spending.claim(one, of("a", hour(0)), hour(0)).unwrap();
    let later = Expense { verdict: ("a.1".into(), 1), ..of("a", hour(1)) };
    spending.claim(one, later.clone(), hour(1)).unwrap();
    spending.settle(of("a", hour(1)), None);
    assert!(spending.exhausted(one.0, one.1, hour(1)).is_some());
    spending.settle(later, None);
    assert_eq!(spending.exhausted(one.0, one.1, hour(1)), None);
}

#[test]
fn a_place_that_nobody_came_back_for_is_free_after_a_day() {
    let (mut spending, one) = (Spending::default(), allowed("1/90d"));
    spending.claim(one, of("a", hour(0)), hour(0)).unwrap();
    assert!(spending.claim(one, of("b", hour(23)), hour(23)).is_err());
    spending.claim(one, of("b", hour(24)), hour(24)).unwrap();
    spending.settle(of("a", hour(25)), Some(hour(0)));
    assert_eq!(spending.within(one.1, hour(25)).count(), 2, "what was done after all counts");
}

#[test]
fn a_budget_that_was_made_smaller_is_free_when_it_fits_again() {
    let mut spending = Spending::default();
    for n in 0..3 {
        let one = Expense { done: true, ..of(&n.to_string(), hour(n)) };
        spending.claim(allowed("3/10h"), one, hour(n)).unwrap();
    }
    let (account, one) = allowed("1/10h");
    assert_eq!(spending.exhausted(account, one, hour(3)).unwrap().free_at, hour(12));
}

proptest! {
    #[test]
    fn never_more_than_allowed_in_any_period(
        most in 1..4u32,
        asked in prop::collection::vec((0..20usize, 0..40i64, 0..3u8), 1..60),
    ) {
        let allowance: Allowance = format!("{most}/10h").parse().unwrap();
        let (mut spending, mut done, mut now) = (Spending::default(), Vec::new(), hour(0));
        for (id, minutes, end) in asked {
            now = now.plus_minutes(minutes * 10);
            let one = of(&id.to_string(), now);
            if spending.claim((ROLLBACKS, allowance), one.clone(), now).is_err() {
                prop_assert!(spending.exhausted(ROLLBACKS, allowance, now).unwrap().free_at > now);
                continue;
            }
            match end {
                0 => spending.settle(one, None),
                1 if !done.iter().any(|(known, _)| *known == id) => {
                    done.push((id, now));
                    spending.settle(one, Some(now));
                }
                _ => {}
            }
            let wire = v1::Spending::from(spending.clone());
            prop_assert_eq!(&Spending::try_from(wire).unwrap(), &spending);
        }
        for (_, at) in &done {
            let period = *at..at.plus(Duration::from_secs(36_000));
            let within = done.iter().filter(|(_, other)| period.contains(other)).count();
            prop_assert!(within <= most as usize, "{within} in {period:?}");
        }
    }
}
