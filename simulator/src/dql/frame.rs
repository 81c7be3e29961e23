//! What a query is answered from: the world, the present, and the timeframe.

use super::error::DqlError;
use super::time::{instant, iso};
use super::tree::{Argument, Command, Expression, Node};
use crate::query::Visibility;
use crate::time::{DAY, HOUR};
use crate::world::World;

/// Longest timeframe.
const WINDOW_LIMIT_MS: i64 = 3_660 * DAY;

/// What a query is answered from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// What is simulated.
    pub(super) world: &'a dyn World,
    /// What can be seen of it.
    pub(super) visibility: Visibility,
    /// From and to, epoch milliseconds.
    pub(super) window: (i64, i64),
    /// Whether the scan limit cuts the first half off (a fault).
    pub(super) scan_limit: bool,
}

/// The timeframe of a command: its own, else the request's, else the last two hours.
///
/// # Errors
/// Where it is empty, too long, or no timeframe.
pub(super) fn timeframe(
    command: &Command,
    requested: Option<(i64, i64)>,
    now: i64,
) -> Result<(i64, i64), DqlError> {
    let named = |name: &str| {
        let is_it = |a: &&Argument| a.name.as_ref().is_some_and(|(n, _)| n == name);
        command.arguments.iter().find(is_it).map(|a| &a.value)
    };
    let (mut from, mut to) = requested.unwrap_or((now - 2 * HOUR, now));
    if let Some(node) = named("timeframe") {
        (from, to) = both(node)?;
    }
    if let Some(node) = named("from") {
        from = instant(node, now)?;
        // A beginning of its own ends at the present.
        to = now;
    }
    if let Some(node) = named("to") {
        to = instant(node, now)?;
    }
    let window = to.checked_sub(from).unwrap_or(i64::MAX);
    if window <= 0 || window > WINDOW_LIMIT_MS {
        let message = "The timeframe is empty, or longer than ten years.";
        return Err(DqlError::syntax("INVALID_TIMEFRAME", message, command.span));
    }
    Ok((from, to))
}

/// `"2026-11-18T10:00:00Z/2026-11-18T12:00:00Z"`.
fn both(node: &Node) -> Result<(i64, i64), DqlError> {
    let read = |text: &str| text.split_once('/').and_then(|(a, b)| iso(a).zip(iso(b)));
    let found = if let Expression::Text(text) = &node.expression { read(text) } else { None };
    found.ok_or_else(|| {
        let message = "A timeframe is expected, such as \"2026-11-18T10:00:00Z/2026-11-18T12:00:00Z\".";
        DqlError::syntax("TIMEFRAME_EXPECTED", message, node.span)
    })
}
