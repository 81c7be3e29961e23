//! `kill -9` of the separate binary at any point between claim and record: never more than one rollback.
//! `VOUCH_KILLS` says how often it is killed in each test.

#[cfg(test)]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::receiver::{Answer, Receiver};
use support::{Bench, Server, verdict};
use vouch_proto::{Action, ActionOutcome, Outcome, Purpose};

#[cfg(test)]
fn kills() -> usize {
    std::env::var_os("VOUCH_KILLS")
        .map_or(20, |n| n.to_string_lossy().parse().expect("VOUCH_KILLS is a number"))
}

#[cfg(test)]
fn spawn(settings: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vouch-notifier"));
    command.args(["--health-listen", "127.0.0.1:0", "--settings"]).arg(settings);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[cfg(test)]
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[cfg(test)]
/// Kills the binary once a verdict, lets one last process finish, and answers the rollbacks' records and calls by key.
async fn ends(more: &str) -> (Vec<Action>, BTreeMap<String, usize>) {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let receiver = Receiver::always(Answer::Slowly(Duration::from_millis(15))).await;
    receiver.follow_calls();
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("vouch.yaml");
    let more = more.replace("PROBE", &receiver.probe_url());
    let yaml = format!(
        "nats: {{url: '{}'}}\nnotifier:\n  lease: 1s\n  actions: [{{name: undo, type: webhook, url: '{}', \
         secret: x, timeout: 500ms{more}}}]\n  rollback: {{action: undo, default: act}}\n",
        server.url(),
        receiver.url()
    );
    std::fs::write(&settings, yaml).unwrap();
    for i in 0..kills() {
        let (child, calls) = (spawn(&settings), receiver.calls().len());
        let verdict = verdict(&format!("d{i}"), Outcome::Fail);
        if i % 3 == 0 {
            // Handled as soon as it starts: killed somewhere on the way.
            bench.publish(&verdict).await;
            let start = Duration::from_millis(20 + 7 * u64::try_from(i).unwrap() % 120);
            tokio::time::sleep(start).await;
        } else {
            bench.publish(&verdict).await;
            receiver.wait_for(calls + 1).await;
            // Between act and record, from the middle of the call to well after its answer.
            tokio::time::sleep(Duration::from_millis(u64::try_from(i % 10).unwrap() * 3)).await;
        }
        kill(child);
    }
    let last = spawn(&settings);
    let audit = bench.settled().await;
    kill(last);
    let mut calls = BTreeMap::new();
    for call in receiver.finish() {
        *calls.entry(call.headers["idempotency-key"].clone()).or_default() += 1;
    }
    let unknown = audit.iter().filter(|a| a.outcome == ActionOutcome::Unknown).count();
    let alerts = audit.iter().filter(|a| a.rule == "rollback-unknown-alerts").count();
    assert_eq!(unknown, alerts, "every unknown end is told");
    let rollbacks: Vec<Action> = audit.into_iter().filter(|a| a.purpose == Purpose::Rollback).collect();
    assert_eq!(rollbacks.len(), kills(), "one record a verdict");
    let done = rollbacks.iter().filter(|a| a.outcome == ActionOutcome::Done).count();
    println!("{} kills{more}: {done} done, {unknown} unknown, calls by key {calls:?}", kills());
    (rollbacks, calls)
}

#[tokio::test]
async fn with_nobody_to_ask_it_is_called_at_most_once() {
    let (rollbacks, calls) = ends("").await;
    assert!(calls.values().all(|n| *n <= 1), "{calls:?}");
    for rollback in rollbacks {
        match rollback.outcome {
            ActionOutcome::Done => assert_eq!(calls.get(&rollback.action_id), Some(&1)),
            ActionOutcome::Unknown => {}
            ActionOutcome::Skipped | ActionOutcome::Failed { .. } => panic!("{rollback:?}"),
        }
    }
}

#[tokio::test]
async fn with_a_probe_it_is_called_exactly_once() {
    let (rollbacks, calls) = ends(", probe_url: 'PROBE', probe_after: 10ms").await;
    assert!(rollbacks.iter().all(|a| a.outcome == ActionOutcome::Done), "{rollbacks:?}");
    assert_eq!(calls.len(), kills());
    assert!(calls.values().all(|n| *n == 1), "{calls:?}");
}

#[tokio::test]
async fn with_idempotency_keys_it_is_done_and_every_call_has_the_same_key() {
    let (rollbacks, calls) = ends(", idempotent: true").await;
    assert!(rollbacks.iter().all(|a| a.outcome == ActionOutcome::Done), "{rollbacks:?}");
    assert_eq!(calls.len(), kills(), "one key a deployment");
}
