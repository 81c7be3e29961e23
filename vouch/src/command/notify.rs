//! `vouch notify --test CHANNEL`: sends a sample to one channel of the settings, and says what came back.

use crate::exit::{self, Code};
use crate::output;
use clap::Args;
use std::path::PathBuf;
use vouch_notifier::action::Tools;
use vouch_notifier::{NotifierSettings, trial};
use vouch_proto::Invalid;
use vouch_service::nats::Nats;
use vouch_service::run::{Common, report_invalid};
use vouch_service::settings::{Document, environment};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the action in `notifier.actions`.
    #[arg(long, value_name = "CHANNEL")]
    test: String,
    /// Settings file (YAML); variables VOUCH__SECTION__FIELD overlay it.
    #[arg(long, env = "VOUCH_SETTINGS", value_name = "FILE")]
    settings: Option<PathBuf>,
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    let loaded = Document::load(arguments.settings.as_deref(), environment()).and_then(|document| {
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let common = Common::read(&mut root, &mut invalid);
        let notifier = NotifierSettings::read(&mut root, &mut invalid);
        root.finish_shared(&mut invalid);
        invalid.into_result().map(|()| (common, notifier))
    });
    let (common, settings) = match loaded {
        Ok(loaded) => loaded,
        Err(invalid) => {
            report_invalid(&invalid);
            return exit::USAGE;
        }
    };
    match trial::channel(&settings, &arguments.test) {
        Err(why) => {
            output::error(&format!("--test: {why}"));
            exit::USAGE
        }
        Ok(_) => match send(&common, &settings, &arguments.test).await {
            Ok(true) => exit::OK,
            Ok(false) => exit::ERROR,
            Err(e) => {
                output::error(&format!("{e:#}"));
                exit::ERROR
            }
        },
    }
}

/// Whether every word went through.
async fn send(common: &Common, settings: &NotifierSettings, name: &str) -> anyhow::Result<bool> {
    let action = trial::channel(settings, name).map_err(anyhow::Error::msg)?;
    let kind = action.kind.as_str();
    let nats = if kind == "cdevents" { Some(Nats::open(&common.nats, "vouch notify").await?) } else { None };
    let now = common.clock.now();
    let mut all = true;
    for tried in trial::run(settings, action, (&Tools { nats }, now)).await? {
        let word = tried.stage.as_str();
        match tried.answer {
            Ok(done) => output::line(&format!("{name} ({kind}) {word}: ok {}", done.detail)),
            Err(error) => {
                all = false;
                let again = if error.retryable { "; it would be tried again" } else { "" };
                output::line(&format!("{name} ({kind}) {word}: FAILED {error}{again}"));
            }
        }
    }
    Ok(all)
}
