//! `vouch query` against the simulated tenant: a line of JSON for each series, and an exit code that says whether to use it.

use serde_json::Value;
use std::process::Output;
use vouch_tests::{TOKEN, Telemetry, World, program};

const RESPONSE_TIME: &str = "builtin:service.response.time:splitBy(\"dt.entity.service\"):avg";

/// A tenant, and a file with its token.
struct Tenant {
    world: World,
    url: String,
    folder: tempfile::TempDir,
}

impl Tenant {
    async fn start() -> Self {
        let world = World::start(Telemetry::Scenario("demo"), 1.0).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        std::fs::write(folder.path().join("wrong"), "dt0c01.WRONG.SECRET").unwrap();
        let url = world.dynatrace_url();
        Self { world, url, folder }
    }

    /// Runs a query over the ten minutes before the last three.
    async fn query(&self, token: &str, more: &[&str]) -> Output {
        let end = self.world.now().floor_minute().plus_minutes(-3);
        let (from, to) = (end.plus_minutes(-10).as_millis().to_string(), end.as_millis().to_string());
        let token = self.folder.path().join(token).display().to_string();
        let fixed = ["query", "--url", &self.url, "--token-file", &token, "--from", &from, "--to", &to];
        let arguments: Vec<String> = fixed.iter().chain(more).map(|a| (*a).to_owned()).collect();
        let run = move || {
            std::process::Command::new(program("vouch")).args(arguments).output().expect("vouch runs")
        };
        tokio::task::spawn_blocking(run).await.expect("it ends")
    }
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_prints_its_series_and_its_exit_code_says_whether_to_use_them() {
    let tenant = Tenant::start().await;
    let good = tenant
        .query("token", &["--metric", RESPONSE_TIME, "--entities", "type(SERVICE)", "--resolution", "1m"])
        .await;
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    let series = lines(&good);
    assert_eq!(series.len(), 2, "checkout and payment");
    for one in &series {
        assert_eq!((one["unit"].as_str(), one["resolution"].as_str()), (Some("ms"), Some("PT1M")), "{one}");
        assert_eq!(one["samples"].as_array().unwrap().len(), 10);
        let value = one["samples"][3][1].as_f64().unwrap();
        assert!((50.0..500.0).contains(&value), "milliseconds, not microseconds: {one}");
    }

    let table = tenant.query("token", &["--metric", RESPONSE_TIME, "--output", "table"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("PT1M a slot  [ms]"), "{table:?}");

    let nobody = tenant
        .query("token", &["--metric", RESPONSE_TIME, "--entities", "type(SERVICE),entityName.equals(nobody)"])
        .await;
    assert_eq!(nobody.status.code(), Some(5), "{nobody:?}");
    assert_eq!(lines(&nobody)[0]["refused"], "no_data");

    let wrong = tenant.query("wrong", &["--metric", RESPONSE_TIME]).await;
    assert_eq!(wrong.status.code(), Some(3), "{wrong:?}");
    let said: Value = serde_json::from_slice(&wrong.stderr).expect("JSON for a script");
    assert_eq!(said["error"]["name"], "unauthorized");
    assert!(wrong.stdout.is_empty() && !said.to_string().contains("SECRET"), "{said}");

    let missing = tenant.query("nowhere", &["--metric", RESPONSE_TIME]).await;
    assert_eq!(missing.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot be read"), "{missing:?}");
    let both = tenant.query("token", &["--metric", "a", "--dql", "b"]).await;
    assert_eq!(both.status.code(), Some(64));
}

/// What `vouch simulate` prints about itself: address, access token, platform token.
fn printed(child: &mut std::process::Child) -> Vec<String> {
    use std::io::BufRead as _;
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    output.lines().take(3).map(|line| line.unwrap().split_whitespace().last().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_tenant_answers_both_kinds_of_query_alike() {
    let mut child = std::process::Command::new(program("vouch"))
        .args(["simulate", "demo", "--listen", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let told = printed(&mut child);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, token: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, token).unwrap();
        path.display().to_string()
    };
    let (access, platform) = (file("access", &told[1]), file("platform", &told[2]));
    let query = |token: &str, what: &[&str]| {
        let fixed =
            ["query", "--url", &told[0], "--token-file", token, "--from", "now-20m/m", "--to", "now-10m/m"];
        std::process::Command::new(program("vouch")).args(fixed).args(what).output().expect("vouch runs")
    };
    let selector = "builtin:service.response.time:splitBy(\"dt.entity.service\"):avg";
    let dql = "timeseries avg(dt.service.request.response_time), by:{dt.entity.service}, interval:1m";
    let classic = query(&access, &["--metric", selector]);
    let mirrored = query(&platform, &["--metric", selector]);
    let grail = query(&platform, &["--dql", dql]);
    child.kill().unwrap();
    child.wait().unwrap();
    for output in [&classic, &mirrored, &grail] {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let samples = |output: &Output| -> Vec<(Value, Value)> {
        let mut all: Vec<_> = lines(output)
            .into_iter()
            .map(|one| (one["dimensions"]["dt.entity.service"].clone(), one["samples"].clone()))
            .collect();
        all.sort_by_key(|(service, _)| service.to_string());
        all
    };
    assert_eq!(samples(&classic), samples(&mirrored));
    let (classic, grail) = (samples(&classic), samples(&grail));
    assert_eq!(classic.len(), grail.len());
    for ((service, one), (_, other)) in classic.iter().zip(&grail) {
        let rows = |samples: &Value| samples.as_array().unwrap().clone();
        for (a, b) in rows(one).iter().zip(rows(other)) {
            assert_eq!(a[0], b[0], "{service}: the same slots");
            let near = a[1].as_f64().zip(b[1].as_f64()).is_none_or(|(a, b)| (a - b).abs() < 1e-6 * a.abs());
            assert!(near, "{service}: {a} {b}");
        }
    }
}
