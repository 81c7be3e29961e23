//! The collector under load: `./dev bench collect [SERVICES [HOSTS [MINUTES]]]`, by default 1,000 services of 10 hosts,
//! each with an open verification of six metrics, against the simulator, in real time. Prints, minute by minute: calls,
//! bytes, how long after it was settled a minute was published, CPU and memory of the collector.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "what does not work ends the benchmark"
)]

use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use vouch_proto::Name;
use vouch_proto::subject;
use vouch_simulator::Scenario;
use vouch_tests::{ENVIRONMENT, Program, Telemetry, World};

const TEMPLATE: &str = r#"templates:
- name: load
  by_host: true
  days_before: []
  recent: 30m
  metrics:
  - {name: response_time, direction: increase, unit: ms, query: 'calc:service.response_time:splitBy("dt.entity.service"):avg',
     host_query: 'calc:service.response_time:splitBy("dt.entity.process_group_instance"):avg'}
  - {name: response_time_p95, direction: increase, unit: ms, query: 'calc:service.response_time:splitBy("dt.entity.service"):percentile(95)',
     host_query: 'calc:service.response_time:splitBy("dt.entity.process_group_instance"):percentile(95)'}
  - {name: errors, direction: increase, unit: count, exposure: requests, query: 'calc:service.error_count:splitBy("dt.entity.service"):value',
     host_query: 'calc:service.error_count:splitBy("dt.entity.process_group_instance"):value'}
  - {name: requests, direction: decrease, unit: count, query: 'calc:service.request_count:splitBy("dt.entity.service"):value',
     host_query: 'calc:service.request_count:splitBy("dt.entity.process_group_instance"):value'}
  - {name: cpu, direction: increase, unit: percent, query: 'builtin:tech.generic.cpu.usage:splitBy():avg',
     host_query: 'builtin:tech.generic.cpu.usage:splitBy("dt.entity.process_group_instance"):avg'}
  - {name: service_response_time, role: context, unit: ms, query: 'builtin:service.response.time:splitBy("dt.entity.service"):avg'}
default_template: load
"#;

fn scenario(services: usize, hosts: usize) -> Scenario {
    let mut text = String::from("name: load\ndescription: Many services.\nseed: 7\nservices:\n");
    for service in 0..services {
        let names: Vec<String> = (0..hosts).map(|host| format!("s{service}-{host}")).collect();
        writeln!(text, "- {{name: s{service}, hosts: [{}]}}", names.join(", ")).unwrap();
    }
    Scenario::parse(&text).expect("a scenario")
}

/// Counters and sums of the collector, by name without labels.
async fn scrape(collector: &Program) -> BTreeMap<String, f64> {
    let text = collector.metrics().await;
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let value: f64 = value.parse().unwrap_or(0.0);
        if let Some((name, le)) = name.split_once("{le=\"") {
            sums.insert(format!("{name}<{}", le.trim_end_matches("\"}")), value);
        } else {
            *sums.entry(name.split('{').next().unwrap().to_owned()).or_default() += value;
        }
    }
    sums
}

/// The bound of the histogram under which 95 % of what came since lie.
fn p95(now: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>, name: &str) -> f64 {
    let prefix = format!("{name}_bucket<");
    let mut buckets: Vec<(f64, f64)> = now
        .iter()
        .filter_map(|(key, value)| {
            let bound = key.strip_prefix(&prefix)?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, value - before.get(key).copied().unwrap_or(0.0)))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = buckets.last().map_or(0.0, |(_, count)| *count);
    buckets.iter().find(|(_, count)| *count >= 0.95 * all).map_or(f64::NAN, |(bound, _)| *bound)
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let (services, hosts) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(10));
    let minutes = numbers.next().unwrap_or(10);
    println!("{services} services of {hosts} hosts, 6 metrics, {minutes} minutes");
    let world =
        World::start(Telemetry::Generated(scenario(services, hosts)), 1.0).await.with_templates(TEMPLATE);
    let collector = world.spawn("collector", "collector").await;
    collector.ready().await;
    let topics = world.topics().await;
    let environment = Name::new(ENVIRONMENT).unwrap();
    for service in 0..services {
        let name = Name::new(format!("s{service}")).unwrap();
        let body = json!({"service": name.as_str(), "environment": ENVIRONMENT, "version": "2", "phase": "DEPLOYMENT_PHASE_TRAFFIC",
            "verification": {"duration": format!("{}s", (minutes + 10) * 60)}});
        topics.publish(subject::deployment(&environment, &name), body.to_string().into_bytes()).await;
    }
    println!("minute  calls  MiB read  batches  lag p95 s (below)  cpu %  memory MiB");
    let mut before = scrape(&collector).await;
    let (mut cpu, mut peak) = (collector.cpu_seconds(), 0.0_f64);
    for minute in 1..=minutes {
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let now = scrape(&collector).await;
        let spent = collector.cpu_seconds();
        let memory = collector.memory_mib();
        peak = peak.max(memory);
        let more =
            |name: &str| now.get(name).copied().unwrap_or(0.0) - before.get(name).copied().unwrap_or(0.0);
        println!(
            "{minute:>6}  {:>5}  {:>8.1}  {:>7}  {:>17.1}  {:>5.0}  {memory:>10.0}",
            more("vouch_collector_source_calls_total"),
            more("vouch_collector_source_bytes_total") / 1_048_576.0,
            more("vouch_collector_batches_total"),
            p95(&now, &before, "vouch_collector_lag_seconds"),
            100.0 * (spent - cpu) / begun.elapsed().as_secs_f64(),
        );
        (before, cpu) = (now, spent);
    }
    println!("peak memory {peak:.0} MiB; calls by endpoint and outcome:");
    for line in collector
        .metrics()
        .await
        .lines()
        .filter(|line| line.starts_with("vouch_collector_source_calls_total"))
    {
        println!("  {line}");
    }
}
