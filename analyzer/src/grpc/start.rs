//! Start and Cancel: validated here, published as deployments, and taken in like any other.

use super::{refuse, unavailable};
use crate::live::Shared;
use crate::live::store::Announcement;
use crate::record::{Record, State};
use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use std::time::Duration;
use tonic::Status;
use vouch_proto::envelope::{self, Origin};
use vouch_proto::subject::{self, DEPLOYMENTS};
use vouch_proto::{
    Deployment, HostGroup, Invalid, Phase, Strategy, Timestamp, VerificationRequest, Window, time, v1,
};
use vouch_service::nats::headers;
use vouch_service::publish::publish_at;

/// How far ahead of ours the clock of a caller may be.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// How long Cancel waits for the verdict.
const CANCEL_WAIT: Duration = Duration::from_secs(10);
/// Oldest start of a retrospective verification: sources keep minutes for two weeks.
const OLDEST_START: Duration = Duration::from_secs(14 * 24 * 3600);

pub(super) async fn start(
    shared: &Shared,
    request: v1::StartRequest,
    traceparent: Option<String>,
) -> Result<Record, Status> {
    let now = shared.now();
    let (deployment, at) = read(shared, request, now).map_err(|e| refuse::invalid(&e))?;
    check_known(shared, &deployment).await?;
    check_sides(shared, &deployment).await?;
    let template = shared.settings.templates.of(&deployment).map_err(|e| refuse::invalid(&e))?;
    let (_, window) = deployment.verification.length(template);
    let known = shared.store.announce_request(&deployment, at, window).await.map_err(unavailable)?;
    let known = known.ok_or_else(|| Status::internal("an announcement with traffic is never ignored"))?;
    let (id, open) = shared.store.next_verification(&known).await.map_err(unavailable)?;
    if open {
        let record = shared.store.get(&id).await.map_err(unavailable)?;
        let record =
            record.ok_or_else(|| Status::unavailable(format!("verification {id} vanished; try again")))?;
        check_joins(&record, &deployment.verification)?;
        return Ok(record);
    }
    let deployment = Deployment {
        deployment_id: known.deployment.deployment_id.clone(),
        verification_id: Some(id),
        occurred_at: Some(at),
        ..deployment
    };
    let taken = publish_and_take_in(shared, deployment, at, traceparent).await.map_err(unavailable)?;
    taken.ok_or_else(|| Status::internal("an announcement with traffic is never ignored"))
}

/// Refuses to join a verification that runs otherwise than asked for; what was left out fits any.
fn check_joins(record: &Record, asked: &VerificationRequest) -> Result<(), Status> {
    let mut differs = Invalid::default();
    let mut compare = |field: &str, asked: String, runs: String| {
        if asked != runs {
            let id = &record.verification_id;
            let message = format!(
                "is {asked}, but the open verification `{id}` runs with {runs}; leave it out to join, or Cancel `{id}` first"
            );
            differs.push(format!("verification.{field}"), message);
        }
    };
    if let Some(duration) = asked.duration {
        compare("duration", format!("{} s", duration.as_secs()), format!("{} s", record.duration.as_secs()));
    }
    if let Some(early_pass) = asked.early_pass {
        compare("early_pass", early_pass.to_string(), record.early_pass.to_string());
    }
    if let Some(extend_by) = asked.extend_by {
        let seconds = |d: Duration| format!("{} s", d.as_secs());
        compare("extend_by", seconds(extend_by), seconds(record.extend_by));
    }
    if let Some(template) = &asked.template {
        compare("template", format!("`{template}`"), format!("`{}`", record.template));
    }
    if let Some(strategy) = asked.strategy.filter(|s| *s != Strategy::Auto) {
        compare("strategy", format!("`{strategy}`"), format!("`{}`", record.strategy));
    }
    if !asked.baseline.is_empty() {
        compare("baseline", in_words(&asked.baseline), in_words(&record.baseline));
    }
    differs.into_result().map_err(|e| refuse::precondition(&e))
}

fn in_words(windows: &[Window]) -> String {
    let windows: Vec<String> = windows.iter().map(|w| format!("{} to {}", w.start(), w.end())).collect();
    windows.join(", ")
}

/// Validates a request: every wrong field at once.
fn read(
    shared: &Shared,
    request: v1::StartRequest,
    now: Timestamp,
) -> Result<(Deployment, Timestamp), Invalid> {
    let mut invalid = Invalid::default();
    let started_at = invalid.check("started_at", time::optional(request.started_at)).flatten();
    let at = started_at.unwrap_or(now);
    if at > now.plus(CLOCK_SKEW) {
        invalid.push(
            "started_at",
            format!("{at} lies in the future (it is {now}); give when the traffic began"),
        );
    }
    if at < now.minus(OLDEST_START) {
        invalid
            .push("started_at", format!("{at} is more than 14 days ago; sources keep minutes for two weeks"));
    }
    let phase = if request.wait_for_traffic { Phase::Started } else { Phase::Traffic };
    let wire = v1::Deployment {
        service: request.service,
        environment: request.environment,
        version: request.version,
        previous_version: request.previous_version,
        owner: request.owner,
        cluster: request.cluster,
        workload: request.workload,
        phase: phase.to_wire(),
        hosts: request.hosts,
        verification: request.verification,
        source: request.requested_by,
        traffic_percent: request.traffic_percent,
        ..Default::default()
    };
    let deployment = invalid.check("", Deployment::try_from(wire));
    if let Some(deployment) = &deployment {
        check_request(shared, deployment, now, &mut invalid);
    }
    match deployment {
        Some(deployment) if invalid.violations.is_empty() => Ok((deployment, at)),
        _ => Err(invalid),
    }
}

fn check_request(shared: &Shared, deployment: &Deployment, now: Timestamp, invalid: &mut Invalid) {
    let request = &deployment.verification;
    invalid.check("verification", shared.settings.templates.get(request.template.as_deref()).map(|_| ()));
    for (i, window) in request.baseline.iter().enumerate() {
        if window.end() > now {
            invalid.push(
                format!("verification.baseline[{i}].end"),
                format!("{} lies in the future; a reference window is over", window.end()),
            );
        }
    }
    check_diluted(deployment, invalid);
    if request.strategy == Some(Strategy::LoadTest) && request.baseline.is_empty() {
        invalid.push(
            "verification.baseline",
            "is missing; `load-test` compares with a pinned run, so give the window of that run",
        );
    }
}

/// A canary needs hosts on both sides: named by the request, or told apart by the source.
async fn check_sides(shared: &Shared, deployment: &Deployment) -> Result<(), Status> {
    let request = &deployment.verification;
    let has = |group| deployment.hosts.iter().any(|h| h.group == group);
    let sides = has(HostGroup::Control) && has(HostGroup::Test);
    if request.strategy != Some(Strategy::Canary)
        || sides
        || request.diluted
        || deployment.phase == Phase::Started
    {
        return Ok(());
    }
    let (environment, service) = (&deployment.environment, &deployment.service);
    let instances = shared.store.instances(environment, service).await.map_err(unavailable)?;
    if instances > 0 {
        return Ok(());
    }
    Err(refuse::field(
        "verification.strategy",
        "`canary` compares test with control hosts; name both in `hosts`, choose `auto`, or ask for it `diluted`",
    ))
}

/// A canary that is seen through the service as a whole needs to know what part of it the canary is.
fn check_diluted(deployment: &Deployment, invalid: &mut Invalid) {
    let request = &deployment.verification;
    if !request.diluted {
        return;
    }
    if request.strategy != Some(Strategy::Canary) {
        invalid
            .push("verification.diluted", "is for the strategy `canary` alone; ask for it, or leave it out");
    }
    if !(1..100).contains(&deployment.traffic_percent) {
        let message = format!(
            "{} is no part of the traffic; say with 1 to 99 what part the diluted canary has",
            deployment.traffic_percent
        );
        invalid.push("traffic_percent", message);
    }
}

/// Refuses a service that the source does not have, where the catalogue can tell.
async fn check_known(shared: &Shared, deployment: &Deployment) -> Result<(), Status> {
    let known =
        shared.store.is_known(&deployment.environment, &deployment.service).await.map_err(unavailable)?;
    if known != Some(false) {
        return Ok(());
    }
    let similar = shared.store.similar(&deployment.service).await.map_err(unavailable)?.join(", ");
    Err(refuse::field(
        "service",
        format!(
            "`{}` in `{}` is not known to the source; known are e.g. {similar} (a new service appears within 5 minutes)",
            deployment.service, deployment.environment
        ),
    ))
}

/// Publishes a deployment and takes it in at once, so that the caller gets its record.
async fn publish_and_take_in(
    shared: &Shared,
    deployment: Deployment,
    at: Timestamp,
    traceparent: Option<String>,
) -> anyhow::Result<Option<Record>> {
    let topic = subject::deployment(&deployment.environment, &deployment.service);
    let id = format!(
        "{}.{}.{}",
        deployment.verification_id.as_deref().unwrap_or_default(),
        deployment.phase.to_wire(),
        at.as_millis()
    );
    let origin =
        Origin { source: "vouch/analyzer", id: &id, time: shared.now(), traceparent: traceparent.as_deref() };
    let (sealed, body) = envelope::seal(&v1::Deployment::from(deployment.clone()), &origin)?;
    let sequence = publish_at(&shared.context.nats, topic, headers(sealed), Bytes::from(body)).await?;
    let stream = shared.context.nats.jetstream.get_stream_no_info(DEPLOYMENTS.name).await?;
    let stored = stream.get_raw_message(sequence).await.context("the announcement was not stored")?;
    let news = Announcement {
        deployment,
        at,
        published: crate::live::real_instant(stored.time),
        now: shared.now(),
        traceparent,
    };
    shared.store.take_in(&news, &shared.settings).await
}

pub(super) async fn cancel(
    shared: &Shared,
    record: Record,
    request: v1::CancelRequest,
) -> Result<Record, Status> {
    if request.cancelled_by.is_empty() {
        return Err(refuse::field("cancelled_by", "is empty; say who cancels, for the audit"));
    }
    if record.state == State::Final {
        let message = format!("verification `{}` has ended; its verdict stays", record.verification_id);
        return Err(Status::failed_precondition(message));
    }
    let key = subject::id_key(&record.verification_id);
    let mut changes = shared
        .store
        .verifications
        .watch_with_history(key)
        .await
        .map_err(|e| unavailable(anyhow::Error::from(e)))?;
    let deployment = Deployment {
        phase: Phase::Aborted,
        cancelled_by: Some(request.cancelled_by),
        reason: (!request.reason.is_empty()).then_some(request.reason),
        verification_id: Some(record.verification_id.clone()),
        hosts: Vec::new(),
        ..record.deployment
    };
    publish_and_take_in(shared, deployment, shared.now(), record.traceparent).await.map_err(unavailable)?;
    let ended = async {
        while let Some(entry) = changes.next().await {
            let entry = entry.map_err(|e| unavailable(anyhow::Error::from(e)))?;
            let wire: v1::Verification =
                serde_json::from_slice(&entry.value).map_err(|e| unavailable(anyhow::Error::from(e)))?;
            let record = Record::try_from(wire).map_err(|e| unavailable(anyhow::Error::from(e)))?;
            if record.state == State::Final {
                return Ok(record);
            }
        }
        Err(Status::unavailable("the verification's record cannot be watched; Get tells how it ended"))
    };
    tokio::time::timeout(CANCEL_WAIT, ended).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded("cancelled, but no verdict in 10 s; Get tells how it ended"))
    })
}
