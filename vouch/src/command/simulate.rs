//! `vouch simulate`: a Dynatrace tenant on this machine, to try Vouch, or automations of one's own, against.

use super::interrupted;
use crate::exit::{self, Code};
use crate::output;
use clap::Args;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vouch_service::clock::{Clock as _, ScaledClock, SystemClock};
use vouch_simulator::{ALL_SCOPES, PLATFORM_SCOPES, Scenario, Simulator};

/// The tokens that may call: the tenant is simulated, and so are they.
const TOKEN: &str =
    "dt0c01.SIMULATEDSIMULATEDSIMULA.SIMULATEDSIMULATEDSIMULATEDSIMULATEDSIMULATEDSIMULATEDSIMULATEDS";
const PLATFORM_TOKEN: &str =
    "dt0s16.SIMULATEDSIMULATEDSIMULA.SIMULATEDSIMULATEDSIMULATEDSIMULATEDSIMULATEDSIMULATEDSIMULATEDS";
/// Longest time for running calls to end.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A scenario by its name, or a YAML file; `list` names those that come with Vouch.
    #[arg(default_value = "demo")]
    scenario: String,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDRESS")]
    listen: String,
    /// How many times faster than real time it runs.
    #[arg(long, default_value_t = 1.0, value_name = "N", value_parser = speed)]
    speed: f64,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 && speed <= 100_000.0 => Ok(speed),
        _ => Err("must be a number above 0, up to 100000".into()),
    }
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    if arguments.scenario == "list" {
        Scenario::names().into_iter().for_each(output::line);
        return exit::OK;
    }
    let scenario = match read(&arguments.scenario) {
        Ok(scenario) => scenario,
        Err(message) => {
            output::error(&message);
            return exit::USAGE;
        }
    };
    let clock = ScaledClock::starting_at(SystemClock.now(), arguments.speed);
    let built = Simulator::builder()
        .scenario(scenario)
        .clock(Arc::new(move || clock.now().as_millis()))
        .token(TOKEN, &ALL_SCOPES)
        .platform_token(PLATFORM_TOKEN, &PLATFORM_SCOPES)
        .build();
    let simulator = match built {
        Ok(simulator) => simulator,
        Err(e) => {
            output::error(&e.to_string());
            return exit::USAGE;
        }
    };
    let listener = match TcpListener::bind(&arguments.listen).await {
        Ok(listener) => listener,
        Err(e) => {
            output::error(&format!("--listen {} cannot be used: {e}", arguments.listen));
            return exit::ERROR;
        }
    };
    let address = listener.local_addr().map_or(arguments.listen, |address| address.to_string());
    output::line(&format!("url             http://{address}"));
    output::line(&format!("access token    {TOKEN}"));
    output::line(&format!("platform token  {PLATFORM_TOKEN}"));
    serve(simulator, listener).await
}

fn read(scenario: &str) -> Result<Scenario, String> {
    if let Ok(known) = Scenario::named(scenario) {
        return Ok(known);
    }
    let is_file = std::path::Path::new(scenario).exists();
    if !is_file {
        return Err(format!(
            "`{scenario}` is no scenario and no file; the scenarios are {}",
            Scenario::names().join(", ")
        ));
    }
    let text = std::fs::read_to_string(scenario).map_err(|e| format!("{scenario} cannot be read: {e}"))?;
    Scenario::parse(&text).map_err(|e| format!("{scenario}: {e}"))
}

/// Serves until SIGINT or SIGTERM.
async fn serve(simulator: Simulator, listener: TcpListener) -> Code {
    let stop = CancellationToken::new();
    let serving = simulator.serve(listener, stop.clone());
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = interrupted() => {
            stop.cancel();
            match tokio::time::timeout(DRAIN, serving).await {
                Ok(ended) => ended,
                Err(_) => return exit::OK,
            }
        }
    };
    match ended {
        Ok(()) => exit::OK,
        Err(e) => {
            output::error(&e.to_string());
            exit::ERROR
        }
    }
}
