//! The `evidence` section that analyzer and notifier share: where a person looks, links that are signed and expire, and the
//! way into Dynatrace.

use crate::settings::Section;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use vouch_proto::{Invalid, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Shortest secret that signs links.
const LEAST_SECRET_BYTES: usize = 16;

/// Where evidence is served, and how links to it are made.
#[derive(Debug, Clone, Default)]
pub struct EvidenceSettings {
    /// Where the pages are served; nowhere without it.
    pub listen: Option<SocketAddr>,
    /// What links to the pages begin with.
    pub url: Option<String>,
    /// Who shows it may see every page.
    pub token: Option<SecretString>,
    /// Signs links.
    pub link_secret: Option<SecretString>,
    /// How long a signed link holds.
    pub link_lifetime: Duration,
    /// Everybody who reaches the port may see every page.
    pub insecure: bool,
    /// The web address of the tenants, by name; the empty name is for those that are not named.
    pub dynatrace: BTreeMap<String, String>,
}

/// Why a page is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotShown {
    /// The link was good once.
    #[error("the link has expired")]
    Expired,
    /// The link is not one that was made here, or there is neither link nor token.
    #[error("a signed link or a token is needed")]
    Unknown,
}

impl EvidenceSettings {
    /// Reads the `evidence` section; all of it may be missing.
    pub fn read(root: &mut Section<'_>, invalid: &mut Invalid) -> Self {
        let mut section = root.section("evidence");
        let listen = section.parsed::<SocketAddr>("listen");
        let token = section.secret("token", "token_file");
        let link_secret = section.secret("link_secret", "link_secret_file");
        if link_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < LEAST_SECRET_BYTES) {
            let said =
                format!("is shorter than {LEAST_SECRET_BYTES} bytes; make one with `openssl rand -hex 32`");
            section.refuse("link_secret_file", said);
        }
        let insecure = section.flag("insecure", false);
        let open = listen.is_some_and(|listen| !listen.ip().is_loopback());
        if open && token.is_none() && link_secret.is_none() && !insecure {
            section.refuse(
                "link_secret_file",
                "is missing; the pages are open to others, so give it (signed links) or `token_file`, or set `insecure: true`",
            );
        }
        let url = read_url(&mut section, "url");
        let mut dynatrace = BTreeMap::new();
        if let Some(url) = read_url(&mut section, "dynatrace_url") {
            dynatrace.insert(String::new(), url);
        }
        read_tenants(&mut section, &mut dynatrace);
        let link_lifetime = section.duration("link_lifetime", 7 * DAY, DAY / 24..=90 * DAY);
        section.finish(invalid);
        Self { listen, url, token, link_secret, link_lifetime, insecure, dynatrace }
    }

    /// The link to the page of a verification, signed where there is a secret.
    #[must_use]
    pub fn page(&self, verification_id: &str, now: Timestamp) -> Option<String> {
        let path = path(verification_id);
        let url = format!("{}{path}", self.url.as_deref()?);
        let Some(secret) = &self.link_secret else { return Some(url) };
        // To the hour, so that the same word about the same thing has the same link.
        let hour = 3600;
        let until = seconds(now.plus(self.link_lifetime)).div_euclid(hour) * hour + hour;
        Some(format!("{url}?until={until}&sig={}", sign(secret, &path, until)))
    }

    /// Whether a page may be shown to who came by this link, or showed this token.
    ///
    /// # Errors
    /// Where neither holds.
    pub fn may_see(
        &self,
        path: &str,
        link: Option<(i64, &str)>,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<(), NotShown> {
        if self.insecure || (self.token.is_none() && self.link_secret.is_none()) {
            return Ok(());
        }
        if let (Some(expected), Some(shown)) = (&self.token, token)
            && same(expected.expose_secret().as_bytes(), shown.as_bytes())
        {
            return Ok(());
        }
        match (&self.link_secret, link) {
            (Some(secret), Some((until, signature))) if verify(secret, path, until, signature) => {
                if seconds(now) <= until { Ok(()) } else { Err(NotShown::Expired) }
            }
            _ => Err(NotShown::Unknown),
        }
    }

    /// The way to an entity in Dynatrace, from and to an instant.
    #[must_use]
    pub fn entity(&self, source: &str, id: &str, (from, to): (Timestamp, Timestamp)) -> Option<String> {
        let base = self.dynatrace.get(source).or_else(|| self.dynatrace.get(""))?;
        let host = base.split("//").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let app = if host.contains(".apps.") { "/ui/apps/dynatrace.classic.services" } else { "" };
        Some(format!("{base}{app}/ui/entity/{}?gtf={from}%20to%20{to}", encoded(id)))
    }
}

/// The path of a verification's page.
#[must_use]
pub fn path(verification_id: &str) -> String {
    format!("/evidence/{}", encoded(verification_id))
}

fn read_url(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let url = section.text(key)?;
    match checked(&url) {
        Ok(url) => Some(url),
        Err(e) => {
            section.refuse(key, e);
            None
        }
    }
}

fn read_tenants(section: &mut Section<'_>, tenants: &mut BTreeMap<String, String>) {
    let Some(value) = section.raw("dynatrace_urls") else { return };
    let Some(map) = value.as_object() else {
        return section.refuse("dynatrace_urls", "must be a mapping of tenants to addresses");
    };
    for (tenant, url) in map {
        match checked(url.as_str().unwrap_or_default()) {
            Ok(url) => {
                tenants.insert(tenant.clone(), url);
            }
            Err(e) => section.refuse(&format!("dynatrace_urls.{tenant}"), e),
        }
    }
}

/// What links begin with: an address in the web, without a slash at its end.
fn checked(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let wrong = |c: char| c.is_whitespace() || c.is_control() || "?#\"<>@".contains(c);
    if host.is_empty() || url.contains(wrong) {
        return Err(format!("`{url}` is no address that a link can begin with; write e.g. https://host"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn seconds(t: Timestamp) -> i64 {
    t.as_millis().div_euclid(1000)
}

fn mac(secret: &SecretString, path: &str, until: i64) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(format!("{path}\n{until}").as_bytes());
    Some(mac)
}

fn sign(secret: &SecretString, path: &str, until: i64) -> String {
    // HMAC takes keys of any length, so there is always one.
    hex::encode(mac(secret, path, until).map(|mac| mac.finalize().into_bytes()).unwrap_or_default())
}

/// In constant time.
fn verify(secret: &SecretString, path: &str, until: i64, signature: &str) -> bool {
    let Ok(digest) = hex::decode(signature) else { return false };
    mac(secret, path, until).is_some_and(|mac| mac.verify_slice(&digest).is_ok())
}

/// In constant time over the length of what was shown.
fn same(expected: &[u8], shown: &[u8]) -> bool {
    let differences = expected.iter().zip(shown).fold(0_u8, |d, (a, b)| d | (a ^ b));
    differences == 0 && expected.len() == shown.len()
}

/// A segment of a path: what is not unreserved is `%XX`.
fn encoded(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Document;

    fn read(yaml: &str) -> (EvidenceSettings, String) {
        let document = Document::parse(yaml).unwrap();
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let settings = EvidenceSettings::read(&mut root, &mut invalid);
        root.finish(&mut invalid);
        (settings, invalid.to_string())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_link_holds_until_it_expires_and_for_its_page_alone() {
        let yaml = format!(
            "evidence: {{url: 'https://vouch.example.com/', link_secret: {SECRET}, link_lifetime: 1d}}"
        );
        let (settings, said) = read(&yaml);
        assert_eq!(said, "");
        let now = at("2026-11-24T10:09:00Z");
        let link = settings.page("01J.1", now).unwrap();
        let query = link.strip_prefix("https://vouch.example.com/evidence/01J.1?until=").unwrap();
        let (until, signature) = query.split_once("&sig=").unwrap();
        let until: i64 = until.parse().unwrap();
        assert_eq!(until, seconds(at("2026-11-25T11:00:00Z")), "whole hours, at least a day");
        assert_eq!(link, settings.page("01J.1", at("2026-11-24T10:59:00Z")).unwrap());
        let see = |path: &str, until, signature: &str, now| {
            settings.may_see(path, Some((until, signature)), None, at(now))
        };
        assert_eq!(see("/evidence/01J.1", until, signature, "2026-11-25T11:00:00Z"), Ok(()));
        assert_eq!(see("/evidence/01J.1", until, signature, "2026-11-25T11:00:01Z"), Err(NotShown::Expired));
        for (path, until, signature) in [
            ("/evidence/01J.2", until, signature.to_owned()),
            ("/evidence/01J.1", until + 3600, signature.to_owned()),
            ("/evidence/01J.1", until, signature.replace(['a', '1'], "0")),
            ("/evidence/01J.1", until, String::new()),
            ("/evidence/01J.1", until, "zz".to_owned()),
        ] {
            assert_eq!(see(path, until, &signature, "2026-11-24T10:10:00Z"), Err(NotShown::Unknown));
        }
        assert!(!format!("{settings:?}").contains(SECRET));
    }

    #[test]
    fn a_token_opens_every_page_and_nothing_opens_none() {
        let (settings, _) = read("evidence: {token: t0ken, url: 'https://v.example'}");
        let see = |token| settings.may_see("/evidence/x", None, token, at("2026-11-24T10:00:00Z"));
        assert_eq!(see(Some("t0ken")), Ok(()));
        for wrong in [None, Some(""), Some("t0ke"), Some("t0kenn"), Some("T0ken")] {
            assert_eq!(see(wrong), Err(NotShown::Unknown), "{wrong:?}");
        }
        assert_eq!(
            settings.page("x y/z", at("2026-11-24T10:00:00Z")).unwrap(),
            "https://v.example/evidence/x%20y%2Fz"
        );
        assert_eq!(EvidenceSettings::default().page("x", at("2026-11-24T10:00:00Z")), None);
    }

    #[test]
    fn the_way_into_dynatrace_is_that_of_the_tenant() {
        let (settings, said) = read(
            "evidence: {dynatrace_url: 'https://abc12345.live.dynatrace.com/', \
             dynatrace_urls: {eu: 'https://eu1.apps.dynatrace.com', managed: 'https://d.corp.example/e/1-2'}}",
        );
        assert_eq!(said, "");
        let between = (at("2026-11-24T09:00:00Z"), at("2026-11-24T10:00:00Z"));
        let way = |source| settings.entity(source, "SERVICE-1", between).unwrap();
        let query = "?gtf=2026-11-24T09:00:00Z%20to%202026-11-24T10:00:00Z";
        assert_eq!(way("any"), format!("https://abc12345.live.dynatrace.com/ui/entity/SERVICE-1{query}"));
        assert_eq!(
            way("eu"),
            format!(
                "https://eu1.apps.dynatrace.com/ui/apps/dynatrace.classic.services/ui/entity/SERVICE-1{query}"
            )
        );
        assert_eq!(way("managed"), format!("https://d.corp.example/e/1-2/ui/entity/SERVICE-1{query}"));
        assert_eq!(EvidenceSettings::default().entity("x", "y", between), None);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let (_, said) = read(
            "evidence: {listen: '0.0.0.0:7080', url: 'vouch.example.com', link_lifetime: 1m, oops: 1, \
             dynatrace_url: 'https://a b', dynatrace_urls: {eu: 'ftp://x'}}",
        );
        for part in [
            "evidence.link_secret_file: is missing; the pages are open to others",
            "evidence.url: `vouch.example.com` is no address",
            "evidence.link_lifetime: `1m` is not within",
            "evidence.oops: is no setting here",
            "evidence.dynatrace_url: `https://a b` is no address",
            "evidence.dynatrace_urls.eu: `ftp://x` is no address",
        ] {
            assert!(said.contains(part), "{part}\nis not in\n{said}");
        }
        assert!(read("evidence: {link_secret: short}").1.contains("is shorter than 16 bytes"));
        assert!(read("evidence: {dynatrace_urls: [1]}").1.contains("must be a mapping"));
        assert_eq!(read("evidence: {listen: '0.0.0.0:7080', insecure: true}").1, "");
        assert_eq!(read("evidence: {listen: '127.0.0.1:7080'}").1, "");
    }
}
