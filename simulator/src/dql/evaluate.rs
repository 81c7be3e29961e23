//! What an expression means for a record or a series.

use super::error::DqlError;
use super::time::iso;
use super::token::Span;
use super::tree::{Argument, Expression, Node};
use super::value::Cell;
use crate::entity::{EntitySelector, Registry};
use std::cmp::Ordering;

/// Finds the value of a field; `None` where there is no such field.
pub(super) type Fields<'a> = &'a dyn Fn(&str) -> Option<Cell>;

/// What expressions are evaluated against.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The fields.
    pub(super) fields: Fields<'a>,
    /// The entities.
    pub(super) registry: &'a Registry,
}

impl Scope<'_> {
    /// Whether a condition holds, and each of those in braces; no value is no.
    ///
    /// # Errors
    /// Where a field is missing, or a function is unknown.
    pub(super) fn holds(self, node: &Node) -> Result<bool, DqlError> {
        if let Expression::List(conditions) = &node.expression {
            let mut all = true;
            for condition in conditions {
                all = self.holds(&condition.value)? && all;
            }
            return Ok(all);
        }
        Ok(self.value(node)? == Cell::Boolean(true))
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// Where a field is missing, or a function is unknown.
    pub(super) fn value(self, node: &Node) -> Result<Cell, DqlError> {
        #[allow(clippy::cast_possible_truncation, reason = "written as a whole number")]
        Ok(match &node.expression {
            Expression::Number(number, true) => Cell::Long(*number as i64),
            Expression::Number(number, false) => Cell::Double(*number),
            Expression::Text(text) => Cell::Text(text.clone()),
            Expression::Boolean(value) => Cell::Boolean(*value),
            Expression::Null => Cell::Null,
            Expression::Duration(ns) => Cell::Duration(*ns),
            Expression::Name(name) => {
                (self.fields)(name).ok_or_else(|| DqlError::no_field(name, node.span))?
            }
            Expression::Not(inner) => self.value(inner)?.negation(),
            Expression::Minus(inner) => self.value(inner)?.negative(),
            Expression::Binary(operator, a, b) => self.binary(operator, a, b)?,
            Expression::Call(name, arguments) => self.call(name, arguments, node.span)?,
            Expression::List(_) => return Err(DqlError::unsupported("a list as a value", node.span)),
            Expression::Aligned(..) => return Err(DqlError::unsupported("rounding of values", node.span)),
        })
    }

    fn binary(self, operator: &str, a: &Node, b: &Node) -> Result<Cell, DqlError> {
        if matches!(operator, "and" | "or") {
            let (a, b) = (self.holds(a)?, self.holds(b)?);
            return Ok(Cell::Boolean(if operator == "and" { a && b } else { a || b }));
        }
        let (a, b) = (self.value(a)?, self.value(b)?);
        if matches!(operator, "+" | "-") {
            let sum = |a: f64, b: f64| if operator == "+" { a + b } else { a - b };
            return Ok(a.number().zip(b.number()).map_or(Cell::Null, |(a, b)| Cell::Double(sum(a, b))));
        }
        let Some(order) = compare(&a, &b) else { return Ok(Cell::Null) };
        Ok(Cell::Boolean(match operator {
            "==" => order.is_eq(),
            "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            _ => order.is_ge(),
        }))
    }

    fn call(self, name: &str, arguments: &[Argument], span: Span) -> Result<Cell, DqlError> {
        let first = || {
            arguments.first().map(|a| &a.value).ok_or_else(|| {
                DqlError::syntax("PARAMETER_MISSING", format!("{name} needs a parameter."), span).about(name)
            })
        };
        let of_array = |fold: fn(&[f64]) -> Option<f64>| -> Result<Cell, DqlError> {
            let Cell::Array(values) = self.value(first()?)? else { return Ok(Cell::Null) };
            let values: Vec<f64> = values.into_iter().flatten().collect();
            Ok(fold(&values).map_or(Cell::Null, Cell::Double))
        };
        Ok(match name {
            "isNull" => Cell::Boolean(self.value(first()?)? == Cell::Null),
            "isNotNull" => Cell::Boolean(self.value(first()?)? != Cell::Null),
            "entityName" => match self.value(first()?)?.text().and_then(|id| self.registry.get(id)) {
                Some(entity) => Cell::Text(entity.name.clone()),
                None => Cell::Null,
            },
            "toTimestamp" => self.value(first()?)?.text().and_then(iso).map_or(Cell::Null, Cell::Timestamp),
            "lower" => self.value(first()?)?.text().map_or(Cell::Null, |t| Cell::Text(t.to_lowercase())),
            "in" => {
                let value = self.value(first()?)?;
                Cell::Boolean(self.is_among(&value, arguments.get(1..).unwrap_or_default(), false)?)
            }
            "matchesValue" => {
                let value = self.value(first()?)?;
                Cell::Boolean(self.is_among(&value, arguments.get(1..).unwrap_or_default(), true)?)
            }
            "startsWith" | "endsWith" | "contains" => self.search(name, arguments, span)?,
            "arrayAvg" => of_array(|v| Some(sum(v) / count(v)).filter(|n| n.is_finite()))?,
            "arraySum" => of_array(|v| Some(sum(v)))?,
            "arrayMin" => of_array(|v| v.iter().copied().reduce(f64::min))?,
            "arrayMax" => of_array(|v| v.iter().copied().reduce(f64::max))?,
            "arrayFirst" => of_array(|v| v.first().copied())?,
            "arrayLast" => of_array(|v| v.last().copied())?,
            "arraySize" => self.value(first()?)?.size(),
            _ => return Err(DqlError::unsupported(&format!("the function {name}"), span)),
        })
    }

    fn search(self, name: &str, arguments: &[Argument], span: Span) -> Result<Cell, DqlError> {
        let [value, part, ..] = arguments else {
            let message = format!("{name} needs two parameters.");
            return Err(DqlError::syntax("PARAMETER_MISSING", message, span).about(name));
        };
        let (value, part) = (self.value(&value.value)?, self.value(&part.value)?);
        let Some((value, part)) = value.text().zip(part.text()) else { return Ok(Cell::Null) };
        Ok(Cell::Boolean(match name {
            "startsWith" => value.starts_with(part),
            "endsWith" => value.ends_with(part),
            _ => value.contains(part),
        }))
    }

    /// Whether a value is one of those listed, or an entity that a classic entity selector finds.
    fn is_among(self, value: &Cell, listed: &[Argument], pattern: bool) -> Result<bool, DqlError> {
        for argument in listed {
            let node = &argument.value;
            let found = if let Some(inner) = node.list() {
                self.is_among(value, inner, pattern)?
            } else if let Expression::Call(name, inner) = &node.expression
                && matches!(name.as_str(), "array" | "classicEntitySelector")
            {
                match name.as_str() {
                    "array" => self.is_among(value, inner, pattern)?,
                    _ => self.is_selected(value, inner, node.span)?,
                }
            } else {
                let other = self.value(node)?;
                match (value.text(), other.text()) {
                    (Some(text), Some(other)) if pattern => is_like(text, other),
                    _ => compare(value, &other).is_some_and(Ordering::is_eq),
                }
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_selected(self, value: &Cell, inner: &[Argument], span: Span) -> Result<bool, DqlError> {
        let [Argument { value: Node { expression: Expression::Text(text), .. }, .. }] = inner else {
            return Err(DqlError::syntax("PARAMETER_MISSING", "An entity selector is expected.", span));
        };
        let selector = EntitySelector::parse(text).map_err(|e| {
            let reason = e.violations.first().map_or(e.message.clone(), |v| v.message.clone());
            DqlError::syntax("INVALID_ENTITY_SELECTOR", reason, span)
        })?;
        let entity = value.text().and_then(|id| self.registry.get(id));
        Ok(entity.is_some_and(|entity| selector.matches(entity, self.registry)))
    }
}

fn sum(values: &[f64]) -> f64 {
    values.iter().sum()
}

#[allow(clippy::cast_precision_loss, reason = "a number of slots")]
fn count(values: &[f64]) -> f64 {
    values.len() as f64
}

/// A value against a pattern with `*` at its ends; letter case does not matter.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.to_lowercase(), pattern.to_lowercase());
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => text.contains(pattern.trim_matches('*')),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => text == pattern,
    }
}

/// The order of two values; none where they cannot be compared.
pub(super) fn compare(a: &Cell, b: &Cell) -> Option<Ordering> {
    if let (Some(a), Some(b)) = (a.number(), b.number()) {
        return a.partial_cmp(&b);
    }
    match (a, b) {
        (Cell::Text(a), Cell::Text(b)) => Some(a.cmp(b)),
        (Cell::Boolean(a), Cell::Boolean(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;
    use crate::entity::{Entity, SERVICE};

    #[test]
    fn conditions_and_functions() {
        let mut registry = Registry::default();
        registry.add(Entity::new(SERVICE, "SERVICE-1".into(), "checkout"));
        let fields = |name: &str| match name {
            "id" => Some(Cell::Text("SERVICE-1".into())),
            "none" => Some(Cell::Null),
            "n" => Some(Cell::Long(5)),
            "a" => Some(Cell::Array(vec![Some(1.0), None, Some(3.0)])),
            _ => None,
        };
        let scope = Scope { fields: &fields, registry: &registry };
        let read = |text: &str| scope.value(&parse(&format!("filter {text}")).unwrap()[0].arguments[0].value);
        for condition in [
            "id == \"SERVICE-1\" and n > 4.5 and not n >= 6",
            "none == 1 or n != 4",
            "in(id, {\"x\", \"SERVICE-1\"}) and in(n, 4, 5) and not in(id, array(\"y\"))",
            "in(id, classicEntitySelector(\"type(SERVICE),entityName.equals(checkout)\"))",
            "not in(id, classicEntitySelector(\"type(HOST)\"))",
            "startsWith(id, \"SERVICE\") and endsWith(id, \"1\") and contains(id, \"ICE\")",
            "matchesValue(id, \"service-*\") and matchesValue(id, \"*-1\") and matchesValue(id, \"*ice*\")",
            "isNull(none) and isNotNull(id) and entityName(id) == \"checkout\"",
            "arrayAvg(a) == 2 and arraySum(a) == 4 and arrayMin(a) == 1 and arrayMax(a) == 3",
            "arrayFirst(a) == 1 and arrayLast(a) == 3 and arraySize(a) == 3 and n - 2 == 3",
        ] {
            assert_eq!(read(condition), Ok(Cell::Boolean(true)), "{condition}");
        }
        for nothing in ["none == 1", "not none", "id > 5", "entityName(n)", "arrayAvg(n)"] {
            assert_eq!(read(nothing), Ok(Cell::Null), "{nothing}");
        }
        for (text, kind) in [
            ("nowhere == 1", "FIELD_DOES_NOT_EXIST"),
            ("jsonPath(id)", "NOT_SUPPORTED_BY_SIMULATOR"),
            ("contains(id)", "PARAMETER_MISSING"),
            ("in(id, classicEntitySelector(\"colour(red)\"))", "INVALID_ENTITY_SELECTOR"),
        ] {
            assert_eq!(read(text).unwrap_err().kind, kind, "{text}");
        }
    }
}
