//! `/api/v2/metrics`: descriptors and the query.

use super::App;
use super::auth::Caller;
use super::input::Parameters;
use super::page::{First, Pages};
use crate::error::ApiError;
use crate::query::{Params, answer, csv};
use crate::selector::{Step, parse};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

const SCOPE: &str = "metrics.read";
/// Page size of the list.
const PAGE: usize = 100;
/// Largest page of the list.
const PAGE_LIMIT: usize = 500;

/// `GET /api/v2/metrics/query`.
pub(super) async fn query(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    params: Parameters,
) -> Result<Response, ApiError> {
    caller.may(SCOPE)?;
    let form = Form::wanted(&headers)?;
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
        Ok(answer) => answer.map(|answer| form.response(answer)),
        Err(error) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// The forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    /// CSV, with or without a line of names.
    Csv(bool),
}

impl Form {
    /// The first form wanted that there is.
    fn wanted(headers: &HeaderMap) -> Result<Self, ApiError> {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
        let form = |wanted: &str| {
            let mut parts = wanted.split(';').map(str::trim);
            match parts.next().unwrap_or_default() {
                "application/json" | "application/*" | "*/*" => Some(Self::Json),
                "text/csv" => Some(Self::Csv(!parts.any(|p| p == "header=absent"))),
                _ => None,
            }
        };
        accept.split(',').find_map(form).ok_or_else(|| {
            ApiError::new(StatusCode::NOT_ACCEPTABLE, "Not acceptable: use application/json or text/csv")
        })
    }

    fn response(self, answer: Value) -> Response {
        let Self::Csv(with_header) = self else { return Json(answer).into_response() };
        let kind = if with_header { "present" } else { "absent" };
        let kind = format!("text/csv; header={kind}; charset=utf-8");
        ([(header::CONTENT_TYPE, kind)], csv(&answer, with_header)).into_response()
    }
}

/// `GET /api/v2/metrics/{key}`.
pub(super) async fn descriptor(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let expressions = parse(&key)?;
    let [expression] = expressions.as_slice() else {
        return Err(ApiError::bad("Exactly one metric is expected"));
    };
    if expression.operation.is_some() {
        return Err(ApiError::bad("Descriptors of arithmetic are not supported by this simulator"));
    }
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
            | Step::ToUnit(..)
            | Step::Timeshift(_)
            | Step::Delta
            | Step::SkipFirst
            | Step::SetUnit => {}
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
    caller: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
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
