//! A strict receiver of webhooks that answers as scripted, also as no well-behaved server would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a call is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// With this status, these header lines and this body.
    Status(u16, &'static str, &'static str),
    /// Never.
    Never,
    /// With a reset of the connection after the whole request was read.
    Reset,
    /// With 200 and a body that never ends.
    Endless,
    /// With 200 after a while.
    Slowly(Duration),
    /// With 200 once the token is cancelled.
    Held(CancellationToken),
}

/// 200.
pub const OK: Answer = Answer::Status(200, "", "");

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Script {
    answers: Vec<Answer>,
    then: Option<Answer>,
    calls: Vec<Call>,
    live: Option<String>,
    follows_calls: bool,
    probes: usize,
    surprises: Vec<String>,
}

impl Script {
    fn live_version(&self, probe: &Call) -> Option<String> {
        if !self.follows_calls {
            return self.live.clone();
        }
        let key = probe.target.split("key=").nth(1)?.replace("%2F", "/");
        let done = self.calls.iter().any(|call| call.headers["idempotency-key"] == key);
        Some(if done { "2.0" } else { "2.1" }.to_owned())
    }
}

/// The receiver. It ends with the test.
#[derive(Debug)]
pub struct Receiver {
    address: String,
    script: Arc<Mutex<Script>>,
    stop: CancellationToken,
}

impl Receiver {
    /// Answers POSTs in this order; any further one is a surprise, which fails the test.
    pub async fn start(answers: Vec<Answer>) -> Self {
        Self::with(Script { answers, ..Script::default() }).await
    }

    /// Answers every POST alike.
    pub async fn always(answer: Answer) -> Self {
        Self::with(Script { then: Some(answer), ..Script::default() }).await
    }

    async fn with(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (script, stop) = (Arc::new(Mutex::new(script)), CancellationToken::new());
        let tracker = TaskTracker::new();
        let (shared, ended, tasks) = (script.clone(), stop.clone(), tracker.clone());
        tracker.spawn(async move {
            loop {
                tokio::select! {
                    () = ended.cancelled() => return,
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        let (shared, ended) = (shared.clone(), ended.clone());
                        tasks.spawn(async move {
                            tokio::select! {
                                () = ended.cancelled() => {}
                                served = serve(stream, &shared) => { served.ok(); }
                            }
                        });
                    }
                }
            }
        });
        Self { address, script, stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Scheme, host and port.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn probe_url(&self) -> String {
        format!("http://{}/live", self.address)
    }

    /// What a probe answers; without it a probe is a surprise.
    pub fn set_live(&self, version: &str) {
        self.script.lock().unwrap().live = Some(version.to_owned());
    }

    /// A probe answers 2.0 once a call with its key has come, else 2.1.
    pub fn follow_calls(&self) {
        self.script.lock().unwrap().follows_calls = true;
    }

    pub fn probes(&self) -> usize {
        self.script.lock().unwrap().probes
    }

    pub fn calls(&self) -> Vec<Call> {
        self.script.lock().unwrap().calls.clone()
    }

    /// Waits until that many calls have come.
    pub async fn wait_for(&self, calls: usize) {
        let deadline = Instant::now() + super::PATIENCE;
        while self.calls().len() < calls {
            assert!(Instant::now() < deadline, "{} calls of {calls}", self.calls().len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Every scripted answer was given, and nothing else was asked. Answers the calls.
    pub fn finish(&self) -> Vec<Call> {
        let script = self.script.lock().unwrap();
        assert_eq!(script.surprises, Vec::<String>::new());
        assert_eq!(script.answers.len(), 0, "calls that never came");
        script.calls.clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(mut stream: TcpStream, script: &Mutex<Script>) -> std::io::Result<()> {
    let Some(call) = read(&mut stream).await? else { return Ok(()) };
    let answer = {
        let mut script = script.lock().unwrap();
        if call.method == "GET" {
            script.probes += 1;
            match script.live_version(&call) {
                Some(live) => Err(format!("{{\"live_version\": \"{live}\"}}")),
                None => {
                    script.surprises.push(format!("GET {}", call.target));
                    Ok(Answer::Status(404, "", ""))
                }
            }
        } else {
            let fallback = script.then.clone();
            let answer = if script.answers.is_empty() { fallback } else { Some(script.answers.remove(0)) };
            if answer.is_none() {
                script.surprises.push(format!("{} {} {:?}", call.method, call.target, call.headers));
            }
            script.calls.push(call);
            Ok(answer.unwrap_or(Answer::Status(418, "", "unexpected")))
        }
    };
    match answer {
        Err(live) => write(&mut stream, 200, "", &live).await,
        Ok(Answer::Status(status, headers, body)) => write(&mut stream, status, headers, body).await,
        Ok(Answer::Never) => std::future::pending().await,
        Ok(Answer::Reset) =>
        {
            #[allow(deprecated, reason = "a reset is what is wanted, and nothing blocks with zero")]
            stream.set_linger(Some(Duration::ZERO))
        }
        Ok(Answer::Endless) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            loop {
                stream.write_all(b"4\r\nmore\r\n").await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(Answer::Slowly(pause)) => {
            tokio::time::sleep(pause).await;
            write(&mut stream, 200, "", "").await
        }
        Ok(Answer::Held(until)) => {
            until.cancelled().await;
            write(&mut stream, 200, "", "").await
        }
    }
}

async fn write(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Call>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |n| n.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    let (method, target) =
        (first.next().unwrap_or_default().to_owned(), first.next().unwrap_or_default().to_owned());
    Ok(Some(Call { method, target, headers, body, at: Instant::now() }))
}
