//! The collector as a program of its own.

use std::process::ExitCode;
use vouch_collector::CollectorSettings;

#[tokio::main]
async fn main() -> ExitCode {
    vouch_service::run::main("vouch-collector", CollectorSettings::read, vouch_collector::build).await
}
