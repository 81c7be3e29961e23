//! Units: Dynatrace's names, Vouch's names, and the factor between two of a kind.

/// Units of a kind by what one of them is in the first of the kind.
const KINDS: [(&str, &[(&str, f64)]); 5] = [
    (
        "ms",
        &[
            ("ms", 1.0),
            ("MilliSecond", 1.0),
            ("us", 1e-3),
            ("µs", 1e-3),
            ("MicroSecond", 1e-3),
            ("ns", 1e-6),
            ("NanoSecond", 1e-6),
            ("s", 1e3),
            ("Second", 1e3),
            ("min", 6e4),
            ("Minute", 6e4),
            ("Hour", 3.6e6),
        ],
    ),
    ("percent", &[("percent", 1.0), ("Percent", 1.0), ("%", 1.0), ("Ratio", 100.0)]),
    ("count", &[("count", 1.0), ("Count", 1.0), ("1", 1.0)]),
    (
        "1/min",
        &[("1/min", 1.0), ("PerMinute", 1.0), ("1/s", 60.0), ("PerSecond", 60.0), ("PerHour", 1.0 / 60.0)],
    ),
    (
        "bytes",
        &[
            ("bytes", 1.0),
            ("B", 1.0),
            ("By", 1.0),
            ("Byte", 1.0),
            ("KiloByte", 1e3),
            ("KibiByte", 1024.0),
            ("MegaByte", 1e6),
            ("MebiByte", 1_048_576.0),
            ("GigaByte", 1e9),
            ("GibiByte", 1_073_741_824.0),
            ("Bit", 0.125),
        ],
    ),
];

fn lookup(unit: &str) -> Option<(&'static str, f64)> {
    KINDS.iter().find_map(|(kind, units)| {
        let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        Some((*kind, *factor))
    })
}

/// A unit and what values are multiplied by to be in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conversion {
    pub(super) unit: String,
    pub(super) factor: f64,
}

impl Default for Conversion {
    fn default() -> Self {
        Self::none()
    }
}

impl Conversion {
    /// Leaves values as they are, in a unit that is not known.
    pub(super) const fn none() -> Self {
        Self { unit: String::new(), factor: 1.0 }
    }

    /// A value in the unit. Dividing by a whole number is exact where multiplying by its inverse is not.
    pub(super) fn apply(&self, value: f64) -> f64 {
        let divisor = (1.0 / self.factor).round();
        let divides = self.factor < 1.0 && (divisor * self.factor - 1.0).abs() < 1e-12;
        if divides { value / divisor } else { value * self.factor }
    }
}

/// From the source's unit to the one wanted; empty wants Vouch's own of that kind. `None` where they are of two kinds.
pub(super) fn conversion(from: &str, wanted: &str) -> Option<Conversion> {
    let unspecified = from.is_empty()
        || from.eq_ignore_ascii_case("Unspecified")
        || from.eq_ignore_ascii_case("NotApplicable");
    let keep = |unit: &str| Some(Conversion { unit: unit.to_owned(), factor: 1.0 });
    match (lookup(from), lookup(wanted)) {
        _ if unspecified || from.eq_ignore_ascii_case(wanted) => keep(wanted),
        (Some((kind, factor)), None) if wanted.is_empty() => {
            Some(Conversion { unit: kind.to_owned(), factor })
        }
        (None, None) if wanted.is_empty() => keep(from),
        (Some((kind, factor)), Some((wanted_kind, wanted_factor))) if kind == wanted_kind => {
            Some(Conversion { unit: wanted.to_owned(), factor: factor / wanted_factor })
        }
        (Some(_) | None, Some(_) | None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_times_are_microseconds_and_become_milliseconds() {
        for (from, wanted, unit, factor) in [
            ("MicroSecond", "ms", "ms", 1e-3),
            ("MilliSecond", "ms", "ms", 1.0),
            ("Second", "ms", "ms", 1e3),
            ("Percent", "percent", "percent", 1.0),
            ("Count", "count", "count", 1.0),
            ("KibiByte", "bytes", "bytes", 1024.0),
            ("PerMinute", "1/min", "1/min", 1.0),
            ("PerSecond", "1/min", "1/min", 60.0),
            ("Percent", "%", "%", 1.0),
            ("MicroSecond", "", "ms", 1e-3),
            ("MilliCores", "", "MilliCores", 1.0),
            ("MilliCores", "millicores", "millicores", 1.0),
            ("Unspecified", "jobs", "jobs", 1.0),
            ("", "ms", "ms", 1.0),
        ] {
            let expected = Some(Conversion { unit: unit.to_owned(), factor });
            assert_eq!(conversion(from, wanted), expected, "{from} to {wanted}");
        }
    }

    #[test]
    fn units_of_two_kinds_are_never_converted() {
        for (from, wanted) in
            [("Percent", "ms"), ("MilliCores", "percent"), ("Count", "jobs"), ("PerMinute", "count")]
        {
            assert_eq!(conversion(from, wanted), None, "{from} to {wanted}");
        }
    }
}
