//! Flagger's event webhook. It tells of a canary's phases and not of its version.

use super::{Said, required, text};
use crate::changes::{Certainty, Seen};
use serde_json::Value;
use vouch_proto::{Invalid, Phase, Timestamp};

pub(super) fn read(body: &Value) -> Result<Said, Invalid> {
    let mut invalid = Invalid::default();
    let name = required(body, "/name", &mut invalid);
    let namespace = required(body, "/namespace", &mut invalid);
    let phase = required(body, "/phase", &mut invalid);
    invalid.into_result()?;
    let (phase, percent) = match phase {
        "Progressing" => (Phase::Traffic, weight(body)),
        "Promoting" | "Finalising" => (Phase::Traffic, 100),
        "Succeeded" => (Phase::Finished, 100),
        "Failed" => (Phase::Aborted, 0),
        other => return Ok(Said::Nothing(format!("phase `{other}` is no deployment"))),
    };
    // A canary's own word for what it runs. With it all phases of one deployment are told apart from the next one's.
    let said = text(body, "/metadata/version");
    let checksum = text(body, "/checksum");
    let (version, certainty) = match (said.is_empty(), checksum.is_empty()) {
        (false, _) => (said, Certainty::Act),
        (true, false) => (checksum, Certainty::Guess),
        (true, true) => return Ok(Said::Nothing("it names no version and has no checksum".to_owned())),
    };
    let mut seen = Seen::new(name, namespace, version);
    seen.certainty = certainty;
    // At nought percent the canary is there and has no traffic.
    seen.phase = if phase == Phase::Traffic && percent == 0 { Phase::Started } else { phase };
    seen.traffic_percent = percent;
    seen.at = text(body, "/metadata/timestamp").parse().ok().map(Timestamp::from_millis);
    if phase == Phase::Aborted {
        seen.reason = Some(text(body, "/metadata/eventMessage").to_owned()).filter(|why| !why.is_empty());
    }
    Ok(Said::Seen(vec![seen]))
}

/// The canary's share of the traffic, which Flagger says in words: `Advance cart.shop canary weight 20`.
fn weight(body: &Value) -> u32 {
    let message = text(body, "/metadata/eventMessage");
    let number = message.rsplit_once("canary weight ").and_then(|(_, number)| number.trim().parse().ok());
    let field = body.pointer("/canaryWeight").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    field.or(number).unwrap_or(0).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(phase: &str, message: &str) -> Value {
        json!({
            "name": "cart", "namespace": "shop", "phase": phase, "checksum": "85d557f47b",
            "metadata": {"eventMessage": message, "eventType": "Normal", "timestamp": "1764410400000"},
        })
    }

    #[test]
    fn phases_and_weights_are_read() {
        for (phase, message, expected) in [
            ("Progressing", "New revision detected! Scaling up cart.shop", (Phase::Started, 0)),
            ("Progressing", "Advance cart.shop canary weight 20", (Phase::Traffic, 20)),
            ("Promoting", "Copying cart.shop template spec to cart-primary.shop", (Phase::Traffic, 100)),
            ("Succeeded", "Promotion completed!", (Phase::Finished, 100)),
            ("Failed", "Canary failed! Scaling down cart.shop", (Phase::Aborted, 0)),
        ] {
            let Said::Seen(seen) = read(&body(phase, message)).unwrap() else { panic!("{phase}") };
            assert_eq!((seen[0].phase, seen[0].traffic_percent), expected, "{message}");
            assert_eq!((seen[0].certainty, seen[0].version.as_str()), (Certainty::Guess, "85d557f47b"));
            assert_eq!(seen[0].at, Some(Timestamp::from_millis(1_764_410_400_000)));
        }
        assert!(matches!(read(&body("Initialized", "")).unwrap(), Said::Nothing(_)));
        let mut named = body("Succeeded", "");
        named["metadata"]["version"] = json!("1.4.2");
        let Said::Seen(seen) = read(&named).unwrap() else { panic!() };
        assert_eq!((seen[0].certainty, seen[0].version.as_str()), (Certainty::Act, "1.4.2"));
        let refused = read(&json!({})).unwrap_err().to_string();
        assert!(refused.contains("name") && refused.contains("phase"), "{refused}");
    }
}
