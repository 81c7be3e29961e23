//! How one simulated service behaves in one minute: a pure function of seed, time, deployments and incidents.

use super::effect::{Effect, Impact, Rollout, WarmUp};
use super::incident::Felt;
use super::spec::ServiceSpec;
use crate::noise::{ar1, normal, poisson, stream, uniform};
use crate::point::Point;
use crate::time::{DAY, HOUR, MINUTE, WEEK};
use std::f64::consts::TAU;

/// A deployment that took place, or will.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rolled {
    /// The version.
    pub(crate) version: String,
    /// When it began.
    pub(crate) at_ms: i64,
    /// What it does.
    pub(crate) effect: Effect,
    /// Where.
    pub(crate) rollout: Rollout,
    /// Slow first minutes.
    pub(crate) warm_up: Option<WarmUp>,
    /// When it was rolled back.
    pub(crate) until_ms: Option<i64>,
}

impl Rolled {
    /// When a host switched to this version; `None`: never.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a few hosts, a few minutes"
    )]
    pub(super) fn switch_ms(&self, index: usize, host: &str) -> Option<i64> {
        match &self.rollout {
            Rollout::All => Some(self.at_ms),
            Rollout::Canary { hosts } | Rollout::BlueGreen { hosts } => {
                hosts.iter().any(|h| h == host).then_some(self.at_ms)
            }
            Rollout::Rolling { every_minutes } => {
                Some(self.at_ms + (index as f64 * every_minutes * MINUTE as f64) as i64)
            }
        }
    }
}

impl Rolled {
    /// The hosts that switch to this version, and when.
    pub(super) fn switches(&self, hosts: &[String]) -> Vec<(String, i64)> {
        let switch = |(index, host): (usize, &String)| Some((host.clone(), self.switch_ms(index, host)?));
        hosts.iter().enumerate().filter_map(switch).collect()
    }

    /// Whether the other stack of a blue-green deployment is in charge.
    fn is_idle(&self, host: &str, at: i64) -> bool {
        let Rollout::BlueGreen { hosts } = &self.rollout else { return false };
        let is_new = hosts.iter().any(|h| h == host);
        let switched = at >= self.at_ms && self.until_ms.is_none_or(|until| at < until);
        is_new != switched
    }
}

/// What happened to a service, and what will.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct History {
    /// Deployments in the order of their beginning.
    pub(crate) rolled: Vec<Rolled>,
    /// What it feels of incidents.
    pub(crate) felt: Vec<Felt>,
}

/// What is measured on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Response time.
    Latency,
    /// Requests.
    Requests,
    /// Failed requests.
    Errors,
    /// CPU use of the process.
    Cpu,
}

/// Seeds of a host's noise.
#[derive(Debug, Clone)]
struct HostSeeds {
    load: u64,
    latency: u64,
    errors: u64,
    cpu: u64,
    chance: u64,
}

/// A service ready to be computed.
#[derive(Debug, Clone)]
pub(crate) struct ServiceModel {
    /// Its settings.
    pub(crate) spec: ServiceSpec,
    /// Its seed.
    pub(super) seed: u64,
    load_seed: u64,
    latency_seed: u64,
    hosts: Vec<HostSeeds>,
    /// Scenario start.
    start_ms: i64,
}

impl ServiceModel {
    /// Prepares a service.
    pub(crate) fn new(spec: ServiceSpec, seed: u64, start_ms: i64) -> Self {
        let seed = stream(seed, &spec.name);
        let hosts = spec.hosts.iter().map(|host| {
            let seed = stream(seed, host);
            HostSeeds {
                load: stream(seed, "load"),
                latency: stream(seed, "latency"),
                errors: stream(seed, "errors"),
                cpu: stream(seed, "cpu"),
                chance: stream(seed, "chance"),
            }
        });
        let hosts = hosts.collect();
        Self {
            seed,
            load_seed: stream(seed, "load"),
            latency_seed: stream(seed, "latency"),
            hosts,
            spec,
            start_ms,
        }
    }

    /// What was measured on a host in the minute that begins at `at`; `None` where there is no data.
    pub(crate) fn host_point(
        &self,
        signal: Signal,
        host: usize,
        at: i64,
        history: &History,
    ) -> Option<Point> {
        let (name, seeds) = (self.spec.hosts.get(host)?, self.hosts.get(host)?);
        let minute = at.div_euclid(MINUTE);
        let version = self.impact(host, name, at, &history.rolled);
        let impact = history.felt.iter().fold(version, |impact, felt| impact.and(felt.impact(name, at)));
        if !impact.reports || self.is_missing(name, at) {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "a few hosts")]
        let ratio = self.load_ratio(at) * impact.load;
        if signal == Signal::Cpu {
            let cpu = &self.spec.cpu;
            let noise = libm::exp(cpu.noise * ar1(seeds.cpu, minute));
            let percent = cpu.percent * (0.2 + 0.8 * ratio) * impact.cpu * noise;
            return Some(Point::plain(percent.clamp(0.0, 100.0)));
        }
        let count = self.requests(seeds, minute, ratio);
        if count < 1.0 {
            return None;
        }
        match signal {
            Signal::Requests => Some(Point::plain(count)),
            Signal::Errors => {
                let rate = (self.spec.errors.rate + impact.errors).min(1.0);
                Some(Point::plain(poisson(seeds.errors, minute, count * rate).min(count)))
            }
            Signal::Latency | Signal::Cpu => Some(self.latency(seeds, minute, (ratio, count), impact)),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a few hosts")]
    fn requests(&self, seeds: &HostSeeds, minute: i64, ratio: f64) -> f64 {
        let noise = self.spec.load.noise;
        let swing = noise * (ar1(self.load_seed, minute) + 0.5 * ar1(seeds.load, minute));
        let mean = self.spec.load.per_minute / self.hosts.len() as f64 * ratio * libm::exp(swing);
        poisson(seeds.load, minute, mean)
    }

    fn latency(&self, seeds: &HostSeeds, minute: i64, (ratio, count): (f64, f64), impact: Impact) -> Point {
        let spec = &self.spec.latency;
        let together = 0.8 * ar1(self.latency_seed, minute) + 0.6 * ar1(seeds.latency, minute);
        let sampling =
            spec.spread * 1.25 / libm::sqrt(count) * normal(stream(seeds.latency, "sampling"), minute);
        let level = libm::pow(ratio.max(0.05), spec.load_exponent) * impact.latency;
        let median_us =
            spec.median_ms * 1000.0 * level * libm::exp(spec.noise * impact.noise * together + sampling);
        // The 95th percentile of a log-normal is median * exp(1.645 sigma).
        let sigma = (spec.spread + libm::log(impact.tail) / 1.645).max(0.0);
        Point::log_normal(count, median_us, sigma)
    }

    /// Load of the hour and the weekday over the average load.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a week fit a double")]
    fn load_ratio(&self, at: i64) -> f64 {
        let wave =
            |period: i64, peak: i64| libm::cos(TAU * (at - peak).rem_euclid(period) as f64 / period as f64);
        let load = &self.spec.load;
        // Busiest at 14:00 UTC and in the middle of the week (1970-01-01 was a Thursday).
        (1.0 + load.daily * wave(DAY, 14 * HOUR)) * (1.0 + load.weekly * wave(WEEK, 6 * DAY + 12 * HOUR))
    }

    /// What the version that a host ran in this minute does.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a minute")]
    pub(super) fn impact(&self, host: usize, name: &str, at: i64, rolled: &[Rolled]) -> Impact {
        if rolled.iter().any(|deployment| deployment.is_idle(name, at)) {
            return Impact { reports: false, ..Impact::NONE };
        }
        let end = at + MINUTE;
        for deployment in rolled.iter().rev() {
            let Some(switch) = deployment.switch_ms(host, name) else { continue };
            let until = deployment.until_ms.unwrap_or(i64::MAX);
            let covered = end.min(until) - at.max(switch);
            if covered <= 0 {
                continue;
            }
            let age_minutes = (end - switch) as f64 / MINUTE as f64;
            let chance = uniform(self.hosts[host].chance, at.div_euclid(MINUTE));
            let mut impact = deployment.effect.impact(name, age_minutes, chance);
            if let Some(warm_up) = deployment.warm_up {
                let excess =
                    (warm_up.factor - 1.0) * libm::exp(-(age_minutes - 0.5).max(0.0) / warm_up.minutes);
                impact.latency *= 1.0 + excess;
                impact.cpu *= 1.0 + excess;
            }
            return impact.partly(covered as f64 / MINUTE as f64);
        }
        Impact::NONE
    }

    fn is_missing(&self, host: &str, at: i64) -> bool {
        #[allow(clippy::cast_precision_loss, reason = "minutes since the start")]
        let minutes = (at - self.start_ms) as f64 / MINUTE as f64;
        self.spec.missing.iter().any(|gap| {
            (gap.from_minutes..gap.to_minutes).contains(&minutes)
                && (gap.hosts.is_empty() || gap.hosts.iter().any(|h| h == host))
        })
    }
}
