//! What was collected about a service's surroundings: other services and problems. Order and repetition of the batches
//! change nothing.

use super::{Cell, WHOLE_SERVICE, replaces};
use crate::case::{Case, CaseMetric, MAX_NEIGHBOURS, Neighbour, Problem};
use std::collections::BTreeMap;
use vouch_proto::{Name, Objective, Relation, SeriesBatch, Timestamp};

/// Most services that are kept: bounds the memory that batches can claim.
const MAX_KEPT: usize = 2 * MAX_NEIGHBOURS;
/// Most samples of all of them.
const MAX_SAMPLES: usize = 2_000_000;
/// Most problems that are kept.
const MAX_PROBLEMS: usize = 100;
/// Most objectives that are kept.
const MAX_OBJECTIVES: usize = 20;

/// What is known of another service.
#[derive(Debug, Clone)]
struct Other {
    told_at: Timestamp,
    relation: Relation,
    shares: Vec<String>,
    deployed_at: Option<Timestamp>,
    /// By metric, samples by start of their slot, milliseconds.
    cells: BTreeMap<String, BTreeMap<i64, Cell>>,
}

/// Everything about the surroundings.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    others: BTreeMap<Name, Other>,
    samples: usize,
    /// By id, with when it was told.
    problems: BTreeMap<String, (Timestamp, vouch_proto::Problem)>,
    /// By id, as told last.
    objectives: BTreeMap<String, Objective>,
}

/// Where samples and instants lie in a case.
pub(super) struct Grid<'a> {
    pub(super) step: i64,
    pub(super) minute: &'a dyn Fn(i64) -> i64,
    /// What the case covers, in milliseconds.
    pub(super) spans: &'a [(i64, i64)],
}

impl Surroundings {
    /// Takes in what a batch says of them.
    pub(super) fn absorb(&mut self, batch: &SeriesBatch, step: i64) {
        for one in &batch.neighbours {
            if !self.others.contains_key(&one.service) && self.others.len() >= MAX_KEPT {
                continue;
            }
            let known = self.others.entry(one.service.clone()).or_insert_with(|| Other {
                told_at: batch.collected_at,
                relation: one.relation,
                shares: one.shares.clone(),
                deployed_at: one.deployed_at,
                cells: BTreeMap::new(),
            });
            known.deployed_at = known.deployed_at.max(one.deployed_at);
            if batch.collected_at > known.told_at {
                (known.told_at, known.relation) = (batch.collected_at, one.relation);
                known.shares.clone_from(&one.shares);
            }
            for series in &one.series {
                let cells = known.cells.entry(series.metric.clone()).or_default();
                for (i, value) in (0_i64..).zip(&series.samples) {
                    let start = batch.window.start().as_millis() + i * step;
                    let cell =
                        Cell { value: *value, step, revision: batch.revision, is_final: batch.is_final };
                    let before = cells.get(&start);
                    if replaces(before, &cell) && (before.is_some() || self.samples < MAX_SAMPLES) {
                        self.samples += usize::from(cells.insert(start, cell).is_none());
                    }
                }
            }
        }
        self.take_objectives(&batch.objectives);
        for one in &batch.problems {
            if !self.problems.contains_key(&one.id) && self.problems.len() >= MAX_PROBLEMS {
                continue;
            }
            let told = (batch.collected_at, one.clone());
            let known = self.problems.entry(one.id.clone()).or_insert_with(|| told.clone());
            let first = known.1.known_at.min(one.known_at);
            if told.0 > known.0 {
                *known = told;
            }
            known.1.known_at = first;
        }
    }

    fn take_objectives(&mut self, objectives: &[Objective]) {
        for one in objectives {
            let is_news = self.objectives.get(&one.id).is_none_or(|known| one.told_at > known.told_at);
            if is_news && (self.objectives.contains_key(&one.id) || self.objectives.len() < MAX_OBJECTIVES) {
                self.objectives.insert(one.id.clone(), one.clone());
            }
        }
    }

    /// The objectives as they were told last, by id.
    pub(super) fn objectives(&self) -> Vec<Objective> {
        self.objectives.values().cloned().collect()
    }

    /// The other services of a case whose windows are known.
    pub(super) fn neighbours(&self, case: &Case, grid: &Grid<'_>) -> Vec<Neighbour> {
        let of = |(name, other): (&Name, &Other)| {
            let mut one = Neighbour::of(case, name.to_string(), other.relation);
            one.shares = other.shares.iter().cloned().collect();
            one.deployed_at = other.deployed_at.map(|at| (grid.minute)(at.as_millis()));
            let told = |metric: &str| other.cells.contains_key(metric);
            let whole = |metric: &CaseMetric| metric.exposure.as_deref().is_none_or(told);
            let metrics = case.metrics.iter().filter(|(name, metric)| told(name) && whole(metric));
            one.case.metrics = metrics.map(|(name, metric)| (name.clone(), metric.clone())).collect();
            for (metric, cells) in &other.cells {
                if !one.case.metrics.contains_key(metric) {
                    continue;
                }
                for (start, end) in grid.spans {
                    let values = super::samples(cells, (*start, *end), grid.step);
                    one.case = one.case.with_series(metric, WHOLE_SERVICE, (grid.minute)(*start), values);
                }
            }
            one
        };
        self.others.iter().map(of).take(MAX_NEIGHBOURS).collect()
    }

    /// The problems as they were told.
    pub(super) fn known_problems(&self) -> impl Iterator<Item = &vouch_proto::Problem> {
        self.problems.values().map(|(_, one)| one)
    }

    /// The problems.
    pub(super) fn problems(&self, grid: &Grid<'_>) -> Vec<Problem> {
        let minute = |at: Timestamp| (grid.minute)(at.as_millis());
        let of = |(_, one): &(Timestamp, vouch_proto::Problem)| Problem {
            id: one.id.clone(),
            title: one.title.clone(),
            root_cause: one.root_cause.clone().unwrap_or_default(),
            elsewhere: one.elsewhere,
            start: minute(one.started_at),
            end: one.ended_at.map(minute).map(|end| end.max(minute(one.started_at))),
            known_at: minute(one.known_at),
        };
        self.problems.values().map(of).collect()
    }
}
