//! Faults on demand: what goes wrong, where, how often, and when.

use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A header that tells when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleHeader {
    /// `Retry-After` in seconds.
    RetryAfter,
    /// `X-RateLimit-Reset` in seconds since the epoch.
    ResetSeconds,
    /// `X-RateLimit-Reset` in milliseconds since the epoch.
    ResetMilliseconds,
    /// `X-RateLimit-Reset` in microseconds since the epoch.
    ResetMicroseconds,
    /// No header: `error.retryAfterSeconds` in the body alone.
    RetryAfterSeconds,
    /// None at all.
    None,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// 429.
    Throttle {
        /// Its header.
        header: ThrottleHeader,
        /// Come back after so many seconds.
        #[serde(default = "five")]
        seconds: u32,
    },
    /// A status with Dynatrace's envelope.
    Status {
        /// 400 to 599.
        code: u16,
    },
    /// A page of a proxy instead of JSON.
    Html {
        /// Its status, 200 to 599.
        code: u16,
    },
    /// The answer begins late.
    SlowFirstByte {
        /// Real milliseconds.
        delay_ms: u64,
    },
    /// The body comes in ten pieces.
    SlowBody {
        /// Real milliseconds before each piece.
        delay_ms: u64,
    },
    /// The connection breaks in the middle of the body.
    CutOffBody,
    /// A gzip body without its end.
    TruncatedGzip,
    /// The connection breaks before an answer.
    DropConnection,
    /// 401.
    Unauthorized,
    /// 403: the scope is missing.
    MissingScope {
        /// The scope, e.g. `metrics.read`.
        scope: String,
    },
    /// Nothing answers: 503, or the connection is closed.
    Down {
        /// Closes the connection instead of answering 503.
        #[serde(default)]
        close: bool,
    },
    /// Points appear later than usual.
    LatePoints {
        /// Simulated milliseconds.
        by_ms: i64,
    },
    /// Points appear at once, incomplete, and are rewritten when they settle.
    RewrittenPoints,
    /// A status with an array of Dynatrace's envelopes.
    ArrayEnvelope {
        /// 400 to 599.
        code: u16,
    },
    /// DQL queries take their time: they are answered 202, and the first polls with a state and no result.
    QueryState {
        /// The state: `RUNNING`, `FAILED`, or one that nobody knows.
        #[serde(default = "running")]
        state: String,
        /// So many polls.
        #[serde(default = "one")]
        polls: u32,
    },
    /// Problems and events have a severity and a type that no documentation knows.
    UnknownConstants,
    /// DQL queries stop at the scan limit: the first half of their data is missing, and a notification says so.
    ScanLimit,
}

fn running() -> String {
    "RUNNING".into()
}

fn one() -> u32 {
    1
}

/// The faults of the data at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DataFaults {
    /// Points settle so much later.
    pub(crate) late_ms: i64,
    /// Whether points appear at once and are rewritten.
    pub(crate) rewritten: bool,
    /// State of the first polls, and how many these are.
    pub(crate) query_state: Option<(String, u32)>,
    /// Whether queries stop at the scan limit.
    pub(crate) scan_limit: bool,
    /// Whether constants are unheard of.
    pub(crate) unknown_constants: bool,
}

fn five() -> u32 {
    5
}

impl Fault {
    /// Whether it changes what is measured, and not how calls are answered.
    fn is_of_data(&self) -> bool {
        matches!(
            self,
            Self::LatePoints { .. }
                | Self::RewrittenPoints
                | Self::QueryState { .. }
                | Self::UnknownConstants
                | Self::ScanLimit
        )
    }
}

/// A fault with its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// What goes wrong.
    pub fault: Fault,
    /// Paths that begin so.
    #[serde(default = "everywhere")]
    pub path: String,
    /// So many calls, then no more; absent: no limit.
    #[serde(default)]
    pub calls: Option<u32>,
    /// From this simulated time on, epoch milliseconds.
    #[serde(default)]
    pub from_ms: Option<i64>,
    /// Until this simulated time.
    #[serde(default)]
    pub to_ms: Option<i64>,
}

fn everywhere() -> String {
    "/".into()
}

impl FaultRule {
    /// A fault on every path, without limits.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { fault, path: everywhere(), calls: None, from_ms: None, to_ms: None }
    }

    /// On paths that begin so.
    #[must_use]
    pub fn on(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// For so many calls.
    #[must_use]
    pub fn calls(mut self, calls: u32) -> Self {
        self.calls = Some(calls);
        self
    }

    /// Within `[from, to)` of simulated time, epoch milliseconds.
    #[must_use]
    pub fn during(mut self, from_ms: i64, to_ms: i64) -> Self {
        (self.from_ms, self.to_ms) = (Some(from_ms), Some(to_ms));
        self
    }

    /// What is wrong with it, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        let within = |code: u16, low: u16| {
            if (low..=599).contains(&code) {
                Ok(())
            } else {
                Err(format!("fault.code: {code} is not within {low} to 599"))
            }
        };
        match &self.fault {
            Fault::Status { code } | Fault::ArrayEnvelope { code } => within(*code, 400)?,
            Fault::Html { code } => within(*code, 200)?,
            Fault::SlowFirstByte { delay_ms } | Fault::SlowBody { delay_ms } if *delay_ms > 600_000 => {
                return Err(format!("fault.delay_ms: {delay_ms} is more than ten minutes (600000)"));
            }
            Fault::LatePoints { by_ms } if *by_ms < 0 => {
                return Err(format!("fault.by_ms: {by_ms} is negative; points cannot come early"));
            }
            fault if fault.is_of_data() && self.calls.is_some() => {
                return Err("calls: faults of the data have no calls; use from_ms and to_ms".into());
            }
            Fault::Throttle { .. }
            | Fault::SlowFirstByte { .. }
            | Fault::SlowBody { .. }
            | Fault::CutOffBody
            | Fault::TruncatedGzip
            | Fault::DropConnection
            | Fault::Unauthorized
            | Fault::MissingScope { .. }
            | Fault::Down { .. }
            | Fault::LatePoints { .. }
            | Fault::RewrittenPoints
            | Fault::QueryState { .. }
            | Fault::UnknownConstants
            | Fault::ScanLimit => {}
        }
        match (self.from_ms, self.to_ms) {
            (Some(from), Some(to)) if from >= to => {
                Err(format!("to_ms: {to} does not lie after from_ms ({from})"))
            }
            _ if self.calls == Some(0) => {
                Err("calls: 0 calls never happen; leave it out for no limit".into())
            }
            _ => Ok(()),
        }
    }

    fn is_active(&self, path: &str, now: i64) -> bool {
        !path.starts_with("/_simulator")
            && path.starts_with(&self.path)
            && self.from_ms.is_none_or(|from| from <= now)
            && self.to_ms.is_none_or(|to| now < to)
            && self.calls != Some(0)
    }
}

/// Most rules at a time.
const RULES_LIMIT: usize = 1_000;

/// The faults that are set.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<FaultRule>>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Vec<FaultRule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a fault; the first that fits a call is the one it meets.
    pub(crate) fn add(&self, rule: FaultRule) -> Result<(), String> {
        rule.check()?;
        let mut rules = self.lock();
        if rules.len() >= RULES_LIMIT {
            return Err(format!("there are {RULES_LIMIT} faults already; delete them first"));
        }
        rules.push(rule);
        Ok(())
    }

    /// Takes all faults away.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// The faults that are left.
    pub(crate) fn list(&self) -> Vec<FaultRule> {
        self.lock().clone()
    }

    /// The fault that a call meets; counts the call.
    pub(crate) fn strike(&self, path: &str, now: i64) -> Option<Fault> {
        let mut rules = self.lock();
        let index = rules.iter().position(|r| !r.fault.is_of_data() && r.is_active(path, now))?;
        let fault = rules[index].fault.clone();
        if let Some(left) = &mut rules[index].calls {
            *left -= 1;
            if *left == 0 {
                rules.remove(index);
            }
        }
        Some(fault)
    }

    /// What is wrong with the data that a path gives.
    pub(crate) fn of_data(&self, path: &str, now: i64) -> DataFaults {
        let mut effect = DataFaults::default();
        for rule in self.lock().iter().filter(|r| r.fault.is_of_data() && r.is_active(path, now)) {
            if let Fault::LatePoints { by_ms } = rule.fault {
                effect.late_ms = by_ms.max(effect.late_ms);
            } else if let Fault::QueryState { state, polls } = &rule.fault {
                effect.query_state.get_or_insert_with(|| (state.clone(), *polls));
            } else {
                effect.rewritten |= rule.fault == Fault::RewrittenPoints;
                effect.scan_limit |= rule.fault == Fault::ScanLimit;
                effect.unknown_constants |= rule.fault == Fault::UnknownConstants;
            }
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_its_calls_and_no_others() {
        let faults = Faults::default();
        let down = Fault::Down { close: false };
        faults.add(FaultRule::new(Fault::CutOffBody).on("/api/v2/metrics").calls(2)).unwrap();
        faults.add(FaultRule::new(down.clone()).during(100, 200)).unwrap();
        assert_eq!(faults.strike("/api/v2/entities", 50), None);
        assert_eq!(faults.strike("/api/v2/metrics/query", 50), Some(Fault::CutOffBody));
        assert_eq!(faults.strike("/api/v2/entities", 100), Some(down.clone()));
        assert_eq!(faults.strike("/api/v2/metrics/query", 150), Some(Fault::CutOffBody));
        assert_eq!(faults.strike("/api/v2/metrics/query", 199), Some(down));
        assert_eq!(faults.strike("/api/v2/metrics/query", 200), None);
        assert_eq!(faults.strike("/_simulator/faults", 150), None, "the control endpoints stay reachable");
    }

    #[test]
    fn impossible_rules_are_refused() {
        for (rule, field) in [
            (FaultRule::new(Fault::Status { code: 200 }), "fault.code"),
            (FaultRule::new(Fault::SlowBody { delay_ms: 700_000 }), "fault.delay_ms"),
            (FaultRule::new(Fault::LatePoints { by_ms: -1 }), "fault.by_ms"),
            (FaultRule::new(Fault::RewrittenPoints).calls(1), "calls"),
            (FaultRule::new(Fault::CutOffBody).calls(0), "calls"),
            (FaultRule::new(Fault::CutOffBody).during(5, 5), "to_ms"),
        ] {
            assert!(Faults::default().add(rule.clone()).unwrap_err().starts_with(field), "{rule:?}");
        }
    }
}
