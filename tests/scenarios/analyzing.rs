//! Analysis on demand over gRPC, and what else the port serves: health, reflection.

use futures::{Stream, StreamExt as _, stream};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::{v1 as reflection, v1alpha as reflection_alpha};
use tonic_types::StatusExt as _;
use vouch_proto::v1::analyze_stream_request::Part;
use vouch_proto::v1::verifications_client::VerificationsClient;
use vouch_proto::{Timestamp, Verdict, Window, v1};
use vouch_tests::{Program, Telemetry, World};

fn window(start: Timestamp, end: Timestamp) -> v1::Window {
    Window::new(start, end).unwrap().into()
}

/// An analysis of a response time that is `factor` times as high in its last 20 minutes.
fn request(world: &World, factor: f64) -> v1::AnalyzeRequest {
    let begin = world.now().floor_minute().plus_minutes(-20);
    let values = (0..80).map(|i| f64::from(100 + i * 7 % 5) * if i < 60 { 1.0 } else { factor }).collect();
    let metric = "response_time".to_owned();
    v1::AnalyzeRequest {
        service: "checkout".into(),
        environment: "prod".into(),
        strategy: v1::Strategy::Previous as i32,
        baseline: vec![window(begin.plus_minutes(-60), begin)],
        verification: Some(window(begin, begin.plus_minutes(20))),
        metrics: vec![v1::AnalyzeMetric {
            name: metric.clone(),
            unit: "ms".into(),
            direction: v1::Direction::Increase as i32,
            exposure: String::new(),
            settings: None,
        }],
        resolution_seconds: 60,
        series: vec![v1::AnalyzeSeries {
            start: Some(begin.plus_minutes(-60).into()),
            series: Some(v1::Series { metric, values, ..Default::default() }),
        }],
        ..Default::default()
    }
}

fn part(part: Part) -> v1::AnalyzeStreamRequest {
    v1::AnalyzeStreamRequest { part: Some(part) }
}

/// A header, and the series minute by minute.
fn messages(mut whole: v1::AnalyzeRequest) -> Vec<v1::AnalyzeStreamRequest> {
    let one = whole.series.remove(0);
    let start = Timestamp::try_from(one.start.unwrap()).unwrap();
    let series = one.series.unwrap();
    let chunk = |(i, value): (i64, &f64)| {
        let series = v1::Series { values: vec![*value], ..series.clone() };
        let one = v1::AnalyzeSeries { start: Some(start.plus_minutes(i).into()), series: Some(series) };
        part(Part::Chunk(v1::AnalyzeChunk { series: vec![one] }))
    };
    let chunks = (0..).zip(&series.values).map(chunk);
    std::iter::once(part(Part::Header(whole))).chain(chunks).collect()
}

fn named(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    details
        .bad_request()
        .map(|b| b.field_violations.clone())
        .unwrap_or_default()
        .into_iter()
        .map(|v| v.field)
        .collect()
}

async fn analyzer(world: &World) -> Program {
    let analyzer = world.spawn("analyzer", "analyzer").await;
    analyzer.ready().await;
    analyzer
}

async fn client(world: &World) -> (Program, VerificationsClient<Channel>) {
    let analyzer = analyzer(world).await;
    let client = analyzer.client().await;
    (analyzer, client)
}

#[tokio::test]
async fn health_and_both_reflections_answer() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let analyzer = analyzer(&world).await;
    drop(analyzer.client().await);
    let service = "vouch.v1.Verifications".to_owned();
    let channel = Channel::from_shared(analyzer.grpc_url()).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    let answer = health.check(HealthCheckRequest { service: service.clone() }).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);

    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let ask = reflection::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = reflection::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut answers = client.server_reflection_info(stream::iter([ask])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap().unwrap());
    assert!(answer.contains(&service) && answer.contains("grpc.health.v1.Health"), "{answer}");

    let mut client = reflection_alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let ask = reflection_alpha::server_reflection_request::MessageRequest::FileContainingSymbol(service);
    let ask = reflection_alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut answers = client.server_reflection_info(stream::iter([ask])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap().unwrap());
    assert!(answer.contains("FileDescriptorResponse"), "{answer}");
}

#[tokio::test]
async fn a_stream_gives_the_verdict_of_the_whole() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let (_analyzer, mut client) = client(&world).await;
    for (factor, expected) in [(1.0, v1::Outcome::Pass), (1.6, v1::Outcome::Fail)] {
        let whole = request(&world, factor);
        let unary = client.analyze(whole.clone()).await.unwrap().into_inner().verdict.unwrap();
        let streamed = client.analyze_stream(stream::iter(messages(whole))).await.unwrap().into_inner();
        assert_eq!(unary.outcome(), expected, "{}", unary.reason);
        let without_time =
            |v: v1::Verdict| Verdict { decided_at: world.clock.anchor, ..v.try_into().unwrap() };
        assert_eq!(without_time(streamed.verdict.unwrap()), without_time(unary));
    }
}

#[tokio::test]
async fn every_limit_is_named() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let (_analyzer, client) = client(&world).await;
    let mut client = client.max_encoding_message_size(usize::MAX);
    type Change = fn(&mut v1::AnalyzeRequest);
    let cases: [(Change, Code, &str, &str); 6] = [
        (
            |r| r.series = vec![v1::AnalyzeSeries::default(); 20_001],
            Code::ResourceExhausted,
            "series",
            "20000",
        ),
        (
            |r| r.series[0].series.as_mut().unwrap().values = vec![1.0; 2_000_001],
            Code::ResourceExhausted,
            "series",
            "2000000",
        ),
        (|r| r.metrics = vec![r.metrics[0].clone(); 201], Code::ResourceExhausted, "metrics", "at most 200"),
        (
            |r| r.hosts = vec![v1::DeploymentHost::default(); 2001],
            Code::ResourceExhausted,
            "hosts",
            "at most 2000",
        ),
        (
            |r| r.series[0].series.as_mut().unwrap().values = vec![1.0; 9_000_000],
            Code::ResourceExhausted,
            "message",
            "AnalyzeStream",
        ),
        (|r| r.resolution_seconds = 61, Code::InvalidArgument, "resolution_seconds", "61"),
    ];
    for (change, code, field, word) in cases {
        let mut wrong = request(&world, 1.0);
        change(&mut wrong);
        let refused = client.analyze(wrong).await.unwrap_err();
        assert_eq!((refused.code(), named(&refused)), (code, vec![field.to_owned()]), "{refused}");
        assert!(refused.message().contains(word), "{refused}");
    }
    let whole = request(&world, 1.0);
    let chunk = |values: usize| {
        let mut one = whole.series[0].clone();
        one.series.as_mut().unwrap().values = vec![1.0; values];
        part(Part::Chunk(v1::AnalyzeChunk { series: vec![one] }))
    };
    let header = messages(whole.clone()).remove(0);
    let streams = [
        (vec![], Code::InvalidArgument, "header"),
        (vec![chunk(1)], Code::InvalidArgument, "header"),
        (vec![header.clone(), header.clone()], Code::InvalidArgument, "header"),
        (vec![v1::AnalyzeStreamRequest::default()], Code::InvalidArgument, "part"),
        (vec![part(Part::Header(whole.clone()))], Code::InvalidArgument, "header.series"),
        (vec![header.clone(), chunk(1_500_000), chunk(1_500_000)], Code::ResourceExhausted, "series"),
        (vec![header, chunk(9_000_000)], Code::ResourceExhausted, "message"),
    ];
    for (messages, code, field) in streams {
        let refused = client.analyze_stream(stream::iter(messages)).await.unwrap_err();
        assert_eq!((refused.code(), named(&refused)), (code, vec![field.to_owned()]), "{refused}");
    }
}

/// A stream that never ends after its header.
fn endless(
    header: v1::AnalyzeStreamRequest,
) -> impl Stream<Item = v1::AnalyzeStreamRequest> + Send + 'static {
    stream::iter([header]).chain(stream::pending())
}

#[tokio::test]
async fn a_third_at_once_is_told_so_and_an_abandoned_call_gives_its_room_back() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let (_analyzer, client) = client(&world).await;
    let header = messages(request(&world, 1.0)).remove(0);
    let open = || {
        let (mut client, header) = (client.clone(), header.clone());
        // The call that probes for room may hold it for a moment: then ask again.
        Box::pin(async move {
            loop {
                let ended = client.analyze_stream(endless(header.clone())).await;
                if !matches!(&ended, Err(refused) if refused.code() == Code::ResourceExhausted) {
                    return ended;
                }
            }
        })
    };
    let (mut one, mut two) = (open(), open());
    let mut third = client.clone();
    let refused = tokio::select! {
        _ = &mut one => panic!("it waits for its series"),
        _ = &mut two => panic!("it waits for its series"),
        refused = async {
            loop {
                if let Err(refused) = third.analyze(request(&world, 1.0)).await {
                    return refused;
                }
            }
        } => refused,
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("at most 2 at once"), "{refused}");
    drop((one, two));
    let begun = std::time::Instant::now();
    while third.analyze(request(&world, 1.0)).await.is_err() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "the room is not given back");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_deadline_of_the_caller_is_kept() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let (_analyzer, mut client) = client(&world).await;
    let header = messages(request(&world, 1.0)).remove(0);
    let mut call = Request::new(endless(header));
    call.set_timeout(std::time::Duration::from_millis(300));
    let begun = std::time::Instant::now();
    let late = client.analyze_stream(call).await.unwrap_err();
    assert!(matches!(late.code(), Code::Cancelled | Code::DeadlineExceeded), "{late}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
}

#[tokio::test]
async fn what_was_collected_is_judged_again_and_what_was_not_is_never_a_pass() {
    let world = World::start(Telemetry::Scenario("demo"), 120.0).await;
    let services = world.spawn_all().await;
    let mut client = services.client().await;
    let started = client.start(world.request("checkout", "1.1.0", 10)).await.unwrap().into_inner();
    let verdict = world.topics().await.verdict(&started.verification_id).await;
    let wire = v1::Verdict::from(verdict.clone());
    let asked = v1::AnalyzeRequest {
        service: "checkout".into(),
        environment: "prod".into(),
        strategy: v1::Strategy::Previous as i32,
        baseline: wire.baseline,
        verification: wire.verification,
        collected: true,
        ..Default::default()
    };
    let again = client.analyze(asked.clone()).await.unwrap().into_inner().verdict.unwrap();
    assert_eq!(Verdict::try_from(again).unwrap().outcome, verdict.outcome);

    let longer = verdict.verification.map(|w| window(w.start().plus_minutes(-240), w.end())).unwrap();
    let half = v1::AnalyzeRequest { verification: Some(longer), ..asked.clone() };
    let refused = client.analyze(half).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("Start with `started_at`"), "{refused}");

    let unknown = v1::AnalyzeRequest { service: "nobody".into(), ..asked.clone() };
    let refused = client.analyze(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert!(refused.message().contains("nothing was collected for `nobody`"), "{refused}");

    let both = v1::AnalyzeRequest { resolution_seconds: 60, ..asked };
    let refused = client.analyze(both).await.unwrap_err();
    assert_eq!(
        (refused.code(), named(&refused)),
        (Code::InvalidArgument, vec!["resolution_seconds".to_owned()])
    );
}

#[tokio::test]
async fn asking_for_what_the_open_verification_is_not_is_refused() {
    let world = World::start(Telemetry::Scenario("demo"), 60.0).await;
    let services = world.spawn_all().await;
    let mut client = services.client().await;
    let started = client.start(world.request("checkout", "1.1.0", 30)).await.unwrap().into_inner();
    let again = client.start(world.request("checkout", "1.1.0", 30)).await.unwrap().into_inner();
    assert_eq!(again.verification_id, started.verification_id);
    let mut any = world.request("checkout", "1.1.0", 30);
    any.verification = None;
    let again = client.start(any).await.unwrap().into_inner();
    assert_eq!(again.verification_id, started.verification_id, "what was left out fits any");

    let refused = client.start(world.request("checkout", "1.1.0", 10)).await.unwrap_err();
    assert_eq!(
        (refused.code(), named(&refused)),
        (Code::FailedPrecondition, vec!["verification.duration".to_owned()])
    );
    for word in ["600 s", "1800 s", started.verification_id.as_str(), "Cancel"] {
        assert!(refused.message().contains(word), "{word} in {refused}");
    }
    let mut other = world.request("checkout", "1.1.0", 30);
    let asked = other.verification.as_mut().unwrap();
    asked.strategy = v1::Strategy::Rolling as i32;
    asked.baseline = vec![window(world.now().plus_minutes(-60), world.now().plus_minutes(-20))];
    let refused = client.start(other).await.unwrap_err();
    assert_eq!(named(&refused), ["verification.strategy", "verification.baseline"], "{refused}");
}
