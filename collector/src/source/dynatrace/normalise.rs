//! From an answer's data to series on the grid that was asked for. Every odd answer has a name and is refused.

use super::answer::{DataSeries, MetricResult, Resolution, resolution};
use super::unit::Conversion;
use crate::source::{COARSEST_STEP, Failure, FailureKind, MetricAsk};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use vouch_proto::{Series, Timestamp, Window};

/// Where samples go: whole steps of the source within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) step: Duration,
    /// `None` where no whole step within has settled.
    pub(super) window: Option<Window>,
}

impl Grid {
    /// The grid of a window for an answer's resolution. Slots that end after `settled_until` are left out.
    pub(super) fn of(text: Option<&str>, window: Window, settled_until: Timestamp) -> Result<Self, Failure> {
        let said = text.unwrap_or_default();
        let step = match resolution(said) {
            Some(Resolution::Step(step)) if step <= COARSEST_STEP => step,
            Some(Resolution::Step(_) | Resolution::Inf) => {
                let message = format!(
                    "Dynatrace answered with resolution {said} for {window}; at most {} min can be judged: data older than 14 to 28 days are kept coarser, choose a later baseline or another metric",
                    COARSEST_STEP.as_secs() / 60
                );
                return Err(Failure::new(FailureKind::TooCoarse, message));
            }
            None => {
                let message = format!("Dynatrace answered with resolution `{said}`, which is not understood");
                return Err(Failure::new(FailureKind::BadAnswer, message));
            }
        };
        let ms = step_ms(step);
        let start = (window.start().as_millis() + ms - 1).div_euclid(ms) * ms;
        let end = window.end().min(settled_until).as_millis().div_euclid(ms) * ms;
        let window = Window::new(Timestamp::from_millis(start), Timestamp::from_millis(end)).ok();
        Ok(Self { step, window })
    }

    pub(super) fn len(&self) -> usize {
        let length = self.window.map_or(0, |w| w.end().as_millis() - w.start().as_millis());
        usize::try_from(length / step_ms(self.step)).unwrap_or(0)
    }
}

fn step_ms(step: Duration) -> i64 {
    i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// What a warning means for the metric; `None` where it does no harm.
pub(super) fn warning(text: &str) -> Option<Failure> {
    let lower = text.to_lowercase();
    let has = |part: &str| lower.contains(part);
    let (kind, remedy) = if has("no such key") || has("not a known entity type") {
        (FailureKind::UnknownDimension, "split and filter only by the dimensions of the metric's descriptor")
    } else if has("cannot be converted") {
        (FailureKind::UnitMismatch, "correct the unit in the query")
    } else if has("limit") || has("exceed") || has("truncat") || has("incomplete") {
        (FailureKind::Incomplete, "ask for less: fewer series or a narrower filter")
    } else {
        return None;
    };
    Some(Failure::new(kind, format!("Dynatrace warns: {text}; {remedy}")))
}

/// The series of one metric.
///
/// # Errors
/// For warnings that matter, several series where one was meant, a remainder, and data off the grid.
pub(super) fn series(
    ask: &MetricAsk,
    result: &MetricResult,
    grid: &Grid,
    conversion: &Conversion,
    names: &BTreeMap<String, String>,
) -> Result<Vec<Series>, Failure> {
    if let Some(failure) = result.warnings.iter().flatten().find_map(|text| warning(text)) {
        return Err(failure);
    }
    let build = |host: Option<String>, data: Option<&DataSeries>| {
        let samples = data.map_or_else(|| Ok(vec![None; grid.len()]), |d| samples(d, grid, conversion))?;
        Ok(Series {
            metric: ask.name.clone(),
            host,
            unit: conversion.unit.clone(),
            samples,
            query: ask.query.clone(),
            ..Series::default()
        })
    };
    if let Some(key) = &ask.each {
        let mut all = Vec::new();
        for (item, host, data) in items(ask, key, result, names)? {
            all.push(Series { item: Some(item), ..build(host, Some(data))? });
        }
        return Ok(all);
    }
    if !ask.by_host {
        return match result.data.as_slice() {
            [] => Ok(vec![build(None, None)?]),
            [one] => Ok(vec![build(None, Some(one))?]),
            many => Err(ambiguous(many)),
        };
    }
    let mut hosts: BTreeMap<String, Vec<(String, &DataSeries)>> = BTreeMap::new();
    for data in &result.data {
        let id = host_of(data, None)?;
        let name = data_name(data, &id).or_else(|| names.get(&id).cloned()).unwrap_or_else(|| id.clone());
        hosts.entry(name).or_default().push((id, data));
    }
    let mut all = Vec::new();
    for (name, mut same) in hosts {
        same.sort_by(|a, b| a.0.cmp(&b.0));
        let alone = same.len() == 1;
        if same.iter().zip(same.iter().skip(1)).any(|(a, b)| a.0 == b.0) {
            return Err(ambiguous(&result.data));
        }
        for (id, data) in same {
            let host = if alone { name.clone() } else { format!("{name} ({id})") };
            all.push(build(Some(host), Some(data))?);
        }
    }
    Ok(all)
}

/// What a series is measured for, on which host, and the series.
type Item<'d> = (String, Option<String>, &'d DataSeries);

/// What each series is measured for, and on which host: things of the same name carry their ids.
fn items<'d>(
    ask: &MetricAsk,
    key: &str,
    result: &'d MetricResult,
    names: &BTreeMap<String, String>,
) -> Result<Vec<Item<'d>>, Failure> {
    let name = |data: &DataSeries, id: &str| {
        data_name(data, id).or_else(|| names.get(id).cloned()).unwrap_or_else(|| id.to_owned())
    };
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut found = Vec::new();
    for data in &result.data {
        let id = match data.dimension_map.get(key) {
            Some(Some(id)) => id.clone(),
            Some(None) => return Err(ambiguous(std::slice::from_ref(data))),
            None => {
                let message =
                    format!("the query is not split by `{key}`, which `each` names; add :splitBy(\"{key}\")");
                return Err(Failure::new(FailureKind::AmbiguousSeries, message));
            }
        };
        let host = if ask.by_host {
            let host = host_of(data, Some(key))?;
            Some(name(data, &host))
        } else {
            None
        };
        let item = name(data, &id);
        ids.entry(item.clone()).or_default().insert(id.clone());
        found.push((item, id, host, data));
    }
    let mut seen = BTreeSet::new();
    let apart = |(item, id, host, data): (String, String, Option<String>, &'d DataSeries)| {
        let shared = ids.get(&item).is_some_and(|ids| ids.len() > 1);
        let item = if shared { format!("{item} ({id})") } else { item };
        if seen.insert((item.clone(), host.clone())) {
            Ok((item, host, data))
        } else {
            Err(ambiguous(&result.data))
        }
    };
    found.into_iter().map(apart).collect()
}

/// The dimension that tells hosts apart: the only one besides the service, `each`, and the display names.
fn host_of(data: &DataSeries, each: Option<&str>) -> Result<String, Failure> {
    let mut values: Vec<Option<&String>> = data
        .dimension_map
        .iter()
        .filter(|(key, _)| !key.ends_with(".name") && key.as_str() != "dt.entity.service")
        .filter(|(key, _)| each != Some(key.as_str()))
        .map(|(_, value)| value.as_ref())
        .collect();
    if data.dimension_map.is_empty() {
        values = data.dimensions.iter().map(Option::as_ref).collect();
    }
    match values.as_slice() {
        [Some(one)] => Ok((*one).clone()),
        values if values.contains(&None) => Err(Failure::new(
            FailureKind::Remainder,
            "Dynatrace merged some hosts into a remainder; raise the metric's number of dimension values or filter it",
        )),
        _ => Err(ambiguous(std::slice::from_ref(data))),
    }
}

fn data_name(data: &DataSeries, id: &str) -> Option<String> {
    let (key, _) = data.dimension_map.iter().find(|(_, value)| value.as_deref() == Some(id))?;
    data.dimension_map.get(&format!("{key}.name"))?.clone()
}

fn ambiguous(many: &[DataSeries]) -> Failure {
    let remainder =
        |d: &DataSeries| d.dimensions.contains(&None) || d.dimension_map.values().any(Option::is_none);
    if many.iter().any(remainder) {
        let message =
            "Dynatrace answered with a remainder series; split by a dimension with fewer values or filter it";
        return Failure::new(FailureKind::Remainder, message);
    }
    let describe = |d: &DataSeries| {
        let dimensions =
            d.dimension_map.iter().map(|(k, v)| format!("{k}={}", v.as_deref().unwrap_or("null")));
        dimensions.collect::<Vec<_>>().join(",")
    };
    let shown = many.iter().take(3).map(describe).collect::<Vec<_>>().join("; ");
    let message = format!(
        "{} series where one was meant ({shown}); end the query with :splitBy() or filter it to one",
        many.len()
    );
    Failure::new(FailureKind::AmbiguousSeries, message)
}

/// Samples on the grid: a stamp is the end of its slot; what lies outside was not asked for or has not settled.
fn samples(data: &DataSeries, grid: &Grid, conversion: &Conversion) -> Result<Vec<Option<f64>>, Failure> {
    let bad = |what: String| Err(Failure::new(FailureKind::BadAnswer, what));
    if data.timestamps.len() != data.values.len() {
        return bad(format!("{} timestamps and {} values", data.timestamps.len(), data.values.len()));
    }
    let mut samples = vec![None; grid.len()];
    let Some(window) = grid.window else { return Ok(samples) };
    let step = step_ms(grid.step);
    let mut last = None;
    for (stamp, value) in data.timestamps.iter().zip(&data.values) {
        if last.is_some_and(|last| *stamp <= last) {
            return bad(format!("the timestamps do not ascend at {stamp}"));
        }
        last = Some(*stamp);
        let offset = stamp.saturating_sub(step).saturating_sub(window.start().as_millis());
        if offset % step != 0 {
            return bad(format!("the timestamp {stamp} is no end of a slot of {} s", grid.step.as_secs()));
        }
        if let Some(sample) = usize::try_from(offset / step).ok().and_then(|i| samples.get_mut(i))
            && offset >= 0
        {
            *sample = value.map(|v| conversion.apply(v)).filter(|v| v.is_finite());
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP: i64 = 60_000;

    fn ask(by_host: bool) -> MetricAsk {
        MetricAsk { name: "cpu".into(), query: "q".into(), unit: "ms".into(), by_host, each: None }
    }

    fn start() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    fn grid(minutes: i64) -> Grid {
        Grid { step: Duration::from_secs(60), window: Window::around(start(), 0, minutes).ok() }
    }

    fn data(dimensions: &[(&str, Option<&str>)], points: &[(i64, Option<f64>)]) -> DataSeries {
        DataSeries {
            dimensions: dimensions.iter().map(|(_, v)| v.map(ToOwned::to_owned)).collect(),
            dimension_map: dimensions
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.map(ToOwned::to_owned)))
                .collect(),
            timestamps: points.iter().map(|(slot, _)| start().as_millis() + slot * STEP).collect(),
            values: points.iter().map(|(_, v)| *v).collect(),
        }
    }

    fn read(ask: &MetricAsk, data: Vec<DataSeries>, warnings: &[&str]) -> Result<Vec<Series>, Failure> {
        let warnings = Some(warnings.iter().map(|w| (*w).to_owned()).collect());
        let to_ms = Conversion { unit: "ms".into(), factor: 1e-3 };
        let names = BTreeMap::from([
            ("PGI-1".to_owned(), "pod-a".to_owned()),
            ("PGI-2".to_owned(), "pod-a".to_owned()),
        ]);
        series(ask, &MetricResult { metric_id: None, warnings, data }, &grid(3), &to_ms, &names)
    }

    #[test]
    fn stamps_are_ends_gaps_stay_gaps_and_units_are_converted() {
        let one = data(&[], &[(0, Some(9.0)), (1, Some(1500.0)), (2, None), (3, Some(0.0)), (4, Some(9.0))]);
        let series = read(&ask(false), vec![one], &[]).unwrap();
        assert_eq!(series[0].samples, [Some(1.5), None, Some(0.0)], "slots before and after are left out");
        assert_eq!((series[0].unit.as_str(), series[0].host.as_deref()), ("ms", None));
    }

    #[test]
    fn no_data_is_a_series_of_gaps() {
        assert_eq!(read(&ask(false), vec![], &[]).unwrap()[0].samples, [None, None, None]);
        assert_eq!(read(&ask(true), vec![], &[]).unwrap(), [], "no host is known");
        let missing_end = data(&[], &[(1, Some(1000.0))]);
        assert_eq!(read(&ask(false), vec![missing_end], &[]).unwrap()[0].samples, [Some(1.0), None, None]);
    }

    #[test]
    fn hosts_have_their_display_names() {
        let pgi = "dt.entity.process_group_instance";
        let all = vec![
            data(&[(pgi, Some("PGI-1"))], &[(1, Some(1000.0))]),
            data(&[(pgi, Some("PGI-2"))], &[(1, Some(2000.0))]),
            data(&[(pgi, Some("PGI-3")), ("dt.entity.service", Some("SERVICE-1"))], &[]),
            data(&[(pgi, Some("PGI-4")), ("dt.entity.process_group_instance.name", Some("pod-d"))], &[]),
        ];
        let hosts: Vec<_> = read(&ask(true), all, &[]).unwrap().into_iter().filter_map(|s| s.host).collect();
        assert_eq!(hosts, ["PGI-3", "pod-a (PGI-1)", "pod-a (PGI-2)", "pod-d"]);
    }

    #[test]
    fn each_thing_has_a_series_of_its_own_and_twins_carry_their_ids() {
        let method = "dt.entity.service_method";
        let each = MetricAsk { each: Some(method.into()), ..ask(false) };
        let of = |id: &str| data(&[(method, Some(id))], &[(1, Some(1000.0))]);
        let items = |each: &MetricAsk, all: Vec<DataSeries>| -> Vec<Option<String>> {
            read(each, all, &[]).unwrap().into_iter().map(|one| one.item).collect()
        };
        assert_eq!(items(&each, vec![of("M-1"), of("PGI-1")]), [Some("M-1".into()), Some("pod-a".into())]);
        let twins = items(&each, vec![of("PGI-1"), of("PGI-2")]);
        assert_eq!(twins, [Some("pod-a (PGI-1)".into()), Some("pod-a (PGI-2)".into())]);
        assert_eq!(items(&each, vec![]), Vec::<Option<String>>::new());
        let kind = |all: Vec<DataSeries>| read(&each, all, &[]).unwrap_err().kind;
        assert_eq!(kind(vec![data(&[(method, None)], &[])]), FailureKind::Remainder);
        assert_eq!(kind(vec![data(&[], &[])]), FailureKind::AmbiguousSeries);
        assert_eq!(kind(vec![of("M-1"), of("M-1")]), FailureKind::AmbiguousSeries);
        let both = MetricAsk { by_host: true, ..each.clone() };
        let pod = data(&[(method, Some("M-1")), ("pod", Some("pod-b"))], &[(1, Some(1000.0))]);
        let series = read(&both, vec![pod], &[]).unwrap();
        assert_eq!((series[0].item.as_deref(), series[0].host.as_deref()), (Some("M-1"), Some("pod-b")));
    }

    #[test]
    fn odd_answers_have_names() {
        use FailureKind::*;
        let d = |v| data(&[("dt.entity.service", v)], &[(1, Some(1.0))]);
        let kind = |by_host, data, warnings: &[&str]| read(&ask(by_host), data, warnings).unwrap_err().kind;
        assert_eq!(kind(false, vec![d(Some("A")), d(Some("B"))], &[]), AmbiguousSeries);
        assert_eq!(kind(false, vec![d(Some("A")), d(None)], &[]), Remainder);
        assert_eq!(kind(true, vec![data(&[("pod", None)], &[])], &[]), Remainder);
        assert_eq!(
            kind(true, vec![data(&[("pod", Some("a")), ("x", Some("b"))], &[])], &[]),
            AmbiguousSeries
        );
        assert_eq!(kind(true, vec![data(&[], &[])], &[]), AmbiguousSeries);
        let unknown = "The dimension key `x` has been referenced, but the metric has no such key.";
        assert_eq!(kind(false, vec![], &[unknown]), UnknownDimension);
        assert_eq!(
            kind(false, vec![], &["SourceUnit 'MicroSecond' cannot be converted to targetUnit 'Byte'."]),
            UnitMismatch
        );
        assert_eq!(kind(false, vec![], &["The tuple limit was exceeded"]), Incomplete);
        assert!(read(&ask(false), vec![], &["default requires at least one written data point"]).is_ok());
        let mut off = d(Some("A"));
        off.timestamps[0] += 1;
        assert_eq!(kind(false, vec![off], &[]), BadAnswer);
        assert_eq!(kind(false, vec![data(&[], &[(2, None), (1, None)])], &[]), BadAnswer);
        let mut short = d(Some("A"));
        short.values.clear();
        assert_eq!(kind(false, vec![short], &[]), BadAnswer);
    }

    #[test]
    fn the_answers_resolution_is_the_truth() {
        let window = Window::around(start(), 2, 16).unwrap();
        let grid = |text, settled| Grid::of(text, window, start().plus_minutes(settled));
        let five = grid(Some("5m"), 60).unwrap();
        assert_eq!(five.window, Window::around(start(), 5, 15).ok(), "whole slots within");
        assert_eq!(grid(Some("1m"), 10).unwrap().window, Window::around(start(), 2, 10).ok(), "settled only");
        assert_eq!(grid(Some("5m"), 9).unwrap().window, None);
        for (text, kind) in [
            (Some("1h"), FailureKind::TooCoarse),
            (Some("Inf"), FailureKind::TooCoarse),
            (Some("?"), FailureKind::BadAnswer),
            (None, FailureKind::BadAnswer),
        ] {
            assert_eq!(grid(text, 60).unwrap_err().kind, kind, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_invent(stamps in proptest::collection::vec(any::<i64>(), 0..5)) {
            let values = vec![Some(1.0); stamps.len()];
            let odd = DataSeries { dimensions: vec![], dimension_map: BTreeMap::new(), timestamps: stamps.clone(), values };
            if let Ok(samples) = samples(&odd, &grid(3), &Conversion::none()) {
                prop_assert_eq!(samples.len(), 3);
                prop_assert!(samples.iter().flatten().count() <= stamps.len());
            }
        }
    }
}
