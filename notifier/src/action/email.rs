//! Mail over SMTP with STARTTLS or TLS: one for each word about an incident, in one thread, as text and as HTML with bars.

mod html;

use super::endpoint::{allowed, is_loopback};
use super::{Action, ActionError, ActionRequest, Done, Effect, Kind, Maker, Promise, Serves, Tells, Tools};
use crate::alert::{Alert, cut, plain};
use anyhow::Context as _;
use async_trait::async_trait;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Mailboxes, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use vouch_service::settings::Section;

/// Longest subject: a header line has at most 998 octets, and a person reads fewer.
const MOST_SUBJECT: usize = 180;
const MOST_TEXT: usize = 20_000;
/// Most people that are written to.
const MOST_TO: usize = 50;
const SECOND: Duration = Duration::from_secs(1);

pub(super) static KIND: Kind = Kind {
    word: "email",
    serves: Serves { rollback: false, alert: true, report: false },
    tells: Tells { updates: false, resolved: true },
    read,
};

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    StartTls,
    Tls,
    None,
}

impl std::str::FromStr for Protection {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "starttls" => Ok(Self::StartTls),
            "tls" => Ok(Self::Tls),
            "none" => Ok(Self::None),
            other => Err(format!("unknown value `{other}`, expected one of starttls, tls, none")),
        }
    }
}

impl Protection {
    const fn port(self) -> u64 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

#[derive(Debug, Clone)]
struct EmailSettings {
    host: String,
    port: u16,
    protection: Protection,
    login: Option<(String, SecretString)>,
    from: Mailbox,
    to: Vec<Mailbox>,
    hello: String,
    ca_file: Option<PathBuf>,
    timeout: Duration,
}

fn read(section: &mut Section<'_>, allowed_hosts: &[String]) -> Option<Arc<dyn Maker>> {
    let host = section.text("host");
    if host.is_none() {
        section.refuse("host", "is missing; give the name of the mail server");
    }
    let protection = section.parsed("tls").unwrap_or(Protection::StartTls);
    let port = section.number("port", protection.port(), 1..=65_535);
    let insecure = section.flag("insecure_smtp", false);
    if let Some(host) = &host {
        if protection == Protection::None && !insecure && !is_loopback(host) {
            let said =
                format!("to {host} is not encrypted; use starttls or tls, or set `insecure_smtp: true`");
            section.refuse("tls", said);
        }
        if let Err(e) = allowed(host, allowed_hosts) {
            section.refuse("host", e);
        }
    }
    let user = section.text("user");
    let password = section.secret("password", "password_file");
    let with_password = section.raw("password").is_some() || section.raw("password_file").is_some();
    match (user.is_some(), with_password) {
        (true, false) => section.refuse("password_file", "is missing; `user` needs it"),
        (false, true) => section.refuse("user", "is missing; `password_file` needs it"),
        (true, true) | (false, false) => {}
    }
    let from = read_mailbox(section);
    let to = read_recipients(section);
    let hello = section.text("hello");
    let ca_file = section.path("ca_file");
    if let Some(path) = &ca_file
        && let Err(e) = read_ca(path)
    {
        section.refuse("ca_file", format!("{e:#}"));
    }
    let timeout = section.duration("timeout", 20 * SECOND, SECOND / 10..=60 * SECOND);
    let (host, from) = (host?, from?);
    let hello = hello.unwrap_or_else(|| from.email.domain().to_owned());
    let port = u16::try_from(port).unwrap_or_default();
    let login = user.zip(password);
    Some(Arc::new(EmailSettings { host, port, protection, login, from, to, hello, ca_file, timeout }))
}

fn read_mailbox(section: &mut Section<'_>) -> Option<Mailbox> {
    let Some(text) = section.text("from") else {
        section.refuse("from", "is missing; give e.g. Vouch <vouch@example.com>");
        return None;
    };
    let mailbox = text.parse();
    mailbox.map_err(|e| section.refuse("from", format!("`{text}` is no address ({e})"))).ok()
}

fn read_recipients(section: &mut Section<'_>) -> Vec<Mailbox> {
    let texts = section.texts("to");
    if texts.is_empty() || texts.len() > MOST_TO {
        section.refuse("to", format!("names {} addresses, expected 1 to {MOST_TO}", texts.len()));
    }
    let mut to = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(mailbox) => to.push(mailbox),
            Err(e) => section.refuse("to", format!("`{text}` is no address ({e})")),
        }
    }
    to
}

fn read_ca(path: &PathBuf) -> anyhow::Result<Certificate> {
    let pem = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Certificate::from_pem(&pem).with_context(|| format!("{} holds no certificate in PEM", path.display()))
}

impl Maker for EmailSettings {
    fn make(&self, _tools: &Tools) -> anyhow::Result<Box<dyn Action>> {
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(path) = &self.ca_file {
            parameters = parameters.add_root_certificate(read_ca(path)?);
        }
        let tls = match self.protection {
            Protection::StartTls => Tls::Required(parameters.build_rustls()?),
            Protection::Tls => Tls::Wrapper(parameters.build_rustls()?),
            Protection::None => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .hello_name(ClientId::Domain(self.hello.clone()))
            .timeout(Some(self.timeout));
        if let Some((user, password)) = &self.login {
            let password = password.expose_secret().to_owned();
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Box::new(Email { transport: builder.build(), settings: self.clone() }))
    }
}

/// The action.
struct Email {
    settings: EmailSettings,
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Email").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl Action for Email {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        let message = message(&self.settings, request)
            .map_err(|e| ActionError::never_sent(format!("the mail cannot be written: {e:#}")))?;
        let server = format!("{}:{}", self.settings.host, self.settings.port);
        let sent = tokio::time::timeout(self.settings.timeout, self.transport.send(message)).await;
        match sent {
            Ok(Ok(response)) => {
                let said: Vec<&str> = response.message().collect();
                let said = cut(&said.join(" "), 200);
                Ok(Done::new(format!("{server} answered {}: {said}", response.code())))
            }
            Ok(Err(error)) => Err(understood(&server, &error)),
            Err(_) => Err(ActionError {
                retryable: true,
                effect: Effect::Possible,
                detail: format!("{server} did not take the mail in time"),
                retry_after: None,
            }),
        }
    }

    fn promise(&self) -> Promise {
        Promise::of_a_channel(self.settings.timeout, false)
    }
}

/// What an error means: 5xx is the server's last word, 4xx asks to come again; a connection that never came about took no
/// mail, and of one that broke nobody knows.
fn understood(server: &str, error: &lettre::transport::smtp::Error) -> ActionError {
    let chain = {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text.push_str(": ");
                text.push_str(&inner_text);
            }
            source = inner.source();
        }
        text
    };
    let never_connected = chain.starts_with("Connection error") && !error.is_timeout();
    let (retryable, effect) = if error.is_permanent() || error.is_client() {
        (false, Effect::None)
    } else if error.is_transient() || error.is_tls() || never_connected {
        (true, Effect::None)
    } else {
        (true, Effect::Possible)
    };
    ActionError { retryable, effect, detail: cut(&format!("{server}: {chain}"), 500), retry_after: None }
}

fn message(settings: &EmailSettings, request: &ActionRequest) -> anyhow::Result<Message> {
    let alert = &request.alert;
    let seconds = u64::try_from(request.sent_at.as_millis().div_euclid(1000)).unwrap_or_default();
    let to: Mailboxes = settings.to.iter().cloned().collect();
    let domain = settings.from.email.domain();
    // Every mail has an id of its own, the same for every attempt; all of one incident answer the same, and so are a thread.
    let thread = id(&format!("incident/{}", alert.incident), domain);
    let mut message = Message::builder()
        .from(settings.from.clone())
        .mailbox(lettre::message::header::To::from(to))
        .date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .message_id(Some(id(&request.key, domain)))
        .in_reply_to(thread.clone())
        .references(thread)
        .subject(subject(alert))
        .multipart(MultiPart::alternative_plain_html(plain(alert, MOST_TEXT), html::page(alert)))?;
    for (name, value) in [("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All")] {
        let name = HeaderName::new_from_ascii_str(name);
        message.headers_mut().insert_raw(HeaderValue::new(name, value.to_owned()));
    }
    Ok(message)
}

fn subject(alert: &Alert) -> String {
    let subject: String = alert.headline.chars().filter(|c| !c.is_control()).collect();
    cut(&format!("[Vouch] {subject}"), MOST_SUBJECT)
}

/// An id of a message that follows from a text.
fn id(text: &str, domain: &str) -> String {
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    format!("<{}@{domain}>", digest.get(..40).unwrap_or(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_what_is_told() {
        let one = id("d1.1/0/alert/mail", "example.com");
        assert_eq!(one, id("d1.1/0/alert/mail", "example.com"));
        assert_ne!(one, id("d1.1/1/alert/mail", "example.com"));
        assert!(one.starts_with('<') && one.ends_with("@example.com>") && one.len() == 54, "{one}");
    }
}
