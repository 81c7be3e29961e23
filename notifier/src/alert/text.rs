//! An alert as plain text, and texts cut to a length.

use super::Alert;
use std::fmt::Write as _;
use vouch_proto::Timestamp;

/// At most so many characters, with an ellipsis where something is missing.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// An instant to the minute, e.g. `2026-11-24 10:02 UTC`.
pub(super) fn minute(t: Timestamp) -> String {
    let text = t.floor_minute().to_string();
    match text.split_once('T') {
        Some((day, time)) => format!("{day} {} UTC", time.get(..5).unwrap_or(time)),
        None => text,
    }
}

/// The time of day, e.g. `10:02`.
pub(super) fn clock(t: Timestamp) -> String {
    let text = t.floor_minute().to_string();
    let time = text.split_once('T').map_or(text.as_str(), |(_, time)| time);
    time.get(..5).unwrap_or(time).to_owned()
}

/// The whole alert as plain text, at most `most` characters: what is cut is the end of the list of metrics and the
/// sentences, never the links.
#[must_use]
pub fn plain(alert: &Alert, most: usize) -> String {
    let mut links = String::new();
    for (label, url) in alert.links() {
        let _ = write!(links, "\n{label}: {url}");
    }
    let mut text = format!("{}\n{}", alert.headline, alert.reason);
    for (label, fact) in alert.facts() {
        let _ = write!(text, "\n{label}: {fact}");
    }
    for line in alert.metrics.iter().filter(|line| line.worse) {
        let _ = write!(text, "\n- {} on {}: {}", line.metric, line.host, line.reason);
    }
    if alert.more_metrics > 0 {
        let _ = write!(text, "\n- and {} more", alert.more_metrics);
    }
    let room = most.saturating_sub(links.chars().count());
    let text = cut(&text, room) + &links;
    // Where even the links do not fit, nothing else helps.
    cut(&text, most)
}
