//! The harness of the scenario tests: a real nats-server, the simulated Dynatrace, and Vouch's programs as processes
//! that can be killed; a scaled clock that all of them share.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "it fails the test that uses it"
)]

mod hook;
mod process;
mod topics;

pub use hook::Hook;
pub use process::{Program, program};
pub use topics::{Stored, Topics};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use vouch_proto::deployment::wire_duration;
use vouch_proto::v1::verifications_client::VerificationsClient;
use vouch_proto::{Timestamp, v1};
use vouch_service::clock::{Clock as _, ScaledClock, SystemClock};
use vouch_service::nats_server::NatsServer;
use vouch_simulator::{ALL_SCOPES, Case, PLATFORM_SCOPES, Scenario, Simulator, SimulatorHandle};

/// A token that the simulated tenant accepts.
pub const TOKEN: &str =
    "dt0c01.TESTTESTTESTTESTTESTTEST.TESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTEST";
/// A platform token that the simulated tenant accepts.
pub const PLATFORM_TOKEN: &str =
    "dt0s16.TESTTESTTESTTESTTESTTEST.TESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTESTTEST";
/// Environment of all deployments of the tests.
pub const ENVIRONMENT: &str = "prod";
/// Where a guarded nats-server says what it refused.
const NATS_LOG: &str = "nats-server.txt";
/// Longest wait for anything, real time.
pub const LIMIT: Duration = Duration::from_secs(90);

/// What the simulated tenant serves.
#[derive(Debug)]
pub enum Telemetry {
    /// A scenario by its name, with no deployments and no incidents of its own.
    Scenario(&'static str),
    /// A scenario of one's own.
    Generated(Scenario),
    /// Recorded cases, deployed at this instant.
    Replay(Vec<Case>, Timestamp),
}

/// Everything that a test runs against.
#[derive(Debug)]
pub struct World {
    /// The nats-server.
    pub nats: NatsServer,
    /// Steers the simulated tenant.
    pub simulator: SimulatorHandle,
    /// What the notifier's rollback calls.
    pub hook: Hook,
    /// The clock of everything.
    pub clock: ScaledClock,
    folder: TempDir,
    guarded: bool,
    dynatrace: SocketAddr,
    stop: CancellationToken,
    more: String,
    collector: String,
    templates: String,
}

impl World {
    /// Starts nats-server, tenant and rollback hook; the clock runs `speed` times as fast as real time.
    ///
    /// # Panics
    /// Where something does not start: the test cannot run.
    pub async fn start(telemetry: Telemetry, speed: f64) -> Self {
        Self::open(telemetry, speed, false).await
    }

    /// As `start`, with the users of `deploy/nats.conf`, each with its rights alone; what must be there is made first.
    pub async fn start_guarded(telemetry: Telemetry, speed: f64) -> Self {
        let world = Self::open(telemetry, speed, true).await;
        let settings = world.settings("setup", process::free_port());
        let analyzer = process::program("vouch-analyzer");
        let mut command = tokio::process::Command::new(analyzer);
        let made = command.arg("--settings").arg(settings).arg("--setup").output().await;
        let made = made.expect("the analyzer starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        world
    }

    async fn open(telemetry: Telemetry, speed: f64, guarded: bool) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let folder = tempfile::tempdir().expect("a folder");
        let config = guarded.then(|| guard(folder.path()));
        let nats =
            NatsServer::start_with(&folder.path().join("nats"), config.as_deref()).expect("a nats-server");
        let (clock, builder) = match telemetry {
            Telemetry::Scenario(name) => {
                let mut scenario = Scenario::named(name).expect("a scenario").without_incidents();
                scenario.services.iter_mut().for_each(|service| service.deployments.clear());
                let clock = ScaledClock::starting_at(SystemClock.now().floor_minute(), speed);
                (clock, Simulator::builder().scenario(scenario))
            }
            Telemetry::Generated(scenario) => {
                let clock = ScaledClock::starting_at(SystemClock.now(), speed);
                (clock, Simulator::builder().scenario(scenario))
            }
            Telemetry::Replay(cases, at) => {
                let clock = ScaledClock::starting_at(at.plus_minutes(-2), speed);
                (clock, Simulator::builder().replay_cases(cases, at.as_millis()))
            }
        };
        let simulator = builder
            .clock(Arc::new(move || clock.now().as_millis()))
            .token(TOKEN, &ALL_SCOPES)
            .platform_token(PLATFORM_TOKEN, &PLATFORM_SCOPES)
            .build()
            .expect("a simulator");
        let handle = simulator.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dynatrace = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let served = simulator.serve(listener, stop.clone());
        let tracker = tokio_util::task::TaskTracker::new();
        tracker.spawn(async move { served.await.expect("the simulator serves") });
        let hook = Hook::open(&tracker, stop.clone()).await;
        Self {
            nats,
            simulator: handle,
            hook,
            clock,
            folder,
            guarded,
            dynatrace,
            stop,
            more: String::new(),
            collector: format!("token: {TOKEN}"),
            templates: String::new(),
        }
    }

    /// Adds top-level settings, e.g. `analyzer: {...}`.
    #[must_use]
    pub fn with(mut self, yaml: &str) -> Self {
        self.more.push_str(yaml);
        self.more.push('\n');
        self
    }

    /// Adds `templates:` and what goes with them.
    #[must_use]
    pub fn with_templates(mut self, yaml: &str) -> Self {
        self.templates = yaml.to_owned();
        self
    }

    /// Replaces the collector's token and adds fields, e.g. `token: x, settle: 0s`.
    #[must_use]
    pub fn with_collector(mut self, fields: &str) -> Self {
        self.collector = fields.to_owned();
        self
    }

    /// The settings file of one program, with a port of its own for gRPC.
    ///
    /// # Panics
    /// Where it cannot be written.
    #[must_use]
    pub fn settings(&self, name: &str, grpc: u16) -> PathBuf {
        let analyzer = if self.more.contains("analyzer:") {
            String::new()
        } else {
            format!("analyzer: {{grpc_listen: '127.0.0.1:{grpc}', deadline_grace: 15m}}\n")
        };
        let text = format!(
            "nats: {{url: '{nats}'{user}}}\nlog: {{level: 'info', format: text}}\n\
             clock: {{simulated: '{simulated}', anchor: '{anchor}', speed: {speed}}}\n\
             collector: {{tenant: test, url: 'http://{dynatrace}', {collector}}}\n{analyzer}\
             notifier:\n  lease: 3s\n  actions:\n  - {{name: undo, type: webhook, url: '{hook}', unsigned: true}}\n  \
             rollback: {{default: act, action: undo}}\n{templates}\n{more}",
            nats = self.nats.url(),
            user = if self.guarded { format!(", user: {name}, password: p-{name}") } else { String::new() },
            simulated = self.clock.simulated,
            anchor = self.clock.anchor,
            speed = self.clock.speed,
            dynatrace = self.dynatrace,
            collector = self.collector,
            hook = self.hook.url(),
            templates = self.templates,
            more = self.more.replace("GRPC", &format!("127.0.0.1:{grpc}")),
        );
        let path = self.folder.path().join(format!("{name}.yaml"));
        std::fs::write(&path, text).expect("settings are written");
        path
    }

    /// Starts a program, e.g. `analyzer`, under a name of its own, and waits until it is alive.
    pub async fn spawn(&self, program: &str, name: &str) -> Program {
        let grpc = process::free_port();
        let settings = self.settings(name, grpc);
        Program::start(program, name, &settings, self.folder.path(), grpc).await
    }

    /// Starts one collector, one analyzer and one notifier, ready.
    pub async fn spawn_all(&self) -> Services {
        let notifier = self.spawn("notifier", "notifier").await;
        let analyzer = self.spawn("analyzer", "analyzer").await;
        let collector = self.spawn("collector", "collector").await;
        for program in [&notifier, &analyzer, &collector] {
            program.ready().await;
        }
        Services { collector, analyzer, notifier }
    }

    /// The topics of this world.
    pub async fn topics(&self) -> Topics {
        Topics::open(&self.nats.url(), self.guarded.then_some(("admin", "p-admin"))).await
    }

    /// What the nats-server refused so far, a line each.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join(NATS_LOG)).unwrap_or_default();
        log.lines().filter(|line| line.contains("Violation")).map(ToOwned::to_owned).collect()
    }

    /// Address of the simulated tenant.
    #[must_use]
    pub fn dynatrace_url(&self) -> String {
        format!("http://{}", self.dynatrace)
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits until the clock shows `t`.
    pub async fn wait_until(&self, t: Timestamp) {
        vouch_service::clock::sleep_until(&self.clock, t).await;
    }

    /// A request to verify `service` from the coming minute on.
    #[must_use]
    pub fn request(&self, service: &str, version: &str, minutes: u64) -> v1::StartRequest {
        v1::StartRequest {
            service: service.to_owned(),
            environment: ENVIRONMENT.to_owned(),
            version: version.to_owned(),
            previous_version: "1.0.0".to_owned(),
            owner: "team-test".to_owned(),
            started_at: Some(self.now().floor_minute().into()),
            verification: Some(v1::VerificationRequest {
                duration: Some(wire_duration(Duration::from_secs(minutes * 60))),
                ..Default::default()
            }),
            requested_by: "test".to_owned(),
            ..Default::default()
        }
    }
}

/// The users of `deploy/nats.conf` for a nats-server of a test, each with the password `p-<user>`.
fn guard(folder: &Path) -> PathBuf {
    let own = ["port:", "http:", "store_dir:"];
    let text = include_str!("../../deploy/nats.conf");
    let kept = text.lines().filter(|line| !own.iter().any(|field| line.trim_start().starts_with(field)));
    let log = folder.join(NATS_LOG);
    let config =
        kept.chain([format!("log_file: '{}'", log.display()).as_str()]).collect::<Vec<_>>().join("\n");
    let users = ["setup", "collector", "analyzer", "notifier", "deployer", "subscriber", "admin"];
    let passwords = users.map(|user| format!("PASSWORD_{}: \"p-{user}\"\n", user.to_uppercase()));
    std::fs::write(folder.join("passwords.conf"), passwords.concat()).expect("passwords are written");
    let path = folder.join("nats.conf");
    std::fs::write(&path, config).expect("a configuration is written");
    path
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
                show_log(&entry.path());
            }
        }
    }
}

/// Prints the end of a program's log, for a test that failed.
fn show_log(path: &Path) {
    if path.extension().is_some_and(|e| e == "log") {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("---- {}", path.display());
        for line in lines.iter().skip(lines.len().saturating_sub(60)) {
            eprintln!("{line}");
        }
    }
}

/// One of each.
#[derive(Debug)]
pub struct Services {
    /// The collector.
    pub collector: Program,
    /// The analyzer.
    pub analyzer: Program,
    /// The notifier.
    pub notifier: Program,
}

impl Services {
    /// A client of the analyzer.
    pub async fn client(&self) -> VerificationsClient<Channel> {
        self.analyzer.client().await
    }
}
