//! The JSON of an answer, with Dynatrace's number forms.

use super::table::{Row, Table};
use crate::entity::Registry;
use crate::selector::Expression;
use serde_json::{Map, Value, json};

/// `MetricData` of a request.
pub(super) fn metric_data(registry: &Registry, expressions: &[Expression], tables: &[Table]) -> Value {
    let total: usize = tables.iter().map(|t| t.rows.len()).sum();
    let resolution = tables.first().map(Table::resolution);
    let mut warnings: Vec<&String> = Vec::new();
    for warning in tables.iter().flat_map(|t| &t.warnings) {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    let mut out = Map::new();
    out.insert("totalCount".into(), json!(total));
    out.insert("nextPageKey".into(), Value::Null);
    out.insert("resolution".into(), json!(resolution));
    if !warnings.is_empty() {
        out.insert("warnings".into(), json!(warnings));
    }
    let result = expressions.iter().zip(tables).map(|(e, t)| metric(registry, e, t)).collect();
    out.insert("result".into(), Value::Array(result));
    Value::Object(out)
}

fn metric(registry: &Registry, expression: &Expression, table: &Table) -> Value {
    let mut out = Map::new();
    out.insert("metricId".into(), json!(expression.canonical));
    out.insert("dataPointCountRatio".into(), super::ratio(table.point_ratio));
    out.insert("dimensionCountRatio".into(), super::ratio(table.dimension_ratio));
    if !table.warnings.is_empty() {
        out.insert("warnings".into(), json!(table.warnings));
    }
    let stamps = if table.folded { vec![table.grid.to] } else { table.grid.stamps() };
    let data = table.rows.iter().map(|row| series(registry, table, row, &stamps)).collect();
    out.insert("data".into(), Value::Array(data));
    Value::Object(out)
}

fn series(registry: &Registry, table: &Table, row: &Row, stamps: &[i64]) -> Value {
    let mut dimensions = Vec::new();
    let mut map = Map::new();
    for (key, value) in table.keys.iter().zip(&row.dimensions) {
        if table.names {
            let name = value.as_deref().and_then(|id| registry.get(id)).map(|entity| entity.name.as_str());
            dimensions.push(json!(name));
            map.insert(format!("{key}.name"), json!(name));
        }
        dimensions.push(json!(value));
        map.insert((*key).into(), json!(value));
    }
    let values: Vec<Value> = row.values.iter().flatten().map(|v| v.map_or(Value::Null, number)).collect();
    json!({ "dimensions": dimensions, "dimensionMap": map, "timestamps": stamps, "values": values })
}

/// Whole numbers without a fraction, as Dynatrace writes counts; no value changes by it.
#[allow(clippy::cast_possible_truncation, clippy::float_cmp, reason = "compared to be exact")]
fn number(value: f64) -> Value {
    let whole = value as i64;
    if value.abs() < 9e15 && whole as f64 == value && !(whole == 0 && value.is_sign_negative()) {
        json!(whole)
    } else {
        json!(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_bits() {
        assert_eq!(number(1080.0).to_string(), "1080");
        assert_eq!(number(0.0).to_string(), "0");
        for value in [-0.0, 0.1 + 0.2, 1e300, 6_045.737_962_962_963, 9.1e15, -3.0] {
            let text = number(value).to_string();
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
        }
    }
}
