//! A program of Vouch as a process: started, probed, killed, stopped.

use crate::LIMIT;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use vouch_proto::v1::verifications_client::VerificationsClient;
use vouch_service::health::probe;

/// A port that was free a moment ago, below those that the system hands out by itself (from 32768 on, on Linux):
/// otherwise an outgoing connection may take it before the program binds it. Tests that run at once begin elsewhere.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() * 131 % 20_000).expect("below 20,000");
    let next = || 10_000 + (first + TAKEN.fetch_add(1, Ordering::Relaxed)) % 20_000;
    let mut candidates = std::iter::repeat_with(next).take(1000);
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// The folder of the built programs: that of the test itself, one up from `deps`.
///
/// # Panics
/// Where they are not built: the message says how.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.parent().and_then(Path::parent).expect("target/<profile>");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `./dev test`, or `cargo build --workspace --bins`",
        path.display()
    );
    path
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    command: PathBuf,
    settings: PathBuf,
    folder: PathBuf,
    health: String,
    grpc: u16,
}

impl Program {
    pub(crate) async fn start(
        program_name: &str,
        name: &str,
        settings: &Path,
        folder: &Path,
        grpc: u16,
    ) -> Self {
        let command = program(&format!("vouch-{program_name}"));
        let health = format!("127.0.0.1:{}", free_port());
        let child = spawn(&command, settings, &health, &folder.join(format!("{name}.log")));
        let (name, settings, folder) = (name.to_owned(), settings.to_owned(), folder.to_owned());
        let mut program = Self { name, child, command, settings, folder, health, grpc };
        program.alive().await;
        program
    }

    /// Waits until it answers on its health port.
    async fn alive(&mut self) {
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(&self.health).await.is_err() {
            let ended = self.child.try_wait().expect("its state");
            assert!(ended.is_none(), "{} ended at its start: {ended:?}", self.name);
            assert!(begun.elapsed() < LIMIT, "{} does not come to life", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        let begun = Instant::now();
        while let Err(why) = probe(&self.health).await {
            assert!(begun.elapsed() < LIMIT, "{} does not become ready: {why:#}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it is not ready, and answers why.
    pub async fn not_ready(&self, about: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Err(why) = probe(&self.health).await {
                let why = format!("{why:#}");
                if why.contains(about) {
                    return why;
                }
            }
            assert!(begun.elapsed() < LIMIT, "{} never said `{about}`", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it tells Prometheus.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.health);
        reqwest::get(url).await.expect("its metrics").text().await.expect("a text")
    }

    /// Seconds of CPU that it has used (Linux).
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("its statistics");
        // After the name in parentheses; user and system time in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Memory that it holds, in MiB (Linux).
    #[must_use]
    pub fn memory_mib(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("its end");
    }

    /// Starts it again with the same settings, after it has ended.
    pub async fn restart(&mut self) {
        let log = self.folder.join(format!("{}-again.log", self.name));
        self.child = spawn(&self.command, &self.settings, &self.health, &log);
        self.alive().await;
    }

    /// SIGTERM; answers how it ended and how long that took.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(sent.success());
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return (status, begun.elapsed());
            }
            assert!(begun.elapsed() < LIMIT, "{} does not end", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its gRPC address, where it has one.
    #[must_use]
    pub fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// A client of its gRPC service.
    ///
    /// # Panics
    /// Where it does not answer in time.
    pub async fn client(&self) -> VerificationsClient<Channel> {
        let begun = Instant::now();
        loop {
            match VerificationsClient::connect(self.grpc_url()).await {
                Ok(client) => return client,
                Err(e) => assert!(begun.elapsed() < LIMIT, "no gRPC at {}: {e}", self.grpc_url()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(command: &Path, settings: &Path, health: &str, log: &Path) -> Child {
    Command::new(command)
        .arg("--settings")
        .arg(settings)
        .args(["--health-listen", health])
        .stdout(Stdio::null())
        .stderr(File::create(log).expect("a log file"))
        .spawn()
        .expect("the program starts")
}
