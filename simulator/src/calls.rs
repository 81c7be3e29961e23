//! The log of the calls received, so that tests can be strict about what was asked.

use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most calls kept; older ones are forgotten.
const LIMIT: usize = 10_000;

/// A call. Tokens are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Simulated time, epoch milliseconds.
    pub at_ms: i64,
    /// `GET`, `POST`.
    pub method: String,
    /// The path as received.
    pub path: String,
    /// The query, decoded, in the order received, without `api-token`.
    pub query: Vec<(String, String)>,
    /// The body, where it is a DQL request.
    pub body: Option<String>,
    /// Status of the answer; 0 where the connection was broken instead.
    pub status: u16,
    /// The fault it met.
    pub fault: Option<String>,
}

impl Call {
    /// The first value of a query parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The newest calls.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    calls: Mutex<VecDeque<Call>>,
}

impl CallLog {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, call: Call) {
        let mut calls = self.lock();
        if calls.len() == LIMIT {
            calls.pop_front();
        }
        calls.push_back(call);
    }

    pub(crate) fn list(&self) -> Vec<Call> {
        self.lock().iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded() {
        let log = CallLog::default();
        for i in 0..LIMIT + 5 {
            let at_ms = i64::try_from(i).unwrap();
            log.push(Call {
                at_ms,
                method: "GET".into(),
                path: "/".into(),
                query: vec![],
                body: None,
                status: 200,
                fault: None,
            });
        }
        let calls = log.list();
        assert_eq!((calls.len(), calls[0].at_ms), (LIMIT, 5));
        log.clear();
        assert!(log.list().is_empty());
    }
}
