//! The life of a DQL query: executed, polled, cancelled, refused.

use crate::harness::{
    GRAIL_METRICS, HOUR, Harness, METRICS_ONLY, MINUTE, PLATFORM, START, TOKEN, message, read,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use vouch_simulator::{Fault, FaultRule, Scenario, Simulator, ThrottleHeader};

const BASE: &str = "/platform/storage/query/v1";
const QUERY: &str = "timeseries avg(dt.host.cpu.usage), interval:10m";

/// A query and the other fields of its request.
pub(crate) struct Query {
    body: Value,
    enriched: bool,
}

impl Query {
    /// It waits for its result.
    pub(crate) fn new(text: &str) -> Self {
        Self { body: json!({ "query": text, "requestTimeoutMilliseconds": 10_000 }), enriched: false }
    }

    /// With more fields in its request.
    pub(crate) fn with(mut self, more: Value) -> Self {
        for (name, value) in more.as_object().unwrap() {
            self.body[name] = value.clone();
        }
        self
    }

    /// With descriptions of the metrics.
    pub(crate) fn enriched(mut self) -> Self {
        self.enriched = true;
        self
    }
}

pub(crate) async fn execute(h: &Harness, token: &str, query: &Query) -> Response {
    let enrich: &[(&str, &str)] = if query.enriched { &[("enrich", "metric-metadata")] } else { &[] };
    let call = h.bearer(Method::POST, &format!("{BASE}/query:execute"), token).query(enrich);
    call.json(&query.body).send().await.unwrap()
}

/// Executes a query that must succeed at once.
pub(crate) async fn run(h: &Harness, query: Query) -> Value {
    read(execute(h, PLATFORM, &query).await, 200).await
}

/// Starts a query without waiting; gives its token.
async fn start(h: &Harness) -> String {
    let answer =
        read(execute(h, PLATFORM, &Query { body: json!({ "query": QUERY }), enriched: false }).await, 202)
            .await;
    assert_eq!((&answer["state"], answer.get("result")), (&json!("RUNNING"), None));
    answer["requestToken"].as_str().unwrap().to_owned()
}

async fn later(h: &Harness, method: Method, call: &str, token: &str) -> Response {
    let query = [("request-token", token), ("enrich", "metric-metadata")];
    h.bearer(method, &format!("{BASE}/query:{call}"), PLATFORM).query(&query).send().await.unwrap()
}

async fn poll(h: &Harness, token: &str, status: u16) -> Value {
    read(later(h, Method::GET, "poll", token).await, status).await
}

#[tokio::test]
async fn a_result_is_fetched_once() {
    let h = Harness::scenario("demo", START).await;
    let token = start(&h).await;
    assert!(token.contains(['=', '+', '/']), "must be percent-encoded: {token}");
    let answer = poll(&h, &token, 200).await;
    assert_eq!((&answer["state"], &answer["progress"]), (&json!("SUCCEEDED"), &json!(100)));
    assert_eq!(answer["result"]["records"][0]["interval"], "600000000000");
    assert_eq!(answer["result"]["metadata"]["metrics"][0]["metric.key"], "dt.host.cpu.usage");
    assert_eq!(message(&poll(&h, &token, 410).await), "RESULT_GONE");
    let zero = Query::new(QUERY).with(json!({"requestTimeoutMilliseconds": 0}));
    assert_eq!(execute(&h, PLATFORM, &zero).await.status(), 202);
    poll(&h, "never-issued", 410).await;
    let none = h.bearer(Method::GET, &format!("{BASE}/query:poll"), PLATFORM).send().await.unwrap();
    read(none, 400).await;
    h.end().await;
}

#[tokio::test]
async fn results_expire() {
    let builder =
        Simulator::builder().scenario(Scenario::named("demo").unwrap()).start_ms(START).result_ttl_s(60);
    let h = Harness::new(builder, START).await;
    let token = start(&h).await;
    h.set_now(START + 59_000);
    let kept = start(&h).await;
    h.set_now(START + 60_000);
    poll(&h, &token, 410).await;
    poll(&h, &kept, 200).await;
    h.end().await;
}

#[tokio::test]
async fn the_first_polls_may_find_it_running() {
    let h = Harness::scenario("demo", START).await;
    let fault = |state: &str, polls| FaultRule::new(Fault::QueryState { state: state.into(), polls });
    h.handle.add_fault(fault("RUNNING", 2)).unwrap();
    // Also a call that would wait is answered before the query has ended.
    let started = read(execute(&h, PLATFORM, &Query::new(QUERY)).await, 202).await;
    let token = started["requestToken"].as_str().unwrap();
    for progress in [0, 33] {
        let answer = poll(&h, token, 200).await;
        assert_eq!(
            (&answer["state"], &answer["progress"], answer.get("result")),
            (&json!("RUNNING"), &json!(progress), None)
        );
        assert!(answer["ttlSeconds"].is_i64());
    }
    assert_eq!(poll(&h, token, 200).await["state"], "SUCCEEDED");
    poll(&h, token, 410).await;
    h.handle.clear_faults();
    for state in ["FAILED", "", "PONDERING"] {
        h.handle.add_fault(fault(state, 1_000)).unwrap();
        let token = start(&h).await;
        for _ in 0..3 {
            assert_eq!(poll(&h, &token, 200).await["state"], state);
        }
        h.handle.clear_faults();
    }
    h.end().await;
}

#[tokio::test]
async fn cancelling() {
    let h = Harness::scenario("demo", START).await;
    let finished = start(&h).await;
    let answer = read(later(&h, Method::POST, "cancel", &finished).await, 200).await;
    assert!(answer["result"]["records"][0].is_object(), "it had ended: {answer}");
    h.handle.add_fault(FaultRule::new(Fault::QueryState { state: "RUNNING".into(), polls: 5 })).unwrap();
    let running = start(&h).await;
    let response = later(&h, Method::POST, "cancel", &running).await;
    assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (202, String::new()));
    for token in [&finished, &running] {
        poll(&h, token, 410).await;
        read(later(&h, Method::POST, "cancel", token).await, 410).await;
    }
    h.end().await;
}

#[tokio::test]
async fn incomplete_results_say_so() {
    let h = Harness::scenario("demo", START).await;
    let query = "timeseries v = avg(dt.host.cpu.usage), by:{dt.entity.host}, interval:10m";
    let notified = |answer: &Value| {
        let all = answer["result"]["metadata"]["grail"]["notifications"].as_array().unwrap().clone();
        all.iter()
            .map(|n| (n["notificationType"].as_str().unwrap().to_owned(), n["severity"].clone()))
            .collect::<Vec<_>>()
    };
    let warning = |kind: &str| vec![(kind.to_owned(), json!("WARNING"))];
    let whole = run(&h, Query::new(query)).await;
    assert_eq!((whole["result"]["records"].as_array().unwrap().len(), notified(&whole)), (6, vec![]));
    let few = run(&h, Query::new(query).with(json!({"maxResultRecords": 2}))).await;
    assert_eq!(
        (few["result"]["records"].as_array().unwrap().len(), notified(&few)),
        (2, warning("LIMIT_ADDED"))
    );
    assert_eq!(few["result"]["types"][0]["indexRange"], json!([0, 1]));
    let small = run(&h, Query::new(query).with(json!({"maxResultBytes": 10, "includeTypes": false}))).await;
    assert_eq!(
        (small["result"]["records"].as_array().unwrap().len(), notified(&small)),
        (1, warning("RESULT_BYTES_LIMIT"))
    );
    assert_eq!(small["result"]["types"], json!([]));
    h.handle.add_fault(FaultRule::new(Fault::ScanLimit)).unwrap();
    let cut = run(&h, Query::new(query)).await;
    assert_eq!(notified(&cut), warning("SCAN_LIMIT_GBYTES"));
    let values = cut["result"]["records"][0]["v"].as_array().unwrap().clone();
    assert_eq!((values[0].is_null(), values[11].is_null()), (true, false), "{values:?}");
    h.end().await;
}

#[tokio::test]
async fn wrong_queries_say_where() {
    let h = Harness::scenario("demo", START).await;
    let position =
        |line: u32, column: u32, index: u32| json!({"line": line, "column": column, "index": index});
    for (query, kind, start, end) in [
        ("timeseris avg(dt.host.cpu.usage)", "UNKNOWN_COMMAND", position(1, 1, 0), position(1, 9, 8)),
        ("timeseries avg(dt.host.cpu.usage", "UNEXPECTED_END", position(1, 33, 32), position(1, 33, 32)),
        (
            "timeseries a = avg(dt.host.cpu.usage)\n| fields content",
            "FIELD_DOES_NOT_EXIST",
            position(2, 10, 47),
            position(2, 16, 53),
        ),
        ("timeseries by:{a}", "PARAMETER_MISSING", position(1, 1, 0), position(1, 10, 9)),
        (
            "timeseries percentile(dt.host.cpu.usage, 101)",
            "INVALID_PERCENTILE",
            position(1, 42, 41),
            position(1, 44, 43),
        ),
        (
            "timeseries percentile(dt.service.request.count, 95)",
            "AGGREGATION_NOT_SUPPORTED",
            position(1, 23, 22),
            position(1, 46, 45),
        ),
        ("timeseries avg(\"x\")", "METRIC_KEY_EXPECTED", position(1, 12, 11), position(1, 19, 18)),
        ("timeseries avg(a), interval:0m", "DURATION_EXPECTED", position(1, 29, 28), position(1, 30, 29)),
        ("timeseries avg(a), from:now()+1h", "INVALID_TIMEFRAME", position(1, 1, 0), position(1, 10, 9)),
        ("fetch dt.davis.problems", "NOT_SUPPORTED_BY_SIMULATOR", position(1, 7, 6), position(1, 23, 22)),
    ] {
        let answer = read(execute(&h, PLATFORM, &Query::new(query)).await, 400).await;
        let details = &answer["error"]["details"];
        assert_eq!((message(&answer), details["errorType"].as_str().unwrap()), (kind, kind), "{query}");
        assert_eq!(details["syntaxErrorPosition"], json!({"start": start, "end": end}), "{query}: {answer}");
        assert_eq!((&answer["error"]["code"], &details["queryString"]), (&json!(400), &json!(query)));
    }
    for (more, part) in [
        (json!({"timezone": "Europe/Nowhere"}), "is no time zone"),
        (json!({"defaultTimeframeStart": "soon", "defaultTimeframeEnd": "later"}), "is no ISO 8601 time"),
        (json!({"query": 5}), "Could not map JSON"),
    ] {
        let answer = read(execute(&h, PLATFORM, &Query::new(QUERY).with(more)).await, 400).await;
        let message = &answer["error"]["details"]["constraintViolations"][0]["message"];
        assert!(message.as_str().unwrap().contains(part), "{answer}");
    }
    h.end().await;
}

#[tokio::test]
async fn verify_and_parse() {
    let h = Harness::scenario("demo", START).await;
    let ask = async |call: &str, query: &str, status: u16| {
        let body = json!({"query": query, "generateCanonicalQuery": true});
        let call = h.bearer(Method::POST, &format!("{BASE}/query:{call}"), PLATFORM).json(&body);
        read(call.send().await.unwrap(), status).await
    };
    let good = ask("verify", "timeseries avg(dt.host.cpu.usage),interval:1h | limit 1", 200).await;
    assert_eq!(
        good,
        json!({"valid": true, "notifications": [], "canonicalQuery": "timeseries interval:1h, avg(dt.host.cpu.usage)\n| limit 1"})
    );
    let bad = ask("verify", "timeseries avg(", 200).await;
    assert_eq!((&bad["valid"], &bad["notifications"][0]["severity"]), (&json!(false), &json!("ERROR")));
    assert_eq!(bad["notifications"][0]["syntaxPosition"]["start"]["index"], 15);
    let tree = ask("parse", "fetch logs | limit 5", 200).await;
    assert_eq!(tree["children"][1]["children"][0]["canonicalString"], "limit");
    ask("parse", "fetch |", 400).await;
    h.end().await;
}

#[tokio::test]
async fn realms_and_scopes() {
    let h = Harness::scenario("demo", START).await;
    let path = format!("{BASE}/query:execute");
    let body = json!({"query": QUERY, "requestTimeoutMilliseconds": 1_000});
    for call in [
        h.request(Method::POST, &path),
        h.anonymous(Method::POST, &path),
        h.bearer(Method::POST, &path, TOKEN),
        h.bearer(Method::POST, &path, "dt0s16.UNKNOWN.TOKEN"),
        h.anonymous(Method::POST, &path).query(&[("api-token", TOKEN)]),
    ] {
        let response = call.json(&body).send().await.unwrap();
        assert_eq!(response.headers()["dynatrace-response-source"], "API Gateway");
        read(response, 401).await;
    }
    for token in [PLATFORM, METRICS_ONLY] {
        let refused = h.bearer(Method::GET, "/api/v2/metrics", token).send().await.unwrap();
        assert_eq!(message(&read(refused, 401).await), "Token Authentication failed");
    }
    let answered = execute(&h, GRAIL_METRICS, &Query::new(QUERY)).await;
    assert_eq!(answered.headers()["dynatrace-response-source"], "Cluster");
    read(answered, 200).await;
    let refused = read(execute(&h, GRAIL_METRICS, &Query::new("fetch logs")).await, 403).await;
    assert_eq!(refused["error"]["details"]["missingScopes"], json!(["storage:logs:read"]));
    let mirrored = h.bearer(Method::GET, "/platform/classic/environment-api/v2/metrics", GRAIL_METRICS);
    let refused = read(mirrored.send().await.unwrap(), 403).await;
    assert_eq!(refused["error"]["details"]["missingScopes"], json!(["environment-api:metrics:read"]));
    h.end().await;
}

#[tokio::test]
async fn every_fault_meets_queries_too() {
    let h = Harness::scenario("demo", START).await;
    let strike = async |fault: Fault| {
        h.handle.add_fault(FaultRule::new(fault).on("/platform").calls(1)).unwrap();
        execute(&h, PLATFORM, &Query::new(QUERY)).await
    };
    let throttled = strike(Fault::Throttle { header: ThrottleHeader::RetryAfter, seconds: 7 }).await;
    assert_eq!(throttled.headers()["retry-after"], "7");
    assert_eq!(read(throttled, 429).await["error"]["retryAfterSeconds"], 7);
    let throttled = strike(Fault::Throttle { header: ThrottleHeader::RetryAfterSeconds, seconds: 9 }).await;
    assert!(throttled.headers().get("retry-after").is_none());
    assert_eq!(read(throttled, 429).await["error"]["retryAfterSeconds"], 9);
    read(strike(Fault::Status { code: 503 }).await, 503).await;
    read(strike(Fault::Unauthorized).await, 401).await;
    let refused = read(strike(Fault::MissingScope { scope: "storage:metrics:read".into() }).await, 403).await;
    assert_eq!(refused["error"]["details"]["missingScopes"], json!(["storage:metrics:read"]));
    let page = strike(Fault::Html { code: 200 }).await;
    assert_eq!(page.headers()["content-type"], "text/html;charset=utf-8");
    assert!(strike(Fault::CutOffBody).await.text().await.is_err());
    let envelopes = read(strike(Fault::ArrayEnvelope { code: 400 }).await, 400).await;
    assert_eq!(envelopes[0]["error"]["code"], 400);
    let usual =
        run(&h, Query::new("timeseries n = count(dt.service.request.response_time), interval:1m, from:-10m"))
            .await;
    h.handle.add_fault(FaultRule::new(Fault::LatePoints { by_ms: 5 * MINUTE })).unwrap();
    let late =
        run(&h, Query::new("timeseries n = count(dt.service.request.response_time), interval:1m, from:-10m"))
            .await;
    let nulls = |answer: &Value| {
        answer["result"]["records"][0]["n"].as_array().unwrap().iter().filter(|v| v.is_null()).count()
    };
    assert!(nulls(&late) >= nulls(&usual) + 4, "{} {}", nulls(&late), nulls(&usual));
    let calls = h.handle.calls();
    assert_eq!((calls[0].path.as_str(), calls[0].status), ("/platform/storage/query/v1/query:execute", 429));
    assert!(calls[0].body.as_ref().unwrap().contains("dt.host.cpu.usage"), "what was asked is logged");
    h.end().await;
}

#[tokio::test]
async fn the_same_query_gets_the_same_answer() {
    let mut answers = Vec::new();
    for _ in 0..2 {
        let h = Harness::scenario("demo", START + HOUR).await;
        let query = "timeseries p = percentile(dt.service.request.response_time, 99), by:{dt.entity.service}";
        answers.push(run(&h, Query::new(query)).await);
        h.end().await;
    }
    assert_eq!(answers[0], answers[1], "also its id");
}
