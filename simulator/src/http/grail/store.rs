//! The queries whose results wait to be fetched.

use crate::base64::Alphabet;
use crate::noise::stream;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most results kept; older ones are gone.
const KEPT_LIMIT: usize = 1_000;

/// A result, and the descriptions of its metrics.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// `result` without descriptions.
    pub(super) result: Value,
    /// `metadata.metrics`.
    pub(super) metrics: Vec<Value>,
}

impl Kept {
    /// `result`, with the descriptions where these are wanted.
    pub(super) fn json(&self, is_enriched: bool) -> Value {
        let mut result = self.result.clone();
        if is_enriched {
            result["metadata"]["metrics"] = json!(self.metrics);
        }
        result
    }
}

/// A query that waits.
#[derive(Debug)]
struct Waiting {
    token: String,
    kept: Kept,
    /// State of the polls before the result: which, how many, and how many are left.
    state: Option<(String, u32, u32)>,
    expires_ms: i64,
}

impl Waiting {
    fn is_finished(&self) -> bool {
        self.state.as_ref().is_none_or(|(_, _, left)| *left == 0)
    }
}

/// What a poll meets.
#[derive(Debug)]
pub(super) enum Polled {
    /// Not yet: the state, progress, and when the query is forgotten.
    Pending(String, u32, i64),
    /// The result.
    Finished(Kept),
}

impl Polled {
    /// The answer.
    pub(super) fn json(&self, is_enriched: bool, now: i64) -> Value {
        match self {
            Self::Pending(state, progress, expires_ms) => {
                let ttl = (expires_ms - now).div_euclid(1000);
                json!({ "state": state, "progress": progress, "ttlSeconds": ttl })
            }
            Self::Finished(kept) => {
                json!({ "state": "SUCCEEDED", "progress": 100, "result": kept.json(is_enriched) })
            }
        }
    }
}

/// The queries whose results wait to be fetched.
#[derive(Debug, Default)]
pub(crate) struct QueryStore {
    waiting: Mutex<VecDeque<Waiting>>,
    number: AtomicU64,
}

impl QueryStore {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next query.
    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps a result; the first polls meet a state instead. Gives the token to poll with.
    pub(super) fn keep(&self, kept: Kept, state: Option<(String, u32)>, expires_ms: i64) -> String {
        let number = self.next_number();
        // Standard base64: a client must percent-encode it.
        let bytes = [stream(number, "request token").to_be_bytes(), number.to_be_bytes()].concat();
        let token = Alphabet::Standard.encode(&bytes);
        let state = state.map(|(state, polls)| (state, polls, polls));
        let mut waiting = self.lock();
        if waiting.len() == KEPT_LIMIT {
            waiting.pop_front();
        }
        waiting.push_back(Waiting { token: token.clone(), kept, state, expires_ms });
        token
    }

    /// Polls; a result is given once. `None`: gone.
    pub(super) fn poll(&self, token: &str, now: i64) -> Option<Polled> {
        let mut waiting = self.lock();
        waiting.retain(|w| now < w.expires_ms);
        let index = waiting.iter().position(|w| w.token == token)?;
        let query = &mut waiting[index];
        if let Some((state, polls, left)) = &mut query.state
            && *left > 0
        {
            let progress = (*polls - *left).saturating_mul(100) / polls.saturating_add(1);
            *left -= 1;
            return Some(Polled::Pending(state.clone(), progress, query.expires_ms));
        }
        waiting.remove(index).map(|w| Polled::Finished(w.kept))
    }

    /// Cancels; gives the result where the query had finished. `None`: gone.
    #[allow(
        clippy::option_option,
        reason = "gone, cancelled without a result, and with one are different answers"
    )]
    pub(super) fn cancel(&self, token: &str, now: i64) -> Option<Option<Kept>> {
        let mut waiting = self.lock();
        waiting.retain(|w| now < w.expires_ms);
        let index = waiting.iter().position(|w| w.token == token)?;
        let query = waiting.remove(index)?;
        Some(query.is_finished().then_some(query.kept))
    }
}
