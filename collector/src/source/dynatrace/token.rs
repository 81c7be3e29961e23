//! What the token may do, asked at the start and again while something is missing: readiness says it in words.

use super::answer::TokenInfo;
use super::client::{Call, Client};
use super::{Dynatrace, Failure, FailureKind};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vouch_service::clock::{self, SharedClock};

/// The scopes that collecting needs.
pub const SCOPES: [&str; 2] = ["metrics.read", "entities.read"];
/// The condition of readiness that the token decides.
const CONDITION: &str = "dynatrace token";
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

/// Whether the token has all scopes, as far as the tenant tells; readiness says what is wrong.
async fn check(client: &Client) -> bool {
    match look_up(client).await {
        Ok(None) => {
            client.health().ok(CONDITION);
            true
        }
        Ok(Some(reason)) => {
            tracing::error!(reason, "the token is not good enough");
            client.health().fails(CONDITION, reason);
            false
        }
        Err(failure) => {
            tracing::warn!(%failure, "the token could not be looked up");
            false
        }
    }
}

/// What is wrong with the token; `None` where nothing is, or the tenant cannot tell.
pub(super) async fn look_up(client: &Client) -> Result<Option<String>, Failure> {
    let token = client.token();
    let call = Call {
        method: Method::POST,
        body: Some(serde_json::json!({ "token": token.expose_secret() })),
        ..Call::get(&["apiTokens", "lookup"], Vec::new(), SCOPES[0])
    };
    match client.send::<TokenInfo>(&call).await {
        Ok(info) => Ok(wrong_with(&info)),
        // Dynatrace cannot look up every kind of token; the calls themselves tell then.
        Err(failure) if matches!(failure.kind, FailureKind::NotFound | FailureKind::BadRequest) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn wrong_with(info: &TokenInfo) -> Option<String> {
    if !info.enabled {
        return Some("the token is disabled; enable it in Dynatrace > Access tokens".to_owned());
    }
    if let Some(date) = &info.expiration_date {
        tracing::info!(expires = date, "the token expires");
    }
    let missing: Vec<&str> = SCOPES.into_iter().filter(|s| !info.scopes.iter().any(|has| has == s)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "missing_scope: the token lacks {}; generate one with {} in Dynatrace > Access tokens and put it into collector.token_file",
            missing.join(", "),
            SCOPES.join(", ")
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
        assert_eq!(wrong_with(&info(&["entities.read", "metrics.read", "x"])), None);
        let said = wrong_with(&info(&["metrics.read"])).unwrap();
        assert!(said.contains("lacks entities.read;"), "{said}");
        let disabled = TokenInfo { enabled: false, ..info(&[]) };
        assert!(wrong_with(&disabled).unwrap().contains("disabled"));
    }
}
