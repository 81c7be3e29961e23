//! The envelope of a public message: CloudEvents 1.0 attributes and W3C trace context as NATS headers.

use crate::{Timestamp, v1};
use serde::{Serialize, de::DeserializeOwned};

/// `content-type` of canonical proto3 JSON.
pub const JSON: &str = "application/json";
/// `content-type` of protobuf.
pub const PROTOBUF: &str = "application/protobuf";

/// Headers of one message, by name, in the order in which they are written.
pub type Headers = Vec<(&'static str, String)>;

/// A message of a public topic: its CloudEvents type and where it is about.
pub trait Event: prost::Message + Serialize + DeserializeOwned + Default {
    /// CloudEvents `type`.
    const TYPE: &'static str;
    /// CloudEvents `subject`, e.g. `prod/checkout`.
    fn about(&self) -> String;
}

impl Event for v1::Deployment {
    const TYPE: &'static str = "dev.vouch.v1.deployment";
    fn about(&self) -> String {
        format!("{}/{}", self.environment, self.service)
    }
}

impl Event for v1::Verdict {
    const TYPE: &'static str = "dev.vouch.v1.verdict";
    fn about(&self) -> String {
        format!("{}/{}", self.environment, self.service)
    }
}

impl Event for v1::Progress {
    const TYPE: &'static str = "dev.vouch.v1.progress";
    fn about(&self) -> String {
        format!("{}/{}", self.environment, self.service)
    }
}

impl Event for v1::Action {
    const TYPE: &'static str = "dev.vouch.v1.action";
    fn about(&self) -> String {
        format!("{}/{}", self.environment, self.service)
    }
}

/// Where an event comes from and which trace it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin<'a> {
    /// CloudEvents `source`, e.g. `vouch/analyzer`.
    pub source: &'a str,
    /// CloudEvents `id`, unique within the source: also the `Nats-Msg-Id`.
    pub id: &'a str,
    /// CloudEvents `time`.
    pub time: Timestamp,
    /// W3C `traceparent` of the work that led to it.
    pub traceparent: Option<&'a str>,
}

/// Headers and canonical JSON of an event.
///
/// # Errors
/// Where the message cannot be written as JSON (a number that is not finite).
pub fn seal<E: Event>(event: &E, origin: &Origin<'_>) -> Result<(Headers, Vec<u8>), serde_json::Error> {
    let mut headers = vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-type", E::TYPE.to_owned()),
        ("ce-source", origin.source.to_owned()),
        ("ce-id", origin.id.to_owned()),
        ("ce-subject", event.about()),
        ("ce-time", origin.time.to_string()),
        ("content-type", JSON.to_owned()),
        ("Nats-Msg-Id", origin.id.to_owned()),
    ];
    headers.extend(origin.traceparent.map(|t| ("traceparent", t.to_owned())));
    Ok((headers, serde_json::to_vec(event)?))
}

/// Reads the body of an event as its `content-type` says; JSON where it says nothing.
///
/// # Errors
/// In words for the dead letter: an unknown content type, or a body that is not what the type says.
pub fn open<E: Event>(content_type: Option<&str>, body: &[u8]) -> Result<E, String> {
    let kind = content_type.map_or(JSON, |t| t.split(';').next().unwrap_or(t).trim());
    match kind {
        JSON | "application/cloudevents+json" | "" => {
            serde_json::from_slice(body).map_err(|e| format!("no {} in JSON: {e}", E::TYPE))
        }
        PROTOBUF => E::decode(body).map_err(|e| format!("no {} in protobuf: {e}", E::TYPE)),
        other => Err(format!("content-type `{other}` is not understood, send {JSON} or {PROTOBUF}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use prost::Message as _;

    #[test]
    fn an_event_carries_the_attributes_of_cloudevents() {
        let verdict = v1::Verdict::from(fixtures::verdict());
        let time = "2026-11-24T10:07:00Z".parse().unwrap();
        let origin = Origin { source: "vouch/analyzer", id: "x.0", time, traceparent: Some("00-aa-bb-01") };
        let (headers, body) = seal(&verdict, &origin).unwrap();
        let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert_eq!(header("ce-type"), Some("dev.vouch.v1.verdict"));
        assert_eq!(header("ce-subject"), Some("prod/checkout"));
        assert_eq!(header("ce-time"), Some("2026-11-24T10:07:00Z"));
        assert_eq!(header("traceparent"), Some("00-aa-bb-01"));
        assert_eq!(open::<v1::Verdict>(header("content-type"), &body).unwrap(), verdict);
    }

    #[test]
    fn protobuf_is_accepted_and_nonsense_is_named() {
        let verdict = v1::Verdict::from(fixtures::verdict());
        assert_eq!(open::<v1::Verdict>(Some(PROTOBUF), &verdict.encode_to_vec()).unwrap(), verdict);
        assert!(open::<v1::Verdict>(Some("text/plain"), b"x").unwrap_err().contains("`text/plain`"));
        assert!(open::<v1::Verdict>(None, b"{").unwrap_err().contains("JSON"));
        assert!(open::<v1::Verdict>(Some(PROTOBUF), b"\xff").unwrap_err().contains("protobuf"));
    }
}
