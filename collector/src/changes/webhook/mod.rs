//! Webhooks: what pipelines and deployment tools tell, each in its own words, behind its own secret.

mod argo;
mod flagger;
mod generic;
mod github;
mod gitlab;
mod server;
mod signature;

pub use server::{Webhooks, serve};

use crate::changes::cdevents;
use crate::changes::{Change, Names, Seen};
use axum::http::HeaderMap;
use secrecy::SecretString;
use serde_json::Value;
use vouch_proto::{Invalid, Name, Timestamp};

/// Who calls a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anybody, with a deployment as it is on the topic.
    Generic,
    /// CDEvents in CloudEvents over HTTP.
    CdEvents,
    /// GitHub, events `deployment_status` and `deployment`.
    GitHub,
    /// GitLab, deployment events.
    GitLab,
    /// Argo CD notifications.
    ArgoCd,
    /// Argo Rollouts notifications.
    ArgoRollouts,
    /// Flagger's event webhook.
    Flagger,
}

impl Kind {
    /// Every kind, with its word in the settings.
    pub const ALL: [(&'static str, Self); 7] = [
        ("generic", Self::Generic),
        ("cdevents", Self::CdEvents),
        ("github", Self::GitHub),
        ("gitlab", Self::GitLab),
        ("argo-cd", Self::ArgoCd),
        ("argo-rollouts", Self::ArgoRollouts),
        ("flagger", Self::Flagger),
    ];

    /// Its word in the settings.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

/// One webhook of the settings.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The last part of its address.
    pub name: Name,
    /// Who calls it.
    pub kind: Kind,
    /// What the caller must know; any of them, so that one can be replaced by the next.
    pub secrets: Vec<SecretString>,
    /// How its words are translated.
    pub names: Names,
    /// Whether services that Dynatrace does not know are announced.
    pub unknown_services: bool,
}

/// What a call says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Changes, in the caller's words.
    Seen(Vec<Seen>),
    /// A deployment in Vouch's words.
    Change(Box<Change>),
    /// Nothing about a deployment, for this reason.
    Nothing(String),
}

impl Webhook {
    /// What a call says. `now` is for calls that do not say when.
    ///
    /// # Errors
    /// By field, where the body is not what this kind of caller sends.
    pub fn read(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Said, Invalid> {
        let json = || {
            serde_json::from_slice::<Value>(body)
                .map_err(|e| Invalid::field("body", format!("is no JSON: {e}; send {}", self.kind.word())))
        };
        match self.kind {
            Kind::Generic => generic::read(headers, body),
            Kind::CdEvents => cdevents::read(header(headers, "ce-type"), &json()?),
            Kind::GitHub => github::read(header(headers, "x-github-event"), &json()?),
            Kind::GitLab => gitlab::read(&json()?),
            Kind::ArgoCd => argo::application(&json()?),
            Kind::ArgoRollouts => argo::rollout(&json()?, now),
            Kind::Flagger => flagger::read(&json()?),
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The text at a path of keys and positions, e.g. `/deployment/sha`; empty where there is none.
fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).map_or("", str::trim)
}

/// The text at a path, which must be there.
fn required<'v>(value: &'v Value, path: &str, invalid: &mut Invalid) -> &'v str {
    let found = text(value, path);
    if found.is_empty() {
        let field = path.trim_start_matches('/').replace('/', ".");
        invalid.push(field, "is missing or no text; is this webhook of the right kind?");
    }
    found
}

/// The instant at a path; none where there is none that can be read.
fn instant(value: &Value, path: &str) -> Option<Timestamp> {
    text(value, path).parse().ok()
}

/// The tag of an image, or its digest.
fn image_version(image: &str) -> Option<&str> {
    if let Some((_, digest)) = image.split_once('@') {
        // A tag beside a digest is what people know it by.
        let tagged = image.split('@').next().unwrap_or_default();
        return image_tag(tagged).or(Some(digest));
    }
    image_tag(image)
}

fn image_tag(image: &str) -> Option<&str> {
    let last = image.rsplit('/').next()?;
    last.split_once(':').map(|(_, tag)| tag).filter(|tag| !tag.is_empty())
}

/// The last part of an image's repository.
fn image_name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(['@', ':']).next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_taken_apart() {
        let digest = "sha256:0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427";
        for (image, name, version) in [
            ("registry:5000/shop/cart:1.4.2", "cart", Some("1.4.2")),
            ("cart", "cart", None),
            ("registry:5000/cart", "cart", None),
            (&format!("shop/cart:1.4.2@{digest}"), "cart", Some("1.4.2")),
            (&format!("shop/cart@{digest}"), "cart", Some(digest)),
        ] {
            assert_eq!((image_name(image), image_version(image)), (name, version), "{image}");
        }
    }

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        for (word, kind) in Kind::ALL {
            assert_eq!(kind.word(), word);
        }
    }
}
