//! A record of Logs v2 or of Grail as a line: when, how severe, what, and who wrote it. Pure.

use crate::source::{Failure, FailureKind};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use vouch_proto::{LogLevel, LogOrigin};

/// Fields that are asked for.
pub(super) const FIELDS: [&str; 13] = [
    "timestamp",
    "content",
    "loglevel",
    "status",
    SERVICE,
    INSTANCE,
    GROUP,
    "dt.entity.host",
    "dt.source_entity",
    "host.name",
    "k8s.pod.name",
    "log.source",
    WARNINGS,
];
pub(super) const SERVICE: &str = "dt.entity.service";
pub(super) const GROUP: &str = "dt.entity.process_group";
const INSTANCE: &str = "dt.entity.process_group_instance";
/// Dynatrace notes here what it did to a record when it took it in.
const WARNINGS: &str = "dt.ingest.warnings";
/// The warnings that mean that the content was cut.
const TRIMMED: &str = "content_trimmed";

/// A record of Logs v2.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogRecord {
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    additional_columns: BTreeMap<String, Option<Vec<Option<String>>>>,
}

/// A line, before it is known whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawLine {
    pub(super) at_ms: i64,
    pub(super) level: LogLevel,
    pub(super) content: String,
    pub(super) truncated: bool,
    /// Ids of the services that it names.
    pub(super) services: Vec<String>,
    /// Ids of the processes that it names.
    pub(super) instances: Vec<String>,
    /// Ids of the process groups that it names.
    pub(super) groups: Vec<String>,
    /// All but the host as series name it.
    pub(super) origin: LogOrigin,
}

/// Finds the values of a field.
type Values<'a> = &'a dyn Fn(&str) -> Vec<String>;

impl TryFrom<LogRecord> for RawLine {
    type Error = Failure;

    fn try_from(record: LogRecord) -> Result<Self, Failure> {
        let at_ms = record.timestamp.ok_or_else(|| bad("a record has no timestamp"))?;
        let values = |name: &str| {
            let column = record.additional_columns.get(name).cloned().flatten().unwrap_or_default();
            column.into_iter().flatten().filter(|text| !text.is_empty()).collect()
        };
        Ok(Self::new((at_ms, record.content.unwrap_or_default()), record.status.as_deref(), &values))
    }
}

impl RawLine {
    /// From a record of a DQL query.
    pub(super) fn of_grail(record: &mut Map<String, Value>) -> Result<Self, Failure> {
        let stamp = record.get("timestamp").and_then(Value::as_str);
        let at_ms = stamp.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let at_ms = at_ms.ok_or_else(|| bad("a record has no timestamp that can be read"))?.as_millisecond();
        let content = match record.remove("content") {
            Some(Value::String(text)) => text,
            None | Some(Value::Null) => String::new(),
            Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
                other.to_string()
            }
        };
        let values = |name: &str| record.get(name).map(texts).unwrap_or_default();
        let status = values("status").into_iter().next();
        Ok(Self::new((at_ms, content), status.as_deref(), &values))
    }

    fn new((at_ms, content): (i64, String), status: Option<&str>, values: Values<'_>) -> Self {
        let first = |name: &str| values(name).into_iter().next();
        let word = first("loglevel").filter(|word| LogLevel::of_word(word) != LogLevel::None);
        let level = LogLevel::of_word(word.as_deref().or(status).unwrap_or_default());
        let mut instances = values(INSTANCE);
        let source = first("dt.source_entity").filter(|id| id.starts_with("PROCESS_GROUP_INSTANCE-"));
        instances.extend(source.filter(|id| !instances.contains(id)));
        let origin = LogOrigin {
            host: None,
            process: instances.first().cloned(),
            pod: first("k8s.pod.name"),
            machine: first("host.name").or_else(|| first("dt.entity.host")),
            entity: None,
            stream: first("log.source"),
        };
        let truncated = values(WARNINGS).iter().any(|warning| warning.starts_with(TRIMMED));
        let (services, groups) = (values(SERVICE), values(GROUP));
        Self { at_ms, level, content, truncated, services, instances, groups, origin }
    }
}

fn bad(message: &str) -> Failure {
    Failure::new(FailureKind::BadAnswer, message)
}

/// The texts of a field that has one value or several.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if !text.is_empty() => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::Number(number) => vec![number.to_string()],
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Object(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn classic(value: Value) -> Result<RawLine, Failure> {
        RawLine::try_from(serde_json::from_value::<LogRecord>(value).unwrap())
    }

    #[test]
    fn both_forms_of_a_record_are_the_same_line() {
        let columns = json!({"loglevel": ["SEVERE"], "dt.entity.service": ["SERVICE-1"], "host.name": ["node-7"],
            "dt.entity.process_group": ["PROCESS_GROUP-1"], "dt.entity.process_group_instance": ["PROCESS_GROUP_INSTANCE-1"],
            "k8s.pod.name": ["pod-1"], "log.source": ["stdout"], "dt.ingest.warnings": ["content_trimmed_pipe"], "empty": null});
        let one = classic(json!({"timestamp": 1_795_003_200_123_i64, "status": "ERROR", "eventType": "LOG",
            "content": "it broke", "additionalColumns": columns}))
        .unwrap();
        let mut record = json!({"timestamp": "2026-11-18T13:00:00.123456789+01:00", "status": "ERROR", "content": "it broke",
            "loglevel": "SEVERE", "dt.entity.service": "SERVICE-1", "host.name": "node-7",
            "dt.entity.process_group": ["PROCESS_GROUP-1"], "dt.source_entity": "PROCESS_GROUP_INSTANCE-1",
            "k8s.pod.name": "pod-1", "log.source": "stdout", "dt.ingest.warnings": ["content_trimmed_pipe"]});
        let other = RawLine::of_grail(record.as_object_mut().unwrap()).unwrap();
        assert_eq!(one, other);
        assert_eq!((one.level, one.truncated, one.at_ms), (LogLevel::Error, true, 1_795_003_200_123));
        assert_eq!(one.instances, ["PROCESS_GROUP_INSTANCE-1"]);
        assert_eq!(one.origin.machine.as_deref(), Some("node-7"));
    }

    #[test]
    fn a_record_may_have_next_to_nothing_but_a_time() {
        let line = classic(json!({"timestamp": 5, "status": "WARN"})).unwrap();
        assert_eq!((line.content.as_str(), line.level, line.services.len()), ("", LogLevel::Warn, 0));
        assert_eq!(classic(json!({"content": "x"})).unwrap_err().kind, FailureKind::BadAnswer);
        let mut wrong = json!({"timestamp": "yesterday"});
        assert_eq!(
            RawLine::of_grail(wrong.as_object_mut().unwrap()).unwrap_err().kind,
            FailureKind::BadAnswer
        );
        let mut number = json!({"timestamp": "2026-11-18T12:00:00Z", "content": 7, "loglevel": null});
        assert_eq!(RawLine::of_grail(number.as_object_mut().unwrap()).unwrap().content, "7");
    }
}
