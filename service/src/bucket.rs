//! Compare-and-set on a key-value bucket: read, decide (pure), write where nobody was faster.

use anyhow::Context as _;
use async_nats::jetstream::kv::{Operation, Store};
use bytes::Bytes;
use std::time::Duration;
use vouch_proto::subject::{ANY_ENVIRONMENT, catalogue_key};
use vouch_proto::{Name, v1};

const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What a decision wants done with the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// Write these bytes and answer `T`.
    Write(Vec<u8>, T),
    /// Leave it and answer `T`.
    Keep(T),
}

/// Reads the key, lets `decide` decide, and writes its answer; again from the start where somebody else was faster.
///
/// `decide` may be called several times and must depend on its argument alone. A write whose acknowledgement was lost
/// is seen by the next call of `decide`.
///
/// # Errors
/// What `decide` answers, or that the bucket could not be reached in about a minute.
pub async fn change<T>(
    store: &Store,
    key: &str,
    mut decide: impl FnMut(Option<&[u8]>) -> anyhow::Result<Change<T>>,
) -> anyhow::Result<T> {
    let mut pause = PAUSE;
    let mut last_error = None;
    for _ in 0..ATTEMPTS {
        match store.entry(key).await {
            Ok(entry) => {
                let revision = entry.as_ref().map_or(0, |e| e.revision);
                let value =
                    entry.as_ref().filter(|e| e.operation == Operation::Put).map(|e| e.value.as_ref());
                match decide(value)? {
                    Change::Keep(answer) => return Ok(answer),
                    Change::Write(bytes, answer) => {
                        match store.update(key, Bytes::from(bytes), revision).await {
                            Ok(_) => return Ok(answer),
                            // A conflict comes back under several error codes; reading again tells it from an outage.
                            Err(e) => last_error = Some(anyhow::Error::from(e)),
                        }
                    }
                }
            }
            Err(e) => last_error = Some(e.into()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let error = last_error.unwrap_or_else(|| anyhow::anyhow!("no attempt was made"));
    Err(error).with_context(|| format!("key {key} of bucket {} could not be written", store.name))
}

/// Reads a key, and again through a short outage.
///
/// # Errors
/// Where the bucket could not be reached in about a minute.
pub async fn read(store: &Store, key: &str) -> anyhow::Result<Option<Bytes>> {
    let mut pause = PAUSE;
    let mut attempt = 0;
    loop {
        attempt += 1;
        match store.get(key).await {
            Ok(value) => return Ok(value),
            Err(e) if attempt == ATTEMPTS => {
                return Err(e)
                    .with_context(|| format!("key {key} of bucket {} could not be read", store.name));
            }
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// What the catalogue says about a service, under its environment or any. An entry that another version wrote and that
/// cannot be read says that the service is there, and nothing else: it is no reason to refuse a deployment.
///
/// # Errors
/// Where the bucket could not be read.
pub async fn catalogue_entry(
    store: &Store,
    environment: &Name,
    service: &Name,
) -> anyhow::Result<Option<v1::ServiceEntry>> {
    let any = Name::new(ANY_ENVIRONMENT)?;
    for environment in [environment, &any] {
        if let Some(bytes) = read(store, &catalogue_key(environment, service)).await? {
            return Ok(Some(serde_json::from_slice(&bytes).unwrap_or_default()));
        }
    }
    Ok(None)
}
