//! What authorises a call: an access token of the classic API, a platform token, or one that OAuth gives for a while.

use super::refusal::{is_web_page, quote, web_page};
use crate::source::{Failure, FailureKind};
use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use vouch_proto::Timestamp;

/// Prefix of platform tokens and OAuth clients.
const PLATFORM: &str = "dt0s";
/// Prefix of an OAuth client's id and secret.
pub(crate) const OAUTH_CLIENT: &str = "dt0s02.";
/// A token is renewed this long before it expires, so that none expires on its way.
const MARGIN: Duration = Duration::from_secs(30);
/// Where Dynatrace gives tokens out.
pub(crate) const TOKEN_URL: &str = "https://sso.dynatrace.com/sso/oauth2/token";

/// What an OAuth client asks for where its settings do not say.
pub(crate) const OAUTH_SCOPES: [&str; 5] = [
    "storage:buckets:read",
    "storage:metrics:read",
    "environment-api:metrics:read",
    "environment-api:entities:read",
    "environment-api:problems:read",
];

/// How a token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// An access token (`dt0c01...`) of the classic API.
    ApiToken,
    /// A platform token (`dt0s16...`) or an OAuth access token.
    Bearer,
}

impl Scheme {
    /// By the token itself: platform tokens have their prefix, OAuth's are JSON Web Tokens.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let is_jwt = token.starts_with("eyJ") && token.matches('.').count() == 2;
        if token.starts_with(PLATFORM) || is_jwt { Self::Bearer } else { Self::ApiToken }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::ApiToken => "Api-Token",
            Self::Bearer => "Bearer",
        }
    }
}

/// An OAuth client of the account.
#[derive(Debug, Clone)]
pub struct OAuthSettings {
    /// E.g. `dt0s02.ABC`.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// Where tokens are given out.
    pub token_url: Url,
    /// E.g. `urn:dtaccount:<uuid>`; not every account needs it.
    pub resource: Option<String>,
    /// What the tokens are for, separated by blanks.
    pub scopes: String,
}

/// Answer of the token endpoint.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Denied {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

/// The credential of one tenant.
#[derive(Debug)]
pub(super) struct Credential {
    token: RwLock<SecretString>,
    token_file: Option<PathBuf>,
    oauth: Option<OAuth>,
}

#[derive(Debug)]
struct OAuth {
    settings: OAuthSettings,
    /// Whoever renews holds it, and the others wait for the same token.
    current: tokio::sync::Mutex<Option<(SecretString, Timestamp)>>,
}

impl Credential {
    pub(super) fn new(
        token: SecretString,
        token_file: Option<PathBuf>,
        oauth: Option<OAuthSettings>,
    ) -> Self {
        let oauth = oauth.map(|settings| OAuth { settings, current: tokio::sync::Mutex::default() });
        Self { token: RwLock::new(token), token_file, oauth }
    }

    /// The token of the settings, as it is now; an OAuth client has none.
    pub(super) fn token(&self) -> SecretString {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How calls are authorised.
    pub(super) fn scheme(&self) -> Scheme {
        if self.oauth.is_some() { Scheme::Bearer } else { Scheme::of(self.token().expose_secret()) }
    }

    /// The header of a call.
    pub(super) async fn header(&self, http: &reqwest::Client, now: Timestamp) -> Result<String, Failure> {
        let token = match &self.oauth {
            None => self.token(),
            Some(oauth) => oauth.token(http, now).await?,
        };
        Ok(self.header_of(&token))
    }

    /// Gets another token than the one that was refused, which a header held; answers whether there is one, or may be.
    pub(super) async fn renew(&self, refused: &str) -> bool {
        if let Some(oauth) = &self.oauth {
            let mut current = oauth.current.lock().await;
            // Somebody else may have got a new one meanwhile.
            current.take_if(|(token, _)| self.header_of(token) == refused);
            return true;
        }
        if self.header_of(&self.token()) != refused {
            return true;
        }
        self.token_file.as_deref().is_some_and(|path| self.read_again(path))
    }

    fn header_of(&self, token: &SecretString) -> String {
        format!("{} {}", self.scheme().word(), token.expose_secret())
    }

    fn read_again(&self, path: &Path) -> bool {
        let Ok(text) = std::fs::read_to_string(path) else { return false };
        let mut token = self.token.write().unwrap_or_else(PoisonError::into_inner);
        let changed = !text.trim().is_empty() && token.expose_secret() != text.trim();
        if changed {
            tracing::info!("the token file has changed; using the new token");
            *token = text.trim().to_owned().into();
        }
        changed
    }
}

impl OAuth {
    /// The current token, renewed shortly before it expires.
    async fn token(&self, http: &reqwest::Client, now: Timestamp) -> Result<SecretString, Failure> {
        let mut current = self.current.lock().await;
        if let Some((token, until)) = current.as_ref()
            && now < *until
        {
            return Ok(token.clone());
        }
        let granted = self.grant(http).await?;
        let lifetime = Duration::from_secs(granted.expires_in.unwrap_or(300));
        // One that lives shorter than the margin is used once.
        let until = now.plus(lifetime.saturating_sub(MARGIN));
        let token = SecretString::from(granted.access_token);
        *current = Some((token.clone(), until));
        Ok(token)
    }

    async fn grant(&self, http: &reqwest::Client) -> Result<Granted, Failure> {
        let settings = &self.settings;
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", settings.client_id.as_str()),
            ("client_secret", settings.client_secret.expose_secret()),
            ("scope", settings.scopes.as_str()),
        ];
        form.extend(settings.resource.as_deref().map(|resource| ("resource", resource)));
        let host = settings.token_url.host_str().unwrap_or_default().to_owned();
        let broken = |_: reqwest::Error| {
            let message = format!(
                "{host} gives out no OAuth token: it cannot be reached; check collector.oauth.token_url, the proxy and DNS"
            );
            Failure::new(FailureKind::Unreachable, message)
        };
        let response = http.post(settings.token_url.clone()).form(&form).send().await.map_err(broken)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(broken)?;
        if !status.is_success() {
            return Err(denied(status, &body, &host));
        }
        if is_web_page(&headers, &body) {
            return Err(Failure::new(FailureKind::WebPage, web_page("the token endpoint")));
        }
        serde_json::from_slice(&body).map_err(|e| {
            Failure::new(FailureKind::BadAnswer, format!("{host} answered what is no OAuth token: {e}"))
        })
    }
}

fn denied(status: StatusCode, body: &[u8], host: &str) -> Failure {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let message = format!("{host} cannot give out an OAuth token now ({status}); it is asked again");
        return Failure::new(FailureKind::Unavailable, message);
    }
    let said = serde_json::from_slice::<Denied>(body)
        .map(|denied| format!("{} {}", denied.error, denied.error_description))
        .unwrap_or_default();
    let message = format!(
        "{host} gives out no OAuth token ({status}: {}); check client_id, client_secret_file, scopes and resource in collector.oauth",
        quote(&said)
    );
    Failure::new(FailureKind::Unauthorized, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_how_it_is_presented() {
        for (token, scheme) in [
            ("dt0c01.ABC.DEF", Scheme::ApiToken),
            ("dt0s16.ABC.DEF", Scheme::Bearer),
            ("eyJhbGciOi.eyJzdWIi.c2ln", Scheme::Bearer),
            ("an-old-short-token", Scheme::ApiToken),
            ("", Scheme::ApiToken),
        ] {
            assert_eq!(Scheme::of(token), scheme, "{token}");
        }
    }

    #[test]
    fn a_denied_token_is_told_from_a_busy_server() {
        let body = br#"{"error":"invalid_client","error_description":"no such client"}"#;
        let failure = denied(StatusCode::BAD_REQUEST, body, "sso");
        assert_eq!(failure.kind, FailureKind::Unauthorized);
        assert!(failure.message.contains("invalid_client no such client"), "{failure}");
        assert_eq!(denied(StatusCode::BAD_GATEWAY, b"", "sso").kind, FailureKind::Unavailable);
    }
}
