//! The analyzer: judges deployments minute by minute.

pub mod case;
pub mod config;
pub mod coverage;
pub mod detector;
pub mod dilution;
pub mod elasticity;
pub mod emission;
pub mod expected;
pub mod frame;
pub mod gate;
mod grpc;
pub mod hmm;
pub mod judge;
mod live;
pub mod maths;
mod metrics;
pub mod noise;
pub mod offline;
pub mod pair;
mod panel;
pub mod placebo;
pub mod profile;
pub mod reason;
pub mod record;
mod replay;
pub mod robust;
pub mod sax;
pub mod sequential;
pub mod strategy;
pub mod trend;
pub mod verification;
pub mod window;

pub use config::AnalyzerSettings;
pub use live::build;
