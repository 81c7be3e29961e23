//! The forms of `from` and `to`: epoch milliseconds, ISO 8601, `now-2h`, `now-1d/d`.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A minute in milliseconds.
pub(crate) const MINUTE: i64 = 60_000;
/// An hour in milliseconds.
pub(crate) const HOUR: i64 = 60 * MINUTE;
/// A day in milliseconds.
pub(crate) const DAY: i64 = 24 * HOUR;
/// A week in milliseconds.
pub(crate) const WEEK: i64 = 7 * DAY;
/// Monday 1970-01-05: weeks begin on Monday.
pub(crate) const FIRST_MONDAY: i64 = 4 * DAY;

/// Parses `from` or `to` into epoch milliseconds, given the present.
///
/// Relative forms may lack `now` (`-7d`), as `/problems` was seen to accept.
pub(crate) fn parse(text: &str, now: i64) -> Result<i64, String> {
    let text = text.trim();
    if let Ok(ms) = text.parse::<i64>()
        && !text.starts_with(['-', '+'])
    {
        return Ok(ms);
    }
    let relative = text.strip_prefix("now").or_else(|| text.starts_with('-').then_some(text));
    match relative {
        Some(rest) => parse_relative(rest, now).ok_or_else(|| refuse(text)),
        None => parse_iso(text).ok_or_else(|| refuse(text)),
    }
}

fn refuse(text: &str) -> String {
    format!(
        "'{text}' is no timestamp. Use milliseconds since the epoch, an ISO 8601 time such as \
         2021-01-25T05:57:01.123+01:00, or a relative one such as now-2h or now-1d/d"
    )
}

fn parse_relative(rest: &str, now: i64) -> Option<i64> {
    let (offset, rounding) = match rest.split_once('/') {
        Some((offset, unit)) => (offset, Some(unit)),
        None => (rest, None),
    };
    let mut at = now;
    if !offset.is_empty() {
        let (sign, amount) = match offset.strip_prefix('-') {
            Some(amount) => (-1, amount),
            None => (1, offset.strip_prefix('+')?),
        };
        let unit = amount.chars().last()?;
        let number: i64 = amount[..amount.len() - unit.len_utf8()].parse().ok()?;
        at = shift(at, sign * number, unit)?;
    }
    match rounding {
        None => Some(at),
        Some(unit) => round_down(at, unit),
    }
}

fn shift(at: i64, number: i64, unit: char) -> Option<i64> {
    let ms = match unit {
        'm' => MINUTE,
        'h' => HOUR,
        'd' => DAY,
        'w' => WEEK,
        'M' => return calendar(at, Span::new().try_months(number).ok()?),
        'y' => return calendar(at, Span::new().try_years(number).ok()?),
        _ => return None,
    };
    at.checked_add(number.checked_mul(ms)?)
}

fn civil(at: i64) -> Option<DateTime> {
    Some(Timestamp::from_millisecond(at).ok()?.to_zoned(TimeZone::UTC).datetime())
}

fn epoch_ms(at: DateTime) -> Option<i64> {
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

fn calendar(at: i64, span: Span) -> Option<i64> {
    epoch_ms(civil(at)?.checked_add(span).ok()?)
}

fn round_down(at: i64, unit: &str) -> Option<i64> {
    let floor = |step: i64, origin: i64| at - (at - origin).rem_euclid(step);
    match unit {
        "m" => Some(floor(MINUTE, 0)),
        "h" => Some(floor(HOUR, 0)),
        "d" => Some(floor(DAY, 0)),
        "w" => Some(floor(WEEK, FIRST_MONDAY)),
        "M" => epoch_ms(civil(at)?.date().first_of_month().at(0, 0, 0, 0)),
        "y" => epoch_ms(civil(at)?.date().first_of_year().at(0, 0, 0, 0)),
        _ => None,
    }
}

fn parse_iso(text: &str) -> Option<i64> {
    let text = text.replacen(' ', "T", 1);
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.as_millisecond());
    }
    epoch_ms(text.parse::<DateTime>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000; // Tuesday 2023-11-14T22:13:20Z

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("1664323200000", 1_664_323_200_000),
            ("2021-01-25T05:57:01.123+01:00", 1_611_550_621_123),
            ("2021-01-25T05:57:01.123", 1_611_554_221_123),
            ("2021-01-25 05:57", 1_611_554_220_000),
            ("2021-01-25T05:57:00Z", 1_611_554_220_000),
            ("now", NOW),
            ("now-2h", NOW - 2 * HOUR),
            ("-7d", NOW - 7 * DAY),
            ("now-120M", 1_384_467_200_000),
            ("now-1d/d", 1_699_833_600_000),
            ("now/w", 1_699_833_600_000),
            ("now/M", 1_698_796_800_000),
            ("now-1y/y", 1_640_995_200_000),
        ] {
            assert_eq!(parse(text, NOW), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time() {
        for text in
            ["", "yesterday", "now-2", "now-xh", "now-2s", "now-1d/q", "2021-13-01", "now-99999999999999999w"]
        {
            assert!(parse(text, NOW).unwrap_err().contains("is no timestamp"), "{text}");
        }
    }
}
