//! What simulated services write into their logs: a pure function of seed, time, deployments and incidents.

use super::effect::{Effect, Impact};
use super::service::{History, Rolled, ServiceModel, Signal};
use crate::noise::{hash, poisson, stream, uniform};
use crate::point::Aggregation;
use crate::time::MINUTE;
use jiff::Timestamp;
use std::sync::Arc;

/// Most lines of one kind that a host writes in a minute.
const MOST_PER_MINUTE: u32 = 2_000;
/// Lines about slowness that a slow host writes in a minute.
const SLOW_PER_MINUTE: f64 = 4.0;
/// Latency from which on a host complains.
const SLOW: f64 = 1.2;

/// Where a line comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LogSource {
    /// Id of the service.
    pub(crate) service: String,
    /// Id of the process group.
    pub(crate) group: String,
    /// Id of the process group instance.
    pub(crate) instance: String,
    /// Id of the host.
    pub(crate) host: String,
    /// Name of the host.
    pub(crate) host_name: String,
    /// The bucket of Grail that keeps it.
    pub(crate) bucket: String,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// When it was written, epoch milliseconds.
    pub(crate) at_ms: i64,
    /// `loglevel`.
    pub(crate) level: &'static str,
    /// What was written.
    pub(crate) content: String,
    /// Where it comes from.
    pub(crate) source: Arc<LogSource>,
    /// Decides how long it takes to appear.
    pub(crate) seed: u64,
}

impl LogEntry {
    /// `status`: the level in the words of Dynatrace's summary.
    pub(crate) fn status(&self) -> &'static str {
        match self.level {
            "ERROR" | "SEVERE" | "FATAL" => "ERROR",
            "WARN" => "WARN",
            _ => "INFO",
        }
    }

    /// A field by its name, where it is a text.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        Some(match name {
            "content" => &self.content,
            "loglevel" => self.level,
            "status" => self.status(),
            "event.type" => "LOG",
            "log.source" => "stdout",
            "dt.entity.service" => &self.source.service,
            "dt.entity.process_group" => &self.source.group,
            "dt.entity.process_group_instance" | "dt.source_entity" => &self.source.instance,
            "dt.entity.host" => &self.source.host,
            "host.name" | "k8s.pod.name" => &self.source.host_name,
            "dt.system.bucket" => &self.source.bucket,
            _ => return None,
        })
    }

    /// The fields that a search shows beside content, status and time.
    pub(crate) const COLUMNS: [&'static str; 9] = [
        "loglevel",
        "log.source",
        "dt.entity.service",
        "dt.entity.process_group",
        "dt.entity.process_group_instance",
        "dt.entity.host",
        "dt.source_entity",
        "host.name",
        "k8s.pod.name",
    ];

    /// Bytes that reading it costs.
    pub(crate) fn bytes(&self) -> u64 {
        let columns: usize = Self::COLUMNS.iter().filter_map(|c| Some(c.len() + self.field(c)?.len())).sum();
        u64::try_from(self.content.len() + columns).unwrap_or(u64::MAX)
    }
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Usual,
    Failed,
    Broken,
    Slow,
}

impl ServiceModel {
    /// The lines of a host in the minute that begins at `at`, in the order of their time.
    pub(crate) fn lines(
        &self,
        host: usize,
        at: i64,
        history: &History,
        source: &Arc<LogSource>,
    ) -> Vec<LogEntry> {
        let Some(requests) = self.host_point(Signal::Requests, host, at, history) else { return Vec::new() };
        let seed = stream(stream(self.seed, &source.host_name), "lines");
        let minute = at.div_euclid(MINUTE);
        #[allow(clippy::cast_precision_loss, reason = "a few hosts")]
        let share = self.spec.logs.per_minute / self.spec.hosts.len() as f64;
        let errors =
            self.host_point(Signal::Errors, host, at, history).map_or(0.0, |p| p.aggregate(Aggregation::Sum));
        let (version, own) = self.running(host, at, history);
        let impact = history.felt.iter().fold(own, |all, felt| all.and(felt.impact(&source.host_name, at)));
        let rate = (self.spec.errors.rate + impact.errors).max(f64::MIN_POSITIVE);
        let broken = libm::round(errors * own.errors / rate);
        let slow = if impact.latency >= SLOW { SLOW_PER_MINUTE } else { 0.0 };
        let usual = if requests.aggregate(Aggregation::Sum) > 0.0 {
            poisson(stream(seed, "usual"), minute, share)
        } else {
            0.0
        };
        let counts = [
            (Kind::Usual, usual),
            (Kind::Failed, errors - broken),
            (Kind::Broken, broken),
            (Kind::Slow, poisson(stream(seed, "slow"), minute, slow)),
        ];
        let mut lines = Vec::new();
        if self.spec.logs.per_minute > 0.0 {
            for (kind, count) in counts {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
                let count = count.clamp(0.0, f64::from(MOST_PER_MINUTE)) as u32;
                let of = |i: u32| self.line(kind, (at, i), stream(seed, &format!("{kind:?}")), source);
                lines.extend((0..count).map(of));
            }
            lines.extend(version.and_then(|rolled| self.started(rolled, host, at, source)));
        }
        lines.sort_by_key(|line| line.at_ms);
        lines
    }

    fn line(&self, kind: Kind, (at, index): (i64, u32), seed: u64, source: &Arc<LogSource>) -> LogEntry {
        let number = |name: &str, most: f64| {
            let key = at.wrapping_mul(7919).wrapping_add(i64::from(index));
            #[allow(clippy::cast_possible_truncation, reason = "below `most`")]
            let number = (uniform(stream(seed, name), key) * most) as i64;
            number
        };
        let at_ms = at + number("offset", 60_000.0);
        let (id, ms) = (number("id", 1e6), number("ms", 400.0));
        let name = &self.spec.name;
        let (level, text) = match kind {
            Kind::Usual => match number("kind", 10.0) {
                0 => ("DEBUG", format!("pool: {} of 50 connections in use", id % 50)),
                1 => ("INFO", format!("cache refreshed, {id} entries in {ms} ms")),
                2..=5 => {
                    ("INFO", format!("order {id} for customer {:08x} accepted", hash(&id.to_string()) >> 32))
                }
                _ => ("INFO", format!("GET /api/{name}/items/{id} 200 {ms} ms")),
            },
            Kind::Failed => {
                ("ERROR", format!("request {id:06x} failed: upstream answered 503 after {ms} ms"))
            }
            Kind::Broken => (
                "ERROR",
                format!(
                    "order {id} cannot be stored: java.lang.IllegalStateException: currency is missing\n\tat shop.{name}.OrderWriter.write(OrderWriter.java:87)\n\tat shop.{name}.Orders.submit(Orders.java:41)"
                ),
            ),
            Kind::Slow => ("WARN", format!("request {id:06x} took {} ms, more than 500 ms", 500 + ms)),
        };
        let content = written(at_ms, level, number("thread", 16.0), &text);
        LogEntry {
            at_ms,
            level,
            content,
            source: source.clone(),
            seed: hash(&format!("{seed}/{at_ms}/{index}")),
        }
    }

    /// The line that says that a version has started, in the minute in which it did.
    fn started(&self, rolled: &Rolled, host: usize, at: i64, source: &Arc<LogSource>) -> Option<LogEntry> {
        let switch = rolled.switch_ms(host, &source.host_name)?;
        (at..at + MINUTE).contains(&switch).then(|| {
            let text = format!("{} {} started", self.spec.name, rolled.version);
            let (content, source) = (written(switch, "INFO", 0, &text), source.clone());
            LogEntry { at_ms: switch, level: "INFO", content, source, seed: hash(&text) }
        })
    }

    /// The deployment that a host runs in a minute, and what that does.
    fn running<'a>(&self, host: usize, at: i64, history: &'a History) -> (Option<&'a Rolled>, Impact) {
        let Some(name) = self.spec.hosts.get(host) else { return (None, Impact::NONE) };
        let end = at + MINUTE;
        let rolled = history.rolled.iter().rev().find(|rolled| {
            let switch = rolled.switch_ms(host, name);
            switch.is_some_and(|s| s < end && at < rolled.until_ms.unwrap_or(i64::MAX))
        });
        let healthy = rolled.is_none_or(|rolled| matches!(rolled.effect, Effect::Healthy));
        let impact = if healthy { Impact::NONE } else { self.impact(host, name, at, &history.rolled) };
        (rolled, impact)
    }
}

/// A line as a program writes it.
fn written(at_ms: i64, level: &str, thread: i64, text: &str) -> String {
    let at = Timestamp::from_millisecond(at_ms).map(|at| at.to_string()).unwrap_or_default();
    format!("{at} {level:<5} [worker-{thread}] {text}")
}
