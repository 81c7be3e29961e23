//! The rows of a judgement: what each metric showed on each host, for machines and for a person.

use crate::case::Case;
use crate::detector::{Change, Finding, Level};
use crate::judge::UnitResult;
use crate::panel::reported_metrics;
use crate::reason;
use std::collections::BTreeSet;
use vouch_proto::{Classification, Direction};

/// Highest risk of what did not fail.
pub(crate) const ALMOST: f64 = 0.99;
/// Risk of strong evidence whose effect is too small to matter, at most.
const TOO_SMALL: f64 = 0.95;
/// An effect that is worth full attention: ln ratio, or share of the trials.
const NOTABLE: f64 = 0.15;
/// A unit is blamed for a failure when this share of the evidence is its own.
const BLAMED: f64 = 0.1;

/// Whether a failure is, for a good part, this unit's doing.
pub(crate) fn is_blamed(finding: &Finding, ln_weight: f64, total: f64) -> bool {
    finding.may_fail && finding.ln_evidence + ln_weight >= total + crate::maths::ln(BLAMED)
}

/// How near a unit is to failing, below 1.
pub(crate) fn unit_risk(finding: &Finding, raw: f64) -> f64 {
    if finding.usable == 0 || raw.is_nan() {
        return 0.0;
    }
    let size = finding.effect.size();
    let attention = if size.is_nan() { 0.0 } else { (size / NOTABLE).clamp(0.0, 1.0) };
    let most = if finding.may_fail { ALMOST } else { TOO_SMALL * attention };
    raw.clamp(0.0, most)
}

pub(crate) fn unit_result(
    (metric, unit): (&str, &str),
    finding: &Finding,
    risk: f64,
    since_minute: Option<i64>,
) -> UnitResult {
    let classification = match finding.direction {
        _ if finding.usable == 0 => Classification::NoData,
        Direction::Decrease if risk >= 1.0 => Classification::Low,
        Direction::Increase | Direction::Either | Direction::None if risk >= 1.0 => Classification::High,
        Direction::Increase | Direction::Decrease | Direction::Either | Direction::None => {
            Classification::Pass
        }
    };
    let effect = match finding.effect {
        Change::LnRatio(size) => libm::expm1(size),
        Change::Share { .. } => finding.effect.size(),
    };
    UnitResult {
        metric: metric.to_owned(),
        host: finding.host.clone(),
        classification,
        risk,
        score: finding.ln_evidence,
        placebo: finding.placebo,
        effect: if effect.is_finite() { effect } else { 0.0 },
        interval: reason::interval(finding),
        level: match finding.effect {
            Change::LnRatio(_) => finding.level,
            Change::Share { observed, expected } => {
                observed.is_finite().then_some(Level { expected, observed })
            }
        },
        since_minute,
        fail_fast: false,
        reason: reason::of_unit((metric, unit), finding, risk, since_minute),
    }
}

/// Keeps the more suspicious of two results for the same metric and host.
pub(crate) fn merge(results: &mut Vec<UnitResult>, new: UnitResult) {
    match results.iter_mut().find(|old| old.metric == new.metric && old.host == new.host) {
        Some(old) if new.risk > old.risk => *old = new,
        Some(_) => {}
        None => results.push(new),
    }
}

/// The result of a metric on a host, made where there is none.
pub(crate) fn row<'a>(results: &'a mut Vec<UnitResult>, metric: &str, host: &str) -> &'a mut UnitResult {
    let known = results.iter().position(|old| old.metric == metric && old.host == host);
    let at = known.unwrap_or_else(|| {
        results.push(silent(metric, host, String::new()));
        results.len() - 1
    });
    &mut results[at]
}

fn silent(metric: &str, host: &str, reason: String) -> UnitResult {
    UnitResult {
        metric: metric.to_owned(),
        host: host.to_owned(),
        classification: Classification::NoData,
        risk: 0.0,
        score: 0.0,
        placebo: 0.0,
        effect: 0.0,
        interval: None,
        level: None,
        since_minute: None,
        fail_fast: false,
        reason,
    }
}

/// Names the metrics and hosts that no detector could watch.
pub(crate) fn add_silent(results: &mut Vec<UnitResult>, case: &Case) {
    let known: BTreeSet<(String, String)> =
        results.iter().map(|result| (result.metric.clone(), result.host.clone())).collect();
    for metric in reported_metrics(case) {
        for (host, info) in &case.hosts {
            let is_new = info.group != crate::case::HostGroup::Control;
            if is_new && !known.contains(&(metric.to_owned(), host.clone())) {
                let reason =
                    format!("{metric} on {host} has no sample before the deployment to compare with");
                results.push(silent(metric, host, reason));
            }
        }
    }
}
