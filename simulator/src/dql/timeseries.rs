//! `timeseries`: metrics on a grid of slots, one record per combination of dimension values.

use super::error::DqlError;
use super::evaluate::Scope;
use super::frame::Frame;
use super::metrics::{metadata, resolve};
use super::time::{duration_ms, duration_ns};
use super::token::Span;
use super::tree::{Argument, Command, Expression, Node, duration_text};
use super::value::{Cell, Record};
use crate::grid::{DEFAULT_POINTS, POINTS_LIMIT, POINTS_TOLERANCE, Slot, ceil, floor, step_for_points};
use crate::metric::{Metric, Shape};
use crate::point::{Aggregation, Point};
use crate::query::{DATA_POINTS_LIMIT, Series};
use crate::time::MINUTE;
use serde_json::Value;
use std::collections::BTreeMap;

/// A `timeseries` command.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Timeseries {
    aggregates: Vec<Aggregate>,
    /// Field and dimension.
    by: Vec<(String, String)>,
    filter: Option<Node>,
    interval_ms: Option<i64>,
    bins: Option<f64>,
    union: bool,
    nonempty: bool,
    shift_ms: i64,
}

/// One aggregation of a metric.
#[derive(Debug, Clone, PartialEq)]
struct Aggregate {
    field: String,
    name: String,
    how: Aggregation,
    key: String,
    span: Span,
    default: Option<f64>,
    filter: Option<Node>,
    rate_ns: Option<i64>,
    is_scalar: bool,
}

/// What a command found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Found {
    /// The records.
    pub(super) records: Vec<Record>,
    /// Descriptions of the metrics.
    pub(super) metrics: Vec<Value>,
    /// The grid's beginning and end.
    pub(super) timeframe: Option<(i64, i64)>,
    /// Points read.
    pub(super) points: i64,
    /// Metric keys that are not there.
    pub(super) unknown: Vec<String>,
}

/// By dimension values: one thing per aggregation, or per slot.
type Groups<T> = BTreeMap<Vec<Option<String>>, Vec<Option<T>>>;

impl Timeseries {
    /// Gives a command its meaning; parameters of time are read by the [`Frame`].
    ///
    /// # Errors
    /// Where an argument is unknown or impossible.
    pub(super) fn from_command(command: &Command) -> Result<Self, DqlError> {
        let mut series = Self::default();
        for argument in &command.arguments {
            series.take(argument)?;
        }
        if series.aggregates.is_empty() {
            let message = "timeseries needs an aggregation such as avg(dt.host.cpu.usage).";
            return Err(DqlError::syntax("PARAMETER_MISSING", message, command.span));
        }
        Ok(series)
    }

    fn take(&mut self, argument: &Argument) -> Result<(), DqlError> {
        let value = &argument.value;
        let Some((name, span)) = &argument.name else {
            return match value.list().filter(|_| argument.alias.is_none()) {
                Some(inner) => inner.iter().try_for_each(|argument| self.take(argument)),
                None => Aggregate::from_argument(argument).map(|a| self.aggregates.push(a)),
            };
        };
        match name.as_str() {
            "by" => self.by = dimensions(value)?,
            "filter" => self.filter = Some(value.clone()),
            "interval" => self.interval_ms = Some(positive(duration_ms(value)?, value.span)?),
            "bins" => self.bins = Some(number(value)?.max(1.0)),
            "union" => self.union = value.expression == Expression::Boolean(true),
            "nonempty" => self.nonempty = value.expression == Expression::Boolean(true),
            "shift" => {
                self.shift_ms = match value.negated() {
                    Some(inner) => -duration_ms(inner)?,
                    None => duration_ms(value)?,
                }
            }
            "from" | "to" | "timeframe" => {}
            _ => return Err(DqlError::unsupported(&format!("the parameter {name}"), *span)),
        }
        Ok(())
    }

    /// The slots: start floored and end ceiled to the interval.
    fn grid(&self, (from, to): (i64, i64), native: i64) -> Vec<Slot> {
        let window = to - from;
        let wanted = match (self.interval_ms, self.bins) {
            (Some(interval), _) => ceil(interval.max(MINUTE), native),
            (None, Some(bins)) => step_for_points(window, bins),
            (None, None) => step_for_points(window, DEFAULT_POINTS * POINTS_TOLERANCE),
        };
        let fits = if window / wanted > POINTS_LIMIT {
            #[allow(clippy::cast_precision_loss, reason = "a small number")]
            step_for_points(window, POINTS_LIMIT as f64)
        } else {
            wanted
        };
        let step = fits.max(native);
        let (start, end) = (floor(from, step), ceil(to, step));
        let mut slots = Vec::new();
        let mut at = start;
        while at < end {
            slots.push(Slot { start: at, end: at + step });
            at += step;
        }
        slots
    }

    /// The dimensions that the command and one of its aggregations name.
    fn named(&self, aggregate: &Aggregate) -> Vec<String> {
        let mut names: Vec<String> = self.by.iter().map(|(_, dimension)| dimension.clone()).collect();
        for filter in self.filter.iter().chain(&aggregate.filter) {
            collect_names(filter, &mut names);
        }
        names
    }

    /// Reads the metrics.
    ///
    /// # Errors
    /// Where a metric has not the aggregation, a filter is wrong, or too much would be read.
    pub(super) fn run(&self, frame: &Frame) -> Result<Found, DqlError> {
        let metrics = frame.world.metrics();
        let resolved: Vec<Option<usize>> =
            self.aggregates.iter().map(|a| resolve(metrics, &a.key, &self.named(a))).collect();
        let tuples = resolved.iter().flatten().flat_map(|i| frame.world.tuples(*i));
        let native = tuples.map(|t| t.native).max().unwrap_or(MINUTE);
        let slots = self.grid(frame.window, native);
        let mut found = Found::default();
        let mut groups = Groups::<Cell>::new();
        for (index, (aggregate, metric)) in self.aggregates.iter().zip(resolved).enumerate() {
            let Some(metric) = metric else {
                found.unknown.push(aggregate.key.clone());
                continue;
            };
            let described = &metrics[metric];
            aggregate.check(described)?;
            found.metrics.push(aggregate.metadata(described));
            let (series, points) = self.series(frame, aggregate, metric, &slots)?;
            found.points += points;
            for (dimensions, points) in series {
                let cells = groups.entry(dimensions).or_insert_with(|| vec![None; self.aggregates.len()]);
                cells[index] = Some(aggregate.cell(&points, &slots, frame.scan_limit));
            }
        }
        if groups.is_empty() && self.nonempty && self.by.is_empty() {
            groups.insert(Vec::new(), vec![None; self.aggregates.len()]);
        } else if !self.union {
            groups.retain(|_, cells| cells.iter().all(Option::is_some));
        }
        let timeframe = (slots.first().map_or(0, |s| s.start), slots.last().map_or(0, |s| s.end));
        found.timeframe = Some(timeframe);
        found.records = groups.into_iter().map(|(d, c)| self.record(d, c, &slots, timeframe)).collect();
        Ok(found)
    }

    /// The points of one metric by dimension values, and how many were read.
    fn series(
        &self,
        frame: &Frame,
        aggregate: &Aggregate,
        metric: usize,
        slots: &[Slot],
    ) -> Result<(Groups<Point>, i64), DqlError> {
        let keys = &frame.world.metrics()[metric].dimensions;
        let shifted: Vec<Slot> = slots
            .iter()
            .map(|s| Slot { start: s.start + self.shift_ms, end: s.end + self.shift_ms })
            .collect();
        let mut groups = Groups::<Point>::new();
        let mut read = 0;
        for tuple in frame.world.tuples(metric) {
            let value = |name: &str| {
                keys.iter().position(|k| *k == name).and_then(|i| tuple.dimensions.get(i)).cloned()
            };
            let fields = |name: &str| Some(value(name).map_or(Cell::Null, Cell::Text));
            let scope = Scope { fields: &fields, registry: frame.world.registry() };
            let mut holds = true;
            for filter in self.filter.iter().chain(&aggregate.filter) {
                holds = holds && scope.holds(filter)?;
            }
            if !holds {
                continue;
            }
            read += slots.iter().map(|s| (s.end - s.start) / tuple.native).sum::<i64>();
            #[allow(clippy::cast_precision_loss, reason = "a number of points")]
            if read as f64 > DATA_POINTS_LIMIT {
                let message = "The query reads too many data points. Narrow its timeframe or its filter.";
                return Err(DqlError::syntax("TOO_MANY_DATA_POINTS", message, aggregate.span));
            }
            let points = Series { world: frame.world, metric, tuple }.read(&shifted, frame.visibility);
            if points.iter().any(Option::is_some) {
                let dimensions = self.by.iter().map(|(_, dimension)| value(dimension)).collect();
                let group = groups.entry(dimensions).or_insert_with(|| vec![None; slots.len()]);
                merge(group, points);
            }
        }
        Ok((groups, read))
    }

    fn record(
        &self,
        dimensions: Vec<Option<String>>,
        cells: Vec<Option<Cell>>,
        slots: &[Slot],
        (start, end): (i64, i64),
    ) -> Record {
        let step = slots.first().map_or(MINUTE, |s| s.end - s.start);
        let mut record = Record::default();
        record.set("timeframe", Cell::Timeframe(start, end));
        record.set("interval", Cell::Duration(step.saturating_mul(1_000_000)));
        for ((field, _), value) in self.by.iter().zip(dimensions) {
            record.set(field, value.map_or(Cell::Null, Cell::Text));
        }
        for (aggregate, cell) in self.aggregates.iter().zip(cells) {
            let nothing = || {
                if aggregate.is_scalar {
                    Cell::Null
                } else {
                    Cell::Array(vec![aggregate.default; slots.len()])
                }
            };
            record.set(&aggregate.field, cell.unwrap_or_else(nothing));
        }
        record
    }
}

fn merge(group: &mut [Option<Point>], points: Vec<Option<Point>>) {
    for (mine, theirs) in group.iter_mut().zip(points) {
        match (mine.as_mut(), theirs) {
            (Some(mine), Some(theirs)) => mine.merge(&theirs),
            (None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }
}

impl Aggregate {
    fn from_argument(argument: &Argument) -> Result<Self, DqlError> {
        let value = &argument.value;
        let Expression::Call(name, arguments) = &value.expression else {
            let message = "An aggregation such as avg(dt.host.cpu.usage) is expected.";
            return Err(DqlError::syntax("AGGREGATION_EXPECTED", message, value.span));
        };
        let plain: Vec<&Node> = arguments.iter().filter(|a| a.name.is_none()).map(|a| &a.value).collect();
        let how = match (name.as_str(), plain.as_slice()) {
            ("avg", [_]) => Aggregation::Avg,
            ("min", [_]) => Aggregation::Min,
            ("max", [_]) => Aggregation::Max,
            ("sum", [_]) => Aggregation::Sum,
            ("count", [_]) => Aggregation::Count,
            ("median", [_]) => Aggregation::Median,
            ("percentile", [_, percent]) => match number(percent)? {
                p if (0.0..=100.0).contains(&p) => Aggregation::Percentile(p),
                _ => {
                    let message = "A percentile is a number from 0 to 100.";
                    return Err(DqlError::syntax("INVALID_PERCENTILE", message, percent.span));
                }
            },
            _ => return Err(DqlError::unsupported(&format!("the aggregation {value}"), value.span)),
        };
        let named = plain.first().and_then(|node| Some((node.name()?.to_owned(), node.span)));
        let Some((key, span)) = named else {
            let message = "A metric key is expected.";
            return Err(DqlError::syntax("METRIC_KEY_EXPECTED", message, value.span));
        };
        let field = argument.alias.clone().unwrap_or_else(|| value.to_string());
        let mut aggregate = Self {
            field,
            name: name.clone(),
            how,
            key,
            span,
            default: None,
            filter: None,
            rate_ns: None,
            is_scalar: false,
        };
        for (name, span, value) in
            arguments.iter().filter_map(|a| a.name.as_ref().map(|(n, s)| (n, s, &a.value)))
        {
            match name.as_str() {
                "default" => aggregate.default = Some(number(value)?),
                "filter" => aggregate.filter = Some(value.clone()),
                "rate" => aggregate.rate_ns = Some(positive(duration_ns(value)?, value.span)?),
                "scalar" => aggregate.is_scalar = value.expression == Expression::Boolean(true),
                _ => return Err(DqlError::unsupported(&format!("the parameter {name}"), *span)),
            }
        }
        Ok(aggregate)
    }

    /// Percentiles need the distribution, which only timings have.
    fn check(&self, metric: &Metric) -> Result<(), DqlError> {
        let is_percentile = matches!(self.how, Aggregation::Percentile(_) | Aggregation::Median);
        if is_percentile && matches!(metric.shape, Shape::Counter | Shape::Gauge) {
            let message =
                format!("The aggregation {} isn't possible for the metric {}.", self.name, self.key);
            return Err(DqlError::syntax("AGGREGATION_NOT_SUPPORTED", message, self.span).about(&self.key));
        }
        Ok(())
    }

    fn metadata(&self, metric: &Metric) -> Value {
        let mut metadata = metadata(&self.key, metric, &self.field, &self.name);
        metadata["scalar"] = Value::Bool(self.is_scalar);
        if let Some(rate) = self.rate_ns {
            metadata["rate"] = Value::String(duration_text(rate));
        }
        metadata
    }

    /// The values of a series; at the scan limit the first half is missing.
    fn cell(&self, points: &[Option<Point>], slots: &[Slot], scan_limit: bool) -> Cell {
        let skipped = if scan_limit { points.len() / 2 } else { 0 };
        let seen = || points.iter().enumerate().map(|(i, p)| p.as_ref().filter(|_| i >= skipped));
        if self.is_scalar {
            let whole = seen().flatten().cloned().reduce(|mut all, point| {
                all.merge(&point);
                all
            });
            let window =
                slots.last().zip(slots.first()).map_or(MINUTE, |(last, first)| last.end - first.start);
            return self.value(whole.as_ref(), window).map_or(Cell::Null, Cell::Double);
        }
        Cell::Array(seen().zip(slots).map(|(p, slot)| self.value(p, slot.end - slot.start)).collect())
    }

    fn value(&self, point: Option<&Point>, length_ms: i64) -> Option<f64> {
        let value = point.map(|p| p.aggregate(self.how));
        #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a slot")]
        let rated = match self.rate_ns {
            Some(rate) => value.map(|v| v * (rate as f64 / (length_ms as f64 * 1e6))),
            None => value,
        };
        rated.or(self.default)
    }
}

/// `by:{a, b = c}` or `by:a`: fields and dimensions.
fn dimensions(node: &Node) -> Result<Vec<(String, String)>, DqlError> {
    let one = |alias: Option<&str>, node: &Node| {
        let name = node
            .name()
            .ok_or_else(|| DqlError::syntax("DIMENSION_EXPECTED", "A dimension is expected.", node.span))?;
        Ok((alias.unwrap_or(name).to_owned(), name.to_owned()))
    };
    match node.list() {
        Some(items) => items.iter().map(|a| one(a.alias.as_deref(), &a.value)).collect(),
        None => Ok(vec![one(None, node)?]),
    }
}

fn number(node: &Node) -> Result<f64, DqlError> {
    if let Expression::Number(number, _) = node.expression {
        return Ok(number);
    }
    let refuse = || DqlError::syntax("NUMBER_EXPECTED", "A number is expected.", node.span);
    number(node.negated().ok_or_else(refuse)?).map(|n| -n)
}

fn positive(duration: i64, span: Span) -> Result<i64, DqlError> {
    if duration > 0 {
        Ok(duration)
    } else {
        Err(DqlError::syntax("DURATION_EXPECTED", "A duration above zero is expected.", span))
    }
}

/// The names in an expression.
fn collect_names(node: &Node, names: &mut Vec<String>) {
    match &node.expression {
        Expression::Name(name) => names.push(name.clone()),
        Expression::List(arguments) | Expression::Call(_, arguments) => {
            arguments.iter().for_each(|a| collect_names(&a.value, names));
        }
        Expression::Not(inner) | Expression::Minus(inner) | Expression::Aligned(inner, _) => {
            collect_names(inner, names);
        }
        Expression::Binary(_, a, b) => {
            collect_names(a, names);
            collect_names(b, names);
        }
        Expression::Number(..)
        | Expression::Text(_)
        | Expression::Boolean(_)
        | Expression::Null
        | Expression::Duration(_) => {}
    }
}
