//! The collector's settings: section `collector`, and the templates that it shares with the analyzer.

use crate::schedule::Pace;
use crate::source::dynatrace::base_url;
use reqwest::Url;
use secrecy::SecretString;
use std::path::PathBuf;
use std::time::Duration;
use vouch_proto::{Invalid, Name, Templates};
use vouch_service::settings::Section;
use vouch_service::templates::read_templates;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Prefix of tokens that the platform's own API takes, and the classic one does not.
const PLATFORM_TOKEN: &str = "dt0s";

/// Where a service is found in the tenant, where its name does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceMapping {
    /// The service as deployments name it.
    pub service: Name,
    /// In this environment only; `None` for all.
    pub environment: Option<Name>,
    /// The entity, e.g. `SERVICE-0123456789ABCDEF`.
    pub entity_id: Option<String>,
    /// Or its name in Dynatrace.
    pub entity_name: Option<String>,
}

/// One Dynatrace tenant.
#[derive(Debug, Clone)]
pub struct TenantSettings {
    /// Its name in batches and messages.
    pub name: String,
    /// Base URL, without `/api/v2`.
    pub url: Url,
    /// The access token.
    pub token: SecretString,
    /// Where the token is read again when it is refused.
    pub token_file: Option<PathBuf>,
    /// Deadline of one call, real time.
    pub request_timeout: Duration,
    /// Calls at once.
    pub concurrency: usize,
    /// The one environment that the tenant holds; `None` for any.
    pub environment: Option<Name>,
    /// Services that are not found by their name.
    pub services: Vec<ServiceMapping>,
}

/// The collector's settings.
#[derive(Debug, Clone)]
pub struct CollectorSettings {
    /// The tenant.
    pub tenant: TenantSettings,
    /// How patient it is.
    pub pace: Pace,
    /// What verifications can name.
    pub templates: Templates,
    /// Most other services that are looked at around one that is deployed; 0 looks at none.
    pub neighbours: usize,
}

impl CollectorSettings {
    /// Reads the sections `collector`, `templates` and `default_template`.
    pub fn read(root: &mut Section<'_>, invalid: &mut Invalid) -> Self {
        let templates = read_templates(root, invalid);
        let mut section = root.section("collector");
        let tenant = tenant(&mut section, invalid);
        let default = Pace::default();
        let pace = Pace {
            settle: section.duration("settle", default.settle, Duration::ZERO..=60 * MINUTE),
            reread_after: section.duration("reread_after", default.reread_after, MINUTE..=60 * MINUTE),
            give_up_after: section.duration("give_up_after", default.give_up_after, MINUTE..=180 * MINUTE),
        };
        if pace.give_up_after < pace.reread_after {
            section.refuse(
                "give_up_after",
                format!(
                    "{:?} is shorter than reread_after ({:?}): the last minutes would not be read once more; make it longer",
                    pace.give_up_after, pace.reread_after
                ),
            );
        }
        let neighbours = usize::try_from(section.number("neighbours", 12, 0..=20)).unwrap_or(0);
        section.finish(invalid);
        Self { tenant, pace, templates, neighbours }
    }
}

fn tenant(section: &mut Section<'_>, invalid: &mut Invalid) -> TenantSettings {
    let token_file = section.path("token_file");
    let token = section.secret("token", "token_file");
    if token.is_none() && token_file.is_none() && section.text("token").is_none() {
        section.refuse(
            "token_file",
            "is missing; generate an access token with metrics.read and entities.read in Dynatrace and name the file that holds it",
        );
    }
    let token = token.unwrap_or_default();
    if secrecy::ExposeSecret::expose_secret(&token).starts_with(PLATFORM_TOKEN) {
        let message = "holds a platform token or OAuth secret (dt0s...); generate an access token (dt0c01...) in Dynatrace > Access tokens";
        section.refuse("token_file", message);
    }
    TenantSettings {
        name: section.text("tenant").unwrap_or_else(|| "dynatrace".to_owned()),
        url: url(section),
        token,
        token_file,
        request_timeout: section.duration("request_timeout", 20 * SECOND, SECOND..=120 * SECOND),
        concurrency: usize::try_from(section.number("concurrency", 8, 1..=64)).unwrap_or(1),
        environment: name(section, "environment"),
        services: services(section, invalid),
    }
}

fn url(section: &mut Section<'_>) -> Url {
    let read = match section.text("url") {
        None => {
            Err("is missing; write the tenant's address, e.g. https://abc12345.live.dynatrace.com".to_owned())
        }
        Some(text) => base_url(&text),
    };
    match read {
        Ok(url) => url,
        Err(message) => {
            section.refuse("url", message);
            nowhere()
        }
    }
}

/// Stands in for an address that was refused; nothing is sent there, since refused settings are not used.
#[allow(clippy::expect_used, reason = "a constant")]
fn nowhere() -> Url {
    Url::parse("http://refused.invalid").expect("a constant URL")
}

fn name(section: &mut Section<'_>, key: &'static str) -> Option<Name> {
    let text = section.text(key)?;
    match Name::new(text) {
        Ok(name) => Some(name),
        Err(refused) => {
            refused.violations.into_iter().for_each(|v| section.refuse(key, v.message));
            None
        }
    }
}

fn services(section: &mut Section<'_>, invalid: &mut Invalid) -> Vec<ServiceMapping> {
    let mut mappings: Vec<ServiceMapping> = Vec::new();
    for mut one in section.sections("services") {
        let missing = one.raw("service").is_none();
        let service = name(&mut one, "service");
        if missing {
            one.refuse("service", "is missing; name the service as deployments do");
        }
        let environment = name(&mut one, "environment");
        let (entity_id, entity_name) = (one.text("entity_id"), one.text("entity_name"));
        if entity_id.is_some() == entity_name.is_some() {
            one.refuse("entity_id", "or `entity_name`: give one of the two");
        }
        if let Some(id) = entity_id.as_deref().filter(|id| !id.starts_with("SERVICE-")) {
            one.refuse("entity_id", format!("`{id}` is no service; it begins with SERVICE-"));
        }
        if let Some(service) = service {
            if mappings.iter().any(|m| m.service == service && m.environment == environment) {
                one.refuse("service", format!("`{service}` is mapped twice in the same environment"));
            }
            mappings.push(ServiceMapping { service, environment, entity_id, entity_name });
        }
        one.finish(invalid);
    }
    // The more exact mapping goes first.
    mappings.sort_by_key(|m| m.environment.is_none());
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_service::settings::Document;

    fn read(yaml: &str) -> (CollectorSettings, String) {
        let document = Document::parse(yaml).unwrap();
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let settings = CollectorSettings::read(&mut root, &mut invalid);
        root.finish(&mut invalid);
        (settings, invalid.to_string())
    }

    #[test]
    fn the_least_that_is_needed_is_an_address_and_a_token() {
        let (settings, said) = read("collector: {url: 'https://abc.live.dynatrace.com/', token: dt0c01.A.B}");
        assert_eq!(said, "");
        assert_eq!(settings.pace, Pace::default());
        assert_eq!(settings.tenant.url.as_str(), "https://abc.live.dynatrace.com/");
        assert!(!format!("{settings:?}").contains("dt0c01.A.B"), "the token is never shown");
        let (_, said) = read("");
        assert!(said.contains("collector.url: is missing; write"), "{said}");
        assert!(said.contains("collector.token_file: is missing; generate"), "{said}");
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let (_, said) = read(
            "collector:\n  neighbours: 21\n  url: https://abc.apps.dynatrace.com\n  token_file: /nowhere\n  settle: 2h\n  reread_after: 9m\n  \
             concurrency: 0\n  environment: ''\n  oops: 1\n  services:\n  - {service: a}\n  - {entity_id: HOST-1}\n  \
             - {service: b, entity_name: x}\n  - {service: b, entity_name: y}\n",
        );
        for part in [
            "collector.url: abc.apps",
            "collector.token_file: /nowhere cannot be read",
            "collector.settle: `2h` is not within",
            "collector.give_up_after: 300s is shorter than reread_after",
            "collector.concurrency: `0`",
            "collector.neighbours: `21`",
            "collector.environment",
            "collector.oops: is no setting here",
            "collector.services[0].entity_id: or `entity_name`",
            "collector.services[1].service: is missing",
            "collector.services[1].entity_id: `HOST-1` is no service",
            "collector.services[3].service: `b` is mapped twice",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        let (_, said) = read("collector: {url: 'https://a.live.dynatrace.com', token: dt0s16.A.B}");
        assert!(said.contains("platform token") && !said.contains("dt0s16.A"), "{said}");
    }
}
