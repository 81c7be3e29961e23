//! What is waited for: a metric whose minutes are complete later than others.

use crate::{Invalid, Timestamp, time, v1};
use std::time::Duration;

/// A metric that comes later than the others of its batch, or later than usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Its name in the template.
    pub metric: String,
    /// When it is read next.
    pub until: Timestamp,
    /// How long after its end a minute of it is complete, as far as is known.
    pub late_by: Duration,
    /// The batch lacks it over its whole window; a later one of the window brings it.
    pub is_missing: bool,
}

impl TryFrom<v1::Wait> for Wait {
    type Error = Invalid;

    fn try_from(wait: v1::Wait) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        if wait.metric.is_empty() {
            invalid.push("metric", "is empty; give the metric's name in the template");
        }
        let until = invalid.check("until", time::required(wait.until));
        match until {
            Some(until) if invalid.violations.is_empty() => Ok(Self {
                metric: wait.metric,
                until,
                late_by: Duration::from_secs(u64::from(wait.late_by_seconds)),
                is_missing: wait.missing,
            }),
            Some(_) | None => Err(invalid),
        }
    }
}

impl From<Wait> for v1::Wait {
    fn from(wait: Wait) -> Self {
        Self {
            metric: wait.metric,
            until: Some(wait.until.into()),
            late_by_seconds: u32::try_from(wait.late_by.as_secs()).unwrap_or(u32::MAX),
            missing: wait.is_missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_back_and_a_wrong_one_named() {
        let wait = Wait {
            metric: "cpu".into(),
            until: "2026-11-24T10:12:00Z".parse().unwrap(),
            late_by: Duration::from_secs(600),
            is_missing: true,
        };
        let wire = v1::Wait::from(wait.clone());
        assert_eq!(Wait::try_from(wire.clone()), Ok(wait));
        let said = Wait::try_from(v1::Wait { metric: String::new(), until: None, ..wire }).unwrap_err();
        let said = said.to_string();
        assert!(said.contains("metric: is empty") && said.contains("until: is missing"), "{said}");
    }
}
