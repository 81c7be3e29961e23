//! The `notifier` section of the settings: policy and actions. Everything wrong is said at once.

use crate::action::{self, ActionKind};
use std::collections::BTreeMap;
use std::time::Duration;
use vouch_proto::{Invalid, Name, TenantBudget};
use vouch_service::budget::read_budget;
use vouch_service::evidence::EvidenceSettings;
use vouch_service::settings::Section;

/// Name of the action that is always there: it only says what it would have done.
pub const LOG: &str = "log";
/// Longest time that one action may take in all, retries included.
pub const LONGEST_GIVE_UP: Duration = Duration::from_secs(600);

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MOST_ACTIONS: usize = 32;

/// What a rollback is allowed to do in an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Roll back.
    Act,
    /// Say what would have been done.
    DryRun,
    /// Do not even say it.
    Off,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "act" => Ok(Self::Act),
            "dry-run" => Ok(Self::DryRun),
            // YAML reads an unquoted `off` as `false`.
            "off" | "false" => Ok(Self::Off),
            other => Err(format!("unknown value `{other}`, expected one of act, dry-run, off")),
        }
    }
}

/// What the policy decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySettings {
    /// A verdict older than this no longer rolls back.
    pub max_verdict_age: Duration,
    /// Mode of the environments that are not named.
    pub default_mode: Mode,
    /// Mode by environment.
    pub modes: BTreeMap<Name, Mode>,
    /// The action that rolls back.
    pub rollback_action: String,
    /// A verdict older than this is no longer told.
    pub max_alert_age: Duration,
    /// The actions that tell.
    pub alert_actions: Vec<String>,
}

impl PolicySettings {
    /// The mode of an environment.
    #[must_use]
    pub fn mode(&self, environment: &Name) -> Mode {
        self.modes.get(environment).copied().unwrap_or(self.default_mode)
    }
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            max_verdict_age: 15 * MINUTE,
            default_mode: Mode::DryRun,
            modes: BTreeMap::new(),
            rollback_action: LOG.to_owned(),
            max_alert_age: 6 * 60 * MINUTE,
            alert_actions: vec![LOG.to_owned()],
        }
    }
}

/// How often and how long an action is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// Pause after the first failure; it doubles.
    pub pause: Duration,
    /// Longest pause, also where the receiver asks for a longer one.
    pub longest_pause: Duration,
    /// No further try after this, from the first call on.
    pub give_up_after: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { pause: SECOND, longest_pause: 30 * SECOND, give_up_after: 2 * MINUTE }
    }
}

/// One action.
#[derive(Debug, Clone)]
pub struct ActionSettings {
    /// Its name, by which the policy and the ledger know it.
    pub name: String,
    /// Calls of it at once.
    pub max_in_flight: usize,
    /// When it is tried again.
    pub retry: RetrySettings,
    /// What it is.
    pub kind: ActionKind,
}

impl ActionSettings {
    /// The action that only says what it would have done.
    #[must_use]
    pub fn log() -> Self {
        Self {
            name: LOG.to_owned(),
            max_in_flight: 16,
            retry: RetrySettings::default(),
            kind: ActionKind::Log,
        }
    }
}

/// Everything that the notifier needs to know.
#[derive(Debug, Clone)]
pub struct NotifierSettings {
    /// What decides.
    pub policy: PolicySettings,
    /// What the tenant can live with.
    pub budget: TenantBudget,
    /// What can be done; `log` is always among them.
    pub actions: Vec<ActionSettings>,
    /// The actions that record every verdict and every end of a rollback.
    pub reports: Vec<String>,
    /// Where a person looks.
    pub evidence: EvidenceSettings,
    /// How long a claim holds without being renewed, in real time.
    pub lease: Duration,
    /// Verdicts worked on at once.
    pub max_in_flight: usize,
}

impl Default for NotifierSettings {
    fn default() -> Self {
        Self {
            policy: PolicySettings::default(),
            budget: TenantBudget::default(),
            actions: vec![ActionSettings::log()],
            reports: Vec::new(),
            evidence: EvidenceSettings::default(),
            lease: 30 * SECOND,
            max_in_flight: 64,
        }
    }
}

impl NotifierSettings {
    /// Reads the `notifier` section; all of it may be missing.
    pub fn read(root: &mut Section<'_>, invalid: &mut Invalid) -> Self {
        let defaults = Self::default();
        let budget = read_budget(root, invalid);
        let evidence = EvidenceSettings::read(root, invalid);
        let mut notifier = root.section("notifier");
        let mut actions = vec![ActionSettings::log()];
        let allowed_hosts = notifier.texts("allowed_hosts");
        let sections = notifier.sections("actions");
        if sections.len() > MOST_ACTIONS {
            notifier
                .refuse("actions", format!("{} actions, at most {MOST_ACTIONS} are allowed", sections.len()));
        }
        for section in sections {
            let read = read_action(section, &actions, &allowed_hosts, invalid);
            actions.push(read);
        }
        let mut policy = PolicySettings {
            max_verdict_age: notifier.duration(
                "max_verdict_age",
                defaults.policy.max_verdict_age,
                MINUTE..=DAY,
            ),
            ..PolicySettings::default()
        };
        read_rollback(notifier.section("rollback"), &actions, &mut policy, invalid);
        read_alert(notifier.section("alert"), &actions, &mut policy, invalid);
        let reports = read_report(notifier.section("report"), &actions, invalid);
        let lease = notifier.duration("lease", defaults.lease, SECOND..=10 * MINUTE);
        let most = defaults.max_in_flight as u64;
        let max_in_flight = notifier.number("max_in_flight", most, 1..=most);
        notifier.finish(invalid);
        let max_in_flight = usize::try_from(max_in_flight).unwrap_or(1);
        Self { policy, budget, actions, reports, evidence, lease, max_in_flight }
    }
}

fn read_action(
    mut section: Section<'_>,
    others: &[ActionSettings],
    allowed_hosts: &[String],
    invalid: &mut Invalid,
) -> ActionSettings {
    let name = section.text("name").unwrap_or_else(|| {
        section.refuse("name", "is missing; `rollback.action` and `alert.actions` name the action by it");
        String::new()
    });
    let wrong = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if name.contains(wrong) || name.len() > 40 {
        section.refuse("name", format!("`{name}` is not 1 to 40 of a-z, 0-9 and `-`"));
    }
    if name == LOG {
        section.refuse("name", "`log` is the name of the action that is always there; choose another");
    } else if others.iter().any(|other| other.name == name) {
        section.refuse("name", format!("`{name}` is named twice"));
    }
    let retry = RetrySettings::default();
    let retry = RetrySettings {
        pause: section.duration("retry_pause", retry.pause, SECOND / 100..=MINUTE),
        longest_pause: section.duration(
            "longest_retry_pause",
            retry.longest_pause,
            SECOND / 100..=5 * MINUTE,
        ),
        give_up_after: section.duration("give_up_after", retry.give_up_after, SECOND..=LONGEST_GIVE_UP),
    };
    if retry.pause > retry.longest_pause {
        section.refuse("retry_pause", "is longer than `longest_retry_pause`; make it at most as long");
    }
    let max_in_flight = usize::try_from(section.number("max_in_flight", 16, 1..=64)).unwrap_or(1);
    let kind = action::read_kind(&mut section, allowed_hosts);
    section.finish(invalid);
    ActionSettings { name, max_in_flight, retry, kind }
}

fn read_rollback(
    mut section: Section<'_>,
    actions: &[ActionSettings],
    policy: &mut PolicySettings,
    invalid: &mut Invalid,
) {
    policy.default_mode = section.parsed("default").unwrap_or(Mode::DryRun);
    if let Some(action) = section.text("action") {
        check_action(&action, "action", actions, &mut section);
        let kind = actions.iter().find(|a| a.name == action).map(|a| &a.kind);
        if let Some(kind) = kind.filter(|kind| !kind.serves().rollback) {
            let kind = kind.as_str();
            section.refuse("action", format!("`{action}` is of type {kind}, which rolls nothing back"));
        }
        policy.rollback_action = action;
    }
    match section.raw("environments").map(|value| value.as_object()) {
        None => {}
        Some(None) => {
            section.refuse("environments", "must be a mapping of environments to act, dry-run or off")
        }
        Some(Some(environments)) => {
            for (environment, mode) in environments {
                let field = format!("environments.{environment}");
                let word = mode.as_str().map_or_else(|| mode.to_string(), str::to_owned);
                let mode = word.parse::<Mode>();
                match (Name::new(environment.clone()), mode) {
                    (Ok(environment), Ok(mode)) => {
                        policy.modes.insert(environment, mode);
                    }
                    (Err(e), _) => section.refuse(&field, e.to_string().trim_start_matches(": ")),
                    (_, Err(e)) => section.refuse(&field, e),
                }
            }
        }
    }
    let acts = policy.default_mode == Mode::Act || policy.modes.values().any(|mode| *mode == Mode::Act);
    let says_only = |a: &ActionSettings| a.name == policy.rollback_action && a.kind.only_says();
    if acts && invalid.violations.is_empty() && actions.iter().any(says_only) {
        section.refuse(
            "action",
            format!(
                "`{}` only says what it would have done, and an environment is to `act`; name an action that acts",
                policy.rollback_action
            ),
        );
    }
    section.finish(invalid);
}

fn read_alert(
    mut section: Section<'_>,
    actions: &[ActionSettings],
    policy: &mut PolicySettings,
    invalid: &mut Invalid,
) {
    policy.max_alert_age = section.duration("max_age", policy.max_alert_age, MINUTE..=30 * DAY);
    let given = section.is_present() && section.raw("actions").is_some();
    let named = section.texts("actions");
    for (i, action) in named.iter().enumerate() {
        let field = format!("actions[{i}]");
        check_action(action, &field, actions, &mut section);
        let kind = actions.iter().find(|a| a.name == *action).map(|a| &a.kind);
        if let Some(kind) = kind.filter(|kind| !kind.serves().alert) {
            section.refuse(&field, format!("`{action}` is of type {}, which tells nobody", kind.as_str()));
        }
        if named.iter().take(i).any(|other| other == action) {
            section.refuse(&field, format!("`{action}` is named twice"));
        }
    }
    if given && named.is_empty() {
        section.refuse("actions", "is empty; name at least one action (`log` writes to the log only)");
    }
    if given {
        policy.alert_actions = named;
    }
    section.finish(invalid);
}

/// The actions that every verdict is reported to.
fn read_report(mut section: Section<'_>, actions: &[ActionSettings], invalid: &mut Invalid) -> Vec<String> {
    let named = section.texts("actions");
    for (i, name) in named.iter().enumerate() {
        let field = format!("actions[{i}]");
        check_action(name, &field, actions, &mut section);
        let kind = actions.iter().find(|a| a.name == *name).map(|a| &a.kind);
        if let Some(kind) = kind.filter(|kind| !kind.serves().report) {
            section
                .refuse(&field, format!("`{name}` is of type {}, which records no verdicts", kind.as_str()));
        }
        if named.iter().take(i).any(|other| other == name) {
            section.refuse(&field, format!("`{name}` is named twice"));
        }
    }
    section.finish(invalid);
    named
}

fn check_action(name: &str, field: &str, actions: &[ActionSettings], section: &mut Section<'_>) {
    if !actions.iter().any(|action| action.name == name) {
        let names: Vec<&str> = actions.iter().map(|action| action.name.as_str()).collect();
        section.refuse(field, format!("unknown action `{name}`, expected one of {}", names.join(", ")));
    }
}

#[cfg(test)]
mod tests;
