//! What goes wrong below HTTP: names that lead nowhere, certificates, bodies that stall or break off.

use crate::server::{Tenant, answer};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use vouch_collector::config::TenantSettings;
use vouch_collector::source::dynatrace::base_url;
use vouch_collector::source::{Failure, FailureKind, KnownService, MetricSource as _};

const BODY: &str = r#"{"totalCount":1,"entities":[{"entityId":"SERVICE-1","displayName":"checkout"}]}"#;

/// How a server of its own treats a connection.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Whole,
    /// Stops in the middle of the body, and says nothing more.
    Stalls,
    /// Closes in the middle of the body.
    BreaksOff,
}

/// The bytes of an answer of which only a part comes.
async fn serve(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), manner: Manner) {
    let mut request = vec![0; 4096];
    assert!(stream.read(&mut request).await.unwrap() > 0, "a request");
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    let part = match manner {
        Manner::Whole => BODY,
        Manner::Stalls | Manner::BreaksOff => &BODY[..BODY.len() / 2],
    };
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(part.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    if matches!(manner, Manner::Stalls) {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    stream.shutdown().await.ok();
}

/// What listing the services of a tenant at `url` answers.
async fn services(url: &str, change: impl FnOnce(&mut TenantSettings)) -> Result<Vec<KnownService>, Failure> {
    let url = base_url(url).unwrap();
    let tenant = Tenant::with(vec![], |settings| {
        settings.url = url;
        change(settings);
    })
    .await;
    tenant.source.services().await
}

async fn plain(manners: Vec<Manner>) -> Result<Vec<KnownService>, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = async {
        for manner in manners {
            let (mut stream, _) = listener.accept().await.unwrap();
            serve(&mut stream, manner).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = services(&url, |_| {}) => answer,
        () = server => unreachable!("the server never ends"),
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again() {
    assert_eq!(plain(vec![Manner::BreaksOff, Manner::Whole]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_that_stalls_ends_at_the_deadline_of_the_call() {
    let failure = plain(vec![Manner::Stalls]).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert!(failure.message.contains("collector.request_timeout"), "{failure}");
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_named() {
    let failure = services("http://no-such-tenant.invalid", |_| {}).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(
        failure.message.contains("no-such-tenant.invalid") && failure.message.contains("DNS"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_certificate_is_checked_unless_its_authority_is_named() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/e/1", listener.local_addr().unwrap().port());
    let server = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                serve(&mut stream, Manner::Whole).await;
            }
        }
    };
    let client = async {
        let failure = services(&url, |_| {}).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
        assert!(failure.message.to_lowercase().contains("certificate"), "{failure}");
        let authority = reqwest::Certificate::from_pem(cert.pem().as_bytes()).unwrap();
        assert_eq!(services(&url, |settings| settings.ca = vec![authority]).await.unwrap().len(), 1);
        assert_eq!(services(&url, |settings| settings.insecure = true).await.unwrap().len(), 1);
    };
    tokio::select! {
        () = client => {}
        () = server => unreachable!("the server never ends"),
    }
}

#[tokio::test]
async fn a_list_whose_page_key_has_expired_is_read_from_its_beginning() {
    let page = |name: &str, key: Option<&str>| {
        let entity = serde_json::json!({"entityId": format!("SERVICE-{name}"), "displayName": name});
        answer("entities", 200, serde_json::json!({"entities": [entity], "nextPageKey": key}).to_string())
    };
    let expired = || {
        answer(
            "entities",
            400,
            r#"{"error":{"code":400,"message":"Constraints violated.","constraintViolations":[{"path":"nextPageKey","message":"expired"}]}}"#,
        )
    };
    let script = vec![page("a", Some("k1")), expired(), page("a", Some("k2/+=")), page("b", None)];
    let tenant = Tenant::new(script).await;
    let names: Vec<String> = tenant.source.services().await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["a", "b"]);
    let asked = tenant.asked();
    assert!(asked[3].contains("entities?nextPageKey=k2%2F%2B%3D "), "alone and encoded: {}", asked[3]);
    // One that expires again and again is told.
    let tenant = Tenant::new(vec![page("a", Some("k")), expired(), page("a", Some("k")), expired()]).await;
    assert_eq!(tenant.source.services().await.unwrap_err().kind, FailureKind::BadRequest);
    tenant.asked();
}
