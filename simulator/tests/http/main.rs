//! The simulator over HTTP, as a client meets it.

mod entities;
mod events;
mod faults;
mod harness;
mod metrics;
mod recorded;
mod replay;
mod scenarios;
mod steering;
