//! Metrics of a template that are queries in DQL: read from Grail, on the same grid as those of Metrics API v2.

use super::billed::billed;
use super::credential::Scheme;
use super::grail::DqlAsk;
use super::normalise::Grid;
use super::query::{Column, columns};
use super::unit::conversion;
use super::{Dynatrace, add};
use crate::source::{Ask, Failure, FailureKind, MetricAsk, Reading};
use std::time::Duration;
use vouch_proto::Series;

/// What a query of metrics begins with, which is not billed.
const COMMAND: &str = "timeseries";
/// Stands for the id of the service's entity.
pub(super) const ENTITY: &str = "$entity";
/// How long a result is waited for, on the injected clock.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a template's query is one in DQL.
pub(super) fn is_dql(query: &str) -> bool {
    let first = query.split_whitespace().next().unwrap_or_default();
    first == COMMAND || first == "fetch"
}

impl Dynatrace {
    /// Reads one metric; why it has no series is in the reading.
    pub(super) async fn read_dql(
        &self,
        ask: &Ask,
        service: &str,
        metric: &MetricAsk,
        reading: &mut Reading,
    ) -> Result<(), Failure> {
        match self.dql_series(ask, service, metric).await {
            Ok((grid, series)) => add(reading, &grid, series),
            // What would fail the others as well is told of all, and asked for again.
            Err(failure) if failure.kind.is_retryable() && failure.kind != FailureKind::Timeout => {
                return Err(failure);
            }
            Err(failure) => reading.refused.push((metric.name.clone(), failure)),
        }
        Ok(())
    }

    async fn dql_series(
        &self,
        ask: &Ask,
        service: &str,
        metric: &MetricAsk,
    ) -> Result<(Grid, Vec<Series>), Failure> {
        let refuse = |message: String| Failure::new(FailureKind::BadRequest, message);
        if self.client.scheme() == Scheme::ApiToken {
            return Err(refuse(format!(
                "`{}` is a query in DQL, which takes no access token (dt0c01...); use a platform token or collector.oauth on https://<id>.apps.dynatrace.com",
                metric.name
            )));
        }
        let sources = billed(&metric.query);
        let query = metric.query.replace(ENTITY, &format!("\"{}\"", service.replace(['"', '\\'], "")));
        let (from, to) = (ask.window.start(), ask.window.end());
        let scan_limit_gb = self.may_scan(ask, metric, &sources).await?;
        let dql = DqlAsk { query: &query, from, to, scan_limit_gb, patience: PATIENCE };
        let result = self.dql(&dql).await?;
        if !sources.is_empty() {
            self.charge(ask, result.scanned_bytes()).await;
        }
        if let Some(failure) = result.incomplete() {
            return Err(failure);
        }
        let mut all = Vec::new();
        for record in &result.records {
            all.extend(columns(record.as_ref())?);
        }
        let Some(first) = all.first() else {
            // Nothing was written: a gap for each slot, as long as asked for.
            let grid = Grid::of(Some("1m"), ask.window, ask.settled_until)?;
            let unit = conversion("", &metric.unit).unwrap_or_default().unit;
            let none = Series { samples: vec![None; grid.len()], ..series(metric, None, unit) };
            return Ok((grid, if metric.by_host { Vec::new() } else { vec![none] }));
        };
        let minutes = first.grid.step / 60_000;
        if first.grid.step % 60_000 != 0 || all.iter().any(|one| one.grid != first.grid) {
            let message = "the records of a query differ in their slots, or have slots of less than a minute; set interval:1m";
            return Err(Failure::new(FailureKind::BadAnswer, message));
        }
        let grid = Grid::of(Some(&format!("{minutes}m")), ask.window, ask.settled_until)?;
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        if names.iter().any(|name| *name != first.name) {
            let message =
                format!("the query has several columns ({}); one metric is one column", names.join(", "));
            return Err(Failure::new(FailureKind::AmbiguousSeries, message));
        }
        let unit = result.unit_of(&first.name).unwrap_or_default();
        let conversion = conversion(unit, &metric.unit).ok_or_else(|| {
            let message =
                format!("`{}` is in {unit}, which cannot be converted to {}", metric.name, metric.unit);
            Failure::new(FailureKind::UnitMismatch, message)
        })?;
        if !metric.by_host && all.len() > 1 {
            let message = format!(
                "{} series where one was meant; filter by the service: filter:{{dt.entity.service == $entity}}",
                all.len()
            );
            return Err(Failure::new(FailureKind::AmbiguousSeries, message));
        }
        let read = |one: &Column| {
            let host = if metric.by_host { Some(host_of(one)?) } else { None };
            let samples = on_grid(one, &grid).into_iter();
            let value = |v: Option<f64>| v.map(|v| conversion.apply(v)).filter(|v| v.is_finite());
            let samples = samples.map(value).collect();
            Ok(Series { samples, ..series(metric, host, conversion.unit.clone()) })
        };
        let series = all.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        Ok((grid, series))
    }
}

fn series(metric: &MetricAsk, host: Option<String>, unit: String) -> Series {
    Series { metric: metric.name.clone(), host, unit, query: metric.query.clone(), ..Series::default() }
}

/// The samples of whole slots within the grid.
fn on_grid(column: &Column, grid: &Grid) -> Vec<Option<f64>> {
    let Some(window) = grid.window else { return Vec::new() };
    let first = window.start().as_millis() - column.grid.start;
    let at = |i: usize| {
        let offset = first + i64::try_from(i).ok()? * column.grid.step;
        let slot = (offset % column.grid.step == 0).then_some(offset / column.grid.step)?;
        column.values.get(usize::try_from(slot).ok()?).copied().flatten()
    };
    (0..grid.len()).map(at).collect()
}

/// The only dimension besides the service: what tells the hosts apart.
fn host_of(column: &Column) -> Result<String, Failure> {
    let mut others = column.dimensions.iter().filter(|(key, _)| key.as_str() != "dt.entity.service");
    match (others.next(), others.next()) {
        (Some((_, Some(host))), None) => Ok(host.clone()),
        (Some((_, None)), None) => {
            Err(Failure::new(FailureKind::Remainder, "a series of the query has no host; filter it"))
        }
        _ => Err(Failure::new(
            FailureKind::AmbiguousSeries,
            "split by one dimension besides the service, e.g. by:{k8s.pod.name}",
        )),
    }
}
