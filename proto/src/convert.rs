//! The closed word lists as protobuf enums, both ways. UNSPECIFIED and unknown numbers are refused, never guessed.

use crate::{Classification, Direction, Invalid, OnNoData, Outcome, Relation, Sensitivity, Strategy, v1};

/// Both directions of one enum, from one list.
macro_rules! enum_words {
    ($domain:ty, $wire:ty, $($variant:ident),+ $(,)?) => {
        impl From<$domain> for $wire {
            fn from(value: $domain) -> Self {
                match value { $(<$domain>::$variant => <$wire>::$variant),+ }
            }
        }

        impl $domain {
            /// Reads the number of a message's field.
            ///
            /// # Errors
            /// For UNSPECIFIED and for a number that this version does not know.
            pub fn from_wire(number: i32) -> Result<Self, Invalid> {
                $(if number == <$wire>::$variant as i32 { return Ok(Self::$variant); })+
                let expected = [$(<$wire>::$variant.as_str_name()),+].join(", ");
                let given = <$wire>::try_from(number).map_or_else(|_| number.to_string(), |v| v.as_str_name().to_owned());
                Err(Invalid::field("", format!("unknown value `{given}`, expected one of {expected}")))
            }

            /// The number for a message's field.
            #[must_use]
            pub fn to_wire(self) -> i32 {
                <$wire>::from(self) as i32
            }
        }
    };
}

pub(crate) use enum_words;

enum_words!(Outcome, v1::Outcome, Pass, Fail, Inconclusive, Error);
enum_words!(Classification, v1::Classification, Pass, High, Low, NoData, Error);
enum_words!(Strategy, v1::Strategy, Previous, Canary, Rolling, BlueGreen, LoadTest, Auto);
enum_words!(Direction, v1::Direction, Increase, Decrease, Either, None);
enum_words!(Sensitivity, v1::Sensitivity, Low, Medium, High);
enum_words!(Relation, v1::Relation, Unrelated, Caller, Callee);
enum_words!(OnNoData, v1::OnNoData, Inconclusive, Fail, Ignore);

/// `None` for an empty text: protobuf has no absent string.
#[must_use]
pub(crate) fn text(s: String) -> Option<String> {
    (!s.is_empty()).then_some(s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_survives_the_wire() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_wire(outcome.to_wire()), Ok(*outcome));
        }
        for strategy in Strategy::ALL {
            assert_eq!(Strategy::from_wire(strategy.to_wire()), Ok(*strategy));
        }
    }

    #[test]
    fn unspecified_and_unknown_are_refused() {
        let unspecified = Outcome::from_wire(0).unwrap_err().to_string();
        assert!(
            unspecified.contains("OUTCOME_UNSPECIFIED") && unspecified.contains("OUTCOME_PASS"),
            "{unspecified}"
        );
        assert!(Outcome::from_wire(99).unwrap_err().to_string().contains("`99`"));
    }
}
