//! Metric selectors: their syntax tree and what each transformation means.

mod condition;
mod parse;

pub(crate) use condition::Condition;
pub(crate) use parse::parse;

use crate::error::ApiError;
use crate::point::Aggregation;
use crate::scan::{Arg, quote};

/// One expression of a selector: a metric, or arithmetic with metrics, and its transformations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression {
    /// Key of the metric; empty where it is arithmetic.
    pub(crate) key: String,
    /// The arithmetic, where it is some.
    pub(crate) operation: Option<Box<Operation>>,
    /// Transformations, left to right.
    pub(crate) steps: Vec<Step>,
    /// The selector as Dynatrace writes it back.
    pub(crate) canonical: String,
}

/// Arithmetic with two operands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Operation {
    /// What is done.
    pub(crate) operator: Operator,
    /// The left operand.
    pub(crate) left: Operand,
    /// The right operand.
    pub(crate) right: Operand,
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// A number.
    Number(f64),
    /// Series.
    Series(Expression),
}

/// What is done with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
}

impl Operator {
    /// The result; none for a division by zero.
    pub(crate) fn apply(self, a: f64, b: f64) -> Option<f64> {
        let result = match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
        };
        result.is_finite().then_some(result)
    }
}

/// A transformation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// `:splitBy("a","b")`: keeps these dimensions.
    SplitBy(Vec<String>),
    /// `:merge("a")`: drops these dimensions.
    Merge(Vec<String>),
    /// `:filter(...)`.
    Filter(Condition),
    /// An aggregation; `None` is `:auto`.
    Aggregate(Option<Aggregation>),
    /// `:fold` or `:fold(avg)`.
    Fold(Option<Aggregation>),
    /// `:names`.
    Names,
    /// `:default(x)` and `:default(x,always)`.
    Default {
        /// What stands for null.
        value: f64,
        /// Also where there is no series at all.
        always: bool,
    },
    /// `:sort(...)`.
    Sort(Sort),
    /// `:limit(n)`.
    Limit(usize),
    /// `:rate(5m)`: per so many milliseconds.
    Rate(i64),
    /// `:toUnit(MicroSecond,MilliSecond)`.
    ToUnit(String, String),
    /// `:timeshift(-1d)`: reads what lies so many milliseconds from the window.
    Timeshift(i64),
    /// `:delta`: the difference to the point before.
    Delta,
    /// `:smooth(skipfirst)`: without the first point after a gap.
    SkipFirst,
    /// `:setUnit(...)`: changes the descriptor alone.
    SetUnit,
}

/// What rows are sorted by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sort {
    /// By an aggregation of the row's values.
    Value {
        /// Of the values; `None` is `auto`.
        aggregation: Option<Aggregation>,
        /// Greatest first.
        descending: bool,
    },
    /// By the value of a dimension.
    Dimension {
        /// Its key.
        key: String,
        /// Last first.
        descending: bool,
    },
}

/// Transformations that Dynatrace has and the simulator has not.
const UNSUPPORTED: [&str; 5] = ["parents", "last", "lastReal", "rollup", "partition"];
/// Furthest shift of the window, five years.
const TIMESHIFT_LIMIT_MS: i64 = 5 * 365 * 86_400_000;

/// Whether a word is the name of a transformation, which ends a metric key.
pub(super) fn is_transformation(name: &str) -> bool {
    UNSUPPORTED.contains(&name)
        || aggregation(name, &[]).is_some()
        || matches!(
            name,
            "splitBy"
                | "merge"
                | "filter"
                | "auto"
                | "percentile"
                | "fold"
                | "names"
                | "default"
                | "sort"
                | "limit"
                | "rate"
                | "toUnit"
                | "timeshift"
                | "delta"
                | "smooth"
                | "setUnit"
        )
}

/// An aggregation by name; `percentile` takes its argument.
fn aggregation(name: &str, args: &[Arg]) -> Option<Aggregation> {
    Some(match (name, args) {
        ("avg", []) => Aggregation::Avg,
        ("min", []) => Aggregation::Min,
        ("max", []) => Aggregation::Max,
        ("sum", []) => Aggregation::Sum,
        ("count", []) => Aggregation::Count,
        ("median", []) => Aggregation::Median,
        ("value", []) => Aggregation::Value,
        ("percentile", [arg]) => {
            let percent: f64 = arg.text()?.parse().ok()?;
            Aggregation::Percentile((0.0..=100.0).contains(&percent).then_some(percent)?)
        }
        _ => return None,
    })
}

fn aggregation_arg(arg: &Arg) -> Option<Aggregation> {
    match arg {
        Arg::Word(name) => aggregation(name, &[]),
        Arg::Call(call) => aggregation(&call.name, &call.args),
        Arg::Text(_) => None,
    }
}

/// `Some(None)` is `auto`.
#[allow(clippy::option_option, reason = "no aggregation, and the metric's own, are different answers")]
fn aggregation_or_auto(arg: &Arg) -> Option<Option<Aggregation>> {
    if arg.text() == Some("auto") { Some(None) } else { aggregation_arg(arg).map(Some) }
}

fn texts(args: &[Arg]) -> Option<Vec<String>> {
    args.iter().map(|arg| arg.text().map(str::to_owned)).collect()
}

impl Step {
    /// Gives a parsed transformation its meaning.
    pub(super) fn from_parts(name: &str, args: &[Arg]) -> Result<Self, ApiError> {
        if UNSUPPORTED.contains(&name) {
            return Err(ApiError::bad(format!(
                "Metric selector parse error: transformation ':{name}' is not supported by this simulator"
            )));
        }
        let step = match name {
            "splitBy" => texts(args).map(Self::SplitBy),
            "merge" => texts(args).map(Self::Merge),
            "filter" => return Condition::all(args).map(Self::Filter),
            "auto" if args.is_empty() => Some(Self::Aggregate(None)),
            "fold" => match args {
                [] => Some(Self::Fold(None)),
                [arg] => aggregation_or_auto(arg).map(Self::Fold),
                _ => None,
            },
            "names" if args.is_empty() => Some(Self::Names),
            "default" => default_step(args),
            "sort" => match args {
                [Arg::Call(call)] => sort(&call.name, &call.args).map(Self::Sort),
                _ => None,
            },
            "limit" => match args {
                [arg] => arg.text().and_then(|t| t.parse().ok()).filter(|n| *n > 0).map(Self::Limit),
                _ => None,
            },
            "rate" => match args {
                [] => Some(Self::Rate(60_000)),
                [arg] => arg.text().and_then(span_ms).map(Self::Rate),
                _ => None,
            },
            "toUnit" => match args {
                [from, to] => from.text().zip(to.text()).map(|(a, b)| Self::ToUnit(a.into(), b.into())),
                _ => None,
            },
            "timeshift" => match args {
                [arg] => arg.text().and_then(shift_ms).map(Self::Timeshift),
                _ => None,
            },
            "delta" if args.is_empty() => Some(Self::Delta),
            "smooth" => texts(args).filter(|t| *t == ["skipfirst"]).map(|_| Self::SkipFirst),
            "setUnit" => matches!(args, [Arg::Word(_) | Arg::Text(_)]).then_some(Self::SetUnit),
            _ => aggregation(name, args).map(|a| Self::Aggregate(Some(a))),
        };
        step.ok_or_else(|| {
            let args: Vec<String> = args.iter().map(Arg::canonical).collect();
            ApiError::bad(format!(
                "Metric selector parse error: illegal transformation ':{name}' with arguments ({})",
                args.join(",")
            ))
        })
    }
}

fn default_step(args: &[Arg]) -> Option<Step> {
    let (value, always) = match args {
        [value] => (value, false),
        [value, Arg::Word(word)] if word == "always" => (value, true),
        _ => return None,
    };
    let value: f64 = value.text()?.parse().ok()?;
    value.is_finite().then_some(Step::Default { value, always })
}

fn descending(word: &str) -> Option<bool> {
    match word {
        "descending" => Some(true),
        "ascending" => Some(false),
        _ => None,
    }
}

fn sort(name: &str, args: &[Arg]) -> Option<Sort> {
    match (name, args) {
        ("value", [by, direction]) => Some(Sort::Value {
            aggregation: aggregation_or_auto(by)?,
            descending: descending(direction.text()?)?,
        }),
        ("dimension", [key, direction] | [key, direction, _]) => {
            Some(Sort::Dimension { key: key.text()?.to_owned(), descending: descending(direction.text()?)? })
        }
        _ => None,
    }
}

fn span_ms(text: &str) -> Option<i64> {
    let unit = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        'w' => 604_800_000,
        _ => return None,
    };
    let number: i64 = text[..text.len() - 1].parse().ok().filter(|n| *n > 0)?;
    number.checked_mul(unit)
}

/// `-1d` or `1h`, within five years.
fn shift_ms(text: &str) -> Option<i64> {
    let (sign, span) = match text.strip_prefix('-') {
        Some(span) => (-1, span),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    span_ms(span).filter(|ms| *ms <= TIMESHIFT_LIMIT_MS).map(|ms| sign * ms)
}

/// A transformation as Dynatrace writes it back; `:avg` has no parentheses, `:splitBy()` has.
pub(super) fn canonical_step(name: &str, args: Option<&[Arg]>) -> String {
    let Some(args) = args else { return format!(":{name}") };
    let args: Vec<String> = args
        .iter()
        .map(|arg| match arg {
            Arg::Word(number) if name == "percentile" && number.contains('.') => {
                number.parse::<f64>().map_or_else(|_| number.clone(), |n| format!("{n:?}"))
            }
            Arg::Word(_) | Arg::Text(_) | Arg::Call(_) => arg.canonical(),
        })
        .collect();
    format!(":{name}({})", args.join(","))
}

/// A key as Dynatrace writes it back.
pub(super) fn canonical_key(key: &str, quoted: bool) -> String {
    if quoted { quote(key) } else { key.to_owned() }
}
