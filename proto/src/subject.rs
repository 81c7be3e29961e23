//! Every subject, stream, bucket and consumer of Vouch. No other file spells them.

use crate::name::{Name, decode_token, encode_token};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a stream keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSpec {
    /// Name of the stream.
    pub name: &'static str,
    /// What it records.
    pub description: &'static str,
    /// Its subjects, one pattern.
    pub subjects: &'static str,
    /// Oldest message kept.
    pub max_age: Duration,
    /// Messages kept per subject; -1 for no limit.
    pub max_messages_per_subject: i64,
    /// Bytes kept; the oldest go first.
    pub max_bytes: i64,
    /// How long a `Nats-Msg-Id` is remembered; longer than the longest outage that is retried.
    pub duplicate_window: Duration,
    /// A queue: a message is gone once it was worked on, and where there is no room no new one is taken.
    pub work_queue: bool,
}

/// What a key-value bucket keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketSpec {
    /// Name of the bucket.
    pub name: &'static str,
    /// What it holds.
    pub description: &'static str,
    /// Entries older than this vanish; zero keeps them.
    pub max_age: Duration,
}

/// A durable pull consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// Durable name, which is also the last token of its dead letters.
    pub name: &'static str,
    /// The stream that it reads.
    pub stream: &'static str,
    /// Time to acknowledge before the message is delivered again.
    pub ack_wait: Duration,
    /// Messages in flight at once.
    pub max_ack_pending: i64,
}

const GIB: i64 = 1 << 30;
const RETRY_WINDOW: Duration = Duration::from_secs(2 * 3600);

macro_rules! stream {
    ($name:literal, $subjects:literal, $description:literal, $days:literal days, $gib:literal GiB, $per_subject:literal) => {
        StreamSpec {
            name: $name,
            description: $description,
            subjects: $subjects,
            max_age: Duration::from_secs($days * 24 * 3600),
            max_messages_per_subject: $per_subject,
            max_bytes: $gib * GIB,
            duplicate_window: RETRY_WINDOW,
            work_queue: false,
        }
    };
}

/// Deployments in all their phases.
pub const DEPLOYMENTS: StreamSpec =
    stream!("VOUCH_DEPLOYMENT", "vouch.v1.deployment.>", "Deployments, phase by phase", 30 days, 1 GiB, -1);
/// Collected series.
pub const SERIES: StreamSpec =
    stream!("VOUCH_SERIES", "vouch.v1.series.>", "Series collected from the sources", 3 days, 8 GiB, -1);
/// Collected lines of logs.
pub const LOGS: StreamSpec =
    stream!("VOUCH_LOGS", "vouch.v1.logs.>", "Lines of logs collected from the sources", 3 days, 4 GiB, -1);
/// Progress of open verifications.
pub const PROGRESS: StreamSpec =
    stream!("VOUCH_PROGRESS", "vouch.v1.progress.>", "Latest progress of a verification", 3 days, 1 GiB, 1);
/// Verdicts.
pub const VERDICTS: StreamSpec =
    stream!("VOUCH_VERDICT", "vouch.v1.verdict.>", "Verdicts and their revisions", 90 days, 4 GiB, -1);
/// What verdicts rest on, the newest of each verification.
pub const EVIDENCE: StreamSpec =
    stream!("VOUCH_EVIDENCE", "vouch.v1.evidence.>", "Evidence behind verdicts", 90 days, 2 GiB, 1);
/// The audit of actions.
pub const ACTIONS: StreamSpec =
    stream!("VOUCH_ACTION", "vouch.v1.action.>", "What was done about verdicts", 365 days, 4 GiB, -1);
/// CDEvents of others.
pub const CHANGES: StreamSpec =
    stream!("VOUCH_CHANGE", "vouch.v1.change.>", "CDEvents that others publish", 7 days, 1 GiB, -1);
/// What could not be decoded or handled.
pub const DEAD_LETTERS: StreamSpec = stream!("VOUCH_DEAD_LETTER", "vouch.v1.dead-letter.>", "Messages that could not be used", 30 days, 1 GiB, -1);
/// Alerts that wait for their action: longer than `alert.max_age` may be, so that each is told or declared expired.
pub const ALERTS: StreamSpec = StreamSpec {
    work_queue: true,
    max_bytes: GIB / 4,
    ..stream!("VOUCH_ALERT", "vouch.v1.alert.>", "Alerts that wait for their action", 31 days, 1 GiB, -1)
};
/// What is told to other tools of delivery.
pub const CDEVENTS: StreamSpec = StreamSpec {
    max_bytes: GIB / 4,
    ..stream!("VOUCH_CDEVENT", "vouch.v1.cdevent.>", "Verdicts and rollbacks as CDEvents", 30 days, 1 GiB, -1)
};

/// Every stream.
pub const STREAMS: [StreamSpec; 11] = [
    DEPLOYMENTS,
    SERIES,
    LOGS,
    PROGRESS,
    VERDICTS,
    EVIDENCE,
    ACTIONS,
    CHANGES,
    DEAD_LETTERS,
    ALERTS,
    CDEVENTS,
];

const fn bucket(name: &'static str, description: &'static str, max_age: Duration) -> BucketSpec {
    BucketSpec { name, description, max_age }
}

/// Deployments by environment, service and version: where their ids come from.
pub const DEPLOYMENT_BUCKET: BucketSpec =
    bucket("vouch_deployments", "Deployments and their ids", Duration::ZERO);
/// Verifications by id.
pub const VERIFICATION_BUCKET: BucketSpec =
    bucket("vouch_verifications", "Verifications, open and final", Duration::from_secs(90 * 24 * 3600));
/// What the collector still has to fetch, by verification.
pub const COLLECTION_BUCKET: BucketSpec =
    bucket("vouch_collections", "Collections, open and done", Duration::from_secs(7 * 24 * 3600));
/// The ledger of actions: outlives every stream.
pub const LEDGER_BUCKET: BucketSpec = bucket("vouch_ledger", "Ledger of actions", Duration::ZERO);
/// Which services the sources know.
pub const CATALOGUE_BUCKET: BucketSpec = bucket("vouch_catalogue", "Services that the sources know", DAY);
/// Who owns which partition; entries vanish when they are not renewed.
pub const LEASE_BUCKET: BucketSpec = bucket("vouch_leases", "Owners of partitions", Duration::from_secs(5));

/// What was spent of the tenant's budget.
pub const SPENDING_BUCKET: BucketSpec =
    bucket("vouch_spending", "What was spent of the budget", Duration::ZERO);
/// Incidents of services, and what channels keep about them.
pub const INCIDENT_BUCKET: BucketSpec =
    bucket("vouch_incidents", "Incidents and their threads", Duration::from_secs(365 * 24 * 3600));

/// What the finders of changes have seen and told.
pub const CHANGES_BUCKET: BucketSpec =
    bucket("vouch_changes", "What the finders of changes have seen", Duration::from_secs(90 * 24 * 3600));

/// Which windows of logs have been published, by service.
pub const LOG_BUCKET: BucketSpec =
    bucket("vouch_logs", "Windows of logs that were published", Duration::from_secs(7 * 24 * 3600));
/// What was read of sources that bill it, by tenant and day.
pub const SCAN_BUCKET: BucketSpec =
    bucket("vouch_scans", "Bytes that billed queries scanned", Duration::from_secs(7 * 24 * 3600));

/// Every bucket.
pub const BUCKETS: [BucketSpec; 11] = [
    DEPLOYMENT_BUCKET,
    VERIFICATION_BUCKET,
    COLLECTION_BUCKET,
    LEDGER_BUCKET,
    CATALOGUE_BUCKET,
    LEASE_BUCKET,
    SPENDING_BUCKET,
    CHANGES_BUCKET,
    LOG_BUCKET,
    SCAN_BUCKET,
    INCIDENT_BUCKET,
];

const fn consumer(name: &'static str, stream: &'static str, seconds: u64, pending: i64) -> ConsumerSpec {
    ConsumerSpec { name, stream, ack_wait: Duration::from_secs(seconds), max_ack_pending: pending }
}

/// The collectors' share of the deployments.
pub const COLLECTOR_DEPLOYMENTS: ConsumerSpec = consumer("collector-deployments", DEPLOYMENTS.name, 30, 256);
/// The collectors' share of the CDEvents.
pub const COLLECTOR_CHANGES: ConsumerSpec = consumer("collector-changes", CHANGES.name, 30, 64);
/// The deployments that collectors write into their sources.
pub const COLLECTOR_ANNOTATIONS: ConsumerSpec = consumer("collector-annotations", DEPLOYMENTS.name, 60, 64);
/// The analyzers' share of the deployments.
pub const ANALYZER_DEPLOYMENTS: ConsumerSpec = consumer("analyzer-deployments", DEPLOYMENTS.name, 30, 256);
/// The notifiers' share of the verdicts.
pub const NOTIFIER_VERDICTS: ConsumerSpec = consumer("notifier-verdicts", VERDICTS.name, 30, 64);
/// Name under which notifiers dead-letter alerts (each action has a consumer of its own).
pub const NOTIFIER_ALERTS: &str = "notifier-alerts";
/// Name under which analyzers dead-letter series (they read them in order, with no durable consumer).
pub const ANALYZER_SERIES: &str = "analyzer-series";

/// Every durable consumer.
pub const CONSUMERS: [ConsumerSpec; 5] = [
    COLLECTOR_DEPLOYMENTS,
    COLLECTOR_ANNOTATIONS,
    COLLECTOR_CHANGES,
    ANALYZER_DEPLOYMENTS,
    NOTIFIER_VERDICTS,
];

/// Deliveries without a recorded failure of a dependency after which a message counts as poison.
pub const MAX_UNEXPLAINED_DELIVERIES: i64 = 20;

/// How many partitions the work is cut into. Fixed for life.
pub const PARTITIONS: u32 = 64;

/// Subject of a service's deployments.
#[must_use]
pub fn deployment(environment: &Name, service: &Name) -> String {
    format!("vouch.v1.deployment.{}.{}", environment.token(), service.token())
}

/// Subject of a service's series.
#[must_use]
pub fn series(environment: &Name, service: &Name) -> String {
    format!("vouch.v1.series.{}.{}", environment.token(), service.token())
}

/// Subject of a service's lines of logs.
#[must_use]
pub fn logs(environment: &Name, service: &Name) -> String {
    format!("vouch.v1.logs.{}.{}", environment.token(), service.token())
}

/// Subject of a verification's progress.
#[must_use]
pub fn progress(environment: &Name, service: &Name, verification_id: &str) -> String {
    format!("vouch.v1.progress.{}.{}.{}", environment.token(), service.token(), encode_token(verification_id))
}

/// Subject of a verification's verdict.
#[must_use]
pub fn verdict(environment: &Name, service: &Name, verification_id: &str) -> String {
    format!(
        "vouch.v1.verdict.{}.{}.deployment.{}",
        environment.token(),
        service.token(),
        encode_token(verification_id)
    )
}

/// All verdicts on deployments of a service.
#[must_use]
pub fn verdicts_of(environment: &Name, service: &Name) -> String {
    format!("vouch.v1.verdict.{}.{}.deployment.*", environment.token(), service.token())
}

/// Subject of a part of a verification's evidence, from 0.
#[must_use]
pub fn evidence(environment: &Name, service: &Name, verification_id: &str, part: usize) -> String {
    let id = encode_token(verification_id);
    format!("vouch.v1.evidence.{}.{}.{id}.{part}", environment.token(), service.token())
}

/// Subject of a service's actions.
#[must_use]
pub fn action(environment: &Name, service: &Name) -> String {
    format!("vouch.v1.action.{}.{}", environment.token(), service.token())
}

/// Subject of the alerts that wait for an action.
#[must_use]
pub fn alert(action: &str) -> String {
    format!("vouch.v1.alert.{}", encode_token(action))
}

/// The action that the subject of an alert names.
#[must_use]
pub fn action_of_alert(subject: &str) -> Option<String> {
    decode_token(subject.split('.').nth(3)?)
}

/// Durable name of the consumer of an action's alerts.
#[must_use]
pub fn alert_consumer(action: &str) -> String {
    format!("{NOTIFIER_ALERTS}-{}", encode_token(action))
}

/// Subject of what other tools are told about a service.
#[must_use]
pub fn cdevent(environment: &Name, service: &Name) -> String {
    format!("vouch.v1.cdevent.{}.{}", environment.token(), service.token())
}

/// Key of a service's incidents.
#[must_use]
pub fn incidents_key(environment: &Name, service: &Name) -> String {
    format!("of.{}.{}", environment.token(), service.token())
}

/// Key of what an action keeps about an incident.
#[must_use]
pub fn memory_key(incident: &str, action: &str) -> String {
    format!("memory.{}.{}", encode_token(incident), encode_token(action))
}

/// Subject of a consumer's dead letters.
#[must_use]
pub fn dead_letter(consumer: &str) -> String {
    format!("vouch.v1.dead-letter.{}", encode_token(consumer))
}

/// All verdicts, for counting their subjects.
pub const ALL_VERDICTS: &str = VERDICTS.subjects;

/// The verification that a verdict's subject names.
#[must_use]
pub fn verification_of_verdict(subject: &str) -> Option<String> {
    decode_token(subject.split('.').nth(6)?)
}

/// Environment and service that a public subject names, e.g. of a deployment or a verdict.
#[must_use]
pub fn environment_and_service(subject: &str) -> Option<(Name, Name)> {
    let mut tokens = subject.split('.').skip(3);
    let environment = decode_token(tokens.next()?)?;
    let service = decode_token(tokens.next()?)?;
    Some((Name::new(environment).ok()?, Name::new(service).ok()?))
}

/// Key of a deployment by what was deployed where.
#[must_use]
pub fn deployment_key(environment: &Name, service: &Name, version: &Name) -> String {
    format!("version.{}.{}.{}", environment.token(), service.token(), version.token())
}

/// Key of a service's newest deployment.
#[must_use]
pub fn newest_deployment_key(environment: &Name, service: &Name) -> String {
    format!("newest.{}.{}", environment.token(), service.token())
}

/// Key of what was told of a service last.
#[must_use]
pub fn told_key(environment: &Name, service: &Name) -> String {
    format!("told.{}.{}", environment.token(), service.token())
}

/// Key of what a finder has seen, by its name and, where it looks at several things, one of them.
#[must_use]
pub fn seen_key(finder: &str, thing: &str) -> String {
    format!("seen.{}.{}", encode_token(finder), encode_token(thing))
}

/// Environment under which the catalogue lists services of a source that serves every environment.
pub const ANY_ENVIRONMENT: &str = "any";

/// Key of the catalogue that is written once all services of a source are listed: from then on a missing one is unknown.
pub const CATALOGUE_COMPLETE: &str = "complete";

/// Key of a service in the catalogue.
#[must_use]
pub fn catalogue_key(environment: &Name, service: &Name) -> String {
    format!("{}.{}", environment.token(), service.token())
}

/// Key of what has been published of a service's logs.
#[must_use]
pub fn logs_key(environment: &Name, service: &Name) -> String {
    format!("{}.{}", environment.token(), service.token())
}

/// Key of what was scanned of a tenant on a day, e.g. `2026-11-24`.
#[must_use]
pub fn scan_key(tenant: &str, day: &str) -> String {
    format!("{}.{}", encode_token(tenant), encode_token(day))
}

/// Key of a verification, a collection or a ledger entry by its id.
#[must_use]
pub fn id_key(id: &str) -> String {
    encode_token(id)
}

/// Key of the lease on a partition, per kind of service.
#[must_use]
pub fn lease_key(kind: &str, partition: u32) -> String {
    format!("{}.owner.{partition}", encode_token(kind))
}

/// Key under which a replica says that it lives.
#[must_use]
pub fn member_key(kind: &str, member: &str) -> String {
    format!("{}.member.{}", encode_token(kind), encode_token(member))
}

/// Pattern of all members and leases of a kind.
#[must_use]
pub fn lease_pattern(kind: &str) -> String {
    format!("{}.>", encode_token(kind))
}

/// The partition that a lease's key names; `None` for a member's key.
#[must_use]
pub fn leased_partition(kind: &str, key: &str) -> Option<u32> {
    key.strip_prefix(&format!("{}.owner.", encode_token(kind)))?.parse().ok()
}

/// The partition of a service: FNV-1a over the two names, the same on every machine and for all time.
#[must_use]
pub fn partition(environment: &Name, service: &Name) -> u32 {
    let bytes = environment.as_str().bytes().chain([0]).chain(service.as_str().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u32::try_from((hash ^ (hash >> 32)) % u64::from(PARTITIONS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(s: &str) -> Name {
        Name::new(s).unwrap()
    }

    #[test]
    fn subjects_keep_names_in_one_token() {
        let (environment, service) = (name("prod.eu"), name("cart *"));
        let subject = verdict(&environment, &service, "01J.1");
        assert_eq!(subject, "vouch.v1.verdict.prod=2Eeu.cart=20=2A.deployment.01J=2E1");
        assert_eq!(environment_and_service(&subject), Some((environment, service)));
        assert_eq!(environment_and_service("vouch.v1.verdict.prod"), None);
        assert_eq!(
            verification_of_verdict(&verdict(&name("a.b"), &name("c"), "01J.1")),
            Some("01J.1".into())
        );
    }

    #[test]
    fn alerts_wait_by_action() {
        assert_eq!(alert("chat-1"), "vouch.v1.alert.chat-1");
        assert_eq!(action_of_alert(&alert("a.b")).as_deref(), Some("a.b"));
        assert_eq!(action_of_alert("vouch.v1.alert"), None);
        assert_eq!(alert_consumer("chat"), "notifier-alerts-chat");
    }

    #[test]
    fn partitions_never_move() {
        // Released values: a change would hand running work to another owner.
        assert_eq!(partition(&name("prod"), &name("checkout")), partition(&name("prod"), &name("checkout")));
        let seen: std::collections::BTreeSet<u32> =
            (0..2000).map(|i| partition(&name("prod"), &name(&format!("service-{i}")))).collect();
        assert_eq!(seen.len(), 64, "all partitions are used");
    }

    #[test]
    fn names_are_unique() {
        let streams: std::collections::BTreeSet<_> = STREAMS.iter().map(|s| s.name).collect();
        let buckets: std::collections::BTreeSet<_> = BUCKETS.iter().map(|b| b.name).collect();
        assert_eq!((streams.len(), buckets.len()), (STREAMS.len(), BUCKETS.len()));
    }
}
