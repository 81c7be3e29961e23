//! `vouch services`: which services of the tenant have a name, which share one, and which have none, and why.

use super::tenant::Choice;
use crate::exit::{self, Code};
use crate::output;
use clap::{Args, ValueEnum};
use serde_json::json;
use vouch_collector::rules::{Matching, Named};
use vouch_collector::source::dynatrace::Dynatrace;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    tenant: Choice,
    /// A table, or one JSON object.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    let (tenant, source) = match arguments.tenant.open() {
        Ok(opened) => opened,
        Err(code) => return code,
    };
    let matching = match read(&source, &tenant.rules).await {
        Ok(matching) => matching,
        Err(failure) => {
            output::error(&failure.to_string());
            return exit::ERROR;
        }
    };
    match arguments.output {
        Output::Table => output::line(&table(&matching)),
        Output::Json => output::line(&as_json(&matching).to_string()),
    }
    exit::OK
}

/// What the rules make of the tenant's services; without rules their display names stand.
async fn read(
    source: &Dynatrace,
    rules: &[vouch_collector::rules::Rule],
) -> Result<Matching, vouch_collector::source::Failure> {
    let services = source.described_services().await?;
    let by_name = [vouch_collector::rules::Rule::by_display_name()];
    Ok(Matching::of(if rules.is_empty() { &by_name } else { rules }, &services))
}

fn as_json(matching: &Matching) -> serde_json::Value {
    let named = |one: &Named| {
        json!({
            "service": one.service.as_str(),
            "environment": one.environment.as_ref().map(|e| e.as_str()),
            "entityId": one.entity_id,
            "version": one.version,
            "owner": one.owner,
            "cluster": one.cluster,
            "workload": one.workload,
            "rule": format!("services[{}]", one.rule),
        })
    };
    let groups = matching.ambiguous.iter().map(|same| same.iter().map(named).collect::<Vec<_>>());
    let unmatched =
        matching.unmatched.iter().map(|(name, id, why)| json!({"name": name, "entityId": id, "why": why}));
    json!({
        "named": matching.named.iter().map(named).collect::<Vec<_>>(),
        "ambiguous": groups.collect::<Vec<_>>(),
        "unmatched": unmatched.collect::<Vec<_>>(),
    })
}

/// For a person: the named in columns, then what needs a look.
pub(super) fn table(matching: &Matching) -> String {
    let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![
        ["SERVICE", "ENVIRONMENT", "VERSION", "OWNER", "CLUSTER", "WORKLOAD", "ENTITY"].map(String::from),
    ];
    rows.extend(matching.named.iter().map(|one| {
        [
            one.service.to_string(),
            one.environment.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string),
            cell(&one.version),
            cell(&one.owner),
            cell(&one.cluster),
            cell(&one.workload),
            one.entity_id.clone(),
        ]
    }));
    let widths: Vec<usize> = (0..7)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text = rows.iter().map(line).collect::<Vec<_>>().join("\n");
    for same in &matching.ambiguous {
        let Some(one) = same.first() else { continue };
        let ids: Vec<&str> = same.iter().map(|one| one.entity_id.as_str()).collect();
        let count = ids.len();
        text.push_str(&format!(
            "\nAMBIGUOUS  {count} services are named `{}`: {}",
            one.service,
            ids.join(", ")
        ));
    }
    for (name, id, why) in &matching.unmatched {
        text.push_str(&format!("\nUNMATCHED  {name} ({id}): {why}"));
    }
    let count = |n: usize, what: &str| format!("{n} {what}");
    let summary = [
        count(matching.named.len(), "named"),
        count(matching.ambiguous.iter().map(Vec::len).sum(), "ambiguous"),
        count(matching.unmatched.len(), "unmatched"),
    ];
    text.push_str(&format!("\n{}", summary.join(", ")));
    text
}
