//! `vouch verify`: announces a deployment, follows its verification, and says with the exit code how it ended.

use crate::client::{Client, ServerArguments, explain, is_transient};
use crate::command::interrupted;
use crate::command::watch::{self, Format};
use crate::exit::{self, Code};
use crate::output;
use clap::{Args, ValueEnum};
use std::time::Duration;
use tokio::time::Instant;
use vouch_proto::deployment::wire_duration;
use vouch_proto::{HostGroup, Outcome, Strategy, Timestamp, Verdict, Window, v1};
use vouch_service::settings::parse_duration;

const HELP: &str = "\
What a pipeline sees: Pass is 0, Fail 1, Inconclusive 2, Error 3. Argo jobs, GitHub Actions and Jenkins take any \
non-zero code for a failed release. By default an Inconclusive or an Error stops the pipeline too, because silence \
is not health; --on-inconclusive continue and --on-error continue answer 0 instead, with the outcome still in the \
output, for teams that would rather release unverified than wait.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The service, as Dynatrace names it.
    #[arg(long)]
    service: String,
    /// The environment, e.g. prod.
    #[arg(long)]
    environment: String,
    /// The new version.
    #[arg(long)]
    version: String,
    /// The version before.
    #[arg(long, default_value = "")]
    previous_version: String,
    /// Whom to alert.
    #[arg(long, default_value = "")]
    owner: String,
    /// Where it runs.
    #[arg(long, default_value = "")]
    cluster: String,
    /// What to roll back, e.g. namespace/deployment.
    #[arg(long, default_value = "")]
    workload: String,
    /// previous, canary, rolling, blue-green, load-test or auto; the template's where it is not given.
    #[arg(long)]
    strategy: Option<Strategy>,
    /// Length of the verification window, e.g. 15m (5m to 24h); the template's where it is not given.
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Pass before the end of the window, once a regression of a size that matters is ruled out.
    #[arg(long)]
    early_pass: bool,
    /// Go on by at most so much, e.g. 15m, where the window ends before that can be told.
    #[arg(long, value_parser = parse_duration)]
    extend_by: Option<Duration>,
    /// Name of a verification template; the default one where it is not given.
    #[arg(long, default_value = "")]
    template: String,
    /// When the new version got its first traffic (RFC 3339); now where it is not given.
    #[arg(long, value_name = "TIME")]
    started_at: Option<Timestamp>,
    /// A host that runs the new version (again for each).
    #[arg(long = "test-host", value_name = "NAME")]
    test_hosts: Vec<String>,
    /// A host that goes on running the old version (again for each).
    #[arg(long = "control-host", value_name = "NAME")]
    control_hosts: Vec<String>,
    /// For load-test: the window of the pinned run, START/END (RFC 3339); otherwise a window to compare with.
    #[arg(long = "baseline", value_name = "START/END", value_parser = parse_window)]
    baselines: Vec<Window>,
    /// Share of the traffic on the new version, percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    traffic_percent: Option<u32>,
    /// Judge a canary on the service as a whole where its hosts are not measured, by --traffic-percent.
    #[arg(long, requires = "traffic_percent")]
    diluted: bool,
    #[command(flatten)]
    server: ServerArguments,
    /// How to print the verdict: text for a person, json as it is published.
    #[arg(long, default_value = "text")]
    output: Format,
    /// What the exit code says for Inconclusive: fail (2) or continue (0).
    #[arg(long, default_value = "fail", value_name = "fail|continue")]
    on_inconclusive: Then,
    /// What the exit code says for Error: fail (3) or continue (0).
    #[arg(long, default_value = "fail", value_name = "fail|continue")]
    on_error: Then,
    /// Cancel the verification when interrupted; it goes on otherwise.
    #[arg(long)]
    cancel_on_interrupt: bool,
}

/// What a pipeline does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Then {
    Fail,
    Continue,
}

fn parse_window(text: &str) -> Result<Window, String> {
    let instant = |text: &str| text.parse::<Timestamp>().map_err(|e| e.to_string());
    let (start, end) = text.split_once('/').ok_or("give START/END, two instants (RFC 3339)")?;
    Window::new(instant(start)?, instant(end)?).map_err(|e| e.to_string())
}

/// How long the analyzer may be away before starting is given up.
const START_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(arguments: Arguments) -> Code {
    let mut client = match arguments.server.client() {
        Ok(client) => client,
        Err(e) => {
            output::error(&format!("{e:#}"));
            return exit::USAGE;
        }
    };
    let started = tokio::select! {
        started = start(&mut client, &arguments) => started,
        () = interrupted() => return exit::INTERRUPTED,
    };
    let id = match started {
        Ok(verification) => verification.verification_id,
        Err(status) if status.code() == tonic::Code::InvalidArgument => {
            output::error(&explain(&arguments.server.server, &status));
            return exit::USAGE;
        }
        Err(status) => {
            output::error(&explain(&arguments.server.server, &status));
            return arguments.code(Outcome::Error);
        }
    };
    output::progress(&format!("verification {id}"));
    let followed = tokio::select! {
        followed = watch::follow(&mut client, &id) => followed,
        () = interrupted() => return let_go(&mut client, &arguments, &id).await,
    };
    match followed {
        Ok(verdict) => {
            watch::print(&verdict, arguments.output);
            let outcome = Verdict::try_from(verdict).map_or(Outcome::Error, |v| v.outcome);
            arguments.code(outcome)
        }
        Err(status) => {
            output::error(&explain(&arguments.server.server, &status));
            arguments.code(Outcome::Error)
        }
    }
}

/// Starts the verification; asks again while the analyzer is away (a second start joins the first).
async fn start(client: &mut Client, arguments: &Arguments) -> Result<v1::Verification, tonic::Status> {
    let request = arguments.request();
    let begun = Instant::now();
    loop {
        match client.start(request.clone()).await {
            Ok(verification) => return Ok(verification.into_inner()),
            Err(status) if is_transient(&status) && begun.elapsed() < START_PATIENCE => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(status) => return Err(status),
        }
    }
}

async fn let_go(client: &mut Client, arguments: &Arguments, id: &str) -> Code {
    if !arguments.cancel_on_interrupt {
        output::error(&format!("interrupted; the verification goes on: `vouch watch {id}` follows it"));
        return exit::INTERRUPTED;
    }
    let request = v1::CancelRequest {
        verification_id: id.to_owned(),
        cancelled_by: "vouch verify".to_owned(),
        reason: "interrupted".to_owned(),
    };
    match client.cancel(request).await {
        Ok(_) => output::error(&format!("interrupted; verification {id} was cancelled")),
        Err(status) => output::error(&format!(
            "interrupted, and not cancelled: {}",
            explain(&arguments.server.server, &status)
        )),
    }
    exit::INTERRUPTED
}

impl Arguments {
    fn request(&self) -> v1::StartRequest {
        let host = |name: &String, group: HostGroup| v1::DeploymentHost {
            name: name.clone(),
            group: group.to_wire(),
            ..Default::default()
        };
        let tests = self.test_hosts.iter().map(|name| host(name, HostGroup::Test));
        let controls = self.control_hosts.iter().map(|name| host(name, HostGroup::Control));
        v1::StartRequest {
            service: self.service.clone(),
            environment: self.environment.clone(),
            version: self.version.clone(),
            previous_version: self.previous_version.clone(),
            owner: self.owner.clone(),
            cluster: self.cluster.clone(),
            workload: self.workload.clone(),
            started_at: self.started_at.map(Into::into),
            verification: Some(v1::VerificationRequest {
                template: self.template.clone(),
                strategy: self.strategy.map_or(0, Strategy::to_wire),
                duration: self.duration.map(wire_duration),
                baseline: self.baselines.iter().copied().map(Into::into).collect(),
                diluted: self.diluted,
                early_pass: self.early_pass.then_some(true),
                extend_by: self.extend_by.map(wire_duration),
            }),
            hosts: tests.chain(controls).collect(),
            requested_by: "vouch verify".to_owned(),
            wait_for_traffic: false,
            traffic_percent: self.traffic_percent,
        }
    }

    /// What the pipeline sees.
    fn code(&self, outcome: Outcome) -> Code {
        match (outcome, self.on_inconclusive, self.on_error) {
            (Outcome::Inconclusive, Then::Continue, _) | (Outcome::Error, _, Then::Continue) => {
                output::error(&format!("the outcome is {outcome}, and the pipeline continues as asked"));
                exit::OK
            }
            _ => exit::of(outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        verify: Arguments,
    }

    fn parse(more: &[&str]) -> Result<Arguments, clap::Error> {
        let fixed = ["verify", "--service", "checkout", "--environment", "prod", "--version", "2"];
        Line::try_parse_from(fixed.iter().chain(more)).map(|line| line.verify)
    }

    #[test]
    fn continue_changes_the_code_of_its_outcome_only() {
        let strict = parse(&[]).unwrap();
        assert_eq!(strict.code(Outcome::Inconclusive), exit::INCONCLUSIVE);
        assert_eq!(strict.code(Outcome::Error), exit::ERROR);
        let lenient = parse(&["--on-inconclusive", "continue"]).unwrap();
        assert_eq!(lenient.code(Outcome::Inconclusive), exit::OK);
        assert_eq!(lenient.code(Outcome::Error), exit::ERROR);
        assert_eq!(lenient.code(Outcome::Fail), exit::FAIL);
        assert_eq!(parse(&["--on-error", "continue"]).unwrap().code(Outcome::Error), exit::OK);
    }

    #[test]
    fn the_request_says_what_was_typed() {
        let arguments = parse(&[
            "--strategy",
            "canary",
            "--duration",
            "15m",
            "--test-host",
            "t0",
            "--control-host",
            "c0",
            "--control-host",
            "c1",
            "--started-at",
            "2026-11-24T10:00:00Z",
        ]);
        let request = arguments.unwrap().request();
        let verification = request.verification.unwrap();
        assert_eq!(verification.strategy, v1::Strategy::Canary as i32);
        assert_eq!(verification.duration.unwrap().seconds, 900);
        assert_eq!(request.hosts.len(), 3);
        assert_eq!(request.started_at.unwrap().seconds, 1_795_514_400);
    }

    #[test]
    fn a_pinned_run_and_a_diluted_canary_can_be_asked_for() {
        let run = "2026-11-24T10:00:00Z/2026-11-24T10:30:00Z";
        let request = parse(&["--strategy", "load-test", "--baseline", run]).unwrap().request();
        assert_eq!(request.verification.unwrap().baseline.len(), 1);
        assert!(
            parse(&["--baseline", "2026-11-24T10:00:00Z"]).unwrap_err().to_string().contains("START/END")
        );
        assert!(parse(&["--diluted"]).is_err(), "its share of the traffic is needed");
        let request =
            parse(&["--strategy", "canary", "--diluted", "--traffic-percent", "10"]).unwrap().request();
        assert_eq!((request.traffic_percent, request.verification.unwrap().diluted), (Some(10), true));
        assert!(parse(&["--traffic-percent", "101"]).is_err());
    }

    #[test]
    fn unknown_words_are_refused_with_the_choices() {
        let said = parse(&["--strategy", "bluegreen"]).unwrap_err().to_string();
        assert!(said.contains("blue-green"), "{said}");
        assert!(parse(&["--duration", "soon"]).unwrap_err().to_string().contains("30s, 5m"));
        assert!(parse(&["--on-error", "maybe"]).is_err());
    }
}
