//! What the deployment did not cause. Where services that were not deployed degrade alike and at the same time, or the
//! source holds that the root of an open problem lies elsewhere, a degradation is no evidence against the deployment.
//!
//! A unit that would fail the deployment names a kind and a moment. Each other service is asked the same: how much it
//! degraded in that way since that moment, and how likely so much is where nothing changed. That k of n healthy ones all
//! show a chance of at most p is at most P(Binomial(n, p) >= k), the partial conjunction of Benjamini & Heller (2008).
//! Where that is too little to be chance, they have a cause in common, and the deployed service is taken to share it
//! unless it is hit much harder.
//! What calls the deployed service, or is called by it, is no witness: the deployment may be why it degrades.

use crate::case::{Case, Neighbour, Problem};
use crate::detector::{Change, Finding, Rise};
use crate::judge::JudgeSettings;
use crate::profile::{Family, Profile};
use crate::replay::Replay;
use crate::robust;
use std::collections::{BTreeMap, BTreeSet};
use vouch_proto::{CommonCause, Direction, Relation, Witness};

/// A witness has to be at least this clear.
const CHANCE: f64 = 0.05;
/// Fewest witnesses: one alone may have trouble of its own, unless both call the same thing.
const LEAST_WITNESSES: usize = 2;
const LEAST_SHARING: usize = 1;
/// Chance that is too small to be one, over all ways in which witnesses are taken together.
const TOO_SMALL: f64 = 0.01;
/// What begins within so many minutes begins at the same time.
const SAME_TIME_MIN: i64 = 5;
/// A service that was deployed so shortly before is no witness: it may degrade by itself.
const DEPLOYED_MIN: i64 = 30;
/// How much harder than its witnesses the service may be hit: services depend on the same thing to different degrees.
const HARDER: f64 = 3.0;
/// Makes a median absolute deviation of normal values their standard deviation.
const MAD_TO_SD: f64 = 1.4826;

/// Degradations that are of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    name: String,
    direction: Direction,
}

impl Kind {
    fn of(case: &Case, finding: &Finding) -> Option<Self> {
        let name = finding.metrics.first()?;
        let family = Profile::of(name, case.metrics.get(name)?).family;
        let name = match family {
            Family::Latency | Family::TailLatency => "latency",
            Family::Count => "errors",
            Family::Throughput => "throughput",
            Family::Utilisation => "utilisation",
            Family::Other => name,
        };
        Some(Self { name: name.to_owned(), direction: finding.direction })
    }
}

/// A unit of the deployed service that would fail it.
#[derive(Debug, Clone)]
pub(crate) struct Suspect {
    kind: Kind,
    effect: f64,
    /// First step and minute of its degradation.
    step: usize,
    since: i64,
}

/// How a service degraded since the suspect did.
#[derive(Debug, Clone)]
struct Sighting {
    metric: String,
    /// As [`Change::size`] has it.
    size: f64,
    /// The same for a person: relative, or events per trial.
    effect: f64,
    /// Chance of one as large where nothing changed.
    chance: f64,
}

/// Another service on its way through the detectors.
#[derive(Debug)]
struct Bystander<'a> {
    neighbour: &'a Neighbour,
    replay: Replay<'a>,
    next: usize,
}

/// What is around the deployed service. Nothing is computed before something degrades.
#[derive(Debug)]
pub(crate) struct Around<'a> {
    case: &'a Case,
    minutes_seen: i64,
    bystanders: Option<Vec<Bystander<'a>>>,
    /// Step since which witnesses explained a kind, the first time.
    explained: BTreeMap<Kind, usize>,
}

impl<'a> Around<'a> {
    pub(crate) const fn new(case: &'a Case, minutes_seen: i64) -> Self {
        Self { case, minutes_seen, bystanders: None, explained: BTreeMap::new() }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.case.neighbours.is_empty() && self.case.problems.is_empty()
    }

    /// What a unit that would fail shows at a step.
    pub(crate) fn suspect(&self, finding: &Finding, t: usize) -> Option<Suspect> {
        let step = finding.since.unwrap_or(t);
        let effect = finding.effect.size();
        Some(Suspect { kind: Kind::of(self.case, finding)?, effect, step, since: self.minute(step) })
            .filter(|one| one.effect.is_finite())
    }

    fn minute(&self, step: usize) -> i64 {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.case.verification[0].saturating_add(step.saturating_mul(self.case.interval_min))
    }

    /// Shows the other services up to a step.
    pub(crate) fn step(&mut self, t: usize) {
        let (case, seen) = (self.case, self.minutes_seen);
        let mut bystanders = self.bystanders.take().unwrap_or_else(|| bystanders(case, seen));
        for one in &mut bystanders {
            while one.next <= t {
                one.replay.observe(one.next);
                one.next += 1;
            }
        }
        self.bystanders = Some(bystanders);
    }

    /// Why a suspect is no evidence by a step; `None` where nothing else explains it.
    pub(crate) fn explanation(&mut self, suspect: &Suspect, t: usize) -> Option<CommonCause> {
        let by_witnesses = self.by_witnesses(suspect, t).or_else(|| {
            // What goes on and off began when it did so first.
            let first = *self.explained.get(&suspect.kind).filter(|step| **step < suspect.step)?;
            self.by_witnesses(&Suspect { step: first, since: self.minute(first), ..suspect.clone() }, t)
        });
        if by_witnesses.is_some() {
            self.explained.entry(suspect.kind.clone()).or_insert(suspect.step);
        }
        by_witnesses.or_else(|| self.by_problem(suspect, t))
    }

    fn by_problem(&self, suspect: &Suspect, t: usize) -> Option<CommonCause> {
        let now = self.minute(t + 1);
        // What has been there for most of the last reference window is in it, and nothing new.
        let last = self.case.baseline.iter().max_by_key(|[start, end]| (*end, *start));
        let is_old = |problem: &Problem| last.is_some_and(|[start, end]| problem.start < (start + end) / 2);
        let explains = |problem: &&Problem| {
            let is_open = problem.end.is_none_or(|end| end > suspect.since - SAME_TIME_MIN);
            problem.elsewhere
                && is_open
                && !is_old(problem)
                && problem.known_at <= now
                && problem.start <= suspect.since + SAME_TIME_MIN
        };
        let found: Vec<&Problem> = self.case.problems.iter().filter(explains).collect();
        let first = found.first()?;
        let root = if first.root_cause.is_empty() { "another service" } else { &first.root_cause };
        let since = first.start;
        let text = format!(
            "the source has the open problem {} ({}) since minute {since}, with its root cause in {root}",
            first.id, first.title
        );
        let problems = found.iter().map(|problem| problem.id.clone()).collect();
        Some(CommonCause { text, witnesses: Vec::new(), asked: 0, shares: None, problems })
    }

    /// All of them are taken together, and besides those that share a dependency.
    fn by_witnesses(&self, suspect: &Suspect, t: usize) -> Option<CommonCause> {
        // A deployment that comes later did not cause what is there, and is not known yet.
        let own_doing = suspect.since - DEPLOYED_MIN..=self.minute(t + 1).min(suspect.since + SAME_TIME_MIN);
        let may_tell = |one: &&Bystander<'_>| {
            let deployed = one.neighbour.deployed_at;
            one.neighbour.relation == Relation::Unrelated
                && one.is_measured()
                && deployed.is_none_or(|minute| !own_doing.contains(&minute))
        };
        let all: Vec<&Bystander<'_>> = self.bystanders.iter().flatten().filter(may_tell).collect();
        let shared: BTreeSet<&str> =
            all.iter().flat_map(|one| one.neighbour.shares.iter().map(String::as_str)).collect();
        let level = TOO_SMALL / (1 + shared.len()) as f64;
        let group = |name: Option<&str>| -> Vec<&Bystander<'_>> {
            let belongs = |one: &&&Bystander<'_>| name.is_none_or(|name| one.neighbour.shares.contains(name));
            all.iter().filter(belongs).copied().collect()
        };
        let mut found: Option<(f64, CommonCause)> = None;
        for name in shared.into_iter().map(Some).chain([None]) {
            let Some((chance, cause)) = alike(suspect, &group(name), name) else { continue };
            if chance <= level && found.as_ref().is_none_or(|(before, _)| chance < *before) {
                found = Some((chance, cause));
            }
        }
        found.map(|(_, cause)| cause)
    }
}

fn bystanders(case: &Case, minutes_seen: i64) -> Vec<Bystander<'_>> {
    let settings = JudgeSettings::default();
    let mut all = Vec::new();
    for neighbour in case.neighbours.iter().filter(|one| one.relation == Relation::Unrelated) {
        if let Ok(replay) = Replay::new(&neighbour.case, minutes_seen, &settings) {
            all.push(Bystander { neighbour, replay, next: 0 });
        }
    }
    all
}

impl Bystander<'_> {
    /// Whether there is anything to judge it by.
    fn is_measured(&self) -> bool {
        self.replay.watched().next().is_some()
    }

    /// How it degraded in the way and since the moment of the suspect: its clearest unit, for as many as were asked.
    fn sighting(&self, suspect: &Suspect) -> Option<Sighting> {
        let mut asked = 0;
        let mut best: Option<Sighting> = None;
        for (detector, unit, _) in self.replay.watched() {
            let finding = detector.finding(unit);
            if Kind::of(&self.neighbour.case, &finding).as_ref() != Some(&suspect.kind) {
                continue;
            }
            let Some(Rise { change, chance }) = detector.rise(unit, suspect.step) else { continue };
            asked += 1;
            let size = change.size();
            if size <= 0.0 || best.as_ref().is_some_and(|one| one.chance <= chance) {
                continue;
            }
            let effect = match change {
                Change::LnRatio(size) => libm::expm1(size),
                Change::Share { .. } => size,
            };
            best = Some(Sighting { metric: finding.metrics.first()?.clone(), size, effect, chance });
        }
        best.map(|one| Sighting { chance: (one.chance * f64::from(asked)).min(1.0), ..one })
    }
}

/// The chance that a group degrades alike as clearly where none does, and what they say; `None` where there are too few
/// of them, or where the suspect is hit much harder than they are.
fn alike(suspect: &Suspect, group: &[&Bystander<'_>], shares: Option<&str>) -> Option<(f64, CommonCause)> {
    let sighting = |one: &&Bystander<'_>| Some((one.neighbour.name.clone(), one.sighting(suspect)?));
    let mut seen: Vec<(String, Sighting)> = group.iter().filter_map(sighting).collect();
    seen.sort_by(|a, b| a.1.chance.total_cmp(&b.1.chance).then_with(|| a.0.cmp(&b.0)));
    let least = if shares.is_some() { LEAST_SHARING } else { LEAST_WITNESSES };
    let chance_of = |k: usize| at_least(k, group.len(), seen[k - 1].1.chance.min(CHANCE));
    let clear = seen.iter().filter(|(_, one)| one.chance <= CHANCE).count();
    let (k, chance) = (least..=clear).map(|k| (k, chance_of(k))).min_by(|a, b| a.1.total_cmp(&b.1))?;
    // So many counts of witnesses may be tried.
    let chance = (chance * (group.len() + 1 - least) as f64).min(1.0);
    seen.truncate(k);
    let sizes: Vec<f64> = seen.iter().map(|(_, one)| one.size).collect();
    let (usual, mad) = (robust::median(&sizes)?, robust::mad(&sizes)?);
    if suspect.effect > (HARDER * usual).max(usual + 3.0 * MAD_TO_SD * mad) {
        return None;
    }
    let since_minute = u32::try_from(suspect.since).unwrap_or(0);
    let witness = |(service, one): (String, Sighting)| Witness {
        service,
        metric: one.metric,
        effect: one.effect,
        since_minute,
    };
    let witnesses: Vec<Witness> = seen.into_iter().map(witness).collect();
    let text = in_words(&witnesses, &suspect.kind, group.len(), (shares, chance));
    let cause = CommonCause {
        text,
        witnesses,
        asked: u32::try_from(group.len()).unwrap_or(u32::MAX),
        shares: shares.map(str::to_owned),
        problems: Vec::new(),
    };
    Some((chance, cause))
}

/// No chance is told that is smaller: nothing here is known so exactly.
const SMALLEST_TOLD: f64 = 1e-6;
/// Most witnesses that a sentence names.
const NAMED: usize = 3;

fn in_words(
    witnesses: &[Witness],
    kind: &Kind,
    asked: usize,
    (shares, chance): (Option<&str>, f64),
) -> String {
    let others = match shares {
        Some(dependency) => format!("other services that call {dependency}"),
        None => "other services of the environment".to_owned(),
    };
    let signed = if kind.direction == Direction::Decrease { -1.0 } else { 1.0 };
    let one = |witness: &Witness| match kind.name.as_str() {
        "errors" => format!("{} {:+.2} points", witness.service, 100.0 * witness.effect),
        _ => {
            let ln_ratio = libm::log1p(witness.effect);
            format!("{} {:+.0} %", witness.service, 100.0 * libm::expm1(signed * ln_ratio))
        }
    };
    let mut named: Vec<String> = witnesses.iter().take(NAMED).map(one).collect();
    if witnesses.len() > NAMED {
        named.push(format!("{} more", witnesses.len() - NAMED));
    }
    let chance = if chance < SMALLEST_TOLD {
        "less than 1 in 1,000,000".to_owned()
    } else {
        format!("1 in {:.0}", libm::floor(1.0 / chance))
    };
    format!(
        "{} of {asked} {others}, which were not deployed, degrade alike at the same time ({}; by chance: {chance})",
        witnesses.len(),
        named.join(", ")
    )
}

/// P(Binomial(n, p) >= k).
fn at_least(k: usize, n: usize, p: f64) -> f64 {
    let mut total = 0.0;
    let mut coefficient = 1.0;
    for i in 0..=n {
        if i >= k {
            total += coefficient * libm::pow(p, i as f64) * libm::pow(1.0 - p, (n - i) as f64);
        }
        coefficient *= (n - i) as f64 / (i + 1) as f64;
    }
    total.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binomial_tails_are_those_of_tables() {
        // Exact sums of C(n, i) 0.05^i 0.95^(n - i).
        let cases =
            [(0, 5, 1.0), (2, 2, 0.0025), (2, 3, 0.00725), (3, 5, 0.001_158_125), (5, 20, 0.002_573_94)];
        for (k, n, expected) in cases {
            let tail = at_least(k, n, 0.05);
            assert!((tail - expected).abs() < 1e-8, "{k} of {n}: {tail}");
        }
        assert_eq!(at_least(1, 0, 0.05), 0.0);
    }
}
