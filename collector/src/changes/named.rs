//! From a finder's words to the names that deployments use: which service and environment is meant. Pure.

use crate::changes::{Certainty, Change};
use vouch_proto::{Deployment, Glob, Invalid, Name, Phase, Timestamp};

/// A deployment in the words of whoever tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The service, e.g. a repository or a workload.
    pub service: String,
    /// The environment, e.g. a namespace; empty where it is not told.
    pub environment: String,
    /// The version.
    pub version: String,
    /// The version before.
    pub previous_version: Option<String>,
    /// Where the deployment stands.
    pub phase: Phase,
    /// Share of the traffic on the new version, percent.
    pub traffic_percent: u32,
    /// When it happened.
    pub at: Option<Timestamp>,
    /// Whom to alert.
    pub owner: Option<String>,
    /// Why it ended.
    pub reason: Option<String>,
    /// How much is known.
    pub certainty: Certainty,
    /// Whether it puts a version back.
    pub restores: bool,
}

impl Seen {
    /// What is told of a version with all of the traffic.
    #[must_use]
    pub fn new(service: &str, environment: &str, version: &str) -> Self {
        Self {
            service: service.to_owned(),
            environment: environment.to_owned(),
            version: version.to_owned(),
            previous_version: None,
            phase: Phase::Traffic,
            traffic_percent: 100,
            at: None,
            owner: None,
            reason: None,
            certainty: Certainty::Act,
            restores: false,
        }
    }
}

/// How a finder's words are translated. Without a translation a word is a name itself: the part after its last `/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The environment of everything that this finder sees.
    pub environment: Option<Name>,
    /// Or by what it says; the first pattern that fits.
    pub environments: Vec<(Glob, Name)>,
    /// Services by what it says; the first pattern that fits.
    pub services: Vec<(Glob, Name)>,
}

impl Names {
    /// For a finder that knows the names already.
    #[must_use]
    pub fn exact(service: &Name, environment: &Name) -> Self {
        let every = "*".parse().map(|pattern| (pattern, service.clone()));
        Self {
            environment: Some(environment.clone()),
            environments: Vec::new(),
            services: every.into_iter().collect(),
        }
    }

    /// The change in the names that deployments use; `source` says who found it.
    ///
    /// # Errors
    /// By field, where a word cannot be a name.
    pub fn change(&self, seen: Seen, source: &str) -> Result<Change, Invalid> {
        let mut invalid = Invalid::default();
        let service = invalid.check("service", translated(&self.services, &seen.service));
        let environment = match &self.environment {
            Some(name) => Some(name.clone()),
            None => invalid.check("environment", translated(&self.environments, &seen.environment)),
        };
        let version = invalid.check("version", Name::new(seen.version));
        let (Some(service), Some(environment), Some(version)) = (service, environment, version) else {
            return Err(invalid);
        };
        let deployment = Deployment {
            previous_version: seen.previous_version,
            phase: seen.phase,
            traffic_percent: seen.traffic_percent.min(100),
            occurred_at: seen.at,
            owner: seen.owner,
            reason: seen.reason,
            source: Some(source.to_owned()),
            ..Deployment::new(environment, service, version)
        };
        Ok(Change { deployment, certainty: seen.certainty, restores: seen.restores })
    }
}

fn translated(patterns: &[(Glob, Name)], word: &str) -> Result<Name, Invalid> {
    match patterns.iter().find(|(pattern, _)| pattern.fits(word)) {
        Some((_, name)) => Ok(name.clone()),
        None => Name::new(word.rsplit('/').next().unwrap_or(word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_translated_by_the_first_pattern_or_are_names() {
        let name = |text: &str| Name::new(text).unwrap();
        let names = Names {
            environment: None,
            environments: vec![("shop-*".parse().unwrap(), name("prod"))],
            services: vec![("shop/web".parse().unwrap(), name("storefront"))],
        };
        let of = |service: &str, environment: &str| {
            let change = names.change(Seen::new(service, environment, "1"), "test").unwrap().deployment;
            format!("{}/{}", change.environment, change.service)
        };
        assert_eq!(of("shop/web", "shop-eu"), "prod/storefront");
        assert_eq!(of("shop/cart", "staging/eu"), "eu/cart");
        let refused = names.change(Seen::new("", "", ""), "test").unwrap_err().to_string();
        for field in ["service", "environment", "version"] {
            assert!(refused.contains(field), "{field} in {refused}");
        }
        let fixed = Names { environment: Some(name("prod")), ..names };
        assert!(fixed.change(Seen::new("a", "", "1"), "test").is_ok());
    }
}
