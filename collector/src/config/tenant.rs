//! One Dynatrace tenant: its address, its credential, and which service is which.

use super::logs::{BilledSettings, LogSettings, LogSourceKind, billed, logs};
use crate::rules::Rule;
use crate::source::dynatrace::{
    OAUTH_CLIENT, OAUTH_SCOPES, OAuthSettings, Scheme, TOKEN_URL, base_url, fits,
};
use reqwest::{Certificate, Url};
use secrecy::{ExposeSecret as _, SecretString};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vouch_proto::{Invalid, Name};
use vouch_service::settings::Section;

/// What a token that is none gets.
const OAUTH_IS_NO_TOKEN: &str = "holds the secret of an OAuth client (dt0s02...), which is no token; move it to collector.oauth.client_secret_file";
/// The scope of the platform that reading logs needs.
const LOGS_SCOPE: &str = "storage:logs:read";
/// Name of a tenant that has none.
const ONLY: &str = "dynatrace";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);

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
    /// Whether it is one of several: then readiness names it.
    pub is_one_of_several: bool,
    /// Base URL, without `/api/v2`.
    pub url: Url,
    /// The access token.
    pub token: SecretString,
    /// Where the token is read again when it is refused.
    pub token_file: Option<PathBuf>,
    /// The OAuth client that gets tokens, where there is no token.
    pub oauth: Option<OAuthSettings>,
    /// Authorities that are trusted besides the machine's: an ActiveGate's own.
    pub ca: Vec<Certificate>,
    /// Whether any certificate is accepted.
    pub insecure: bool,
    /// Deadline of one call, real time.
    pub request_timeout: Duration,
    /// Calls at once.
    pub concurrency: usize,
    /// Calls of a minute, of all replicas together; `None` for any number.
    pub calls_per_minute: Option<usize>,
    /// The one environment that the tenant holds; `None` for any.
    pub environment: Option<Name>,
    /// Services that are not found by their name.
    pub services: Vec<ServiceMapping>,
    /// What names services by what the tenant knows about them; `services` goes before.
    pub rules: Vec<Rule>,
    /// What is read of its logs.
    pub logs: LogSettings,
    /// What may be spent on what it bills.
    pub billed: BilledSettings,
}

impl TenantSettings {
    /// A tenant by its address and the file of its token, for a single look at it.
    ///
    /// # Errors
    /// In words, one for each of them that cannot be used.
    pub fn at(url: &str, token_file: &Path) -> Result<Self, Vec<String>> {
        let mut refused = Vec::new();
        let token = match std::fs::read_to_string(token_file) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Ok(_) => {
                refused.push(format!("{} holds no token", token_file.display()));
                String::new()
            }
            Err(e) => {
                refused.push(format!("{} cannot be read: {e}", token_file.display()));
                String::new()
            }
        };
        if token.starts_with(OAUTH_CLIENT) {
            refused.push(OAUTH_IS_NO_TOKEN.to_owned());
        }
        let url = base_url(url).and_then(|url| match token.is_empty() {
            true => Ok(url),
            false => fits(&url, Scheme::of(&token)).map(|()| url),
        });
        let url = url.unwrap_or_else(|message| {
            refused.push(message);
            nowhere()
        });
        let settings = Self {
            name: ONLY.to_owned(),
            is_one_of_several: false,
            url,
            token: token.into(),
            token_file: Some(token_file.to_owned()),
            oauth: None,
            ca: Vec::new(),
            insecure: false,
            request_timeout: REQUEST_TIMEOUT,
            concurrency: 8,
            calls_per_minute: None,
            environment: None,
            services: Vec::new(),
            rules: Vec::new(),
            logs: LogSettings::default(),
            billed: BilledSettings::default(),
        };
        if refused.is_empty() { Ok(settings) } else { Err(refused) }
    }
}

impl TenantSettings {
    /// How its credential is presented.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.oauth.is_some() { Scheme::Bearer } else { Scheme::of(self.token.expose_secret()) }
    }
}

/// Reads a tenant.
pub(super) fn tenant(section: &mut Section<'_>, invalid: &mut Invalid) -> TenantSettings {
    let token_file = section.path("token_file");
    let token = section.secret("token", "token_file");
    let oauth = oauth(section.section("oauth"), invalid);
    let is_named = token_file.is_some() || section.text("token").is_some();
    if oauth.is_none() && !is_named {
        section.refuse(
            "token_file",
            "is missing; generate an access token with metrics.read and entities.read in Dynatrace and name the file that holds it",
        );
    }
    if oauth.is_some() && is_named {
        section.refuse("oauth", "stands beside a token; give one of the two");
    }
    let token = token.unwrap_or_default();
    let text = token.expose_secret();
    if text.starts_with(OAUTH_CLIENT) {
        section.refuse("token_file", OAUTH_IS_NO_TOKEN);
    }
    let url = url(section);
    let scheme = if oauth.is_some() { Scheme::Bearer } else { Scheme::of(text) };
    if (oauth.is_some() || !text.is_empty())
        && let Err(message) = fits(&url, scheme)
    {
        section.refuse("url", message);
    }
    let logs = logs(section, oauth.is_some() || text.is_empty() || scheme == Scheme::Bearer, invalid);
    let billed = billed(section, logs.source == LogSourceKind::Grail, invalid);
    let oauth = oauth.map(|client| with_logs(client, logs.source));
    TenantSettings {
        name: section.text("tenant").unwrap_or_else(|| ONLY.to_owned()),
        is_one_of_several: false,
        url,
        token,
        token_file,
        oauth,
        ca: certificates(section),
        insecure: section.flag("insecure", false),
        request_timeout: section.duration("request_timeout", REQUEST_TIMEOUT, SECOND..=120 * SECOND),
        concurrency: usize::try_from(section.number("concurrency", 8, 1..=64)).unwrap_or(1),
        calls_per_minute: usize::try_from(section.number("calls_per_minute", 300, 1..=100_000)).ok(),
        environment: name(section, "environment"),
        services: services(section, invalid),
        rules: Vec::new(),
        logs,
        billed,
    }
}

/// The OAuth client, where there is one.
fn oauth(mut section: Section<'_>, invalid: &mut Invalid) -> Option<OAuthSettings> {
    if !section.is_present() {
        section.finish(invalid);
        return None;
    }
    let client_secret = section.secret("client_secret", "client_secret_file");
    let is_named = section.path("client_secret_file").is_some() || section.text("client_secret").is_some();
    if !is_named {
        section.refuse("client_secret_file", "is missing; name the file that holds the client's secret");
    }
    let client_secret = client_secret.unwrap_or_default();
    // Dynatrace's client ids are the first two parts of their secrets.
    let of_secret = || {
        let parts: Vec<&str> = client_secret.expose_secret().split('.').collect();
        (parts.len() == 3 && parts[0].starts_with(OAUTH_CLIENT.trim_end_matches('.')))
            .then(|| parts[..2].join("."))
    };
    let client_id = section.text("client_id").or_else(of_secret);
    if client_id.is_none() && !client_secret.expose_secret().is_empty() {
        section.refuse("client_id", "is missing, and the secret does not begin with it");
    }
    let token_url = section.text("token_url").unwrap_or_else(|| TOKEN_URL.to_owned());
    let token_url = match Url::parse(&token_url) {
        Ok(url) if matches!(url.scheme(), "https" | "http") && url.host_str().is_some() => url,
        Ok(_) | Err(_) => {
            section
                .refuse("token_url", format!("`{token_url}` is no http or https address; e.g. {TOKEN_URL}"));
            nowhere()
        }
    };
    let resource = section.text("resource");
    if let Some(resource) = resource.as_deref().filter(|resource| !resource.starts_with("urn:dtaccount:")) {
        section.refuse("resource", format!("`{resource}` is no account; write urn:dtaccount:<uuid>"));
    }
    let scopes = section.texts("scopes");
    let scopes = if scopes.is_empty() { OAUTH_SCOPES.join(" ") } else { scopes.join(" ") };
    section.finish(invalid);
    Some(OAuthSettings {
        client_id: client_id.unwrap_or_default(),
        client_secret,
        token_url,
        resource,
        scopes,
    })
}

/// A client that asks for no scopes of its own asks for what reading logs needs.
fn with_logs(client: OAuthSettings, source: LogSourceKind) -> OAuthSettings {
    if source == LogSourceKind::Off || client.scopes != OAUTH_SCOPES.join(" ") {
        return client;
    }
    OAuthSettings { scopes: format!("{} {LOGS_SCOPE}", client.scopes), ..client }
}

/// Authorities that are trusted besides the machine's.
fn certificates(section: &mut Section<'_>) -> Vec<Certificate> {
    let Some(path) = section.path("ca_file") else { return Vec::new() };
    let shown = path.display();
    let read = match std::fs::read(&path) {
        Err(e) => Err(format!("{shown} cannot be read: {e}")),
        Ok(pem) => match Certificate::from_pem_bundle(&pem) {
            Err(e) => Err(format!("{shown} holds no certificates in PEM: {e}")),
            Ok(all) if all.is_empty() => Err(format!("{shown} holds no certificate in PEM")),
            Ok(all) => Ok(all),
        },
    };
    read.unwrap_or_else(|message| {
        section.refuse("ca_file", message);
        Vec::new()
    })
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
