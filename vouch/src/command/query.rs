//! `vouch query`: one query through the client that the collector uses, its series as JSON Lines or as a table.

use super::interrupted;
use super::tenant::Choice;
use crate::exit::{self, Code};
use crate::output;
use clap::{ArgGroup, Args, ValueEnum};
use std::time::Duration;
use vouch_collector::source::Failure;
use vouch_collector::source::dynatrace::{Query, QueryAsk, QuerySeries, When, billed};
use vouch_proto::Timestamp;
use vouch_service::clock::{Clock as _, SystemClock};
use vouch_service::settings::parse_duration;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["metric", "dql"]))]
pub(crate) struct Arguments {
    #[command(flatten)]
    tenant: Choice,
    /// A metric selector, with its transformations.
    #[arg(long, value_name = "SELECTOR")]
    metric: Option<String>,
    /// A query in the Dynatrace Query Language.
    #[arg(long, value_name = "QUERY", conflicts_with_all = ["entities", "management_zones"])]
    dql: Option<String>,
    /// An entity selector.
    #[arg(long, value_name = "SELECTOR")]
    entities: Option<String>,
    /// A selector of management zones.
    #[arg(long, value_name = "SELECTOR")]
    management_zones: Option<String>,
    /// Epoch milliseconds, 2026-01-25T05:57:01Z, or now-2h.
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    from: String,
    /// The same; the end.
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    to: String,
    /// Coarsest slots that are wanted, e.g. 1m; without it what the source answers is taken.
    #[arg(long, value_name = "SPAN")]
    resolution: Option<String>,
    /// Most gigabytes that a DQL query may read; what it reads is billed, except for metrics.
    #[arg(long, value_name = "GB", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    scan_limit: u32,
    /// Send a DQL query that reads what Dynatrace bills by what it scans: logs, spans, events (`fetch`).
    #[arg(long, requires = "dql")]
    billed: bool,
    /// How long the result of a DQL query is waited for.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    wait: Duration,
    /// One JSON object a line for each series, or a table.
    #[arg(long, value_enum, default_value = "json")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Table,
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    let source = match arguments.tenant.open() {
        Ok((_, source)) => source,
        Err(code) => return code,
    };
    let ask = match ask(&arguments, SystemClock.now()) {
        Ok(ask) => ask,
        Err(message) => {
            output::error(&message);
            return exit::USAGE;
        }
    };
    let sources = arguments.dql.as_deref().map(billed).unwrap_or_default();
    if !arguments.billed && !sources.is_empty() {
        return show(&[QuerySeries::billed(&sources)], arguments.output);
    }
    let answer = tokio::select! {
        answer = source.query_series(&ask) => answer,
        () = interrupted() => return exit::INTERRUPTED,
    };
    match answer {
        Ok(series) => show(&series, arguments.output),
        Err(failure) => {
            say(&failure);
            exit::ERROR
        }
    }
}

fn ask(arguments: &Arguments, now: Timestamp) -> Result<QueryAsk, String> {
    let query = match (&arguments.metric, &arguments.dql) {
        (Some(selector), _) => Query::Metrics {
            selector: selector.clone(),
            entities: arguments.entities.clone(),
            management_zones: arguments.management_zones.clone(),
        },
        (None, dql) => Query::Dql {
            query: dql.clone().unwrap_or_default(),
            scan_limit_gb: arguments.scan_limit,
            patience: arguments.wait,
        },
    };
    let ask = QueryAsk {
        query,
        from: When::parse(&arguments.from, now).map_err(|e| format!("--from {e}"))?,
        to: When::parse(&arguments.to, now).map_err(|e| format!("--to {e}"))?,
        resolution: arguments.resolution.clone(),
    };
    ask.check()?;
    Ok(ask)
}

fn show(series: &[QuerySeries], form: Output) -> Code {
    for one in series {
        match form {
            Output::Table => output::line(&table(one)),
            Output::Json => match serde_json::to_string(one) {
                Ok(text) => output::line(&text),
                Err(e) => {
                    output::error(&format!("a series cannot be written as JSON: {e}"));
                    return exit::ERROR;
                }
            },
        }
    }
    if series.iter().any(|one| one.refused.is_some()) { exit::REFUSED } else { exit::OK }
}

/// A failure of the source, for a script.
fn say(failure: &Failure) {
    let error = serde_json::json!({"error": {"name": failure.kind.as_str(), "message": failure.message}});
    output::progress(&error.to_string());
}

/// A series for a person.
fn table(series: &QuerySeries) -> String {
    let dimensions: Vec<String> = series
        .dimensions
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_deref().unwrap_or("(all others)")))
        .collect();
    let mut text = format!(
        "{}  {}  {} a slot  [{}]",
        series.metric,
        dimensions.join(" "),
        series.resolution,
        if series.unit.is_empty() { "no unit" } else { &series.unit }
    );
    for warning in &series.warnings {
        text.push_str(&format!("\n  ! {warning}"));
    }
    for (start, value) in &series.samples {
        let value = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        text.push_str(&format!("\n  {}  {value}", Timestamp::from_millis(*start)));
    }
    text
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
            ["query", "--url", "http://127.0.0.1:1", "--token-file", "t", "--from", "-2h", "--to", "now"];
        let parsed = Alone::try_parse_from(all.iter().chain(more));
        parsed.map(|alone| alone.arguments).map_err(|e| e.to_string())
    }

    #[test]
    fn a_query_is_of_metrics_or_of_dql() {
        assert!(parse(&["--metric", "a", "--entities", "type(SERVICE)"]).is_ok());
        assert!(parse(&["--dql", "timeseries avg(x)"]).is_ok());
        assert!(parse(&["--metric", "a", "--dql", "b"]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&["--dql", "b", "--entities", "c"]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&[]).unwrap_err().contains("--metric"));
    }

    #[test]
    fn wrong_times_and_resolutions_are_named() {
        let now: Timestamp = "2026-11-18T12:00:00Z".parse().unwrap();
        let said = |change: fn(&mut Arguments)| {
            let mut arguments = parse(&["--metric", "a"]).unwrap();
            change(&mut arguments);
            ask(&arguments, now).unwrap_err()
        };
        assert!(said(|a| a.from = "soon".into()).contains("--from `soon` is no instant"));
        assert!(said(|a| a.to = "-3h".into()).contains("is not before --to"));
        assert!(said(|a| a.resolution = Some("120".into())).contains("--resolution 120: write a number"));
    }
}
