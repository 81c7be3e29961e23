//! From a case to a judgement: builds the detectors, shows them one step after the other, and stops at the first
//! that fails. Live and offline run this same code.

use crate::case::{Case, CaseError};
pub use crate::coverage::MIN_USABLE_MINUTES;
pub use crate::detector::Level;
use crate::dilution::Diluted;
pub use crate::ending::Ending;
use crate::replay::Replay;
use crate::sequential::Thresholds;
use crate::strategy::{self, Choice};
use vouch_proto::{Classification, CommonCause, Outcome, Reached};

/// Version of the judge: changes whenever a verdict may change.
pub const JUDGE_VERSION: &str = "1.3.0";

/// How to judge, whatever the case: how its metrics are judged is in [`Case::template`]. The defaults are those of
/// `vouch judge`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct JudgeSettings {
    /// How much evidence is asked for.
    pub thresholds: Thresholds,
    /// Leaves aside what fails without evidence or on less of it: limits, silence, sensitivity.
    pub evidence_alone: bool,
    /// Whether it may end early or late. By default at the end of the window.
    pub ending: Ending,
}

/// What is known after some minutes of a verification.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// `None` while it is undecided.
    pub outcome: Option<Outcome>,
    /// 0 to 1; exactly 1 when, and only when, it failed.
    pub risk: f64,
    /// End of the sample after which it failed, in minutes since the deployment.
    pub failed_at_minute: Option<i64>,
    /// End of the sample after which it passed before the end of the window.
    pub passed_at_minute: Option<i64>,
    /// Whether the evidence suffices to roll back without a person: [`Thresholds::rollback`].
    pub rollback_grade: bool,
    /// Whether it passed in spite of a short disturbance that has ended.
    pub transient: bool,
    /// One sentence for a release manager.
    pub reason: String,
    /// Minutes that told anything.
    pub usable_minutes: i64,
    /// Whether a metric that was not measured decided.
    pub no_data: bool,
    /// How far the evidence of all that may fail went; `None` where nothing may.
    pub reached: Option<Reached>,
    /// Each judged metric on each host, the most suspicious first.
    pub metrics: Vec<UnitResult>,
    /// The strategy that it was judged with, and why.
    pub choice: Choice,
    /// Where a canary was judged on the service as a whole.
    pub diluted: Option<Diluted>,
    /// Why a degradation is no evidence against the deployment, where it would have failed it at the last minute seen.
    pub common_cause: Option<CommonCause>,
}

/// What one metric shows on one host.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitResult {
    /// Key of the case's metrics.
    pub metric: String,
    /// Key of the case's hosts, or `*` for all new hosts together.
    pub host: String,
    /// `High` or `Low` only for a degradation that failed, or would have without a common cause.
    pub classification: Classification,
    /// 0 to 1; 1 when it failed.
    pub risk: f64,
    /// ln evidence for a degradation.
    pub score: f64,
    /// The part of it that a pretended deployment in the past reached.
    pub placebo: f64,
    /// Size of the change in the bad direction: relative, or events per trial for counts; 0 without samples.
    pub effect: f64,
    /// Its 90 % interval, in the same terms; `None` where it was not measured.
    pub interval: Option<[f64; 2]>,
    /// What was expected and what is there over the last quarter of an hour: in the metric's unit, or events per trial.
    pub level: Option<Level>,
    /// First minute of the degraded run.
    pub since_minute: Option<i64>,
    /// Whether it failed by its `fail_fast` limit, not by evidence.
    pub fail_fast: bool,
    /// One sentence.
    pub reason: String,
}

/// Judges all of a case as if live: minute by minute, until one fails or the window ends.
#[must_use]
pub fn judge(case: &Case, settings: &JudgeSettings) -> Judgement {
    judge_until(case, i64::MAX, settings)
}

/// What is known after that many minutes of the verification window. Nothing later is looked at.
#[must_use]
pub fn judge_until(case: &Case, minutes_seen: i64, settings: &JudgeSettings) -> Judgement {
    Replay::new(case, minutes_seen, settings)
        .map_or_else(|error| refused(case, &error), |replay| replay.run(&|| true))
}

/// As [`judge`]; evidence that was recorded is judged as it was then: with its settings, on the minutes that had been seen.
#[must_use]
pub fn judge_recorded(case: &Case, settings: &JudgeSettings) -> Judgement {
    judge_until(case, case.minutes_seen.unwrap_or(i64::MAX), case.judged_with.as_ref().unwrap_or(settings))
}

/// As [`judge`], for somebody who may stop waiting: once `goes_on` says no, it ends with what is known by then.
#[must_use]
pub fn judge_while(case: &Case, settings: &JudgeSettings, goes_on: &dyn Fn() -> bool) -> Judgement {
    Replay::new(case, i64::MAX, settings)
        .map_or_else(|error| refused(case, &error), |replay| replay.run(goes_on))
}

fn refused(case: &Case, error: &CaseError) -> Judgement {
    Judgement {
        outcome: Some(Outcome::Error),
        risk: 0.0,
        failed_at_minute: None,
        passed_at_minute: None,
        rollback_grade: false,
        transient: false,
        reason: format!("The case cannot be judged: {error}"),
        usable_minutes: 0,
        no_data: false,
        reached: None,
        metrics: Vec::new(),
        choice: strategy::choose(case),
        diluted: None,
        common_cause: None,
    }
}
