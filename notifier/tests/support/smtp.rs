//! Mail servers for tests: a real one (aiosmtpd, a child process), and a scripted one that misbehaves.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A real server.
#[derive(Debug)]
pub struct MailServer {
    child: Child,
    pub port: String,
    mails: Receiver<serde_json::Value>,
}

impl MailServer {
    /// Starts one; `None`, with a printed line, where python3 or aiosmtpd is missing.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/smtp.py");
        let mut command = Command::new("python3");
        command.arg(script).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            println!("left out: python3 is missing; the tests of mail need it");
            return None;
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().and_then(Result::ok).unwrap_or_default();
        if port == "missing" {
            println!("left out: aiosmtpd is missing; `./dev setup` fetches it");
            child.wait().unwrap();
            return None;
        }
        assert!(port.parse::<u16>().is_ok(), "the mail server says `{port}`");
        let (sender, mails) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sender.send(serde_json::from_str(&line).unwrap()).ok();
            }
        });
        Some(Self { child, port, mails })
    }

    /// The next mail that it took.
    pub fn mail(&self) -> serde_json::Value {
        self.mails.recv_timeout(Duration::from_secs(20)).expect("a mail")
    }

    /// It took no other.
    pub fn finish(self) {
        assert!(self.mails.try_recv().is_err(), "one mail too many");
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a scripted server does at a command.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Answers this line.
    Says(&'static str),
    /// Never answers.
    Hangs,
    /// Resets the connection.
    Resets,
    /// Answers with a line that goes on for ever.
    Endless,
}

/// A server that behaves but at one command: `greeting`, `EHLO`, `AUTH`, `MAIL`, `RCPT`, `DATA` or `.`.
#[derive(Debug)]
pub struct Misbehaving {
    pub port: u16,
    stop: CancellationToken,
}

impl Misbehaving {
    pub async fn start(at: &'static str, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, stop) = (listener.local_addr().unwrap().port(), CancellationToken::new());
        let (tracker, ended) = (TaskTracker::new(), stop.clone());
        let tasks = tracker.clone();
        tracker.spawn(async move {
            loop {
                tokio::select! {
                    () = ended.cancelled() => return,
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        let ended = ended.clone();
                        tasks.spawn(async move {
                            tokio::select! {
                                () = ended.cancelled() => {}
                                served = serve(stream, at, fault) => { served.ok(); }
                            }
                        });
                    }
                }
            }
        });
        Self { port, stop }
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(stream: TcpStream, at: &str, fault: Fault) -> std::io::Result<()> {
    let mut stream = tokio::io::BufReader::new(stream);
    let (mut line, mut in_data) = (String::from("greeting"), false);
    loop {
        let command = if in_data { "." } else { line.split([' ', '\r']).next().unwrap_or_default() };
        if command.eq_ignore_ascii_case(at) {
            match fault {
                Fault::Says(text) => stream.write_all(format!("{text}\r\n").as_bytes()).await?,
                Fault::Hangs => std::future::pending().await,
                Fault::Resets => {
                    #[allow(deprecated, reason = "a reset is what is wanted, and nothing blocks with zero")]
                    return stream.get_ref().set_linger(Some(Duration::ZERO));
                }
                Fault::Endless => loop {
                    stream.write_all(b"250-more and more\r\n").await?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                },
            }
        } else {
            let answer = match command.to_ascii_uppercase().as_str() {
                "GREETING" => "220 fake ESMTP",
                "EHLO" => "250-fake\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME",
                "AUTH" => "235 2.7.0 welcome",
                "DATA" => "354 go on",
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        in_data = command.eq_ignore_ascii_case("DATA") && !command.eq_ignore_ascii_case(at);
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if !in_data || line == ".\r\n" {
                break;
            }
        }
    }
}
