//! The analyzer: judges deployments minute by minute.

mod budget;
pub mod case;
pub mod config;
pub mod coverage;
pub mod detector;
pub mod elasticity;
pub mod emission;
pub mod expected;
pub mod frame;
pub mod gate;
mod grpc;
pub mod hmm;
pub mod judge;
mod limit;
mod live;
pub mod maths;
mod metrics;
mod minimum;
mod no_data;
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
pub mod trend;
pub mod verification;
pub mod window;

pub use config::AnalyzerSettings;
pub use live::build;
