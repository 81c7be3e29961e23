//! `vouch`, the command line: verify a deployment, judge cases offline, run everything in one process, try it.

mod chart;
mod client;
mod command;
mod exit;
mod output;
mod settings;

use clap::{Parser, Subcommand};
use command::{
    budget, check, demo, explain, init, judge, logs, notify, plan, query, services, simulate, up, verify,
    watch,
};
use std::process::ExitCode;

/// Did this change make the service worse?
#[derive(Debug, Parser)]
#[command(name = "vouch", version, about, after_help = exit::TABLE, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show Vouch at work: a simulated Dynatrace, a healthy deployment, a bad one, a rollback. Takes about a minute.
    Demo(demo::Arguments),
    /// Run collector, analyzer and notifier in one process.
    Up(up::Arguments),
    /// Verify a deployment and wait for the verdict; the exit code says how it ended.
    Verify(Box<verify::Arguments>),
    /// Follow a verification to its verdict.
    Watch(watch::Arguments),
    /// Show what a verdict rests on: charts, states, evidence; and write a picture.
    Explain(Box<explain::Arguments>),
    /// Show what the budget of rollbacks and pages allows, what is expected of it, and what was spent.
    Budget(budget::Arguments),
    /// Judge verification cases from a file, one JSON object a line, offline.
    Judge(judge::Arguments),
    /// Write a settings file for a Dynatrace tenant from what it has.
    Init(init::Arguments),
    /// Show which services of the tenant have which name, which are ambiguous, and which have none, and why.
    Services(services::Arguments),
    /// Count the calls that collecting will make, without making one.
    Plan(plan::Arguments),
    /// Serve a simulated Dynatrace tenant, to try Vouch or automations of your own against.
    Simulate(simulate::Arguments),
    /// Run one query against Dynatrace as the collector would, and print its series.
    Query(Box<query::Arguments>),
    /// Print lines of a service's logs, read as the collector reads them.
    Logs(Box<logs::Arguments>),
    /// Send a sample to a channel of the settings, and show what came back.
    Notify(notify::Arguments),
    /// Validate the settings; with --connect, also NATS, Dynatrace and the token's scopes.
    Check(check::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            // clap's own code 2 would read as Inconclusive.
            let code = if e.use_stderr() { exit::USAGE } else { exit::OK };
            e.print().ok();
            return code.into();
        }
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    if let Command::Judge(arguments) = arguments.command {
        return judge::run(&arguments).into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            output::error(&format!("the runtime does not start: {e}"));
            return exit::ERROR.into();
        }
    };
    runtime.block_on(dispatch(arguments.command)).into()
}

async fn dispatch(command: Command) -> exit::Code {
    match command {
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Up(arguments) => up::run(arguments).await,
        Command::Verify(arguments) => verify::run(*arguments).await,
        Command::Watch(arguments) => watch::run(arguments).await,
        Command::Explain(arguments) => explain::run(*arguments).await,
        Command::Budget(arguments) => budget::run(arguments).await,
        Command::Init(arguments) => init::run(arguments).await,
        Command::Services(arguments) => services::run(arguments).await,
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Simulate(arguments) => simulate::run(arguments).await,
        Command::Query(arguments) => query::run(*arguments).await,
        Command::Logs(arguments) => logs::run(*arguments).await,
        Command::Notify(arguments) => notify::run(arguments).await,
        Command::Check(arguments) => check::run(arguments).await,
        Command::Judge(arguments) => judge::run(&arguments),
    }
}
