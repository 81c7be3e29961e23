//! From what the detectors found to the judgement: the outcome, who is to blame, and why it cannot be a Pass.

use super::{End, Failure, Replay, Unit, ln_add_near};
use crate::coverage::MIN_USABLE_MINUTES;
use crate::detector::{ALL_HOSTS, Finding};
use crate::dilution::{self, Demand, Diluted};
use crate::frame::{FrameHost, Track};
use crate::judge::{Judgement, UnitResult};
use crate::maths::ln;
use crate::no_data;
use crate::panel::{judged_metrics, smallest_effects};
use crate::reason;
use crate::rows::{ALMOST, add_silent, is_blamed, merge, row, unit_result, unit_risk};
use crate::strategy;
use vouch_proto::{Classification, Direction, Outcome, Reached};

/// What was shown, and what it adds up to.
struct Rows {
    metrics: Vec<UnitResult>,
    transient: bool,
    /// ln of the average evidence with the sensitivities, and without.
    total: f64,
    unmoved: f64,
}

impl Replay<'_> {
    pub(super) fn conclude(&self, steps: usize, end: &End) -> Judgement {
        let failure = end.failure();
        let (failed, excluded) = (failure.is_some(), matches!(end, End::Excluded));
        let is_end = self.is_end(steps);
        let usable_minutes = self.coverage.usable_minutes(steps);
        let Rows { metrics, transient, total, unmoved } = self.rows(failure, is_end);
        let risk = metrics.first().map_or(0.0, |unit| unit.risk);
        let cause = self.no_pass(steps, usable_minutes);
        let common_cause = self.explained.as_ref().map(|known| known.cause.clone());
        let is_over = !self.units(None).any(|one| self.is_explained(&one, &self.finding(&one)));
        let outcome = match (failed, is_end || excluded, &cause) {
            (true, _, _) => Some(Outcome::Fail),
            (false, false, _) => None,
            (false, true, _) if common_cause.is_some() => Some(Outcome::Inconclusive),
            (false, true, Some(_)) => Some(Outcome::Inconclusive),
            (false, true, None) => Some(Outcome::Pass),
        };
        let failed_at_minute = failed.then(|| self.minute_of(steps));
        let mut judgement = Judgement {
            outcome,
            risk,
            failed_at_minute,
            passed_at_minute: excluded.then(|| self.minute_of(steps)),
            rollback_grade: self.is_rollback_grade(failure),
            reached: self.reached(failure, (total, unmoved), is_end),
            transient: transient && outcome == Some(Outcome::Pass),
            no_data: matches!(failure, Some(Failure::Silence(_)))
                || (outcome == Some(Outcome::Inconclusive) && cause.as_ref().is_some_and(|why| why.no_data)),
            reason: match end {
                End::Excluded => reason::of_early_pass(metrics.first(), usable_minutes),
                End::Failed(_) | End::Seen => {
                    let why = common_cause
                        .as_ref()
                        .map(|cause| reason::of_common_cause(metrics.first(), cause, is_over));
                    let why = why.or_else(|| cause.map(|why| why.text));
                    reason::of_case(outcome, why, metrics.first(), usable_minutes)
                }
            },
            usable_minutes,
            metrics,
            choice: strategy::choose(self.case),
            diluted: None,
            common_cause,
        };
        if let Some(diluted) = self.dilution() {
            dilution::label(&mut judgement, self.case, diluted);
        }
        judgement
    }

    /// Whether a unit would fail it now, and something else explains that.
    fn is_explained(&self, one: &Unit<'_>, finding: &Finding) -> bool {
        let known = self.explained.as_ref().is_some_and(|known| known.units.contains(&one.place()));
        known && finding.may_fail
    }

    /// How near a unit is to failing, and whether it is to blame that it failed.
    fn risk(&self, one: &Unit<'_>, finding: &Finding, failure: Option<&Failure>, is_end: bool) -> f64 {
        if one.seat.settings.muted {
            return 0.0;
        }
        if let Some(Failure::Evidence { of, total, .. }) = failure {
            let weights =
                of.and_then(|of| self.budget.critical.get(of)).map_or(&self.budget.average, |(_, w)| w);
            if is_blamed(finding, weights.of(one.at, one.unit) - one.seat.extra(), *total) {
                return 1.0;
            }
        }
        let alone = self.budget.critical.iter().map(|(_, weights)| weights.of(one.at, one.unit));
        let ln_weight = alone.fold(one.ln_weight, f64::max) - one.seat.extra();
        unit_risk(finding, self.thresholds.risk(finding.ln_evidence, ln_weight, is_end))
    }

    const fn minute_of(&self, step: usize) -> i64 {
        self.case.verification[0] + step as i64 * self.case.interval_min
    }

    /// What each metric showed on each host, the most suspicious first.
    fn rows(&self, failure: Option<&Failure>, is_end: bool) -> Rows {
        let mut metrics: Vec<UnitResult> = Vec::new();
        let mut transient = false;
        let (mut total, mut unmoved) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for one in self.units(None) {
            let finding = self.finding(&one);
            if finding.may_fail && one.ln_weight > f64::NEG_INFINITY {
                total = ln_add_near(total, finding.ln_evidence + one.pull());
                unmoved = ln_add_near(unmoved, finding.ln_evidence + one.ln_weight);
            }
            let is_explained = self.is_explained(&one, &finding);
            let risk = if is_explained { 1.0 } else { self.risk(&one, &finding, failure, is_end) };
            transient |= finding.transient && !one.seat.settings.muted;
            for metric in &finding.metrics {
                let unit = self.case.metrics.get(metric).map_or("", |metric| metric.unit.as_str());
                let since = finding.since.map(|step| self.minute_of(step));
                let mut result = unit_result((metric, unit), &finding, risk, since);
                if one.seat.settings.muted {
                    result.reason = format!("muted: {}", result.reason);
                }
                if is_explained {
                    result.risk = ALMOST;
                    result.reason.push_str("; other services share the cause");
                }
                merge(&mut metrics, result);
            }
        }
        add_silent(&mut metrics, self.case);
        self.blame(&mut metrics, failure);
        metrics.sort_by(|a, b| {
            b.risk.total_cmp(&a.risk).then_with(|| a.metric.cmp(&b.metric)).then_with(|| a.host.cmp(&b.host))
        });
        Rows { metrics, transient, total, unmoved }
    }

    /// How far a canary is diluted, and what could be found of it.
    fn dilution(&self) -> Option<Diluted> {
        let share = strategy::dilution(self.case)?;
        let counted = self.seats.iter().filter(|seat| !seat.settings.muted);
        let questions: f64 = counted.map(|seat| seat.detector.questions()).sum();
        let nats = self.thresholds.fail_at_end + ln(questions.max(1.0));
        let demand = Demand { nats, share };
        Some(Diluted { share, smallest: smallest_effects(self.case, &self.frame, &self.template, demand) })
    }

    fn is_rollback_grade(&self, failure: Option<&Failure>) -> bool {
        match failure {
            Some(Failure::Evidence { unmoved, .. }) => *unmoved >= self.thresholds.rollback,
            Some(Failure::Limit(_) | Failure::Silence(_)) | None => false,
        }
    }

    /// How far the evidence went: what failed it, else the average of all.
    fn reached(&self, failure: Option<&Failure>, average: (f64, f64), is_end: bool) -> Option<Reached> {
        let (evidence, rollback_evidence) = match failure {
            Some(Failure::Evidence { total, unmoved, .. }) => (*total, *unmoved),
            Some(Failure::Limit(_) | Failure::Silence(_)) | None => average,
        };
        let needed = self.thresholds.now(is_end);
        let reached = Reached { evidence, needed, rollback_evidence };
        (evidence.is_finite() && rollback_evidence.is_finite()).then_some(reached)
    }

    /// Names what failed other than by the evidence of its units, and says where a metric decided alone.
    fn blame(&self, metrics: &mut Vec<UnitResult>, failure: Option<&Failure>) {
        match failure {
            None | Some(Failure::Evidence { of: None, .. }) => {}
            Some(Failure::Evidence { of: Some(_), .. }) => {
                for unit in metrics.iter_mut().filter(|unit| unit.risk >= 1.0) {
                    unit.reason.push_str("; the metric is critical and decides alone");
                }
            }
            Some(Failure::Limit(crossing)) => {
                let classification = match crossing.direction {
                    Direction::Decrease => Classification::Low,
                    Direction::Increase | Direction::Either | Direction::None => Classification::High,
                };
                let unit = row(metrics, &crossing.metric, &crossing.host);
                unit.reason.clone_from(&crossing.reason);
                (unit.classification, unit.risk) = (classification, 1.0);
                (unit.effect, unit.fail_fast) = (crossing.effect, true);
            }
            Some(Failure::Silence(metric)) => {
                let unit = row(metrics, metric, ALL_HOSTS);
                unit.risk = 1.0;
                unit.reason =
                    format!("{metric} has no sample after the deployment, which fails it (on_no_data)");
            }
        }
    }

    /// Why this cannot be a Pass.
    pub(super) fn no_pass(&self, steps: usize, usable_minutes: i64) -> Option<NoPass> {
        let because = |text: String| Some(NoPass { text, no_data: false });
        if let Some(barred) = &self.case.barred {
            return because(barred.clone());
        }
        let judged = judged_metrics(self.case, &self.template);
        if judged.is_empty() {
            return because("no metric is judged: all are context or muted".to_owned());
        }
        if self.seats.iter().all(|seat| seat.settings.muted) {
            return because(
                "no judged metric has any sample before the deployment to compare with".to_owned(),
            );
        }
        if usable_minutes < MIN_USABLE_MINUTES {
            return because(format!(
                "only {usable_minutes} usable minutes were measured, at least {MIN_USABLE_MINUTES} are needed"
            ));
        }
        if self.coverage.ends_without_traffic(steps) {
            return because("the window ends without traffic".to_owned());
        }
        if self.coverage.ends_in_silence(steps) {
            return because("nothing usable was measured in the last minutes of the window".to_owned());
        }
        if let Some(metric) = no_data::inconclusive(self.case, &self.frame, &self.template) {
            let text = format!("{metric} has no sample after the deployment");
            return Some(NoPass { text, no_data: true });
        }
        let unreferenced = judged.into_iter().find(|metric| self.is_unreferenced(metric))?;
        because(format!("{unreferenced} has samples after the deployment and none to compare them with"))
    }

    /// Whether a metric was measured on the new version and there is nothing to say what it should have been.
    fn is_unreferenced(&self, metric: &str) -> bool {
        let is_live = |track: &Track| track.live.iter().any(|v| v.is_finite());
        let tracks = |hosts: &[FrameHost]| -> Vec<&Track> {
            hosts.iter().filter_map(|host| self.frame.track(metric, &host.name)).collect()
        };
        let (new, controls) = (tracks(&self.frame.new_hosts), tracks(&self.frame.controls));
        let measured = new.iter().any(|track| is_live(track));
        measured && !new.iter().any(|t| t.has_past()) && !controls.iter().any(|t| is_live(t) || t.has_past())
    }
}

/// Why it cannot be a Pass.
pub(super) struct NoPass {
    text: String,
    /// Because a metric was not measured.
    no_data: bool,
}
