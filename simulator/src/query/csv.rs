//! An answer as a CSV table.

use crate::dql::timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// The table of `MetricData`: metric, dimensions, slot end in UTC, value; a gap is an empty value.
pub(crate) fn csv(answer: &Value, with_header: bool) -> String {
    let results: Vec<&Value> = answer["result"].as_array().into_iter().flatten().collect();
    let columns = columns(&results);
    let mut table = String::new();
    if with_header {
        let names = columns.iter().map(|name| field(name));
        let header: Vec<String> =
            std::iter::once("metricId".into()).chain(names).chain(["time".into(), "value".into()]).collect();
        table.push_str(&header.join(","));
        table.push('\n');
    }
    for result in results {
        let metric = field(result["metricId"].as_str().unwrap_or_default());
        for series in result["data"].as_array().into_iter().flatten() {
            let dimensions: Vec<String> = columns
                .iter()
                .map(|name| field(series["dimensionMap"][name.as_str()].as_str().unwrap_or_default()))
                .collect();
            let stamps = series["timestamps"].as_array().into_iter().flatten();
            for (stamp, value) in stamps.zip(series["values"].as_array().into_iter().flatten()) {
                let mut row = vec![metric.clone()];
                row.extend_from_slice(&dimensions);
                row.push(time(stamp.as_i64().unwrap_or_default()));
                row.push(if value.is_null() { String::new() } else { value.to_string() });
                table.push_str(&row.join(","));
                table.push('\n');
            }
        }
    }
    table
}

/// The dimension keys of all series in the order of their dimensions, names before ids.
fn columns(results: &[&Value]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for series in results.iter().flat_map(|r| r["data"].as_array().into_iter().flatten()) {
        let Some(map) = series["dimensionMap"].as_object() else { continue };
        let values: Vec<&Value> = series["dimensions"].as_array().into_iter().flatten().collect();
        let place = |key: &&String| values.iter().position(|v| **v == map[key.as_str()]);
        let mut keys: Vec<&String> = map.keys().collect();
        keys.sort_by_key(place);
        for key in keys {
            if !columns.contains(key) {
                columns.push(key.clone());
            }
        }
    }
    columns
}

fn time(at_ms: i64) -> String {
    timestamp(at_ms, &TimeZone::UTC).chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// A field, in quotes where it needs them.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_and_headers() {
        let answer = json!({"result": [{"metricId": "a:splitBy(\"k\",\"l\")", "data": [
            {"dimensions": ["Z", "HOST-1"], "dimensionMap": {"k": "HOST-1", "k.name": "Z"},
             "timestamps": [1_553_601_600_000_i64, 1_553_601_660_000_i64], "values": [7.5, null]}]}]});
        let expected = "metricId,k.name,k,time,value\n\
                        \"a:splitBy(\"\"k\"\",\"\"l\"\")\",Z,HOST-1,2019-03-26 12:00:00,7.5\n\
                        \"a:splitBy(\"\"k\"\",\"\"l\"\")\",Z,HOST-1,2019-03-26 12:01:00,\n";
        assert_eq!(csv(&answer, true), expected);
        assert_eq!(csv(&answer, false).lines().count(), 2);
        assert_eq!(csv(&json!({"result": []}), true), "metricId,time,value\n");
    }
}
