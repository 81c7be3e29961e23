//! One query as a person or a script asks it, and its series as the source has them: what `vouch query` prints.

mod classic;
mod records;
mod when;

pub(super) use classic::series_of;
pub(super) use records::{Column, columns};
pub use when::When;

use super::Dynatrace;
use super::answer::{Resolution, resolution};
use crate::source::{Failure, FailureKind};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Query {
    /// Metrics API v2.
    Metrics {
        /// A metric selector, with transformations.
        selector: String,
        /// An entity selector.
        entities: Option<String>,
        /// A selector of management zones.
        management_zones: Option<String>,
    },
    /// Grail.
    Dql {
        /// In the Dynatrace Query Language.
        query: String,
        /// Most that the query may read, in gigabytes; it is billed by them, except for metrics.
        scan_limit_gb: u32,
        /// How long its result is waited for.
        patience: Duration,
    },
}

/// A query over a time.
#[derive(Debug, Clone)]
pub struct QueryAsk {
    /// What is asked for.
    pub query: Query,
    /// From this instant.
    pub from: When,
    /// Until this one.
    pub to: When,
    /// The coarsest resolution that is wanted, as the API writes it; anything where it is `None`.
    pub resolution: Option<String>,
}

/// One series of an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuerySeries {
    /// As the source names it: the selector in its own form, or the column.
    pub metric: String,
    /// By key; `None` stands for all values that were left over.
    pub dimensions: BTreeMap<String, Option<String>>,
    /// `ms`, `percent`, `count`, `bytes`, or the source's own; empty where it names none.
    pub unit: String,
    /// Length of a slot.
    pub resolution: Slot,
    /// Start of the slot in epoch milliseconds, and its value; a gap is `None`.
    pub samples: Vec<(i64, Option<f64>)>,
    /// What the source, or Vouch, has to say about it.
    pub warnings: Vec<String>,
    /// Why it must not be used; the warnings hold it in words.
    #[serde(serialize_with = "by_name")]
    pub refused: Option<FailureKind>,
}

/// serde hands a reference to the field.
#[allow(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn by_name<S: Serializer>(refused: &Option<FailureKind>, serializer: S) -> Result<S::Ok, S::Error> {
    refused.map(FailureKind::as_str).serialize(serializer)
}

impl QuerySeries {
    /// One that must not be used.
    fn refuse(mut self, failure: &Failure) -> Self {
        if self.refused.is_none() {
            self.refused = Some(failure.kind);
            self.samples = Vec::new();
            self.warnings.push(failure.to_string());
        }
        self
    }
}

impl QuerySeries {
    /// In the place of a query that was not sent, because it reads what is billed.
    #[must_use]
    pub fn billed(sources: &[String]) -> Self {
        let nothing = Self {
            metric: String::new(),
            dimensions: BTreeMap::new(),
            unit: String::new(),
            resolution: Slot::Unknown,
            samples: Vec::new(),
            warnings: Vec::new(),
            refused: None,
        };
        let message = format!(
            "the query reads {}, which is billed by what it scans, and was not sent; say --billed to send it, or use `timeseries`, which is not billed",
            sources.join(", ")
        );
        nothing.refuse(&Failure::new(FailureKind::Billed, message))
    }
}

/// Length of a slot, as ISO 8601 writes a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Of the same length each.
    Step(Duration),
    /// A number of months each.
    Months(i64),
    /// One slot for the whole time.
    Inf,
    /// The source did not say.
    Unknown,
}

impl Slot {
    /// Reads what the API writes.
    fn parse(text: &str) -> Option<Self> {
        let months = |unit: char, each: i64| {
            text.strip_suffix(unit).and_then(|n| n.parse::<i64>().ok()).and_then(|n| n.checked_mul(each))
        };
        if let Some(months) = months('M', 1).or_else(|| months('q', 3)).or_else(|| months('y', 12)) {
            return (months > 0).then_some(Self::Months(months));
        }
        match resolution(text)? {
            Resolution::Step(step) => Some(Self::Step(step)),
            Resolution::Inf => Some(Self::Inf),
        }
    }

    /// For comparison only.
    const fn seconds(self) -> u64 {
        match self {
            Self::Step(step) => step.as_secs(),
            Self::Months(months) => 30 * 86_400 * months.unsigned_abs(),
            Self::Inf | Self::Unknown => u64::MAX,
        }
    }

    fn is_coarser_than(self, other: Self) -> bool {
        self.seconds() > other.seconds()
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inf => f.write_str("Inf"),
            Self::Unknown => f.write_str("unknown"),
            Self::Months(months) if months % 12 == 0 => write!(f, "P{}Y", months / 12),
            Self::Months(months) => write!(f, "P{months}M"),
            Self::Step(step) => match step.as_secs() {
                days if days % 86_400 == 0 && days > 0 => write!(f, "P{}D", days / 86_400),
                hours if hours % 3600 == 0 && hours > 0 => write!(f, "PT{}H", hours / 3600),
                minutes if minutes % 60 == 0 && minutes > 0 => write!(f, "PT{}M", minutes / 60),
                _ => write!(f, "PT{}S", step.as_secs_f64()),
            },
        }
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl QueryAsk {
    /// Whether the resolution can be read, and the time is one.
    ///
    /// # Errors
    /// In words, with the field.
    pub fn check(&self) -> Result<(), String> {
        if self.from.at >= self.to.at {
            return Err(format!("--from {} is not before --to {}", self.from.text, self.to.text));
        }
        match &self.resolution {
            Some(text) if Slot::parse(text).is_none() => Err(format!(
                "--resolution {text}: write a number and a unit of m, h, d, w, M, q, y, e.g. 1m; or Inf for one value"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Why an answer of these slots must not be used.
    fn too_coarse(&self, slot: Slot) -> Option<Failure> {
        let asked = self.resolution.as_deref()?;
        let coarser = slot.is_coarser_than(Slot::parse(asked)?);
        let message = || {
            format!(
                "{asked} was asked for and the source has {slot}: older data are kept coarser; ask for a later time, or without --resolution"
            )
        };
        coarser.then(|| Failure::new(FailureKind::TooCoarse, message()))
    }
}

impl Dynatrace {
    /// Runs one query through the client that collecting uses.
    ///
    /// # Errors
    /// Where the source does not deliver; a series that must not be used is in the answer, by name.
    pub async fn query_series(&self, ask: &QueryAsk) -> Result<Vec<QuerySeries>, Failure> {
        let series = match &ask.query {
            Query::Metrics { .. } => self.classic_series(ask).await,
            Query::Dql { .. } => self.record_series(ask).await,
        };
        series.map(refuse_twins)
    }
}

/// Series that nothing tells apart: none of them can be used.
fn refuse_twins(series: Vec<QuerySeries>) -> Vec<QuerySeries> {
    let mut seen: BTreeMap<(String, BTreeMap<String, Option<String>>), usize> = BTreeMap::new();
    let key = |one: &QuerySeries| (one.metric.clone(), one.dimensions.clone());
    for one in &series {
        *seen.entry(key(one)).or_default() += 1;
    }
    let refuse = |one: QuerySeries| match seen.get(&key(&one)) {
        Some(count) if *count > 1 => {
            let message =
                format!("{count} series of the same metric and dimensions; split by what tells them apart");
            one.refuse(&Failure::new(FailureKind::AmbiguousSeries, message))
        }
        Some(_) | None => one,
    };
    series.into_iter().map(refuse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_written_as_iso_durations() {
        for (text, iso) in [
            ("1m", "PT1M"),
            ("10m", "PT10M"),
            ("60m", "PT1H"),
            ("1h", "PT1H"),
            ("1d", "P1D"),
            ("1w", "P7D"),
            ("1M", "P1M"),
            ("1q", "P3M"),
            ("1y", "P1Y"),
            ("iNF", "Inf"),
        ] {
            assert_eq!(Slot::parse(text).unwrap().to_string(), iso, "{text}");
        }
        for text in ["", "120", "0m", "m", "1x", "0M"] {
            assert_eq!(Slot::parse(text), None, "{text}");
        }
        let slot = |text| Slot::parse(text).unwrap();
        assert!(slot("1h").is_coarser_than(slot("10m")) && slot("Inf").is_coarser_than(slot("1y")));
        assert!(!slot("1m").is_coarser_than(slot("1m")) && !slot("Inf").is_coarser_than(slot("Inf")));
    }
}
