//! The frame of a service's main: arguments, settings, build, run, drain.

use crate::clock::SharedClock;
use crate::health::{self, Health};
use crate::nats::{Nats, NatsSettings};
use crate::settings::{self, Document, Section};
use crate::shutdown::{self, Tasks};
use crate::telemetry::LogSettings;
use anyhow::Context as _;
use clap::Parser;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use vouch_proto::Invalid;

/// Exit code for wrong arguments or settings, in every program of Vouch.
pub const EXIT_USAGE: u8 = 64;

/// Settings that every service has.
#[derive(Debug, Clone)]
pub struct Common {
    /// How to reach NATS.
    pub nats: NatsSettings,
    /// How to log.
    pub log: LogSettings,
    /// The clock.
    pub clock: SharedClock,
    /// How long draining may take.
    pub drain_deadline: Duration,
}

impl Common {
    /// Reads the common sections.
    pub fn read(root: &mut Section<'_>, invalid: &mut Invalid) -> Self {
        let second = Duration::from_secs(1);
        Self {
            nats: NatsSettings::read(root, invalid),
            log: LogSettings::read(root, invalid),
            clock: settings::clock(root, invalid),
            drain_deadline: root.duration("drain_deadline", 10 * second, second..=600 * second),
        }
    }
}

/// What a service gets to build itself from.
#[derive(Debug, Clone)]
pub struct Context {
    /// The connection.
    pub nats: Nats,
    /// The clock.
    pub clock: SharedClock,
    /// The tasks to run in, and the stop signal.
    pub tasks: Tasks,
    /// Where readiness and metrics go.
    pub health: Health,
}

#[derive(Debug, Parser)]
struct Arguments {
    /// Settings file (YAML); variables VOUCH__SECTION__FIELD overlay it.
    #[arg(long, env = "VOUCH_SETTINGS", value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Validate the settings and stop.
    #[arg(long)]
    check: bool,
    /// Make the streams and buckets in NATS, or bring them up to date, and stop.
    #[arg(long)]
    setup: bool,
    /// Serve /live, /ready and /metrics here.
    #[arg(long, env = "VOUCH_HEALTH_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    health_listen: String,
    /// Ask the running service whether it is ready, and stop (for containers without a shell).
    #[arg(long)]
    healthcheck: bool,
}

/// Runs a service from its arguments to its end.
///
/// `read` takes the service's own section from the settings; `build` starts its tasks in the context.
pub async fn main<S, B, F>(
    name: &'static str,
    read: fn(&mut Section<'_>, &mut Invalid) -> S,
    build: B,
) -> ExitCode
where
    B: FnOnce(S, Context) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let code = if e.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
            e.print().ok();
            return code;
        }
    };
    if arguments.healthcheck {
        return finish(health::probe(&arguments.health_listen).await);
    }
    let loaded =
        Document::load(arguments.settings.as_deref(), settings::environment()).and_then(|document| {
            let (mut invalid, mut root) = (Invalid::default(), document.section());
            let common = Common::read(&mut root, &mut invalid);
            let own = read(&mut root, &mut invalid);
            root.finish_shared(&mut invalid);
            invalid.into_result().map(|()| (common, own))
        });
    match loaded {
        Err(invalid) => {
            report_invalid(&invalid);
            ExitCode::from(EXIT_USAGE)
        }
        Ok(_) if arguments.check => ExitCode::SUCCESS,
        Ok((common, _)) if arguments.setup => {
            common.log.init();
            finish(Nats::connect(&common.nats, name).await.map(|_| ()))
        }
        Ok((common, own)) => {
            finish(run(name, common, &arguments.health_listen, |context| build(own, context)).await)
        }
    }
}

/// Says every wrong setting, one a line, on standard error.
pub fn report_invalid(invalid: &Invalid) {
    for violation in &invalid.violations {
        eprintln!("{}: {}", violation.field, violation.message);
    }
}

fn finish(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run<F: Future<Output = anyhow::Result<()>>>(
    name: &'static str,
    common: Common,
    health_listen: &str,
    build: impl FnOnce(Context) -> F,
) -> anyhow::Result<()> {
    common.log.init();
    let tasks = Tasks::default();
    let health = Health::default();
    let listener = TcpListener::bind(health_listen)
        .await
        .with_context(|| format!("--health-listen: {health_listen} cannot be listened on"))?;
    health.fails("start", "starting");
    tasks.spawn_vital("health", health::serve(health.clone(), listener, tasks.stop().clone()));
    let signals = shutdown::on_signal(tasks.stop().clone());
    let work = async {
        let nats = Nats::connect(&common.nats, name).await?;
        let context = Context { nats, clock: common.clock, tasks: tasks.clone(), health: health.clone() };
        build(context).await?;
        health.ok("start");
        tracing::info!(service = name, "running");
        let met = tasks.drain(common.drain_deadline).await;
        anyhow::ensure!(met, "not drained within {:?}", common.drain_deadline);
        anyhow::ensure!(tasks.failure().is_none(), "{}", tasks.failure().unwrap_or_default());
        Ok(())
    };
    tokio::select! {
        ended = work => ended,
        ended = signals => ended,
    }
}
