//! `vouch` as a person or a pipeline calls it.

use serde_json::Value;
use std::process::{Command, Output};
use vouch_proto::{Outcome, v1};
use vouch_simulator::Effect;
use vouch_tests::{Telemetry, World, program};

fn vouch(arguments: &[&str]) -> Output {
    Command::new(program("vouch")).args(arguments).output().expect("vouch runs")
}

/// The same, while the test's own servers go on answering.
async fn vouch_beside(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let run = move || vouch(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_says_with_its_exit_code_how_it_ended() {
    let world = World::start(Telemetry::Scenario("demo"), 120.0).await;
    let services = world.spawn_all().await;
    let server = services.analyzer.grpc_url();
    let common = ["verify", "--environment", "prod", "--server", &server, "--duration", "10m"];
    let call = |more: &[&'static str]| [common.to_vec(), more.to_vec()].concat();

    let pass = vouch_beside(&call(&["--service", "checkout", "--version", "1.1.0"])).await;
    assert_eq!(pass.status.code(), Some(0), "{}", text(&pass.stderr));
    assert!(text(&pass.stdout).starts_with("PASS  checkout 1.1.0"), "{}", text(&pass.stdout));
    assert!(text(&pass.stderr).contains("/10 minutes"), "plain lines in a pipe: {}", text(&pass.stderr));

    let at = world.now().floor_minute().as_millis();
    world.simulator.deploy("payment", "2.4.0", at, Effect::ErrorStep { rate: 0.2 }).unwrap();
    let fail = vouch_beside(&call(&["--service", "payment", "--version", "2.4.0", "--output", "json"])).await;
    assert_eq!(fail.status.code(), Some(1), "{}", text(&fail.stderr));
    let verdict: Value = serde_json::from_slice(&fail.stdout).expect("canonical JSON and nothing else");
    assert_eq!(verdict["outcome"], "OUTCOME_FAIL");
    assert_eq!(verdict["metrics"][0]["metric"], "error_count");

    let at = world.now().floor_minute().as_millis();
    world.simulator.deploy("checkout", "1.2.0", at, Effect::MissingData).unwrap();
    let lenient = ["--service", "checkout", "--version", "1.2.0", "--on-inconclusive", "continue"];
    let silent = vouch_beside(&call(&lenient)).await;
    assert_eq!(silent.status.code(), Some(0), "{}", text(&silent.stderr));
    assert!(text(&silent.stdout).starts_with("INCONCLUSIVE"), "{}", text(&silent.stdout));
    assert!(text(&silent.stderr).contains("continues as asked"));

    let refused = vouch_beside(&call(&["--service", "", "--version", "1"])).await;
    assert_eq!(refused.status.code(), Some(64));
    assert!(text(&refused.stderr).contains("service: is empty"), "{}", text(&refused.stderr));
}

#[test]
fn wrong_arguments_are_64_and_help_is_0() {
    assert_eq!(vouch(&["verify"]).status.code(), Some(64));
    assert_eq!(vouch(&["verfy"]).status.code(), Some(64));
    let help = vouch(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Inconclusive"));
    let unknown = ["verify", "--service", "s", "--environment", "e", "--version", "v", "--duration", "soon"];
    let refused = vouch(&unknown);
    assert_eq!(refused.status.code(), Some(64));
    assert!(text(&refused.stderr).contains("30s, 5m"), "{}", text(&refused.stderr));
}

#[test]
fn judge_answers_every_line_and_names_the_malformed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cases.jsonl");
    let samples: Vec<u32> = (0..75).map(|i| 100 + i % 5).collect();
    let case = serde_json::json!({
        "id": "a", "kind": "previous", "interval_min": 1, "baseline": [[-60, 0]], "verification": [0, 15],
        "metrics": { "response_time": { "unit": "ms", "bad": "up", "role": "judged" } },
        "hosts": { "svc": { "group": "service", "switch": 0 } },
        "series": [{ "metric": "response_time", "host": "svc", "start": -60, "values": samples }],
    });
    std::fs::write(&file, format!("{case}\n{{broken\n{case}\n")).unwrap();
    let judged = vouch(&["judge", file.to_str().unwrap()]);
    assert_eq!(judged.status.code(), Some(4), "{}", text(&judged.stderr));
    let lines: Vec<Value> =
        text(&judged.stdout).lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["outcome"], &lines[0]["id"]), (&Value::from("pass"), &Value::from("a")));
    assert_eq!((&lines[1]["outcome"], &lines[1]["id"]), (&Value::from("error"), &Value::Null));
    assert_eq!(lines[1]["line"], 2);
    assert_eq!(lines[0], lines[2]);
    assert_eq!(vouch(&["judge", "/nowhere.jsonl"]).status.code(), Some(66));
}

#[test]
fn check_names_every_wrong_setting_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vouch.yaml");
    std::fs::write(
        &file,
        "nats: {url: '::'}\nlog: {format: xml}\ncollector: {url: x, settle: never}\n\
         analyzer: {deadline_grace: 1s}\nnotifier: {rollback: {default: maybe}}\noops: 1\n",
    )
    .unwrap();
    let checked = vouch(&["check", "--settings", file.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(64));
    let said = text(&checked.stderr);
    for field in [
        "nats.url",
        "log.format",
        "collector.url",
        "collector.settle",
        "collector.token_file",
        "analyzer.deadline_grace",
        "notifier.rollback.default",
        "oops",
    ] {
        assert!(said.contains(&format!("{field}: ")), "{field} in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_connects_and_names_what_does_not_answer() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let file = world.settings("check", 7070);
    let check = async |file: &std::path::Path| {
        let checked = vouch_beside(&["check", "--connect", "--settings", file.to_str().unwrap()]).await;
        (checked.status.code(), text(&checked.stdout) + &text(&checked.stderr))
    };
    let (code, said) = check(&file).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nats       server: ok") && said.contains("dynatrace  token: ok"), "{said}");

    let settings = std::fs::read_to_string(&file).unwrap();
    let wrong = vouch_tests::TOKEN.replace('T', "X");
    std::fs::write(&file, settings.replace(vouch_tests::TOKEN, &wrong)).unwrap();
    let (code, said) = check(&file).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("dynatrace  token: FAILED") && said.contains("token_file"), "{said}");
    assert!(!said.contains(&wrong), "the token is never shown");

    std::fs::write(&file, settings.replace(&world.nats.url(), "nats://127.0.0.1:1")).unwrap();
    let (code, said) = check(&file).await;
    assert_eq!(code, Some(3), "{said}");
    let remedy = "nats       server: FAILED nats.url: no NATS server answers at 127.0.0.1:1; start one";
    assert!(said.contains(remedy) && said.contains("dynatrace  token: ok"), "{said}");
}

#[test]
fn the_demo_shows_a_pass_a_fail_and_a_rollback_and_ends_clean() {
    let demo = vouch(&["demo", "--speed", "120"]);
    let said = text(&demo.stdout);
    assert_eq!(demo.status.code(), Some(0), "{said}{}", text(&demo.stderr));
    for part in ["PASS  checkout 1.1.0", "FAIL  payment 2.4.0", "rolled payment back", "called 1 time(s)"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_kept_explained_and_replays_to_the_same_verdict() {
    let world = World::start(Telemetry::Scenario("demo"), 120.0).await;
    let services = world.spawn_all().await;
    let at = world.now().floor_minute().as_millis();
    world.simulator.deploy("payment", "2.4.0", at, Effect::LatencyStep { factor: 2.0 }).unwrap();
    let mut client = services.client().await;
    let started = client.start(world.request("payment", "2.4.0", 20)).await.unwrap().into_inner();
    let id = started.verification_id;
    let early =
        client.get_evidence(v1::GetEvidenceRequest { verification_id: id.clone() }).await.unwrap_err();
    assert_eq!(early.code(), tonic::Code::FailedPrecondition, "{early}");
    let verdict = world.topics().await.verdict(&id).await;
    assert_eq!(verdict.outcome, Outcome::Fail, "{}", verdict.reason);

    let request = v1::GetEvidenceRequest { verification_id: id.clone() };
    let evidence = client.get_evidence(request).await.unwrap().into_inner();
    let worst = &evidence.units[0];
    assert_eq!(worst.metrics[0], verdict.metrics[0].metric);
    assert!(worst.query.starts_with("builtin:service.response.time"), "{}", worst.query);
    let last = worst.steps.last().unwrap();
    assert!(last.observed.unwrap() > 1.3 * last.expected.unwrap(), "{last:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (bundle, svg) = (path("bundle.jsonl"), path("why.svg"));
    let server = services.analyzer.grpc_url();
    let explained =
        vouch_beside(&["explain", &id, "--server", &server, "--bundle", &bundle, "--svg", &svg]).await;
    let said = text(&explained.stdout);
    assert_eq!(explained.status.code(), Some(0), "{said}{}", text(&explained.stderr));
    assert!(said.starts_with(&format!("FAIL: {}", verdict.reason)), "{said}");
    for part in [id.as_str(), "minutes from the deployment on", "SAX word", "query  builtin:service"] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    assert!(std::fs::read_to_string(&svg).unwrap().contains("deployment"));

    let judged = vouch_beside(&["judge", &bundle]).await;
    let line: serde_json::Value = serde_json::from_slice(&judged.stdout).unwrap();
    assert_eq!(line["outcome"], "fail");
    assert_eq!(line["reason"], verdict.reason);
    assert_eq!(line["failed_at_minute"], u64::from(verdict.failed_at_minute.unwrap()));
    assert_eq!(line["metrics"][0]["risk"], 1.0);
    let unknown = vouch_beside(&["explain", "01KADX2V3S0000000000000000.1", "--server", &server]).await;
    assert_eq!(unknown.status.code(), Some(3));
    assert!(text(&unknown.stderr).contains("there is no verification"), "{}", text(&unknown.stderr));
}
