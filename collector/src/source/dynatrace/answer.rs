//! The answers of the API as they travel, and only what of them is used. Unknown fields are left alone.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Answer of `GET /metrics/query`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetricData {
    #[serde(default)]
    pub(super) next_page_key: Option<String>,
    #[serde(default)]
    pub(super) resolution: Option<String>,
    #[serde(default)]
    pub(super) warnings: Option<Vec<String>>,
    pub(super) result: Vec<MetricResult>,
}

/// One expression of the selector.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetricResult {
    #[serde(default)]
    pub(super) metric_id: Option<String>,
    #[serde(default)]
    pub(super) warnings: Option<Vec<String>>,
    pub(super) data: Vec<DataSeries>,
}

/// One series; `null` is no data, and a `null` dimension is the remainder of all others.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DataSeries {
    #[serde(default)]
    pub(super) dimensions: Vec<Option<String>>,
    #[serde(default)]
    pub(super) dimension_map: BTreeMap<String, Option<String>>,
    /// Ends of the slots, epoch milliseconds.
    pub(super) timestamps: Vec<i64>,
    pub(super) values: Vec<Option<f64>>,
}

/// Answer of `GET /metrics/{key}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) unit: Option<String>,
    #[serde(default)]
    pub(super) entity_type: Option<Vec<String>>,
    #[serde(default)]
    pub(super) metric_id: Option<String>,
    /// Minutes by which its data may be late.
    #[serde(default)]
    pub(super) latency: Option<f64>,
    #[serde(default)]
    pub(super) dimension_definitions: Vec<DimensionDefinition>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct DimensionDefinition {
    #[serde(default)]
    pub(super) key: String,
}

/// A page of `GET /metrics`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetricPage {
    #[serde(default)]
    pub(super) next_page_key: Option<String>,
    #[serde(default)]
    pub(super) metrics: Vec<Descriptor>,
}

/// A page of `GET /entities`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntityPage {
    #[serde(default)]
    pub(super) next_page_key: Option<String>,
    #[serde(default)]
    pub(super) entities: Vec<Entity>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entity {
    #[serde(alias = "entityID")]
    pub(super) entity_id: String,
    #[serde(default)]
    pub(super) display_name: String,
    #[serde(default)]
    pub(super) from_relationships: Relationships,
    #[serde(default)]
    pub(super) to_relationships: Relationships,
    #[serde(default)]
    pub(super) tags: Vec<TagItem>,
    #[serde(default)]
    pub(super) management_zones: Vec<NamedItem>,
    #[serde(default)]
    pub(super) properties: Properties,
}

/// What an entity leads to, or what leads to it, as far as it was asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Relationships {
    #[serde(default)]
    pub(super) calls: Vec<EntityId>,
    /// Services that run on a process group instance.
    #[serde(default)]
    pub(super) runs_on_process_group_instance: Vec<EntityId>,
    /// The service of a request.
    #[serde(default)]
    pub(super) is_service_method_of_service: Vec<EntityId>,
    /// Services that run on a process group.
    #[serde(default)]
    pub(super) runs_on: Vec<EntityId>,
}

/// A tag; one without a value has none.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TagItem {
    #[serde(default)]
    pub(super) context: String,
    #[serde(default)]
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct NamedItem {
    #[serde(default)]
    pub(super) name: String,
}

/// The properties of an entity, as far as rules look at them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Properties {
    /// What the processes say about themselves.
    #[serde(default)]
    pub(super) metadata: Vec<Metadata>,
    #[serde(default)]
    pub(super) releases_version: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct EntityId {
    pub(super) id: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

/// A page of `GET /problems`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ProblemPage {
    #[serde(default)]
    pub(super) problems: Vec<ProblemItem>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProblemItem {
    pub(super) display_id: String,
    #[serde(default)]
    pub(super) title: String,
    /// Epoch milliseconds; the end of an open problem is -1, or absent.
    pub(super) start_time: i64,
    #[serde(default)]
    pub(super) end_time: Option<i64>,
    #[serde(default)]
    pub(super) root_cause_entity: Option<NamedEntity>,
    #[serde(default)]
    pub(super) affected_entities: Vec<NamedEntity>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamedEntity {
    pub(super) entity_id: EntityId,
    #[serde(default)]
    pub(super) name: String,
}

/// A page of `GET /slo`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectivePage {
    #[serde(default)]
    pub(super) slo: Vec<ObjectiveItem>,
    #[serde(default)]
    pub(super) next_page_key: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectiveItem {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default = "enabled")]
    pub(super) enabled: bool,
    /// Percent; -1 where it was not evaluated.
    #[serde(default)]
    pub(super) evaluated_percentage: Option<f64>,
    #[serde(default)]
    pub(super) error_budget: Option<f64>,
    /// `NONE`, or why it was not evaluated.
    #[serde(default)]
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) target: Option<f64>,
    #[serde(default)]
    pub(super) warning: Option<f64>,
    /// `-1w`, or `1664323200000 to 1664409600000` once it is evaluated.
    #[serde(default)]
    pub(super) timeframe: Option<String>,
    #[serde(default)]
    pub(super) filter: Option<String>,
    #[serde(default)]
    pub(super) metric_expression: Option<String>,
}

/// A page of `GET /events`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventPage {
    #[serde(default)]
    pub(super) events: Vec<EventItem>,
    #[serde(default)]
    pub(super) next_page_key: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventItem {
    pub(super) event_id: String,
    /// Epoch milliseconds.
    pub(super) start_time: i64,
    #[serde(default)]
    pub(super) event_type: String,
    /// An event of the environment as a whole has none.
    #[serde(default)]
    pub(super) entity_id: Option<NamedEntity>,
    #[serde(default)]
    pub(super) properties: Vec<EventProperty>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct EventProperty {
    #[serde(default)]
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: Option<String>,
}

/// Answer of `POST /events/ingest`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IngestAnswer {
    #[serde(default)]
    pub(super) event_ingest_results: Vec<IngestResult>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct IngestResult {
    #[serde(default)]
    pub(super) status: String,
}

/// Answer of `POST /apiTokens/lookup`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenInfo {
    #[serde(default = "enabled")]
    pub(super) enabled: bool,
    #[serde(default)]
    pub(super) expiration_date: Option<String>,
    #[serde(default)]
    pub(super) scopes: Vec<String>,
}

const fn enabled() -> bool {
    true
}

/// The step that an answer says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    Step(Duration),
    /// One value for the whole window.
    Inf,
}

/// Reads `1m`, `5m`, `1h`, `1d`, `1w` or `Inf` in any case; `None` for anything else.
pub(super) fn resolution(text: &str) -> Option<Resolution> {
    if text.eq_ignore_ascii_case("inf") {
        return Some(Resolution::Inf);
    }
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok().filter(|n| *n > 0)?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "M" => 30 * 86_400,
        "q" => 91 * 86_400,
        "y" => 365 * 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(|s| Resolution::Step(Duration::from_secs(s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions_are_read_in_every_form_seen() {
        let minutes = |m: u64| Some(Resolution::Step(Duration::from_secs(60 * m)));
        for (text, expected) in [
            ("1m", minutes(1)),
            ("10m", minutes(10)),
            ("1h", minutes(60)),
            ("1d", minutes(1440)),
            ("Inf", Some(Resolution::Inf)),
            ("iNF", Some(Resolution::Inf)),
            ("0m", None),
            ("m", None),
            ("", None),
            ("5x", None),
            ("99999999999999999999m", None),
        ] {
            assert_eq!(resolution(text), expected, "{text}");
        }
    }
}
