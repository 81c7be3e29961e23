//! A deployment in one of its phases, and what was asked about it.

use crate::convert::{enum_words, text};
use crate::{Invalid, Name, Strategy, Timestamp, VerificationTemplate, Window, time, v1};
use std::time::Duration;

/// Shortest verification window that can end in Pass.
pub const MIN_DURATION: Duration = Duration::from_secs(5 * 60);
/// Longest verification window.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);
/// Most hosts that one deployment may name.
pub const MAX_HOSTS: usize = 2000;
/// Most restarts of one host.
pub const MAX_RESTARTS: usize = 100;
/// Most reference windows that a request may name.
pub const MAX_BASELINE_WINDOWS: usize = 16;

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Begun; no traffic on the new version yet.
    Started,
    /// The new version has traffic: judging starts with the first.
    Traffic,
    /// The named hosts run the new version.
    Switched,
    /// Complete.
    Finished,
    /// Given up, or its verification cancelled.
    Aborted,
}

enum_words!(Phase, v1::DeploymentPhase, Started, Traffic, Switched, Finished, Aborted);

/// Which side of a comparison a host is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostGroup {
    /// Not told apart.
    Service,
    /// Goes on running the old version.
    Control,
    /// Runs the new version.
    Test,
}

enum_words!(HostGroup, v1::HostGroup, Service, Control, Test);

/// A host whose group or switch is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentHost {
    /// As the source calls it.
    pub name: String,
    /// Its side.
    pub group: HostGroup,
    /// When it began to run the new version; `None` means at the first traffic (or never, for a control host).
    pub switched_at: Option<Timestamp>,
    /// When its process started again with the version that it had, ascending.
    pub restarted_at: Vec<Timestamp>,
}

/// How to verify.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerificationRequest {
    /// Name of a template; `None` for the default.
    pub template: Option<String>,
    /// `None` for the template's.
    pub strategy: Option<Strategy>,
    /// Length of the verification window, whole minutes; `None` for the template's.
    pub duration: Option<Duration>,
    /// Reference windows instead of the template's; empty for the template's.
    pub baseline: Vec<Window>,
    /// Judge a canary on the service as a whole where no host is measured, by its share of the traffic.
    pub diluted: bool,
    /// Pass as soon as a regression of practical size has been excluded; `None` for the template's.
    pub early_pass: Option<bool>,
    /// Longest extension where the window ends before that can be told, whole minutes; `None` for the template's.
    pub extend_by: Option<Duration>,
}

impl VerificationRequest {
    /// Length of the verification window without and with its extension, at most 24 h.
    #[must_use]
    pub fn length(&self, template: &VerificationTemplate) -> (Duration, Duration) {
        let duration = self.duration.unwrap_or(template.duration);
        let extension = self.extend_by.unwrap_or(template.extend_by);
        (duration, duration.saturating_add(extension).min(MAX_DURATION))
    }
}

/// A deployment in one of its phases, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// What is deployed.
    pub service: Name,
    /// Where to.
    pub environment: Name,
    /// The new version.
    pub version: Name,
    /// The version before, where it is known.
    pub previous_version: Option<String>,
    /// Whom to alert.
    pub owner: Option<String>,
    /// Where it runs.
    pub cluster: Option<String>,
    /// What to roll back.
    pub workload: Option<String>,
    /// The phase announced.
    pub phase: Phase,
    /// Share of the traffic on the new version, percent.
    pub traffic_percent: u32,
    /// When the phase happened; `None` means when the message was published.
    pub occurred_at: Option<Timestamp>,
    /// Hosts that are told apart.
    pub hosts: Vec<DeploymentHost>,
    /// How to verify it.
    pub verification: VerificationRequest,
    /// Its id, once it has one.
    pub deployment_id: Option<String>,
    /// The verification meant; `None` for the first.
    pub verification_id: Option<String>,
    /// Who announced it.
    pub source: Option<String>,
    /// Who cancelled the verification.
    pub cancelled_by: Option<String>,
    /// Why it was aborted or cancelled.
    pub reason: Option<String>,
}

impl Deployment {
    /// Takes over from the catalogue what the announcement leaves out: whom to alert, where it runs, what to roll back.
    pub fn fill(&mut self, entry: &v1::ServiceEntry) {
        for (own, known) in [
            (&mut self.owner, &entry.owner),
            (&mut self.cluster, &entry.cluster),
            (&mut self.workload, &entry.workload),
        ] {
            if own.is_none() && !known.is_empty() {
                *own = Some(known.clone());
            }
        }
    }

    /// A deployment with traffic on the new version, and nothing else known of it.
    #[must_use]
    pub fn new(environment: Name, service: Name, version: Name) -> Self {
        Self {
            service,
            environment,
            version,
            previous_version: None,
            owner: None,
            cluster: None,
            workload: None,
            phase: Phase::Traffic,
            traffic_percent: 100,
            occurred_at: None,
            hosts: Vec::new(),
            verification: VerificationRequest::default(),
            deployment_id: None,
            verification_id: None,
            source: None,
            cancelled_by: None,
            reason: None,
        }
    }
}

impl TryFrom<v1::Deployment> for Deployment {
    type Error = Invalid;

    fn try_from(d: v1::Deployment) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let service = invalid.check("service", Name::new(d.service));
        let environment = invalid.check("environment", Name::new(d.environment));
        let version = invalid.check("version", Name::new(d.version));
        let phase = invalid.check("phase", Phase::from_wire(d.phase));
        let occurred_at = invalid.check("occurred_at", time::optional(d.occurred_at));
        let hosts = invalid.check("", hosts(d.hosts));
        let verification = invalid
            .check("verification", d.verification.map_or_else(|| Ok(Default::default()), TryInto::try_into));
        let traffic_percent = d.traffic_percent.unwrap_or(100);
        if traffic_percent > 100 {
            invalid.push("traffic_percent", format!("{traffic_percent} is not within 0 to 100"));
        }
        match (service, environment, version, phase, occurred_at, hosts, verification) {
            (
                Some(service),
                Some(environment),
                Some(version),
                Some(phase),
                Some(occurred_at),
                Some(hosts),
                Some(verification),
            ) if invalid.violations.is_empty() => Ok(Self {
                service,
                environment,
                version,
                phase,
                occurred_at,
                hosts,
                verification,
                traffic_percent,
                previous_version: text(d.previous_version),
                owner: text(d.owner),
                cluster: text(d.cluster),
                workload: text(d.workload),
                deployment_id: text(d.deployment_id),
                verification_id: text(d.verification_id),
                source: text(d.source),
                cancelled_by: text(d.cancelled_by),
                reason: text(d.reason),
            }),
            _ => Err(invalid),
        }
    }
}

/// Reads the hosts of a message; each name once.
///
/// # Errors
/// For an empty or repeated name, an unknown group, or too many.
pub fn hosts(hosts: Vec<v1::DeploymentHost>) -> Result<Vec<DeploymentHost>, Invalid> {
    if hosts.len() > MAX_HOSTS {
        return Err(Invalid::field(
            "hosts",
            format!("{} hosts, at most {MAX_HOSTS} are allowed", hosts.len()),
        ));
    }
    let mut invalid = Invalid::default();
    let mut seen = std::collections::BTreeSet::new();
    let mut read = Vec::with_capacity(hosts.len());
    for (i, host) in hosts.into_iter().enumerate() {
        if host.name.is_empty() {
            invalid.push(format!("hosts[{i}].name"), "is empty; name it as the source does");
        }
        if !seen.insert(host.name.clone()) {
            invalid.push(format!("hosts[{i}].name"), format!("`{}` is named twice", host.name));
        }
        let group = invalid.check(&format!("hosts[{i}].group"), HostGroup::from_wire(host.group));
        let switched_at = invalid.check(&format!("hosts[{i}].switched_at"), time::optional(host.switched_at));
        if let (Some(group), Some(switched_at)) = (group, switched_at) {
            let restarted_at =
                invalid.check(&format!("hosts[{i}].restarted_at"), restarts(host.restarted_at));
            read.push(DeploymentHost {
                name: host.name,
                group,
                switched_at,
                restarted_at: restarted_at.unwrap_or_default(),
            });
        }
    }
    invalid.into_result().map(|()| read)
}

fn restarts(times: Vec<crate::WireTimestamp>) -> Result<Vec<Timestamp>, Invalid> {
    if times.len() > MAX_RESTARTS {
        let count = times.len();
        return Err(Invalid::field("", format!("{count} restarts, at most {MAX_RESTARTS} are allowed")));
    }
    let mut read: Vec<Timestamp> =
        times.into_iter().map(|time| time::required(Some(time))).collect::<Result<_, _>>()?;
    read.sort_unstable();
    read.dedup();
    Ok(read)
}

impl TryFrom<v1::VerificationRequest> for VerificationRequest {
    type Error = Invalid;

    fn try_from(request: v1::VerificationRequest) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let strategy = match request.strategy {
            0 => None,
            number => invalid.check("strategy", Strategy::from_wire(number)),
        };
        let duration = request.duration.and_then(|d| invalid.check("duration", duration(&d)));
        if request.baseline.len() > MAX_BASELINE_WINDOWS {
            invalid.push(
                "baseline",
                format!("{} windows, at most {MAX_BASELINE_WINDOWS} are allowed", request.baseline.len()),
            );
        }
        let extend_by = request.extend_by.and_then(|d| invalid.check("extend_by", extension(&d)));
        let mut baseline = Vec::new();
        for (i, window) in request.baseline.into_iter().enumerate() {
            baseline.extend(invalid.check(&format!("baseline[{i}]"), Window::try_from(window)));
        }
        invalid.into_result().map(|()| Self {
            template: text(request.template),
            strategy,
            duration,
            baseline,
            diluted: request.diluted,
            early_pass: request.early_pass,
            extend_by,
        })
    }
}

/// Reads a verification window's length: whole minutes, 5 min to 24 h.
///
/// # Errors
/// Where it is negative, not whole minutes, too short or too long.
pub fn duration(d: &pbjson_types::Duration) -> Result<Duration, Invalid> {
    whole_minutes(d, MIN_DURATION, "5m")
}

/// Reads how much a verification window may be extended by: whole minutes, at most 24 h.
///
/// # Errors
/// Where it is negative, not whole minutes or too long.
pub fn extension(d: &pbjson_types::Duration) -> Result<Duration, Invalid> {
    whole_minutes(d, Duration::ZERO, "0m")
}

fn whole_minutes(d: &pbjson_types::Duration, least: Duration, in_words: &str) -> Result<Duration, Invalid> {
    let refuse = |what: &str| {
        let message = format!("{} s {what}; give whole minutes from {in_words} to 24h", d.seconds);
        Err(Invalid::field("", message))
    };
    if d.seconds < 0 || d.nanos < 0 {
        return refuse("is negative");
    }
    if d.nanos != 0 || d.seconds % 60 != 0 {
        return refuse("is not a whole number of minutes");
    }
    let duration = Duration::from_secs(d.seconds.unsigned_abs());
    if duration < least {
        return refuse("is too short");
    }
    if duration > MAX_DURATION {
        return refuse("is too long");
    }
    Ok(duration)
}

impl From<VerificationRequest> for v1::VerificationRequest {
    fn from(request: VerificationRequest) -> Self {
        Self {
            template: request.template.unwrap_or_default(),
            strategy: request.strategy.map_or(0, Strategy::to_wire),
            duration: request.duration.map(wire_duration),
            baseline: request.baseline.into_iter().map(Into::into).collect(),
            diluted: request.diluted,
            early_pass: request.early_pass,
            extend_by: request.extend_by.map(wire_duration),
        }
    }
}

/// A duration as protobuf has it, whole seconds.
#[must_use]
pub fn wire_duration(d: Duration) -> pbjson_types::Duration {
    pbjson_types::Duration { seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: 0 }
}

impl From<DeploymentHost> for v1::DeploymentHost {
    fn from(host: DeploymentHost) -> Self {
        Self {
            name: host.name,
            group: host.group.to_wire(),
            switched_at: host.switched_at.map(Into::into),
            restarted_at: host.restarted_at.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Deployment> for v1::Deployment {
    fn from(d: Deployment) -> Self {
        Self {
            deployment_id: d.deployment_id.unwrap_or_default(),
            service: d.service.into(),
            environment: d.environment.into(),
            version: d.version.into(),
            previous_version: d.previous_version.unwrap_or_default(),
            owner: d.owner.unwrap_or_default(),
            cluster: d.cluster.unwrap_or_default(),
            workload: d.workload.unwrap_or_default(),
            phase: d.phase.to_wire(),
            traffic_percent: Some(d.traffic_percent),
            occurred_at: d.occurred_at.map(Into::into),
            hosts: d.hosts.into_iter().map(Into::into).collect(),
            verification: (d.verification != VerificationRequest::default()).then(|| d.verification.into()),
            verification_id: d.verification_id.unwrap_or_default(),
            source: d.source.unwrap_or_default(),
            cancelled_by: d.cancelled_by.unwrap_or_default(),
            reason: d.reason.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> v1::Deployment {
        v1::Deployment {
            service: "checkout".into(),
            environment: "prod".into(),
            version: "2.1".into(),
            phase: v1::DeploymentPhase::Traffic as i32,
            ..Default::default()
        }
    }

    fn refusal(d: v1::Deployment) -> String {
        Deployment::try_from(d).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut deployment = Deployment::try_from(wire()).unwrap();
        assert_eq!(deployment.traffic_percent, 100, "absent means all of it");
        deployment.hosts = vec![DeploymentHost {
            name: "pod-1".into(),
            group: HostGroup::Test,
            switched_at: None,
            restarted_at: vec!["2026-11-24T10:04:00Z".parse().unwrap()],
        }];
        deployment.verification.duration = Some(Duration::from_secs(900));
        deployment.verification.diluted = true;
        deployment.verification.early_pass = Some(false);
        deployment.verification.extend_by = Some(Duration::from_secs(600));
        let again = Deployment::try_from(v1::Deployment::from(deployment.clone())).unwrap();
        assert_eq!(again, deployment);
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let said = refusal(v1::Deployment { traffic_percent: Some(101), ..Default::default() });
        for part in
            ["service: is empty", "environment: is empty", "version: is empty", "phase: unknown", "101"]
        {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn a_duration_is_whole_minutes_from_five_to_a_day() {
        for (seconds, word) in
            [(-60, "negative"), (90, "whole number"), (240, "too short"), (90_000, "too long")]
        {
            let mut d = wire();
            d.verification = Some(v1::VerificationRequest {
                duration: Some(pbjson_types::Duration { seconds, nanos: 0 }),
                ..Default::default()
            });
            let said = refusal(d);
            assert!(said.starts_with("verification.duration:") && said.contains(word), "{said}");
        }
    }

    #[test]
    fn hosts_are_named_once_and_have_a_group() {
        let host = |name: &str, group| v1::DeploymentHost { name: name.into(), group, ..Default::default() };
        let said = refusal(v1::Deployment { hosts: vec![host("a", 3), host("a", 3), host("", 9)], ..wire() });
        assert!(said.contains("hosts[1].name: `a` is named twice"), "{said}");
        assert!(said.contains("hosts[2].name: is empty") && said.contains("hosts[2].group"), "{said}");
    }
}
