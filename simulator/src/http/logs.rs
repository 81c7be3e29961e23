//! `/api/v2/logs`: lines searched, exported and counted, as Logs v2 of a tenant without Grail does.

use super::App;
use super::auth::Caller;
use super::input::Parameters;
use super::page::{First, Pages};
use crate::error::ApiError;
use crate::log_query::LogQuery;
use crate::time::{DAY, WEEK};
use crate::world::lines::LogEntry;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const SCOPE: &str = "logs.read";
/// Records of a page of an export unless the request says otherwise, and of a search at most.
const RECORDS: usize = 1_000;
/// Most records of a page of an export.
const PAGE_LIMIT: usize = 10_000;
/// Records of a slice.
const SLICE: usize = 400;
/// Longest window: lines are kept for so long.
const KEPT: i64 = 35 * DAY;
/// Groups that are counted where none is named.
const GROUPS: [&str; 4] = ["status", "loglevel", "log.source", "host.name"];

/// The lines of a window that fit and have appeared, in the order asked for.
async fn lines(
    app: &App,
    path: &'static str,
    window: (i64, i64),
    (query, sort): (&str, &str),
) -> Result<Vec<LogEntry>, ApiError> {
    let query = LogQuery::parse(query)?;
    let descending = match sort {
        "" | "-timestamp" => true,
        "+timestamp" | "timestamp" => false,
        other => return Err(ApiError::query("sort", format!("'{other}' must be +timestamp or -timestamp"))),
    };
    let (shared, visibility) = (app.shared.clone(), app.shared.visibility(path));
    let (from, to) = (window.0.max(visibility.now - KEPT), window.1);
    let found = tokio::task::spawn_blocking(move || {
        let mut lines = shared.source.world().lines(from, to.min(visibility.now));
        lines.retain(|line| visibility.sees_line(line) && query.fits(&|name| line.field(name)));
        if descending {
            lines.reverse();
        }
        lines
    });
    found.await.map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

fn record(line: &LogEntry) -> Value {
    let columns = LogEntry::COLUMNS.iter().filter_map(|c| Some(((*c).to_owned(), json!([line.field(c)?]))));
    json!({
        "timestamp": line.at_ms,
        "status": line.status(),
        "eventType": "LOG",
        "content": line.content,
        "additionalColumns": columns.collect::<Map<_, _>>(),
    })
}

/// Query parameters where a list begins; a blank where a `+` was not encoded.
fn texts(params: &Parameters) -> Result<(String, String), ApiError> {
    let (query, sort) = (params.owned("query").unwrap_or_default(), params.owned("sort").unwrap_or_default());
    LogQuery::parse(&query)?;
    let sort = if sort.starts_with(' ') { format!("+{}", sort.trim()) } else { sort };
    Ok((query, sort))
}

/// `GET /api/v2/logs/export`: page by page, without an end.
pub(super) async fn export(
    State(app): State<App>,
    caller: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let others = params.any(&["query", "from", "to", "pageSize", "sort"]);
    let now = app.shared.now();
    let pages = Pages::start("logs/export", params.get("nextPageKey"), others, || {
        let (query, sort) = texts(&params)?;
        Ok(First {
            size: Pages::size(params.get("pageSize"), RECORDS, PAGE_LIMIT)?,
            window: params.window(now, 2 * WEEK)?,
            texts: vec![query, sort],
        })
    })?;
    let found = lines(&app, "/api/v2/logs/export", pages.window(), (pages.text(0), pages.text(1))).await?;
    let (page, next) = pages.cut(&found);
    let mut out = json!({
        "totalCount": found.len(),
        "pageSize": page.len(),
        "results": page.iter().map(record).collect::<Vec<_>>(),
    });
    if let Some(key) = next {
        out["nextPageKey"] = json!(key);
    }
    Ok(Json(out))
}

/// `GET /api/v2/logs/search`: the first records alone, in slices, of which one may be empty.
pub(super) async fn search(
    State(app): State<App>,
    caller: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let others = params.any(&["query", "from", "to", "limit", "sort"]);
    let now = app.shared.now();
    let pages = Pages::start("logs/search", params.get("nextSliceKey"), others, || {
        let limit = match params.get("limit") {
            None => RECORDS,
            Some(text) => text.parse().ok().filter(|n| (1..=RECORDS).contains(n)).ok_or_else(|| {
                ApiError::query("limit", format!("'{text}' must be a number between 1 and {RECORDS}"))
            })?,
        };
        let (query, sort) = texts(&params)?;
        Ok(First {
            size: SLICE,
            window: params.window(now, 2 * WEEK)?,
            texts: vec![query, sort, limit.to_string()],
        })
    });
    let pages = pages.map_err(|mut refused| {
        refused
            .violations
            .iter_mut()
            .filter(|v| v.path == "nextPageKey")
            .for_each(|v| v.path = "nextSliceKey");
        refused
    })?;
    let mut found =
        lines(&app, "/api/v2/logs/search", pages.window(), (pages.text(0), pages.text(1))).await?;
    found.truncate(pages.text(2).parse().unwrap_or(RECORDS));
    let (slice, next) = pages.cut(&found);
    Ok(Json(json!({
        "sliceSize": slice.len(),
        "nextSliceKey": next,
        "results": slice.iter().map(record).collect::<Vec<_>>(),
    })))
}

/// `GET /api/v2/logs/aggregate`: how many lines have each value of some fields, by slots of time.
pub(super) async fn aggregate(
    State(app): State<App>,
    caller: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let number =
        |name: &'static str, default: i64, most: i64| match params.get(name) {
            None => Ok(default),
            Some(text) => text.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(|| {
                ApiError::query(name, format!("'{text}' must be a number between 1 and {most}"))
            }),
        };
    let (slots, most) = (number("timeBuckets", 1, 10_000)?, number("maxGroupValues", 10, 100)?);
    let (query, _) = texts(&params)?;
    let window = params.window(app.shared.now(), 2 * WEEK)?;
    let named = params.all("groupBy");
    let groups = if named.is_empty() { GROUPS.map(str::to_owned).to_vec() } else { named };
    let found = lines(&app, "/api/v2/logs/aggregate", window, (&query, "")).await?;
    let length = ((window.1 - window.0).max(1) / slots).max(1);
    let mut result = Map::new();
    for group in groups {
        let mut counts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for line in &found {
            let Some(value) = line.field(&group) else { continue };
            let slot = ((line.at_ms - window.0) / length).clamp(0, slots - 1);
            let of_value =
                counts.entry(value).or_insert_with(|| vec![0; usize::try_from(slots).unwrap_or(1)]);
            if let Some(count) = usize::try_from(slot).ok().and_then(|slot| of_value.get_mut(slot)) {
                *count += 1;
            }
        }
        let mut counts: Vec<(&str, Vec<u64>)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<u64>()));
        counts.truncate(usize::try_from(most).unwrap_or(10));
        let values: Map<String, Value> = counts.into_iter().map(|(v, c)| (v.to_owned(), json!(c))).collect();
        result.insert(group, Value::Object(values));
    }
    Ok(Json(json!({ "aggregationResult": result })))
}
