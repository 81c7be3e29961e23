//! What comes twice, out of order, or broken on the topics.

use vouch_proto::subject::{self, ANALYZER_SERIES, SERIES};
use vouch_proto::{Name, Outcome};
use vouch_simulator::Effect;
use vouch_tests::{ENVIRONMENT, Telemetry, World};

#[tokio::test]
async fn duplicate_and_reordered_batches_change_nothing() {
    let world = World::start(Telemetry::Scenario("demo"), 120.0).await;
    let services = world.spawn_all().await;
    let at = world.now().floor_minute().plus_minutes(5);
    world.simulator.deploy("payment", "2.4.0", at.as_millis(), Effect::LatencyStep { factor: 2.2 }).unwrap();
    let request = world.request("payment", "2.4.0", 16);
    let started = services.client().await.start(request).await.unwrap().into_inner();
    let topics = world.topics().await;
    // The baseline and some minutes, all of it once more and backwards, with no id to be recognised by.
    topics.batches(6).await;
    for stored in topics.all(&SERIES).await.iter().rev() {
        topics.publish(stored.subject.clone(), stored.body.to_vec()).await;
    }
    let verdict = topics.verdict(&started.verification_id).await;
    assert_eq!(verdict.outcome, Outcome::Fail, "{}", verdict.reason);
    let since = verdict.metrics[0].since_minute.unwrap();
    assert!((4..=6).contains(&since), "the regression began at minute 5, not at {since}");
    let verdicts = topics.verdicts(&started.verification_id).await;
    assert_eq!(verdicts.iter().filter(|v| v.revision == 0).count(), 1);
    assert!(topics.dead_letters(0).await.is_empty());
}

#[tokio::test]
async fn poison_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let world = World::start(Telemetry::Scenario("demo"), 120.0).await;
    let services = world.spawn_all().await;
    let topics = world.topics().await;
    let (environment, service) = (Name::new(ENVIRONMENT).unwrap(), Name::new("checkout").unwrap());
    let request = world.request("checkout", "1.1.0", 8);
    let started = services.client().await.start(request).await.unwrap().into_inner();
    topics.publish(subject::deployment(&environment, &service), b"{not json".to_vec()).await;
    topics.publish(subject::series(&environment, &service), b"\xff\xff".to_vec()).await;
    topics.publish(subject::verdict(&environment, &service, "x.1"), b"[]".to_vec()).await;
    // The deployment is read by collector and analyzer.
    let letters = topics.dead_letters(4).await;
    let reason = |letter: &vouch_tests::Stored| letter.headers.get("Vouch-Reason").map(ToString::to_string);
    let about = |subject: &str| letters.iter().filter(|l| l.subject == subject::dead_letter(subject)).count();
    assert_eq!(about(ANALYZER_SERIES), 1);
    assert_eq!(about(subject::ANALYZER_DEPLOYMENTS.name), 1);
    assert_eq!(about(subject::COLLECTOR_DEPLOYMENTS.name), 1);
    assert_eq!(about(subject::NOTIFIER_VERDICTS.name), 1);
    assert!(letters.iter().all(|l| reason(l).is_some_and(|r| !r.is_empty())));
    let verdict = topics.verdict(&started.verification_id).await;
    assert_eq!(verdict.outcome, Outcome::Pass, "{}", verdict.reason);
}
