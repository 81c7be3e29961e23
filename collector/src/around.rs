//! What goes on around a service: read beside its own series, and never in their way. What cannot be had in time is left
//! out; the judge does without.

use crate::collect::Shared;
use crate::record::CollectionRecord;
use crate::source::{Ask, Bystander, Failure};
use anyhow::Context as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use vouch_proto::{DeploymentRecord, Name, Neighbour, Objective, Problem, Timestamp, Window, subject, v1};
use vouch_service::bucket;

/// How long a reading waits for its surroundings, real time.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so many failures in a row the surroundings are left alone for a while.
const MISSES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(5 * 60);

/// An answer, or that it took too long.
type InTime<T> = Result<Result<T, Failure>, tokio::time::error::Elapsed>;

/// What was found around a service over a window.
#[derive(Debug)]
pub(crate) struct Surroundings {
    bystanders: Vec<(Bystander, Option<Timestamp>)>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) objectives: Vec<Objective>,
}

impl Surroundings {
    pub(crate) const NONE: Self =
        Self { bystanders: Vec::new(), problems: Vec::new(), objectives: Vec::new() };

    /// The other services as a batch of a window in one step carries them, with some metrics or with all.
    pub(crate) fn neighbours(
        &self,
        (window, resolution): (Window, Duration),
        some: Option<&[String]>,
    ) -> Vec<Neighbour> {
        let of = |(one, deployed_at): &(Bystander, Option<Timestamp>)| {
            let mut chunk = one.chunks.iter().find(|chunk| chunk.resolution == resolution)?.slice(window)?;
            chunk.series.retain(|series| some.is_none_or(|some| some.contains(&series.metric)));
            Some(Neighbour {
                service: one.service.clone(),
                relation: one.relation,
                shares: one.shares.clone(),
                deployed_at: *deployed_at,
                series: chunk.series,
            })
        };
        self.bystanders.iter().filter_map(of).collect()
    }
}

/// How often in a row nothing was found, and until when nobody asks.
#[derive(Debug, Default)]
pub(crate) struct Misses(Mutex<(u32, Option<Timestamp>)>);

impl Misses {
    fn is_pausing(&self, now: Timestamp) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.is_some_and(|until| now < until)
    }

    fn note(&self, missed: bool, now: Timestamp) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = if missed { state.0 + 1 } else { 0 };
        if state.0 >= MISSES {
            *state = (0, Some(now.plus(PAUSE)));
        }
    }
}

impl Shared {
    /// What goes on around the service of a collection. `ask` asks for the service as a whole.
    pub(crate) async fn around(&self, record: &CollectionRecord, ask: &Ask) -> Surroundings {
        let now = self.clock.now();
        if self.misses.is_pausing(now) {
            return Surroundings::NONE;
        }
        let bystanders = async {
            if self.neighbours == 0 {
                Ok(Vec::new())
            } else {
                self.source.bystanders(ask, self.neighbours).await
            }
        };
        let (bystanders, problems, objectives) = tokio::join!(
            tokio::time::timeout(PATIENCE, bystanders),
            tokio::time::timeout(PATIENCE, self.source.problems(ask)),
            tokio::time::timeout(PATIENCE, self.source.objectives(ask))
        );
        self.misses.note(!matches!(bystanders, Ok(Ok(_))), now);
        let problems = self.or_none(record, "problems", problems);
        let objectives = self.or_none(record, "objectives", objectives);
        let mut around = Surroundings { problems, objectives, ..Surroundings::NONE };
        for one in self.or_none(record, "neighbours", bystanders) {
            match self.deployed_at(&record.environment, &one.service).await {
                Ok(deployed_at) => around.bystanders.push((one, deployed_at)),
                // Of a service that may have been deployed just now nothing can be told.
                Err(error) => self.missed(record, "neighbours", &format!("{error:#}")),
            }
        }
        around
    }

    fn or_none<T>(&self, record: &CollectionRecord, what: &str, found: InTime<Vec<T>>) -> Vec<T> {
        let why = match found {
            Ok(Ok(all)) => return all,
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("not answered within {PATIENCE:?}"),
        };
        self.missed(record, what, &why);
        Vec::new()
    }

    fn missed(&self, record: &CollectionRecord, what: &str, why: &str) {
        self.metrics.missed_around(what);
        let id = &record.verification_id;
        tracing::warn!(verification_id = id, what, why, "judging goes on without them");
    }

    /// When a service was deployed the last time, as far as announced.
    async fn deployed_at(&self, environment: &Name, service: &Name) -> anyhow::Result<Option<Timestamp>> {
        let key = subject::newest_deployment_key(environment, service);
        let Some(bytes) = bucket::read(&self.deployments, &key).await? else { return Ok(None) };
        let unreadable = || format!("the newest deployment of {service} cannot be read");
        let record: v1::DeploymentRecord = serde_json::from_slice(&bytes).with_context(unreadable)?;
        let record = DeploymentRecord::try_from(record).with_context(unreadable)?;
        Ok(record.traffic_at.max(Some(record.started_at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{at, window};
    use crate::source::Chunk;
    use vouch_proto::{Relation, Series};

    #[test]
    fn three_misses_in_a_row_are_left_alone_for_a_while() {
        let misses = Misses::default();
        for missed in [true, true, false, true, true] {
            misses.note(missed, at(0));
            assert!(!misses.is_pausing(at(0)));
        }
        misses.note(true, at(0));
        assert!(misses.is_pausing(at(4)) && !misses.is_pausing(at(5)));
    }

    #[test]
    fn neighbours_are_cut_to_the_window_and_step_of_their_batch() {
        let series = Series {
            metric: "rt".into(),
            host: None,
            unit: "ms".into(),
            samples: vec![Some(1.0), Some(2.0), Some(3.0)],
            query: "q".into(),
            ..Series::default()
        };
        let minute = Duration::from_secs(60);
        let chunk = Chunk { resolution: minute, window: window(0, 3), series: vec![series] };
        let bystander = Bystander {
            service: Name::new("cart").unwrap(),
            relation: Relation::Unrelated,
            shares: vec!["db".into()],
            chunks: vec![chunk],
        };
        let around = Surroundings { bystanders: vec![(bystander, Some(at(-9)))], ..Surroundings::NONE };
        let told = around.neighbours((window(1, 3), minute), None);
        assert_eq!((told.len(), told[0].deployed_at), (1, Some(at(-9))));
        assert_eq!(told[0].series[0].samples, [Some(2.0), Some(3.0)]);
        assert_eq!(around.neighbours((window(1, 3), 5 * minute), None), []);
        assert_eq!(around.neighbours((window(2, 5), minute), None), []);
        let some = around.neighbours((window(1, 3), minute), Some(&["errors".to_owned()]));
        assert_eq!(some[0].series, [], "the others come with their own batch");
    }
}
