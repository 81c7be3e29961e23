//! `/api/v2/problems`: what Dynatrace opens because of incidents.

use super::App;
use super::auth::Caller;
use super::input::{Parameters, fields};
use super::page::{First, Pages};
use crate::entity::{EntitySelector, Registry, SERVICE, id_of};
use crate::error::ApiError;
use crate::noise::hash;
use crate::scan::{self, Arg};
use crate::time::HOUR;
use crate::world::incident::ProblemNote;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::cmp::Ordering;

const SCOPE: &str = "problems.read";
const PAGE: usize = 50;
const PAGE_LIMIT: usize = 500;
const IMPACT: &str = "SERVICES";
const STATES: [&str; 2] = ["OPEN", "CLOSED"];
const IMPACTS: [&str; 4] = ["APPLICATION", "ENVIRONMENT", "INFRASTRUCTURE", "SERVICES"];
const SEVERITIES: [&str; 7] = [
    "AVAILABILITY",
    "CUSTOM_ALERT",
    "ERROR",
    "INFO",
    "MONITORING_UNAVAILABLE",
    "PERFORMANCE",
    "RESOURCE_CONTENTION",
];

/// A problem that has been detected.
#[derive(Debug, Clone)]
struct Problem {
    id: String,
    display_id: String,
    is_open: bool,
    root_id: String,
    affected_ids: Vec<String>,
    note: ProblemNote,
}

impl Problem {
    /// The problem of a note, the `index`-th of all.
    fn new(index: usize, note: ProblemNote, now: i64) -> Self {
        let seed = hash(&format!("{index}/{}/{}/{}", note.root, note.title, note.start_ms));
        Self {
            id: format!("{}_{}V2", seed.cast_signed(), note.start_ms),
            display_id: format!("P-{}", index + 1),
            is_open: note.end_ms.is_none_or(|end| end > now),
            root_id: id_of(SERVICE, &note.root),
            affected_ids: note.affected.iter().map(|name| id_of(SERVICE, name)).collect(),
            note,
        }
    }

    fn status(&self) -> &'static str {
        STATES[usize::from(!self.is_open)]
    }

    fn overlaps(&self, (from, to): (i64, i64)) -> bool {
        self.note.start_ms < to && (self.is_open || self.note.end_ms.is_none_or(|end| end > from))
    }

    fn json(&self, fields: &[String]) -> Value {
        let entity =
            |id: &String, name: &String| json!({ "entityId": { "id": id, "type": SERVICE }, "name": name });
        let affected: Vec<Value> =
            self.affected_ids.iter().zip(&self.note.affected).map(|(id, name)| entity(id, name)).collect();
        let mut out = json!({
            "problemId": self.id,
            "displayId": self.display_id,
            "title": self.note.title,
            "impactLevel": IMPACT,
            "severityLevel": self.note.severity,
            "status": self.status(),
            "affectedEntities": affected,
            "impactedEntities": affected,
            "rootCauseEntity": entity(&self.root_id, &self.note.root),
            "managementZones": [],
            "entityTags": [],
            "problemFilters": [],
            "startTime": self.note.start_ms,
            "endTime": self.note.end_ms.filter(|_| !self.is_open).unwrap_or(-1),
        });
        for field in fields {
            match field.as_str() {
                "evidenceDetails" => out["evidenceDetails"] = json!({ "totalCount": 0, "details": [] }),
                "impactAnalysis" => out["impactAnalysis"] = json!({ "impacts": [] }),
                "recentComments" => {
                    out["recentComments"] = json!({ "totalCount": 0, "pageSize": 10, "comments": [] });
                }
                _ => {}
            }
        }
        out
    }
}

/// The problems that have been detected.
fn detected(app: &App) -> Vec<Problem> {
    let now = app.shared.now();
    let notes = app.shared.source.world().problems().into_iter().enumerate();
    let detected = notes.filter(|(_, note)| note.detected_ms <= now);
    detected
        .map(|(index, mut note)| {
            note.severity = app.shared.constant("/api/v2/problems", note.severity);
            Problem::new(index, note, now)
        })
        .collect()
}

/// The ids of the open problems that affect a service.
pub(super) fn open_problem_ids(app: &App, service_id: &str) -> Vec<String> {
    let affects = |p: &Problem| p.is_open && p.affected_ids.iter().any(|id| id == service_id);
    detected(app).into_iter().filter(affects).map(|p| p.id).collect()
}

/// What a problem is filtered and shown by.
#[derive(Debug)]
struct Wish {
    criteria: Vec<Criterion>,
    entities: Option<EntitySelector>,
    fields: Vec<String>,
    sort: Vec<(Key, bool)>,
}

impl Wish {
    fn parse(selector: &str, entities: &str, fields: &str, sort: &str) -> Result<Self, ApiError> {
        Ok(Self {
            criteria: Criterion::parse(selector)?,
            entities: (!entities.is_empty()).then(|| EntitySelector::parse(entities)).transpose()?,
            fields: known_fields(fields)?,
            sort: Key::parse(sort)?,
        })
    }

    fn matches(&self, problem: &Problem, registry: &Registry) -> bool {
        self.criteria.iter().all(|c| c.matches(problem))
            && self.entities.as_ref().is_none_or(|selector| {
                let affected = problem.affected_ids.iter().filter_map(|id| registry.get(id));
                affected.into_iter().any(|entity| selector.matches(entity, registry))
            })
    }

    fn compare(&self, a: &Problem, b: &Problem) -> Ordering {
        let wished = self.sort.iter().fold(Ordering::Equal, |so_far, (key, descending)| {
            so_far.then_with(|| {
                let ordering = key.compare(a, b);
                if *descending { ordering.reverse() } else { ordering }
            })
        });
        // Newest first where nothing else is wished.
        wished.then(b.note.start_ms.cmp(&a.note.start_ms)).then_with(|| a.id.cmp(&b.id))
    }
}

fn known_fields(text: &str) -> Result<Vec<String>, ApiError> {
    let fields = fields(text);
    match fields
        .iter()
        .find(|f| !matches!(f.as_str(), "evidenceDetails" | "impactAnalysis" | "recentComments"))
    {
        None => Ok(fields),
        Some(field) => Err(ApiError::query(
            "fields",
            format!("'{field}' is unknown; use evidenceDetails, impactAnalysis or recentComments"),
        )),
    }
}

/// What problems are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Status,
    Start,
}

impl Key {
    /// Parses `+status,-startTime`: keys, and whether descending.
    fn parse(text: &str) -> Result<Vec<(Self, bool)>, ApiError> {
        let keys = text.split(',').map(str::trim).filter(|key| !key.is_empty()).map(|key| {
            let name = key.trim_start_matches(['+', '-']);
            let key_of = match name {
                "status" => Self::Status,
                "startTime" => Self::Start,
                _ => {
                    let message = format!(
                        "'{name}' is unknown, or not supported by this simulator; use status or startTime"
                    );
                    return Err(ApiError::query("sort", message));
                }
            };
            Ok((key_of, key.starts_with('-')))
        });
        keys.collect()
    }

    fn compare(self, a: &Problem, b: &Problem) -> Ordering {
        match self {
            // Ascending: the open ones first.
            Self::Status => b.is_open.cmp(&a.is_open),
            Self::Start => a.note.start_ms.cmp(&b.note.start_ms),
        }
    }
}

/// `GET /api/v2/problems`.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let now = app.shared.now();
    let texts = ["problemSelector", "entitySelector", "fields", "sort"];
    let others = params.any(&texts) || params.any(&["from", "to", "pageSize"]);
    let pages = Pages::start("problems", params.get("nextPageKey"), others, || {
        Ok(First {
            size: Pages::size(params.get("pageSize"), PAGE, PAGE_LIMIT)?,
            window: params.window(now, 2 * HOUR)?,
            texts: texts.map(|name| params.owned(name).unwrap_or_default()).to_vec(),
        })
    })?;
    let wish = Wish::parse(pages.text(0), pages.text(1), pages.text(2), pages.text(3))?;
    let registry = app.shared.source.world().registry();
    let mut found = detected(&app);
    found.retain(|problem| problem.overlaps(pages.window()) && wish.matches(problem, registry));
    found.sort_by(|a, b| wish.compare(a, b));
    let (page, next) = pages.cut(&found);
    let problems: Vec<Value> = page.iter().map(|problem| problem.json(&wish.fields)).collect();
    let mut out = json!({
        "totalCount": found.len(), "pageSize": pages.page_size(), "problems": problems, "warnings": [],
    });
    if let Some(next) = next {
        out["nextPageKey"] = json!(next);
    }
    Ok(Json(out))
}

/// `GET /api/v2/problems/{id}`.
pub(super) async fn one(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let fields = known_fields(params.get("fields").unwrap_or_default())?;
    let problem = detected(&app).into_iter().find(|problem| problem.id == id);
    let problem = problem.ok_or_else(|| ApiError::not_found(format!("Problem with ID '{id}' not found.")))?;
    Ok(Json(problem.json(&fields)))
}

/// A criterion of a problem selector; one of its values must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Criterion {
    attribute: Attribute,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Status,
    Impact,
    Severity,
    Affected,
    Root,
    Id,
    DisplayId,
}

impl Attribute {
    fn named(name: &str) -> Option<Self> {
        match name {
            "status" => Some(Self::Status),
            "impactLevel" => Some(Self::Impact),
            "severityLevel" => Some(Self::Severity),
            // Everything affected is also impacted here.
            "affectedEntities" | "impactedEntities" => Some(Self::Affected),
            "rootCauseEntity" => Some(Self::Root),
            "problemId" => Some(Self::Id),
            "displayId" => Some(Self::DisplayId),
            _ => None,
        }
    }

    /// The values that it can have, where they are a few.
    fn known(self) -> &'static [&'static str] {
        match self {
            Self::Status => &STATES,
            Self::Impact => &IMPACTS,
            Self::Severity => &SEVERITIES,
            Self::Affected | Self::Root | Self::Id | Self::DisplayId => &[],
        }
    }
}

impl Criterion {
    fn parse(text: &str) -> Result<Vec<Self>, ApiError> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        scan::list(text)?.iter().map(Self::one).collect()
    }

    fn one(arg: &Arg) -> Result<Self, ApiError> {
        let refuse =
            |message: &str| ApiError::query("problemSelector", format!("'{}' {message}", arg.canonical()));
        let Arg::Call(call) = arg else { return Err(refuse("is no criterion")) };
        let attribute = Attribute::named(&call.name)
            .ok_or_else(|| refuse("is unknown, or not supported by this simulator"))?;
        let values: Option<Vec<String>> = call.args.iter().map(quoted).collect();
        let mut values =
            values.filter(|v| !v.is_empty()).ok_or_else(|| refuse("needs one or more quoted values"))?;
        let known = attribute.known();
        if !known.is_empty() {
            values = values.iter().map(|value| value.to_uppercase()).collect();
            if values.iter().any(|value| !known.contains(&value.as_str())) {
                return Err(refuse(&format!("is unknown; there are {}", known.join(", "))));
            }
        }
        Ok(Self { attribute, values })
    }

    fn matches(&self, problem: &Problem) -> bool {
        let fits = |value: &str| self.values.iter().any(|v| v == value);
        match self.attribute {
            Attribute::Status => fits(problem.status()),
            Attribute::Impact => fits(IMPACT),
            Attribute::Severity => fits(problem.note.severity),
            Attribute::Affected => problem.affected_ids.iter().any(|id| fits(id)),
            Attribute::Root => fits(&problem.root_id),
            Attribute::Id => fits(&problem.id),
            Attribute::DisplayId => fits(&problem.display_id),
        }
    }
}

fn quoted(arg: &Arg) -> Option<String> {
    match arg {
        Arg::Text(text) => Some(text.clone()),
        Arg::Word(_) | Arg::Call(_) => None,
    }
}
