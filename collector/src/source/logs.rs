//! Where lines of logs come from: handed on as they come, so that no window is ever held as a whole.

use super::Failure;
use async_trait::async_trait;
use std::fmt::{self, Debug};
use vouch_proto::{LogGap, LogLine, LogOrigin, Name, Window};

/// What something billed is read for: what stops first when the budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// A verification that runs.
    Verification,
    /// A service outside deployments.
    Guard,
    /// What was before a deployment.
    History,
}

impl Purpose {
    /// The word in metrics and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::Guard => "guard",
            Self::History => "history",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A service whose lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoggedService {
    /// Its environment.
    pub environment: Name,
    /// Its name.
    pub service: Name,
}

/// Services whose lines of the same window are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogAsk {
    /// Each once; the others of this file name them by their place here.
    pub services: Vec<LoggedService>,
    /// Whole minutes that have settled.
    pub window: Window,
    /// What for.
    pub purpose: Purpose,
}

/// A line as a source has it; `line.origin` means nothing yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// The line.
    pub line: LogLine,
    /// Where it comes from.
    pub origin: LogOrigin,
}

/// Takes lines as they come.
#[async_trait]
pub trait LineSink: Send {
    /// Takes lines of one service, no earlier than those that it took before. Answers whether it wants more of it.
    ///
    /// # Errors
    /// Where they cannot be handed on: reading ends then.
    async fn take(&mut self, service: usize, lines: Vec<SourceLine>) -> anyhow::Result<bool>;
}

/// What a meter says before something billed is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Most gigabytes that the query may scan.
    pub scan_limit_gb: u32,
    /// Services that must not be read, and why.
    pub refused: Vec<(usize, Failure)>,
}

/// Watches over what is billed.
#[async_trait]
pub trait Meter: Debug + Send + Sync {
    /// Whether these of the services may be read now.
    ///
    /// # Errors
    /// Where none may.
    async fn allow(&self, ask: &LogAsk, services: &[usize]) -> Result<Allowance, Failure>;

    /// Notes what was scanned, by service.
    async fn charge(&self, ask: &LogAsk, shares: &[(usize, u64)]);
}

/// How the lines of a service were read: all of them, or why some are missing.
pub type Heard = Result<Option<LogGap>, Failure>;

/// A source of lines.
#[async_trait]
pub trait LogSource: Debug + Send + Sync {
    /// Reads the lines of some services over a window, each of them in the order of time.
    ///
    /// Answers how it went for each service, by its place in `ask`.
    ///
    /// # Errors
    /// Where the sink cannot hand lines on.
    async fn lines(
        &self,
        ask: &LogAsk,
        sink: &mut dyn LineSink,
        meter: &dyn Meter,
    ) -> anyhow::Result<Vec<Heard>>;
}

/// Divides what a shared query scanned by the records that each service got; evenly where nobody got one.
#[must_use]
pub fn apportion(bytes: u64, records: &[u64]) -> Vec<u64> {
    let total: u128 = records.iter().map(|n| u128::from(*n)).sum();
    let even = vec![1_u64; records.len()];
    let (weights, total) =
        if total == 0 { (even.as_slice(), records.len() as u128) } else { (records, total) };
    let mut given = 0;
    let mut weight = 0_u128;
    let mut shares = Vec::with_capacity(records.len());
    for one in weights {
        // Cumulative, so that rounding loses nothing.
        weight += u128::from(*one);
        let until = u64::try_from(u128::from(bytes) * weight / total.max(1)).unwrap_or(bytes);
        shares.push(until - given);
        given = until;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_follow_the_records() {
        assert_eq!(apportion(100, &[3, 1, 0]), [75, 25, 0]);
        assert_eq!(apportion(100, &[0, 0, 0]), [33, 33, 34], "somebody had to look");
        assert_eq!(apportion(7, &[]), Vec::<u64>::new());
        assert_eq!(apportion(u64::MAX, &[1, 1]).iter().sum::<u64>(), u64::MAX);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(bytes in any::<u64>(), records in proptest::collection::vec(0_u64..1_000_000, 1..20)) {
            prop_assert_eq!(apportion(bytes, &records).iter().map(|b| u128::from(*b)).sum::<u128>(), u128::from(bytes));
        }
    }
}
