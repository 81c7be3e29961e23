//! Patterns of names: `*` stands for any text, `?` for one character.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use wildmatch::WildMatch;

/// A pattern that a whole name must fit; upper and lower case differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Glob(WildMatch);

impl Eq for Glob {}

impl Glob {
    /// Whether a name fits.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        self.0.matches(name)
    }
}

impl FromStr for Glob {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(WildMatch::new(text)))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_name_must_fit() {
        let fits = |pattern: &str, name: &str| pattern.parse::<Glob>().unwrap().fits(name);
        assert!(fits("prod-*", "prod-eu") && fits("prod-*", "prod-") && fits("*", "") && fits("a?c", "abc"));
        assert!(!fits("prod-*", "my-prod-eu") && !fits("prod", "prod-eu") && !fits("Prod", "prod"));
        assert_eq!("shop-*".parse::<Glob>().unwrap().to_string(), "shop-*");
    }
}
