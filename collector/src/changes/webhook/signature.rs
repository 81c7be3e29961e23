//! Whether a call comes from somebody who knows the webhook's secret, in the way of each kind of caller.

use super::{Kind, Webhook, header, text};
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use vouch_proto::Timestamp;

/// How old or early a signed call may be.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// What a secret of Standard Webhooks begins with; the rest is base64.
const STANDARD_SECRET: &str = "whsec_";

/// Whether the caller knows one of the secrets.
///
/// # Errors
/// With what to send, and nothing about the secret.
pub(super) fn check(
    webhook: &Webhook,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), &'static str> {
    let secrets = || webhook.secrets.iter().map(|secret| secret.expose_secret());
    let knows = match webhook.kind {
        Kind::GitHub => {
            let shown = header(headers, "x-hub-signature-256");
            secrets().any(|secret| is_signed(secret, body, shown))
        }
        Kind::GitLab if !header(headers, "webhook-signature").is_empty() => {
            secrets().any(|secret| is_standard(secret, headers, body, now))
        }
        Kind::GitLab => secrets().any(|secret| is_same(secret, header(headers, "x-gitlab-token"))),
        // Flagger sends no header of ours: what is in a webhook's `metadata` is all that it can tell.
        Kind::Flagger => {
            let shown = serde_json::from_slice::<Value>(body).unwrap_or_default();
            let shown = text(&shown, "/metadata/token");
            secrets().any(|secret| is_same(secret, shown) || bears(secret, headers))
        }
        Kind::Generic | Kind::CdEvents | Kind::ArgoCd | Kind::ArgoRollouts => secrets().any(|secret| {
            bears(secret, headers)
                || is_signed(secret, body, header(headers, "x-vouch-signature"))
                || is_standard(secret, headers, body, now)
        }),
    };
    if knows { Ok(()) } else { Err(remedy(webhook.kind)) }
}

fn remedy(kind: Kind) -> &'static str {
    match kind {
        Kind::GitHub => "X-Hub-Signature-256 does not fit: enter this webhook's secret in GitHub",
        Kind::GitLab => {
            "X-Gitlab-Token does not fit: enter this webhook's secret in GitLab as its secret token"
        }
        Kind::Flagger => {
            "metadata.token does not fit: give the canary's webhook a metadata `token` with the secret"
        }
        Kind::Generic | Kind::CdEvents | Kind::ArgoCd | Kind::ArgoRollouts => {
            "send `Authorization: Bearer <secret>`, or `X-Vouch-Signature: sha256=<HMAC of the body>`"
        }
    }
}

fn bears(secret: &str, headers: &HeaderMap) -> bool {
    header(headers, "authorization").strip_prefix("Bearer ").is_some_and(|shown| is_same(secret, shown))
}

/// Compared by their hashes, so that how long it takes tells nothing of the secret.
fn is_same(secret: &str, shown: &str) -> bool {
    !shown.is_empty() && Sha256::digest(secret.as_bytes()) == Sha256::digest(shown.as_bytes())
}

/// `sha256=` and the HMAC-SHA256 of the body in hexadecimal.
fn is_signed(secret: &str, body: &[u8], shown: &str) -> bool {
    let Some(Ok(signature)) = shown.strip_prefix("sha256=").map(hex::decode) else { return false };
    fits(secret.as_bytes(), &[body], &signature)
}

/// Standard Webhooks 1.0: `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64, several with spaces.
fn is_standard(secret: &str, headers: &HeaderMap, body: &[u8], now: Timestamp) -> bool {
    let (id, time) = (header(headers, "webhook-id"), header(headers, "webhook-timestamp"));
    let Ok(seconds) = time.parse::<i64>() else { return false };
    let at = Timestamp::from_millis(seconds.saturating_mul(1000));
    if at > now.plus(TOLERANCE) || at < now.minus(TOLERANCE) {
        return false;
    }
    let key = match secret.strip_prefix(STANDARD_SECRET).map(|rest| STANDARD.decode(rest)) {
        Some(Ok(key)) => key,
        Some(Err(_)) | None => secret.as_bytes().to_vec(),
    };
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    header(headers, "webhook-signature").split(' ').any(|one| {
        let signature = one.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
        signature.is_some_and(|signature| fits(&key, &parts, &signature))
    })
}

fn fits(key: &[u8], parts: &[&[u8]], signature: &[u8]) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
    parts.iter().for_each(|part| mac.update(part));
    mac.verify_slice(signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::Names;
    use vouch_proto::Name;

    fn webhook(kind: Kind, secrets: &[&str]) -> Webhook {
        Webhook {
            name: Name::new("ci").unwrap(),
            kind,
            secrets: secrets.iter().map(|s| (*s).to_owned().into()).collect(),
            names: Names::default(),
            unknown_services: true,
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_674_087_231_000)
    }

    fn knows(webhook: &Webhook, pairs: &[(&'static str, &str)], body: &str) -> bool {
        check(webhook, &headers(pairs), body.as_bytes(), now()).is_ok()
    }

    #[test]
    fn a_signature_of_github_fits_its_body_alone() {
        // The example of GitHub's documentation.
        let hook = webhook(Kind::GitHub, &["an older one", "It's a Secret to Everybody"]);
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(knows(&hook, &[("x-hub-signature-256", good)], "Hello, World!"));
        assert!(!knows(&hook, &[("x-hub-signature-256", good)], "Hello, World?"));
        for bad in ["", "sha256=", "sha256=zz", "757107ea"] {
            assert!(!knows(&hook, &[("x-hub-signature-256", bad)], "Hello, World!"), "{bad}");
        }
        assert!(!knows(&hook, &[("authorization", "Bearer It's a Secret to Everybody")], "Hello, World!"));
    }

    #[test]
    fn a_standard_signature_fits_its_time() {
        // The example of the Standard Webhooks libraries.
        let hook = webhook(Kind::GitLab, &["whsec_plJ3nmyCDGBKInavdOK15jsl"]);
        let signed = [
            ("webhook-id", "msg_loFOjxBNrRLzqYUf"),
            ("webhook-timestamp", "1731705121"),
            ("webhook-signature", "v1,x v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="),
        ];
        let body = r#"{"event_type":"ping","data":{"success":true}}"#;
        let at = |ms| check(&hook, &headers(&signed), body.as_bytes(), Timestamp::from_millis(ms)).is_ok();
        assert!(at(1_731_705_121_000 + 299_000));
        assert!(!at(1_731_705_121_000 + 301_000), "an old call is not taken again");
        assert!(!at(1_731_705_121_000 - 301_000));
    }

    #[test]
    fn tokens_are_shown_where_each_kind_shows_them() {
        assert!(knows(&webhook(Kind::GitLab, &["s"]), &[("x-gitlab-token", "s")], "{}"));
        assert!(!knows(&webhook(Kind::GitLab, &["s"]), &[("x-gitlab-token", "t")], "{}"));
        assert!(knows(&webhook(Kind::Flagger, &["s"]), &[], r#"{"metadata":{"token":"s"}}"#));
        assert!(!knows(&webhook(Kind::Flagger, &["s"]), &[], r#"{"metadata":{"token":""}}"#));
        for kind in [Kind::Generic, Kind::CdEvents, Kind::ArgoCd, Kind::ArgoRollouts, Kind::Flagger] {
            let hook = webhook(kind, &["s"]);
            assert!(knows(&hook, &[("authorization", "Bearer s")], "{}"), "{kind:?}");
            assert!(!knows(&hook, &[("authorization", "Bearer ")], "{}"), "{kind:?}");
            assert!(!knows(&hook, &[], "{}"), "{kind:?}");
            let said = check(&hook, &HeaderMap::new(), b"{}", now()).unwrap_err();
            assert!(said.contains("secret"), "{said}");
        }
    }
}
