//! Mean and high percentile of the same latency, taken together: two views of the same requests.

use super::last_look::LastLook;
use super::level::LevelDetector;
use super::unit::{LIKELY, LevelUnit, SURE};
use super::{ALL_HOSTS, Detector, Finding, Rise, Sample, host_share};
use crate::emission::{DEPENDENT, Emission};
use crate::pair::{LEVEL_STATES, Pair, PairModel, PairSettings};

/// Watches a mean and a percentile, each alone and both together.
#[derive(Debug)]
pub struct JointDetector {
    mean: LevelDetector,
    tail: LevelDetector,
    model: PairModel,
    joint: Vec<Joint>,
}

/// Both metrics on one host, or on all.
#[derive(Debug)]
struct Joint {
    /// Whether it stands for all hosts.
    is_group: bool,
    /// Its units in each detector.
    mean: usize,
    tail: usize,
    emissions: [Emission; 2],
    pair: Pair,
    since: Option<usize>,
    last_look: Option<LastLook>,
}

impl JointDetector {
    /// Joins two detectors of the same direction.
    #[must_use]
    pub fn new(mean: LevelDetector, tail: LevelDetector, step_min: f64) -> Self {
        let model = PairModel::new(PairSettings::LEVELS, step_min);
        let mut joint = Vec::new();
        for i in 0..mean.units() {
            let (name, unit) = mean.unit(i);
            let Some(j) = (0..tail.units()).find(|j| tail.unit(*j).0 == name) else { continue };
            joint.push(Joint {
                is_group: name == ALL_HOSTS,
                mean: i,
                tail: j,
                emissions: [unit.emission().tempered(), tail.unit(j).1.emission().tempered()],
                pair: model.start(),
                since: None,
                last_look: None,
            });
        }
        Self { mean, tail, model, joint }
    }
}

impl Joint {
    fn units<'a>(&self, mean: &'a LevelDetector, tail: &'a LevelDetector) -> [&'a LevelUnit; 2] {
        [mean.unit(self.mean).1, tail.unit(self.tail).1]
    }
}

/// Where a unit belongs.
enum Part<'a> {
    Mean(usize),
    Tail(usize),
    Joint(&'a Joint),
}

impl JointDetector {
    fn part(&self, unit: usize) -> Part<'_> {
        let (mean, tail) = (self.mean.units(), self.tail.units());
        if unit < mean {
            Part::Mean(unit)
        } else if unit < mean + tail {
            Part::Tail(unit - mean)
        } else {
            Part::Joint(&self.joint[unit - mean - tail])
        }
    }

    fn placebo(&self, joint: &Joint) -> f64 {
        DEPENDENT * joint.units(&self.mean, &self.tail).iter().map(|unit| unit.placebo()).sum::<f64>()
    }

    fn joint_finding(&self, joint: &Joint) -> Finding {
        let [mean, tail] = joint.units(&self.mean, &self.tail);
        let (first, second) = (mean.effect(), tail.effect());
        // Only the metrics that changed enough are blamed; the mean if none did.
        let names = match (first.matters, second.matters) {
            (true, true) => vec![self.mean.metric(), self.tail.metric()],
            (false, true) => vec![self.tail.metric()],
            (_, false) => vec![self.mean.metric()],
        };
        let base = if second.matters && !first.matters {
            self.tail.finding(joint.tail)
        } else {
            self.mean.finding(joint.mean)
        };
        let finding = Finding {
            metrics: names.into_iter().map(str::to_owned).collect(),
            ln_evidence: joint.pair.ln_evidence() - self.placebo(joint),
            placebo: self.placebo(joint),
            may_fail: (first.matters || second.matters) && joint.pair.p_degraded() >= SURE,
            since: joint.since,
            transient: false,
            ..base
        };
        match joint.last_look {
            Some(look) => look.over(finding, mean.newest_step()),
            None => finding,
        }
    }
}

impl Detector for JointDetector {
    fn step(&mut self, t: usize) {
        self.mean.step(t);
        self.tail.step(t);
        for joint in &mut self.joint {
            let [a, b] = joint.units(&self.mean, &self.tail);
            joint.last_look = a.spread.zip(b.spread).map(|(a, b)| a.joined(b)).filter(|look| look.matters);
            let Some(age_min) = a.newest_age().or(b.newest_age()) else { continue };
            let both = a.newest_likelihood(&joint.emissions[0]).zip(b.newest_likelihood(&joint.emissions[1]));
            let product = both.map(|(mut a, b)| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
                a
            });
            if a.restarted() || b.restarted() {
                self.model.restart(&mut joint.pair);
            }
            self.model.step(&mut joint.pair, product.as_ref(), age_min);
            if joint.pair.p_degraded() < LIKELY {
                joint.since = None;
            } else if joint.since.is_none() {
                joint.since = Some(t);
            }
        }
    }

    fn units(&self) -> usize {
        self.mean.units() + self.tail.units() + self.joint.len()
    }

    fn ln_evidence(&self, unit: usize) -> f64 {
        match self.part(unit) {
            Part::Mean(unit) => self.mean.ln_evidence(unit),
            Part::Tail(unit) => self.tail.ln_evidence(unit),
            Part::Joint(joint) => {
                let evidence = joint.pair.ln_evidence() - self.placebo(joint);
                joint.last_look.map_or(evidence, |look| evidence.max(look.ln_evidence))
            }
        }
    }

    fn questions(&self) -> f64 {
        3.0
    }

    fn share(&self, unit: usize) -> f64 {
        match self.part(unit) {
            Part::Mean(unit) => self.mean.share(unit),
            Part::Tail(unit) => self.tail.share(unit),
            Part::Joint(joint) => {
                let has_group = self.joint.iter().any(|joint| joint.is_group);
                host_share(joint.is_group, has_group, self.joint.len() - usize::from(has_group))
            }
        }
    }

    fn exclusion(&self, unit: usize) -> f64 {
        match self.part(unit) {
            Part::Mean(unit) => self.mean.exclusion(unit),
            Part::Tail(unit) => self.tail.exclusion(unit),
            Part::Joint(joint) if joint.pair.p_degraded() >= LIKELY => 0.0,
            Part::Joint(joint) => {
                let [mean, tail] = joint.units(&self.mean, &self.tail);
                mean.exclusion().min(tail.exclusion())
            }
        }
    }

    fn rise(&self, unit: usize, from: usize) -> Option<Rise> {
        match self.part(unit) {
            Part::Mean(unit) => self.mean.rise(unit, from),
            Part::Tail(unit) => self.tail.rise(unit, from),
            // Its parts say it all.
            Part::Joint(_) => None,
        }
    }

    fn watches(&self, unit: usize) -> Vec<String> {
        match self.part(unit) {
            Part::Mean(unit) => self.mean.watches(unit),
            Part::Tail(unit) => self.tail.watches(unit),
            Part::Joint(_) => vec![self.mean.metric().to_owned(), self.tail.metric().to_owned()],
        }
    }

    fn sample(&self, unit: usize) -> Sample {
        match self.part(unit) {
            Part::Mean(unit) => self.mean.sample(unit),
            Part::Tail(unit) => self.tail.sample(unit),
            Part::Joint(joint) => Sample {
                state: LEVEL_STATES[joint.pair.likeliest_state()],
                ln_evidence: joint.pair.ln_evidence() - self.placebo(joint),
                ..self.mean.sample(joint.mean)
            },
        }
    }

    fn finding(&self, unit: usize) -> Finding {
        match self.part(unit) {
            Part::Mean(unit) => self.mean.finding(unit),
            Part::Tail(unit) => self.tail.finding(unit),
            Part::Joint(joint) => self.joint_finding(joint),
        }
    }
}
