//! The program: arguments, health check, a graceful end.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

const TOKEN: &str = "dt0c01.PROGRAM.SECRET";

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vouch-simulator"))
}

fn run(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = program().args(arguments).output().expect("the program starts");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().expect("an exit code"), text)
}

/// A running program; killed where a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program and waits until it says where it listens.
fn start(arguments: &[&str]) -> (Running, String) {
    let mut child = program().args(arguments).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let address =
        line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}")).to_owned();
    (Running(child), address)
}

fn terminate(mut child: Running) -> i32 {
    let sent = Command::new("kill").args(["-TERM", &child.0.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    child.0.wait().expect("it ends").code().expect("an exit code of its own")
}

#[tokio::test]
async fn serves_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let token = token.to_str().unwrap();
    let (child, address) = start(&["--listen", "127.0.0.1:0", "--token-file", token, "--speed", "60"]);
    assert_eq!(run(&["healthcheck", "--listen", &address]).0, 0);
    let variables = [("VOUCH_SIMULATOR_LISTEN", address.as_str()), ("VOUCH_SIMULATOR_TOKEN_FILE", token)];
    let probe = program().arg("healthcheck").envs(variables).status();
    assert!(probe.expect("the program starts").success(), "also by its variables");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = reqwest::Client::new()
        .get(format!("http://{address}/api/v2/metrics/query?metricSelector=builtin:service.response.time"))
        .header("Authorization", format!("Api-Token {TOKEN}"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(terminate(child), 0);
    let (code, text) = run(&["healthcheck", "--listen", &address]);
    assert_eq!(code, 1, "{text}");
    let cases = folder.path().join("cases.jsonl");
    std::fs::write(&cases, r#"{"id":"c","metrics":{"m":{"unit":"ms"}},"series":[]}"#).unwrap();
    let cases = cases.to_str().unwrap();
    let replay = ["--replay", cases, "--at", "2026-11-24T10:00:00Z", "--clock", "2026-11-24T10:30:00Z"];
    let (child, address) =
        start(&[&replay[..], &["--listen", "127.0.0.1:0", "--token-file", token]].concat());
    assert_eq!(run(&["healthcheck", "--listen", &address]).0, 0);
    assert_eq!(terminate(child), 0);
}

#[tokio::test]
async fn platform_tokens_and_oauth_clients() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, secret: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (token, client) = (file("token", "dt0s16.PROGRAM.SECRET"), file("client", "dt0s02.PROGRAM.SECRET"));
    let arguments =
        ["--listen", "127.0.0.1:0", "--platform-token-file", &token, "--oauth-secret-file", &client];
    let (child, address) = start(&arguments);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let form = "grant_type=client_credentials&client_id=dt0s02.PROGRAM&client_secret=dt0s02.PROGRAM.SECRET\
                &scope=storage:buckets:read storage:metrics:read";
    let answer = http.post(format!("http://{address}/sso/oauth2/token")).body(form).send().await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    for token in ["dt0s16.PROGRAM.SECRET", answer["access_token"].as_str().unwrap()] {
        let query = r#"{"query": "timeseries avg(dt.host.cpu.usage)", "requestTimeoutMilliseconds": 5000}"#;
        let call = http
            .post(format!("http://{address}/platform/storage/query/v1/query:execute"))
            .header("Authorization", format!("Bearer {token}"));
        assert_eq!(call.body(query).send().await.unwrap().status(), 200);
    }
    assert_eq!(terminate(child), 0);
    let wrong = file("wrong", "hunter2");
    for argument in ["--platform-token-file", "--oauth-secret-file"] {
        let (code, text) = run(&[argument, &wrong]);
        assert!(code == 64 && text.contains("has the form dt0s") && !text.contains("hunter2"), "{text}");
        let (code, text) = run(&[argument, "/nowhere"]);
        assert!(code == 64 && text.contains(&format!("{argument} /nowhere: cannot be read")), "{text}");
    }
}

#[test]
fn wrong_arguments_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let token = token.to_str().unwrap();
    for (arguments, part) in [
        (vec![], "--token-file"),
        (vec!["--token-file", "/nowhere"], "--token-file /nowhere: cannot be read"),
        (vec!["--token-file", token, "--speed", "0"], "above 0"),
        (vec!["--token-file", token, "--at", "yesterday"], "--at"),
        (
            vec!["--token-file", token, "--scenario", "party"],
            "--scenario party: is neither a name nor a file",
        ),
        (vec!["--token-file", token, "--replay", "/nowhere"], "--at"),
        (vec!["--token-file", token, "--replay", "/nowhere", "--at", "2026-11-24T10:00:00Z"], "/nowhere"),
        (vec!["--token-file", token, "--settle-ms=-5"], "settle_ms: -5"),
    ] {
        let (code, text) = run(&arguments);
        assert_eq!(code, 64, "{arguments:?}: {text}");
        assert!(text.contains(part) && !text.contains(TOKEN), "{arguments:?}: {text}");
    }
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "hunter2").unwrap();
    let (code, text) = run(&["--token-file", wrong.to_str().unwrap()]);
    assert!(code == 64 && text.contains("dt0c01.") && !text.contains("hunter2"), "{text}");
    let (code, text) = run(&["scenarios"]);
    assert!(code == 0 && text.lines().any(|l| l == "demo"), "{text}");
    assert_eq!(run(&["--help"]).0, 0);
}
