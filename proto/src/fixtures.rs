//! Messages that tests and golden files share.

use crate::spending::Expense;
use crate::verdict::{Cause, MetricResult, Verdict};
use crate::{
    Action, ActionOutcome, Classification, CommonCause, Counted, LeftOut, Levels, Limit, MetricSettings,
    MinimumEffect, Name, OnNoData, Outcome, Purpose, Sensitivity, Strategy, Timestamp, When, Window, Witness,
};
use std::time::Duration;

fn name(s: &str) -> Name {
    Name::new(s).expect("a valid name")
}

fn start() -> Timestamp {
    "2026-11-24T10:00:00Z".parse().expect("an instant")
}

pub(crate) fn verdict() -> Verdict {
    Verdict {
        verification_id: "01KBHV0000ABCDEFGHJKMNPQRS.1".into(),
        deployment_id: "01KBHV0000ABCDEFGHJKMNPQRS".into(),
        revision: 0,
        outcome: Outcome::Fail,
        rollback_grade: true,
        cause: Cause::Regression,
        data_final: true,
        risk: 1.0,
        reason: "response_time on checkout is +38 % over what was expected since minute 2".into(),
        metrics: vec![MetricResult {
            metric: "response_time".into(),
            host: "*".into(),
            classification: Classification::High,
            risk: 1.0,
            score: 9.25,
            reason: "+38 % since minute 2".into(),
            effect: Some(0.38),
            since_minute: Some(2),
            unit: "ms".into(),
            settings: None,
            fail_fast: false,
            level: None,
            interval: None,
            placebo: 0.0,
        }],
        judge_version: "1".into(),
        template: "golden-signals".into(),
        strategy: Strategy::Previous,
        strategy_reason: "no control hosts were named".into(),
        baseline: vec![Window::around(start(), -180, 0).expect("a window")],
        verification: Some(Window::around(start(), 0, 15).expect("a window")),
        service: name("checkout"),
        environment: name("prod"),
        version: name("2.1"),
        previous_version: Some("2.0".into()),
        owner: Some("team-shop".into()),
        cluster: Some("eu-1".into()),
        workload: Some("shop/checkout".into()),
        decided_at: start().plus_minutes(9),
        failed_at_minute: Some(7),
        usable_minutes: 7,
        transient: false,
        sensitivity: None,
        passed_at_minute: None,
        diluted_share: None,
        smallest_effects: Vec::new(),
        levels: None,
        reached: None,
        common_cause: None,
        left_out: Vec::new(),
        problems: Vec::new(),
        objectives: Vec::new(),
    }
}

/// A verdict of a template with settings, which failed by a limit.
pub(crate) fn verdict_with_settings() -> Verdict {
    let mut verdict = Verdict { sensitivity: Some(Sensitivity::Low), rollback_grade: false, ..verdict() };
    let limit = Limit { absolute: Some(2000.0), percent: None, when: When::AfterInARow(3) };
    verdict.metrics[0].fail_fast = true;
    verdict.metrics[0].settings = Some(MetricSettings {
        minimum_effect: MinimumEffect { relative: Some(0.1), absolute: Some(20.0) },
        sensitivity: Some(Sensitivity::High),
        critical: true,
        muted: false,
        weight: 2.0,
        group: Some("latency".into()),
        fail_fast: Some(limit),
        ignore: Some(Limit { percent: Some(5.0), when: When::After(3), ..limit }),
        on_no_data: Some(OnNoData::Fail),
    });
    verdict
}

/// A verdict that a shared database bars from being a Fail.
/// One with what the source itself says of the service.
pub(crate) fn verdict_with_objectives() -> Verdict {
    let at: crate::Timestamp = crate::Timestamp::from_millis(1_764_410_400_000);
    Verdict {
        problems: vec![crate::Problem {
            id: "P-1".into(),
            title: "Failure rate increase".into(),
            root_cause: Some("checkout".into()),
            elsewhere: false,
            started_at: at,
            ended_at: None,
            known_at: at.plus_minutes(2),
        }],
        objectives: vec![crate::Objective {
            id: "a1".into(),
            name: "availability".into(),
            target: 99.5,
            warning: Some(99.8),
            reached: Some(99.25),
            error_budget: Some(-0.25),
            error: None,
            timeframe: crate::Window::new(at.plus_minutes(-60), at).ok(),
            told_at: at,
        }],
        ..verdict()
    }
}

pub(crate) fn verdict_with_common_cause() -> Verdict {
    let witness = |service: &str| Witness {
        service: service.into(),
        metric: "response_time".into(),
        effect: 0.5,
        since_minute: 3,
    };
    Verdict {
        outcome: Outcome::Inconclusive,
        rollback_grade: false,
        cause: Cause::CommonCause,
        risk: 0.75,
        failed_at_minute: None,
        common_cause: Some(CommonCause {
            text: "2 of 2 other services that call orders-db degrade alike".into(),
            witnesses: vec![witness("cart"), witness("stock")],
            asked: 2,
            shares: Some("orders-db".into()),
            problems: vec!["P-2608338".into()],
        }),
        left_out: vec![LeftOut {
            window: Window::around(start(), -60, -45).expect("a window"),
            why: "2.0 failed and was rolled back".into(),
        }],
        ..verdict()
    }
}

pub(crate) fn action() -> Action {
    Action {
        action_id: "01KBHV0000ABCDEFGHJKMNPQRS/rollback".into(),
        deployment_id: "01KBHV0000ABCDEFGHJKMNPQRS".into(),
        verification_id: "01KBHV0000ABCDEFGHJKMNPQRS.1".into(),
        service: name("checkout"),
        environment: name("prod"),
        version: name("2.1"),
        previous_version: Some("2.0".into()),
        owner: Some("team-shop".into()),
        cluster: None,
        workload: None,
        name: Some("undo".into()),
        kind: Some("webhook".into()),
        purpose: Purpose::Rollback,
        outcome: ActionOutcome::Done,
        dry_run: false,
        rule: "fail-rolls-back".into(),
        detail: "the receiver answered 200".into(),
        attempts: 1,
        verdict_outcome: Outcome::Fail,
        verdict_revision: 0,
        verdict_reason: "response_time on checkout is +38 %".into(),
        finished_at: start().plus_minutes(10),
        budget: None,
    }
}

pub(crate) fn levels() -> Levels {
    Levels {
        fail: 4.25,
        fail_at_end: 1.75,
        rollback: 6.8,
        fail_rate: 0.0142,
        rollback_rate: 0.00111 / 1.5,
        counted: Some(Counted { deployments: 280, services: 12, over: Duration::from_secs(28 * 24 * 3600) }),
        rollbacks: Some("1/90d".into()),
        pages: Some("1/7d".into()),
    }
}

pub(crate) fn expense(id: &str) -> Expense {
    Expense {
        id: id.into(),
        deployment_id: "01KBHV0000ABCDEFGHJKMNPQRS".into(),
        verdict: ("01KBHV0000ABCDEFGHJKMNPQRS.1".into(), 0),
        service: "checkout".into(),
        environment: "prod".into(),
        version: "2.1".into(),
        at: start().plus_minutes(10),
        done: true,
    }
}
