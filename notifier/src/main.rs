//! The notifier as a program of its own.

use std::process::ExitCode;
use vouch_notifier::NotifierSettings;

#[tokio::main]
async fn main() -> ExitCode {
    vouch_service::run::main("vouch-notifier", NotifierSettings::read, vouch_notifier::build).await
}
