//! `vouch up`: collector, analyzer and notifier in one process, against a given nats-server or one of its own.

use crate::exit::{self, Code};
use crate::output;
use crate::settings::Settings;
use anyhow::Context as _;
use clap::Args;
use std::path::PathBuf;
use tokio::net::TcpListener;
use vouch_service::health::{self, Health};
use vouch_service::nats::Nats;
use vouch_service::nats_server::NatsServer;
use vouch_service::run::{Context, report_invalid};
use vouch_service::shutdown::{Tasks, on_signal};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Settings file (YAML); variables VOUCH__SECTION__FIELD overlay it.
    #[arg(long, env = "VOUCH_SETTINGS", value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Where the own nats-server keeps its streams, where the settings name no `nats.url`.
    #[arg(long, default_value = ".vouch/nats", value_name = "FOLDER")]
    data: PathBuf,
    /// Serve /live, /ready and /metrics here.
    #[arg(long, env = "VOUCH_HEALTH_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    health_listen: String,
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    let mut settings = match Settings::load(arguments.settings.as_deref()) {
        Ok(settings) => settings,
        Err(invalid) => {
            report_invalid(&invalid);
            return exit::USAGE;
        }
    };
    settings.common.log.init();
    match serve(&mut settings, &arguments).await {
        Ok(()) => exit::OK,
        Err(e) => {
            output::error(&format!("{e:#}"));
            exit::ERROR
        }
    }
}

async fn serve(settings: &mut Settings, arguments: &Arguments) -> anyhow::Result<()> {
    let own = if settings.names_nats { None } else { Some(NatsServer::start(&arguments.data)?) };
    if let Some(server) = &own {
        settings.common.nats.servers = vec![server.url().parse()?];
        tracing::info!(url = server.url(), data = %arguments.data.display(), "runs a nats-server of its own");
    }
    let tasks = Tasks::default();
    let health = Health::default();
    let listener = TcpListener::bind(&arguments.health_listen)
        .await
        .with_context(|| format!("--health-listen: {} cannot be listened on", arguments.health_listen))?;
    tasks.spawn_vital("health", health::serve(health.clone(), listener, tasks.stop().clone()));
    let deadline = settings.common.drain_deadline;
    let work = async {
        let nats = Nats::connect(&settings.common.nats, "vouch up").await?;
        let context = Context { nats, clock: settings.common.clock.clone(), tasks: tasks.clone(), health };
        if settings.analyzer.grpc_token.is_none() {
            tracing::warn!(listen = %settings.analyzer.grpc_listen, "gRPC lets everybody in who can reach it: no token is set");
        }
        build(settings, &context).await?;
        tracing::info!(grpc = %settings.analyzer.grpc_listen, "running; `vouch verify` starts a verification");
        anyhow::ensure!(tasks.drain(deadline).await, "not drained within {deadline:?}");
        anyhow::ensure!(tasks.failure().is_none(), "{}", tasks.failure().unwrap_or_default());
        Ok(())
    };
    tokio::select! {
        ended = work => ended,
        ended = on_signal(tasks.stop().clone()) => ended,
    }
}

/// Starts the three services in one context.
pub(crate) async fn build(settings: &Settings, context: &Context) -> anyhow::Result<()> {
    vouch_notifier::build(settings.notifier.clone(), context.clone()).await.context("notifier")?;
    vouch_analyzer::build(settings.analyzer.clone(), context.clone()).await.context("analyzer")?;
    vouch_collector::build(settings.collector.clone(), context.clone()).await.context("collector")
}
