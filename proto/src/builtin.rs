//! Built-in templates besides the golden signals: infrastructure and databases, from metrics that a service leads to.

use crate::template::{golden_signals, metric};
use crate::{Direction, MetricSettings, MetricSpec, MinimumEffect, OnNoData, VerificationTemplate};

/// Processes and hosts that the service runs on: CPU, memory, garbage collection, disk, network, restarts.
#[must_use]
pub fn infrastructure() -> VerificationTemplate {
    let group = |name: &str| MetricSettings { group: Some(name.to_owned()), ..MetricSettings::DEFAULT };
    let process = |name, query, unit| judged(name, query, unit, group("process"));
    let host = |name, query, unit| judged(name, query, unit, group("host"));
    let mut availability =
        judged("process_availability", "builtin:pgi.availability:splitBy():avg", "%", muted());
    availability.direction = Direction::Decrease;
    VerificationTemplate {
        name: "infrastructure".to_owned(),
        metrics: vec![
            process("process_cpu", "builtin:tech.generic.cpu.usage:splitBy():avg", "%"),
            process("process_memory", "builtin:tech.generic.mem.workingSetSize:splitBy():avg", "bytes"),
            judged(
                "gc_suspension",
                "builtin:tech.jvm.memory.gc.suspensionTime:splitBy():avg",
                "%",
                points(2.0, group("process")),
            ),
            judged(
                "process_retransmission",
                "builtin:tech.generic.network.packets.retransmission:splitBy():avg",
                "%",
                points(1.0, group("process")),
            ),
            host("host_cpu", "builtin:host.cpu.usage:splitBy():avg", "%"),
            host("host_memory", "builtin:host.mem.usage:splitBy():avg", "%"),
            judged("host_disk", "builtin:host.disk.utilTime:splitBy():avg", "%", points(5.0, group("host"))),
            judged(
                "host_retransmission",
                "builtin:host.net.nic.retransmission:splitBy():avg",
                "%",
                points(1.0, group("host")),
            ),
            availability,
        ],
        ..golden_signals()
    }
}

/// What the service does with its databases, and how they answer: calls, time, connections.
#[must_use]
pub fn databases() -> VerificationTemplate {
    let of_service = |key: &str| format!("builtin:service.{key}:splitBy(\"dt.entity.service\"):value");
    let ratio = |a: &str, b: &str| format!("{} / {}", of_service(a), of_service(b));
    let mut failures = judged(
        "db_connection_failures",
        // No failure writes no point: a minute with traffic and no point had none.
        "builtin:service.dbconnections.failure:splitBy():value:default(0,always)",
        "count",
        MetricSettings::DEFAULT,
    );
    failures.exposure = Some("throughput".to_owned());
    let calls = MetricSettings { on_no_data: Some(OnNoData::Ignore), ..MetricSettings::DEFAULT };
    let time_per_call = ratio("dbChildCallTime", "dbChildCallCount");
    let calls_per_request = ratio("dbChildCallCount", "requestCount.total");
    VerificationTemplate {
        name: "databases".to_owned(),
        metrics: vec![
            judged("db_time_per_call", &time_per_call, "us", MetricSettings::DEFAULT),
            judged("db_calls_per_request", &calls_per_request, "", calls),
            failures,
            metric("throughput", &of_service("requestCount.total"), None, "count", Direction::Decrease),
        ],
        ..golden_signals()
    }
}

pub(crate) fn judged(name: &str, query: &str, unit: &str, settings: MetricSettings) -> MetricSpec {
    MetricSpec { settings, ..metric(name, query, None, unit, Direction::Increase) }
}

fn muted() -> MetricSettings {
    // Restarts belong to a deployment: worth seeing, no regression.
    MetricSettings { muted: true, ..MetricSettings::DEFAULT }
}

/// For shares that are mostly near zero, where a large ratio may be nothing: at least so many percentage points. Not
/// every process has them.
pub(crate) fn points(absolute: f64, settings: MetricSettings) -> MetricSettings {
    MetricSettings {
        minimum_effect: MinimumEffect { relative: Some(0.2), absolute: Some(absolute) },
        on_no_data: Some(OnNoData::Ignore),
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetricRole;
    use std::collections::BTreeSet;

    #[test]
    fn they_hold_to_the_rules_of_templates_of_ones_own() {
        for template in [infrastructure(), databases()] {
            let names: BTreeSet<&str> = template.metrics.iter().map(|m| m.name.as_str()).collect();
            assert_eq!(names.len(), template.metrics.len(), "{}", template.name);
            for metric in &template.metrics {
                assert_eq!(metric.role, MetricRole::Judged);
                assert_eq!(metric.settings.check(metric.direction, metric.exposure.is_some()), Ok(()));
                assert!(metric.exposure.as_deref().is_none_or(|exposure| names.contains(exposure)));
            }
        }
    }
}
