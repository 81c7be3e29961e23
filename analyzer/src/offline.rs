//! `vouch judge`: verification cases from a file, one JSON object a line, to verdicts, one a line in the same order.

use crate::case::Case;
use crate::judge::{self, JUDGE_VERSION, JudgeSettings, Judgement};
use flate2::bufread::MultiGzDecoder;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use vouch_proto::{CommonCause, Outcome, Witness};

/// Longest line: beyond it a line is refused rather than held in memory.
pub const MAX_LINE_BYTES: u64 = 256 << 20;
/// Cases in flight for each thread.
const AHEAD: usize = 4;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How many lines were judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OfflineSummary {
    /// Lines that were not empty.
    pub cases: u64,
    /// Those of them that were refused.
    pub malformed: u64,
}

/// One line of the output.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: Option<&'a str>,
    outcome: &'static str,
    risk: f64,
    failed_at_minute: Option<i64>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    metrics: Vec<LineMetric<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    common_cause: Option<LineCause<'a>>,
    judge_version: &'static str,
}

#[derive(Debug, Serialize)]
struct LineMetric<'a> {
    metric: &'a str,
    host: &'a str,
    classification: &'static str,
    risk: f64,
    reason: &'a str,
}

/// What explains a degradation besides the deployment.
#[derive(Debug, Serialize)]
struct LineCause<'a> {
    asked: u32,
    shares: Option<&'a str>,
    witnesses: Vec<LineWitness<'a>>,
    problems: &'a [String],
}

#[derive(Debug, Serialize)]
struct LineWitness<'a> {
    service: &'a str,
    metric: &'a str,
    effect: f64,
    since_minute: u32,
}

impl<'a> LineCause<'a> {
    fn of(cause: &'a CommonCause) -> Self {
        let witness = |one: &'a Witness| LineWitness {
            service: &one.service,
            metric: &one.metric,
            effect: one.effect,
            since_minute: one.since_minute,
        };
        Self {
            asked: cause.asked,
            shares: cause.shares.as_deref(),
            witnesses: cause.witnesses.iter().map(witness).collect(),
            problems: &cause.problems,
        }
    }
}

/// A line to judge: its number in the file, from 1, and its bytes, or nothing where it is too long.
struct Task {
    order: u64,
    line: u64,
    bytes: Option<Vec<u8>>,
}

/// A judged line.
struct Done {
    order: u64,
    text: String,
    malformed: bool,
}

/// Judges every case of `reader`, plain or gzip, on `threads` threads, and writes the verdicts in input order.
/// Memory is bounded by the cases in flight.
///
/// # Errors
/// Where reading or writing fails, e.g. a damaged archive.
pub fn run(
    mut reader: impl BufRead,
    writer: impl Write,
    settings: &JudgeSettings,
    threads: usize,
) -> io::Result<OfflineSummary> {
    let start = reader.fill_buf()?;
    if start.starts_with(&GZIP_MAGIC) {
        let reader = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader));
        run_plain(reader, writer, settings, threads.max(1))
    } else {
        run_plain(reader, writer, settings, threads.max(1))
    }
}

fn run_plain(
    reader: impl BufRead,
    writer: impl Write,
    settings: &JudgeSettings,
    threads: usize,
) -> io::Result<OfflineSummary> {
    let ahead = threads * AHEAD;
    let (to_workers, tasks) = sync_channel::<Task>(ahead);
    let (to_writer, done) = sync_channel::<Done>(ahead);
    let tasks = Mutex::new(tasks);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (tasks, to_writer) = (&tasks, to_writer.clone());
            scope.spawn(move || work(tasks, &to_writer, settings));
        }
        drop(to_writer);
        let lines = Lines { reader, line: 0 };
        feed(lines, Ordered { writer, waiting: BTreeMap::new(), next: 0 }, to_workers, &done, ahead)
    })
}

/// Takes tasks until there are no more.
fn work(tasks: &Mutex<Receiver<Task>>, to_writer: &SyncSender<Done>, settings: &JudgeSettings) {
    loop {
        let Ok(Ok(task)) = tasks.lock().map(|tasks| tasks.recv()) else { return };
        if to_writer.send(judge_line(&task, settings)).is_err() {
            return;
        }
    }
}

/// Reads ahead as far as allowed and writes what is done, until both ends are reached.
fn feed(
    mut lines: Lines<impl BufRead>,
    mut out: Ordered<impl Write>,
    to_workers: SyncSender<Task>,
    done: &Receiver<Done>,
    ahead: usize,
) -> io::Result<OfflineSummary> {
    let mut summary = OfflineSummary::default();
    let mut in_flight = 0;
    let mut take = |in_flight: &mut usize, summary: &mut OfflineSummary| -> io::Result<()> {
        let one = done.recv().map_err(|_| io::Error::other("a judging thread has died"))?;
        *in_flight -= 1;
        summary.malformed += u64::from(one.malformed);
        out.put(one)
    };
    while let Some(task) = lines.next(summary.cases)? {
        to_workers.send(task).map_err(|_| io::Error::other("the judging threads have died"))?;
        summary.cases += 1;
        in_flight += 1;
        if in_flight >= ahead {
            take(&mut in_flight, &mut summary)?;
        }
    }
    drop(to_workers);
    while in_flight > 0 {
        take(&mut in_flight, &mut summary)?;
    }
    out.writer.flush()?;
    Ok(summary)
}

/// Lines of a file, with their numbers.
struct Lines<R> {
    reader: R,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line that is not empty.
    fn next(&mut self, order: u64) -> io::Result<Option<Task>> {
        loop {
            let mut bytes = Vec::new();
            let n = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes)?;
            if n == 0 {
                return Ok(None);
            }
            self.line += 1;
            if n as u64 == MAX_LINE_BYTES && bytes.last() != Some(&b'\n') {
                self.skip_line()?;
                return Ok(Some(Task { order, line: self.line, bytes: None }));
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(Task { order, line: self.line, bytes: Some(bytes) }));
            }
        }
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(used);
            if end.is_some() || used == 0 {
                return Ok(());
            }
        }
    }
}

/// Writes in input order what comes in any order.
struct Ordered<W> {
    writer: W,
    waiting: BTreeMap<u64, String>,
    next: u64,
}

impl<W: Write> Ordered<W> {
    fn put(&mut self, done: Done) -> io::Result<()> {
        self.waiting.insert(done.order, done.text);
        while let Some(text) = self.waiting.remove(&self.next) {
            self.writer.write_all(text.as_bytes())?;
            self.next += 1;
        }
        Ok(())
    }
}

fn judge_line(task: &Task, settings: &JudgeSettings) -> Done {
    let done = |text, malformed| Done { order: task.order, text, malformed };
    let refuse = |id: Option<&str>, reason: &str| {
        let line = Line {
            id,
            outcome: Outcome::Error.as_str(),
            risk: 0.0,
            failed_at_minute: None,
            reason,
            line: Some(task.line),
            metrics: Vec::new(),
            common_cause: None,
            judge_version: JUDGE_VERSION,
        };
        done(to_text(&line), true)
    };
    let Some(bytes) = &task.bytes else {
        return refuse(None, &format!("the line has more than {MAX_LINE_BYTES} bytes; split the case"));
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return refuse(None, "the line is not UTF-8; write the cases as JSON in UTF-8");
    };
    match Case::from_json(text) {
        Ok(case) => done(to_text(&verdict(&case.id, &judge::judge_recorded(&case, settings))), false),
        Err(error) => refuse(Case::id_from_json(text).as_deref(), &error.to_string()),
    }
}

fn verdict<'a>(id: &'a str, judgement: &'a Judgement) -> Line<'a> {
    let metrics = judgement.metrics.iter().map(|unit| LineMetric {
        metric: &unit.metric,
        host: &unit.host,
        classification: unit.classification.as_str(),
        risk: unit.risk,
        reason: &unit.reason,
    });
    Line {
        id: Some(id),
        outcome: judgement.outcome.unwrap_or(Outcome::Inconclusive).as_str(),
        risk: judgement.risk,
        failed_at_minute: judgement.failed_at_minute,
        reason: &judgement.reason,
        line: None,
        metrics: metrics.collect(),
        common_cause: judgement.common_cause.as_ref().map(LineCause::of),
        judge_version: JUDGE_VERSION,
    }
}

fn to_text(line: &Line<'_>) -> String {
    // Texts and finite numbers only: this cannot fail; an empty line would be noticed by every reader.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}
