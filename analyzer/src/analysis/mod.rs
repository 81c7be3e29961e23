//! Analysis on demand: from a request with its series to a verdict, with every limit. Nothing is stored. Pure: the
//! gRPC service receives and answers, and this decides.

mod answer;
pub mod collected;
mod header;

use crate::case::{self, Case, HostGroup};
use crate::judge::{self, JudgeSettings};
use answer::Subject;
use std::collections::BTreeSet;
use vouch_proto::deployment::MAX_HOSTS;
use vouch_proto::series::read_series;
use vouch_proto::time::{self, MINUTE_MS};
use vouch_proto::{FieldViolation, Invalid, Timestamp, Verdict, v1};

/// Most samples of one analysis.
pub const MAX_SAMPLES: usize = 2_000_000;
/// Most series, or pieces of series, of one analysis.
pub const MAX_SERIES: usize = 20_000;
/// Most metrics of one analysis.
pub const MAX_METRICS: usize = 200;
/// Most steps of all windows, times the series: what the judge holds in memory, samples or gaps.
pub const MAX_CELLS: usize = 4_000_000;
/// Longest name of a metric or a host, in bytes.
pub const MAX_LABEL_BYTES: usize = 256;
/// Largest message, encoded.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Fields that are wrong, all that were found.
    Wrong(Invalid),
    /// A field that is right, but more than is judged at once.
    TooMuch(FieldViolation),
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::Wrong(invalid)
    }
}

/// Refuses what is more than `limit`.
fn at_most(field: &str, count: usize, limit: usize, of: &str, remedy: &str) -> Result<(), Refusal> {
    if count <= limit {
        return Ok(());
    }
    let message = format!("{count} {of}, at most {limit} are judged at once; {remedy}");
    Err(Refusal::TooMuch(FieldViolation { field: field.to_owned(), message }))
}

/// A request as far as it has been received: its header, and some of its series.
#[derive(Debug)]
pub struct Draft {
    subject: Subject,
    case: Case,
    /// Minute 0 of the case.
    origin: Timestamp,
    /// Steps of all windows together.
    steps: usize,
    series: usize,
    samples: usize,
    /// Metric and host of the series so far.
    tracks: BTreeSet<(String, String)>,
}

/// A request that can be judged.
#[derive(Debug)]
pub struct Analysis {
    subject: Subject,
    case: Case,
}

/// Reads and judges a request that is here as a whole. `now` is when the verdict is decided.
///
/// # Errors
/// The fields that are wrong, or what is too much.
pub fn analyze(request: v1::AnalyzeRequest, now: Timestamp) -> Result<Verdict, Refusal> {
    Ok(Draft::whole(request, now)?.judge(&|| true))
}

impl Draft {
    /// Reads a request that is here as a whole.
    ///
    /// # Errors
    /// The fields that are wrong, or what is too much.
    pub fn whole(mut request: v1::AnalyzeRequest, now: Timestamp) -> Result<Analysis, Refusal> {
        let series = std::mem::take(&mut request.series);
        let mut draft = Self::open(request, now)?;
        draft.add(series)?;
        draft.finish()
    }

    /// Reads everything but the series.
    ///
    /// # Errors
    /// The fields that are wrong, all at once, or what is too much.
    pub fn open(header: v1::AnalyzeRequest, now: Timestamp) -> Result<Self, Refusal> {
        header::read(header, now)
    }

    /// Takes in some of the series. What is too much is refused before it is kept.
    ///
    /// # Errors
    /// The fields of these series that are wrong, all at once, or what is too much by now.
    pub fn add(&mut self, series: Vec<v1::AnalyzeSeries>) -> Result<(), Refusal> {
        let mut invalid = Invalid::default();
        for one in series {
            let field = format!("series[{}]", self.series);
            self.series += 1;
            let remedy = "split the hosts over several calls";
            at_most("series", self.series, MAX_SERIES, "series", remedy)?;
            self.samples += one.series.as_ref().map_or(0, |s| s.values.len());
            let remedy = "shorten the windows, or send fewer series";
            at_most("series", self.samples, MAX_SAMPLES, "samples", remedy)?;
            self.take(one, &field, &mut invalid)?;
        }
        Ok(invalid.into_result()?)
    }

    fn take(&mut self, series: v1::AnalyzeSeries, field: &str, invalid: &mut Invalid) -> Result<(), Refusal> {
        let before = invalid.violations.len();
        let start = invalid.check(&format!("{field}.start"), time::required(series.start));
        let Some(wire) = series.series else {
            invalid.push(format!("{field}.series"), "is missing; give a metric and its values");
            return Ok(());
        };
        check_label(&format!("{field}.series.host"), &wire.host, invalid);
        if !wire.metric.is_empty() && !self.case.metrics.contains_key(&wire.metric) {
            let shown: String = wire.metric.chars().take(MAX_LABEL_BYTES).collect();
            let message = format!("`{shown}` is not in `metrics`; name it there, or leave the series out");
            invalid.push(format!("{field}.series.metric"), message);
        }
        let read = invalid.check(&format!("{field}.series"), read_series(wire, None));
        let (Some(start), Some(read)) = (start, read) else { return Ok(()) };
        if (start.as_millis() - self.origin.as_millis()) % MINUTE_MS != 0 {
            let message = format!("{start} is not a whole number of minutes from {}", self.origin);
            invalid.push(format!("{field}.start"), message);
        }
        if invalid.violations.len() > before {
            return Ok(());
        }
        let host = read.host.unwrap_or_else(|| crate::window::WHOLE_SERVICE.to_owned());
        self.make_room(&read.metric, &host)?;
        let start = start.minutes_since(self.origin);
        self.case.series.push(case::CaseSeries { metric: read.metric, host, start, values: read.samples });
        Ok(())
    }

    /// Notes a metric on a host, and the host where the header does not name it.
    fn make_room(&mut self, metric: &str, host: &str) -> Result<(), Refusal> {
        let remedy = "split the hosts over several calls";
        if !self.case.hosts.contains_key(host) {
            let hosts = self.case.hosts.len() + 1;
            at_most("hosts", hosts, MAX_HOSTS, "hosts", remedy)?;
            let product = hosts.saturating_mul(self.case.metrics.len());
            at_most("hosts", product, case::MAX_SERIES, "hosts times metrics", remedy)?;
            let new = case::CaseHost { group: HostGroup::Service, switch: Some(0), restarts: Vec::new() };
            self.case.hosts.insert(host.to_owned(), new);
        }
        if self.tracks.insert((metric.to_owned(), host.to_owned())) {
            let cells = self.tracks.len().saturating_mul(self.steps);
            let remedy = "shorten the windows, or split the hosts over several calls";
            at_most("series", cells, MAX_CELLS, "steps of the windows times series", remedy)?;
        }
        Ok(())
    }

    /// Ends the request.
    ///
    /// # Errors
    /// What only shows when everything is there, e.g. samples that overlap.
    pub fn finish(self) -> Result<Analysis, Refusal> {
        self.case.validate().map_err(|e| Invalid::field(request_field(&e.field), e.message))?;
        Ok(Analysis { subject: self.subject, case: self.case })
    }
}

/// The request's name for a field of the case.
fn request_field(field: &str) -> &str {
    if field == "interval_min" { "resolution_seconds" } else { field }
}

fn check_label(field: &str, name: &str, invalid: &mut Invalid) {
    if name.len() > MAX_LABEL_BYTES {
        let message = format!("has {} bytes, at most {MAX_LABEL_BYTES} are allowed; shorten it", name.len());
        invalid.push(field, message);
    }
}

impl Analysis {
    /// The case that is judged.
    #[must_use]
    pub const fn case(&self) -> &Case {
        &self.case
    }

    /// The verdict. Nobody may wait for it any more: it stops early, undecided, once `goes_on` says no.
    #[must_use]
    pub fn judge(self, goes_on: &dyn Fn() -> bool) -> Verdict {
        let judgement = judge::judge_while(&self.case, &JudgeSettings::default(), goes_on);
        self.subject.verdict(judgement, &self.case.template)
    }
}

#[cfg(test)]
mod tests;
