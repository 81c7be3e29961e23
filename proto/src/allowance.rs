//! How much of something a tenant can live with: so many in a period, e.g. one rollback in 90 days.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest period: the audit stream keeps a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Most that can be allowed: all of them are kept in one entry.
const MOST: u32 = 1000;

/// So many in any period of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    count: u32,
    period: Duration,
}

/// The budget of a tenant: of an installation, for all of its services together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantBudget {
    /// False rollbacks that it can live with; `None` leaves the thresholds and the rollbacks as they are.
    pub rollbacks: Option<Allowance>,
    /// False pages that it can live with.
    pub pages: Option<Allowance>,
}

impl Allowance {
    /// How many.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// In how long.
    #[must_use]
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// How many a day.
    #[must_use]
    pub fn per_day(&self) -> f64 {
        f64::from(self.count) / (self.period.as_secs_f64() / DAY.as_secs_f64())
    }
}

impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no count in a period; write e.g. 1/90d (units: h, d, w, for hours, days, weeks)"
            )
        };
        let (count, period) = text.split_once('/').ok_or_else(wrong)?;
        let period = period.trim();
        let split = period.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = period.split_at(split);
        let unit = match unit {
            "h" => HOUR,
            "d" => DAY,
            "w" => WEEK,
            _ => return Err(wrong()),
        };
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let number: u32 = number.parse().map_err(|_| wrong())?;
        if !(1..=MOST).contains(&count) {
            return Err(format!(
                "`{text}` allows {count}, which is not within 1 to {MOST}; to roll nothing back set \
                 `notifier.rollback.default: off`"
            ));
        }
        let period = unit.saturating_mul(number);
        if !(HOUR..=LONGEST).contains(&period) {
            return Err(format!("`{text}` has a period that is not within 1h to 365d; choose another"));
        }
        Ok(Self { count, period })
    }
}

/// As it is written in the settings, in days or, where that leaves a rest, in hours.
impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours) = (self.period.as_secs() / DAY.as_secs(), self.period.as_secs() / HOUR.as_secs());
        if days * DAY.as_secs() == self.period.as_secs() {
            write!(f, "{}/{days}d", self.count)
        } else {
            write!(f, "{}/{hours}h", self.count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_count_in_a_period() {
        let read = |text: &str| text.parse::<Allowance>().unwrap();
        assert_eq!(read("1/90d"), Allowance { count: 1, period: 90 * DAY });
        assert_eq!(read("3/2w"), Allowance { count: 3, period: 14 * DAY });
        assert_eq!(read("10/36h").to_string(), "10/36h");
        assert_eq!(read("1/1w").to_string(), "1/7d");
        assert!((read("2/4d").per_day() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn what_is_refused_names_value_limit_and_remedy() {
        let said = |text: &str| text.parse::<Allowance>().unwrap_err();
        for wrong in
            ["", "1", "1/", "/90d", "1/d", "1/90", "1/90m", "-1/90d", "1.5/90d", "one/90d", "1/90d/2"]
        {
            assert!(said(wrong).contains("write e.g. 1/90d"), "{wrong}: {}", said(wrong));
        }
        assert!(said("0/90d").contains("not within 1 to 1000") && said("0/90d").contains("rollback.default"));
        assert!(said("1/0h").contains("not within 1h to 365d"));
        assert!(said("1/53w").contains("not within 1h to 365d"));
        assert!(said("1/4000000000w").contains("not within 1h to 365d"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_written_is_read_back(text in ".{0,12}", count in 1..=MOST, hours in 1..=8760u32) {
            let _ = text.parse::<Allowance>();
            let allowance = Allowance { count, period: hours * HOUR };
            prop_assert_eq!(allowance.to_string().parse::<Allowance>(), Ok(allowance));
        }
    }
}
