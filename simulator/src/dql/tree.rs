//! A DQL query as it was written: commands with their arguments, before any of them has a meaning.

use super::token::Span;
use std::fmt::{self, Display, Formatter};

/// A command: what stands between two pipes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    /// `timeseries`, `fields`, ...
    pub(super) name: String,
    /// Where its name stands.
    pub(super) span: Span,
    /// Its arguments.
    pub(super) arguments: Vec<Argument>,
}

/// An argument: `value`, `name: value` or `alias = value`, each perhaps with a direction.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Argument {
    /// Name of the parameter.
    pub(super) name: Option<(String, Span)>,
    /// Name of the field that it makes.
    pub(super) alias: Option<String>,
    /// Its value.
    pub(super) value: Node,
    /// Whether `desc` stands behind it.
    pub(super) descending: bool,
}

/// An expression, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// What it is.
    pub(super) expression: Expression,
    /// Where it stands.
    pub(super) span: Span,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    /// A number, and whether it is a whole one.
    Number(f64, bool),
    /// A text.
    Text(String),
    /// `true` or `false`.
    Boolean(bool),
    /// `null`.
    Null,
    /// A duration in nanoseconds.
    Duration(i64),
    /// A field or metric key.
    Name(String),
    /// `{a, b}`.
    List(Vec<Argument>),
    /// `name(arguments)`.
    Call(String, Vec<Argument>),
    /// `not x`.
    Not(Box<Node>),
    /// `-x`.
    Minus(Box<Node>),
    /// `a == b`, `a and b`, `a - b`.
    Binary(&'static str, Box<Node>, Box<Node>),
    /// `x@h`: rounded down to a unit of time.
    Aligned(Box<Node>, String),
}

impl Node {
    /// The name, where it is one.
    pub(super) fn name(&self) -> Option<&str> {
        if let Expression::Name(name) = &self.expression { Some(name) } else { None }
    }

    /// What stands in braces, where it does.
    pub(super) fn list(&self) -> Option<&[Argument]> {
        if let Expression::List(items) = &self.expression { Some(items) } else { None }
    }

    /// What a minus stands before, where one does.
    pub(super) fn negated(&self) -> Option<&Self> {
        if let Expression::Minus(inner) = &self.expression { Some(inner) } else { None }
    }
}

/// A duration in the largest unit that it is a multiple of.
pub(super) fn duration_text(ns: i64) -> String {
    let units = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let (unit, length) = units.into_iter().find(|(_, length)| ns % length == 0).unwrap_or(("ns", 1));
    format!("{}{unit}", ns / length)
}

fn name_text(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '-'));
    if is_plain && !name.is_empty() { name.to_owned() } else { format!("`{name}`") }
}

fn list(f: &mut Formatter<'_>, arguments: &[Argument]) -> fmt::Result {
    for (i, argument) in arguments.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        argument.fmt(f)?;
    }
    Ok(())
}

impl Display for Argument {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = &self.name {
            write!(f, "{name}:")?;
        }
        if let Some(alias) = &self.alias {
            write!(f, "{} = ", name_text(alias))?;
        }
        self.value.fmt(f)?;
        if self.descending { f.write_str(" desc") } else { Ok(()) }
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.expression {
            Expression::Number(number, _) => write!(f, "{number}"),
            Expression::Text(text) => write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            Expression::Boolean(value) => write!(f, "{value}"),
            Expression::Null => f.write_str("null"),
            Expression::Duration(ns) => f.write_str(&duration_text(*ns)),
            Expression::Name(name) => f.write_str(&name_text(name)),
            Expression::List(arguments) => {
                f.write_str("{")?;
                list(f, arguments)?;
                f.write_str("}")
            }
            Expression::Call(name, arguments) => {
                write!(f, "{name}(")?;
                list(f, arguments)?;
                f.write_str(")")
            }
            Expression::Not(inner) => write!(f, "not {}", Closed(inner)),
            Expression::Minus(inner) => write!(f, "-{}", Closed(inner)),
            Expression::Binary(operator @ ("-" | "+"), a, b) => write!(f, "{a} {operator} {}", Closed(b)),
            Expression::Binary(operator @ ("and" | "or"), a, b) => write!(f, "({a} {operator} {b})"),
            Expression::Binary(operator, a, b) => write!(f, "({} {operator} {})", Closed(a), Closed(b)),
            Expression::Aligned(inner, unit) => write!(f, "{}@{unit}", Closed(inner)),
        }
    }
}

/// An expression as an operand: in parentheses where it would fall apart without.
struct Closed<'a>(&'a Node);

impl Display for Closed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0.expression {
            Expression::Not(_) | Expression::Binary("-" | "+", ..) | Expression::Aligned(..) => {
                write!(f, "({})", self.0)
            }
            Expression::Number(..)
            | Expression::Text(_)
            | Expression::Boolean(_)
            | Expression::Null
            | Expression::Duration(_)
            | Expression::Name(_)
            | Expression::List(_)
            | Expression::Call(..)
            | Expression::Minus(_)
            | Expression::Binary(..) => self.0.fmt(f),
        }
    }
}

impl Display for Command {
    /// The canonical form: parameters with a name come first.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (named, plain): (Vec<&Argument>, Vec<&Argument>) =
            self.arguments.iter().partition(|a| a.name.is_some());
        let texts: Vec<String> = named.into_iter().chain(plain).map(ToString::to_string).collect();
        write!(f, "{} {}", self.name, texts.join(", "))
    }
}

/// The canonical form of a whole query.
pub(super) fn canonical(commands: &[Command]) -> String {
    let texts: Vec<String> = commands.iter().map(|c| c.to_string().trim_end().to_owned()).collect();
    texts.join("\n| ")
}
