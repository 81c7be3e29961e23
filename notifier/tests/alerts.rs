//! Alerts from the verdict to the receivers, with a real nats-server each: folded, resolved, queued by action, never lost.

#[cfg(test)]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};
use support::receiver::{Answer, OK, Receiver};
use support::{Bench, Notifier, PATIENCE, Server, settings, short, verdict, verdict_at};
use vouch_proto::{ActionOutcome, Outcome, Verdict};
use vouch_service::clock::{Clock as _, ScaledClock};

#[cfg(test)]
fn hook(name: &str, receiver: &Receiver, more: &str) -> String {
    format!(
        "{{name: {name}, type: webhook, url: '{}', secret: x, timeout: 2s, retry_pause: 10ms{more}}}",
        receiver.url()
    )
}

#[cfg(test)]
/// What a call says about its incident.
fn stage(call: &support::receiver::Call) -> String {
    let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
    let alert = &body["alert"];
    format!("{} {}", alert["incident"].as_str().unwrap(), alert["stage"].as_str().unwrap())
}

#[cfg(test)]
/// A verdict of one and the same service.
fn of_shop(id: &str, outcome: Outcome) -> Verdict {
    Verdict { service: vouch_proto::Name::new("shop").unwrap(), ..verdict(id, outcome) }
}

#[tokio::test]
async fn an_incident_is_told_once_and_resolved_by_a_healthy_verdict() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let chat = Receiver::start(vec![OK; 3]).await;
    let yaml = format!("notifier: {{actions: [{}], alert: {{actions: [chat]}}}}", hook("chat", &chat, ""));
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    bench.publish(&of_shop("d1", Outcome::Inconclusive)).await;
    bench.settled().await;
    let again = Verdict { verification_id: "d1.2".into(), ..of_shop("d1", Outcome::Inconclusive) };
    bench.publish(&again).await;
    bench.settled().await;
    let worse =
        Verdict { verification_id: "d1.3".into(), rollback_grade: false, ..of_shop("d1", Outcome::Fail) };
    bench.publish(&worse).await;
    bench.settled().await;
    let healthy = of_shop("d2", Outcome::Pass);
    for _ in 0..3 {
        bench.publish(&healthy).await;
    }
    let expected = [
        "alert alert-folded Skipped 0",
        "alert fail-below-rollback-grade-alerts Done 1",
        "alert healthy-resolves Done 1",
        "alert inconclusive-alerts Done 1",
        "alert pass-does-nothing Skipped 0",
    ];
    assert_eq!(short(&bench.settled().await), expected);
    notifier.stop().await;
    let stages: Vec<String> = chat.finish().iter().map(stage).collect();
    assert_eq!(stages, ["d1 opens", "d1 updates", "d1 resolves"]);
}

#[tokio::test]
async fn a_rollback_that_worked_resolves_and_one_that_was_taken_is_told() {
    for (confirms, expected) in
        [("", ["d1 opens", "d1 updates"]), (", confirms: true", ["d1 opens", "d1 resolves"])]
    {
        let server = Server::start().await;
        let bench = Bench::new(&server).await;
        let (undo, chat) = (Receiver::start(vec![OK]).await, Receiver::start(vec![OK; 2]).await);
        let records = Receiver::start(vec![OK; 2]).await;
        let yaml = format!(
            "notifier:\n  actions: [{}, {}, {}]\n  rollback: {{action: undo, default: act}}\n  alert: {{actions: [chat]}}\n  \
             report: {{actions: [records]}}\n",
            hook("undo", &undo, confirms),
            hook("chat", &chat, ", send_updates: true"),
            hook("records", &records, ""),
        );
        let notifier = Notifier::start(&server, settings(&yaml)).await;
        bench.publish(&of_shop("d1", Outcome::Fail)).await;
        bench.settled().await;
        notifier.stop().await;
        undo.finish();
        assert_eq!(chat.finish().iter().map(stage).collect::<Vec<_>>(), expected, "{confirms}");
        let reports = records.finish();
        assert_eq!(reports.iter().map(stage).collect::<Vec<_>>(), ["d1 reports"; 2]);
        let rollbacks: Vec<serde_json::Value> = reports
            .iter()
            .map(|call| {
                serde_json::from_slice::<serde_json::Value>(&call.body).unwrap()["alert"]["rollback"].clone()
            })
            .collect();
        assert!(rollbacks.iter().any(|end| end == "done") && rollbacks.iter().any(|end| end.is_null()));
    }
}

#[tokio::test]
async fn what_is_told_says_where_to_look() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let chat = Receiver::start(vec![OK]).await;
    let yaml = format!(
        "notifier: {{actions: [{}], alert: {{actions: [chat]}}}}\nevidence: {{url: 'https://vouch.example.com', \
         link_secret: 0123456789abcdef, dynatrace_url: 'https://abc12345.live.dynatrace.com'}}",
        hook("chat", &chat, "")
    );
    let bad = of_shop("d1", Outcome::Fail);
    bench.catalogue(&bad, "SERVICE-0123456789ABCDEF").await;
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    bench.publish(&bad).await;
    bench.settled().await;
    notifier.stop().await;
    let body: serde_json::Value = serde_json::from_slice(&chat.finish()[0].body).unwrap();
    let links = &body["alert"]["links"];
    assert!(
        links["evidence"].as_str().unwrap().starts_with("https://vouch.example.com/evidence/d1.1?until="),
        "{links}"
    );
    assert_eq!(
        links["dynatrace"],
        "https://abc12345.live.dynatrace.com/ui/entity/SERVICE-0123456789ABCDEF?gtf=2026-11-24T09:30:00Z%20to%202026-11-24T10:45:00Z"
    );
    assert_eq!(body["alert"]["did"], "Dry run: would have rolled back shop 2.1 in prod to 2.0 by `log`.");
}

#[tokio::test]
async fn one_slow_receiver_never_delays_another() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let slow = Receiver::always(Answer::Never).await;
    let quick = Receiver::start(vec![OK; 200]).await;
    let yaml = format!(
        "notifier: {{actions: [{}, {}], alert: {{actions: [slow, quick]}}}}",
        hook("slow", &slow, ", max_in_flight: 1").replace("timeout: 2s", "timeout: 30s"),
        hook("quick", &quick, ""),
    );
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    let start = Instant::now();
    for i in 0..200 {
        // Many more than the verdicts that are worked on at once.
        bench.publish(&verdict(&format!("d{i}"), Outcome::Error)).await;
    }
    quick.wait_for(200).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(slow.calls().len(), 1, "one at once");
    assert_eq!(bench.alerts_waiting_for("slow").await, 200, "the others wait in the stream");
    notifier.tasks.stop().cancel();
    quick.finish();
}

#[tokio::test]
async fn a_receiver_that_was_down_gets_its_alerts_when_it_is_back() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let down = [Answer::Reset, Answer::Status(500, "", ""), Answer::Status(503, "retry-after: 1\r\n", "")];
    let answers = down.into_iter().cycle().take(9).chain(vec![OK; 5]).collect();
    let chat = Receiver::start(answers).await;
    // Long after `give_up_after`, which is for rollbacks.
    let more = ", give_up_after: 1s, longest_retry_pause: 100ms";
    let yaml = format!("notifier: {{actions: [{}], alert: {{actions: [chat]}}}}", hook("chat", &chat, more));
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    for i in 0..3 {
        bench.publish(&verdict(&format!("d{i}"), Outcome::Error)).await;
    }
    chat.wait_for(5).await;
    notifier.stop().await;
    // What waits survives the notifier.
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    for i in 3..5 {
        bench.publish(&verdict(&format!("d{i}"), Outcome::Error)).await;
    }
    let audit = bench.settled().await;
    assert_eq!(audit.len(), 5);
    assert!(audit.iter().all(|a| a.rule == "error-alerts" && a.outcome == ActionOutcome::Done), "{audit:?}");
    notifier.stop().await;
    chat.finish();
}

#[tokio::test]
async fn what_could_not_be_told_in_time_is_declared_expired() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let (refuses, hangs) = (
        Receiver::always(Answer::Status(429, "", "")).await,
        Receiver::always(Answer::Status(502, "", "")).await,
    );
    let more = ", longest_retry_pause: 100ms";
    let yaml = format!(
        "notifier: {{actions: [{}, {}], alert: {{actions: [refuses, hangs], max_age: 1m}}}}",
        hook("refuses", &refuses, more),
        hook("hangs", &hangs, more)
    );
    // A minute a second.
    let clock = Arc::new(ScaledClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap(), 60.0));
    let notifier = Notifier::with_clock(&server, settings(&yaml), clock.clone()).await;
    bench.publish(&verdict_at("d1", Outcome::Error, clock.now())).await;
    let audit = bench.settled().await;
    let mut ends: Vec<(String, String, ActionOutcome)> =
        audit.iter().map(|a| (a.name.clone().unwrap(), a.rule.clone(), a.outcome)).collect();
    ends.sort_by(|a, b| a.0.cmp(&b.0));
    let expired = "alert-expired".to_owned();
    let expected = [
        // One of its calls may have been carried out.
        ("hangs".to_owned(), expired.clone(), ActionOutcome::Unknown),
        ("refuses".to_owned(), expired, ActionOutcome::Skipped),
    ];
    assert_eq!(ends, expected);
    assert!(
        audit.iter().all(|a| a.attempts > 1 && a.detail.contains("older than alert.max_age")),
        "{audit:?}"
    );
    notifier.stop().await;
}

#[tokio::test]
async fn alerts_for_an_action_that_was_dropped_are_declared_expired_and_not_before() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let chat = Receiver::always(Answer::Status(429, "", "")).await;
    let with = format!(
        "notifier: {{actions: [{}], alert: {{actions: [chat], max_age: 1m}}}}",
        hook("chat", &chat, ", longest_retry_pause: 100ms")
    );
    let clock = Arc::new(ScaledClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap(), 60.0));
    let notifier = Notifier::with_clock(&server, settings(&with), clock.clone()).await;
    let mut waiting = verdict_at("d1", Outcome::Error, clock.now());
    waiting.decided_at = clock.now().plus(Duration::from_secs(60));
    bench.publish(&waiting).await;
    chat.wait_for(1).await;
    notifier.stop().await;
    // Without the action: the alert is put off, and only once it is too old is it declared so.
    let without = settings("notifier: {alert: {max_age: 1m}}");
    let notifier = Notifier::with_clock(&server, without, clock.clone()).await;
    let deadline = Instant::now() + PATIENCE + PATIENCE;
    while bench.alerts_waiting().await > 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let audit = bench.audit().await;
    assert_eq!(short(&audit), ["alert alert-expired Skipped 0"], "{audit:?}");
    notifier.stop().await;
}

#[tokio::test]
async fn what_is_no_alert_is_dead_lettered_and_the_rest_goes_on() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let chat = Receiver::start(vec![OK]).await;
    let yaml = format!("notifier: {{actions: [{}], alert: {{actions: [chat]}}}}", hook("chat", &chat, ""));
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    let released = include_str!("../golden/waiting_alert.json");
    let contradiction = released.replace("\"risk\": 1.0,\n    \"reason\"", "\"risk\": 0.5,\n    \"reason\"");
    let other = released.replace("\"action\": \"chat\"", "\"action\": \"undo\"");
    let newer_rule = released.replace("fail-alerts", "something-new");
    for body in ["{ no json", "{}", &contradiction, &other, &newer_rule] {
        bench.queue_raw("chat", body.as_bytes()).await;
    }
    bench.publish(&verdict("d1", Outcome::Error)).await;
    assert_eq!(short(&bench.settled().await), ["alert error-alerts Done 1"]);
    let letters = bench.dead_letters().await;
    let mut reasons: Vec<&str> =
        letters.iter().map(|(headers, _)| headers["Vouch-Reason"].as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    for part in ["verdict: risk: 0.5", "`undo` is not that of the subject", "no alert", "something-new"] {
        assert!(reasons.iter().any(|reason| reason.contains(part)), "{part} in {reasons:?}");
    }
    notifier.stop().await;
    chat.finish();
}

#[tokio::test]
async fn an_alert_of_a_newer_notifier_is_left_to_one() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let chat = Receiver::start(vec![]).await;
    let yaml = format!("notifier: {{actions: [{}], alert: {{actions: [chat]}}}}", hook("chat", &chat, ""));
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    bench.queue_raw("chat", br#"{"version": 2, "surprise": true}"#).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(bench.alerts_waiting().await, 1);
    assert!(bench.dead_letters().await.is_empty());
    notifier.stop().await;
    chat.finish();
}
