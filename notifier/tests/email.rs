//! Mail against a real SMTP server, and against one that misbehaves at every command.

#[cfg(test)]
mod support;

use std::time::Duration;
use support::channels::told;
use support::golden::golden;
use support::settings;
use support::smtp::{Fault, MailServer, Misbehaving};
use vouch_notifier::action::{Action, ActionError, ActionRequest, Effect, Tools};
use vouch_notifier::alert::{RollbackEnd, Stage};

#[cfg(test)]
fn email(port: impl std::fmt::Display, more: &str) -> Box<dyn Action> {
    email_within("5s", port, more)
}

#[cfg(test)]
fn email_within(timeout: &str, port: impl std::fmt::Display, more: &str) -> Box<dyn Action> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let yaml = format!(
        "notifier: {{actions: [{{name: mail, type: email, port: {port}, from: 'Vouch <vouch@example.com>', \
         to: ['Team Shop <shop@example.com>', oncall@example.com], timeout: {timeout}, {more}}}]}}"
    );
    settings(&yaml).actions[1].kind.build(&Tools::default()).unwrap()
}

#[cfg(test)]
/// A certificate for `localhost` and its key, as files.
fn certificate(folder: &std::path::Path) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("c.pem"), folder.join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate.display().to_string(), key.display().to_string())
}

#[tokio::test]
async fn a_mail_is_text_and_html_in_one_thread() {
    let Some(server) = MailServer::start(&["plain"]) else { return };
    let mail = email(&server.port, "host: 127.0.0.1, tls: none");
    let mut threads = Vec::new();
    for (word, stage, rollback) in [
        ("opens", Stage::Opens, None),
        ("not_rolled_back", Stage::Updates, Some(RollbackEnd::Failed)),
        ("resolves", Stage::Resolves, None),
    ] {
        let done = mail.execute(&told(stage, rollback)).await.unwrap();
        assert!(done.detail.contains("answered 250") && done.detail.contains("taken as TEST"), "{done:?}");
        let took = server.mail();
        assert_eq!(took["from"], "vouch@example.com");
        assert_eq!(took["to"], serde_json::json!(["shop@example.com", "oncall@example.com"]));
        assert_eq!(
            (took["kind"].as_str(), took["hello"].as_str()),
            (Some("multipart/alternative"), Some("example.com"))
        );
        let headers = took["headers"].as_object().unwrap();
        let mut text: String =
            headers.iter().map(|(name, value)| format!("{name}: {}\n", value.as_str().unwrap())).collect();
        text.push_str(&format!("\n{}", took["body"]["text/plain"].as_str().unwrap()));
        golden(&format!("email_{word}.txt"), &text);
        golden(&format!("email_{word}.html"), took["body"]["text/html"].as_str().unwrap());
        threads.push(headers["References"].clone());
        assert!(headers["Message-ID"] != headers["References"]);
    }
    assert!(threads.iter().all(|thread| *thread == threads[0]), "{threads:?}");
    server.finish();
}

#[tokio::test]
async fn starttls_and_tls_are_checked_against_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(folder.path());
    for mode in ["starttls", "tls"] {
        let Some(server) = MailServer::start(&[mode, &certificate, &key]) else { return };
        let login = "user: vouch, password: p4ssword";
        let mail =
            email(&server.port, &format!("host: localhost, tls: {mode}, ca_file: '{certificate}', {login}"));
        assert!(!format!("{mail:?}").contains("p4ssword"));
        mail.execute(&told(Stage::Opens, None)).await.unwrap();
        let took = server.mail();
        assert_eq!(
            (took["encrypted"].as_bool(), took["login"].as_str()),
            (Some(true), Some("vouch")),
            "{mode}"
        );
        // Without the authority, or under another name, nothing is sent.
        for wrong in [
            format!("host: localhost, tls: {mode}"),
            format!("host: 127.0.0.1, tls: {mode}, ca_file: '{certificate}'"),
        ] {
            let error = email(&server.port, &wrong).execute(&told(Stage::Opens, None)).await.unwrap_err();
            assert_eq!((error.retryable, error.effect), (true, Effect::None), "{mode}: {error}");
            assert!(error.detail.to_lowercase().contains("certificate"), "{mode}: {error}");
        }
        let wrong =
            format!("host: localhost, tls: {mode}, ca_file: '{certificate}', user: vouch, password: wr0ng");
        let error = email(&server.port, &wrong).execute(&told(Stage::Opens, None)).await.unwrap_err();
        assert_eq!((error.retryable, error.effect), (false, Effect::None), "{mode}: {error}");
        assert!(error.detail.contains("535") && !error.detail.contains("wr0ng"), "{mode}: {error}");
        server.finish();
    }
}

#[tokio::test]
async fn a_server_without_starttls_gets_nothing() {
    let server = Misbehaving::start("never", Fault::Hangs).await;
    let error = email(server.port, "host: localhost").execute(&told(Stage::Opens, None)).await.unwrap_err();
    assert_eq!((error.retryable, error.effect), (false, Effect::None), "{error}");
    assert!(error.detail.contains("STARTTLS"), "{error}");
}

#[cfg(test)]
async fn fails(at: &'static str, fault: Fault) -> ActionError {
    let server = Misbehaving::start(at, fault).await;
    let mail = email(server.port, "host: localhost, tls: none, user: a, password: b");
    mail.execute(&told(Stage::Opens, None)).await.unwrap_err()
}

#[tokio::test]
async fn each_answer_is_understood() {
    let (refused, again, doubt) = ((false, Effect::None), (true, Effect::None), (true, Effect::Possible));
    for (at, fault, expected) in [
        ("greeting", Fault::Says("421 4.3.2 too busy"), again),
        ("greeting", Fault::Says("554 5.3.2 go away"), refused),
        ("AUTH", Fault::Says("535 5.7.8 wrong"), refused),
        ("AUTH", Fault::Says("454 4.7.0 later"), again),
        ("MAIL", Fault::Says("550 5.1.0 no such sender"), refused),
        ("RCPT", Fault::Says("550 5.1.1 nobody"), refused),
        ("RCPT", Fault::Says("450 4.2.1 mailbox busy"), again),
        ("DATA", Fault::Says("451 4.3.0 disk full"), again),
        (".", Fault::Says("452 4.3.1 no room"), again),
        (".", Fault::Says("554 5.6.0 refused by content"), refused),
        (".", Fault::Says("nonsense"), doubt),
        ("RCPT", Fault::Resets, doubt),
        (".", Fault::Resets, doubt),
    ] {
        let error = fails(at, fault).await;
        assert_eq!((error.retryable, error.effect), expected, "{at} {fault:?}: {error}");
        assert!(error.detail.starts_with("localhost:") && error.detail.len() < 600, "{error}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_or_talks_for_ever_is_left_in_time() {
    for (at, fault) in
        [("greeting", Fault::Hangs), (".", Fault::Hangs), ("EHLO", Fault::Endless), (".", Fault::Endless)]
    {
        let server = Misbehaving::start(at, fault).await;
        let mail = email_within("500ms", server.port, "host: localhost, tls: none");
        let begun = std::time::Instant::now();
        let error = mail.execute(&told(Stage::Opens, None)).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(4), "{at} {fault:?}: {:?}", begun.elapsed());
        assert!(error.retryable, "{at} {fault:?}: {error}");
    }
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_sent() {
    let port = Misbehaving::start("never", Fault::Hangs).await.port;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error =
        email(port, "host: localhost, tls: none").execute(&told(Stage::Opens, None)).await.unwrap_err();
    assert_eq!((error.retryable, error.effect), (true, Effect::None), "{error}");
}

#[tokio::test]
async fn what_would_break_a_header_is_taken_out() {
    let Some(server) = MailServer::start(&["plain"]) else { return };
    let mail = email(&server.port, "host: 127.0.0.1, tls: none");
    let request = told(Stage::Opens, None);
    let mut alert = (*request.alert).clone();
    alert.headline = format!("a\r\nBcc: evil@example.com\r\n{}", "ü".repeat(500));
    mail.execute(&ActionRequest { alert: alert.into(), ..request }).await.unwrap();
    let took = server.mail();
    assert!(took["headers"].get("Bcc").is_none(), "{took}");
    let subject = took["headers"]["Subject"].as_str().unwrap();
    assert!(subject.starts_with("[Vouch] aBcc: evil@example.com") && subject.ends_with('…'), "{subject}");
    assert_eq!(took["to"].as_array().unwrap().len(), 2);
    server.finish();
}
