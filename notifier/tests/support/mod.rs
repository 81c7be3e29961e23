//! What the notifier's tests share: a real nats-server each, notifiers in the process, verdicts, the audit stream.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod channels;
pub mod golden;
pub mod receiver;
pub mod smtp;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vouch_notifier::NotifierSettings;
use vouch_notifier::ledger::Entry;
use vouch_proto::envelope::{self, Origin};
use vouch_proto::subject::{
    self, ACTIONS, ALERTS, CATALOGUE_BUCKET, DEAD_LETTERS, DEPLOYMENT_BUCKET, LEDGER_BUCKET,
    NOTIFIER_VERDICTS, VERDICTS,
};
use vouch_proto::{Action, Deployment, DeploymentRecord, Invalid, Name, Outcome, Timestamp, Verdict, v1};
use vouch_service::clock::{Clock as _, SharedClock, SystemClock};
use vouch_service::health::Health;
use vouch_service::nats::{self, Nats, NatsSettings};
use vouch_service::run::Context;
use vouch_service::settings::Document;
use vouch_service::shutdown::Tasks;

/// Longest that a test waits for something that is to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A nats-server of the test's own.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: TempDir,
    port: String,
}

impl Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self { child: spawn_nats(&folder, "-1"), folder, port: String::new() };
        let deadline = Instant::now() + PATIENCE;
        while server.port.is_empty() {
            assert!(Instant::now() < deadline, "nats-server wrote no ports file");
            tokio::time::sleep(Duration::from_millis(10)).await;
            server.port = read_port(&server.folder).unwrap_or_default();
        }
        server
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends the server at once; `restart` brings it back with what it had stored.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = spawn_nats(&self.folder, &self.port);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn_nats(folder: &TempDir, port: &str) -> Child {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.tools/nats/bin/nats-server");
    let program = if own.exists() { own } else { PathBuf::from("nats-server") };
    // What the streams reserve need not be free on the disk.
    let config = folder.path().join("nats-server.conf");
    std::fs::write(&config, "jetstream { max_file_store: 64GB }\n").expect("a configuration is written");
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    command.args(["-a", "127.0.0.1", "-js", "-p", port, "-sd"]).arg(folder.path().join("data"));
    command.arg("--ports_file_dir").arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("nats-server starts; `./dev setup` brings one")
}

fn read_port(folder: &TempDir) -> Option<String> {
    let entries = std::fs::read_dir(folder.path()).ok()?;
    let file = entries.flatten().find(|e| e.path().extension().is_some_and(|x| x == "ports"))?;
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
    Some(ports.get("nats")?.get(0)?.as_str()?.rsplit(':').next()?.to_owned())
}

/// Reads the `notifier` section from YAML; wrong settings fail the test.
pub fn settings(yaml: &str) -> NotifierSettings {
    let document = Document::parse(yaml).unwrap();
    let mut invalid = Invalid::default();
    let settings = NotifierSettings::read(&mut document.section(), &mut invalid);
    assert_eq!(invalid.to_string(), "");
    settings
}

/// A notifier in the process.
#[derive(Debug)]
pub struct Notifier {
    pub tasks: Tasks,
    pub health: Health,
}

impl Notifier {
    pub async fn start(server: &Server, settings: NotifierSettings) -> Self {
        Self::with_clock(server, settings, Arc::new(SystemClock)).await
    }

    pub async fn with_clock(server: &Server, settings: NotifierSettings, clock: SharedClock) -> Self {
        let (tasks, health) = (Tasks::default(), Health::default());
        let nats = connect(server).await;
        let context = Context { nats, clock, tasks: tasks.clone(), health: health.clone() };
        vouch_notifier::build(settings, context).await.unwrap();
        Self { tasks, health }
    }

    /// Stops it as SIGTERM does.
    pub async fn stop(self) {
        self.tasks.stop().cancel();
        assert!(self.tasks.drain(Duration::from_secs(10)).await, "drained in time");
    }
}

async fn connect(server: &Server) -> Nats {
    let document = Document::parse(&format!("nats: {{url: '{}'}}", server.url())).unwrap();
    let mut invalid = Invalid::default();
    let settings = NatsSettings::read(&mut document.section(), &mut invalid);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Nats::connect(&settings, "test").await {
            Ok(nats) => return nats,
            Err(e) => assert!(Instant::now() < deadline, "{e:#}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The outside of the notifier, as a test sees it.
#[derive(Debug)]
pub struct Bench {
    pub nats: Nats,
}

impl Bench {
    pub async fn new(server: &Server) -> Self {
        Self { nats: connect(server).await }
    }

    /// Says which deployment is the service's newest.
    pub async fn newest(&self, verdict: &Verdict, deployment_id: &str) {
        let deployment = Deployment {
            deployment_id: Some(deployment_id.to_owned()),
            ..Deployment::new(verdict.environment.clone(), verdict.service.clone(), verdict.version.clone())
        };
        let at = verdict.decided_at;
        let record = DeploymentRecord {
            deployment,
            started_at: at,
            traffic_at: None,
            verifications: 1,
            joins_until: at,
        };
        let store = self.nats.bucket(&DEPLOYMENT_BUCKET).await.unwrap();
        let key = subject::newest_deployment_key(&verdict.environment, &verdict.service);
        let bytes = serde_json::to_vec(&v1::DeploymentRecord::from(record)).unwrap();
        store.put(key, bytes.into()).await.unwrap();
    }

    /// Publishes a verdict of the service's newest deployment.
    pub async fn publish(&self, verdict: &Verdict) {
        self.newest(verdict, &verdict.deployment_id).await;
        self.publish_alone(verdict).await;
    }

    /// Publishes a verdict, and again each time it is called.
    pub async fn publish_alone(&self, verdict: &Verdict) {
        let wire = v1::Verdict::from(verdict.clone());
        let id = self.nats.client.new_inbox();
        let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let origin = Origin { source: "vouch/test", id: &id, time: verdict.decided_at, traceparent };
        let (headers, body) = envelope::seal(&wire, &origin).unwrap();
        let subject = subject::verdict(&verdict.environment, &verdict.service, &verdict.verification_id);
        vouch_service::publish::publish(&self.nats, subject, nats::headers(headers), body.into())
            .await
            .unwrap();
    }

    /// Waits until no verdict and no alert is waiting or being worked on, and answers the audit stream, in order.
    pub async fn settled(&self) -> Vec<Action> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut consumer = self.nats.consumer(&NOTIFIER_VERDICTS).await.unwrap();
            let info = consumer.info().await.unwrap();
            // A verdict is acknowledged after its alerts were queued.
            if info.num_pending == 0 && info.num_ack_pending == 0 && self.alerts_waiting().await == 0 {
                return self.audit().await;
            }
            assert!(Instant::now() < deadline, "verdicts or alerts are still open: {info:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many alerts wait, those that are being told among them.
    pub async fn alerts_waiting(&self) -> u64 {
        let mut stream = self.nats.jetstream.get_stream(ALERTS.name).await.unwrap();
        stream.info().await.unwrap().state.messages
    }

    pub async fn audit(&self) -> Vec<Action> {
        let messages = self.messages(ACTIONS.name).await;
        messages
            .iter()
            .map(|(headers, body)| {
                assert_eq!(headers.get("ce-type").map(String::as_str), Some("dev.vouch.v1.action"));
                Action::try_from(serde_json::from_slice::<v1::Action>(body).unwrap()).unwrap()
            })
            .collect()
    }

    pub async fn dead_letters(&self) -> Vec<(BTreeMap<String, String>, Vec<u8>)> {
        self.messages(DEAD_LETTERS.name).await
    }

    /// Every message of a stream: headers and body.
    pub async fn messages(&self, stream: &str) -> Vec<(BTreeMap<String, String>, Vec<u8>)> {
        let mut stream = self.nats.jetstream.get_stream(stream).await.unwrap();
        let count = usize::try_from(stream.info().await.unwrap().state.messages).unwrap();
        let config = pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..Default::default() };
        let consumer = stream.create_consumer(config).await.unwrap();
        let messages = consumer.messages().await.unwrap();
        let read = messages.take(count).map(|message| {
            let message = message.unwrap();
            let headers = message.headers.clone().unwrap_or_default();
            let headers = headers
                .iter()
                .flat_map(|(name, values)| values.iter().map(|v| (name.to_string(), v.to_string())).last());
            (headers.collect(), message.payload.to_vec())
        });
        tokio::time::timeout(PATIENCE, read.collect()).await.unwrap()
    }

    pub async fn entry(&self, key: &str) -> Option<Entry> {
        let store = self.nats.bucket(&LEDGER_BUCKET).await.unwrap();
        let bytes = store.get(subject::id_key(key)).await.unwrap()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    /// Puts an entry there, as a notifier that died would have left it.
    pub async fn put_entry(&self, entry: &Entry) {
        let store = self.nats.bucket(&LEDGER_BUCKET).await.unwrap();
        store.put(subject::id_key(&entry.key), serde_json::to_vec(entry).unwrap().into()).await.unwrap();
    }

    /// Publishes bytes that may be no verdict.
    pub async fn publish_raw(&self, content_type: &'static str, body: &[u8]) {
        let name = |s| Name::new(s).unwrap();
        let subject = subject::verdict(&name("prod"), &name("checkout"), "poison");
        let headers = nats::headers(vec![("content-type", content_type.to_owned())]);
        vouch_service::publish::publish(&self.nats, subject, headers, body.to_vec().into()).await.unwrap();
    }

    /// How many alerts wait for an action.
    pub async fn alerts_waiting_for(&self, action: &str) -> usize {
        let stream = self.nats.jetstream.get_stream(ALERTS.name).await.unwrap();
        let mut subjects = stream.info_with_subjects(subject::alert(action)).await.unwrap();
        subjects.next().await.map_or(0, |count| count.unwrap().1)
    }

    /// Says where the source knows a verdict's service.
    pub async fn catalogue(&self, verdict: &Verdict, entity_id: &str) {
        let entry = v1::ServiceEntry {
            service: verdict.service.to_string(),
            environment: verdict.environment.to_string(),
            source: "dynatrace".to_owned(),
            entity_id: entity_id.to_owned(),
            ..Default::default()
        };
        let store = self.nats.bucket(&CATALOGUE_BUCKET).await.unwrap();
        let key = subject::catalogue_key(&verdict.environment, &verdict.service);
        store.put(key, serde_json::to_vec(&entry).unwrap().into()).await.unwrap();
    }

    /// Puts something into the queue of an action's alerts.
    pub async fn queue_raw(&self, action: &str, body: &[u8]) {
        let (subject, headers) = (subject::alert(action), nats::headers(vec![]));
        vouch_service::publish::publish(&self.nats, subject, headers, body.to_vec().into()).await.unwrap();
    }

    /// Deliveries of the verdict stream that were begun so far.
    pub async fn deliveries(&self) -> u64 {
        let mut consumer = self.nats.consumer(&NOTIFIER_VERDICTS).await.unwrap();
        consumer.info().await.unwrap().delivered.consumer_sequence
    }

    pub async fn verdicts(&self) -> usize {
        self.messages(VERDICTS.name).await.len()
    }
}

/// A verdict on deployment `id` that was decided just now.
pub fn verdict(id: &str, outcome: Outcome) -> Verdict {
    verdict_at(id, outcome, SystemClock.now())
}

pub fn verdict_at(id: &str, outcome: Outcome, decided_at: Timestamp) -> Verdict {
    let released = include_bytes!("../../../proto/golden/verdict.json");
    let wire: v1::Verdict = serde_json::from_slice(released).unwrap();
    let fail = outcome == Outcome::Fail;
    Verdict {
        verification_id: format!("{id}.1"),
        deployment_id: id.to_owned(),
        service: Name::new(format!("service-{id}")).unwrap(),
        outcome,
        rollback_grade: fail,
        risk: if fail { 1.0 } else { 0.25 },
        decided_at,
        ..Verdict::try_from(wire).unwrap()
    }
}

/// Rule, purpose, outcome and calls of every record, for comparing.
pub fn short(audit: &[Action]) -> Vec<String> {
    let mut lines: Vec<String> = audit
        .iter()
        .map(|a| {
            let dry = if a.dry_run { " (dry)" } else { "" };
            format!("{} {} {:?}{dry} {}", a.purpose.as_str(), a.rule, a.outcome, a.attempts)
        })
        .collect();
    lines.sort();
    lines
}
