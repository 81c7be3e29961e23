//! Says in the log and in the audit stream what would have been done: the default, a dry run.

use super::{Action, ActionError, ActionRequest, Done, Promise};
use crate::ledger::Probe;
use async_trait::async_trait;
use std::time::Duration;

/// Writes a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log;

#[async_trait]
impl Action for Log {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        tracing::warn!(
            key = request.key,
            purpose = request.purpose.as_str(),
            rule = %request.rule,
            owner = request.verdict.owner.as_deref().unwrap_or("nobody"),
            "{}",
            request.summary
        );
        Ok(Done { dry_run: true, ..Done::new(request.summary.clone()) })
    }

    /// A second line does no harm.
    async fn probe(&self, _request: &ActionRequest) -> Probe {
        Probe::NotDone
    }

    fn promise(&self) -> Promise {
        Promise {
            timeout: Duration::from_secs(1),
            idempotent: true,
            probe_after: Some(Duration::ZERO),
            confirms: false,
        }
    }
}
