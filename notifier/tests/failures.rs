//! What becomes of a rollback whose receiver misbehaves, and of one that somebody who died has begun.

#[cfg(test)]
mod support;

use std::time::Duration;
use support::receiver::{Answer, OK, Receiver};
use support::{Bench, Notifier, Server, settings, short, verdict};
use vouch_notifier::ledger::{Entry, FORMAT, State};
use vouch_proto::Outcome;
use vouch_service::clock::{Clock as _, SystemClock};

#[cfg(test)]
/// Publishes one Fail and answers the audit stream; the alerts go to the log.
async fn ends(answers: Vec<Answer>, more: &str, left: Option<Entry>, live: Option<&str>) -> Vec<String> {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let receiver = Receiver::start(answers).await;
    if let Some(live) = live {
        receiver.set_live(live);
    }
    if let Some(entry) = left {
        bench.put_entry(&entry).await;
    }
    let yaml = format!(
        "notifier: {{actions: [{{name: undo, type: webhook, url: '{}', secret: x, timeout: 300ms, retry_pause: 10ms, \
         probe_after: 100ms, {more}}}], rollback: {{action: undo, default: act}}}}",
        receiver.url()
    );
    let notifier = Notifier::start(&server, settings(&yaml.replace("PROBE", &receiver.probe_url()))).await;
    bench.publish(&verdict("d1", Outcome::Fail)).await;
    let audit = short(&bench.settled().await);
    notifier.stop().await;
    receiver.finish();
    audit.into_iter().filter(|line| *line != "alert fail-alerts Done (dry) 1").collect()
}

#[cfg(test)]
fn left_in(state: State) -> Option<Entry> {
    Some(Entry {
        version: FORMAT,
        key: "d1/rollback".into(),
        verification_id: "d1.1".into(),
        revision: 0,
        action: "undo".into(),
        kind: "webhook".into(),
        rule: "fail-rolls-back".into(),
        owner: "the dead".into(),
        attempts: 1,
        maybe_sent: false,
        state,
        recorded: false,
    })
}

#[cfg(test)]
fn orphan() -> Option<Entry> {
    let now = SystemClock.now();
    left_in(State::Acting { since: now.plus_minutes(-1), until: now.minus(Duration::from_millis(1)) })
}

const DONE_ONCE: [&str; 1] = ["rollback fail-rolls-back Done 1"];
const DONE_AT_THE_SECOND: [&str; 1] = ["rollback fail-rolls-back Done 2"];
const UNKNOWN: [&str; 2] =
    ["alert rollback-unknown-alerts Done (dry) 1", "rollback fail-rolls-back Unknown 1"];
const REFUSED: [&str; 2] =
    ["alert rollback-failed-alerts Done (dry) 1", "rollback fail-rolls-back Failed { retryable: false } 1"];

#[tokio::test]
async fn a_refusal_is_final_and_told() {
    for status in [301, 400, 401, 404, 409, 422] {
        assert_eq!(ends(vec![Answer::Status(status, "", "no")], "", None, None).await, REFUSED, "{status}");
    }
}

#[tokio::test]
async fn what_was_not_taken_is_tried_again_when_the_receiver_says() {
    let busy = Answer::Status(429, "retry-after: 1\r\n", "");
    assert_eq!(ends(vec![busy, OK], "", None, None).await, DONE_AT_THE_SECOND);
    let closed = Answer::Status(503, "retry-after: 1\r\n", "");
    let given_up = [
        "alert rollback-failed-alerts Done (dry) 1",
        "rollback fail-rolls-back Failed { retryable: true } 2",
    ];
    assert_eq!(ends(vec![closed.clone(), closed], "give_up_after: 2s", None, None).await, given_up);
}

#[tokio::test]
async fn what_may_have_been_done_is_never_sent_blindly_again() {
    for answer in [Answer::Status(500, "", ""), Answer::Status(502, "", ""), Answer::Never, Answer::Reset] {
        assert_eq!(ends(vec![answer.clone()], "", None, None).await, UNKNOWN, "{answer:?}");
        let again = ends(vec![answer.clone(), OK], "idempotent: true", None, None).await;
        assert_eq!(again, DONE_AT_THE_SECOND, "{answer:?}");
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_asked_for() {
    let probe = "probe_url: 'PROBE'";
    assert_eq!(ends(vec![Answer::Reset], probe, None, Some("2.0")).await, DONE_ONCE);
    assert_eq!(ends(vec![Answer::Never, OK], probe, None, Some("2.1")).await, DONE_AT_THE_SECOND);
    assert_eq!(ends(vec![Answer::Never], probe, None, Some("")).await, UNKNOWN);
}

#[tokio::test]
async fn an_answer_whose_body_never_ends_is_an_answer() {
    assert_eq!(ends(vec![Answer::Endless], "", None, None).await, DONE_ONCE);
}

#[tokio::test]
async fn an_expired_claim_is_taken_over() {
    let now = SystemClock.now();
    let mut claimed = left_in(State::Claimed { until: now.plus(Duration::from_secs(2)) }).unwrap();
    claimed.attempts = 0;
    assert_eq!(ends(vec![OK], "", Some(claimed), None).await, DONE_ONCE);
}

#[tokio::test]
async fn an_orphan_is_sent_again_only_where_that_is_safe() {
    assert_eq!(ends(vec![], "", orphan(), None).await, UNKNOWN);
    assert_eq!(ends(vec![], "probe_url: 'PROBE'", orphan(), Some("2.0")).await, DONE_ONCE);
    assert_eq!(ends(vec![OK], "probe_url: 'PROBE'", orphan(), Some("2.1")).await, DONE_AT_THE_SECOND);
    assert_eq!(ends(vec![OK], "idempotent: true", orphan(), None).await, DONE_AT_THE_SECOND);
}

#[tokio::test]
async fn an_orphan_of_another_action_is_not_sent_by_this_one() {
    let other = orphan().map(|entry| Entry { action: "kubernetes".into(), ..entry });
    assert_eq!(ends(vec![], "idempotent: true", other, None).await, UNKNOWN);
}

#[tokio::test]
async fn what_is_done_and_perhaps_not_recorded_is_recorded_and_not_done_again() {
    let done = State::Done { at: SystemClock.now(), detail: "done before".into(), dry_run: false };
    assert_eq!(ends(vec![], "", left_in(done), None).await, DONE_ONCE);
}

#[tokio::test]
async fn a_second_verification_does_not_roll_back_again() {
    let done = State::Done { at: SystemClock.now(), detail: "done before".into(), dry_run: false };
    let entry = left_in(done).map(|e| Entry { verification_id: "d1.0".into(), recorded: true, ..e });
    let expected = ["rollback one-rollback-per-deployment Skipped 0"];
    assert_eq!(ends(vec![], "", entry, None).await, expected);
}

#[tokio::test]
async fn a_second_verification_may_roll_back_where_the_first_found_no_reason_to() {
    let skipped = State::Skipped { at: SystemClock.now(), detail: "expired".into(), dry_run: false };
    let entry =
        left_in(skipped).map(|e| Entry { verification_id: "d1.0".into(), attempts: 0, recorded: true, ..e });
    assert_eq!(ends(vec![OK], "", entry, None).await, DONE_ONCE);
}

#[tokio::test]
async fn an_entry_of_a_newer_format_keeps_everybody_from_acting() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let receiver = Receiver::start(vec![]).await;
    let mut entry = orphan().unwrap();
    entry.version = FORMAT + 1;
    bench.put_entry(&entry).await;
    let yaml = format!(
        "notifier: {{actions: [{{name: undo, type: webhook, url: '{}', secret: x}}], rollback: {{action: undo, default: act}}}}",
        receiver.url()
    );
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    bench.publish(&verdict("d1", Outcome::Fail)).await;
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while !notifier.health.failures().get("ledger").is_some_and(|why| why.contains("newer format")) {
        assert!(std::time::Instant::now() < deadline, "{:?}", notifier.health.failures());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    notifier.stop().await;
    receiver.finish();
}
