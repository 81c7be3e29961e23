//! Times in DQL queries: `now()-2h`, `-30m`, `"2026-11-18T12:00:00Z"`, `now()@h`; and time zones.

use super::error::DqlError;
use super::token::unit_ns;
use super::tree::{Expression, Node};
use crate::grid::floor;
use jiff::tz::{Offset, TimeZone};

/// Nanoseconds of a millisecond.
const NS_PER_MS: i64 = 1_000_000;

/// The time that an expression means, epoch milliseconds.
///
/// # Errors
/// Where it means none.
pub(super) fn instant(node: &Node, now: i64) -> Result<i64, DqlError> {
    let refuse = || {
        let message = "A timestamp is expected, such as now()-2h, -2h or \"2026-11-18T12:00:00Z\".";
        DqlError::syntax("TIMESTAMP_EXPECTED", message, node.span)
    };
    match &node.expression {
        Expression::Text(text) => iso(text).ok_or_else(refuse),
        Expression::Call(name, arguments) => match (name.as_str(), arguments.as_slice()) {
            ("now", []) => Ok(now),
            ("toTimestamp" | "timestamp", [one]) => instant(&one.value, now),
            _ => Err(refuse()),
        },
        Expression::Minus(by) => now.checked_sub(duration_ms(by)?).ok_or_else(refuse),
        Expression::Aligned(inner, unit) => aligned(instant(inner, now)?, unit).ok_or_else(refuse),
        Expression::Binary("-", at, by) => instant(at, now)?.checked_sub(duration_ms(by)?).ok_or_else(refuse),
        Expression::Binary("+", at, by) => instant(at, now)?.checked_add(duration_ms(by)?).ok_or_else(refuse),
        Expression::Number(..)
        | Expression::Boolean(_)
        | Expression::Null
        | Expression::Duration(_)
        | Expression::Name(_)
        | Expression::List(_)
        | Expression::Not(_)
        | Expression::Binary(..) => Err(refuse()),
    }
}

/// A duration in nanoseconds.
///
/// # Errors
/// Where the expression is none.
pub(super) fn duration_ns(node: &Node) -> Result<i64, DqlError> {
    if let Expression::Duration(ns) = node.expression {
        Ok(ns)
    } else {
        Err(DqlError::syntax("DURATION_EXPECTED", "A duration is expected, such as 5m.", node.span))
    }
}

/// A duration in milliseconds.
///
/// # Errors
/// Where the expression is none.
pub(super) fn duration_ms(node: &Node) -> Result<i64, DqlError> {
    duration_ns(node).map(|ns| ns / NS_PER_MS)
}

fn aligned(at: i64, unit: &str) -> Option<i64> {
    let step = unit_ns(unit)? / NS_PER_MS;
    (step > 0).then(|| floor(at, step))
}

/// A time in ISO 8601; without a zone it is UTC.
pub(crate) fn iso(text: &str) -> Option<i64> {
    let is_date = text.contains('-') && text.chars().next().is_some_and(|c| c.is_ascii_digit());
    if is_date { crate::time::parse(text, 0).ok() } else { None }
}

/// A time zone by its name, `Z`, or an offset such as `+01:00`.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    if matches!(name, "Z" | "UTC") {
        return Some(TimeZone::UTC);
    }
    if let Some(rest) = name.strip_prefix(['+', '-']) {
        let (hours, minutes) = rest.split_once(':')?;
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let seconds = (hours * 60 + minutes) * 60;
        let signed = if name.starts_with('-') { -seconds } else { seconds };
        let is_valid = (0..=18).contains(&hours) && (0..60).contains(&minutes);
        return is_valid.then(|| Offset::from_seconds(signed).ok().map(TimeZone::fixed)).flatten();
    }
    TimeZone::get(name).ok()
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;
    use crate::time::{DAY, HOUR, MINUTE};

    const NOW: i64 = 1_700_000_000_000; // 2023-11-14T22:13:20Z

    fn read(text: &str) -> Result<i64, DqlError> {
        instant(&parse(&format!("fetch from:{text}")).unwrap()[0].arguments[0].value, NOW)
    }

    #[test]
    fn every_form_of_time() {
        for (text, expected) in [
            ("now()", NOW),
            ("now()-2h", NOW - 2 * HOUR),
            ("-30m", NOW - 30 * MINUTE),
            ("now()-1d+5m", NOW - DAY + 5 * MINUTE),
            ("now()@h", 1_699_999_200_000),
            ("now()-1d@d", 1_699_833_600_000),
            ("-2h@h", 1_699_992_000_000),
            ("\"2023-11-14T22:00:00Z\"", 1_699_999_200_000),
            ("\"2023-11-14T23:00:00.000000000+01:00\"", 1_699_999_200_000),
            ("toTimestamp(\"2023-11-14\")", 1_699_920_000_000),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for text in ["5", "\"soon\"", "yesterday()", "-5", "2h", "now()-now()", "now()@x", "null"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn time_zones() {
        for name in ["Europe/Vienna", "UTC", "Z", "CET", "+01:00", "-09:30"] {
            assert!(zone(name).is_some(), "{name}");
        }
        for name in ["Europe/Nowhere", "", "+1", "+25:00", "+01:xx"] {
            assert!(zone(name).is_none(), "{name}");
        }
    }
}
