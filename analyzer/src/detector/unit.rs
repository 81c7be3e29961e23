//! One series of residuals under the pair of models: the part that all level detectors share.

use super::last_look::{LastLook, Spread};
use super::{Change, Finding, Sample, rise};
use crate::emission::{self, Emission};
use crate::ending::{self, Level};
use crate::gate::{EFFECT_SAMPLES, Effect, Gate, Recent};
use crate::noise::{Noise, Whitener};
use crate::pair::{LEVEL_STATES, Likelihood, Pair, PairModel};
use std::ops::Range;
use vouch_proto::Direction;

/// Probability of being degraded now from which a unit may fail.
pub(super) const SURE: f64 = 0.8;
/// Probability of being degraded now from which a run of degraded minutes counts as begun.
pub(super) const LIKELY: f64 = 0.5;
/// A single sample this many sigmas out is a disturbance worth telling.
const DISTURBANCE: f64 = 5.0;

/// One step of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Observation {
    /// Residual in the bad direction; `NaN` for a gap.
    pub(super) residual: f64,
    /// Noise of this sample.
    pub(super) sigma: f64,
    /// The part of the residual that is no evidence.
    pub(super) dead_zone: f64,
    /// How far the expected level may be off.
    pub(super) doubt: f64,
    /// The part of that which does not average out, and how much of it follows the sign of the load's deviation.
    pub(super) systematic: f64,
    pub(super) leaning: f64,
    /// Minutes since the host runs the new version.
    pub(super) age_min: f64,
    /// Whether the process started again, with the version that it had.
    pub(super) restarted: bool,
}

/// What is known before the first step.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) noise: Noise,
    /// What the letters of the baseline make of the standard one.
    pub(super) emission: Emission,
    /// Smallest change that may fail.
    pub(super) least_effect: f64,
    /// What a placebo reached.
    pub(super) placebo: f64,
    pub(super) warms_up: bool,
}

/// A unit that is being judged.
#[derive(Debug, Clone)]
pub(super) struct LevelUnit {
    model: PairModel,
    emission: Emission,
    whitener: Whitener,
    pair: Pair,
    recent: Recent,
    gate: Gate,
    placebo: f64,
    since: Option<usize>,
    usable: usize,
    disturbed: bool,
    newest: Option<(usize, f64)>,
    restarted: bool,
    doubt: f64,
    newest_step: usize,
    pub(super) last_look: Option<LastLook>,
    pub(super) spread: Option<Spread>,
}

impl LevelUnit {
    pub(super) fn new(model: PairModel, reference: Reference) -> Self {
        Self {
            model,
            whitener: reference.noise.whitener(),
            pair: model.start(),
            recent: Recent::default(),
            gate: Gate {
                least: reference.least_effect,
                sigma: reference.noise.sigma,
                warms_up: reference.warms_up,
            },
            placebo: reference.placebo,
            emission: reference.emission,
            since: None,
            usable: 0,
            disturbed: false,
            newest: None,
            restarted: false,
            doubt: 0.0,
            newest_step: 0,
            last_look: None,
            spread: None,
        }
    }

    pub(super) fn step(&mut self, t: usize, seen: &Observation) {
        let z = (seen.residual - seen.dead_zone) / seen.sigma;
        let innovation = self.whitener.innovation(z);
        self.recent.push(seen.residual, seen.age_min);
        let mut row = None;
        self.newest = None;
        self.restarted = seen.restarted;
        self.doubt = seen.doubt;
        self.newest_step = t;
        if innovation.is_finite() {
            let letter = emission::letter(innovation);
            row = Some(self.emission.likelihood(letter, seen.age_min));
            self.newest = Some((letter, seen.age_min));
            self.usable += 1;
            // A slow average of the noise, as requests come and go.
            self.gate.sigma += (seen.sigma - self.gate.sigma) / (self.usable.min(15) as f64 + 1.0);
            self.disturbed |= z >= DISTURBANCE && seen.residual >= self.gate.least;
        }
        if seen.restarted {
            self.model.restart(&mut self.pair);
        }
        self.model.step(&mut self.pair, row.as_ref(), seen.age_min);
        self.mark(t);
    }

    fn mark(&mut self, t: usize) {
        if self.pair.p_degraded() < LIKELY {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(t);
        }
    }

    /// Likelihood of the newest sample under another emission, for a joint unit.
    pub(super) fn newest_likelihood(&self, emission: &Emission) -> Option<Likelihood> {
        self.newest.map(|(letter, age_min)| emission.likelihood(letter, age_min))
    }

    /// Whether the process started again at the newest step.
    pub(super) const fn restarted(&self) -> bool {
        self.restarted
    }

    /// Age of the host at the newest step; `None` before the first.
    pub(super) fn newest_age(&self) -> Option<f64> {
        self.recent.newest_age()
    }

    pub(super) fn emission(&self) -> &Emission {
        &self.emission
    }

    /// What a placebo reached; 0 until the first step, since a host that has not switched knows its past only so far.
    pub(super) fn placebo(&self) -> f64 {
        if self.newest_age().is_some() { self.placebo } else { 0.0 }
    }

    pub(super) fn effect(&self) -> Effect {
        self.recent.effect(&self.gate, self.pair.p_spread())
    }

    pub(super) fn ln_evidence(&self) -> f64 {
        let evidence = self.pair.ln_evidence() - self.placebo();
        self.last_look.map_or(evidence, |look| evidence.max(look.ln_evidence))
    }

    /// What it made of the newest step, without what is measured in the metric's unit.
    pub(super) fn sample(&self) -> Sample {
        if self.newest_age().is_none() {
            return Sample::NONE;
        }
        Sample {
            letter: self.newest.map(|(letter, _)| letter),
            state: LEVEL_STATES[self.pair.likeliest_state()],
            ln_evidence: self.ln_evidence(),
            ..Sample::NONE
        }
    }

    pub(super) const fn newest_step(&self) -> usize {
        self.newest_step
    }

    pub(super) fn newest_residual(&self) -> f64 {
        self.recent.newest()
    }

    pub(super) const fn sigma(&self) -> f64 {
        self.gate.sigma
    }

    /// The steps that the effect is taken from.
    pub(super) fn effect_steps(&self, switch: usize) -> Range<usize> {
        let end = self.newest_step + 1;
        end.saturating_sub(EFFECT_SAMPLES).max(switch.min(end))..end
    }

    /// What the size of a change is held against.
    pub(super) const fn noise(&self) -> rise::Noise {
        let autocorrelation = self.whitener.autocorrelation();
        rise::Noise { sigma: self.gate.sigma, autocorrelation, doubt: self.doubt }
    }

    /// Standard error of the effect: of the mean of its samples, and of what is expected.
    fn error(&self) -> f64 {
        let samples = self.usable.clamp(1, EFFECT_SAMPLES) as f64;
        let phi = self.whitener.autocorrelation();
        let own = self.gate.sigma * self.gate.sigma * (1.0 + phi) / (1.0 - phi) / samples;
        (own + self.doubt * self.doubt).sqrt()
    }

    /// See [`super::Detector::exclusion`].
    pub(super) fn exclusion(&self) -> f64 {
        if self.pair.p_degraded() >= LIKELY {
            return 0.0;
        }
        let residuals = self.recent.settled();
        ending::of_level(Level {
            residuals: &residuals,
            sigma: self.gate.sigma,
            autocorrelation: self.whitener.autocorrelation(),
            doubt: self.doubt,
            least: self.gate.least,
        })
    }

    pub(super) fn finding(
        &self,
        metric: &str,
        host: &str,
        direction: Direction,
        against: &'static str,
    ) -> Finding {
        let effect = self.effect();
        let finding = Finding {
            metrics: vec![metric.to_owned()],
            host: host.to_owned(),
            direction,
            against,
            ln_evidence: self.pair.ln_evidence() - self.placebo(),
            placebo: self.placebo(),
            may_fail: effect.matters && self.pair.p_degraded() >= SURE,
            effect: Change::LnRatio(effect.size),
            error: if effect.size.is_nan() { f64::NAN } else { self.error() },
            level: None,
            since: self.since,
            usable: self.usable,
            transient: self.disturbed && self.pair.p_degraded() < LIKELY,
        };
        match self.last_look {
            Some(look) => look.over(finding, self.newest_step),
            None => finding,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_kept_in_less_than_two_kilobytes() {
        assert!(size_of::<LevelUnit>() <= 1600, "{} bytes", size_of::<LevelUnit>());
    }
}
