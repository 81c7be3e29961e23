//! Which tenant a command is about: an address and a token file, or the settings.

use crate::exit::{self, Code};
use crate::output;
use crate::settings::Settings;
use clap::Args;
use reqwest::Certificate;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vouch_collector::config::TenantSettings;
use vouch_collector::metrics::Metrics;
use vouch_collector::source::dynatrace::Dynatrace;
use vouch_proto::Templates;
use vouch_service::clock::SystemClock;
use vouch_service::health::Health;
use vouch_service::run::report_invalid;

/// Names a tenant.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// The tenant's address, e.g. https://abc12345.live.dynatrace.com.
    #[arg(long, value_name = "URL", requires = "token_file")]
    pub(super) url: Option<String>,
    /// File that holds the token; its prefix says how it is presented.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub(super) token_file: Option<PathBuf>,
    /// Take address and credential from the settings instead.
    #[arg(long, env = "VOUCH_SETTINGS", value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Which tenant of the settings, where they name several.
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    tenant: Option<String>,
    /// Trust the authorities in this file (PEM) as well.
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,
    /// Accept any certificate: whoever is in between can read the token.
    #[arg(long, requires = "url")]
    insecure: bool,
}

impl Choice {
    /// Its settings and a client of it; or the code to end with, after it was said what is wrong.
    pub(super) fn open(&self) -> Result<(TenantSettings, Dynatrace), Code> {
        self.open_with_templates().map(|(tenant, source, _)| (tenant, source))
    }

    /// The same, and the templates of the settings.
    pub(super) fn open_with_templates(&self) -> Result<(TenantSettings, Dynatrace, Templates), Code> {
        let (settings, templates) = self.read()?;
        let source = Dynatrace::new(&settings, Arc::new(SystemClock), Health::default(), Metrics::default());
        let source = source.map_err(|e| {
            output::error(&format!("{e:#}"));
            exit::ERROR
        })?;
        Ok((settings, source, templates))
    }

    /// The tenant that is meant.
    fn one_of(&self, tenants: Vec<TenantSettings>) -> Result<TenantSettings, Code> {
        let names: Vec<String> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
        let mut tenants = tenants.into_iter();
        let found = match &self.tenant {
            Some(name) => tenants.find(|tenant| tenant.name == *name),
            None if names.len() == 1 => tenants.next(),
            None => None,
        };
        found.ok_or_else(|| {
            output::error(&format!("--tenant: name one of {}", names.join(", ")));
            exit::USAGE
        })
    }

    fn read(&self) -> Result<(TenantSettings, Templates), Code> {
        let (Some(url), Some(token_file)) = (&self.url, &self.token_file) else {
            if self.settings.is_none() {
                output::error("name the tenant: --url and --token-file, or --settings");
                return Err(exit::USAGE);
            }
            let settings = Settings::load(self.settings.as_deref()).map_err(|invalid| {
                report_invalid(&invalid);
                exit::USAGE
            })?;
            let templates = settings.collector.templates;
            return Ok((self.one_of(settings.collector.tenants)?, templates));
        };
        let refused = |messages: Vec<String>| {
            messages.iter().for_each(|message| output::error(message));
            exit::USAGE
        };
        let mut tenant = TenantSettings::at(url, token_file).map_err(refused)?;
        tenant.insecure = self.insecure;
        if let Some(file) = &self.ca_file {
            tenant.ca = certificates(file).map_err(|message| refused(vec![message]))?;
        }
        Ok((tenant, Templates::default()))
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, String> {
    let shown = file.display();
    let pem = std::fs::read(file).map_err(|e| format!("{shown} cannot be read: {e}"))?;
    Certificate::from_pem_bundle(&pem).map_err(|e| format!("{shown} holds no certificates in PEM: {e}"))
}
