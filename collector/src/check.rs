//! `vouch check --connect`: tries what collecting needs against the tenant, and says what is wrong.

use crate::config::{ChangeSettings, CollectorSettings, LogSourceKind, TenantSettings};
use crate::metrics::Metrics;
use crate::source::MetricSource as _;
use crate::source::dynatrace::{Dynatrace, TokenState, WRITE_SCOPE};
use vouch_service::clock::SharedClock;
use vouch_service::health::Health;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was tried, e.g. `token`.
    pub subject: String,
    /// What was found, or what is wrong and what to do.
    pub result: Result<String, String>,
}

/// Tries the tenant's address, the token and its scopes, and the calls that collecting makes. Changes nothing.
pub async fn check(settings: &CollectorSettings, clock: SharedClock) -> Vec<Finding> {
    let mut all = Vec::new();
    for tenant in &settings.tenants {
        let name = if tenant.is_one_of_several { format!("{}: ", tenant.name) } else { String::new() };
        let findings = check_tenant(tenant, &settings.changes, clock.clone()).await;
        all.extend(
            findings.into_iter().map(|one| Finding { subject: format!("{name}{}", one.subject), ..one }),
        );
    }
    all
}

async fn check_tenant(tenant: &TenantSettings, changes: &ChangeSettings, clock: SharedClock) -> Vec<Finding> {
    let source = match Dynatrace::new(tenant, clock, Health::default(), Metrics::default()) {
        Ok(source) => source,
        Err(e) => return vec![Finding { subject: "client".to_owned(), result: Err(format!("{e:#}")) }],
    };
    let state = source.token_state().await;
    let scopes = state.as_ref().ok().filter(|state| state.is_known).map(|state| state.scopes.clone());
    let token = match state {
        Ok(TokenState { wrong: Some(wrong), .. }) => Err(wrong),
        Ok(TokenState { is_known: false, .. }) => Ok("the tenant cannot tell; the calls below do".to_owned()),
        Ok(TokenState { expires, .. }) => {
            let expires = expires.map(|when| format!("; expires {when}")).unwrap_or_default();
            Ok(format!("valid, with the scopes that are needed{expires}"))
        }
        Err(failure) => Err(failure.to_string()),
    };
    let answers = token.is_ok();
    let mut findings = vec![Finding { subject: "token".to_owned(), result: token }];
    if answers {
        let services = source.services().await;
        let result = services.map(|s| format!("{} are visible", s.len())).map_err(|e| e.to_string());
        findings.push(Finding { subject: "services (entities.read)".to_owned(), result });
        let metrics = source.has_metric("builtin:service.response.time").await;
        let result = metrics.map(|()| "readable".to_owned()).map_err(|e| e.to_string());
        findings.push(Finding { subject: "metrics (metrics.read)".to_owned(), result });
        findings.extend(logs(tenant, &source).await);
        let problems = match source.has_problems().await {
            Ok(()) => "readable".to_owned(),
            Err(failure) => format!("left out of verdicts: {failure}"),
        };
        findings
            .push(Finding { subject: "problems (problems.read, optional)".to_owned(), result: Ok(problems) });
    }
    if answers {
        let objectives = match source.has_objectives().await {
            Ok(()) => "readable".to_owned(),
            Err(failure) => format!("left out of verdicts: {failure}"),
        };
        let subject = "objectives (slo.read, optional)".to_owned();
        findings.push(Finding { subject, result: Ok(objectives) });
    }
    if answers && changes.events.is_some() {
        let result = source.has_events().await.map(|()| "readable".to_owned()).map_err(|e| e.to_string());
        findings.push(Finding { subject: "events (events.read)".to_owned(), result });
    }
    if answers && changes.annotate {
        // Nothing is written to try it.
        let result = match scopes {
            None => Ok("the tenant cannot tell before an event is written".to_owned()),
            Some(scopes) if scopes.iter().any(|scope| scope == WRITE_SCOPE) => Ok("allowed".to_owned()),
            Some(_) => Err(format!(
                "missing_scope: the token lacks {WRITE_SCOPE}, which changes.dynatrace.annotate needs; generate one \
                 with it in Dynatrace > Access tokens"
            )),
        };
        findings.push(Finding { subject: format!("writing events ({WRITE_SCOPE})"), result });
    }
    if let Some(skew) = source.clock_skew() {
        let result = skew.map(|seconds| format!("{seconds} s apart"));
        findings.push(Finding { subject: "clock".to_owned(), result });
    }
    findings
}

/// Whether logs can be read, where they are to be.
async fn logs(tenant: &TenantSettings, source: &Dynatrace) -> Option<Finding> {
    let (subject, result) = match tenant.logs.source {
        LogSourceKind::Off => return None,
        LogSourceKind::Classic => {
            let readable = source.has_logs().await.map(|()| "readable".to_owned());
            ("logs (logs.read)", readable.map_err(|failure| failure.to_string()))
        }
        LogSourceKind::Grail => {
            let said =
                "not tried, since Grail bills it; the token needs storage:logs:read and storage:buckets:read";
            ("logs (storage:logs:read)", Ok(said.to_owned()))
        }
    };
    Some(Finding { subject: subject.to_owned(), result })
}
