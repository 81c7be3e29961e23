//! Commands behind a pipe: what they make of records.

use super::error::DqlError;
use super::evaluate::{Scope, compare};
use super::token::Span;
use super::tree::{Argument, Command, Expression, Node};
use super::value::{Cell, Record};
use crate::entity::Registry;
use std::cmp::Ordering;

/// Applies a command.
///
/// # Errors
/// Where the command is unknown, or wants a field that no record has.
pub(super) fn apply(
    command: &Command,
    records: Vec<Record>,
    registry: &Registry,
) -> Result<Vec<Record>, DqlError> {
    let value = |record: &Record, node: &Node| {
        let fields = |name: &str| record.get(name).cloned();
        Scope { fields: &fields, registry }.value(node)
    };
    let arguments = &command.arguments;
    let filtered = |wanted: bool| {
        let node = single(command)?;
        let mut kept = Vec::new();
        for record in records.clone() {
            let holds = value(&record, node)? == Cell::Boolean(true);
            if holds == wanted {
                kept.push(record);
            }
        }
        Ok(kept)
    };
    match command.name.as_str() {
        "filter" => filtered(true),
        "filterOut" => filtered(false),
        "limit" => {
            let node = single(command)?;
            let Cell::Long(count @ 0..) = value(&Record::default(), node)? else {
                return Err(DqlError::syntax("NUMBER_EXPECTED", "A whole number is expected.", node.span));
            };
            Ok(records.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)).collect())
        }
        "fields" | "fieldsAdd" => {
            let is_new = command.name == "fields";
            let mut changed = Vec::new();
            for record in records {
                let mut next = if is_new { Record::default() } else { record.clone() };
                for argument in flat(arguments) {
                    next.set(&field_name(argument), value(&record, &argument.value)?);
                }
                changed.push(next);
            }
            Ok(changed)
        }
        "fieldsKeep" | "fieldsRemove" => {
            let names: Vec<String> = flat(arguments).iter().map(|a| a.value.to_string()).collect();
            let keeps = command.name == "fieldsKeep";
            let kept = |Record(fields)| {
                let fields = fields.into_iter();
                Record(fields.filter(|(name, _): &(String, Cell)| names.contains(name) == keeps).collect())
            };
            Ok(records.into_iter().map(kept).collect())
        }
        "sort" => sorted(arguments, records, &value),
        "summarize" => summarized(command, &records, &value),
        name => Err(unknown(name, command.span)),
    }
}

/// An unknown command, or one that the simulator has not.
pub(super) fn unknown(name: &str, span: Span) -> DqlError {
    let known =
        ["parse", "join", "lookup", "append", "dedup", "expand", "fieldsRename", "makeTimeseries", "search"];
    if known.contains(&name) {
        return DqlError::unsupported(&format!("the command {name}"), span);
    }
    DqlError::syntax("UNKNOWN_COMMAND", format!("The command {name} doesn't exist."), span).about(name)
}

fn single(command: &Command) -> Result<&Node, DqlError> {
    let [one] = command.arguments.as_slice() else {
        let message = format!("{} needs one parameter.", command.name);
        return Err(DqlError::syntax("PARAMETER_MISSING", message, command.span).about(&command.name));
    };
    Ok(&one.value)
}

/// Arguments, those in braces among them.
fn flat(arguments: &[Argument]) -> Vec<&Argument> {
    arguments
        .iter()
        .flat_map(|argument| match argument.value.list().filter(|_| argument.alias.is_none()) {
            Some(inner) => inner.iter().collect(),
            None => vec![argument],
        })
        .collect()
}

fn field_name(argument: &Argument) -> String {
    let name = argument.alias.as_deref().or_else(|| argument.value.name());
    name.map_or_else(|| argument.value.to_string(), str::to_owned)
}

type ValueOf<'a> = &'a dyn Fn(&Record, &Node) -> Result<Cell, DqlError>;

fn sorted(arguments: &[Argument], records: Vec<Record>, value: ValueOf) -> Result<Vec<Record>, DqlError> {
    let arguments = flat(arguments);
    let mut keyed = Vec::new();
    for record in records {
        let keys: Result<Vec<Cell>, DqlError> = arguments.iter().map(|a| value(&record, &a.value)).collect();
        keyed.push((keys?, record));
    }
    keyed.sort_by(|(a, _), (b, _)| {
        let orders = a.iter().zip(b).zip(&arguments).map(|((a, b), argument)| {
            let order = compare(a, b).unwrap_or(Ordering::Equal);
            if argument.descending { order.reverse() } else { order }
        });
        orders.fold(Ordering::Equal, Ordering::then)
    });
    Ok(keyed.into_iter().map(|(_, record)| record).collect())
}

/// `summarize count()`, perhaps by fields.
fn summarized(command: &Command, records: &[Record], value: ValueOf) -> Result<Vec<Record>, DqlError> {
    let (mut by, mut counts) = (Vec::new(), Vec::new());
    for argument in &command.arguments {
        match (&argument.name, &argument.value.expression) {
            (Some((name, _)), Expression::List(inner)) if name == "by" => by.extend(inner.iter()),
            (Some((name, _)), _) if name == "by" => by.push(argument),
            (None, Expression::Call(name, inner)) if name == "count" && inner.is_empty() => {
                counts.push(argument)
            }
            _ => {
                let what = format!("summarize {}", argument.value);
                return Err(DqlError::unsupported(&what, argument.value.span));
            }
        }
    }
    let mut groups: Vec<(Record, i64)> = Vec::new();
    for record in records {
        let mut key = Record::default();
        for argument in &by {
            key.set(&field_name(argument), value(record, &argument.value)?);
        }
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => *count += 1,
            None => groups.push((key, 1)),
        }
    }
    if groups.is_empty() && by.is_empty() {
        groups.push((Record::default(), 0));
    }
    let record = |(mut record, count): (Record, i64)| {
        for argument in &counts {
            record.set(&field_name(argument), Cell::Long(count));
        }
        record
    };
    Ok(groups.into_iter().map(record).collect())
}
