//! A server that answers each call from a script, in order, and remembers what it was asked.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vouch_collector::config::{BilledSettings, LogSettings, TenantSettings};
use vouch_collector::metrics::Metrics;
use vouch_collector::source::dynatrace::{Dynatrace, base_url};
use vouch_collector::source::{Ask, MetricAsk};
use vouch_proto::{Name, Timestamp, Window};
use vouch_service::clock::{ScaledClock, SharedClock};
use vouch_service::health::Health;
use vouch_service::shutdown::Tasks;

/// One answer of the script.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    path: String,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    delay: Duration,
}

/// An answer to a call of this path.
pub(crate) fn answer(path: &str, status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer { path: path.to_owned(), status, headers: vec![], body: body.into(), delay: Duration::ZERO }
}

impl Answer {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn late(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<String>>,
    bodies: Mutex<Vec<String>>,
    unexpected: Mutex<Vec<String>>,
    lenient: std::sync::atomic::AtomicBool,
}

/// The server, and a client of it.
pub(crate) struct Tenant {
    pub(crate) source: Dynatrace,
    pub(crate) health: Health,
    pub(crate) token_file: std::path::PathBuf,
    script: Arc<Script>,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl Tenant {
    pub(crate) async fn new(answers: Vec<Answer>) -> Self {
        Self::with(answers, |_| {}).await
    }

    /// As `new`; whatever is not in the script is not found, and nobody looks at it afterwards.
    pub(crate) async fn lenient(answers: Vec<Answer>) -> Self {
        let tenant = Self::new(answers).await;
        tenant.script.lenient.store(true, std::sync::atomic::Ordering::Relaxed);
        tenant
    }

    /// As `new`, with other settings.
    pub(crate) async fn with(answers: Vec<Answer>, change: impl FnOnce(&mut TenantSettings)) -> Self {
        let script = Arc::new(Script { answers: Mutex::new(answers.into()), ..Script::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let router = Router::new().fallback(serve).with_state(script.clone());
        let stop = tasks.stop().clone();
        tasks.spawn(async move {
            let served = axum::serve(listener, router);
            served.with_graceful_shutdown(async move { stop.cancelled().await }).await.unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, "dt0c01.OLD.SECRET").unwrap();
        let mut settings = TenantSettings {
            name: "test".into(),
            is_one_of_several: false,
            url: base_url(&format!("http://{address}/e/1/")).unwrap(),
            token: "dt0c01.OLD.SECRET".to_owned().into(),
            token_file: Some(token_file.clone()),
            oauth: None,
            ca: Vec::new(),
            insecure: false,
            request_timeout: Duration::from_secs(1),
            concurrency: 4,
            calls_per_minute: None,
            environment: None,
            services: vec![],
            rules: vec![],
            logs: LogSettings::default(),
            billed: BilledSettings::default(),
        };
        change(&mut settings);
        let clock: SharedClock = Arc::new(ScaledClock::starting_at(noon(), 300.0));
        let health = Health::default();
        let source = Dynatrace::new(&settings, clock, health.clone(), Metrics::default()).unwrap();
        Self { source, health, token_file, script, tasks, _folder: folder }
    }

    /// The bodies of what was asked, in order.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.script.bodies.lock().unwrap().clone()
    }

    /// What was asked, as `path?query [authorization]`, once the script is over and nothing else was asked.
    pub(crate) fn asked(&self) -> Vec<String> {
        let unexpected = self.script.unexpected.lock().unwrap().clone();
        assert_eq!(unexpected, Vec::<String>::new(), "not in the script");
        let left: Vec<String> = self.script.answers.lock().unwrap().iter().map(|a| a.path.clone()).collect();
        assert_eq!(left, Vec::<String>::new(), "not asked");
        self.script.asked.lock().unwrap().clone()
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}

async fn serve(State(script): State<Arc<Script>>, request: Request) -> Response<Body> {
    let token = request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or("none");
    let line = format!("{} {} [{token}]", request.method(), request.uri());
    let path = request.uri().path().to_owned();
    let next = {
        let mut answers = script.answers.lock().unwrap();
        // A path that begins with a slash is meant from the root on.
        let whole = |a: &Answer| match a.path.strip_prefix('/') {
            Some(path) => format!("/e/1/{path}"),
            None => format!("/e/1/api/v2/{}", a.path),
        };
        let fits = answers.front().is_some_and(|a| path == whole(a));
        if fits { answers.pop_front() } else { None }
    };
    let Some(answer) = next else {
        if script.lenient.load(std::sync::atomic::Ordering::Relaxed) {
            return (axum::http::StatusCode::NOT_FOUND, "{}").into_response();
        }
        script.unexpected.lock().unwrap().push(line);
        return axum::http::StatusCode::NOT_IMPLEMENTED.into_response();
    };
    script.asked.lock().unwrap().push(line);
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    script.bodies.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
    tokio::time::sleep(answer.delay).await;
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(answer.body)).unwrap()
}

/// The instant at which every test's clock starts.
pub(crate) fn noon() -> Timestamp {
    "2026-11-18T12:00:00Z".parse().unwrap()
}

/// Asks for one metric over the three minutes before the last two.
pub(crate) fn ask(query: &str) -> Ask {
    Ask {
        environment: Name::new("prod").unwrap(),
        service: Name::new("checkout").unwrap(),
        metrics: vec![MetricAsk {
            name: "response_time".into(),
            query: query.into(),
            unit: "ms".into(),
            by_host: false,
            each: None,
        }],
        window: Window::around(noon(), -5, -2).unwrap(),
        settled_until: noon().plus_minutes(-2),
    }
}

pub(crate) const QUERY: &str = "builtin:service.response.time:splitBy():avg";
pub(crate) const DESCRIPTOR: &str = "metrics/builtin:service.response.time";

/// The answer that names the service's entity.
pub(crate) fn entity() -> Answer {
    answer(
        "entities",
        200,
        r#"{"totalCount":1,"entities":[{"entityId":"SERVICE-1","displayName":"checkout"}]}"#,
    )
}

/// The answer that says that the metric is in microseconds.
pub(crate) fn descriptor() -> Answer {
    answer(
        DESCRIPTOR,
        200,
        r#"{"metricId":"builtin:service.response.time","unit":"MicroSecond","entityType":["SERVICE"]}"#,
    )
}

/// Three minutes of data.
pub(crate) fn data() -> Answer {
    answer("metrics/query", 200, body("1m", &[Some(1000.0), None, Some(3000.0)]))
}

/// An answer with one series whose slots are a minute long.
pub(crate) fn body(resolution: &str, values: &[Option<f64>]) -> String {
    let start = noon().plus_minutes(-5).as_millis();
    let stamps: Vec<i64> = (1..).take(values.len()).map(|i| start + i * 60_000).collect();
    serde_json::json!({
        "totalCount": 1, "nextPageKey": null, "resolution": resolution,
        "result": [{"metricId": QUERY, "dataPointCountRatio": 1.0E-5, "dimensionCountRatio": 1.0E-5,
            "data": [{"dimensions": [], "dimensionMap": {}, "timestamps": stamps, "values": values}]}]
    })
    .to_string()
}
