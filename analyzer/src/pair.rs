//! The pair of hidden Markov models behind the evidence: H0 "nothing but noise, outliers, warm-up or improvement"
//! against H1 "it degrades at some time". Their likelihood ratio is a non-negative martingale of mean 1 under H0,
//! so that it may be looked at every minute (Ville 1939). Transitions are sparse and written out; the general
//! model, against which this one is tested, is in `hmm`.

use crate::maths::ln;

/// States of H0: normal, outlier, warm-up, improved. H1 has them too.
pub const HEALTHY_STATES: usize = 4;
/// Most states of H1.
pub const MAX_STATES: usize = 13;
/// Index of the normal state.
pub const NORMAL: usize = 0;
/// Index of the outlier state.
pub const OUTLIER: usize = 1;
/// Index of the warm-up state.
pub const WARM_UP: usize = 2;
/// Index of the improved state.
pub const IMPROVED: usize = 3;

/// The states in words, of levels.
pub const LEVEL_STATES: [&str; MAX_STATES] = [
    "normal",
    "outlier",
    "warming up",
    "improved",
    "worse by 0.7 sigma",
    "worse by 1.2 sigma",
    "worse by 2 sigma",
    "worse by 3.5 sigma",
    "worse by 6 sigma",
    "worse by 12 sigma",
    "more spread",
    "frequent spikes",
    "recurring spikes",
];
/// The states in words, of counts.
pub const COUNT_STATES: [&str; MAX_STATES] = [
    "normal",
    "burst",
    "warming up",
    "improved",
    "slightly more",
    "more",
    "much more",
    "very many",
    "most fail",
    "",
    "",
    "",
    "",
];

/// Index of the state of more variance.
pub const VARIANCE: usize = MAX_STATES - 3;
/// Index of the state of frequent spikes.
pub const SPIKES: usize = MAX_STATES - 2;
/// Index of the state of rare but recurring spikes.
pub const RARE_SPIKES: usize = MAX_STATES - 1;

/// Likelihood of one sample in each state, up to a common factor.
pub type Likelihood = [f64; MAX_STATES];

/// Probabilities per minute unless said otherwise; the values are those measured in docs/analysis.md.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairSettings {
    /// Relative probability of each degraded state.
    pub degraded: [f64; MAX_STATES - HEALTHY_STATES],
    /// How many of them are in use.
    pub n_degraded: usize,
    /// How many of them, from the first, are levels that a ramp climbs one by one.
    pub n_levels: usize,
    /// Probability to start in warm-up.
    pub start_warm_up: f64,
    /// Probability that warm-up goes on for another minute.
    pub stay_warm_up: f64,
    /// Minutes after which warm-up has ended.
    pub longest_warm_up_min: f64,
    /// Probability that the new version starts degraded, under H1.
    pub start_degraded: f64,
}

const START_IMPROVED: f64 = 0.12;
const TO_OUTLIER: f64 = 0.008;
const FROM_OUTLIER: f64 = 0.7;
const TO_IMPROVED: f64 = 0.005;
const FROM_IMPROVED: f64 = 0.02;
const HAZARD: f64 = 0.02;
const RECOVERY: f64 = 0.02;
const CLIMB: f64 = 0.05;

impl PairSettings {
    /// For metrics on a continuous scale: six levels of shift, more variance, spikes, rare spikes.
    pub const LEVELS: Self = Self {
        degraded: [0.16, 0.18, 0.17, 0.13, 0.1, 0.08, 0.1, 0.15, 0.15],
        n_degraded: 9,
        n_levels: 6,
        start_warm_up: 0.4,
        stay_warm_up: 0.6,
        longest_warm_up_min: 12.0,
        start_degraded: 0.35,
    };
    /// For error counts: five levels of the error ratio.
    pub const COUNTS: Self = Self {
        degraded: [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        n_degraded: 5,
        n_levels: 1,
        start_warm_up: 0.25,
        stay_warm_up: 0.25,
        longest_warm_up_min: 8.0,
        start_degraded: 0.35,
    };
    /// For throughput, which hardly warms up.
    pub const THROUGHPUT: Self = Self { start_warm_up: 0.15, stay_warm_up: 0.3, ..Self::LEVELS };

    /// The same for a service that does not restart, so has no warm-up.
    #[must_use]
    pub const fn without_warm_up(self) -> Self {
        Self { start_warm_up: 0.0, stay_warm_up: 0.0, ..self }
    }
}

/// One number for each degraded state.
type Degraded = [f64; MAX_STATES - HEALTHY_STATES];

/// The two models, for a given step of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairModel {
    settings: PairSettings,
    weights: Degraded,
    /// Probability of each degraded state to stay, and to be arrived at from the one before.
    stay: Degraded,
    climb: Degraded,
    hazard: f64,
    stay_warm_up: f64,
}

/// Where the two forward passes stand: what was seen so far, in 20 numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    h0: [f64; HEALTHY_STATES],
    h1: Likelihood,
    /// P(degraded now | samples, H1): the sum over its states.
    p_degraded: f64,
    /// The evidence is `ratio` times the exponential of this.
    ln_evidence: f64,
    ratio: f64,
    started: bool,
}

/// The running ratio is kept within this factor of 1: a logarithm is taken now and then, not at each step.
const MOST_RATIO: f64 = 1e100;

impl PairModel {
    /// The models for samples `step_min` minutes apart.
    #[must_use]
    pub fn new(settings: PairSettings, step_min: f64) -> Self {
        let total: f64 = settings.degraded[..settings.n_degraded].iter().sum();
        let mut weights = settings.degraded;
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = if i < settings.n_degraded { *weight / total } else { 0.0 };
        }
        let climbs = |i: usize| if i + 1 < settings.n_levels { CLIMB } else { 0.0 };
        let stay = std::array::from_fn(|i| 1.0 - RECOVERY - climbs(i));
        let climb = std::array::from_fn(|i| i.checked_sub(1).map_or(0.0, climbs));
        let hazard = 1.0 - libm::pow(1.0 - HAZARD, step_min);
        let stay_warm_up = libm::pow(settings.stay_warm_up, step_min);
        Self { settings, weights, stay, climb, hazard, stay_warm_up }
    }

    /// Before the first sample.
    #[must_use]
    pub fn start(&self) -> Pair {
        let warm = self.settings.start_warm_up;
        let h0 = [(1.0 - warm) * (1.0 - START_IMPROVED), 0.0, warm, (1.0 - warm) * START_IMPROVED];
        let mut h1 = [0.0; MAX_STATES];
        let healthy = 1.0 - self.settings.start_degraded / (1.0 - warm);
        h1[NORMAL] = h0[NORMAL] * healthy;
        h1[WARM_UP] = warm;
        h1[IMPROVED] = h0[IMPROVED] * healthy;
        for (state, weight) in h1[HEALTHY_STATES..].iter_mut().zip(self.weights) {
            *state = self.settings.start_degraded * weight;
        }
        let p_degraded = degraded_sum(&h1);
        Pair { h0, h1, p_degraded, ln_evidence: 0.0, ratio: 1.0, started: false }
    }

    /// The process starts again with the version that it had: what was healthy may warm up once more, under both
    /// models alike, so that a restart is no evidence. The next step is the first one after it.
    pub fn restart(&self, pair: &mut Pair) {
        let warm = self.settings.start_warm_up;
        for states in [&mut pair.h0[..], &mut pair.h1[..]] {
            for state in [NORMAL, OUTLIER, IMPROVED] {
                let moved = warm * states[state];
                states[state] -= moved;
                states[WARM_UP] += moved;
            }
        }
        pair.started = false;
    }

    /// Lets one step of time pass and takes in its sample, `None` for a gap. `age_min` is the time
    /// since the host runs the new version.
    pub fn step(&self, pair: &mut Pair, likelihood: Option<&Likelihood>, age_min: f64) {
        if pair.started {
            let stay = if age_min < self.settings.longest_warm_up_min { self.stay_warm_up } else { 0.0 };
            pair.h0 = healthy_step(&pair.h0, stay);
            pair.h1 = self.degrading_step(pair, stay);
        }
        pair.started = true;
        let Some(likelihood) = likelihood else {
            pair.p_degraded = degraded_sum(&pair.h1);
            return;
        };
        pair.h0.iter_mut().zip(likelihood).for_each(|(state, mass)| *state *= mass);
        pair.h1.iter_mut().zip(likelihood).for_each(|(state, mass)| *state *= mass);
        let degraded = degraded_sum(&pair.h1);
        let healthy = |states: &[f64]| (states[0] + states[1]) + (states[2] + states[3]);
        let sums = (healthy(&pair.h0), healthy(&pair.h1) + degraded);
        let (scale0, scale1) = (1.0 / sums.0, 1.0 / sums.1);
        pair.h0.iter_mut().for_each(|state| *state *= scale0);
        pair.h1.iter_mut().for_each(|state| *state *= scale1);
        pair.p_degraded = degraded * scale1;
        pair.ratio *= sums.1 * scale0;
        if !(1.0 / MOST_RATIO..MOST_RATIO).contains(&pair.ratio) {
            pair.ln_evidence += ln(pair.ratio);
            pair.ratio = 1.0;
        }
    }

    fn degrading_step(&self, pair: &Pair, stay: f64) -> Likelihood {
        let a = &pair.h1;
        let mut healthy = [a[NORMAL], a[OUTLIER], a[WARM_UP], a[IMPROVED]];
        let leaves_warm_up = (1.0 - stay) * a[WARM_UP];
        let degrades = self.hazard * (a[NORMAL] + a[IMPROVED]) + 0.5 * leaves_warm_up;
        healthy[NORMAL] *= 1.0 - self.hazard;
        healthy[IMPROVED] *= 1.0 - self.hazard;
        healthy = healthy_step(&healthy, stay);
        healthy[NORMAL] -= 0.5 * leaves_warm_up * (1.0 - START_IMPROVED);
        healthy[IMPROVED] -= 0.5 * leaves_warm_up * START_IMPROVED;
        let mut next = [0.0; MAX_STATES];
        next[..HEALTHY_STATES].copy_from_slice(&healthy);
        next[NORMAL] += pair.p_degraded * RECOVERY;
        for i in 0..MAX_STATES - HEALTHY_STATES {
            let at = HEALTHY_STATES + i;
            // The state before the first is a healthy one, and nothing climbs from there.
            next[at] = a[at] * self.stay[i] + a[at - 1] * self.climb[i] + degrades * self.weights[i];
        }
        next
    }
}

/// Sum over the degraded states, in an order that lets the additions overlap.
fn degraded_sum(states: &Likelihood) -> f64 {
    let [_, _, _, _, a, b, c, d, e, f, g, h, i] = *states;
    ((a + b) + (c + d)) + ((e + f) + (g + h)) + i
}

fn healthy_step(a: &[f64; HEALTHY_STATES], stay: f64) -> [f64; HEALTHY_STATES] {
    let leaves_warm_up = (1.0 - stay) * a[WARM_UP];
    [
        a[NORMAL] * (1.0 - TO_OUTLIER - TO_IMPROVED)
            + a[OUTLIER] * FROM_OUTLIER
            + a[IMPROVED] * FROM_IMPROVED
            + leaves_warm_up * (1.0 - START_IMPROVED),
        a[NORMAL] * TO_OUTLIER + a[OUTLIER] * (1.0 - FROM_OUTLIER),
        stay * a[WARM_UP],
        a[NORMAL] * TO_IMPROVED + a[IMPROVED] * (1.0 - FROM_IMPROVED) + leaves_warm_up * START_IMPROVED,
    ]
}

impl Pair {
    /// ln P(samples | H1) - ln P(samples | H0).
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        self.ln_evidence + ln(self.ratio)
    }

    /// Whether the evidence exceeds that of another one.
    #[must_use]
    pub fn exceeds(&self, other: &Self) -> bool {
        if self.ln_evidence == other.ln_evidence {
            self.ratio > other.ratio
        } else {
            self.ln_evidence() > other.ln_evidence()
        }
    }

    /// P(degraded now | samples, H1).
    #[must_use]
    pub fn p_degraded(&self) -> f64 {
        self.p_degraded
    }

    /// P(in one of the last three states now | samples, H1): more variance or spikes, for [`PairSettings::LEVELS`].
    #[must_use]
    pub fn p_spread(&self) -> f64 {
        self.h1[VARIANCE] + self.h1[SPIKES] + self.h1[RARE_SPIKES]
    }

    /// The state that is most likely now under H1.
    #[must_use]
    pub fn likeliest_state(&self) -> usize {
        let later_wins = |best: usize, i: usize| if self.h1[i] > self.h1[best] { i } else { best };
        (0..MAX_STATES).fold(NORMAL, later_wins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hmm::Hmm;
    use proptest::prelude::*;

    /// The transitions as the general model writes them: one row per state, from what one step makes of it.
    fn dense(step: impl Fn(usize) -> Vec<f64>, n: usize) -> Vec<Vec<f64>> {
        (0..n).map(step).collect()
    }

    fn general(model: &PairModel, stay: f64) -> (Hmm, Hmm) {
        let no_symbols = |n: usize| vec![vec![1.0]; n];
        let start = model.start();
        let h0 = dense(
            |i| {
                let mut one = [0.0; HEALTHY_STATES];
                one[i] = 1.0;
                healthy_step(&one, stay).to_vec()
            },
            HEALTHY_STATES,
        );
        let h1 = dense(
            |i| {
                let mut h1 = [0.0; MAX_STATES];
                h1[i] = 1.0;
                let mut one = start;
                (one.h1, one.p_degraded) = (h1, degraded_sum(&h1));
                model.degrading_step(&one, stay).to_vec()
            },
            MAX_STATES,
        );
        let h0 = Hmm::new(start.h0.to_vec(), h0, no_symbols(HEALTHY_STATES)).unwrap();
        (h0, Hmm::new(start.h1.to_vec(), h1, no_symbols(MAX_STATES)).unwrap())
    }

    proptest! {
        #[test]
        fn evidence_is_the_ratio_of_two_general_models(
            rows in prop::collection::vec(prop::array::uniform13(0.01..1.0_f64), 1..8),
            settings in prop::sample::select(vec![PairSettings::LEVELS, PairSettings::THROUGHPUT, PairSettings::COUNTS]),
            step_min in prop::sample::select(vec![1.0, 5.0]),
        ) {
            let model = PairModel::new(settings, step_min);
            let (h0, h1) = general(&model, model.stay_warm_up);
            let mut pair = model.start();
            for row in &rows {
                model.step(&mut pair, Some(row), 0.0);
            }
            let healthy: Vec<Vec<f64>> = rows.iter().map(|row| row[..HEALTHY_STATES].to_vec()).collect();
            let all: Vec<Vec<f64>> = rows.iter().map(|row| row.to_vec()).collect();
            let (l0, l1) = (h0.forward(&healthy).unwrap(), h1.forward(&all).unwrap());
            prop_assert!((pair.ln_evidence() - (l1.log_likelihood() - l0.log_likelihood())).abs() < 1e-9);
            let degraded: f64 = l1.filtered.last().unwrap()[HEALTHY_STATES..].iter().sum();
            prop_assert!((pair.p_degraded() - degraded).abs() < 1e-9);
        }
    }

    #[test]
    fn the_mean_evidence_under_h0_is_one() {
        // Two symbols; every word of length 6, weighted by its probability under H0 (Ville's condition).
        let model = PairModel::new(PairSettings::LEVELS, 1.0);
        let high: Likelihood = std::array::from_fn(|state| 0.1 + 0.06 * state as f64);
        let low = high.map(|p| 1.0 - p);
        let (h0, _) = general(&model, model.stay_warm_up);
        let mut mean = 0.0;
        for word in 0..64_u32 {
            let rows: Vec<&Likelihood> =
                (0..6).map(|i| if word >> i & 1 == 1 { &high } else { &low }).collect();
            let mut pair = model.start();
            rows.iter().for_each(|row| model.step(&mut pair, Some(row), 0.0));
            let healthy: Vec<Vec<f64>> = rows.iter().map(|row| row[..HEALTHY_STATES].to_vec()).collect();
            mean += (pair.ln_evidence() + h0.forward(&healthy).unwrap().log_likelihood()).exp();
        }
        assert!((mean - 1.0).abs() < 1e-9, "{mean}");
    }

    #[test]
    fn a_restart_is_no_evidence_and_a_warm_up_after_it_is_none_either() {
        let model = PairModel::new(PairSettings::LEVELS, 1.0);
        let normal: Likelihood = std::array::from_fn(|state| if state < HEALTHY_STATES { 1.0 } else { 0.3 });
        let mut warm: Likelihood =
            std::array::from_fn(|state| if state < HEALTHY_STATES { 0.02 } else { 0.5 });
        warm[WARM_UP] = 0.5;
        let mut steady = model.start();
        (0..20).for_each(|age| model.step(&mut steady, Some(&normal), f64::from(age)));
        let mut restarted = steady;
        model.restart(&mut restarted);
        assert_eq!(restarted.ln_evidence(), steady.ln_evidence());
        for (states, sum) in [(&restarted.h0[..], 1.0), (&restarted.h1[..], 1.0)] {
            assert!((states.iter().sum::<f64>() - sum).abs() < 1e-12);
        }
        (0..3).for_each(|age| model.step(&mut restarted, Some(&warm), f64::from(age)));
        (20..23).for_each(|age| model.step(&mut steady, Some(&warm), f64::from(age)));
        assert!(restarted.ln_evidence() + 2.0 < steady.ln_evidence(), "{restarted:?} {steady:?}");
    }

    #[test]
    fn a_gap_is_no_evidence() {
        let model = PairModel::new(PairSettings::LEVELS, 1.0);
        let mut pair = model.start();
        (0..9).for_each(|age| model.step(&mut pair, None, f64::from(age)));
        assert_eq!(pair.ln_evidence(), 0.0);
        assert!((pair.h1.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
