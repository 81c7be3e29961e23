//! The records of a DQL query, column by column: what `timeseries` and `makeTimeseries` answer.

use super::{Query, QueryAsk, QuerySeries, Slot};
use crate::source::dynatrace::Dynatrace;
use crate::source::dynatrace::billed::billed;
use crate::source::dynatrace::credential::Scheme;
use crate::source::dynatrace::grail::{DqlAsk, DqlResult};
use crate::source::dynatrace::unit::conversion;
use crate::source::{Failure, FailureKind};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::Timestamp;

/// Fields of a record that are no dimension of its series.
const OF_THE_GRID: [&str; 2] = ["timeframe", "interval"];
const NS_PER_MS: i64 = 1_000_000;

/// The grid of a record: where its first slot begins, where its last one ends, and how long each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source::dynatrace) struct Grid {
    pub(in crate::source::dynatrace) start: i64,
    pub(in crate::source::dynatrace) end: i64,
    /// In milliseconds.
    pub(in crate::source::dynatrace) step: i64,
}

/// One column of a record: a series.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::source::dynatrace) struct Column {
    pub(in crate::source::dynatrace) name: String,
    pub(in crate::source::dynatrace) dimensions: BTreeMap<String, Option<String>>,
    pub(in crate::source::dynatrace) grid: Grid,
    pub(in crate::source::dynatrace) values: Vec<Option<f64>>,
}

impl Dynatrace {
    pub(super) async fn record_series(&self, ask: &QueryAsk) -> Result<Vec<QuerySeries>, Failure> {
        let Query::Dql { query, scan_limit_gb, patience } = &ask.query else { return Ok(Vec::new()) };
        let (scan_limit_gb, patience) = (*scan_limit_gb, *patience);
        let dql = DqlAsk { query, from: ask.from.at, to: ask.to.at, scan_limit_gb, patience };
        let mut result = self.dql(&dql).await.map_err(|failure| self.with_hint(failure))?;
        result.note_scanned(!billed(query).is_empty());
        if result.records.is_empty() {
            let message = "the query has no record in this time; check its filters, and whether anything was written then";
            let failure = result.incomplete().unwrap_or_else(|| Failure::new(FailureKind::NoData, message));
            return Ok(vec![nameless(&result).refuse(&failure)]);
        }
        let records = result.records.iter();
        let read = records.map(|record| columns(record.as_ref()));
        let mut all = Vec::new();
        for columns in read {
            match columns {
                Err(failure) => all.push(nameless(&result).refuse(&failure)),
                Ok(columns) => {
                    all.extend(columns.into_iter().map(|one| series(one, &result, ask, self.client.now())))
                }
            }
        }
        Ok(all)
    }
}

impl Dynatrace {
    /// A refusal of a token that Grail takes in no case says so.
    fn with_hint(&self, failure: Failure) -> Failure {
        let refused = matches!(
            failure.kind,
            FailureKind::Unauthorized | FailureKind::Forbidden | FailureKind::NotFound
        );
        if !refused || self.client.scheme() == Scheme::Bearer {
            return failure;
        }
        let message = format!(
            "Grail takes no access token (dt0c01...); use a platform token (dt0s16...) or OAuth on https://<id>.apps.dynatrace.com ({})",
            failure.message
        );
        Failure { message, ..failure }
    }
}

fn nameless(result: &DqlResult) -> QuerySeries {
    QuerySeries {
        metric: String::new(),
        dimensions: BTreeMap::new(),
        unit: String::new(),
        resolution: Slot::Unknown,
        samples: Vec::new(),
        warnings: result.notes(),
        refused: None,
    }
}

fn series(column: Column, result: &DqlResult, ask: &QueryAsk, now: Timestamp) -> QuerySeries {
    let unit = conversion(result.unit_of(&column.name).unwrap_or_default(), "").unwrap_or_default();
    let step = u64::try_from(column.grid.step).unwrap_or(0);
    let mut series = QuerySeries {
        metric: column.name,
        dimensions: column.dimensions,
        unit: unit.unit.clone(),
        resolution: Slot::Step(Duration::from_millis(step)),
        ..nameless(result)
    };
    if let Some(failure) = result.incomplete().or_else(|| ask.too_coarse(series.resolution)) {
        return series.refuse(&failure);
    }
    let starts = (0..).map(|i: i64| column.grid.start + i * column.grid.step);
    let value = |v: Option<f64>| v.map(|v| unit.apply(v)).filter(|v| v.is_finite());
    let slots: Vec<(i64, Option<f64>)> =
        starts.zip(column.values).map(|(start, v)| (start, value(v))).collect();
    let total = slots.len();
    let ended = |start: i64| start.saturating_add(column.grid.step) <= now.as_millis();
    series.samples = slots.into_iter().filter(|(start, _)| ended(*start)).collect();
    if series.samples.len() < total {
        let left_out = total - series.samples.len();
        series.warnings.push(format!("{left_out} slots have not ended yet and are left out"));
    }
    // Grail computes only what lies within the time, and widens the time to whole slots.
    let partial =
        |start: i64| start < ask.from.at.as_millis() || start + column.grid.step > ask.to.at.as_millis();
    let partly = series.samples.iter().filter(|(start, _)| partial(*start)).count();
    if partly > 0 && !has_own_time(ask) {
        series.warnings.push(format!("{partly} slots lie only partly within the time that was asked for"));
    }
    series
}

/// Whether the query names a time itself, which wins over the one it is asked with.
fn has_own_time(ask: &QueryAsk) -> bool {
    matches!(&ask.query, Query::Dql { query, .. } if query.contains("from:") || query.contains("timeframe:"))
}

/// The series of a record.
pub(in crate::source::dynatrace) fn columns(
    record: Option<&Map<String, Value>>,
) -> Result<Vec<Column>, Failure> {
    let Some(record) = record else {
        return Err(Failure::new(FailureKind::BadAnswer, "a record of the answer is null"));
    };
    let Some(grid) = grid(record)? else {
        let fields = record.keys().map(String::as_str).take(5).collect::<Vec<_>>().join(", ");
        let message = format!(
            "the records are no series (they hold {fields}); use `timeseries`, or end the query with `makeTimeseries`"
        );
        return Err(Failure::new(FailureKind::NotASeries, message));
    };
    let mut columns: Vec<Column> = Vec::new();
    let mut dimensions = BTreeMap::new();
    for (name, value) in record.iter().filter(|(name, _)| !OF_THE_GRID.contains(&name.as_str())) {
        match value {
            Value::Array(values) => {
                if let Some(values) = values.iter().map(number).collect::<Option<Vec<_>>>() {
                    columns.push(Column { name: name.clone(), dimensions: BTreeMap::new(), grid, values });
                }
            }
            Value::Null => {
                dimensions.insert(name.clone(), None);
            }
            Value::String(text) => {
                dimensions.insert(name.clone(), Some(text.clone()));
            }
            other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
                dimensions.insert(name.clone(), Some(other.to_string()));
            }
        }
    }
    if columns.is_empty() {
        return Err(Failure::new(FailureKind::NotASeries, "a record has a time and no column of numbers"));
    }
    let slots = usize::try_from((grid.end - grid.start) / grid.step).unwrap_or(0);
    for column in &mut columns {
        if column.values.len() != slots {
            let message = format!(
                "`{}` has {} values for {slots} slots between the ends of its timeframe",
                column.name,
                column.values.len()
            );
            return Err(Failure::new(FailureKind::BadAnswer, message));
        }
        column.dimensions.clone_from(&dimensions);
    }
    Ok(columns)
}

/// A number, which may be written as a string; a gap; `None` for anything else.
#[allow(clippy::option_option, reason = "a gap is a value here")]
fn number(value: &Value) -> Option<Option<f64>> {
    match value {
        Value::Null => Some(None),
        Value::Number(number) => number.as_f64().map(Some),
        Value::String(text) => text.parse::<f64>().ok().map(Some),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The grid of a record; `None` where it has none.
fn grid(record: &Map<String, Value>) -> Result<Option<Grid>, Failure> {
    let (Some(timeframe), Some(interval)) = (record.get("timeframe"), record.get("interval")) else {
        return Ok(None);
    };
    let bad = || {
        Failure::new(FailureKind::BadAnswer, "the timeframe or the interval of a record is not understood")
    };
    let at = |key: &str| {
        let text = timeframe.get(key)?.as_str()?;
        Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())
    };
    let step = match interval {
        Value::String(text) => text.parse::<i64>().ok(),
        Value::Number(number) => number.as_i64(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let step = step.map(|ns| ns / NS_PER_MS).filter(|ms| *ms > 0).ok_or_else(bad)?;
    match (at("start"), at("end")) {
        (Some(start), Some(end)) if start < end => Ok(Some(Grid { start, end, step })),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Value) -> Result<Vec<Column>, Failure> {
        columns(value.as_object())
    }

    fn with(extra: Value) -> Value {
        let mut record = serde_json::json!({
            "timeframe": {"start": "2026-05-18T07:50:00.000000000+02:00", "end": "2026-05-18T07:53:00.000000000+02:00"},
            "interval": "60000000000",
        });
        record.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        record
    }

    #[test]
    fn a_record_has_a_series_for_each_column_of_numbers() {
        let read = record(with(serde_json::json!({
            "p95": [1.5, null, 3], "n": ["12", "0", null], "dt.entity.service": "SERVICE-1", "version": null
        })))
        .unwrap();
        assert_eq!(read.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["n", "p95"]);
        assert_eq!(read[0].values, [Some(12.0), Some(0.0), None], "longs are strings");
        assert_eq!(read[1].values, [Some(1.5), None, Some(3.0)]);
        assert_eq!(read[0].dimensions["dt.entity.service"].as_deref(), Some("SERVICE-1"));
        assert_eq!(read[0].dimensions["version"], None);
        let start: Timestamp = "2026-05-18T05:50:00Z".parse().unwrap();
        assert_eq!((read[0].grid.start, read[0].grid.step), (start.as_millis(), 60_000), "an offset is read");
    }

    #[test]
    fn what_is_no_series_is_refused_by_name() {
        let kind = |value: Value| record(value).unwrap_err().kind;
        assert_eq!(kind(serde_json::json!({"count()": "194414758"})), FailureKind::NotASeries);
        assert_eq!(kind(with(serde_json::json!({"host": "a", "words": ["x"]}))), FailureKind::NotASeries);
        assert_eq!(kind(with(serde_json::json!({"n": [1, 2]}))), FailureKind::BadAnswer, "a slot is missing");
        assert_eq!(kind(serde_json::json!({"timeframe": {}, "interval": "1"})), FailureKind::BadAnswer);
        assert_eq!(columns(None).unwrap_err().kind, FailureKind::BadAnswer);
    }
}
