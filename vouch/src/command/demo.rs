//! `vouch demo`: everything in one process against a simulated Dynatrace; a healthy deployment, then a bad one, and the
//! rollback that follows.

mod shop;

use crate::client::{Client, ServerArguments};
use crate::exit::{self, Code};
use crate::output;
use crate::settings::Settings;
use anyhow::Context as _;
use clap::Args;
use futures::StreamExt as _;
use shop::{Shop, TOKEN};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use vouch_proto::deployment::wire_duration;
use vouch_proto::subject::ACTIONS;
use vouch_proto::{Action, Outcome, Timestamp, Verdict, envelope, v1};
use vouch_service::clock::{Clock as _, ScaledClock, SystemClock};
use vouch_service::health::Health;
use vouch_service::nats::Nats;
use vouch_service::nats_server::NatsServer;
use vouch_service::run::Context;
use vouch_service::settings::Document;
use vouch_service::shutdown::{Tasks, on_signal};
use vouch_simulator::Effect;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How many times faster than real time the demo's clock runs.
    #[arg(long, default_value_t = 45.0, value_parser = speed, value_name = "N")]
    speed: f64,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (1.0..=240.0).contains(&speed) => Ok(speed),
        _ => Err(format!("`{text}` is not within 1 to 240")),
    }
}

/// Length of the demo's verification windows.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Longest wait for the rollback after the verdict.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(20);

pub(crate) async fn run(arguments: Arguments) -> Code {
    let tasks = Tasks::default();
    let ended = tokio::select! {
        ended = show(&arguments, &tasks) => ended,
        _ = on_signal(tasks.stop().clone()) => return exit::INTERRUPTED,
        () = tasks.stop().cancelled() => match tasks.failure() {
            Some(failure) => Err(anyhow::anyhow!("{failure}")),
            None => {
                tasks.drain(Duration::from_secs(5)).await;
                return exit::INTERRUPTED;
            }
        },
    };
    tasks.stop().cancel();
    tasks.drain(Duration::from_secs(5)).await;
    match ended {
        Ok(()) => exit::OK,
        Err(e) => {
            output::error(&format!("{e:#}"));
            exit::ERROR
        }
    }
}

async fn show(arguments: &Arguments, tasks: &Tasks) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = NatsServer::start(folder.path())?;
    let clock = ScaledClock::starting_at(SystemClock.now().floor_minute(), arguments.speed);
    let shop = Shop::open(clock, tasks).await?;
    let grpc = free_port().await?;
    let settings = settings(&server.url(), grpc, &shop)?;
    let nats = Nats::connect(&settings.common.nats, "vouch demo").await?;
    let context = Context { nats, clock: Arc::new(clock), tasks: tasks.clone(), health: Health::default() };
    super::up::build(&settings, &context).await?;
    let server_arguments =
        ServerArguments { server: format!("http://127.0.0.1:{grpc}"), token_file: None, ca_file: None };
    let mut demo = Demo { client: server_arguments.client()?, context, shop };

    output::line(&format!(
        "A simulated Dynatrace, a nats-server and Vouch's three services run in this process; one minute takes {:.1} s.\n",
        60.0 / arguments.speed
    ));
    output::line("1. checkout 1.1.0 is deployed. It is healthy.");
    let verdict = demo.deploy("checkout", "1.0.9", "1.1.0", Effect::Healthy).await?;
    anyhow::ensure!(verdict.outcome == Outcome::Pass, "checkout should have passed: {}", verdict.reason);
    output::line("\n2. payment 2.4.0 is deployed. It is slower, and nobody has told Vouch.");
    let verdict = demo.deploy("payment", "2.3.1", "2.4.0", Effect::LatencyStep { factor: 1.6 }).await?;
    anyhow::ensure!(verdict.outcome == Outcome::Fail, "payment should have failed: {}", verdict.reason);
    demo.show_rollback(&verdict).await
}

struct Demo {
    client: Client,
    context: Context,
    shop: Shop,
}

impl Demo {
    /// Deploys, starts the verification, shows each minute, and answers the verdict.
    async fn deploy(
        &mut self,
        service: &str,
        from: &str,
        to: &str,
        effect: Effect,
    ) -> anyhow::Result<Verdict> {
        let now = self.context.clock.now();
        let at = now.ceil_minute();
        self.shop.simulator.deploy(service, to, at.as_millis(), effect)?;
        vouch_service::clock::sleep_until(&*self.context.clock, at).await;
        let request = v1::StartRequest {
            service: service.to_owned(),
            environment: "demo".to_owned(),
            version: to.to_owned(),
            previous_version: from.to_owned(),
            owner: "team-demo".to_owned(),
            started_at: Some(at.into()),
            verification: Some(v1::VerificationRequest {
                duration: Some(wire_duration(WINDOW)),
                ..Default::default()
            }),
            requested_by: "vouch demo".to_owned(),
            ..Default::default()
        };
        let verification = self.client.start(request).await?.into_inner();
        let request = v1::WatchRequest { verification_id: verification.verification_id };
        let mut events = self.client.watch(request).await?.into_inner();
        let mut minutes = 0;
        while let Some(event) = events.message().await? {
            match event.event {
                Some(v1::watch_response::Event::Progress(progress)) if progress.minutes_seen > minutes => {
                    minutes = progress.minutes_seen;
                    output::line(&minute(&progress));
                }
                Some(v1::watch_response::Event::Verdict(verdict)) => {
                    let verdict = Verdict::try_from(verdict)?;
                    output::line(&format!("\n{}", output::verdict(&verdict)));
                    return Ok(verdict);
                }
                Some(v1::watch_response::Event::Progress(_)) | None => {}
            }
        }
        anyhow::bail!("the verification of {service} ended without a verdict")
    }

    /// Shows what the notifier did about the verdict, as the audit stream has it, and what it brought.
    async fn show_rollback(&self, verdict: &Verdict) -> anyhow::Result<()> {
        let action = tokio::time::timeout(ROLLBACK_LIMIT, self.audit(verdict))
            .await
            .context("no rollback was recorded within 20 s")??;
        let calls = self.shop.rollbacks();
        output::line(&format!(
            "\n3. The notifier rolled payment back, because of rule `{}`: {}.\n   The deployment's rollback hook was called {} time(s): {}.",
            action.rule,
            action.detail,
            calls.len(),
            calls.join(", ")
        ));
        anyhow::ensure!(calls.len() == 1, "the rollback should have been called once");
        output::line(
            "\nEvery verdict is on the topic vouch.v1.verdict.<environment>.<service>.>, every action on \
             vouch.v1.action.>.\nTry `vouch up` and `vouch verify` next: see README.md.",
        );
        Ok(())
    }

    /// The rollback's entry in the audit stream.
    async fn audit(&self, verdict: &Verdict) -> anyhow::Result<Action> {
        let stream = self.context.nats.jetstream.get_stream_no_info(ACTIONS.name).await?;
        let consumer = stream.create_consumer(vouch_service::nats::from_the_start(ACTIONS.subjects)).await?;
        let mut messages = consumer.messages().await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let wire: v1::Action = envelope::open(None, &message.payload).map_err(anyhow::Error::msg)?;
            let action = Action::try_from(wire)?;
            if action.verification_id == verdict.verification_id
                && action.purpose == vouch_proto::Purpose::Rollback
            {
                return Ok(action);
            }
        }
        anyhow::bail!("the audit stream has ended")
    }
}

/// One minute as a line: the risk of each metric, the most suspicious first.
fn minute(progress: &v1::Progress) -> String {
    let time = progress
        .updated_at
        .and_then(|t| Timestamp::try_from(t).ok())
        .map_or_else(String::new, |t| t.to_string().get(11..16).unwrap_or_default().to_owned());
    let metrics: Vec<String> =
        progress.metrics.iter().map(|m| format!("{} {:.2}", m.metric, m.risk)).collect();
    format!(
        "   {time}  minute {:>2}/{}  risk {:.2}   {}",
        progress.minutes_seen,
        progress.minutes_total,
        progress.risk,
        metrics.join("  ")
    )
}

async fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

fn settings(nats: &str, grpc: u16, shop: &Shop) -> anyhow::Result<Settings> {
    let document = Document::parse(&format!(
        "nats: {{url: '{nats}'}}\n\
         collector: {{tenant: demo, url: 'http://{dynatrace}', token: {TOKEN}}}\n\
         analyzer: {{grpc_listen: '127.0.0.1:{grpc}'}}\n\
         notifier:\n  \
           actions:\n  \
           - {{name: undo, type: webhook, url: 'http://{target}/rollback', unsigned: true}}\n  \
           rollback: {{default: act, action: undo}}\n",
        dynatrace = shop.dynatrace,
        target = shop.target,
    ))?;
    Ok(Settings::from_document(&document)?)
}
