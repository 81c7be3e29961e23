//! Scenarios of the whole: real nats-server, simulated Dynatrace, Vouch's programs as processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what does not work fails the test")]

mod analyzing;
mod announcing;
mod budgets;
mod command_line;
mod common_cause;
mod crashes;
mod endings;
mod logging;
mod naming;
mod notifying;
mod querying;
mod refusals;
mod replay;
mod rights;
mod streams;
