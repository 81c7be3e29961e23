//! Collected lines of logs: facts about a service in a window, in parts, the last of which says how the window stands.

use crate::convert::{enum_words, text};
use crate::series::MAX_BATCH_BYTES;
use crate::{Invalid, Name, Timestamp, Window, time, v1};
use std::collections::BTreeMap;

/// A part is handed on once it holds so many bytes; with its last line it stays below `MAX_BATCH_BYTES`.
pub const PART_BYTES: usize = 64 * 1024;
/// Longest content of a line.
pub const MAX_LINE_BYTES: usize = 128 * 1024;
/// Longest of the texts that say where a line comes from; longer ones are cut.
const MAX_ORIGIN_BYTES: usize = 1024;
/// Bytes of a line in a message besides its content, at most.
const LINE_OVERHEAD: usize = 32;

/// Name of the reason that says: the budget of what may be scanned is used up.
pub const BUDGET: &str = "budget";

/// How severe a line is, as its source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogLevel {
    /// The source knows none.
    None,
    /// Finer than debugging.
    Trace,
    /// For debugging.
    Debug,
    /// What is usual.
    Info,
    /// What may become a trouble.
    Warn,
    /// What went wrong.
    Error,
    /// After which the program may not go on.
    Fatal,
}

/// How a window of logs stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogStatus {
    /// Every line that the source has.
    Complete,
    /// Some lines are missing.
    Partial,
    /// Nothing is known about the lines of the window.
    Missing,
}

enum_words!(LogLevel, v1::LogLevel, None, Trace, Debug, Info, Warn, Error, Fatal);
enum_words!(LogStatus, v1::LogStatus, Complete, Partial, Missing);

impl LogLevel {
    /// The level that a source's word means: those of syslog, of OpenTelemetry and of Dynatrace.
    #[must_use]
    pub fn of_word(word: &str) -> Self {
        let word = word.trim().to_ascii_lowercase();
        let begins = |one: &str| word.starts_with(one);
        if begins("emerg") || begins("fatal") || begins("panic") {
            Self::Fatal
        } else if begins("err") || begins("severe") || begins("crit") || begins("alert") || begins("fail") {
            Self::Error
        } else if begins("warn") {
            Self::Warn
        } else if begins("info") || begins("notice") {
            Self::Info
        } else if begins("debug") || begins("verbose") {
            Self::Debug
        } else if begins("trace") {
            Self::Trace
        } else {
            Self::None
        }
    }
}

/// Where a line comes from; `None` is what the source does not say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogOrigin {
    /// As series name it.
    pub host: Option<String>,
    /// Id of the process.
    pub process: Option<String>,
    /// The pod.
    pub pod: Option<String>,
    /// The machine.
    pub machine: Option<String>,
    /// Id of the service's entity.
    pub entity: Option<String>,
    /// The file or stream.
    pub stream: Option<String>,
}

impl LogOrigin {
    fn fields(&mut self) -> [&mut Option<String>; 6] {
        [
            &mut self.host,
            &mut self.process,
            &mut self.pod,
            &mut self.machine,
            &mut self.entity,
            &mut self.stream,
        ]
    }

    fn bytes(&self) -> usize {
        let mut copy = self.clone();
        24 + copy.fields().into_iter().flatten().map(|text| text.len()).sum::<usize>()
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub at: Timestamp,
    /// How severe it is.
    pub level: LogLevel,
    /// What was written; of several lines where the source takes them for one record.
    pub content: String,
    /// The content is only the beginning.
    pub truncated: bool,
    /// Index into the batch's origins.
    pub origin: usize,
}

/// Why lines are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGap {
    /// Stable name, e.g. `budget`.
    pub name: String,
    /// For a person.
    pub message: String,
}

/// How a window stands, with why where it is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// Every line that the source has.
    Complete,
    /// Some lines are missing, at least so many.
    Partial(LogGap, u64),
    /// Nothing is known about the lines of the window.
    Missing(LogGap),
}

/// The end of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// How the window stands.
    pub state: LogState,
    /// How many lines all parts have.
    pub lines: u64,
}

/// One part of one window of one service, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBatch {
    /// Environment of the service.
    pub environment: Name,
    /// The service.
    pub service: Name,
    /// Who was asked.
    pub source: String,
    /// When the lines were written.
    pub window: Window,
    /// A later revision replaces an earlier one, all its parts.
    pub revision: u32,
    /// From 1.
    pub part: u32,
    /// In the order of their time.
    pub lines: Vec<LogLine>,
    /// Where they come from.
    pub origins: Vec<LogOrigin>,
    /// In the last part alone.
    pub end: Option<LogEnd>,
    /// When it was published.
    pub collected_at: Timestamp,
}

impl TryFrom<v1::LogBatch> for LogBatch {
    type Error = Invalid;

    fn try_from(b: v1::LogBatch) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let environment = invalid.check("environment", Name::new(b.environment));
        let service = invalid.check("service", Name::new(b.service));
        let window = b.window.ok_or_else(|| Invalid::field("", "is missing")).and_then(Window::try_from);
        let window = invalid.check("window", window);
        let collected_at = invalid.check("collected_at", time::required(b.collected_at));
        let end = invalid.check("end", b.end.map(LogEnd::try_from).transpose());
        if b.part == 0 {
            invalid.push("part", "0 is no part; they count from 1");
        }
        let origins: Vec<LogOrigin> = b.origins.into_iter().map(LogOrigin::from).collect();
        let (Some(environment), Some(service), Some(window), Some(collected_at), Some(end)) =
            (environment, service, window, collected_at, end)
        else {
            return Err(invalid);
        };
        let mut lines: Vec<LogLine> = Vec::with_capacity(b.lines.len());
        for (i, line) in b.lines.into_iter().enumerate() {
            let earliest = lines.last().map_or(window.start(), |line| line.at);
            let read = read_line(line, window, (earliest, origins.len()));
            lines.extend(invalid.check(&format!("lines[{i}]"), read));
        }
        if let Some(end) = &end
            && end.lines < u64::try_from(lines.len()).unwrap_or(u64::MAX)
        {
            invalid.push(
                "end.lines",
                format!("{} is less than the {} lines of this part", end.lines, lines.len()),
            );
        }
        invalid.into_result().map(|()| Self {
            environment,
            service,
            source: b.source,
            window,
            revision: b.revision,
            part: b.part,
            lines,
            origins,
            end,
            collected_at,
        })
    }
}

/// Reads one line, which is no earlier than the one before it.
fn read_line(
    line: v1::LogLine,
    window: Window,
    (earliest, origins): (Timestamp, usize),
) -> Result<LogLine, Invalid> {
    let at = Timestamp::from_millis(window.start().as_millis() + i64::from(line.offset_ms));
    if at >= window.end() {
        return Err(Invalid::field("offset_ms", format!("{} is beyond the window {window}", line.offset_ms)));
    }
    if at < earliest {
        return Err(Invalid::field("offset_ms", format!("{} is before the line before", line.offset_ms)));
    }
    let origin = usize::try_from(line.origin).unwrap_or(usize::MAX);
    if origin >= origins {
        return Err(Invalid::field("origin", format!("{origin} is beyond the {origins} origins")));
    }
    let level = LogLevel::from_wire(line.level).map_err(|mut invalid| {
        invalid.violations.iter_mut().for_each(|v| "level".clone_into(&mut v.field));
        invalid
    })?;
    Ok(LogLine { at, level, content: line.content, truncated: line.truncated, origin })
}

impl TryFrom<v1::LogEnd> for LogEnd {
    type Error = Invalid;

    fn try_from(end: v1::LogEnd) -> Result<Self, Invalid> {
        let status = LogStatus::from_wire(end.status).map_err(|mut invalid| {
            invalid.violations.iter_mut().for_each(|v| "status".clone_into(&mut v.field));
            invalid
        })?;
        let gap = LogGap { name: end.name, message: end.message };
        let named = !gap.name.is_empty();
        let state = match status {
            LogStatus::Complete if !named && end.left_out == 0 => LogState::Complete,
            LogStatus::Complete => {
                return Err(Invalid::field("status", "is complete, and lines are said to be missing"));
            }
            LogStatus::Partial | LogStatus::Missing if !named => {
                return Err(Invalid::field("name", "is empty; say why lines are missing"));
            }
            LogStatus::Missing if end.lines > 0 => {
                return Err(Invalid::field("lines", format!("{} of a window that is missing", end.lines)));
            }
            LogStatus::Partial => LogState::Partial(gap, end.left_out),
            LogStatus::Missing => LogState::Missing(gap),
        };
        Ok(Self { state, lines: end.lines })
    }
}

impl From<v1::LogOrigin> for LogOrigin {
    fn from(o: v1::LogOrigin) -> Self {
        Self {
            host: text(o.host),
            process: text(o.process),
            pod: text(o.pod),
            machine: text(o.machine),
            entity: text(o.entity),
            stream: text(o.stream),
        }
    }
}

impl From<LogOrigin> for v1::LogOrigin {
    fn from(o: LogOrigin) -> Self {
        Self {
            host: o.host.unwrap_or_default(),
            process: o.process.unwrap_or_default(),
            pod: o.pod.unwrap_or_default(),
            machine: o.machine.unwrap_or_default(),
            entity: o.entity.unwrap_or_default(),
            stream: o.stream.unwrap_or_default(),
        }
    }
}

impl From<LogEnd> for v1::LogEnd {
    fn from(end: LogEnd) -> Self {
        let (status, gap, left_out) = match end.state {
            LogState::Complete => (LogStatus::Complete, None, 0),
            LogState::Partial(gap, left_out) => (LogStatus::Partial, Some(gap), left_out),
            LogState::Missing(gap) => (LogStatus::Missing, Some(gap), 0),
        };
        let (name, message) = gap.map(|gap| (gap.name, gap.message)).unwrap_or_default();
        Self { status: status.to_wire(), name, message, lines: end.lines, left_out }
    }
}

impl From<LogBatch> for v1::LogBatch {
    fn from(b: LogBatch) -> Self {
        let start = b.window.start().as_millis();
        let line = |line: LogLine| v1::LogLine {
            offset_ms: u32::try_from(line.at.as_millis() - start).unwrap_or(u32::MAX),
            level: line.level.to_wire(),
            content: line.content,
            origin: u32::try_from(line.origin).unwrap_or(u32::MAX),
            truncated: line.truncated,
        };
        Self {
            environment: b.environment.into(),
            service: b.service.into(),
            source: b.source,
            window: Some(b.window.into()),
            revision: b.revision,
            part: b.part,
            lines: b.lines.into_iter().map(line).collect(),
            origins: b.origins.into_iter().map(Into::into).collect(),
            end: b.end.map(Into::into),
            collected_at: Some(b.collected_at.into()),
        }
    }
}

/// Gathers the lines of a part.
#[derive(Debug, Default)]
pub struct LogPart {
    lines: Vec<LogLine>,
    origins: Vec<LogOrigin>,
    known: BTreeMap<LogOrigin, usize>,
    bytes: usize,
}

impl LogPart {
    /// Adds a line, its content and origin cut to what fits. `line.origin` is replaced.
    pub fn add(&mut self, mut line: LogLine, mut origin: LogOrigin) {
        line.truncated |= cut(&mut line.content, MAX_LINE_BYTES);
        for text in origin.fields().into_iter().flatten() {
            cut(text, MAX_ORIGIN_BYTES);
        }
        line.origin = match self.known.get(&origin) {
            Some(index) => *index,
            None => {
                self.bytes += origin.bytes();
                self.origins.push(origin.clone());
                self.known.insert(origin, self.origins.len() - 1);
                self.origins.len() - 1
            }
        };
        self.bytes += line.content.len() + LINE_OVERHEAD;
        self.lines.push(line);
    }

    /// Whether it is to be handed on.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.bytes >= PART_BYTES
    }

    /// Whether it has no line.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines and their origins; what is left is empty.
    pub fn take(&mut self) -> (Vec<LogLine>, Vec<LogOrigin>) {
        let part = std::mem::take(self);
        (part.lines, part.origins)
    }
}

/// Cuts a text to so many bytes, between characters; whether something was cut off.
pub fn cut(text: &mut String, most: usize) -> bool {
    if text.len() <= most {
        return false;
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    true
}

const _: () = assert!(PART_BYTES + MAX_LINE_BYTES + 8 * MAX_ORIGIN_BYTES + 8192 < MAX_BATCH_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    fn start() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    fn line(offset_ms: i64, content: &str) -> LogLine {
        let at = Timestamp::from_millis(start().as_millis() + offset_ms);
        LogLine { at, level: LogLevel::Info, content: content.into(), truncated: false, origin: 0 }
    }

    fn batch(lines: Vec<LogLine>) -> LogBatch {
        let count = u64::try_from(lines.len()).unwrap();
        LogBatch {
            environment: Name::new("prod").unwrap(),
            service: Name::new("checkout").unwrap(),
            source: "tenant".into(),
            window: Window::around(start(), 0, 1).unwrap(),
            revision: 0,
            part: 1,
            lines,
            origins: vec![LogOrigin { host: Some("pod-1".into()), ..LogOrigin::default() }],
            end: Some(LogEnd { state: LogState::Complete, lines: count }),
            collected_at: start().plus_minutes(3),
        }
    }

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        let gap = || LogGap { name: "line_limit".into(), message: "more than 10 lines".into() };
        let missing = LogGap { name: BUDGET.into(), message: "used up".into() };
        let mut one = batch(vec![line(0, "a"), line(0, "b"), line(59_999, "")]);
        for end in [
            None,
            Some(LogEnd { state: LogState::Partial(gap(), 7), lines: 3 }),
            Some(LogEnd { state: LogState::Complete, lines: 3 }),
        ] {
            one.end = end;
            assert_eq!(LogBatch::try_from(v1::LogBatch::from(one.clone())), Ok(one.clone()));
        }
        let mut none = batch(vec![]);
        none.end = Some(LogEnd { state: LogState::Missing(missing), lines: 0 });
        assert_eq!(LogBatch::try_from(v1::LogBatch::from(none.clone())), Ok(none));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let wrong = |change: fn(&mut v1::LogBatch)| {
            let mut wire = v1::LogBatch::from(batch(vec![line(5, "a"), line(9, "b")]));
            change(&mut wire);
            LogBatch::try_from(wire).unwrap_err().to_string()
        };
        assert!(wrong(|b| b.lines[1].offset_ms = 60_000).contains("lines[1].offset_ms: 60000 is beyond"));
        assert!(wrong(|b| b.lines[1].offset_ms = 4).contains("lines[1].offset_ms: 4 is before"));
        assert!(wrong(|b| b.lines[0].origin = 1).contains("lines[0].origin: 1 is beyond the 1 origins"));
        assert!(wrong(|b| b.lines[0].level = 0).contains("lines[0].level: unknown value `LOG_LEVEL_UNSPEC"));
        assert!(wrong(|b| b.part = 0).contains("part: 0 is no part"));
        assert!(wrong(|b| b.window = None).contains("window: is missing"));
        assert!(wrong(|b| b.collected_at = None).contains("collected_at: is missing"));
        assert!(wrong(|b| b.end.as_mut().unwrap().lines = 1).contains("end.lines: 1 is less than the 2"));
        assert!(wrong(|b| b.end.as_mut().unwrap().status = 9).contains("end.status: unknown value `9`"));
        assert!(wrong(|b| b.end.as_mut().unwrap().left_out = 1).contains("end.status: is complete, and"));
        assert!(wrong(|b| b.end.as_mut().unwrap().status = 2).contains("end.name: is empty"));
        let missing = wrong(|b| {
            let end = b.end.as_mut().unwrap();
            (end.status, end.name) = (3, "budget".into());
        });
        assert!(missing.contains("end.lines: 2 of a window that is missing"), "{missing}");
    }

    #[test]
    fn words_of_sources_become_levels() {
        for (level, words) in [
            (LogLevel::Fatal, ["FATAL", "EMERGENCY", "emerg"]),
            (LogLevel::Error, ["ERROR", "Severe", "CRITICAL"]),
            (LogLevel::Warn, ["WARN", "warning", " Warn "]),
            (LogLevel::Info, ["INFO", "Notice", "information"]),
            (LogLevel::Debug, ["DEBUG", "verbose", "debug"]),
            (LogLevel::Trace, ["TRACE", "trace", "Trace"]),
            (LogLevel::None, ["NONE", "", "NOT_APPLICABLE"]),
        ] {
            for word in words {
                assert_eq!(LogLevel::of_word(word), level, "{word}");
            }
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut text = "aäöü".to_owned();
        assert!(cut(&mut text, 4));
        assert_eq!(text, "aä");
        assert!(!cut(&mut text, 3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn no_part_is_too_large_and_no_line_is_lost(
            lengths in proptest::collection::vec(0_usize..200_000, 1..12), origins in 1_usize..400
        ) {
            let (mut part, mut parts) = (LogPart::default(), Vec::new());
            for (i, length) in lengths.iter().enumerate() {
                let origin = |n: usize| LogOrigin { host: Some(format!("{n}{}", "h".repeat(2000))), ..LogOrigin::default() };
                part.add(line(0, &"x".repeat(*length)), origin(i % origins));
                if part.is_full() {
                    parts.push(part.take());
                }
            }
            parts.push(part.take());
            let mut seen = 0;
            for (lines, origins) in parts {
                seen += lines.len();
                prop_assert!(lines.iter().all(|l| l.origin < origins.len()));
                let end = Some(LogEnd { state: LogState::Complete, lines: 1000 });
                let wire = v1::LogBatch::from(LogBatch { origins, end, ..batch(lines) });
                prop_assert!(wire.encoded_len() <= MAX_BATCH_BYTES, "{}", wire.encoded_len());
            }
            prop_assert_eq!(seen, lengths.len());
        }
    }
}
