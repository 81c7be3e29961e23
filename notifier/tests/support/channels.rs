//! Every action over HTTP against the strict receiver: requests about one alert, and what each answer leads to.

use super::receiver::{Answer, Call, Receiver};
use super::settings;
use std::sync::Arc;
use std::time::Duration;
use vouch_notifier::action::{Action, ActionError, ActionRequest, Done, Effect, Tools};
use vouch_notifier::alert::{About, Alert, Entity, Links, Opened, RollbackEnd, Stage};
use vouch_notifier::policy::Rule;
use vouch_proto::{Outcome, Purpose, Timestamp, Verdict, v1};

/// An action by its settings; `BASE` stands for the receiver's address.
pub fn action(receiver: &Receiver, yaml: &str) -> Box<dyn Action> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let yaml = yaml.replace("BASE", &receiver.base());
    let yaml = format!("notifier: {{actions: [{{name: it, timeout: 500ms, {yaml}}}]}}");
    settings(&yaml).actions[1].kind.build(&Tools::default()).unwrap()
}

/// The released verdict.
pub fn verdict() -> Verdict {
    let released = include_bytes!("../../../proto/golden/verdict.json");
    serde_json::from_slice::<v1::Verdict>(released).unwrap().try_into().unwrap()
}

/// What is told at each stage of the released verdict's incident; a healthy verdict resolves it.
pub fn told(stage: Stage, rollback: Option<RollbackEnd>) -> ActionRequest {
    let bad = verdict();
    let healthy = Verdict {
        outcome: Outcome::Pass,
        rollback_grade: false,
        risk: 0.01,
        reason: "no metric got worse in 15 minutes".into(),
        version: vouch_proto::Name::new("2.2").unwrap(),
        metrics: Vec::new(),
        ..bad.clone()
    };
    let opened = Opened { version: bad.version.to_string(), reason: bad.reason.clone(), at: bad.decided_at };
    let verdict = if stage == Stage::Resolves { healthy } else { bad };
    let did = match (stage, rollback) {
        (Stage::Resolves, _) => "checkout 2.2 in prod is healthy.",
        (_, Some(RollbackEnd::Done)) => "Rolled back checkout 2.1 in prod to 2.0 by `undo`.",
        (_, Some(RollbackEnd::Failed)) => "The rollback failed: roll back by hand.",
        (_, Some(RollbackEnd::Unknown)) => "Nobody knows whether it was rolled back: look and decide.",
        (_, None) => "Rolling back checkout 2.1 in prod to 2.0 by `undo`.",
    };
    let about = About {
        stage: Some(stage),
        incident: "01KBHV0000ABCDEFGHJKMNPQRS".into(),
        opened: (stage != Stage::Opens && stage != Stage::Reports).then_some(opened),
        did: did.into(),
        rollback,
        notice: false,
        links: Links {
            evidence: Some("https://vouch.example.com/evidence/01KBHV0000ABCDEFGHJKMNPQRS.1?until=1795600000&sig=00ff".into()),
            dynatrace: Some("https://abc12345.apps.dynatrace.com/ui/apps/dynatrace.classic.services/ui/entity/SERVICE-0123456789ABCDEF".into()),
        },
        entity: Some(Entity { source: "dynatrace".into(), id: "SERVICE-0123456789ABCDEF".into() }),
    };
    let alert = Alert::new(&verdict, about);
    ActionRequest {
        key: format!("01KBHV0000ABCDEFGHJKMNPQRS.1/0/alert/{}", stage.as_str()),
        purpose: Purpose::Alert,
        rule: Rule::FailAlerts,
        summary: format!("{}: {} {did}", alert.headline, alert.reason),
        verdict: Arc::new(verdict),
        alert: Arc::new(alert),
        memory: None,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        attempt: 1,
        sent_at: Timestamp::from_millis(1_795_514_400_000),
    }
}

/// One call with this answer.
pub async fn answered(yaml: &str, answer: Answer) -> (Result<Done, ActionError>, Vec<Call>) {
    let receiver = Receiver::start(vec![answer]).await;
    let ended = action(&receiver, yaml).execute(&told(Stage::Opens, None)).await;
    (ended, receiver.finish())
}

/// What each answer leads to, the same for every action over HTTP: `good` is the body of a success.
pub async fn understands_every_answer(yaml: &str, good: &'static str) {
    let (refused, again) = (Some((false, Effect::None, None)), |s| Some((true, Effect::None, s)));
    let doubt = Some((true, Effect::Possible, None));
    let seconds = |s| Some(Duration::from_secs(s));
    for (status, headers, expected) in [
        (200, "", None),
        (202, "", None),
        (301, "location: https://elsewhere.example/\r\n", refused),
        (400, "", refused),
        (401, "", refused),
        (403, "", refused),
        (404, "", refused),
        (409, "", refused),
        (413, "", refused),
        (422, "", refused),
        (429, "retry-after: 7\r\n", again(seconds(7))),
        (429, "", again(None)),
        (500, "", doubt),
        (502, "", doubt),
        (503, "", doubt),
        (503, "retry-after: 1\r\n", again(seconds(1))),
    ] {
        let (ended, _) = answered(yaml, Answer::Status(status, headers, good)).await;
        let got = ended.err().map(|e| (e.retryable, e.effect, e.retry_after));
        assert_eq!(got, expected, "{yaml}: {status} {headers}");
    }
    for (answer, how) in [(Answer::Never, "did not answer in time"), (Answer::Reset, "without an answer")] {
        let error = answered(yaml, answer).await.0.unwrap_err();
        assert_eq!((error.retryable, error.effect), (true, Effect::Possible), "{yaml}: {error}");
        assert!(error.detail.contains(how) && error.detail.contains("http://127.0.0.1"), "{error}");
    }
    let endless = answered(yaml, Answer::Endless).await.0.unwrap();
    assert!(endless.detail.len() < 500, "{yaml}: {endless:?}");
    nobody_listens(yaml).await;
}

/// Where nobody listens nothing was carried out.
async fn nobody_listens(yaml: &str) {
    let receiver = Receiver::start(vec![]).await;
    let action = action(&receiver, yaml);
    drop(receiver);
    for attempt in 0.. {
        match action.execute(&told(Stage::Opens, None)).await {
            Err(e) if e.effect == Effect::None => {
                assert!(e.retryable && e.detail.contains("could not be reached"), "{yaml}: {e}");
                return;
            }
            other => assert!(attempt < 50, "{yaml}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
