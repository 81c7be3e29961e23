//! How likely each SAX letter of a whitened residual is in each state.

use crate::maths::{ln, student_t_cdf};
use crate::pair::{
    HEALTHY_STATES, IMPROVED, Likelihood, MAX_STATES, NORMAL, OUTLIER, RARE_SPIKES, SPIKES, VARIANCE, WARM_UP,
};
use crate::sax::Breakpoints;
use std::sync::LazyLock;

/// Letters: more of them where deviations are bad. Equiprobable ones end at 1.15 sigma, where +1.5 and +20 look alike.
pub const CUTS: [f64; 12] = [-3.0, -2.0, -1.3, -0.67, 0.0, 0.67, 1.3, 2.0, 3.0, 4.5, 7.0, 12.0];
/// How many letters there are.
pub const LETTERS: usize = CUTS.len() + 1;

/// Degrees of freedom of the noise: heavier tails than the normal's.
const NOISE_DEGREES: u32 = 5;
/// Scale that gives Student's t(5) about unit variance, with 5 % to spare for an estimated sigma.
const NOISE_SCALE: f64 = 1.05 * 0.774_596_669_241_483_4;
/// Shifts of the six degraded levels, in sigmas.
const SHIFTS: [f64; 6] = [0.7, 1.2, 2.0, 3.5, 6.0, 12.0];
/// Share of the minutes that are spikes in the states of [`ADAPTED`].
const SPIKE_SHARES: [f64; ADAPTED.len()] = [0.0, 0.28, 0.12];
/// Power on each likelihood of two dependent series: mean and percentile are correlated, so that two are worth 1.2.
pub(crate) const DEPENDENT: f64 = 0.6;
/// How many baseline letters weigh as much as the theoretical noise.
const PRIOR_LETTERS: f64 = 40.0;
/// Each letter from +3 sigma on is never thought rarer than half a letter in the baseline and this many more
/// (Jeffreys' prior for a rate): a short baseline without outliers does not rule them out.
const TAIL_PRIOR: (f64, f64) = (0.5, 100.0);
/// Fewest baseline letters to learn from.
const LEAST_HISTORY: usize = 20;
/// Warm-up fades to 1/e of its height in so many minutes.
const WARM_UP_FADES_MIN: f64 = 2.5;
/// Share of warm-up minutes that look like any other.
const NO_WARM_UP: f64 = 0.3;
/// Borders between the levels 0, 0.7, 1.2, 2, 3.5, 6 and 12 sigmas.
const LEVEL_BORDERS: [f64; 7] = [0.0, 0.35, 0.95, 1.6, 2.75, 4.75, 9.0];

type Mass = [f64; LETTERS];

/// The letter of a whitened residual.
#[must_use]
pub fn letter(residual: f64) -> usize {
    CUTS.iter().map(|cut| usize::from(*cut < residual)).sum()
}

/// The breakpoints of the letters, for words.
#[must_use]
pub fn breakpoints() -> Option<Breakpoints> {
    Breakpoints::custom(CUTS.to_vec()).ok()
}

/// States whose letters the baseline has a say in.
const ADAPTED: [usize; 3] = [NORMAL, SPIKES, RARE_SPIKES];

type Table = [Likelihood; LETTERS];

/// What holds for every metric.
#[derive(Debug, Clone)]
pub struct StandardEmission {
    noise: Mass,
    far: Mass,
    table: Table,
    /// The table for one of two dependent series, see [`Emission::tempered`].
    tempered: Table,
}

/// Letters against states, for one metric on one host.
#[derive(Debug, Clone)]
pub struct Emission {
    /// The states that are the same for every metric.
    table: &'static Table,
    /// Those that the baseline has a say in, see [`ADAPTED`].
    adapted: [[f64; ADAPTED.len()]; LETTERS],
    /// Highest warm-up in sigmas, in the first sample.
    envelope: f64,
    /// Age from which warm-up reaches no further than the first level: it looks as normal does.
    settled_min: f64,
}

/// How a metric warms up after a restart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmUp {
    /// Highest warm-up at the restart, in sigmas.
    pub sigmas: f64,
    /// Minutes between samples: the longer, the more of the warm-up averages out.
    pub step_min: f64,
}

impl WarmUp {
    /// Mean over the first sample of an exponential decay.
    fn in_first_sample(self) -> f64 {
        let steps = self.step_min / WARM_UP_FADES_MIN;
        self.sigmas * (1.0 - libm::exp(-steps)) / steps
    }
}

fn mass(shift: f64, scale: f64) -> Mass {
    let at = |cut: f64| student_t_cdf((cut - shift) / (scale * NOISE_SCALE), NOISE_DEGREES);
    let mut mass = [0.0; LETTERS];
    let mut below = 0.0;
    for (i, letter) in mass.iter_mut().enumerate() {
        let above = CUTS.get(i).map_or(1.0, |cut| at(*cut));
        *letter = (above - below).max(1e-6);
        below = above;
    }
    mass
}

fn mix<const N: usize>(parts: [(f64, Mass); N]) -> Mass {
    let mut mixed = [0.0; LETTERS];
    for (share, mass) in parts {
        mixed.iter_mut().zip(mass).for_each(|(sum, m)| *sum += share * m);
    }
    normalised(mixed)
}

fn normalised(mut mass: Mass) -> Mass {
    let total: f64 = mass.iter().sum();
    mass.iter_mut().for_each(|m| *m /= total);
    mass
}

impl StandardEmission {
    /// The one that all cases share: it is a constant that takes a while to compute.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<StandardEmission> = LazyLock::new(StandardEmission::new);
        &SHARED
    }

    /// Integrates the distributions of every state over the letters.
    fn new() -> Self {
        let noise = mix([(1.0, mass(0.0, 1.0))]);
        let far = mix([(0.5, mass(5.0, 3.0)), (0.5, mass(12.0, 6.0))]);
        let mut columns = [noise; MAX_STATES];
        columns[OUTLIER] = mix([(1.0, mass(2.0, 6.0))]);
        columns[IMPROVED] = mix([(0.5, mass(-1.5, 1.0)), (0.3, mass(-4.0, 2.0)), (0.2, mass(-0.7, 1.0))]);
        for (i, shift) in SHIFTS.into_iter().enumerate() {
            columns[HEALTHY_STATES + i] = mix([(1.0, mass(shift, if shift < 3.0 { 1.0 } else { 1.5 }))]);
        }
        columns[VARIANCE] = mix([(0.6, mass(0.3, 2.6)), (0.4, mass(0.5, 6.0))]);
        let mut table = [[0.0; MAX_STATES]; LETTERS];
        for (letter, row) in table.iter_mut().enumerate() {
            row.iter_mut().zip(&columns).for_each(|(cell, column)| *cell = column[letter]);
        }
        let mut tempered = table;
        tempered.iter_mut().flatten().for_each(temper);
        Self { noise, far, table, tempered }
    }

    /// Adapts "normal" to the letters of the baseline, and warm-up to the noise: it is a matter of ratios,
    /// so the quieter the metric the more sigmas it spans.
    #[must_use]
    pub fn adapt(&'static self, baseline: &[f64], warm_up: WarmUp) -> Emission {
        let mut normal = self.noise;
        if baseline.len() >= LEAST_HISTORY {
            let mut counts = [0.0; LETTERS];
            baseline.iter().for_each(|residual| counts[letter(*residual)] += 1.0);
            let total = baseline.len() as f64 + PRIOR_LETTERS;
            normal.iter_mut().zip(counts).for_each(|(m, count)| *m = (count + PRIOR_LETTERS * *m) / total);
        }
        let least = TAIL_PRIOR.0 / (TAIL_PRIOR.1 + baseline.len() as f64);
        normal[LETTERS - 4..].iter_mut().for_each(|m| *m = m.max(least));
        let normal = normalised(normal);
        let mut adapted = [[0.0; ADAPTED.len()]; LETTERS];
        for ((row, normal), far) in adapted.iter_mut().zip(normal).zip(self.far) {
            *row = SPIKE_SHARES.map(|share| (1.0 - share) * normal + share * far);
        }
        let envelope = warm_up.in_first_sample();
        let settled_min = WARM_UP_FADES_MIN * ln((envelope / LEVEL_BORDERS[1]).max(1.0));
        Emission { table: &self.table, adapted, envelope, settled_min }
    }
}

impl Emission {
    /// Likelihood of a letter in each state, `age_min` minutes after the host started the new version.
    #[must_use]
    pub fn likelihood(&self, letter: usize, age_min: f64) -> Likelihood {
        let mut row = self.table[letter];
        for (state, mass) in ADAPTED.into_iter().zip(self.adapted[letter]) {
            row[state] = mass;
        }
        row[WARM_UP] = self.warm_up(&row, age_min);
        row
    }

    /// Any height below a decaying envelope, all equally likely.
    fn warm_up(&self, row: &Likelihood, age_min: f64) -> f64 {
        if age_min >= self.settled_min {
            return row[NORMAL];
        }
        let reach = self.envelope * libm::exp(-age_min / WARM_UP_FADES_MIN);
        let (mut sum, mut total) = (0.0, 0.0);
        for (level, from) in LEVEL_BORDERS.iter().enumerate() {
            let to = LEVEL_BORDERS.get(level + 1).copied().unwrap_or(f64::INFINITY).min(reach);
            if to <= *from {
                break;
            }
            let state = if level == 0 { NORMAL } else { HEALTHY_STATES + level - 1 };
            sum += (to - from) * row[state];
            total += to - from;
        }
        let warm = if total > 0.0 { sum / total } else { row[NORMAL] };
        NO_WARM_UP * row[NORMAL] + (1.0 - NO_WARM_UP) * warm
    }

    /// The same for one of two dependent series: raised to the power [`DEPENDENT`].
    #[must_use]
    pub fn tempered(&self) -> Self {
        let mut tempered = Self { table: &StandardEmission::shared().tempered, ..self.clone() };
        tempered.adapted.iter_mut().flatten().for_each(temper);
        tempered
    }
}

fn temper(p: &mut f64) {
    *p = libm::exp(DEPENDENT * ln(*p));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_spreads_one_over_the_letters() {
        let wild: Vec<f64> = (0..100).map(|i| f64::from(i % 7) - 3.0).collect();
        let emission = StandardEmission::shared().adapt(&wild, WarmUp { sigmas: 10.0, step_min: 1.0 });
        for age in [0.0, 5.0] {
            for state in 0..MAX_STATES {
                let total: f64 = (0..LETTERS).map(|l| emission.likelihood(l, age)[state]).sum();
                assert!((total - 1.0).abs() < 1e-9, "state {state}: {total}");
            }
        }
    }

    #[test]
    fn letters_are_those_of_the_breakpoints() {
        let breakpoints = breakpoints().unwrap();
        for residual in [-9.0, -2.5, -0.1, 0.1, 3.3, 6.9, 7.1] {
            assert_eq!(letter(residual), breakpoints.letter(residual));
        }
    }

    #[test]
    fn higher_letters_speak_for_higher_levels() {
        let emission = StandardEmission::shared().adapt(&[], WarmUp { sigmas: 10.0, step_min: 1.0 });
        let ratio = |letter: usize| {
            let row = emission.likelihood(letter, 30.0);
            row[HEALTHY_STATES + 3] / row[NORMAL]
        };
        assert!((7..10).all(|l| ratio(l) > ratio(l - 1)));
        assert!(ratio(2) < 0.5 && ratio(10) > 5.0);
    }
}
