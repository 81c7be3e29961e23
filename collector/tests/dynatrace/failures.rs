//! The fault matrix: what each failure is called, how often it is asked again, and what readiness says.

use crate::server::{Answer, DESCRIPTOR, QUERY, Tenant, answer, ask, data, descriptor, entity};
use std::io::Write as _;
use std::time::Duration;
use vouch_collector::source::{Failure, FailureKind, MetricSource as _};

/// How reading ends when the query is answered so.
async fn ended(answers: Vec<Answer>) -> (Result<(), Failure>, Tenant) {
    let tenant = Tenant::new([vec![entity(), descriptor()], answers].concat()).await;
    let reading = tenant.source.read(&ask(QUERY)).await;
    let ended =
        reading.and_then(|r| r.refused.into_iter().next().map_or(Ok(()), |(_, failure)| Err(failure)));
    (ended, tenant)
}

fn query(status: u16, body: &str) -> Answer {
    answer("metrics/query", status, body)
}

#[tokio::test]
async fn final_failures_are_asked_once() {
    let scope = r#"{"error":{"code":403,"message":"Token is missing required scope. Use one of: metrics.read (Read metrics)"}}"#;
    let page = query(200, "<html>sign in</html>").header("content-type", "text/html");
    for (answers, kind) in [
        (vec![query(401, "{}")], FailureKind::Unauthorized),
        (vec![query(403, scope)], FailureKind::MissingScope),
        (vec![query(403, "{}")], FailureKind::Forbidden),
        (vec![query(404, "{}")], FailureKind::UnknownMetric),
        (vec![query(400, r#"{"error":{"message":"Metric selector parse error"}}"#)], FailureKind::BadRequest),
        (vec![query(413, "{}")], FailureKind::TooLarge),
        (vec![page], FailureKind::WebPage),
        (vec![query(302, "").header("location", "https://sso.dynatrace.com/x")], FailureKind::WebPage),
        (vec![query(200, r#"{"resolution":"1m"}"#)], FailureKind::BadAnswer),
        (vec![query(200, "{\"result\":[")], FailureKind::BadAnswer),
        (vec![query(200, r#"{"resolution":"1m","result":[]}"#)], FailureKind::BadAnswer),
        (vec![query(200, &crate::server::body("Inf", &[Some(1.0)]))], FailureKind::TooCoarse),
        (vec![query(200, &crate::server::body("1h", &[Some(1.0)]))], FailureKind::TooCoarse),
        (vec![query(200, &crate::server::body("?", &[Some(1.0)]))], FailureKind::BadAnswer),
    ] {
        let (ended, tenant) = ended(answers).await;
        assert_eq!(ended.unwrap_err().kind, kind);
        assert_eq!(tenant.asked().len(), 3, "{kind:?} is asked once");
        assert_eq!(tenant.health.failures().contains_key("dynatrace"), kind.stops_readiness(), "{kind:?}");
    }
}

#[tokio::test]
async fn passing_failures_are_asked_again_until_they_pass() {
    let reset = (crate::server::noon().as_millis() / 1000 + 20).to_string();
    let (millis, micros) = (format!("{reset}000"), format!("{reset}000000"));
    for refusal in [
        query(500, "{}"),
        query(502, "<html>"),
        query(503, "").header("content-type", "text/html"),
        query(504, ""),
        query(429, "{}"),
        query(429, "{}").header("retry-after", "7"),
        query(429, "{}").header("retry-after", "Wed, 18 Nov 2026 12:00:30 GMT"),
        query(429, r#"{"error":{"retryAfterSeconds":5}}"#),
        query(429, "{}").header("x-ratelimit-reset", &reset),
        query(429, "{}").header("x-ratelimit-reset", &millis),
        query(429, "{}").header("x-ratelimit-reset", &micros),
        query(200, "").late(Duration::from_millis(1500)),
    ] {
        let slow = format!("{refusal:?}").contains("1.5s");
        let (ended, tenant) = ended(vec![refusal, data()]).await;
        if slow {
            // A second of real time is five minutes of this clock: the patience is over.
            assert_eq!(ended.unwrap_err().kind, FailureKind::Timeout);
        } else {
            assert_eq!(ended, Ok(()));
            assert_eq!(tenant.asked().len(), 4);
        }
    }
}

#[tokio::test]
async fn a_source_that_stays_down_is_given_up_after_four_attempts() {
    let (ended, tenant) = ended(vec![query(503, ""); 4]).await;
    assert_eq!(ended.unwrap_err().kind, FailureKind::Unavailable);
    assert_eq!(tenant.asked().len(), 6);
    assert!(tenant.health.failures().is_empty(), "it is not the settings' fault");
}

#[tokio::test]
async fn a_long_pause_is_respected_by_every_call() {
    let throttled = query(429, "{}").header("retry-after", "3600");
    let tenant = Tenant::new(vec![entity(), descriptor(), throttled]).await;
    for _ in 0..3 {
        let failure = tenant.source.read(&ask(QUERY)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Throttled);
    }
    assert_eq!(tenant.asked().len(), 3, "nothing is sent while Dynatrace wants none");
}

#[tokio::test]
async fn a_rotated_token_is_picked_up() {
    let tenant = Tenant::new(vec![entity(), descriptor(), query(401, "{}"), data()]).await;
    std::fs::write(&tenant.token_file, "dt0c01.NEW.SECRET\n").unwrap();
    tenant.source.read(&ask(QUERY)).await.unwrap();
    let asked = tenant.asked();
    assert!(asked[2].ends_with("[Api-Token dt0c01.OLD.SECRET]"), "{}", asked[2]);
    assert!(asked[3].ends_with("[Api-Token dt0c01.NEW.SECRET]"), "{}", asked[3]);
    assert!(tenant.health.failures().is_empty());
}

#[tokio::test]
async fn a_truncated_gzip_body_broke_off() {
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    zip.write_all(crate::server::body("1m", &[Some(1.0), None, None]).as_bytes()).unwrap();
    let whole = zip.finish().unwrap();
    let zipped = |bytes: &[u8]| answer("metrics/query", 200, bytes).header("content-encoding", "gzip");
    let (ended, tenant) = ended(vec![zipped(&whole[..whole.len() / 2]), zipped(&whole)]).await;
    assert_eq!(ended, Ok(()), "asked again, and read whole");
    assert_eq!(tenant.asked().len(), 4);
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_says_where() {
    let tenant = Tenant::with(vec![], |settings| {
        settings.url = vouch_collector::source::dynatrace::base_url("http://127.0.0.1:1").unwrap();
    })
    .await;
    let failure = tenant.source.services().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.contains("127.0.0.1") && failure.message.contains("collector.url"), "{failure}");
    assert!(tenant.health.failures()["dynatrace"].starts_with("unreachable"));
    assert_eq!(tenant.asked().len(), 0);
}

#[tokio::test]
async fn a_missing_metric_is_refused_alone_and_not_looked_for_every_minute() {
    let tenant = Tenant::new(vec![entity(), answer(DESCRIPTOR, 404, "{}")]).await;
    for _ in 0..2 {
        let reading = tenant.source.read(&ask(QUERY)).await.unwrap();
        let (metric, failure) = &reading.refused[0];
        assert_eq!((metric.as_str(), failure.kind), ("response_time", FailureKind::UnknownMetric));
        assert!(failure.message.contains("`builtin:service.response.time`"), "{failure}");
    }
    assert_eq!(tenant.asked().len(), 2);
}

#[tokio::test]
async fn one_metric_that_spoils_the_call_is_told_apart() {
    let mut ask = ask(QUERY);
    let mut other = ask.metrics[0].clone();
    (other.name, other.query) = ("bad".into(), "builtin:service.response.time:oops:splitBy():avg".into());
    ask.metrics.push(other);
    let answers =
        vec![entity(), descriptor(), answer("metrics/builtin:service.response.time:oops", 200, "{}")];
    let answers =
        [answers, vec![query(400, "{}"), data(), query(400, r#"{"error":{"message":"no oops"}}"#)]].concat();
    let tenant = Tenant::new(answers).await;
    let reading = tenant.source.read(&ask).await.unwrap();
    assert_eq!(reading.chunks[0].series.len(), 1);
    assert_eq!(reading.refused.len(), 1);
    assert!(reading.refused[0].1.message.contains("no oops"));
    tenant.asked();
}

#[tokio::test]
async fn a_clock_that_is_ten_minutes_off_is_told_by_readiness() {
    let now = jiff::Timestamp::now();
    for (minutes, told) in [(0, None), (10, Some("600 s behind")), (-10, Some("600 s ahead of"))] {
        let at = now + jiff::SignedDuration::from_mins(minutes);
        let stamp = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let entities = answer("entities", 200, r#"{"totalCount":0,"entities":[]}"#).header("date", &stamp);
        let tenant = Tenant::new(vec![entities]).await;
        tenant.source.services().await.unwrap();
        let said = tenant.health.failures().get("dynatrace clock").cloned();
        assert_eq!(said.is_some(), told.is_some(), "{minutes}: {said:?}");
        if let (Some(said), Some(told)) = (&said, told) {
            // The server's second and ours may differ by one.
            let near = [told.to_owned(), told.replace("600", "599"), told.replace("600", "601")];
            assert!(near.iter().any(|told| said.contains(told)) && said.contains("NTP"), "{said}");
        }
        assert_eq!(tenant.source.clock_skew().unwrap().is_err(), told.is_some());
        tenant.asked();
    }
}
