//! The simulator as a program of its own.

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vouch_service::clock::{Clock as _, ScaledClock};
use vouch_service::run::EXIT_USAGE;
use vouch_service::shutdown;
use vouch_simulator::{ALL_SCOPES, Builder, Clock, PLATFORM_SCOPES, Scenario, Simulator};

/// Longest time for running calls to end after a signal.
const DRAIN: Duration = Duration::from_secs(5);

/// A Dynatrace tenant to develop and test against. Without a subcommand it serves.
#[derive(Debug, Parser)]
#[command(name = "vouch-simulator", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a running simulator whether it answers, and stop (for containers without a shell).
    Healthcheck {
        /// Where it listens.
        #[arg(
            long,
            env = "VOUCH_SIMULATOR_LISTEN",
            default_value = "127.0.0.1:8090",
            value_name = "ADDRESS"
        )]
        listen: String,
    },
    /// List the scenarios that come with the simulator.
    Scenarios,
}

#[derive(Debug, Args)]
struct Serve {
    /// Where to listen.
    #[arg(long, env = "VOUCH_SIMULATOR_LISTEN", default_value = "127.0.0.1:8090", value_name = "ADDRESS")]
    listen: String,
    /// A scenario that comes with the simulator, or a YAML file.
    #[arg(long, default_value = "demo", value_name = "NAME|FILE", conflicts_with = "replay")]
    scenario: String,
    /// Replay recorded cases: JSON lines, gzipped or not.
    #[arg(long, value_name = "FILE", requires = "at")]
    replay: Option<PathBuf>,
    /// Minute 0 of scenario or cases, RFC 3339. A scenario begins now unless given.
    #[arg(long, value_name = "TIME")]
    at: Option<vouch_proto::Timestamp>,
    /// What the simulated clock shows at the start, RFC 3339; the present unless given.
    #[arg(long, value_name = "TIME")]
    clock: Option<vouch_proto::Timestamp>,
    /// How many times faster than real time it runs.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = parse_speed)]
    speed: f64,
    /// File with the token that may call, dt0c01.<public>.<secret>.
    #[arg(long, env = "VOUCH_SIMULATOR_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Scopes of the token.
    #[arg(long, value_delimiter = ',', default_values = ALL_SCOPES, value_name = "SCOPES")]
    scopes: Vec<String>,
    /// File with a platform token, dt0s16.<public>.<secret>, for what lies below /platform.
    #[arg(long, env = "VOUCH_SIMULATOR_PLATFORM_TOKEN_FILE", value_name = "FILE")]
    platform_token_file: Option<PathBuf>,
    /// File with the secret of an OAuth client, dt0s02.<public>.<secret>.
    #[arg(long, env = "VOUCH_SIMULATOR_OAUTH_SECRET_FILE", value_name = "FILE")]
    oauth_secret_file: Option<PathBuf>,
    /// Scopes of the platform token, and those that the OAuth client may ask for.
    #[arg(long, value_delimiter = ',', default_values = PLATFORM_SCOPES, value_name = "SCOPES")]
    platform_scopes: Vec<String>,
    /// Milliseconds until a point appears after the end of its slot; 60000 to 120000 in a scenario, 0 in a replay.
    #[arg(long, value_name = "MS")]
    settle_ms: Option<i64>,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 && speed <= 100_000.0 => Ok(speed),
        _ => Err("must be a number above 0, up to 100000".into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let code = if e.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
            e.print().ok();
            return code;
        }
    };
    let ended = match arguments.command {
        Some(Command::Healthcheck { listen }) => vouch_service::health::probe(&listen).await,
        Some(Command::Scenarios) => {
            let names = Scenario::names().join("\n");
            std::io::Write::write_all(&mut std::io::stdout(), format!("{names}\n").as_bytes())
                .map_err(Into::into)
        }
        None => match build(&arguments.serve) {
            Ok(simulator) => serve(simulator, &arguments.serve.listen).await,
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::from(EXIT_USAGE);
            }
        },
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A secret from a file, without blanks around it; the messages name the argument and never the secret.
fn secret(argument: &str, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{argument} {}: cannot be read", file.display()))?;
    Ok(Some(text.trim().to_owned()))
}

/// Everything is read and checked before anything is opened.
fn build(arguments: &Serve) -> anyhow::Result<Simulator> {
    let now = vouch_service::clock::SystemClock.now();
    let scaled = ScaledClock::starting_at(arguments.clock.unwrap_or(now), arguments.speed);
    let clock: Clock = Arc::new(move || scaled.now().as_millis());
    let scopes: Vec<&str> = arguments.scopes.iter().map(String::as_str).collect();
    let platform_scopes: Vec<&str> = arguments.platform_scopes.iter().map(String::as_str).collect();
    let mut builder = source(arguments)?.clock(clock);
    if let Some(token) = secret("--token-file", arguments.token_file.as_deref())? {
        builder = builder.token(token, &scopes);
    } else if arguments.platform_token_file.is_none() && arguments.oauth_secret_file.is_none() {
        anyhow::bail!("--token-file: give a file with the token that may call, dt0c01.<public>.<secret>");
    }
    if let Some(token) = secret("--platform-token-file", arguments.platform_token_file.as_deref())? {
        builder = builder.platform_token(token, &platform_scopes);
    }
    if let Some(client) = secret("--oauth-secret-file", arguments.oauth_secret_file.as_deref())? {
        builder = builder.oauth_client(client, &platform_scopes);
    }
    if let Some(settle_ms) = arguments.settle_ms {
        builder = builder.settle_ms(settle_ms);
    }
    Ok(builder.build()?)
}

fn source(arguments: &Serve) -> anyhow::Result<Builder> {
    let at = arguments.at.map(vouch_proto::Timestamp::as_millis);
    if let (Some(file), Some(at)) = (&arguments.replay, at) {
        return Ok(Simulator::builder().replay(file, at));
    }
    let name = &arguments.scenario;
    let scenario = if Scenario::names().contains(&name.as_str()) || !Path::new(name).exists() {
        Scenario::named(name).with_context(|| format!("--scenario {name}: is neither a name nor a file"))?
    } else {
        let text =
            std::fs::read_to_string(name).with_context(|| format!("--scenario {name}: cannot be read"))?;
        Scenario::parse(&text).with_context(|| format!("--scenario {name}"))?
    };
    let builder = Simulator::builder().scenario(scenario);
    Ok(match at {
        Some(at) => builder.start_ms(at),
        None => builder,
    })
}

async fn serve(simulator: Simulator, listen: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("--listen {listen}"))?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = simulator.serve(listener, stop.clone()) => Ok(ended?),
        failed = shutdown::on_signal(stop.clone()) => failed,
        () = overdue => anyhow::bail!("calls were still running {} s after the signal", DRAIN.as_secs()),
    }
}
