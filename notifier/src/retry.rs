//! What a failed call leads to, pure: another one, the end, or a question to the receiver.

use crate::action::{ActionError, Effect, Promise};
use crate::config::RetrySettings;
use std::time::Duration;
use vouch_proto::Purpose;

/// How far an action has come when a call failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What it is for.
    pub purpose: Purpose,
    /// Calls made by this worker, from 1; for an alert, by all of them.
    pub calls: u32,
    /// Since its first call.
    pub spent: Duration,
    /// An earlier call may have been carried out.
    pub maybe_sent: bool,
    /// Where in its half of the pause it falls, 0 to 1: spreads the callers.
    pub jitter: f64,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another call after this pause.
    Again(Duration),
    /// Another delivery after this pause: an alert waits in its queue, and is tried until it is too old to be told.
    Later(Duration),
    /// It was surely not done and is given up.
    Failed {
        /// Whether trying again could have helped.
        retryable: bool,
    },
    /// Whether it was done is not known, and nobody can be asked.
    Unknown,
    /// Whether it was done is asked once the receiver can tell.
    Ask,
}

/// Decides on a failed call. Only what surely was not done, or may be done twice, is ever called again.
#[must_use]
pub fn after_failure(
    error: &ActionError,
    progress: &Progress,
    promise: &Promise,
    retry: &RetrySettings,
) -> Next {
    let possible = error.effect == Effect::Possible || progress.maybe_sent;
    let harmless = match progress.purpose {
        Purpose::Alert => true,
        Purpose::Rollback => !possible || promise.idempotent,
    };
    let pause = pause(progress, retry, error.retry_after);
    if progress.purpose == Purpose::Alert && error.retryable {
        return Next::Later(pause);
    }
    if harmless && error.retryable && progress.spent + pause <= retry.give_up_after {
        return Next::Again(pause);
    }
    match (progress.purpose, possible) {
        (Purpose::Alert, _) | (Purpose::Rollback, false) => Next::Failed { retryable: error.retryable },
        (Purpose::Rollback, true) if promise.probe_after.is_some() => Next::Ask,
        (Purpose::Rollback, true) => Next::Unknown,
    }
}

/// Doubles with every call, between half of it and all of it; what the receiver asks for where that is longer, capped.
fn pause(progress: &Progress, retry: &RetrySettings, asked_for: Option<Duration>) -> Duration {
    let doublings = progress.calls.saturating_sub(1).min(16);
    let full = retry.pause.saturating_mul(1 << doublings).min(retry.longest_pause);
    let spread = full.mul_f64(0.5 + 0.5 * progress.jitter.clamp(0.0, 1.0));
    spread.max(asked_for.unwrap_or_default()).min(retry.longest_pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn error(retryable: bool, effect: Effect) -> ActionError {
        ActionError { retryable, effect, detail: String::new(), retry_after: None }
    }

    fn progress(purpose: Purpose) -> Progress {
        Progress { purpose, calls: 1, spent: SECOND, maybe_sent: false, jitter: 1.0 }
    }

    fn promise(idempotent: bool, probe: bool) -> Promise {
        Promise { timeout: SECOND, idempotent, probe_after: probe.then_some(SECOND), confirms: false }
    }

    #[test]
    fn a_rollback_that_may_have_been_done_is_called_again_only_with_an_idempotency_key() {
        let (retry, progress) = (RetrySettings::default(), progress(Purpose::Rollback));
        let lost = error(true, Effect::Possible);
        assert_eq!(after_failure(&lost, &progress, &promise(false, false), &retry), Next::Unknown);
        assert_eq!(after_failure(&lost, &progress, &promise(false, true), &retry), Next::Ask);
        assert_eq!(after_failure(&lost, &progress, &promise(true, false), &retry), Next::Again(SECOND));
    }

    #[test]
    fn a_refusal_after_a_lost_answer_does_not_make_the_lost_one_certain() {
        let retry = RetrySettings::default();
        let progress = Progress { maybe_sent: true, ..progress(Purpose::Rollback) };
        let refused = error(false, Effect::None);
        assert_eq!(after_failure(&refused, &progress, &promise(true, false), &retry), Next::Unknown);
        assert_eq!(after_failure(&refused, &progress, &promise(true, true), &retry), Next::Ask);
    }

    #[test]
    fn what_was_refused_is_final_and_what_was_not_sent_is_tried_again() {
        let (retry, promise) = (RetrySettings::default(), promise(false, false));
        for (purpose, again, late) in [
            (Purpose::Rollback, Next::Again(SECOND), Next::Failed { retryable: true }),
            // Alerts are given up by their age alone.
            (Purpose::Alert, Next::Later(SECOND), Next::Later(SECOND)),
        ] {
            let progress = progress(purpose);
            let next = |e| after_failure(&e, &progress, &promise, &retry);
            assert_eq!(next(error(false, Effect::None)), Next::Failed { retryable: false });
            assert_eq!(next(error(true, Effect::None)), again);
            let after_long = Progress { spent: 120 * SECOND, ..progress };
            assert_eq!(after_failure(&error(true, Effect::None), &after_long, &promise, &retry), late);
        }
    }

    #[test]
    fn an_alert_is_sent_at_least_once() {
        let next = after_failure(
            &error(true, Effect::Possible),
            &progress(Purpose::Alert),
            &promise(false, false),
            &RetrySettings::default(),
        );
        assert_eq!(next, Next::Later(SECOND));
    }

    #[test]
    fn pauses_double_up_to_a_cap_and_honour_the_receiver() {
        let retry = RetrySettings::default();
        let pause_of = |calls, jitter, asked: Option<u64>| {
            let progress = Progress { calls, jitter, ..progress(Purpose::Alert) };
            pause(&progress, &retry, asked.map(Duration::from_secs))
        };
        assert_eq!(pause_of(1, 0.0, None), SECOND / 2);
        assert_eq!((pause_of(3, 1.0, None), pause_of(60, 1.0, None)), (4 * SECOND, 30 * SECOND));
        assert_eq!((pause_of(1, 0.0, Some(7)), pause_of(1, 0.0, Some(9999))), (7 * SECOND, 30 * SECOND));
    }
}
