//! Deploying and rolling back while the simulator runs.

use crate::harness::{HOUR, Harness, MINUTE, START, message};
use serde_json::json;
use vouch_simulator::{Deploy, Effect, Rollout, Scenario, Simulator, WarmUp, instance_id, service_id};

async fn quiet(now: i64) -> Harness {
    let scenario = Scenario::named("demo").unwrap().without_deployments();
    Harness::new(Simulator::builder().scenario(scenario).start_ms(START), now).await
}

async fn latency(h: &Harness, from: i64, to: i64) -> f64 {
    let selector = format!(
        "builtin:service.response.time:filter(eq(\"dt.entity.service\",{})):median",
        service_id("payment")
    );
    let values = h.values(&selector, (START + from * MINUTE, START + to * MINUTE)).await;
    values.iter().flatten().sum::<f64>() / values.iter().flatten().count() as f64
}

#[tokio::test]
async fn a_deployment_lasts_until_it_is_rolled_back() {
    let h = quiet(START).await;
    h.handle.deploy("payment", "2.0.0", START + 10 * MINUTE, Effect::LatencyStep { factor: 2.0 }).unwrap();
    assert!(h.handle.rollback("payment").is_err(), "it has not begun");
    h.set_now(START + 20 * MINUTE);
    assert_eq!(h.handle.rollback("payment").unwrap(), "2.0.0");
    let error = h.handle.rollback("payment").unwrap_err().to_string();
    assert!(error.contains("no deployment that could be rolled back"), "{error}");
    h.set_now(START + HOUR);
    let (before, during, after) =
        (latency(&h, 0, 10).await, latency(&h, 10, 20).await, latency(&h, 20, 30).await);
    assert!((during / before / 2.0 - 1.0).abs() < 0.1, "{before} {during}");
    assert!((after / before - 1.0).abs() < 0.1, "{before} {after}");
    let events = h.get("/api/v2/events", &[], 200).await;
    assert_eq!(events["events"][0]["title"], "Deploy payment 2.0.0");
    h.end().await;
}

#[tokio::test]
async fn over_http() {
    let h = quiet(START + 10 * MINUTE).await;
    let body = json!({
        "service": "payment", "version": "2.0.0", "effect": {"kind": "latency_step", "factor": 3.0},
        "rollout": {"kind": "canary", "hosts": ["payment-5c4b-a"]}, "warm_up": {"factor": 1.2, "minutes": 1},
    });
    let deployed = h.post("/_simulator/deploy", body, 201).await;
    assert_eq!(deployed["at_ms"], START + 10 * MINUTE, "now, unless said otherwise");
    h.set_now(START + 20 * MINUTE);
    let back = h.post("/_simulator/rollback", json!({"service": "payment"}), 200).await;
    assert_eq!(back["rolled_back_version"], "2.0.0");
    h.post("/_simulator/rollback", json!({"service": "payment"}), 409).await;
    assert!(
        message(&h.post("/_simulator/rollback", json!({"service": "x"}), 404).await)
            .contains("checkout, payment")
    );
    for (effect, rollout) in [
        (json!({"kind": "latency_step", "factor": -1}), json!({"kind": "all"})),
        (json!({"kind": "healthy"}), json!({"kind": "canary", "hosts": ["nobody"]})),
        (json!({"kind": "healthy"}), json!({"kind": "rolling", "every_minutes": -2})),
    ] {
        let body = json!({"service": "payment", "version": "3", "effect": effect, "rollout": rollout});
        h.post("/_simulator/deploy", body, 400).await;
    }
    let health = h.get("/_simulator/health", &[], 200).await;
    assert_eq!(health, json!({"status": "ok", "now_ms": START + 20 * MINUTE}));
    h.end().await;
}

#[tokio::test]
async fn the_newest_version_counts_and_a_rollback_brings_the_one_before() {
    let h = quiet(START + HOUR).await;
    let rolling = Deploy {
        service: "payment".into(),
        version: "2.0.0".into(),
        at_ms: START + 10 * MINUTE,
        effect: Effect::LatencyStep { factor: 3.0 },
        rollout: Rollout::Rolling { every_minutes: 10.0 },
        warm_up: Some(WarmUp { factor: 1.0, minutes: 1.0 }),
    };
    h.handle.deploy_with(rolling).unwrap();
    h.handle.deploy("payment", "2.0.1", START + 40 * MINUTE, Effect::Healthy).unwrap();
    let on = |host: &str| {
        let id = instance_id("payment", host);
        format!("calc:service.response_time:filter(eq(\"dt.entity.process_group_instance\",{id})):median")
    };
    let at = |minute: i64| (START + minute * MINUTE, START + (minute + 1) * MINUTE);
    let ratio = async |host: &str, a: i64, b: i64| {
        h.values(&on(host), at(b)).await[0].unwrap() / h.values(&on(host), at(a)).await[0].unwrap()
    };
    assert!(ratio("payment-5c4b-a", 5, 15).await > 2.0, "switched first");
    assert!(ratio("payment-5c4b-c", 5, 15).await < 1.5, "not yet");
    assert!(ratio("payment-5c4b-c", 5, 35).await > 2.0, "switched last");
    assert!(ratio("payment-5c4b-c", 5, 45).await < 1.5, "mended by the next version");
    h.handle.rollback("payment").unwrap();
    h.set_now(START + 2 * HOUR);
    assert!(ratio("payment-5c4b-c", 5, 65).await > 2.0, "the rollback brings the bad one back");
    h.end().await;
}
