//! Whether two finders mean the same deployment, though they spell its version differently. Pure.

use crate::changes::Certainty;
use std::time::Duration;
use vouch_proto::{DeploymentRecord, Name, Phase, Timestamp};

/// A guess means the deployment that began at most this long before it or after it.
pub const NEAR: Duration = Duration::from_secs(15 * 60);
/// Fewest characters of an abbreviated commit.
const COMMIT: usize = 7;

/// What a change is, beside the newest deployment of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// The same one, known by this version.
    Same(Name),
    /// The version is there already, and nothing has been deployed.
    Standing,
    /// Another one.
    New,
}

/// What a change to `version` at `at` is, beside the newest deployment.
#[must_use]
pub fn relation(
    newest: Option<&DeploymentRecord>,
    version: &Name,
    at: Timestamp,
    (certainty, phase): (Certainty, Phase),
) -> Relation {
    let Some(newest) = newest else { return Relation::New };
    let known = &newest.deployment.version;
    let is_open = at <= newest.joins_until && at > newest.started_at.minus(NEAR);
    match certainty {
        Certainty::Guess if is_open => Relation::Same(known.clone()),
        Certainty::Guess => Relation::New,
        Certainty::Act | Certainty::State if !are_alike(known.as_str(), version.as_str()) => Relation::New,
        Certainty::Act | Certainty::State if is_open => Relation::Same(known.clone()),
        // The end of a deployment that is over is news of it, not of a second one.
        Certainty::State if phase != Phase::Aborted => Relation::Standing,
        Certainty::Act | Certainty::State => Relation::Same(known.clone()),
    }
}

/// Whether two words name the same version: a leading `v`, build metadata, the image around a tag and upper case aside,
/// or an abbreviated commit and the whole.
#[must_use]
pub fn are_alike(one: &str, other: &str) -> bool {
    let (one, other) = (core(one), core(other));
    one == other || is_abbreviation(&one, &other) || is_abbreviation(&other, &one)
}

fn core(version: &str) -> String {
    let text = version.trim().to_lowercase();
    let text = text.strip_prefix("refs/tags/").unwrap_or(&text);
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    // The tag of an image with its registry, which may have a port.
    let text = text.rsplit('/').next().unwrap_or(text);
    let text = text.rsplit(':').next().unwrap_or(text);
    let text = text.split('+').next().unwrap_or(text);
    let bare = text.strip_prefix('v').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    bare.unwrap_or(text).to_owned()
}

fn is_abbreviation(short: &str, whole: &str) -> bool {
    let is_hash = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
    short.len() >= COMMIT
        && matches!(whole.len(), 40 | 64)
        && is_hash(whole)
        && is_hash(short)
        && whole.starts_with(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_proto::Deployment;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(1_764_000_000_000 + minute * 60_000)
    }

    fn newest(version: &str) -> DeploymentRecord {
        DeploymentRecord {
            deployment: Deployment::new(name("prod"), name("cart"), name(version)),
            started_at: at(0),
            traffic_at: None,
            verifications: 1,
            joins_until: at(30),
        }
    }

    #[test]
    fn the_same_version_is_spelled_in_many_ways() {
        let whole = "0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa";
        for (one, other) in [
            ("1.4.2", "v1.4.2"),
            ("refs/tags/v1.4.2", "1.4.2"),
            ("registry.example.com:5000/shop/cart:1.4.2", "1.4.2"),
            ("1.4.2+build.7", "1.4.2"),
            ("RC1", "rc1"),
            ("0b31b1c", whole),
        ] {
            assert!(are_alike(one, other) && are_alike(other, one), "{one} {other}");
        }
        for (one, other) in [("1.4.2", "1.4.20"), ("vega", "ega"), ("0b31b1", whole), ("1234567", "12345678")]
        {
            assert!(!are_alike(one, other), "{one} {other}");
        }
    }

    #[test]
    fn news_of_one_deployment_joins_it_and_what_stands_is_none() {
        let known = newest("v2");
        let of = |version: &str, minute, certainty| {
            relation(Some(&known), &name(version), at(minute), (certainty, Phase::Started))
        };
        assert_eq!(of("2", 5, Certainty::Act), Relation::Same(name("v2")));
        assert_eq!(of("3", 5, Certainty::Act), Relation::New);
        assert_eq!(
            of("2", 31, Certainty::Act),
            Relation::Same(name("v2")),
            "the same version, deployed again"
        );
        assert_eq!(of("2", 31, Certainty::State), Relation::Standing);
        assert_eq!(of("3", 31, Certainty::State), Relation::New);
        assert_eq!(of("restarted", 5, Certainty::Guess), Relation::Same(name("v2")));
        assert_eq!(of("restarted", -14, Certainty::Guess), Relation::Same(name("v2")));
        assert_eq!(of("restarted", -15, Certainty::Guess), Relation::New);
        assert_eq!(of("restarted", 31, Certainty::Guess), Relation::New);
        assert_eq!(relation(None, &name("1"), at(0), (Certainty::State, Phase::Started)), Relation::New);
        let end = relation(Some(&known), &name("2"), at(40), (Certainty::State, Phase::Aborted));
        assert_eq!(end, Relation::Same(name("v2")));
    }
}
