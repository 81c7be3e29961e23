//! Lines of logs: of Logs v2 where the tenant has Logs Classic, of Grail by DQL where it has that.

mod classic;
mod cost;
mod fetch;
mod line;
mod owner;
mod slices;

pub use self::cost::{LogLoad, PlannedScan, plan_logs, plan_scan};

use self::classic::Endpoint;
use self::line::RawLine;
use self::owner::{Groups, Scope};
use self::slices::{Cut, Slice, Slices};
use super::Dynatrace;
use crate::config::LogSourceKind;
use crate::source::logs::{Heard, LineSink, LogAsk, LogSource, LoggedService, Meter, apportion};
use crate::source::{Failure, FailureKind};
use async_trait::async_trait;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use vouch_proto::{LogGap, Timestamp};

/// The part of readiness that reading logs decides.
const CONDITION: &str = "logs";
/// Most lines of one answer of a query of Grail.
const MOST_LINES: usize = 5_000;

/// What is known about reading the tenant's logs.
#[derive(Debug, Default)]
pub(super) struct LogState {
    groups: Groups,
    /// How long slices were in the end, milliseconds; 0 before the first.
    slice_ms: AtomicI64,
    /// What of Logs v2 the tenant has.
    endpoint: Mutex<Endpoint>,
}

/// Of the source, or of those that lines are handed to.
type Told<T> = anyhow::Result<Result<T, Failure>>;

/// A reading under way: what is wanted, whom to give lines to, and how it went so far.
struct Reading<'a> {
    tenant: &'a Dynatrace,
    ask: &'a LogAsk,
    sink: &'a mut dyn LineSink,
    meter: &'a dyn Meter,
    /// By place: why the lines, or the rest of them, could not be had.
    failed: Vec<Option<Failure>>,
    /// By place: why some lines are missing.
    gaps: Vec<Option<LogGap>>,
}

/// An answer about a slice of time.
#[derive(Debug, Default)]
struct Answer {
    lines: Vec<RawLine>,
    /// Behind the last line there may be more.
    is_cut: bool,
    /// Lines are missing anywhere in the slice, and a shorter one may have them.
    too_much: Option<LogGap>,
    /// Lines are missing, and nothing helps.
    gap: Option<LogGap>,
    /// Bytes that it scanned, where that is billed.
    scanned: u64,
}

/// How slices are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Search,
    Grail,
}

impl Reading<'_> {
    /// Notes why nothing more can be had of a service; the first reason counts.
    fn fail(&mut self, place: usize, failure: &Failure) {
        if let Some(slot @ None) = self.failed.get_mut(place) {
            *slot = Some(failure.clone());
        }
    }

    fn fail_all(&mut self, scope: &Scope, failure: &Failure) {
        scope.places().into_iter().for_each(|place| self.fail(place, failure));
    }

    /// Some lines of these services are missing. It goes on.
    fn gap(&mut self, scope: &Scope, gap: &LogGap) {
        for place in scope.places() {
            if let Some(slot @ None) = self.gaps.get_mut(place) {
                *slot = Some(gap.clone());
            }
        }
    }

    fn slice(&self) -> Slice {
        (self.ask.window.start().as_millis(), self.ask.window.end().as_millis())
    }

    fn heard(self) -> Vec<Heard> {
        self.failed.into_iter().zip(self.gaps).map(|(failed, gap)| failed.map_or(Ok(gap), Err)).collect()
    }

    /// Reads all from where the settings say.
    async fn read(&mut self, scope: Scope) -> anyhow::Result<()> {
        match self.tenant.client.settings().logs.source {
            _ if scope.is_empty() => Ok(()),
            LogSourceKind::Off => {
                let message = "reading logs is switched off (collector.logs.source)";
                self.fail_all(&scope, &Failure::new(FailureKind::BadRequest, message));
                Ok(())
            }
            LogSourceKind::Classic => self.classic_lines(scope).await,
            LogSourceKind::Grail => self.grail_lines(scope).await,
        }
    }

    /// Reads a window slice by slice, each below what one answer holds.
    async fn walk(&mut self, mut scope: Scope, by: By) -> anyhow::Result<()> {
        let hint = match self.tenant.logs.slice_ms.load(Ordering::Relaxed) {
            0 => i64::MAX,
            known => known.saturating_mul(2),
        };
        let mut slices = Slices::new(self.slice(), hint);
        while let Some(slice) = slices.next() {
            let answer = match by {
                By::Search => self.search(&scope, slice).await,
                By::Grail => self.fetch(&mut scope, slice).await,
            };
            if scope.is_empty() {
                break;
            }
            let answer = match answer {
                Ok(answer) => answer,
                Err(failure) if failure.kind == FailureKind::TooLarge && slices.halve(slice) => continue,
                Err(failure) => {
                    self.fail_all(&scope, &failure);
                    return Ok(());
                }
            };
            let until = match &answer.too_much {
                // It is asked anew for the half of it.
                Some(_) if slices.halve(slice) => slice.0,
                Some(gap) => {
                    self.gap(&scope, gap);
                    i64::MAX
                }
                None => self.advance(&scope, (&mut slices, slice), &answer),
            };
            if let Some(gap) = &answer.gap {
                self.gap(&scope, gap);
            }
            if !self.take(&mut scope, answer, (slice, until)).await? {
                return Ok(());
            }
        }
        self.tenant.logs.slice_ms.store(slices.length(), Ordering::Relaxed);
        Ok(())
    }

    /// Goes on behind an answer; the lines before the instant that it answers are whole.
    fn advance(&mut self, scope: &Scope, (slices, slice): (&mut Slices, Slice), answer: &Answer) -> i64 {
        let last = answer.lines.iter().map(|line| line.at_ms).max();
        match last.filter(|_| answer.is_cut) {
            None => {
                slices.whole(slice, answer.lines.len() < MOST_LINES / 4);
                i64::MAX
            }
            Some(last) => match slices.cut(slice, last) {
                Cut::Before(until) => until,
                Cut::Unsplittable => {
                    self.gap(scope, &unsplittable(last, answer.lines.len()));
                    i64::MAX
                }
            },
        }
    }

    /// Hands on what of an answer is whole, and notes what it scanned. `false` where it cannot go on.
    async fn take(
        &mut self,
        scope: &mut Scope,
        answer: Answer,
        (slice, until): (Slice, i64),
    ) -> anyhow::Result<bool> {
        let asked = scope.places();
        let taken = self.deliver(scope, within(answer.lines, slice, until)).await?;
        if answer.scanned > 0 {
            let counts: Vec<u64> = asked
                .iter()
                .map(|place| taken.as_ref().ok().and_then(|counts| counts.get(place)).copied().unwrap_or(0))
                .collect();
            let shares = apportion(answer.scanned, &counts);
            let shares: Vec<(usize, u64)> = asked.into_iter().zip(shares).collect();
            self.meter.charge(self.ask, &shares).await;
        }
        if let Err(failure) = &taken {
            self.fail_all(scope, failure);
        }
        Ok(taken.is_ok())
    }

    /// Gives lines to those that they are of, and drops from the scope who wants no more. Answers how many each got.
    async fn deliver(&mut self, scope: &mut Scope, mut lines: Vec<RawLine>) -> Told<BTreeMap<usize, u64>> {
        lines.sort_by_key(|line| line.at_ms);
        let attributed = match self.tenant.attributed(scope, lines, self.ask.window).await {
            Ok(attributed) => attributed,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut counts = BTreeMap::new();
        for (place, lines) in attributed {
            counts.insert(place, u64::try_from(lines.len()).unwrap_or(u64::MAX));
            if !self.sink.take(place, lines).await? {
                scope.remove(place);
            }
        }
        Ok(Ok(counts))
    }

    /// The entities of the services, looked up together; who has none is noted.
    async fn entities(&mut self) -> BTreeMap<usize, String> {
        let tenant = self.tenant;
        let entity = async |LoggedService { environment, service }: &LoggedService| {
            if tenant.environment.as_ref().is_some_and(|held| held != environment) {
                let message = format!("this tenant holds no environment `{environment}`");
                return Err(Failure::new(FailureKind::OtherEnvironment, message));
            }
            tenant.entities.service(&tenant.client, environment, service).await
        };
        let found = join_all(self.ask.services.iter().map(entity)).await;
        let mut entities = BTreeMap::new();
        for (place, found) in found.into_iter().enumerate() {
            match found {
                Ok(entity) => {
                    entities.insert(place, entity);
                }
                Err(failure) => self.fail(place, &failure),
            }
        }
        entities
    }
}

/// Lines of a slice that are in it, and before `until`.
fn within(lines: Vec<RawLine>, slice: Slice, until: i64) -> Vec<RawLine> {
    lines.into_iter().filter(|line| (slice.0..slice.1.min(until)).contains(&line.at_ms)).collect()
}

/// What could not be had because too many lines are of one instant.
fn unsplittable(at_ms: i64, limit: usize) -> LogGap {
    LogGap {
        name: FailureKind::CannotBeSplit.as_str().to_owned(),
        message: format!(
            "{limit} lines or more are stamped {}, which is as many as one answer holds: the others of that millisecond are missing; let services stamp their lines more finely",
            Timestamp::from_millis(at_ms)
        ),
    }
}

impl Dynatrace {
    /// Reads the lines that fit a condition in the language of where they are: of Logs v2, or of a DQL `filter`. The
    /// only service of `ask` stands for all that wrote them.
    ///
    /// # Errors
    /// Where the sink cannot hand lines on.
    pub async fn lines_that_fit(
        &self,
        condition: &str,
        ask: &LogAsk,
        (sink, meter): (&mut dyn LineSink, &dyn Meter),
    ) -> anyhow::Result<Heard> {
        let mut reading = Reading { tenant: self, ask, sink, meter, failed: vec![None], gaps: vec![None] };
        reading.read(Scope::fitting(condition)).await?;
        Ok(reading.heard().into_iter().next().unwrap_or(Ok(None)))
    }

    fn tell_readiness(&self, heard: &[Heard]) {
        let condition = self.client.condition(CONDITION);
        let failures = heard.iter().filter_map(|heard| heard.as_ref().err());
        match failures.into_iter().find(|failure| failure.kind.stops_readiness()) {
            Some(failure) => self.client.health().fails(&condition, failure.to_string()),
            None if heard.iter().any(Result::is_ok) => self.client.health().ok(&condition),
            None => {}
        }
    }
}

#[async_trait]
impl LogSource for Dynatrace {
    async fn lines(
        &self,
        ask: &LogAsk,
        sink: &mut dyn LineSink,
        meter: &dyn Meter,
    ) -> anyhow::Result<Vec<Heard>> {
        let count = ask.services.len();
        let (failed, gaps) = (vec![None; count], vec![None; count]);
        let mut reading = Reading { tenant: self, ask, sink, meter, failed, gaps };
        let entities = reading.entities().await;
        let everybody: Vec<usize> = entities.keys().copied().collect();
        match self.log_scope(entities).await {
            Ok(scope) => reading.read(scope).await?,
            Err(failure) => everybody.into_iter().for_each(|place| reading.fail(place, &failure)),
        }
        let heard = reading.heard();
        self.tell_readiness(&heard);
        Ok(heard)
    }
}
