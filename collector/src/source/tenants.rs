//! Several tenants as one source: each holds an environment.

use super::{
    Ask, Bystander, EventKind, Failure, FailureKind, KnownService, MetricSource, Reading, SourceEvent,
};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use vouch_proto::{Deployment, Name, Objective, Problem, Timestamp, Window};

/// Tenants by the environments that they hold.
#[derive(Debug)]
pub struct Tenants {
    all: Vec<(Name, Arc<dyn MetricSource>)>,
}

impl Tenants {
    /// Each with its environment, no two of which are the same.
    #[must_use]
    pub fn new(all: Vec<(Name, Arc<dyn MetricSource>)>) -> Self {
        Self { all }
    }

    fn of(&self, environment: &Name) -> Result<&Arc<dyn MetricSource>, Failure> {
        let found = self.all.iter().find(|(held, _)| held == environment);
        found.map(|(_, source)| source).ok_or_else(|| {
            let held: Vec<&str> = self.all.iter().map(|(held, _)| held.as_str()).collect();
            let message = format!(
                "no tenant holds environment `{environment}`; they hold {}; correct the deployment or collector.tenants",
                held.join(", ")
            );
            Failure::new(FailureKind::OtherEnvironment, message)
        })
    }
}

#[async_trait]
impl MetricSource for Tenants {
    async fn read(&self, ask: &Ask) -> Result<Reading, Failure> {
        self.of(&ask.environment)?.read(ask).await
    }

    async fn bystanders(&self, ask: &Ask, most: usize) -> Result<Vec<Bystander>, Failure> {
        self.of(&ask.environment)?.bystanders(ask, most).await
    }

    async fn problems(&self, ask: &Ask) -> Result<Vec<Problem>, Failure> {
        self.of(&ask.environment)?.problems(ask).await
    }

    async fn objectives(&self, ask: &Ask) -> Result<Vec<Objective>, Failure> {
        self.of(&ask.environment)?.objectives(ask).await
    }

    async fn events(
        &self,
        tenant: usize,
        window: Window,
        kinds: &[EventKind],
    ) -> Result<Vec<SourceEvent>, Failure> {
        let Some((_, source)) = self.all.get(tenant) else { return Ok(Vec::new()) };
        source.events(0, window, kinds).await
    }

    async fn write_event(&self, deployment: &Deployment, started_at: Timestamp) -> Result<(), Failure> {
        self.of(&deployment.environment)?.write_event(deployment, started_at).await
    }

    fn key(&self, environment: &Name, query: &str) -> String {
        self.of(environment).map_or_else(|_| query.to_owned(), |source| source.key(environment, query))
    }

    async fn latency(&self, environment: &Name, query: &str) -> Result<Duration, Failure> {
        self.of(environment)?.latency(environment, query).await
    }

    fn clock_behind(&self, environment: &Name) -> Duration {
        self.of(environment).map_or(Duration::ZERO, |source| source.clock_behind(environment))
    }

    async fn services(&self) -> Result<Vec<KnownService>, Failure> {
        let mut all = Vec::new();
        for tenant in 0..self.all.len() {
            all.extend(self.services_of(tenant).await?);
        }
        Ok(all)
    }

    async fn services_of(&self, tenant: usize) -> Result<Vec<KnownService>, Failure> {
        let Some((_, source)) = self.all.get(tenant) else { return Ok(Vec::new()) };
        let found = source.services().await?;
        Ok(found.into_iter().map(|service| KnownService { tenant, ..service }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::Scripted;
    use super::*;

    #[tokio::test]
    async fn each_environment_is_read_from_its_tenant() {
        let name = |text: &str| Name::new(text).unwrap();
        let source = || -> Arc<dyn MetricSource> {
            Arc::new(Scripted::new(std::time::Duration::from_secs(60), |_, _| None))
        };
        let tenants = Tenants::new(vec![(name("prod"), source()), (name("test"), source())]);
        let services = tenants.services().await.unwrap();
        assert_eq!(services.iter().map(|service| service.tenant).collect::<Vec<_>>(), [0, 1]);
        assert!(tenants.of(&name("test")).is_ok());
        let failure = tenants.of(&name("stage")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::OtherEnvironment);
        assert!(failure.message.contains("they hold prod, test"), "{failure}");
    }
}
