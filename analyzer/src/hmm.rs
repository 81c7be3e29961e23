//! Hidden Markov models in general: any number of states, discrete emissions or any likelihood per sample.
//! Scaled forward and backward passes, posterior, Viterbi path, Baum-Welch (Rabiner 1989, with its scaling).

use crate::maths::ln;

/// A model with `n` states; its probabilities are checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Hmm {
    initial: Vec<f64>,
    transition: Vec<Vec<f64>>,
    emission: Vec<Vec<f64>>,
}

/// Why a model or its observations are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HmmError {
    /// A distribution that is none.
    #[error("{0}: is not a distribution; give probabilities that sum to 1")]
    Distribution(String),
    /// Tables of different sizes.
    #[error("{0}: has the wrong size; give one row per state, all of one length")]
    Size(&'static str),
    /// A symbol that the model does not know.
    #[error("observations[{0}]: no such symbol, or impossible in every state")]
    Observation(usize),
    /// Nothing to learn from.
    #[error("observations: are empty; give at least one")]
    Empty,
}

/// What a forward and a backward pass tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// P(state at t | all observations), by t and state.
    pub states: Vec<Vec<f64>>,
    /// ln P(observations).
    pub log_likelihood: f64,
}

/// Scaled forward variables.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// P(state at t | observations up to t), by t and state.
    pub filtered: Vec<Vec<f64>>,
    /// P(observation t | those before).
    pub scale: Vec<f64>,
}

impl Forward {
    /// ln P(observations).
    #[must_use]
    pub fn log_likelihood(&self) -> f64 {
        self.scale.iter().map(|scale| ln(*scale)).sum()
    }
}

impl Hmm {
    /// A model from P(first state), P(next state | state) and P(symbol | state).
    ///
    /// # Errors
    /// Where a table has the wrong size or a row is no distribution.
    pub fn new(
        initial: Vec<f64>,
        transition: Vec<Vec<f64>>,
        emission: Vec<Vec<f64>>,
    ) -> Result<Self, HmmError> {
        let n = initial.len();
        if transition.len() != n || transition.iter().any(|row| row.len() != n) {
            return Err(HmmError::Size("transition"));
        }
        let symbols = emission.first().map_or(0, Vec::len);
        if emission.len() != n || emission.iter().any(|row| row.len() != symbols) {
            return Err(HmmError::Size("emission"));
        }
        check("initial", &initial)?;
        for (name, table) in [("transition", &transition), ("emission", &emission)] {
            for (i, row) in table.iter().enumerate() {
                check(&format!("{name}[{i}]"), row)?;
            }
        }
        Ok(Self { initial, transition, emission })
    }

    /// How many states there are.
    #[must_use]
    pub fn n_states(&self) -> usize {
        self.initial.len()
    }

    /// P(first state).
    #[must_use]
    pub fn initial(&self) -> &[f64] {
        &self.initial
    }

    /// P(next state | state), a row per state.
    #[must_use]
    pub fn transition(&self) -> &[Vec<f64>] {
        &self.transition
    }

    /// P(symbol | state), a row per state.
    #[must_use]
    pub fn emission(&self) -> &[Vec<f64>] {
        &self.emission
    }

    /// Likelihood of each observation in each state, for the general passes.
    ///
    /// # Errors
    /// For a symbol that the model does not know.
    pub fn likelihoods(&self, observations: &[usize]) -> Result<Vec<Vec<f64>>, HmmError> {
        let row = |(t, symbol): (usize, &usize)| {
            let likelihoods: Option<Vec<f64>> =
                self.emission.iter().map(|row| row.get(*symbol).copied()).collect();
            likelihoods.filter(|row| !row.is_empty()).ok_or(HmmError::Observation(t))
        };
        observations.iter().enumerate().map(row).collect()
    }

    /// Scaled forward pass over likelihoods by time and state.
    ///
    /// # Errors
    /// For a sample that no state can emit.
    pub fn forward(&self, likelihoods: &[Vec<f64>]) -> Result<Forward, HmmError> {
        let n = self.n_states();
        let mut forward = Forward { filtered: Vec::new(), scale: Vec::new() };
        for (t, likelihood) in likelihoods.iter().enumerate() {
            let mut now: Vec<f64> = match forward.filtered.last() {
                None => self.initial.clone(),
                Some(last) => (0..n)
                    .map(|j| last.iter().zip(&self.transition).map(|(p, row)| p * row[j]).sum())
                    .collect(),
            };
            now.iter_mut().zip(likelihood).for_each(|(p, b)| *p *= b);
            let scale: f64 = now.iter().sum();
            if !(scale > 0.0 && scale.is_finite()) || likelihood.len() != n {
                return Err(HmmError::Observation(t));
            }
            now.iter_mut().for_each(|p| *p /= scale);
            forward.filtered.push(now);
            forward.scale.push(scale);
        }
        Ok(forward)
    }

    /// Backward variables, scaled like the forward ones.
    fn backward(&self, likelihoods: &[Vec<f64>], scale: &[f64]) -> Vec<Vec<f64>> {
        let n = self.n_states();
        let mut backward = vec![vec![1.0; n]; likelihoods.len()];
        for t in (0..likelihoods.len().saturating_sub(1)).rev() {
            let later: Vec<f64> =
                (0..n).map(|j| likelihoods[t + 1][j] * backward[t + 1][j] / scale[t + 1]).collect();
            for (i, row) in self.transition.iter().enumerate() {
                backward[t][i] = row.iter().zip(&later).map(|(p, later)| p * later).sum();
            }
        }
        backward
    }

    /// P(state at t | all observations).
    ///
    /// # Errors
    /// For a sample that no state can emit.
    pub fn posterior(&self, likelihoods: &[Vec<f64>]) -> Result<Posterior, HmmError> {
        let forward = self.forward(likelihoods)?;
        let backward = self.backward(likelihoods, &forward.scale);
        let both = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a * b).collect();
        let states = forward.filtered.iter().zip(&backward).map(both).collect();
        Ok(Posterior { states, log_likelihood: forward.log_likelihood() })
    }

    /// The most likely path of states, and ln of its joint probability with the observations.
    ///
    /// # Errors
    /// Without samples, or for a sample that no state can emit.
    pub fn viterbi(&self, likelihoods: &[Vec<f64>]) -> Result<(Vec<usize>, f64), HmmError> {
        let n = self.n_states();
        let first = likelihoods.first().ok_or(HmmError::Empty)?;
        let mut best: Vec<f64> = (0..n).map(|i| ln(self.initial[i]) + ln(first[i])).collect();
        let mut came_from: Vec<Vec<usize>> = Vec::with_capacity(likelihoods.len());
        for likelihood in &likelihoods[1..] {
            let step = |j: usize| {
                let from = |i: usize| best[i] + ln(self.transition[i][j]);
                let i = (1..n).fold(0, |top, i| if from(i) > from(top) { i } else { top });
                (i, from(i) + ln(likelihood[j]))
            };
            let (origins, next): (Vec<usize>, Vec<f64>) = (0..n).map(step).unzip();
            came_from.push(origins);
            best = next;
        }
        let mut state = (1..n).fold(0, |top, i| if best[i] > best[top] { i } else { top });
        let log_probability = best[state];
        if log_probability == f64::NEG_INFINITY {
            return Err(HmmError::Observation(likelihoods.len() - 1));
        }
        let mut path = vec![state];
        for origins in came_from.iter().rev() {
            state = origins[state];
            path.push(state);
        }
        path.reverse();
        Ok((path, log_probability))
    }

    /// One step of Baum-Welch: a model under which the symbols are at least as likely, and ln P(symbols) before.
    ///
    /// # Errors
    /// Without symbols, or for one that the model cannot emit.
    pub fn fit_step(&self, observations: &[usize]) -> Result<(Self, f64), HmmError> {
        let likelihoods = self.likelihoods(observations)?;
        let forward = self.forward(&likelihoods)?;
        let backward = self.backward(&likelihoods, &forward.scale);
        let posterior = self.posterior(&likelihoods)?;
        let first = posterior.states.first().ok_or(HmmError::Empty)?;
        let mut fitted = Self { initial: first.clone(), ..self.clone() };
        for i in 0..self.n_states() {
            let mut visits = vec![0.0; self.n_states()];
            for t in 1..observations.len() {
                for (j, visits) in visits.iter_mut().enumerate() {
                    *visits += forward.filtered[t - 1][i]
                        * self.transition[i][j]
                        * likelihoods[t][j]
                        * backward[t][j]
                        / forward.scale[t];
                }
            }
            normalise_into(&mut fitted.transition[i], &visits);
            let mut emitted = vec![0.0; self.emission[i].len()];
            for (symbol, states) in observations.iter().zip(&posterior.states) {
                emitted[*symbol] += states[i];
            }
            normalise_into(&mut fitted.emission[i], &emitted);
        }
        Ok((fitted, posterior.log_likelihood))
    }

    /// Baum-Welch until a step gains less than `tolerance` nats, at most `steps` of them.
    ///
    /// # Errors
    /// Without symbols, or for one that the model cannot emit.
    pub fn fit(&self, observations: &[usize], steps: usize, tolerance: f64) -> Result<Self, HmmError> {
        let mut model = self.clone();
        let mut before = f64::NEG_INFINITY;
        for _ in 0..steps {
            let (next, log_likelihood) = model.fit_step(observations)?;
            if log_likelihood - before < tolerance {
                break;
            }
            before = log_likelihood;
            model = next;
        }
        Ok(model)
    }
}

fn check(name: &str, row: &[f64]) -> Result<(), HmmError> {
    let sum: f64 = row.iter().sum();
    if row.iter().all(|p| (0.0..=1.0).contains(p)) && (sum - 1.0).abs() < 1e-9 {
        Ok(())
    } else {
        Err(HmmError::Distribution(name.to_owned()))
    }
}

/// Writes the shares of `counts`, unless there are none.
fn normalise_into(row: &mut [f64], counts: &[f64]) {
    let total: f64 = counts.iter().sum();
    if total > 0.0 {
        row.iter_mut().zip(counts).for_each(|(p, count)| *p = count / total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Russell & Norvig, Artificial Intelligence, 15.2: rain (0) or not, umbrella (0) or not.
    fn umbrella() -> Hmm {
        let transition = vec![vec![0.7, 0.3], vec![0.3, 0.7]];
        Hmm::new(vec![0.5, 0.5], transition, vec![vec![0.9, 0.1], vec![0.2, 0.8]]).unwrap()
    }

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() < tolerance, "{a} is not {b}");
    }

    #[test]
    fn the_umbrella_world_is_filtered_and_smoothed_as_in_the_book() {
        let model = umbrella();
        let forward = model.forward(&model.likelihoods(&[0, 0]).unwrap()).unwrap();
        close(forward.filtered[0][0], 0.818, 5e-4);
        close(forward.filtered[1][0], 0.883, 5e-4);
        let posterior = model.posterior(&model.likelihoods(&[0, 0]).unwrap()).unwrap();
        close(posterior.states[0][0], 0.883, 5e-4);
    }

    #[test]
    fn the_most_likely_weather_is_that_of_the_book() {
        // Figure 15.5: umbrella, umbrella, none, umbrella, umbrella.
        let model = umbrella();
        let (path, _) = model.viterbi(&model.likelihoods(&[0, 0, 1, 0, 0]).unwrap()).unwrap();
        assert_eq!(path, [0, 0, 1, 0, 0]);
    }

    #[test]
    fn numbers_are_those_of_hmmlearn() {
        // hmmlearn 0.3.3, CategoricalHMM(2 states, 3 symbols): score, decode, predict_proba, then fit with n_iter=5.
        let emission = vec![vec![0.1, 0.4, 0.5], vec![0.6, 0.3, 0.1]];
        let model = Hmm::new(vec![0.6, 0.4], vec![vec![0.7, 0.3], vec![0.4, 0.6]], emission).unwrap();
        let observations = [0, 1, 2, 0, 0, 2, 1, 1, 2, 0];
        let likelihoods = model.likelihoods(&observations).unwrap();
        let posterior = model.posterior(&likelihoods).unwrap();
        close(posterior.log_likelihood, -11.425_302_951_057_855, 1e-12);
        let rain = [0.227_291_816_011_968_38, 0.601_235_147_861_936_7, 0.788_659_262_951_021_3];
        rain.iter().zip(&posterior.states).for_each(|(theirs, ours)| close(ours[0], *theirs, 1e-12));
        let (path, log_probability) = model.viterbi(&likelihoods).unwrap();
        assert_eq!(path, [1, 0, 0, 1, 1, 0, 0, 0, 0, 1]);
        close(log_probability, -13.965_959_436_161_52, 1e-12);
        let fitted = model.fit(&observations, 5, 0.0).unwrap();
        let fitted_likelihoods = fitted.likelihoods(&observations).unwrap();
        close(fitted.forward(&fitted_likelihoods).unwrap().log_likelihood(), -10.083_409_176_491_411, 1e-9);
        close(fitted.transition()[0][1], 0.361_672_040_104_654_5, 1e-9);
        close(fitted.emission()[1][0], 0.822_383_221_240_792_1, 1e-9);
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let wrong = Hmm::new(vec![0.5, 0.4], vec![vec![1.0, 0.0]; 2], vec![vec![1.0]; 2]).unwrap_err();
        assert_eq!(wrong.to_string(), "initial: is not a distribution; give probabilities that sum to 1");
        assert_eq!(Hmm::new(vec![1.0], vec![], vec![vec![1.0]]), Err(HmmError::Size("transition")));
        let model = umbrella();
        assert_eq!(model.likelihoods(&[0, 2]), Err(HmmError::Observation(1)));
        assert_eq!(model.viterbi(&[]), Err(HmmError::Empty));
        assert_eq!(model.forward(&[vec![0.0, 0.0]]), Err(HmmError::Observation(0)));
    }

    fn any_model() -> impl Strategy<Value = Hmm> {
        prop::collection::vec(0.05..1.0_f64, 3 + 9 + 6).prop_map(|raw| {
            let shares = |row: &[f64]| {
                let total: f64 = row.iter().sum();
                row.iter().map(|p| p / total).collect::<Vec<f64>>()
            };
            let transition = raw[3..12].chunks(3).map(shares).collect();
            Hmm::new(shares(&raw[..3]), transition, raw[12..].chunks(2).map(shares).collect()).unwrap()
        })
    }

    /// Every path of states with its joint probability.
    fn paths(model: &Hmm, observations: &[usize]) -> Vec<(Vec<usize>, f64)> {
        let mut all = vec![(Vec::new(), 1.0)];
        for symbol in observations {
            let extend = |(path, p): (Vec<usize>, f64)| {
                (0..model.n_states()).map(move |state| {
                    let step = path
                        .last()
                        .map_or(model.initial[state], |last: &usize| model.transition[*last][state]);
                    let mut longer = path.clone();
                    longer.push(state);
                    (longer, p * step * model.emission[state][*symbol])
                })
            };
            all = all.into_iter().flat_map(extend).collect();
        }
        all
    }

    proptest! {
        #[test]
        fn passes_equal_brute_force(model in any_model(), observations in prop::collection::vec(0..2_usize, 1..6)) {
            let likelihoods = model.likelihoods(&observations).unwrap();
            let all = paths(&model, &observations);
            let total: f64 = all.iter().map(|(_, p)| p).sum();
            let posterior = model.posterior(&likelihoods).unwrap();
            prop_assert!((posterior.log_likelihood - total.ln()).abs() < 1e-9);
            for (t, states) in posterior.states.iter().enumerate() {
                prop_assert!((states.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                for (state, p) in states.iter().enumerate() {
                    let brute: f64 = all.iter().filter(|(path, _)| path[t] == state).map(|(_, p)| p).sum();
                    prop_assert!((p - brute / total).abs() < 1e-9);
                }
            }
            let (path, log_probability) = model.viterbi(&likelihoods).unwrap();
            let best = all.iter().map(|(_, p)| *p).fold(0.0, f64::max);
            prop_assert!((log_probability - best.ln()).abs() < 1e-9);
            let own = all.iter().find(|(other, _)| *other == path).unwrap().1;
            prop_assert!((own / best - 1.0).abs() < 1e-9);
        }

        #[test]
        fn fitting_never_makes_the_symbols_less_likely(
            model in any_model(), observations in prop::collection::vec(0..2_usize, 2..30),
        ) {
            let (fitted, before) = model.fit_step(&observations).unwrap();
            let (_, after) = fitted.fit_step(&observations).unwrap();
            prop_assert!(after >= before - 1e-9, "{} {}", before, after);
            prop_assert!((fitted.initial().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }
}
