//! The grammar of DQL queries.

use super::error::DqlError;
use super::token::{Kind, Span, Token, tokens};
use super::tree::{Argument, Command, Expression, Node};

/// Deepest nesting; keeps the recursion bounded.
const DEPTH_LIMIT: usize = 32;

/// Reads a query.
///
/// # Errors
/// Where it does not follow the grammar; the error says where.
pub(super) fn parse(query: &str) -> Result<Vec<Command>, DqlError> {
    let mut parser = Parser { tokens: tokens(query)?, at: 0, depth: 0 };
    let mut commands = Vec::new();
    loop {
        commands.push(parser.command()?);
        if !parser.take("|") {
            break;
        }
    }
    if parser.peek().kind == Kind::End { Ok(commands) } else { Err(parser.unexpected()) }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    /// The next word, not taken; the end stays the end.
    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(&self.peek().kind, Kind::Sign(s) if *s == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    /// Takes a bare word, which a name in backticks is not.
    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek().text.eq_ignore_ascii_case(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<Span, DqlError> {
        let span = self.peek().span;
        if self.take(sign) { Ok(span) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> DqlError {
        let token = self.peek();
        match token.kind {
            Kind::End => DqlError::syntax("UNEXPECTED_END", "The query ends too early.", token.span),
            Kind::Name(_) | Kind::Text(_) | Kind::Number(..) | Kind::Duration(_) | Kind::Sign(_) => {
                let message = format!("`{}` isn't allowed here.", token.text);
                DqlError::syntax("PARSE_ERROR_UNEXPECTED_TOKEN", message, token.span).about(&token.text)
            }
        }
    }

    fn command(&mut self) -> Result<Command, DqlError> {
        let token = self.next();
        let Kind::Name(name) = token.kind else {
            let message = "A command is missing here.";
            return Err(DqlError::syntax("COMMAND_NAME_MISSING", message, token.span));
        };
        let mut arguments = Vec::new();
        if !self.is_sign("|") && self.peek().kind != Kind::End {
            arguments = self.arguments()?;
        }
        Ok(Command { name, span: token.span, arguments })
    }

    fn arguments(&mut self) -> Result<Vec<Argument>, DqlError> {
        let mut arguments = vec![self.argument()?];
        while self.take(",") {
            arguments.push(self.argument()?);
        }
        Ok(arguments)
    }

    fn argument(&mut self) -> Result<Argument, DqlError> {
        let (mut name, mut alias) = (None, None);
        if let Kind::Name(word) = &self.peek().kind {
            let (word, span) = (word.clone(), self.peek().span);
            match self.second().kind {
                Kind::Sign(":") => name = Some((word, span)),
                Kind::Sign("=") => alias = Some(word),
                Kind::Name(_)
                | Kind::Text(_)
                | Kind::Number(..)
                | Kind::Duration(_)
                | Kind::Sign(_)
                | Kind::End => {}
            }
            self.at += if name.is_some() || alias.is_some() { 2 } else { 0 };
        }
        let value = self.expression()?;
        let descending = self.take_word("desc");
        if !descending {
            self.take_word("asc");
        }
        Ok(Argument { name, alias, value, descending })
    }

    /// `a or b`: the weakest binding.
    fn expression(&mut self) -> Result<Node, DqlError> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            let message = format!("Nested deeper than {DEPTH_LIMIT} levels.");
            return Err(DqlError::syntax("TOO_DEEPLY_NESTED", message, self.peek().span));
        }
        let mut node = self.conjunction()?;
        while self.take_word("or") {
            node = binary("or", node, self.conjunction()?);
        }
        self.depth -= 1;
        Ok(node)
    }

    fn conjunction(&mut self) -> Result<Node, DqlError> {
        let mut node = self.negation()?;
        while self.take_word("and") {
            node = binary("and", node, self.negation()?);
        }
        Ok(node)
    }

    fn negation(&mut self) -> Result<Node, DqlError> {
        let start = self.peek().span;
        let mut negations = 0_usize;
        while self.take_word("not") {
            negations += 1;
        }
        let mut node = self.comparison()?;
        // An even number of negations is none.
        if !negations.is_multiple_of(2) {
            let span = start.to(node.span);
            node = Node { expression: Expression::Not(Box::new(node)), span };
        }
        Ok(node)
    }

    fn comparison(&mut self) -> Result<Node, DqlError> {
        let left = self.sum()?;
        for operator in ["==", "!=", "<=", ">=", "<", ">"] {
            if self.take(operator) {
                return Ok(binary(operator, left, self.sum()?));
            }
        }
        Ok(left)
    }

    /// A sum, perhaps rounded down as a whole: `now()-1d@d`.
    fn sum(&mut self) -> Result<Node, DqlError> {
        let start = self.peek().span;
        let mut node = self.term()?;
        loop {
            let operator = if self.take("-") {
                "-"
            } else if self.take("+") {
                "+"
            } else {
                break;
            };
            node = binary(operator, node, self.term()?);
        }
        if self.take("@") {
            let unit = self.next();
            let Kind::Name(name) = unit.kind else {
                let message = "A unit of time is missing here.";
                return Err(DqlError::syntax("TIME_UNIT_MISSING", message, unit.span));
            };
            let span = start.to(unit.span);
            node = Node { expression: Expression::Aligned(Box::new(node), name), span };
        }
        Ok(node)
    }

    fn term(&mut self) -> Result<Node, DqlError> {
        let start = self.peek().span;
        if !self.take("-") {
            return self.primary();
        }
        let inner = self.primary()?;
        let span = start.to(inner.span);
        Ok(Node { expression: Expression::Minus(Box::new(inner)), span })
    }

    fn primary(&mut self) -> Result<Node, DqlError> {
        if self.take("(") {
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let start = self.peek().span;
        if self.take("{") {
            let items = if self.is_sign("}") { Vec::new() } else { self.arguments()? };
            let span = start.to(self.expect("}")?);
            return Ok(Node { expression: Expression::List(items), span });
        }
        let mut span = start;
        let expression = match self.peek().kind.clone() {
            Kind::Number(number, whole) => Expression::Number(number, whole),
            Kind::Text(text) => Expression::Text(text),
            Kind::Duration(ns) => Expression::Duration(ns),
            Kind::Name(name) => {
                let bare = self.peek().text == name;
                self.at += 1;
                if self.take("(") {
                    let arguments = if self.is_sign(")") { Vec::new() } else { self.arguments()? };
                    span = start.to(self.expect(")")?);
                    return Ok(Node { expression: Expression::Call(name, arguments), span });
                }
                self.at -= 1;
                match name.as_str() {
                    "true" if bare => Expression::Boolean(true),
                    "false" if bare => Expression::Boolean(false),
                    "null" if bare => Expression::Null,
                    _ => Expression::Name(name),
                }
            }
            Kind::Sign(_) | Kind::End => return Err(self.unexpected()),
        };
        self.at += 1;
        if self.take("[") {
            span = start.to(self.expect("]")?);
            return Err(DqlError::unsupported("arithmetic over arrays", span));
        }
        Ok(Node { expression, span })
    }
}

fn binary(operator: &'static str, left: Node, right: Node) -> Node {
    let span = left.span.to(right.span);
    Node { expression: Expression::Binary(operator, Box::new(left), Box::new(right)), span }
}

#[cfg(test)]
mod tests {
    use super::super::tree::canonical;
    use super::*;

    #[test]
    fn canonical_forms() {
        for (query, expected) in [
            (
                "timeseries avg(dt.host.cpu.usage), interval:1h",
                "timeseries interval:1h, avg(dt.host.cpu.usage)",
            ),
            (
                "timeseries p = percentile( `dt.x y`,95 ),by:{ a,b }\n|  sort p desc | limit 3",
                "timeseries by:{a, b}, p = percentile(`dt.x y`, 95)\n| sort p desc\n| limit 3",
            ),
            (
                "fetch logs, from:now()-2h@h | filter not a == \"x\" and (b > -1.5 or c != null)",
                "fetch from:(now() - 2h)@h, logs\n| filter (not (a == \"x\") and ((b > -1.5) or (c != null)))",
            ),
        ] {
            let commands = parse(query).unwrap_or_else(|e| panic!("{query}: {e:?}"));
            assert_eq!(canonical(&commands), expected);
        }
    }

    #[test]
    fn errors_say_where() {
        for (query, kind, span) in [
            ("", "COMMAND_NAME_MISSING", (0, 0)),
            ("timeseries avg(", "UNEXPECTED_END", (15, 15)),
            ("timeseries avg(a))", "PARSE_ERROR_UNEXPECTED_TOKEN", (17, 18)),
            ("fetch logs | | limit 1", "COMMAND_NAME_MISSING", (13, 14)),
            ("fetch logs, from:now()@5", "TIME_UNIT_MISSING", (23, 24)),
            ("fetch logs limit", "PARSE_ERROR_UNEXPECTED_TOKEN", (11, 16)),
            ("fetch a | fieldsAdd x = a[]", "NOT_SUPPORTED_BY_SIMULATOR", (24, 27)),
        ] {
            let error = parse(query).unwrap_err();
            assert_eq!(
                (error.kind, error.span),
                (kind, Some(Span { start: span.0, end: span.1 })),
                "{query}"
            );
        }
        assert_eq!(parse(&format!("fetch {}", "(".repeat(40))).unwrap_err().kind, "TOO_DEEPLY_NESTED");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(query in "(timeseries|fetch)? ?[a-c(){}:=,|@.\\-\\[\\]< >\"not 0-9mh]{0,40}") {
            if let Ok(commands) = parse(&query) {
                let text = canonical(&commands);
                let again = parse(&text).unwrap_or_else(|e| panic!("{query} -> {text}: {e:?}"));
                proptest::prop_assert_eq!(canonical(&again), text);
            }
        }
    }
}
