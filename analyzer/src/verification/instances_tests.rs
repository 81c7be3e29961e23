//! Hosts that no deployment names, told apart by the version that they were seen to run.

use super::*;
use crate::record::tests::{at, running};
use crate::window::tests::batch;
use vouch_proto::{HostGroup, Series, Strategy};

fn template() -> VerificationTemplate {
    let mut template = golden_signals();
    template.metrics.retain(|m| m.name == "response_time");
    template
}

/// Minutes of some hosts: name, version, the side that the settings say, and level.
type Host<'a> = (&'a str, Option<&'a str>, Option<HostGroup>, f64);

fn of_hosts(from: i64, to: i64, hosts: &[Host<'_>]) -> SeriesBatch {
    let one = |(host, version, group, level): &Host<'_>| Series {
        host: Some((*host).into()),
        version: version.map(ToOwned::to_owned),
        group: *group,
        ..batch(from, to, *level).series.remove(0)
    };
    SeriesBatch { series: hosts.iter().map(one).collect(), ..batch(from, to, 0.0) }
}

fn verification(strategy: Option<Strategy>) -> (Verification, String) {
    let mut record = running();
    record.deployment.verification.strategy = strategy;
    let version = record.deployment.version.to_string();
    let mut v = Verification::new(record, template(), JudgeSettings::default());
    let old = [("checkout-old", Some("0.9"), None, 100.0)];
    for (from, to) in [(-10_140, -10_065), (-1500, -1425), (-180, 0)] {
        v.on_batch(&of_hosts(from, to, &old));
    }
    (v, version)
}

fn ends(v: &mut Verification, version: &str, level: f64) -> Verdict {
    for minute in 0..30 {
        let old = ("checkout-old", Some("0.9"), None, 100.0);
        let new = ("checkout-new", Some(version), None, level);
        v.on_batch(&of_hosts(minute, minute + 1, &[old, new]));
        match v.step(at(minute + 3)) {
            Step::Final(verdict) => return *verdict,
            Step::Wait | Step::Progress(_) | Step::Revised(_) | Step::Settled => {}
        }
    }
    panic!("it has not ended");
}

#[test]
fn an_instance_of_the_new_version_is_compared_with_those_of_the_old() {
    for strategy in [None, Some(Strategy::BlueGreen), Some(Strategy::Canary)] {
        let (mut v, version) = verification(strategy);
        let worse = ends(&mut v, &version, 180.0);
        assert_eq!(worse.outcome, Outcome::Fail, "{strategy:?}: {}", worse.reason);
        assert!(worse.metrics.iter().any(|row| row.host == "checkout-new"), "{:?}", worse.metrics);
        let (mut v, version) = verification(strategy);
        let alike = ends(&mut v, &version, 100.0);
        assert_eq!(alike.outcome, Outcome::Pass, "{strategy:?}: {}", alike.reason);
        let expected = strategy.unwrap_or(Strategy::BlueGreen);
        assert_eq!(alike.strategy, expected, "{}", alike.strategy_reason);
    }
}

#[test]
fn old_instances_alone_are_no_pass_and_what_is_missing_is_named() {
    let (mut v, version) = verification(None);
    let old = [("checkout-old", Some("0.9"), None, 100.0)];
    for minute in 0..15 {
        v.on_batch(&of_hosts(minute, minute + 1, &old));
        let step = v.step(at(minute + 3));
        assert!(!matches!(step, Step::Final(_)), "{step:?}");
        if let Step::Progress(progress) = step {
            let awaited = format!("instance that runs version {version} (there is 0.9)");
            assert_eq!(progress.waiting_for, awaited);
        }
    }
    let deadline = v.record().deadline;
    let Step::Final(verdict) = v.step(deadline) else { panic!("not ended") };
    assert_eq!((verdict.outcome, verdict.cause), (Outcome::Inconclusive, Cause::NoData));
    assert!(verdict.reason.contains("there is no instance that runs version"), "{}", verdict.reason);
}

#[test]
fn one_that_is_seen_late_is_judged_from_then_on_and_another_order_ends_alike() {
    let run = |late: i64| {
        let (mut v, version) = verification(None);
        for minute in 0..30 {
            let old = ("checkout-old", Some("0.9"), None, 100.0);
            let new = ("checkout-new", Some(version.as_str()), None, 180.0);
            let hosts = if minute < late { vec![old] } else { vec![old, new] };
            v.on_batch(&of_hosts(minute, minute + 1, &hosts));
            if let Step::Final(verdict) = v.step(at(minute + 3)) {
                return (*verdict, minute);
            }
        }
        panic!("it has not ended");
    };
    let (verdict, minute) = run(5);
    assert_eq!(verdict.outcome, Outcome::Fail, "{}", verdict.reason);
    assert!(minute > 5);
}
