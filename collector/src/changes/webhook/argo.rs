//! Notifications of Argo CD and Argo Rollouts, with the object itself as the body (docs/integrations/argo.md has the
//! templates).

use super::{Said, image_name, image_version, instant, required, text};
use crate::changes::{Certainty, Seen};
use serde_json::Value;
use vouch_proto::{Invalid, Phase, Timestamp};

/// An application of Argo CD, alone or as `app`.
pub(super) fn application(body: &Value) -> Result<Said, Invalid> {
    let app = body.get("app").unwrap_or(body);
    let mut invalid = Invalid::default();
    let name = required(app, "/metadata/name", &mut invalid);
    let phase = required(app, "/status/operationState/phase", &mut invalid);
    invalid.into_result()?;
    let is_healthy = text(app, "/status/health/status") == "Healthy";
    let phase = match phase {
        "Running" => Phase::Started,
        "Succeeded" if is_healthy => Phase::Finished,
        "Succeeded" => Phase::Started,
        "Failed" | "Error" => Phase::Aborted,
        other => return Ok(Said::Nothing(format!("operation phase `{other}` changes nothing"))),
    };
    let revision = ["/status/operationState/syncResult/revision", "/status/sync/revision"];
    let revision = revision.map(|path| text(app, path)).into_iter().find(|found| !found.is_empty());
    let Some(version) = synced_image(app, name).or(revision) else {
        return Err(Invalid::field("status.sync.revision", "is missing, and no image names a version"));
    };
    let mut seen = Seen::new(name, text(app, "/spec/destination/namespace"), version);
    seen.phase = phase;
    // A sync that changes nothing is told like any other.
    seen.certainty = Certainty::State;
    let at = if phase == Phase::Started { "startedAt" } else { "finishedAt" };
    seen.at = instant(app, &format!("/status/operationState/{at}"));
    if phase == Phase::Aborted {
        seen.reason = Some(text(app, "/status/operationState/message").to_owned());
    }
    Ok(Said::Seen(vec![seen]))
}

/// The version of the application's own image, or of its only one.
fn synced_image<'v>(app: &'v Value, name: &str) -> Option<&'v str> {
    let images: Vec<&str> =
        app.pointer("/status/summary/images")?.as_array()?.iter().filter_map(Value::as_str).collect();
    let own = images.iter().find(|image| image_name(image) == name);
    own.or_else(|| images.first().filter(|_| images.len() == 1)).and_then(|image| image_version(image))
}

/// A rollout of Argo Rollouts, alone or as `rollout`. It does not say when it came to be what it is: `now`.
pub(super) fn rollout(body: &Value, now: Timestamp) -> Result<Said, Invalid> {
    let rollout = body.get("rollout").unwrap_or(body);
    let mut invalid = Invalid::default();
    let name = required(rollout, "/metadata/name", &mut invalid);
    let namespace = required(rollout, "/metadata/namespace", &mut invalid);
    let status = required(rollout, "/status/phase", &mut invalid);
    invalid.into_result()?;
    let Some(version) = container_version(rollout, name) else {
        return Err(Invalid::field(
            "spec.template.spec.containers",
            "names no image with a tag or digest; a rollout with workloadRef is announced by `kubernetes` instead",
        ));
    };
    let is_aborted = rollout.pointer("/status/abort").and_then(Value::as_bool) == Some(true);
    let weight = rollout.pointer("/status/canary/weights/canary/weight").and_then(Value::as_u64);
    let percent = weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(0).min(100);
    let (phase, percent) = match status {
        _ if is_aborted => (Phase::Aborted, 0),
        "Degraded" => (Phase::Aborted, 0),
        "Healthy" => (Phase::Finished, 100),
        "Progressing" | "Paused" if percent > 0 => (Phase::Traffic, percent),
        "Progressing" | "Paused" => (Phase::Started, 0),
        other => return Ok(Said::Nothing(format!("phase `{other}` changes nothing"))),
    };
    let mut seen = Seen::new(name, namespace, version);
    (seen.phase, seen.traffic_percent) = (phase, percent);
    seen.certainty = Certainty::State;
    seen.at = Some(now);
    if phase == Phase::Aborted {
        seen.reason = Some(text(rollout, "/status/message").to_owned()).filter(|why| !why.is_empty());
    }
    Ok(Said::Seen(vec![seen]))
}

/// The version of the container named like the rollout, or of the first one.
fn container_version<'v>(rollout: &'v Value, name: &str) -> Option<&'v str> {
    let containers = rollout.pointer("/spec/template/spec/containers")?.as_array()?;
    let own = containers.iter().find(|container| text(container, "/name") == name);
    image_version(text(own.or_else(|| containers.first())?, "/image"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn only(said: Result<Said, Invalid>) -> Seen {
        match said.unwrap() {
            Said::Seen(mut seen) => seen.remove(0),
            other @ (Said::Change(_) | Said::Nothing(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_application_is_announced_by_its_image_or_revision() {
        let app = |phase: &str, health: &str, images: Value| {
            json!({"app": {
                "metadata": {"name": "cart"}, "spec": {"destination": {"namespace": "shop"}},
                "status": {
                    "health": {"status": health}, "summary": {"images": images}, "sync": {"revision": "0b31b1c"},
                    "operationState": {"phase": phase, "startedAt": "2026-11-29T10:00:00Z",
                                       "finishedAt": "2026-11-29T10:01:00Z", "message": "no such image"},
                },
            }})
        };
        let seen = only(application(&app("Running", "Progressing", json!(["proxy:9", "shop/cart:1.4.2"]))));
        assert_eq!((seen.phase, seen.version.as_str()), (Phase::Started, "1.4.2"));
        assert_eq!((seen.environment.as_str(), seen.certainty), ("shop", Certainty::State));
        assert_eq!(seen.at, "2026-11-29T10:00:00Z".parse().ok());
        let seen = only(application(&app("Succeeded", "Healthy", json!(["proxy:9", "worker:2"]))));
        assert_eq!((seen.phase, seen.version.as_str()), (Phase::Finished, "0b31b1c"));
        assert_eq!(only(application(&app("Succeeded", "Progressing", json!([])))).phase, Phase::Started);
        let seen = only(application(&app("Failed", "Degraded", json!(["web:3"]))));
        assert_eq!((seen.phase, seen.version.as_str()), (Phase::Aborted, "3"));
        assert_eq!(seen.reason.unwrap(), "no such image");
        let refused = application(&json!({"app": {}})).unwrap_err().to_string();
        assert!(refused.contains("metadata.name") && refused.contains("operationState.phase"), "{refused}");
    }

    #[test]
    fn a_rollout_is_announced_step_by_step() {
        let now = Timestamp::from_millis(1_764_410_400_000);
        let of = |phase: &str, weight: u64, abort: bool| {
            let body = json!({"rollout": {
                "metadata": {"name": "cart", "namespace": "shop"},
                "spec": {"template": {"spec": {"containers": [
                    {"name": "proxy", "image": "proxy:9"}, {"name": "cart", "image": "shop/cart:1.4.2"}]}}},
                "status": {"phase": phase, "abort": abort, "message": "metric p95 failed",
                           "canary": {"weights": {"canary": {"weight": weight}}}},
            }});
            only(rollout(&body, now))
        };
        for (phase, weight, abort, expected) in [
            ("Progressing", 0, false, (Phase::Started, 0)),
            ("Paused", 20, false, (Phase::Traffic, 20)),
            ("Healthy", 0, false, (Phase::Finished, 100)),
            ("Degraded", 20, true, (Phase::Aborted, 0)),
        ] {
            let seen = of(phase, weight, abort);
            assert_eq!((seen.phase, seen.traffic_percent), expected, "{phase}");
            assert_eq!((seen.version.as_str(), seen.at), ("1.4.2", Some(now)));
        }
        let body = json!({"metadata": {"name": "a", "namespace": "b"}, "status": {"phase": "Healthy"}});
        assert!(rollout(&body, now).unwrap_err().to_string().contains("workloadRef"));
    }
}
