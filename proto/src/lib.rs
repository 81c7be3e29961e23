//! The contract between Vouch's services and with everybody else: messages, validated domain types, subjects, envelope.

#![warn(missing_docs)]

mod action;
mod allowance;
pub mod announce;
pub mod builtin;
mod convert;
pub mod deployment;
pub mod envelope;
#[cfg(test)]
mod fixtures;
mod glob;
#[cfg(test)]
mod golden;
mod invalid;
mod levels;
pub mod logs;
pub mod metric_settings;
mod name;
pub mod packs;
pub mod series;
pub mod spending;
pub mod subject;
pub mod surroundings;
pub mod template;
pub mod time;
mod verdict;
mod vocabulary;
mod wait;
mod wire_timestamp;

/// The generated messages and the gRPC service, package `vouch.v1`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    reason = "generated code; its documentation is in the .proto files"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/vouch.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/vouch.v1.serde.rs"));

    /// The encoded descriptor set, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vouch.v1.bin"));
}

pub use action::{Action, ActionOutcome, Purpose};
pub use allowance::{Allowance, TenantBudget};
pub use announce::DeploymentRecord;
pub use deployment::{Deployment, DeploymentHost, HostGroup, Phase, VerificationRequest};
pub use glob::Glob;
pub use invalid::{FieldViolation, Invalid};
pub use levels::{Counted, Levels, Reached};
pub use logs::{LogBatch, LogEnd, LogGap, LogLevel, LogLine, LogOrigin, LogState, LogStatus};
pub use metric_settings::{Limit, MetricSettings, MinimumEffect, When};
pub use name::{MAX_NAME_BYTES, Name};
pub use series::{Series, SeriesBatch, SourceError};
pub use surroundings::{CommonCause, LeftOut, Neighbour, Objective, Problem, Witness};
pub use template::{MetricRole, MetricSpec, TemplateOverride, Templates, VerificationTemplate};
pub use time::{Timestamp, Window};
pub use verdict::{Cause, MetricResult, Verdict};
pub use vocabulary::{
    Classification, Direction, OnNoData, Outcome, Relation, Sensitivity, Strategy, UnknownWord,
};
pub use wait::Wait;
pub use wire_timestamp::WireTimestamp;
