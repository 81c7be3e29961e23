//! What a deployment did not cause: services around it that degrade alike, and problems whose root lies elsewhere.

#[path = "../benches/generator/mod.rs"]
#[allow(dead_code, reason = "the generator serves other tests besides")]
mod generator;

use generator::around::{Lift, NOTHING, WINDOW, deployment, shared_database, slow};
use vouch_analyzer::case::{Case, Neighbour, Problem};
use vouch_analyzer::judge::{JudgeSettings, Judgement, judge, judge_until};
use vouch_proto::{Outcome, Relation};

fn judged(case: &Case) -> Judgement {
    judge(case, &JudgeSettings::default())
}

fn alone(case: &Case) -> Judgement {
    judged(&Case { neighbours: Vec::new(), ..case.clone() })
}

fn is_fail(judgement: &Judgement) -> bool {
    judgement.outcome == Some(Outcome::Fail)
}

#[test]
fn none_of_thirty_deployments_fails_by_a_database_that_slows_down() {
    let mut explained = 0;
    for seed in 0..30 {
        let case = shared_database(seed);
        let judgement = judged(&case);
        assert!(!is_fail(&judgement), "{seed}: {}", judgement.reason);
        if is_fail(&alone(&case)) {
            explained += 1;
            assert_eq!(judgement.outcome, Some(Outcome::Inconclusive), "{seed}: {}", judgement.reason);
            assert!(!judgement.rollback_grade);
            let cause = judgement.common_cause.unwrap();
            assert!(!cause.witnesses.is_empty() && cause.asked >= 3, "{seed}: {cause:?}");
            assert!(judgement.reason.contains(&cause.text), "{seed}: {}", judgement.reason);
        }
    }
    assert!(explained >= 25, "only {explained} of 30 would have failed without a look around");
}

#[test]
fn nor_by_errors_that_all_share() {
    let broken = |errors| Lift { from: 6, latency: 0.0, errors };
    for seed in 0..10 {
        let others = [broken(0.02), broken(0.05), broken(0.03), NOTHING];
        let case = deployment(seed, broken(0.03), &others);
        assert!(is_fail(&alone(&case)), "{seed}");
        let judgement = judged(&case);
        assert_eq!(judgement.outcome, Some(Outcome::Inconclusive), "{seed}: {}", judgement.reason);
        assert!(judgement.reason.contains("points"), "{seed}: {}", judgement.reason);
    }
}

#[test]
fn a_regression_among_healthy_services_fails_all_the_same() {
    let mut explained = 0;
    for seed in 0..100 {
        let case = deployment(seed, slow(seed as i64 % 12, 0.15 + 0.005 * seed as f64), &[NOTHING; 8]);
        let (with, without) = (judged(&case), alone(&case));
        explained += usize::from(with.common_cause.is_some());
        if with.common_cause.is_none() {
            assert_eq!((with.outcome, with.failed_at_minute), (without.outcome, without.failed_at_minute));
        }
    }
    // The chance of each is at most 1 in 100.
    assert!(explained <= 2, "{explained} of 100 regressions were explained away");
}

#[test]
fn what_hits_the_service_much_harder_is_its_own() {
    for seed in 0..10 {
        let judgement = judged(&deployment(seed, slow(4, 1.0), &[slow(4, 0.12); 6]));
        assert!(is_fail(&judgement), "{seed}: {}", judgement.reason);
    }
}

#[test]
fn only_those_who_may_tell_are_asked() {
    type Change = fn(&mut Neighbour);
    let unfit: [Change; 4] = [
        |one| one.relation = Relation::Caller,
        |one| one.relation = Relation::Callee,
        |one| one.deployed_at = Some(-10),
        |one| one.case.series.clear(),
    ];
    let case = deployment(7, slow(5, 0.4), &[slow(5, 0.4); 4]);
    assert!(!is_fail(&judged(&case)));
    for change in unfit {
        let mut case = case.clone();
        case.neighbours.iter_mut().for_each(change);
        assert!(is_fail(&judged(&case)));
    }
    let mut case = case;
    case.neighbours.iter_mut().for_each(|one| one.deployed_at = Some(-100));
    assert!(!is_fail(&judged(&case)), "a deployment long ago is no reason to degrade now");
    case.neighbours.iter_mut().for_each(|one| one.deployed_at = Some(20));
    assert!(!is_fail(&judged(&case)), "nor is one that comes later");
}

#[test]
fn another_kind_or_another_time_is_no_common_cause() {
    let errors = Lift { from: 5, latency: 0.0, errors: 0.04 };
    for others in [errors, slow(0, 0.0), slow(18, 0.5)] {
        for seed in 0..5 {
            let judgement = judged(&deployment(seed, slow(5, 0.4), &[others; 4]));
            assert!(is_fail(&judgement), "{seed} {others:?}: {}", judgement.reason);
        }
    }
}

#[test]
fn what_was_explained_once_is_no_pass_even_where_it_is_over() {
    let hit = |case: &mut Case| {
        for series in &mut case.series {
            let recovered = series.values.len() - 12;
            if series.metric == "response_time" {
                series.values[recovered..].iter_mut().flatten().for_each(|value| *value /= 0.5_f64.exp());
            }
        }
    };
    let mut case = deployment(3, slow(2, 0.5), &[slow(2, 0.5); 4]);
    hit(&mut case);
    case.neighbours.iter_mut().for_each(|one| hit(&mut one.case));
    assert!(is_fail(&alone(&case)));
    let judgement = judged(&case);
    assert_eq!(judgement.outcome, Some(Outcome::Inconclusive), "{}", judgement.reason);
    assert!(judgement.common_cause.is_some() && judgement.risk < 1.0, "{}", judgement.reason);
    assert!(judgement.reason.contains("degrade alike"), "{}", judgement.reason);
    let said = "it degraded for a while, but 4 of 4 other services";
    assert!(judgement.reason.contains(said), "{}", judgement.reason);
}

#[test]
fn what_outlasts_its_witnesses_counts_again() {
    let mut case = deployment(3, slow(2, 0.5), &[slow(2, 0.5); 4]);
    for one in &mut case.neighbours {
        for series in one.case.series.iter_mut().filter(|series| series.metric == "response_time") {
            let recovered = series.values.len() - 18;
            series.values[recovered..].iter_mut().flatten().for_each(|value| *value /= 0.5_f64.exp());
        }
    }
    let judgement = judged(&case);
    assert!(is_fail(&judgement), "{}", judgement.reason);
    assert!(judgement.failed_at_minute > alone(&case).failed_at_minute);
    assert_eq!((judgement.risk, judgement.common_cause), (1.0, None));
}

#[test]
fn one_alone_has_trouble_of_its_own() {
    let mut case = deployment(3, slow(5, 0.4), &[slow(5, 0.4), NOTHING, NOTHING, NOTHING, NOTHING]);
    case.neighbours.iter_mut().for_each(|one| one.shares.clear());
    assert!(is_fail(&judged(&case)));
}

#[test]
fn a_service_that_stays_well_passes_whatever_the_others_do() {
    for seed in 0..5 {
        let judgement = judged(&deployment(seed, NOTHING, &[slow(5, 0.6); 4]));
        assert_eq!(judgement.outcome, Some(Outcome::Pass), "{seed}: {}", judgement.reason);
        assert_eq!(judgement.common_cause, None);
    }
}

#[test]
fn what_was_decided_does_not_look_ahead_and_no_order_matters() {
    for seed in [2, 5, 9] {
        let case = shared_database(seed);
        let whole = judged(&case);
        for minute in 1..=WINDOW {
            let cut = judge_until(&case, minute, &JudgeSettings::default());
            assert!(!is_fail(&cut), "{seed} at {minute}: {}", cut.reason);
            if minute < WINDOW {
                assert_eq!(cut.outcome, None);
            }
        }
        let mut turned = case.clone();
        turned.neighbours.reverse();
        assert_eq!(judged(&turned), whole);
    }
}

fn problem(elsewhere: bool, start: i64, end: Option<i64>, known_at: i64) -> Problem {
    let text = |text: &str| text.to_owned();
    let (id, title) = (text("P-26081"), text("Response time degradation"));
    Problem { id, title, root_cause: text("orders-db"), elsewhere, start, end, known_at }
}

#[test]
fn an_open_problem_with_its_root_elsewhere_is_a_common_cause() {
    let mut case = deployment(11, slow(6, 0.4), &[]);
    let failed = judged(&case);
    let at = failed.failed_at_minute.unwrap();
    case.problems = vec![problem(true, 5, None, at)];
    let judgement = judged(&case);
    assert_eq!(judgement.outcome, Some(Outcome::Inconclusive), "{}", judgement.reason);
    assert_eq!(judgement.common_cause.unwrap().problems, ["P-26081"]);
    assert!(
        judgement.reason.contains("P-26081") && judgement.reason.contains("orders-db"),
        "{}",
        judgement.reason
    );
    let useless = [
        problem(false, 5, None, at),
        problem(true, 5, None, at + 1),
        problem(true, -60, Some(-30), -50),
        problem(true, 25, None, 26),
        problem(true, -110, None, -100),
    ];
    for problem in useless {
        case.problems = vec![problem];
        assert_eq!(judged(&case).failed_at_minute, failed.failed_at_minute, "{:?}", case.problems);
    }
}
