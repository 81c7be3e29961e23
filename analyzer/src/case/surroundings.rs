//! What went on around a deployment: other services, open problems, and times that the references must leave out.

use super::json::{self, RawMetric, RawSeries};
use super::{Case, CaseError, HostGroup, MAX_MINUTE};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use vouch_proto::{Relation, Strategy, UnknownWord};

/// Most other services that are looked at.
pub const MAX_NEIGHBOURS: usize = 20;
/// Most dependencies that a neighbour shares with the service.
const MAX_SHARED: usize = 20;
/// Most problems, and most times that are left out.
const MAX_NOTES: usize = 100;

/// Another service, over the same windows as the deployed one.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    /// Name of the service.
    pub name: String,
    /// How it is related to the deployed one.
    pub relation: Relation,
    /// What both of them call: names of databases, queues, services.
    pub shares: BTreeSet<String>,
    /// Minute at which it was deployed itself, the last time.
    pub deployed_at: Option<i64>,
    /// Its telemetry, as if it had been deployed at the same time: strategy `previous`, one host.
    pub case: Case,
}

/// A problem that the source has found by itself, of which the deployed service is a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As people know it, e.g. `P-2608338`.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// Name of what the source holds to be its root; empty where it has found none.
    pub root_cause: String,
    /// Whether that root is neither the deployed service nor what it runs on.
    pub elsewhere: bool,
    /// Minute at which it began.
    pub start: i64,
    /// Minute at which it ended; `None` while it is open.
    pub end: Option<i64>,
    /// Minute from which the source told of it.
    pub known_at: i64,
}

/// A time that says nothing about the service as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Minutes `[start, end)`, before the verification.
    pub window: [i64; 2],
    /// Why, for a person.
    pub why: String,
}

#[derive(Deserialize)]
pub(super) struct RawNeighbour {
    name: Option<String>,
    relation: Option<String>,
    #[serde(default)]
    shares: BTreeSet<String>,
    deployed_at: Option<i64>,
    metrics: Option<BTreeMap<String, RawMetric>>,
    series: Option<Vec<RawSeries>>,
}

#[derive(Deserialize)]
pub(super) struct RawProblem {
    id: Option<String>,
    #[serde(default)]
    title: String,
    #[serde(default)]
    root_cause: String,
    elsewhere: Option<bool>,
    start: Option<i64>,
    end: Option<i64>,
    known_at: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct RawLeftOut {
    window: Option<[i64; 2]>,
    #[serde(default)]
    why: String,
}

/// Host under which a neighbour is measured as a whole.
const WHOLE: &str = "service";

impl Neighbour {
    /// A neighbour of `case` without telemetry yet: the same windows, one host.
    #[must_use]
    pub fn of(case: &Case, name: impl Into<String>, relation: Relation) -> Self {
        let name = name.into();
        let mut own = Case::new(name.clone(), Strategy::Previous, case.interval_min, case.verification);
        own.baseline.clone_from(&case.baseline);
        let case = own.with_host(WHOLE, HostGroup::Service, None);
        Self { name, relation, shares: BTreeSet::new(), deployed_at: None, case }
    }

    /// Notes a dependency that both call.
    #[must_use]
    pub fn sharing(mut self, dependency: impl Into<String>) -> Self {
        self.shares.insert(dependency.into());
        self
    }

    /// Adds samples of a metric of its case.
    #[must_use]
    pub fn with_series(mut self, metric: &str, start: i64, values: Vec<Option<f64>>) -> Self {
        self.case = self.case.with_series(metric, WHOLE, start, values);
        self
    }
}

/// Reads the neighbours of a case whose windows are known.
pub(super) fn neighbours(raw: Vec<RawNeighbour>, case: &Case) -> Result<Vec<Neighbour>, CaseError> {
    let read = |(i, raw): (usize, RawNeighbour)| {
        let path = |field: &str| format!("neighbours[{i}].{field}");
        let within = |error: CaseError| CaseError::new(path(&error.field), error.message);
        let word = json::required(raw.relation, &path("relation"), "`unrelated`, `caller` or `callee`")?;
        let relation: Relation = word
            .parse()
            .map_err(|unknown: UnknownWord| CaseError::new(path("relation"), unknown.to_string()))?;
        let name = json::required(raw.name, &path("name"), "the name of the service")?;
        let mut one = Neighbour::of(case, name, relation);
        (one.shares, one.deployed_at) = (raw.shares, raw.deployed_at);
        let metrics = json::required(raw.metrics, &path("metrics"), "an object of metrics")?;
        one.case.metrics = json::metrics(metrics).map_err(within)?;
        let mut series = json::required(raw.series, &path("series"), "a list of series")?;
        for one in &mut series {
            one.host.get_or_insert_with(|| WHOLE.to_owned());
        }
        one.case.series = json::series(series).map_err(within)?;
        Ok(one)
    };
    raw.into_iter().enumerate().map(read).collect()
}

pub(super) fn problems(raw: Vec<RawProblem>) -> Result<Vec<Problem>, CaseError> {
    let read = |(i, raw): (usize, RawProblem)| {
        let path = |field: &str| format!("problems[{i}].{field}");
        let start = json::required(raw.start, &path("start"), "the minute at which it began")?;
        Ok(Problem {
            id: json::required(raw.id, &path("id"), "a text")?,
            title: raw.title,
            root_cause: raw.root_cause,
            elsewhere: json::required(raw.elsewhere, &path("elsewhere"), "true or false")?,
            start,
            end: raw.end,
            known_at: raw.known_at.unwrap_or(start),
        })
    };
    raw.into_iter().enumerate().map(read).collect()
}

pub(super) fn left_out(raw: Vec<RawLeftOut>) -> Result<Vec<LeftOut>, CaseError> {
    let read = |(i, raw): (usize, RawLeftOut)| {
        let field = format!("left_out[{i}].window");
        Ok(LeftOut { window: json::required(raw.window, &field, "minutes `[start, end]`")?, why: raw.why })
    };
    raw.into_iter().enumerate().map(read).collect()
}

/// What all of it must fulfil.
pub(super) fn check(case: &Case) -> Result<(), CaseError> {
    let refuse = |field: String, value: &str, expected: &str| {
        Err(CaseError::new(field, format!("is {value}, give {expected}")))
    };
    let lengths = [
        ("neighbours", case.neighbours.len(), MAX_NEIGHBOURS),
        ("problems", case.problems.len(), MAX_NOTES),
        ("left_out", case.left_out.len(), MAX_NOTES),
    ];
    for (field, length, most) in lengths {
        if length > most {
            return refuse(field.to_owned(), &format!("{length} long"), &format!("at most {most}"));
        }
    }
    let far = |minute: i64| minute.unsigned_abs() > MAX_MINUTE.unsigned_abs();
    let within = format!("a minute within {MAX_MINUTE} of the deployment");
    let mut names = BTreeSet::new();
    for (i, one) in case.neighbours.iter().enumerate() {
        let path = |field: &str| format!("neighbours[{i}].{field}");
        if !names.insert(&one.name) {
            return refuse(path("name"), &format!("`{}` again", one.name), "each service once");
        }
        if one.shares.len() > MAX_SHARED {
            let most = format!("at most {MAX_SHARED}");
            return refuse(path("shares"), &format!("{} long", one.shares.len()), &most);
        }
        if let Some(minute) = one.deployed_at.filter(|minute| far(*minute)) {
            return refuse(path("deployed_at"), &minute.to_string(), &within);
        }
        if !one.case.neighbours.is_empty() {
            return refuse(path("neighbours"), "set", "none: neighbours have no neighbours");
        }
        one.case.validate().map_err(|error| CaseError::new(path(&error.field), error.message))?;
    }
    for (i, one) in case.problems.iter().enumerate() {
        let ends = one.end.unwrap_or(one.start);
        if let Some(minute) = [one.start, ends, one.known_at].into_iter().find(|minute| far(*minute)) {
            return refuse(format!("problems[{i}]"), &format!("at minute {minute}"), &within);
        }
        if ends < one.start {
            return refuse(format!("problems[{i}].end"), &ends.to_string(), "a minute from its start on");
        }
    }
    for (i, one) in case.left_out.iter().enumerate() {
        let [start, end] = one.window;
        if far(start) || far(end) || start >= end || end > case.verification[0] {
            let expected = "minutes `[start, end]` before the verification";
            return refuse(format!("left_out[{i}].window"), &format!("[{start}, {end}]"), expected);
        }
    }
    Ok(())
}

/// The fields of a case that are about its surroundings, as they are read; those that are empty are left away.
pub(super) fn write(case: &Case) -> [(&'static str, Option<Value>); 3] {
    let list = |values: Vec<Value>| (!values.is_empty()).then_some(Value::Array(values));
    [
        ("neighbours", list(case.neighbours.iter().map(of_neighbour).collect())),
        ("problems", list(case.problems.iter().map(of_problem).collect())),
        ("left_out", list(case.left_out.iter().map(of_left_out).collect())),
    ]
}

fn of_neighbour(one: &Neighbour) -> Value {
    let own: Map<String, Value> = one.case.to_json();
    json!({
        "name": one.name,
        "relation": one.relation.as_str(),
        "shares": one.shares,
        "deployed_at": one.deployed_at,
        "metrics": own.get("metrics"),
        "series": own.get("series"),
    })
}

fn of_problem(one: &Problem) -> Value {
    json!({
        "id": one.id,
        "title": one.title,
        "root_cause": one.root_cause,
        "elsewhere": one.elsewhere,
        "start": one.start,
        "end": one.end,
        "known_at": one.known_at,
    })
}

fn of_left_out(one: &LeftOut) -> Value {
    json!({"window": one.window, "why": one.why})
}

#[cfg(test)]
mod tests {
    use super::super::CaseMetric;
    use super::*;
    use vouch_proto::Direction;

    fn case() -> Case {
        let mut case = Case::new("a", Strategy::Previous, 1, [0, 30])
            .with_baseline([-60, 0])
            .with_metric("rt", CaseMetric::judged("ms", Direction::Increase))
            .with_host("service", HostGroup::Service, None);
        let mut cart = Neighbour::of(&case, "cart", Relation::Unrelated).sharing("orders-db");
        cart.case = cart.case.with_metric("rt", CaseMetric::judged("ms", Direction::Increase));
        cart.deployed_at = Some(-500);
        case.neighbours.push(cart.with_series("rt", -60, vec![Some(3.0), None]));
        case.problems.push(Problem {
            id: "P-1".into(),
            title: "Response time degradation".into(),
            root_cause: "orders-db".into(),
            elsewhere: true,
            start: 2,
            end: None,
            known_at: 5,
        });
        case.left_out.push(LeftOut { window: [-40, -30], why: "1.3.0 failed".into() });
        case
    }

    #[test]
    fn what_is_written_is_read_again() {
        let case = case();
        let text = Value::Object(case.to_json()).to_string();
        assert_eq!(Case::from_json(&text), Ok(case));
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Change = fn(&mut Case);
        let wrong: [(Change, &str); 9] = [
            (|c| c.neighbours = vec![c.neighbours[0].clone(); 21], "neighbours: is 21 long, give at most 20"),
            (
                |c| c.neighbours.push(c.neighbours[0].clone()),
                "neighbours[1].name: is `cart` again, give each service once",
            ),
            (
                |c| c.neighbours[0].case.series[0].values[0] = Some(f64::NAN),
                "neighbours[0].series[0].values[0]: is NaN, give a finite number",
            ),
            (
                |c| c.neighbours[0].deployed_at = Some(i64::MIN),
                "neighbours[0].deployed_at: is -9223372036854775808",
            ),
            (
                |c| c.neighbours[0].case.neighbours = c.neighbours.clone(),
                "neighbours[0].neighbours: is set, give none",
            ),
            (|c| c.problems[0].end = Some(1), "problems[0].end: is 1, give a minute from its start on"),
            (|c| c.problems[0].known_at = i64::MAX, "problems[0]: is at minute 9223372036854775807"),
            (
                |c| c.left_out[0].window = [-3, 1],
                "left_out[0].window: is [-3, 1], give minutes `[start, end]` before",
            ),
            (|c| c.left_out[0].window = [-3, -3], "left_out[0].window: is [-3, -3], give minutes"),
        ];
        for (change, expected) in wrong {
            let mut case = case();
            change(&mut case);
            let message = case.validate().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}\n  instead of\n{expected}");
        }
    }

    #[test]
    fn an_unknown_relation_is_refused() {
        let text = Value::Object(case().to_json()).to_string();
        let message = Case::from_json(&text.replace("\"unrelated\"", "\"friend\"")).unwrap_err().to_string();
        assert_eq!(
            message,
            "neighbours[0].relation: unknown value `friend`, expected one of unrelated, caller, callee"
        );
        let message =
            Case::from_json(&text.replace("\"relation\":\"unrelated\",", "")).unwrap_err().to_string();
        assert!(message.starts_with("neighbours[0].relation: is missing; give `unrelated`"), "{message}");
    }
}
