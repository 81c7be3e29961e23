//! A query of Metrics API v2, series by series. The `resolution` of the answer is the truth.

use super::when::span;
use super::{Query, QueryAsk, QuerySeries, Slot};
use crate::source::dynatrace::answer::{DataSeries, MetricData, MetricResult};
use crate::source::dynatrace::client::Call;
use crate::source::dynatrace::selector::{Chain, expressions, percentile_of_parts};
use crate::source::dynatrace::unit::{Conversion, conversion};
use crate::source::dynatrace::{
    Dynatrace, SCOPE, builtin, general_failure, missing_metric, normalise, spacing_minutes,
};
use crate::source::{Failure, FailureKind};
use std::collections::BTreeMap;
use vouch_proto::Timestamp;

/// Most slots of a series: what the API has at most.
const MOST_SLOTS: i64 = 10_080 * 10;

/// A unit, and what to say where it was not sure.
struct Unit {
    conversion: Conversion,
    warning: Option<String>,
    /// The dimensions of the metric, where they are known.
    dimensions: Vec<String>,
}

impl Unit {
    fn none() -> Self {
        Self { conversion: Conversion::none(), warning: None, dimensions: Vec::new() }
    }

    /// A refusal of a dimension says which there are.
    fn with_dimensions(&self, failure: Failure) -> Failure {
        if failure.kind != FailureKind::UnknownDimension || self.dimensions.is_empty() {
            return failure;
        }
        let message = format!("{}; the metric has {}", failure.message, self.dimensions.join(", "));
        Failure { message, ..failure }
    }
}

/// What holds for all series of one expression.
struct Expression<'a> {
    metric: String,
    slot: Slot,
    unit: &'a Unit,
    warnings: Vec<String>,
    failure: Option<Failure>,
}

impl Dynatrace {
    pub(super) async fn classic_series(&self, ask: &QueryAsk) -> Result<Vec<QuerySeries>, Failure> {
        let Query::Metrics { selector, entities, management_zones } = &ask.query else {
            return Ok(Vec::new());
        };
        let mut query = vec![
            ("metricSelector", selector.clone()),
            ("from", ask.from.text.clone()),
            ("to", ask.to.text.clone()),
        ];
        query.extend(ask.resolution.clone().map(|resolution| ("resolution", resolution)));
        query.extend(entities.clone().map(|selector| ("entitySelector", selector)));
        query.extend(management_zones.clone().map(|selector| ("mzSelector", selector)));
        let answer = self.client.send(&Call::get(&["metrics", "query"], query, SCOPE)).await;
        let data: MetricData = answer.map_err(|failure: Failure| {
            // A wrong address is not found either, but nothing there speaks of metrics.
            let names_one = failure.message.to_lowercase().contains("metric with key");
            if names_one { missing_metric(failure, selector) } else { failure }
        })?;
        let asked = expressions(selector);
        let mut all = Vec::new();
        for (i, result) in data.result.iter().enumerate() {
            // A selector's shorthand makes several results of one expression.
            let text = asked.get(i).copied().filter(|_| asked.len() == data.result.len());
            let text = text.unwrap_or_else(|| result.metric_id.as_deref().unwrap_or(selector));
            let unit = self.unit_of(text).await;
            all.extend(self.of_result(ask, &data, (result, text), &unit));
        }
        if data.result.is_empty() {
            let none = MetricResult { metric_id: None, warnings: data.warnings.clone(), data: Vec::new() };
            let unit = Unit::none();
            for text in asked {
                all.extend(self.of_result(ask, &data, (&none, text), &unit));
            }
        }
        Ok(all)
    }

    fn of_result(
        &self,
        ask: &QueryAsk,
        data: &MetricData,
        result: (&MetricResult, &str),
        unit: &Unit,
    ) -> Vec<QuerySeries> {
        of_result(ask, data, result, (unit, self.client.now()))
    }

    /// The unit of an expression: its metric's, as its transformations leave it.
    async fn unit_of(&self, text: &str) -> Unit {
        let own = |unit: String| Unit { conversion: conversion_of(&unit), ..Unit::none() };
        let Some(chain) = Chain::of(text) else { return own(String::new()) };
        if let Some(unit) = &chain.unit {
            return own(unit.clone());
        }
        let (unit, warning, dimensions) = match self.metric_described(&chain.key).await {
            Ok((unit, dimensions)) => (unit, None, dimensions),
            Err(failure) => match builtin::unit(&chain.key) {
                Some(unit) => (unit.to_owned(), None, Vec::new()),
                None => (String::new(), Some(format!("the unit is not known: {failure}")), Vec::new()),
            },
        };
        Unit { warning, dimensions, ..own(chain.rated(&unit)) }
    }
}

/// The series of a result, whose unit is not known.
pub(in crate::source::dynatrace) fn series_of(
    ask: &QueryAsk,
    data: &MetricData,
    result: (&MetricResult, &str),
    now: Timestamp,
) -> Vec<QuerySeries> {
    of_result(ask, data, result, (&Unit::none(), now))
}

fn of_result(
    ask: &QueryAsk,
    data: &MetricData,
    (result, text): (&MetricResult, &str),
    (unit, now): (&Unit, Timestamp),
) -> Vec<QuerySeries> {
    let slot = slot(ask, data, (result, text));
    let warnings: Vec<String> =
        result.warnings.iter().flatten().cloned().chain(unit.warning.clone()).collect();
    let warned = result.warnings.iter().flatten().find_map(|text| normalise::warning(text));
    let expression = Expression {
        metric: result.metric_id.clone().unwrap_or_else(|| text.trim().to_owned()),
        slot,
        unit,
        warnings,
        failure: percentile_of_parts(text)
            .or_else(|| general_failure(data))
            .or(warned)
            .map(|failure| unit.with_dimensions(failure))
            .or_else(|| ask.too_coarse(slot)),
    };
    if result.data.is_empty() {
        let message =
            "the metric has no series in this time; check the selectors, and whether it was written then";
        let failure =
            expression.failure.clone().unwrap_or_else(|| Failure::new(FailureKind::NoData, message));
        return vec![expression.series(BTreeMap::new()).refuse(&failure)];
    }
    result.data.iter().map(|one| expression.read(one, ask, now)).collect()
}

fn conversion_of(unit: &str) -> Conversion {
    conversion(unit, "").unwrap_or_else(|| Conversion { unit: unit.to_owned(), ..Conversion::none() })
}

/// Length of the slots of a result. A metric that is folded has one value for all of the time, whatever the answer says.
fn slot(ask: &QueryAsk, data: &MetricData, (result, text): (&MetricResult, &str)) -> Slot {
    let single = result.data.iter().all(|one| one.timestamps.len() == 1);
    if single && text.contains(":fold") && !result.data.is_empty() {
        return Slot::Inf;
    }
    match data.resolution.as_deref() {
        Some(said) => Slot::parse(said).unwrap_or(Slot::Unknown),
        // Old clusters leave it out.
        None => match spacing_minutes(data) {
            Some(minutes) => Slot::parse(&format!("{minutes}m")).unwrap_or(Slot::Unknown),
            None if single && ask.resolution.as_deref().and_then(Slot::parse) == Some(Slot::Inf) => Slot::Inf,
            None => Slot::Unknown,
        },
    }
}

impl Expression<'_> {
    fn series(&self, dimensions: BTreeMap<String, Option<String>>) -> QuerySeries {
        QuerySeries {
            metric: self.metric.clone(),
            dimensions,
            unit: self.unit.conversion.unit.clone(),
            resolution: self.slot,
            samples: Vec::new(),
            warnings: self.warnings.clone(),
            refused: None,
        }
    }

    fn read(&self, data: &DataSeries, ask: &QueryAsk, now: Timestamp) -> QuerySeries {
        let dimensions = dimensions(data);
        let is_remainder = dimensions.values().any(Option::is_none);
        let mut series = self.series(dimensions);
        if let Some(failure) = &self.failure {
            return series.refuse(failure);
        }
        if is_remainder {
            let message =
                "a series for all dimension values that were left over; split by fewer, or filter them";
            return series.refuse(&Failure::new(FailureKind::Remainder, message));
        }
        match samples(data, self.slot, ask) {
            Err(failure) => return series.refuse(&failure),
            Ok(slots) => {
                let elsewhere = slots.iter().all(|slot| is_elsewhere(slot, ask));
                let is_pending =
                    |slot: &Sampled| self.slot != Slot::Inf && slot.end > now.as_millis() && !elsewhere;
                let (pending, ended): (Vec<_>, Vec<_>) = slots.into_iter().partition(is_pending);
                let value =
                    |v: Option<f64>| v.map(|v| self.unit.conversion.apply(v)).filter(|v| v.is_finite());
                series.samples = ended.into_iter().map(|slot| (slot.start, value(slot.value))).collect();
                if !pending.is_empty() {
                    let left_out = pending.len();
                    series.warnings.push(format!("{left_out} slots have not ended yet and are left out"));
                }
                if elsewhere && !series.samples.is_empty() {
                    let (from, to) = (&ask.from.text, &ask.to.text);
                    let message = format!(
                        "all slots lie outside of {from} to {to}, which was asked for; check the clocks"
                    );
                    series.warnings.push(message);
                }
            }
        }
        series
    }
}

fn dimensions(data: &DataSeries) -> BTreeMap<String, Option<String>> {
    if data.dimension_map.is_empty() {
        // Old clusters have the values alone, in order.
        return data.dimensions.iter().enumerate().map(|(i, value)| (i.to_string(), value.clone())).collect();
    }
    data.dimension_map.clone()
}

/// One slot in epoch milliseconds.
struct Sampled {
    start: i64,
    end: i64,
    value: Option<f64>,
}

/// Whether a slot has nothing to do with the time that was asked for. A series of such slots alone is shown as it is.
const fn is_elsewhere(slot: &Sampled, ask: &QueryAsk) -> bool {
    let length = slot.end.saturating_sub(slot.start);
    slot.end <= ask.from.at.as_millis() || slot.start >= ask.to.at.as_millis().saturating_add(length)
}

/// Slots in order of time, without holes; a stamp is the end of its slot.
fn samples(data: &DataSeries, slot: Slot, ask: &QueryAsk) -> Result<Vec<Sampled>, Failure> {
    let bad = |what: String| Failure::new(FailureKind::BadAnswer, what);
    if data.timestamps.len() != data.values.len() {
        let (stamps, values) = (data.timestamps.len(), data.values.len());
        return Err(bad(format!("{stamps} timestamps and {values} values")));
    }
    if let Some(pair) = data.timestamps.windows(2).find(|pair| pair[1] <= pair[0]) {
        return Err(bad(format!("the timestamps do not ascend at {}", pair[1])));
    }
    let stamped = data.timestamps.iter().copied().zip(data.values.iter().copied());
    match slot {
        Slot::Unknown => {
            Err(bad("the answer does not say, or not intelligibly, how long its slots are".to_owned()))
        }
        Slot::Inf if data.timestamps.len() > 1 => {
            Err(bad(format!("{} values where one for the whole time was due", data.timestamps.len())))
        }
        Slot::Inf => {
            let start = ask.from.at.as_millis();
            Ok(stamped.map(|(end, value)| Sampled { start, end, value }).collect())
        }
        Slot::Months(months) => stamped
            .map(|(end, value)| {
                let start = months_before(end, months).ok_or_else(|| bad(format!("{end} is no instant")))?;
                Ok(Sampled { start, end, value })
            })
            .collect(),
        Slot::Step(step) => {
            let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
            filled(stamped, step).map_err(bad)
        }
    }
}

/// Slots of one length; those that the answer leaves out are gaps.
fn filled(stamped: impl Iterator<Item = (i64, Option<f64>)>, step: i64) -> Result<Vec<Sampled>, String> {
    let mut slots: Vec<Sampled> = Vec::new();
    for (end, value) in stamped {
        let start = end.checked_sub(step).ok_or_else(|| format!("{end} is no instant"))?;
        if let Some(last) = slots.last().map(|slot| slot.end) {
            let missing = start.saturating_sub(last);
            if missing % step != 0 {
                return Err(format!("the timestamp {end} is no end of a slot of {} s", step / 1000));
            }
            if missing / step > MOST_SLOTS {
                return Err(format!("the timestamp {end} lies too far behind the one before it"));
            }
            let gaps = (0..missing / step).map(|i| Sampled {
                start: last + i * step,
                end: last + (i + 1) * step,
                value: None,
            });
            slots.extend(gaps);
        }
        slots.push(Sampled { start, end, value });
    }
    Ok(slots)
}

fn months_before(end: i64, months: i64) -> Option<i64> {
    let end = jiff::Timestamp::from_millisecond(end).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    Some(end.checked_sub(span(months, 'M')?).ok()?.timestamp().as_millisecond())
}
