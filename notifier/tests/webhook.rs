//! The webhook against a strict receiver: the exact request, and what each answer leads to.

#[cfg(test)]
mod support;

use std::time::Duration;
use support::channels::{action, told, understands_every_answer};
use support::golden::{golden, written};
use support::receiver::{Answer, Call, OK, Receiver};
use vouch_notifier::action::{Action, ActionError, ActionRequest, Done};
use vouch_notifier::alert::Stage;
use vouch_notifier::ledger::Probe;
use vouch_notifier::policy::Rule;
use vouch_proto::Purpose;

#[cfg(test)]
fn webhook(receiver: &Receiver, more: &str) -> Box<dyn Action> {
    action(receiver, &format!("type: webhook, url: 'BASE/hook', secret: s3cret{more}"))
}

#[cfg(test)]
fn request() -> ActionRequest {
    ActionRequest {
        key: "01KBHV0000ABCDEFGHJKMNPQRS/rollback".into(),
        purpose: Purpose::Rollback,
        rule: Rule::FailRollsBack,
        summary: "Rolling back checkout 2.1 in prod to 2.0 by `hook`.".into(),
        attempt: 2,
        ..told(Stage::Reports, None)
    }
}

#[cfg(test)]
async fn answered(answer: Answer) -> (Result<Done, ActionError>, Vec<Call>) {
    let receiver = Receiver::start(vec![answer]).await;
    let ended = webhook(&receiver, "").execute(&request()).await;
    (ended, receiver.finish())
}

#[tokio::test]
async fn the_request_is_the_documented_one() {
    let (done, calls) = answered(Answer::Status(202, "", "queued\nfor you")).await;
    let done = done.unwrap();
    assert!(done.detail.ends_with(" answered 202: queuedfor you") && !done.dry_run, "{done:?}");
    let call = &calls[0];
    assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", "/hook"));
    for (name, value) in [
        ("content-type", "application/json"),
        ("idempotency-key", "01KBHV0000ABCDEFGHJKMNPQRS/rollback"),
        ("vouch-attempt", "2"),
        ("ce-specversion", "1.0"),
        ("ce-type", "dev.vouch.v1.rollback"),
        ("ce-source", "vouch/notifier"),
        ("ce-id", "01KBHV0000ABCDEFGHJKMNPQRS/rollback"),
        ("ce-subject", "prod/checkout"),
        ("ce-time", "2026-11-24T10:09:00Z"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        assert_eq!(call.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    let signature = &call.headers["vouch-signature"];
    assert!(signature.starts_with("t=1795514400,v1="), "{signature}");
    assert!(vouch_notifier::action::verify(&"s3cret".into(), signature, &call.body));
    golden("webhook_rollback.json", &String::from_utf8_lossy(&call.body));
}

#[tokio::test]
async fn an_alert_is_structured_and_a_cloud_event() {
    let receiver = Receiver::start(vec![OK]).await;
    webhook(&receiver, "").execute(&told(Stage::Opens, None)).await.unwrap();
    golden("webhook_alert.http", &written(&receiver.finish()[0]));
}

#[tokio::test]
async fn each_answer_is_understood() {
    understands_every_answer("type: webhook, url: 'BASE/hook', secret: s3cret", "queued").await;
    // By the receiver's own clock.
    let dated = "retry-after: Tue, 24 Nov 2026 10:00:07 GMT\r\ndate: Tue, 24 Nov 2026 10:00:00 GMT\r\n";
    for (headers, expected) in [(dated, Some(Duration::from_secs(7))), ("retry-after: soon\r\n", None)] {
        let error = answered(Answer::Status(429, headers, "")).await.0.unwrap_err();
        assert_eq!(error.retry_after, expected, "{headers}");
    }
    let error = answered(Answer::Never).await.0.unwrap_err();
    assert!(!error.detail.contains("/hook"), "{error}");
}

#[tokio::test]
async fn a_body_of_ones_own_is_rendered_and_signed() {
    let receiver = Receiver::start(vec![OK, OK]).await;
    let template =
        r#", body: '{"text": {{ alert.headline }}, "by": {{ key }}, "to": {{ verdict.previousVersion }}}'"#;
    webhook(&receiver, template).execute(&told(Stage::Opens, None)).await.unwrap();
    let text = ", content_type: text/plain, body: '{{ summary }}'";
    webhook(&receiver, text).execute(&request()).await.unwrap();
    let calls = receiver.finish();
    let body: serde_json::Value = serde_json::from_slice(&calls[0].body).unwrap();
    assert_eq!(body["text"], "checkout 2.1 in prod failed its verification");
    assert_eq!(body["to"], "2.0");
    assert!(vouch_notifier::action::verify(
        &"s3cret".into(),
        &calls[0].headers["vouch-signature"],
        &calls[0].body
    ));
    assert_eq!(calls[1].headers["content-type"], "text/plain");
    assert_eq!(calls[1].body, b"Rolling back checkout 2.1 in prod to 2.0 by `hook`.");
}

#[tokio::test]
async fn a_token_is_sent_and_no_signature_where_none_is_wanted() {
    let receiver = Receiver::start(vec![OK]).await;
    let hook = action(&receiver, "type: webhook, url: 'BASE/hook', unsigned: true, token: t0ken");
    assert!(!format!("{hook:?}").contains("t0ken"));
    hook.execute(&ActionRequest { traceparent: None, ..request() }).await.unwrap();
    let calls = receiver.finish();
    assert_eq!(calls[0].headers["authorization"], "Bearer t0ken");
    assert!(
        !calls[0].headers.contains_key("vouch-signature") && !calls[0].headers.contains_key("traceparent")
    );
}

#[tokio::test]
async fn a_probe_asks_which_version_is_live() {
    let receiver = Receiver::start(vec![]).await;
    let hook = webhook(&receiver, &format!(", probe_url: '{}'", receiver.probe_url()));
    for (live, expected) in
        [("2.1", Probe::NotDone), ("2.0", Probe::Done), ("3.0", Probe::Done), ("", Probe::CannotTell)]
    {
        receiver.set_live(live);
        assert_eq!(hook.probe(&request()).await, expected, "{live}");
    }
    receiver.finish();
    assert_eq!(receiver.probes(), 4);
    assert_eq!(webhook(&receiver, "").probe(&request()).await, Probe::CannotTell, "nobody to ask");
    drop(receiver);
}

#[cfg(test)]
/// A server that only talks to clients with a certificate of its authority; answers its port.
async fn mutual_tls(folder: &std::path::Path) -> u16 {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::server::WebPkiClientVerifier;
    use tokio_rustls::rustls::{RootCertStore, ServerConfig};
    rustls::crypto::ring::default_provider().install_default().ok();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (cert, key)
    };
    let (client, client_key) = issue("vouch");
    for (file, pem) in
        [("ca.pem", ca_cert.pem()), ("c.pem", client.pem()), ("k.pem", client_key.serialize_pem())]
    {
        std::fs::write(folder.join(file), pem).unwrap();
    }
    let mut roots = RootCertStore::empty();
    roots.add(ca_cert.der().clone()).unwrap();
    let (server, server_key) = issue("localhost");
    let chain = vec![CertificateDer::from(server.der().to_vec())];
    let key = PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    let verifier = WebPkiClientVerifier::builder(roots.into()).build().unwrap();
    let config =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio_util::task::TaskTracker::new().spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut some = [0; 1024];
            if stream.read(&mut some).await.is_ok_and(|n| n > 0) {
                stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.ok();
                stream.shutdown().await.ok();
            }
        }
    });
    port
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_shown_where_the_receiver_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let port = mutual_tls(folder.path()).await;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let receiver = Receiver::start(vec![]).await;
    let hook = |more: &str| {
        action(
            &receiver,
            &format!("type: webhook, unsigned: true, url: 'https://localhost:{port}/hook'{more}"),
        )
    };
    let ca = format!(", ca_file: '{}'", file("ca.pem"));
    let own = format!("{ca}, client_cert_file: '{}', client_key_file: '{}'", file("c.pem"), file("k.pem"));
    let with = hook(&own);
    assert!(!format!("{with:?}").contains("PRIVATE"));
    assert!(with.execute(&request()).await.unwrap().detail.ends_with("answered 202"));
    for without in [&ca, ""] {
        assert!(hook(without).execute(&request()).await.unwrap_err().retryable, "{without}");
    }
}
