//! The words of a DQL query, and where they stand.

use super::error::DqlError;

/// A stretch of a query: character indices from 0, the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    /// The first character.
    pub(crate) start: usize,
    /// Behind the last.
    pub(crate) end: usize,
}

impl Span {
    /// From the start of one to the end of another.
    pub(super) fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end.max(self.start) }
    }
}

/// What a word is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A command, function, field or metric key; quoted with backticks it is never a keyword.
    Name(String),
    /// A text in double quotes, without quotes and escapes.
    Text(String),
    /// A number.
    Number(f64, bool),
    /// A duration in nanoseconds: `5m`.
    Duration(i64),
    /// Anything else: `(`, `==`, `|`.
    Sign(&'static str),
    /// The end of the query.
    End,
}

/// A word.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    /// What it is.
    pub(super) kind: Kind,
    /// Where it stands.
    pub(super) span: Span,
    /// As written.
    pub(super) text: String,
}

/// Signs, the longer ones first.
const SIGNS: [&str; 20] =
    ["==", "!=", "<=", ">=", "|", "(", ")", "{", "}", "[", "]", ",", ":", "=", "<", ">", "+", "-", "*", "@"];

/// Reads a query into its words; the last one is its end.
///
/// # Errors
/// Where a character belongs to no word, or a text does not end.
pub(super) fn tokens(query: &str) -> Result<Vec<Token>, DqlError> {
    let chars: Vec<char> = query.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        at += blank(&chars[at..]);
        let rest = &chars[at..];
        let Some(first) = rest.first() else {
            let end = Span { start: at, end: at };
            found.push(Token { kind: Kind::End, span: end, text: String::new() });
            return Ok(found);
        };
        let (kind, length) = match first {
            '"' => text(rest, at)?,
            '`' => quoted(rest, at)?,
            c if c.is_ascii_digit() => number(rest),
            c if c.is_alphabetic() || *c == '_' => name(rest),
            _ => sign(rest, at)?,
        };
        let span = Span { start: at, end: at + length };
        found.push(Token { kind, span, text: rest[..length].iter().collect() });
        at += length;
    }
}

/// Length of blanks and comments.
fn blank(chars: &[char]) -> usize {
    let mut at = 0;
    loop {
        match &chars[at..] {
            [c, ..] if c.is_whitespace() => at += 1,
            ['/', '/', rest @ ..] => at += 2 + rest.iter().take_while(|c| **c != '\n').count(),
            _ => return at,
        }
    }
}

fn text(chars: &[char], at: usize) -> Result<(Kind, usize), DqlError> {
    let mut text = String::new();
    let mut i = 1;
    loop {
        match chars.get(i) {
            None => return Err(unfinished(at, chars.len())),
            Some('"') => return Ok((Kind::Text(text), i + 1)),
            Some('\\') => {
                let escaped = chars.get(i + 1).ok_or_else(|| unfinished(at, chars.len()))?;
                text.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    other => *other,
                });
                i += 2;
            }
            Some(c) => {
                text.push(*c);
                i += 1;
            }
        }
    }
}

fn quoted(chars: &[char], at: usize) -> Result<(Kind, usize), DqlError> {
    let length = chars[1..].iter().take_while(|c| **c != '`').count();
    if length + 1 >= chars.len() {
        return Err(unfinished(at, chars.len()));
    }
    Ok((Kind::Name(chars[1..=length].iter().collect()), length + 2))
}

fn unfinished(at: usize, length: usize) -> DqlError {
    DqlError::syntax(
        "UNTERMINATED_STRING",
        "The text isn't terminated.",
        Span { start: at, end: at + length },
    )
}

/// A number, or a duration where a unit follows at once.
fn number(chars: &[char]) -> (Kind, usize) {
    let digits = chars.iter().take_while(|c| c.is_ascii_digit()).count();
    let mut length = digits;
    if let ['.', d, ..] = &chars[length..]
        && d.is_ascii_digit()
    {
        length += 1 + chars[length + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
    }
    let unit: String = chars[length..].iter().take_while(|c| c.is_ascii_alphabetic()).collect();
    let written: String = chars[..length].iter().collect();
    if length == digits
        && let (Ok(amount), Some(unit_ns)) = (written.parse::<i64>(), unit_ns(&unit))
        && let Some(ns) = amount.checked_mul(unit_ns)
    {
        return (Kind::Duration(ns), length + unit.len());
    }
    (Kind::Number(written.parse().unwrap_or(f64::MAX), length == digits), length)
}

/// Nanoseconds of a unit of time.
pub(super) fn unit_ns(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        "w" => 604_800_000_000_000,
        _ => return None,
    })
}

/// A name; dots belong to it, and so does a colon that a letter follows where a metric key has one (`builtin:host.cpu`).
fn name(chars: &[char]) -> (Kind, usize) {
    let in_name = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    let mut length = chars.iter().take_while(|c| in_name(c)).count();
    let head: String = chars[..length].iter().collect();
    if matches!(head.as_str(), "builtin" | "calc" | "ext" | "func") && chars.get(length) == Some(&':') {
        length += 1;
        length += chars[length..].iter().take_while(|c| in_name(c)).count();
    }
    (Kind::Name(chars[..length].iter().collect()), length)
}

fn sign(chars: &[char], at: usize) -> Result<(Kind, usize), DqlError> {
    let found = SIGNS.iter().find(|s| s.chars().eq(chars.iter().copied().take(s.len())));
    found.map(|s| (Kind::Sign(s), s.len())).ok_or_else(|| {
        let what = chars.first().copied().unwrap_or(' ');
        let span = Span { start: at, end: at + 1 };
        DqlError::syntax("UNEXPECTED_CHARACTER", format!("'{what}' isn't allowed here."), span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(query: &str) -> Vec<Kind> {
        tokens(query).unwrap().into_iter().map(|t| t.kind).collect()
    }

    #[test]
    fn words_of_a_query() {
        let name = |n: &str| Kind::Name(n.into());
        assert_eq!(
            kinds("avg(dt.host.cpu-x, \"a\\\"b\") != 5m // end"),
            [
                name("avg"),
                Kind::Sign("("),
                name("dt.host.cpu-x"),
                Kind::Sign(","),
                Kind::Text("a\"b".into()),
                Kind::Sign(")"),
                Kind::Sign("!="),
                Kind::Duration(300_000_000_000),
                Kind::End,
            ]
        );
        assert_eq!(
            kinds("calc:service.x `a b`:1.5 2"),
            [
                name("calc:service.x"),
                name("a b"),
                Kind::Sign(":"),
                Kind::Number(1.5, false),
                Kind::Number(2.0, true),
                Kind::End
            ]
        );
        assert_eq!(kinds("from:now()-2h").len(), 8);
        for (query, span) in [("a \"b", (2, 4)), ("`x", (0, 2)), ("a ? b", (2, 3))] {
            let error = tokens(query).unwrap_err();
            assert_eq!(error.span, Some(Span { start: span.0, end: span.1 }), "{query}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(query in "[a-z0-9.:`\"\\\\ |(){}=!<>,/@µ-]{0,40}") {
            let _ = tokens(&query);
        }
    }
}
