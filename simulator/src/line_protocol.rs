//! The line protocol of metric ingestion: `key,dimension="value" gauge,min=1,max=2,sum=3,count=2 1700000000000`.

use crate::time::{HOUR, MINUTE};

/// Most dimensions of a line.
const DIMENSIONS_LIMIT: usize = 50;
/// Shortest and longest key.
const KEY_LENGTH: (usize, usize) = (3, 255);

/// A line that was taken in.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestedLine {
    /// The metric, as it is stored.
    pub key: String,
    /// Its dimensions in their order.
    pub dimensions: Vec<(String, String)>,
    /// What was measured.
    pub payload: Payload,
    /// When, epoch milliseconds.
    pub at_ms: i64,
}

/// What a line measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payload {
    /// A summary of a gauge; a plain value is a summary of one.
    Gauge {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
        /// The sum.
        sum: f64,
        /// How many.
        count: f64,
    },
    /// How much a counter grew.
    Count {
        /// By so much.
        delta: f64,
    },
}

/// What a line is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// Nothing.
    Blank,
    /// Unit and description of a metric.
    Metadata,
    /// A measurement, and a warning where its key was changed.
    Measured(IngestedLine, Option<String>),
}

/// Reads a line, given the present.
///
/// # Errors
/// Where it is none; the message says why.
pub(crate) fn parse(line: &str, now: i64) -> Result<Line, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Line::Blank);
    }
    if let Some(metadata) = line.strip_prefix('#') {
        let key = metadata.split_whitespace().next().unwrap_or_default();
        return check_key(key).map(|()| Line::Metadata);
    }
    let (head, rest) = split_outside_quotes(line, ' ');
    let mut parts = Vec::new();
    let mut tail = head;
    while !tail.is_empty() {
        let (part, more) = split_outside_quotes(tail, ',');
        parts.push(part);
        tail = more;
    }
    let key = parts.first().copied().unwrap_or_default();
    check_key(key)?;
    let dimensions: Vec<(String, String)> =
        parts[1..].iter().map(|p| dimension(p)).collect::<Result<_, _>>()?;
    if dimensions.len() > DIMENSIONS_LIMIT {
        return Err(format!("more than {DIMENSIONS_LIMIT} dimensions"));
    }
    let mut words = rest.split_whitespace();
    let payload = payload(words.next().ok_or("the payload is missing")?)?;
    let at_ms = match words.next() {
        None => now,
        Some(text) => text.parse().map_err(|_| format!("'{text}' is no timestamp in milliseconds"))?,
    };
    if words.next().is_some() {
        return Err("unexpected text after the timestamp".into());
    }
    if !(now - HOUR..=now + 10 * MINUTE).contains(&at_ms) {
        return Err(format!("the timestamp {at_ms} is not within one hour before and ten minutes after now"));
    }
    let stored = stored_key(key, payload);
    let warning = (stored != key).then(|| format!("metric key '{key}' changed to '{stored}'"));
    Ok(Line::Measured(IngestedLine { key: stored, dimensions, payload, at_ms }, warning))
}

/// The text before the first separator outside of quotes, and what follows it.
fn split_outside_quotes(text: &str, separator: char) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => return (&text[..at], &text[at + c.len_utf8()..]),
            _ => {}
        }
    }
    (text, "")
}

fn check_key(key: &str) -> Result<(), String> {
    let (least, most) = KEY_LENGTH;
    if !(least..=most).contains(&key.chars().count()) {
        return Err(format!("the metric key '{key}' must have {least} to {most} characters"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if !key.starts_with(|c: char| c.is_ascii_alphabetic()) || !key.chars().all(allowed) || key.ends_with('.')
    {
        return Err(format!("the metric key '{key}' is invalid"));
    }
    if key.starts_with("dt.") || key.starts_with("builtin:") {
        return Err(format!("the metric key '{key}' has a reserved prefix"));
    }
    Ok(())
}

fn dimension(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is no dimension"))?;
    let allowed =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | ':' | '_');
    if key.is_empty() || !key.chars().all(allowed) {
        return Err(format!("the dimension key '{key}' is invalid"));
    }
    let value = match value.strip_prefix('"') {
        None if value.contains('"') => return Err(format!("the value of dimension '{key}' is invalid")),
        None => value.to_owned(),
        Some(rest) => {
            let inner = rest.strip_suffix('"').filter(|v| !v.ends_with('\\') || v.ends_with("\\\\"));
            let inner = inner.ok_or_else(|| format!("the value of dimension '{key}' isn't closed"))?;
            inner.replace("\\\"", "\"").replace("\\\\", "\\")
        }
    };
    Ok((key.to_owned(), value))
}

fn payload(text: &str) -> Result<Payload, String> {
    let number = |text: &str| {
        text.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(|| format!("'{text}' is no number"))
    };
    let (kind, rest) = text.split_once(',').unwrap_or((text, ""));
    let field = |name: &str| {
        let found = rest.split(',').find_map(|f| f.strip_prefix(name).and_then(|f| f.strip_prefix('=')));
        found.ok_or_else(|| format!("the field {name} is missing")).and_then(number)
    };
    let of_one = |value: f64| Payload::Gauge { min: value, max: value, sum: value, count: 1.0 };
    match kind {
        "gauge" if !rest.contains('=') => number(rest).map(of_one),
        "gauge" => {
            let (min, max) = (field("min")?, field("max")?);
            if min > max {
                return Err("min is greater than max".into());
            }
            Ok(Payload::Gauge { min, max, sum: field("sum")?, count: field("count")? })
        }
        "count" => Ok(Payload::Count { delta: field("delta")? }),
        _ if rest.is_empty() => number(kind).map(of_one),
        _ => Err(format!("the payload format '{kind}' is unknown")),
    }
}

/// Counters end in `.count`, and nothing else does.
fn stored_key(key: &str, payload: Payload) -> String {
    let is_count = key.ends_with(".count");
    match payload {
        Payload::Count { .. } if !is_count => format!("{key}.count"),
        Payload::Gauge { .. } if is_count => format!("{key}.gauge"),
        Payload::Count { .. } | Payload::Gauge { .. } => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn measured(line: &str) -> (IngestedLine, Option<String>) {
        match parse(line, NOW) {
            Ok(Line::Measured(line, warning)) => (line, warning),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines() {
        let (line, warning) = measured("cpu.temperature,host=\"a, b\\\"c\",cpu=1 55.5 1699999990000");
        assert_eq!((line.key.as_str(), line.at_ms, warning), ("cpu.temperature", 1_699_999_990_000, None));
        assert_eq!(line.dimensions, [("host".into(), "a, b\"c".into()), ("cpu".into(), "1".into())]);
        let of_one = |v: f64| Payload::Gauge { min: v, max: v, sum: v, count: 1.0 };
        assert_eq!(line.payload, of_one(55.5));
        assert_eq!(measured("abc gauge,3").0.payload, of_one(3.0));
        assert_eq!(
            measured("abc gauge,min=1,max=2,sum=3,count=2").0.payload,
            Payload::Gauge { min: 1.0, max: 2.0, sum: 3.0, count: 2.0 }
        );
        let (line, warning) = measured("new.users count,delta=3");
        assert_eq!((line.key.as_str(), line.at_ms), ("new.users.count", NOW));
        assert_eq!(warning.unwrap(), "metric key 'new.users' changed to 'new.users.count'");
        assert_eq!(measured("a.count 5").0.key, "a.count.gauge");
        assert_eq!(parse("#cpu.temperature gauge dt.meta.unit=\"C\"", NOW), Ok(Line::Metadata));
        assert_eq!(parse("  ", NOW), Ok(Line::Blank));
    }

    #[test]
    fn refusals() {
        for (line, part) in [
            ("ab 1", "must have 3 to 255"),
            ("dt.cpu 1", "reserved prefix"),
            ("1abc 1", "is invalid"),
            ("abc", "payload is missing"),
            ("abc x", "'x' is no number"),
            ("abc NaN", "is no number"),
            ("abc gauge,min=1,max=2,sum=3", "count is missing"),
            ("abc gauge,min=3,max=2,sum=3,count=1", "greater than max"),
            ("abc count,5", "delta is missing"),
            ("abc set,5", "format 'set' is unknown"),
            ("abc,Host=a 1", "dimension key 'Host'"),
            ("abc,host 1", "'host' is no dimension"),
            ("abc,host=\"a 1", "isn't closed"),
            ("abc 1 soon", "'soon' is no timestamp"),
            ("abc 1 1699990000000", "is not within one hour"),
            ("abc 1 1700000700000", "ten minutes after"),
            ("abc 1 1700000000000 x", "unexpected text"),
        ] {
            let error = parse(line, NOW).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        let many: String = (0..51).map(|i| format!(",d{i}=x")).collect();
        assert!(parse(&format!("abc{many} 1"), NOW).unwrap_err().contains("more than 50"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(line in "[a-c#.,=\"\\\\ 0-9gaugecount-]{0,40}") {
            let _ = parse(&line, NOW);
        }
    }
}
