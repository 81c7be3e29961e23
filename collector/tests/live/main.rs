//! The collector in process with a real nats-server and a simulated tenant: from a deployment to the series.

#[cfg(test)]
mod budget;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod intake;
#[cfg(test)]
mod late;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod support;
#[cfg(test)]
mod webhooks;
