//! What the token may do, asked at the start and again while something is missing: readiness says it in words.

use super::answer::TokenInfo;
use super::client::{Call, Client};
use super::credential::Scheme;
use super::{Dynatrace, Failure, FailureKind};
use crate::config::LogSourceKind;
use crate::source::Purpose;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vouch_proto::Timestamp;
use vouch_service::clock::{self, SharedClock};

/// The scopes that collecting needs.
pub const SCOPES: [&str; 2] = ["metrics.read", "entities.read"];
/// The scope that reading logs of Logs v2 needs besides.
const LOGS_SCOPE: &str = "logs.read";
/// Days before a token expires at which the log begins to say so.
const EXPIRES_SOON_DAYS: u64 = 14;
const AGAIN: Duration = Duration::from_secs(60);
const REFRESH: Duration = Duration::from_secs(3600);

/// Looks the token up until `stop`, often while it lacks something.
pub async fn watch_token(source: &Dynatrace, clock: SharedClock, stop: CancellationToken) {
    loop {
        let good = tokio::select! {
            () = stop.cancelled() => return,
            good = check(&source.client) => good,
        };
        let pause = if good { REFRESH } else { AGAIN };
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock::sleep(&*clock, pause) => {}
        }
    }
}

/// What the tenant says about the token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenState {
    /// What is wrong with it.
    pub wrong: Option<String>,
    /// When it expires, in words; `None` where it does not, or the tenant does not say.
    pub expires: Option<String>,
    /// Whether that is soon.
    pub expires_soon: bool,
    /// Whether the tenant was able to tell.
    pub is_known: bool,
    /// The scopes that it has.
    pub scopes: Vec<String>,
}

/// Whether the token is good, as far as the tenant tells; readiness says what is wrong.
async fn check(client: &Client) -> bool {
    match look_up(client).await {
        Ok(TokenState { wrong: None, expires, expires_soon, .. }) => {
            if expires_soon {
                tracing::warn!(
                    expires,
                    "the token expires soon; generate another one and replace collector.token_file"
                );
            }
            client.health().ok(&client.condition("token"));
            true
        }
        Ok(TokenState { wrong: Some(reason), .. }) => {
            tracing::error!(reason, "the token is not good enough");
            client.health().fails(&client.condition("token"), reason);
            false
        }
        Err(failure) => {
            tracing::warn!(%failure, "the token could not be looked up");
            false
        }
    }
}

/// Asks the tenant about the token; it knows nothing of platform tokens, and then the calls themselves tell.
pub(super) async fn look_up(client: &Client) -> Result<TokenState, Failure> {
    if client.scheme() == Scheme::Bearer {
        return Ok(TokenState::default());
    }
    let token = client.token();
    let call = Call {
        method: Method::POST,
        body: Some(serde_json::json!({ "token": token.expose_secret() })),
        ..Call::get(&["apiTokens", "lookup"], Vec::new(), SCOPES[0]).for_the(Purpose::Guard)
    };
    match client.send::<TokenInfo>(&call).await {
        Ok(info) => Ok(state(&info, &needed(client), client.now())),
        Err(failure) if matches!(failure.kind, FailureKind::NotFound | FailureKind::BadRequest) => {
            Ok(TokenState::default())
        }
        Err(failure) => Err(failure),
    }
}

/// The scopes that the settings need.
fn needed(client: &Client) -> Vec<&'static str> {
    let logs = (client.settings().logs.source == LogSourceKind::Classic).then_some(LOGS_SCOPE);
    SCOPES.into_iter().chain(logs).collect()
}

fn state(info: &TokenInfo, scopes: &[&str], now: Timestamp) -> TokenState {
    let known =
        info.expiration_date.as_deref().and_then(|text| Some((text, text.parse::<Timestamp>().ok()?)));
    let Some((text, expires)) = known else {
        let (wrong, had) = (wrong_with(info, scopes), info.scopes.clone());
        return TokenState { wrong, is_known: true, scopes: had, ..TokenState::default() };
    };
    let days = expires.since(now).as_secs() / 86_400;
    let expired = (expires <= now).then(|| {
        format!("the token has expired ({text}); generate another one in Dynatrace > Access tokens and put it into collector.token_file")
    });
    TokenState {
        wrong: wrong_with(info, scopes).or(expired),
        expires: Some(format!("{text}, in {days} days")),
        expires_soon: days < EXPIRES_SOON_DAYS,
        is_known: true,
        scopes: info.scopes.clone(),
    }
}

fn wrong_with(info: &TokenInfo, scopes: &[&str]) -> Option<String> {
    if !info.enabled {
        return Some("the token is disabled; enable it in Dynatrace > Access tokens".to_owned());
    }
    let missing: Vec<&str> =
        scopes.iter().copied().filter(|s| !info.scopes.iter().any(|has| has == s)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "missing_scope: the token lacks {}; generate one with {} in Dynatrace > Access tokens and put it into collector.token_file",
            missing.join(", "),
            scopes.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_scopes_are_named() {
        let info = |scopes: &[&str]| TokenInfo {
            enabled: true,
            expiration_date: None,
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
        };
        assert_eq!(wrong_with(&info(&["entities.read", "metrics.read", "x"]), &SCOPES), None);
        let said = wrong_with(&info(&["metrics.read"]), &SCOPES).unwrap();
        assert!(said.contains("lacks entities.read;"), "{said}");
        let said = wrong_with(&info(&SCOPES), &[SCOPES[0], LOGS_SCOPE]).unwrap();
        assert!(said.contains("lacks logs.read;"), "{said}");
        let disabled = TokenInfo { enabled: false, ..info(&[]) };
        assert!(wrong_with(&disabled, &SCOPES).unwrap().contains("disabled"));
    }

    #[test]
    fn an_expired_token_is_wrong_and_one_that_expires_soon_is_told() {
        let now: Timestamp = "2026-11-18T12:00:00Z".parse().unwrap();
        let of = |date: &str| {
            let info = TokenInfo {
                enabled: true,
                expiration_date: Some(date.into()),
                scopes: SCOPES.iter().map(|s| (*s).to_owned()).collect(),
            };
            state(&info, &SCOPES, now)
        };
        let later = of("2027-11-18T12:00:00.000Z");
        assert_eq!((later.wrong, later.expires_soon), (None, false));
        let soon = of("2026-11-20T13:00:00.000Z");
        assert_eq!((soon.wrong, soon.expires_soon), (None, true));
        assert_eq!(soon.expires.as_deref(), Some("2026-11-20T13:00:00.000Z, in 2 days"));
        assert!(of("2026-11-18T11:00:00.000Z").wrong.unwrap().contains("has expired"));
        let vague = of("some day");
        assert_eq!((vague.wrong, vague.expires, vague.is_known, vague.scopes.len()), (None, None, true, 2));
    }
}
