//! Objectives (SLOs) of services: which of the tenant's are about a service, and how they stand.

use super::Dynatrace;
use super::answer::{ObjectiveItem, ObjectivePage};
use super::client::{Call, Client};
use super::selector::escape;
use crate::source::{Ask, Failure, FailureKind, Purpose};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use vouch_proto::{Objective, Timestamp, Window};

const SCOPE: &str = "slo.read";
/// How long the list of objectives is believed, and what one says.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// Most objectives of one evaluating call, the API's own limit.
const PER_CALL: usize = 25;
/// Most evaluating calls a minute: they are evidence beside the judgement, and must not crowd it out.
const CALLS_PER_MINUTE: usize = 4;
/// Most pages of the list: 10,000 objectives.
const PAGES: usize = 20;
/// Most objectives of one service.
const PER_SERVICE: usize = 5;

/// What is known of the tenant's objectives.
#[derive(Debug, Default)]
pub(super) struct Known {
    list: Option<(Arc<Vec<ObjectiveItem>>, Timestamp)>,
    evaluated: BTreeMap<String, Objective>,
    /// When the last evaluating calls were made.
    calls: VecDeque<Timestamp>,
    /// Until when nobody asks: the token may not see them, or the tenant has none.
    refused_until: Option<Timestamp>,
}

impl Dynatrace {
    /// The objectives that are about the service of `ask`, as far as they have been evaluated.
    pub(super) async fn objectives_of(&self, ask: &Ask) -> Result<Vec<Objective>, Failure> {
        let service = self.entities.service(&self.client, &ask.environment, &ask.service).await?;
        let now = self.client.now();
        // Who comes meanwhile waits, and finds them known.
        let mut known = self.objectives.lock().await;
        if known.refused_until.is_some_and(|until| now < until) {
            return Ok(Vec::new());
        }
        let list = match known.listed(&self.client, now).await {
            Ok(list) => list,
            Err(failure)
                if matches!(
                    failure.kind,
                    FailureKind::MissingScope | FailureKind::Forbidden | FailureKind::NotFound
                ) =>
            {
                known.refused_until = Some(now.plus(FRESH));
                return Err(failure);
            }
            Err(failure) => return Err(failure),
        };
        let own: Vec<&ObjectiveItem> = list
            .iter()
            .filter(|one| one.enabled && is_about(one, &service, ask.service.as_str()))
            .take(PER_SERVICE)
            .collect();
        known.evaluate(&self.client, &own, now).await?;
        Ok(own.iter().filter_map(|one| known.evaluated.get(&one.id).cloned()).collect())
    }
}

impl Dynatrace {
    /// Whether objectives can be read.
    ///
    /// # Errors
    /// Where the tenant does not answer, or the token may not see them.
    pub async fn has_objectives(&self) -> Result<(), Failure> {
        let query = vec![("pageSize", "1".to_owned())];
        self.client.send_aside::<ObjectivePage>(&Call::get(&["slo"], query, SCOPE)).await.map(|_| ())
    }
}

impl Known {
    /// Every objective, not evaluated.
    async fn listed(&mut self, client: &Client, now: Timestamp) -> Result<Arc<Vec<ObjectiveItem>>, Failure> {
        if let Some((list, at)) = &self.list
            && now.since(*at) < FRESH
        {
            return Ok(list.clone());
        }
        let mut query = vec![("pageSize", "500".to_owned())];
        let mut all = Vec::new();
        for _ in 0..PAGES {
            let page: ObjectivePage = client.send_aside(&call(query)).await?;
            all.extend(page.slo);
            match page.next_page_key.filter(|key| !key.is_empty()) {
                Some(key) => query = vec![("nextPageKey", key)],
                None => break,
            }
        }
        let list = Arc::new(all);
        self.evaluated.retain(|id, _| list.iter().any(|one| one.id == *id));
        self.list = Some((list.clone(), now));
        Ok(list)
    }

    /// Evaluates those that have not been lately, as far as the calls of this minute go.
    async fn evaluate(
        &mut self,
        client: &Client,
        own: &[&ObjectiveItem],
        now: Timestamp,
    ) -> Result<(), Failure> {
        let is_fresh = |one: &&ObjectiveItem| {
            self.evaluated.get(&one.id).is_some_and(|known| now.since(known.told_at) < FRESH)
        };
        let due: Vec<String> = own.iter().filter(|one| !is_fresh(one)).map(|one| one.id.clone()).collect();
        while self.calls.front().is_some_and(|at| now.since(*at) >= Duration::from_secs(60)) {
            self.calls.pop_front();
        }
        if due.is_empty() || self.calls.len() >= CALLS_PER_MINUTE {
            return Ok(());
        }
        self.calls.push_back(now);
        // Others that are due, too, fill the call.
        let others =
            self.evaluated.iter().filter(|(id, one)| now.since(one.told_at) >= FRESH && !due.contains(id));
        let mut ids: Vec<String> =
            others.map(|(id, _)| id.clone()).take(PER_CALL.saturating_sub(due.len())).collect();
        ids.splice(0..0, due);
        let quoted: Vec<String> = ids.iter().map(|id| format!("\"{}\"", escape(id))).collect();
        let query = vec![
            ("sloSelector", format!("id({})", quoted.join(","))),
            ("evaluate", "true".to_owned()),
            ("pageSize", PER_CALL.to_string()),
        ];
        let page: ObjectivePage = client.send_aside(&call(query)).await?;
        for item in page.slo {
            self.evaluated.insert(item.id.clone(), objective(item, now));
        }
        Ok(())
    }
}

/// Evidence beside the judgement goes after what is judged.
fn call(query: Vec<(&str, String)>) -> Call<'_> {
    Call::get(&["slo"], query, SCOPE).for_the(Purpose::Guard)
}

/// Whether an objective names the service, by its entity or by its name.
fn is_about(item: &ObjectiveItem, entity: &str, name: &str) -> bool {
    let by_name = [format!("entityName.equals(\"{name}\")"), format!("entityName(\"{name}\")")];
    [&item.filter, &item.metric_expression].into_iter().flatten().any(|text| {
        // An id is a prefix of no other: they are of one length.
        text.contains(entity) || by_name.iter().any(|one| text.replace(' ', "").contains(one))
    })
}

fn objective(item: ObjectiveItem, now: Timestamp) -> Objective {
    let error = item.error.filter(|error| !error.is_empty() && error != "NONE");
    let evaluated = |value: Option<f64>| value.filter(|value| value.is_finite() && error.is_none());
    Objective {
        reached: evaluated(item.evaluated_percentage).filter(|reached| *reached >= 0.0),
        error_budget: evaluated(item.error_budget)
            .filter(|_| item.evaluated_percentage.is_some_and(|p| p >= 0.0)),
        target: item.target.filter(|target| target.is_finite()).unwrap_or(0.0),
        warning: item.warning.filter(|warning| warning.is_finite()),
        timeframe: item.timeframe.as_deref().and_then(timeframe),
        id: item.id,
        name: item.name,
        error,
        told_at: now,
    }
}

/// `1664323200000 to 1664409600000`.
fn timeframe(text: &str) -> Option<Window> {
    let (from, to) = text.split_once(" to ")?;
    let at = |text: &str| text.trim().parse().ok().map(Timestamp::from_millis);
    Window::new(at(from)?, at(to)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(json: serde_json::Value) -> ObjectiveItem {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_objective_is_about_the_service_that_it_names() {
        let about = |filter: &str, expression: &str| {
            let one = item(serde_json::json!({"id": "1", "filter": filter, "metricExpression": expression}));
            is_about(&one, "SERVICE-00000000000000A1", "checkout")
        };
        assert!(about("type(\"SERVICE\"),entityId(\"SERVICE-00000000000000A1\")", ""));
        assert!(about("type(SERVICE), entityName.equals( \"checkout\" )", ""));
        assert!(about("", "builtin:x:filter(in(\"dt.entity.service\",entitySelector(\"type(SERVICE),entityName(~\"checkout~\")\")))".replace('~', "").as_str()));
        assert!(!about("type(SERVICE),entityName.equals(\"checkout-v2\")", ""));
        assert!(!about("type(SERVICE),tag(checkout)", "100*a/b"));
    }

    #[test]
    fn what_was_not_evaluated_is_no_value() {
        let now = Timestamp::from_millis(1);
        let of = |json| objective(item(json), now);
        let good = of(
            serde_json::json!({"id": "1", "name": "n", "evaluatedPercentage": 99.2, "errorBudget": -0.3,
            "status": "FAILURE", "error": "NONE", "target": 99.5, "warning": 99.8, "timeframe": "60000 to 120000"}),
        );
        assert!(good.is_missed());
        assert_eq!((good.error_budget, good.timeframe.unwrap().minutes()), (Some(-0.3), 1));
        assert_eq!(good.sentence(), "objective n: missed, 99.20 % of 99.5 %, -0 % of the error budget left");
        for json in [
            serde_json::json!({"id": "1", "evaluatedPercentage": -1.0, "errorBudget": -1.0, "error": "NONE", "target": 99.0}),
            serde_json::json!({"id": "1", "evaluatedPercentage": 0.0, "error": "no data", "target": 99.0}),
        ] {
            let one = of(json);
            assert_eq!((one.reached, one.error_budget, one.is_missed()), (None, None, false));
            assert!(one.sentence().contains("cannot be told"), "{}", one.sentence());
        }
    }
}
