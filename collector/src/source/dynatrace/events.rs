//! Events of the tenant that may be deployments: those that pipelines send, and processes that began again.

use super::Dynatrace;
use super::answer::{EventItem, EventPage, IngestAnswer};
use super::client::Call;
use super::listing::list;
use super::selector::{EntityKind, escape};
use crate::source::{EventKind, Failure, FailureKind, Purpose, SourceEvent};
use reqwest::Method;
use std::collections::{BTreeMap, BTreeSet};
use vouch_proto::{Deployment, Timestamp, Window};

const SCOPE: &str = "events.read";
/// What writing one needs.
pub(crate) const WRITE_SCOPE: &str = "events.ingest";
/// Longest value of a property, in characters.
const LONGEST_VALUE: usize = 4096;
/// Most pages of one window: ten thousand events.
const PAGES: usize = 10;
/// What versions are called, the newest name first.
const VERSIONS: [&str; 4] =
    ["dt.event.deployment.version", "dt.event.deployment.release_version", "deploymentVersion", "version"];
const STAGES: [&str; 2] = ["dt.event.deployment.release_stage", "environment"];
/// What marks an event that Vouch has written.
pub(super) const OWN: &str = "vouch.deployment.id";

impl EventKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Deployment => "CUSTOM_DEPLOYMENT",
            Self::Restart => "PROCESS_RESTART",
        }
    }
}

impl Dynatrace {
    /// Events of these kinds that touch a window, oldest first, with the services that they are about.
    pub(super) async fn events_within(
        &self,
        window: Window,
        kinds: &[EventKind],
    ) -> Result<Vec<SourceEvent>, Failure> {
        let mut found: Vec<(EventKind, EventItem)> = Vec::new();
        for kind in kinds {
            found.extend(self.events_of(window, *kind).await?.into_iter().map(|item| (*kind, item)));
        }
        let owners = self.owners(&found, window).await?;
        let mut events: Vec<SourceEvent> =
            found.into_iter().map(|(kind, item)| event(kind, item, &owners)).collect();
        events.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.id.cmp(&b.id)));
        Ok(events)
    }

    /// Whether events can be read.
    ///
    /// # Errors
    /// Where the tenant does not answer, or the token may not see them.
    pub async fn has_events(&self) -> Result<(), Failure> {
        let query = vec![("pageSize", "1".to_owned())];
        self.client.send_aside::<EventPage>(&Call::get(&["events"], query, SCOPE)).await.map(|_| ())
    }

    /// Writes the beginning of a deployment as an event of its service.
    pub(super) async fn write_deployment(
        &self,
        deployment: &Deployment,
        started_at: Timestamp,
    ) -> Result<(), Failure> {
        let Deployment { environment, service, version, .. } = deployment;
        let id = self.entities.service(&self.client, environment, service).await?;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let properties = [
            ("dt.event.deployment.name", format!("{service} {version}")),
            ("dt.event.deployment.version", version.to_string()),
            ("dt.event.deployment.release_product", service.to_string()),
            ("dt.event.deployment.release_stage", environment.to_string()),
            ("dt.event.source", "Vouch".to_owned()),
            ("vouch.previous_version", text(&deployment.previous_version)),
            ("vouch.owner", text(&deployment.owner)),
            (OWN, text(&deployment.deployment_id)),
        ];
        let properties: serde_json::Map<String, serde_json::Value> = properties
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| {
                (key.to_owned(), value.chars().take(LONGEST_VALUE).collect::<String>().into())
            })
            .collect();
        let body = serde_json::json!({
            "eventType": EventKind::Deployment.word(),
            "title": format!("Deployment of {service} {version}"),
            "startTime": started_at.as_millis(),
            "entitySelector": format!("entityId(\"{}\")", escape(&id)),
            "properties": properties,
        });
        let call = Call {
            method: Method::POST,
            body: Some(body),
            ..Call::get(&["events", "ingest"], Vec::new(), WRITE_SCOPE).once()
        };
        let answer: IngestAnswer = self.client.send_aside(&call).await?;
        match answer.event_ingest_results.into_iter().find(|result| result.status != "OK") {
            None => Ok(()),
            Some(result) => {
                let message = format!("the event was not taken: {}", result.status);
                Err(Failure::new(FailureKind::BadAnswer, message))
            }
        }
    }

    async fn events_of(&self, window: Window, kind: EventKind) -> Result<Vec<EventItem>, Failure> {
        let mut query = vec![
            ("eventSelector", format!("eventType(\"{}\")", kind.word())),
            ("from", window.start().as_millis().to_string()),
            ("to", window.end().as_millis().to_string()),
            ("pageSize", "1000".to_owned()),
        ];
        let mut events = Vec::new();
        for _ in 0..PAGES {
            let call = Call::get(&["events"], query, SCOPE).for_the(Purpose::Guard);
            let page: EventPage = self.client.send_aside(&call).await?;
            // An answer may hold more than was asked for.
            events.extend(page.events.into_iter().filter(|event| event.event_type == kind.word()));
            match page.next_page_key.filter(|key| !key.is_empty()) {
                Some(key) => query = vec![("nextPageKey", key)],
                None => return Ok(events),
            }
        }
        let message = format!("events has more than {PAGES} pages of {} from {window}", kind.word());
        Err(Failure::new(FailureKind::BadAnswer, message))
    }

    /// The services of each entity that an event is about.
    async fn owners(
        &self,
        events: &[(EventKind, EventItem)],
        window: Window,
    ) -> Result<BTreeMap<String, Vec<String>>, Failure> {
        let ids =
            || events.iter().filter_map(|(_, item)| Some(item.entity_id.as_ref()?.entity_id.id.as_str()));
        let of =
            |prefix: &'static str| ids().filter(move |id| id.starts_with(prefix)).collect::<BTreeSet<_>>();
        let mut owners: BTreeMap<String, Vec<String>> =
            of("SERVICE-").into_iter().map(|id| (id.to_owned(), vec![id.to_owned()])).collect();
        let processes = of("PROCESS_GROUP_INSTANCE-");
        for (process, services) in self
            .entities
            .services_of(&self.client, EntityKind::ProcessGroupInstance, (&processes, window))
            .await?
        {
            owners.insert(process, services.to_vec());
        }
        for group in of("PROCESS_GROUP-") {
            let selector = format!(
                "type(SERVICE),fromRelationships.runsOn(type(PROCESS_GROUP),entityId(\"{}\"))",
                escape(group)
            );
            let services = list(&self.client, &selector).await?;
            owners.insert(group.to_owned(), services.into_iter().map(|service| service.entity_id).collect());
        }
        Ok(owners)
    }
}

fn event(kind: EventKind, item: EventItem, owners: &BTreeMap<String, Vec<String>>) -> SourceEvent {
    let property = |keys: &[&str]| {
        let of = |key: &&str| item.properties.iter().find(|p| p.key == **key)?.value.clone();
        keys.iter().filter_map(of).find(|value| !value.trim().is_empty())
    };
    let (version, stage) = (property(&VERSIONS), property(&STAGES));
    let is_own = property(&[OWN]).is_some();
    let entity = item.entity_id.map(|entity| entity.entity_id.id).unwrap_or_default();
    SourceEvent {
        id: item.event_id,
        at: Timestamp::from_millis(item.start_time),
        services: owners.get(&entity).cloned().unwrap_or_default(),
        kind,
        version,
        stage,
        is_own,
    }
}
