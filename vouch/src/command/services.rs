//! `vouch services`: which services of the tenant have a name, which share one, and which have none, and why.

use super::tenant::Choice;
use crate::exit::{self, Code};
use crate::output;
use clap::{Args, ValueEnum};
use serde_json::json;
use vouch_collector::rules::{Matching, Named};
use vouch_collector::source::dynatrace::{Dynatrace, MetricSplit, Splits};
use vouch_proto::{HostGroup, Name, Templates};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    tenant: Choice,
    /// Say for one service where data of each host, pod or version comes from, and where there is none.
    #[arg(long, value_name = "SERVICE")]
    explain: Option<String>,
    /// The environment of the service to explain.
    #[arg(long, value_name = "ENVIRONMENT", default_value = "prod")]
    environment: String,
    /// The template whose metrics are explained; its default.
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
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
    let (tenant, source, templates) = match arguments.tenant.open_with_templates() {
        Ok(opened) => opened,
        Err(code) => return code,
    };
    if let Some(service) = &arguments.explain {
        return explain(&arguments, &source, (service, &templates)).await;
    }
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

/// Explains one service.
async fn explain(
    arguments: &Arguments,
    source: &Dynatrace,
    (service, templates): (&str, &Templates),
) -> Code {
    let names =
        Name::new(arguments.environment.clone()).and_then(|e| Ok((e, Name::new(service.to_owned())?)));
    let asked = names.and_then(|names| Ok((names, templates.get(arguments.template.as_deref())?)));
    let ((environment, name), template) = match asked {
        Ok(asked) => asked,
        Err(invalid) => {
            output::error(&invalid.to_string());
            return exit::USAGE;
        }
    };
    match source.splits(&environment, &name, template).await {
        Ok(splits) => {
            match arguments.output {
                Output::Table => output::line(&explained(&splits)),
                Output::Json => output::line(&explained_json(&splits).to_string()),
            }
            exit::OK
        }
        Err(failure) => {
            output::error(&failure.to_string());
            exit::ERROR
        }
    }
}

fn explained_json(splits: &Splits) -> serde_json::Value {
    let processes = splits
        .processes
        .iter()
        .map(|p| json!({"entityId": p.entity_id, "name": p.name, "version": p.version}));
    let metrics = splits.metrics.iter().map(|metric| {
        json!({
            "name": metric.name,
            "key": metric.key,
            "dimensions": metric.dimensions.as_ref().ok(),
            "why": metric.dimensions.as_ref().err(),
            "tellsApart": metric.tells_apart,
        })
    });
    json!({
        "entityId": splits.entity_id,
        "instances": splits.instances.as_ref().map(|all| all.iter().map(instance_json).collect::<Vec<_>>()),
        "processes": processes.collect::<Vec<_>>(),
        "metrics": metrics.collect::<Vec<_>>(),
        "calculated": splits.calculated.iter().map(|(key, dimensions)| json!({"key": key, "dimensions": dimensions})).collect::<Vec<_>>(),
    })
}

/// For a person: each signal, what it can be split by, and what to do where it cannot.
fn explained(splits: &Splits) -> String {
    let mut text = match &splits.instances {
        None => format!("{}, run by {} processes", splits.entity_id, splits.processes.len()),
        Some(all) => format!("{} entities, run by {} processes", all.len(), splits.processes.len()),
    };
    text.push_str(&sides(splits));
    for process in &splits.processes {
        let version = process.version.as_ref().map(|v| format!(", version {v}")).unwrap_or_default();
        text.push_str(&format!("\n  {} ({}{version})", process.name, process.entity_id));
    }
    for metric in &splits.metrics {
        let says = match (&metric.dimensions, metric.tells_apart.is_empty()) {
            (Err(why), _) => why.clone(),
            (Ok(_), false) => format!("for each {}", metric.tells_apart.join(", ")),
            (Ok(dimensions), true) => {
                format!("for the service as a whole only: it has {}", dimensions.join(", "))
            }
        };
        text.push_str(&format!("\n{:<26} {}\n  {says}", metric.name, metric.key));
    }
    let is_whole = |metric: &MetricSplit| metric.dimensions.is_ok() && metric.tells_apart.is_empty();
    if splits.metrics.iter().any(is_whole) {
        text.push_str("\nFor response times, errors and requests of each process a calculated service metric is needed:");
        if splits.calculated.is_empty() {
            text.push_str(
                "\n  there is none. Settings > Server-side service monitoring > Calculated service metrics: split by process group instance",
            );
        }
    }
    for (key, dimensions) in &splits.calculated {
        text.push_str(&format!("\n  {key}  by {}", dimensions.join(", ")));
    }
    text
}

/// How control and test are told apart, and where they are not.
fn sides(splits: &Splits) -> String {
    let Some(all) = &splits.instances else {
        return "\n  one entity: no rule allows for several (`instances`), so control and test hosts are those that a deployment names"
            .to_owned();
    };
    let mut text = String::new();
    for one in all {
        let name = one.instance.as_ref().map_or("", |instance| instance.name.as_str());
        text.push_str(&format!("\n  {name} ({}): {}", one.entity_id, side(one)));
    }
    text
}

/// The side of an instance, for a person.
fn side(one: &Named) -> String {
    let group = one.instance.as_ref().and_then(|instance| instance.group);
    let version = one.version.as_ref().map(|version| format!("version {version}"));
    match (group, version) {
        (Some(group), version) => {
            let version = version.map(|version| format!(", {version}")).unwrap_or_default();
            format!("{} by its rule{version}", group_word(group))
        }
        (None, Some(version)) => format!("{version}; test where that is deployed, else control"),
        (None, None) => format!(
            "on no side: services[{}] finds no version and no side of it, so it is compared with its own past",
            one.rule
        ),
    }
}

const fn group_word(group: HostGroup) -> &'static str {
    match group {
        HostGroup::Test => "test",
        HostGroup::Control => "control",
        HostGroup::Service => "not told apart",
    }
}

fn instance_json(one: &Named) -> serde_json::Value {
    let instance = one.instance.as_ref();
    json!({
        "entityId": one.entity_id,
        "name": instance.map(|instance| instance.name.as_str()),
        "version": one.version,
        "group": instance.and_then(|instance| instance.group).map(group_word),
    })
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
    let several = matching.instances.iter().filter_map(|same| {
        let first = same.first()?;
        Some(json!({
            "service": first.service.as_str(),
            "environment": first.environment.as_ref().map(|e| e.as_str()),
            "rule": format!("services[{}]", first.rule),
            "entities": same.iter().map(instance_json).collect::<Vec<_>>(),
        }))
    });
    let unmatched =
        matching.unmatched.iter().map(|(name, id, why)| json!({"name": name, "entityId": id, "why": why}));
    json!({
        "named": matching.named.iter().map(named).collect::<Vec<_>>(),
        "instances": several.collect::<Vec<_>>(),
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
    for same in &matching.instances {
        let Some(one) = same.first() else { continue };
        let named = |one: &Named| {
            let name = one.instance.as_ref().map_or("", |instance| instance.name.as_str());
            format!("\n  {name} ({}): {}", one.entity_id, side(one))
        };
        let entities: String = same.iter().map(named).collect();
        text.push_str(&format!("\nINSTANCES  `{}` is {} entities:{entities}", one.service, same.len()));
    }
    for same in &matching.ambiguous {
        let Some(one) = same.first() else { continue };
        let ids: Vec<&str> = same.iter().map(|one| one.entity_id.as_str()).collect();
        let count = ids.len();
        text.push_str(&format!(
            "\nAMBIGUOUS  {count} services are named `{}`: {}; where they are one service in several versions or pods, give services[{}] `instances: version`",
            one.service,
            ids.join(", "),
            one.rule
        ));
    }
    for (name, id, why) in &matching.unmatched {
        text.push_str(&format!("\nUNMATCHED  {name} ({id}): {why}"));
    }
    let count = |n: usize, what: &str| format!("{n} {what}");
    let several = matching.instances.len();
    let mut summary = vec![count(matching.named.len(), "named")];
    summary.extend((several > 0).then(|| count(several, "with instances")));
    summary.extend([
        count(matching.ambiguous.iter().map(Vec::len).sum(), "ambiguous"),
        count(matching.unmatched.len(), "unmatched"),
    ]);
    text.push_str(&format!("\n{}", summary.join(", ")));
    text
}
