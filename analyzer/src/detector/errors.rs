//! Counts of events out of trials: a negative binomial whose mean follows the exposure.

use super::rise::Tally;
use super::unit::{LIKELY, SURE};
use super::{ALL_HOSTS, Change, Detector, Finding, Rise, Sample, host_share, steps_before};
use crate::ending;
use crate::expected::pinned;
use crate::frame::{Comparison, Frame, FrameHost};
use crate::gate::KEPT_SAMPLES;
use crate::maths::{NegativeBinomial, ln, ln_add};
use crate::pair::{
    COUNT_STATES, HEALTHY_STATES, IMPROVED, Likelihood, NORMAL, OUTLIER, Pair, PairModel, PairSettings,
    WARM_UP,
};
use crate::robust;
use std::ops::Range;
use vouch_proto::Direction;

/// Prior of the ratio: Gamma(0.5, 300), half an event in 300 trials.
const PRIOR: (f64, f64) = (0.5, 300.0);
/// The worst share of the baseline's minutes, bursts, is left out of the ratio.
const BURSTS: f64 = 0.02;
/// Dispersion believed before any data, and its weight in samples.
const DISPERSION_PRIOR: (f64, f64) = (1.3, 20.0);
const DISPERSIONS: (f64, f64) = (1.0, 30.0);
/// Counts are never steadier than this shape: about 13 % from minute to minute.
const STEADIEST_SHAPE: f64 = 60.0;
/// Shape of degraded counts, which come and go more.
const DEGRADED_SHAPE: f64 = 8.0;
/// Rise of the ratio that is never evidence.
const DEAD_ZONE: f64 = 0.0003;
/// Rise of the ratio in an outlier: three sizes, equally likely.
const BURST_RISES: [f64; 3] = [0.003, 0.02, 0.1];
/// Least rise of the ratio in the five degraded states, and the same as a multiple of the usual ratio.
const RISES: [(f64, f64); 5] = [(0.004, 1.0), (0.012, 2.0), (0.04, 0.0), (0.12, 0.0), (0.35, 0.0)];
/// ln likelihoods are cut off this far below the best.
const DEEPEST: f64 = -14.0;
/// Samples that are looked back on for the effect.
const EFFECT_SAMPLES: usize = 15;

/// Gate: least rise of the ratio, least multiple of it, least excess events, least samples above.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CountGate {
    /// Least rise of the ratio.
    pub rise: f64,
    /// Least multiple of the usual ratio.
    pub multiple: f64,
    /// Fewest events beyond the expected ones.
    pub excess: f64,
    /// Fewest samples above 1.2 times the expected.
    pub samples: usize,
}

impl Default for CountGate {
    fn default() -> Self {
        Self { rise: 0.002, multiple: 1.5, excess: 5.0, samples: 2 }
    }
}

/// Watches one metric of counts.
#[derive(Debug)]
pub struct ErrorDetector {
    metric: String,
    against: &'static str,
    model: PairModel,
    gate: CountGate,
    units: Vec<CountUnit>,
}

#[derive(Debug)]
struct CountUnit {
    host: String,
    law: Law,
    counts: Vec<Count>,
    switch: usize,
    /// The host that it stands for; `None` for all of them.
    one_host: Option<FrameHost>,
    step_min: f64,
    pair: Pair,
    seen: usize,
    usable: usize,
    since: Option<usize>,
    disturbed: bool,
}

/// One sample: events, trials, and the ratio at the controls so far.
#[derive(Debug, Clone, Copy)]
struct Count {
    events: f64,
    trials: f64,
    control: f64,
}

/// How counts come about on one host.
#[derive(Debug, Clone, Copy)]
struct Law {
    ratio: f64,
    ratio_sd: f64,
    dispersion: f64,
    usual: NegativeBinomial,
    burst: NegativeBinomial,
    degraded: NegativeBinomial,
}

impl ErrorDetector {
    /// Learns from what was before the deployment; `None` where no trial was.
    #[must_use]
    pub fn new(frame: &Frame, metric: &str, exposure: &str, gate: CountGate) -> Option<Self> {
        let model = PairModel::new(PairSettings::COUNTS, frame.step_minutes());
        let control = ControlCounts::new(frame, metric, exposure);
        let has_both = |host: &str| frame.track(metric, host).zip(frame.track(exposure, host));
        let others = control.past.iter().any(|(_, trials)| *trials > 0.0);
        let hosts: Vec<&FrameHost> = frame
            .new_hosts
            .iter()
            .filter(|host| has_both(&host.name).is_some_and(|(_, trials)| others || trials.has_past()))
            .collect();
        let first_switch = hosts.iter().map(|host| host.switch).min()?;
        let mut units = Vec::with_capacity(hosts.len() + 1);
        let everyone = (hosts.len() > 1).then_some((ALL_HOSTS, first_switch, hosts.as_slice()));
        let alone = hosts.iter().map(|host| (host.name.as_str(), host.switch, std::slice::from_ref(host)));
        for (name, switch, members) in everyone.into_iter().chain(alone) {
            let mut past = control.past.clone();
            let mut counts: Vec<Count> = control.live.clone();
            for host in members {
                let Some((events, trials)) = has_both(&host.name) else { continue };
                past.extend(events.recent.iter().copied().zip(trials.recent.iter().copied()));
                for (t, count) in counts.iter_mut().enumerate().skip(host.switch) {
                    count.add(events.live[t], trials.live[t]);
                }
            }
            units.push(CountUnit {
                host: name.to_owned(),
                law: Law::learn(&past),
                counts,
                switch,
                one_host: (name != ALL_HOSTS).then(|| members[0].clone()),
                step_min: frame.step_minutes(),
                pair: model.start(),
                seen: 0,
                usable: 0,
                since: None,
                disturbed: false,
            });
        }
        Some(Self { metric: metric.to_owned(), against: frame.comparison.of_counts(), model, gate, units })
    }
}

impl Count {
    fn add(&mut self, events: f64, trials: f64) {
        if events.is_finite() && trials > 0.0 {
            self.events += events.min(trials);
            self.trials += trials;
        }
    }

    fn is_usable(&self) -> bool {
        self.trials > 0.0
    }
}

/// What the control hosts counted, together.
struct ControlCounts {
    past: Vec<(f64, f64)>,
    live: Vec<Count>,
}

impl ControlCounts {
    fn new(frame: &Frame, metric: &str, exposure: &str) -> Self {
        let mut past = Vec::new();
        let mut live = vec![Count { events: 0.0, trials: 0.0, control: 0.0 }; frame.seen()];
        for host in &frame.controls {
            let both = frame.track(metric, &host.name).zip(frame.track(exposure, &host.name));
            let Some((events, trials)) = both else { continue };
            past.extend(events.recent.iter().copied().zip(trials.recent.iter().copied()));
            // An old stack has no traffic worth comparing with after the switch.
            for (t, count) in live.iter_mut().enumerate().filter(|_| frame.comparison == Comparison::Control)
            {
                count.add(events.live[t], trials.live[t]);
            }
        }
        let (mut events, mut trials) = (0.0, 0.0);
        for count in &mut live {
            events += count.events;
            trials += count.trials;
            *count = Count { events: 0.0, trials: 0.0, control: events / f64::max(trials, 1.0) };
        }
        if frame.comparison == Comparison::Pinned {
            let ratios = pinned::ratios(frame, metric, exposure);
            live.iter_mut().zip(ratios).for_each(|(count, ratio)| count.control = ratio);
        }
        Self { past, live }
    }
}

impl Law {
    /// A Gamma posterior of the ratio and a dispersion, from `(events, trials)` samples.
    fn learn(past: &[(f64, f64)]) -> Self {
        let mut usable: Vec<(f64, f64)> =
            past.iter().copied().filter(|(events, trials)| events.is_finite() && *trials > 0.0).collect();
        let samples = usable.len() as f64;
        let mut ratios: Vec<f64> = usable.iter().map(|(events, trials)| events / trials).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let worst = robust::quantile_sorted(&ratios, 1.0 - BURSTS).unwrap_or(0.0);
        usable.retain(|(events, trials)| events / trials <= worst + 1e-12);
        let events: f64 = usable.iter().map(|(events, _)| events).sum();
        let trials: f64 = usable.iter().map(|(_, trials)| trials).sum();
        let (counts, expected): (Vec<f64>, Vec<f64>) =
            usable.iter().map(|(count, n)| (*count, (events / trials.max(1.0) * n).max(1e-9))).unzip();
        let (prior, weight) = DISPERSION_PRIOR;
        let measured = robust::pearson_dispersion(&counts, &expected).unwrap_or(prior);
        let n = counts.len() as f64;
        let dispersion = ((measured * n + weight * prior) / (n + weight)).clamp(DISPERSIONS.0, DISPERSIONS.1);
        let (a, b) = (PRIOR.0 + events / dispersion, PRIOR.1 + trials / dispersion);
        let ratio = a / b;
        let usual_count = (ratio * trials / samples.max(1.0)).max(1e-6);
        let shape = (usual_count / (dispersion - 1.0).max(1e-3)).min(STEADIEST_SHAPE);
        Self {
            ratio,
            ratio_sd: ratio / a.sqrt(),
            dispersion,
            usual: NegativeBinomial::new(shape),
            burst: NegativeBinomial::new(1.0),
            degraded: NegativeBinomial::new(shape.min(DEGRADED_SHAPE)),
        }
    }

    fn likelihood(&self, count: &Count) -> Likelihood {
        let (x, n) = (count.events, count.trials);
        let ratio = self.ratio.max(count.control) + self.ratio_sd + DEAD_ZONE;
        let usual = self.usual.ln_coefficient(x);
        let degraded = self.degraded.ln_coefficient(x);
        let mut ln_mass = [f64::NEG_INFINITY; crate::pair::MAX_STATES];
        ln_mass[NORMAL] = usual + self.usual.ln_kernel(x, ratio * n);
        let burst = |rise: f64| self.burst.ln_mass(x, (ratio + rise) * n);
        ln_mass[OUTLIER] = BURST_RISES.into_iter().map(burst).fold(f64::NEG_INFINITY, ln_add) - ln(3.0);
        ln_mass[WARM_UP] = ln_add(ln_mass[NORMAL], ln_mass[OUTLIER]) - std::f64::consts::LN_2;
        ln_mass[IMPROVED] = usual + self.usual.ln_kernel(x, 0.4 * ratio * n);
        for (state, (least, multiple)) in ln_mass[HEALTHY_STATES..].iter_mut().zip(RISES) {
            let rise = least.max(multiple * self.ratio);
            *state = degraded + self.degraded.ln_kernel(x, (ratio + rise) * n);
        }
        let best = ln_mass.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        ln_mass.map(|ln_mass| libm::exp((ln_mass - best).max(DEEPEST)))
    }
}

impl CountUnit {
    fn step(&mut self, t: usize, model: &PairModel) {
        let Some(count) = self.counts.get(t).filter(|_| t >= self.switch) else { return };
        self.seen = t + 1;
        let row = count.is_usable().then(|| self.law.likelihood(count));
        self.usable += usize::from(row.is_some());
        if count.is_usable() {
            let expected = self.law.ratio.max(count.control) * count.trials;
            self.disturbed |= count.events - expected >= 5.0 * (expected + 1.0).sqrt().max(2.0);
        }
        let host = self.one_host.as_ref();
        if host.is_some_and(|host| host.restarts_at(t)) {
            model.restart(&mut self.pair);
        }
        let age = host.map_or(t - self.switch, |host| host.age(t));
        model.step(&mut self.pair, row.as_ref(), age as f64 * self.step_min);
        if self.pair.p_degraded() < 0.5 {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(t);
        }
    }

    /// See [`Detector::exclusion`].
    fn exclusion(&self, gate: &CountGate) -> f64 {
        if self.pair.p_degraded() >= LIKELY {
            return 0.0;
        }
        let from = self.seen.saturating_sub(KEPT_SAMPLES).max(self.switch.min(self.seen));
        let window = &self.counts[from..self.seen];
        let expected = self.law.ratio.max(window.last().map_or(0.0, |count| count.control));
        let least = (expected + gate.rise).max(gate.multiple * expected);
        let events: f64 = window.iter().map(|count| count.events).sum();
        let trials: f64 = window.iter().map(|count| count.trials).sum();
        ending::of_count(events, least * trials, self.law.dispersion)
    }

    /// The samples that the effect is taken from.
    fn window(&self) -> &[Count] {
        let from = self.seen.saturating_sub(EFFECT_SAMPLES).max(self.switch.min(self.seen));
        &self.counts[from..self.seen]
    }

    /// Standard error of the difference of two ratios: of an overdispersed count, and of what is expected.
    fn error(&self, effect: Change) -> f64 {
        let Change::Share { observed, .. } = effect else { return f64::NAN };
        let trials: f64 = self.window().iter().map(|count| count.trials).sum();
        let own =
            self.law.dispersion * (observed * (1.0 - observed)).max(1.0 / (trials + 1.0)) / trials.max(1.0);
        (own + self.law.ratio_sd * self.law.ratio_sd).sqrt()
    }

    /// Ratio over the last quarter of an hour, the one expected, and whether the difference matters.
    fn effect(&self, gate: &CountGate) -> (Change, bool) {
        let window = self.window();
        let control = window.last().map_or(0.0, |count| count.control);
        let expected = self.law.ratio.max(control);
        let events: f64 = window.iter().map(|count| count.events).sum();
        let trials: f64 = window.iter().map(|count| count.trials).sum();
        if trials <= 0.0 {
            return (Change::Share { observed: f64::NAN, expected }, false);
        }
        let observed = events / trials;
        let above = window.iter().filter(|count| count.events > 1.2 * expected * count.trials).count();
        let matters = observed - expected >= gate.rise
            && observed >= gate.multiple * expected
            && events - expected * trials >= gate.excess
            && above >= gate.samples;
        (Change::Share { observed, expected }, matters)
    }
}

impl Detector for ErrorDetector {
    fn step(&mut self, t: usize) {
        for unit in &mut self.units {
            unit.step(t, &self.model);
        }
    }

    fn units(&self) -> usize {
        self.units.len()
    }

    fn ln_evidence(&self, unit: usize) -> f64 {
        self.units[unit].pair.ln_evidence()
    }

    fn questions(&self) -> f64 {
        1.0
    }

    fn share(&self, unit: usize) -> f64 {
        let has_group = self.units.len() > 1;
        host_share(has_group && unit == 0, has_group, (self.units.len() - usize::from(has_group)).max(1))
    }

    fn exclusion(&self, unit: usize) -> f64 {
        self.units[unit].exclusion(&self.gate)
    }

    fn rise(&self, unit: usize, from: usize) -> Option<Rise> {
        let unit = &self.units[unit];
        let tally = |steps: Range<usize>| {
            let mut tally = Tally::default();
            for count in unit.counts.get(steps).unwrap_or_default() {
                tally.events += count.events;
                tally.trials += count.trials;
            }
            tally
        };
        let before = tally(steps_before(unit.switch, from));
        let since = tally(from.max(unit.switch).min(unit.seen)..unit.seen);
        Rise::of_count(before, since, unit.law.ratio + unit.law.ratio_sd, unit.law.dispersion)
    }

    fn sample(&self, unit: usize) -> Sample {
        let unit = &self.units[unit];
        let Some(count) = unit.seen.checked_sub(1).and_then(|t| unit.counts.get(t)) else {
            return Sample::NONE;
        };
        let expected = unit.law.ratio.max(count.control);
        let spread = 2.0 * (unit.law.dispersion * expected / count.trials.max(1.0)).sqrt();
        Sample {
            observed: if count.is_usable() { count.events / count.trials } else { f64::NAN },
            expected,
            band: [(expected - spread).max(0.0), expected + spread],
            letter: None,
            state: COUNT_STATES[unit.pair.likeliest_state()],
            ln_evidence: unit.pair.ln_evidence(),
        }
    }

    fn finding(&self, unit: usize) -> Finding {
        let unit = &self.units[unit];
        let (effect, matters) = unit.effect(&self.gate);
        let error = unit.error(effect);
        Finding {
            metrics: vec![self.metric.clone()],
            host: unit.host.clone(),
            direction: Direction::Increase,
            against: self.against,
            ln_evidence: unit.pair.ln_evidence(),
            placebo: 0.0,
            may_fail: matters && unit.pair.p_degraded() >= SURE,
            effect,
            error,
            level: None,
            since: unit.since,
            usable: unit.usable,
            transient: unit.disturbed && unit.pair.p_degraded() < 0.5,
        }
    }
}
