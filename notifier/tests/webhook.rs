//! The webhook against a strict receiver: the exact request, and what each answer leads to.

#[cfg(test)]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::receiver::{Answer, Call, OK, Receiver};
use support::settings;
use vouch_notifier::action::{Action, ActionError, ActionRequest, Done, Effect};
use vouch_notifier::ledger::Probe;
use vouch_notifier::policy::Rule;
use vouch_proto::{Purpose, Timestamp, v1};

#[cfg(test)]
fn webhook(receiver: &Receiver, more: &str) -> Box<dyn Action> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let yaml = format!(
        "notifier: {{actions: [{{name: hook, type: webhook, url: '{}', secret: s3cret, timeout: 500ms{more}}}]}}",
        receiver.url()
    );
    settings(&yaml).actions[1].kind.build().unwrap()
}

#[cfg(test)]
fn request() -> ActionRequest {
    let released = include_bytes!("../../proto/golden/verdict.json");
    let verdict = serde_json::from_slice::<v1::Verdict>(released).unwrap().try_into().unwrap();
    ActionRequest {
        key: "01KBHV0000ABCDEFGHJKMNPQRS/rollback".into(),
        purpose: Purpose::Rollback,
        rule: Rule::FailRollsBack,
        summary: "Rolling back checkout 2.1 in prod to 2.0 by `hook`.".into(),
        verdict: Arc::new(verdict),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        attempt: 2,
        sent_at: Timestamp::from_millis(1_795_514_400_000),
    }
}

#[cfg(test)]
async fn answered(answer: Answer) -> (Result<Done, ActionError>, Vec<Call>) {
    let receiver = Receiver::start(vec![answer]).await;
    let ended = webhook(&receiver, "").execute(&request()).await;
    (ended, receiver.finish())
}

#[tokio::test]
async fn the_request_is_the_documented_one() {
    let (done, calls) = answered(Answer::Status(202, "", "queued\nfor you")).await;
    let done = done.unwrap();
    assert!(done.detail.ends_with(" answered 202: queuedfor you") && !done.dry_run, "{done:?}");
    let call = &calls[0];
    assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", "/hook"));
    for (name, value) in [
        ("content-type", "application/json"),
        ("idempotency-key", "01KBHV0000ABCDEFGHJKMNPQRS/rollback"),
        ("vouch-attempt", "2"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        assert_eq!(call.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    let signature = &call.headers["vouch-signature"];
    assert!(signature.starts_with("t=1795514400,v1="), "{signature}");
    assert!(vouch_notifier::action::verify(&"s3cret".into(), signature, &call.body));
    golden("webhook_rollback.json", &call.body);
}

#[cfg(test)]
/// A missing file is written, and the test fails so that it is committed.
fn golden(file: &str, body: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file);
    if !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, body).unwrap();
        panic!("{} was missing and has been written: look at it and commit it", path.display());
    }
    let released = std::fs::read_to_string(&path).unwrap();
    assert_eq!(String::from_utf8_lossy(body), released, "the body is written differently now");
}

#[tokio::test]
async fn each_answer_is_understood() {
    let seconds = |s| Some(Duration::from_secs(s));
    let dated = "retry-after: Tue, 24 Nov 2026 10:00:07 GMT\r\ndate: Tue, 24 Nov 2026 10:00:00 GMT\r\n";
    for (status, headers, expected) in [
        (200, "", None),
        (202, "", None),
        (301, "location: https://elsewhere.example/\r\n", Some((false, Effect::None, None))),
        (400, "", Some((false, Effect::None, None))),
        (401, "", Some((false, Effect::None, None))),
        (404, "", Some((false, Effect::None, None))),
        (408, "", Some((true, Effect::None, None))),
        (409, "", Some((false, Effect::None, None))),
        (422, "", Some((false, Effect::None, None))),
        (429, "retry-after: 7\r\n", Some((true, Effect::None, seconds(7)))),
        (429, dated, Some((true, Effect::None, seconds(7)))),
        (429, "retry-after: soon\r\n", Some((true, Effect::None, None))),
        (500, "", Some((true, Effect::Possible, None))),
        (502, "", Some((true, Effect::Possible, None))),
        (503, "", Some((true, Effect::Possible, None))),
        (503, "retry-after: 1\r\n", Some((true, Effect::None, seconds(1)))),
        (504, "", Some((true, Effect::Possible, None))),
    ] {
        let (ended, _) = answered(Answer::Status(status, headers, "")).await;
        let got = ended.err().map(|e| (e.retryable, e.effect, e.retry_after));
        assert_eq!(got, expected, "{status} {headers}");
    }
}

#[tokio::test]
async fn without_an_answer_it_may_have_been_carried_out() {
    for (answer, how) in [(Answer::Never, "did not answer in time"), (Answer::Reset, "without an answer")] {
        let error = answered(answer).await.0.unwrap_err();
        assert_eq!((error.retryable, error.effect), (true, Effect::Possible), "{error}");
        assert!(error.detail.contains(how) && !error.detail.contains("/hook"), "{error}");
    }
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_carried_out() {
    let receiver = Receiver::start(vec![]).await;
    let hook = webhook(&receiver, "");
    drop(receiver);
    tokio::task::yield_now().await;
    let mut ended = hook.execute(&request()).await;
    for _ in 0..50 {
        match &ended {
            Err(e) if e.effect == Effect::None => break,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        ended = hook.execute(&request()).await;
    }
    let error = ended.unwrap_err();
    assert_eq!((error.retryable, error.effect), (true, Effect::None), "{error}");
    assert!(error.detail.contains("could not be reached"), "{error}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_an_answer() {
    let done = answered(Answer::Endless).await.0.unwrap();
    assert!(done.detail.len() < 400, "{done:?}");
}

#[tokio::test]
async fn a_token_is_sent_and_no_signature_where_none_is_wanted() {
    let receiver = Receiver::start(vec![OK]).await;
    rustls::crypto::ring::default_provider().install_default().ok();
    let yaml = format!(
        "notifier: {{actions: [{{name: hook, type: webhook, url: '{}', unsigned: true, token: t0ken}}]}}",
        receiver.url()
    );
    let hook = settings(&yaml).actions[1].kind.build().unwrap();
    assert!(!format!("{hook:?}").contains("t0ken"));
    hook.execute(&ActionRequest { traceparent: None, ..request() }).await.unwrap();
    let calls = receiver.finish();
    assert_eq!(calls[0].headers["authorization"], "Bearer t0ken");
    assert!(
        !calls[0].headers.contains_key("vouch-signature") && !calls[0].headers.contains_key("traceparent")
    );
}

#[tokio::test]
async fn a_probe_asks_which_version_is_live() {
    let receiver = Receiver::start(vec![]).await;
    let hook = webhook(&receiver, &format!(", probe_url: '{}'", receiver.probe_url()));
    for (live, expected) in
        [("2.1", Probe::NotDone), ("2.0", Probe::Done), ("3.0", Probe::Done), ("", Probe::CannotTell)]
    {
        receiver.set_live(live);
        assert_eq!(hook.probe(&request()).await, expected, "{live}");
    }
    receiver.finish();
    assert_eq!(receiver.probes(), 4);
    assert_eq!(webhook(&receiver, "").probe(&request()).await, Probe::CannotTell, "nobody to ask");
    drop(receiver);
}
