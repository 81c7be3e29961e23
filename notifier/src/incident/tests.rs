//! Incidents: told once, told again where they change in kind, folded, resolved; and the same however often seen.

use super::*;
use crate::fixtures::{at, verdict, verdict_of};

const ALL: Tells = Tells { updates: true, resolved: true };

fn channels() -> Channels {
    let quiet = Tells { updates: false, resolved: false };
    let tells = [("chat", ALL), ("mail", quiet)].map(|(name, tells)| (name.to_owned(), tells));
    Channels { tells: BTreeMap::from(tells), reports: vec!["dt".to_owned()] }
}

fn of(deployment: &str, n: u32, second: u64, outcome: Outcome) -> Verdict {
    Verdict {
        deployment_id: deployment.into(),
        verification_id: format!("{deployment}.{n}"),
        decided_at: at(second),
        ..verdict_of(outcome)
    }
}

/// What the policy wants told by both channels.
fn alerts(verdict: &Verdict) -> Vec<Decision> {
    let key = |action| format!("{}/{}/alert/{action}", verdict.verification_id, verdict.revision);
    ["chat", "mail"].map(|action| act(Rule::FailAlerts, action, key(action), "bad")).to_vec()
}

fn see(incidents: &mut Incidents, verdict: &Verdict) -> (Vec<String>, usize) {
    let wanted = if verdict.outcome == Outcome::Pass { Vec::new() } else { alerts(verdict) };
    let (told, folded) = incidents.on_verdict(verdict, wanted, "Rolling back.", &channels());
    assert!(folded.iter().all(|d| d.rule == Rule::AlertFolded && d.step == Step::Skip { dry_run: false }));
    (short(&told), folded.len())
}

fn short(told: &[Told]) -> Vec<String> {
    let one = |told: &Told| {
        format!("{} {} after {:?}", told.about.stage.unwrap().as_str(), told.decision.key, told.before.len())
    };
    told.iter().map(one).collect()
}

fn end(incidents: &mut Incidents, verdict: &Verdict, end: RollbackEnd, worked: bool) -> Vec<String> {
    let wanted = if end == RollbackEnd::Done { Vec::new() } else { alerts(verdict) };
    short(&incidents.on_rollback(verdict, (end, worked, "it ended"), wanted, &channels()))
}

#[test]
fn an_incident_is_told_once_and_the_same_verdict_leads_to_the_same_words() {
    let mut incidents = Incidents::default();
    let bad = of("d1", 1, 0, Outcome::Fail);
    let first = see(&mut incidents, &bad);
    assert_eq!(
        first.0,
        [
            "opens d1.1/0/alert/chat after 0",
            "opens d1.1/0/alert/mail after 0",
            "reports d1.1/0/report/dt after 0"
        ]
    );
    assert_eq!(see(&mut incidents, &bad), first, "seen again");
    // Another verification of the same deployment, and a revision that only confirms.
    for again in [of("d1", 2, 60, Outcome::Fail), Verdict { revision: 1, ..bad.clone() }] {
        let (told, folded) = see(&mut incidents, &again);
        assert_eq!((told.len(), folded), (1, 2), "only the report: {told:?}");
    }
    assert_eq!(see(&mut incidents, &bad), first, "and seen once more");
}

#[test]
fn what_changes_in_kind_is_told_again() {
    let mut incidents = Incidents::default();
    let mut told = Vec::new();
    for (n, verdict) in [
        of("d1", 1, 0, Outcome::Inconclusive),
        Verdict { rollback_grade: false, ..of("d1", 2, 60, Outcome::Fail) },
        of("d1", 3, 120, Outcome::Fail),
        of("d1", 4, 180, Outcome::Error),
    ]
    .into_iter()
    .enumerate()
    {
        let (words, folded) = see(&mut incidents, &verdict);
        assert_eq!((words.len(), folded), (3, 0), "{n}");
        told.push(words[0].clone());
    }
    assert_eq!(
        told,
        [
            "opens d1.1/0/alert/chat after 0",
            "updates d1.2/0/alert/chat after 1",
            "updates d1.3/0/alert/chat after 2",
            "updates d1.4/0/alert/chat after 3"
        ]
    );
}

#[test]
fn a_later_healthy_verdict_resolves_what_was_told_to_whom_it_matters() {
    let mut incidents = Incidents::default();
    see(&mut incidents, &of("d1", 1, 0, Outcome::Fail));
    see(&mut incidents, &of("d2", 1, 600, Outcome::Inconclusive));
    let healthy = of("d3", 1, 1200, Outcome::Pass);
    let (told, _) = see(&mut incidents, &healthy);
    assert_eq!(
        told,
        [
            "resolves d1/resolved/d3.1.0/alert/chat after 1",
            "resolves d2/resolved/d3.1.0/alert/chat after 1",
            "reports d3.1/0/report/dt after 0"
        ]
    );
    assert_eq!(see(&mut incidents, &healthy).0, told, "seen again");
    assert_eq!(see(&mut incidents, &of("d4", 1, 1800, Outcome::Pass)).0.len(), 1, "nothing is open any more");
}

#[test]
fn what_is_older_resolves_nothing() {
    let mut incidents = Incidents::default();
    see(&mut incidents, &of("d2", 1, 600, Outcome::Fail));
    for older in [of("d1", 1, 900, Outcome::Pass), of("d3", 1, 500, Outcome::Pass)] {
        let (told, _) = see(&mut incidents, &older);
        assert_eq!(told.len(), 1, "{told:?}");
    }
    let (told, _) = see(&mut incidents, &of("d2", 2, 900, Outcome::Pass));
    assert_eq!(told.len(), 2, "the same deployment, verified again");
}

#[test]
fn it_is_worse_again_after_it_was_healthy() {
    let mut incidents = Incidents::default();
    see(&mut incidents, &of("d1", 1, 0, Outcome::Fail));
    see(&mut incidents, &Verdict { revision: 1, ..of("d1", 1, 60, Outcome::Pass) });
    let (told, folded) = see(&mut incidents, &Verdict { revision: 2, ..of("d1", 1, 120, Outcome::Fail) });
    assert_eq!((told[0].as_str(), folded), ("opens d1.1/2/alert/chat after 2", 0));
    // What was told before stays what it was.
    let (told, _) = see(&mut incidents, &Verdict { revision: 1, ..of("d1", 1, 60, Outcome::Pass) });
    assert_eq!(told[0], "resolves d1/resolved/d1.1.1/alert/chat after 1");
    let (told, _) = see(&mut incidents, &of("d2", 1, 900, Outcome::Pass));
    assert_eq!(told[0], "resolves d1/resolved/d2.1.0/alert/chat after 3", "it was open again");
}

#[test]
fn a_rollback_that_was_done_is_told_and_one_that_worked_resolves() {
    for worked in [false, true] {
        let mut incidents = Incidents::default();
        let bad = of("d1", 1, 0, Outcome::Fail);
        see(&mut incidents, &bad);
        let told = end(&mut incidents, &bad, RollbackEnd::Done, worked);
        let expected = if worked {
            "resolves d1/resolved/rollback/alert/chat after 1"
        } else {
            "updates d1/rollback/done/alert/chat after 1"
        };
        assert_eq!(told, ["reports d1/rollback/done/report/dt after 0", expected]);
        assert_eq!(end(&mut incidents, &bad, RollbackEnd::Done, worked), told, "seen again");
        // What was rolled back and is over is not told again by a late revision of its verdict.
        let (told, folded) = see(&mut incidents, &Verdict { revision: 1, ..bad.clone() });
        assert_eq!((told.len(), folded), (1, 2), "{told:?}");
        let (told, _) = see(&mut incidents, &of("d2", 1, 900, Outcome::Pass));
        assert_eq!(told.len(), if worked { 1 } else { 2 }, "{told:?}");
    }
}

#[test]
fn a_rollback_that_failed_is_always_told() {
    for bad_end in [RollbackEnd::Failed, RollbackEnd::Unknown] {
        let mut incidents = Incidents::default();
        let bad = of("d1", 1, 0, Outcome::Fail);
        let told = end(&mut incidents, &bad, bad_end, false);
        assert!(told[1].starts_with("opens"), "nothing was told before: {told:?}");
        assert_eq!(end(&mut incidents, &bad, bad_end, false), told, "seen again");
        let mut incidents = Incidents::default();
        see(&mut incidents, &bad);
        let told = end(&mut incidents, &bad, bad_end, false);
        assert!(told[1].starts_with("updates") && told.len() == 3, "{told:?}");
        // It opens again what was closed meanwhile.
        let mut incidents = Incidents::default();
        see(&mut incidents, &bad);
        see(&mut incidents, &of("d1", 2, 60, Outcome::Pass));
        let told = end(&mut incidents, &bad, bad_end, false);
        assert!(told[1].starts_with("opens") && told[1].ends_with("after 2"), "{told:?}");
        assert_eq!(see(&mut incidents, &of("d2", 1, 900, Outcome::Pass)).0.len(), 2);
    }
}

#[test]
fn without_an_incident_a_rollback_is_only_reported() {
    let bad = of("d1", 1, 0, Outcome::Fail);
    let told = end(&mut Incidents::default(), &bad, RollbackEnd::Done, false);
    assert_eq!(told, ["reports d1/rollback/done/report/dt after 0"]);
}

#[test]
fn a_notice_is_one() {
    let bad = of("d1", 1, 0, Outcome::Fail);
    let notice = alerts(&bad).into_iter().map(|d| Decision { rule: Rule::PageBudgetSpent, ..d }).collect();
    let (told, _) = Incidents::default().on_verdict(&bad, notice, "", &channels());
    assert!(told[0].about.notice && told[1].about.notice && !told[2].about.notice);
}

#[test]
fn it_does_not_grow_with_time_and_what_is_open_stays() {
    let mut incidents = Incidents::default();
    see(&mut incidents, &of("a-first", 1, 0, Outcome::Fail));
    for n in 0..500 {
        let id = format!("Z{n:05}");
        see(&mut incidents, &of(&id, 1, n * 100 + 50, Outcome::Fail));
        // Closes those before it but the first, whose id is a later one.
        see(&mut incidents, &of(&id, 2, n * 100 + 90, Outcome::Pass));
    }
    assert!(incidents.incidents.len() <= MOST_INCIDENTS);
    assert!(incidents.incidents.iter().any(|i| i.deployment_id == "a-first"), "open ones stay");
    assert!(serde_json::to_vec(&incidents).unwrap().len() < 64 * 1024);
    for n in 0..100 {
        let outcome = if n % 2 == 0 { Outcome::Error } else { Outcome::Fail };
        see(&mut incidents, &of("a-first", n, 60_000 + u64::from(n), outcome));
    }
    assert!(incidents.incidents[0].events.len() <= MOST_EVENTS);
}

#[test]
fn released_incidents_are_read_and_newer_ones_are_refused() {
    let mut incidents = Incidents::default();
    let bad = Verdict { verification_id: "d1.1".into(), deployment_id: "d1".into(), ..verdict() };
    see(&mut incidents, &bad);
    end(&mut incidents, &bad, RollbackEnd::Done, false);
    let released = include_str!("../../golden/incidents.json");
    assert_eq!(serde_json::to_string_pretty(&incidents).unwrap(), released.trim_end());
    assert_eq!(read(Some(released.as_bytes())), Ok(incidents));
    assert_eq!(read(None), Ok(Incidents::default()));
    assert!(read(Some(br#"{"version": 2, "surprise": 1}"#)).unwrap_err().contains("newer format than 1"));
    assert!(read(Some(br#"{"version": 1}"#)).unwrap_err().contains("cannot be read"));
    assert!(read(Some(b"{}")).unwrap_err().contains("no format"));
}
