//! The forms in which the API takes an instant, and the instant that is meant.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};
use vouch_proto::Timestamp;

/// An instant as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct When {
    /// As it was written: what the API is sent.
    pub text: String,
    /// What is meant.
    pub at: Timestamp,
}

impl When {
    /// Reads epoch milliseconds, an ISO date and time (without a zone UTC), `now`, `now-2h`, or `now-1d/d`.
    ///
    /// # Errors
    /// In words, with the forms that are read.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, String> {
        let text = text.trim();
        let at = millis(text).or_else(|| relative(text, now)).or_else(|| absolute(text));
        at.map(|at| Self { text: text.to_owned(), at }).ok_or_else(|| {
            format!(
                "`{text}` is no instant; write epoch milliseconds, 2026-01-25T05:57:01Z, or now-2h (units m, h, d, w, M, y; now-1d/d rounds down)"
            )
        })
    }
}

fn millis(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp::from_millis)
}

fn absolute(text: &str) -> Option<Timestamp> {
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let utc = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    zoned.or_else(utc).map(|at| Timestamp::from_millis(at.as_millisecond()))
}

/// `now`, and what is so much before it; `now` itself may be left out.
fn relative(text: &str, now: Timestamp) -> Option<Timestamp> {
    let (shift, round) = match text.split_once('/') {
        Some((shift, round)) => (shift, Some(round)),
        None => (text, None),
    };
    let rest = shift.strip_prefix("now").unwrap_or(shift);
    if rest.len() == shift.len() && !rest.starts_with('-') {
        return None;
    }
    let at = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?.to_zoned(TimeZone::UTC);
    let at = match rest {
        "" => at,
        rest => {
            let amount = rest.strip_prefix('-')?;
            let unit = amount.chars().next_back()?;
            let number = amount.strip_suffix(unit)?.parse().ok().filter(|n| *n >= 0)?;
            at.checked_sub(span(number, unit)?).ok()?
        }
    };
    let at = match round {
        None => at,
        Some(unit) => floor(&at, unit)?,
    };
    Some(Timestamp::from_millis(at.timestamp().as_millisecond()))
}

/// So many of a unit of the API.
pub(super) fn span(number: i64, unit: char) -> Option<Span> {
    let span = Span::new();
    match unit {
        'm' => span.try_minutes(number),
        'h' => span.try_hours(number),
        'd' => span.try_days(number),
        'w' => span.try_weeks(number),
        'M' => span.try_months(number),
        'q' => span.try_months(number.checked_mul(3)?),
        'y' => span.try_years(number),
        _ => return None,
    }
    .ok()
}

fn floor(at: &Zoned, unit: &str) -> Option<Zoned> {
    let date = at.date();
    let civil = match unit {
        "m" => date.at(at.hour(), at.minute(), 0, 0),
        "h" => date.at(at.hour(), 0, 0, 0),
        "d" => date.at(0, 0, 0, 0),
        "w" => {
            let monday = i64::from(date.weekday().to_monday_zero_offset());
            date.checked_sub(Span::new().try_days(monday).ok()?).ok()?.at(0, 0, 0, 0)
        }
        "M" => date.first_of_month().at(0, 0, 0, 0),
        "y" => date.first_of_year().at(0, 0, 0, 0),
        _ => return None,
    };
    civil.to_zoned(TimeZone::UTC).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_instant_is_read() {
        let now: Timestamp = "2026-11-18T12:34:56Z".parse().unwrap();
        for (text, expected) in [
            ("1664323200000", "2022-09-28T00:00:00Z"),
            ("2021-01-25T05:57:01.123+01:00", "2021-01-25T04:57:01.123Z"),
            ("2021-01-25T05:57:01", "2021-01-25T05:57:01Z"),
            ("2021-01-25 05:57", "2021-01-25T05:57:00Z"),
            ("2021-05-14T19:20:00.000+00:00", "2021-05-14T19:20:00Z"),
            ("now", "2026-11-18T12:34:56Z"),
            ("now-2h", "2026-11-18T10:34:56Z"),
            ("now-120m", "2026-11-18T10:34:56Z"),
            ("-7d", "2026-11-11T12:34:56Z"),
            ("now-1M", "2026-10-18T12:34:56Z"),
            ("now-1d/d", "2026-11-17T00:00:00Z"),
            ("now/h", "2026-11-18T12:00:00Z"),
            ("now/w", "2026-11-16T00:00:00Z"),
            ("now-1y/y", "2025-01-01T00:00:00Z"),
        ] {
            let when = When::parse(text, now).unwrap();
            assert_eq!((when.text.as_str(), when.at), (text, expected.parse().unwrap()), "{text}");
        }
        for text in
            ["", "yesterday", "now-", "now-2", "now+2h", "now-2x", "2h", "now-1d/x", "now-9999999999999d"]
        {
            assert!(When::parse(text, now).is_err(), "{text}");
        }
    }
}
