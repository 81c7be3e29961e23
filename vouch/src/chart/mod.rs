//! Pictures of evidence: what was expected and what was there, and how the evidence grew.

pub(crate) mod svg;
pub(crate) mod terminal;

use vouch_analyzer::evidence::{Evidence, UnitEvidence};

/// Fewest samples before the deployment that are drawn, where there are so many.
const LEAST_BEFORE: usize = 20;

/// The minutes, values and evidence of a unit, ready to be drawn: shares in percent.
#[derive(Debug)]
pub(crate) struct Picture<'a> {
    pub(crate) unit: &'a UnitEvidence,
    /// Unit of the values in words.
    pub(crate) unit_name: &'a str,
    /// Minute and value before the deployment.
    pub(crate) before: Vec<(f64, f64)>,
    /// Minute, expected value and where it lies usually.
    pub(crate) expected: Vec<(f64, f64, [f64; 2])>,
    /// Minute and value of the verification.
    pub(crate) observed: Vec<(f64, f64)>,
    /// Minute and evidence in nats.
    pub(crate) evidence: Vec<(f64, f64)>,
    /// First and last minute that is drawn.
    pub(crate) minutes: [f64; 2],
    /// Minutes between samples.
    pub(crate) step: f64,
    /// Minute at which the degraded run begins, where one is there at the end.
    pub(crate) since: Option<f64>,
}

impl<'a> Picture<'a> {
    pub(crate) fn new(evidence: &Evidence, unit: &'a UnitEvidence) -> Self {
        let scale = if unit.is_share { 100.0 } else { 1.0 };
        let step = evidence.step_min as f64;
        let minute = |t: usize| evidence.minute(t) as f64;
        // As much of the time before as of the time since, so that neither is squeezed.
        let shown = unit.before.len().min(unit.steps.len().max(LEAST_BEFORE));
        let known = &unit.before[unit.before.len() - shown..];
        let first = evidence.start as f64 - step * known.len() as f64;
        let before = known.iter().enumerate().map(|(t, value)| (first + step * t as f64, scale * value));
        let samples = || unit.steps.iter().enumerate();
        let expected = samples().map(|(t, s)| (minute(t), scale * s.expected, s.band.map(|end| scale * end)));
        let observed = samples().map(|(t, s)| (minute(t), scale * s.observed));
        Self {
            unit,
            unit_name: match unit.unit.as_str() {
                _ if unit.is_share => "% of the requests",
                "percent" => "%",
                "" | "count" => "",
                unit => unit,
            },
            before: before.filter(|(_, value)| value.is_finite()).collect(),
            expected: expected.filter(|(_, value, _)| value.is_finite()).collect(),
            observed: observed.filter(|(_, value)| value.is_finite()).collect(),
            evidence: samples().map(|(t, s)| (minute(t), s.ln_evidence)).collect(),
            minutes: [first, minute(unit.steps.len().saturating_sub(1)).max(evidence.start as f64 + step)],
            step,
            since: unit.since.map(minute),
        }
    }

    /// Lowest and highest value that is drawn, with some air.
    pub(crate) fn values(&self) -> [f64; 2] {
        let shown = self.before.iter().chain(&self.observed).map(|(_, value)| *value);
        let bands = self.expected.iter().flat_map(|(_, _, band)| *band).filter(|v| v.is_finite());
        let (low, high) = shown
            .chain(bands)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return [0.0, 1.0];
        }
        let air = if high > low { 0.06 * (high - low) } else { 0.1 * high.abs().max(1e-9) };
        [if low >= 0.0 { (low - air).max(0.0) } else { low - air }, high + air]
    }

    /// What is drawn, in words.
    pub(crate) fn title(&self) -> String {
        let metrics = self.unit.metrics.join(" and ");
        let host = if self.unit.host == "*" { "all new hosts" } else { &self.unit.host };
        let unit = if self.unit_name.is_empty() { String::new() } else { format!(" [{}]", self.unit_name) };
        format!("{metrics} on {host}{unit}")
    }
}
