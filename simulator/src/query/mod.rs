//! Answers to `metrics/query`: a pure function of world, request, present and data faults.

mod combine;
mod csv;
mod render;
mod table;

pub(crate) use csv::csv;

use crate::entity::{EntitySelector, Registry, kind_of_dimension};
use crate::error::ApiError;
use crate::grid::{Grid, Slot, Wish, Wishes};
use crate::noise::{stream, uniform};
use crate::point::Point;
use crate::selector::{Condition, Expression, Operand, Step, parse};
use crate::time::{self, HOUR, MINUTE};
use crate::world::lines::LogEntry;
use crate::world::{Tuple, World};
use combine::{Side, combine};
use serde_json::{Value, json};
use table::{Row, Table};

/// Most entities that a selector may find.
const ENTITIES_LIMIT: usize = 5_000;
/// Denominator of `dimensionCountRatio`.
const TUPLES_LIMIT: f64 = 100_000.0;
/// Denominator of `dataPointCountRatio`.
pub(crate) const DATA_POINTS_LIMIT: f64 = 20_000_000.0;

/// The parameters of a query, as they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    /// `metricSelector`.
    pub(crate) selector: Option<String>,
    /// `entitySelector`.
    pub(crate) entities: Option<String>,
    /// `resolution`.
    pub(crate) resolution: Option<String>,
    /// `from`.
    pub(crate) from: Option<String>,
    /// `to`.
    pub(crate) to: Option<String>,
}

/// When a point can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visibility {
    /// The present.
    pub(crate) now: i64,
    /// Least and greatest time that a point takes to appear after the end of its slot.
    pub(crate) settle_ms: (i64, i64),
    /// Later than that by so much (a fault).
    pub(crate) late_ms: i64,
    /// Whether points appear at once, incomplete, and are rewritten when they settle (a fault).
    pub(crate) rewritten: bool,
}

impl Visibility {
    /// Whether a line of a log has appeared; each has its own delay.
    pub(crate) fn sees_line(&self, line: &LogEntry) -> bool {
        self.now >= line.at_ms.saturating_add(self.delay(line.seed, line.at_ms))
    }

    /// How long something takes to appear.
    fn delay(&self, seed: u64, key: i64) -> i64 {
        let (low, high) = self.settle_ms;
        let chance = if low < high { uniform(seed, key) } else { 0.0 };
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "minutes")]
        let delay = low + ((high - low) as f64 * chance) as i64;
        delay + self.late_ms
    }

    /// What can be seen of a point whose slot ends at `end`; its delay depends on series and slot alone.
    fn see(&self, point: Point, series_seed: u64, end: i64) -> Option<Point> {
        let settle = self.delay(series_seed, end / MINUTE);
        if self.now >= end + settle {
            Some(point)
        } else if self.rewritten && self.now >= end {
            Some(point.scaled(0.6))
        } else {
            None
        }
    }
}

/// What every expression of a request shares.
struct Context<'a> {
    world: &'a dyn World,
    entities: Option<EntitySelector>,
    window: (i64, i64),
    visibility: Visibility,
}

/// Answers a query.
///
/// # Errors
/// 400 for what cannot be parsed or is not supported, 404 for an unknown metric, each in Dynatrace's words.
pub(crate) fn answer(world: &dyn World, params: &Params, visibility: Visibility) -> Result<Value, ApiError> {
    let selector = params.selector.as_deref().filter(|s| !s.trim().is_empty()).ok_or_else(|| {
        ApiError::query("nextPageKey", "expected one of nextPageKey or metricSelector to be specified")
    })?;
    let expressions = parse(selector)?;
    let wishes = params.resolution.as_deref().map_or_else(|| Ok(Wishes::default()), Wishes::parse)?;
    let entities = params.entities.as_deref().map(EntitySelector::parse).transpose()?;
    let window = window(params, visibility.now)?;
    if let Some(selector) = &entities
        && world.registry().find(selector).len() > ENTITIES_LIMIT
    {
        return Err(ApiError::query(
            "entitySelector",
            format!("The selector finds more than {ENTITIES_LIMIT} entities; narrow it"),
        ));
    }
    let context = Context { world, entities, window, visibility };
    let mut tables = Vec::new();
    for (index, expression) in expressions.iter().enumerate() {
        let native = context.native(expression).unwrap_or(MINUTE);
        tables.push(context.evaluate(expression, wishes.at(index), (native, 0))?);
    }
    Ok(render::metric_data(world.registry(), &expressions, &tables))
}

fn window(params: &Params, now: i64) -> Result<(i64, i64), ApiError> {
    let read = |text: &Option<String>, name, default| match text {
        None => Ok(default),
        Some(text) => time::parse(text, now).map_err(|e| ApiError::query(name, e)),
    };
    let to = read(&params.to, "to", now)?;
    let from = read(&params.from, "from", now - 2 * HOUR)?;
    if from >= to {
        return Err(ApiError::query(
            "from",
            format!("The timeframe is empty: from ({from}) must lie before to ({to})"),
        ));
    }
    // Ten years: what no retention holds, and an end to how much can be asked of the grid.
    if to - from > 3_660 * time::DAY {
        return Err(ApiError::query("from", "The timeframe must not be longer than ten years"));
    }
    Ok((from, to))
}

impl Context<'_> {
    /// Longest native slots of the metrics of arithmetic, which share a grid; `None` where there is one metric alone.
    fn native(&self, expression: &Expression) -> Option<i64> {
        let operation = expression.operation.as_ref()?;
        let of = |operand: &Operand| match operand {
            Operand::Number(_) => MINUTE,
            Operand::Series(e) => self.native(e).unwrap_or_else(|| {
                let metric = self.world.metrics().iter().position(|m| m.key == e.key);
                let tuples = metric.map_or(&[][..], |index| self.world.tuples(index));
                tuples.iter().map(|t| t.native).max().unwrap_or(MINUTE)
            }),
        };
        Some(of(&operation.left).max(of(&operation.right)))
    }

    /// The series of an expression, on slots of at least this length, from a window shifted so far.
    fn evaluate(
        &self,
        expression: &Expression,
        wish: Wish,
        (native, shift): (i64, i64),
    ) -> Result<Table, ApiError> {
        let own = expression.steps.iter().map(|step| if let Step::Timeshift(ms) = step { *ms } else { 0 });
        let shift = shift + own.sum::<i64>();
        let mut table = match &expression.operation {
            None => self.metric(expression, wish, (native, shift))?,
            Some(operation) => {
                let of = |operand: &Operand| match operand {
                    Operand::Number(number) => Ok(Side::Number(*number)),
                    Operand::Series(e) => {
                        self.evaluate(e, wish, (native, shift)).map(|table| Side::Series(Box::new(table)))
                    }
                };
                combine(operation.operator, of(&operation.left)?, of(&operation.right)?)?
            }
        };
        let mut warnings = Vec::new();
        for step in &expression.steps {
            unknown_keys(step, &table, &mut warnings);
            table.apply(step, self.world.registry())?;
        }
        table.finish();
        table.warnings.extend(warnings);
        Ok(table)
    }

    /// The series of a metric as they are stored.
    fn metric(
        &self,
        expression: &Expression,
        wish: Wish,
        (native, shift): (i64, i64),
    ) -> Result<Table, ApiError> {
        let metrics = self.world.metrics();
        let index = metrics
            .iter()
            .position(|m| m.key == expression.key)
            .ok_or_else(|| ApiError::not_found(format!("Metric with key '{}' not found.", expression.key)))?;
        let metric = &metrics[index];
        let leading = self.leading_filters(expression);
        let dimensions = &metric.dimensions;
        let tuples: Vec<&Tuple> = self
            .world
            .tuples(index)
            .iter()
            .filter(|tuple| self.allows(tuple))
            .filter(|tuple| {
                let values: Vec<Option<String>> = tuple.dimensions.iter().cloned().map(Some).collect();
                leading.iter().all(|c| table::holds(c, dimensions, &values, None, self.world.registry()))
            })
            .collect();
        let native = tuples.iter().map(|t| t.native).max().unwrap_or(MINUTE).max(native);
        // What is shifted is as old as where it was read.
        let grid = Grid::lay(wish, self.window, self.visibility.now - shift, native);
        self.check_points(tuples.len(), native)?;
        let slots: Vec<Slot> =
            grid.slots.iter().map(|s| Slot { start: s.start + shift, end: s.end + shift }).collect();
        let rows = tuples
            .iter()
            .map(|tuple| Row {
                dimensions: tuple.dimensions.iter().cloned().map(Some).collect(),
                points: Series { world: self.world, metric: index, tuple }.read(&slots, self.visibility),
                values: None,
            })
            .filter(|row| row.points.iter().any(Option::is_some))
            .collect();
        #[allow(clippy::cast_precision_loss, reason = "counts of tuples and points")]
        let (tuples_read, points_read) = (tuples.len() as f64, grid.points_read() as f64);
        let mut table = Table::new(metric, grid, rows);
        table.dimension_ratio = tuples_read / TUPLES_LIMIT;
        table.point_ratio = tuples_read * points_read / DATA_POINTS_LIMIT;
        Ok(table)
    }

    /// Refuses what would read more than Dynatrace allows.
    fn check_points(&self, tuples: usize, native: i64) -> Result<(), ApiError> {
        #[allow(clippy::cast_precision_loss, reason = "counts of tuples and points")]
        let points = tuples as f64 * (self.window.1 - self.window.0) as f64 / native as f64;
        if points > DATA_POINTS_LIMIT {
            return Err(ApiError::bad(format!(
                "The query reads more than {DATA_POINTS_LIMIT} data points. Narrow the timeframe or the entities"
            )));
        }
        Ok(())
    }

    /// Filters on dimensions that stand before anything else: they decide what is read.
    fn leading_filters<'e>(&self, expression: &'e Expression) -> Vec<&'e Condition> {
        let filters = expression.steps.iter().map_while(|step| match step {
            Step::Filter(condition) if !condition.needs_values() => Some(condition),
            Step::Filter(_)
            | Step::SplitBy(_)
            | Step::Merge(_)
            | Step::Aggregate(_)
            | Step::Fold(_)
            | Step::Names
            | Step::Default { .. }
            | Step::Sort(_)
            | Step::Limit(_)
            | Step::Rate(_)
            | Step::ToUnit(..)
            | Step::Timeshift(_)
            | Step::Delta
            | Step::SkipFirst
            | Step::SetUnit => None,
        });
        filters.collect()
    }

    /// The entity selector restricts the first dimension.
    fn allows(&self, tuple: &Tuple) -> bool {
        let Some(selector) = &self.entities else { return true };
        let registry = self.world.registry();
        tuple
            .dimensions
            .first()
            .and_then(|id| registry.get(id))
            .is_some_and(|e| selector.matches(e, registry))
    }
}

/// A series of a metric as it is read: the world, the index of the metric, and the series.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Series<'a> {
    /// The world.
    pub(crate) world: &'a dyn World,
    /// The metric.
    pub(crate) metric: usize,
    /// The series.
    pub(crate) tuple: &'a Tuple,
}

impl Series<'_> {
    /// The visible points, merged into slots.
    pub(crate) fn read(self, slots: &[Slot], visibility: Visibility) -> Vec<Option<Point>> {
        let Self { world, metric, tuple } = self;
        let seed = stream(0, &tuple.dimensions.join("/"));
        let read_slot = |start: i64, end: i64| {
            // What has not ended cannot have been written.
            let end = end.min(visibility.now);
            let points = world.points(metric, tuple, start, end);
            let mut all: Option<Point> = None;
            let mut at = start;
            for point in points {
                at += tuple.native;
                let Some(point) = point.and_then(|p| visibility.see(p, seed, at)) else { continue };
                match &mut all {
                    None => all = Some(point),
                    Some(all) => all.merge(&point),
                }
            }
            all
        };
        slots.iter().map(|slot| read_slot(slot.start, slot.end)).collect()
    }
}

/// Warnings about dimension keys that the metric has not.
fn unknown_keys(step: &Step, table: &Table, warnings: &mut Vec<String>) {
    let mut keys: Vec<&str> = Vec::new();
    match step {
        Step::SplitBy(names) | Step::Merge(names) => keys.extend(names.iter().map(String::as_str)),
        Step::Filter(condition) => condition.keys(&mut keys),
        Step::Aggregate(_)
        | Step::Fold(_)
        | Step::Names
        | Step::Default { .. }
        | Step::Sort(_)
        | Step::Limit(_)
        | Step::Rate(_)
        | Step::ToUnit(..)
        | Step::Timeshift(_)
        | Step::Delta
        | Step::SkipFirst
        | Step::SetUnit => {}
    }
    for key in keys.into_iter().filter(|key| !table.keys.contains(key)) {
        let mut text =
            format!("The dimension key `{key}` has been referenced, but the metric has no such key.");
        if let Some(kind) = kind_of_dimension(key)
            && !Registry::knows_kind(&kind)
        {
            text = format!("{text} Note: `{}` is not a known entity type.", kind.to_lowercase());
        }
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }
}

/// A ratio as answered: seven decimals.
fn ratio(value: f64) -> Value {
    json!((value * 1e7).round() / 1e7)
}
