//! A metric on a continuous scale, on each new host and on all of them together.

use super::last_look::{Past, Terms};
use super::rise::{self, Rise};
use super::unit::{LevelUnit, Observation, Reference};
use super::{ALL_HOSTS, Detector, Finding, Level, Sample, host_share, steps_before};
use crate::emission::{StandardEmission, WarmUp};
use crate::expected::{self, Residuals, Source};
use crate::frame::{Comparison, Frame};
use crate::noise::Noise;
use crate::pair::{PairModel, PairSettings};
use crate::placebo::Placebo;
use crate::profile::{Family, LogScale};
use crate::robust;
use std::ops::Range;
use vouch_proto::Direction;

/// Standard errors of the baseline level that are no evidence.
pub(crate) const LEVEL_DOUBT: f64 = 0.8;
/// Hosts younger than this do not count for the group as long as there are older ones, in minutes.
const YOUNG_MIN: f64 = 4.0;
/// Least noise of the mean of several hosts.
const LEAST_GROUP_SIGMA: f64 = 0.01;

/// Watches one metric in one direction.
#[derive(Debug)]
pub struct LevelDetector {
    metric: String,
    direction: Direction,
    against: &'static str,
    pub(super) hosts: Vec<Host>,
    pub(super) group: Option<Group>,
    /// Steps of the window.
    steps: usize,
}

/// One new host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) switch: usize,
    pub(super) unit: LevelUnit,
    observations: Vec<Observation>,
    /// What was expected at each step, on the scale of `scale`.
    expected: Vec<f64>,
    scale: LogScale,
    /// What the last look is held against.
    past: Option<Past>,
}

/// All new hosts together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) unit: LevelUnit,
    noise: Noise,
    host_sigma: f64,
    first_switch: usize,
    /// The part of the hosts' doubt that their mean is free of.
    relief: f64,
}

/// What the detectors of a judge share.
#[derive(Debug, Clone, Copy)]
pub struct Shared<'a> {
    /// Emissions before they are adapted.
    pub standard: &'static StandardEmission,
    /// The metric that counts requests, if any: fewer of them make a sample noisier, none makes it void.
    pub traffic: Option<&'a str>,
    /// Whether the end of the window is fixed, so that one last look may be taken there.
    pub last_look: bool,
}

impl LevelDetector {
    /// Learns from what was before the deployment; `None` where nothing was.
    #[must_use]
    pub fn new(source: &Source<'_>, direction: Direction, shared: &Shared<'_>) -> Option<Self> {
        let step_min = source.frame.step_minutes();
        let sign = if direction == Direction::Decrease { -1.0 } else { 1.0 };
        let is_throughput = source.profile.family == Family::Throughput;
        let settings = if is_throughput { PairSettings::THROUGHPUT } else { PairSettings::LEVELS };
        let build = Build { source, shared, sign, model: PairModel::new(settings, step_min) };
        let residuals = expected::residuals(source);
        let hosts: Vec<Host> =
            residuals.iter().enumerate().filter_map(|(i, r)| build.host(i, r.as_ref()?)).collect();
        if hosts.is_empty() {
            return None;
        }
        let group = if hosts.len() > 1 { build.group(&hosts, &residuals) } else { None };
        let against = source.frame.comparison.of_levels();
        let steps = source.frame.steps;
        Some(Self { metric: source.metric.to_owned(), direction, against, hosts, group, steps })
    }

    /// The metric that is watched.
    #[must_use]
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// What was expected over the samples of the effect, and what is there, of the hosts that a unit stands for.
    fn level(&self, unit: usize, effect: f64) -> Option<Level> {
        let (name, one) = self.unit(unit);
        let hosts = self.hosts.iter().filter(|host| name == ALL_HOSTS || host.name == name);
        let (mut sum, mut n, mut scale) = (0.0, 0.0, None);
        for host in hosts {
            let steps = one.effect_steps(host.switch);
            for expected in host.expected.get(steps)?.iter().filter(|expected| expected.is_finite()) {
                sum += expected;
                n += 1.0;
            }
            scale = scale.or(Some(host.scale));
        }
        let expected = sum / n;
        let signed = if self.direction == Direction::Decrease { -effect } else { effect };
        let level = scale.map(|scale| Level {
            expected: scale.invert(expected),
            observed: scale.invert(expected + signed),
        })?;
        (level.expected.is_finite() && level.observed.is_finite()).then_some(level)
    }

    /// The group first, then the hosts.
    pub(super) fn unit(&self, index: usize) -> (&str, &LevelUnit) {
        match (&self.group, index) {
            (Some(group), 0) => (ALL_HOSTS, &group.unit),
            (group, index) => {
                let host = &self.hosts[index - usize::from(group.is_some())];
                (&host.name, &host.unit)
            }
        }
    }
}

/// What hosts and group are built from.
struct Build<'a> {
    source: &'a Source<'a>,
    shared: &'a Shared<'a>,
    sign: f64,
    model: PairModel,
}

impl Build<'_> {
    fn host(&self, index: usize, residuals: &Residuals) -> Option<Host> {
        let host = &self.source.frame.new_hosts[index];
        let noise = Noise::of_residuals(residuals);
        let pools = || std::iter::once(&residuals.baseline).chain(&residuals.control);
        let mut letters = Vec::new();
        for pool in pools().filter(|pool| pool.len() > 3) {
            letters.extend(noise.whiten(pool).into_iter().map(|letter| self.sign * letter));
        }
        let mut reference = self.reference(noise, &letters);
        let dead_zone = self.source.profile.dead_zone + LEVEL_DOUBT * noise.standard_error();
        let signed: Vec<Vec<f64>> =
            pools().map(|pool| pool.iter().map(|r| self.sign * r).collect()).collect();
        reference.placebo = self.placebo(&reference, dead_zone, &signed);
        // One of several hosts is judged with the others.
        let is_alone = self.source.frame.new_hosts.len() == 1;
        let past = (self.shared.last_look && is_alone).then(|| {
            let terms = Terms::new(&self.source.profile, self.sign, residuals.drift);
            Past { residuals: signed[0].clone(), noise, terms }
        });
        let traffic = self.traffic(&host.name);
        // A drift the other way makes nothing look worse.
        let is_bad = self.sign * residuals.drift > 0.0;
        let drifted = |t: usize| residuals.drift_doubt.get(t).copied().filter(|_| is_bad).unwrap_or(0.0);
        let observe = |(t, residual): (usize, &f64)| {
            let (louder, is_void) = traffic.as_ref().map_or((1.0, false), |traffic| traffic.at(t));
            let mut sigma = noise.sigma * louder * residuals.inflation[t];
            if self.source.profile.family == Family::Throughput {
                sigma = sigma.max(traffic.as_ref().map_or(0.0, |traffic| traffic.counting_noise(t)));
            }
            Observation {
                residual: if is_void { f64::NAN } else { self.sign * residual },
                sigma,
                dead_zone: dead_zone + residuals.systematic[t] + drifted(t),
                doubt: noise.standard_error() + residuals.systematic[t],
                systematic: residuals.systematic[t],
                leaning: residuals.leaning_at(t),
                age_min: host.age(t) as f64 * self.source.frame.step_minutes(),
                restarted: host.restarts_at(t),
            }
        };
        Some(Host {
            name: host.name.clone(),
            switch: host.switch,
            unit: LevelUnit::new(self.model, reference),
            observations: residuals.live.iter().enumerate().map(observe).collect(),
            expected: residuals.expected.clone(),
            scale: residuals.scale,
            past,
        })
    }

    /// `letters` are whitened residuals of the baseline, in the bad direction.
    fn reference(&self, noise: Noise, letters: &[f64]) -> Reference {
        let warm_up = WarmUp {
            sigmas: self.source.profile.warm_up / noise.sigma,
            step_min: self.source.frame.step_minutes(),
        };
        Reference {
            noise,
            emission: self.shared.standard.adapt(letters, warm_up),
            least_effect: self.source.profile.gate,
            placebo: 0.0,
            warms_up: self.source.profile.family != Family::Throughput,
        }
    }

    fn placebo(&self, reference: &Reference, dead_zone: f64, series: &[Vec<f64>]) -> f64 {
        let steps = self.source.frame.steps;
        let Reference { noise, emission, .. } = reference;
        let placebo = Placebo { noise: *noise, emission, model: &self.model, dead_zone, steps };
        placebo.evidence(series.iter().map(Vec::as_slice))
    }

    fn group(&self, hosts: &[Host], residuals: &[Option<Residuals>]) -> Option<Group> {
        // Hosts that switch later know more when they do; the group starts with what all know at the first switch.
        let before: Frame;
        let at_start: Vec<Option<Residuals>>;
        let known: Vec<&Residuals> = if self.source.frame.comparison == Comparison::Remaining {
            before = self.source.frame.before_verification();
            at_start = expected::residuals(&Source { frame: &before, ..*self.source });
            at_start.iter().flatten().collect()
        } else {
            residuals.iter().flatten().collect()
        };
        let columns = known.iter().map(|r| r.baseline.len()).min()?;
        let rows = known.iter().map(|r| r.baseline.as_slice());
        let mean: Vec<f64> =
            expected::column_means(rows, columns).into_iter().map(|mean| self.sign * mean).collect();
        let noise = Noise::of(&mean, LEAST_GROUP_SIGMA);
        let mut reference = self.reference(noise, &noise.whiten(&mean));
        reference.placebo = self.placebo(&reference, self.source.profile.dead_zone, &[mean]);
        let sigmas: f64 = known.iter().map(|r| Noise::of_residuals(r).sigma).sum();
        Some(Group {
            unit: LevelUnit::new(self.model, reference),
            noise,
            host_sigma: sigmas / known.len() as f64,
            first_switch: hosts.iter().map(|host| host.switch).min()?,
            relief: known.iter().map(|r| r.relief).fold(f64::INFINITY, f64::min),
        })
    }

    fn traffic(&self, host: &str) -> Option<Traffic> {
        let (frame, metric) = (self.source.frame, self.shared.traffic?);
        let track = frame.track(metric, host)?;
        // A host without a past is taken to have had the traffic of the others.
        let others = frame.controls.iter().filter_map(|other| frame.track(metric, &other.name));
        let others: Vec<f64> = others.filter_map(|other| robust::mean(&other.recent)).collect();
        let usual = robust::mean(&track.recent).or_else(|| robust::mean(&others))?;
        Some(Traffic { usual, live: track.live.clone() })
    }
}

/// Requests of one host.
struct Traffic {
    usual: f64,
    live: Vec<f64>,
}

impl Traffic {
    /// Factor on the noise of a sample, and whether there was no request at all to measure.
    fn at(&self, t: usize) -> (f64, bool) {
        let now = self.live.get(t).copied().unwrap_or(f64::NAN);
        if now.is_nan() {
            return (1.0, false);
        }
        ((self.usual / now.max(0.5)).clamp(1.0, 100.0).sqrt(), now <= 0.0)
    }

    /// Poisson noise of ln(requests), twice.
    fn counting_noise(&self, t: usize) -> f64 {
        let now = self.live.get(t).copied().filter(|v| v.is_finite()).unwrap_or(self.usual);
        (2.0 / (now + 1.0).max(0.3 * self.usual + 1.0)).sqrt()
    }
}

impl Group {
    /// The mean over the hosts that run the new version; young ones are left out while there are others.
    fn observe(&self, t: usize, hosts: &[Host]) -> Observation {
        let running: Vec<&Host> = hosts.iter().filter(|host| t >= host.switch).collect();
        let seen = |host: &&Host| host.observations.get(t).copied();
        let mut all: Vec<Observation> = running.iter().filter_map(seen).collect();
        // Hosts that have just switched would warm the others' mean up again, so they wait until they have settled.
        let oldest = all.iter().map(|one| one.age_min).fold(0.0, f64::max);
        all.retain(|one| one.age_min >= oldest.min(YOUNG_MIN));
        let counted: Vec<f64> = all.iter().map(|one| one.residual).filter(|r| r.is_finite()).collect();
        let (k, total) = (counted.len().max(1) as f64, hosts.len() as f64);
        let own = (self.host_sigma * self.host_sigma - self.noise.sigma * self.noise.sigma).max(0.0);
        let variance =
            self.noise.sigma * self.noise.sigma + own * (1.0 / k - 1.0 / total) / (1.0 - 1.0 / total);
        let loudest = all.iter().map(|one| one.sigma).fold(0.0, f64::max) / self.host_sigma.max(1e-9);
        Observation {
            residual: robust::mean(&counted).unwrap_or(f64::NAN),
            sigma: variance.sqrt() * loudest.max(1.0),
            dead_zone: all.iter().map(|one| one.dead_zone).fold(0.0, f64::max) - self.relief,
            doubt: all.iter().map(|one| one.doubt).fold(0.0, f64::max) - self.relief,
            systematic: 0.0,
            leaning: 0.0,
            age_min: all.iter().map(|one| one.age_min).fold(f64::INFINITY, f64::min),
            restarted: all.iter().any(|one| one.restarted) && all.iter().all(|one| one.restarted),
        }
    }
}

impl Detector for LevelDetector {
    fn step(&mut self, t: usize) {
        if let Some(mut group) = self.group.take() {
            if t >= group.first_switch {
                let seen = group.observe(t, &self.hosts);
                group.unit.step(t, &seen);
            }
            self.group = Some(group);
        }
        for host in self.hosts.iter_mut().filter(|host| t >= host.switch) {
            if let Some(seen) = host.observations.get(t) {
                host.unit.step(t, seen);
                if t + 1 == self.steps
                    && let Some(past) = host.past.take()
                {
                    (host.unit.last_look, host.unit.spread) = past.look(&host.observations[host.switch..=t]);
                }
            }
        }
    }

    fn units(&self) -> usize {
        self.hosts.len() + usize::from(self.group.is_some())
    }

    fn ln_evidence(&self, unit: usize) -> f64 {
        self.unit(unit).1.ln_evidence()
    }

    fn questions(&self) -> f64 {
        1.0
    }

    fn share(&self, unit: usize) -> f64 {
        let has_group = self.group.is_some();
        host_share(has_group && unit == 0, has_group, self.hosts.len())
    }

    fn exclusion(&self, unit: usize) -> f64 {
        self.unit(unit).1.exclusion()
    }

    fn rise(&self, unit: usize, from: usize) -> Option<Rise> {
        let (name, one) = self.unit(unit);
        let members = self.hosts.iter().filter(|host| name == ALL_HOSTS || host.name == name);
        let (mut before, mut since) = (Vec::new(), Vec::new());
        let mut members_seen = 0;
        for host in members {
            let residuals = |steps: Range<usize>| {
                let seen = host.observations.get(steps).unwrap_or_default();
                seen.iter().map(|one| one.residual)
            };
            let end = (one.newest_step() + 1).min(host.observations.len());
            before.extend(residuals(steps_before(host.switch, from)));
            since.extend(residuals(from.max(host.switch).min(end)..end));
            members_seen += 1;
        }
        // Samples of several hosts at the same time count as one.
        let noise = one.noise();
        Rise::of_level(
            &before,
            &since,
            rise::Noise { sigma: noise.sigma * f64::from(members_seen).sqrt(), ..noise },
        )
    }

    fn sample(&self, unit: usize) -> Sample {
        let (name, one) = self.unit(unit);
        let sample = one.sample();
        let t = one.newest_step();
        let hosts = || self.hosts.iter().filter(|host| t >= host.switch);
        let members: Vec<&Host> = hosts().filter(|host| name == ALL_HOSTS || host.name == name).collect();
        let known: Vec<f64> = members
            .iter()
            .filter_map(|host| host.expected.get(t).copied())
            .filter(|e| e.is_finite())
            .collect();
        let (Some(host), Some(expected)) = (members.first(), robust::mean(&known)) else { return sample };
        let sigma = if name == ALL_HOSTS {
            one.sigma()
        } else {
            host.observations.get(t).map_or_else(|| one.sigma(), |seen| seen.sigma)
        };
        let signed = if self.direction == Direction::Decrease { -1.0 } else { 1.0 };
        let at = |point: f64| if point.is_finite() { host.scale.invert(point) } else { f64::NAN };
        Sample {
            observed: at(expected + signed * one.newest_residual()),
            expected: at(expected),
            band: [at(expected - 2.0 * sigma), at(expected + 2.0 * sigma)],
            ..sample
        }
    }

    fn finding(&self, unit: usize) -> Finding {
        let (host, one) = self.unit(unit);
        let finding = one.finding(&self.metric, host, self.direction, self.against);
        Finding { level: self.level(unit, finding.effect.size()), ..finding }
    }
}
