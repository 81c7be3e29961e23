//! Every released message is a file in `golden/`, in JSON and in protobuf, and must be read and written for ever.

use crate::envelope::{self, Event};
use crate::{
    Deployment, DeploymentHost, DeploymentRecord, HostGroup, Name, Series, SeriesBatch, fixtures, v1,
};
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

fn name(s: &str) -> Name {
    Name::new(s).unwrap()
}

fn deployment() -> Deployment {
    let at = "2026-11-24T10:00:00Z".parse().unwrap();
    Deployment {
        previous_version: Some("2.0".into()),
        owner: Some("team-shop".into()),
        cluster: Some("eu-1".into()),
        workload: Some("shop/checkout".into()),
        occurred_at: Some(at),
        hosts: vec![DeploymentHost {
            name: "pod-1".into(),
            group: HostGroup::Test,
            switched_at: Some(at),
            restarted_at: vec![],
        }],
        verification: crate::VerificationRequest {
            template: Some("golden-signals".into()),
            strategy: Some(crate::Strategy::Rolling),
            duration: Some(std::time::Duration::from_secs(900)),
            baseline: vec![crate::Window::around(at, -60, 0).unwrap()],
            diluted: false,
            early_pass: None,
            extend_by: None,
        },
        source: Some("vouch verify".into()),
        ..Deployment::new(name("prod"), name("checkout"), name("2.1"))
    }
}

fn batch() -> SeriesBatch {
    let start: crate::Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
    SeriesBatch {
        environment: name("prod"),
        service: name("checkout"),
        source: "tenant".into(),
        window: crate::Window::around(start, 0, 3).unwrap(),
        resolution: std::time::Duration::from_secs(60),
        watermark: start.plus_minutes(3),
        is_final: false,
        revision: 1,
        part: 1,
        parts: 1,
        series: vec![Series {
            metric: "response_time".into(),
            host: Some("pod-1".into()),
            unit: "ms".into(),
            samples: vec![Some(12.5), None, Some(0.0)],
            query: "builtin:service.response.time:avg".into(),
            ..Series::default()
        }],
        errors: vec![crate::SourceError {
            metric: Some("cpu".into()),
            name: "missing_scope".into(),
            message: "give the token metrics.read".into(),
            retryable: false,
        }],
        collected_at: start.plus_minutes(5),
        verification_id: Some("01KBHV0000ABCDEFGHJKMNPQRS.1".into()),
        neighbours: vec![],
        problems: vec![],
        objectives: vec![],
        waits: vec![],
    }
}

fn batch_with_neighbours() -> SeriesBatch {
    let mut batch = batch();
    batch.neighbours = vec![crate::Neighbour {
        service: name("cart"),
        relation: crate::Relation::Unrelated,
        shares: vec!["orders-db".into()],
        deployed_at: Some(batch.window.start().plus_minutes(-600)),
        series: vec![Series { host: None, ..batch.series[0].clone() }],
    }];
    batch.problems = vec![crate::Problem {
        id: "P-2608338".into(),
        title: "Response time degradation".into(),
        root_cause: Some("orders-db".into()),
        elsewhere: true,
        started_at: batch.window.start(),
        ended_at: None,
        known_at: batch.window.start().plus_minutes(3),
    }];
    batch
}

fn log_batch() -> crate::LogBatch {
    let start: crate::Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
    let line = |offset: i64, level, content: &str| crate::LogLine {
        at: crate::Timestamp::from_millis(start.as_millis() + offset),
        level,
        content: content.into(),
        truncated: false,
        origin: 0,
    };
    let origin = crate::LogOrigin {
        host: Some("pod-1".into()),
        process: Some("PROCESS_GROUP_INSTANCE-0123456789ABCDEF".into()),
        pod: Some("pod-1".into()),
        machine: Some("node-7".into()),
        entity: Some("SERVICE-0123456789ABCDEF".into()),
        stream: Some("stdout".into()),
    };
    let gap = crate::LogGap { name: "line_limit".into(), message: "more than 2 lines a minute".into() };
    crate::LogBatch {
        environment: name("prod"),
        service: name("checkout"),
        source: "tenant".into(),
        window: crate::Window::around(start, 0, 1).unwrap(),
        revision: 1,
        part: 2,
        lines: vec![
            line(1_234, crate::LogLevel::Info, "order 17 taken"),
            line(59_000, crate::LogLevel::Error, "order 18 failed\n\tat shop.Checkout"),
        ],
        origins: vec![origin],
        end: Some(crate::LogEnd { state: crate::LogState::Partial(gap, 40), lines: 900 }),
        collected_at: start.plus_minutes(3),
    }
}

fn batch_with_waits() -> SeriesBatch {
    let batch = batch();
    let wait = crate::Wait {
        metric: "queue_length".into(),
        until: batch.window.end().plus_minutes(10),
        late_by: std::time::Duration::from_secs(600),
        is_missing: true,
    };
    SeriesBatch { waits: vec![wait], ..batch }
}

/// Reads both files and writes them again; a missing file is written, and the test fails so that it is committed.
fn check<M: Message + Default + Serialize + DeserializeOwned + PartialEq>(file: &str, message: &M) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let json = serde_json::to_string_pretty(message).unwrap() + "\n";
    for (path, bytes) in [
        (folder.join(format!("{file}.json")), json.into_bytes()),
        (folder.join(format!("{file}.bin")), message.encode_to_vec()),
    ] {
        if !path.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            panic!("{} was missing and has been written: look at it and commit it", path.display());
        }
        let released = std::fs::read(&path).unwrap();
        let read: M = if path.extension().is_some_and(|e| e == "json") {
            serde_json::from_slice(&released).unwrap()
        } else {
            M::decode(released.as_slice()).unwrap()
        };
        assert!(read == *message, "{} reads differently now", path.display());
        assert!(released == bytes, "{} is written differently now", path.display());
    }
}

fn verification() -> v1::Verification {
    let at = |minute| Some(crate::Timestamp::from_millis(1_795_514_400_000).plus_minutes(minute).into());
    v1::Verification {
        verification_id: "01KBHV0000ABCDEFGHJKMNPQRS.1".into(),
        state: v1::VerificationState::Final as i32,
        deployment: Some(deployment().into()),
        template: "golden-signals".into(),
        strategy: v1::Strategy::Rolling as i32,
        strategy_reason: "asked for".into(),
        baseline: vec![v1::Window { start: at(-120), end: at(0) }],
        verification: Some(v1::Window { start: at(0), end: at(15) }),
        deadline: at(22),
        opened_at: at(0),
        series_from: at(-1),
        traffic_at: at(0),
        settled: true,
        verdict: Some(fixtures::verdict().into()),
        duration: Some(pbjson_types::Duration { seconds: 900, nanos: 0 }),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        ..Default::default()
    }
}

#[test]
fn deployment_message() {
    check("deployment", &v1::Deployment::from(deployment()));
}

#[test]
fn series_batch_message() {
    check("series_batch", &v1::SeriesBatch::from(batch()));
}

#[test]
fn log_batch_message() {
    check("log_batch", &v1::LogBatch::from(log_batch()));
}

#[test]
fn series_batch_with_neighbours_message() {
    check("series_batch_with_neighbours", &v1::SeriesBatch::from(batch_with_neighbours()));
}

#[test]
fn verdict_with_objectives_message() {
    check("verdict_with_objectives", &v1::Verdict::from(fixtures::verdict_with_objectives()));
}

#[test]
fn series_batch_of_instances_message() {
    let mut batch = batch();
    let old = Series {
        host: Some("checkout-1".into()),
        version: Some("2.0".into()),
        group: Some(HostGroup::Control),
        item: Some("/cart/checkout".into()),
        ..batch.series[0].clone()
    };
    batch.series.push(old);
    check("series_batch_of_instances", &v1::SeriesBatch::from(batch));
}

#[test]
fn series_batch_with_waits_message() {
    check("series_batch_with_waits", &v1::SeriesBatch::from(batch_with_waits()));
}

#[test]
fn verdict_with_common_cause_message() {
    check("verdict_with_common_cause", &v1::Verdict::from(fixtures::verdict_with_common_cause()));
}

#[test]
fn verdict_message() {
    check("verdict", &v1::Verdict::from(fixtures::verdict()));
}

#[test]
fn verdict_with_settings_message() {
    check("verdict_with_settings", &v1::Verdict::from(fixtures::verdict_with_settings()));
}

#[test]
fn verdict_with_levels_message() {
    let reached = crate::Reached { evidence: 7.5, needed: 4.25, rollback_evidence: 7.5 };
    let verdict =
        crate::Verdict { levels: Some(fixtures::levels()), reached: Some(reached), ..fixtures::verdict() };
    check("verdict_with_levels", &v1::Verdict::from(verdict));
}

#[test]
fn verification_with_levels_record() {
    let levels = Some(fixtures::levels().into());
    check("verification_with_levels", &v1::Verification { levels, ..verification() });
}

#[test]
fn spending_record() {
    let id = "01KBHV0000ABCDEFGHJKMNPQRS/rollback";
    check("spending", &v1::Spending { expenses: vec![fixtures::expense(id).into()] });
}

#[test]
fn budget_answer() {
    let spent = fixtures::expense("01KBHV0000ABCDEFGHJKMNPQRS/rollback");
    let period = |days: i64| Some(pbjson_types::Duration { seconds: days * 86_400, nanos: 0 });
    let answer = v1::GetBudgetResponse {
        rollbacks: Some(v1::BudgetStanding {
            allowed: "1/90d".into(),
            period: period(90),
            expected: 0.75,
            exhausted: true,
            free_at: Some(spent.at.plus_minutes(90 * 1440).into()),
            spent: vec![spent.clone().into()],
            left: 0,
        }),
        pages: Some(v1::BudgetStanding {
            allowed: "1/7d".into(),
            period: period(7),
            expected: 0.5,
            left: 1,
            ..Default::default()
        }),
        levels: Some(fixtures::levels().into()),
        environments: vec![v1::BudgetEnvironment {
            environment: "prod".into(),
            deployments: 280,
            services: 12,
            expected_rollbacks: 0.75,
            expected_pages: 0.5,
            rollbacks: 1,
            pages: 0,
        }],
        at: Some(spent.at.into()),
    };
    check("budget", &answer);
}

#[test]
fn action_with_budget_message() {
    let budget = "the budget of rollbacks, 1/90d, is spent and free again at 2027-02-22T10:10:00Z".to_owned();
    let action = crate::Action { budget: Some(budget), ..fixtures::action() };
    check("action_with_budget", &v1::Action::from(action));
}

#[test]
fn progress_message() {
    let verdict = v1::Verdict::from(fixtures::verdict());
    check(
        "progress",
        &v1::Progress {
            verification_id: verdict.verification_id,
            deployment_id: verdict.deployment_id,
            service: "checkout".into(),
            environment: "prod".into(),
            version: "2.1".into(),
            minutes_seen: 4,
            minutes_total: 15,
            risk: 0.25,
            metrics: verdict.metrics,
            waiting_for: "minute 5: Dynatrace settles until 10:07:00Z".into(),
            updated_at: Some(crate::WireTimestamp { seconds: 1_795_514_760, nanos: 0 }),
            warnings: vec!["throttled: asked again in 5 s".into()],
        },
    );
}

#[test]
fn action_message() {
    check("action", &v1::Action::from(fixtures::action()));
}

#[test]
fn verification_record() {
    check("verification", &verification());
}

#[test]
fn deployment_record() {
    let at = "2026-11-24T10:00:00Z".parse().unwrap();
    let record = DeploymentRecord {
        deployment: deployment(),
        started_at: at,
        traffic_at: Some(at),
        verifications: 1,
        joins_until: at.plus_minutes(15),
    };
    check("deployment_record", &v1::DeploymentRecord::from(record));
}

#[test]
fn every_public_event_has_a_golden_file_and_opens() {
    fn opens<E: Event + PartialEq + std::fmt::Debug>(file: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{file}.json"));
        let body = std::fs::read(path).unwrap();
        assert_ne!(envelope::open::<E>(None, &body).unwrap(), E::default());
    }
    opens::<v1::Deployment>("deployment");
    opens::<v1::Verdict>("verdict");
    opens::<v1::Verdict>("verdict_with_settings");
    opens::<v1::Progress>("progress");
    opens::<v1::Action>("action");
}
