//! A deployment as it is on the topic: for callers that have HTTP and no NATS.

use super::{Said, header};
use crate::changes::{Certainty, Change};
use axum::http::HeaderMap;
use vouch_proto::{Deployment, Invalid, envelope, v1};

pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Said, Invalid> {
    let kind = header(headers, "content-type");
    // What a form or a script of curl sends by default says nothing about its body.
    let kind = Some(kind).filter(|kind| !kind.starts_with("application/x-www-form-urlencoded"));
    let wire: v1::Deployment = envelope::open(kind, body).map_err(|e| Invalid::field("body", e))?;
    let deployment = Deployment::try_from(wire)?;
    if deployment.cancelled_by.is_some() || deployment.verification_id.is_some() {
        return Err(Invalid::field(
            "verification_id",
            "is not for a webhook, nor is cancelled_by; `vouch verify` and gRPC begin and cancel verifications",
        ));
    }
    Ok(Said::Change(Box::new(Change { deployment, certainty: Certainty::Act, restores: false })))
}
