//! `vouch plan`: the calls that collecting will make, without making one.

use crate::exit::{self, Code};
use crate::output;
use crate::settings::Settings;
use clap::Args;
use std::path::PathBuf;
use vouch_collector::config::{LogSourceKind, TenantSettings};
use vouch_collector::source::dynatrace::{Load, LogLoad, PlannedCalls, plan, plan_logs, plan_scan};
use vouch_service::run::report_invalid;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Settings file (YAML); variables VOUCH__SECTION__FIELD overlay it.
    #[arg(long, env = "VOUCH_SETTINGS", value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Verifications that run at the same time.
    #[arg(long, value_name = "N", default_value_t = 10)]
    verifications: usize,
    /// Services of the tenant.
    #[arg(long, value_name = "N", default_value_t = 400)]
    services: usize,
    /// Deployments of a day, for what reading logs scans.
    #[arg(long, value_name = "N", default_value_t = 50.0, value_parser = not_negative)]
    deployments_a_day: f64,
    /// What the buckets of logs that are read take in on a day, in GiB.
    #[arg(long, value_name = "GIB", value_parser = not_negative)]
    log_gib_a_day: Option<f64>,
    /// Lines of logs that a service writes a minute.
    #[arg(long, value_name = "N", default_value_t = 1000.0, value_parser = not_negative)]
    log_lines_a_minute: f64,
    /// The template of the verifications; the default one.
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Code {
    let settings = match Settings::load(arguments.settings.as_deref()) {
        Ok(settings) => settings,
        Err(invalid) => {
            report_invalid(&invalid);
            return exit::USAGE;
        }
    };
    let template = match settings.collector.templates.get(arguments.template.as_deref()) {
        Ok(template) => template,
        Err(invalid) => {
            output::error(&invalid.to_string());
            return exit::USAGE;
        }
    };
    let load = Load {
        verifications: arguments.verifications,
        services: arguments.services,
        neighbours: settings.collector.neighbours,
    };
    output::line(&format!(
        "template {}, {} verifications at the same time, {} services",
        template.name, load.verifications, load.services
    ));
    let logs = LogLoad {
        verifications: arguments.verifications,
        deployments_a_day: arguments.deployments_a_day,
        minutes: template.duration.as_secs_f64() / 60.0,
        gib_a_day: arguments.log_gib_a_day,
        lines_a_minute: arguments.log_lines_a_minute,
    };
    let mut planned = plan(template, load);
    let tenants = &settings.collector.tenants;
    planned.extend(tenants.iter().flat_map(|tenant| plan_logs(&tenant.logs, &logs)));
    output::line(&table(&planned));
    tenants.iter().for_each(|tenant| output::line(&scanned(tenant, &logs)));
    exit::OK
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("must be a number from 0 on".into()),
    }
}

/// What is scanned of a tenant on a day, and what that costs.
fn scanned(tenant: &TenantSettings, load: &LogLoad) -> String {
    let name = &tenant.name;
    if tenant.logs.source != LogSourceKind::Grail {
        return format!("{name}: what is billed (logs of Grail, spans, events) is not read: 0 GiB a day");
    }
    let price = |gib: f64| {
        let cost = tenant.billed.price_per_gib.map(|price| gib * price);
        cost.map(|cost| format!(", {cost:.2} at the price of billed.price_per_gib")).unwrap_or_default()
    };
    #[allow(clippy::cast_precision_loss, reason = "shown to two digits")]
    let budget = tenant.billed.bytes_per_day.unwrap_or(0) as f64 / (1_u64 << 30) as f64;
    let most = format!("at most {budget:.2} GiB a day (billed.scan_budget_gib_per_day){}", price(budget));
    let Some(scan) = plan_scan(&tenant.logs, load) else {
        return format!(
            "{name}: logs of Grail are read, {most}; say --log-gib-a-day to count what is expected"
        );
    };
    let total = scan.total();
    let share = if budget > 0.0 { 100.0 * total / budget } else { 0.0 };
    let more = if total > budget { "; logs are not analysed any more once it is used up" } else { "" };
    format!(
        "{name}: {total:.2} GiB of logs are scanned a day{}: {:.2} for verifications, {:.2} for what was before; {share:.0} % of the budget, {most}{more}",
        price(total),
        scan.verification,
        scan.history
    )
}

fn table(planned: &[PlannedCalls]) -> String {
    let mut lines = vec!["calls a minute".to_owned()];
    for one in planned {
        let shared = if one.is_shared { "shared " } else { "for each" };
        lines.push(format!("{:>8.1}  {shared:<8}  {:<14} {}", one.a_minute, one.endpoint, one.about));
    }
    let total: f64 = planned.iter().map(|one| one.a_minute).sum();
    lines.push(format!("{total:>8.1}  in all"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_ends_with_its_sum() {
        let one = |a_minute, is_shared| PlannedCalls {
            endpoint: "problems",
            about: "x".into(),
            a_minute,
            is_shared,
        };
        let text = table(&[one(1.5, true), one(2.0, false)]);
        assert!(text.lines().last().unwrap().trim().starts_with("3.5  in all"), "{text}");
        assert!(text.contains("for each"), "{text}");
    }
}
