//! `vouch plan`: the calls that collecting will make, without making one.

use crate::exit::{self, Code};
use crate::output;
use crate::settings::Settings;
use clap::Args;
use std::path::PathBuf;
use vouch_collector::source::dynatrace::{Load, PlannedCalls, plan};
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
    output::line(&table(&plan(template, load)));
    exit::OK
}

fn table(planned: &[PlannedCalls]) -> String {
    let mut lines = vec!["calls a minute".to_owned()];
    for one in planned {
        let shared = if one.is_shared { "shared " } else { "for each" };
        lines.push(format!("{:>8.1}  {shared:<8}  {:<14} {}", one.a_minute, one.endpoint, one.about));
    }
    let total: f64 = planned.iter().map(|one| one.a_minute).sum();
    lines
        .push(format!("{total:>8.1}  in all; what is billed (logs, spans, events) is not read: 0 GiB a day"));
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
