//! The scenarios do what they say: seen through the API, settled.

use crate::harness::{DAY, Harness, MINUTE, START};
use vouch_simulator::{Scenario, Simulator, instance_id, service_id};

fn of(metric: &str, service: &str, aggregation: &str) -> String {
    format!(
        "builtin:service.{metric}:filter(eq(\"dt.entity.service\",{})):{aggregation}",
        service_id(service)
    )
}

fn on(metric: &str, service: &str, host: &str, aggregation: &str) -> String {
    let id = instance_id(service, host);
    format!("calc:service.{metric}:filter(eq(\"dt.entity.process_group_instance\",{id})):{aggregation}")
}

fn mean(values: &[Option<f64>]) -> f64 {
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    known.iter().sum::<f64>() / known.len() as f64
}

fn deviation(values: &[Option<f64>]) -> f64 {
    let m = mean(values);
    let known: Vec<f64> = values.iter().flatten().map(|v| (v / m).ln().powi(2)).collect();
    (known.iter().sum::<f64>() / known.len() as f64).sqrt()
}

/// What the first half hour after minute 20 is over the ten minutes before minute 10.
async fn change(h: &Harness, selector: &str, statistic: fn(&[Option<f64>]) -> f64) -> f64 {
    let at = |minute: i64| START + minute * MINUTE;
    let before = h.values(selector, (at(-20), at(10))).await;
    let after = h.values(selector, (at(20), at(50))).await;
    statistic(&after) / statistic(&before)
}

#[tokio::test]
async fn every_bad_deployment_shows_in_its_signal_alone() {
    let h = Harness::scenario("bad-deployment", START + DAY).await;
    let latency = |service| of("response.time", service, "median");
    for (service, expected) in
        [("checkout", 1.6), ("catalog", 2.0), ("payment", 1.0), ("search", 1.0), ("shipping", 1.0)]
    {
        let ratio = change(&h, &latency(service), mean).await;
        assert!((ratio / expected - 1.0).abs() < 0.08, "{service}: {ratio}");
    }
    let tail = change(&h, &of("response.time", "shipping", "percentile(95)"), mean).await;
    assert!((1.9..2.5).contains(&tail), "{tail}");
    let requests = change(&h, &of("requestCount.total", "basket", "value"), mean).await;
    assert!((0.35..0.45).contains(&requests), "{requests}");
    let errors = change(&h, &of("errors.total.count", "payment", "value"), mean).await;
    assert!((12.0..35.0).contains(&errors), "{errors}");
    let cpu = format!(
        "builtin:tech.generic.cpu.usage:filter(eq(\"dt.entity.process_group_instance\",{})):avg",
        instance_id("search", "search-1")
    );
    let cpu = change(&h, &cpu, mean).await;
    assert!((1.7..1.9).contains(&cpu), "{cpu}");
    let swings = change(&h, &latency("profile"), deviation).await;
    assert!(swings > 3.0, "{swings}");
    let spikes = change(&h, &latency("mail"), mean).await;
    assert!((1.3..3.0).contains(&spikes), "{spikes}");
    for (host, expected) in [("stock-3", 2.5), ("stock-1", 1.0)] {
        let ratio = change(&h, &on("response_time", "stock", host, "median"), mean).await;
        assert!((ratio / expected - 1.0).abs() < 0.1, "{host}: {ratio}");
    }
    h.end().await;
}

#[tokio::test]
async fn canaries_and_rolling_hosts_switch_in_their_order() {
    let h = Harness::scenario("canary-bad", START + DAY).await;
    for (host, expected) in [("checkout-canary-1", 1.6), ("checkout-1", 1.0)] {
        let ratio = change(&h, &on("response_time", "checkout", host, "median"), mean).await;
        assert!((ratio / expected - 1.0).abs() < 0.08, "{host}: {ratio}");
    }
    h.end().await;
    let h = Harness::scenario("rolling-bad", START + DAY).await;
    for (index, host) in ["checkout-1", "checkout-2", "checkout-3", "checkout-4"].iter().enumerate() {
        let switch = START + (10 + 2 * index as i64) * MINUTE;
        let selector = on("response_time", "checkout", host, "median");
        let before = mean(&h.values(&selector, (switch - 8 * MINUTE, switch)).await);
        let after = mean(&h.values(&selector, (switch, switch + 8 * MINUTE)).await);
        assert!((1.5..2.1).contains(&(after / before)), "{host}: {}", after / before);
    }
    h.end().await;
}

#[tokio::test]
async fn a_healthy_deployment_changes_nothing_but_its_warm_up() {
    let h = Harness::scenario("healthy", START + DAY).await;
    for selector in [of("response.time", "checkout", "avg"), of("requestCount.total", "checkout", "value")] {
        let ratio = change(&h, &selector, mean).await;
        assert!((ratio - 1.0).abs() < 0.06, "{selector}: {ratio}");
    }
    h.end().await;
}

#[tokio::test]
async fn seasons_repeat_and_every_order_of_asking_gives_the_same() {
    let h = Harness::scenario("demo", START + 5 * DAY).await;
    let selector = of("requestCount.total", "checkout", "value");
    let late = (START + 2 * 60 * MINUTE, START + 3 * 60 * MINUTE);
    let afternoon = h.values(&selector, late).await;
    let night = h.values(&selector, (late.0 - 12 * 60 * MINUTE, late.1 - 12 * 60 * MINUTE)).await;
    let week = h.values(&selector, (late.0 - 7 * DAY, late.1 - 7 * DAY)).await;
    assert!(mean(&afternoon) / mean(&night) > 1.6, "busiest in the afternoon");
    assert!((mean(&afternoon) / mean(&week) - 1.0).abs() < 0.05, "as a week before");
    assert_ne!(afternoon, week, "but not the same noise");
    for minute in [59, 0, 30] {
        let at = late.0 + minute * MINUTE;
        let one = h.values(&selector, (at, at + MINUTE)).await;
        assert_eq!(one[0], afternoon[usize::try_from(minute).unwrap()]);
    }
    h.end().await;
    let again = Harness::scenario("demo", START + 9 * DAY).await;
    assert_eq!(again.values(&selector, late).await, afternoon, "nor does the run matter");
    again.end().await;
}

#[test]
fn all_scenarios_are_valid_and_named_as_their_files() {
    for name in Scenario::names() {
        let scenario = Scenario::named(name).unwrap();
        assert_eq!(scenario.name, name);
        assert!(!scenario.description.is_empty() && !scenario.services.is_empty());
    }
    let error = Scenario::named("party").unwrap_err().to_string();
    assert!(error.contains("`party`") && error.contains("demo"), "{error}");
}

#[test]
fn wrong_scenarios_name_the_field() {
    let text = |service: &str| format!("name: x\nservices:\n- name: a\n  hosts: [h1, h2]\n{service}");
    for (service, part) in [
        ("  color: red\n", "color"),
        ("  load: { per_minute: -1 }\n", "services[0].load.per_minute: -1 is not within 0"),
        ("  errors: { rate: 2 }\n", "services[0].errors.rate: 2"),
        ("- name: a\n  hosts: [h]\n", "services[1].name: `a` is there twice"),
        ("- name: b\n  hosts: []\n", "services[1].hosts"),
        (
            "  missing:\n  - { from_minutes: 0, to_minutes: 1, hosts: [h3] }\n",
            "missing[0].hosts: `h3` is no host of `a`",
        ),
        ("  deployments:\n  - { at_minutes: 1, version: '2', effect: { kind: explode } }\n", "explode"),
        (
            "  deployments:\n  - { at_minutes: 1, version: '2', effect: { kind: bad_host, host: z, factor: 2 } }\n",
            "deployments[0].effect.host: `z`",
        ),
        (
            "  deployments:\n  - { at_minutes: 1, version: '2', effect: { kind: healthy }, rollout: { kind: canary, hosts: [] } }\n",
            "deployments[0].rollout.hosts: name the hosts that get the new version",
        ),
        (
            "  deployments:\n  - { at_minutes: 1, version: '2', effect: { kind: healthy }, warm_up: { factor: 0.5, minutes: 1 } }\n",
            "deployments[0].warm_up",
        ),
    ] {
        let error = Scenario::parse(&text(service)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_a_builder_lacks_is_said() {
    let demo = || Scenario::named("demo").unwrap();
    let clock = || -> vouch_simulator::Clock { std::sync::Arc::new(|| START) };
    let token = "dt0c01.A.B";
    for (builder, part) in [
        (Simulator::builder().token(token, &[]).scenario(demo()), "give a clock"),
        (Simulator::builder().token(token, &[]).clock(clock()), "either a scenario or cases"),
        (Simulator::builder().clock(clock()).scenario(demo()), "token: give one or more"),
        (Simulator::builder().clock(clock()).scenario(demo()).token("secret", &[]), "has the form dt0c01."),
        (
            Simulator::builder().clock(clock()).scenario(demo()).token(token, &[]).settle_range_ms(5, 1),
            "settle_ms: 5 to 1",
        ),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
