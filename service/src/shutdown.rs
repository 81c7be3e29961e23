//! Starting and stopping: tasks that are waited for, a stop signal, a deadline, and a second signal that ends at once.

use futures::FutureExt as _;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of a service and its stop signal. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failure: Arc<OnceLock<String>>,
}

impl Tasks {
    /// With a stop signal from outside.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop, failure: Arc::default() }
    }

    /// The stop signal.
    #[must_use]
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a task that `drain` waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Runs a task without which the service cannot go on: its end before the stop signal stops everything.
    pub fn spawn_vital(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let (stop, failure) = (self.stop.clone(), self.failure.clone());
        self.tracker.spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            let ended =
                ended.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked; please report it with the log")));
            if stop.is_cancelled() {
                if let Err(error) = ended {
                    tracing::warn!(
                        task = name,
                        error = format!("{error:#}"),
                        "ended with an error while stopping"
                    );
                }
                return;
            }
            let why = match ended {
                Ok(()) => format!("{name} ended by itself"),
                Err(error) => format!("{name} failed: {error:#}"),
            };
            tracing::error!(why, "stopping");
            failure.set(why).ok();
            stop.cancel();
        });
    }

    /// Why it stopped by itself, where it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Waits for the stop signal, then for the tasks, at most `deadline`. Answers whether it was met.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.stop.cancelled().await;
        self.tracker.close();
        let met = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        if met {
            tracing::info!("drained in time");
        } else {
            tracing::error!(tasks = self.tracker.len(), ?deadline, "not drained in time");
        }
        met
    }
}

/// Cancels `stop` at the first SIGINT or SIGTERM and ends the process at the second.
///
/// # Errors
/// Where the signals cannot be listened to.
pub async fn on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    for second in [false, true] {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        if second {
            tracing::error!(signal = name, "a second signal: stopping at once");
            std::process::exit(130);
        }
        tracing::info!(signal = name, "draining");
        stop.cancel();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_ends_stops_the_others() {
        let tasks = Tasks::default();
        let stop = tasks.stop().clone();
        tasks.spawn(async move { stop.cancelled().await });
        tasks.spawn_vital("source", async { anyhow::bail!("gone") });
        assert!(tasks.drain(Duration::from_secs(5)).await);
        assert_eq!(tasks.failure(), Some("source failed: gone"));
    }

    #[tokio::test]
    async fn a_panic_in_a_vital_task_stops_the_others() {
        let tasks = Tasks::default();
        tasks.spawn_vital("source", async { panic!("at the disco") });
        assert!(tasks.drain(Duration::from_secs(5)).await);
        assert!(tasks.failure().unwrap().contains("source failed: panicked"));
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_misses_the_deadline() {
        let tasks = Tasks::default();
        tasks.spawn(std::future::pending());
        tasks.stop().cancel();
        assert!(!tasks.drain(Duration::from_millis(20)).await);
    }
}
