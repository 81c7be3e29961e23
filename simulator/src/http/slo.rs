//! `/api/v2/slo`: one objective per service, the share of its requests that succeed.

use super::App;
use super::auth::Caller;
use super::input::Parameters;
use super::page::{First, Pages};
use crate::entity::{Registry, SERVICE};
use crate::error::ApiError;
use crate::grid::{Slot, ceil, floor};
use crate::noise::{hash, stream};
use crate::point::Aggregation;
use crate::query::{Series, Visibility};
use crate::scan::{self, Arg};
use crate::time::{DAY, MINUTE, WEEK};
use crate::world::World;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

const SCOPE: &str = "slo.read";
const PAGE: usize = 10;
const PAGE_LIMIT: usize = 10_000;
/// Largest page with evaluation.
const EVALUATED_LIMIT: usize = 25;
/// Longest timeframe of an evaluation.
const WINDOW_LIMIT_MS: i64 = 366 * DAY;
const REQUESTS: &str = "builtin:service.requestCount.total";
const ERRORS: &str = "builtin:service.errors.total.count";
/// Below it the objective is missed.
const TARGET: f64 = 99.0;
/// Below it there is a warning.
const WARNING: f64 = 99.5;
/// What an evaluation without data says.
const NO_DATA: &str = "At least one operand in the given metric expression provides no data.";

/// An objective.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Objective {
    id: String,
    name: String,
    service_id: String,
}

fn objectives(registry: &Registry, world: &dyn World) -> Vec<Objective> {
    let Some(requests) = world.metrics().iter().position(|m| m.key == REQUESTS) else { return Vec::new() };
    let services = world
        .tuples(requests)
        .iter()
        .filter_map(|t| t.dimensions.first()?.strip_prefix(SERVICE).map(|_| &t.dimensions[0]));
    services
        .map(|service_id| {
            let name = registry.get(service_id).map_or("", |e| e.name.as_str());
            Objective {
                id: id(service_id),
                name: format!("{name} availability"),
                service_id: service_id.clone(),
            }
        })
        .collect()
}

/// An id in the form of a UUID.
fn id(service_id: &str) -> String {
    let (a, b) = (hash(service_id), stream(hash(service_id), "slo"));
    let head = format!("{:08x}-{:04x}-3{:03x}", a >> 32, (a >> 16) & 0xFFFF, a & 0xFFF);
    format!("{head}-{:04x}-{:012x}", 0x8000 | ((b >> 48) & 0x3FFF), b & 0xFFFF_FFFF_FFFF)
}

/// The sum of a counter of a service in a window; `None` without data.
fn total(world: &dyn World, key: &str, service_id: &str, seen: (Slot, Visibility)) -> Option<f64> {
    let metric = world.metrics().iter().position(|m| m.key == key)?;
    let tuple =
        world.tuples(metric).iter().find(|t| t.dimensions.first().is_some_and(|d| d == service_id))?;
    let points = Series { world, metric, tuple }.read(&[seen.0], seen.1);
    points.first()?.as_ref().map(|p| p.aggregate(Aggregation::Value))
}

impl Objective {
    /// Percentage and error budget of a window; `None` without data.
    fn evaluate(
        &self,
        world: &dyn World,
        (from, to): (i64, i64),
        visibility: Visibility,
    ) -> Option<(f64, f64)> {
        let slot = Slot { start: floor(from, MINUTE), end: ceil(to, MINUTE) };
        let requests = total(world, REQUESTS, &self.service_id, (slot, visibility)).filter(|n| *n > 0.0)?;
        let errors = total(world, ERRORS, &self.service_id, (slot, visibility)).unwrap_or(0.0);
        let percentage = 100.0 * (requests - errors) / requests;
        Some((percentage, 100.0 * (percentage - TARGET) / (100.0 - TARGET)))
    }

    /// The JSON; `evaluation` is `None` where none was wanted.
    fn json(&self, timeframe: &str, evaluation: Option<Option<(f64, f64)>>) -> Value {
        let key = self.name.replace([' ', '-'], "_").to_lowercase();
        let (percentage, budget, status, error) = match evaluation {
            None => (-1.0, -1.0, "SUCCESS", "NONE"),
            Some(None) => (-1.0, -1.0, "FAILURE", NO_DATA),
            Some(Some((percentage, budget))) if percentage < TARGET => {
                (percentage, budget, "FAILURE", "NONE")
            }
            Some(Some((percentage, budget))) if percentage < WARNING => {
                (percentage, budget, "WARNING", "NONE")
            }
            Some(Some((percentage, budget))) => (percentage, budget, "SUCCESS", "NONE"),
        };
        json!({
            "id": self.id,
            "enabled": true,
            "name": self.name,
            "evaluatedPercentage": percentage,
            "errorBudget": budget,
            "status": status,
            "error": error,
            "errorBudgetBurnRate": { "burnRateVisualizationEnabled": false },
            "metricKey": format!("func:slo.{key}"),
            "metricName": key,
            "burnRateMetricKey": format!("func:slo.errorBudgetBurnRate.{key}"),
            "errorBudgetMetricKey": format!("func:slo.errorBudget.{key}"),
            "normalizedErrorBudgetMetricKey": format!("func:slo.normalizedErrorBudget.{key}"),
            "metricExpression": format!("100-(100)*({ERRORS}:splitBy())/({REQUESTS}:splitBy())"),
            "target": TARGET,
            "warning": WARNING,
            "evaluationType": "AGGREGATE",
            "timeframe": timeframe,
            "filter": format!("type(\"SERVICE\"),entityId(\"{}\")", self.service_id),
            "relatedOpenProblems": 0,
            "relatedTotalProblems": 0,
            "numeratorValue": 0.0,
            "denominatorValue": 0.0,
            "metricNumerator": "",
            "metricDenominator": "",
            "metricRate": "",
            "useRateMetric": true,
        })
    }
}

/// Of which time an objective is evaluated, and how that is written.
fn timeframe(word: &str, window: (i64, i64), now: i64) -> Result<((i64, i64), String), ApiError> {
    match word {
        "" | "CURRENT" => Ok(((now - DAY, now), "-1d".into())),
        "GTF" => match window.1.checked_sub(window.0) {
            Some(1..=WINDOW_LIMIT_MS) => Ok((window, format!("{} to {}", window.0, window.1))),
            _ => Err(ApiError::query("from", "The timeframe is empty, or longer than a year")),
        },
        other => Err(ApiError::query("timeFrame", format!("'{other}' is unknown; use CURRENT or GTF"))),
    }
}

/// Evaluates objectives beside the calls that are answered at once.
async fn evaluated(
    app: &App,
    objectives: Vec<Objective>,
    (window, text): ((i64, i64), String),
) -> Result<Vec<Value>, ApiError> {
    let shared = app.shared.clone();
    let all = tokio::task::spawn_blocking(move || {
        let (world, visibility) = (shared.source.world(), shared.visibility("/api/v2/slo"));
        let one = |o: &Objective| o.json(&text, Some(o.evaluate(world, window, visibility)));
        objectives.iter().map(one).collect()
    });
    all.await.map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

/// `GET /api/v2/slo`.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let now = app.shared.now();
    let texts = ["sloSelector", "timeFrame", "evaluate"];
    let others =
        params.any(&texts) || params.any(&["from", "to", "pageSize", "sort", "pageIdx", "enabledSlos"]);
    let pages = Pages::start("slo", params.get("nextPageKey"), others, || {
        let limit = if params.get("evaluate") == Some("true") { EVALUATED_LIMIT } else { PAGE_LIMIT };
        Ok(First {
            size: Pages::size(params.get("pageSize"), PAGE, limit)?,
            window: params.window(now, 2 * WEEK)?,
            texts: texts.map(|name| params.owned(name).unwrap_or_default()).to_vec(),
        })
    })?;
    let world = app.shared.source.world();
    let mut found = objectives(world.registry(), world);
    let criteria = criteria(pages.text(0))?;
    found.retain(|o| criteria.iter().all(|(name, values)| matches(o, name, values)));
    let (page, next) = pages.cut(&found);
    let slo = if pages.text(2) == "true" {
        evaluated(&app, page.to_vec(), timeframe(pages.text(1), pages.window(), now)?).await?
    } else {
        page.iter().map(|o| o.json("-1d", None)).collect()
    };
    let mut out = json!({ "totalCount": found.len(), "pageSize": pages.page_size(), "slo": slo });
    if let Some(next) = next {
        out["nextPageKey"] = json!(next);
    }
    Ok(Json(out))
}

/// `GET /api/v2/slo/{id}`.
pub(super) async fn one(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may(SCOPE)?;
    let now = app.shared.now();
    let world = app.shared.source.world();
    let objective = objectives(world.registry(), world).into_iter().find(|o| o.id == id);
    let objective = objective.ok_or_else(|| ApiError::not_found(format!("SLO with ID '{id}' not found.")))?;
    let frame = timeframe(params.get("timeFrame").unwrap_or_default(), params.window(now, 2 * WEEK)?, now)?;
    let mut all = evaluated(&app, vec![objective], frame).await?;
    Ok(Json(all.pop().unwrap_or_default()))
}

/// The criteria of a selector: `id`, `name` and `text`, each with its values.
fn criteria(text: &str) -> Result<Vec<(String, Vec<String>)>, ApiError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let one = |arg: &Arg| {
        let refuse = || {
            let message = format!("'{}' is unknown, or not supported by this simulator", arg.canonical());
            ApiError::query("sloSelector", message)
        };
        let Arg::Call(call) = arg else { return Err(refuse()) };
        let values: Option<Vec<String>> = call.args.iter().map(|a| a.text().map(str::to_owned)).collect();
        match (call.name.as_str(), values) {
            ("id" | "name" | "text", Some(values)) if !values.is_empty() => Ok((call.name.clone(), values)),
            _ => Err(refuse()),
        }
    };
    scan::list(text)?.iter().map(one).collect()
}

fn matches(objective: &Objective, name: &str, values: &[String]) -> bool {
    values.iter().any(|value| match name {
        "id" => objective.id == *value,
        "name" => objective.name == *value,
        _ => objective.name.to_lowercase().contains(&value.to_lowercase()),
    })
}
