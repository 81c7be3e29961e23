//! CDEvents of services: deployed, upgraded, rolled back, removed (specification 0.3 to 0.5, "Continuous Deployment").

use crate::changes::Seen;
use crate::changes::webhook::Said;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use vouch_proto::{Invalid, Phase};

/// What every type of these events begins with; a version of its schema ends it.
const SERVICE: &str = "dev.cdevents.service.";

/// What an event says. `declared` is its CloudEvents type, where it travels in headers; the body is the event, or a
/// CloudEvent with the event as `data`.
///
/// # Errors
/// By field, where it is no event of a service that can be used.
pub fn read(declared: &str, body: &Value) -> Result<Said, Invalid> {
    let event = body.get("data").filter(|data| data.is_object()).unwrap_or(body);
    let at = |path: &str| event.pointer(path).and_then(Value::as_str).map_or("", str::trim);
    let outer = body.get("type").and_then(Value::as_str).unwrap_or_default();
    let kind = [at("/context/type"), outer, declared].into_iter().find(|kind| !kind.is_empty());
    let Some(kind) = kind else {
        return Err(Invalid::field(
            "context.type",
            "is missing; send CDEvents, e.g. dev.cdevents.service.deployed.0.2.0",
        ));
    };
    let predicate = kind.strip_prefix(SERVICE).and_then(|rest| rest.split('.').next());
    let restores = match predicate {
        Some("deployed" | "upgraded") => false,
        Some("rolledback") => true,
        Some(_) | None => return Ok(Said::Nothing(format!("`{kind}` is no deployment of a service"))),
    };
    let mut invalid = Invalid::default();
    let mut required = |path: &str, remedy: &str| {
        let found = at(path);
        if found.is_empty() {
            invalid.push(path.trim_start_matches('/').replace('/', "."), format!("is missing; {remedy}"));
        }
        found
    };
    let service = required("/subject/id", "name the service");
    let environment = required("/subject/content/environment/id", "name the environment");
    let artifact = required("/subject/content/artifactId", "give the package URL of what was deployed");
    invalid.into_result()?;
    let version = version(artifact).ok_or_else(|| {
        let message = format!("`{artifact}` names no version; write e.g. pkg:oci/cart@sha256:...?tag=1.4.2");
        Invalid::field("subject.content.artifactId", message)
    })?;
    let mut seen = Seen::new(service, environment, &version);
    seen.phase = Phase::Traffic;
    seen.at = at("/context/timestamp").parse().ok();
    seen.restores = restores;
    Ok(Said::Seen(vec![seen]))
}

/// The tag of a package URL, else its version.
fn version(purl: &str) -> Option<String> {
    let (path, qualifiers) = purl.split_once('?').unwrap_or((purl, ""));
    let qualifiers = qualifiers.split('#').next().unwrap_or_default();
    let tag = qualifiers.split('&').find_map(|pair| pair.strip_prefix("tag="));
    let path = path.split('#').next().unwrap_or_default();
    let after = path.rsplit_once('@').map(|(_, version)| version);
    tag.or(after)
        .filter(|version| !version.is_empty())
        .map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, artifact: &str) -> Value {
        json!({
            "context": {"type": kind, "timestamp": "2026-11-29T10:00:00.5Z", "id": "1", "source": "/ci"},
            "subject": {"id": "service/cart", "type": "service",
                        "content": {"environment": {"id": "cluster/prod"}, "artifactId": artifact}},
        })
    }

    fn seen(said: Result<Said, Invalid>) -> Seen {
        match said.unwrap() {
            Said::Seen(mut seen) => seen.remove(0),
            other @ (Said::Change(_) | Said::Nothing(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn services_that_are_deployed_upgraded_or_rolled_back_are_deployments() {
        let artifact = "pkg:oci/cart@sha256%3A0b31b1c0?repository_url=r.example.com&tag=1.4.2";
        for (kind, restores) in [
            ("dev.cdevents.service.deployed.0.2.0", false),
            ("dev.cdevents.service.upgraded.0.3.0-draft", false),
            ("dev.cdevents.service.rolledback.0.2.0", true),
        ] {
            let one = seen(read("", &event(kind, artifact)));
            assert_eq!((one.restores, one.version.as_str()), (restores, "1.4.2"), "{kind}");
            assert_eq!((one.service.as_str(), one.environment.as_str()), ("service/cart", "cluster/prod"));
            assert_eq!(one.at, "2026-11-29T10:00:00.5Z".parse().ok());
        }
        let whole = json!({"specversion": "1.0", "type": "dev.cdevents.service.deployed.0.2.0",
                           "data": event("", "pkg:generic/cart@2.0")});
        assert_eq!(seen(read("", &whole)).version, "2.0");
        let bare = event("", "pkg:oci/cart@sha256%3A0b31");
        assert_eq!(seen(read("dev.cdevents.service.deployed.0.2.0", &bare)).version, "sha256:0b31");
    }

    #[test]
    fn other_events_say_nothing_and_what_is_missing_is_named() {
        for kind in ["dev.cdevents.service.removed.0.2.0", "dev.cdevents.build.finished.0.2.0", "other"] {
            assert!(matches!(read("", &event(kind, "pkg:oci/a@1")).unwrap(), Said::Nothing(_)), "{kind}");
        }
        let kind = "dev.cdevents.service.deployed.0.2.0";
        let refused = read(kind, &json!({"subject": {"content": {}}})).unwrap_err().to_string();
        for field in ["subject.id", "subject.content.environment.id", "subject.content.artifactId"] {
            assert!(refused.contains(field), "{field} in {refused}");
        }
        assert!(read("", &event(kind, "pkg:oci/cart")).unwrap_err().to_string().contains("names no version"));
        assert!(read("", &json!([])).is_err());
    }
}
