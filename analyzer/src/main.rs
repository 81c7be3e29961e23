//! The analyzer as a program of its own.

use std::process::ExitCode;
use vouch_analyzer::AnalyzerSettings;

#[tokio::main]
async fn main() -> ExitCode {
    vouch_service::run::main("vouch-analyzer", AnalyzerSettings::read, vouch_analyzer::build).await
}
