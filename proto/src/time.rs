//! Instants and half-open windows, UTC, in whole milliseconds.

use crate::{Invalid, WireTimestamp, v1};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Milliseconds of a minute: the step of judging.
pub const MINUTE_MS: i64 = 60_000;

/// An instant, milliseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 everywhere but in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// 0001-01-01 to 9999-12-31: what RFC 3339 and protobuf can say.
const RANGE_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

impl Timestamp {
    /// From milliseconds since the epoch, clamped to the years 1 to 9999.
    #[must_use]
    pub fn from_millis(ms: i64) -> Self {
        Self(ms.clamp(*RANGE_MS.start(), *RANGE_MS.end()))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The start of the minute that it lies in.
    #[must_use]
    pub fn floor_minute(self) -> Self {
        Self::from_millis(self.0.div_euclid(MINUTE_MS) * MINUTE_MS)
    }

    /// The start of the next minute, or itself where it is one.
    #[must_use]
    pub fn ceil_minute(self) -> Self {
        Self::from_millis(self.0.saturating_add(MINUTE_MS - 1)).floor_minute()
    }

    /// Later by `minutes`, or earlier where negative.
    #[must_use]
    pub fn plus_minutes(self, minutes: i64) -> Self {
        Self::from_millis(self.0.saturating_add(minutes.saturating_mul(MINUTE_MS)))
    }

    /// Later by `duration`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `duration`.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was; zero where it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whole minutes from `earlier` to this one, rounded down.
    #[must_use]
    pub fn minutes_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).div_euclid(MINUTE_MS)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        s.parse::<jiff::Timestamp>().map(|t| Self(t.as_millisecond())).map_err(|_| {
            Invalid::field(
                "",
                format!("`{s}` is no instant; write it as RFC 3339, e.g. 2026-11-24T10:00:00Z"),
            )
        })
    }
}

impl TryFrom<String> for Timestamp {
    type Error = Invalid;

    fn try_from(s: String) -> Result<Self, Invalid> {
        s.parse()
    }
}

impl From<Timestamp> for String {
    fn from(t: Timestamp) -> Self {
        t.to_string()
    }
}

impl From<Timestamp> for WireTimestamp {
    fn from(t: Timestamp) -> Self {
        let nanos = i32::try_from(t.0.rem_euclid(1000) * 1_000_000).unwrap_or(0);
        Self { seconds: t.0.div_euclid(1000), nanos }
    }
}

impl TryFrom<WireTimestamp> for Timestamp {
    type Error = Invalid;

    fn try_from(t: WireTimestamp) -> Result<Self, Invalid> {
        let ms = t.seconds.checked_mul(1000).and_then(|ms| ms.checked_add(i64::from(t.nanos) / 1_000_000));
        match ms {
            Some(ms) if (0..1_000_000_000).contains(&t.nanos) && RANGE_MS.contains(&ms) => Ok(Self(ms)),
            _ => Err(Invalid::field(
                "",
                format!("{} s and {} ns is no instant between the years 1 and 9999", t.seconds, t.nanos),
            )),
        }
    }
}

/// Reads a required timestamp of a message.
///
/// # Errors
/// Where it is absent or out of range.
pub fn required(t: Option<WireTimestamp>) -> Result<Timestamp, Invalid> {
    t.ok_or_else(|| Invalid::field("", "is missing; give an instant (RFC 3339 in JSON)"))?.try_into()
}

/// Reads an optional timestamp of a message.
///
/// # Errors
/// Where it is out of range.
pub fn optional(t: Option<WireTimestamp>) -> Result<Option<Timestamp>, Invalid> {
    t.map(TryInto::try_into).transpose()
}

/// A half-open interval `[start, end)`, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    start: Timestamp,
    end: Timestamp,
}

impl Window {
    /// From its bounds.
    ///
    /// # Errors
    /// Where the end is not after the start.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self, Invalid> {
        if start < end {
            Ok(Self { start, end })
        } else {
            Err(Invalid::field("end", format!("{end} is not after the start {start}")))
        }
    }

    /// `[origin + from, origin + to)` in minutes.
    ///
    /// # Errors
    /// Where `to` is not greater than `from`.
    pub fn around(origin: Timestamp, from: i64, to: i64) -> Result<Self, Invalid> {
        Self::new(origin.plus_minutes(from), origin.plus_minutes(to))
    }

    /// First instant within.
    #[must_use]
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// First instant after.
    #[must_use]
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// Its length in whole minutes, rounded down.
    #[must_use]
    pub fn minutes(self) -> i64 {
        self.end.minutes_since(self.start)
    }

    /// Whether the instant lies within.
    #[must_use]
    pub fn contains(self, t: Timestamp) -> bool {
        self.start <= t && t < self.end
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl From<Window> for v1::Window {
    fn from(w: Window) -> Self {
        Self { start: Some(w.start.into()), end: Some(w.end.into()) }
    }
}

impl TryFrom<v1::Window> for Window {
    type Error = Invalid;

    fn try_from(w: v1::Window) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let start = invalid.check("start", required(w.start));
        let end = invalid.check("end", required(w.end));
        match (start, end) {
            (Some(start), Some(end)) => Self::new(start, end),
            _ => Err(invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn minutes_are_cut_towards_the_past() {
        let t: Timestamp = "2026-11-24T10:00:30.250Z".parse().unwrap();
        assert_eq!(t.floor_minute().to_string(), "2026-11-24T10:00:00Z");
        assert_eq!(t.ceil_minute().to_string(), "2026-11-24T10:01:00Z");
        assert_eq!(t.ceil_minute().ceil_minute(), t.ceil_minute());
        assert_eq!(Timestamp::from_millis(-1).floor_minute().as_millis(), -MINUTE_MS);
    }

    #[test]
    fn a_window_is_never_empty_or_reversed() {
        let t = Timestamp::from_millis(0);
        assert!(Window::new(t, t).is_err());
        assert!(Window::around(t, 5, -5).is_err());
        let window = Window::around(t, -5, 0).unwrap();
        assert_eq!(window.minutes(), 5);
        assert!(window.contains(window.start()) && !window.contains(window.end()));
    }

    #[test]
    fn an_absent_or_impossible_instant_is_refused() {
        assert!(required(None).is_err());
        assert!(Timestamp::try_from(WireTimestamp { seconds: i64::MAX, nanos: 0 }).is_err());
        assert!(Timestamp::try_from(WireTimestamp { seconds: 0, nanos: -1 }).is_err());
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    proptest! {
        #[test]
        fn an_instant_survives_protobuf_and_text(ms in RANGE_MS) {
            let t = Timestamp::from_millis(ms);
            prop_assert_eq!(Timestamp::try_from(WireTimestamp::from(t)).unwrap(), t);
            prop_assert_eq!(t.to_string().parse::<Timestamp>().unwrap(), t);
        }
    }
}
