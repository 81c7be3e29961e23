//! Collected series: facts about a service in a window, with explicit gaps.

use crate::convert::text;
use crate::{
    HostGroup, Invalid, Name, Neighbour, Objective, Problem, Relation, Timestamp, Wait, Window, time, v1,
};
use std::time::Duration;

/// Name of the error that says: the source keeps this window too coarsely, now and for ever.
pub const TOO_COARSE: &str = "too_coarse";
/// Largest encoded batch; a longer one is cut into parts.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;

/// The samples of one metric on one host, one a step from the start of the batch's window. A gap is `None`, never 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Name of the metric in the template.
    pub metric: String,
    /// `None` for the service as a whole.
    pub host: Option<String>,
    /// Unit of the values.
    pub unit: String,
    /// One a step.
    pub samples: Vec<Option<f64>>,
    /// The query as it was sent.
    pub query: String,
    /// The version that the host ran when it was read, where the source says it.
    pub version: Option<String>,
    /// The side that the settings say the host is on, whatever its version.
    pub group: Option<HostGroup>,
    /// Which of several things the metric is measured for, each judged by itself.
    pub item: Option<String>,
}

/// What the source refused or failed to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// `None` where it concerns every metric.
    pub metric: Option<String>,
    /// Stable name, e.g. `unauthorized`.
    pub name: String,
    /// For a person.
    pub message: String,
    /// Whether asking again can help.
    pub retryable: bool,
}

/// One window of one service, validated.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesBatch {
    /// Environment of the service.
    pub environment: Name,
    /// The service.
    pub service: Name,
    /// Who was asked.
    pub source: String,
    /// What the samples cover.
    pub window: Window,
    /// Step of the samples: a divisor of the window.
    pub resolution: Duration,
    /// Everything before has been read.
    pub watermark: Timestamp,
    /// The samples are not expected to change any more.
    pub is_final: bool,
    /// A later revision replaces an earlier one.
    pub revision: u32,
    /// Part `part` of `parts`, from 1.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
    /// The series.
    pub series: Vec<Series>,
    /// What could not be had.
    pub errors: Vec<SourceError>,
    /// When it was published.
    pub collected_at: Timestamp,
    /// The verification that it was collected for.
    pub verification_id: Option<String>,
    /// Other services over the same window.
    pub neighbours: Vec<Neighbour>,
    /// Problems of the service that the source knew of.
    pub problems: Vec<Problem>,
    /// Objectives of the service as they stood.
    pub objectives: Vec<Objective>,
    /// Metrics that come later than the others, or later than usual.
    pub waits: Vec<Wait>,
}

impl TryFrom<v1::SeriesBatch> for SeriesBatch {
    type Error = Invalid;

    fn try_from(b: v1::SeriesBatch) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let environment = invalid.check("environment", Name::new(b.environment));
        let service = invalid.check("service", Name::new(b.service));
        let window = invalid.check(
            "window",
            b.window.ok_or_else(|| Invalid::field("", "is missing")).and_then(Window::try_from),
        );
        let watermark = invalid.check("watermark", time::required(b.watermark));
        let collected_at = invalid.check("collected_at", time::required(b.collected_at));
        if b.parts == 0 || b.part == 0 || b.part > b.parts {
            invalid.push("part", format!("{} of {} is not within 1 to {}", b.part, b.parts, b.parts.max(1)));
        }
        let (Some(environment), Some(service), Some(window), Some(watermark), Some(collected_at)) =
            (environment, service, window, watermark, collected_at)
        else {
            return Err(invalid);
        };
        let steps = invalid.check("resolution_seconds", steps(window, b.resolution_seconds));
        if watermark > window.end() {
            invalid.push("watermark", format!("{watermark} is later than the window's end {}", window.end()));
        }
        let mut series = Vec::with_capacity(b.series.len());
        for (i, s) in b.series.into_iter().enumerate() {
            series.extend(invalid.check(&format!("series[{i}]"), read_series(s, steps)));
        }
        let mut neighbours = Vec::with_capacity(b.neighbours.len());
        for (i, one) in b.neighbours.into_iter().enumerate() {
            neighbours.extend(invalid.check(&format!("neighbours[{i}]"), read_neighbour(one, steps)));
        }
        let mut problems = Vec::with_capacity(b.problems.len());
        for (i, one) in b.problems.into_iter().enumerate() {
            problems.extend(invalid.check(&format!("problems[{i}]"), Problem::try_from(one)));
        }
        let mut objectives = Vec::with_capacity(b.objectives.len());
        for (i, one) in b.objectives.into_iter().enumerate() {
            objectives.extend(invalid.check(&format!("objectives[{i}]"), Objective::try_from(one)));
        }
        let mut waits = Vec::with_capacity(b.waits.len());
        for (i, one) in b.waits.into_iter().enumerate() {
            waits.extend(invalid.check(&format!("waits[{i}]"), Wait::try_from(one)));
        }
        invalid.into_result().map(|()| Self {
            environment,
            service,
            source: b.source,
            window,
            resolution: Duration::from_secs(u64::from(b.resolution_seconds)),
            watermark,
            is_final: b.r#final,
            revision: b.revision,
            part: b.part,
            parts: b.parts,
            series,
            errors: b.errors.into_iter().map(SourceError::from).collect(),
            collected_at,
            verification_id: text(b.verification_id),
            neighbours,
            problems,
            objectives,
            waits,
        })
    }
}

/// How many samples a window holds.
fn steps(window: Window, resolution_seconds: u32) -> Result<usize, Invalid> {
    let step = i64::from(resolution_seconds) * 1000;
    let length = window.end().as_millis() - window.start().as_millis();
    if step == 0 || length % step != 0 {
        return Err(Invalid::field(
            "",
            format!("{resolution_seconds} s is no divisor of the window's {} s", length / 1000),
        ));
    }
    usize::try_from(length / step).map_err(|_| Invalid::field("", "the window is too long"))
}

/// Reads one series: as many values as the window has steps, finite, with ascending gaps.
///
/// # Errors
/// Names the first field that is wrong.
pub fn read_series(s: v1::Series, steps: Option<usize>) -> Result<Series, Invalid> {
    if s.metric.is_empty() {
        return Err(Invalid::field("metric", "is empty; give the metric's name in the template"));
    }
    if let Some(steps) = steps
        && s.values.len() != steps
    {
        return Err(Invalid::field("values", format!("{} values for {steps} steps", s.values.len())));
    }
    let mut samples: Vec<Option<f64>> = s.values.into_iter().map(Some).collect();
    let mut last = None;
    for gap in s.gaps {
        if last.is_some_and(|last| gap <= last) {
            return Err(Invalid::field("gaps", format!("{gap} does not ascend")));
        }
        let length = samples.len();
        let Some(sample) = samples.get_mut(usize::try_from(gap).unwrap_or(usize::MAX)) else {
            return Err(Invalid::field("gaps", format!("{gap} is beyond the {length} values")));
        };
        *sample = None;
        last = Some(gap);
    }
    if let Some(i) = samples.iter().position(|v| v.is_some_and(|v| !v.is_finite())) {
        return Err(Invalid::field(format!("values[{i}]"), "is not finite; a missing sample is a gap"));
    }
    let group = match s.group {
        0 => None,
        number => {
            let mut invalid = Invalid::default();
            let group = invalid.check("group", HostGroup::from_wire(number));
            invalid.into_result()?;
            group
        }
    };
    Ok(Series {
        metric: s.metric,
        host: text(s.host),
        unit: s.unit,
        samples,
        query: s.query,
        version: text(s.version),
        group,
        item: text(s.item),
    })
}

fn read_neighbour(n: v1::Neighbour, steps: Option<usize>) -> Result<Neighbour, Invalid> {
    let mut invalid = Invalid::default();
    let service = invalid.check("service", Name::new(n.service));
    let relation = invalid.check("relation", Relation::from_wire(n.relation));
    let deployed_at = invalid.check("deployed_at", n.deployed_at.map(Timestamp::try_from).transpose());
    let mut series = Vec::with_capacity(n.series.len());
    for (i, s) in n.series.into_iter().enumerate() {
        series.extend(invalid.check(&format!("series[{i}]"), read_series(s, steps)));
    }
    match (service, relation, deployed_at) {
        (Some(service), Some(relation), Some(deployed_at)) if invalid.violations.is_empty() => {
            Ok(Neighbour { service, relation, shares: n.shares, deployed_at, series })
        }
        _ => Err(invalid),
    }
}

impl From<Neighbour> for v1::Neighbour {
    fn from(n: Neighbour) -> Self {
        Self {
            service: n.service.into(),
            relation: n.relation.to_wire(),
            shares: n.shares,
            deployed_at: n.deployed_at.map(Into::into),
            series: n.series.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::SourceError> for SourceError {
    fn from(e: v1::SourceError) -> Self {
        Self { metric: text(e.metric), name: e.name, message: e.message, retryable: e.retryable }
    }
}

impl From<SourceError> for v1::SourceError {
    fn from(e: SourceError) -> Self {
        Self {
            metric: e.metric.unwrap_or_default(),
            name: e.name,
            message: e.message,
            retryable: e.retryable,
        }
    }
}

impl From<Series> for v1::Series {
    fn from(s: Series) -> Self {
        let gap = |(i, v): (usize, &Option<f64>)| v.is_none().then(|| u32::try_from(i).unwrap_or(u32::MAX));
        Self {
            metric: s.metric,
            host: s.host.unwrap_or_default(),
            unit: s.unit,
            gaps: s.samples.iter().enumerate().filter_map(gap).collect(),
            values: s.samples.iter().map(|v| v.unwrap_or(0.0)).collect(),
            query: s.query,
            version: s.version.unwrap_or_default(),
            group: s.group.map_or(0, HostGroup::to_wire),
            item: s.item.unwrap_or_default(),
        }
    }
}

impl From<SeriesBatch> for v1::SeriesBatch {
    fn from(b: SeriesBatch) -> Self {
        Self {
            environment: b.environment.into(),
            service: b.service.into(),
            source: b.source,
            window: Some(b.window.into()),
            resolution_seconds: u32::try_from(b.resolution.as_secs()).unwrap_or(u32::MAX),
            watermark: Some(b.watermark.into()),
            r#final: b.is_final,
            revision: b.revision,
            part: b.part,
            parts: b.parts,
            series: b.series.into_iter().map(Into::into).collect(),
            errors: b.errors.into_iter().map(Into::into).collect(),
            collected_at: Some(b.collected_at.into()),
            verification_id: b.verification_id.unwrap_or_default(),
            neighbours: b.neighbours.into_iter().map(Into::into).collect(),
            problems: b.problems.into_iter().map(Into::into).collect(),
            objectives: b.objectives.into_iter().map(Into::into).collect(),
            waits: b.waits.into_iter().map(Into::into).collect(),
        }
    }
}

impl SeriesBatch {
    /// Cuts the batch into parts of at most `MAX_BATCH_BYTES` encoded, whole series and neighbours each.
    #[must_use]
    pub fn into_parts(mut self) -> Vec<Self> {
        let (series, neighbours) = (std::mem::take(&mut self.series), std::mem::take(&mut self.neighbours));
        let problems = std::mem::take(&mut self.problems);
        let objectives = std::mem::take(&mut self.objectives);
        let mut parts = vec![Self { problems, objectives, ..self.clone() }];
        let mut bytes = 0;
        let mut room_for = |parts: &mut Vec<Self>, more: usize| {
            if bytes > 0 && bytes + more > MAX_BATCH_BYTES - 4096 {
                parts.push(self.clone());
                bytes = 0;
            }
            bytes += more;
        };
        for one in series {
            room_for(&mut parts, size(&one));
            parts.last_mut().into_iter().for_each(|part| part.series.push(one.clone()));
        }
        for one in neighbours {
            room_for(&mut parts, 256 + one.series.iter().map(size).sum::<usize>());
            parts.last_mut().into_iter().for_each(|part| part.neighbours.push(one.clone()));
        }
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        for (part, number) in parts.iter_mut().zip(1..) {
            (part.part, part.parts) = (number, count);
        }
        parts
    }
}

/// Bytes of a series in a message, at most.
fn size(s: &Series) -> usize {
    let texts = [&s.host, &s.version, &s.item].into_iter().flatten().map(String::len).sum::<usize>();
    72 + s.metric.len() + s.query.len() + texts + 12 * s.samples.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    pub(crate) fn batch(samples: Vec<Option<f64>>) -> SeriesBatch {
        let start: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let minutes = i64::try_from(samples.len()).unwrap();
        SeriesBatch {
            environment: Name::new("prod").unwrap(),
            service: Name::new("checkout").unwrap(),
            source: "tenant".into(),
            window: Window::around(start, 0, minutes).unwrap(),
            resolution: Duration::from_secs(60),
            watermark: start.plus_minutes(minutes),
            is_final: true,
            revision: 0,
            part: 1,
            parts: 1,
            series: vec![Series {
                metric: "cpu".into(),
                host: None,
                unit: "percent".into(),
                samples,
                query: "builtin:host.cpu.usage".into(),
                ..Series::default()
            }],
            errors: vec![],
            collected_at: start.plus_minutes(minutes + 2),
            verification_id: None,
            neighbours: vec![],
            problems: vec![],
            objectives: vec![],
            waits: vec![],
        }
    }

    #[test]
    fn gaps_stay_gaps() {
        let before = batch(vec![Some(0.0), None, Some(1.5), None]);
        let wire = v1::SeriesBatch::from(before.clone());
        assert_eq!(wire.series[0].gaps, [1, 3]);
        assert_eq!(SeriesBatch::try_from(wire).unwrap(), before);
    }

    #[test]
    fn what_is_known_of_a_host_is_read_back() {
        let mut before = batch(vec![Some(1.0)]);
        before.series[0].version = Some("2.1".into());
        before.series[0].group = Some(HostGroup::Test);
        before.series[0].item = Some("/cart".into());
        assert_eq!(SeriesBatch::try_from(v1::SeriesBatch::from(before.clone())).unwrap(), before);
    }

    #[test]
    fn impossible_samples_are_refused_by_name() {
        let wrong = |change: fn(&mut v1::SeriesBatch)| {
            let mut wire = v1::SeriesBatch::from(batch(vec![Some(1.0), Some(2.0)]));
            change(&mut wire);
            SeriesBatch::try_from(wire).unwrap_err().to_string()
        };
        assert!(wrong(|b| b.series[0].values[1] = f64::NAN).contains("series[0].values[1]: is not finite"));
        assert!(wrong(|b| b.series[0].gaps = vec![2]).contains("series[0].gaps: 2 is beyond"));
        assert!(wrong(|b| b.series[0].gaps = vec![1, 1]).contains("does not ascend"));
        assert!(wrong(|b| b.series[0].values.push(1.0)).contains("3 values for 2 steps"));
        assert!(wrong(|b| b.resolution_seconds = 0).contains("resolution_seconds: 0 s is no divisor"));
        assert!(wrong(|b| b.series[0].group = 9).contains("series[0].group: unknown value `9`"));
        assert!(wrong(|b| b.part = 2).contains("part: 2 of 1"));
        assert!(wrong(|b| b.window = None).contains("window: is missing"));
        assert!(
            wrong(|b| b.watermark = Some(crate::WireTimestamp { seconds: 9_000_000_000, nanos: 0 }))
                .contains("watermark: ")
        );
    }

    #[test]
    fn neighbours_and_problems_are_read_back_and_wrong_ones_named() {
        let mut before = batch(vec![Some(1.0), None]);
        before.neighbours = vec![Neighbour {
            service: Name::new("cart").unwrap(),
            relation: Relation::Unrelated,
            shares: vec!["orders-db".into()],
            deployed_at: Some(before.watermark),
            series: before.series.clone(),
        }];
        before.problems = vec![Problem {
            id: "P-1".into(),
            title: String::new(),
            root_cause: Some("orders-db".into()),
            elsewhere: true,
            started_at: before.watermark,
            ended_at: None,
            known_at: before.watermark,
        }];
        let wire = v1::SeriesBatch::from(before.clone());
        assert_eq!(SeriesBatch::try_from(wire.clone()), Ok(before.clone()));
        assert_eq!(before.clone().into_parts(), [before]);
        let mut wrong = wire;
        wrong.neighbours[0].series[0].values.push(1.0);
        wrong.problems[0].known_at = None;
        let said = SeriesBatch::try_from(wrong).unwrap_err().to_string();
        assert!(said.contains("neighbours[0].series[0].values: 3 values for 2"), "{said}");
        assert!(said.contains("problems[0].known_at"), "{said}");
    }

    #[test]
    fn a_long_batch_is_cut_into_parts_within_the_limit() {
        let mut long = batch((0..1500).map(|i| Some(f64::from(i))).collect());
        let series = long.series[0].clone();
        long.series =
            (0..100).map(|i| Series { host: Some(format!("host-{i}")), ..series.clone() }).collect();
        let parts = long.clone().into_parts();
        assert!(parts.len() > 1);
        let mut together = Vec::new();
        for (i, part) in parts.into_iter().enumerate() {
            assert_eq!(usize::try_from(part.part).unwrap(), i + 1);
            let wire = v1::SeriesBatch::from(part.clone());
            assert!(wire.encoded_len() <= MAX_BATCH_BYTES);
            together.extend(part.series);
        }
        assert_eq!(together, long.series);
        assert_eq!(batch(vec![None]).into_parts().len(), 1);
    }
}
