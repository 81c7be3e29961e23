//! `vouch budget`: what the tenant's budget allows, what is expected of it, and what was spent.

use crate::client::{ServerArguments, explain};
use crate::command::watch::Format;
use crate::exit::{self, Code};
use crate::output;
use clap::Args;
use vouch_proto::{Timestamp, v1};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: ServerArguments,
    /// How to print it: text for a person, json as it is answered.
    #[arg(long, default_value = "text")]
    output: Format,
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    let mut client = match arguments.server.budgets() {
        Ok(client) => client,
        Err(e) => {
            output::error(&format!("{e:#}"));
            return exit::USAGE;
        }
    };
    let answer = match client.get_budget(v1::GetBudgetRequest {}).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            output::error(&explain(&arguments.server.server, &status));
            return exit::ERROR;
        }
    };
    match arguments.output {
        Format::Text => output::line(&text(&answer)),
        Format::Json => match serde_json::to_string(&answer) {
            Ok(json) => output::line(&json),
            Err(e) => {
                output::error(&format!("the budget cannot be written as JSON: {e}"));
                return exit::ERROR;
            }
        },
    }
    exit::OK
}

/// The answer, for a person.
fn text(answer: &v1::GetBudgetResponse) -> String {
    let mut lines = Vec::new();
    for (what, standing) in [("rollbacks", &answer.rollbacks), ("pages", &answer.pages)] {
        lines.extend(standing.iter().flat_map(|standing| account(what, standing)));
    }
    lines.extend(answer.levels.iter().flat_map(levels));
    for e in &answer.environments {
        lines.push(format!(
            "  {:<16} {} deployments of {} services; expected {:.2} rollbacks, {:.2} pages; spent {}, {}",
            e.environment,
            e.deployments,
            e.services,
            e.expected_rollbacks,
            e.expected_pages,
            e.rollbacks,
            e.pages
        ));
    }
    lines.join("\n")
}

fn account(what: &str, standing: &v1::BudgetStanding) -> Vec<String> {
    let days = standing.period.map_or(0.0, |period| period.seconds as f64 / 86_400.0);
    let expected = format!("at most {:.2} false ones expected in {days} days", standing.expected);
    if standing.allowed.is_empty() {
        return vec![format!("{what:<10} no budget; {expected}")];
    }
    let left = match (&standing.free_at, what) {
        (None, _) => format!("{} left", standing.left),
        (Some(at), "rollbacks") => format!("SPENT, alert only until {}", instant(at)),
        (Some(at), _) => format!("SPENT, notices instead of pages until {}", instant(at)),
    };
    let mut lines = vec![format!("{what:<10} {}; {left}; {expected}", standing.allowed)];
    for spent in &standing.spent {
        let at = spent.at.as_ref().map_or_else(String::new, instant);
        let under_way = if spent.done { "" } else { " (under way)" };
        lines.push(format!(
            "  {at}  {} {} in {}  {}{under_way}",
            spent.service, spent.version, spent.environment, spent.id
        ));
    }
    lines
}

fn levels(levels: &v1::Levels) -> Vec<String> {
    let nominal = |nominal: bool| if nominal { ", nominal" } else { "" };
    let mut lines = vec![format!(
        "thresholds fail {:.2} nats (rate {:.2e}{}), rollback {:.2} nats (rate {:.2e}{})",
        levels.fail,
        levels.fail_rate,
        nominal(levels.fail_nominal),
        levels.rollback,
        levels.rollback_rate,
        nominal(levels.rollback_nominal),
    )];
    if let Some(counted) = &levels.counted {
        let days = counted.over.map_or(0.0, |over| over.seconds as f64 / 86_400.0);
        lines.push(format!(
            "based on   {} deployments of {} services in {days:.1} days, at least 1 a day",
            counted.deployments, counted.services
        ));
    }
    lines
}

fn instant(at: &vouch_proto::WireTimestamp) -> String {
    Timestamp::try_from(*at).map_or_else(|_| "an unknown instant".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released() -> v1::GetBudgetResponse {
        serde_json::from_slice(include_bytes!("../../../proto/golden/budget.json")).unwrap()
    }

    #[test]
    fn a_spent_budget_says_until_when_and_on_what() {
        let said = text(&released());
        for part in [
            "rollbacks  1/90d; SPENT, alert only until 2027-02-22T10:10:00Z",
            "2026-11-24T10:10:00Z  checkout 2.1 in prod  01KBHV0000ABCDEFGHJKMNPQRS/rollback",
            "pages      1/7d; 1 left; at most 0.50 false ones expected in 7 days",
            "rollback 6.80 nats (rate 7.40e-4, nominal)",
            "based on   280 deployments of 12 services in 28.0 days",
            "prod             280 deployments",
        ] {
            assert!(said.contains(part), "{part} in:\n{said}");
        }
    }

    #[test]
    fn no_budget_is_said_and_is_no_zero() {
        let none = v1::BudgetStanding { expected: 3.0, ..Default::default() };
        assert!(account("rollbacks", &none)[0].starts_with("rollbacks  no budget; at most 3.00"));
    }
}
