//! The state machine, transition by transition, and the released form of its entries.

use super::*;
use crate::fixtures::at;
use std::path::Path;

fn work(owner: &str) -> Work {
    Work {
        key: "d/rollback".into(),
        verification_id: "d.1".into(),
        revision: 0,
        action: "undo".into(),
        kind: "webhook".into(),
        rule: "fail-rolls-back".into(),
        owner: owner.into(),
    }
}

fn claimed(owner: &str) -> Entry {
    let taken = take(None, &work(owner), at(0), at(30));
    let Taken::Mine { entry, from: None } = taken else { panic!("not claimed: {taken:?}") };
    entry
}

fn acting(owner: &str) -> Entry {
    begin(Some(&claimed(owner)), owner, 1, (at(1), at(20))).unwrap()
}

fn done() -> State {
    State::Done { at: at(2), detail: "the receiver answered 200".into(), dry_run: false }
}

fn skipped() -> State {
    State::Skipped { at: at(2), detail: "expired".into(), dry_run: false }
}

fn unknown() -> State {
    State::Unknown { at: at(2), detail: "no answer".into() }
}

fn failed() -> State {
    State::Failed { at: at(2), detail: "refused".into(), retryable: false }
}

#[test]
fn a_claim_keeps_others_out_until_its_lease_is_over() {
    let entry = claimed("a");
    assert_eq!(take(Some(&entry), &work("b"), at(29), at(60)), Taken::Held(at(30)));
    let taken = take(Some(&entry), &work("b"), at(30), at(60));
    let Taken::Mine { entry: theirs, from } = taken else { panic!("not taken over: {taken:?}") };
    assert_eq!((theirs.owner.as_str(), from.as_deref()), ("b", Some("a")));
    assert_eq!(theirs.state, State::Claimed { until: at(60) });
    assert_eq!(
        take(Some(&entry), &work("a"), at(1), at(60)),
        Taken::Mine { entry, from: None },
        "its own write"
    );
}

#[test]
fn a_claim_that_was_taken_over_can_no_longer_act() {
    let Taken::Mine { entry, .. } = take(Some(&claimed("a")), &work("b"), at(30), at(60)) else { panic!() };
    assert_eq!(begin(Some(&entry), "a", 1, (at(31), at(50))), Err(Lost));
    assert_eq!(back_off(Some(&entry), "a", at(90), false), Err(Lost));
    assert_eq!(settle(Some(&entry), "a", "r", &skipped()), Err(Lost));
    assert_eq!(begin(None, "a", 1, (at(31), at(50))), Err(Lost));
}

#[test]
fn a_call_is_begun_once() {
    let entry = acting("a");
    assert_eq!((entry.attempts, &entry.state), (1, &State::Acting { since: at(1), until: at(20) }));
    let again = begin(Some(&entry), "a", 1, (at(2), at(21))).unwrap();
    assert_eq!(again, entry, "its own write, whose acknowledgement was lost");
    assert_eq!(begin(Some(&entry), "a", 2, (at(2), at(21))), Err(Lost), "not while the first is under way");
}

#[test]
fn a_call_under_way_is_waited_for_and_then_an_orphan() {
    let entry = acting("a");
    assert_eq!(take(Some(&entry), &work("b"), at(19), at(60)), Taken::Held(at(20)));
    assert_eq!(take(Some(&entry), &work("b"), at(20), at(60)), Taken::Orphan(entry));
}

#[test]
fn only_these_ends_are_allowed() {
    let (claim, call) = (claimed("a"), acting("a"));
    let doubtful = back_off(Some(&call), "a", at(60), true).unwrap();
    for (from, end, allowed) in [
        (&claim, skipped(), true),
        (&claim, done(), false),
        (&claim, failed(), false),
        (&claim, unknown(), false),
        (&doubtful, unknown(), true),
        (&doubtful, skipped(), false),
        (&call, done(), true),
        (&call, failed(), true),
        (&call, unknown(), true),
        (&call, skipped(), false),
        (&call, State::Claimed { until: at(60) }, false),
    ] {
        assert_eq!(settle(Some(from), "a", "r", &end).is_ok(), allowed, "{from:?} to {end:?}");
    }
    let ended = settle(Some(&call), "a", "r", &done()).unwrap();
    assert_eq!(settle(Some(&ended), "a", "r", &done()).unwrap(), ended, "its own write");
    assert_eq!(settle(Some(&ended), "a", "r", &unknown()), Err(Lost), "an end is the end");
}

#[test]
fn what_is_over_is_over_for_its_verdict_and_a_skip_binds_no_other() {
    let other = Work { verification_id: "d.2".into(), ..work("b") };
    for end in [done(), failed(), unknown()] {
        let entry = settle(Some(&acting("a")), "a", "r", &end).unwrap();
        assert_eq!(take(Some(&entry), &work("b"), at(90), at(99)), Taken::Over(entry.clone()));
        assert_eq!(take(Some(&entry), &other, at(90), at(99)), Taken::Elsewhere(entry));
    }
    let entry = settle(Some(&claimed("a")), "a", "r", &skipped()).unwrap();
    assert_eq!(take(Some(&entry), &work("b"), at(90), at(99)), Taken::Over(entry.clone()));
    assert!(matches!(take(Some(&entry), &other, at(90), at(99)), Taken::Mine { .. }));
}

#[test]
fn what_may_have_been_done_stays_in_doubt() {
    let entry = back_off(Some(&acting("a")), "a", at(60), true).unwrap();
    assert!(entry.maybe_sent && back_off(Some(&entry), "a", at(70), false).unwrap().maybe_sent);
    let Taken::Mine { entry, .. } = take(Some(&entry), &work("b"), at(90), at(99)) else { panic!() };
    assert!(entry.maybe_sent, "also for who takes it over");
    assert!(!may_send(&entry, Purpose::Rollback, false) && may_send(&entry, Purpose::Rollback, true));
    assert!(may_send(&entry, Purpose::Alert, false));
}

#[test]
fn an_orphan_is_sent_again_only_where_that_is_safe() {
    use Resolution::{NoLongerWanted, SendAgain, Unknown, WasDone};
    for (purpose, probe, idempotent, wanted, expected) in [
        (Purpose::Rollback, Probe::Done, false, true, WasDone),
        (Purpose::Rollback, Probe::NotDone, false, true, SendAgain),
        (Purpose::Rollback, Probe::NotDone, false, false, NoLongerWanted),
        (Purpose::Rollback, Probe::CannotTell, false, true, Unknown),
        (Purpose::Rollback, Probe::CannotTell, true, true, SendAgain),
        (Purpose::Rollback, Probe::CannotTell, true, false, Unknown),
        (Purpose::Alert, Probe::CannotTell, false, true, SendAgain),
        (Purpose::Alert, Probe::CannotTell, false, false, Unknown),
    ] {
        assert_eq!(resolve(purpose, probe, idempotent, wanted), expected, "{purpose:?} {probe:?}");
    }
}

#[test]
fn of_two_who_adopt_an_orphan_one_wins() {
    let seen = acting("a");
    let becomes =
        |owner| adopted(&seen, &work(owner), (Probe::NotDone, Resolution::SendAgain), (at(30), at(60)));
    let first = adopt(Some(&seen), &seen, &becomes("b")).unwrap();
    assert_eq!((first.owner.as_str(), first.maybe_sent), ("b", false));
    assert_eq!(adopt(Some(&first), &seen, &becomes("c")), Err(Lost));
    assert_eq!(adopt(Some(&first), &seen, &becomes("b")).unwrap(), first, "its own write");
    let lost = adopted(&seen, &work("b"), (Probe::CannotTell, Resolution::SendAgain), (at(30), at(60)));
    assert!(lost.maybe_sent, "an idempotent receiver may have done it");
}

#[test]
fn the_audit_is_noted_for_the_end_that_was_seen() {
    let entry = settle(Some(&acting("a")), "a", "r", &done()).unwrap();
    let noted = recorded(Some(&entry), &entry).unwrap();
    assert!(noted.recorded);
    assert_eq!(recorded(Some(&noted), &entry), None, "once");
    assert_eq!(recorded(Some(&acting("b")), &entry), None, "it is another's by now");
}

/// Every released form is a file: read and written for ever. A missing file is written, and the test fails.
#[test]
fn released_entries_are_read_and_written_alike() {
    let mut missing = Vec::new();
    let doubtful = Entry { maybe_sent: true, ..acting("01.2") };
    for (name, entry) in [
        ("claimed", claimed("01.2")),
        ("acting", doubtful),
        ("done", settle(Some(&acting("01.2")), "01.2", "fail-rolls-back", &done()).unwrap()),
        ("failed", settle(Some(&acting("01.2")), "01.2", "fail-rolls-back", &failed()).unwrap()),
        ("unknown", settle(Some(&acting("01.2")), "01.2", "fail-rolls-back", &unknown()).unwrap()),
        ("skipped", settle(Some(&claimed("01.2")), "01.2", "verdict-expired", &skipped()).unwrap()),
    ] {
        assert_eq!(entry.state.as_str(), name);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/ledger_{name}.json"));
        let written = serde_json::to_string_pretty(&entry).unwrap() + "\n";
        if !path.exists() {
            std::fs::write(&path, &written).unwrap();
            missing.push(path.display().to_string());
        }
        let released = std::fs::read_to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&released).unwrap(), entry, "{name} reads differently now");
        assert_eq!(written, released, "{name} is written differently now");
    }
    assert_eq!(
        missing,
        Vec::<String>::new(),
        "were missing and have been written: look at them and commit them"
    );
}
