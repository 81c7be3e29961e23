//! Trouble of something that services call: what each of them feels, and the problem that Dynatrace opens.

use super::effect::{Effect, Impact};
use super::spec::{ScenarioError, invalid};
use super::topology::Topology;
use crate::time::MINUTE;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Farthest from the scenario's start, in minutes; two hundred years.
const MINUTES_LIMIT: f64 = 1e8;

/// An incident of a scenario.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentSpec {
    /// Minutes since the scenario's start.
    pub at_minutes: f64,
    /// When it ends; never where absent.
    #[serde(default)]
    pub until_minutes: Option<f64>,
    /// The service or dependency that is in trouble.
    pub on: String,
    /// What that does to it and to those who call it.
    pub effect: Effect,
    /// How much of it a service feels, 0..=1; all of it where absent.
    #[serde(default)]
    pub shares: BTreeMap<String, f64>,
    /// The problem that Dynatrace opens.
    #[serde(default)]
    pub problem: Option<ProblemSpec>,
}

/// A problem that Dynatrace opens because of an incident.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProblemSpec {
    /// Its title; Dynatrace's own for this kind of trouble where absent.
    pub title: Option<String>,
    /// Minutes from the incident's beginning until it is detected.
    pub after_minutes: f64,
}

impl Default for ProblemSpec {
    fn default() -> Self {
        Self { title: None, after_minutes: 3.0 }
    }
}

/// An incident at run time.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// The service or dependency that is in trouble.
    pub on: String,
    /// When it begins, epoch milliseconds.
    pub at_ms: i64,
    /// When it ends; never where absent.
    pub until_ms: Option<i64>,
    /// What that does to it and to those who call it.
    pub effect: Effect,
    /// How much of it a service feels, 0..=1; all of it where absent.
    pub shares: BTreeMap<String, f64>,
    /// The problem that Dynatrace opens.
    pub problem: Option<ProblemSpec>,
}

/// What one service feels of an incident.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Felt {
    at_ms: i64,
    until_ms: Option<i64>,
    effect: Effect,
}

/// A problem as Dynatrace shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProblemNote {
    /// Its title.
    pub(crate) title: String,
    /// `PERFORMANCE` or `ERROR`.
    pub(crate) severity: &'static str,
    /// Name of what is in trouble.
    pub(crate) root: String,
    /// Names of the services that are hit.
    pub(crate) affected: Vec<String>,
    /// When the trouble began, epoch milliseconds.
    pub(crate) start_ms: i64,
    /// When it is detected.
    pub(crate) detected_ms: i64,
    /// When it ends.
    pub(crate) end_ms: Option<i64>,
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "minutes of a scenario")]
fn to_ms(minutes: f64) -> i64 {
    (minutes * MINUTE as f64) as i64
}

impl IncidentSpec {
    /// The incident in its place in time.
    ///
    /// # Errors
    /// Where a time is no number of minutes, or the end is not after the beginning.
    pub(super) fn starting_at(
        &self,
        start_ms: i64,
        at: &dyn Fn(&str) -> String,
    ) -> Result<Incident, ScenarioError> {
        for (field, minutes) in [("at_minutes", Some(self.at_minutes)), ("until_minutes", self.until_minutes)]
        {
            match minutes {
                Some(m) if !(-MINUTES_LIMIT..=MINUTES_LIMIT).contains(&m) => {
                    let message = format!("{m} is not within -{MINUTES_LIMIT} to {MINUTES_LIMIT}");
                    return Err(invalid(at(field), message));
                }
                _ => {}
            }
        }
        if let Some(until) = self.until_minutes
            && until <= self.at_minutes
        {
            let message = format!("{until} is not after `at_minutes`, {}", self.at_minutes);
            return Err(invalid(at("until_minutes"), message));
        }
        Ok(Incident {
            on: self.on.clone(),
            at_ms: start_ms + to_ms(self.at_minutes),
            until_ms: self.until_minutes.map(|minutes| start_ms + to_ms(minutes)),
            effect: self.effect.clone(),
            shares: self.shares.clone(),
            problem: self.problem.clone(),
        })
    }
}

impl Incident {
    /// An incident without an end, felt in full, of which Dynatrace opens no problem.
    #[must_use]
    pub fn new(on: impl Into<String>, at_ms: i64, effect: Effect) -> Self {
        let (until_ms, shares, problem) = (None, BTreeMap::new(), None);
        Self { on: on.into(), at_ms, until_ms, effect, shares, problem }
    }

    /// Whether it is possible in a topology.
    pub(super) fn check(
        &self,
        topology: &Topology,
        at: &dyn Fn(&str) -> String,
    ) -> Result<(), ScenarioError> {
        if !topology.knows(&self.on) {
            return Err(invalid(at("on"), topology.unknown(&self.on)));
        }
        let hit: Vec<&str> = topology.hit_by(&self.on).map(|(_, name)| name).collect();
        if hit.is_empty() {
            return Err(invalid(at("on"), format!("no service calls `{}`, so that none is hit", self.on)));
        }
        check_kind(&self.effect).map_err(|message| invalid(at("effect.kind"), message))?;
        let checked = self.effect.check(&[]);
        checked.map_err(|(field, message)| invalid(at(&format!("effect.{field}")), message))?;
        for (service, share) in &self.shares {
            let field = || at(&format!("shares.{service}"));
            if !hit.contains(&service.as_str()) {
                let message = format!("`{service}` is not hit by `{}`; hit are {}", self.on, hit.join(", "));
                return Err(invalid(field(), message));
            }
            if !(0.0..=1.0).contains(share) {
                return Err(invalid(field(), format!("{share} is not within 0 to 1; it is a share")));
            }
        }
        if self.until_ms.is_some_and(|until| until <= self.at_ms) {
            return Err(invalid(at("until_ms"), "is not after the beginning"));
        }
        self.problem.as_ref().map_or(Ok(()), |problem| self.check_problem(problem, at))
    }

    fn check_problem(&self, problem: &ProblemSpec, at: &dyn Fn(&str) -> String) -> Result<(), ScenarioError> {
        let after = problem.after_minutes;
        if !(0.0..=MINUTES_LIMIT).contains(&after) {
            let message = format!("{after} is not within 0 to {MINUTES_LIMIT}");
            return Err(invalid(at("problem.after_minutes"), message));
        }
        if self.until_ms.is_some_and(|until| until <= self.at_ms.saturating_add(to_ms(after))) {
            let message = format!("the incident is over before {after} minutes; detect it earlier");
            return Err(invalid(at("problem.after_minutes"), message));
        }
        if problem.title.as_ref().is_some_and(|title| title.trim().is_empty()) {
            return Err(invalid(at("problem.title"), "is empty; leave it out for Dynatrace's own"));
        }
        Ok(())
    }

    /// What the services feel, by their index.
    pub(super) fn felt(&self, topology: &Topology) -> Vec<(usize, Felt)> {
        let felt = topology.hit_by(&self.on).map(|(index, name)| {
            let share = self.shares.get(name).copied().unwrap_or(1.0);
            let effect = shared(&self.effect, share);
            (index, Felt { at_ms: self.at_ms, until_ms: self.until_ms, effect })
        });
        felt.collect()
    }

    /// The problem that Dynatrace opens, if it does.
    pub(super) fn note(&self, topology: &Topology) -> Option<ProblemNote> {
        let problem = self.problem.as_ref()?;
        let (title, severity) = if matches!(self.effect, Effect::ErrorStep { .. }) {
            ("Failure rate increase", "ERROR")
        } else {
            ("Response time degradation", "PERFORMANCE")
        };
        Some(ProblemNote {
            title: problem.title.clone().unwrap_or_else(|| title.to_owned()),
            severity,
            root: self.on.clone(),
            affected: topology.hit_by(&self.on).map(|(_, name)| name.to_owned()).collect(),
            start_ms: self.at_ms,
            detected_ms: self.at_ms.saturating_add(to_ms(problem.after_minutes)),
            end_ms: self.until_ms,
        })
    }
}

impl Felt {
    /// The impact on a host in the minute that begins at `at`.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a minute")]
    pub(super) fn impact(&self, host: &str, at: i64) -> Impact {
        let end = at + MINUTE;
        let covered = end.min(self.until_ms.unwrap_or(i64::MAX)).saturating_sub(at.max(self.at_ms));
        if covered <= 0 {
            return Impact::NONE;
        }
        let age_minutes = end.saturating_sub(self.at_ms) as f64 / MINUTE as f64;
        // Incidents have no effect of chance.
        self.effect.impact(host, age_minutes, 1.0).partly(covered as f64 / MINUTE as f64)
    }
}

/// Whether something in trouble can do this to those who call it.
fn check_kind(effect: &Effect) -> Result<(), String> {
    if matches!(effect, Effect::LatencyStep { .. } | Effect::LatencyRamp { .. } | Effect::ErrorStep { .. }) {
        return Ok(());
    }
    let kind = serde_json::to_value(effect).unwrap_or_default();
    let kind = kind["kind"].as_str().unwrap_or_default();
    Err(format!("`{kind}` is for deployments; an incident has latency_step, latency_ramp or error_step"))
}

/// A part of an effect: a power of factors, a share of rates.
fn shared(effect: &Effect, share: f64) -> Effect {
    let mut effect = effect.clone();
    if let Effect::LatencyStep { factor } | Effect::LatencyRamp { factor, .. } = &mut effect {
        *factor = libm::pow(*factor, share);
    }
    if let Effect::ErrorStep { rate } = &mut effect {
        *rate *= share;
    }
    effect
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let factor = Effect::LatencyRamp { factor: 4.0, minutes: 5.0 };
        assert_eq!(shared(&factor, 0.5), Effect::LatencyRamp { factor: 2.0, minutes: 5.0 });
        assert_eq!(shared(&factor, 0.0), Effect::LatencyRamp { factor: 1.0, minutes: 5.0 });
        assert_eq!(shared(&Effect::ErrorStep { rate: 0.2 }, 0.5), Effect::ErrorStep { rate: 0.1 });
    }

    #[test]
    fn minutes_are_covered_in_part_or_not_at_all() {
        let effect = Effect::LatencyStep { factor: 3.0 };
        let latency =
            |at_ms, until_ms| Felt { at_ms, until_ms, effect: effect.clone() }.impact("h", MINUTE).latency;
        for (at_ms, until_ms, expected) in [
            (MINUTE, None, 3.0),
            (MINUTE + 30_000, None, 2.0),
            (MINUTE + 15_000, Some(MINUTE + 30_000), 1.5),
            (2 * MINUTE, None, 1.0),
            (0, Some(MINUTE), 1.0),
            (i64::MIN, Some(i64::MAX), 3.0),
            (i64::MIN, Some(i64::MIN + 1), 1.0),
            (i64::MAX, None, 1.0),
        ] {
            let got: f64 = latency(at_ms, until_ms);
            assert!((got - expected).abs() < 1e-12, "{at_ms} {until_ms:?}: {got}");
        }
    }
}
