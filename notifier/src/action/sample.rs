//! A sample, for trying a channel and for checking templates: an alert about a verdict that nobody reached.

use super::ActionRequest;
use crate::alert::{About, Alert, Links, Opened, Stage};
use crate::policy::Rule;
use anyhow::Context as _;
use std::sync::Arc;
use vouch_proto::{Purpose, Timestamp, Verdict, Window, v1};

const VERDICT: &[u8] = include_bytes!("sample.json");
const SAID: &str = "This is a test that somebody asked for with `vouch notify --test`; nothing was deployed.";

/// A request as the runner would make it. `now` moves the sample there; without it, it happened long ago.
///
/// # Errors
/// Never, but where this program was built with a sample that is none.
pub fn request(stage: Stage, now: Option<Timestamp>, links: Links) -> anyhow::Result<ActionRequest> {
    let wire: v1::Verdict = serde_json::from_slice(VERDICT).context("the sample is no verdict")?;
    let mut verdict = Verdict::try_from(wire).context("the sample is no verdict")?;
    if let Some(now) = now {
        let window = |from, to| {
            Window::new(now.floor_minute().plus_minutes(from), now.floor_minute().plus_minutes(to))
        };
        verdict.deployment_id = format!("vouch-test-{}", now.as_millis());
        verdict.verification_id = format!("{}.1", verdict.deployment_id);
        verdict.baseline = vec![window(-189, -9)?];
        verdict.verification = Some(window(-9, 6)?);
        verdict.decided_at = now;
    }
    let opened = Opened {
        version: verdict.version.to_string(),
        reason: verdict.reason.clone(),
        at: verdict.decided_at,
    };
    let about = About {
        stage: Some(stage),
        incident: verdict.deployment_id.clone(),
        opened: (stage != Stage::Opens).then_some(opened),
        did: SAID.to_owned(),
        rollback: None,
        notice: true,
        links,
        entity: None,
    };
    let (alert, sent_at) = (Alert::new(&verdict, about), verdict.decided_at);
    Ok(ActionRequest {
        key: format!("{}/test/{}", alert.incident, stage.as_str()),
        purpose: Purpose::Alert,
        rule: Rule::FailAlerts,
        summary: format!("{}: {} {SAID}", alert.headline, alert.reason),
        verdict: Arc::new(verdict),
        alert: Arc::new(alert),
        memory: None,
        traceparent: None,
        attempt: 1,
        sent_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_says_that_it_is_one() {
        let now = "2026-11-24T10:09:30Z".parse().unwrap();
        for stage in [Stage::Opens, Stage::Updates, Stage::Resolves, Stage::Reports] {
            let sample = request(stage, Some(now), Links::default()).unwrap();
            assert!(sample.summary.contains("test") && sample.alert.reason.starts_with("TEST"), "{sample:?}");
            assert_eq!(sample.alert.incident, format!("vouch-test-{}", now.as_millis()));
            assert!(request(stage, None, Links::default()).is_ok());
        }
    }
}
