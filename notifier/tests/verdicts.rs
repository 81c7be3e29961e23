//! From a verdict on the stream to an action and its record, with a real nats-server each.

#[cfg(test)]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};
use support::receiver::{Answer, OK, Receiver};
use support::{Bench, Notifier, Server, settings, short, verdict, verdict_at};
use tokio_util::sync::CancellationToken;
use vouch_proto::subject::NOTIFIER_VERDICTS;
use vouch_proto::{Cause, Outcome, Verdict, v1};
use vouch_service::clock::{Clock as _, ScaledClock, SystemClock};

#[cfg(test)]
fn webhooks(rollback: &Receiver, alert: &Receiver) -> String {
    format!(
        "notifier:\n  actions:\n  - {{name: undo, type: webhook, url: '{}', secret: s3cret, timeout: 2s}}\n  \
         - {{name: chat, type: webhook, url: '{}', secret: other, timeout: 2s, retry_pause: 10ms}}\n  \
         rollback: {{action: undo, environments: {{prod: act}}}}\n  alert: {{actions: [chat]}}\n",
        rollback.url(),
        alert.url(),
    )
}

#[cfg(test)]
/// A server, the outside, a receiver of rollbacks and one of alerts.
async fn stage(undo: Vec<Answer>, chat: Vec<Answer>) -> (Server, Bench, Receiver, Receiver) {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    (server, bench, Receiver::start(undo).await, Receiver::start(chat).await)
}

#[tokio::test]
async fn a_pass_does_nothing_and_is_recorded() {
    let (server, bench, undo, chat) = stage(vec![], vec![]).await;
    let notifier = Notifier::start(&server, settings(&webhooks(&undo, &chat))).await;
    bench.publish(&verdict("d1", Outcome::Pass)).await;
    assert_eq!(short(&bench.settled().await), ["alert pass-does-nothing Skipped 0"]);
    notifier.stop().await;
    undo.finish();
    chat.finish();
}

#[tokio::test]
async fn by_default_a_fail_is_a_dry_run() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let notifier = Notifier::start(&server, settings("")).await;
    bench.publish(&verdict("d1", Outcome::Fail)).await;
    let audit = bench.settled().await;
    assert_eq!(short(&audit), ["alert fail-alerts Done (dry) 1", "rollback dry-run Skipped (dry) 0"]);
    let said = &audit.iter().find(|a| a.rule == "dry-run").unwrap().detail;
    assert_eq!(said, "Dry run: would have rolled back service-d1 2.1 in prod to 2.0 by `log`.");
    notifier.stop().await;
}

#[tokio::test]
async fn a_fail_rolls_back_exactly_once_with_two_notifiers_and_duplicates() {
    let (server, bench, undo, chat) = stage(vec![OK], vec![OK]).await;
    let one = Notifier::start(&server, settings(&webhooks(&undo, &chat))).await;
    let two = Notifier::start(&server, settings(&webhooks(&undo, &chat))).await;
    let verdict = verdict("d1", Outcome::Fail);
    for _ in 0..5 {
        bench.publish(&verdict).await;
    }
    let expected = ["alert fail-alerts Done 1", "rollback fail-rolls-back Done 1"];
    assert_eq!(short(&bench.settled().await), expected);
    bench.publish(&verdict).await;
    assert_eq!(short(&bench.settled().await), expected, "a late duplicate changes nothing");
    one.stop().await;
    two.stop().await;
    assert_eq!(undo.finish()[0].headers["idempotency-key"], "d1/rollback");
    assert_eq!(chat.finish()[0].headers["idempotency-key"], "d1.1/0/alert/chat");
}

#[tokio::test]
async fn anything_but_a_strong_fail_alerts_and_never_rolls_back() {
    let (server, bench, undo, chat) = stage(vec![], vec![OK; 4]).await;
    let notifier = Notifier::start(&server, settings(&webhooks(&undo, &chat))).await;
    bench.publish(&Verdict { cause: Cause::NoData, ..verdict("d1", Outcome::Inconclusive) }).await;
    bench.publish(&Verdict { cause: Cause::SourceError, ..verdict("d2", Outcome::Error) }).await;
    bench.publish(&Verdict { rollback_grade: false, ..verdict("d3", Outcome::Fail) }).await;
    bench.publish(&Verdict { revision: 1, rollback_grade: false, ..verdict("d4", Outcome::Fail) }).await;
    // The flag alone does not make a Fail.
    bench.publish(&Verdict { rollback_grade: true, ..verdict("d5", Outcome::Pass) }).await;
    let expected = [
        "alert error-alerts Done 1",
        "alert fail-below-rollback-grade-alerts Done 1",
        "alert inconclusive-alerts Done 1",
        "alert pass-does-nothing Skipped 0",
        "alert revision-alerts Done 1",
    ];
    assert_eq!(short(&bench.settled().await), expected);
    notifier.stop().await;
    undo.finish();
    chat.finish();
}

#[tokio::test]
async fn an_expired_or_superseded_verdict_is_told_and_not_acted_on() {
    let (server, bench, undo, chat) = stage(vec![], vec![OK; 3]).await;
    let notifier = Notifier::start(&server, settings(&webhooks(&undo, &chat))).await;
    let now = SystemClock.now();
    bench.publish(&verdict_at("old", Outcome::Fail, now.plus_minutes(-16))).await;
    bench.publish(&verdict_at("older", Outcome::Fail, now.plus_minutes(-361))).await;
    let superseded = verdict("d3", Outcome::Fail);
    bench.newest(&superseded, "d4").await;
    bench.publish_alone(&superseded).await;
    bench.publish_alone(&verdict("d5", Outcome::Fail)).await;
    let expected = [
        "alert alert-expired Skipped 0",
        "alert fail-alerts Done 1",
        "alert fail-alerts Done 1",
        "alert fail-alerts Done 1",
        "rollback newest-deployment-unknown Skipped 0",
        "rollback superseded Skipped 0",
        "rollback verdict-expired Skipped 0",
        "rollback verdict-expired Skipped 0",
    ];
    assert_eq!(short(&bench.settled().await), expected);
    notifier.stop().await;
    undo.finish();
    chat.finish();
}

#[tokio::test]
async fn poison_is_dead_lettered_and_the_next_verdict_is_handled() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let notifier = Notifier::start(&server, settings("")).await;
    bench.publish_raw("application/json", b"{ no json").await;
    bench.publish_raw("text/plain", b"fail").await;
    bench.publish_raw("application/protobuf", b"\xff\xff").await;
    bench.publish_alone(&Verdict { risk: 0.5, ..verdict("d1", Outcome::Fail) }).await;
    bench.publish_alone(&Verdict { deployment_id: "x".repeat(200), ..verdict("d2", Outcome::Pass) }).await;
    let elsewhere = v1::Verdict::from(verdict("d4", Outcome::Fail));
    bench.publish_raw("application/json", &serde_json::to_vec(&elsewhere).unwrap()).await;
    bench.publish(&verdict("d3", Outcome::Pass)).await;
    assert_eq!(short(&bench.settled().await), ["alert pass-does-nothing Skipped 0"]);
    let letters = bench.dead_letters().await;
    let reasons: Vec<&str> = letters.iter().map(|(headers, _)| headers["Vouch-Reason"].as_str()).collect();
    assert_eq!(reasons.len(), 6, "{reasons:?}");
    for (i, part) in [
        "in JSON",
        "text/plain",
        "in protobuf",
        "risk: 0.5",
        "prod and service-d4 are not those of the subject",
        "deployment_id: has 200 bytes",
    ]
    .iter()
    .enumerate()
    {
        assert!(reasons.iter().any(|r| r.contains(part)), "{i} {part} in {reasons:?}");
    }
    assert!(letters.iter().any(|(_, body)| body == b"{ no json"), "the message itself is kept");
    notifier.stop().await;
}

#[tokio::test]
async fn a_slow_receiver_of_alerts_does_not_delay_rollbacks() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let (undo, chat) = (Receiver::start(vec![OK; 12]).await, Receiver::always(Answer::Never).await);
    let yaml = webhooks(&undo, &chat).replace("retry_pause: 10ms", "give_up_after: 1s, max_in_flight: 2");
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    let start = Instant::now();
    for i in 0..12 {
        bench.publish(&verdict(&format!("d{i}"), Outcome::Fail)).await;
    }
    undo.wait_for(12).await;
    let last = undo.finish().iter().map(|call| call.at).max().unwrap();
    // One alert alone takes 2 s to time out, and two at once are allowed.
    assert!(last - start < Duration::from_secs(2), "{:?}", last - start);
    notifier.tasks.stop().cancel();
    notifier.tasks.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_stop_waits_for_the_call_and_its_record() {
    let (server, bench, undo, chat) = {
        let until = CancellationToken::new();
        let (server, bench, undo, chat) = stage(vec![Answer::Held(until.clone())], vec![OK]).await;
        let notifier = Notifier::start(&server, settings(&webhooks(&undo, &chat))).await;
        bench.publish(&verdict("d1", Outcome::Fail)).await;
        undo.wait_for(1).await;
        notifier.tasks.stop().cancel();
        until.cancel();
        notifier.stop().await;
        (server, bench, undo, chat)
    };
    let expected = ["alert fail-alerts Done 1", "rollback fail-rolls-back Done 1"];
    assert_eq!(short(&bench.settled().await), expected);
    undo.finish();
    chat.finish();
    drop(server);
}

#[tokio::test]
async fn nothing_is_lost_or_done_twice_when_nats_is_killed_in_the_middle() {
    let until = CancellationToken::new();
    let (mut server, bench, undo, chat) = stage(vec![Answer::Held(until.clone())], vec![OK]).await;
    let notifier = Notifier::start(&server, settings(&webhooks(&undo, &chat))).await;
    bench.publish(&verdict("d1", Outcome::Fail)).await;
    undo.wait_for(1).await;
    chat.wait_for(1).await;
    server.kill();
    until.cancel();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart();
    let expected = ["alert fail-alerts Done 1", "rollback fail-rolls-back Done 1"];
    let deadline = Instant::now() + support::PATIENCE;
    let outside = Bench::new(&server).await;
    while short(&outside.settled().await) != expected {
        assert!(Instant::now() < deadline, "{:?}", outside.audit().await);
    }
    notifier.stop().await;
    undo.finish();
    chat.finish();
}

#[tokio::test]
async fn leases_hold_on_a_clock_that_runs_ahead() {
    let (server, bench, undo, chat) = stage(vec![Answer::Slowly(Duration::from_millis(300))], vec![OK]).await;
    // Five minutes a second: a lease of 30 s on this clock would be over in 100 ms.
    let clock = Arc::new(ScaledClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap(), 300.0));
    let one = Notifier::with_clock(&server, settings(&webhooks(&undo, &chat)), clock.clone()).await;
    let two = Notifier::with_clock(&server, settings(&webhooks(&undo, &chat)), clock.clone()).await;
    let verdict = verdict_at("d1", Outcome::Fail, clock.now());
    bench.publish(&verdict).await;
    undo.wait_for(1).await;
    bench.publish_alone(&verdict).await;
    let expected = ["alert fail-alerts Done 1", "rollback fail-rolls-back Done 1"];
    assert_eq!(short(&bench.settled().await), expected);
    one.stop().await;
    two.stop().await;
    undo.finish();
    chat.finish();
}

#[tokio::test]
async fn a_verdict_that_is_worked_on_for_long_is_not_delivered_again() {
    let until = CancellationToken::new();
    let (server, bench, undo, chat) = stage(vec![Answer::Held(until.clone())], vec![OK]).await;
    let yaml = webhooks(&undo, &chat).replace("secret: s3cret, timeout: 2s", "secret: s3cret, timeout: 60s");
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    bench.publish(&verdict("d1", Outcome::Fail)).await;
    undo.wait_for(1).await;
    // Longer than the server waits for an acknowledgement: this much real time has to pass.
    tokio::time::sleep(NOTIFIER_VERDICTS.ack_wait + Duration::from_secs(2)).await;
    assert_eq!(bench.deliveries().await, 1);
    until.cancel();
    let expected = ["alert fail-alerts Done 1", "rollback fail-rolls-back Done 1"];
    assert_eq!(short(&bench.settled().await), expected);
    notifier.stop().await;
    undo.finish();
    chat.finish();
}
