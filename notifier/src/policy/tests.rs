//! The policy, rule by rule.

use super::*;
use crate::fixtures::{at, verdict, verdict_of};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::Name;

fn settings(mode: Mode) -> PolicySettings {
    PolicySettings {
        modes: BTreeMap::from([(Name::new("prod").unwrap(), mode)]),
        rollback_action: "undo".to_owned(),
        alert_actions: vec!["chat".to_owned(), "page".to_owned()],
        ..PolicySettings::default()
    }
}

fn facts(second: u64) -> Facts {
    Facts {
        now: at(second),
        newest_deployment_id: Some(verdict().deployment_id),
        rollbacks_exhausted: None,
        pages_exhausted: None,
    }
}

fn rules(decisions: &[Decision]) -> Vec<(&'static str, Step)> {
    decisions.iter().map(|d| (d.rule.as_str(), d.step)).collect()
}

const SKIP: Step = Step::Skip { dry_run: false };

#[test]
fn a_strong_fail_rolls_back_where_it_may_and_is_always_told() {
    for (mode, rule, step) in [
        (Mode::Act, "fail-rolls-back", Step::Act),
        (Mode::DryRun, "dry-run", Step::Skip { dry_run: true }),
        (Mode::Off, "rollback-off", SKIP),
    ] {
        let decisions = decide(&verdict(), &facts(0), &settings(mode));
        assert_eq!(rules(&decisions), [(rule, step), ("fail-alerts", Step::Act), ("fail-alerts", Step::Act)]);
        assert_eq!(decisions[0].key, "01KBHV0000ABCDEFGHJKMNPQRS/rollback");
        assert_eq!(decisions[1].key, "01KBHV0000ABCDEFGHJKMNPQRS.1/0/alert/chat");
        assert!(decisions[1].detail.ends_with(&decisions[0].detail), "the alert says what is done about it");
    }
}

#[test]
fn an_environment_that_is_not_named_is_a_dry_run() {
    let staging = Verdict { environment: Name::new("staging").unwrap(), ..verdict() };
    assert_eq!(decide(&staging, &facts(0), &settings(Mode::Act))[0].rule, Rule::DryRun);
}

#[test]
fn a_verdict_rolls_back_for_fifteen_minutes_and_not_from_the_future() {
    let rule = |facts: &Facts| decide(&verdict(), facts, &settings(Mode::Act))[0].rule;
    assert_eq!(rule(&facts(15 * 60)), Rule::FailRollsBack);
    assert_eq!(rule(&facts(15 * 60 + 1)), Rule::VerdictExpired);
    let early = Facts { now: at(0).minus(Duration::from_secs(901)), ..facts(0) };
    assert_eq!(rule(&early), Rule::VerdictExpired, "one of the clocks is wrong");
}

#[test]
fn only_the_newest_deployment_is_rolled_back() {
    let other = Facts { newest_deployment_id: Some("newer".into()), ..facts(0) };
    let nobody_knows = Facts { newest_deployment_id: None, ..facts(0) };
    for (facts, rule) in [(other, Rule::Superseded), (nobody_knows, Rule::NewestUnknown)] {
        let decisions = decide(&verdict(), &facts, &settings(Mode::Act));
        assert_eq!((decisions[0].rule, decisions[0].step), (rule, SKIP));
        assert_eq!(decisions[1].rule, Rule::FailAlerts, "it is told all the same");
    }
}

#[test]
fn every_other_ending_has_its_rule() {
    let only = |verdict: &Verdict| {
        let decisions = decide(verdict, &facts(0), &settings(Mode::Act));
        assert!(decisions.iter().all(|d| d.purpose == Purpose::Alert), "{decisions:?}");
        decisions[0].rule
    };
    assert_eq!(only(&verdict_of(Outcome::Inconclusive)), Rule::InconclusiveAlerts);
    assert_eq!(only(&verdict_of(Outcome::Error)), Rule::ErrorAlerts);
    assert_eq!(only(&Verdict { rollback_grade: false, ..verdict() }), Rule::FailBelowRollbackGradeAlerts);
    assert_eq!(only(&Verdict { revision: 1, rollback_grade: false, ..verdict() }), Rule::RevisionAlerts);
    assert_eq!(only(&Verdict { revision: 1, ..verdict_of(Outcome::Pass) }), Rule::PassDoesNothing);
    let pass = decide(&verdict_of(Outcome::Pass), &facts(0), &settings(Mode::Act));
    assert_eq!(rules(&pass), [("pass-does-nothing", Step::Nothing)]);
}

#[test]
fn a_revision_that_brings_the_evidence_rolls_back() {
    let decisions = decide(&Verdict { revision: 1, ..verdict() }, &facts(0), &settings(Mode::Act));
    assert_eq!((decisions[0].rule, decisions[0].step), (Rule::FailRollsBack, Step::Act));
    assert_eq!(decisions[1].rule, Rule::RevisionAlerts);
}

#[test]
fn an_alert_expires_much_later_than_a_rollback() {
    let decisions = decide(&verdict(), &facts(6 * 3600 + 1), &settings(Mode::Act));
    assert_eq!(
        rules(&decisions),
        [("verdict-expired", SKIP), ("alert-expired", SKIP), ("alert-expired", SKIP)]
    );
}

#[test]
fn words_for_a_person() {
    let decisions = decide(&verdict(), &facts(0), &settings(Mode::Act));
    assert_eq!(
        decisions[1].detail,
        "checkout 2.1 in prod failed its verification: response_time on checkout is +38 % over what was expected \
         since minute 2. Rolling back checkout 2.1 in prod to 2.0 by `undo`."
    );
    let alerts = escalate(&verdict(), Rule::RollbackUnknownAlerts, "no answer", &settings(Mode::Act));
    assert_eq!(alerts[1].key, "01KBHV0000ABCDEFGHJKMNPQRS/rollback/unknown/alert/page");
    assert!(alerts[0].detail.contains("ended as unknown (no answer); nobody knows"), "{}", alerts[0].detail);
}

#[test]
fn every_rule_has_a_name_of_its_own() {
    let rules = [
        Rule::FailRollsBack,
        Rule::DryRun,
        Rule::RollbackOff,
        Rule::VerdictExpired,
        Rule::Superseded,
        Rule::NewestUnknown,
        Rule::OneRollbackPerDeployment,
        Rule::FailAlerts,
        Rule::FailBelowRollbackGradeAlerts,
        Rule::InconclusiveAlerts,
        Rule::ErrorAlerts,
        Rule::RevisionAlerts,
        Rule::RollbackBudgetSpent,
        Rule::PageBudgetSpent,
        Rule::AlertExpired,
        Rule::PassDoesNothing,
        Rule::RollbackFailedAlerts,
        Rule::RollbackUnknownAlerts,
    ];
    let names: std::collections::BTreeSet<_> = rules.iter().map(|r| r.as_str()).collect();
    assert_eq!(names.len(), rules.len());
    let documented = include_str!("../../../docs/actions.md");
    for name in names {
        assert!(documented.contains(&format!("| `{name}` |")), "docs/actions.md does not explain {name}");
    }
}

fn exhausted(account: Account) -> Option<Exhausted> {
    let allowance = "1/90d".parse().unwrap();
    Some(Exhausted { account, allowance, free_at: at(90 * 86_400) })
}

#[test]
fn a_spent_budget_of_rollbacks_is_alert_only_and_pages_whatever_is_left() {
    let facts = Facts {
        rollbacks_exhausted: exhausted(Account::Rollbacks),
        pages_exhausted: exhausted(Account::Pages),
        ..facts(0)
    };
    let decisions = decide(&verdict(), &facts, &settings(Mode::Act));
    assert_eq!(
        rules(&decisions),
        [("rollback-budget-spent", SKIP), ("fail-alerts", Step::Act), ("fail-alerts", Step::Act)]
    );
    let said = "Not rolled back, alert only: the budget of rollbacks, 1/90d, is spent and free again at 2027-02-22T10:09:00Z.";
    assert_eq!(decisions[0].detail, said);
    assert!(decisions[1].detail.ends_with(said), "{}", decisions[1].detail);
    assert!(decisions.iter().all(|d| d.budget.as_deref().is_some_and(|b| b.contains("free again at"))));
    let dry = decide(&verdict(), &facts, &settings(Mode::DryRun));
    assert_eq!((dry[0].rule, dry[1].rule), (Rule::DryRun, Rule::PageBudgetSpent));
}

#[test]
fn a_spent_budget_of_pages_makes_notices_of_fails_and_hides_none() {
    let facts = Facts { pages_exhausted: exhausted(Account::Pages), ..facts(0) };
    let weak = Verdict { rollback_grade: false, ..verdict() };
    let decisions = decide(&weak, &facts, &settings(Mode::Act));
    assert_eq!(rules(&decisions), [("page-budget-spent", Step::Act), ("page-budget-spent", Step::Act)]);
    assert!(decisions[0].detail.contains("A notice, not a page: the budget of pages, 1/90d, is spent"));
    let strong = decide(&verdict(), &facts, &settings(Mode::Act));
    assert_eq!((strong[0].step, strong[1].rule), (Step::Act, Rule::PageBudgetSpent));
    let error = decide(&verdict_of(Outcome::Error), &facts, &settings(Mode::Act));
    assert_eq!(error[0].rule, Rule::ErrorAlerts, "only a Fail is a page");
}

#[test]
fn only_what_acts_takes_a_place() {
    let taken = |verdict: &Verdict, facts: &Facts, mode: Mode| {
        let decisions = decide(verdict, facts, &settings(mode));
        (spends(verdict, &decisions, Account::Rollbacks), spends(verdict, &decisions, Account::Pages))
    };
    assert_eq!(taken(&verdict(), &facts(0), Mode::Act), (true, true));
    assert_eq!(taken(&verdict(), &facts(0), Mode::DryRun), (false, true));
    assert_eq!(taken(&verdict(), &facts(7 * 3600), Mode::Act), (false, false));
    assert_eq!(taken(&verdict_of(Outcome::Error), &facts(0), Mode::Act), (false, false));
    assert_eq!(taken(&verdict_of(Outcome::Pass), &facts(0), Mode::Act), (false, false));
}

proptest! {
    #[test]
    fn only_a_fresh_strong_fail_of_the_newest_deployment_acts(
        outcome in prop::sample::select(Outcome::ALL),
        (grade, revision, age) in (any::<bool>(), 0..3_u32, 0..2000_u64),
        newest in prop::option::of(prop::sample::select(&["01KBHV0000ABCDEFGHJKMNPQRS", "other"])),
        mode in prop::sample::select(&[Mode::Act, Mode::DryRun, Mode::Off]),
    ) {
        let verdict = Verdict { rollback_grade: grade, revision, ..verdict_of(outcome) };
        let facts = Facts { now: at(age), newest_deployment_id: newest.map(str::to_owned), ..facts(0) };
        let decisions = decide(&verdict, &facts, &settings(mode));
        prop_assert!(!decisions.is_empty());
        let acts = decisions.iter().any(|d| d.purpose == Purpose::Rollback && d.step == Step::Act);
        let may = outcome == Outcome::Fail && grade && age <= 900
            && newest == Some("01KBHV0000ABCDEFGHJKMNPQRS") && mode == Mode::Act;
        prop_assert_eq!(acts, may);
        let alerts = decisions.iter().filter(|d| d.step == Step::Act && d.purpose == Purpose::Alert).count();
        prop_assert_eq!(alerts, if outcome == Outcome::Pass { 0 } else { 2 });
    }
}
