//! A nats-server of its own per test, a simulated tenant, and a collector between them, on a clock that runs fast.

use async_nats::jetstream::consumer::pull;
use futures::StreamExt as _;
use prost::Message as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use vouch_collector::metrics::Metrics;
use vouch_collector::record::CollectionRecord;
use vouch_collector::source::MetricSource;
use vouch_collector::{CollectorSettings, build, build_with};
use vouch_proto::envelope::{self, Origin};
use vouch_proto::subject::{self, COLLECTION_BUCKET, DEPLOYMENTS, LOGS, SERIES};
use vouch_proto::{Deployment, Invalid, LogBatch, Name, SeriesBatch, Timestamp, v1};
use vouch_service::clock::{ScaledClock, SharedClock};
use vouch_service::health::Health;
use vouch_service::nats::{Nats, NatsSettings, headers};
use vouch_service::run::Context;
use vouch_service::settings::Document;
use vouch_service::shutdown::Tasks;
use vouch_simulator::{ALL_SCOPES, FaultRule, PLATFORM_SCOPES, Scenario, Simulator, SimulatorHandle};

pub(crate) const TOKEN: &str = "dt0c01.ALLSCOPES.SECRET1";
pub(crate) const PLATFORM: &str = "dt0s16.ALLSCOPES.SECRET2";
const PATIENCE: Duration = Duration::from_secs(45);

struct Server {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nats/bin/nats-server");
        let program = if own.exists() { own } else { PathBuf::from("nats-server") };
        // What the streams reserve need not be free on the disk.
        let config = folder.path().join("nats-server.conf");
        std::fs::write(&config, "jetstream { max_file_store: 64GB }\n").unwrap();
        let child = Command::new(program)
            .arg("--config")
            .arg(config)
            .args(["-js", "-a", "127.0.0.1", "-p", "-1", "-sd"])
            .arg(folder.path())
            .arg("--ports_file_dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server on PATH or in .tools: `./dev setup` brings it");
        let ports = folder.path().join(format!("nats-server_{}.ports", child.id()));
        let mut server = Self { child, url: String::new(), _folder: folder };
        for _ in 0..500 {
            let written = std::fs::read(&ports).ok();
            if let Some(ports) = written.and_then(|b| serde_json::from_slice::<serde_json::Value>(&b).ok()) {
                ports["nats"][0].as_str().unwrap().clone_into(&mut server.url);
                return server;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nats-server wrote no ports file");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Everything that a test needs. The tenant serves until the test ends.
pub(crate) struct World {
    server: Server,
    pub(crate) nats: Nats,
    pub(crate) clock: SharedClock,
    pub(crate) tenant: SimulatorHandle,
    pub(crate) token_file: PathBuf,
    /// More settings of the collector, in YAML's flow style.
    pub(crate) more: String,
    pub(crate) url: String,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}

pub(crate) fn name(s: &str) -> Name {
    Name::new(s).unwrap()
}

/// The beginning of every test, on the injected clock.
pub(crate) fn noon() -> Timestamp {
    "2026-11-18T12:00:00Z".parse().unwrap()
}

/// A running collector.
pub(crate) struct Collector {
    pub(crate) tasks: Tasks,
    pub(crate) health: Health,
}

impl Collector {
    /// Stops it and checks that it drains in time.
    pub(crate) async fn stop(self) {
        self.tasks.stop().cancel();
        assert!(self.tasks.drain(Duration::from_secs(5)).await, "drained in time");
    }
}

impl World {
    /// A clock that runs `speed` times faster, a tenant with one healthy service, and a nats-server.
    pub(crate) async fn new(speed: f64) -> Self {
        Self::of(Scenario::named("healthy").unwrap(), speed).await
    }

    /// As `new`, with another scenario.
    pub(crate) async fn of(scenario: Scenario, speed: f64) -> Self {
        let server = Server::start().await;
        let clock: SharedClock = Arc::new(ScaledClock::starting_at(noon(), speed));
        let tasks = Tasks::default();
        let reading = clock.clone();
        let simulator = Simulator::builder()
            .scenario(scenario)
            .start_ms(noon().as_millis())
            .clock(Arc::new(move || reading.now().as_millis()))
            .token(TOKEN, &ALL_SCOPES)
            .platform_token(PLATFORM, &PLATFORM_SCOPES)
            .build()
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (tenant, stop) = (simulator.handle(), tasks.stop().clone());
        tasks.spawn(async move { simulator.serve(listener, stop).await.unwrap() });
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, TOKEN).unwrap();
        let nats = Nats::connect(&nats_settings(&server.url), "test").await.unwrap();
        let more = String::new();
        Self { server, nats, clock, tenant, token_file, more, url, tasks, _folder: folder }
    }

    /// What ends with the test.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(crate) fn stop(&self) -> tokio_util::sync::CancellationToken {
        self.tasks.stop().clone()
    }

    pub(crate) fn kill_nats(&mut self) {
        self.server.child.kill().unwrap();
        self.server.child.wait().unwrap();
    }

    fn settings(&self) -> CollectorSettings {
        self.settings_with(&format!("token_file: '{}'", self.token_file.display()), "")
    }

    /// The settings, with more in their section `collector`, and more sections.
    fn settings_with(&self, more: &str, sections: &str) -> CollectorSettings {
        let yaml = format!(
            "collector: {{tenant: simulated, url: '{}', request_timeout: 2s, {more}{}}}\n{sections}",
            self.url, self.more
        );
        let document = Document::parse(&yaml).unwrap();
        let mut invalid = Invalid::default();
        let settings = CollectorSettings::read(&mut document.section(), &mut invalid);
        invalid.into_result().unwrap();
        settings
    }

    async fn context(&self) -> (Context, Collector) {
        let collector = Collector { tasks: Tasks::default(), health: Health::default() };
        let nats = Nats::open(&nats_settings(&self.server.url), "collector").await.unwrap();
        let (tasks, health) = (collector.tasks.clone(), collector.health.clone());
        (Context { nats, clock: self.clock.clone(), tasks, health }, collector)
    }

    /// A collector against the tenant.
    pub(crate) async fn collector(&self) -> Collector {
        let (context, collector) = self.context().await;
        build(self.settings(), context).await.unwrap();
        collector
    }

    /// A collector against the tenant with other settings, the credential among them.
    pub(crate) async fn collector_with(&self, more: &str) -> Collector {
        let (context, collector) = self.context().await;
        build(self.settings_with(more, ""), context).await.unwrap();
        collector
    }

    /// A collector against a source of the test's.
    pub(crate) async fn collector_of(&self, source: Arc<dyn MetricSource>) -> Collector {
        let (context, collector) = self.context().await;
        build_with(self.settings(), context, source, Metrics::default()).await.unwrap();
        collector
    }

    /// The settings of a tenant of one environment, with more sections.
    fn settings_and(&self, sections: &str) -> CollectorSettings {
        let access = format!("token_file: '{}', environment: prod", self.token_file.display());
        self.settings_with(&access, sections)
    }

    /// A collector that finds deployments, as these sections say.
    pub(crate) async fn finder(&self, sections: &str) -> Collector {
        let (context, collector) = self.context().await;
        build(self.settings_and(sections), context).await.unwrap();
        collector
    }

    /// The same against a source of the test's.
    pub(crate) async fn finder_of(&self, source: Arc<dyn MetricSource>, sections: &str) -> Collector {
        let (context, collector) = self.context().await;
        build_with(self.settings_and(sections), context, source, Metrics::default()).await.unwrap();
        collector
    }

    pub(crate) fn fault(&self, rule: FaultRule) {
        self.tenant.add_fault(rule).unwrap();
    }

    /// A five-minute verification of the healthy service, with all traffic on it now.
    pub(crate) fn deployment(&self) -> Deployment {
        let mut deployment = Deployment::new(name("prod"), name("checkout"), name("1.1.0"));
        deployment.verification.duration = Some(Duration::from_secs(300));
        deployment.occurred_at = Some(self.clock.now());
        deployment
    }

    /// Announces it.
    pub(crate) async fn announce(&self, deployment: &Deployment) {
        let wire = v1::Deployment::from(deployment.clone());
        let id =
            format!("{:?}.{:?}.{:?}", deployment.phase, deployment.occurred_at, deployment.verification_id);
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let origin = Origin { source: "test", id: &id, time: self.clock.now(), traceparent: Some(trace) };
        let (sealed, body) = envelope::seal(&wire, &origin).unwrap();
        self.publish(deployment, sealed, body).await;
    }

    pub(crate) async fn publish(&self, about: &Deployment, head: Vec<(&'static str, String)>, body: Vec<u8>) {
        let topic = subject::deployment(&about.environment, &about.service);
        vouch_service::publish::publish(&self.nats, topic, headers(head), body.into()).await.unwrap();
    }

    /// Every batch from the first on, until `enough` says so; the messages' headers beside them.
    pub(crate) async fn batches(
        &self,
        enough: impl Fn(&[SeriesBatch]) -> bool,
    ) -> (Vec<SeriesBatch>, Vec<async_nats::HeaderMap>) {
        let stream = self.nats.jetstream.get_stream(SERIES.name).await.unwrap();
        let consumer = stream.create_consumer(pull::OrderedConfig::default()).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let (mut batches, mut heads) = (Vec::new(), Vec::new());
        let read = tokio::time::timeout(PATIENCE, async {
            while !enough(&batches) {
                let message = messages.next().await.unwrap().unwrap();
                heads.push(message.headers.clone().unwrap());
                let wire = v1::SeriesBatch::decode(message.payload.clone()).unwrap();
                batches.push(SeriesBatch::try_from(wire).unwrap());
            }
        });
        if read.await.is_err() {
            let windows: Vec<String> =
                batches.iter().map(|b| format!("{} r{} {:?}", b.window, b.revision, b.errors)).collect();
            panic!("not enough in {PATIENCE:?}; came:\n{}", windows.join("\n"));
        }
        (batches, heads)
    }

    /// All that is on the topic of deployments.
    pub(crate) async fn announced(&self) -> Vec<Deployment> {
        let stream = self.nats.jetstream.get_stream(DEPLOYMENTS.name).await.unwrap();
        let count = stream.get_info().await.unwrap().state.messages;
        let consumer = stream.create_consumer(pull::OrderedConfig::default()).await.unwrap();
        let messages = consumer.messages().await.unwrap().take(usize::try_from(count).unwrap());
        let read = |message: Result<async_nats::jetstream::Message, _>| async move {
            let wire: v1::Deployment = serde_json::from_slice(&message.unwrap().payload).unwrap();
            Deployment::try_from(wire).unwrap()
        };
        messages.then(read).collect().await
    }

    /// The same, once there are so many.
    pub(crate) async fn announced_at_least(&self, count: usize) -> Vec<Deployment> {
        for _ in 0..PATIENCE.as_millis() / 50 {
            let all = self.announced().await;
            if all.len() >= count {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{:?} is all that was announced", self.announced().await);
    }

    /// Every message of logs, until `enough` says so.
    pub(crate) async fn logs(&self, enough: impl Fn(&[LogBatch]) -> bool) -> Vec<LogBatch> {
        let stream = self.nats.jetstream.get_stream(LOGS.name).await.unwrap();
        let consumer = stream.create_consumer(pull::OrderedConfig::default()).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let mut batches = Vec::new();
        let read = tokio::time::timeout(PATIENCE, async {
            while !enough(&batches) {
                let message = messages.next().await.unwrap().unwrap();
                assert!(message.payload.len() <= 256 * 1024, "{} bytes", message.payload.len());
                let wire = v1::LogBatch::decode(message.payload.clone()).unwrap();
                batches.push(LogBatch::try_from(wire).unwrap());
            }
        });
        if read.await.is_err() {
            let all: Vec<String> = batches
                .iter()
                .map(|b| format!("{} r{} p{} {} {:?}", b.window, b.revision, b.part, b.lines.len(), b.end))
                .collect();
            panic!("not enough in {PATIENCE:?}; came:\n{}", all.join("\n"));
        }
        batches
    }

    /// The only collection, once `ready` says so.
    pub(crate) async fn collection(&self, ready: impl Fn(&CollectionRecord) -> bool) -> CollectionRecord {
        let store = self.nats.bucket(&COLLECTION_BUCKET).await.unwrap();
        let mut last = None;
        for _ in 0..PATIENCE.as_millis() / 50 {
            let keys: Vec<_> = store.keys().await.unwrap().collect().await;
            if let [Ok(key)] = keys.as_slice() {
                let record = CollectionRecord::read(&store.get(key).await.unwrap().unwrap()).unwrap();
                if ready(&record) {
                    return record;
                }
                last = Some(record);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the collection is {last:?}");
    }
}

fn nats_settings(url: &str) -> NatsSettings {
    NatsSettings {
        servers: vec![url.parse().unwrap()],
        user: None,
        credentials_file: None,
        ca_file: None,
        replicas: 1,
    }
}

/// How far the verification has been read, by the watermarks of what came.
pub(crate) fn watermark(batches: &[SeriesBatch]) -> Option<Timestamp> {
    batches.iter().map(|b| b.watermark).max()
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come true");
}
