//! Values of records, their types, and how both are written.

use crate::time::MINUTE;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

/// A value of a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// No value.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A text.
    Text(String),
    /// A floating-point number.
    Double(f64),
    /// A whole number; a text in JSON.
    Long(i64),
    /// Nanoseconds; a text in JSON.
    Duration(i64),
    /// An instant, epoch milliseconds.
    Timestamp(i64),
    /// From and to, epoch milliseconds.
    Timeframe(i64, i64),
    /// One number per slot.
    Array(Vec<Option<f64>>),
}

/// The fields of a record in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Record(pub(super) Vec<(String, Cell)>);

impl Record {
    /// The value of a field.
    pub(super) fn get(&self, name: &str) -> Option<&Cell> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, cell)| cell)
    }

    /// Sets a field, in its place if it is there.
    pub(super) fn set(&mut self, name: &str, cell: Cell) {
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = cell,
            None => self.0.push((name.to_owned(), cell)),
        }
    }

    /// The JSON, its times in a time zone.
    pub(crate) fn json(&self, zone: &TimeZone) -> Value {
        let fields = self.0.iter().map(|(name, cell)| (name.clone(), cell.json(zone)));
        Value::Object(fields.collect())
    }

    fn types(&self) -> Value {
        let fields = self.0.iter().map(|(name, cell)| (name.clone(), cell.type_json()));
        Value::Object(fields.collect::<Map<_, _>>())
    }
}

impl Cell {
    /// As text, where it is one.
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// As a number, where it is one.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Double(number) => Some(*number),
            #[allow(clippy::cast_precision_loss, reason = "compared, not shown")]
            Self::Long(number) | Self::Duration(number) | Self::Timestamp(number) => Some(*number as f64),
            Self::Null | Self::Boolean(_) | Self::Text(_) | Self::Timeframe(..) | Self::Array(_) => None,
        }
    }

    /// `not` of it.
    pub(super) fn negation(&self) -> Self {
        if let Self::Boolean(value) = self { Self::Boolean(!value) } else { Self::Null }
    }

    /// The number with the other sign.
    pub(super) fn negative(&self) -> Self {
        match self {
            Self::Long(number) => Self::Long(-number),
            Self::Duration(number) => Self::Duration(-number),
            Self::Double(number) => Self::Double(-number),
            Self::Null
            | Self::Boolean(_)
            | Self::Text(_)
            | Self::Timestamp(_)
            | Self::Timeframe(..)
            | Self::Array(_) => Self::Null,
        }
    }

    /// The number of elements of an array.
    pub(super) fn size(&self) -> Self {
        let Self::Array(values) = self else { return Self::Null };
        Self::Long(i64::try_from(values.len()).unwrap_or(i64::MAX))
    }

    fn json(&self, zone: &TimeZone) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => json!(value),
            Self::Text(text) => json!(text),
            Self::Double(number) => json!(number),
            Self::Long(number) | Self::Duration(number) => json!(number.to_string()),
            Self::Timestamp(at) => json!(timestamp(*at, zone)),
            Self::Timeframe(start, end) => {
                json!({ "start": timestamp(*start, zone), "end": timestamp(*end, zone) })
            }
            Self::Array(values) => json!(values),
        }
    }

    fn type_json(&self) -> Value {
        let name = match self {
            Self::Null => "undefined",
            Self::Boolean(_) => "boolean",
            Self::Text(_) => "string",
            Self::Double(_) => "double",
            Self::Long(_) => "long",
            Self::Duration(_) => "duration",
            Self::Timestamp(_) => "timestamp",
            Self::Timeframe(..) => "timeframe",
            Self::Array(values) => {
                let element = json!({ "element": { "type": "double" } });
                let range = json!([0, values.len().saturating_sub(1)]);
                return json!({ "type": "array", "types": [{ "indexRange": range, "mappings": element }] });
            }
        };
        json!({ "type": name })
    }
}

/// `types` of records: one entry per run of records of the same types, both ends included.
pub(crate) fn types(records: &[Record]) -> Vec<Value> {
    let mut found: Vec<(usize, usize, Value)> = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let mappings = record.types();
        match found.last_mut() {
            Some((_, last, same)) if *same == mappings => *last = index,
            _ => found.push((index, index, mappings)),
        }
    }
    let entry = |(first, last, mappings)| json!({ "indexRange": [first, last], "mappings": mappings });
    found.into_iter().map(entry).collect()
}

/// A time with nanoseconds, in a time zone: `Z` for UTC, else its offset.
pub(crate) fn timestamp(at_ms: i64, zone: &TimeZone) -> String {
    let Ok(at) = Timestamp::from_millisecond(at_ms) else { return String::new() };
    let zoned = at.to_zoned(zone.clone());
    let local = zoned.datetime();
    let seconds = i64::from(zoned.offset().seconds());
    let offset = match seconds {
        0 => "Z".to_owned(),
        _ => {
            let minutes = seconds.abs() * 1000 / MINUTE;
            format!("{}{:02}:{:02}", if seconds < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
        }
    };
    let (date, time) = (local.date(), local.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}{offset}",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.subsec_nanosecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds_and_the_offset_of_the_day() {
        let vienna = TimeZone::get("Europe/Vienna").unwrap();
        for (at, zone, expected) in [
            (1_692_788_400_000, &TimeZone::UTC, "2023-08-23T11:00:00.000000000Z"),
            (1_779_083_400_000, &vienna, "2026-05-18T07:50:00.000000000+02:00"),
            (1_795_003_200_000, &vienna, "2026-11-18T13:00:00.000000000+01:00"),
            (
                1_795_003_200_123,
                &TimeZone::fixed(jiff::tz::offset(-5)),
                "2026-11-18T07:00:00.123000000-05:00",
            ),
        ] {
            assert_eq!(timestamp(at, zone), expected);
        }
    }

    #[test]
    fn records_of_other_types_have_their_own_range() {
        let record = |cell| Record(vec![("a".into(), cell)]);
        let records = [record(Cell::Long(5)), record(Cell::Long(7)), record(Cell::Text("x".into()))];
        assert_eq!(
            types(&records),
            [
                json!({"indexRange": [0, 1], "mappings": {"a": {"type": "long"}}}),
                json!({"indexRange": [2, 2], "mappings": {"a": {"type": "string"}}}),
            ]
        );
        assert_eq!(records[0].json(&TimeZone::UTC), json!({"a": "5"}), "whole numbers are texts");
        let array = Cell::Array(vec![Some(1.5), None, Some(2.0)]);
        assert_eq!(array.json(&TimeZone::UTC), json!([1.5, null, 2.0]));
        assert_eq!(
            array.type_json(),
            json!({"type": "array", "types": [{"indexRange": [0, 2], "mappings": {"element": {"type": "double"}}}]})
        );
    }
}
