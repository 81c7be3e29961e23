//! Tries a channel out: a sample incident, from its beginning to its end, so that nobody is left paged by it.

use crate::action::{ActionError, Done, Serves, Tools, sample};
use crate::alert::{Links, Stage};
use crate::config::{ActionSettings, NotifierSettings};
use vouch_proto::Timestamp;

/// One word of the sample, and what came back.
#[derive(Debug)]
pub struct Tried {
    /// Where it stands in the sample incident.
    pub stage: Stage,
    /// What the receiver answered.
    pub answer: Result<Done, ActionError>,
}

/// Finds the channel that is to be tried out.
///
/// # Errors
/// In words for the person who asked: there is no such action, or trying it out would roll something back.
pub fn channel<'a>(settings: &'a NotifierSettings, name: &str) -> Result<&'a ActionSettings, String> {
    let Some(action) = settings.actions.iter().find(|action| action.name == name) else {
        let names: Vec<&str> = settings.actions.iter().map(|action| action.name.as_str()).collect();
        return Err(format!("no action is called `{name}`; the settings have {}", names.join(", ")));
    };
    let Serves { alert, report, .. } = action.kind.serves();
    if settings.policy.rollback_action == name && !action.kind.only_says() {
        return Err(format!("`{name}` is the action that rolls back; no test is sent to it"));
    }
    if !alert && !report {
        return Err(format!("`{name}` is of type {}, which tells nobody", action.kind.as_str()));
    }
    Ok(action)
}

/// Sends the sample: that it begins, that it is over, and a report where the action records verdicts. Each word is tried,
/// also after one that did not go through.
///
/// # Errors
/// Where the action cannot be set up.
pub async fn run(
    settings: &NotifierSettings,
    action: &ActionSettings,
    (tools, now): (&Tools, Timestamp),
) -> anyhow::Result<Vec<Tried>> {
    let made = action.kind.build(tools)?;
    let (serves, tells) = (action.kind.serves(), action.kind.tells());
    let reports = settings.reports.contains(&action.name);
    let mut stages = Vec::new();
    if serves.alert && (settings.policy.alert_actions.contains(&action.name) || !reports) {
        stages.push(Stage::Opens);
        if tells.resolved {
            stages.push(Stage::Resolves);
        }
    }
    if serves.report && (reports || !serves.alert) {
        stages.push(Stage::Reports);
    }
    let (mut tried, mut memory) = (Vec::new(), None);
    for stage in stages {
        let links = Links { evidence: settings.evidence.page("vouch-test.1", now), dynatrace: None };
        let mut request = sample::request(stage, Some(now), links)?;
        request.memory.clone_from(&memory);
        let answer = made.execute(&request).await;
        if let Ok(done) = &answer {
            memory = done.memory.clone().or(memory);
        }
        tried.push(Tried { stage, answer });
    }
    Ok(tried)
}
