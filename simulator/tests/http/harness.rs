//! A simulator on a free port, with a clock that the test sets, and a client.

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vouch_simulator::{ALL_SCOPES, Builder, Clock, PLATFORM_SCOPES, Scenario, Simulator, SimulatorHandle};

pub(crate) const TOKEN: &str = "dt0c01.ALLSCOPES.SECRET1";
pub(crate) const METRICS_ONLY: &str = "dt0c01.METRICSONLY.SECRET2";
pub(crate) const PLATFORM: &str = "dt0s16.ALLSCOPES.SECRET3";
/// Reads metrics of Grail, and nothing else.
pub(crate) const GRAIL_METRICS: &str = "dt0s16.GRAILMETRICS.SECRET4";
pub(crate) const CLIENT_ID: &str = "dt0s02.CLIENT";
pub(crate) const CLIENT_SECRET: &str = "dt0s02.CLIENT.SECRET5";
pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Wednesday 2026-11-18T12:00:00Z.
pub(crate) const START: i64 = 1_795_003_200_000;

pub(crate) struct Harness {
    pub(crate) handle: SimulatorHandle,
    pub(crate) url: String,
    clock: Arc<AtomicI64>,
    client: Client,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Harness {
    /// A scenario that starts at `START`, seen at `now`.
    pub(crate) async fn scenario(name: &str, now: i64) -> Self {
        Self::new(Simulator::builder().scenario(Scenario::named(name).unwrap()).start_ms(START), now).await
    }

    pub(crate) async fn new(builder: Builder, now: i64) -> Self {
        let clock = Arc::new(AtomicI64::new(now));
        let reading = Arc::clone(&clock);
        let reading: Clock = Arc::new(move || reading.load(Ordering::SeqCst));
        let simulator = builder
            .clock(reading)
            .token(TOKEN, &ALL_SCOPES)
            .token(METRICS_ONLY, &["metrics.read"])
            .platform_token(PLATFORM, &PLATFORM_SCOPES)
            .platform_token(GRAIL_METRICS, &["storage:buckets:read", "storage:metrics:read"])
            .oauth_client(CLIENT_SECRET, &PLATFORM_SCOPES)
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let handle = simulator.handle();
        let until = stop.clone();
        tasks.spawn(async move { simulator.serve(listener, until).await.unwrap() });
        tasks.close();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { handle, url, clock, client: Client::new(), stop, tasks }
    }

    pub(crate) fn set_now(&self, now: i64) {
        self.clock.store(now, Ordering::SeqCst);
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .header("Authorization", format!("Api-Token {TOKEN}"))
    }

    /// A call with a bearer token.
    pub(crate) fn bearer(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {token}"))
    }

    /// A call without any token.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn send(&self, path: &str, query: &[(&str, &str)]) -> Response {
        self.request(Method::GET, path).query(query).send().await.unwrap()
    }

    /// An answer that must have this status.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)], status: u16) -> Value {
        read(self.send(path, query).await, status).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value, status: u16) -> Value {
        read(self.request(Method::POST, path).json(&body).send().await.unwrap(), status).await
    }

    /// A query of metrics in `[from, to]` that must succeed.
    pub(crate) async fn query(&self, selector: &str, window: (i64, i64), more: &[(&str, &str)]) -> Value {
        let (from, to) = (window.0.to_string(), window.1.to_string());
        let mut query = vec![("metricSelector", selector), ("from", &from), ("to", &to)];
        query.extend_from_slice(more);
        self.get("/api/v2/metrics/query", &query, 200).await
    }

    /// The values of the only series.
    pub(crate) async fn values(&self, selector: &str, window: (i64, i64)) -> Vec<Option<f64>> {
        let answer = self.query(selector, window, &[("resolution", "1m")]).await;
        let data = answer["result"][0]["data"].as_array().unwrap();
        assert_eq!((&answer["resolution"], data.len()), (&Value::from("1m"), 1), "{selector}: {answer}");
        data[0]["values"].as_array().unwrap().iter().map(Value::as_f64).collect()
    }

    /// Tells the server to stop.
    pub(crate) fn stop_serving(&self) {
        self.stop.cancel();
    }

    /// Stops the server and waits for its end.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

pub(crate) async fn read(response: Response, status: u16) -> Value {
    let got = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

pub(crate) fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap()
}
