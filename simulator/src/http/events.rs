//! `/api/v2/events`: what was deployed, and what was sent in.

use super::App;
use super::auth::Caller;
use super::input::{Parameters, body};
use super::page::{First, Pages};
use crate::entity::{Entity, EntitySelector};
use crate::error::ApiError;
use crate::noise::hash;
use crate::scan::{self, Arg};
use crate::time::{DAY, HOUR, MINUTE};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Most events kept.
const EVENTS_LIMIT: usize = 10_000;
const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1_000;
/// The types that may be sent in.
const TYPES: [&str; 11] = [
    "AVAILABILITY_EVENT",
    "CUSTOM_ALERT",
    "CUSTOM_ANNOTATION",
    "CUSTOM_CONFIGURATION",
    "CUSTOM_DEPLOYMENT",
    "CUSTOM_INFO",
    "ERROR_EVENT",
    "MARKED_FOR_TERMINATION",
    "PERFORMANCE_EVENT",
    "RESOURCE_CONTENTION_EVENT",
    "WARNING",
];

/// An event.
#[derive(Debug, Clone)]
struct Event {
    id: String,
    correlation_id: String,
    kind: String,
    title: String,
    start_ms: i64,
    end_ms: Option<i64>,
    entity_id: String,
    entity_name: String,
    properties: Vec<(String, String)>,
}

impl Event {
    fn is_open(&self, now: i64) -> bool {
        self.end_ms.is_none_or(|end| end > now)
    }

    fn json(&self, now: i64) -> Value {
        let open = self.is_open(now);
        let properties: Vec<Value> =
            self.properties.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        json!({
            "eventId": self.id,
            "startTime": self.start_ms,
            "endTime": if open { -1 } else { self.end_ms.unwrap_or(-1) },
            "eventType": self.kind,
            "title": self.title,
            "entityId": {
                "entityId": { "id": self.entity_id, "type": crate::entity::kind_of(&self.entity_id) },
                "name": self.entity_name,
            },
            "properties": properties,
            "status": if open { "OPEN" } else { "CLOSED" },
            "correlationId": self.correlation_id,
            "entityTags": [],
            "managementZones": [],
            "underMaintenance": false,
            "suppressAlert": false,
            "suppressProblem": false,
            "frequentEvent": false,
        })
    }
}

/// The events sent in, the newest ones.
#[derive(Debug, Default)]
pub(crate) struct EventStore {
    events: Mutex<VecDeque<Event>>,
}

impl EventStore {
    fn push(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == EVENTS_LIMIT {
            events.pop_front();
        }
        events.push_back(event);
    }

    fn list(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// An event to take in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingest {
    event_type: String,
    title: String,
    start_time: Option<i64>,
    end_time: Option<i64>,
    timeout: Option<i64>,
    entity_selector: Option<String>,
    /// Absent and `null` are the same.
    #[serde(default, deserialize_with = "null_is_empty")]
    properties: Map<String, Value>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Ingest {
    /// Whether the type opens a problem, which narrows the times allowed.
    fn opens_problem(&self) -> bool {
        matches!(
            self.event_type.as_str(),
            "AVAILABILITY_EVENT"
                | "CUSTOM_ALERT"
                | "ERROR_EVENT"
                | "PERFORMANCE_EVENT"
                | "RESOURCE_CONTENTION_EVENT"
        )
    }

    fn check(&self) -> Result<(), ApiError> {
        if !TYPES.contains(&self.event_type.as_str()) {
            let message =
                format!("'{}' is unknown; one of {} is expected", self.event_type, TYPES.join(", "));
            return Err(ApiError::body("eventType", message));
        }
        if self.title.trim().is_empty() || self.title.chars().count() > 500 {
            return Err(ApiError::body("title", "must have 1 to 500 characters"));
        }
        if self.properties.len() > 100 {
            return Err(ApiError::body("properties", "must not have more than 100 entries"));
        }
        let too_long = |(key, value): (&String, &Value)| {
            key.chars().count() > 100 || value.as_str().is_none_or(|v| v.chars().count() > 4_096)
        };
        if let Some((key, _)) = self.properties.iter().find(|p| too_long(*p)) {
            let message = format!("'{key}': keys have up to 100 characters, values are texts of up to 4096");
            return Err(ApiError::body("properties", message));
        }
        Ok(())
    }

    /// `OK`, or what is wrong with the times.
    fn status(&self, start: i64, end: Option<i64>, now: i64) -> &'static str {
        let (past, future) = if self.opens_problem() { (6 * HOUR, 5 * MINUTE) } else { (30 * DAY, 7 * DAY) };
        if start < now - past || start > now + future || end.is_some_and(|end| end < start) {
            "INVALID_TIMESTAMPS"
        } else {
            "OK"
        }
    }
}

/// `POST /api/v2/events/ingest`.
pub(super) async fn ingest(
    State(app): State<App>,
    caller: Caller,
    bytes: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.may("events.ingest")?;
    let ingest: Ingest = body(&bytes)?;
    ingest.check()?;
    let now = app.shared.now();
    let registry = app.shared.source.world().registry();
    let selected: Vec<&Entity> = match &ingest.entity_selector {
        None => Vec::new(),
        Some(selector) => registry.find(&EntitySelector::parse(selector)?),
    };
    let mut targets: Vec<(String, String)> =
        selected.iter().map(|e| (e.id.clone(), e.name.clone())).collect();
    if targets.is_empty() {
        targets.push(("ENVIRONMENT-0000000000000001".into(), "Environment".into()));
    }
    let start = ingest.start_time.unwrap_or(now);
    let timeout = ingest.timeout.unwrap_or(15).clamp(1, 360) * MINUTE;
    let end = Some(ingest.end_time.unwrap_or(start + timeout));
    let status = ingest.status(start, end, now);
    let mut results = Vec::new();
    for (id, name) in targets {
        let seed = format!("{id}/{}/{}/{start}", ingest.event_type, ingest.title);
        let correlation_id = format!("{:016x}", hash(&seed));
        results.push(json!({ "correlationId": correlation_id, "status": status }));
        if status == "OK" {
            app.shared.events.push(Event {
                id: format!("{}_{start}", hash(&seed).cast_signed()),
                correlation_id,
                kind: ingest.event_type.clone(),
                title: ingest.title.clone(),
                start_ms: start,
                end_ms: end,
                entity_id: id,
                entity_name: name,
                properties: properties(&ingest.properties),
            });
        }
    }
    Ok((StatusCode::CREATED, Json(json!({ "reportCount": results.len(), "eventIngestResults": results }))))
}

fn properties(map: &Map<String, Value>) -> Vec<(String, String)> {
    map.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// Deployments of the scenario as events, and the events sent in, newest first.
fn all(app: &App) -> Vec<Event> {
    let now = app.shared.now();
    let deployed = app.shared.source.world().deployments().into_iter().filter(|d| d.at_ms <= now).map(|d| {
        let seed = format!("{}/{}/{}", d.service_id, d.version, d.at_ms);
        Event {
            id: format!("{}_{}", hash(&seed).cast_signed(), d.at_ms),
            correlation_id: format!("{:016x}", hash(&seed)),
            kind: "CUSTOM_DEPLOYMENT".into(),
            title: format!("Deploy {} {}", d.service, d.version),
            start_ms: d.at_ms,
            end_ms: Some(d.at_ms),
            entity_id: d.service_id,
            entity_name: d.service.clone(),
            properties: vec![
                ("dt.event.deployment.name".into(), format!("Deploy {}", d.service)),
                ("dt.event.deployment.version".into(), d.version),
                ("dt.event.source".into(), "simulator".into()),
            ],
        }
    });
    let mut events: Vec<Event> = deployed.chain(app.shared.events.list()).collect();
    events.sort_by(|a, b| b.start_ms.cmp(&a.start_ms).then_with(|| a.id.cmp(&b.id)));
    events
}

/// `GET /api/v2/events`.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may("events.read")?;
    let now = app.shared.now();
    let others = params.any(&["eventSelector", "entitySelector", "from", "to", "pageSize"]);
    let pages = Pages::start("events", params.get("nextPageKey"), others, || {
        Ok(First {
            size: Pages::size(params.get("pageSize"), PAGE, PAGE_LIMIT)?,
            window: params.window(now, 2 * HOUR)?,
            texts: ["eventSelector", "entitySelector"].map(|n| params.owned(n).unwrap_or_default()).to_vec(),
        })
    })?;
    let (from, to) = pages.window();
    let criteria = EventCriterion::parse(pages.text(0))?;
    let entities = match pages.text(1) {
        "" => None,
        selector => Some(EntitySelector::parse(selector)?),
    };
    let registry = app.shared.source.world().registry();
    let found: Vec<Value> = all(&app)
        .into_iter()
        .filter(|e| e.start_ms <= to && e.end_ms.is_none_or(|end| end >= from))
        .filter(|e| criteria.iter().all(|c| c.matches(e, now)))
        .filter(|e| match &entities {
            None => true,
            Some(selector) => {
                registry.get(&e.entity_id).is_some_and(|entity| selector.matches(entity, registry))
            }
        })
        .map(|mut e| {
            e.kind = app.shared.constant("/api/v2/events", &e.kind).to_owned();
            e.json(now)
        })
        .collect();
    let (page, next) = pages.cut(&found);
    let mut out =
        json!({ "totalCount": found.len(), "pageSize": pages.page_size(), "events": page, "warnings": [] });
    if let Some(next) = next {
        out["nextPageKey"] = json!(next);
    }
    Ok(Json(out))
}

/// `GET /api/v2/events/{id}`.
pub(super) async fn one(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.may("events.read")?;
    let event = all(&app).into_iter().find(|event| event.id == id);
    let event = event.ok_or_else(|| ApiError::not_found(format!("Event with ID '{id}' not found.")))?;
    Ok(Json(event.json(app.shared.now())))
}

/// A criterion of an event selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum EventCriterion {
    Type(Vec<String>),
    Status(Vec<String>),
    Entity(Vec<String>),
    Correlation(Vec<String>),
    Property(String, Vec<String>),
    UnderMaintenance(bool),
}

impl EventCriterion {
    fn parse(text: &str) -> Result<Vec<Self>, ApiError> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        scan::list(text)?.iter().map(Self::one).collect()
    }

    fn one(arg: &Arg) -> Result<Self, ApiError> {
        let refuse = || {
            let text = arg.canonical();
            ApiError::query(
                "eventSelector",
                format!("'{text}' is unknown, or not supported by this simulator"),
            )
        };
        let Arg::Call(call) = arg else { return Err(refuse()) };
        let values: Option<Vec<String>> = call.args.iter().map(|a| a.text().map(str::to_owned)).collect();
        let values = values.filter(|v| !v.is_empty()).ok_or_else(refuse)?;
        match call.name.as_str() {
            "eventType" => Ok(Self::Type(values)),
            "status" => Ok(Self::Status(values.iter().map(|v| v.to_uppercase()).collect())),
            "entityId" => Ok(Self::Entity(values)),
            "correlationId" => Ok(Self::Correlation(values)),
            "underMaintenance" => Ok(Self::UnderMaintenance(values[0].eq_ignore_ascii_case("true"))),
            name => match name.strip_prefix("property.") {
                Some(key) => Ok(Self::Property(key.to_owned(), values)),
                None => Err(refuse()),
            },
        }
    }

    fn matches(&self, event: &Event, now: i64) -> bool {
        match self {
            Self::Type(kinds) => kinds.contains(&event.kind),
            Self::Status(states) => {
                let state = if event.is_open(now) { "OPEN" } else { "CLOSED" };
                states.iter().any(|s| s == state)
            }
            Self::Entity(ids) => ids.contains(&event.entity_id),
            Self::Correlation(ids) => ids.contains(&event.correlation_id),
            Self::Property(key, values) => {
                event.properties.iter().any(|(k, v)| k == key && values.contains(v))
            }
            Self::UnderMaintenance(wanted) => !wanted,
        }
    }
}
