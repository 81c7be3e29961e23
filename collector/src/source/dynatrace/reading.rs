//! What all of an answer says: its grid, what is wrong with the whole, and where its series go.

use super::answer::MetricData;
use super::normalise::{self, Grid};
use crate::source::{Ask, Chunk, Failure, FailureKind, Reading};

/// The grid of an answer. One without any data says nothing about its step and is taken as asked; old clusters leave
/// the resolution out, and the spacing of the stamps tells it.
pub(super) fn grid(ask: &Ask, data: &MetricData) -> Result<Grid, Failure> {
    let empty = data.result.iter().all(|r| r.data.is_empty());
    let spacing = spacing_minutes(data).map(|minutes| format!("{minutes}m"));
    let resolution = if empty { Some("1m") } else { data.resolution.as_deref().or(spacing.as_deref()) };
    Grid::of(resolution, ask.window, ask.settled_until)
}

/// The spacing of all stamps, where it is one of whole minutes.
pub(super) fn spacing_minutes(data: &MetricData) -> Option<i64> {
    let series = data.result.iter().flat_map(|r| &r.data);
    let mut spacings = series.flat_map(|d| {
        d.timestamps.iter().zip(d.timestamps.iter().skip(1)).map(|(a, b)| b.saturating_sub(*a))
    });
    let first = spacings.next().filter(|ms| *ms > 0 && ms % 60_000 == 0)?;
    spacings.all(|ms| ms == first).then_some(first / 60_000)
}

/// What is wrong with the whole answer. A warning on top is repeated on the result that it is about: where one of
/// them carries it, the others are none the worse.
pub(super) fn general_failure(data: &MetricData) -> Option<Failure> {
    if data.next_page_key.as_deref().is_some_and(|key| !key.is_empty() && key != "null") {
        return Some(Failure::new(
            FailureKind::Incomplete,
            "metrics/query answered with a further page; ask for fewer series",
        ));
    }
    let repeated: Vec<&String> = data.result.iter().flat_map(|r| r.warnings.iter().flatten()).collect();
    let unclaimed = data.warnings.iter().flatten().filter(|w| !repeated.contains(w));
    unclaimed.filter_map(|w| normalise::warning(w)).next()
}

/// Adds series to the chunk of their step.
pub(super) fn add(reading: &mut Reading, grid: &Grid, series: Vec<vouch_proto::Series>) {
    if !series.is_empty() {
        reading.step = reading.step.max(grid.step);
    }
    let Some(window) = grid.window else { return };
    match reading.chunks.iter_mut().find(|c| c.resolution == grid.step) {
        Some(chunk) => chunk.series.extend(series),
        None => reading.chunks.push(Chunk { resolution: grid.step, window, series }),
    }
}
