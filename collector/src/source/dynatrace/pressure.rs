//! How hard a tenant may be asked: fewer calls at once while it throttles, and none while it is down.

use crate::source::{Failure, FailureKind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use vouch_proto::Timestamp;

/// Failures in a row after which the tenant counts as down.
const DOWN_AFTER: u32 = 12;
/// How long a tenant that is down is left alone; then one call tries.
const LEFT_ALONE: Duration = Duration::from_secs(20);

/// The pressure on one tenant.
#[derive(Debug)]
pub(super) struct Pressure {
    permits: Semaphore,
    state: Mutex<State>,
    most: usize,
}

#[derive(Debug)]
struct State {
    /// Calls at once, now: additive increase, multiplicative decrease (Chiu & Jain 1989).
    limit: usize,
    /// Successes since it last changed.
    successes: usize,
    /// Failures in a row, with the last of them.
    failures: u32,
    last: Option<Failure>,
    /// Until when nobody asks.
    closed_until: Option<Timestamp>,
}

impl Pressure {
    /// At most so many calls at once.
    pub(super) fn new(most: usize) -> Self {
        let state = State { limit: most, successes: 0, failures: 0, last: None, closed_until: None };
        Self { permits: Semaphore::new(most), state: Mutex::new(state), most }
    }

    /// Waits for its turn.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }

    /// Why nobody may ask at `now`, where the tenant is down. When its time is up, the first who asks may try.
    pub(super) fn closed(&self, now: Timestamp) -> Option<Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let until = state.closed_until?;
        if now >= until {
            state.closed_until = Some(now.plus(LEFT_ALONE));
            return None;
        }
        let last = state.last.clone()?;
        let message = format!("{} (it is down, and is asked again at {until})", last.message);
        Some(Failure { message, retry_after: Some(until.since(now)), ..last })
    }

    /// Learns how a call ended; answers the calls at once from now on.
    pub(super) fn note(&self, ended: Result<(), &Failure>, now: Timestamp) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(failure) = ended else {
            (state.failures, state.last, state.closed_until) = (0, None, None);
            state.successes += 1;
            if state.successes >= state.limit && state.limit < self.most {
                (state.successes, state.limit) = (0, state.limit + 1);
                self.permits.add_permits(1);
            }
            return state.limit;
        };
        if failure.kind == FailureKind::Throttled {
            let less = (state.limit / 2).max(1);
            // Those that are in use are given back, and stay.
            let gone = self.permits.forget_permits(state.limit - less);
            (state.limit, state.successes) = (state.limit - gone, 0);
        }
        let is_down = matches!(
            failure.kind,
            FailureKind::Unavailable | FailureKind::Unreachable | FailureKind::Timeout
        );
        if is_down {
            state.failures += 1;
            state.last = Some(failure.clone());
            if state.failures >= DOWN_AFTER {
                state.closed_until = Some(now.plus(LEFT_ALONE));
            }
        } else if failure.kind != FailureKind::CutOff {
            // It has answered.
            (state.failures, state.last, state.closed_until) = (0, None, None);
        }
        state.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn throttling_halves_and_successes_add_one() {
        let pressure = Pressure::new(8);
        let throttled = Failure::new(FailureKind::Throttled, "wait");
        assert_eq!(pressure.note(Err(&throttled), at(0)), 4);
        assert_eq!(pressure.note(Err(&throttled), at(0)), 2);
        let limits: Vec<usize> = (0..5).map(|_| pressure.note(Ok(()), at(1))).collect();
        assert_eq!(limits, [2, 3, 3, 3, 4]);
        for _ in 0..10 {
            pressure.note(Err(&throttled), at(2));
        }
        assert_eq!(pressure.note(Err(&throttled), at(2)), 1, "never none");
        for _ in 0..100 {
            pressure.note(Ok(()), at(3));
        }
        assert_eq!((pressure.note(Ok(()), at(3)), pressure.permits.available_permits()), (8, 8));
    }

    #[test]
    fn a_tenant_that_is_down_is_left_alone_and_then_tried_by_one() {
        let pressure = Pressure::new(8);
        let down = Failure::new(FailureKind::Unavailable, "503");
        for _ in 0..DOWN_AFTER - 1 {
            pressure.note(Err(&down), at(0));
        }
        assert_eq!(pressure.closed(at(0)), None);
        pressure.note(Err(&down), at(0));
        let said = pressure.closed(at(5)).unwrap();
        assert!(said.message.contains("503 (it is down") && said.kind == FailureKind::Unavailable, "{said}");
        assert_eq!(pressure.closed(at(20)), None, "the first tries");
        assert!(pressure.closed(at(20)).is_some(), "the others wait for how that ends");
        pressure.note(Ok(()), at(21));
        assert_eq!(pressure.closed(at(21)), None);
        // What is the settings' fault is no sign of being down.
        for _ in 0..50 {
            pressure.note(Err(&Failure::new(FailureKind::BadRequest, "400")), at(22));
        }
        assert_eq!(pressure.closed(at(22)), None);
    }
}
