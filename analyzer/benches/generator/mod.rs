//! Seeded series of a service before and after a deployment, for the accuracy benchmark and the property tests.

#[allow(dead_code, reason = "not every benchmark and test looks around")]
pub(crate) mod around;

use std::f64::consts::TAU;
use vouch_analyzer::case::{Case, CaseMetric, HostGroup};
use vouch_proto::{Direction, Strategy};

/// Minutes of recent history.
const HISTORY_MIN: i64 = 180;
const DAY_MIN: i64 = 1440;
const USUAL_LATENCY_MS: f64 = 80.0;
const USUAL_UTILISATION: f64 = 35.0;

/// A small generator of random numbers: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// From a seed; neighbouring seeds give unrelated numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66_D1CE_4E5B)
    }

    /// Evenly between 0 and 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal (Box, Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }

    /// Poisson: by multiplication for small means (Knuth), as a rounded normal for large ones.
    pub(crate) fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 60.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0.0);
        while product > limit {
            product *= self.uniform();
            count += 1.0;
        }
        count
    }
}

/// What a deployment does to the service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Latency times `ratio` from minute `from` on.
    Latency { ratio: f64, from: i64 },
    /// Standard deviation of the latency times `factor`.
    Spread { factor: f64 },
    /// Latency times `ratio` for `minutes` from minute `from` on.
    Spike { ratio: f64, from: i64, minutes: i64 },
    /// Share of errors.
    Errors { share: f64 },
}

/// A service and its deployment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scenario {
    /// Standard deviation of ln(latency).
    pub(crate) noise: f64,
    /// Autocorrelation of that noise from minute to minute.
    pub(crate) autocorrelation: f64,
    /// Amplitude of the daily season of the load (ln); latency follows with elasticity 0.2, utilisation with 0.8.
    pub(crate) season: f64,
    /// Lift of latency and utilisation (ln) by a job that runs from minute 10 to 25 of the window, on every day.
    pub(crate) nightly: f64,
    /// Growth of latency and utilisation, before and after the deployment alike (ln per hour).
    pub(crate) trend_per_hour: f64,
    /// Requests a minute.
    pub(crate) requests: f64,
    /// Length of the verification window.
    pub(crate) window_min: i64,
    /// What the deployment does.
    pub(crate) change: Change,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            noise: 0.1,
            autocorrelation: 0.0,
            season: 0.0,
            nightly: 0.0,
            trend_per_hour: 0.0,
            requests: 500.0,
            window_min: 60,
            change: Change::None,
        }
    }
}

/// An autoregression of first order with a given standard deviation.
struct Noise {
    phi: f64,
    sigma: f64,
    level: f64,
}

impl Noise {
    fn new(phi: f64, sigma: f64, random: &mut Random) -> Self {
        let level = sigma * random.normal();
        Self { phi, sigma, level }
    }

    fn next(&mut self, random: &mut Random) -> f64 {
        self.level =
            self.phi * self.level + (1.0 - self.phi * self.phi).sqrt() * self.sigma * random.normal();
        self.level
    }
}

impl Scenario {
    /// One deployment of such a service.
    pub(crate) fn case(&self, seed: u64) -> Case {
        let random = &mut Random::new(seed);
        let phase = random.uniform();
        let up = |unit: &str| CaseMetric::judged(unit, Direction::Increase);
        let mut case = Case::new(format!("generated-{seed}"), Strategy::Previous, 1, [0, self.window_min])
            .with_baseline([-HISTORY_MIN, 0])
            .with_metric("response_time", up("ms"))
            .with_metric("response_time_p95", up("ms"))
            .with_metric("cpu", up("%"))
            .with_metric("throughput", CaseMetric::judged("1/min", Direction::Decrease))
            .with_metric("error_count", CaseMetric::count("1/min", "throughput"))
            .with_metric("load", CaseMetric::context("1/min"))
            .with_host("svc", HostGroup::Service, Some(0));
        let mut windows = vec![[-HISTORY_MIN, self.window_min]];
        if self.season > 0.0 || self.nightly > 0.0 {
            for start in [-7 * DAY_MIN - 60, -DAY_MIN - 60] {
                windows.push([start, start + 60 + self.window_min]);
                case = case.with_baseline([start, start + 60 + self.window_min]);
            }
        }
        for window in windows {
            case = self.window(case, window, phase, random);
        }
        case
    }

    fn window(&self, mut case: Case, [start, end]: [i64; 2], phase: f64, random: &mut Random) -> Case {
        const NAMES: [&str; 6] =
            ["response_time", "response_time_p95", "cpu", "throughput", "error_count", "load"];
        let mut common = Noise::new(self.autocorrelation, 0.8 * self.noise, random);
        let mut mean_only = Noise::new(self.autocorrelation, 0.6 * self.noise, random);
        let mut tail_only = Noise::new(self.autocorrelation, 0.9 * self.noise, random);
        let mut busy = Noise::new(self.autocorrelation, 0.8 * self.noise, random);
        let mut demand = Noise::new(0.5, 0.05, random);
        let mut columns: [Vec<Option<f64>>; 6] = Default::default();
        for minute in start..end {
            let clock = (minute.rem_euclid(DAY_MIN)) as f64 / DAY_MIN as f64;
            let ln_load = self.season * (TAU * (clock + phase)).sin() + demand.next(random);
            let job = if (10..25).contains(&minute.rem_euclid(DAY_MIN)) { self.nightly } else { 0.0 };
            let drift = self.trend_per_hour * minute as f64 / 60.0 + job;
            let (lift, spread, share) = self.change.at(minute);
            let shared = common.next(random);
            let mean = drift + 0.2 * ln_load + lift + spread * (shared + mean_only.next(random));
            let tail = drift + 0.2 * ln_load + lift + spread * (shared + tail_only.next(random));
            let offered = random.poisson(self.requests * ln_load.exp());
            let values = [
                USUAL_LATENCY_MS * mean.exp(),
                2.5 * USUAL_LATENCY_MS * tail.exp(),
                USUAL_UTILISATION * (drift + 0.8 * ln_load + busy.next(random)).exp(),
                offered,
                random.poisson(share * offered).min(offered),
                offered,
            ];
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(Some(value)));
        }
        for (name, column) in NAMES.into_iter().zip(columns) {
            case = case.with_series(name, "svc", start, column);
        }
        case
    }
}

impl Change {
    /// Lift of ln(latency), factor of its noise, and share of errors at a minute.
    fn at(&self, minute: i64) -> (f64, f64, f64) {
        const USUAL_ERRORS: f64 = 0.001;
        let usual = (0.0, 1.0, USUAL_ERRORS);
        match *self {
            _ if minute < 0 => usual,
            Self::None => usual,
            Self::Latency { ratio, from } if minute >= from => (ratio.ln(), 1.0, USUAL_ERRORS),
            Self::Spread { factor } => (0.0, factor, USUAL_ERRORS),
            Self::Spike { ratio, from, minutes } if minute >= from && minute < from + minutes => {
                (ratio.ln(), 1.0, USUAL_ERRORS)
            }
            Self::Latency { .. } | Self::Spike { .. } => usual,
            Self::Errors { share } => (0.0, 1.0, share),
        }
    }
}
