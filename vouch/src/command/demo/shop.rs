//! What the demo verifies: a simulated Dynatrace tenant with a shop, and the shop's rollback hook.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router, routing::post};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use vouch_service::clock::{Clock as _, ScaledClock};
use vouch_service::shutdown::Tasks;
use vouch_simulator::{ALL_SCOPES, Scenario, Simulator, SimulatorHandle};

/// The demo's token: of the right form, and worth nothing.
pub(super) const TOKEN: &str =
    "dt0c01.DEMODEMODEMODEMODEMODEMO.DEMODEMODEMODEMODEMODEMODEMODEMODEMODEMODEMODEMODEMODEMODEMODEMO";

/// The shop.
#[derive(Debug)]
pub(super) struct Shop {
    /// Steers the simulation.
    pub(super) simulator: SimulatorHandle,
    /// Where the simulated Dynatrace listens.
    pub(super) dynatrace: SocketAddr,
    /// Where the rollback hook listens.
    pub(super) target: SocketAddr,
    hook: Hook,
}

#[derive(Debug, Clone)]
struct Hook {
    simulator: SimulatorHandle,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Shop {
    /// Opens the tenant and the hook in the tasks.
    pub(super) async fn open(clock: ScaledClock, tasks: &Tasks) -> anyhow::Result<Self> {
        let mut scenario = Scenario::named("demo")?;
        // The demo deploys by itself.
        scenario.services.iter_mut().for_each(|service| service.deployments.clear());
        let simulator = Simulator::builder()
            .scenario(scenario)
            .clock(Arc::new(move || clock.now().as_millis()))
            .token(TOKEN, &ALL_SCOPES)
            .build()?;
        let handle = simulator.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let dynatrace = listener.local_addr()?;
        let stop = tasks.stop().clone();
        tasks.spawn_vital("simulator", async move { Ok(simulator.serve(listener, stop).await?) });

        let hook = Hook { simulator: handle.clone(), calls: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let target = listener.local_addr()?;
        let router = Router::new().route("/rollback", post(roll_back)).with_state(hook.clone());
        let stop = tasks.stop().clone();
        tasks.spawn_vital("rollback hook", async move {
            Ok(axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?)
        });
        Ok(Self { simulator: handle, dynatrace, target, hook })
    }

    /// What the hook was asked to roll back, in order.
    pub(super) fn rollbacks(&self) -> Vec<String> {
        self.hook.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Takes the bad version back, as a deployment pipeline's hook would.
async fn roll_back(State(hook): State<Hook>, Json(body): Json<Value>) -> (StatusCode, String) {
    let text = |field: &str| body.pointer(field).and_then(Value::as_str).unwrap_or("?").to_owned();
    let (service, to) = (text("/verdict/service"), text("/verdict/previousVersion"));
    match hook.simulator.rollback(&service) {
        Ok(version) => {
            let call = format!("{service} from {version} to {to}");
            hook.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
            (StatusCode::OK, format!("{service} runs {to} again"))
        }
        Err(e) => (StatusCode::CONFLICT, e.to_string()),
    }
}
