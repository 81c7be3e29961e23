//! The evidence bundle: the case that a verification was judged on, as `vouch judge` reads it, and what it is about.

use crate::case::Case;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use vouch_proto::{Invalid, Verdict, v1};

/// What a bundle says besides the case.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// The verdict as it was published, without its rows, which the case tells again.
    pub verdict: Verdict,
    /// By metric: the query that the source was asked.
    pub queries: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawBundle {
    evidence: Option<RawAbout>,
}

#[derive(Deserialize)]
struct RawAbout {
    verdict: v1::Verdict,
    #[serde(default)]
    queries: BTreeMap<String, String>,
}

/// One JSON object: the case, and under `evidence` the verdict and the queries.
#[must_use]
pub fn write(case: &Case, about: About) -> String {
    let verdict = v1::Verdict::from(Verdict { metrics: Vec::new(), ..about.verdict });
    let mut bundle = case.to_json();
    bundle.insert("evidence".to_owned(), json!({"verdict": verdict, "queries": about.queries}));
    Value::Object(bundle).to_string()
}

/// What a bundle says besides the case; `None` where it is a case and no bundle.
///
/// # Errors
/// Where `evidence` is there and is not what [`write`] writes.
pub fn about(text: &str) -> Result<Option<About>, Invalid> {
    let raw: RawBundle = serde_json::from_str(text)
        .map_err(|error| Invalid::field("evidence", format!("is not what a bundle says: {error}")))?;
    let read = |raw: RawAbout| {
        let verdict = Verdict::try_from(raw.verdict).map_err(|invalid| {
            let mut outer = Invalid::default();
            outer.extend("evidence.verdict", invalid);
            outer
        })?;
        Ok(About { verdict, queries: raw.queries })
    };
    raw.evidence.map(read).transpose()
}
