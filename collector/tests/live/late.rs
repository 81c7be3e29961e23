//! Metrics that come later than others: each is read when its own minutes are complete, in calls that serve all.

use crate::support::{World, watermark};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use vouch_collector::source::scripted::Scripted;
use vouch_proto::template::golden_signals;
use vouch_proto::{SeriesBatch, Timestamp, Window};

const MINUTE: Duration = Duration::from_secs(60);

fn metrics(batch: &SeriesBatch) -> BTreeSet<&str> {
    batch.series.iter().map(|series| series.metric.as_str()).collect()
}

/// The batches of minutes that were new, of a metric.
fn of<'a>(batches: &'a [SeriesBatch], metric: &str, start: Timestamp) -> Vec<&'a SeriesBatch> {
    let is_new = |b: &&SeriesBatch| b.window.start() >= start && b.revision == 0 && !b.is_final;
    batches.iter().filter(is_new).filter(|b| metrics(b).contains(metric)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metric_that_declares_itself_late_is_waited_for_and_the_others_are_not() {
    let world = World::new(120.0).await;
    let source = Arc::new(Scripted::new(MINUTE, |_, start| Some(start.as_millis() as f64)));
    let cpu = golden_signals().metrics.into_iter().find(|m| m.name == "cpu").unwrap();
    source.declare(&cpu.query, 6 * MINUTE);
    let collector = world.collector_of(source.clone()).await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let start = deployment.occurred_at.unwrap().ceil_minute();
    let window = Window::around(start, 0, 5).unwrap();
    let is_read = |batches: &[SeriesBatch]| {
        let read = of(batches, "cpu", start);
        read.iter().any(|b| b.window.end() == window.end())
    };
    let (batches, heads) = world.batches(is_read).await;
    let record = world.collection(|record| record.progress.done).await;
    assert_eq!((record.progress.collected_until, record.progress.ahead.len()), (Some(window.end()), 0));

    let (fast, late) = (of(&batches, "response_time", start), of(&batches, "cpu", start));
    for (all, settle) in [(&fast, 2), (&late, 6)] {
        let minutes: i64 = all.iter().map(|b| b.window.minutes()).sum();
        assert_eq!(minutes, 5, "every minute once");
        for batch in all {
            let waited = batch.collected_at.minutes_since(batch.window.end());
            assert!((settle..settle + 2).contains(&waited), "{waited} min after {}", batch.window);
        }
    }
    assert!(fast.iter().all(|b| !metrics(b).contains("cpu")));
    let first = &fast[0].waits[0];
    assert_eq!((first.metric.as_str(), first.late_by, first.is_missing), ("cpu", 6 * MINUTE, true));
    assert_eq!(first.until, start.plus_minutes(1).plus(6 * MINUTE));
    assert!(late.iter().all(|b| b.waits.iter().all(|wait| !wait.is_missing)), "nothing is lacking then");
    let last = late.last().unwrap();
    assert_eq!(last.waits, [], "no minute follows");
    let ids: BTreeSet<_> = heads.iter().map(|head| head.get("Nats-Msg-Id").unwrap().as_str()).collect();
    assert_eq!(ids.len(), heads.len(), "no batch takes the place of another");

    // The recent references of the late one follow; the old ones come with the others.
    let references: Vec<(i64, usize)> = batches
        .iter()
        .filter(|b| b.window.start() < start)
        .map(|b| (b.window.minutes(), metrics(b).len()))
        .collect();
    assert_eq!(references, [(65, 5), (65, 5), (180, 4), (180, 1)]);
    // Once both are due they are asked for in one call a minute.
    let both =
        source.asked().iter().filter(|ask| ask.window.start() >= start && ask.metrics.len() == 5).count();
    let calls = source.asked().iter().filter(|ask| ask.window.start() >= start).count();
    assert!(both >= 3 && calls <= 13, "{both} of {calls} calls serve both");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_settings_say_goes_before_what_is_declared() {
    let mut world = World::new(240.0).await;
    world.more = ", watermarks: [{metric: cpu, settle: 1m}]".into();
    let source = Arc::new(Scripted::new(MINUTE, |_, _| Some(1.0)));
    let cpu = golden_signals().metrics.into_iter().find(|m| m.name == "cpu").unwrap();
    source.declare(&cpu.query, 20 * MINUTE);
    let collector = world.collector_of(source).await;
    let deployment = world.deployment();
    world.announce(&deployment).await;
    let start = deployment.occurred_at.unwrap().ceil_minute();
    let is_read = |batches: &[SeriesBatch]| of(batches, "cpu", start).len() >= 3;
    let (batches, _) = world.batches(is_read).await;
    let first = of(&batches, "cpu", start)[0];
    let waited = first.collected_at.minutes_since(first.window.end());
    assert!((1..3).contains(&waited), "{waited}");
    assert!(watermark(&batches) < Some(start.plus_minutes(20)));
    let lacking: Vec<&str> =
        first.waits.iter().filter(|w| w.is_missing).map(|wait| wait.metric.as_str()).collect();
    assert_eq!(lacking.len(), 4, "the others follow a minute later: {lacking:?}");
    collector.stop().await;
}
