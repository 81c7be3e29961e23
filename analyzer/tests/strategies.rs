//! The strategies on generated series: what each compares with, what a restart is, what a diluted canary can show.

#[path = "../benches/generator/mod.rs"]
#[allow(dead_code, reason = "the generator serves other tests besides")]
mod generator;

use generator::Random;
use vouch_analyzer::case::{Case, CaseMetric, HostGroup};
use vouch_analyzer::judge::{JudgeSettings, Judgement, judge, judge_until};
use vouch_proto::{Direction, Outcome, Strategy};

const METRICS: [&str; 4] = ["response_time", "cpu", "throughput", "errors"];

/// What a host does at a minute: ln of its load over the usual one, lift of latency and CPU (ln), share of errors.
#[derive(Debug, Clone, Copy)]
struct Now {
    load: f64,
    lift: f64,
    errors: f64,
}

const USUAL: Now = Now { load: 0.0, lift: 0.0, errors: 0.002 };

fn empty(strategy: Strategy, window: i64) -> Case {
    Case::new("generated", strategy, 1, [0, window])
        .with_metric("response_time", CaseMetric::judged("ms", Direction::Increase))
        .with_metric("cpu", CaseMetric::judged("%", Direction::Increase))
        .with_metric("throughput", CaseMetric::judged("1/min", Direction::Decrease))
        .with_metric("errors", CaseMetric::count("1/min", "throughput"))
}

/// Adds the series of a host over `[start, end)`; `None` is a minute without the host.
fn measured(
    mut case: Case,
    host: &str,
    [start, end]: [i64; 2],
    random: &mut Random,
    now: impl Fn(i64) -> Option<Now>,
) -> Case {
    let place = 0.03 * random.normal();
    let mut columns: [Vec<Option<f64>>; 4] = Default::default();
    for minute in start..end {
        let noise = [0.06 * random.normal(), 0.06 * random.normal(), 0.04 * random.normal()];
        let chance = Random::new((random.uniform() * 1e9) as u64);
        let values = now(minute).map(|now| {
            let requests = (400.0 * (now.load + noise[2]).exp()).round();
            let failed = chance.clone().poisson(now.errors * requests).min(requests);
            [
                80.0 * (place + 0.15 * now.load + now.lift + noise[0]).exp(),
                30.0 * (place + 0.7 * now.load + now.lift + noise[1]).exp(),
                requests,
                failed,
            ]
        });
        for (i, column) in columns.iter_mut().enumerate() {
            column.push(values.map(|values| values[i]));
        }
    }
    for (metric, column) in METRICS.into_iter().zip(columns) {
        case = case.with_series(metric, host, start, column);
    }
    case
}

fn judged(case: &Case) -> Judgement {
    judge(case, &JudgeSettings::default())
}

fn outcome(case: &Case) -> Option<Outcome> {
    judged(case).outcome
}

/// Three old hosts until the switch (and `drain` minutes longer), `new` hosts from then on.
fn blue_green(strategy: Strategy, seed: u64, (new, drain): (usize, i64), after: impl Fn(i64) -> Now) -> Case {
    let random = &mut Random::new(seed);
    let (switch, window) = (3, 30);
    let mut case = empty(strategy, window).with_baseline([-120, 0]);
    // The traffic is the same; more hosts have less of it each.
    let share = (3.0 / new as f64).ln();
    for name in ["blue-1", "blue-2", "blue-3"] {
        case = case.with_host(name, HostGroup::Control, None);
        case = measured(case, name, [-120, window], random, |minute| match minute {
            _ if minute < switch => Some(USUAL),
            _ if minute < switch + drain => Some(Now { load: -0.7, ..USUAL }),
            _ => None,
        });
    }
    for i in 0..new {
        let name = format!("green-{i}");
        case = case.with_host(&name, HostGroup::Test, Some(switch));
        case = measured(case, &name, [0, window], random, |minute| {
            let drained = if minute < switch + drain { -0.7 } else { 0.0 };
            let now = after(minute - switch);
            // Slow first minutes, as after any start.
            let warm = 0.6 * (-((minute - switch) as f64) / 2.5).exp();
            let load = now.load + share + drained;
            (minute >= switch).then_some(Now { load, lift: now.lift + warm, ..now })
        });
    }
    case
}

#[test]
fn blue_green_compares_the_new_stack_with_the_old_one_before_the_switch() {
    for seed in 0..12 {
        for shape in [(3, 0), (3, 6), (6, 0), (2, 0)] {
            let healthy = judged(&blue_green(Strategy::BlueGreen, seed, shape, |_| USUAL));
            assert_eq!(healthy.outcome, Some(Outcome::Pass), "seed {seed} {shape:?}: {}", healthy.reason);
            let slow = Now { lift: 0.4, ..USUAL };
            let failed = judged(&blue_green(Strategy::BlueGreen, seed, shape, |_| slow));
            assert_eq!(failed.outcome, Some(Outcome::Fail), "seed {seed} {shape:?}: {}", failed.reason);
            assert!(failed.reason.contains("against the old stack before the switch"), "{}", failed.reason);
        }
    }
}

#[test]
fn blue_green_sees_errors_and_lost_traffic() {
    for seed in 0..8 {
        let failing = Now { errors: 0.03, ..USUAL };
        let failed = judged(&blue_green(Strategy::BlueGreen, seed, (3, 0), |_| failing));
        assert_eq!(failed.metrics[0].metric, "errors", "{}", failed.reason);
        assert_eq!(failed.outcome, Some(Outcome::Fail), "{}", failed.reason);
        let lost = Now { load: -0.7, ..USUAL };
        let failed = judged(&blue_green(Strategy::BlueGreen, seed, (3, 0), |_| lost));
        assert_eq!(failed.metrics[0].metric, "throughput", "{}", failed.reason);
        assert_eq!(failed.outcome, Some(Outcome::Fail), "{}", failed.reason);
    }
}

#[test]
fn one_bad_host_of_a_new_stack_is_found_and_named() {
    let mut case = blue_green(Strategy::BlueGreen, 5, (3, 0), |_| USUAL);
    for series in case.series.iter_mut().filter(|s| s.host == "green-1" && s.metric == "response_time") {
        series.values.iter_mut().flatten().for_each(|value| *value *= 1.9);
    }
    let failed = judged(&case);
    assert_eq!(failed.outcome, Some(Outcome::Fail), "{}", failed.reason);
    assert_eq!(failed.metrics[0].host, "green-1", "{}", failed.reason);
}

#[test]
fn auto_is_what_it_chose() {
    let auto = blue_green(Strategy::Auto, 3, (3, 0), |_| Now { lift: 0.4, ..USUAL });
    let asked = Case { strategy: Strategy::BlueGreen, ..auto.clone() };
    let (ours, theirs) = (judged(&auto), judged(&asked));
    assert_eq!((ours.outcome, &ours.reason), (theirs.outcome, &theirs.reason));
    assert_eq!(ours.choice.strategy, Strategy::BlueGreen);
    for minute in 0..30 {
        assert_eq!(judge_until(&auto, minute, &JudgeSettings::default()).choice, ours.choice);
    }
}

/// A run under load that ramps up, holds, and ramps down; the pinned run two hours before it.
fn load_test(seed: u64, scale: f64, lift: f64, errors: f64) -> Case {
    let random = &mut Random::new(seed);
    let ramp = |k: i64| -> f64 {
        let position = k as f64 / 40.0;
        (0.2 + 0.8 * (4.0 * position.min(1.0 - position)).min(1.0)).ln()
    };
    let case = empty(Strategy::LoadTest, 40)
        .with_baseline([-160, -120])
        .with_metric("load", CaseMetric::context("1/min"))
        .with_host("svc", HostGroup::Service, Some(0));
    // Above half of the load latency grows faster than the elasticity: what only the same minute can tell.
    let bend = |k: i64| 0.5 * (ramp(k) + 0.7).max(0.0);
    let mut case = measured(case, "svc", [-160, 40], random, |minute| match minute {
        -160..-120 => Some(Now { load: ramp(minute + 160), lift: bend(minute + 160), ..USUAL }),
        0.. => Some(Now { load: ramp(minute) + scale.ln(), lift: bend(minute) + lift, errors }),
        _ => None,
    });
    let offered: Vec<_> = case.series.iter().filter(|s| s.metric == "throughput").cloned().collect();
    for series in offered {
        case = case.with_series("load", "svc", series.start, series.values);
    }
    case
}

#[test]
fn a_load_test_is_compared_minute_by_minute() {
    for seed in 0..20 {
        let healthy = judged(&load_test(seed, 1.0, 0.0, 0.002));
        assert_eq!(healthy.outcome, Some(Outcome::Pass), "seed {seed}: {}", healthy.reason);
        let more = judged(&load_test(seed, 1.15, 0.0, 0.002));
        assert_eq!(more.outcome, Some(Outcome::Pass), "seed {seed}, 15 % more load: {}", more.reason);
        let slow = judged(&load_test(seed, 1.0, 0.25, 0.002));
        assert_eq!(slow.outcome, Some(Outcome::Fail), "seed {seed}: {}", slow.reason);
        assert!(slow.reason.contains("the same minute of the pinned run"), "{}", slow.reason);
        let failing = judged(&load_test(seed, 1.0, 0.0, 0.03));
        assert_eq!(failing.outcome, Some(Outcome::Fail), "seed {seed}: {}", failing.reason);
    }
}

/// A canary of one test host beside `controls`; `now` says what each host does.
fn canary(seed: u64, controls: usize, has_past: bool, now: impl Fn(&str, i64) -> Now) -> Case {
    let random = &mut Random::new(seed);
    let mut case = empty(Strategy::Canary, 30).with_baseline([-60, 0]);
    for i in 0..controls {
        let name = format!("c{i}");
        case = case.with_host(&name, HostGroup::Control, None);
        case = measured(case, &name, [-60, 30], random, |minute| Some(now(&name, minute)));
    }
    case = case.with_host("t", HostGroup::Test, Some(0));
    measured(case, "t", [-60, 30], random, |minute| (has_past || minute >= 0).then(|| now("t", minute)))
}

fn warm_up(age: i64) -> f64 {
    if age < 0 { 0.0 } else { 1.2 * (-(age as f64) / 2.5).exp() }
}

#[test]
fn a_control_that_restarts_does_not_hide_a_slow_canary() {
    for seed in 0..10 {
        let now = |host: &str, minute: i64| {
            // The only two controls restart in turn, again and again.
            let age = match host {
                "c0" => (minute - 2).rem_euclid(16),
                "c1" => (minute - 10).rem_euclid(16),
                _ => -1,
            };
            let slow = if host == "t" && minute >= 0 { 0.25 } else { 0.0 };
            Now { lift: slow + if minute < 2 { 0.0 } else { warm_up(age) }, ..USUAL }
        };
        let mut case = canary(seed, 2, true, now);
        for minute in [2, 18] {
            case = case.with_restart("c0", minute).with_restart("c1", minute + 8);
        }
        let failed = judged(&case);
        assert_eq!(failed.outcome, Some(Outcome::Fail), "seed {seed}: {}", failed.reason);
    }
}

#[test]
fn a_test_host_that_restarts_again_warms_up_again() {
    let mut mistaken = 0;
    for seed in 0..10 {
        let restarts = |slow: f64| {
            move |host: &str, minute: i64| {
                let is_new = host == "t" && minute >= 15;
                Now { lift: if is_new { slow + warm_up(minute - 15) } else { 0.0 }, ..USUAL }
            }
        };
        let untold = canary(seed, 3, true, restarts(0.0));
        mistaken += usize::from(outcome(&untold) == Some(Outcome::Fail));
        let told = judged(&untold.with_restart("t", 15));
        assert_eq!(told.outcome, Some(Outcome::Pass), "seed {seed}: {}", told.reason);
        let slow = judged(&canary(seed, 3, true, restarts(0.4)).with_restart("t", 15));
        assert_eq!(slow.outcome, Some(Outcome::Fail), "seed {seed}, slow after the restart: {}", slow.reason);
    }
    assert!(mistaken >= 2, "restarts that nobody told look like a regression in {mistaken} of 10");
}

#[test]
fn a_restart_long_ago_changes_nothing() {
    let plain = canary(1, 3, true, |_, _| USUAL);
    assert_eq!(judged(&plain), judged(&plain.clone().with_restart("c0", -5_000)));
}

#[test]
fn a_canary_without_a_past_is_judged_by_how_far_hosts_lie_apart() {
    for seed in 0..20 {
        let of = |canary_does: Now| {
            judged(&canary(seed, 4, false, |host, _| if host == "t" { canary_does } else { USUAL }))
        };
        let healthy = of(USUAL);
        assert_eq!(healthy.outcome, Some(Outcome::Pass), "seed {seed}: {}", healthy.reason);
        let slow = of(Now { lift: 0.5, ..USUAL });
        assert_eq!(slow.outcome, Some(Outcome::Fail), "seed {seed}: {}", slow.reason);
        let failing = of(Now { errors: 0.05, ..USUAL });
        assert_eq!(failing.outcome, Some(Outcome::Fail), "seed {seed}: {}", failing.reason);
    }
}

/// A service of which a canary has `share`: a change of the canary shows in that part.
fn whole(seed: u64, share: f64, change: f64) -> Case {
    let random = &mut Random::new(seed);
    let case = empty(Strategy::Canary, 60)
        .with_baseline([-180, 0])
        .with_host("service", HostGroup::Service, Some(0))
        .diluted_by(share);
    measured(case, "service", [-180, 60], random, |minute| {
        let lift = if minute >= 0 { (1.0 + share * change).ln() } else { 0.0 };
        Some(Now { lift, ..USUAL })
    })
}

#[test]
fn a_diluted_canary_says_what_could_be_found_and_finds_it() {
    let share = 0.3;
    let known = judged(&whole(0, share, 0.0)).diluted.unwrap();
    assert_eq!(known.share, share);
    let smallest = |metric: &str| known.smallest.iter().find(|(name, _)| name == metric).unwrap().1;
    let change = smallest("response_time").max(smallest("cpu"));
    assert!((0.05..0.6).contains(&change), "{known:?}");
    let (mut well_above, mut well_below) = (0, 0);
    for seed in 0..40 {
        well_above += usize::from(outcome(&whole(seed, share, 1.6 * change)) == Some(Outcome::Fail));
        well_below += usize::from(outcome(&whole(seed, share, 0.4 * change)) == Some(Outcome::Fail));
    }
    assert!(well_above >= 38, "found {well_above} of 40 well above {change}");
    assert!(well_below <= 2, "found {well_below} of 40 well below {change}");
}

#[test]
fn a_diluted_canary_is_labelled() {
    let passed = judged(&whole(1, 0.2, 0.0));
    assert!(passed.reason.contains("(diluted: the canary has 20.0 % of the traffic"), "{}", passed.reason);
    assert!(passed.reason.contains("change in the canary of at least"), "{}", passed.reason);
    let failed = judged(&whole(1, 0.2, 2.0));
    assert_eq!(failed.outcome, Some(Outcome::Fail), "{}", failed.reason);
    assert!(failed.metrics[0].reason.contains("of the canary, with 20.0 % of the traffic"));
    assert!((1.0..3.5).contains(&failed.metrics[0].effect), "{:?}", failed.metrics[0]);
    let refused = judged(&Case { diluted: None, ..whole(1, 0.2, 0.0) });
    assert_eq!(refused.outcome, Some(Outcome::Error));
    assert!(refused.reason.contains("`diluted`"), "{}", refused.reason);
}

#[test]
fn nothing_looks_ahead_in_any_strategy() {
    for seed in 0..4 {
        let cases = [
            blue_green(Strategy::BlueGreen, seed, (3, 4), |age| Now { lift: 0.02 * age as f64, ..USUAL }),
            load_test(seed, 1.1, 0.2, 0.002),
            canary(seed, 3, false, |host, _| Now { lift: if host == "t" { 0.2 } else { 0.0 }, ..USUAL })
                .with_restart("t", 9)
                .with_restart("c1", 12),
            whole(seed, 0.3, 0.5),
        ];
        for case in cases {
            for t in [0, 4, 11, 20] {
                let mut cut = case.clone();
                for series in &mut cut.series {
                    series.values.truncate(usize::try_from(t - series.start).unwrap_or(0));
                }
                let settings = JudgeSettings::default();
                assert_eq!(judge_until(&case, t, &settings), judge_until(&cut, t, &settings), "{t}");
            }
        }
    }
}
