//! `/api/v2/metrics`: descriptors and the query.

use super::App;
use super::auth::authorize;
use super::input::Parameters;
use super::page::{First, Pages};
use crate::error::ApiError;
use crate::query::{Params, answer};
use crate::selector::{Step, parse};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

const SCOPE: &str = "metrics.read";
/// Page size of the list.
const PAGE: usize = 100;
/// Largest page of the list.
const PAGE_LIMIT: usize = 500;

/// `GET /api/v2/metrics/query`.
pub(super) async fn query(
    State(app): State<App>,
    headers: HeaderMap,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    authorize(&app.shared, &headers, SCOPE)?;
    acceptable(&headers)?;
    let params = Params {
        selector: params.owned("metricSelector"),
        entities: params.owned("entitySelector"),
        resolution: params.owned("resolution"),
        from: params.owned("from"),
        to: params.owned("to"),
    };
    let shared = app.shared.clone();
    let answered = tokio::task::spawn_blocking(move || {
        answer(shared.source.world(), &params, shared.visibility("/api/v2/metrics/query"))
    });
    match answered.await {
        Ok(answer) => answer.map(Json),
        Err(error) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn acceptable(headers: &HeaderMap) -> Result<(), ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
    let json = ["application/json", "application/*", "*/*"];
    if accept.split(',').any(|a| json.contains(&a.trim().split(';').next().unwrap_or_default())) {
        Ok(())
    } else {
        Err(ApiError::new(
            StatusCode::NOT_ACCEPTABLE,
            "Not acceptable: this simulator answers application/json",
        ))
    }
}

/// `GET /api/v2/metrics/{key}`.
pub(super) async fn descriptor(
    State(app): State<App>,
    headers: HeaderMap,
    Path(key): Path<String>,
) -> Result<Json<Value>, ApiError> {
    authorize(&app.shared, &headers, SCOPE)?;
    let expressions = parse(&key)?;
    let [expression] = expressions.as_slice() else {
        return Err(ApiError::bad("Exactly one metric is expected"));
    };
    let metrics = app.shared.source.world().metrics();
    let metric = metrics
        .iter()
        .find(|m| m.key == expression.key)
        .ok_or_else(|| ApiError::not_found(format!("Metric with key '{}' not found.", expression.key)))?;
    let mut metric = metric.clone();
    for step in &expression.steps {
        match step {
            Step::SplitBy(names) => {
                metric.dimensions.retain(|d| names.iter().any(|n| n == d));
            }
            Step::Merge(names) => {
                metric.dimensions.retain(|d| !names.iter().any(|n| n == d));
            }
            Step::Filter(_)
            | Step::Aggregate(_)
            | Step::Fold(_)
            | Step::Names
            | Step::Default { .. }
            | Step::Sort(_)
            | Step::Limit(_)
            | Step::Rate(_)
            | Step::ToUnit(..) => {}
        }
    }
    let mut descriptor = metric.descriptor(last_written(&app));
    descriptor["metricId"] = json!(expression.canonical);
    Ok(Json(descriptor))
}

/// The newest point that can be seen, as far as a descriptor tells.
fn last_written(app: &App) -> i64 {
    app.shared.now() - app.shared.settle_ms.0
}

/// `GET /api/v2/metrics`.
pub(super) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    authorize(&app.shared, &headers, SCOPE)?;
    let others = params.any(&["pageSize", "metricSelector", "text"]);
    let pages = Pages::start("metrics", params.get("nextPageKey"), others, || {
        let size = Pages::size(params.get("pageSize"), PAGE, PAGE_LIMIT)?;
        let texts = ["metricSelector", "text"].map(|name| params.owned(name).unwrap_or_default());
        Ok(First { size, window: (0, 0), texts: texts.to_vec() })
    })?;
    let (selector, text) = (pages.text(0), pages.text(1).to_lowercase());
    let found: Vec<Value> = app
        .shared
        .source
        .world()
        .metrics()
        .iter()
        .filter(|m| selector.is_empty() || selector.split(',').any(|s| wildcard(s.trim(), &m.key)))
        .filter(|m| m.key.to_lowercase().contains(&text) || m.name.to_lowercase().contains(&text))
        .map(|m| m.descriptor(last_written(&app)))
        .collect();
    let (page, next) = pages.cut(&found);
    Ok(Json(json!({ "totalCount": found.len(), "nextPageKey": next, "metrics": page })))
}

/// `builtin:service.*`, or a whole key.
fn wildcard(pattern: &str, key: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == key, |prefix| key.starts_with(prefix))
}
