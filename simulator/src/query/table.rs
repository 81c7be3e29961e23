//! The series of one expression, and what each transformation makes of them.

use crate::entity::Registry;
use crate::error::ApiError;
use crate::grid::Grid;
use crate::metric::Metric;
use crate::point::{Aggregation, Point};
use crate::selector::{Condition, Sort, Step};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Dimension values.
    pub(super) dimensions: Vec<Option<String>>,
    /// What is stored, by slot.
    pub(super) points: Vec<Option<Point>>,
    /// What an aggregation has made of it.
    pub(super) values: Option<Vec<Option<f64>>>,
}

/// The series of one expression.
#[derive(Debug)]
pub(super) struct Table {
    metric: Metric,
    /// Dimension keys.
    pub(super) keys: Vec<&'static str>,
    /// The series.
    pub(super) rows: Vec<Row>,
    /// Its grid.
    pub(super) grid: Grid,
    /// Whether one point stands for the whole window.
    pub(super) folded: bool,
    /// Whether names of entities are wanted.
    pub(super) names: bool,
    /// Share of the tuples that may be read.
    pub(super) dimension_ratio: f64,
    /// Share of the points that may be read.
    pub(super) point_ratio: f64,
    /// Warnings.
    pub(super) warnings: Vec<String>,
    /// Whether it is the result of arithmetic.
    pub(super) compound: bool,
    aggregated: Option<Aggregation>,
    merged: bool,
}

/// Whether a condition holds for dimension values; `series` aggregates the values of the series.
pub(super) fn holds(
    condition: &Condition,
    keys: &[&'static str],
    values: &[Option<String>],
    series: Option<&dyn Fn(Aggregation) -> Option<f64>>,
    registry: &Registry,
) -> bool {
    let again = |c: &Condition| holds(c, keys, values, series, registry);
    let value = |key: &str| keys.iter().position(|k| *k == key).and_then(|i| values[i].as_deref());
    match condition {
        Condition::All(inner) => inner.iter().all(again),
        Condition::Any(inner) => inner.iter().any(again),
        Condition::Not(inner) => !again(inner),
        Condition::Eq(key, wanted) => value(key) == Some(wanted),
        Condition::Ne(key, wanted) => value(key).is_some_and(|v| v != wanted),
        Condition::Prefix(key, wanted) => value(key).is_some_and(|v| v.starts_with(wanted.as_str())),
        Condition::Suffix(key, wanted) => value(key).is_some_and(|v| v.ends_with(wanted.as_str())),
        Condition::Contains(key, wanted) => value(key).is_some_and(|v| v.contains(wanted.as_str())),
        Condition::In(key, selector) => value(key)
            .and_then(|id| registry.get(id))
            .is_some_and(|entity| selector.matches(entity, registry)),
        Condition::ExistsKey(key) => keys.contains(&key.as_str()),
        Condition::Remainder(key) => keys.contains(&key.as_str()) && value(key).is_none(),
        Condition::Series(by, compare, limit) => {
            series.and_then(|aggregate| aggregate(*by)).is_some_and(|v| compare.holds(v, *limit))
        }
    }
}

/// An aggregation over finished values.
fn over(values: impl Iterator<Item = f64>, aggregation: Aggregation) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    #[allow(clippy::cast_precision_loss, reason = "a number of values")]
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    Some(match aggregation {
        Aggregation::Min => values.into_iter().fold(f64::INFINITY, f64::min),
        Aggregation::Max => values.into_iter().fold(f64::NEG_INFINITY, f64::max),
        Aggregation::Sum | Aggregation::Value => values.into_iter().sum(),
        Aggregation::Count => n,
        Aggregation::Avg | Aggregation::Median | Aggregation::Percentile(_) => {
            values.into_iter().sum::<f64>() / n
        }
    })
}

/// How values that were aggregated so are joined further, across slots (`:fold`) or series (`:merge`).
fn joins_as(aggregated: Aggregation) -> Aggregation {
    match aggregated {
        // Dynatrace's own example has availabilities above 100 % after `:avg:fold`.
        Aggregation::Avg | Aggregation::Sum | Aggregation::Count | Aggregation::Value => Aggregation::Sum,
        Aggregation::Min => Aggregation::Min,
        Aggregation::Max => Aggregation::Max,
        Aggregation::Median | Aggregation::Percentile(_) => Aggregation::Avg,
    }
}

impl Row {
    /// One number for the whole series.
    fn overall(&self, aggregation: Aggregation) -> Option<f64> {
        match &self.values {
            Some(values) => over(values.iter().flatten().copied(), aggregation),
            None => whole(&self.points).map(|point| point.aggregate(aggregation)),
        }
    }
}

fn whole(points: &[Option<Point>]) -> Option<Point> {
    points.iter().flatten().cloned().reduce(|mut all, point| {
        all.merge(&point);
        all
    })
}

impl Table {
    /// The series as read.
    pub(super) fn new(metric: &Metric, grid: Grid, rows: Vec<Row>) -> Self {
        Self {
            keys: metric.dimensions.clone(),
            metric: metric.clone(),
            rows,
            folded: grid.step.is_none(),
            grid,
            names: false,
            dimension_ratio: 0.0,
            point_ratio: 0.0,
            warnings: Vec::new(),
            compound: false,
            aggregated: None,
            merged: false,
        }
    }

    /// The resolution as answered: arithmetic with what was folded has none but `Inf`.
    pub(super) fn resolution(&self) -> String {
        if self.compound && self.folded { "Inf".into() } else { self.grid.label() }
    }

    /// Applies one transformation.
    ///
    /// # Errors
    /// 400 for an aggregation that the metric has not.
    pub(super) fn apply(&mut self, step: &Step, registry: &Registry) -> Result<(), ApiError> {
        match step {
            Step::SplitBy(names) => {
                if names.iter().any(|n| !self.keys.contains(&n.as_str())) {
                    self.rows.clear();
                }
                let keys = self.keys.clone();
                self.keep(names.iter().filter_map(|n| keys.iter().position(|k| k == n)).collect());
            }
            Step::Merge(names) => {
                let kept = self.keys.iter().enumerate().filter(|(_, key)| !names.iter().any(|n| n == *key));
                let kept = kept.map(|(i, _)| i).collect();
                self.keep(kept);
            }
            Step::Filter(condition) => {
                let keys = self.keys.clone();
                self.rows.retain(|row| {
                    holds(condition, &keys, &row.dimensions, Some(&|a| row.overall(a)), registry)
                });
            }
            Step::Aggregate(aggregation) => self.aggregate(*aggregation)?,
            Step::Fold(aggregation) => self.fold(*aggregation)?,
            Step::Names => self.names = true,
            Step::Default { value, always } => self.fill(*value, *always)?,
            Step::Sort(sort) => self.sort(sort),
            Step::Limit(n) => self.rows.truncate(*n),
            Step::Rate(per_ms) => self.rate(*per_ms)?,
            Step::ToUnit(from, to) => self.convert(from, to)?,
            Step::Delta => self.neighbours(|before, value| before.map(|b| (value - b).max(0.0)))?,
            Step::SkipFirst => self.neighbours(|before, value| before.map(|_| value))?,
            // What is read is shifted, and units are of the descriptor.
            Step::Timeshift(_) | Step::SetUnit => {}
        }
        Ok(())
    }

    /// Aggregates what no transformation has aggregated.
    pub(super) fn finish(&mut self) {
        let aggregation = self.metric.default_aggregation();
        self.compute(aggregation);
    }

    fn keep(&mut self, kept: Vec<usize>) {
        self.merged = true;
        self.keys = kept.iter().map(|i| self.keys[*i]).collect();
        let aggregated = self.aggregated;
        let mut groups: Vec<Row> = Vec::new();
        let mut index: HashMap<Vec<Option<String>>, usize> = HashMap::new();
        for row in std::mem::take(&mut self.rows) {
            let dimensions: Vec<Option<String>> = kept.iter().map(|i| row.dimensions[*i].clone()).collect();
            match index.entry(dimensions.clone()) {
                Entry::Vacant(free) => {
                    free.insert(groups.len());
                    groups.push(Row { dimensions, ..row });
                }
                Entry::Occupied(taken) => join(&mut groups[*taken.get()], &row, aggregated),
            }
        }
        self.rows = groups;
    }

    fn aggregate(&mut self, aggregation: Option<Aggregation>) -> Result<(), ApiError> {
        let aggregation = aggregation.unwrap_or_else(|| self.metric.default_aggregation());
        if self.aggregated.is_none() && !self.allows(aggregation) {
            return Err(ApiError::bad(format!(
                "The aggregation '{}' is not supported by the metric '{}'. Supported aggregations: {}",
                aggregation.name(),
                self.metric.key,
                self.metric.aggregation_names().join(", ")
            )));
        }
        self.compute(aggregation);
        Ok(())
    }

    /// After a split or merge any aggregation is allowed, but for those that need the distribution.
    fn allows(&self, aggregation: Aggregation) -> bool {
        let simple =
            matches!(aggregation, Aggregation::Avg | Aggregation::Min | Aggregation::Max | Aggregation::Sum);
        self.metric.has(aggregation) || (self.merged && simple)
    }

    fn compute(&mut self, aggregation: Aggregation) {
        if self.aggregated.is_some() {
            return;
        }
        self.aggregated = Some(aggregation);
        for row in &mut self.rows {
            row.values =
                Some(row.points.iter().map(|p| p.as_ref().map(|p| p.aggregate(aggregation))).collect());
        }
    }

    fn fold(&mut self, aggregation: Option<Aggregation>) -> Result<(), ApiError> {
        self.folded = true;
        for row in &mut self.rows {
            match (&row.values, self.aggregated) {
                // The result of arithmetic has no aggregation that could be gone on with.
                (Some(_), _) if self.compound => {
                    row.values = Some(vec![row.overall(aggregation.unwrap_or(Aggregation::Avg))]);
                }
                (Some(_), Some(aggregated)) => row.values = Some(vec![row.overall(joins_as(aggregated))]),
                _ => row.points = vec![whole(&row.points)],
            }
        }
        match aggregation {
            Some(_) if self.aggregated.is_none() => self.aggregate(aggregation),
            _ => Ok(()),
        }
    }

    fn fill(&mut self, value: f64, always: bool) -> Result<(), ApiError> {
        self.aggregate(None)?;
        let slots = if self.folded { 1 } else { self.grid.slots.len() };
        if self.rows.is_empty() && always && self.keys.is_empty() {
            self.rows.push(Row {
                dimensions: Vec::new(),
                points: Vec::new(),
                values: Some(vec![None; slots]),
            });
        } else if self.rows.is_empty() {
            self.warnings.push("The default transformation requires at least one written data point.".into());
        }
        for row in &mut self.rows {
            for filled in row.values.iter_mut().flatten() {
                filled.get_or_insert(value);
            }
        }
        Ok(())
    }

    fn sort(&mut self, sort: &Sort) {
        match sort {
            Sort::Value { aggregation, descending } => {
                let by = aggregation.unwrap_or_else(|| self.metric.default_aggregation());
                let mut keyed: Vec<(Option<f64>, Row)> =
                    std::mem::take(&mut self.rows).into_iter().map(|row| (row.overall(by), row)).collect();
                keyed.sort_by(|(a, _), (b, _)| match (a, b) {
                    (Some(a), Some(b)) if *descending => b.total_cmp(a),
                    (Some(a), Some(b)) => a.total_cmp(b),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (None, None) => Ordering::Equal,
                });
                self.rows = keyed.into_iter().map(|(_, row)| row).collect();
            }
            Sort::Dimension { key, descending } => {
                let Some(index) = self.keys.iter().position(|k| k == key) else { return };
                self.rows.sort_by(|a, b| {
                    let order = a.dimensions[index].cmp(&b.dimensions[index]);
                    if *descending { order.reverse() } else { order }
                });
            }
        }
    }

    fn rate(&mut self, per_ms: i64) -> Result<(), ApiError> {
        self.aggregate(None)?;
        let window: i64 = self.grid.slots.iter().map(|s| s.end - s.start).sum();
        let length = match self.grid.step {
            Some(step) if !self.folded => step,
            _ => window,
        };
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of a window")]
        let factor = per_ms as f64 / length as f64;
        self.scale(factor);
        Ok(())
    }

    fn convert(&mut self, from: &str, to: &str) -> Result<(), ApiError> {
        self.aggregate(None)?;
        let (Some(a), Some(b)) = (unit(from), unit(to)) else {
            let unknown = if unit(from).is_none() { from } else { to };
            return Err(ApiError::bad(format!("No unit found using the Unit Id: '{unknown}'.")));
        };
        if a.0 == b.0 {
            self.scale(a.1 / b.1);
        } else {
            self.warnings.push(format!("SourceUnit '{from}' cannot be converted to targetUnit '{to}'."));
        }
        Ok(())
    }

    /// Makes of each point what the one before it says.
    fn neighbours(&mut self, apply: fn(Option<f64>, f64) -> Option<f64>) -> Result<(), ApiError> {
        self.aggregate(None)?;
        for values in self.rows.iter_mut().filter_map(|row| row.values.as_mut()) {
            let mut before = None;
            for value in values {
                let now = *value;
                *value = now.and_then(|v| apply(before, v));
                before = now;
            }
        }
        Ok(())
    }

    fn scale(&mut self, factor: f64) {
        for value in self.rows.iter_mut().flat_map(|row| row.values.iter_mut().flatten()).flatten() {
            *value *= factor;
        }
    }
}

fn join(group: &mut Row, row: &Row, aggregated: Option<Aggregation>) {
    for (mine, theirs) in group.points.iter_mut().zip(&row.points) {
        match (mine.as_mut(), theirs) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (None, Some(theirs)) => *mine = Some(theirs.clone()),
            (_, None) => {}
        }
    }
    if let (Some(mine), Some(theirs), Some(aggregated)) = (group.values.as_mut(), &row.values, aggregated) {
        for (mine, theirs) in mine.iter_mut().zip(theirs) {
            *mine = over(mine.iter().chain(theirs).copied(), joins_as(aggregated));
        }
    }
}

/// A unit's quantity and its size there.
fn unit(id: &str) -> Option<(&'static str, f64)> {
    Some(match id {
        "NanoSecond" => ("time", 1e-3),
        "MicroSecond" => ("time", 1.0),
        "MilliSecond" => ("time", 1e3),
        "Second" => ("time", 1e6),
        "Minute" => ("time", 6e7),
        "Hour" => ("time", 3.6e9),
        "Byte" => ("size", 1.0),
        "KiloByte" => ("size", 1e3),
        "MegaByte" => ("size", 1e6),
        "GigaByte" => ("size", 1e9),
        "Percent" => ("share", 1.0),
        "Ratio" => ("share", 100.0),
        "Count" => ("count", 1.0),
        "PerMinute" => ("rate", 1.0),
        "PerSecond" => ("rate", 60.0),
        _ => return None,
    })
}
