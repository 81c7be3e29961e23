//! GetEvidence: what a verdict rests on, from the stream, judged once more for what the detectors saw.

use super::unavailable;
use crate::case::{Case, CaseTemplate};
use crate::detector::Sample;
use crate::evidence::{self, Evidence, UnitEvidence, bundle};
use crate::judge::JudgeSettings;
use crate::live::Shared;
use crate::live::evidence::{load, unpack};
use crate::record::{Record, State};
use std::collections::BTreeMap;
use tonic::Status;
use vouch_proto::{MetricSettings, v1};

/// Most units of an answer, so that it stays a message.
const MAX_UNITS: usize = 50;

pub(super) async fn get(shared: &Shared, record: &Record) -> Result<v1::GetEvidenceResponse, Status> {
    let (deployment, id) = (&record.deployment, record.verification_id.as_str());
    if record.state != State::Final {
        return Err(Status::failed_precondition(format!(
            "verification `{id}` has no verdict yet; Watch it, and ask again then"
        )));
    }
    let packed =
        load(shared, (&deployment.environment, &deployment.service), id).await.map_err(unavailable)?;
    let packed = packed.ok_or_else(|| {
        Status::not_found(format!(
            "there is no evidence of verification `{id}`: its verdict does not rest on samples, or it is older than is kept"
        ))
    })?;
    let answer = tokio::task::spawn_blocking(move || answer(packed));
    answer.await.map_err(|_| Status::internal("the judge did not end; please report the id"))?
}

fn answer(packed: Vec<u8>) -> Result<v1::GetEvidenceResponse, Status> {
    let damaged = |why: String| Status::data_loss(format!("the evidence cannot be read: {why}"));
    let text = unpack(&packed).map_err(|e| damaged(format!("{e:#}")))?;
    let case = Case::from_json(&text).map_err(|e| damaged(e.to_string()))?;
    let about = bundle::about(&text).map_err(|e| damaged(e.to_string()))?;
    let queries = about.map(|about| about.queries).unwrap_or_default();
    let evidence = evidence::of_case(&case, &JudgeSettings::default()).map_err(|e| damaged(e.to_string()))?;
    let left_out = evidence.units.len().saturating_sub(MAX_UNITS);
    let units = evidence.units.iter().take(MAX_UNITS);
    Ok(v1::GetEvidenceResponse {
        units: units.map(|unit| wire(&evidence, unit, (&case.template, &queries))).collect(),
        units_left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
        bundle: packed,
    })
}

fn wire(
    evidence: &Evidence,
    unit: &UnitEvidence,
    (template, queries): (&CaseTemplate, &BTreeMap<String, String>),
) -> v1::UnitEvidence {
    let metric = unit.metrics.first().map_or("", String::as_str);
    let settings = template.of(metric);
    let minute = |step: usize| i32::try_from(evidence.minute(step)).unwrap_or(i32::MAX);
    v1::UnitEvidence {
        metrics: unit.metrics.clone(),
        host: unit.host.clone(),
        unit: unit.unit.clone(),
        direction: unit.direction.to_wire(),
        against: unit.against.to_owned(),
        query: queries.get(metric).cloned().unwrap_or_default(),
        settings: (*settings != MetricSettings::DEFAULT).then(|| settings.clone().into()),
        placebo: unit.placebo,
        needed: unit.needed,
        sax_word: unit.word(),
        since_minute: unit.since.map(minute),
        steps: unit.steps.iter().enumerate().map(|(t, sample)| step(minute(t), sample)).collect(),
    }
}

fn step(minute: i32, sample: &Sample) -> v1::EvidenceStep {
    let known = |value: f64| value.is_finite().then_some(value);
    v1::EvidenceStep {
        minute,
        observed: known(sample.observed),
        expected: known(sample.expected),
        low: known(sample.band[0]),
        high: known(sample.band[1]),
        state: sample.state.to_owned(),
        ln_evidence: sample.ln_evidence,
    }
}
