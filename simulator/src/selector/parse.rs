//! The parser of metric selectors.

use super::{
    Expression, Operand, Operation, Operator, Step, canonical_key, canonical_step, is_transformation,
};
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
        for (operand, _) in sum(&mut scanner)? {
            match operand {
                Operand::Series(expression) => expressions.push(expression),
                Operand::Number(number) => {
                    return Err(ApiError::bad(format!(
                        "Metric selector parse error: the number {number} is no metric"
                    )));
                }
            }
        }
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

/// Operands, each as Dynatrace writes it back; several where the `a.(b,c)` shorthand stands for them.
type Operands = Vec<(Operand, String)>;

/// Reads operands of one precedence.
type Reader = fn(&mut Scanner) -> Result<Operands, ApiError>;

/// `a + b - c`.
fn sum(scanner: &mut Scanner) -> Result<Operands, ApiError> {
    let mut found = product(scanner)?;
    loop {
        let operator = match scanner.peek() {
            Some('+') => Operator::Add,
            Some('-') => Operator::Subtract,
            _ => return Ok(found),
        };
        found = operation(scanner, operator, (found, product))?;
    }
}

/// `a * b / c`.
fn product(scanner: &mut Scanner) -> Result<Operands, ApiError> {
    let mut found = unit(scanner)?;
    loop {
        let operator = match scanner.peek() {
            Some('*') => Operator::Multiply,
            Some('/') => Operator::Divide,
            _ => return Ok(found),
        };
        found = operation(scanner, operator, (found, unit))?;
    }
}

/// Takes the operator that is next, and its right operand.
fn operation(
    scanner: &mut Scanner,
    operator: Operator,
    (left, next): (Operands, Reader),
) -> Result<Operands, ApiError> {
    let sign = scanner.peek().unwrap_or_default();
    scanner.take(sign);
    let right = next(scanner)?;
    let (Ok([(left, left_text)]), Ok([(right, right_text)])) =
        (<[_; 1]>::try_from(left), <[_; 1]>::try_from(right))
    else {
        return Err(ApiError::bad("Metric selector parse error: arithmetic needs one metric on each side"));
    };
    let canonical = format!("{left_text}{sign}{right_text}");
    if let (Operand::Number(a), Operand::Number(b)) = (&left, &right) {
        let number = operator.apply(*a, *b).unwrap_or(f64::NAN);
        return Ok(vec![(Operand::Number(number), canonical)]);
    }
    let operation = Some(Box::new(Operation { operator, left, right }));
    let expression =
        Expression { key: String::new(), operation, steps: Vec::new(), canonical: canonical.clone() };
    Ok(vec![(Operand::Series(expression), canonical)])
}

/// A number, a metric, or something in parentheses, with what is done to it.
fn unit(scanner: &mut Scanner) -> Result<Operands, ApiError> {
    let mut found: Operands = match scanner.peek() {
        Some('(') => {
            scanner.enter()?;
            scanner.expect('(')?;
            let inner = sum(scanner)?;
            scanner.expect(')')?;
            scanner.leave();
            inner.into_iter().map(|(operand, text)| (operand, format!("({text})"))).collect()
        }
        Some(c) if c.is_ascii_digit() || c == '-' => return number(scanner),
        _ => keys(scanner)?.into_iter().map(|e| (Operand::Series(e.clone()), e.canonical)).collect(),
    };
    while scanner.peek() == Some(':') {
        let mark = scanner.unexpected();
        scanner.take(':');
        let name = scanner.run(|c| c.is_ascii_alphanumeric());
        if name.is_empty() {
            return Err(scanner.unexpected().into());
        }
        let args: Option<Vec<Arg>> = if scanner.peek() == Some('(') { Some(scanner.args()?) } else { None };
        let step = Step::from_parts(&name, args.as_deref().unwrap_or_default())?;
        let written = canonical_step(&name, args.as_deref());
        for (operand, text) in &mut found {
            let Operand::Series(expression) = operand else { return Err(mark.into()) };
            expression.steps.push(step.clone());
            text.push_str(&written);
        }
    }
    for (operand, text) in &mut found {
        if let Operand::Series(expression) = operand {
            expression.canonical.clone_from(text);
        }
    }
    Ok(found)
}

fn number(scanner: &mut Scanner) -> Result<Operands, ApiError> {
    let sign = if scanner.take('-') { "-" } else { "" };
    let text = format!("{sign}{}", scanner.run(|c| c.is_ascii_digit() || c == '.'));
    match text.parse::<f64>() {
        Ok(number) => Ok(vec![(Operand::Number(number), text)]),
        Err(_) => Err(scanner.unexpected().into()),
    }
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
    Expression { canonical: canonical_key(&key, quoted), key, operation: None, steps: Vec::new() }
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
            ("a:splitBy() / b:avg", Some("a:splitBy()/b:avg")),
            ("(100)*(a - b + 2.50):fold(avg) / -3", Some("(100)*(a-b+2.50):fold(avg)/-3")),
            (
                "(a:delta:smooth(skipfirst):setUnit(Byte) / b):timeshift(-1d):names",
                Some("(a:delta:smooth(skipfirst):setUnit(Byte)/b):timeshift(-1d):names"),
            ),
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
    fn products_bind_tighter_than_sums() {
        let e = one("a - b * 2");
        let operation = e.operation.unwrap();
        assert_eq!(operation.operator, Operator::Subtract);
        let Operand::Series(right) = operation.right else { panic!("series") };
        let product = right.operation.unwrap();
        assert_eq!((product.operator, product.right), (Operator::Multiply, Operand::Number(2.0)));
        let e = one("(a / b):fold:timeshift(1h)");
        assert_eq!(e.steps, [Step::Fold(None), Step::Timeshift(3_600_000)]);
        assert_eq!(Operator::Divide.apply(1.0, 0.0), None);
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
            ("5 / 2", "Metric selector parse error: the number 2.5 is no metric"),
            ("a.(b,c) / 2", "Metric selector parse error: arithmetic needs one metric on each side"),
            ("(2):fold", "Failed to parse selector: unexpected colon near 1-based column range [4,5)."),
            (
                "a:rollup(avg,5m)",
                "Metric selector parse error: transformation ':rollup' is not supported by this simulator",
            ),
            (
                "a:timeshift(-6000d)",
                "Metric selector parse error: illegal transformation ':timeshift' with arguments (-6000d)",
            ),
            (
                "a:smooth(first)",
                "Metric selector parse error: illegal transformation ':smooth' with arguments (first)",
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
        fn nothing_panics_and_the_canonical_form_is_a_fixed_point(text in "[a:(),.\"~ 0-9splitByavg+*/-]{0,40}") {
            if let Ok(expressions) = parse(&text) {
                for e in expressions {
                    let again = parse(&e.canonical).unwrap();
                    assert_eq!(again[0].canonical, e.canonical);
                }
            }
        }
    }
}
