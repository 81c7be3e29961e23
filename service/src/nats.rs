//! The connection to NATS: server version, streams, buckets and consumers as the contract specifies them.

use crate::settings::Section;
use anyhow::{Context as _, bail};
use async_nats::jetstream::{self, consumer::pull, kv, stream};
use async_nats::{ConnectOptions, Event, ServerAddr};
use secrecy::{ExposeSecret as _, SecretString};
use std::path::PathBuf;
use std::time::Duration;
use vouch_proto::subject::{
    BUCKETS, BucketSpec, ConsumerSpec, MAX_UNEXPLAINED_DELIVERIES, STREAMS, StreamSpec,
};
use vouch_proto::{Invalid, subject};

/// Oldest server that does all that Vouch relies on; older ones ignore parts of it silently.
pub const OLDEST_SERVER: (u32, u32) = (2, 12);

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// Addresses of the servers.
    pub servers: Vec<ServerAddr>,
    /// User and password.
    pub user: Option<(String, SecretString)>,
    /// File with NKey or JWT credentials.
    pub credentials_file: Option<PathBuf>,
    /// Certificate authority of the servers.
    pub ca_file: Option<PathBuf>,
    /// Copies of every stream and bucket.
    pub replicas: usize,
}

impl NatsSettings {
    /// Reads the `nats` section.
    pub fn read(root: &mut Section<'_>, invalid: &mut Invalid) -> Self {
        let mut nats = root.section("nats");
        let url = nats.text("url").unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
        let mut servers = Vec::new();
        for address in url.split(',').map(str::trim) {
            match address.parse() {
                Ok(address) => servers.push(address),
                Err(_) => {
                    nats.refuse(
                        "url",
                        format!("`{address}` is no address; write nats://host:4222, several with commas"),
                    );
                }
            }
        }
        let user = nats.text("user");
        let password = nats.secret("password", "password_file");
        let user = match (user, password) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            (Some(_), None) => {
                nats.refuse("password_file", "is missing; `user` needs it");
                None
            }
            (None, Some(_)) => {
                nats.refuse("user", "is missing; `password_file` needs it");
                None
            }
        };
        let replicas = usize::try_from(nats.number("replicas", 1, 1..=5)).unwrap_or(1);
        let settings = Self {
            servers,
            user,
            credentials_file: nats.path("credentials_file"),
            ca_file: nats.path("ca_file"),
            replicas,
        };
        nats.finish(invalid);
        settings
    }
}

/// A connection, and the names under which everything is found.
#[derive(Debug, Clone)]
pub struct Nats {
    /// The plain connection.
    pub client: async_nats::Client,
    /// JetStream on it.
    pub jetstream: jetstream::Context,
}

impl Nats {
    /// Connects, refuses a server that is too old, and makes the streams and buckets that are missing or differ.
    ///
    /// Looks before it changes, so that a user without the permission to change is enough once everything is there.
    ///
    /// # Errors
    /// In words for the person who started the service.
    pub async fn connect(settings: &NatsSettings, name: &str) -> anyhow::Result<Self> {
        let nats = Self::open(settings, name).await?;
        for spec in &STREAMS {
            nats.ensure_stream(spec, settings.replicas).await?;
        }
        for spec in &BUCKETS {
            nats.ensure_bucket(spec, settings.replicas).await?;
        }
        Ok(nats)
    }

    /// Connects and checks the server, and changes nothing on it.
    ///
    /// # Errors
    /// In words for the person who started the service.
    pub async fn open(settings: &NatsSettings, name: &str) -> anyhow::Result<Self> {
        let addresses = settings.servers.iter().map(|s| s.host().to_owned() + ":" + &s.port().to_string());
        let addresses = addresses.collect::<Vec<_>>().join(", ");
        let client =
            options(settings, name).await?.connect(settings.servers.as_slice()).await.with_context(|| {
                format!("nats.url: no NATS server answers at {addresses}; start one or correct the address")
            })?;
        check_version(&client.server_info().version)?;
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .ack_timeout(Duration::from_secs(2))
            .max_ack_inflight(2048)
            .build(client.clone());
        Ok(Self { client, jetstream })
    }

    async fn ensure_stream(&self, spec: &StreamSpec, replicas: usize) -> anyhow::Result<()> {
        let config = stream::Config {
            name: spec.name.to_owned(),
            description: Some(spec.description.to_owned()),
            subjects: vec![spec.subjects.to_owned()],
            max_age: spec.max_age,
            max_messages_per_subject: spec.max_messages_per_subject,
            max_bytes: spec.max_bytes,
            duplicate_window: spec.duplicate_window,
            num_replicas: replicas,
            allow_direct: true,
            retention: if spec.work_queue {
                stream::RetentionPolicy::WorkQueue
            } else {
                stream::RetentionPolicy::Limits
            },
            discard: if spec.work_queue { stream::DiscardPolicy::New } else { stream::DiscardPolicy::Old },
            ..Default::default()
        };
        let is_there = self.jetstream.get_stream(spec.name).await.is_ok_and(|found| {
            let found = &found.cached_info().config;
            found.duplicate_window == config.duplicate_window
                && found.max_bytes == config.max_bytes
                && found.subjects == config.subjects
                && agrees(found, &config)
        });
        if is_there {
            return Ok(());
        }
        self.jetstream
            .create_or_update_stream(config)
            .await
            .with_context(|| format!("stream {} cannot be made; {SETUP_HINT}", spec.name))?;
        Ok(())
    }

    async fn ensure_bucket(&self, spec: &BucketSpec, replicas: usize) -> anyhow::Result<()> {
        let config = kv::Config {
            bucket: spec.name.to_owned(),
            description: spec.description.to_owned(),
            history: 1,
            max_age: spec.max_age,
            num_replicas: replicas,
            ..Default::default()
        };
        let wanted = stream::Config {
            description: Some(spec.description.to_owned()),
            max_age: spec.max_age,
            max_messages_per_subject: 1,
            num_replicas: replicas,
            allow_direct: true,
            ..Default::default()
        };
        let found = self.jetstream.get_stream(format!("KV_{}", spec.name)).await;
        if found.is_ok_and(|found| agrees(&found.cached_info().config, &wanted)) {
            return Ok(());
        }
        self.jetstream
            .create_or_update_key_value(config)
            .await
            .with_context(|| format!("bucket {} cannot be made; {SETUP_HINT}", spec.name))?;
        Ok(())
    }

    /// Opens a bucket.
    ///
    /// # Errors
    /// Where it is missing or the server does not answer.
    pub async fn bucket(&self, spec: &BucketSpec) -> anyhow::Result<kv::Store> {
        self.jetstream
            .get_key_value(spec.name)
            .await
            .with_context(|| format!("bucket {} cannot be opened", spec.name))
    }

    /// Makes the durable consumer where it is missing, and opens it.
    ///
    /// # Errors
    /// Where the server refuses or does not answer.
    pub async fn consumer(
        &self,
        spec: &ConsumerSpec,
    ) -> anyhow::Result<jetstream::consumer::Consumer<pull::Config>> {
        let config = pull::Config {
            durable_name: Some(spec.name.to_owned()),
            ack_wait: spec.ack_wait,
            max_deliver: -1,
            max_ack_pending: spec.max_ack_pending,
            ..Default::default()
        };
        self.jetstream
            .create_consumer_on_stream(config, spec.stream)
            .await
            .with_context(|| format!("consumer {} of {} cannot be made", spec.name, spec.stream))
    }

    /// Makes the durable consumer of one subject of a queue where it is missing, and opens it.
    ///
    /// # Errors
    /// Where the server refuses or does not answer.
    pub async fn consumer_of(
        &self,
        stream: &StreamSpec,
        (name, subject): (String, String),
        (ack_wait, max_ack_pending): (Duration, i64),
    ) -> anyhow::Result<jetstream::consumer::Consumer<pull::Config>> {
        let context = format!("consumer {name} of {} cannot be made", stream.name);
        let config = pull::Config {
            durable_name: Some(name),
            filter_subject: subject,
            ack_wait,
            max_deliver: -1,
            max_ack_pending,
            ..Default::default()
        };
        self.jetstream.create_consumer_on_stream(config, stream.name).await.context(context)
    }
}

/// What a person does where a stream or a bucket is missing and the user may not make it.
const SETUP_HINT: &str = "run a service once with --setup and a user that has the JetStream permissions";

/// Whether a stream is as it is wanted: a user that may not change it needs none of it then.
fn agrees(found: &stream::Config, wanted: &stream::Config) -> bool {
    found.description == wanted.description
        && found.max_age == wanted.max_age
        && found.max_messages_per_subject == wanted.max_messages_per_subject
        && found.num_replicas == wanted.num_replicas
        && found.allow_direct == wanted.allow_direct
}

async fn options(settings: &NatsSettings, name: &str) -> anyhow::Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .name(name)
        .max_reconnects(None)
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(5))
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis(u64::try_from(attempt).unwrap_or(u64::MAX).saturating_mul(50).min(500))
        })
        .event_callback(|event| async move { log_event(&event) });
    if let Some((user, password)) = &settings.user {
        // Answers go to an inbox that other users may not listen to.
        options = options
            .user_and_password(user.clone(), password.expose_secret().to_owned())
            .custom_inbox_prefix(format!("_INBOX_{user}"));
    }
    if let Some(file) = &settings.credentials_file {
        options = options
            .credentials_file(file)
            .await
            .with_context(|| format!("nats.credentials_file: {} cannot be used", file.display()))?;
    }
    if let Some(file) = &settings.ca_file {
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    Ok(options)
}

/// A publish that permissions deny shows here only, and as an acknowledgement that never comes.
fn log_event(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("disconnected from NATS; reconnecting"),
        Event::ServerError(error) => {
            tracing::error!(%error, "NATS refused something; check the user's permissions")
        }
        Event::ClientError(error) => tracing::warn!(%error, "NATS client"),
        Event::SlowConsumer(id) => {
            tracing::warn!(subscription = id, "slow consumer: messages wait at the server")
        }
        Event::LameDuckMode | Event::Draining | Event::Closed => tracing::info!(%event, "NATS connection"),
    }
}

fn check_version(version: &str) -> anyhow::Result<()> {
    let mut numbers = version.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST_SERVER {
        bail!(
            "nats.url: the NATS server is {version}, at least {}.{} is needed; `./dev setup` brings one, or see docs/operations.md",
            OLDEST_SERVER.0,
            OLDEST_SERVER.1
        );
    }
    Ok(())
}

/// An ordered consumer over everything that a stream keeps on these subjects.
#[must_use]
pub fn from_the_start(subjects: &str) -> pull::OrderedConfig {
    pull::OrderedConfig { filter_subject: subjects.to_owned(), ..Default::default() }
}

/// Whether a message that keeps coming back counts as poison.
#[must_use]
pub fn is_poison(delivered: i64, explained: bool) -> bool {
    !explained && delivered >= MAX_UNEXPLAINED_DELIVERIES
}

/// Headers in the client's form.
#[must_use]
pub fn headers(pairs: Vec<(&'static str, String)>) -> async_nats::HeaderMap {
    let mut map = async_nats::HeaderMap::new();
    for (name, value) in pairs {
        map.insert(name, value.replace(['\r', '\n'], " ").as_str());
    }
    map
}

/// A header of a received message.
#[must_use]
pub fn header<'a>(message: &'a async_nats::Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref().and_then(|headers| headers.get(name)).map(async_nats::HeaderValue::as_str)
}

/// Publishes a message that cannot be used to the dead letters of its consumer, with the reason, once.
///
/// # Errors
/// Where the publish is not acknowledged: the message must not be given up then.
pub async fn dead_letter(
    nats: &Nats,
    consumer: &str,
    message: &jetstream::Message,
    reason: &str,
) -> anyhow::Result<()> {
    let position = message
        .info()
        .map_or_else(|_| "unknown".to_owned(), |i| format!("{}.{}", i.stream, i.stream_sequence));
    let headers = headers(vec![
        ("Nats-Msg-Id", format!("dead.{consumer}.{position}")),
        ("Vouch-Reason", reason.to_owned()),
        ("Vouch-Subject", message.subject.to_string()),
        ("Vouch-Position", position.clone()),
    ]);
    tracing::error!(consumer, subject = %message.subject, position, reason, "dead-lettered a message");
    crate::publish::publish(nats, subject::dead_letter(consumer), headers, message.payload.clone()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Document;

    #[test]
    fn an_old_server_is_refused_with_the_way_out() {
        assert!(
            check_version("2.15.1").is_ok()
                && check_version("2.12.0-beta").is_ok()
                && check_version("3.0.0").is_ok()
        );
        let said = check_version("2.9.10").unwrap_err().to_string();
        assert!(said.contains("2.9.10") && said.contains("2.12") && said.contains("./dev setup"), "{said}");
    }

    #[test]
    fn wrong_addresses_and_half_a_user_are_refused() {
        let document = Document::parse("nats: {url: 'nats://a:1, ::bad::', user: x, replicas: 9}").unwrap();
        let mut invalid = Invalid::default();
        let settings = NatsSettings::read(&mut document.section(), &mut invalid);
        let said = invalid.to_string();
        assert_eq!(settings.servers.len(), 1);
        for part in ["nats.url: `::bad::`", "nats.password_file: is missing", "nats.replicas: `9`"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn poison_is_what_comes_back_unexplained() {
        assert!(is_poison(20, false) && !is_poison(19, false) && !is_poison(5000, true));
    }
}
