//! The topics as a subscriber from outside sees them.

use crate::LIMIT;
use async_nats::jetstream;
use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use std::time::{Duration, Instant};
use vouch_proto::envelope::{self, Event};
use vouch_proto::subject::{ACTIONS, DEAD_LETTERS, SERIES, StreamSpec, VERDICTS};
use vouch_proto::{Action, Purpose, Verdict, v1};

/// A stored message.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: async_nats::HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A connection of a subscriber.
#[derive(Debug, Clone)]
pub struct Topics {
    /// JetStream of the world's nats-server.
    pub jetstream: jetstream::Context,
}

impl Topics {
    pub(crate) async fn open(url: &str, user: Option<(&str, &str)>) -> Self {
        let options = user.map_or_else(async_nats::ConnectOptions::new, |(user, password)| {
            async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        });
        let client = options.connect(url).await.expect("the nats-server answers");
        Self { jetstream: jetstream::new(client) }
    }

    /// Publishes without asking anybody.
    pub async fn publish(&self, subject: String, body: Vec<u8>) {
        let acknowledgement = self.jetstream.publish(subject, body.into()).await.expect("a publish");
        acknowledgement.await.expect("an acknowledgement");
    }

    /// Everything that a stream keeps.
    pub async fn all(&self, spec: &StreamSpec) -> Vec<Stored> {
        let mut stream = self.jetstream.get_stream(spec.name).await.expect("the stream");
        let state = stream.info().await.expect("its state").state.clone();
        let mut found = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            match stream.get_raw_message(sequence).await {
                Ok(m) => {
                    found.push(Stored { subject: m.subject.to_string(), headers: m.headers, body: m.payload })
                }
                Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => {}
                Err(e) => panic!("{e}"),
            }
        }
        found
    }

    fn read<E: Event>(stored: &Stored) -> E {
        let content_type = stored.headers.get("content-type").map(async_nats::HeaderValue::as_str);
        envelope::open(content_type, &stored.body).expect("a readable event")
    }

    /// All verdicts of a verification, in the order of their revisions.
    pub async fn verdicts(&self, id: &str) -> Vec<Verdict> {
        let all = self.all(&VERDICTS).await;
        let read = all.iter().filter_map(|m| Verdict::try_from(Self::try_verdict(m)?).ok());
        read.filter(|v| v.verification_id == id).collect()
    }

    fn try_verdict(stored: &Stored) -> Option<v1::Verdict> {
        let content_type = stored.headers.get("content-type").map(async_nats::HeaderValue::as_str);
        envelope::open(content_type, &stored.body).ok()
    }

    /// Waits for the first verdict of a verification.
    pub async fn verdict(&self, id: &str) -> Verdict {
        let begun = Instant::now();
        loop {
            if let Some(verdict) = self.verdicts(id).await.into_iter().next() {
                return verdict;
            }
            assert!(begun.elapsed() < LIMIT, "no verdict on {id}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the first verdict on a service, whatever its id.
    pub async fn verdict_on(&self, service: &str, version: &str) -> Verdict {
        let begun = Instant::now();
        loop {
            let all = self.all(&VERDICTS).await;
            let mut read = all.iter().filter_map(|m| Verdict::try_from(Self::try_verdict(m)?).ok());
            if let Some(verdict) =
                read.find(|v| v.service.as_str() == service && v.version.as_str() == version)
            {
                return verdict;
            }
            assert!(begun.elapsed() < LIMIT, "no verdict on {service} {version}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All entries of the audit on a verification.
    pub async fn actions(&self, id: &str) -> Vec<Action> {
        let all = self.all(&ACTIONS).await;
        let read = all.iter().map(|m| Action::try_from(Self::read::<v1::Action>(m)).expect("a valid action"));
        read.filter(|a| a.verification_id == id).collect()
    }

    /// Waits for an entry of the audit with this purpose.
    pub async fn action(&self, id: &str, purpose: Purpose) -> Action {
        let begun = Instant::now();
        loop {
            if let Some(action) = self.actions(id).await.into_iter().find(|a| a.purpose == purpose) {
                return action;
            }
            assert!(begun.elapsed() < LIMIT, "no {} recorded for {id}", purpose.as_str());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for so many dead letters.
    pub async fn dead_letters(&self, count: usize) -> Vec<Stored> {
        let begun = Instant::now();
        loop {
            let letters = self.all(&DEAD_LETTERS).await;
            if letters.len() >= count {
                return letters;
            }
            assert!(begun.elapsed() < LIMIT, "{} dead letters, {count} expected", letters.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until so many batches have been published.
    pub async fn batches(&self, count: u64) {
        let begun = Instant::now();
        loop {
            let mut stream = self.jetstream.get_stream(SERIES.name).await.expect("the stream");
            if stream.info().await.expect("its state").state.messages >= count {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "not {count} batches");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
