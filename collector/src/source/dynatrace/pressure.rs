//! How hard a tenant may be asked: so many calls a minute, fewer at once while it throttles, and none while it is down.

use super::admission::{Queue, Room};
use super::share::Share;
use crate::source::{Failure, FailureKind, Purpose};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use vouch_proto::Timestamp;
use vouch_service::clock::{self, SharedClock};

/// Failures in a row after which the tenant counts as down.
const DOWN_AFTER: u32 = 12;
/// How long a tenant that is down is left alone; then one call tries.
const LEFT_ALONE: Duration = Duration::from_secs(20);
/// How long a call waits for its turn, on the injected clock; what is for history can wait.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_OF_HISTORY: Duration = Duration::from_secs(3600);
/// So many are in line before those who have gone away are taken out of it.
const TIDY_AT: usize = 256;

/// The pressure on one tenant.
#[derive(Debug, Clone)]
pub(super) struct Pressure {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    clock: SharedClock,
    most: usize,
}

#[derive(Debug)]
struct State {
    /// Calls at once, now: additive increase, multiplicative decrease (Chiu & Jain 1989).
    limit: usize,
    /// Calls under way.
    busy: usize,
    /// Successes since it last changed.
    successes: usize,
    /// Failures in a row, with the last of them.
    failures: u32,
    last: Option<Failure>,
    /// Until when nobody asks.
    closed_until: Option<Timestamp>,
    share: Share,
    queue: Queue<oneshot::Sender<Turn>>,
}

/// The turn of one call; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    inner: Arc<Inner>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.busy = state.busy.saturating_sub(1);
        drop(state);
        self.inner.serve();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives turns to those who are next, as far as there is room.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let now = self.clock.now();
            let (spent, share) = state.share.spent(now);
            let room = Room { busy: state.busy, most: state.limit, spent, share };
            let Some(next) = state.queue.pop(room) else { return };
            if next.is_closed() {
                continue;
            }
            state.busy += 1;
            state.share.spend(now);
            // Whoever has gone away meanwhile gives its turn back, for which the state must be free.
            drop(state);
            next.send(Turn { inner: self.clone() }).ok();
        }
    }
}

impl Pressure {
    /// At most so many calls at once, and a share of those of a minute.
    pub(super) fn new(most: usize, share: Share, clock: SharedClock) -> Self {
        let state = State {
            limit: most,
            busy: 0,
            successes: 0,
            failures: 0,
            last: None,
            closed_until: None,
            share,
            queue: Queue::default(),
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), clock, most }) }
    }

    /// Waits for the turn of a call.
    ///
    /// # Errors
    /// Where it did not come in time.
    pub(super) async fn turn(&self, purpose: Purpose) -> Result<Turn, Failure> {
        let (sender, mut granted) = oneshot::channel();
        let patience = if purpose == Purpose::History { PATIENCE_OF_HISTORY } else { PATIENCE };
        let until = self.inner.clock.now().plus(patience);
        {
            let mut state = self.inner.lock();
            if state.queue.len(purpose) % TIDY_AT == TIDY_AT - 1 {
                state.queue.retain(|one| !one.is_closed());
            }
            state.queue.push(purpose, sender);
        }
        loop {
            self.inner.serve();
            let now = self.inner.clock.now();
            let freed = self.inner.lock().share.freed_at(now);
            let wake = freed.map_or(until, |freed| freed.min(until));
            tokio::select! {
                biased;
                turn = &mut granted => return turn.map_err(|_| stopping()),
                () = clock::sleep_until(&*self.inner.clock, wake) => {}
            }
            if self.inner.clock.now() >= until {
                return granted.try_recv().map_err(|_| self.no_turn(purpose, patience));
            }
        }
    }

    fn no_turn(&self, purpose: Purpose, patience: Duration) -> Failure {
        let seconds = patience.as_secs();
        let share = self.inner.lock().share.spent(self.inner.clock.now()).1;
        let budget = share.map_or_else(String::new, |share| {
            format!(" ({share} calls a minute are this collector's share of collector.calls_per_minute)")
        });
        let message = format!(
            "a call for the {} had no turn within {seconds} s{budget}; raise calls_per_minute or concurrency, or measure less",
            purpose.as_str()
        );
        Failure::new(FailureKind::Throttled, message)
    }

    /// How many calls wait for a purpose, and how many a minute are this replica's share.
    pub(super) fn standing(&self, purpose: Purpose) -> (usize, Option<usize>) {
        let mut state = self.inner.lock();
        let waiting = state.queue.len(purpose);
        (waiting, state.share.spent(self.inner.clock.now()).1)
    }

    /// Why nobody may ask at `now`, where the tenant is down. When its time is up, the first who asks may try.
    pub(super) fn closed(&self, now: Timestamp) -> Option<Failure> {
        let mut state = self.inner.lock();
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
        let mut state = self.inner.lock();
        state.learn(ended, now, self.inner.most);
        let limit = state.limit;
        drop(state);
        self.inner.serve();
        limit
    }
}

impl State {
    fn learn(&mut self, ended: Result<(), &Failure>, now: Timestamp, most: usize) {
        let Err(failure) = ended else {
            (self.failures, self.last, self.closed_until) = (0, None, None);
            self.successes += 1;
            if self.successes >= self.limit && self.limit < most {
                (self.successes, self.limit) = (0, self.limit + 1);
            }
            return;
        };
        if failure.kind == FailureKind::Throttled {
            // Calls under way go on; none begins until fewer than that are.
            (self.limit, self.successes) = ((self.limit / 2).max(1), 0);
        }
        let is_down = matches!(
            failure.kind,
            FailureKind::Unavailable | FailureKind::Unreachable | FailureKind::Timeout
        );
        if is_down {
            self.failures += 1;
            self.last = Some(failure.clone());
            if self.failures >= DOWN_AFTER {
                self.closed_until = Some(now.plus(LEFT_ALONE));
            }
        } else if failure.kind != FailureKind::CutOff {
            // It has answered.
            (self.failures, self.last, self.closed_until) = (0, None, None);
        }
    }
}

fn stopping() -> Failure {
    Failure::new(FailureKind::Unavailable, "the collector is stopping")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::sync::atomic::{AtomicI64, Ordering};
    use vouch_service::clock::Clock;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// Time that the tests turn.
    #[derive(Debug, Default)]
    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            at(self.0.load(Ordering::Relaxed))
        }

        fn real(&self, _: Duration) -> Duration {
            Duration::from_millis(1)
        }

        fn at_real(&self, real: Timestamp) -> Timestamp {
            real
        }
    }

    fn pressure(most: usize, calls: Option<usize>) -> (Pressure, Arc<Hands>) {
        let hands = Arc::<Hands>::default();
        (Pressure::new(most, Share::alone(calls), hands.clone()), hands)
    }

    #[test]
    fn throttling_halves_and_successes_add_one() {
        let (pressure, _) = pressure(8, None);
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
        assert_eq!(pressure.note(Ok(()), at(3)), 8);
    }

    #[test]
    fn a_tenant_that_is_down_is_left_alone_and_then_tried_by_one() {
        let (pressure, _) = pressure(8, None);
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

    #[tokio::test]
    async fn turns_come_by_purpose_and_a_dropped_one_is_given_on() {
        let (pressure, _) = pressure(1, None);
        let first = pressure.turn(Purpose::History).await.unwrap();
        let mut history = Box::pin(pressure.turn(Purpose::History));
        let mut verification = Box::pin(pressure.turn(Purpose::Verification));
        assert!(history.as_mut().now_or_never().is_none() && verification.as_mut().now_or_never().is_none());
        assert_eq!(pressure.standing(Purpose::History).0, 1);
        drop(first);
        assert!(history.as_mut().now_or_never().is_none(), "the verification goes before");
        // Whoever had its turn and was dropped before it took it gives it on.
        drop(verification);
        assert!(history.await.is_ok());
        assert!(pressure.turn(Purpose::Guard).await.is_ok());
    }

    #[tokio::test]
    async fn no_more_calls_begin_in_any_minute_than_the_budget_has() {
        let (pressure, hands) = pressure(64, Some(10));
        for second in 0..10 {
            hands.0.store(second, Ordering::Relaxed);
            assert!(pressure.turn(Purpose::Verification).now_or_never().is_some(), "{second}");
        }
        let mut next = Box::pin(pressure.turn(Purpose::Verification));
        assert!(next.as_mut().now_or_never().is_none());
        hands.0.store(59, Ordering::Relaxed);
        assert!(next.as_mut().now_or_never().is_none(), "the first was less than a minute ago");
        hands.0.store(60, Ordering::Relaxed);
        assert!(next.await.is_ok());
        assert!(pressure.turn(Purpose::Verification).now_or_never().is_none(), "one was freed");
    }

    #[tokio::test]
    async fn a_turn_that_does_not_come_is_a_failure_with_the_way_out() {
        let (pressure, hands) = pressure(1, Some(1));
        let _busy = pressure.turn(Purpose::Verification).await.unwrap();
        let mut waiting = Box::pin(pressure.turn(Purpose::Guard));
        assert!(waiting.as_mut().now_or_never().is_none());
        hands.0.store(61, Ordering::Relaxed);
        let failure = waiting.await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Throttled);
        assert!(failure.message.contains("collector.calls_per_minute"), "{failure}");
    }
}
