//! Recorded series through the whole path give what `vouch judge` gives: outcome, minute and classifications.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;
use vouch_analyzer::case::Case;
use vouch_analyzer::judge::{JudgeSettings, judge};
use vouch_proto::deployment::wire_duration;
use vouch_proto::{Classification, Outcome, Strategy, Timestamp, Verdict, Window, v1};
use vouch_tests::{ENVIRONMENT, Telemetry, World};

/// Where recorded cases lie beside a checkout; a clone has none.
const CASES: &str = "../../shared/bench/dev.jsonl.gz";
/// How many of them go through the whole path every day, evenly spread over the real ones; `VOUCH_REPLAY=all` takes all.
const COUNT: usize = 24;

/// How each recorded metric is asked for: name, aggregation, unit, direction, more.
const METRICS: [(&str, &str, &str, &str, &str); 5] = [
    ("response_time", "avg", "ms", "increase", ""),
    ("response_time_p95", "avg", "ms", "increase", ""),
    ("error_count", "value", "1/min", "increase", ", exposure: throughput"),
    ("throughput", "value", "1/min", "decrease", ""),
    ("cpu", "avg", "'%'", "increase", ""),
];

/// Name of the template for a case: it has the metrics that the case has.
fn template_of(case: &Case) -> String {
    let has = |name: &&(&str, &str, &str, &str, &str)| case.metrics.contains_key(name.0);
    METRICS.iter().filter(has).map(|m| m.0).collect::<Vec<_>>().join("+")
}

fn templates(cases: &[(String, Case)]) -> String {
    let names: BTreeSet<String> = cases.iter().map(|(_, case)| template_of(case)).collect();
    let mut yaml = "templates:\n".to_owned();
    for name in names {
        yaml += &format!("- name: {name}\n  by_host: true\n  days_before: []\n  metrics:\n");
        for (metric, aggregation, unit, direction, more) in
            METRICS.iter().filter(|m| name.split('+').any(|n| n == m.0))
        {
            yaml += &format!(
                "  - {{name: {metric}, query: 'calc:service.{metric}', host_query: \
                 'calc:service.{metric}:splitBy(\"dt.entity.process_group_instance\"):{aggregation}', unit: {unit}, \
                 direction: {direction}{more}}}\n"
            );
        }
    }
    yaml
}

/// The real cases: (line of the file, parsed by the judge's reader).
fn real_cases(path: &Path) -> Vec<(String, Case)> {
    let file = std::fs::File::open(path).expect("the cases");
    let reader = BufReader::new(flate2::read::MultiGzDecoder::new(file));
    let lines = reader.lines().map(|line| line.expect("a line"));
    let real: Vec<String> = lines.filter(|line| line.contains("\"source\":\"real_")).collect();
    assert!(real.len() > COUNT, "the file holds real cases");
    let count = if std::env::var_os("VOUCH_REPLAY").is_some_and(|v| v == "all") { real.len() } else { COUNT };
    let every = (real.len() / count).max(1);
    let picked = real.into_iter().step_by(every).take(count);
    picked.map(|line| (line.clone(), Case::from_json(&line).expect("a valid case"))).collect()
}

fn request(case: &Case, at: Timestamp) -> v1::StartRequest {
    let minutes = u64::try_from(case.verification[1]).expect("a length");
    let hosts = case.hosts.iter().map(|(name, host)| {
        let group = match host.group {
            vouch_analyzer::case::HostGroup::Service => v1::HostGroup::Service,
            vouch_analyzer::case::HostGroup::Control => v1::HostGroup::Control,
            vouch_analyzer::case::HostGroup::Test => v1::HostGroup::Test,
        };
        v1::DeploymentHost {
            name: name.clone(),
            group: group as i32,
            switched_at: host.switch.map(|minute| at.plus_minutes(minute).into()),
            restarted_at: host.restarts.iter().map(|minute| at.plus_minutes(*minute).into()).collect(),
        }
    });
    let window = |w: &[i64; 2]| v1::Window::from(Window::around(at, w[0], w[1]).expect("a window"));
    v1::StartRequest {
        service: case.id.clone(),
        environment: ENVIRONMENT.to_owned(),
        version: "2".to_owned(),
        started_at: Some(at.into()),
        hosts: hosts.collect(),
        verification: Some(v1::VerificationRequest {
            template: template_of(case),
            strategy: Strategy::to_wire(case.strategy),
            duration: Some(wire_duration(Duration::from_secs(minutes * 60))),
            baseline: case.baseline.iter().map(window).collect(),
            diluted: case.diluted.is_some(),
            ..Default::default()
        }),
        requested_by: "test".to_owned(),
        ..Default::default()
    }
}

/// What must agree.
type Essence = (Outcome, Option<i64>, BTreeMap<(String, String), Classification>);

fn offline(case: &Case) -> Essence {
    let judgement = judge(case, &JudgeSettings::default());
    let classes = judgement.metrics.iter().map(|m| ((m.metric.clone(), m.host.clone()), m.classification));
    (judgement.outcome.expect("an outcome"), judgement.failed_at_minute, classes.collect())
}

fn live(verdict: &Verdict) -> Essence {
    let classes = verdict.metrics.iter().map(|m| ((m.metric.clone(), m.host.clone()), m.classification));
    (verdict.outcome, verdict.failed_at_minute.map(i64::from), classes.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_cases_end_as_vouch_judge_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CASES);
    if !path.exists() {
        eprintln!("left out: {} is not there", path.display());
        return;
    }
    let cases = real_cases(&path);
    let at: Timestamp = "2026-11-24T10:00:00Z".parse().expect("an instant");
    let lines: Vec<String> = cases.iter().map(|(line, _)| line.clone()).collect();
    let replayed = lines.iter().map(|line| serde_json::from_str(line).expect("a case")).collect();
    let world = World::start(Telemetry::Replay(replayed, at), 60.0).await;
    let world = world
        .with_templates(&templates(&cases))
        .with_collector(&format!("token: {}, settle: 0s", vouch_tests::TOKEN));
    let services = world.spawn_all().await;
    world.wait_until(at).await;
    let mut client = services.client().await;
    let mut ids = Vec::new();
    for (_, case) in &cases {
        let started = client.start(request(case, at)).await.expect("started").into_inner();
        ids.push(started.verification_id);
    }
    let topics = world.topics().await;
    let mut wrong = Vec::new();
    for ((_, case), id) in cases.iter().zip(&ids) {
        let verdict = topics.verdict(id).await;
        let (expected, got) = (offline(case), live(&verdict));
        if expected != got {
            wrong.push(format!("{}: offline {expected:?}\n  live {got:?}\n  {}", case.id, verdict.reason));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
