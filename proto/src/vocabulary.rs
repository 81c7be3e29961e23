//! The closed word lists that every part of Vouch shares: outcomes, classifications, strategies, directions.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a verification ends. Four values that are never confused: silence is never `Pass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Measured; the service did not get worse.
    Pass,
    /// Measured; the service got worse.
    Fail,
    /// Measured, and the measurements cannot tell.
    Inconclusive,
    /// Could not be measured.
    Error,
}

/// What one metric on one host (or on all of them together) showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Classification {
    /// Within what was expected, or improved.
    Pass,
    /// Degraded upwards.
    High,
    /// Degraded downwards.
    Low,
    /// No usable sample in the verification window.
    NoData,
    /// The source could not deliver it.
    Error,
}

/// What the new version is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The same service before and after, with seasonal baselines.
    Previous,
    /// Test hosts against control hosts at the same time.
    Canary,
    /// Hosts switch one after the other.
    Rolling,
    /// The new stack after the switch against the old one before it.
    BlueGreen,
    /// Against a pinned run.
    LoadTest,
    /// Chosen from what is seen; the verdict says which and why.
    Auto,
}

/// The direction in which a metric is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is worse.
    Increase,
    /// Less is worse.
    Decrease,
    /// Both are worse.
    Either,
    /// Neither: the metric is context, never judged.
    None,
}

/// How much evidence a metric needs to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sensitivity {
    /// Fails only on evidence that also suffices to roll back.
    Low,
    /// The judge's own thresholds.
    #[default]
    Medium,
    /// Fails on less.
    High,
}

/// What a judged metric without a sample after the deployment means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNoData {
    /// Nobody can tell.
    Inconclusive,
    /// The deployment fails, where the source answered and had nothing.
    Fail,
    /// Nothing.
    Ignore,
}

/// Implements the word of each value, `Display` and `FromStr` from one list, so that they cannot drift apart.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The word used in JSON, settings and on the command line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }
        impl std::str::FromStr for $type {
            type Err = UnknownWord;
            fn from_str(s: &str) -> Result<Self, UnknownWord> {
                match s {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { word: s.to_owned(), expected: &[$($word),+] }),
                }
            }
        }
    };
}

words!(Outcome { Pass = "pass", Fail = "fail", Inconclusive = "inconclusive", Error = "error" });
words!(Relation { Unrelated = "unrelated", Caller = "caller", Callee = "callee" });
words!(Classification { Pass = "pass", High = "high", Low = "low", NoData = "no_data", Error = "error" });
words!(Strategy {
    Previous = "previous",
    Canary = "canary",
    Rolling = "rolling",
    BlueGreen = "blue-green",
    LoadTest = "load-test",
    Auto = "auto",
});
words!(Direction { Increase = "increase", Decrease = "decrease", Either = "either", None = "none" });
words!(Sensitivity { Low = "low", Medium = "medium", High = "high" });
words!(OnNoData { Inconclusive = "inconclusive", Fail = "fail", Ignore = "ignore" });

/// How a service is related to the deployed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Neither calls the other, not even through others: what it shows is not the deployment's doing.
    Unrelated,
    /// It calls the deployed service, maybe through others: it suffers from what the deployment does.
    Caller,
    /// The deployed service calls it, maybe through others: the deployment may have overloaded it.
    Callee,
}

/// A word that is not in the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown value `{word}`, expected one of {}", .expected.join(", "))]
pub struct UnknownWord {
    /// What was given.
    pub word: String,
    /// What would have been understood.
    pub expected: &'static [&'static str],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_as_they_are_written() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(*outcome));
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
        for strategy in Strategy::ALL {
            assert_eq!(strategy.as_str().parse(), Ok(*strategy));
            assert_eq!(serde_json::to_value(strategy).unwrap(), strategy.as_str());
        }
        for class in Classification::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
        for direction in Direction::ALL {
            assert_eq!(serde_json::to_value(direction).unwrap(), direction.as_str());
        }
    }

    #[test]
    fn an_unknown_word_names_the_choices() {
        let refused = "up".parse::<Direction>().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "unknown value `up`, expected one of increase, decrease, either, none"
        );
    }
}
