//! One running verification: takes in records and batches, and says at any instant what is to be published. Pure:
//! whoever is given the same record and the same batches arrives at the same verdict.

mod early;
mod publish;
mod revision;

use crate::case::Case;
use crate::coverage::MIN_USABLE_MINUTES;
use crate::evidence::bundle::{self, About};
use crate::judge::{self, Ending, JudgeSettings, Judgement};
use crate::record::{Record, State};
use crate::window::{Assembly, MAX_SAMPLES, spec_of};
use std::collections::BTreeSet;
use std::time::Duration;
use vouch_proto::template::golden_signals;
use vouch_proto::{
    Cause, Classification, MetricRole, Outcome, SeriesBatch, Timestamp, Verdict, VerificationTemplate,
    Window, v1,
};

/// How long the source must refuse everything, with errors that asking again cannot mend, before the verification
/// ends as `Error` without waiting for its deadline.
const HOPELESS_AFTER: Duration = Duration::from_secs(3 * 60);

/// Most rows of a verdict, the most suspicious first: it must fit into one message.
const MAX_RESULTS: usize = 500;
/// How far before the verification a metric must have been measurable.
const RECENT_MINUTES: i64 = 60;

/// What is to be published now.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing new.
    Wait,
    /// How far it is.
    Progress(Box<v1::Progress>),
    /// It has ended.
    Final(Box<Verdict>),
    /// The evidence has grown strong enough to act alone, or samples that were revised say otherwise.
    Revised(Box<Verdict>),
    /// It has ended, and no revision will follow.
    Settled,
}

/// A verification in the hands of its owner.
#[derive(Debug)]
pub struct Verification {
    record: Record,
    template: VerificationTemplate,
    settings: JudgeSettings,
    assembly: Assembly,
    judged: i64,
    /// Minutes that were looked at ahead of metrics that come later.
    looked_at: i64,
    judgement: Option<Judgement>,
    /// Why it cannot be judged at all, where that is so.
    unjudgeable: Option<String>,
    /// Since when the source has refused everything for good.
    hopeless_since: Option<Timestamp>,
    told: Option<(i64, String)>,
}

impl Verification {
    /// Starts from a record and no data.
    #[must_use]
    pub fn new(record: Record, template: VerificationTemplate, settings: JudgeSettings) -> Self {
        let settings = JudgeSettings { ending: Ending::new(record.early_pass, record.extend_by), ..settings };
        Self {
            record,
            template,
            settings,
            assembly: Assembly::default(),
            judged: 0,
            looked_at: 0,
            judgement: None,
            unjudgeable: None,
            hopeless_since: None,
            told: None,
        }
    }

    /// One that ends in Error at its next step: its template is gone, or the judge failed on its data.
    #[must_use]
    pub fn unjudgeable(record: Record, reason: impl Into<String>) -> Self {
        let verification = Self::new(record, golden_signals(), JudgeSettings::default());
        Self { unjudgeable: Some(reason.into()), ..verification }
    }

    /// Forgets what was judged, so that the next step decides again on all that is there.
    pub const fn rejudge(&mut self) {
        self.judged = 0;
    }

    /// The record as it is known.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Takes in news of the deployment.
    pub fn on_record(&mut self, record: Record) {
        if (record.verification, record.strategy) != (self.record.verification, self.record.strategy)
            || record.deployment.hosts != self.record.deployment.hosts
        {
            self.judged = 0;
        }
        self.record = record;
    }

    /// Takes in a batch of its service.
    pub fn on_batch(&mut self, batch: &SeriesBatch) {
        let judged_to = self.record.verification.map(|w| w.start().plus_minutes(self.judged));
        if judged_to.is_some_and(|to| batch.window.start() < to) && !batch.series.is_empty() {
            (self.judged, self.looked_at) = (0, 0);
        }
        let sides = self.assembly.sides_seen();
        self.assembly.absorb(batch);
        if self.assembly.sides_seen() != sides {
            self.judged = 0;
        }
        let refused = self.assembly.is_empty() && batch.errors.iter().any(|e| !e.retryable);
        self.hopeless_since = match self.hopeless_since {
            Some(since) if refused => Some(since.min(batch.collected_at)),
            None if refused => Some(batch.collected_at),
            Some(_) | None => None,
        };
    }

    /// The evidence behind a verdict as one JSON object; `None` where it does not rest on samples.
    #[must_use]
    pub fn bundle(&self, verdict: &Verdict) -> Option<String> {
        self.judgement.as_ref()?;
        let seen = self.assembly.minutes_seen(self.record.verification?).max(self.judged);
        let case = self.without_answer(self.assembly.case_of(&self.record, &self.template, seen)?);
        let case = Case {
            minutes_seen: Some(self.judged),
            barred: self.unmeasured(),
            judged_with: Some(self.settings),
            ..case
        };
        let queries = self.assembly.queries().clone();
        Some(bundle::write(&case, About { verdict: verdict.clone(), queries }))
    }

    /// The windows that have not been read as a whole.
    #[must_use]
    pub fn not_collected(&self) -> Vec<Window> {
        let Some(window) = self.record.verification else { return Vec::new() };
        let has = |w: &&Window| self.assembly.has_baseline(&[**w], window);
        let mut missing: Vec<Window> = self.record.baseline.iter().filter(|w| !has(w)).copied().collect();
        let (seen, total) = (self.assembly.minutes_seen(window), self.assembly.minutes_total(window));
        if seen < total || total == 0 {
            missing.push(window);
        }
        missing
    }

    /// What is to be published at this instant.
    #[must_use]
    pub fn step(&mut self, now: Timestamp) -> Step {
        if let Some(verdict) = self.record.verdict.clone() {
            return match verdict.outcome {
                Outcome::Fail => self.confirm(verdict, now),
                Outcome::Pass | Outcome::Inconclusive => self.recheck(&verdict, now),
                Outcome::Error => Step::Settled,
            };
        }
        if let Some((cause, reason)) = self.record.ended_by() {
            return self.end(Outcome::Inconclusive, cause, reason, now);
        }
        if let Some(reason) = &self.unjudgeable {
            return self.end(Outcome::Error, Cause::NotJudgeable, reason.clone(), now);
        }
        if self.assembly.is_overflowing() {
            let reason = format!(
                "there are more than {MAX_SAMPLES} samples; shorten the window, or leave hosts or metrics out of the template"
            );
            return self.end(Outcome::Error, Cause::NotJudgeable, reason, now);
        }
        if self.record.state == State::Waiting {
            if now >= self.record.deadline {
                let reason = "no traffic on the new version was announced before the deadline".to_owned();
                return self.end(Outcome::Inconclusive, Cause::NoTraffic, reason, now);
            }
            return self.tell(now, "the first traffic on the new version".to_owned());
        }
        if let Some(step) = self.judge(now).or_else(|| self.judge_early(now)) {
            return step;
        }
        if let Some(since) = self.hopeless_since
            && now.since(since) >= HOPELESS_AFTER
        {
            let reason = format!("the source refused every request: {}", self.source_says());
            return self.end(Outcome::Error, Cause::SourceError, reason, now);
        }
        if now >= self.record.deadline {
            return self.end_at_deadline(now);
        }
        self.tell(now, self.waiting_for())
    }

    /// Judges the minutes that have come; `Some` where that ends it.
    fn judge(&mut self, now: Timestamp) -> Option<Step> {
        let window = self.record.verification?;
        let (seen, total) = (self.assembly.minutes_seen(window), self.assembly.minutes_total(window));
        if seen <= self.judged || !self.has_baseline() {
            return None;
        }
        if self.assembly.only_old(&self.record).is_some() {
            // What the new version does cannot be seen yet.
            return None;
        }
        let case = self.assembly.case(&self.record, &self.template)?;
        let case = self.without_answer(case);
        let judgement = judge::judge_until(&case, seen, &self.settings);
        self.judged = judgement.failed_at_minute.or(judgement.passed_at_minute).unwrap_or(seen);
        let decided = matches!(judgement.outcome, Some(Outcome::Fail | Outcome::Error))
            || judgement.passed_at_minute.is_some();
        self.judgement = Some(judgement);
        if decided {
            return Some(self.end_judged(now));
        }
        (self.judged >= total && total > 0).then(|| self.end_judged(now))
    }

    /// Ends with what the judge says; a judged metric that the source refused bars Pass.
    fn end_judged(&mut self, now: Timestamp) -> Step {
        let Some(judgement) = &self.judgement else { return Step::Wait };
        let outcome = judgement.outcome.unwrap_or(Outcome::Inconclusive);
        let reason = judgement.reason.clone();
        match (outcome, self.unmeasured()) {
            (Outcome::Pass, Some(unmeasured)) => {
                let reason = format!("{unmeasured}; nothing else got worse");
                self.end(Outcome::Inconclusive, Cause::SourceError, reason, now)
            }
            (Outcome::Pass, None) => self.end(outcome, Cause::Healthy, reason, now),
            (Outcome::Fail, _) => {
                let cause = if judgement.no_data { Cause::NoData } else { Cause::Regression };
                self.end(outcome, cause, reason, now)
            }
            (Outcome::Inconclusive, _) => {
                let cause = inconclusive_cause(judgement);
                self.end(outcome, cause, reason, now)
            }
            (Outcome::Error, _) => self.end(outcome, Cause::NotJudgeable, reason, now),
        }
    }

    fn end_at_deadline(&mut self, now: Timestamp) -> Step {
        let (outcome, cause, reason) = match self.assembly.last_heard() {
            None => (
                Outcome::Error,
                Cause::CollectorSilent,
                "no collector delivered anything before the deadline; is one running, and ready?".to_owned(),
            ),
            Some(_) if self.judged == 0 && self.assembly.errors().next().is_some() => {
                let reason = format!("nothing could be measured before the deadline: {}", self.source_says());
                (Outcome::Error, Cause::SourceError, reason)
            }
            Some(_) if self.judged == 0 && self.new_version_awaited().is_some() => {
                let awaited = self.new_version_awaited().unwrap_or_default();
                let reason = format!(
                    "the new version was not seen before the deadline: there is no {awaited}; `vouch services --explain` shows what the rules see"
                );
                (Outcome::Inconclusive, Cause::NoData, reason)
            }
            Some(heard) => {
                let total = self.record.verification.map_or(0, |w| self.assembly.minutes_total(w));
                let why = match self.assembly.errors().next() {
                    Some(_) => self.source_says(),
                    None => match self.assembly.late_metric() {
                        Some(late) => format!("{late}; raise analyzer.deadline_grace above that"),
                        None => format!("the collector was last heard at {heard}"),
                    },
                };
                let reason = format!(
                    "only {} of {total} minutes were measured before the deadline: {why}",
                    self.judged
                );
                (Outcome::Inconclusive, Cause::LateData, reason)
            }
        };
        self.end(outcome, cause, reason, now)
    }

    /// The judged metrics that the source could not deliver, for a person.
    fn unmeasured(&self) -> Option<String> {
        let judged = |name: &str| spec_of(&self.template, name).is_some_and(|m| m.role == MetricRole::Judged);
        let since = self
            .record
            .verification
            .map_or(i64::MAX, |w| w.start().plus_minutes(-RECENT_MINUTES).as_millis());
        let refused: Vec<String> = self
            .assembly
            .errors_since(since)
            .filter_map(|e| Some((e.metric.as_deref().filter(|m| judged(m))?, e)))
            .map(|(metric, e)| format!("{metric} could not be measured ({})", e.message))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        (!refused.is_empty()).then(|| refused.join("; "))
    }

    /// What the source could not deliver is not silent: it was not asked with success.
    fn without_answer(&self, mut case: Case) -> Case {
        let refused: BTreeSet<Option<&str>> =
            self.assembly.errors().map(|error| error.metric.as_deref()).collect();
        let is_refused = |metric: &str| {
            let spec = spec_of(&self.template, metric).map(|spec| spec.name.as_str());
            refused.contains(&None)
                || refused.contains(&Some(metric))
                || (spec.is_some() && refused.contains(&spec))
        };
        case.template = std::mem::take(&mut case.template).without_answer(is_refused);
        case
    }

    fn has_baseline(&self) -> bool {
        self.record
            .verification
            .is_some_and(|window| self.assembly.has_baseline(&self.record.baseline, window))
    }

    fn source_says(&self) -> String {
        let said: Vec<String> =
            self.assembly.errors().map(|e| format!("{}: {}", e.name, e.message)).collect();
        if said.is_empty() { "the source said nothing".to_owned() } else { said.join("; ") }
    }

    fn waiting_for(&self) -> String {
        if self.assembly.last_heard().is_none() {
            return "the collector".to_owned();
        }
        if self.assembly.errors().any(|e| e.metric.is_none()) {
            return format!("the source ({})", self.source_says());
        }
        if !self.has_baseline() {
            let late = self.assembly.late_metric();
            return late.map_or_else(
                || "the reference windows".to_owned(),
                |late| format!("the reference windows ({late})"),
            );
        }
        if let Some(awaited) = self.new_version_awaited() {
            return awaited;
        }
        let minute = self.judged + 1;
        let late = self.assembly.late_metric();
        late.map_or_else(|| format!("minute {minute}"), |late| format!("{late} (minute {minute})"))
    }

    /// What is waited for where hosts are told apart by what they run, and none runs the new version.
    fn new_version_awaited(&self) -> Option<String> {
        let old = self.assembly.only_old(&self.record)?;
        let runs = if old.is_empty() { String::new() } else { format!(" (there is {})", old.join(", ")) };
        Some(format!("instance that runs version {}{runs}", self.record.deployment.version))
    }

    fn tell(&mut self, now: Timestamp, waiting_for: String) -> Step {
        let news = (self.judged, waiting_for);
        if self.told.as_ref() == Some(&news) {
            return Step::Wait;
        }
        self.told = Some(news.clone());
        let deployment = &self.record.deployment;
        let minutes = |m: i64| u32::try_from(m).unwrap_or(0);
        Step::Progress(Box::new(v1::Progress {
            verification_id: self.record.verification_id.clone(),
            deployment_id: deployment.deployment_id.clone().unwrap_or_default(),
            service: deployment.service.to_string(),
            environment: deployment.environment.to_string(),
            version: deployment.version.to_string(),
            minutes_seen: minutes(self.judged),
            minutes_total: minutes(self.minutes_total()),
            risk: self.judgement.as_ref().map_or(0.0, |j| j.risk),
            metrics: self.results().into_iter().map(Into::into).collect(),
            waiting_for: news.1,
            updated_at: Some(now.into()),
            warnings: self.assembly.errors().map(|e| format!("{}: {}", e.name, e.message)).collect(),
        }))
    }

    /// Minutes of the window; with its extension once that has begun.
    fn minutes_total(&self) -> i64 {
        let minutes = |d: Duration| i64::try_from(d.as_secs() / 60).unwrap_or(0);
        let usual = minutes(self.record.duration);
        if self.judged < usual { usual } else { minutes(self.record.longest()) }
    }
}

/// Why the judge could not tell.
pub(crate) fn inconclusive_cause(judgement: &Judgement) -> Cause {
    if judgement.common_cause.is_some() {
        Cause::CommonCause
    } else if judgement.no_data
        || judgement.metrics.iter().all(|m| m.classification == Classification::NoData)
    {
        Cause::NoData
    } else if judgement.usable_minutes < MIN_USABLE_MINUTES {
        Cause::TooFewSamples
    } else {
        Cause::NoTraffic
    }
}

#[cfg(test)]
#[path = "verification/instances_tests.rs"]
mod instances_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{at, running};
    use crate::sequential::Thresholds;
    use crate::window::tests::{batch, source_error};
    use vouch_proto::template::golden_signals;
    use vouch_proto::{Direction, Limit, MetricSettings, OnNoData, Sensitivity, Series, Strategy, When};

    /// A template of one metric, so that the batches of the tests are complete.
    fn template() -> VerificationTemplate {
        let mut template = golden_signals();
        template.metrics.retain(|m| m.name == "response_time");
        assert_eq!(template.metrics[0].direction, Direction::Increase);
        template
    }

    fn verification() -> Verification {
        Verification::new(running(), template(), JudgeSettings::default())
    }

    fn with_baseline() -> Verification {
        let mut v = verification();
        for (from, to) in [(-10_140, -10_065), (-1500, -1425), (-180, 0)] {
            v.on_batch(&batch(from, to, 100.0));
        }
        v
    }

    fn verdict(step: Step) -> Verdict {
        match step {
            Step::Final(verdict) => *verdict,
            Step::Wait | Step::Progress(_) | Step::Revised(_) | Step::Settled => {
                panic!("not ended: {step:?}")
            }
        }
    }

    fn is_open(step: &Step) -> bool {
        !matches!(step, Step::Final(_))
    }

    /// Runs to the end of the window with these values, minute by minute.
    fn run(v: &mut Verification, value: impl Fn(i64) -> f64) -> Verdict {
        for minute in 0..15 {
            v.on_batch(&batch(minute, minute + 1, value(minute)));
            if let Step::Final(verdict) = v.step(at(minute + 3)) {
                return *verdict;
            }
        }
        panic!("not ended after its window");
    }

    #[test]
    fn a_healthy_deployment_passes_at_the_end_of_its_window() {
        let verdict = run(&mut with_baseline(), |_| 100.0);
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Pass, Cause::Healthy), "{}", verdict.reason);
        assert!(verdict.risk < 1.0 && !verdict.rollback_grade && verdict.data_final);
    }

    /// A verification of 15 minutes that may end otherwise, with its values minute by minute up to its longest end.
    fn ending(early_pass: bool, extension_min: u64, value: impl Fn(i64) -> f64) -> (Verdict, Vec<u32>) {
        let mut record = running();
        record.early_pass = early_pass;
        record.extend_by = Duration::from_secs(60 * extension_min);
        record.verification =
            Window::around(record.verification.unwrap().start(), 0, 15 + extension_min as i64).ok();
        record.deadline = at(60);
        let mut v = Verification::new(record, template(), JudgeSettings::default());
        for (from, to) in [(-10_140, -10_065), (-1500, -1425)] {
            v.on_batch(&batch(from, to, 100.0));
        }
        for minute in -180..0 {
            v.on_batch(&batch(minute, minute + 1, value(minute)));
        }
        let mut totals = Vec::new();
        for minute in 0..50 {
            v.on_batch(&batch(minute, minute + 1, value(minute)));
            match v.step(at(minute + 3)) {
                Step::Final(verdict) => return (*verdict, totals),
                Step::Progress(progress) => totals.push(progress.minutes_total),
                Step::Wait | Step::Revised(_) | Step::Settled => {}
            }
        }
        panic!("not ended");
    }

    fn wobbling(size: f64) -> impl Fn(i64) -> f64 {
        move |minute| 100.0 * (1.0 + size * if minute.rem_euclid(2) == 0 { 1.0 } else { -1.0 })
    }

    #[test]
    fn an_early_pass_says_after_which_minute_and_is_off_by_default() {
        let (verdict, _) = ending(true, 0, wobbling(0.01));
        let minute = verdict.passed_at_minute.unwrap();
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Pass, Cause::Healthy));
        assert!((10..15).contains(&minute) && verdict.reason.contains("is ruled out"), "{}", verdict.reason);
        let (verdict, _) = ending(false, 0, wobbling(0.01));
        assert_eq!((verdict.outcome, verdict.passed_at_minute), (Outcome::Pass, None));
        let (verdict, _) = ending(true, 0, |minute| if minute < 0 { 100.0 } else { 300.0 });
        assert_eq!((verdict.outcome, verdict.passed_at_minute), (Outcome::Fail, None));
    }

    #[test]
    fn an_extension_goes_on_while_it_cannot_be_told_and_its_window_is_that_which_was_needed() {
        let (clear, totals) = ending(false, 20, wobbling(0.01));
        assert_eq!(clear.passed_at_minute, Some(15), "{}", clear.reason);
        assert_eq!(clear.verification.unwrap().minutes(), 15);
        assert!(totals.iter().all(|total| *total == 15), "{totals:?}");
        let (unclear, totals) = ending(false, 20, wobbling(0.2));
        assert_eq!((unclear.outcome, unclear.passed_at_minute), (Outcome::Pass, None), "{}", unclear.reason);
        assert_eq!(unclear.verification.unwrap().minutes(), 35);
        assert_eq!((totals[0], totals.last().copied()), (15, Some(35)));
    }

    #[test]
    fn a_regression_fails_as_soon_as_it_is_sure_and_names_the_metric() {
        let verdict = run(&mut with_baseline(), |_| 300.0);
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Fail, Cause::Regression));
        assert!(verdict.failed_at_minute.unwrap() < 15);
        assert_eq!(verdict.metrics[0].metric, "response_time");
        assert_eq!(verdict.metrics[0].classification, Classification::High);
    }

    /// The template with these settings of its only metric, and the baseline read.
    fn with_settings(settings: MetricSettings) -> Verification {
        let mut v = with_baseline();
        v.template.sensitivity = Some(Sensitivity::Low);
        v.template.metrics[0].settings = settings;
        v
    }

    #[test]
    fn the_settings_of_the_template_reach_the_judge_and_the_verdict() {
        let limit = Limit { absolute: Some(250.0), percent: None, when: When::AtOnce };
        let settings = MetricSettings { fail_fast: Some(limit), ..MetricSettings::DEFAULT };
        let verdict = run(&mut with_settings(settings.clone()), |_| 300.0);
        assert_eq!((verdict.outcome, verdict.failed_at_minute), (Outcome::Fail, Some(1)));
        assert!(verdict.metrics[0].fail_fast && !verdict.rollback_grade, "{}", verdict.reason);
        assert_eq!(verdict.metrics[0].settings, Some(settings));
        assert_eq!(verdict.sensitivity, Some(Sensitivity::Low));
        let muted = MetricSettings { muted: true, ..MetricSettings::DEFAULT };
        assert_eq!(run(&mut with_settings(muted), |_| 300.0).outcome, Outcome::Inconclusive);
    }

    #[test]
    fn a_limit_is_confirmed_by_evidence_only() {
        let limit = Limit { absolute: Some(90.0), percent: None, when: When::AtOnce };
        let mut v = with_settings(MetricSettings { fail_fast: Some(limit), ..MetricSettings::DEFAULT });
        let first = run(&mut v, |_| 100.0);
        assert_eq!((first.outcome, first.failed_at_minute), (Outcome::Fail, Some(1)));
        let mut record = running();
        (record.state, record.verdict) = (State::Final, Some(first));
        v.on_record(record);
        for minute in 1..15 {
            v.on_batch(&batch(minute, minute + 1, 100.0));
            assert!(matches!(v.step(at(minute + 3)), Step::Wait | Step::Settled), "minute {minute}");
        }
    }

    /// The window read to its end without a sample; the source may have refused the metric meanwhile.
    fn silent(on_no_data: Option<OnNoData>, refused: bool) -> Verdict {
        let mut v = with_settings(MetricSettings { on_no_data, ..MetricSettings::DEFAULT });
        for minute in 0..15 {
            let mut empty = batch(minute, minute + 1, 1.0);
            empty.series.clear();
            if refused && minute == 14 {
                empty.series.push(Series {
                    metric: "other".into(),
                    ..batch(minute, minute + 1, 1.0).series.remove(0)
                });
                empty.errors = source_error(minute, Some("response_time"), true).errors;
            }
            v.on_batch(&empty);
        }
        verdict(v.step(at(18)))
    }

    #[test]
    fn silence_fails_only_where_asked_for_and_where_the_source_answered() {
        let said = |word, refused| {
            let verdict = silent(word, refused);
            (verdict.outcome, verdict.cause, verdict.rollback_grade)
        };
        let fail = (Outcome::Fail, Cause::NoData, false);
        let nobody_knows = (Outcome::Inconclusive, Cause::NoData, false);
        assert_eq!(said(Some(OnNoData::Fail), false), fail);
        assert_eq!(said(Some(OnNoData::Fail), true), nobody_knows);
        assert_eq!(said(None, false), nobody_knows);
        assert_eq!(said(Some(OnNoData::Ignore), false), nobody_knows);
    }

    #[test]
    fn silence_is_never_pass() {
        let mut silent = verification();
        assert!(is_open(&silent.step(at(24))));
        let verdict = self::verdict(silent.step(at(25)));
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Error, Cause::CollectorSilent));

        let mut down = verification();
        for minute in 0..25 {
            down.on_batch(&source_error(minute, None, true));
            assert!(is_open(&down.step(at(minute))));
        }
        let verdict = self::verdict(down.step(at(25)));
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Error, Cause::SourceError));
        assert!(verdict.reason.contains("Dynatrace does not answer"));

        let mut empty = with_baseline();
        for minute in 0..15 {
            let mut nothing = batch(minute, minute + 1, 0.0);
            nothing.series = Vec::<Series>::new();
            empty.on_batch(&nothing);
        }
        let verdict = self::verdict(empty.step(at(18)));
        assert_eq!(verdict.outcome, Outcome::Inconclusive, "{}", verdict.reason);
    }

    #[test]
    fn a_window_that_stays_partly_unread_is_inconclusive() {
        let mut v = with_baseline();
        for minute in 0..9 {
            v.on_batch(&batch(minute, minute + 1, 100.0));
        }
        v.on_batch(&source_error(9, None, true));
        assert!(is_open(&v.step(at(24))));
        let verdict = verdict(v.step(at(25)));
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Inconclusive, Cause::LateData));
        assert!(verdict.reason.contains("only 9 of 15 minutes"), "{}", verdict.reason);
    }

    #[test]
    fn a_wrong_token_ends_it_before_the_deadline() {
        let mut v = verification();
        v.on_batch(&source_error(-3, None, false));
        assert!(is_open(&v.step(at(1))));
        v.on_batch(&source_error(0, None, false));
        let verdict = verdict(v.step(at(5)));
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Error, Cause::SourceError));
        assert!(verdict.reason.contains("unauthorized"), "{}", verdict.reason);
    }

    #[test]
    fn what_cannot_be_judged_is_an_error() {
        let mut gone = Verification::unjudgeable(running(), "the template was removed");
        let verdict = verdict(gone.step(at(1)));
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Error, Cause::NotJudgeable));
        assert_eq!(verdict.reason, "the template was removed");
    }

    /// The whole service under a strategy that is about hosts.
    fn asked_for(change: impl FnOnce(&mut vouch_proto::Deployment)) -> Verdict {
        let mut record = running();
        change(&mut record.deployment);
        record.strategy = record.asked(&template());
        let mut v = Verification::new(record, template(), JudgeSettings::default());
        for (from, to) in [(-10_140, -10_065), (-1500, -1425), (-180, 15)] {
            v.on_batch(&batch(from, to, 100.0));
        }
        verdict(v.step(at(20)))
    }

    #[test]
    fn a_canary_without_hosts_is_refused_or_diluted() {
        let canary = |diluted| {
            move |deployment: &mut vouch_proto::Deployment| {
                deployment.verification.strategy = Some(Strategy::Canary);
                deployment.verification.diluted = diluted;
                deployment.traffic_percent = 25;
                let host = |name: &str, group| vouch_proto::DeploymentHost {
                    name: name.into(),
                    group,
                    switched_at: None,
                    restarted_at: vec![],
                };
                deployment.hosts =
                    vec![host("c", vouch_proto::HostGroup::Control), host("t", vouch_proto::HostGroup::Test)];
            }
        };
        let refused = asked_for(canary(false));
        assert_eq!((refused.outcome, refused.cause), (Outcome::Error, Cause::NotJudgeable));
        assert!(
            refused.reason.contains("`by_host`") && refused.reason.contains("`diluted`"),
            "{}",
            refused.reason
        );
        let diluted = asked_for(canary(true));
        assert_eq!(
            (diluted.outcome, diluted.diluted_share),
            (Outcome::Pass, Some(0.25)),
            "{}",
            diluted.reason
        );
        assert!(diluted.strategy_reason.contains("diluted"), "{}", diluted.strategy_reason);
        assert_eq!(diluted.smallest_effects[0].0, "response_time");
        assert!(diluted.smallest_effects[0].1 > 0.0);
    }

    #[test]
    fn what_hosts_cannot_tell_is_compared_with_the_past_and_says_so() {
        let verdict = asked_for(|deployment| deployment.verification.strategy = Some(Strategy::BlueGreen));
        assert_eq!((verdict.outcome, verdict.strategy), (Outcome::Pass, Strategy::Previous));
        assert!(verdict.strategy_reason.contains("blue-green was asked for"), "{}", verdict.strategy_reason);
        let verdict = asked_for(|_| ());
        assert_eq!(verdict.strategy, Strategy::Previous, "auto");
        assert!(verdict.strategy_reason.contains("chosen"), "{}", verdict.strategy_reason);
    }

    #[test]
    fn a_load_test_without_a_pinned_run_is_not_judgeable() {
        let mut record = running();
        record.deployment.verification.strategy = Some(Strategy::LoadTest);
        record.baseline = vec![];
        let mut v = Verification::new(record, template(), JudgeSettings::default());
        v.on_batch(&batch(0, 5, 100.0));
        let verdict = verdict(v.step(at(8)));
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Error, Cause::NotJudgeable));
        assert!(verdict.reason.contains("pinned run"), "{}", verdict.reason);
    }

    #[test]
    fn a_metric_refused_for_a_part_of_the_window_bars_pass() {
        let mut v = with_baseline();
        for minute in 0..15 {
            let mut b = batch(minute, minute + 1, 100.0);
            if minute == 3 {
                b.series[0].metric = "cpu".into();
                b.errors = source_error(3, Some("response_time"), false).errors;
            }
            v.on_batch(&b);
        }
        let verdict = verdict(v.step(at(20)));
        assert_eq!(verdict.outcome, Outcome::Inconclusive, "{}", verdict.reason);
        assert!(verdict.reason.contains("response_time could not be measured"), "{}", verdict.reason);
        let evidence = Case::from_json(&v.bundle(&verdict).unwrap()).unwrap();
        let replayed = judge::judge_recorded(&evidence, &JudgeSettings::default());
        assert_eq!(replayed.outcome, Some(Outcome::Inconclusive), "its evidence is no Pass either");
        assert!(replayed.reason.contains("response_time could not be measured"), "{}", replayed.reason);
    }

    #[test]
    fn a_decision_that_was_not_published_is_made_again() {
        let mut v = with_baseline();
        (0..15).for_each(|m| v.on_batch(&batch(m, m + 1, 300.0)));
        let first = verdict(v.step(at(20)));
        v.rejudge();
        assert_eq!(verdict(v.step(at(20))), first);
    }

    #[test]
    fn a_refused_metric_bars_pass() {
        let mut v = Verification::new(running(), golden_signals(), JudgeSettings::default());
        for (from, to) in [(-10_140, -10_065), (-1500, -1425), (-180, 15)] {
            let mut b = batch(from, to, 100.0);
            b.errors = source_error(0, Some("cpu"), false).errors;
            v.on_batch(&b);
        }
        let verdict = verdict(v.step(at(20)));
        assert_eq!(verdict.outcome, Outcome::Inconclusive, "{}", verdict.reason);
        assert!(
            verdict.metrics.iter().any(|m| m.metric == "cpu" && m.classification == Classification::Error)
        );
    }

    #[test]
    fn a_cancelled_verification_is_inconclusive_at_once() {
        let mut v = with_baseline();
        let mut record = running();
        record.deployment.cancelled_by = Some("ann".into());
        v.on_record(record);
        let verdict = verdict(v.step(at(1)));
        assert_eq!((verdict.outcome, verdict.cause), (Outcome::Inconclusive, Cause::Cancelled));
        assert!(!verdict.data_final, "it rests on no data");
    }

    #[test]
    fn progress_is_told_once_per_news() {
        let mut v = with_baseline();
        assert!(matches!(v.step(at(0)), Step::Progress(_)));
        assert_eq!(v.step(at(0)), Step::Wait);
        v.on_batch(&batch(0, 1, 100.0));
        match v.step(at(3)) {
            Step::Progress(progress) => assert_eq!((progress.minutes_seen, progress.minutes_total), (1, 15)),
            Step::Wait | Step::Final(_) | Step::Revised(_) | Step::Settled => panic!("no progress"),
        }
    }

    #[test]
    fn a_fail_below_rollback_grade_is_confirmed_by_a_revision() {
        let mut v = with_baseline();
        // So much more evidence than for a Fail that it cannot come in the same minute.
        let thresholds = Thresholds { rollback: 12.0, ..Thresholds::default() };
        v.settings = JudgeSettings { thresholds, ..JudgeSettings::default() };
        let mut first = None;
        for minute in 0..15 {
            v.on_batch(&batch(minute, minute + 1, 150.0));
            match v.step(at(minute + 3)) {
                Step::Final(verdict) => {
                    assert!(!verdict.rollback_grade);
                    let mut record = running();
                    record.state = State::Final;
                    record.verdict = Some((*verdict).clone());
                    v.on_record(record);
                    first = Some(*verdict);
                }
                Step::Revised(verdict) => {
                    let first = first.unwrap();
                    assert_eq!((verdict.revision, first.revision), (1, 0));
                    assert!(verdict.rollback_grade);
                    assert_eq!(verdict.failed_at_minute, first.failed_at_minute);
                    return;
                }
                Step::Wait | Step::Progress(_) => {}
                Step::Settled => panic!("settled without a revision"),
            }
        }
        panic!("never failed");
    }

    /// A verification whose window of values has passed or not on data that is not final, and its verdict.
    fn provisional(value: f64) -> (Verification, Verdict) {
        let mut v = with_baseline();
        let mut first = None;
        for minute in 0..15 {
            let provisional = SeriesBatch { is_final: false, ..batch(minute, minute + 1, value) };
            v.on_batch(&provisional);
            if let Step::Final(verdict) = v.step(at(minute + 3)) {
                first = Some(*verdict);
            }
        }
        let first = first.unwrap();
        assert!(!first.data_final);
        let record = Record { state: State::Final, verdict: Some(first.clone()), ..running() };
        v.on_record(record);
        assert_eq!(v.step(at(18)), Step::Wait, "its samples may change");
        (v, first)
    }

    #[test]
    fn samples_that_are_revised_after_the_verdict_revise_it() {
        let (mut v, first) = provisional(100.0);
        assert_eq!(first.outcome, Outcome::Pass);
        for minute in 0..15 {
            v.on_batch(&SeriesBatch { revision: 1, ..batch(minute, minute + 1, 300.0) });
        }
        let Step::Revised(revised) = v.step(at(20)) else { panic!("not revised") };
        assert_eq!((revised.outcome, revised.revision), (Outcome::Fail, 1));
        assert!(revised.reason.ends_with("(revised: samples have changed since)"), "{}", revised.reason);
        assert_eq!((revised.cause, revised.risk), (Cause::Regression, 1.0));
    }

    #[test]
    fn samples_that_are_read_again_and_say_the_same_settle_it() {
        let (mut v, _) = provisional(100.0);
        for minute in 0..15 {
            assert_eq!(v.step(at(19)), Step::Wait, "minute {minute} may change still");
            v.on_batch(&batch(minute, minute + 1, 100.0));
        }
        assert_eq!(v.step(at(20)), Step::Wait, "judged once more");
        assert_eq!(v.step(at(20)), Step::Settled);
    }

    #[test]
    fn what_is_never_read_again_is_settled_at_the_deadline() {
        let (mut v, _) = provisional(100.0);
        assert_eq!(v.step(v.record().deadline), Step::Settled);
    }

    #[test]
    fn an_end_that_cannot_be_revised_is_settled() {
        let mut v = with_baseline();
        let mut record = running();
        let passed = run(&mut with_baseline(), |_| 100.0);
        record.state = State::Final;
        record.verdict = Some(passed);
        v.on_record(record);
        assert_eq!(v.step(at(20)), Step::Settled);
    }

    #[test]
    fn a_weak_fail_of_the_last_minute_is_settled_at_once() {
        let late = |(onset, height): (i64, u32)| {
            let mut v = with_baseline();
            // Never enough to act without a person.
            v.settings.thresholds.rollback = 1e6;
            let high = f64::from(height);
            let verdict = run(&mut v, |minute| if minute < onset { 100.0 } else { high });
            (v, verdict)
        };
        let is_weak = |(_, verdict): &(Verification, Verdict)| {
            (verdict.failed_at_minute, verdict.rollback_grade) == (Some(15), false)
        };
        let (mut v, failed) = (5..15)
            .flat_map(|o| (104..150).map(move |h| (o, h)))
            .map(late)
            .find(is_weak)
            .expect("an onset that fails at the end only");
        let mut record = running();
        record.state = State::Final;
        record.verdict = Some(failed);
        v.on_record(record);
        assert_eq!(v.step(at(18)), Step::Settled);
    }

    #[test]
    fn whoever_takes_over_arrives_at_the_same_verdict() {
        let batches: Vec<_> = (0..15).map(|m| batch(m, m + 1, if m < 4 { 100.0 } else { 160.0 })).collect();
        let mut steady = with_baseline();
        let mut first = None;
        for (minute, b) in (0..).zip(&batches) {
            steady.on_batch(b);
            if let Step::Final(verdict) = steady.step(at(minute + 3)) {
                first = Some(*verdict);
                break;
            }
        }
        let mut late = with_baseline();
        batches.iter().rev().for_each(|b| late.on_batch(b));
        let first = first.unwrap();
        let again = verdict(late.step(first.decided_at));
        assert_eq!(again, first);
    }
}
