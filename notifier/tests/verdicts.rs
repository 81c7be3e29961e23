//! From a verdict on the stream to an action and its record, with a real nats-server each.

mod support;

use support::receiver::{Answer, OK, Receiver};
use support::{Bench, Notifier, Server, settings, short, verdict};
use vouch_proto::Outcome;

fn webhooks(rollback: &Receiver, alert: &Receiver) -> String {
    format!(
        "notifier:\n  actions:\n  - {{name: undo, type: webhook, url: '{}', secret: s3cret, timeout: 2s, retry_pause: 10ms}}\n  \
         - {{name: chat, type: webhook, url: '{}', secret: other, timeout: 2s, retry_pause: 10ms}}\n  \
         rollback: {{action: undo, environments: {{prod: act}}}}\n  alert: {{actions: [chat]}}\n",
        rollback.url(),
        alert.url(),
    )
}

#[tokio::test]
async fn a_pass_does_nothing_and_is_recorded() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let (undo, chat) = (Receiver::start(vec![]).await, Receiver::start(vec![]).await);
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
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let (undo, chat) = (Receiver::start(vec![OK]).await, Receiver::start(vec![OK]).await);
    let one = Notifier::start(&server, settings(&webhooks(&undo, &chat))).await;
    let two = Notifier::start(&server, settings(&webhooks(&undo, &chat))).await;
    let verdict = verdict("d1", Outcome::Fail);
    for _ in 0..5 {
        bench.publish(&verdict).await;
    }
    let audit = bench.settled().await;
    assert_eq!(short(&audit), ["alert fail-alerts Done 1", "rollback fail-rolls-back Done 1"]);
    one.stop().await;
    two.stop().await;
    chat.finish();
    let calls = undo.finish();
    assert_eq!(calls[0].headers["idempotency-key"], "d1/rollback");
    assert_eq!(calls[0].headers["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let secret = "s3cret".into();
    assert!(vouch_notifier::action::verify(&secret, &calls[0].headers["vouch-signature"], &calls[0].body));
    let _ = Answer::Never;
}
