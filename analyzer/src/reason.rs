//! Sentences for a release manager.

use crate::detector::{ALL_HOSTS, Change, Finding, Level};
use crate::judge::UnitResult;
use vouch_proto::{CommonCause, Direction, Outcome};

/// Half the width of a 90 % interval, in standard errors.
const NINETY_PERCENT: f64 = 1.645;
/// Evidence beyond this is not told apart.
const MOST_EVIDENCE: f64 = 1e6;

/// One sentence about a metric (with its unit) on a host: which way, how much, since when, how sure, against what.
#[must_use]
pub fn of_unit(
    (metric, unit): (&str, &str),
    finding: &Finding,
    risk: f64,
    since_minute: Option<i64>,
) -> String {
    let host = if finding.host == ALL_HOSTS { "all new hosts" } else { &finding.host };
    if finding.usable == 0 {
        return format!("{metric} on {host} has no usable sample in the verification window");
    }
    let (size, against) = (size(finding, unit), finding.against);
    if risk < 1.0 {
        return format!("{metric} on {host} is {size} against {against}: no lasting degradation shown");
    }
    let since = since_minute.map_or(String::new(), |minute| format!(" since minute {minute}"));
    let evidence = in_words(finding.ln_evidence);
    format!("{metric} on {host} is {size} against {against}{since}; evidence {evidence}")
}

/// What is there, what was expected, and how far apart they are.
fn size(finding: &Finding, unit: &str) -> String {
    let signed = if finding.direction == Direction::Decrease { -1.0 } else { 1.0 };
    let percent = |size: f64| format!("{:+.0} %", 100.0 * libm::expm1(signed * size));
    let spread = NINETY_PERCENT * finding.error;
    match finding.effect {
        Change::LnRatio(size) if size.is_nan() => "not measurable".to_owned(),
        Change::LnRatio(size) => {
            let (from, to) = (percent(size - signed * spread), percent(size + signed * spread));
            let between = if finding.error.is_finite() {
                format!("{}, 90 % interval {from} to {to}", percent(size))
            } else {
                percent(size)
            };
            match finding.level {
                Some(Level { expected, observed }) => {
                    format!("{} instead of {} ({between})", amount(observed, unit), amount(expected, unit))
                }
                None => between,
            }
        }
        Change::Share { observed, expected } => {
            let more = 100.0 * (observed - expected);
            let spread = 100.0 * spread;
            format!(
                "{:.2} % of the requests instead of {:.2} % ({more:+.2} points, 90 % interval {:+.2} to {:+.2})",
                100.0 * observed,
                100.0 * expected,
                more - spread,
                more + spread
            )
        }
    }
}

/// The 90 % interval of an effect: relative, or events per trial.
#[must_use]
pub fn interval(finding: &Finding) -> Option<[f64; 2]> {
    let (size, spread) = (finding.effect.size(), NINETY_PERCENT * finding.error);
    let ends = [size - spread, size + spread];
    let ends = match finding.effect {
        Change::LnRatio(_) => ends.map(libm::expm1),
        Change::Share { .. } => ends,
    };
    ends.iter().all(|end| end.is_finite()).then_some(ends)
}

/// A value with three significant digits and its unit.
#[must_use]
pub fn amount(value: f64, unit: &str) -> String {
    let magnitude = if value == 0.0 { 0.0 } else { libm::floor(libm::log10(value.abs())) };
    let digits = (2.0 - magnitude).clamp(0.0, 12.0) as usize;
    let unit = match unit {
        "percent" => "%",
        "count" => "",
        unit => unit,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if unit.is_empty() { text.to_owned() } else { format!("{text} {unit}") }
}

/// Evidence as a ratio: how many times likelier the samples are where it degrades, with the placebo taken off.
fn in_words(ln_evidence: f64) -> String {
    let times = libm::exp(ln_evidence);
    if times >= MOST_EVIDENCE {
        return "over 1,000,000 to 1".to_owned();
    }
    let mut whole = format!("{:.0}", times.max(1.0));
    if whole.len() > 3 {
        whole.insert(whole.len() - 3, ',');
    }
    format!("{whole} to 1")
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

/// Why a degradation is no evidence against the deployment.
#[must_use]
pub fn of_common_cause(worst: Option<&UnitResult>, cause: &CommonCause, is_over: bool) -> String {
    let worst_says = worst.map_or("the service degrades", |unit| unit.reason.as_str());
    if is_over {
        return format!("it degraded for a while, but {}; by the end {worst_says}", cause.text);
    }
    format!("{worst_says}; but {}", cause.text)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(effect: Change, direction: Direction, level: Option<Level>) -> Finding {
        Finding {
            metrics: vec!["m".to_owned()],
            host: ALL_HOSTS.to_owned(),
            direction,
            against: "the control hosts",
            ln_evidence: 9.2,
            placebo: 0.1,
            may_fail: true,
            effect,
            error: 0.03,
            level,
            since: Some(3),
            usable: 9,
            transient: false,
        }
    }

    #[test]
    fn a_sentence_says_which_way_how_much_in_its_unit_since_when_how_sure_and_against_what() {
        let level = Some(Level { expected: 95.0, observed: 131.0 });
        let slow = finding(Change::LnRatio(0.3214), Direction::Increase, level);
        assert_eq!(
            of_unit(("response_time", "ms"), &slow, 1.0, Some(3)),
            "response_time on all new hosts is 131 ms instead of 95 ms (+38 %, 90 % interval +31 % to +45 %) \
             against the control hosts since minute 3; evidence 9,897 to 1"
        );
        let level = Some(Level { expected: 400.0, observed: 200.0 });
        let fewer = finding(Change::LnRatio(libm::log(2.0)), Direction::Decrease, level);
        assert_eq!(
            of_unit(("throughput", "1/min"), &fewer, 1.0, None),
            "throughput on all new hosts is 200 1/min instead of 400 1/min (-50 %, 90 % interval -52 % to -47 %) \
             against the control hosts; evidence 9,897 to 1"
        );
        let failing = finding(Change::Share { observed: 0.05, expected: 0.01 }, Direction::Increase, None);
        assert!(of_unit(("errors", ""), &failing, 0.2, None).starts_with(
            "errors on all new hosts is 5.00 % of the requests instead of 1.00 % (+4.00 points"
        ));
    }

    #[test]
    fn amounts_have_three_digits_and_evidence_has_an_end() {
        let said = |value: f64| amount(value, "percent");
        assert_eq!(
            [said(0.0), said(41.23), said(0.012_345), said(12_345.6)],
            ["0 %", "41.2 %", "0.0123 %", "12346 %"]
        );
        assert_eq!(amount(17.0, "count"), "17");
        assert_eq!(
            [in_words(-3.0), in_words(5.0), in_words(60.0)],
            ["1 to 1", "148 to 1", "over 1,000,000 to 1"]
        );
    }
}
