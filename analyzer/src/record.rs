//! The record of a verification: what is asked, against which windows, until when, and how it ended. Pure.

use std::time::Duration;
use vouch_proto::deployment::{extension, wire_duration};
use vouch_proto::{
    Deployment, DeploymentRecord, HostGroup, Invalid, LeftOut, Levels, Phase, Strategy, Timestamp, Verdict,
    VerificationTemplate, Window, time, v1,
};

/// Where a verification stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Announced; no traffic on the new version yet.
    Waiting,
    /// Being judged.
    Running,
    /// Ended with a verdict.
    Final,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From the end of the window to the deadline: settling, late data, retries.
    pub deadline_grace: Duration,
    /// From the announcement to the first traffic.
    pub wait_for_traffic: Duration,
}

/// One verification as the bucket keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// `<deployment_id>.<n>`.
    pub verification_id: String,
    /// Where it stands.
    pub state: State,
    /// The deployment as all its phases describe it.
    pub deployment: Deployment,
    /// Name of the template.
    pub template: String,
    /// The strategy chosen.
    pub strategy: Strategy,
    /// Why that one.
    pub strategy_reason: String,
    /// Length of the verification window, without an extension.
    pub duration: Duration,
    /// Passes as soon as a regression of practical size has been excluded.
    pub early_pass: bool,
    /// The part of `verification` that is an extension.
    pub extend_by: Duration,
    /// Reference windows.
    pub baseline: Vec<Window>,
    /// When the version got the traffic that is judged.
    pub traffic_at: Option<Timestamp>,
    /// What is judged: whole minutes after `traffic_at`; `None` until then.
    pub verification: Option<Window>,
    /// A verdict is published by then.
    pub deadline: Timestamp,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Real instant from which the series stream holds what was collected for it.
    pub series_from: Timestamp,
    /// A newer deployment of the service.
    pub superseded_by: Option<String>,
    /// Cancelled, or its deployment given up.
    pub aborted: bool,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// W3C trace context of the announcement.
    pub traceparent: Option<String>,
    /// No revision of the verdict will follow.
    pub settled: bool,
    /// How much evidence it asks for, fixed when it is opened; `None` is by default.
    pub levels: Option<Levels>,
    /// Times that the reference windows leave out.
    pub left_out: Vec<LeftOut>,
}

/// What opens a verification, besides the deployment itself.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    /// Its id.
    pub verification_id: &'a str,
    /// The template that it names.
    pub template: &'a VerificationTemplate,
    /// Now.
    pub now: Timestamp,
    /// Real instant at which the announcement was stored.
    pub series_from: Timestamp,
    /// Trace context of the announcement.
    pub traceparent: Option<String>,
    /// How much evidence it is to ask for; `None` is by default.
    pub levels: Option<Levels>,
    /// Times before it that say nothing about the service as it should be.
    pub left_out: Vec<LeftOut>,
}

impl Record {
    /// Opens a verification of a deployment; `traffic_at` is when the version got the traffic that is judged.
    #[must_use]
    pub fn open(
        deployment: &Deployment,
        traffic_at: Option<Timestamp>,
        opening: Opening<'_>,
        patience: Patience,
    ) -> Self {
        let request = &deployment.verification;
        let (duration, longest) = request.length(opening.template);
        let mut record = Self {
            verification_id: opening.verification_id.to_owned(),
            state: State::Waiting,
            deployment: deployment.clone(),
            template: opening.template.name.clone(),
            strategy: Strategy::Auto,
            strategy_reason: String::new(),
            duration,
            early_pass: request.early_pass.unwrap_or(opening.template.early_pass),
            extend_by: longest - duration,
            baseline: Vec::new(),
            traffic_at,
            verification: None,
            deadline: opening.now.plus(patience.wait_for_traffic),
            opened_at: opening.now,
            series_from: opening.series_from,
            superseded_by: None,
            aborted: deployment.phase == Phase::Aborted,
            verdict: None,
            traceparent: opening.traceparent,
            settled: false,
            levels: opening.levels,
            left_out: opening.left_out,
        };
        record.plan(opening.template, patience);
        record
    }

    /// Takes in what further phases of the deployment said. Answers whether anything changed.
    pub fn update(
        &mut self,
        known: &DeploymentRecord,
        template: &VerificationTemplate,
        patience: Patience,
    ) -> bool {
        if self.state == State::Final {
            return false;
        }
        let before = self.clone();
        self.traffic_at = self.traffic_at.or(known.traffic_at);
        let mine = std::mem::take(&mut self.deployment.verification);
        self.deployment = Deployment {
            verification: mine,
            // A cancellation is of this verification and stays.
            cancelled_by: before.deployment.cancelled_by.clone(),
            reason: before.deployment.reason.clone().or_else(|| known.deployment.reason.clone()),
            ..known.deployment.clone()
        };
        self.deployment.verification_id = Some(self.verification_id.clone());
        if self.deployment.verification.diluted && before.state == State::Running {
            // A later, larger share would make what was seen so far weigh less.
            self.deployment.traffic_percent = before.deployment.traffic_percent;
        }
        self.aborted |= known.deployment.phase == Phase::Aborted;
        self.plan(template, patience);
        *self != before
    }

    /// Chooses strategy and windows from what is known so far.
    fn plan(&mut self, template: &VerificationTemplate, patience: Patience) {
        let asked = self.asked(template);
        (self.strategy, self.strategy_reason) = choose(asked, &self.deployment);
        let Some(traffic_at) = self.traffic_at else { return };
        let start = traffic_at.ceil_minute();
        self.state = State::Running;
        let longest = self.longest();
        self.verification = Window::new(start, start.plus(longest)).ok();
        self.deadline = start.plus(longest).max(self.opened_at).plus(patience.deadline_grace);
        let windows = match self.strategy {
            // The hosts that are measured decide between canary and blue-green, which reads more: see `strategy`.
            Strategy::Canary if asked == Strategy::Auto && self.deployment.traffic_percent == 100 => {
                Strategy::BlueGreen
            }
            Strategy::Previous
            | Strategy::Canary
            | Strategy::Rolling
            | Strategy::BlueGreen
            | Strategy::LoadTest
            | Strategy::Auto => self.strategy,
        };
        self.baseline = match (&self.deployment.verification.baseline, windows) {
            // A pinned run is one that was named.
            (named, Strategy::LoadTest) => named.clone(),
            (named, _) if named.is_empty() => template.baseline(windows, traffic_at.floor_minute(), longest),
            (named, _) => named.clone(),
        };
    }

    /// Length of the window with its extension.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.duration.saturating_add(self.extend_by)
    }

    /// The strategy that was asked for; `Auto` leaves it to what is known before the verification.
    #[must_use]
    pub fn asked(&self, template: &VerificationTemplate) -> Strategy {
        self.deployment.verification.strategy.unwrap_or(template.strategy)
    }

    /// Whether there is something left to do: a verdict, or the confirmation of one.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.settled
    }

    /// Why there will be no judging any more, where that is so.
    #[must_use]
    pub fn ended_by(&self) -> Option<(vouch_proto::Cause, String)> {
        use vouch_proto::Cause;
        let because = |reason: &Option<String>| reason.as_deref().map_or(String::new(), |r| format!(": {r}"));
        if let Some(by) = &self.deployment.cancelled_by {
            return Some((
                Cause::Cancelled,
                format!("cancelled by {by}{}", because(&self.deployment.reason)),
            ));
        }
        if self.aborted {
            let reason = format!("the deployment was given up{}", because(&self.deployment.reason));
            return Some((Cause::Aborted, reason));
        }
        let newer = self.superseded_by.as_ref()?;
        Some((Cause::Superseded, format!("a newer deployment of the service has started ({newer})")))
    }
}

/// The strategy to use, and why.
fn choose(asked: Strategy, deployment: &Deployment) -> (Strategy, String) {
    if asked != Strategy::Auto {
        return (asked, "asked for".to_owned());
    }
    let count = |group: HostGroup| deployment.hosts.iter().filter(|h| h.group == group).count();
    let (control, test) = (count(HostGroup::Control), count(HostGroup::Test));
    let switched = deployment.hosts.iter().filter(|h| h.switched_at.is_some()).count();
    if control > 0 && test > 0 {
        return (Strategy::Canary, format!("{test} test and {control} control hosts were named"));
    }
    if switched > 1 {
        return (Strategy::Rolling, format!("{switched} hosts switch at times of their own"));
    }
    (Strategy::Previous, "no control hosts were named: compared with the time before".to_owned())
}

impl From<Record> for v1::Verification {
    fn from(r: Record) -> Self {
        let state = match r.state {
            State::Waiting => v1::VerificationState::Waiting,
            State::Running => v1::VerificationState::Running,
            State::Final => v1::VerificationState::Final,
        };
        Self {
            verification_id: r.verification_id,
            state: state as i32,
            deployment: Some(r.deployment.into()),
            template: r.template,
            strategy: r.strategy.to_wire(),
            strategy_reason: r.strategy_reason,
            baseline: r.baseline.into_iter().map(Into::into).collect(),
            verification: r.verification.map(Into::into),
            deadline: Some(r.deadline.into()),
            opened_at: Some(r.opened_at.into()),
            series_from: Some(r.series_from.into()),
            superseded_by: r.superseded_by.unwrap_or_default(),
            aborted: r.aborted,
            verdict: r.verdict.map(Into::into),
            duration: Some(wire_duration(r.duration)),
            traceparent: r.traceparent.unwrap_or_default(),
            settled: r.settled,
            traffic_at: r.traffic_at.map(Into::into),
            early_pass: r.early_pass,
            extend_by: (!r.extend_by.is_zero()).then(|| wire_duration(r.extend_by)),
            levels: r.levels.map(Into::into),
            left_out: r.left_out.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Verification> for Record {
    type Error = Invalid;

    fn try_from(r: v1::Verification) -> Result<Self, Invalid> {
        let some = |s: String| (!s.is_empty()).then_some(s);
        let missing = |field: &str| Invalid::field(field, "is missing");
        let state = match v1::VerificationState::try_from(r.state) {
            Ok(v1::VerificationState::Waiting) => State::Waiting,
            Ok(v1::VerificationState::Running) => State::Running,
            Ok(v1::VerificationState::Final) => State::Final,
            Ok(v1::VerificationState::Unspecified) | Err(_) => {
                return Err(Invalid::field("state", format!("unknown value `{}`", r.state)));
            }
        };
        Ok(Self {
            verification_id: some(r.verification_id).ok_or_else(|| missing("verification_id"))?,
            state,
            deployment: r.deployment.ok_or_else(|| missing("deployment"))?.try_into()?,
            template: r.template,
            strategy: Strategy::from_wire(r.strategy)?,
            strategy_reason: r.strategy_reason,
            early_pass: r.early_pass,
            extend_by: r.extend_by.map_or(Ok(Duration::ZERO), |d| extension(&d))?,
            duration: vouch_proto::deployment::duration(&r.duration.ok_or_else(|| missing("duration"))?)?,
            baseline: r.baseline.into_iter().map(Window::try_from).collect::<Result<_, _>>()?,
            verification: r.verification.map(Window::try_from).transpose()?,
            deadline: time::required(r.deadline)?,
            opened_at: time::required(r.opened_at)?,
            series_from: time::required(r.series_from)?,
            superseded_by: some(r.superseded_by),
            aborted: r.aborted,
            verdict: r.verdict.map(Verdict::try_from).transpose()?,
            traceparent: some(r.traceparent),
            settled: r.settled,
            traffic_at: time::optional(r.traffic_at)?,
            levels: r.levels.map(Levels::try_from).transpose()?,
            left_out: r.left_out.into_iter().map(LeftOut::try_from).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vouch_proto::announce::{Announced, announce};
    use vouch_proto::template::golden_signals;
    use vouch_proto::{Cause, DeploymentHost, Name};

    pub(crate) const PATIENCE: Patience =
        Patience { deadline_grace: Duration::from_secs(600), wait_for_traffic: Duration::from_secs(7200) };

    pub(crate) fn at(minute: i64) -> Timestamp {
        "2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap().plus_minutes(minute)
    }

    pub(crate) fn news(phase: Phase) -> Deployment {
        let name = |s| Name::new(s).unwrap();
        let mut deployment = Deployment::new(name("prod"), name("checkout"), name("2.1"));
        deployment.verification.duration = Some(Duration::from_secs(15 * 60));
        Deployment { phase, ..deployment }
    }

    fn known(before: Option<DeploymentRecord>, news: &Deployment, minute: i64) -> DeploymentRecord {
        match announce(before, news, at(minute), Duration::from_secs(900)) {
            Announced::Created(record) | Announced::Joined(record) => record,
            Announced::Ignored => panic!("ignored"),
        }
    }

    pub(crate) fn opened(deployment: &DeploymentRecord) -> Record {
        let template = golden_signals();
        let opening = Opening {
            verification_id: deployment.deployment.verification_id.as_deref().unwrap(),
            template: &template,
            now: at(0),
            series_from: at(0),
            traceparent: None,
            levels: None,
            left_out: Vec::new(),
        };
        Record::open(&deployment.deployment, deployment.traffic_at, opening, PATIENCE)
    }

    pub(crate) fn running() -> Record {
        opened(&known(None, &news(Phase::Traffic), 0))
    }

    #[test]
    fn judging_waits_for_the_first_traffic() {
        let started = known(None, &news(Phase::Started), 0);
        let mut record = opened(&started);
        assert_eq!((record.state, record.verification), (State::Waiting, None));
        assert_eq!(record.deadline, at(120));
        let traffic = known(Some(started), &news(Phase::Traffic), 7);
        assert!(record.update(&traffic, &golden_signals(), PATIENCE));
        assert_eq!(record.state, State::Running);
        assert_eq!(record.verification, Window::around(at(7), 0, 15).ok());
        assert_eq!(record.deadline, at(7 + 15 + 10));
        assert!(!record.update(&traffic, &golden_signals(), PATIENCE), "told twice changes nothing");
    }

    #[test]
    fn auto_chooses_from_the_hosts_and_says_why() {
        let host = |name: &str, group, minute: Option<i64>| DeploymentHost {
            name: name.into(),
            group,
            switched_at: minute.map(at),
            restarted_at: vec![],
        };
        let with = |hosts| choose(Strategy::Auto, &Deployment { hosts, ..news(Phase::Traffic) });
        assert_eq!(with(vec![]).0, Strategy::Previous);
        let canary = with(vec![host("c", HostGroup::Control, None), host("t", HostGroup::Test, None)]);
        assert_eq!(canary, (Strategy::Canary, "1 test and 1 control hosts were named".to_owned()));
        let rolling = with(vec![host("a", HostGroup::Test, Some(0)), host("b", HostGroup::Test, Some(3))]);
        assert_eq!(rolling.0, Strategy::Rolling);
        assert_eq!(choose(Strategy::Canary, &news(Phase::Traffic)).0, Strategy::Canary);
    }

    #[test]
    fn a_load_test_reads_the_pinned_run_alone() {
        let mut deployment = news(Phase::Traffic);
        deployment.verification.strategy = Some(Strategy::LoadTest);
        assert_eq!(opened(&known(None, &deployment, 0)).baseline, [], "none was named");
        let run = Window::around(at(-300), 0, 20).unwrap();
        deployment.verification.baseline = vec![run];
        assert_eq!(opened(&known(None, &deployment, 0)).baseline, [run]);
    }

    #[test]
    fn auto_reads_enough_for_blue_green_where_all_traffic_is_on_the_new_hosts() {
        let host = |name: &str, group| DeploymentHost {
            name: name.into(),
            group,
            switched_at: None,
            restarted_at: vec![],
        };
        let hosts = vec![host("blue", HostGroup::Control), host("green", HostGroup::Test)];
        let mut deployment = Deployment { hosts, ..news(Phase::Traffic) };
        assert_eq!(opened(&known(None, &deployment, 0)).baseline.len(), 3);
        deployment.traffic_percent = 10;
        assert_eq!(opened(&known(None, &deployment, 0)).baseline.len(), 1, "a canary");
    }

    #[test]
    fn the_share_of_a_diluted_canary_stays_what_it_was_when_judging_began() {
        let mut deployment = Deployment { traffic_percent: 10, ..news(Phase::Traffic) };
        deployment.verification.strategy = Some(Strategy::Canary);
        deployment.verification.diluted = true;
        let first = known(None, &deployment, 0);
        let mut record = opened(&first);
        let more = known(Some(first), &Deployment { traffic_percent: 50, ..news(Phase::Traffic) }, 4);
        record.update(&more, &golden_signals(), PATIENCE);
        assert_eq!(record.deployment.traffic_percent, 10);
    }

    #[test]
    fn a_partial_minute_is_in_neither_window() {
        let template = golden_signals();
        let opening = Opening {
            verification_id: "x.1",
            template: &template,
            now: at(0),
            series_from: at(0),
            traceparent: None,
            levels: None,
            left_out: Vec::new(),
        };
        let traffic_at = at(0).plus(Duration::from_secs(20));
        let mut record = Record::open(&news(Phase::Traffic), Some(traffic_at), opening, PATIENCE);
        assert_eq!(record.baseline.last().unwrap().end(), at(0));
        assert_eq!(record.verification.unwrap().start(), at(1));
        let before = record.clone();
        let known = known(None, &Deployment { occurred_at: Some(traffic_at), ..news(Phase::Traffic) }, 0);
        record.update(&known, &template, PATIENCE);
        assert_eq!(
            (record.baseline, record.verification),
            (before.baseline, before.verification),
            "news moves nothing"
        );
    }

    #[test]
    fn the_end_from_outside_has_its_cause() {
        let mut record = running();
        assert_eq!(record.ended_by(), None);
        record.superseded_by = Some("x".into());
        assert_eq!(record.ended_by().unwrap().0, Cause::Superseded);
        record.aborted = true;
        assert_eq!(record.ended_by().unwrap().0, Cause::Aborted);
        record.deployment.cancelled_by = Some("ann".into());
        record.deployment.reason = Some("wrong version".into());
        let cancelled = (Cause::Cancelled, "cancelled by ann: wrong version".to_owned());
        assert_eq!(record.ended_by(), Some(cancelled));
    }

    #[test]
    fn news_do_not_undo_a_cancellation() {
        let traffic = known(None, &news(Phase::Traffic), 0);
        let mut record = opened(&traffic);
        record.deployment.cancelled_by = Some("ann".into());
        record.update(&known(Some(traffic), &news(Phase::Finished), 2), &golden_signals(), PATIENCE);
        assert_eq!(record.ended_by().unwrap().0, Cause::Cancelled);
    }

    #[test]
    fn a_record_survives_the_bucket() {
        let thresholds = crate::sequential::Thresholds { rollback: 6.8, ..Default::default() };
        let levels = Some(crate::levels::of_thresholds(&thresholds));
        let record = Record { levels, ..running() };
        assert_eq!(Record::try_from(v1::Verification::from(record.clone())).unwrap(), record);
    }
}
