//! Verdicts, entries and a clock that tests share.

use std::time::Duration;
use tokio::time::Instant;
use vouch_proto::{Outcome, Timestamp, Verdict, v1};
use vouch_service::clock::Clock;

/// The released example: a Fail of rollback grade on `prod/checkout`.
pub(crate) fn verdict() -> Verdict {
    let released = include_bytes!("../../proto/golden/verdict.json");
    Verdict::try_from(serde_json::from_slice::<v1::Verdict>(released).unwrap()).unwrap()
}

/// The example with another outcome, and the risk that fits.
pub(crate) fn verdict_of(outcome: Outcome) -> Verdict {
    let fail = outcome == Outcome::Fail;
    Verdict { outcome, rollback_grade: fail, risk: if fail { 1.0 } else { 0.25 }, ..verdict() }
}

/// Ten minutes into the example's day.
pub(crate) fn at(second: u64) -> Timestamp {
    verdict().decided_at.plus(Duration::from_secs(second))
}

/// A clock that goes with tokio's, which tests pause and advance.
#[derive(Debug)]
pub(crate) struct TokioClock(Instant, Timestamp);

impl TokioClock {
    pub(crate) fn starting_at(t: Timestamp) -> Self {
        Self(Instant::now(), t)
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.1.plus(self.0.elapsed())
    }

    fn real(&self, duration: Duration) -> Duration {
        duration
    }

    fn at_real(&self, real: Timestamp) -> Timestamp {
        real
    }
}
