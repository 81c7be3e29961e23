//! Webhooks over real HTTP: what is told in others' words is announced once, and nobody is let in without the secret.

use crate::support::{World, name, noon};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::time::Duration;
use vouch_collector::changes::webhook::{Kind, Webhook, Webhooks, serve};
use vouch_collector::changes::{Announcer, Names};
use vouch_collector::metrics::Metrics;
use vouch_proto::subject::{CATALOGUE_BUCKET, CATALOGUE_COMPLETE, catalogue_key};
use vouch_proto::{Phase, Templates};

const SECRET: &str = "0123456789abcdef";

struct Hooks {
    url: String,
    http: Client,
}

impl Hooks {
    /// A webhook of every kind, named by its word.
    async fn serve(world: &World) -> Self {
        let webhook = |(word, kind): (&str, Kind)| Webhook {
            name: name(word),
            kind,
            secrets: vec![SECRET.to_owned().into()],
            names: Names { environment: (kind != Kind::Generic).then(|| name("prod")), ..Names::default() },
            unknown_services: kind == Kind::Generic,
        };
        let webhooks = Webhooks {
            webhooks: Kind::ALL.map(webhook).to_vec(),
            announcer: Announcer::new(world.nats.clone(), world.clock.clone()).await.unwrap(),
            templates: Templates::default(),
            metrics: Metrics::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
        let stop = world.stop();
        world.spawn(async move { serve(webhooks, listener, stop).await.unwrap() });
        rustls::crypto::ring::default_provider().install_default().ok();
        Self { url, http: Client::new() }
    }

    fn post(&self, webhook: &str, body: &Value) -> RequestBuilder {
        self.http.post(format!("{}/{webhook}", self.url)).json(body)
    }

    async fn tell(&self, webhook: &str, body: &Value) -> (u16, Value) {
        answer(self.post(webhook, body).bearer_auth(SECRET)).await
    }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn cdevent(kind: &str, version: &str) -> Value {
    json!({
        "context": {"type": format!("dev.cdevents.service.{kind}.0.2.0"), "timestamp": noon().to_string()},
        "subject": {"id": "checkout", "content": {
            "environment": {"id": "prod"}, "artifactId": format!("pkg:oci/checkout@sha256%3Aaa?tag={version}")}},
    })
}

fn rollout(image: &str, phase: &str) -> Value {
    json!({"rollout": {
        "metadata": {"name": "checkout", "namespace": "shop"}, "status": {"phase": phase},
        "spec": {"template": {"spec": {"containers": [{"name": "checkout", "image": image}]}}},
    }})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_tell_of_a_deployment_tell_of_one() {
    let world = World::new(1.0).await;
    let hooks = Hooks::serve(&world).await;
    let (status, said) = hooks.tell("cdevents", &cdevent("deployed", "v2.0")).await;
    assert_eq!((status, &said["announced"][0]["version"]), (202, &json!("v2.0")), "{said}");
    let (status, said) =
        hooks.tell("argo-rollouts", &rollout("r.example.com/shop/checkout:2.0", "Healthy")).await;
    assert_eq!((status, &said["announced"][0]["version"]), (202, &json!("v2.0")), "one spelling: {said}");
    let flagger = json!({"name": "checkout", "namespace": "shop", "phase": "Succeeded", "checksum": "85d557f47b",
                         "metadata": {"token": SECRET}});
    let (status, said) = answer(hooks.post("flagger", &flagger)).await;
    assert_eq!((status, &said["announced"][0]["version"]), (202, &json!("v2.0")), "a guess joins: {said}");
    // Told twice, it is stored once.
    assert_eq!(hooks.tell("cdevents", &cdevent("deployed", "v2.0")).await.0, 202);
    let all = world.announced().await;
    let versions: Vec<&str> = all.iter().map(|one| one.version.as_str()).collect();
    assert_eq!(versions, ["v2.0"; 3]);
    assert_eq!((all[0].phase, all[1].phase), (Phase::Traffic, Phase::Finished));
    assert_eq!(all[0].source.as_deref(), Some("webhook/cdevents"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_put_back_ends_the_deployment_before_it() {
    let world = World::new(1.0).await;
    let hooks = Hooks::serve(&world).await;
    assert_eq!(hooks.tell("cdevents", &cdevent("upgraded", "2.0")).await.0, 202);
    let (status, said) = hooks.tell("cdevents", &cdevent("rolledback", "1.0")).await;
    assert_eq!((status, &said["announced"][0]["version"]), (202, &json!("1.0")), "{said}");
    let all: Vec<(String, Phase)> =
        world.announced().await.into_iter().map(|one| (one.version.to_string(), one.phase)).collect();
    let expected = [("2.0", Phase::Traffic), ("2.0", Phase::Aborted), ("1.0", Phase::Traffic)];
    assert_eq!(all, expected.map(|(version, phase)| (version.to_owned(), phase)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_or_no_deployment_is_not_announced() {
    let world = World::new(1.0).await;
    let catalogue = world.nats.bucket(&CATALOGUE_BUCKET).await.unwrap();
    let hooks = Hooks::serve(&world).await;
    catalogue.put(catalogue_key(&name("any"), &name("payment")), "{}".into()).await.unwrap();
    catalogue.put(CATALOGUE_COMPLETE, "test".into()).await.unwrap();
    let (status, said) = hooks.tell("cdevents", &cdevent("deployed", "2.0")).await;
    assert_eq!(status, 200, "{said}");
    assert!(said["ignored"][0].as_str().unwrap().contains("`checkout` in `prod` is not known to Dynatrace"));
    let (status, said) = hooks.tell("cdevents", &cdevent("removed", "2.0")).await;
    assert_eq!((status, said["announced"].as_array().unwrap().len()), (200, 0), "{said}");
    assert_eq!(world.announced().await, []);
    let known = json!({"service": "checkout", "environment": "prod", "version": "1", "phase": "DEPLOYMENT_PHASE_TRAFFIC"});
    let (status, said) = hooks.tell("generic", &known).await;
    assert_eq!(status, 202, "who says so in our own words is believed: {said}");
    assert_eq!(world.announced().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_without_the_secret_and_every_refusal_says_why() {
    let world = World::new(1.0).await;
    let hooks = Hooks::serve(&world).await;
    for (word, _) in Kind::ALL {
        let (status, said) = answer(hooks.post(word, &json!({}))).await;
        assert_eq!(status, 401, "{word}: {said}");
        assert!(said["error"].as_str().unwrap().contains("secret"), "{said}");
    }
    let generic = |body: &str| {
        let url = format!("{}/generic", hooks.url);
        hooks.http.post(url).bearer_auth(SECRET).body(body.to_owned())
    };
    for (body, part) in [
        ("{", "body: no dev.vouch.v1.deployment in JSON"),
        ("{}", "version: is empty"),
        (
            r#"{"service":"a","environment":"b","version":"1","phase":"DEPLOYMENT_PHASE_TRAFFIC","verificationId":"x.1"}"#,
            "vouch verify",
        ),
        (
            r#"{"service":"a","environment":"b","version":"1","phase":"DEPLOYMENT_PHASE_TRAFFIC","verification":{"template":"nope"}}"#,
            "verification.template: unknown template `nope`",
        ),
        (
            r#"{"service":"a","environment":"b","version":"1","phase":"DEPLOYMENT_PHASE_TRAFFIC","occurredAt":"2020-01-01T00:00:00Z"}"#,
            "occurred_at: 2020",
        ),
    ] {
        let (status, said) = answer(generic(body)).await;
        assert_eq!(status, 400, "{body}: {said}");
        assert!(said["error"].as_str().unwrap().contains(part), "{part} in {said}");
    }
    assert_eq!(answer(generic(&" ".repeat(3 << 20))).await.0, 413);
    assert_eq!(answer(hooks.post("nobody", &json!({}))).await.0, 404);
    let get = hooks.http.get(format!("{}/generic", hooks.url)).send().await.unwrap();
    assert_eq!(get.status().as_u16(), 405);
    assert_eq!(world.announced().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nats_is_away_the_caller_is_asked_to_come_again() {
    let mut world = World::new(1.0).await;
    let hooks = Hooks::serve(&world).await;
    world.kill_nats();
    let response = tokio::time::timeout(
        Duration::from_secs(15),
        hooks.post("cdevents", &cdevent("deployed", "2.0")).bearer_auth(SECRET).send(),
    );
    let response = response.await.expect("answered in time").unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "5"));
}
