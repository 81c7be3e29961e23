//! Events for Dynatrace: the exact requests, what each answer leads to, and the simulated tenant that takes them.

#[cfg(test)]
mod support;

use std::sync::Arc;
use support::channels::{action, told, understands_every_answer};
use support::golden::{golden, written};
use support::receiver::{Answer, Receiver};
use support::settings;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vouch_notifier::action::{ActionRequest, Effect, Tools};
use vouch_notifier::alert::{Alert, Entity, RollbackEnd, Stage};
use vouch_proto::Verdict;
use vouch_service::clock::{Clock as _, SystemClock};
use vouch_simulator::{Scenario, Simulator};

const IT: &str = "type: dynatrace, url: 'BASE', token: dt0c01.PUBLIC.S3CRET";
const TAKEN: &str =
    r#"{"reportCount": 1, "eventIngestResults": [{"correlationId": "0123456789abcdef", "status": "OK"}]}"#;

#[tokio::test]
async fn requests_are_the_released_ones() {
    for (word, stage, rollback) in [
        ("verdict", Stage::Reports, None),
        ("rollback", Stage::Reports, Some(RollbackEnd::Done)),
        ("not_rolled_back", Stage::Reports, Some(RollbackEnd::Failed)),
    ] {
        let receiver = Receiver::start(vec![Answer::Status(201, "", TAKEN)]).await;
        let it = action(&receiver, IT);
        assert!(!format!("{it:?}").contains("S3CRET"));
        it.execute(&told(stage, rollback)).await.unwrap();
        golden(&format!("dynatrace_{word}.http"), &written(&receiver.finish()[0]));
    }
}

#[tokio::test]
async fn each_answer_is_understood() {
    understands_every_answer(IT, TAKEN).await;
    let refused = r#"{"reportCount": 2, "eventIngestResults": [{"correlationId": "a", "status": "OK"}, {"correlationId": "b", "status": "INVALID_TIMESTAMPS"}]}"#;
    let receiver = Receiver::start(vec![
        Answer::Status(201, "", refused),
        Answer::Status(
            403,
            "",
            "{\"error\": {\"code\": 403, \"message\": \"Token is missing required scope\"}}",
        ),
    ])
    .await;
    let it = action(&receiver, IT);
    let error = it.execute(&told(Stage::Reports, None)).await.unwrap_err();
    assert_eq!((error.retryable, error.effect), (false, Effect::None));
    assert!(error.detail.contains("INVALID_TIMESTAMPS"), "{error}");
    let error = it.execute(&told(Stage::Reports, None)).await.unwrap_err();
    assert!(error.detail.contains("give the token the scope events.ingest"), "{error}");
    receiver.finish();
}

#[tokio::test]
async fn a_platform_token_has_its_own_path() {
    let receiver = Receiver::start(vec![Answer::Status(201, "", TAKEN)]).await;
    let it = action(&receiver, "type: dynatrace, url: 'BASE/', token: dt0s16.PUBLIC.S3CRET");
    it.execute(&told(Stage::Reports, None)).await.unwrap();
    let call = &receiver.finish()[0];
    assert_eq!(call.target, "/platform/classic/environment-api/v2/events/ingest");
    assert_eq!(call.headers["authorization"], "Bearer dt0s16.PUBLIC.S3CRET");
}

#[tokio::test]
async fn services_of_other_tenants_are_left_out() {
    let receiver = Receiver::start(vec![Answer::Status(201, "", TAKEN)]).await;
    let it = action(&receiver, &format!("{IT}, tenant: eu"));
    let done = it.execute(&told(Stage::Reports, None)).await.unwrap();
    assert!(done.detail.contains("of the tenant dynatrace: nothing was sent"), "{done:?}");
    let here = |mut request: ActionRequest| {
        let mut alert: Alert = (*request.alert).clone();
        alert.entity = Some(Entity { source: "eu".into(), id: "SERVICE-1".into() });
        request.alert = Arc::new(alert);
        request
    };
    it.execute(&here(told(Stage::Reports, None))).await.unwrap();
    receiver.finish();
}

#[cfg(test)]
async fn events_of_checkout(url: &str) -> serde_json::Value {
    let client = reqwest::Client::new();
    let listed = client
        .get(format!("{url}/api/v2/events"))
        .query(&[("entitySelector", "type(SERVICE),entityName.equals(checkout)"), ("from", "now-1h")])
        .header("authorization", "Api-Token dt0c01.PUBLIC.S3CRET")
        .send()
        .await
        .unwrap();
    serde_json::from_slice(&listed.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn the_simulated_tenant_has_the_events_on_the_service() {
    let clock = || SystemClock.now().as_millis();
    let simulator = Simulator::builder()
        .scenario(Scenario::named("healthy").unwrap())
        .start_ms(clock())
        .clock(Arc::new(clock))
        .token("dt0c01.PUBLIC.S3CRET", &["events.ingest", "events.read"])
        .token("dt0c01.READER.S3CRET", &["events.read"])
        .build()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let (guard, ended) = (stop.clone().drop_guard(), stop.clone());
    tracker.spawn(async move { simulator.serve(listener, ended).await.unwrap() });
    let it = |token: &str| {
        rustls::crypto::ring::default_provider().install_default().ok();
        let yaml =
            format!("notifier: {{actions: [{{name: it, type: dynatrace, url: '{url}', token: {token}}}]}}");
        settings(&yaml).actions[1].kind.build(&Tools::default()).unwrap()
    };
    let now = SystemClock.now();
    let request = |rollback, by_id: bool| {
        let mut request = told(Stage::Reports, rollback);
        let window = vouch_proto::Window::new(
            now.floor_minute().plus_minutes(-10),
            now.floor_minute().plus_minutes(5),
        );
        let verdict =
            Verdict { decided_at: now, verification: Some(window.unwrap()), ..(*request.verdict).clone() };
        let mut alert = (*request.alert).clone();
        alert.decided_at = now;
        alert.entity =
            by_id.then(|| Entity { source: "dynatrace".into(), id: vouch_simulator::service_id("checkout") });
        ActionRequest {
            verdict: Arc::new(verdict),
            alert: Arc::new(alert),
            sent_at: now,
            ..{
                request.attempt = 1;
                request
            }
        }
    };
    // By id, and by name where the catalogue does not have it.
    it("dt0c01.PUBLIC.S3CRET").execute(&request(None, true)).await.unwrap();
    it("dt0c01.PUBLIC.S3CRET").execute(&request(Some(RollbackEnd::Done), false)).await.unwrap();
    let refused = it("dt0c01.READER.S3CRET").execute(&request(None, true)).await.unwrap_err();
    assert!(!refused.retryable && refused.detail.contains("events.ingest"), "{refused}");
    let listed = events_of_checkout(&url).await;
    let events = listed["events"].as_array().unwrap();
    let find = |kind: &str| {
        events.iter().find(|e| e["eventType"] == kind && e["title"].to_string().contains("checkout 2.1"))
    };
    let (verdict, rollback) =
        (find("CUSTOM_INFO").expect("the verdict"), find("CUSTOM_DEPLOYMENT").expect("the rollback"));
    assert_eq!(verdict["entityId"]["name"], "checkout");
    let property = |event: &serde_json::Value, key: &str| {
        let all = event["properties"].as_array().unwrap().clone();
        all.into_iter().find(|p| p["key"] == key).map(|p| p["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(property(verdict, "vouch.outcome").as_deref(), Some("fail"));
    assert_eq!(property(rollback, "dt.event.deployment.version").as_deref(), Some("2.0"));
    drop(guard);
    tracker.close();
    tracker.wait().await;
}
