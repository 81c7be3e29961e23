//! Metrics of several things: what writes a point only where something happens is zero where there is traffic.

use crate::source::{Chunk, MetricAsk, Reading};
use std::collections::{BTreeMap, BTreeSet};
use vouch_proto::Series;

/// What a series is measured for, and on which host.
type Thing = (Option<String>, Option<String>);

/// Whether a series that is absent stands for zeros where its thing has traffic.
fn is_zero_without(query: &str) -> bool {
    query.replace(' ', "").contains(":default(0")
}

/// Fills what is zero by default for each thing that other metrics have samples of.
pub(super) fn fill(reading: &mut Reading, metrics: &[MetricAsk]) {
    let zero: Vec<&MetricAsk> =
        metrics.iter().filter(|ask| ask.each.is_some() && is_zero_without(&ask.query)).collect();
    if zero.is_empty() {
        return;
    }
    let refused: BTreeSet<&str> = reading.refused.iter().map(|(metric, _)| metric.as_str()).collect();
    for chunk in &mut reading.chunks {
        let names: BTreeSet<&str> = zero.iter().map(|ask| ask.name.as_str()).collect();
        let traffic = traffic(chunk, &names);
        for ask in zero.iter().filter(|ask| !refused.contains(ask.name.as_str())) {
            for (thing, seen) in &traffic {
                fill_one(chunk, ask, (thing, seen));
            }
        }
    }
}

/// In which slots each thing has a sample of a metric that is not zero by default.
fn traffic(chunk: &Chunk, zero: &BTreeSet<&str>) -> BTreeMap<Thing, Vec<bool>> {
    let mut all: BTreeMap<Thing, Vec<bool>> = BTreeMap::new();
    let counted = |one: &&Series| one.item.is_some() && !zero.contains(one.metric.as_str());
    for series in chunk.series.iter().filter(counted) {
        let seen = all
            .entry((series.item.clone(), series.host.clone()))
            .or_insert_with(|| vec![false; series.samples.len()]);
        for (seen, sample) in seen.iter_mut().zip(&series.samples) {
            *seen |= sample.is_some();
        }
    }
    all
}

fn fill_one(chunk: &mut Chunk, ask: &MetricAsk, ((item, host), seen): (&Thing, &[bool])) {
    let is_it = |one: &&mut Series| one.metric == ask.name && one.item == *item && one.host == *host;
    if let Some(series) = chunk.series.iter_mut().find(is_it) {
        for (sample, seen) in series.samples.iter_mut().zip(seen) {
            if *seen {
                sample.get_or_insert(0.0);
            }
        }
        return;
    }
    chunk.series.push(Series {
        metric: ask.name.clone(),
        item: item.clone(),
        host: host.clone(),
        unit: ask.unit.clone(),
        samples: seen.iter().map(|seen| seen.then_some(0.0)).collect(),
        query: ask.query.clone(),
        ..Series::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vouch_proto::{Timestamp, Window};

    fn ask(name: &str, query: &str) -> MetricAsk {
        let each = Some("dt.entity.service_method".to_owned());
        MetricAsk { name: name.into(), query: query.into(), unit: "count".into(), by_host: false, each }
    }

    fn series(metric: &str, item: &str, samples: &[Option<f64>]) -> Series {
        Series {
            metric: metric.into(),
            item: Some(item.into()),
            samples: samples.to_vec(),
            ..Series::default()
        }
    }

    #[test]
    fn errors_are_zero_where_there_are_requests_and_gaps_where_there_are_none() {
        let window = Window::around(Timestamp::from_millis(0), 0, 3).unwrap();
        let traffic = [Some(5.0), None, Some(7.0)];
        let all = vec![
            series("requests", "/a", &traffic),
            series("requests", "/b", &traffic),
            series("errors", "/b", &[None, None, Some(2.0)]),
        ];
        let chunk = Chunk { resolution: Duration::from_secs(60), window, series: all };
        let mut reading = Reading { chunks: vec![chunk], ..Reading::default() };
        fill(&mut reading, &[ask("requests", "r:value"), ask("errors", "e:value:default(0)")]);
        let errors = |item: &str| {
            let one = |one: &&Series| one.metric == "errors" && one.item.as_deref() == Some(item);
            reading.chunks[0].series.iter().find(one).unwrap().samples.clone()
        };
        assert_eq!(errors("/a"), [Some(0.0), None, Some(0.0)]);
        assert_eq!(errors("/b"), [Some(0.0), None, Some(2.0)]);
    }
}
