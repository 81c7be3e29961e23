//! Metrics that come later than others: what has been read without them, and how long they are waited for.

use super::{Assembly, MINUTE_MS, ceil, covers, floor};
use std::time::Duration;
use vouch_proto::{SeriesBatch, Timestamp, Wait, Window};

/// What the collector waits for, as the batch of the newest window said.
#[derive(Debug, Clone)]
pub(super) struct Waits {
    end: Timestamp,
    told_at: Timestamp,
    all: Vec<Wait>,
}

impl Assembly {
    /// Notes what a batch waits for; one of an older window says nothing new.
    pub(super) fn note_waits(&mut self, batch: &SeriesBatch) {
        let (end, told_at) = (batch.window.end(), batch.collected_at);
        if self.waits.as_ref().is_none_or(|known| (known.end, known.told_at) <= (end, told_at)) {
            self.waits = Some(Waits { end, told_at, all: batch.waits.clone() });
        }
    }

    /// As `minutes_seen`, of some metrics at least.
    #[must_use]
    pub fn minutes_early(&self, window: Window) -> i64 {
        let origin = self.origin(window);
        let read = self.early.range(..=origin).next_back().map_or(origin, |(_, e)| (*e).max(origin));
        (read.min(window.end().as_millis()) - origin).max(0).div_euclid(MINUTE_MS)
    }

    /// As `has_baseline`, of some metrics at least.
    #[must_use]
    pub fn has_early_baseline(&self, baseline: &[Window], window: Window) -> bool {
        let step = self.step(window);
        baseline.iter().all(|w| {
            let (start, end) = (ceil(w.start().as_millis(), step), floor(w.end().as_millis(), step));
            start >= end || covers(&self.early, start, end)
        })
    }

    /// The metric that is waited for the longest, in words; `None` where none is late.
    #[must_use]
    pub fn late_metric(&self) -> Option<String> {
        let waits = &self.waits.as_ref()?.all;
        let wait = waits.iter().max_by_key(|wait| (wait.is_missing, wait.until))?;
        Some(format!("{} until {}: late by {}", wait.metric, wait.until, words(wait.late_by)))
    }
}

fn words(late_by: Duration) -> String {
    match (late_by.as_secs() / 60, late_by.as_secs() % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::batch;
    use super::*;
    use crate::record::tests::{at, running};

    fn wait(metric: &str, until: i64, is_missing: bool) -> Wait {
        Wait { metric: metric.into(), until: at(until), late_by: Duration::from_secs(600), is_missing }
    }

    /// A minute without the metric that comes later.
    pub(crate) fn early(minute: i64) -> SeriesBatch {
        SeriesBatch { waits: vec![wait("queue", minute + 11, true)], ..batch(minute, minute + 1, 1.0) }
    }

    #[test]
    fn a_minute_counts_as_read_once_the_last_metric_has_come() {
        let window = running().verification.unwrap();
        let mut assembly = Assembly::default();
        (0..4).for_each(|minute| assembly.absorb(&early(minute)));
        assert_eq!((assembly.minutes_seen(window), assembly.minutes_early(window)), (0, 4));
        assert_eq!(assembly.late_metric().unwrap(), "queue until 2026-11-24T10:14:00Z: late by 10 min");
        let mut late = batch(0, 2, 5.0);
        late.series[0].metric = "queue".into();
        assembly.absorb(&late);
        assert_eq!((assembly.minutes_seen(window), assembly.minutes_early(window)), (2, 4));
        assert!(assembly.late_metric().is_some(), "a batch of an older window takes nothing back");
        // Read once more, before the late one has come.
        assembly.absorb(&SeriesBatch { revision: 1, ..early(3) });
        assert_eq!(assembly.minutes_seen(window), 2);
        assembly.absorb(&batch(4, 5, 1.0));
        assert_eq!(assembly.late_metric(), None);
    }

    #[test]
    fn a_late_metric_that_is_refused_for_good_is_read_as_far_as_it_can_be() {
        let window = running().verification.unwrap();
        let mut assembly = Assembly::default();
        assembly.absorb(&early(0));
        let refused = crate::window::tests::source_error(0, Some("queue"), false);
        assembly.absorb(&SeriesBatch { watermark: at(0), ..refused.clone() });
        assert_eq!(assembly.minutes_seen(window), 0, "an outage delivers nothing");
        assembly.absorb(&refused);
        assert_eq!((assembly.minutes_seen(window), assembly.errors().count()), (1, 1));
        // The others go on: that says nothing about it.
        assembly.absorb(&early(1));
        assert_eq!(assembly.errors().count(), 1);
    }

    #[test]
    fn references_of_a_late_metric_are_missed_and_those_of_others_are_there_early() {
        let record = running();
        let window = record.verification.unwrap();
        let mut assembly = Assembly::default();
        for (from, to) in [(-10_140, -10_065), (-1500, -1425)] {
            assembly.absorb(&batch(from, to, 1.0));
        }
        assembly.absorb(&SeriesBatch { waits: vec![wait("queue", 10, true)], ..batch(-180, 0, 1.0) });
        assert!(!assembly.has_baseline(&record.baseline, window));
        assert!(assembly.has_early_baseline(&record.baseline, window));
    }

    #[test]
    fn how_late_is_said_in_words() {
        let said = [45, 120, 150].map(|seconds| words(Duration::from_secs(seconds)));
        assert_eq!(said, ["45 s", "2 min", "2 min 30 s"]);
    }
}
