//! Arithmetic with series: joined on their dimensions, point by point.

use super::table::{Row, Table};
use crate::error::ApiError;
use crate::selector::Operator;

/// One side of an operation.
#[derive(Debug)]
pub(super) enum Side {
    /// A number.
    Number(f64),
    /// Series.
    Series(Box<Table>),
}

/// Combines two sides.
///
/// # Errors
/// 400 where there is no series, or each side has dimensions that the other has not.
pub(super) fn combine(operator: Operator, left: Side, right: Side) -> Result<Table, ApiError> {
    match (left, right) {
        (Side::Series(table), Side::Number(b)) => Ok(with_number(*table, |a| operator.apply(a, b))),
        (Side::Number(a), Side::Series(table)) => Ok(with_number(*table, |b| operator.apply(a, b))),
        (Side::Series(left), Side::Series(right)) => join(operator, *left, *right),
        (Side::Number(_), Side::Number(_)) => Err(ApiError::bad("Arithmetic needs a metric")),
    }
}

fn with_number(mut table: Table, apply: impl Fn(f64) -> Option<f64>) -> Table {
    for value in table.rows.iter_mut().flat_map(|row| row.values.iter_mut().flatten()) {
        *value = value.and_then(&apply);
    }
    table.compound = true;
    table
}

/// Joins series on the dimensions of the side that has fewer; those of the other stay.
fn join(operator: Operator, left: Table, right: Table) -> Result<Table, ApiError> {
    let within = |a: &Table, b: &Table| a.keys.iter().all(|key| b.keys.contains(key));
    let left_is_finer = within(&right, &left);
    if !left_is_finer && !within(&left, &right) {
        return Err(ApiError::bad(
            "Arithmetic with series that have different dimensions is not supported by this simulator",
        ));
    }
    let (mut fine, coarse) = if left_is_finer { (left, right) } else { (right, left) };
    let shared: Vec<usize> =
        coarse.keys.iter().filter_map(|key| fine.keys.iter().position(|k| k == key)).collect();
    let apply = |f: f64, c: f64| if left_is_finer { operator.apply(f, c) } else { operator.apply(c, f) };
    let mut rows = Vec::new();
    for row in std::mem::take(&mut fine.rows) {
        let key: Vec<&Option<String>> = shared.iter().map(|i| &row.dimensions[*i]).collect();
        let Some(other) = coarse.rows.iter().find(|r| r.dimensions.iter().eq(key.iter().copied())) else {
            continue;
        };
        let values = paired(&row, other, apply);
        rows.push(Row { values: Some(values), points: Vec::new(), dimensions: row.dimensions });
    }
    fine.rows = rows;
    fine.folded = fine.folded && coarse.folded;
    fine.names |= coarse.names;
    fine.dimension_ratio += coarse.dimension_ratio;
    fine.point_ratio += coarse.point_ratio;
    fine.warnings.extend(coarse.warnings);
    fine.compound = true;
    Ok(fine)
}

/// Point by point; the only point of a folded side goes with each of the other's.
fn paired(a: &Row, b: &Row, apply: impl Fn(f64, f64) -> Option<f64>) -> Vec<Option<f64>> {
    let (a, b) = (a.values.as_deref().unwrap_or_default(), b.values.as_deref().unwrap_or_default());
    let at = |values: &[Option<f64>], i: usize| match values {
        [one] => *one,
        all => all.get(i).copied().flatten(),
    };
    (0..a.len().max(b.len())).map(|i| at(a, i).zip(at(b, i)).and_then(|(a, b)| apply(a, b))).collect()
}
