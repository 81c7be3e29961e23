//! Deployments that nobody announced in Vouch's own words: each is brought into them and put on the topic, where it is
//! taken in like any other. A new finder is one file here and its task in `start.rs`.

pub(crate) mod annotate;
pub(crate) mod announcer;
pub mod cdevents;
pub mod named;
pub(crate) mod releases;
pub mod same;
pub(crate) mod source;
pub(crate) mod start;
pub(crate) mod topic;
pub mod webhook;

pub use announcer::Announcer;
pub use named::{Names, Seen};
pub use source::Look;

use vouch_proto::Deployment;

/// A change of a service, as a finder understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is announced; it says when it happened.
    pub deployment: Deployment,
    /// What the finder knows about it.
    pub certainty: Certainty,
    /// Whether it puts a version back: then the deployment before it is over.
    pub restores: bool,
}

/// How much a finder knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// Somebody deployed this version, just then.
    Act,
    /// This version is there. One that was there before is no deployment.
    State,
    /// Something changed; the version is only the finder's own word for it.
    Guess,
}
