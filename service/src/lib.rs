//! What the mains share, with no word of the domain in it: settings, clock, telemetry, NATS, leases, health, shutdown.

pub mod bucket;
pub mod budget;
pub mod clock;
pub mod evidence;
pub mod health;
pub mod lease;
pub mod nats;
pub mod nats_server;
pub mod publish;
pub mod run;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod templates;
