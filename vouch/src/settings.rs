//! The settings file as `vouch` reads it: all services' sections at once.

use std::path::Path;
use vouch_analyzer::AnalyzerSettings;
use vouch_collector::CollectorSettings;
use vouch_notifier::NotifierSettings;
use vouch_proto::Invalid;
use vouch_service::run::Common;
use vouch_service::settings::{Document, environment};

/// Everything that `vouch up` runs with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) common: Common,
    pub(crate) collector: CollectorSettings,
    pub(crate) analyzer: AnalyzerSettings,
    pub(crate) notifier: NotifierSettings,
    /// Whether the file names a NATS server.
    pub(crate) names_nats: bool,
}

impl Settings {
    /// Reads a file and the environment.
    ///
    /// # Errors
    /// With every wrong field at once.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, Invalid> {
        Self::from_document(&Document::load(file, environment())?)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// With every wrong field at once.
    pub(crate) fn from_document(document: &Document) -> Result<Self, Invalid> {
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let settings = Self {
            names_nats: root.section("nats").text("url").is_some(),
            common: Common::read(&mut root, &mut invalid),
            collector: CollectorSettings::read(&mut root, &mut invalid),
            analyzer: AnalyzerSettings::read(&mut root, &mut invalid),
            notifier: NotifierSettings::read(&mut root, &mut invalid),
        };
        root.finish_shared(&mut invalid);
        // Collector and analyzer read the templates both.
        let mut seen = Vec::new();
        invalid.violations.retain(|v| {
            let new = !seen.contains(v);
            seen.push(v.clone());
            new
        });
        invalid.into_result().map(|()| settings)
    }
}
