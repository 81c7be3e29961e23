//! `vouch watch`: follows a verification to its verdict, through restarts of the analyzer.

use crate::client::{Client, ServerArguments, explain, is_transient};
use crate::command::interrupted;
use crate::exit::{self, Code};
use crate::output::{self, Progress};
use clap::{Args, ValueEnum};
use std::time::Duration;
use tokio::time::Instant;
use vouch_proto::{Verdict, v1};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Id of the verification, as `verify` prints it.
    verification_id: String,
    #[command(flatten)]
    server: ServerArguments,
    /// How to print the verdict.
    #[arg(long, default_value = "text")]
    output: Format,
}

/// How to print a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a person.
    Text,
    /// The published canonical JSON.
    Json,
}

/// How long the analyzer may be away before following it is given up.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(1);
/// How long after its deadline a verdict may come.
const MARGIN: Duration = Duration::from_secs(300);

pub(crate) async fn run(arguments: Arguments) -> Code {
    let mut client = match arguments.server.client() {
        Ok(client) => client,
        Err(e) => {
            output::error(&format!("{e:#}"));
            return exit::USAGE;
        }
    };
    let followed = tokio::select! {
        followed = follow(&mut client, &arguments.verification_id) => followed,
        () = interrupted() => return exit::INTERRUPTED,
    };
    match followed {
        Ok(verdict) => {
            print(&verdict, arguments.output);
            Verdict::try_from(verdict).map_or(exit::ERROR, |v| exit::of(v.outcome))
        }
        Err(status) => {
            output::error(&explain(&arguments.server.server, &status));
            exit::ERROR
        }
    }
}

/// Longest wait for the next news of a verification, real time: from its record, the time it has in all and a margin.
async fn limit(client: &mut Client, id: &str) -> Result<Duration, tonic::Status> {
    let record = client.get(v1::GetRequest { verification_id: id.to_owned() }).await?.into_inner();
    let seconds = |t: Option<vouch_proto::WireTimestamp>| t.map_or(0, |t| t.seconds);
    let all = seconds(record.deadline) - seconds(record.opened_at);
    Ok(Duration::from_secs(u64::try_from(all).unwrap_or(0)) + MARGIN)
}

/// Follows a verification to its verdict; asks again while the analyzer is away, at most `PATIENCE` long.
///
/// # Errors
/// Where there is no such verification, or the analyzer stays away.
pub(crate) async fn follow(client: &mut Client, id: &str) -> Result<v1::Verdict, tonic::Status> {
    let mut progress = Progress::new();
    let mut heard = Instant::now();
    loop {
        let request = v1::WatchRequest { verification_id: id.to_owned() };
        let ended = match client.watch(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                let longest = limit(client, id).await.unwrap_or(PATIENCE);
                loop {
                    let Ok(message) = tokio::time::timeout(longest, stream.message()).await else {
                        progress.end();
                        return Err(tonic::Status::deadline_exceeded(
                            "no verdict, although its deadline has passed",
                        ));
                    };
                    match message {
                        Ok(Some(v1::WatchResponse { event: Some(event) })) => {
                            heard = Instant::now();
                            match event {
                                v1::watch_response::Event::Progress(news) => progress.show(&news),
                                v1::watch_response::Event::Verdict(verdict) => {
                                    progress.end();
                                    return Ok(verdict);
                                }
                            }
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => break tonic::Status::unavailable("the stream ended before the verdict"),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        if !is_transient(&ended) || heard.elapsed() > PATIENCE {
            progress.end();
            return Err(ended);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints a verdict to standard output.
pub(crate) fn print(verdict: &v1::Verdict, format: Format) {
    match format {
        Format::Json => match serde_json::to_string(verdict) {
            Ok(json) => output::line(&json),
            Err(e) => output::error(&format!("the verdict cannot be written as JSON: {e}")),
        },
        Format::Text => match Verdict::try_from(verdict.clone()) {
            Ok(verdict) => output::line(&output::verdict(&verdict)),
            Err(e) => output::error(&format!("the verdict is not understood by this version: {e}")),
        },
    }
}
