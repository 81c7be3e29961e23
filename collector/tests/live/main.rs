//! The collector in process with a real nats-server and a simulated tenant: from a deployment to the series.

mod intake;
mod outage;
mod paths;
mod support;
