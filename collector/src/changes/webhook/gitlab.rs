//! GitLab's deployment events.

use super::{Said, required, text};
use crate::changes::Seen;
use serde_json::Value;
use vouch_proto::{Invalid, Phase, Timestamp};

pub(super) fn read(body: &Value) -> Result<Said, Invalid> {
    let kind = text(body, "/object_kind");
    match kind {
        "deployment" => deployment(body),
        "" => Err(Invalid::field("object_kind", "is missing; is this webhook called by GitLab?")),
        other => Ok(Said::Nothing(format!(
            "`{other}` is no deployment; choose \"Deployment events\" for this webhook"
        ))),
    }
}

fn deployment(body: &Value) -> Result<Said, Invalid> {
    let mut invalid = Invalid::default();
    let status = required(body, "/status", &mut invalid);
    let project = required(body, "/project/path_with_namespace", &mut invalid);
    let environment = required(body, "/environment", &mut invalid);
    let commit = required(body, "/short_sha", &mut invalid);
    invalid.into_result()?;
    let phase = match status {
        "running" => Phase::Started,
        "success" => Phase::Finished,
        "failed" | "canceled" => Phase::Aborted,
        other => return Ok(Said::Nothing(format!("status `{other}` changes nothing"))),
    };
    let reference = text(body, "/ref");
    let bare = reference.strip_prefix('v').unwrap_or(reference);
    let is_tag = bare.starts_with(|c: char| c.is_ascii_digit()) && bare.contains('.');
    let mut seen = Seen::new(project, environment, if is_tag { reference } else { commit });
    seen.phase = phase;
    seen.at = changed_at(text(body, "/status_changed_at"));
    if phase == Phase::Aborted {
        seen.reason = Some(format!("{status} on GitLab"));
    }
    Ok(Said::Seen(vec![seen]))
}

/// GitLab writes `2026-11-29 10:00:00 +0100`; newer ones may write RFC 3339.
fn changed_at(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    let zoned = jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S %z", text)
        .or_else(|_| jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S UTC", text));
    let at = zoned.ok()?.to_timestamp().ok().or_else(|| {
        let utc = text.strip_suffix(" UTC")?;
        format!("{}Z", utc.replacen(' ', "T", 1)).parse().ok()
    })?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(status: &str, reference: &str) -> Value {
        json!({
            "object_kind": "deployment", "status": status, "status_changed_at": "2026-11-29 11:00:00 +0100",
            "environment": "production", "project": {"path_with_namespace": "shop/cart"},
            "short_sha": "279484c0", "ref": reference,
        })
    }

    #[test]
    fn statuses_are_phases() {
        for (status, phase) in [
            ("running", Phase::Started),
            ("success", Phase::Finished),
            ("failed", Phase::Aborted),
            ("canceled", Phase::Aborted),
        ] {
            let Said::Seen(seen) = read(&body(status, "main")).unwrap() else { panic!("{status}") };
            assert_eq!((seen[0].phase, seen[0].version.as_str()), (phase, "279484c0"));
            assert_eq!(seen[0].at, "2026-11-29T10:00:00Z".parse().ok());
        }
        let Said::Seen(seen) = read(&body("success", "v2.1.0")).unwrap() else { panic!() };
        assert_eq!(seen[0].version, "v2.1.0");
        assert!(matches!(read(&body("created", "main")).unwrap(), Said::Nothing(_)));
    }

    #[test]
    fn times_are_read_as_gitlab_writes_them() {
        let ten = "2026-11-29T10:00:00Z".parse().ok();
        for text in ["2026-11-29 10:00:00 UTC", "2026-11-29 11:00:00 +0100", "2026-11-29T10:00:00Z"] {
            assert_eq!(changed_at(text), ten, "{text}");
        }
        assert_eq!(changed_at("soon"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let refused = read(&json!({"object_kind": "deployment"})).unwrap_err().to_string();
        for field in ["status", "project.path_with_namespace", "environment", "short_sha"] {
            assert!(refused.contains(field), "{field} in {refused}");
        }
        assert!(matches!(read(&json!({"object_kind": "push"})).unwrap(), Said::Nothing(_)));
        assert!(read(&json!({})).is_err());
    }
}
