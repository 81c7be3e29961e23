//! What a person sees: progress that renews itself on a terminal, plain lines in a pipe, the verdict with its reason.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use vouch_proto::{Classification, MetricResult, Verdict, v1};

/// Writes a line to standard output.
pub(crate) fn line(text: &str) {
    writeln!(stdout(), "{text}").ok();
}

/// Writes an error to standard error.
pub(crate) fn error(text: &str) {
    writeln!(stderr(), "vouch: {text}").ok();
}

/// Writes news of the way to standard error.
pub(crate) fn progress(text: &str) {
    writeln!(stderr(), "{text}").ok();
}

/// Shows progress: one renewed line on a terminal, a line for each news in a pipe. To standard error, so that
/// `--output json` keeps standard output to itself.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    shown: String,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: stderr().is_terminal(), shown: String::new() }
    }

    pub(crate) fn show(&mut self, progress: &v1::Progress) {
        let text = describe(progress);
        if text == self.shown {
            return;
        }
        if self.terminal {
            write!(stderr(), "\r\x1b[2K{text}").ok();
            stderr().flush().ok();
        } else {
            writeln!(stderr(), "{text}").ok();
        }
        self.shown = text;
    }

    /// Ends the renewed line.
    pub(crate) fn end(&mut self) {
        if self.terminal && !self.shown.is_empty() {
            writeln!(stderr()).ok();
        }
        self.shown.clear();
    }
}

fn describe(progress: &v1::Progress) -> String {
    let mut text =
        format!("{}/{} minutes, risk {:.2}", progress.minutes_seen, progress.minutes_total, progress.risk);
    for metric in progress.metrics.iter().filter(|m| m.host == "*" || single_host(progress, m)).take(5) {
        text.push_str(&format!(", {} {:.2}", metric.metric, metric.risk));
    }
    if !progress.waiting_for.is_empty() {
        text.push_str(&format!(" | waiting for {}", progress.waiting_for));
    }
    text
}

/// Whether the metric has no entry for all hosts together.
fn single_host(progress: &v1::Progress, metric: &v1::MetricResult) -> bool {
    !progress.metrics.iter().any(|m| m.metric == metric.metric && m.host == "*")
}

/// The verdict, for a person.
pub(crate) fn verdict(verdict: &Verdict) -> String {
    let word = verdict.outcome.as_str().to_uppercase();
    let mut text = format!(
        "{word}  {} {} in {} (risk {:.2}, {} usable minutes)\n  {}",
        verdict.service,
        verdict.version,
        verdict.environment,
        verdict.risk,
        verdict.usable_minutes,
        verdict.reason
    );
    for metric in &verdict.metrics {
        text.push_str(&format!("\n    {}", row(metric)));
    }
    for one in &verdict.left_out {
        text.push_str(&format!("\n  left out of the references: {}, {}", one.window, one.why));
    }
    for one in &verdict.problems {
        let until = one.ended_at.map_or_else(|| "open".to_owned(), |end| format!("until {end}"));
        text.push_str(&format!("\n  problem {}: {}, since {}, {until}", one.id, one.title, one.started_at));
    }
    for one in &verdict.objectives {
        text.push_str(&format!("\n  {}", one.sentence()));
    }
    text.push_str(&format!("\n  verification {}", verdict.verification_id));
    text
}

fn row(metric: &MetricResult) -> String {
    let mark = match metric.classification {
        Classification::Pass => "ok",
        Classification::High => "HIGH",
        Classification::Low => "LOW",
        Classification::NoData => "no data",
        Classification::Error => "ERROR",
    };
    format!("{:<20} {:<16} {mark:<8} risk {:.2}", metric.metric, metric.host, metric.risk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(metric: &str, host: &str, risk: f64) -> v1::MetricResult {
        v1::MetricResult { metric: metric.into(), host: host.into(), risk, ..Default::default() }
    }

    #[test]
    fn progress_names_each_metric_once() {
        let progress = v1::Progress {
            minutes_seen: 3,
            minutes_total: 15,
            risk: 0.5,
            metrics: vec![
                result("cpu", "*", 0.5),
                result("cpu", "h1", 0.4),
                result("errors", "service", 0.1),
            ],
            waiting_for: "minute 4".into(),
            ..Default::default()
        };
        assert_eq!(
            describe(&progress),
            "3/15 minutes, risk 0.50, cpu 0.50, errors 0.10 | waiting for minute 4"
        );
    }
}
