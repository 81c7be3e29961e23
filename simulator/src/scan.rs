//! The syntax that metric and entity selectors share: words, quoted texts with `~` escapes, nested calls.

use crate::error::ApiError;

/// Where and why a selector does not parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// What was met.
    pub(crate) message: String,
    /// Columns, 1-based, half-open.
    pub(crate) columns: (usize, usize),
}

impl From<SyntaxError> for ApiError {
    fn from(e: SyntaxError) -> Self {
        Self::bad(format!(
            "Failed to parse selector: {} near 1-based column range [{},{}).",
            e.message, e.columns.0, e.columns.1
        ))
    }
}

/// One argument.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Arg {
    /// `"quoted"`, without its quotes and escapes.
    Text(String),
    /// Anything bare: a number, a word, an entity id.
    Word(String),
    /// `name(argument, ...)`.
    Call(Call),
}

/// `name(argument, ...)`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// Name before the parenthesis; dots belong to it.
    pub(crate) name: String,
    /// What stands in the parentheses.
    pub(crate) args: Vec<Arg>,
}

impl Arg {
    /// The text of a quoted or bare argument.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(s) | Self::Word(s) => Some(s),
            Self::Call(_) => None,
        }
    }

    /// The argument as Dynatrace writes it back.
    pub(crate) fn canonical(&self) -> String {
        match self {
            Self::Text(s) => quote(s),
            Self::Word(s) => s.clone(),
            Self::Call(call) => call.canonical(),
        }
    }
}

impl Call {
    /// The call as Dynatrace writes it back.
    pub(crate) fn canonical(&self) -> String {
        let args: Vec<String> = self.args.iter().map(Arg::canonical).collect();
        format!("{}({})", self.name, args.join(","))
    }
}

/// Quotes a text, with `~` before quotes and tildes.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('~', "~~").replace('"', "~\""))
}

/// Reads a whole text as a comma list of arguments.
pub(crate) fn list(text: &str) -> Result<Vec<Arg>, SyntaxError> {
    let mut scanner = Scanner::new(text);
    let mut args = Vec::new();
    loop {
        args.push(scanner.arg()?);
        if !scanner.take(',') {
            break;
        }
    }
    if scanner.peek().is_some() { Err(scanner.unexpected()) } else { Ok(args) }
}

/// Deepest nesting of parentheses; keeps the recursion bounded.
const DEPTH_LIMIT: usize = 32;

/// Reads a selector from left to right.
#[derive(Debug)]
pub(crate) struct Scanner {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Scanner {
    /// At the start of a text.
    pub(crate) fn new(text: &str) -> Self {
        Self { chars: text.chars().collect(), at: 0, depth: 0 }
    }

    /// The next character after blanks, not taken.
    pub(crate) fn peek(&mut self) -> Option<char> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.chars.get(self.at).copied()
    }

    /// Takes `c` if it is next.
    pub(crate) fn take(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    /// Takes `c` or complains.
    pub(crate) fn expect(&mut self, c: char) -> Result<(), SyntaxError> {
        if self.take(c) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Position, to come back to.
    pub(crate) fn mark(&self) -> usize {
        self.at
    }

    /// Goes back to a position.
    pub(crate) fn reset(&mut self, mark: usize) {
        self.at = mark;
    }

    /// Enters a nesting level.
    pub(crate) fn enter(&mut self) -> Result<(), SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err(SyntaxError {
                message: format!("nesting deeper than {DEPTH_LIMIT} levels"),
                columns: (self.at + 1, self.at + 2),
            });
        }
        Ok(())
    }

    /// Leaves a nesting level.
    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// The complaint about what is next.
    pub(crate) fn unexpected(&mut self) -> SyntaxError {
        let what = match self.peek() {
            None => "end of input".to_owned(),
            Some('(') => "opening parenthesis".to_owned(),
            Some(')') => "closing parenthesis".to_owned(),
            Some(',') => "comma".to_owned(),
            Some(':') => "colon".to_owned(),
            Some('"') => "quote".to_owned(),
            Some(c) => format!("character '{c}'"),
        };
        SyntaxError { message: format!("unexpected {what}"), columns: (self.at + 1, self.at + 2) }
    }

    /// Takes the characters that `keep` allows.
    pub(crate) fn run(&mut self, keep: impl Fn(char) -> bool) -> String {
        self.peek();
        let start = self.at;
        while self.chars.get(self.at).is_some_and(|c| keep(*c)) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    /// A quoted text; its opening quote is next.
    pub(crate) fn quoted(&mut self) -> Result<String, SyntaxError> {
        let start = self.at;
        self.expect('"')?;
        let mut text = String::new();
        loop {
            match self.chars.get(self.at).copied() {
                None => {
                    let columns = (start + 1, self.at + 1);
                    return Err(SyntaxError { message: "unterminated quoted text".into(), columns });
                }
                Some('"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('~') => {
                    if let Some(escaped) = self.chars.get(self.at + 1) {
                        text.push(*escaped);
                    }
                    self.at += 2;
                }
                Some(c) => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
    }

    /// `(argument, ...)`; its opening parenthesis is next.
    pub(crate) fn args(&mut self) -> Result<Vec<Arg>, SyntaxError> {
        self.enter()?;
        self.expect('(')?;
        let mut args = Vec::new();
        if !self.take(')') {
            loop {
                args.push(self.arg()?);
                if self.take(')') {
                    break;
                }
                self.expect(',')?;
            }
        }
        self.leave();
        Ok(args)
    }

    /// One argument.
    pub(crate) fn arg(&mut self) -> Result<Arg, SyntaxError> {
        if self.peek() == Some('"') {
            return self.quoted().map(Arg::Text);
        }
        let word = self.run(|c| !matches!(c, ',' | '(' | ')' | '"'));
        let word = word.trim_end().to_owned();
        if word.is_empty() {
            return Err(self.unexpected());
        }
        if self.peek() == Some('(') {
            return Ok(Arg::Call(Call { name: word, args: self.args()? }));
        }
        Ok(Arg::Word(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Arg, SyntaxError> {
        let mut scanner = Scanner::new(text);
        let arg = scanner.arg()?;
        if scanner.peek().is_none() { Ok(arg) } else { Err(scanner.unexpected()) }
    }

    #[test]
    fn nested_calls_and_escapes() {
        let text = r#"in("dt.entity.service",entitySelector("type(service),tag(~"a~~b~")"))"#;
        let arg = all(text).unwrap();
        assert_eq!(arg.canonical(), text);
        let Arg::Call(call) = arg else { panic!("a call") };
        let Arg::Call(selector) = &call.args[1] else { panic!("a nested call") };
        assert_eq!(selector.args, [Arg::Text(r#"type(service),tag("a~b")"#.into())]);
    }

    #[test]
    fn columns_are_one_based() {
        let e = all("eq(a,)").unwrap_err();
        assert_eq!(e, SyntaxError { message: "unexpected closing parenthesis".into(), columns: (6, 7) });
        assert_eq!(all("a(\"b").unwrap_err().message, "unterminated quoted text");
        assert_eq!(all(&"a(".repeat(40)).unwrap_err().message, "nesting deeper than 32 levels");
    }
}
