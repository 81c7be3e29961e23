//! The search language of Logs v2: `status="ERROR" AND (content="timeout" OR NOT host.name="a*")`.

use crate::error::ApiError;

/// Deepest nesting; keeps the recursion bounded.
const DEPTH_LIMIT: usize = 32;
/// Most comparisons and logical operators of a query.
const RELATIONS_LIMIT: usize = 20;

/// A condition on the fields of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogQuery {
    /// Every line.
    All,
    /// A field has a value; `*` stands for any text. The content holds it.
    Is(String, String),
    /// Not so.
    Not(Box<Self>),
    /// Both.
    And(Box<Self>, Box<Self>),
    /// One of them.
    Or(Box<Self>, Box<Self>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Open,
    Close,
    Is,
    IsNot,
    Bare(String),
    Quoted(String),
}

impl LogQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 where it does not follow the grammar, or has too many relations.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.trim().is_empty() {
            return Ok(Self::All);
        }
        let words = words(text).map_err(refuse)?;
        let mut parser = Parser { words, at: 0, relations: 0, depth: 0 };
        let query = parser.any().map_err(refuse)?;
        if let Some(word) = parser.words.get(parser.at) {
            return Err(refuse(format!("unexpected {word:?}")));
        }
        if parser.relations > RELATIONS_LIMIT {
            let message = format!("{} relations; at most {RELATIONS_LIMIT} are allowed", parser.relations);
            return Err(refuse(message));
        }
        Ok(query)
    }

    /// Whether a line fits, by its fields.
    pub(crate) fn fits<'a>(&self, field: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::All => true,
            Self::Not(inner) => !inner.fits(field),
            Self::And(a, b) => a.fits(field) && b.fits(field),
            Self::Or(a, b) => a.fits(field) || b.fits(field),
            Self::Is(key, value) => {
                let value = if key == "content" { format!("*{value}*") } else { value.clone() };
                field(key).is_some_and(|text| is_like(&text.to_lowercase(), &value.to_lowercase()))
            }
        }
    }
}

fn refuse(message: impl Into<String>) -> ApiError {
    ApiError::query("query", format!("The query cannot be parsed: {}", message.into()))
}

/// A text against a pattern, in which `*` stands for any text.
fn is_like(text: &str, pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('*').collect();
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return false };
    if parts.len() == 1 {
        return text == pattern;
    }
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in parts.get(1..parts.len() - 1).unwrap_or_default() {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(c) = chars.get(at) {
        at += 1;
        match c {
            c if c.is_whitespace() => {}
            '(' => found.push(Word::Open),
            ')' => found.push(Word::Close),
            '=' => found.push(Word::Is),
            '!' if chars.get(at) == Some(&'=') => {
                at += 1;
                found.push(Word::IsNot);
            }
            '"' => {
                let mut quoted = String::new();
                loop {
                    match chars.get(at) {
                        None => return Err("a quoted text does not end".into()),
                        Some('"') => break,
                        Some('\\') if chars.get(at + 1).is_some() => {
                            quoted.extend(chars.get(at + 1));
                            at += 2;
                        }
                        Some(c) => {
                            quoted.push(*c);
                            at += 1;
                        }
                    }
                }
                at += 1;
                found.push(Word::Quoted(quoted));
            }
            c if is_bare(*c) => {
                let start = at - 1;
                at += chars[at..].iter().take_while(|c| is_bare(**c)).count();
                found.push(Word::Bare(chars[start..at].iter().collect()));
            }
            c => return Err(format!("unexpected `{c}`")),
        }
    }
    Ok(found)
}

fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '*' | '/')
}

struct Parser {
    words: Vec<Word>,
    at: usize,
    relations: usize,
    depth: usize,
}

impl Parser {
    fn next(&mut self) -> Option<Word> {
        let word = self.words.get(self.at).cloned();
        self.at += 1;
        word
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let found = matches!(self.words.get(self.at), Some(Word::Bare(w)) if w.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<LogQuery, String> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err(format!("nested deeper than {DEPTH_LIMIT} levels"));
        }
        let mut query = self.all()?;
        while self.takes("OR") {
            self.relations += 1;
            query = LogQuery::Or(Box::new(query), Box::new(self.all()?));
        }
        self.depth -= 1;
        Ok(query)
    }

    fn all(&mut self) -> Result<LogQuery, String> {
        let mut query = self.one()?;
        while self.takes("AND") {
            self.relations += 1;
            query = LogQuery::And(Box::new(query), Box::new(self.one()?));
        }
        Ok(query)
    }

    fn one(&mut self) -> Result<LogQuery, String> {
        let mut negations = 0_usize;
        while self.takes("NOT") {
            negations += 1;
        }
        let inner = match self.next() {
            Some(Word::Open) => {
                let inner = self.any()?;
                match self.next() {
                    Some(Word::Close) => inner,
                    _ => return Err("a parenthesis is not closed".into()),
                }
            }
            Some(Word::Quoted(text)) => LogQuery::Is("content".into(), text),
            Some(Word::Bare(key)) => {
                let negated = match self.next() {
                    Some(Word::Is) => false,
                    Some(Word::IsNot) => true,
                    _ => return Err(format!("`=` is missing behind `{key}`")),
                };
                self.relations += 1;
                let (Some(Word::Quoted(value)) | Some(Word::Bare(value))) = self.next() else {
                    return Err(format!("a value is missing for `{key}`"));
                };
                let is = LogQuery::Is(key, value);
                if negated { LogQuery::Not(Box::new(is)) } else { is }
            }
            _ => return Err("a condition is missing".into()),
        };
        Ok(if negations.is_multiple_of(2) { inner } else { LogQuery::Not(Box::new(inner)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(query: &str) -> bool {
        let field = |name: &str| match name {
            "status" => Some("ERROR"),
            "host.name" => Some("checkout-1"),
            "content" => Some("request \"7\" failed: timeout"),
            _ => None,
        };
        LogQuery::parse(query).unwrap().fits(&field)
    }

    #[test]
    fn conditions() {
        for query in [
            "",
            "status=\"ERROR\"",
            "status=error AND host.name=\"checkout-*\"",
            "content=\"timeout\" AND NOT status=\"INFO\"",
            "\"failed\"",
            "content=\"request \\\"7\\\"\"",
            "status!=\"INFO\" AND (host.name=\"x\" OR host.name=\"*-1\")",
            "NOT NOT status=\"ERROR\" OR missing=\"x\"",
        ] {
            assert!(fits(query), "{query}");
        }
        for query in ["status=\"INFO\"", "missing=\"\"", "host.name=\"checkout\"", "NOT \"failed\""] {
            assert!(!fits(query), "{query}");
        }
    }

    #[test]
    fn what_is_no_query_is_refused() {
        let many = ["a=\"b\""; 11].join(" OR ");
        for query in ["status", "status=", "(a=b", "a=b)", "a=\"b", "AND", "a=b c=d", "a~b", many.as_str()] {
            assert_eq!(LogQuery::parse(query).unwrap_err().violations[0].path, "query", "{query}");
        }
        assert!(LogQuery::parse(&["a=\"b\""; 10].join(" OR ")).is_ok());
        assert!(LogQuery::parse(&"(".repeat(100)).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text in "[a-z=!()\"*\\\\ ]{0,40}") {
            if let Ok(query) = LogQuery::parse(&text) {
                query.fits(&|_| Some("abc"));
            }
        }
    }
}
