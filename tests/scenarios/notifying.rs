//! `vouch notify`: a sample to a channel, and what came back, as a person sees it.

use axum::http::StatusCode;
use axum::{Router, extract::State, routing::post};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use vouch_tests::program;

/// A channel that answers every call alike, and keeps what came.
#[derive(Clone)]
struct Channel {
    status: StatusCode,
    body: &'static str,
    seen: Arc<Mutex<Vec<serde_json::Value>>>,
}

async fn took(State(channel): State<Channel>, body: String) -> (StatusCode, &'static str) {
    channel.seen.lock().unwrap().push(serde_json::from_str(&body).unwrap());
    (channel.status, channel.body)
}

async fn channel(status: u16, body: &'static str) -> (String, Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let channel = Channel { status: StatusCode::from_u16(status).unwrap(), body, seen: Arc::default() };
    let router = Router::new().fallback(post(took)).with_state(channel.clone());
    tokio_util::task::TaskTracker::new().spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, channel)
}

async fn notify(settings: &Path, name: &str) -> Output {
    let mut command = Command::new(program("vouch"));
    command.args(["notify", "--test", name, "--settings"]).arg(settings);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_sent_from_its_beginning_to_its_end() {
    let (url, good) = channel(202, "").await;
    let (refusing, _) = channel(404, "no_service").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vouch.yaml");
    let key = "0123456789abcdef0123456789abcdef";
    std::fs::write(
        &file,
        format!(
            "collector: {{url: 'https://abc12345.live.dynatrace.com'}}\nnotifier:\n  actions:\n  \
             - {{name: pager, type: pagerduty, url: '{url}', routing_key: {key}}}\n  \
             - {{name: chat, type: slack, url: '{refusing}/services/x'}}\n  \
             - {{name: undo, type: webhook, url: '{url}', unsigned: true}}\n  \
             rollback: {{action: undo, default: act}}\n  alert: {{actions: [pager, chat]}}\n"
        ),
    )
    .unwrap();
    let sent = notify(&file, "pager").await;
    assert_eq!(sent.status.code(), Some(0), "{}", text(&sent.stderr));
    let said = text(&sent.stdout);
    assert!(said.contains("pager (pagerduty) opens: ok") && said.contains("resolves: ok"), "{said}");
    assert!(!said.contains(key) && said.lines().count() == 2, "{said}");
    let seen = good.seen.lock().unwrap().clone();
    let actions: Vec<&str> = seen.iter().map(|event| event["event_action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["trigger", "resolve"], "nobody is left paged");
    assert_eq!(seen[0]["dedup_key"], seen[1]["dedup_key"]);
    assert_eq!(seen[0]["payload"]["severity"], "info");
    assert!(seen[0]["payload"]["summary"].as_str().unwrap().contains("TEST"), "{}", seen[0]);

    let refused = notify(&file, "chat").await;
    assert_eq!(refused.status.code(), Some(3));
    let said = text(&refused.stdout);
    assert!(
        said.contains("chat (slack) opens: FAILED http://127.0.0.1:")
            && said.contains("answered 404: no_service"),
        "{said}"
    );
    assert!(!said.contains("/services/x"), "{said}");

    for (name, part) in [
        ("undo", "is the action that rolls back; no test is sent to it"),
        ("nobody", "no action is called `nobody`; the settings have log, pager, chat, undo"),
    ] {
        let refused = notify(&file, name).await;
        assert_eq!(refused.status.code(), Some(64), "{name}");
        assert!(text(&refused.stderr).contains(part), "{}", text(&refused.stderr));
    }
    assert_eq!(good.seen.lock().unwrap().len(), 2, "nothing was rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_named_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vouch.yaml");
    std::fs::write(
        &file,
        "notifier: {actions: [{name: a, type: pager}, {name: b, type: teams, url: 'http://x.example'}, \
         {name: c, type: slack, token_file: /nowhere, channel: C1}, \
         {name: d, type: webhook, url: 'https://x.example', unsigned: true, body: '{{ nope }}'}]}",
    )
    .unwrap();
    let refused = notify(&file, "a").await;
    assert_eq!(refused.status.code(), Some(64));
    let said = text(&refused.stderr);
    for part in [
        "notifier.actions[0].type: unknown value `pager`, expected one of cdevents, ",
        "notifier.actions[1].url: to x.example is not encrypted",
        "notifier.actions[2].token_file: /nowhere cannot be read",
        "notifier.actions[3].body: does not render: line 1: undefined value",
    ] {
        assert!(said.contains(part), "{part}\nis not in\n{said}");
    }
}
