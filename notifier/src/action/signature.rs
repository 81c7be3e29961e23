//! The signature of a webhook: `t=<unix seconds>,v1=<hex HMAC-SHA-256 of "<t>.<body>">`.

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use vouch_proto::Timestamp;

fn mac(secret: &SecretString, seconds: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

/// The value of the `Vouch-Signature` header.
#[must_use]
pub fn sign(secret: &SecretString, at: Timestamp, body: &[u8]) -> String {
    let seconds = at.as_millis().div_euclid(1000);
    // HMAC takes keys of any length, so there is always one.
    let digest = mac(secret, seconds, body).map(|mac| mac.finalize().into_bytes());
    format!("t={seconds},v1={}", hex::encode(digest.unwrap_or_default()))
}

/// Whether a header was made with the secret for this body. The receiver also refuses an old `t`.
#[must_use]
pub fn verify(secret: &SecretString, header: &str, body: &[u8]) -> bool {
    let part = |name: &str| header.split(',').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('='));
    let (Some(seconds), Some(digest)) = (part("t").and_then(|t| t.parse().ok()), part("v1")) else {
        return false;
    };
    let Ok(digest) = hex::decode(digest) else { return false };
    mac(secret, seconds, body).is_some_and(|mac| mac.verify_slice(&digest).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_holds() {
        // The same numbers as in docs/actions.md; made with `openssl dgst -sha256 -hmac`.
        let secret = SecretString::from("correct horse");
        let header = sign(&secret, Timestamp::from_millis(1_795_514_400_000), br#"{"version":1}"#);
        assert_eq!(
            header,
            "t=1795514400,v1=0f5e715316222a47b24e7f5526b44d606f4dbddc9af9d007ee8c51715677fb6e"
        );
        assert!(verify(&secret, &header, br#"{"version":1}"#));
    }

    #[test]
    fn another_secret_body_or_time_is_refused() {
        let secret = SecretString::from("s");
        let header = sign(&secret, Timestamp::from_millis(5000), b"body");
        assert!(!verify(&SecretString::from("other"), &header, b"body"));
        assert!(!verify(&secret, &header, b"Body"));
        assert!(!verify(&secret, &header.replace("t=5", "t=6"), b"body"));
        for nonsense in ["", "t=5", "v1=00", "t=x,v1=00", "t=5,v1=zz", "t=5,v1="] {
            assert!(!verify(&secret, nonsense, b"body"), "{nonsense}");
        }
    }
}
