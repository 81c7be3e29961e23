//! `/api/v2/entities`.

use super::App;
use super::auth::Caller;
use super::input::{Parameters, fields};
use super::page::{First, Pages};
use crate::entity::EntitySelector;
use crate::error::ApiError;
use crate::time::DAY;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

const SCOPE: &str = "entities.read";
const PAGE: usize = 50;
const PAGE_LIMIT: usize = 4_000;

/// `GET /api/v2/entities`.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let now = app.shared.now();
    let others = params.any(&["entitySelector", "from", "to", "fields", "pageSize", "sort"]);
    let pages = Pages::start("entities", params.get("nextPageKey"), others, || {
        let selector = params.get("entitySelector").ok_or_else(|| {
            ApiError::query("nextPageKey", "expected one of nextPageKey or entitySelector to be specified")
        })?;
        EntitySelector::parse(selector)?;
        let texts = vec![
            selector.to_owned(),
            params.owned("fields").unwrap_or_default(),
            params.owned("sort").unwrap_or_default(),
        ];
        Ok(First {
            size: Pages::size(params.get("pageSize"), PAGE, PAGE_LIMIT)?,
            window: params.window(now, 3 * DAY)?,
            texts,
        })
    })?;
    let registry = app.shared.source.world().registry();
    let mut found = registry.find(&EntitySelector::parse(pages.text(0))?);
    match pages.text(2) {
        "" => {}
        "name" | "+name" => found.sort_by(|a, b| a.name.cmp(&b.name)),
        "-name" => found.sort_by(|a, b| b.name.cmp(&a.name)),
        other => return Err(ApiError::query("sort", format!("'{other}' is unknown; use +name or -name"))),
    }
    let fields = fields(pages.text(1));
    let (page, next) = pages.cut(&found);
    let seen = (pages.window().0, pages.window().1);
    let entities: Vec<Value> = page.iter().map(|e| e.json(&fields, seen)).collect();
    let mut out = json!({ "totalCount": found.len(), "pageSize": pages.page_size(), "entities": entities });
    if let Some(next) = next {
        out["nextPageKey"] = json!(next);
    }
    Ok(Json(out))
}

/// What `GET /api/v2/entities/{id}` gives without `fields`.
const ALL_FIELDS: &str =
    "firstSeenTms,lastSeenTms,properties,tags,managementZones,icon,fromRelationships,toRelationships";

/// `GET /api/v2/entities/{id}`.
pub(super) async fn one(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let registry = app.shared.source.world().registry();
    let entity =
        registry.get(&id).ok_or_else(|| ApiError::not_found(format!("Entity with ID '{id}' not found.")))?;
    let now = app.shared.now();
    let fields = fields(params.get("fields").unwrap_or(ALL_FIELDS));
    Ok(Json(entity.json(&fields, (now - 3 * DAY, now))))
}
