//! Lines as they come, to parts on the bus: limits, parts, revisions, and the end of each window.

use super::record::{Begun, LogRecord};
use crate::config::LogSettings;
use crate::metrics::Metrics;
use crate::source::FailureKind;
use crate::source::logs::{LineSink, LogAsk, LoggedService, SourceLine};
use anyhow::Context as _;
use async_nats::jetstream::kv;
use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use vouch_proto::envelope::PROTOBUF;
use vouch_proto::logs::{LogPart, cut};
use vouch_proto::{LogBatch, LogEnd, LogGap, LogState, Timestamp, Window, subject, v1};
use vouch_service::bucket::{self, Change};
use vouch_service::clock::SharedClock;
use vouch_service::nats::{Nats, headers};
use vouch_service::publish::publish;

/// `type` of a batch's CloudEvents attributes.
const EVENT_TYPE: &str = "dev.vouch.v1.logs";
/// `source` of a batch's CloudEvents attributes.
const EVENT_SOURCE: &str = "vouch/collector";
/// Name of the reason that says: more lines than `collector.logs.lines_per_minute`.
const LINE_LIMIT: &str = "line_limit";
/// Name of the reason that says: more bytes than `collector.logs.mib_per_minute`.
const BYTE_LIMIT: &str = "byte_limit";

/// Where batches go.
#[derive(Debug, Clone)]
pub(crate) struct Bus {
    pub(crate) nats: Nats,
    pub(crate) clock: SharedClock,
    /// The records of what was published.
    pub(crate) records: kv::Store,
    /// Name of the tenant.
    pub(crate) source: String,
    pub(crate) metrics: Metrics,
}

impl Bus {
    /// Publishes a part and waits for its acknowledgement.
    async fn send(&self, batch: LogBatch) -> anyhow::Result<()> {
        let (environment, service) = (&batch.environment, &batch.service);
        let topic = subject::logs(environment, service);
        let id = format!(
            "logs/{}/{}/{}/{}/{}",
            topic,
            batch.window.start(),
            batch.window.end(),
            batch.revision,
            batch.part
        );
        let pairs = vec![
            ("ce-specversion", "1.0".to_owned()),
            ("ce-type", EVENT_TYPE.to_owned()),
            ("ce-source", EVENT_SOURCE.to_owned()),
            ("ce-id", id.clone()),
            ("ce-subject", format!("{environment}/{service}")),
            ("ce-time", batch.collected_at.to_string()),
            ("content-type", PROTOBUF.to_owned()),
            ("Nats-Msg-Id", id.clone()),
        ];
        self.metrics.log_part(batch.lines.len());
        let body = Bytes::from(v1::LogBatch::from(batch).encode_to_vec());
        publish(&self.nats, topic, headers(pairs), body).await.with_context(|| format!("batch {id}"))
    }

    /// Changes the record of a service.
    pub(crate) async fn change<T>(
        &self,
        service: &LoggedService,
        change: impl Fn(&mut LogRecord) -> T,
    ) -> anyhow::Result<(LogRecord, T)> {
        let key = subject::logs_key(&service.environment, &service.service);
        bucket::change(&self.records, &key, |stored| {
            let before = LogRecord::read(stored)?;
            let mut record = before.clone();
            let answer = change(&mut record);
            if record == before && stored.is_some() {
                return Ok(Change::Keep((record, answer)));
            }
            Ok(Change::Write(record.write()?, (record, answer)))
        })
        .await
    }

    /// What has been published of a service, also where the note of its last window was lost.
    pub(crate) async fn record(&self, service: &LoggedService) -> anyhow::Result<LogRecord> {
        let key = subject::logs_key(&service.environment, &service.service);
        let record = LogRecord::read(bucket::read(&self.records, &key).await?.as_deref())?;
        match self.last_window(service).await? {
            Some(window) if !crate::record::uncovered(window, &record.covered).is_empty() => {
                Ok(self.change(service, |record| record.cover(window)).await?.0)
            }
            Some(_) | None => Ok(record),
        }
    }

    /// The window that the last message on a service's subject ends.
    async fn last_window(&self, service: &LoggedService) -> anyhow::Result<Option<Window>> {
        let topic = subject::logs(&service.environment, &service.service);
        let stream = self.nats.jetstream.get_stream_no_info(subject::LOGS.name).await?;
        let last = match stream.direct_get_last_for_subject(&topic).await {
            Ok(last) => last,
            Err(e) if e.kind() == async_nats::jetstream::stream::DirectGetErrorKind::NotFound => {
                return Ok(None);
            }
            Err(e) => return Err(e).with_context(|| format!("the last message on {topic} cannot be read")),
        };
        let batch = v1::LogBatch::decode(last.payload).ok().and_then(|wire| LogBatch::try_from(wire).ok());
        Ok(batch.filter(|batch| batch.end.is_some()).map(|batch| batch.window))
    }
}

/// The lines of one service and window on their way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    service: LoggedService,
    window: Window,
    part: LogPart,
    /// Parts that went out.
    sent: u32,
    /// Known once a part went out, or where an earlier attempt was cut off.
    revision: Option<u32>,
    has_begun: bool,
    lines: u64,
    bytes: u64,
    left_out: u64,
    limit: Option<LogGap>,
}

impl Outgoing {
    /// `record` is what is known of the service.
    pub(crate) fn new(service: LoggedService, window: Window, record: Option<&LogRecord>) -> Self {
        let has_begun = record.is_some_and(|record| record.attempt(window).is_some());
        Self {
            service,
            window,
            part: LogPart::default(),
            sent: 0,
            revision: None,
            has_begun,
            lines: 0,
            bytes: 0,
            left_out: 0,
            limit: None,
        }
    }

    /// The attempt that was made, where parts of it went out.
    pub(crate) fn begun(&self) -> Option<Begun> {
        self.revision.map(|revision| Begun { window: self.window, revision })
    }

    /// Whether it has any line.
    pub(crate) const fn has_lines(&self) -> bool {
        self.lines > 0
    }

    /// Adds a line, if it is within the limits.
    fn add(&mut self, line: SourceLine, settings: &LogSettings) {
        let minutes = u64::try_from(self.window.minutes()).unwrap_or(1);
        let SourceLine { mut line, origin } = line;
        line.truncated |= cut(&mut line.content, settings.longest_line);
        let length = u64::try_from(line.content.len()).unwrap_or(u64::MAX);
        let (most_lines, most_bytes) =
            (settings.lines_per_minute * minutes, settings.bytes_per_minute.saturating_mul(minutes));
        let limit = |name: &str, message: String| Some(LogGap { name: name.to_owned(), message });
        if self.limit.is_none() {
            self.limit = if self.lines >= most_lines {
                let most = settings.lines_per_minute;
                limit(
                    LINE_LIMIT,
                    format!("more than {most} lines a minute (collector.logs.lines_per_minute)"),
                )
            } else if self.bytes.saturating_add(length) > most_bytes {
                let most = settings.bytes_per_minute >> 20;
                limit(BYTE_LIMIT, format!("more than {most} MiB a minute (collector.logs.mib_per_minute)"))
            } else {
                None
            };
        }
        if self.limit.is_some() {
            self.left_out += 1;
            return;
        }
        self.lines += 1;
        self.bytes += length;
        self.part.add(line, origin);
    }

    /// Publishes the part that is full. From the second on another attempt must not mix with this one.
    async fn flush(&mut self, bus: &Bus) -> anyhow::Result<()> {
        self.begin(bus).await?;
        let batch = self.batch(bus.source.clone(), bus.clock.now(), None);
        bus.send(batch).await
    }

    async fn begin(&mut self, bus: &Bus) -> anyhow::Result<()> {
        if self.revision.is_none() {
            let window = self.window;
            let (_, revision) = bus.change(&self.service, |record| record.begin(window)).await?;
            self.revision = Some(revision);
        }
        Ok(())
    }

    /// Publishes the last part, which says how the window stands, and notes that it is published.
    pub(crate) async fn finish(mut self, bus: &Bus, gap: Option<LogGap>) -> anyhow::Result<LogRecord> {
        let state = match (self.limit.take(), gap) {
            (None, None) => LogState::Complete,
            (Some(limit), _) => LogState::Partial(limit, self.left_out),
            (None, Some(gap)) => LogState::Partial(gap, self.left_out),
        };
        self.end(bus, state).await
    }

    /// As `finish`, where the lines, or the rest of them, could not be had.
    pub(crate) async fn fail(self, bus: &Bus, gap: LogGap) -> anyhow::Result<LogRecord> {
        if self.has_lines() {
            return self.finish(bus, Some(gap)).await;
        }
        self.end(bus, LogState::Missing(gap)).await
    }

    async fn end(mut self, bus: &Bus, state: LogState) -> anyhow::Result<LogRecord> {
        if self.has_begun {
            self.begin(bus).await?;
        }
        bus.metrics.log_window(match &state {
            LogState::Complete => "complete",
            LogState::Partial(gap, _) | LogState::Missing(gap) => &gap.name,
        });
        let end = LogEnd { state, lines: self.lines };
        let batch = self.batch(bus.source.clone(), bus.clock.now(), Some(end));
        bus.send(batch).await?;
        let window = self.window;
        Ok(bus.change(&self.service, |record| record.cover(window)).await?.0)
    }

    fn batch(&mut self, source: String, now: Timestamp, end: Option<LogEnd>) -> LogBatch {
        let (lines, origins) = self.part.take();
        self.sent += 1;
        LogBatch {
            environment: self.service.environment.clone(),
            service: self.service.service.clone(),
            source,
            window: self.window,
            revision: self.revision.unwrap_or(0),
            part: self.sent,
            lines,
            origins,
            end,
            collected_at: now,
        }
    }
}

/// The services of a reading with what of each is on its way.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) settings: &'a LogSettings,
    pub(crate) outgoing: Vec<Outgoing>,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(
        bus: &'a Bus,
        settings: &'a LogSettings,
        ask: &LogAsk,
        records: impl Fn(&LoggedService) -> Option<&'a LogRecord>,
    ) -> Self {
        let of = |service: &LoggedService| Outgoing::new(service.clone(), ask.window, records(service));
        Self { bus, settings, outgoing: ask.services.iter().map(of).collect() }
    }
}

#[async_trait]
impl LineSink for Desk<'_> {
    async fn take(&mut self, service: usize, lines: Vec<SourceLine>) -> anyhow::Result<bool> {
        let Some(outgoing) = self.outgoing.get_mut(service) else { return Ok(false) };
        for line in lines {
            outgoing.add(line, self.settings);
            if outgoing.part.is_full() {
                outgoing.flush(self.bus).await?;
            }
        }
        Ok(outgoing.limit.is_none())
    }
}

/// What is said of a window that nobody tries any more.
pub(crate) fn not_in_time(why: Option<String>) -> LogGap {
    let why = why.unwrap_or_else(|| "no collector tried".to_owned());
    LogGap {
        name: FailureKind::Incomplete.as_str().to_owned(),
        message: format!("the lines could not be read in time: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{at, window};
    use vouch_proto::{LogLevel, LogLine, LogOrigin, Name};

    fn outgoing() -> Outgoing {
        let service =
            LoggedService { environment: Name::new("prod").unwrap(), service: Name::new("cart").unwrap() };
        Outgoing::new(service, window(0, 2), None)
    }

    fn line(content: &str) -> SourceLine {
        let line = LogLine {
            at: at(0),
            level: LogLevel::Info,
            content: content.into(),
            truncated: false,
            origin: 0,
        };
        SourceLine { line, origin: LogOrigin::default() }
    }

    #[test]
    fn what_is_beyond_a_limit_is_counted_and_named() {
        let settings = LogSettings { lines_per_minute: 2, ..LogSettings::default() };
        let mut one = outgoing();
        (0..7).for_each(|_| one.add(line("x"), &settings));
        assert_eq!((one.lines, one.left_out), (4, 3), "two a minute of two minutes");
        assert_eq!(one.limit.unwrap().name, LINE_LIMIT);
        let settings = LogSettings { bytes_per_minute: 10, longest_line: 8, ..LogSettings::default() };
        let mut one = outgoing();
        for content in ["0123456789", "01234567", "012345", "0"] {
            one.add(line(content), &settings);
        }
        assert_eq!((one.lines, one.bytes, one.left_out), (2, 16, 2), "none is taken once one did not fit");
        assert_eq!(one.limit.as_ref().unwrap().name, BYTE_LIMIT);
        let batch = one.batch("t".into(), at(5), None);
        assert_eq!((batch.lines[0].content.as_str(), batch.lines[0].truncated), ("01234567", true));
        assert_eq!((batch.lines[1].truncated, batch.part), (false, 1));
    }
}
