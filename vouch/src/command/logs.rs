//! `vouch logs`: lines of a service's logs through the reader that the collector uses, one JSON object each.

use super::interrupted;
use super::tenant::Choice;
use crate::exit::{self, Code};
use crate::output;
use async_trait::async_trait;
use clap::{ArgGroup, Args, ValueEnum};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vouch_collector::config::{LogSourceKind, TenantSettings};
use vouch_collector::metrics::Metrics;
use vouch_collector::source::Failure;
use vouch_collector::source::dynatrace::{Dynatrace, Scheme, When};
use vouch_collector::source::logs::{
    Allowance, Heard, LineSink, LogAsk, LogSource as _, LoggedService, Meter, Purpose, SourceLine,
};
use vouch_proto::{Name, Timestamp, Window};
use vouch_service::clock::{Clock as _, SystemClock};
use vouch_service::health::Health;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["service", "filter"]))]
pub(crate) struct Arguments {
    #[command(flatten)]
    tenant: Choice,
    /// The service, as deployments name it.
    #[arg(long, short, value_name = "NAME")]
    service: Option<String>,
    /// Its environment.
    #[arg(long, value_name = "NAME", default_value = "prod", conflicts_with = "filter")]
    environment: String,
    /// A condition instead, in the source's language: `status="ERROR"` of Logs v2, `loglevel == "ERROR"` of a DQL filter.
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// Epoch milliseconds, 2026-01-25T05:57:01Z, or now-2h.
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    from: String,
    /// The same; the end.
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    to: String,
    /// Where to read: what the settings say, else by the token.
    #[arg(long, value_enum)]
    source: Option<Source>,
    /// Read Grail, which bills what it scans.
    #[arg(long)]
    billed: bool,
    /// Buckets of Grail, with commas; all that the token may read.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    buckets: Vec<String>,
    /// Most gigabytes that one query may scan.
    #[arg(long, value_name = "GB", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    scan_limit: u32,
    /// One JSON object a line, or text.
    #[arg(long, value_enum, default_value = "json")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    Classic,
    Grail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Text,
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    let tenant = match arguments.tenant.open() {
        Ok((tenant, _)) => configured(tenant, &arguments),
        Err(code) => return code,
    };
    let asked = ask(&arguments, SystemClock.now());
    let ((ask, bounds), tenant) = match (asked, tenant) {
        (Ok(asked), Ok(tenant)) => (asked, tenant),
        (asked, tenant) => {
            asked.err().into_iter().chain(tenant.err()).for_each(|message| output::error(&message));
            return exit::USAGE;
        }
    };
    let source = Dynatrace::new(&tenant, Arc::new(SystemClock), Health::default(), Metrics::default());
    let source = match source {
        Ok(source) => source,
        Err(e) => {
            output::error(&format!("{e:#}"));
            return exit::ERROR;
        }
    };
    let mut printer = Printer { form: arguments.output, bounds, lines: 0 };
    let meter = Counter { scan_limit_gb: arguments.scan_limit, scanned: AtomicU64::new(0) };
    let heard = tokio::select! {
        heard = read(&source, &arguments, &ask, (&mut printer, &meter)) => heard,
        () = interrupted() => return exit::INTERRUPTED,
    };
    let scanned = meter.scanned.load(Ordering::Relaxed);
    if scanned > 0 {
        output::progress(&format!("{scanned} bytes were scanned, which are billed"));
    }
    match heard {
        Ok(Ok(None)) => exit::OK,
        Ok(Ok(Some(gap))) => {
            let refused = json!({"lines": printer.lines, "refused": gap.name, "message": gap.message});
            output::progress(&refused.to_string());
            exit::REFUSED
        }
        Ok(Err(failure)) => {
            say(&failure);
            exit::ERROR
        }
        Err(e) => {
            output::error(&format!("{e:#}"));
            exit::ERROR
        }
    }
}

/// The tenant with the source that is meant.
fn configured(mut tenant: TenantSettings, arguments: &Arguments) -> Result<TenantSettings, String> {
    let by_token = || match tenant.scheme() {
        Scheme::ApiToken => LogSourceKind::Classic,
        Scheme::Bearer => LogSourceKind::Grail,
    };
    let source = match (arguments.source, tenant.logs.source) {
        (Some(Source::Classic), _) => LogSourceKind::Classic,
        (Some(Source::Grail), _) => LogSourceKind::Grail,
        (None, LogSourceKind::Off) => by_token(),
        (None, known @ (LogSourceKind::Classic | LogSourceKind::Grail)) => known,
    };
    if source == LogSourceKind::Grail && !arguments.billed {
        return Err("--billed is missing: logs are read from Grail, which bills what it scans; say it, or read Logs v2 with --source classic".into());
    }
    tenant.logs.source = source;
    if !arguments.buckets.is_empty() {
        tenant.logs.buckets.clone_from(&arguments.buckets);
    }
    Ok(tenant)
}

/// What is asked for in whole minutes, and the instants within which lines are shown.
fn ask(arguments: &Arguments, now: Timestamp) -> Result<(LogAsk, (Timestamp, Timestamp)), String> {
    let from = When::parse(&arguments.from, now).map_err(|e| format!("--from {e}"))?.at;
    let to = When::parse(&arguments.to, now).map_err(|e| format!("--to {e}"))?.at;
    let window = Window::new(from.floor_minute(), to.ceil_minute());
    let window = window.ok().filter(|_| from < to);
    let window =
        window.ok_or_else(|| format!("--from {} is not before --to {}", arguments.from, arguments.to))?;
    let name = |option: &str, text: &str| Name::new(text.to_owned()).map_err(|e| format!("--{option} {e}"));
    let environment = name("environment", &arguments.environment)?;
    // A condition is of no service; the reader wants a name for what it finds.
    let service = name("service", arguments.service.as_deref().unwrap_or("all"))?;
    let services = vec![LoggedService { environment, service }];
    Ok((LogAsk { services, window, purpose: Purpose::Verification }, (from, to)))
}

async fn read(
    source: &Dynatrace,
    arguments: &Arguments,
    ask: &LogAsk,
    (printer, meter): (&mut Printer, &Counter),
) -> anyhow::Result<Heard> {
    match &arguments.filter {
        Some(condition) => source.lines_that_fit(condition, ask, (printer, meter)).await,
        None => {
            let heard = source.lines(ask, printer, meter).await?;
            Ok(heard.into_iter().next().unwrap_or(Ok(None)))
        }
    }
}

/// A failure of the source, for a script.
fn say(failure: &Failure) {
    let error = json!({"error": {"name": failure.kind.as_str(), "message": failure.message}});
    output::progress(&error.to_string());
}

/// Writes lines as they come.
#[derive(Debug)]
struct Printer {
    form: Output,
    bounds: (Timestamp, Timestamp),
    lines: u64,
}

#[async_trait]
impl LineSink for Printer {
    async fn take(&mut self, _service: usize, lines: Vec<SourceLine>) -> anyhow::Result<bool> {
        let (from, to) = self.bounds;
        for one in lines.into_iter().filter(|one| one.line.at >= from && one.line.at < to) {
            self.lines += 1;
            output::line(&match self.form {
                Output::Json => as_json(&one),
                Output::Text => {
                    let host = one.origin.host.as_deref().unwrap_or("-");
                    let level = format!("{:?}", one.line.level).to_uppercase();
                    format!("{} {level:<5} {host} {}", one.line.at, one.line.content)
                }
            });
        }
        Ok(true)
    }
}

fn as_json(one: &SourceLine) -> String {
    let SourceLine { line, origin } = one;
    json!({
        "at": line.at.as_millis(),
        "level": format!("{:?}", line.level).to_uppercase(),
        "content": line.content,
        "truncated": line.truncated,
        "host": origin.host,
        "process": origin.process,
        "pod": origin.pod,
        "machine": origin.machine,
        "entity": origin.entity,
        "stream": origin.stream,
    })
    .to_string()
}

/// Lets a person do what was asked for, and counts.
#[derive(Debug)]
struct Counter {
    scan_limit_gb: u32,
    scanned: AtomicU64,
}

#[async_trait]
impl Meter for Counter {
    async fn allow(&self, _: &LogAsk, _: &[usize]) -> Result<Allowance, Failure> {
        Ok(Allowance { scan_limit_gb: self.scan_limit_gb, refused: Vec::new() })
    }

    async fn charge(&self, _: &LogAsk, shares: &[(usize, u64)]) {
        let bytes = shares.iter().map(|(_, bytes)| bytes).sum();
        self.scanned.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(more: &[&str]) -> Result<Arguments, String> {
        let all =
            ["logs", "--url", "http://127.0.0.1:1", "--token-file", "t", "--from", "now-5m", "--to", "now"];
        let parsed = Alone::try_parse_from(all.iter().chain(more));
        parsed.map(|alone| alone.arguments).map_err(|e| e.to_string())
    }

    #[test]
    fn a_service_or_a_condition_is_named() {
        assert!(parse(&["--service", "cart"]).is_ok() && parse(&["--filter", "status=\"ERROR\""]).is_ok());
        assert!(parse(&[]).unwrap_err().contains("--service"));
        assert!(parse(&["--service", "a", "--filter", "b"]).unwrap_err().contains("cannot be used with"));
    }

    #[test]
    fn wrong_times_and_names_are_said() {
        let now: Timestamp = "2026-11-18T12:00:30Z".parse().unwrap();
        let (asked, bounds) = ask(&parse(&["--service", "cart"]).unwrap(), now).unwrap();
        assert_eq!((asked.window.minutes(), bounds.1), (6, now), "whole minutes are asked for");
        let said = |more: &[&str], change: fn(&mut Arguments)| {
            let mut arguments = parse(more).unwrap();
            change(&mut arguments);
            ask(&arguments, now).unwrap_err()
        };
        assert!(
            said(&["--service", "a"], |a| a.from = "soon".into()).contains("--from `soon` is no instant")
        );
        assert!(said(&["--service", "a"], |a| a.to = "now-1h".into()).contains("is not before --to"));
        assert!(said(&["--service", ""], |_| {}).contains("--service"));
    }
}
