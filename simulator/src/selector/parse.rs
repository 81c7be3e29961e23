//! The parser of metric selectors.

use super::{Expression, Step, canonical_key, canonical_step, is_transformation};
use crate::error::ApiError;
use crate::scan::{Arg, Scanner};

/// Most expressions of one request.
const EXPRESSIONS_LIMIT: usize = 10;

/// Parses a selector: a comma list of expressions.
///
/// # Errors
/// 400 in Dynatrace's words where it does not parse, asks for more than ten metrics, or for what is not supported.
pub(crate) fn parse(text: &str) -> Result<Vec<Expression>, ApiError> {
    let mut scanner = Scanner::new(text);
    let mut expressions = Vec::new();
    loop {
        expressions.extend(expression(&mut scanner)?);
        if !scanner.take(',') {
            break;
        }
    }
    if scanner.peek().is_some() {
        return Err(scanner.unexpected().into());
    }
    if expressions.len() > EXPRESSIONS_LIMIT {
        return Err(ApiError::query(
            "metricSelector",
            format!("{} metrics are selected, at most {EXPRESSIONS_LIMIT} are allowed", expressions.len()),
        ));
    }
    Ok(expressions)
}

/// One expression; several where the `a.(b,c)` shorthand stands for them.
fn expression(scanner: &mut Scanner) -> Result<Vec<Expression>, ApiError> {
    let mut found = if scanner.peek() == Some('(') {
        scanner.enter()?;
        scanner.expect('(')?;
        let inner = expression(scanner)?;
        scanner.expect(')')?;
        scanner.leave();
        inner.into_iter().map(|e| Expression { canonical: format!("({})", e.canonical), ..e }).collect()
    } else {
        keys(scanner)?
    };
    while scanner.take(':') {
        let name = scanner.run(|c| c.is_ascii_alphanumeric());
        if name.is_empty() {
            return Err(scanner.unexpected().into());
        }
        let args: Option<Vec<Arg>> = if scanner.peek() == Some('(') { Some(scanner.args()?) } else { None };
        let step = Step::from_parts(&name, args.as_deref().unwrap_or_default())?;
        let canonical = canonical_step(&name, args.as_deref());
        for expression in &mut found {
            expression.steps.push(step.clone());
            expression.canonical.push_str(&canonical);
        }
    }
    if let Some(operator @ ('+' | '-' | '*' | '/')) = scanner.peek() {
        return Err(ApiError::bad(format!(
            "Metric selector parse error: arithmetic ('{operator}') is not supported by this simulator"
        )));
    }
    Ok(found)
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn keys(scanner: &mut Scanner) -> Result<Vec<Expression>, ApiError> {
    if scanner.peek() == Some('"') {
        let key = scanner.quoted()?;
        return Ok(vec![bare(key, true)]);
    }
    let mut key = scanner.run(is_key_char);
    if key.is_empty() {
        return Err(scanner.unexpected().into());
    }
    loop {
        let mark = scanner.mark();
        if !scanner.take(':') {
            break;
        }
        let segment = scanner.run(is_key_char);
        if segment.is_empty()
            || is_transformation(&segment)
            || scanner.peek() == Some('(') && !segment.ends_with('.')
        {
            scanner.reset(mark);
            break;
        }
        key = format!("{key}:{segment}");
    }
    if !key.ends_with('.') {
        return Ok(vec![bare(key, false)]);
    }
    scanner.expect('(')?;
    let mut found = Vec::new();
    loop {
        let suffix = scanner.run(is_key_char);
        if suffix.is_empty() {
            return Err(scanner.unexpected().into());
        }
        found.push(bare(format!("{key}{suffix}"), false));
        if scanner.take(')') {
            return Ok(found);
        }
        scanner.expect(',')?;
    }
}

fn bare(key: String, quoted: bool) -> Expression {
    Expression { canonical: canonical_key(&key, quoted), key, steps: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::Aggregation;
    use crate::selector::Sort;
    use crate::selector::condition::{Compare, Condition};

    fn one(text: &str) -> Expression {
        let mut all = parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn selectors_are_written_back_as_recorded() {
        for (text, canonical) in [
            ("builtin:host.cpu.idle", None),
            ("builtin:service.response.time:splitBy():avg:names", None),
            (
                "builtin:service.response.time : splitBy( ) : avg",
                Some("builtin:service.response.time:splitBy():avg"),
            ),
            (
                "builtin:service.response.time:splitBy():percentile(90.000000):names",
                Some("builtin:service.response.time:splitBy():percentile(90.0):names"),
            ),
            ("builtin:service.response.time:merge(\"dt.entity.service\"):percentile(95)", None),
            ("builtin:host.cpu.idle:filter(eq(\"dt.entityhost\",HOST-123))", None),
            ("\"my key~\"s\":max", None),
            (
                "(builtin:service.response.time:filter(and(or(in(\"dt.entity.service\",entitySelector(\"type(service),\
                 entityId(~\"SERVICE-1~\")\"))))):splitBy():avg:auto:sort(value(avg,descending)):limit(10)):\
                 limit(100):names",
                None,
            ),
        ] {
            assert_eq!(one(text).canonical, canonical.unwrap_or(text));
        }
    }

    #[test]
    fn steps_have_their_meaning() {
        let e = one(
            "calc:service.response_time:splitBy(\"a\",b):percentile(95):fold(max):default(0,always):rate(5m)",
        );
        assert_eq!(e.key, "calc:service.response_time");
        assert_eq!(
            e.steps,
            [
                Step::SplitBy(vec!["a".into(), "b".into()]),
                Step::Aggregate(Some(Aggregation::Percentile(95.0))),
                Step::Fold(Some(Aggregation::Max)),
                Step::Default { value: 0.0, always: true },
                Step::Rate(300_000),
            ]
        );
        let e = one(
            "a:sort(dimension(\"k\",ascending)):limit(3):filter(series(avg,gt(5)),not(prefix(\"k\",\"x\")))",
        );
        assert_eq!(e.steps[0], Step::Sort(Sort::Dimension { key: "k".into(), descending: false }));
        assert_eq!(e.steps[1], Step::Limit(3));
        assert_eq!(
            e.steps[2],
            Step::Filter(Condition::All(vec![
                Condition::Series(Aggregation::Avg, Compare::Gt, 5.0),
                Condition::Not(Box::new(Condition::Prefix("k".into(), "x".into()))),
            ]))
        );
    }

    #[test]
    fn lists_and_the_shorthand() {
        let keys = |text: &str| parse(text).unwrap().into_iter().map(|e| e.canonical).collect::<Vec<_>>();
        assert_eq!(
            keys("builtin:host.cpu.(idle,user):avg, b"),
            ["builtin:host.cpu.idle:avg", "builtin:host.cpu.user:avg", "b"]
        );
        assert_eq!(
            keys("builtin:host.(cpu.idle,mem.usage)"),
            ["builtin:host.cpu.idle", "builtin:host.mem.usage"]
        );
    }

    #[test]
    fn refusals() {
        for (text, message) in [
            ("", "Failed to parse selector: unexpected end of input near 1-based column range [1,2)."),
            (
                "a:splitBy((",
                "Failed to parse selector: unexpected opening parenthesis near 1-based column range [11,12).",
            ),
            (
                "a:avg)",
                "Failed to parse selector: unexpected closing parenthesis near 1-based column range [6,7).",
            ),
            ("a / b", "Metric selector parse error: arithmetic ('/') is not supported by this simulator"),
            (
                "a:timeshift(-1d)",
                "Metric selector parse error: transformation ':timeshift' is not supported by this simulator",
            ),
            (
                "a:percentile(101)",
                "Metric selector parse error: illegal transformation ':percentile' with arguments (101)",
            ),
            (
                "a:nonsense(1)",
                "Metric selector parse error: illegal transformation ':nonsense' with arguments (1)",
            ),
            ("a:limit(0)", "Metric selector parse error: illegal transformation ':limit' with arguments (0)"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, message, "{text}");
        }
        let eleven = (0..11).map(|i| format!("m{i}")).collect::<Vec<_>>().join(",");
        assert!(parse(&eleven).unwrap_err().violations[0].message.starts_with("11 metrics are selected"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_the_canonical_form_is_a_fixed_point(text in "[a:(),.\"~ 0-9splitByavg-]{0,40}") {
            if let Ok(expressions) = parse(&text) {
                for e in expressions {
                    let again = parse(&e.canonical).unwrap();
                    assert_eq!(again[0].canonical, e.canonical);
                }
            }
        }
    }
}
