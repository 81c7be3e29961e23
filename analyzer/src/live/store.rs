//! Records of deployments and verifications in their buckets, and verdicts on their subjects.

use super::levels::Counter;
use crate::config::AnalyzerSettings;
use crate::record::{Opening, Record, State};
use anyhow::Context as _;
use async_nats::jetstream::kv;
use bytes::Bytes;
use futures::TryStreamExt as _;
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;
use vouch_proto::announce::{Announced, announce, verification_id};
use vouch_proto::envelope::{self, Origin};
use vouch_proto::subject::{
    self, CATALOGUE_BUCKET, DEPLOYMENT_BUCKET, SPENDING_BUCKET, VERDICTS, VERIFICATION_BUCKET,
};
use vouch_proto::{Deployment, DeploymentRecord, Name, Timestamp, Verdict, v1};
use vouch_service::bucket::{self, Change};
use vouch_service::nats::{Nats, headers};
use vouch_service::publish::publish_once;

/// Margin for clocks of several servers when a stream is read from an instant on.
const SERVER_SKEW: Duration = Duration::from_secs(60);

/// How long after its end a request to verify the same version is about the same deployment.
const ASKED_AGAIN: Duration = Duration::from_secs(3600);

/// An announcement, and when it happened and was stored.
#[derive(Debug, Clone)]
pub(crate) struct Announcement {
    pub(crate) deployment: Deployment,
    /// When it happened, by the injected clock.
    pub(crate) at: Timestamp,
    /// When the server stored it: a real instant.
    pub(crate) published: Timestamp,
    pub(crate) now: Timestamp,
    pub(crate) traceparent: Option<String>,
}

/// The buckets of the analyzer.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(super) nats: Nats,
    pub(super) counter: Counter,
    pub(crate) spending: kv::Store,
    deployments: kv::Store,
    pub(crate) verifications: kv::Store,
    catalogue: kv::Store,
}

fn read<M: DeserializeOwned, D: TryFrom<M, Error = vouch_proto::Invalid>>(bytes: &[u8]) -> anyhow::Result<D> {
    let wire: M = serde_json::from_slice(bytes).context("a record is no valid JSON")?;
    D::try_from(wire).context("a record is not valid")
}

fn write<M: Serialize>(wire: &M) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(wire)?)
}

/// Takes in further phases. Where the template was removed the windows stay as they are, and its owner ends it.
fn update(record: &mut Record, known: &DeploymentRecord, settings: &AnalyzerSettings) {
    if let Ok(template) = settings.templates.get(Some(&record.template)) {
        record.update(known, template, settings.patience);
    }
}

impl Store {
    pub(crate) async fn open(nats: &Nats) -> anyhow::Result<Self> {
        Ok(Self {
            nats: nats.clone(),
            counter: Counter::default(),
            spending: nats.bucket(&SPENDING_BUCKET).await?,
            deployments: nats.bucket(&DEPLOYMENT_BUCKET).await?,
            verifications: nats.bucket(&VERIFICATION_BUCKET).await?,
            catalogue: nats.bucket(&CATALOGUE_BUCKET).await?,
        })
    }

    /// Joins an announcement to its deployment, or begins a new one. `None`: nothing to verify.
    pub(crate) async fn announce(
        &self,
        news: &Deployment,
        at: Timestamp,
        window: Duration,
    ) -> anyhow::Result<Option<DeploymentRecord>> {
        let entry = bucket::catalogue_entry(&self.catalogue, &news.environment, &news.service).await?;
        let entry = entry.unwrap_or_default();
        let key = subject::deployment_key(&news.environment, &news.service, &news.version);
        bucket::change(&self.deployments, &key, |known| {
            let known = known.map(read::<v1::DeploymentRecord, DeploymentRecord>).transpose()?;
            Ok(match announce(known, news, at, window) {
                Announced::Ignored => Change::Keep(None),
                Announced::Created(mut record) | Announced::Joined(mut record) => {
                    record.deployment.fill(&entry);
                    Change::Write(write(&v1::DeploymentRecord::from(record.clone()))?, Some(record))
                }
            })
        })
        .await
    }

    /// The deployment that a request to verify is about: the one of that version that is open or was until lately, so
    /// that a pipeline that asks again does not make a second deployment of it, with a second rollback; else a new one.
    pub(crate) async fn announce_request(
        &self,
        news: &Deployment,
        at: Timestamp,
        window: Duration,
    ) -> anyhow::Result<Option<DeploymentRecord>> {
        let key = subject::deployment_key(&news.environment, &news.service, &news.version);
        if let Some(bytes) = bucket::read(&self.deployments, &key).await? {
            let known = read::<v1::DeploymentRecord, DeploymentRecord>(&bytes)?;
            let lately = at > known.joins_until && at <= known.joins_until.plus(ASKED_AGAIN);
            if lately && known.deployment.phase != vouch_proto::Phase::Aborted {
                return Ok(Some(known));
            }
        }
        self.announce(news, at, window).await
    }

    /// Takes an announcement in: its deployment, its verification, and what it supersedes. Again is harmless.
    pub(crate) async fn take_in(
        &self,
        news: &Announcement,
        settings: &AnalyzerSettings,
    ) -> anyhow::Result<Option<Record>> {
        let deployment = &news.deployment;
        if deployment.cancelled_by.is_some() {
            return self.cancel(deployment).await;
        }
        let template = settings.templates.of(deployment)?;
        let (_, window) = deployment.verification.length(template);
        let Some(known) = self.announce(deployment, news.at, window).await? else { return Ok(None) };
        let first = known.deployment.verification_id.clone().unwrap_or_default();
        let id = deployment.verification_id.clone().unwrap_or_else(|| first.clone());
        let record = self.open_or_update(&id, &known, news, settings).await?;
        if deployment.verification_id.is_none() {
            // A phase of the deployment is news for all of its verifications.
            for n in 2..=known.verifications {
                let id = verification_id(known.deployment.deployment_id.as_deref().unwrap_or_default(), n);
                self.change_open(&id, |record| update(record, &known, settings)).await?;
            }
        }
        self.supersede(&known).await?;
        Ok(Some(record))
    }

    async fn open_or_update(
        &self,
        id: &str,
        known: &DeploymentRecord,
        news: &Announcement,
        settings: &AnalyzerSettings,
    ) -> anyhow::Result<Record> {
        let is_first = known.deployment.verification_id.as_deref() == Some(id);
        let levels = self.levels(&settings.budget, news.now).await?;
        let key = subject::id_key(id);
        let is_new = bucket::read(&self.verifications, &key).await?.is_none();
        let (environment, service) = (&known.deployment.environment, &known.deployment.service);
        let left_out = if is_new {
            self.spoilt(environment, service, (news.now, news.published)).await?
        } else {
            Vec::new()
        };
        bucket::change(&self.verifications, &key, |before| {
            let before = before.map(read::<v1::Verification, Record>).transpose()?;
            let (record, changed) = match before {
                Some(mut record) => {
                    let before = record.clone();
                    update(&mut record, known, settings);
                    let changed = record != before;
                    (record, changed)
                }
                None => {
                    let template = settings.templates.of(&news.deployment)?;
                    let mut deployment = known.deployment.clone();
                    deployment.verification = news.deployment.verification.clone();
                    deployment.verification_id = Some(id.to_owned());
                    let opening = Opening {
                        verification_id: id,
                        template,
                        now: news.now,
                        series_from: news.published.minus(SERVER_SKEW),
                        traceparent: news.traceparent.clone(),
                        levels: levels.clone(),
                        left_out: left_out.clone(),
                    };
                    // A later verification of the deployment judges from its own start on.
                    let traffic_at = if is_first { known.traffic_at } else { Some(news.at) };
                    (Record::open(&deployment, traffic_at, opening, settings.patience), true)
                }
            };
            Ok(if changed {
                Change::Write(write(&v1::Verification::from(record.clone()))?, record)
            } else {
                Change::Keep(record)
            })
        })
        .await
    }

    async fn cancel(&self, news: &Deployment) -> anyhow::Result<Option<Record>> {
        let Some(id) = &news.verification_id else { return Ok(None) };
        self.change_open(id, |record| {
            record.deployment.cancelled_by =
                record.deployment.cancelled_by.take().or(news.cancelled_by.clone());
            record.deployment.reason = record.deployment.reason.take().or(news.reason.clone());
        })
        .await
    }

    /// Notes which deployment of the service is the newest; the verifications of the others are superseded.
    async fn supersede(&self, known: &DeploymentRecord) -> anyhow::Result<()> {
        let deployment = &known.deployment;
        let key = subject::newest_deployment_key(&deployment.environment, &deployment.service);
        let (older, newest) = bucket::change(&self.deployments, &key, |before| {
            let before = before.map(read::<v1::DeploymentRecord, DeploymentRecord>).transpose()?;
            let me = known.clone();
            Ok(match before {
                None => Change::Write(write(&v1::DeploymentRecord::from(me.clone()))?, (None, me)),
                Some(b) if b.deployment.deployment_id == deployment.deployment_id => Change::Keep((None, me)),
                Some(b) if b.started_at <= known.started_at => {
                    Change::Write(write(&v1::DeploymentRecord::from(me.clone()))?, (Some(b), me))
                }
                Some(b) => Change::Keep((Some(me), b)),
            })
        })
        .await?;
        let (Some(older), Some(newest)) = (older, newest.deployment.deployment_id) else { return Ok(()) };
        let older_id = older.deployment.deployment_id.unwrap_or_default();
        let count = self
            .verifications_of(
                &older.deployment.environment,
                &older.deployment.service,
                &older.deployment.version,
            )
            .await?;
        for n in 1..=count.max(older.verifications) {
            let superseded = |record: &mut Record| record.superseded_by = Some(newest.clone());
            self.change_open(&verification_id(&older_id, n), superseded).await?;
        }
        Ok(())
    }

    async fn verifications_of(
        &self,
        environment: &Name,
        service: &Name,
        version: &Name,
    ) -> anyhow::Result<u32> {
        let key = subject::deployment_key(environment, service, version);
        let Some(bytes) = bucket::read(&self.deployments, &key).await? else { return Ok(0) };
        Ok(read::<v1::DeploymentRecord, DeploymentRecord>(&bytes)?.verifications)
    }

    /// The id of the verification that a request gets: the open one of its deployment, or one more.
    pub(crate) async fn next_verification(&self, known: &DeploymentRecord) -> anyhow::Result<(String, bool)> {
        let deployment = &known.deployment;
        let deployment_id = deployment.deployment_id.clone().unwrap_or_default();
        let newest = verification_id(&deployment_id, known.verifications);
        match self.get(&newest).await? {
            None => Ok((newest, false)),
            Some(record) if record.state != State::Final => Ok((newest, true)),
            Some(_) => {
                let key = subject::deployment_key(
                    &deployment.environment,
                    &deployment.service,
                    &deployment.version,
                );
                let n = bucket::change(&self.deployments, &key, |record| {
                    let mut record =
                        read::<v1::DeploymentRecord, DeploymentRecord>(record.unwrap_or_default())?;
                    record.verifications = record.verifications.max(known.verifications + 1);
                    Ok(Change::Write(
                        write(&v1::DeploymentRecord::from(record.clone()))?,
                        record.verifications,
                    ))
                })
                .await?;
                Ok((verification_id(&deployment_id, n), false))
            }
        }
    }

    /// Changes the record of a verification that is still open. `None` where there is none of that id.
    async fn change_open(&self, id: &str, change: impl Fn(&mut Record)) -> anyhow::Result<Option<Record>> {
        self.change_record(id, |record| {
            if record.state != State::Final {
                change(record);
            }
        })
        .await
    }

    /// Changes the record of a verification. `None` where there is none of that id.
    async fn change_record(&self, id: &str, change: impl Fn(&mut Record)) -> anyhow::Result<Option<Record>> {
        bucket::change(&self.verifications, &subject::id_key(id), |before| {
            let Some(bytes) = before else { return Ok(Change::Keep(None)) };
            let before = read::<v1::Verification, Record>(bytes)?;
            let mut record = before.clone();
            change(&mut record);
            Ok(if record == before {
                Change::Keep(Some(record))
            } else {
                Change::Write(write(&v1::Verification::from(record.clone()))?, Some(record))
            })
        })
        .await
    }

    /// The record of a verification.
    pub(crate) async fn get(&self, id: &str) -> anyhow::Result<Option<Record>> {
        let bytes = bucket::read(&self.verifications, &subject::id_key(id)).await?;
        bytes.map(|b| read::<v1::Verification, Record>(&b)).transpose()
    }

    /// Ids of all verifications, newest first.
    pub(crate) async fn keys(&self) -> anyhow::Result<Vec<String>> {
        let mut keys: Vec<String> = self.verifications.keys().await?.try_collect().await?;
        keys.sort_unstable_by(|a, b| b.cmp(a));
        Ok(keys)
    }

    /// The record under a key of `keys`.
    pub(crate) async fn by_key(&self, key: &str) -> anyhow::Result<Option<Record>> {
        bucket::read(&self.verifications, key)
            .await?
            .map(|b| read::<v1::Verification, Record>(&b))
            .transpose()
    }

    /// Publishes the final verdict where there is none yet, and writes the one that counts into the record.
    pub(crate) async fn conclude(&self, record: &Record, verdict: Verdict) -> anyhow::Result<Verdict> {
        self.publish_verdict(record, verdict, 0).await?;
        // Whoever was first has decided: what stands on the subject is the verdict.
        let (decided, _) = self.published(record).await?;
        let verdict = decided.clone();
        let final_record = move |record: &mut Record| {
            record.state = State::Final;
            record.verdict = Some(verdict.clone());
        };
        self.change_open(&decided.verification_id, final_record).await?;
        self.close(&decided).await?;
        Ok(decided)
    }

    /// Publishes a revision of the verdict after the one that stands, and writes the newest into the record.
    pub(crate) async fn revise(&self, record: &Record, revised: Verdict) -> anyhow::Result<Verdict> {
        let (standing, sequence) = self.published(record).await?;
        if standing.revision < revised.revision {
            self.publish_verdict(record, revised, sequence).await?;
        }
        let (newest, _) = self.published(record).await?;
        let verdict = newest.clone();
        self.change_record(&newest.verification_id, move |record| record.verdict = Some(verdict.clone()))
            .await?;
        Ok(newest)
    }

    /// Notes that no revision will follow.
    pub(crate) async fn settle(&self, id: &str) -> anyhow::Result<()> {
        self.change_record(id, |record| record.settled = true).await.map(|_| ())
    }

    async fn publish_verdict(&self, record: &Record, verdict: Verdict, expected: u64) -> anyhow::Result<()> {
        let topic = subject::verdict(&verdict.environment, &verdict.service, &verdict.verification_id);
        let id = format!("{}.{}", verdict.verification_id, verdict.revision);
        let origin = Origin {
            source: "vouch/analyzer",
            id: &id,
            time: verdict.decided_at,
            traceparent: record.traceparent.as_deref(),
        };
        let (sealed, body) = envelope::seal(&v1::Verdict::from(verdict), &origin)?;
        publish_once(&self.nats, topic, headers(sealed), Bytes::from(body), expected).await.map(|_| ())
    }

    /// The newest verdict that stands on the subject of a verification, and its sequence.
    async fn published(&self, record: &Record) -> anyhow::Result<(Verdict, u64)> {
        let deployment = &record.deployment;
        let topic = subject::verdict(&deployment.environment, &deployment.service, &record.verification_id);
        let stream = self.nats.jetstream.get_stream_no_info(VERDICTS.name).await?;
        let message = stream.get_last_raw_message_by_subject(&topic).await?;
        let content_type = message.headers.get("content-type").map(async_nats::HeaderValue::as_str);
        let wire: v1::Verdict = envelope::open(content_type, &message.payload).map_err(anyhow::Error::msg)?;
        Ok((Verdict::try_from(wire).context("the published verdict is not valid")?, message.sequence))
    }

    /// A deployment whose verification has ended is over: the same version announced again later is a new one.
    async fn close(&self, verdict: &Verdict) -> anyhow::Result<()> {
        let key = subject::deployment_key(&verdict.environment, &verdict.service, &verdict.version);
        bucket::change(&self.deployments, &key, |record| {
            let Some(bytes) = record else { return Ok(Change::Keep(())) };
            let mut record = read::<v1::DeploymentRecord, DeploymentRecord>(bytes)?;
            let is_it = record.deployment.deployment_id.as_deref() == Some(&verdict.deployment_id);
            if !is_it || record.joins_until <= verdict.decided_at {
                return Ok(Change::Keep(()));
            }
            record.joins_until = verdict.decided_at;
            Ok(Change::Write(write(&v1::DeploymentRecord::from(record))?, ()))
        })
        .await
    }

    /// Whether the catalogue knows the service; `None` before it is complete, when nothing can be said.
    pub(crate) async fn is_known(&self, environment: &Name, service: &Name) -> anyhow::Result<Option<bool>> {
        // Read before the entry, which is written before it: else one that is listed in between counts as missing.
        let complete = bucket::read(&self.catalogue, subject::CATALOGUE_COMPLETE).await?.is_some();
        let entry = bucket::catalogue_entry(&self.catalogue, environment, service).await?;
        Ok(if entry.is_some() { Some(true) } else { complete.then_some(false) })
    }

    /// How many entities of the source are instances of a service; 0 where it is one, or not known.
    pub(crate) async fn instances(&self, environment: &Name, service: &Name) -> anyhow::Result<u32> {
        let entry = bucket::catalogue_entry(&self.catalogue, environment, service).await?;
        Ok(entry.map_or(0, |entry| entry.instances))
    }

    /// Services of the catalogue whose names are like the one given, for the message.
    pub(crate) async fn similar(&self, service: &Name) -> anyhow::Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        let mut keys = self.catalogue.keys().await?;
        while let Some(key) = keys.try_next().await? {
            let subject = format!("...{key}");
            names.extend(subject::environment_and_service(&subject).map(|(_, s)| s.to_string()));
        }
        let wanted = service.as_str().to_lowercase();
        names.sort_by_key(|name| {
            let common = name.to_lowercase().chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
            (std::cmp::Reverse(common), name.clone())
        });
        names.dedup();
        names.truncate(5);
        Ok(names)
    }
}
