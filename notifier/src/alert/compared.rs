//! What a verdict was compared with, in words.

use super::strategy_in_words;
use super::text::clock;
use vouch_proto::Verdict;

/// Against what the verdict was decided: the comparison, and the times of its reference.
#[must_use]
pub fn against(verdict: &Verdict) -> String {
    let words = strategy_in_words(verdict.strategy);
    // The newest window is the one right before the deployment; the others are earlier days at that time.
    match verdict.baseline.iter().max_by_key(|window| window.end()) {
        None => words.to_owned(),
        Some(newest) => {
            let (from, to) = (clock(newest.start()), clock(newest.end()));
            let earlier = match verdict.baseline.len() - 1 {
                0 => String::new(),
                1 => " and one earlier window".to_owned(),
                more => format!(" and {more} earlier windows"),
            };
            format!("{words}, {from} to {to} UTC{earlier}")
        }
    }
}
