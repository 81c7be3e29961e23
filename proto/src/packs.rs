//! Built-in templates about what a service is made of and runs in: key requests, processes, containers, Kubernetes.

use crate::builtin::{judged, points};
use crate::template::{golden_signals, metric};
use crate::{
    Direction, MetricRole, MetricSettings, MetricSpec, MinimumEffect, OnNoData, VerificationTemplate,
};

const METHOD: &str = "dt.entity.service_method";
const PROCESS: &str = "dt.entity.process_group_instance";
const CONTAINER: &str = "dt.entity.container_group_instance";

/// Every key request of the service by itself: response time, failures, traffic. They are never taken together.
#[must_use]
pub fn key_requests() -> VerificationTemplate {
    let key = |key: &str| format!("builtin:service.keyRequest.{key}:splitBy(\"{METHOD}\")");
    let each = |spec: MetricSpec| MetricSpec { each: Some(METHOD.to_owned()), ..spec };
    // A request that nobody makes for a while is no regression; that nobody makes it any more shows in its count.
    let quiet = MetricSettings { on_no_data: Some(OnNoData::Ignore), ..MetricSettings::DEFAULT };
    let time = |name: &str, aggregation: &str| {
        let query = format!("{}:{aggregation}", key("response.time"));
        each(judged(name, &query, "ms", quiet.clone()))
    };
    let errors = format!("{}:value:default(0)", key("errors.server.count"));
    let count = format!("{}:value", key("count.total"));
    let errors = MetricSpec {
        exposure: Some("key_requests".to_owned()),
        ..each(judged("key_request_errors", &errors, "count", quiet.clone()))
    };
    VerificationTemplate {
        name: "key-requests".to_owned(),
        metrics: vec![
            time("key_request_time", "avg"),
            time("key_request_time_p95", "percentile(95)"),
            errors,
            each(metric("key_requests", &count, None, "count", Direction::Decrease)),
        ],
        ..golden_signals()
    }
}

/// Every process of the service: CPU, memory, and of a JVM garbage collection, heap and threads.
#[must_use]
pub fn processes() -> VerificationTemplate {
    let jvm = |group: &str| MetricSettings { on_no_data: Some(OnNoData::Ignore), ..in_group(group) };
    let free = "builtin:tech.jvm.memory.runtime.free";
    let heap =
        |split: &str| format!("builtin:tech.jvm.memory.runtime.total:{split}:avg - {free}:{split}:avg");
    let by_process = format!("splitBy(\"{PROCESS}\")");
    VerificationTemplate {
        name: "processes".to_owned(),
        by_host: true,
        metrics: vec![
            by("process_cpu", "builtin:tech.generic.cpu.usage", PROCESS, "%", in_group("process")),
            by(
                "process_memory",
                "builtin:tech.generic.mem.workingSetSize",
                PROCESS,
                "bytes",
                in_group("process"),
            ),
            by(
                "gc_suspension",
                "builtin:tech.jvm.memory.gc.suspensionTime",
                PROCESS,
                "%",
                points(2.0, in_group("jvm")),
            ),
            MetricSpec {
                host_query: Some(heap(&by_process)),
                ..judged("heap_used", &heap("splitBy()"), "bytes", jvm("jvm"))
            },
            by("threads", "builtin:tech.jvm.threads.count", PROCESS, "count", jvm("jvm")),
        ],
        ..golden_signals()
    }
}

/// Every container that the service's processes run in: CPU and memory of their limits, throttling.
#[must_use]
pub fn containers() -> VerificationTemplate {
    let group = || in_group("container");
    VerificationTemplate {
        name: "containers".to_owned(),
        by_host: true,
        metrics: vec![
            by("container_cpu", "builtin:containers.cpu.usagePercent", CONTAINER, "%", points(5.0, group())),
            by(
                "container_cpu_throttled",
                "builtin:containers.cpu.throttledMilliCores",
                CONTAINER,
                "MilliCores",
                points(50.0, group()),
            ),
            by(
                "container_memory",
                "builtin:containers.memory.usagePercent",
                CONTAINER,
                "%",
                points(5.0, group()),
            ),
            by(
                "container_memory_resident",
                "builtin:containers.memory.residentSetBytes",
                CONTAINER,
                "bytes",
                group(),
            ),
        ],
        ..golden_signals()
    }
}

/// The workloads of Kubernetes that the service runs in: restarts, kills, CPU and memory of their limits, pods.
#[must_use]
pub fn kubernetes() -> VerificationTemplate {
    let workload = |key: &str| format!("builtin:kubernetes.workload.{key}:splitBy():sum");
    let of_limit = |used: &str, limit: &str| format!("{} / {} * 100", workload(used), workload(limit));
    let running = "builtin:kubernetes.pods:filter(eq(\"pod_phase\",\"Running\")):splitBy():sum";
    // Mostly there are none: events out of the pods that run.
    let event = |name: &str, key: &str| {
        let query = format!("builtin:kubernetes.container.{key}:splitBy():sum:default(0,always)");
        let least = MinimumEffect { relative: None, absolute: Some(0.01) };
        let settings = MetricSettings {
            minimum_effect: least,
            on_no_data: Some(OnNoData::Ignore),
            ..MetricSettings::DEFAULT
        };
        MetricSpec { exposure: Some("pods".to_owned()), ..judged(name, &query, "count", settings) }
    };
    let group = || in_group("workload");
    let share = format!("{running} / {} * 100", workload("pods_desired"));
    let share = MetricSpec {
        direction: Direction::Decrease,
        ..judged("pods_running", &share, "%", points(10.0, group()))
    };
    let pods =
        MetricSpec { role: MetricRole::Context, ..metric("pods", running, None, "count", Direction::None) };
    VerificationTemplate {
        name: "kubernetes".to_owned(),
        metrics: vec![
            event("container_restarts", "restarts"),
            event("oom_kills", "oom_kills"),
            judged("workload_cpu", &of_limit("cpu_usage", "limits_cpu"), "%", points(5.0, group())),
            judged("workload_cpu_throttled", &workload("cpu_throttled"), "MilliCores", points(50.0, group())),
            judged(
                "workload_memory",
                &of_limit("memory_working_set", "limits_memory"),
                "%",
                points(5.0, group()),
            ),
            share,
            pods,
        ],
        ..golden_signals()
    }
}

/// A metric of the service as a whole, and of each thing that a dimension tells apart.
fn by(name: &str, key: &str, dimension: &str, unit: &str, settings: MetricSettings) -> MetricSpec {
    MetricSpec {
        host_query: Some(format!("{key}:splitBy(\"{dimension}\"):avg")),
        ..judged(name, &format!("{key}:splitBy():avg"), unit, settings)
    }
}

fn in_group(name: &str) -> MetricSettings {
    MetricSettings { group: Some(name.to_owned()), ..MetricSettings::DEFAULT }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn packs() -> [VerificationTemplate; 4] {
        [key_requests(), processes(), containers(), kubernetes()]
    }

    #[test]
    fn they_hold_to_the_rules_of_templates_of_ones_own() {
        for template in packs() {
            let names: BTreeSet<&str> = template.metrics.iter().map(|m| m.name.as_str()).collect();
            assert_eq!(names.len(), template.metrics.len(), "{}", template.name);
            for metric in &template.metrics {
                let is_context = metric.role == MetricRole::Context;
                assert_eq!(is_context, metric.direction == Direction::None, "{}", metric.name);
                assert_eq!(metric.settings.check(metric.direction, metric.exposure.is_some()), Ok(()));
                assert!(metric.exposure.as_deref().is_none_or(|exposure| names.contains(exposure)));
            }
        }
    }

    #[test]
    fn key_requests_are_told_apart_and_never_merged() {
        for metric in key_requests().metrics {
            assert_eq!(metric.each.as_deref(), Some(METHOD), "{}", metric.name);
            assert!(metric.query.contains(&format!(":splitBy(\"{METHOD}\"):")), "{}", metric.query);
        }
    }

    /// The keys of the published catalogue with their aggregations, where it lies beside the checkout.
    fn catalogue() -> Option<BTreeMap<String, String>> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/dynatrace/builtin-metrics.csv");
        let Ok(text) = std::fs::read_to_string(file) else {
            println!("left out: {file} is not there");
            return None;
        };
        let line = |line: &str| {
            let mut cells = line.split(',');
            Some((cells.next()?.to_owned(), cells.nth(1)?.to_owned()))
        };
        Some(text.lines().skip(1).filter_map(line).collect())
    }

    #[test]
    fn their_metrics_are_in_dynatraces_catalogue() {
        let Some(catalogue) = catalogue() else { return };
        let built_in = [crate::builtin::infrastructure(), crate::builtin::databases()];
        for template in packs().into_iter().chain(built_in) {
            for metric in &template.metrics {
                let queries = std::iter::once(&metric.query).chain(&metric.host_query);
                for key in queries.flat_map(|query| query.split("builtin:").skip(1)) {
                    let key: String = key.split(':').next().unwrap_or_default().to_owned();
                    assert!(
                        catalogue.contains_key(&format!("builtin:{key}")),
                        "builtin:{key} of {}",
                        metric.name
                    );
                }
            }
        }
    }
}
