//! What an alert says about each kind of verdict, and that it keeps to the lengths that it is given.

use super::*;
use crate::fixtures::{verdict, verdict_of};
use proptest::prelude::*;

fn about(stage: Stage) -> About {
    About {
        stage: Some(stage),
        incident: "01KBHV0000ABCDEFGHJKMNPQRS".into(),
        did: "Rolling back checkout 2.1 in prod to 2.0 by `undo`.".into(),
        links: Links {
            evidence: Some("https://vouch.example.com/evidence/01KBHV0000ABCDEFGHJKMNPQRS.1".into()),
            dynatrace: Some("https://abc12345.live.dynatrace.com/ui/entity/SERVICE-1".into()),
        },
        ..About::default()
    }
}

#[test]
fn it_says_what_where_how_much_since_when_against_what_and_what_was_done() {
    let text = plain(&Alert::new(&verdict(), about(Stage::Opens)), 10_000);
    assert_eq!(
        text,
        "checkout 2.1 in prod failed its verification\n\
         response_time on checkout is +38 % over what was expected since minute 2\n\
         Service: checkout\n\
         Version: 2.1 (before: 2.0)\n\
         Where: prod, eu-1, shop/checkout\n\
         Since: 2026-11-24 10:02 UTC\n\
         Against: the same service before the deployment, 07:00 to 10:00 UTC\n\
         What Vouch did: Rolling back checkout 2.1 in prod to 2.0 by `undo`.\n\
         Owner: team-shop\n\
         - response_time on all new hosts: +38 % since minute 2\n\
         Evidence: https://vouch.example.com/evidence/01KBHV0000ABCDEFGHJKMNPQRS.1\n\
         Dynatrace: https://abc12345.live.dynatrace.com/ui/entity/SERVICE-1"
    );
}

#[test]
fn each_end_has_its_headline_and_severity() {
    let weak = Verdict { rollback_grade: false, ..verdict() };
    let ended = |end| About { rollback: Some(end), ..about(Stage::Updates) };
    let notice = About { notice: true, ..about(Stage::Opens) };
    for (verdict, about, headline, severity) in [
        (verdict(), about(Stage::Opens), "failed its verification", Severity::Critical),
        (verdict(), notice, "failed its verification", Severity::Info),
        (weak, about(Stage::Opens), "failed its verification", Severity::Error),
        (
            verdict_of(Outcome::Inconclusive),
            about(Stage::Opens),
            "has an inconclusive verification",
            Severity::Warning,
        ),
        (verdict_of(Outcome::Error), about(Stage::Opens), "could not be verified", Severity::Warning),
        (verdict_of(Outcome::Pass), about(Stage::Reports), "passed its verification", Severity::Info),
        (verdict(), ended(RollbackEnd::Done), "was rolled back to 2.0", Severity::Critical),
        (
            verdict(),
            ended(RollbackEnd::Failed),
            "was not rolled back: the rollback failed",
            Severity::Critical,
        ),
        (verdict(), ended(RollbackEnd::Unknown), "may or may not have been rolled back", Severity::Critical),
        (
            Verdict { revision: 1, ..verdict() },
            about(Stage::Updates),
            "failed its verification (revised)",
            Severity::Critical,
        ),
    ] {
        let alert = Alert::new(&verdict, about);
        assert_eq!(alert.headline, format!("checkout 2.1 in prod {headline}"));
        assert_eq!(alert.severity, severity, "{headline}");
    }
    let opened = Opened { version: "2.0".into(), reason: "it was slow".into(), at: verdict().decided_at };
    let over = About { opened: Some(opened), ..about(Stage::Resolves) };
    let over = Alert::new(&verdict_of(Outcome::Pass), over);
    assert_eq!(
        (over.headline.as_str(), over.status(), over.severity),
        ("Resolved: checkout 2.0 in prod", "resolved", Severity::Info)
    );
    assert_eq!(over.facts()[0], ("Was", "it was slow (2026-11-24 10:09 UTC)".to_owned()));
}

#[test]
fn what_is_not_known_is_left_out() {
    let verdict = Verdict {
        previous_version: None,
        owner: None,
        cluster: None,
        workload: None,
        baseline: Vec::new(),
        verification: None,
        metrics: Vec::new(),
        ..verdict_of(Outcome::Error)
    };
    let alert = Alert::new(&verdict, About::default());
    let labels: Vec<&str> = alert.facts().into_iter().map(|(label, _)| label).collect();
    assert_eq!(labels, ["Service", "Version", "Where", "Against"]);
    assert_eq!((alert.links().len(), alert.stage), (0, Stage::Reports));
    assert_eq!(alert.incident, verdict.deployment_id, "outside of an incident it is the deployment");
}

#[test]
fn the_worst_metrics_are_shown_and_the_rest_is_counted() {
    let row = |name: &str, classification| MetricResult {
        metric: name.into(),
        classification,
        level: Some([2.0, 5.0]),
        ..verdict().metrics[0].clone()
    };
    let mut metrics = vec![row("fine", Classification::Pass)];
    metrics.extend((0..8).map(|i| row(&format!("m{i}"), Classification::High)));
    let alert = Alert::new(&Verdict { metrics, ..verdict() }, about(Stage::Opens));
    assert_eq!((alert.metrics.len(), alert.more_metrics), (5, 3));
    assert!(alert.metrics.iter().all(|line| line.worse && line.ratio == Some(2.5)), "{:?}", alert.metrics);
    assert!(plain(&alert, 10_000).contains("- and 3 more"));
}

#[test]
fn a_ratio_is_known_or_left_out() {
    let with = |level, effect| {
        let row = MetricResult { level, effect, ..verdict().metrics[0].clone() };
        line(&row).ratio
    };
    assert_eq!(with(Some([0.0, 3.0]), None), None, "nothing was expected");
    assert_eq!(with(Some([f64::NAN, 3.0]), Some(0.5)), Some(1.5));
    assert_eq!(with(None, Some(-1.5)), None);
    assert_eq!(with(None, None), None);
}

#[test]
fn earlier_windows_are_counted() {
    let window = verdict().baseline[0];
    let with = |n: usize| against(&Verdict { baseline: vec![window; n], ..verdict() });
    assert!(with(0).ends_with("before the deployment") && with(2).ends_with("and one earlier window"));
    assert!(with(3).ends_with("07:00 to 10:00 UTC and 2 earlier windows"), "{}", with(3));
}

proptest! {
    #[test]
    fn no_text_is_longer_than_it_may_be(reason in ".{0,400}", most in 0_usize..500) {
        prop_assert!(cut(&reason, most).chars().count() <= most.max(1));
        let alert = Alert::new(&Verdict { reason, ..verdict() }, about(Stage::Opens));
        prop_assert!(plain(&alert, most).chars().count() <= most.max(1));
    }
}

#[test]
fn links_survive_a_long_reason() {
    let alert = Alert::new(&Verdict { reason: "x".repeat(5000), ..verdict() }, about(Stage::Opens));
    let text = plain(&alert, 400);
    assert!(
        text.contains('…') && text.ends_with("SERVICE-1") && text.contains("Evidence: https://"),
        "{text}"
    );
}
