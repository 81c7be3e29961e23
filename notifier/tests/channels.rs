//! The channels over HTTP: the exact request for each word about an incident, and what each answer leads to.

#[cfg(test)]
mod support;

use support::channels::{action, told, understands_every_answer};
use support::golden::{golden, written};
use support::receiver::{Answer, Receiver};
use vouch_notifier::action::{ActionRequest, Effect};
use vouch_notifier::alert::{RollbackEnd, Stage};

const BOT: &str =
    "type: slack, token: xoxb-s3cret, channel: C0123456789, api_url: 'BASE/api', mention: '<!here>'";
const SLACK_HOOK: &str = "type: slack, url: 'BASE/services/T0/B0/S3CRET'";
const TEAMS: &str = "type: teams, url: 'BASE/workflows/abc/triggers/manual/paths/invoke?sig=S3CRET'";
const PAGERDUTY: &str = "type: pagerduty, routing_key: 0123456789abcdef0123456789abcdef, url: 'BASE'";
const OPSGENIE: &str = "type: opsgenie, api_key: s3cret-key, url: 'BASE', responders: ['team:shop', 'user:a@example.com'], tags: [vouch]";
const POSTED: &str =
    r#"{"ok": true, "channel": "C0123456789", "ts": "1795514401.000200", "message": {"text": "..."}}"#;
const CHANGED: &str = r#"{"ok": true, "channel": "C0123456789", "ts": "1795514401.000200", "text": "..."}"#;

#[cfg(test)]
/// The words about one incident, with the names of their files.
const WORDS: [(&str, Stage, Option<RollbackEnd>); 5] = [
    ("opens", Stage::Opens, None),
    ("rolled_back", Stage::Updates, Some(RollbackEnd::Done)),
    ("not_rolled_back", Stage::Updates, Some(RollbackEnd::Failed)),
    ("resolves", Stage::Resolves, None),
    ("reports", Stage::Reports, None),
];

#[cfg(test)]
/// Compares the one request of each word with its file.
async fn requests_are_the_released_ones(name: &str, yaml: &str, answer: &'static str, words: &[&str]) {
    for (word, stage, rollback) in WORDS.iter().filter(|(word, ..)| words.contains(word)) {
        let receiver = Receiver::start(vec![Answer::Status(202, "", answer)]).await;
        let action = action(&receiver, yaml);
        assert!(!format!("{action:?}").to_lowercase().contains("s3cret"), "{action:?}");
        action.execute(&told(*stage, *rollback)).await.unwrap();
        let calls = receiver.finish();
        golden(&format!("{name}_{word}.http"), &written(&calls[0]));
    }
}

#[tokio::test]
async fn teams() {
    requests_are_the_released_ones("teams", TEAMS, "", &["opens", "not_rolled_back", "resolves"]).await;
    understands_every_answer(TEAMS, "").await;
}

#[tokio::test]
async fn pagerduty() {
    let good = r#"{"status": "success", "message": "Event processed", "dedup_key": "x"}"#;
    let words = ["opens", "rolled_back", "not_rolled_back", "resolves", "reports"];
    requests_are_the_released_ones("pagerduty", PAGERDUTY, good, &words).await;
    understands_every_answer(PAGERDUTY, good).await;
}

#[tokio::test]
async fn pagerduty_is_left_alone_after_a_rollback_where_that_is_wanted() {
    let receiver = Receiver::start(vec![Answer::Status(202, "", "")]).await;
    let action = action(&receiver, &format!("{PAGERDUTY}, acknowledge_on_rollback: false"));
    action.execute(&told(Stage::Updates, Some(RollbackEnd::Done))).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&receiver.finish()[0].body).unwrap();
    assert_eq!(body["event_action"], "trigger");
}

#[tokio::test]
async fn opsgenie() {
    let good = r#"{"result": "Request will be processed", "took": 0.1, "requestId": "x"}"#;
    let words = ["opens", "rolled_back", "not_rolled_back", "resolves"];
    requests_are_the_released_ones("opsgenie", OPSGENIE, good, &words).await;
    understands_every_answer(OPSGENIE, good).await;
}

#[tokio::test]
async fn slack_by_webhook() {
    requests_are_the_released_ones(
        "slack_webhook",
        SLACK_HOOK,
        "ok",
        &["opens", "not_rolled_back", "resolves"],
    )
    .await;
    understands_every_answer(SLACK_HOOK, "ok").await;
}

#[tokio::test]
async fn slack_by_bot_understands_every_answer() {
    understands_every_answer(BOT, POSTED).await;
}

#[tokio::test]
async fn slack_has_one_thread_whose_first_message_shows_how_it_stands() {
    let ok = |body| Answer::Status(200, "", body);
    let receiver = Receiver::start(vec![ok(POSTED), ok(CHANGED), ok(POSTED), ok(CHANGED), ok(POSTED)]).await;
    let slack = action(&receiver, BOT);
    let done = slack.execute(&told(Stage::Opens, None)).await.unwrap();
    assert_eq!(done.memory.as_deref(), Some(r#"{"channel":"C0123456789","ts":"1795514401.000200"}"#));
    for (stage, rollback) in [(Stage::Updates, Some(RollbackEnd::Done)), (Stage::Resolves, None)] {
        let request = ActionRequest { memory: done.memory.clone(), ..told(stage, rollback) };
        assert_eq!(slack.execute(&request).await.unwrap().memory, None, "the thread stays the same");
    }
    let calls = receiver.finish();
    for (call, word) in
        calls.iter().zip(["opens", "rolled_back_1", "rolled_back_2", "resolves_1", "resolves_2"])
    {
        golden(&format!("slack_bot_{word}.http"), &written(call));
    }
    assert!(calls.iter().all(|call| !written(call).is_empty()));
}

#[tokio::test]
async fn slack_begins_a_new_thread_where_the_first_message_is_gone() {
    for error in ["message_not_found", "cant_update_message", "edit_window_closed"] {
        let gone = Box::leak(format!(r#"{{"ok": false, "error": "{error}"}}"#).into_boxed_str());
        let receiver =
            Receiver::start(vec![Answer::Status(200, "", gone), Answer::Status(200, "", POSTED)]).await;
        let memory = Some(r#"{"channel":"C1","ts":"1.2"}"#.to_owned());
        let request = ActionRequest { memory, ..told(Stage::Updates, Some(RollbackEnd::Failed)) };
        let done = action(&receiver, BOT).execute(&request).await.unwrap();
        assert!(done.memory.is_some(), "{error}: the new thread is kept");
        let targets: Vec<String> = receiver.finish().into_iter().map(|call| call.target).collect();
        assert_eq!(targets, ["/api/chat.update", "/api/chat.postMessage"], "{error}");
    }
}

#[tokio::test]
async fn slack_does_not_say_the_first_word_twice() {
    let receiver = Receiver::start(vec![Answer::Status(200, "", CHANGED)]).await;
    let memory = Some(r#"{"channel":"C1","ts":"1.2"}"#.to_owned());
    let request = ActionRequest { memory, attempt: 2, ..told(Stage::Opens, None) };
    action(&receiver, BOT).execute(&request).await.unwrap();
    assert_eq!(receiver.finish()[0].target, "/api/chat.update");
}

#[tokio::test]
async fn slack_refuses_in_the_body_of_a_200() {
    for (error, expected) in [
        ("not_in_channel", (false, Effect::None)),
        ("invalid_auth", (false, Effect::None)),
        ("msg_too_long", (false, Effect::None)),
        ("something_new", (false, Effect::None)),
        ("ratelimited", (true, Effect::None)),
        ("internal_error", (true, Effect::Possible)),
    ] {
        let body = Box::leak(format!(r#"{{"ok": false, "error": "{error}"}}"#).into_boxed_str());
        let receiver = Receiver::start(vec![Answer::Status(200, "", body)]).await;
        let ended = action(&receiver, BOT).execute(&told(Stage::Opens, None)).await.unwrap_err();
        assert_eq!((ended.retryable, ended.effect), expected, "{error}");
        assert!(ended.detail.contains(error) && !ended.detail.contains("s3cret"), "{ended}");
        receiver.finish();
    }
}

#[tokio::test]
async fn slack_takes_a_200_that_cannot_be_read_for_done() {
    for body in ["", "<html>", "{\"ok\": "] {
        let receiver = Receiver::start(vec![Answer::Status(200, "", body)]).await;
        let done = action(&receiver, BOT).execute(&told(Stage::Opens, None)).await.unwrap();
        assert!(done.memory.is_none() && done.detail.contains("cannot be read"), "{done:?}");
        receiver.finish();
    }
}
