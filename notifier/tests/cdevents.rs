//! CDEvents on a real nats-server: the events of both versions of the specification, once each, and who may not be reached.

#[cfg(test)]
mod support;

use support::channels::told;
use support::golden::golden;
use support::{Bench, Notifier, Server, settings, verdict};
use vouch_notifier::action::{ActionRequest, Effect, Tools};
use vouch_notifier::alert::{RollbackEnd, Stage};
use vouch_proto::subject::CDEVENTS;
use vouch_proto::{Cause, Outcome, Verdict};

#[cfg(test)]
fn read(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap()
}

#[tokio::test]
async fn events_are_the_released_ones_in_both_versions_and_published_once() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let tools = Tools { nats: Some(bench.nats.clone()) };
    let words = [
        ("testsuiterun_finished", Stage::Reports, None),
        ("service_rolledback", Stage::Reports, Some(RollbackEnd::Done)),
        ("incident_detected", Stage::Opens, None),
        ("incident_resolved", Stage::Resolves, None),
    ];
    let mut seen = 0;
    for spec in ["0.4", "0.5"] {
        let yaml = format!("notifier: {{actions: [{{name: it, type: cdevents, spec: '{spec}'}}]}}");
        let it = settings(&yaml).actions[1].kind.build(&tools).unwrap();
        for (word, stage, rollback) in words {
            let request = told(stage, rollback);
            let key = format!("{spec}/{word}/{}", request.key);
            let request = ActionRequest { key, ..request };
            // A second call with the same key changes nothing.
            it.execute(&request).await.unwrap();
            it.execute(&request).await.unwrap();
            let messages = bench.messages(CDEVENTS.name).await;
            seen += 1;
            assert_eq!(messages.len(), seen, "{spec} {word}");
            let (headers, body) = messages.last().unwrap();
            let mut text: String = headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            text.push_str(&format!("\n{}\n", serde_json::to_string_pretty(&read(body)).unwrap()));
            golden(&format!("cdevents_{spec}_{word}.txt"), &text);
        }
        for (stage, rollback) in
            [(Stage::Reports, Some(RollbackEnd::Failed)), (Stage::Updates, Some(RollbackEnd::Done))]
        {
            let done = it.execute(&told(stage, rollback)).await.unwrap();
            assert!(done.detail.contains("nothing was sent"), "{done:?}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_neither_success_nor_failure() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let tools = Tools { nats: Some(bench.nats.clone()) };
    let it =
        settings("notifier: {actions: [{name: it, type: cdevents}]}").actions[1].kind.build(&tools).unwrap();
    let mut outcomes = Vec::new();
    for (i, (outcome, cause)) in [
        (Outcome::Pass, Cause::Healthy),
        (Outcome::Fail, Cause::Regression),
        (Outcome::Inconclusive, Cause::TooFewSamples),
        (Outcome::Inconclusive, Cause::Superseded),
        (Outcome::Error, Cause::SourceError),
    ]
    .into_iter()
    .enumerate()
    {
        let request = told(Stage::Reports, None);
        let verdict = Verdict { outcome, cause, ..(*request.verdict).clone() };
        let request = ActionRequest { verdict: verdict.into(), key: format!("k{i}"), ..request };
        it.execute(&request).await.unwrap();
        let messages = bench.messages(CDEVENTS.name).await;
        let event = read(&messages.last().unwrap().1);
        outcomes.push(event["subject"]["content"]["outcome"].as_str().unwrap().to_owned());
    }
    assert_eq!(outcomes, ["pass", "fail", "error", "cancel", "error"]);
}

#[tokio::test]
async fn a_subject_that_no_stream_takes_is_told() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let tools = Tools { nats: Some(bench.nats.clone()) };
    let yaml = "notifier: {actions: [{name: it, type: cdevents, subject: nobody.listens}]}";
    let it = settings(yaml).actions[1].kind.build(&tools).unwrap();
    let error = it.execute(&told(Stage::Reports, None)).await.unwrap_err();
    assert_eq!((error.retryable, error.effect), (true, Effect::Possible));
    assert!(error.detail.contains("does a stream take that subject?"), "{error}");
    let error = settings(yaml).actions[1].kind.build(&Tools::default()).unwrap_err();
    assert!(error.to_string().contains("no connection"), "{error}");
}

#[tokio::test]
async fn every_verdict_and_rollback_is_reported_from_end_to_end() {
    let server = Server::start().await;
    let bench = Bench::new(&server).await;
    let undo = support::receiver::Receiver::start(vec![support::receiver::OK]).await;
    let yaml = format!(
        "notifier: {{actions: [{{name: cd, type: cdevents}}, {{name: undo, type: webhook, url: '{}', secret: x}}], \
         rollback: {{action: undo, default: act}}, alert: {{actions: [cd]}}, report: {{actions: [cd]}}}}",
        undo.url()
    );
    let notifier = Notifier::start(&server, settings(&yaml)).await;
    bench.publish(&verdict("d1", Outcome::Fail)).await;
    bench.settled().await;
    let healthy = Verdict { service: verdict("d1", Outcome::Pass).service, ..verdict("d2", Outcome::Pass) };
    bench.publish(&healthy).await;
    bench.settled().await;
    notifier.stop().await;
    undo.finish();
    let mut kinds: Vec<String> =
        bench.messages(CDEVENTS.name).await.iter().map(|(headers, _)| headers["ce-type"].clone()).collect();
    kinds.sort();
    assert_eq!(
        kinds,
        [
            "dev.cdevents.incident.detected.0.2.0",
            "dev.cdevents.incident.resolved.0.2.0",
            "dev.cdevents.service.rolledback.0.2.0",
            "dev.cdevents.testsuiterun.finished.0.2.0",
            "dev.cdevents.testsuiterun.finished.0.2.0",
        ]
    );
}
