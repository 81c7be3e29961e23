//! What went on around a deployment: other services, the source's own problems, and what the references left out.

use crate::convert::text;
use crate::{Invalid, Name, Relation, Series, Timestamp, Window, time, v1};

/// Another service, as it was collected over the window of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    /// The service.
    pub service: Name,
    /// How it is related to the batch's service.
    pub relation: Relation,
    /// Names of what both of them call.
    pub shares: Vec<String>,
    /// When it was deployed itself, the last time that is known of.
    pub deployed_at: Option<Timestamp>,
    /// Its series, of the service as a whole.
    pub series: Vec<Series>,
}

/// A problem that the source has found by itself, of which the deployed service is a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As people know it, e.g. `P-2608338`.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// Name of what the source holds to be its root.
    pub root_cause: Option<String>,
    /// Whether that root is neither the deployed service nor what it runs on.
    pub elsewhere: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; `None` while it is open.
    pub ended_at: Option<Timestamp>,
    /// When the source was first seen to tell of it.
    pub known_at: Timestamp,
}

/// An objective of the service, as the source evaluates it.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The source's own id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What is to be reached, percent.
    pub target: f64,
    /// Below it the source warns, percent.
    pub warning: Option<f64>,
    /// What is reached, percent; `None` where the source cannot tell.
    pub reached: Option<f64>,
    /// What is left of the budget of errors, percent; below 0 it is overspent.
    pub error_budget: Option<f64>,
    /// Why it could not be evaluated.
    pub error: Option<String>,
    /// The time that it is evaluated over.
    pub timeframe: Option<Window>,
    /// When the source said so.
    pub told_at: Timestamp,
}

impl Objective {
    /// Whether less is reached than is to be.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.reached.is_some_and(|reached| reached < self.target)
    }

    /// One line for a person.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { name, target, .. } = self;
        let Some(reached) = self.reached else {
            let why = self.error.as_deref().unwrap_or("no value");
            return format!("objective {name}: cannot be told ({why})");
        };
        let word = if self.is_missed() { "missed" } else { "met" };
        let budget = self.error_budget.map(|left| format!(", {left:.0} % of the error budget left"));
        format!("objective {name}: {word}, {reached:.2} % of {target} %{}", budget.unwrap_or_default())
    }
}

/// A service that degraded alike without a deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Witness {
    /// Its name.
    pub service: String,
    /// The metric that degraded.
    pub metric: String,
    /// Relative change in the bad direction; absolute for ratios of errors.
    pub effect: f64,
    /// Minute of the verification since which it did.
    pub since_minute: u32,
}

/// Why a degradation is no evidence against the deployment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CommonCause {
    /// For a person, e.g. `3 of 4 other services that call orders-db ... degrade alike`.
    pub text: String,
    /// The services that degraded alike.
    pub witnesses: Vec<Witness>,
    /// How many services were looked at that could have.
    pub asked: u32,
    /// The dependency that the witnesses share with the deployed service, where it is that.
    pub shares: Option<String>,
    /// The source's own problems whose root lies elsewhere.
    pub problems: Vec<String>,
}

/// A time that the references left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The time.
    pub window: Window,
    /// Why, for a person.
    pub why: String,
}

impl TryFrom<v1::Problem> for Problem {
    type Error = Invalid;

    fn try_from(p: v1::Problem) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let started_at = invalid.check("started_at", time::required(p.started_at));
        let ended_at = invalid.check("ended_at", p.ended_at.map(Timestamp::try_from).transpose());
        let known_at = invalid.check("known_at", time::required(p.known_at));
        match (started_at, ended_at, known_at) {
            (Some(started_at), Some(ended_at), Some(known_at)) => Ok(Self {
                id: p.id,
                title: p.title,
                root_cause: text(p.root_cause),
                elsewhere: p.elsewhere,
                started_at,
                ended_at,
                known_at,
            }),
            _ => Err(invalid),
        }
    }
}

impl From<Problem> for v1::Problem {
    fn from(p: Problem) -> Self {
        Self {
            id: p.id,
            title: p.title,
            root_cause: p.root_cause.unwrap_or_default(),
            elsewhere: p.elsewhere,
            started_at: Some(p.started_at.into()),
            ended_at: p.ended_at.map(Into::into),
            known_at: Some(p.known_at.into()),
        }
    }
}

impl TryFrom<v1::Objective> for Objective {
    type Error = Invalid;

    fn try_from(o: v1::Objective) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let told_at = invalid.check("told_at", time::required(o.told_at));
        let timeframe = invalid.check("timeframe", o.timeframe.map(Window::try_from).transpose());
        for (field, value) in [
            ("target", Some(o.target)),
            ("warning", o.warning),
            ("reached", o.reached),
            ("error_budget", o.error_budget),
        ] {
            if value.is_some_and(|value| !value.is_finite()) {
                invalid.push(field, "is no finite number");
            }
        }
        match (told_at, timeframe) {
            (Some(told_at), Some(timeframe)) if invalid.violations.is_empty() => Ok(Self {
                id: o.id,
                name: o.name,
                target: o.target,
                warning: o.warning,
                reached: o.reached,
                error_budget: o.error_budget,
                error: text(o.error),
                timeframe,
                told_at,
            }),
            _ => Err(invalid),
        }
    }
}

impl From<Objective> for v1::Objective {
    fn from(o: Objective) -> Self {
        Self {
            id: o.id,
            name: o.name,
            target: o.target,
            warning: o.warning,
            reached: o.reached,
            error_budget: o.error_budget,
            error: o.error.unwrap_or_default(),
            timeframe: o.timeframe.map(Into::into),
            told_at: Some(o.told_at.into()),
        }
    }
}

impl From<v1::Witness> for Witness {
    fn from(w: v1::Witness) -> Self {
        Self { service: w.service, metric: w.metric, effect: w.effect, since_minute: w.since_minute }
    }
}

impl From<Witness> for v1::Witness {
    fn from(w: Witness) -> Self {
        Self { service: w.service, metric: w.metric, effect: w.effect, since_minute: w.since_minute }
    }
}

impl From<v1::CommonCause> for CommonCause {
    fn from(c: v1::CommonCause) -> Self {
        let witnesses = c.witnesses.into_iter().map(Into::into).collect();
        Self { text: c.text, witnesses, asked: c.asked, shares: text(c.shares), problems: c.problems }
    }
}

impl From<CommonCause> for v1::CommonCause {
    fn from(c: CommonCause) -> Self {
        let witnesses = c.witnesses.into_iter().map(Into::into).collect();
        let shares = c.shares.unwrap_or_default();
        Self { text: c.text, witnesses, asked: c.asked, shares, problems: c.problems }
    }
}

impl TryFrom<v1::LeftOut> for LeftOut {
    type Error = Invalid;

    fn try_from(l: v1::LeftOut) -> Result<Self, Invalid> {
        let missing = || Invalid::field("window", "is missing");
        Ok(Self { window: l.window.ok_or_else(missing)?.try_into()?, why: l.why })
    }
}

impl From<LeftOut> for v1::LeftOut {
    fn from(l: LeftOut) -> Self {
        Self { window: Some(l.window.into()), why: l.why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let at: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let problem = Problem {
            id: "P-1".into(),
            title: "Response time degradation".into(),
            root_cause: None,
            elsewhere: false,
            started_at: at,
            ended_at: Some(at.plus_minutes(4)),
            known_at: at.plus_minutes(2),
        };
        assert_eq!(Problem::try_from(v1::Problem::from(problem.clone())), Ok(problem));
        let refused = Problem::try_from(v1::Problem::default()).unwrap_err().to_string();
        assert!(refused.contains("started_at") && refused.contains("known_at"), "{refused}");

        let left_out = LeftOut { window: Window::around(at, -60, -30).unwrap(), why: "2.0 failed".into() };
        assert_eq!(LeftOut::try_from(v1::LeftOut::from(left_out.clone())), Ok(left_out));
        assert!(LeftOut::try_from(v1::LeftOut::default()).is_err());
        for relation in Relation::ALL {
            assert_eq!(relation.as_str().parse(), Ok(*relation));
            assert_eq!(Relation::from_wire(relation.to_wire()), Ok(*relation));
        }
        assert!("friend".parse::<Relation>().unwrap_err().to_string().contains("unrelated, caller, callee"));
    }
}
