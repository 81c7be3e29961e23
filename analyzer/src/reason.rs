//! Sentences for a release manager.

use crate::detector::{ALL_HOSTS, Change, Finding};
use crate::judge::UnitResult;
use vouch_proto::{Direction, Outcome};

/// One sentence about a metric on a host: which way, how much, since when, how sure, against what.
#[must_use]
pub fn of_unit(metric: &str, finding: &Finding, risk: f64, since_minute: Option<i64>) -> String {
    let host = if finding.host == ALL_HOSTS { "all new hosts" } else { &finding.host };
    if finding.usable == 0 {
        return format!("{metric} on {host} has no usable sample in the verification window");
    }
    let size = match finding.effect {
        Change::LnRatio(size) if size.is_nan() => "not measurable".to_owned(),
        Change::LnRatio(size) => {
            let sign = if finding.direction == Direction::Decrease { -1.0 } else { 1.0 };
            format!("{:+.0} %", 100.0 * libm::expm1(sign * size))
        }
        Change::Share { observed, expected } => {
            format!("{:.2} % of the requests instead of {:.2} %", 100.0 * observed, 100.0 * expected)
        }
    };
    let against = finding.against;
    if risk < 1.0 {
        return format!("{metric} on {host} is {size} against {against}: no lasting degradation shown");
    }
    let since = since_minute.map_or(String::new(), |minute| format!(" since minute {minute}"));
    format!(
        "{metric} on {host} is {size} against {against}{since} (evidence {:.1} nats, placebo {:.1})",
        finding.ln_evidence, finding.placebo
    )
}

/// One sentence about a case that passed before the end of its window.
#[must_use]
pub fn of_early_pass(worst: Option<&UnitResult>, usable_minutes: i64) -> String {
    let worst_says = worst.map_or("nothing was judged", |unit| unit.reason.as_str());
    format!(
        "Nothing got worse in {usable_minutes} usable minutes, and a lasting change of a size that matters is ruled out \
         for every metric; closest: {worst_says}"
    )
}

/// One sentence about the whole case.
#[must_use]
pub fn of_case(
    outcome: Option<Outcome>,
    cause: Option<String>,
    worst: Option<&UnitResult>,
    usable_minutes: i64,
) -> String {
    let worst_says = worst.map_or("nothing was judged", |unit| unit.reason.as_str());
    match outcome {
        Some(Outcome::Fail) => worst_says.to_owned(),
        Some(Outcome::Pass) => {
            format!("Nothing got worse in {usable_minutes} usable minutes; closest: {worst_says}")
        }
        Some(Outcome::Inconclusive | Outcome::Error) => {
            format!("Cannot tell: {}", cause.unwrap_or_else(|| worst_says.to_owned()))
        }
        None => format!("Undecided after {usable_minutes} usable minutes; closest: {worst_says}"),
    }
}
