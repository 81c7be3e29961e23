//! `/api/v2/releases`: which version of which service runs where.

use super::App;
use super::auth::Caller;
use super::input::Parameters;
use super::page::{First, Pages};
use super::problems::open_problem_ids;
use crate::entity::{GROUP, INSTANCE, id_of};
use crate::error::ApiError;
use crate::scan::{self, Arg};
use crate::time::WEEK;
use crate::world::DeploymentNote;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1_000;

/// A version of a service, and the hosts that run it.
#[derive(Debug, Clone)]
struct Release {
    service: String,
    service_id: String,
    version: String,
    hosts: Vec<String>,
    stage: Option<String>,
    problems: Vec<String>,
}

impl Release {
    fn json(&self) -> Value {
        let instance = |host: &String| {
            json!({
                "entityId": id_of(INSTANCE, &format!("{}/{host}", self.service_id)),
                "problems": self.problems,
                "securityVulnerabilities": [],
            })
        };
        let instances: Vec<Value> = self.hosts.iter().map(instance).collect();
        json!({
            "releaseEntityId": self.group_id(),
            "name": self.service,
            "product": self.service,
            "stage": self.stage,
            "version": self.version,
            "instances": instances,
            "problemCount": self.problems.len(),
            "affectedByProblems": !self.problems.is_empty(),
            "securityVulnerabilitiesEnabled": false,
            "securityVulnerabilitiesCount": 0,
            "affectedBySecurityVulnerabilities": false,
            "running": !self.hosts.is_empty(),
            "softwareTechs": [],
        })
    }

    fn group_id(&self) -> String {
        id_of(GROUP, &self.service_id)
    }
}

/// The releases that began until `to`, and run or began after `from`; newest first.
fn releases(app: &App, (from, to): (i64, i64)) -> Vec<Release> {
    let world = app.shared.source.world();
    let mut notes: Vec<DeploymentNote> = world.deployments();
    notes.retain(|note| note.at_ms <= to.min(app.shared.now()));
    notes.sort_by(|a, b| b.at_ms.cmp(&a.at_ms).then_with(|| a.service.cmp(&b.service)));
    let mut found: Vec<(i64, Release)> = Vec::new();
    let mut taken: Vec<(String, String)> = Vec::new();
    for note in notes {
        // The newest version on a host counts.
        let runs = |(host, since): &(String, i64)| {
            *since <= to
                && note.until_ms.is_none_or(|until| until > to)
                && !taken.contains(&(note.service.clone(), host.clone()))
        };
        let hosts: Vec<String> =
            note.hosts.iter().filter(|h| runs(h)).map(|(host, _)| host.clone()).collect();
        taken.extend(hosts.iter().map(|host| (note.service.clone(), host.clone())));
        let known = found.iter_mut().find(|(_, r)| r.service == note.service && r.version == note.version);
        if let Some((_, release)) = known {
            release.hosts.extend(hosts);
            continue;
        }
        let tags = world.registry().get(&note.service_id).map(|e| e.tags.clone()).unwrap_or_default();
        let stage = tags.into_iter().find(|t| t.key == "environment").and_then(|t| t.value);
        let problems = open_problem_ids(app, &note.service_id);
        let DeploymentNote { service, service_id, version, at_ms, .. } = note;
        found.push((at_ms, Release { service, service_id, version, hosts, stage, problems }));
    }
    found.retain(|(at, release)| *at >= from || !release.hosts.is_empty());
    found.into_iter().map(|(_, release)| release).collect()
}

/// `GET /api/v2/releases`.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.may("releases.read")?;
    let now = app.shared.now();
    let others = params.any(&["releasesSelector", "from", "to", "pageSize", "sort", "demo"]);
    let pages = Pages::start("releases", params.get("nextPageKey"), others, || {
        Ok(First {
            size: Pages::size(params.get("pageSize"), PAGE, PAGE_LIMIT)?,
            window: params.window(now, 2 * WEEK)?,
            texts: vec![params.owned("releasesSelector").unwrap_or_default()],
        })
    })?;
    let criteria = Criterion::parse(pages.text(0))?;
    let mut found = releases(&app, pages.window());
    found.retain(|release| criteria.iter().all(|c| c.matches(release)));
    let (page, next) = pages.cut(&found);
    let mut out = json!({
        "totalCount": found.len(),
        "pageSize": pages.page_size(),
        "releasesWithProblems": found.iter().filter(|r| !r.problems.is_empty()).count(),
        "releases": page.iter().map(Release::json).collect::<Vec<_>>(),
    });
    if let Some(next) = next {
        out["nextPageKey"] = json!(next);
    }
    Ok(Json(out))
}

/// A criterion of a release selector; one of its values must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Criterion {
    name: String,
    values: Vec<String>,
}

/// What a criterion may look at.
const CRITERIA: [&str; 8] = [
    "entityName",
    "entityId",
    "releasesProduct",
    "releasesStage",
    "releasesVersion",
    "monitoringState",
    "healthState",
    "type",
];

impl Criterion {
    fn parse(text: &str) -> Result<Vec<Self>, ApiError> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        scan::list(text)?.iter().map(Self::one).collect()
    }

    fn one(arg: &Arg) -> Result<Self, ApiError> {
        let refuse = || {
            let message = format!("'{}' is unknown, or not supported by this simulator", arg.canonical());
            ApiError::query("releasesSelector", message)
        };
        let Arg::Call(call) = arg else { return Err(refuse()) };
        let values: Option<Vec<String>> = call.args.iter().map(|a| a.text().map(str::to_lowercase)).collect();
        let values = values.filter(|v| !v.is_empty()).ok_or_else(refuse)?;
        let name = CRITERIA.iter().find(|known| **known == call.name).ok_or_else(refuse)?;
        Ok(Self { name: (*name).to_owned(), values })
    }

    fn matches(&self, release: &Release) -> bool {
        let contains = |text: &str| self.values.iter().any(|v| text.to_lowercase().contains(v.as_str()));
        let state =
            |is: bool, yes: &str, no: &str| self.values.iter().any(|v| v == if is { yes } else { no });
        match self.name.as_str() {
            "entityName" | "releasesProduct" => contains(&release.service),
            "entityId" => contains(&release.group_id()),
            "releasesStage" => contains(release.stage.as_deref().unwrap_or_default()),
            "releasesVersion" => contains(&release.version),
            "monitoringState" => state(!release.hosts.is_empty(), "active", "inactive"),
            "healthState" => state(release.problems.is_empty(), "healthy", "unhealthy"),
            _ => self.values.iter().any(|v| v == "process_group_instance"),
        }
    }
}
