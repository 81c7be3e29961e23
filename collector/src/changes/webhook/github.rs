//! GitHub's `deployment_status` and `deployment` events.

use super::{Said, instant, required, text};
use crate::changes::Seen;
use serde_json::Value;
use vouch_proto::{Invalid, Phase};

pub(super) fn read(event: &str, body: &Value) -> Result<Said, Invalid> {
    match event {
        "deployment_status" => status(body),
        "deployment" => Ok(Said::Nothing("a deployment that is asked for has not begun".to_owned())),
        "ping" => Ok(Said::Nothing("pong".to_owned())),
        "" => Err(Invalid::field("X-GitHub-Event", "is missing; is this webhook called by GitHub?")),
        other => Ok(Said::Nothing(format!(
            "event `{other}` is no deployment; choose \"Deployment statuses\" for this webhook"
        ))),
    }
}

fn status(body: &Value) -> Result<Said, Invalid> {
    let mut invalid = Invalid::default();
    let state = required(body, "/deployment_status/state", &mut invalid);
    let repository = required(body, "/repository/full_name", &mut invalid);
    let environment = required(body, "/deployment/environment", &mut invalid);
    let commit = required(body, "/deployment/sha", &mut invalid);
    invalid.into_result()?;
    let phase = match state {
        "in_progress" => Phase::Started,
        "success" => Phase::Finished,
        "failure" | "error" => Phase::Aborted,
        other => return Ok(Said::Nothing(format!("state `{other}` changes nothing"))),
    };
    let mut seen = Seen::new(repository, environment, version(body, commit));
    seen.phase = phase;
    seen.at = instant(body, "/deployment_status/created_at");
    if phase == Phase::Aborted {
        let why = text(body, "/deployment_status/description");
        seen.reason = Some(format!("{state} on GitHub. {why}").trim().to_owned());
    }
    Ok(Said::Seen(vec![seen]))
}

/// What the workflow says, else the tag that was deployed, else the commit.
fn version<'v>(body: &'v Value, commit: &'v str) -> &'v str {
    let said = text(body, "/deployment/payload/version");
    if !said.is_empty() {
        return said;
    }
    let reference = text(body, "/deployment/ref");
    let short = reference.strip_prefix("refs/tags/").unwrap_or(reference);
    let bare = short.strip_prefix('v').unwrap_or(short);
    let is_version = bare.starts_with(|c: char| c.is_ascii_digit()) && bare.contains('.');
    if is_version { short } else { commit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(state: &str, reference: &str, payload: Value) -> Value {
        json!({
            "deployment_status": {"state": state, "created_at": "2026-11-29T10:00:00Z", "description": "no pods"},
            "deployment": {"sha": "0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa", "ref": reference,
                           "environment": "production", "payload": payload},
            "repository": {"full_name": "shop/cart", "name": "cart"},
        })
    }

    fn seen(body: &Value) -> Seen {
        match read("deployment_status", body).unwrap() {
            Said::Seen(mut seen) => seen.remove(0),
            other @ (Said::Change(_) | Said::Nothing(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn states_are_phases_and_versions_are_what_was_deployed() {
        let begun = seen(&body("in_progress", "v1.4.2", json!({})));
        assert_eq!((begun.phase, begun.version.as_str()), (Phase::Started, "v1.4.2"));
        assert_eq!((begun.service.as_str(), begun.environment.as_str()), ("shop/cart", "production"));
        assert_eq!(begun.at, "2026-11-29T10:00:00Z".parse().ok());
        let done = seen(&body("success", "main", json!("{}")));
        assert_eq!((done.phase, done.version.len()), (Phase::Finished, 40));
        assert_eq!(seen(&body("success", "main", json!({"version": "7"}))).version, "7");
        let failed = seen(&body("failure", "refs/tags/2.0", json!(null)));
        assert_eq!((failed.phase, failed.version.as_str()), (Phase::Aborted, "2.0"));
        assert_eq!(failed.reason.unwrap(), "failure on GitHub. no pods");
    }

    #[test]
    fn other_events_say_nothing_and_what_is_missing_is_named() {
        for event in ["ping", "deployment", "push"] {
            assert!(matches!(read(event, &json!({})).unwrap(), Said::Nothing(_)), "{event}");
        }
        let queued = body("queued", "main", json!({}));
        assert!(matches!(read("deployment_status", &queued).unwrap(), Said::Nothing(_)));
        let refused = read("deployment_status", &json!({"deployment": {"sha": 5}})).unwrap_err().to_string();
        for field in
            ["deployment_status.state", "repository.full_name", "deployment.environment", "deployment.sha"]
        {
            assert!(refused.contains(field), "{field} in {refused}");
        }
        assert!(read("", &json!({})).is_err());
    }
}
