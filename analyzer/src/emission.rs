//! How likely each SAX letter of a whitened residual is in each state.

use crate::maths::{ln, student_t_cdf};
use crate::pair::{HEALTHY_STATES, IMPROVED, Likelihood, MAX_STATES, NORMAL, OUTLIER, WARM_UP};
use crate::sax::Breakpoints;

/// Letters: more of them where deviations are bad. Equiprobable ones end at 1.15 sigma, where +1.5 and +20 look alike.
pub const CUTS: [f64; 11] = [-3.0, -2.0, -1.3, -0.67, 0.0, 0.67, 1.3, 2.0, 3.0, 4.5, 7.0];
/// How many letters there are.
pub const LETTERS: usize = CUTS.len() + 1;

/// Degrees of freedom of the noise: heavier tails than the normal's.
const NOISE_DEGREES: u32 = 5;
/// Scale that gives Student's t(5) about unit variance, with 5 % to spare for an estimated sigma.
const NOISE_SCALE: f64 = 1.05 * 0.774_596_669_241_483_4;
/// Shifts of the six degraded levels, in sigmas.
const SHIFTS: [f64; 6] = [0.7, 1.2, 2.0, 3.5, 6.0, 12.0];
/// How many baseline letters weigh as much as the theoretical noise.
const PRIOR_LETTERS: f64 = 40.0;
/// The letters from +3 sigma on are never thought rarer than this, however quiet the baseline was.
const LEAST_TAIL: f64 = 0.003;
/// Fewest baseline letters to learn from.
const LEAST_HISTORY: usize = 20;
/// Age at which the first, violent part of a warm-up has ended, in minutes.
const VIOLENT_WARM_UP_MIN: f64 = 3.0;

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

/// What holds for every metric; built once per judge.
#[derive(Debug, Clone)]
pub struct StandardEmission {
    noise: Mass,
    far: Mass,
    late_warm_up: Mass,
    table: [Likelihood; LETTERS],
}

/// Letters against states, for one metric on one host.
#[derive(Debug, Clone)]
pub struct Emission {
    table: [Likelihood; LETTERS],
    late_warm_up: Mass,
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

impl Default for StandardEmission {
    fn default() -> Self {
        Self::new()
    }
}

impl StandardEmission {
    /// Integrates the distributions of every state over the letters.
    #[must_use]
    pub fn new() -> Self {
        let noise = mix([(1.0, mass(0.0, 1.0))]);
        let far = mix([(1.0, mass(5.0, 3.0))]);
        let mut columns = [noise; MAX_STATES];
        columns[OUTLIER] = mix([(1.0, mass(2.0, 6.0))]);
        columns[WARM_UP] = mix([(0.35, noise), (0.65, mass(3.0, 4.0))]);
        columns[IMPROVED] = mix([(0.5, mass(-1.5, 1.0)), (0.3, mass(-4.0, 2.0)), (0.2, mass(-0.7, 1.0))]);
        for (i, shift) in SHIFTS.into_iter().enumerate() {
            columns[HEALTHY_STATES + i] = mix([(1.0, mass(shift, if shift < 3.0 { 1.0 } else { 1.5 }))]);
        }
        columns[MAX_STATES - 2] = mix([(0.6, mass(0.3, 2.6)), (0.4, mass(0.5, 6.0))]);
        columns[MAX_STATES - 1] = mix([(0.72, noise), (0.28, far)]);
        let mut table = [[0.0; MAX_STATES]; LETTERS];
        for (letter, row) in table.iter_mut().enumerate() {
            row.iter_mut().zip(&columns).for_each(|(cell, column)| *cell = column[letter]);
        }
        Self { noise, far, late_warm_up: mix([(0.6, noise), (0.4, mass(1.5, 2.0))]), table }
    }

    /// Adapts "normal" to the letters of the baseline.
    #[must_use]
    pub fn adapt(&self, baseline: &[f64]) -> Emission {
        let mut normal = self.noise;
        if baseline.len() >= LEAST_HISTORY {
            let mut counts = [0.0; LETTERS];
            baseline.iter().for_each(|residual| counts[letter(*residual)] += 1.0);
            let total = baseline.len() as f64 + PRIOR_LETTERS;
            normal.iter_mut().zip(counts).for_each(|(m, count)| *m = (count + PRIOR_LETTERS * *m) / total);
        }
        normal[LETTERS - 3..].iter_mut().for_each(|m| *m = m.max(LEAST_TAIL));
        let normal = normalised(normal);
        let mut table = self.table;
        for (letter, row) in table.iter_mut().enumerate() {
            row[NORMAL] = normal[letter];
            row[MAX_STATES - 1] = 0.72 * normal[letter] + 0.28 * self.far[letter];
        }
        Emission { table, late_warm_up: self.late_warm_up }
    }
}

impl Emission {
    /// Likelihood of a letter in each state, `age_min` minutes after the host started the new version.
    #[must_use]
    pub fn likelihood(&self, letter: usize, age_min: f64) -> Likelihood {
        let mut row = self.table[letter];
        if age_min >= VIOLENT_WARM_UP_MIN {
            row[WARM_UP] = self.late_warm_up[letter];
        }
        row
    }

    /// The same raised to a power, for evidence that is shared between dependent series.
    #[must_use]
    pub fn tempered(&self, power: f64) -> Self {
        let temper = |p: &mut f64| *p = libm::exp(power * ln(*p));
        let mut tempered = self.clone();
        tempered.table.iter_mut().flatten().for_each(temper);
        tempered.late_warm_up.iter_mut().for_each(temper);
        tempered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_spreads_one_over_the_letters() {
        let wild: Vec<f64> = (0..100).map(|i| f64::from(i % 7) - 3.0).collect();
        let emission = StandardEmission::new().adapt(&wild);
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
        let emission = StandardEmission::new().adapt(&[]);
        let ratio = |letter: usize| {
            let row = emission.likelihood(letter, 30.0);
            row[HEALTHY_STATES + 3] / row[NORMAL]
        };
        assert!((6..LETTERS - 2).all(|l| ratio(l) > ratio(l - 1)));
        assert!(ratio(2) < 0.2 && ratio(LETTERS - 1) > 5.0);
    }
}
