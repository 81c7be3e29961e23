//! Reading a service that is several entities: each of them is a host of its series, on its side of a comparison.

use super::Dynatrace;
use super::instances::{Group, HostFacts};
use super::selector::EntityKind;
use super::surroundings::is_zero_by_default;
use super::timeseries::{ENTITY, is_dql};
use crate::rules::Named;
use crate::source::{Ask, Chunk, Failure, MetricAsk, Reading};
use futures::future::join_all;
use std::collections::BTreeSet;
use vouch_proto::Series;

impl Dynatrace {
    /// Reads a window of each entity, in calls that they share like services that are read at the same time.
    pub(super) async fn read_instances(&self, ask: &Ask, group: &Group) -> Result<Reading, Failure> {
        let (own, common) = self.by_what_they_are_about(ask).await;
        let of_each = Ask { metrics: own, ..ask.clone() };
        let reads = group.entities.iter().map(|one| self.read_entity(&of_each, &one.entity_id));
        let mut all = Reading::default();
        for (one, reading) in group.entities.iter().zip(join_all(reads).await) {
            let mut reading = reading?;
            name_hosts(&mut reading, one, group);
            if has_data(&reading) {
                add(&mut all, reading);
            } else {
                // One that is gone, or not there yet, is no host; the time was read all the same.
                reading.chunks.iter_mut().for_each(|chunk| chunk.series.clear());
                add(&mut all, reading);
            }
        }
        if let (false, Some(first)) = (common.is_empty(), group.entities.first()) {
            let ask = Ask { metrics: common, ..ask.clone() };
            add(&mut all, self.read_entity(&ask, &first.entity_id).await?);
        }
        let refused: BTreeSet<String> = all.refused.iter().map(|(metric, _)| metric.clone()).collect();
        for chunk in &mut all.chunks {
            chunk.series.retain(|series| !refused.contains(&series.metric));
        }
        all.chunks.sort_by_key(|chunk| chunk.resolution);
        Ok(all)
    }

    /// The metrics that are of an entity, and those that say themselves what they are about.
    async fn by_what_they_are_about(&self, ask: &Ask) -> (Vec<MetricAsk>, Vec<MetricAsk>) {
        let (mut own, mut common) = (Vec::new(), Vec::new());
        for metric in &ask.metrics {
            let is_common = if is_dql(&metric.query) {
                !metric.query.contains(ENTITY)
            } else {
                // What cannot be prepared is refused where it is read.
                self.prepare(metric).await.is_ok_and(|query| query.kind == EntityKind::Other)
            };
            if is_common { common.push(metric.clone()) } else { own.push(metric.clone()) }
        }
        (own, common)
    }
}

/// Gives the series of an entity its name, and each host what is known of it.
fn name_hosts(reading: &mut Reading, one: &Named, group: &Group) {
    let Some(instance) = &one.instance else { return };
    for series in reading.chunks.iter_mut().flat_map(|chunk| &mut chunk.series) {
        let facts = match &series.host {
            None => Group::facts(one),
            Some(host) => group.hosts.get(host).cloned().unwrap_or_else(|| Group::facts(one)),
        };
        let HostFacts { version, group } = facts;
        series.host.get_or_insert_with(|| instance.name.clone());
        (series.version, series.group) = (version, group);
    }
}

/// Whether an entity has anything but the zeros that stand for nothing.
fn has_data(reading: &Reading) -> bool {
    let mut series = reading.chunks.iter().flat_map(|chunk| &chunk.series);
    series.any(|one| !is_zero_by_default(&one.query) && one.samples.iter().any(Option::is_some))
}

/// Adds what was read of one to what was read of the others; what two of them have is there once.
fn add(all: &mut Reading, more: Reading) {
    all.step = all.step.max(more.step);
    for (metric, failure) in more.refused {
        if all.refused.iter().all(|(known, _)| *known != metric) {
            all.refused.push((metric, failure));
        }
    }
    for chunk in more.chunks {
        let known = all.chunks.iter_mut().find(|known| known.resolution == chunk.resolution);
        match known {
            None => all.chunks.push(chunk),
            Some(known) => {
                let is_new = |one: &Series| !has(known, one);
                let new: Vec<Series> = chunk.series.into_iter().filter(is_new).collect();
                known.series.extend(new);
            }
        }
    }
}

fn has(chunk: &Chunk, one: &Series) -> bool {
    let same =
        |known: &Series| (&known.metric, &known.host, &known.item) == (&one.metric, &one.host, &one.item);
    chunk.series.iter().any(same)
}
