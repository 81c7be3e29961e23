//! The analyzer's settings.

use crate::record::Patience;
use secrecy::SecretString;
use std::net::SocketAddr;
use std::time::Duration;
use vouch_proto::{Invalid, Templates, TenantBudget};
use vouch_service::budget::read_budget;
use vouch_service::settings::Section;
use vouch_service::templates::read_templates;

const MINUTE: Duration = Duration::from_secs(60);

/// What the analyzer runs with.
#[derive(Debug, Clone)]
pub struct AnalyzerSettings {
    /// Where the gRPC service listens.
    pub grpc_listen: SocketAddr,
    /// Bearer token that callers must show; `None` only on loopback or where `insecure` was set.
    pub grpc_token: Option<SecretString>,
    /// How long things may take.
    pub patience: Patience,
    /// The templates that a verification can name.
    pub templates: Templates,
    /// What the tenant can live with.
    pub budget: TenantBudget,
}

impl AnalyzerSettings {
    /// Reads the `analyzer` section and the shared templates.
    pub fn read(root: &mut Section<'_>, invalid: &mut Invalid) -> Self {
        let templates = read_templates(root, invalid);
        let budget = read_budget(root, invalid);
        let mut section = root.section("analyzer");
        let default_listen = SocketAddr::from(([127, 0, 0, 1], 7070));
        let grpc_listen = section.parsed("grpc_listen").unwrap_or(default_listen);
        let grpc_token = section.secret("grpc_token", "grpc_token_file");
        let insecure = section.flag("insecure", false);
        if grpc_token.is_none() && !insecure && !grpc_listen.ip().is_loopback() {
            section.refuse(
                "grpc_token_file",
                format!(
                    "is missing; {grpc_listen} is open to others, so give a token (or set `insecure: true`)"
                ),
            );
        }
        let patience = Patience {
            deadline_grace: section.duration("deadline_grace", 10 * MINUTE, MINUTE..=240 * MINUTE),
            wait_for_traffic: section.duration("wait_for_traffic", 120 * MINUTE, MINUTE..=1440 * MINUTE),
        };
        section.finish(invalid);
        Self { grpc_listen, grpc_token, patience, templates, budget }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_service::settings::Document;

    fn read(yaml: &str) -> (AnalyzerSettings, String) {
        let document = Document::parse(yaml).unwrap();
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let settings = AnalyzerSettings::read(&mut root, &mut invalid);
        root.finish(&mut invalid);
        (settings, invalid.to_string())
    }

    #[test]
    fn defaults_need_no_settings() {
        let (settings, said) = read("");
        assert_eq!(said, "");
        assert!(settings.grpc_listen.ip().is_loopback());
        assert_eq!(settings.patience.deadline_grace, 10 * MINUTE);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let (_, said) = read("analyzer: {grpc_listen: nowhere, deadline_grace: 5s, oops: 1}");
        for part in ["analyzer.grpc_listen: ", "analyzer.deadline_grace: `5s` is not within", "analyzer.oops"]
        {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn an_open_port_needs_a_token() {
        let (_, said) = read("analyzer: {grpc_listen: '0.0.0.0:7070'}");
        assert!(said.contains("analyzer.grpc_token_file: is missing"), "{said}");
        assert_eq!(read("analyzer: {grpc_listen: '0.0.0.0:7070', insecure: true}").1, "");
        assert_eq!(read("analyzer: {grpc_listen: '0.0.0.0:7070', grpc_token: x}").1, "");
    }
}
