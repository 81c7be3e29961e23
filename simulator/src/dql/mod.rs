//! DQL, the query language of Grail: a pure function of world, query, present and data faults.

mod error;
mod evaluate;
mod frame;
mod logs;
mod metrics;
mod parse;
mod pipe;
mod time;
mod timeseries;
mod token;
mod tree;
mod value;

pub(crate) use error::{DqlError, token_position};
pub(crate) use logs::Scanned;
pub(crate) use time::{iso, zone};
pub(crate) use token::Span;
pub(crate) use value::{Record, timestamp, types};

use crate::entity::{Entity, Registry, kind_of_dimension};
use crate::query::Visibility;
use crate::world::World;
use evaluate::Scope;
use frame::{Frame, timeframe};
use serde_json::Value;
use timeseries::{Found, Timeseries};
use tree::{Command, Expression, canonical};
use value::Cell;

/// What `fetch` knows besides logs, and the scope that it needs. The simulated tenant has no records of these kinds.
const OBJECTS: [(&str, &str); 2] = [("spans", "storage:spans:read"), ("bizevents", "storage:bizevents:read")];

/// What a query is answered from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// What is simulated.
    pub(crate) world: &'a dyn World,
    /// What can be seen of it.
    pub(crate) visibility: Visibility,
    /// The timeframe of the request.
    pub(crate) requested: Option<(i64, i64)>,
    /// Whether the scan limit cuts the first half off (a fault).
    pub(crate) scan_limit: bool,
    /// Most bytes of what is billed that it may read.
    pub(crate) most_bytes: Option<u64>,
}

/// What a query found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// The records.
    pub(crate) records: Vec<Record>,
    /// What was looked at, epoch milliseconds.
    pub(crate) timeframe: (i64, i64),
    /// Descriptions of the metrics.
    pub(crate) metrics: Vec<Value>,
    /// Points read.
    pub(crate) points: i64,
    /// Metric keys that are not there.
    pub(crate) unknown: Vec<String>,
    /// Whether a deprecated data object was asked for.
    pub(crate) is_deprecated: bool,
    /// What was read that is billed.
    pub(crate) scanned: Scanned,
}

/// A query that follows the grammar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    commands: Vec<Command>,
    start: Start,
}

/// The first command of a query.
#[derive(Debug, Clone, PartialEq)]
enum Start {
    Timeseries(Timeseries),
    /// `fetch logs`.
    Logs,
    /// `fetch`: nothing of these kinds is there.
    Fetch(&'static str),
    /// `fetch dt.entity.service`: the type.
    Entities(String),
    /// `data record(...)`.
    Data(Vec<Record>),
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// Where it does not follow the grammar, or uses what the simulator has not; the error says where.
    pub(crate) fn parse(text: &str) -> Result<Self, DqlError> {
        let commands = parse::parse(text)?;
        let first = commands.first().ok_or_else(|| pipe::unknown("", Span::default()))?;
        let start = match first.name.as_str() {
            "timeseries" => Start::Timeseries(Timeseries::from_command(first)?),
            "fetch" => fetched(first)?,
            "data" => Start::Data(data(first)?),
            name => return Err(pipe::unknown(name, first.span)),
        };
        Ok(Self { commands, start })
    }

    /// The canonical form.
    pub(crate) fn canonical(&self) -> String {
        canonical(&self.commands)
    }

    /// The commands, and where their names stand.
    pub(crate) fn command_names(&self) -> impl Iterator<Item = (&str, Span)> {
        self.commands.iter().map(|c| (c.name.as_str(), c.span))
    }

    /// The scopes that it needs.
    pub(crate) fn scopes(&self) -> Vec<&'static str> {
        match &self.start {
            Start::Timeseries(_) => vec!["storage:buckets:read", "storage:metrics:read"],
            Start::Logs => vec!["storage:buckets:read", "storage:logs:read"],
            Start::Fetch(scope) => vec!["storage:buckets:read", scope],
            Start::Entities(_) => vec!["storage:buckets:read", "storage:entities:read"],
            Start::Data(_) => Vec::new(),
        }
    }

    /// Answers it.
    ///
    /// # Errors
    /// Where it wants a field that no record has, or too much; the error says where.
    pub(crate) fn run(&self, source: Source) -> Result<Outcome, DqlError> {
        let Source { world, visibility, requested, scan_limit, most_bytes } = source;
        let Some(first) = self.commands.first() else { return Err(pipe::unknown("", Span::default())) };
        let window = timeframe(first, requested, visibility.now)?;
        let frame = Frame { world, visibility, window, scan_limit };
        let mut scanned = Scanned::default();
        let found = match &self.start {
            Start::Timeseries(series) => series.run(&frame)?,
            Start::Logs => {
                let (records, read) = logs::records(&frame, &self.commands[1..], most_bytes);
                scanned = read;
                Found { records, ..Found::default() }
            }
            Start::Fetch(_) => Found::default(),
            Start::Entities(kind) => Found { records: entities(world, kind), ..Found::default() },
            Start::Data(records) => Found { records: records.clone(), ..Found::default() },
        };
        let mut records = found.records;
        for command in &self.commands[1..] {
            records = pipe::apply(command, records, world.registry())?;
        }
        Ok(Outcome {
            records,
            timeframe: found.timeframe.unwrap_or(window),
            metrics: found.metrics,
            points: found.points,
            unknown: found.unknown,
            is_deprecated: matches!(self.start, Start::Entities(_)),
            scanned,
        })
    }
}

/// What is fetched.
fn fetched(command: &Command) -> Result<Start, DqlError> {
    let object = command.arguments.iter().find(|a| a.name.is_none()).map(|a| &a.value);
    let Some(object) = object else {
        let message = "fetch needs a data object such as logs.";
        return Err(DqlError::syntax("PARAMETER_MISSING", message, command.span));
    };
    let name = object.to_string();
    let kind = kind_of_dimension(&name).filter(|kind| Registry::knows_kind(kind));
    let known = OBJECTS.iter().find(|(known, _)| *known == name);
    match (kind, known) {
        (Some(kind), _) => Ok(Start::Entities(kind)),
        (None, Some((_, scope))) => Ok(Start::Fetch(scope)),
        (None, None) if name == "logs" => Ok(Start::Logs),
        (None, None) => Err(DqlError::unsupported(&format!("the data object {name}"), object.span)),
    }
}

/// The entities of a type.
fn entities(world: &dyn World, kind: &str) -> Vec<Record> {
    let record = |entity: &Entity| {
        let mut record = Record::default();
        record.set("entity.name", Cell::Text(entity.name.clone()));
        record.set("id", Cell::Text(entity.id.clone()));
        record
    };
    world.registry().of_kind(kind).map(record).collect()
}

/// The records that are written out.
fn data(command: &Command) -> Result<Vec<Record>, DqlError> {
    let registry = Registry::default();
    let nothing = |_: &str| None::<Cell>;
    let scope = Scope { fields: &nothing, registry: &registry };
    let mut records = Vec::new();
    for argument in &command.arguments {
        let Expression::Call(name, fields) = &argument.value.expression else {
            return Err(DqlError::unsupported("data that is no record", argument.value.span));
        };
        if name != "record" {
            return Err(DqlError::unsupported(&format!("the function {name}"), argument.value.span));
        }
        let mut record = Record::default();
        for field in fields {
            let name = field.alias.clone().unwrap_or_else(|| field.value.to_string());
            record.set(&name, scope.value(&field.value)?);
        }
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::HOUR;
    use crate::world::scenario::ScenarioWorld;
    use crate::world::spec::Scenario;
    use proptest::prelude::*;

    const NOW: i64 = 1_795_003_200_000;

    fn pieces() -> impl Strategy<Value = String> {
        let aggregate = prop::sample::select(vec![
            "avg(dt.host.cpu.usage)",
            "p = percentile(dt.service.request.response_time, 95, default:0)",
            "sum(dt.service.request.count, rate:1s, scalar:true)",
            "count(nothing)",
        ]);
        let parameter = prop::sample::select(vec![
            "by:{dt.entity.service, x}",
            "interval:106751d",
            "interval:90s",
            "bins:0",
            "bins:99999",
            "shift:-106751d",
            "from:now()-3h@h, to:now()+2h",
            "from:-9y",
            "filter:{x == 1 or entityName(dt.entity.service) != \"a\"}",
            "nonempty:true",
            "union:true",
            "timeframe:\"0001-01-01/9999-12-31\"",
        ]);
        let pipe = prop::sample::select(vec![
            "| sort p, x desc",
            "| fieldsAdd n = arraySize(p)",
            "| summarize count(), by:{interval}",
            "| limit 1",
            "| filter p > 5",
            "| fields timeframe",
        ]);
        let parts = (
            prop::collection::vec(aggregate, 0..3),
            prop::collection::vec(parameter, 0..4),
            prop::collection::vec(pipe, 0..3),
        );
        parts.prop_map(|(a, p, pipes)| {
            let arguments: Vec<&str> = a.into_iter().chain(p).collect();
            format!("timeseries {} {}", arguments.join(", "), pipes.join(" "))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn whatever_is_asked_is_answered_or_refused(query in pieces()) {
            let world = ScenarioWorld::new(&Scenario::named("demo").unwrap(), NOW).unwrap();
            let visibility = Visibility { now: NOW, settle_ms: (0, 0), late_ms: 0, rewritten: false };
            let source = Source { world: &world, visibility, requested: Some((NOW - HOUR, NOW)), scan_limit: false, most_bytes: None };
            if let Ok(outcome) = Query::parse(&query).and_then(|q| q.run(source)) {
                let records: Vec<Value> =
                    outcome.records.iter().map(|r| r.json(&jiff::tz::TimeZone::UTC)).collect();
                let covered: u64 = types(&outcome.records)
                    .iter()
                    .map(|t| t["indexRange"][1].as_u64().unwrap() - t["indexRange"][0].as_u64().unwrap() + 1)
                    .sum();
                prop_assert_eq!(covered, records.len() as u64, "every record has its types");
                for record in records.iter().filter(|r| r["timeframe"].is_object() && r["p"].is_array()) {
                    let at = |end: &str| iso(record["timeframe"][end].as_str().unwrap()).unwrap();
                    let step: i64 = record["interval"].as_str().unwrap().parse().unwrap();
                    let slots = record["p"].as_array().unwrap().len();
                    prop_assert_eq!(at("end") - at("start"), step / 1_000_000 * i64::try_from(slots).unwrap());
                }
            }
        }
    }
}
