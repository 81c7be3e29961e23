//! Conditions of `:filter(...)`.

use crate::entity::EntitySelector;
use crate::error::ApiError;
use crate::point::Aggregation;
use crate::scan::{Arg, Call};

/// A condition on a series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// All hold.
    All(Vec<Condition>),
    /// One holds.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// Dimension equals.
    Eq(String, String),
    /// Dimension differs.
    Ne(String, String),
    /// Dimension begins with.
    Prefix(String, String),
    /// Dimension ends with.
    Suffix(String, String),
    /// Dimension contains.
    Contains(String, String),
    /// Dimension is an entity that the selector finds.
    In(String, EntitySelector),
    /// The series has the dimension.
    ExistsKey(String),
    /// The remainder bucket.
    Remainder(String),
    /// An aggregation of the values compares so.
    Series(Aggregation, Compare, f64),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
}

impl Compare {
    /// Whether `a` compares so to `b`.
    pub(crate) fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Self::Eq => a.total_cmp(&b).is_eq(),
            Self::Ne => a.total_cmp(&b).is_ne(),
            Self::Gt => a > b,
            Self::Ge => a >= b,
            Self::Lt => a < b,
            Self::Le => a <= b,
        }
    }
}

impl Condition {
    /// The arguments of `:filter`: all must hold.
    pub(super) fn all(args: &[Arg]) -> Result<Self, ApiError> {
        list(args).map(Self::All)
    }

    /// Whether the condition looks at values, and not only at dimensions.
    pub(crate) fn needs_values(&self) -> bool {
        match self {
            Self::All(inner) | Self::Any(inner) => inner.iter().any(Self::needs_values),
            Self::Not(inner) => inner.needs_values(),
            Self::Series(..) => true,
            Self::Eq(..)
            | Self::Ne(..)
            | Self::Prefix(..)
            | Self::Suffix(..)
            | Self::Contains(..)
            | Self::In(..)
            | Self::ExistsKey(_)
            | Self::Remainder(_) => false,
        }
    }

    /// The dimension keys that it names.
    pub(crate) fn keys<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Self::All(inner) | Self::Any(inner) => inner.iter().for_each(|c| c.keys(found)),
            Self::Not(inner) => inner.keys(found),
            Self::Eq(key, _)
            | Self::Ne(key, _)
            | Self::Prefix(key, _)
            | Self::Suffix(key, _)
            | Self::Contains(key, _)
            | Self::In(key, _)
            | Self::Remainder(key) => found.push(key),
            Self::ExistsKey(_) | Self::Series(..) => {}
        }
    }

    fn one(arg: &Arg) -> Result<Self, ApiError> {
        let Arg::Call(call) = arg else { return Err(refuse(&arg.canonical())) };
        Self::from_call(call)
    }

    fn from_call(call: &Call) -> Result<Self, ApiError> {
        let pair = |make: fn(String, String) -> Self| match call.args.as_slice() {
            [key, value] => match (key.text(), value.text()) {
                (Some(key), Some(value)) => Ok(make(key.to_owned(), value.to_owned())),
                _ => Err(refuse(&call.canonical())),
            },
            _ => Err(refuse(&call.canonical())),
        };
        match (call.name.as_str(), call.args.as_slice()) {
            ("and", args) => list(args).map(Self::All),
            ("or", args) => list(args).map(Self::Any),
            ("not", [arg]) => Self::one(arg).map(|c| Self::Not(Box::new(c))),
            ("eq", _) => pair(Self::Eq),
            ("ne", _) => pair(Self::Ne),
            ("prefix", _) => pair(Self::Prefix),
            ("suffix", _) => pair(Self::Suffix),
            ("contains", _) => pair(Self::Contains),
            ("in", [key, Arg::Call(selector)]) if selector.name == "entitySelector" => {
                match (key.text(), selector.args.as_slice()) {
                    (Some(key), [text]) => {
                        let text = text.text().ok_or_else(|| refuse(&call.canonical()))?;
                        Ok(Self::In(key.to_owned(), EntitySelector::parse(text)?))
                    }
                    _ => Err(refuse(&call.canonical())),
                }
            }
            ("existsKey", [key]) => {
                key.text().map(|k| Self::ExistsKey(k.to_owned())).ok_or_else(|| refuse(&call.canonical()))
            }
            ("remainder", [key]) => {
                key.text().map(|k| Self::Remainder(k.to_owned())).ok_or_else(|| refuse(&call.canonical()))
            }
            ("series", [by, Arg::Call(op)]) => series(by, op).ok_or_else(|| refuse(&call.canonical())),
            _ => Err(refuse(&call.canonical())),
        }
    }
}

fn series(by: &Arg, op: &Call) -> Option<Condition> {
    let compare = match op.name.as_str() {
        "eq" => Compare::Eq,
        "ne" => Compare::Ne,
        "gt" => Compare::Gt,
        "ge" => Compare::Ge,
        "lt" => Compare::Lt,
        "le" => Compare::Le,
        _ => return None,
    };
    let [limit] = op.args.as_slice() else { return None };
    Some(Condition::Series(super::aggregation_arg(by)?, compare, limit.text()?.parse().ok()?))
}

fn list(args: &[Arg]) -> Result<Vec<Condition>, ApiError> {
    args.iter().map(Condition::one).collect()
}

fn refuse(condition: &str) -> ApiError {
    ApiError::bad(format!("Metric selector parse error: illegal filter condition '{condition}'"))
}

#[cfg(test)]
mod tests {
    use crate::selector::parse;

    #[test]
    fn illegal_conditions_are_named() {
        for condition in ["eq(\"a\")", "near(\"a\",1)", "in(\"a\",\"b\")", "series(avg,5)", "word"] {
            let message = parse(&format!("m:filter({condition})")).unwrap_err().message;
            assert!(message.contains(&format!("illegal filter condition '{condition}'")), "{message}");
        }
    }

    #[test]
    fn a_wrong_entity_selector_inside_is_refused() {
        let text = "m:filter(in(\"dt.entity.service\",entitySelector(\"tag(~\"x~\")\")))";
        let error = parse(text).unwrap_err();
        assert!(error.violations[0].message.contains("type"), "{error:?}");
    }
}
