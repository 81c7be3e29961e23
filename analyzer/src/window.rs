//! Puts collected batches together into the case that the judge sees. Batches may come twice, in any order, in parts
//! and in revisions; the case depends on the facts alone. Pure.

mod early;
mod items;
mod left_out;
mod sides;
mod surroundings;

pub(crate) use items::spec_of;

use self::items::metric_of;
use self::sides::Sides;
use self::surroundings::{Grid, Surroundings};
use crate::case::{Case, CaseMetric, CaseTemplate, HostGroup as CaseGroup, LeftOut, MetricRole as CaseRole};
use crate::record::Record;
use std::collections::{BTreeMap, BTreeSet};
use vouch_proto::series::TOO_COARSE;
use vouch_proto::time::MINUTE_MS;
use vouch_proto::{
    HostGroup, MetricRole, MetricSpec, SeriesBatch, SourceError, Strategy, Timestamp, VerificationTemplate,
    Window,
};

/// Host under which the judge sees a series of the service as a whole.
pub const WHOLE_SERVICE: &str = "service";
/// Most samples kept for one verification: bounds the memory that a batch can claim.
pub const MAX_SAMPLES: usize = 4_000_000;

/// How far before the verification the step of the samples counts as that of now.
const RECENT_MS: i64 = 60 * MINUTE_MS;

/// One sample with what decides whether a later one replaces it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell {
    value: Option<f64>,
    step: i64,
    revision: u32,
    is_final: bool,
}

/// Metric and host.
type Key = (String, String);

/// What has been collected for one verification.
#[derive(Debug, Clone, Default)]
pub struct Assembly {
    /// Samples by start of their slot, milliseconds.
    cells: BTreeMap<Key, BTreeMap<i64, Cell>>,
    samples: usize,
    units: BTreeMap<String, String>,
    /// By metric: the query that the source was asked.
    queries: BTreeMap<String, String>,
    /// Step of what was read, by the end of its window.
    steps: BTreeMap<i64, i64>,
    /// Start and end of what has been read completely, disjoint and ascending.
    covered: BTreeMap<i64, i64>,
    /// The same of some metrics at least: others of them come later.
    early: BTreeMap<i64, i64>,
    /// Parts seen of a window's revision, and whether it lacks a metric.
    parts: BTreeMap<(i64, i64, u32, bool), BTreeSet<u32>>,
    /// What the collector waits for, as it said last.
    waits: Option<early::Waits>,
    /// What could not be delivered, by metric (empty: all) and window, until that window is delivered.
    errors: BTreeMap<(String, i64, i64), (Timestamp, SourceError)>,
    overflowing: bool,
    last_heard: Option<Timestamp>,
    around: Surroundings,
    sides: Sides,
}

impl Assembly {
    /// Takes in a batch; again or out of order changes nothing.
    pub fn absorb(&mut self, batch: &SeriesBatch) {
        self.last_heard = self.last_heard.max(Some(batch.collected_at));
        let whole = self.note_errors(batch);
        self.sides.absorb(batch);
        self.note_waits(batch);
        if whole {
            // What is kept too coarsely is read as far as it can ever be: a window without samples.
            if batch.errors.iter().all(|e| e.name == TOO_COARSE) {
                self.cover(batch.window.start().as_millis(), batch.window.end().as_millis());
            }
            return;
        }
        let step = i64::try_from(batch.resolution.as_millis()).unwrap_or(MINUTE_MS).max(1000);
        self.around.absorb(batch, step);
        let known = self.steps.entry(batch.window.end().as_millis()).or_insert(step);
        *known = step.max(*known);
        for series in &batch.series {
            self.units.entry(series.metric.clone()).or_insert_with(|| series.unit.clone());
            if !series.query.is_empty() {
                self.queries.entry(series.metric.clone()).or_insert_with(|| series.query.clone());
            }
            let host = series.host.clone().unwrap_or_else(|| WHOLE_SERVICE.to_owned());
            let cells = self.cells.entry((metric_of(series), host)).or_default();
            for (i, value) in (0_i64..).zip(&series.samples) {
                let start = batch.window.start().as_millis() + i * step;
                let cell = Cell { value: *value, step, revision: batch.revision, is_final: batch.is_final };
                let before = cells.get(&start);
                if before.is_none() && self.samples >= MAX_SAMPLES {
                    self.overflowing = true;
                    continue;
                }
                if replaces(before, &cell) {
                    self.samples += usize::from(cells.insert(start, cell).is_none());
                }
            }
        }
        let (start, end) = (batch.window.start().as_millis(), batch.window.end().as_millis());
        let lacks = batch.waits.iter().any(|wait| wait.is_missing);
        let parts = self.parts.entry((start, end, batch.revision, lacks)).or_default();
        parts.insert(batch.part);
        if parts.len() == usize::try_from(batch.parts).unwrap_or(usize::MAX) {
            cover(&mut self.early, start, end);
            if !lacks {
                self.cover(start, end);
            }
        }
    }

    /// How many versions and sides of hosts have been seen: more of them may put hosts on other sides.
    #[must_use]
    pub fn sides_seen(&self) -> usize {
        self.sides.seen()
    }

    /// The versions that the hosts run, where it is known of them and none runs the one that is deployed.
    #[must_use]
    pub fn only_old(&self, record: &Record) -> Option<Vec<String>> {
        self.sides.only_old(record)
    }

    /// Notes what the source could not deliver, and that it delivers again. Answers whether nothing was delivered.
    fn note_errors(&mut self, batch: &SeriesBatch) -> bool {
        let (start, end) = (batch.window.start().as_millis(), batch.window.end().as_millis());
        for error in &batch.errors {
            let key = (error.metric.clone().unwrap_or_default(), start, end);
            if self.errors.get(&key).is_none_or(|(t, _)| *t <= batch.collected_at) {
                self.errors.insert(key, (batch.collected_at, error.clone()));
            }
        }
        // What is refused for good is read as far as it can be; its watermark says so.
        let is_read =
            batch.watermark >= batch.window.end() && batch.errors.iter().any(|e| e.name != TOO_COARSE);
        let nothing = batch.errors.iter().any(|e| e.metric.is_none())
            || (batch.series.is_empty() && !batch.errors.is_empty() && !is_read);
        if !nothing {
            let refused = |metric: &str| {
                batch.errors.iter().any(|e| e.metric.as_deref() == Some(metric))
                    || batch.waits.iter().any(|wait| wait.is_missing && wait.metric == metric)
            };
            // What concerned all metrics is over with any delivery; what concerned one, with that of its window.
            self.errors.retain(|(metric, s, e), (t, _)| {
                let delivered = metric.is_empty() || (start <= *s && *e <= end && !refused(metric));
                *t > batch.collected_at || !delivered
            });
        }
        nothing
    }

    fn cover(&mut self, start: i64, end: i64) {
        cover(&mut self.covered, start, end);
    }

    fn covers(&self, start: i64, end: i64) -> bool {
        covers(&self.covered, start, end)
    }

    /// By metric: the query that the source was asked.
    #[must_use]
    pub const fn queries(&self) -> &BTreeMap<String, String> {
        &self.queries
    }

    /// When the collector was last heard.
    #[must_use]
    pub const fn last_heard(&self) -> Option<Timestamp> {
        self.last_heard
    }

    /// What the source could not deliver and has not delivered since: one for each metric (and one for all).
    pub fn errors(&self) -> impl Iterator<Item = &SourceError> {
        let newest: BTreeMap<&str, &SourceError> =
            self.errors.iter().map(|((metric, _, _), (_, e))| (metric.as_str(), e)).collect();
        newest.into_values()
    }

    /// As `errors`, of windows that end after an instant in milliseconds.
    pub fn errors_since(&self, since: i64) -> impl Iterator<Item = &SourceError> {
        self.errors.iter().filter(move |((_, _, end), _)| *end > since).map(|(_, (_, e))| e)
    }

    /// Whether there were more samples than are kept.
    #[must_use]
    pub const fn is_overflowing(&self) -> bool {
        self.overflowing
    }

    /// Whether anything has been read at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.covered.is_empty()
    }

    /// The step of judging: that of the data around the verification. Older data may be kept more coarsely.
    fn step(&self, window: Window) -> i64 {
        let recent = self.steps.range(window.start().as_millis() - RECENT_MS..);
        recent.map(|(_, step)| *step).max().unwrap_or(MINUTE_MS).max(MINUTE_MS)
    }

    /// Whether the reference windows have been read, up to the step of the samples.
    #[must_use]
    pub fn has_baseline(&self, baseline: &[Window], window: Window) -> bool {
        let step = self.step(window);
        baseline.iter().all(|w| {
            let (start, end) = (w.start().as_millis(), w.end().as_millis());
            let (start, end) = (ceil(start, step), floor(end, step));
            start >= end || self.covers(start, end)
        })
    }

    /// The first step that the judge sees: the verification's start, or the next full step of coarser data.
    fn origin(&self, window: Window) -> i64 {
        ceil(window.start().as_millis(), self.step(window))
    }

    /// Minutes of the window read without a hole from its start: how far judging may look.
    #[must_use]
    pub fn minutes_seen(&self, window: Window) -> i64 {
        let origin = self.origin(window);
        let read = self.covered.range(..=origin).next_back().map_or(origin, |(_, e)| (*e).max(origin));
        (read.min(window.end().as_millis()) - origin).max(0).div_euclid(MINUTE_MS)
    }

    /// Minutes that the judge sees when everything has been read.
    #[must_use]
    pub fn minutes_total(&self, window: Window) -> i64 {
        let step = self.step(window);
        ((window.end().as_millis() - self.origin(window)).max(0) / step) * (step / MINUTE_MS)
    }

    /// Whether there are samples of the first `minutes` of the window, and every one of them is final.
    #[must_use]
    pub fn is_final(&self, window: Window, minutes: i64) -> bool {
        let from = window.start().as_millis();
        let to = self.origin(window) + minutes * MINUTE_MS;
        if minutes <= 0 || to <= from {
            return false;
        }
        let mut cells = self.cells.values().flat_map(|cells| cells.range(from..to)).peekable();
        cells.peek().is_some() && cells.all(|(_, cell)| cell.is_final)
    }

    /// The case as far as it has been read; `None` before the first traffic.
    #[must_use]
    pub fn case(&self, record: &Record, template: &VerificationTemplate) -> Option<Case> {
        let window = record.verification?;
        self.case_of(record, template, self.minutes_seen(window))
    }

    /// The same with so many minutes of the window.
    #[must_use]
    pub fn case_of(&self, record: &Record, template: &VerificationTemplate, seen: i64) -> Option<Case> {
        let window = record.verification?;
        let (step, origin) = (self.step(window), self.origin(window));
        let minute = |ms: i64| (ms - origin).div_euclid(MINUTE_MS);
        let strategy = record.asked(template);
        let total = self.minutes_total(window);
        let mut case = Case::new(record.verification_id.clone(), strategy, step / MINUTE_MS, [0, total]);
        case.template = CaseTemplate::from(template);
        for w in &record.baseline {
            let (start, end) = (ceil(w.start().as_millis(), step), floor(w.end().as_millis(), step));
            let end = if end + step >= origin && end < origin { origin } else { end };
            if start < end {
                case = case.with_baseline([minute(start), minute(end)]);
            }
        }
        case = self.with_metrics(case, template);
        for (name, (group, switch)) in self.hosts(record, origin) {
            case = case.with_host(name, group, switch);
        }
        for host in &record.deployment.hosts {
            for restart in &host.restarted_at {
                case = case.with_restart(&host.name, minute(floor(restart.as_millis(), step)));
            }
        }
        if strategy == Strategy::Canary && record.deployment.verification.diluted {
            case = case.diluted_by(f64::from(record.deployment.traffic_percent) / 100.0);
        }
        let spans = self.spans(&record.baseline, origin + seen * MINUTE_MS, step, origin);
        for ((metric, host), cells) in &self.cells {
            if !case.metrics.contains_key(metric) {
                continue;
            }
            for (start, end) in &spans {
                let values = samples(cells, (*start, *end), step);
                if *end > origin || values.iter().any(Option::is_some) {
                    case = case.with_series(metric, host, minute(*start), values);
                }
            }
        }
        let grid = Grid { step, minute: &minute, spans: &spans };
        case.neighbours = self.around.neighbours(&case, &grid);
        case.problems = self.around.problems(&grid);
        let of = |one: vouch_proto::LeftOut| LeftOut {
            window: [minute(one.window.start().as_millis()), minute(one.window.end().as_millis())],
            why: one.why,
        };
        case.left_out = self.left_out(record).into_iter().map(of).collect();
        case.left_out.retain(|one| one.window[0] < one.window[1] && one.window[1] <= 0);
        Some(case)
    }

    /// Times that the references leave out.
    #[must_use]
    pub fn left_out(&self, record: &Record) -> Vec<vouch_proto::LeftOut> {
        left_out::left_out(record, self.around.known_problems())
    }

    /// Problems that touch a window; all that are known where there is none yet.
    #[must_use]
    pub fn problems_within(&self, window: Option<Window>) -> Vec<vouch_proto::Problem> {
        let touches = |problem: &&vouch_proto::Problem| {
            let Some(window) = window else { return true };
            problem.started_at < window.end() && problem.ended_at.is_none_or(|end| end > window.start())
        };
        self.around.known_problems().filter(touches).cloned().collect()
    }

    /// The service's objectives, as they were told last.
    #[must_use]
    pub fn objectives(&self) -> Vec<vouch_proto::Objective> {
        self.around.objectives()
    }

    fn metric(&self, spec: &MetricSpec) -> CaseMetric {
        CaseMetric {
            unit: self.units.get(&spec.name).filter(|u| !u.is_empty()).unwrap_or(&spec.unit).clone(),
            bad: spec.direction,
            exposure: spec.exposure.clone(),
            role: match spec.role {
                MetricRole::Judged => CaseRole::Judged,
                MetricRole::Context => CaseRole::Context,
            },
        }
    }

    /// The hosts that the deployment names, and those that the series have besides.
    fn hosts(&self, record: &Record, origin: i64) -> BTreeMap<String, (CaseGroup, Option<i64>)> {
        let named = record.deployment.hosts.iter().map(|h| {
            let switch =
                h.switched_at.map(|t| (t.ceil_minute().as_millis() - origin).div_euclid(MINUTE_MS).max(0));
            let host = match h.group {
                HostGroup::Control => (CaseGroup::Control, None),
                HostGroup::Test => (CaseGroup::Test, Some(switch.unwrap_or(0))),
                HostGroup::Service => (CaseGroup::Service, Some(switch.unwrap_or(0))),
            };
            (h.name.clone(), host)
        });
        let mut hosts: BTreeMap<String, _> = named.collect();
        // What is left of a blue-green deployment is the old stack, where only the new one was named.
        let tests = hosts.values().any(|(group, _)| *group == CaseGroup::Test);
        let controls = hosts.values().any(|(group, _)| *group == CaseGroup::Control);
        let is_old = record.strategy == Strategy::BlueGreen && tests && !controls;
        for (_, host) in self.cells.keys() {
            let rest = if is_old && host != WHOLE_SERVICE {
                (CaseGroup::Control, None)
            } else {
                (CaseGroup::Service, Some(0))
            };
            let seen = || self.sides.of(host, record, origin);
            hosts.entry(host.clone()).or_insert_with(|| seen().unwrap_or(rest));
        }
        hosts
    }

    /// What the case covers: the reference windows and what of the verification window has been read, joined where
    /// they touch. The minute in which the traffic came lies in between, as a gap.
    fn spans(&self, baseline: &[Window], seen: i64, step: i64, origin: i64) -> Vec<(i64, i64)> {
        let mut spans: Vec<(i64, i64)> = baseline
            .iter()
            .map(|w| (ceil(w.start().as_millis(), step), floor(w.end().as_millis(), step)))
            .map(|(s, e)| if e + step >= origin && e < origin { (s, origin) } else { (s, e) })
            .filter(|(s, e)| s < e)
            .collect();
        spans.push((origin, floor(seen, step).max(origin)));
        spans.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::new();
        for (start, end) in spans {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                Some(_) | None => joined.push((start, end)),
            }
        }
        joined.retain(|(s, e)| s < e);
        joined
    }
}

/// Whether a sample takes the place of the one before.
fn replaces(before: Option<&Cell>, cell: &Cell) -> bool {
    before.is_none_or(|before| (before.revision, before.is_final) < (cell.revision, cell.is_final))
}

/// The samples of a span, one a step.
fn samples(cells: &BTreeMap<i64, Cell>, (start, end): (i64, i64), step: i64) -> Vec<Option<f64>> {
    let count = usize::try_from((end - start) / step).unwrap_or(0);
    let at = |i: i64| cells.get(&(start + i * step)).filter(|cell| cell.step == step);
    (0..).take(count).map(|i| at(i).and_then(|cell| cell.value)).collect()
}

/// Adds to what is covered, disjoint and ascending.
fn cover(covered: &mut BTreeMap<i64, i64>, mut start: i64, mut end: i64) {
    let touching: Vec<i64> = covered.range(..=end).filter(|(_, e)| **e >= start).map(|(s, _)| *s).collect();
    for s in touching {
        if let Some(e) = covered.remove(&s) {
            (start, end) = (start.min(s), end.max(e));
        }
    }
    covered.insert(start, end);
}

fn covers(covered: &BTreeMap<i64, i64>, start: i64, end: i64) -> bool {
    covered.range(..=start).next_back().is_some_and(|(_, e)| *e >= end)
}

const fn floor(ms: i64, step: i64) -> i64 {
    ms.div_euclid(step) * step
}

const fn ceil(ms: i64, step: i64) -> i64 {
    -(-ms).div_euclid(step) * step
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::tests::{at, running};
    use proptest::prelude::*;
    use proptest::strategy::Strategy as _;
    use std::time::Duration;
    use vouch_proto::template::golden_signals;
    use vouch_proto::{Name, Series};

    pub(crate) fn batch(from: i64, to: i64, value: f64) -> SeriesBatch {
        let samples =
            (from..to).map(|m| Some(value + f64::from(i32::try_from(m.rem_euclid(7)).unwrap()) / 100.0));
        SeriesBatch {
            environment: Name::new("prod").unwrap(),
            service: Name::new("checkout").unwrap(),
            source: "tenant".into(),
            window: Window::around(at(0), from, to).unwrap(),
            resolution: Duration::from_secs(60),
            watermark: at(to),
            is_final: true,
            revision: 0,
            part: 1,
            parts: 1,
            series: vec![Series {
                metric: "response_time".into(),
                host: None,
                unit: "ms".into(),
                samples: samples.collect(),
                query: String::new(),
                ..Series::default()
            }],
            errors: vec![],
            collected_at: at(to + 2),
            verification_id: None,
            neighbours: vec![],
            problems: vec![],
            objectives: vec![],
            waits: vec![],
        }
    }

    pub(crate) fn source_error(minute: i64, metric: Option<&str>, retryable: bool) -> SeriesBatch {
        let error = SourceError {
            metric: metric.map(Into::into),
            name: if retryable { "unreachable" } else { "unauthorized" }.into(),
            message: "Dynatrace does not answer".into(),
            retryable,
        };
        SeriesBatch { series: vec![], errors: vec![error], ..batch(minute, minute + 1, 0.0) }
    }

    fn batches() -> Vec<SeriesBatch> {
        let mut all: Vec<SeriesBatch> =
            [(-10_140, -10_065), (-1500, -1425), (-180, 0)].map(|(a, b)| batch(a, b, 100.0)).to_vec();
        all.extend((0..15).map(|m| batch(m, m + 1, 110.0)));
        all
    }

    #[test]
    fn the_case_has_the_windows_of_the_record() {
        let mut assembly = Assembly::default();
        batches().iter().for_each(|b| assembly.absorb(b));
        let record = running();
        let window = record.verification.unwrap();
        assert!(assembly.has_baseline(&record.baseline, window));
        assert_eq!((assembly.minutes_seen(window), assembly.minutes_total(window)), (15, 15));
        let case = assembly.case(&record, &golden_signals()).unwrap();
        assert_eq!(case.baseline, [[-10_140, -10_065], [-1500, -1425], [-180, 0]]);
        let shapes: Vec<_> = case.series.iter().map(|s| (s.start, s.values.len())).collect();
        assert_eq!(shapes, [(-10_140, 75), (-1500, 75), (-180, 195)]);
        assert_eq!(case.hosts.keys().collect::<Vec<_>>(), [WHOLE_SERVICE]);
    }

    #[test]
    fn a_hole_stops_the_judge_from_looking_further() {
        let mut assembly = Assembly::default();
        for minute in [0, 1, 3, 4] {
            assembly.absorb(&batch(minute, minute + 1, 1.0));
        }
        let window = running().verification.unwrap();
        assert_eq!(assembly.minutes_seen(window), 2);
        assembly.absorb(&source_error(2, None, true));
        assert_eq!(assembly.minutes_seen(window), 2, "an error delivers nothing");
        assert_eq!(assembly.errors().count(), 1);
        assembly.absorb(&SeriesBatch { collected_at: at(9), ..batch(2, 3, 1.0) });
        assert_eq!(assembly.minutes_seen(window), 5);
        assert_eq!(assembly.errors().count(), 0, "it delivers again");
    }

    #[test]
    fn a_reference_that_is_kept_too_coarsely_is_read_and_empty() {
        let mut assembly = Assembly::default();
        let mut coarse = source_error(0, Some("response_time"), false);
        coarse.window = Window::around(at(0), -180, 0).unwrap();
        coarse.errors[0].name = TOO_COARSE.to_owned();
        assembly.absorb(&coarse);
        let window = running().verification.unwrap();
        assert!(assembly.has_baseline(&[coarse.window], window));
        assert_eq!(assembly.minutes_seen(window), 0);
    }

    #[test]
    fn a_window_in_parts_is_read_when_all_parts_are_there() {
        let mut assembly = Assembly::default();
        let part = |part| SeriesBatch { part, parts: 2, ..batch(0, 3, 1.0) };
        let window = running().verification.unwrap();
        assembly.absorb(&part(2));
        assembly.absorb(&part(2));
        assert_eq!(assembly.minutes_seen(window), 0);
        assembly.absorb(&part(1));
        assert_eq!(assembly.minutes_seen(window), 3);
    }

    #[test]
    fn a_metric_that_the_source_refuses_does_not_stop_the_others() {
        let mut assembly = Assembly::default();
        let mut mixed = batch(0, 1, 1.0);
        mixed.errors = source_error(0, Some("cpu"), false).errors;
        assembly.absorb(&mixed);
        assert_eq!(assembly.minutes_seen(running().verification.unwrap()), 1);
        assert_eq!(assembly.errors().next().unwrap().metric.as_deref(), Some("cpu"));
    }

    #[test]
    fn coarse_data_is_judged_on_its_own_grid() {
        let mut assembly = Assembly::default();
        let coarse = |from: i64, to: i64| {
            let mut b = batch(from, to, 1.0);
            b.resolution = Duration::from_secs(300);
            b.series[0].samples.truncate(usize::try_from((to - from) / 5).unwrap());
            b
        };
        assembly.absorb(&coarse(-180, 0));
        assembly.absorb(&coarse(0, 5));
        let record = running();
        let case = assembly.case(&record, &golden_signals()).unwrap();
        assert_eq!((case.interval_min, case.verification), (5, [0, 15]));
        let recent = case.series.last().unwrap();
        assert_eq!((recent.start, recent.values.len()), (-180, 37));
    }

    #[test]
    fn old_data_in_coarser_steps_is_left_out_and_never_mistaken() {
        let mut assembly = Assembly::default();
        let mut old = batch(-1500, -1425, 9.0);
        old.resolution = Duration::from_secs(300);
        old.series[0].samples.truncate(15);
        assembly.absorb(&old);
        [batch(-180, 0, 1.0), batch(0, 1, 1.0)].iter().for_each(|b| assembly.absorb(b));
        let mut record = running();
        record.baseline.remove(0);
        let window = record.verification.unwrap();
        assert!(assembly.has_baseline(&record.baseline, window));
        let case = assembly.case(&record, &golden_signals()).unwrap();
        assert_eq!((case.interval_min, case.series.len()), (1, 1));
        assert_eq!(case.series[0].start, -180);
    }

    proptest! {
        #[test]
        fn order_and_repetition_change_nothing(order in Just((0..18usize).collect::<Vec<_>>()).prop_shuffle(),
                                               again in prop::collection::vec(0..18usize, 0..9)) {
            let all = batches();
            let mut straight = Assembly::default();
            all.iter().for_each(|b| straight.absorb(b));
            let mut mixed = Assembly::default();
            order.iter().chain(&again).for_each(|i| mixed.absorb(&all[*i]));
            let (record, template) = (running(), golden_signals());
            prop_assert_eq!(straight.case(&record, &template), mixed.case(&record, &template));
        }

        #[test]
        fn the_latest_revision_wins_in_any_order(order in Just(vec![0u32, 1, 2]).prop_shuffle()) {
            let mut assembly = Assembly::default();
            for revision in order {
                assembly.absorb(&SeriesBatch { revision, ..batch(0, 1, f64::from(revision)) });
            }
            let case = assembly.case(&running(), &golden_signals()).unwrap();
            prop_assert_eq!(case.series[0].values.last(), Some(&Some(2.0)));
        }
    }
}
