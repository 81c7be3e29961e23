//! A look ahead where some metrics come later than others: what those fail that have come is failed, and nothing else is
//! decided without the rest.

use super::{Step, Verification};
use crate::judge;
use vouch_proto::{Outcome, Timestamp};

impl Verification {
    /// Judges the minutes that have come of some metrics; `Some` where that fails it. Never as the end of the window: what
    /// is decided there needs all of them.
    pub(super) fn judge_early(&mut self, now: Timestamp) -> Option<Step> {
        let window = self.record.verification?;
        let early = self.assembly.minutes_early(window).min(self.assembly.minutes_total(window) - 1);
        let is_new = early > self.judged.max(self.looked_at) && early > self.assembly.minutes_seen(window);
        if !is_new || !self.assembly.has_early_baseline(&self.record.baseline, window) {
            return None;
        }
        self.looked_at = early;
        let case = self.assembly.case_of(&self.record, &self.template, early)?;
        let judgement = judge::judge_until(&self.without_answer(case), early, &self.settings);
        if judgement.outcome != Some(Outcome::Fail) || judgement.no_data {
            return None;
        }
        self.judged = judgement.failed_at_minute.unwrap_or(early);
        self.judgement = Some(judgement);
        Some(self.end_judged(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::JudgeSettings;
    use crate::record::tests::{at, running};
    use crate::window::tests::batch;
    use std::time::Duration;
    use vouch_proto::template::golden_signals;
    use vouch_proto::{SeriesBatch, VerificationTemplate, Wait};

    /// Response times, and CPU that comes ten minutes later.
    fn template() -> VerificationTemplate {
        let mut template = golden_signals();
        template.metrics.retain(|m| m.name == "response_time" || m.name == "cpu");
        template
    }

    fn early(from: i64, to: i64, value: f64) -> SeriesBatch {
        let late_by = Duration::from_secs(600);
        let wait = Wait { metric: "cpu".into(), until: at(to + 10), late_by, is_missing: true };
        SeriesBatch { waits: vec![wait], ..batch(from, to, value) }
    }

    fn late(from: i64, to: i64, value: f64) -> SeriesBatch {
        let mut batch = batch(from, to, value);
        batch.series[0].metric = "cpu".into();
        batch
    }

    fn verification() -> Verification {
        let mut v = Verification::new(running(), template(), JudgeSettings::default());
        for (from, to) in [(-10_140, -10_065), (-1500, -1425), (-180, 0)] {
            v.on_batch(&early(from, to, 100.0));
            if to < 0 {
                v.on_batch(&late(from, to, 20.0));
            }
        }
        v
    }

    #[test]
    fn a_regression_of_what_has_come_fails_before_the_late_metric_is_there() {
        let mut v = verification();
        let mut ended = None;
        for minute in 0..15 {
            v.on_batch(&early(minute, minute + 1, 200.0));
            if let Step::Final(verdict) = v.step(at(minute + 3)) {
                ended = Some((minute, *verdict));
                break;
            }
        }
        let (minute, verdict) = ended.expect("it fails");
        assert!(minute < 10, "before the first minute of CPU could come: {minute}");
        assert_eq!(verdict.outcome, Outcome::Fail, "{}", verdict.reason);
        let bundle = v.bundle(&verdict).unwrap();
        let case = crate::case::Case::from_json(&bundle).unwrap();
        let again = judge::judge(&case, &JudgeSettings::default());
        assert_eq!((again.outcome, again.reason), (Some(Outcome::Fail), verdict.reason), "as it replays");
    }

    #[test]
    fn nothing_passes_before_the_late_metric_has_come() {
        let mut v = verification();
        for minute in 0..15 {
            v.on_batch(&early(minute, minute + 1, 100.0));
            assert!(!matches!(v.step(at(minute + 3)), Step::Final(_)), "{minute}");
        }
        let told = v.waiting_for();
        assert!(told.starts_with("the reference windows (cpu until "), "{told}");
        v.on_batch(&late(-180, 0, 20.0));
        for minute in 0..15 {
            let before = v.waiting_for();
            assert!(before.starts_with("cpu until 2026-11-24T10:25:00Z: late by 10 min (minute"), "{before}");
            v.on_batch(&late(minute, minute + 1, 20.0));
            match v.step(at(20)) {
                Step::Final(verdict) => {
                    assert_eq!((minute, verdict.outcome), (14, Outcome::Pass), "{}", verdict.reason);
                    return;
                }
                Step::Wait | Step::Progress(_) | Step::Revised(_) | Step::Settled => {}
            }
        }
        panic!("not ended with its last metric");
    }

    #[test]
    fn a_regression_of_the_late_metric_fails_when_it_comes() {
        let mut v = verification();
        v.on_batch(&late(-180, 0, 20.0));
        for minute in 0..15 {
            v.on_batch(&early(minute, minute + 1, 100.0));
            assert!(!matches!(v.step(at(minute + 3)), Step::Final(_)), "{minute}");
        }
        let ended = (0..15).find_map(|minute| {
            v.on_batch(&late(minute, minute + 1, 60.0));
            match v.step(at(minute + 13)) {
                Step::Final(verdict) => Some(*verdict),
                Step::Wait | Step::Progress(_) | Step::Revised(_) | Step::Settled => None,
            }
        });
        assert_eq!(ended.expect("it fails").outcome, Outcome::Fail);
    }

    #[test]
    fn what_never_comes_is_late_data_with_the_way_out() {
        let mut v = verification();
        v.on_batch(&late(-180, 0, 20.0));
        for minute in 0..15 {
            v.on_batch(&early(minute, minute + 1, 100.0));
            assert!(!matches!(v.step(at(minute + 3)), Step::Final(_)), "{minute}");
        }
        let Step::Final(verdict) = v.step(v.record().deadline) else { panic!("not ended") };
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Inconclusive, vouch_proto::Cause::LateData));
        let reason = &verdict.reason;
        assert!(reason.contains("cpu") && reason.contains("analyzer.deadline_grace"), "{reason}");
    }
}
