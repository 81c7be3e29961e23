//! `vouch check`: validates the settings; with `--connect`, also NATS, Dynatrace and the token's scopes.

use crate::exit::{self, Code};
use crate::output;
use crate::settings::Settings;
use clap::Args;
use std::path::PathBuf;
use vouch_service::nats::Nats;
use vouch_service::run::report_invalid;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Settings file (YAML); variables VOUCH__SECTION__FIELD overlay it.
    #[arg(long, env = "VOUCH_SETTINGS", value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Connect to NATS and Dynatrace, and check the token's scopes.
    #[arg(long)]
    connect: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    let settings = match Settings::load(arguments.settings.as_deref()) {
        Ok(settings) => settings,
        Err(invalid) => {
            report_invalid(&invalid);
            return exit::USAGE;
        }
    };
    output::line("settings   ok");
    if !arguments.connect {
        return exit::OK;
    }
    let mut all = nats(&settings).await;
    for finding in vouch_collector::check(&settings.collector, settings.common.clock.clone()).await {
        all &= report(&format!("dynatrace  {}", finding.subject), finding.result);
    }
    if all { exit::OK } else { exit::ERROR }
}

async fn nats(settings: &Settings) -> bool {
    if !settings.names_nats {
        return report(
            "nats       own server",
            vouch_service::nats_server::find().map(|p| p.display().to_string()),
        );
    }
    let opened = Nats::open(&settings.common.nats, "vouch check").await;
    report("nats       server", opened.map(|nats| format!("version {}", nats.client.server_info().version)))
}

fn report<E: std::fmt::Display>(subject: &str, result: Result<String, E>) -> bool {
    match &result {
        Ok(detail) => output::line(&format!("{subject}: ok {detail}")),
        Err(e) => output::line(&format!("{subject}: FAILED {e:#}")),
    }
    result.is_ok()
}
