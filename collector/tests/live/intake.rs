//! What the collector makes of announcements: decoded, joined, cancelled, or dead-lettered.

use crate::support::{World, name};
use futures::StreamExt as _;
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use vouch_collector::source::scripted::Scripted;
use vouch_proto::subject::{COLLECTION_BUCKET, DEAD_LETTERS};
use vouch_proto::{Deployment, Phase, v1};

fn scripted() -> Arc<Scripted> {
    Arc::new(Scripted::new(Duration::from_secs(60), |_, _| Some(1.0)))
}

async fn dead_letters(world: &World, expected: usize) -> Vec<String> {
    let stream = world.nats.jetstream.get_stream(DEAD_LETTERS.name).await.unwrap();
    let config = async_nats::jetstream::consumer::pull::OrderedConfig::default();
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let mut reasons = Vec::new();
    while reasons.len() < expected {
        let next = tokio::time::timeout(Duration::from_secs(20), messages.next()).await;
        let message = next.unwrap().unwrap().unwrap();
        assert!(message.subject.ends_with("collector-deployments"));
        reasons.push(message.headers.as_ref().unwrap().get("Vouch-Reason").unwrap().to_string());
    }
    reasons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_is_dead_lettered_and_the_rest_goes_on() {
    let world = World::new(240.0).await;
    let collector = world.collector_of(scripted()).await;
    let good = world.deployment();
    world.publish(&good, vec![], b"{".to_vec()).await;
    world.publish(&good, vec![("content-type", "text/plain".to_owned())], b"x".to_vec()).await;
    let empty = serde_json::to_vec(&v1::Deployment { service: "a".into(), ..Default::default() }).unwrap();
    world.publish(&good, vec![], empty).await;
    let mut unknown = v1::Deployment::from(good.clone());
    unknown.verification.as_mut().unwrap().template = "nope".into();
    world.publish(&good, vec![], serde_json::to_vec(&unknown).unwrap()).await;
    let protobuf = v1::Deployment::from(good.clone()).encode_to_vec();
    world.publish(&good, vec![("content-type", "application/protobuf".to_owned())], protobuf).await;
    let reasons = dead_letters(&world, 4).await;
    for (reason, part) in
        reasons.iter().zip(["JSON", "text/plain", "version: is empty", "unknown template `nope`"])
    {
        assert!(reason.contains(part), "{part} in {reason}");
    }
    world.collection(|record| record.service == name("checkout")).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_and_later_phases_join_one_collection() {
    let world = World::new(60.0).await;
    let collector = world.collector_of(scripted()).await;
    let traffic = world.deployment();
    world.announce(&traffic).await;
    let record = world.collection(|_| true).await;
    let finished = Deployment { phase: Phase::Finished, ..world.deployment() };
    world.announce(&finished).await;
    world
        .publish(&traffic, vec![], serde_json::to_vec(&v1::Deployment::from(traffic.clone())).unwrap())
        .await;
    let same = world.collection(|record| record.progress.collected_until.is_some()).await;
    assert_eq!((same.verification_id, same.traffic_at), (record.verification_id, traffic.occurred_at));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_deployment_and_a_cancelled_verification_are_collected_no_further() {
    for cancelled in [false, true] {
        let world = World::new(60.0).await;
        let collector = world.collector_of(scripted()).await;
        world.announce(&world.deployment()).await;
        let record = world.collection(|_| true).await;
        let end = Deployment {
            phase: Phase::Aborted,
            cancelled_by: cancelled.then(|| "ann".to_owned()),
            verification_id: cancelled.then(|| record.verification_id.clone()),
            ..world.deployment()
        };
        world.announce(&end).await;
        let ended = world.collection(|record| record.aborted).await;
        assert!(!ended.progress.done);
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_verification_brings_its_own_time() {
    let world = World::new(60.0).await;
    let collector = world.collector_of(scripted()).await;
    world.announce(&world.deployment()).await;
    let first = world.collection(|record| record.progress.collected_until.is_some()).await;
    let id = first.verification_id.replace(".1", ".2");
    let second = Deployment { verification_id: Some(id.clone()), ..world.deployment() };
    world.announce(&second).await;
    let store = world.nats.bucket(&COLLECTION_BUCKET).await.unwrap();
    let mut entries = store.watch_with_history(vouch_proto::subject::id_key(&id)).await.unwrap();
    let entry =
        tokio::time::timeout(Duration::from_secs(20), entries.next()).await.unwrap().unwrap().unwrap();
    let record = vouch_collector::record::CollectionRecord::read(&entry.value).unwrap();
    assert_eq!(record.traffic_at, second.occurred_at);
    assert_ne!(record.traffic_at, first.traffic_at);
    collector.stop().await;
}
