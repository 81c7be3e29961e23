//! The injected clock. Nothing else in Vouch reads the time.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use vouch_proto::Timestamp;

/// Tells the time, and how long to wait for a later one.
pub trait Clock: Debug + Send + Sync {
    /// The instant now.
    fn now(&self) -> Timestamp;
    /// How much real time passes while this clock advances by `duration`.
    fn real(&self, duration: Duration) -> Duration;
    /// What it showed at a real instant, e.g. the one at which a server stored a message.
    fn at_real(&self, real: Timestamp) -> Timestamp;
}

/// A clock to pass around.
pub type SharedClock = Arc<dyn Clock>;

/// Waits until the clock shows `t`; at once where it has passed.
pub async fn sleep_until(clock: &dyn Clock, t: Timestamp) {
    loop {
        let left = t.since(clock.now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(clock.real(left).max(Duration::from_millis(1))).await;
    }
}

/// Waits while the clock advances by `duration`.
pub async fn sleep(clock: &dyn Clock, duration: Duration) {
    tokio::time::sleep(clock.real(duration)).await;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where the time comes in")]
    fn now(&self) -> Timestamp {
        let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => ms(after),
            Err(before) => -ms(before.duration()),
        })
    }

    fn real(&self, duration: Duration) -> Duration {
        duration
    }

    fn at_real(&self, real: Timestamp) -> Timestamp {
        real
    }
}

/// A clock that shows `simulated` at the real instant `anchor` and runs `speed` times as fast: for demos and tests,
/// also over several processes, since it depends on nothing but its three numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaledClock {
    /// What it shows at the anchor.
    pub simulated: Timestamp,
    /// Real instant of the anchor.
    pub anchor: Timestamp,
    /// How many times faster than real time; positive.
    pub speed: f64,
}

impl ScaledClock {
    /// A clock that shows `simulated` now.
    #[must_use]
    pub fn starting_at(simulated: Timestamp, speed: f64) -> Self {
        Self { simulated, anchor: SystemClock.now(), speed }
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        self.at_real(SystemClock.now())
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "milliseconds of a demo fit"
    )]
    fn at_real(&self, real: Timestamp) -> Timestamp {
        let elapsed = (real.as_millis() - self.anchor.as_millis()) as f64 * self.speed;
        Timestamp::from_millis(self.simulated.as_millis() + elapsed as i64)
    }

    fn real(&self, duration: Duration) -> Duration {
        Duration::try_from_secs_f64(duration.as_secs_f64() / self.speed).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scaled_clock_runs_ahead() {
        let start: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let clock = ScaledClock::starting_at(start, 6000.0);
        assert_eq!(clock.real(Duration::from_secs(60)), Duration::from_millis(10));
        sleep_until(&clock, start.plus_minutes(3)).await;
        assert!(clock.now() >= start.plus_minutes(3));
    }

    #[tokio::test]
    async fn the_past_needs_no_waiting() {
        sleep_until(&SystemClock, Timestamp::from_millis(0)).await;
    }
}
