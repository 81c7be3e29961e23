//! Who may decide with how much: the weights of the evidence, what each metric's sensitivity adds to the threshold,
//! and the critical metrics, which decide alone.
//!
//! The weights of all units that count sum to 1, so the average is an e-value whatever they are. Sensitivity moves a
//! metric's threshold by some nats, which multiplies its share of the error budget by their exponential. A critical
//! metric is judged twice: in the average as any other, and by itself with weights that sum to 1, at the price of an
//! error budget of its own.

use crate::detector::Detector;
use crate::maths::ln;
use vouch_proto::{MetricSettings, Sensitivity};

/// Nats that a metric of low sensitivity needs beyond the threshold: with them it asks for 5.7, as rolling back does.
const LOW: f64 = 1.7;
/// Nats that a metric of high sensitivity needs less: 3.0 instead of 4.0.
const HIGH: f64 = -1.0;

/// A detector with its place among the others.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) detector: Box<dyn Detector>,
    /// The metric that it watches, the first of two.
    pub(crate) metric: String,
    /// How that metric is judged; of two they agree on all that matters here.
    pub(crate) settings: MetricSettings,
    /// With the template's where the metric does not say.
    pub(crate) sensitivity: Sensitivity,
}

/// The weights of one way to add the evidence up: for each seat, for each unit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weights(Vec<Vec<f64>>);

/// All ways in which the evidence can suffice.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In the average over all metrics.
    pub(crate) average: Weights,
    /// Each critical metric by itself.
    pub(crate) critical: Vec<(String, Weights)>,
}

impl Seat {
    /// Nats beyond the threshold that the metric needs.
    pub(crate) fn extra(&self) -> f64 {
        match self.sensitivity {
            Sensitivity::Low => LOW,
            Sensitivity::Medium => 0.0,
            Sensitivity::High => HIGH,
        }
    }

    fn claim(&self) -> f64 {
        self.detector.questions() * self.settings.weight
    }
}

impl Weights {
    /// ln weight of a unit; of one that does not count, minus infinity.
    pub(crate) fn of(&self, seat: usize, unit: usize) -> f64 {
        self.0.get(seat).and_then(|units| units.get(unit)).copied().unwrap_or(f64::NEG_INFINITY)
    }

    /// Each seat's shares times its scale, divided by `total`; a scale of 0 does not count.
    fn new(seats: &[Seat], scales: &[f64], total: f64) -> Self {
        let total = if total > 0.0 { total } else { 1.0 };
        let of_seat = |(seat, scale): (&Seat, &f64)| {
            (0..seat.detector.units())
                .map(|unit| match *scale > 0.0 {
                    true => ln(seat.detector.share(unit) * scale / total),
                    false => f64::NEG_INFINITY,
                })
                .collect()
        };
        Self(seats.iter().zip(scales).map(of_seat).collect())
    }
}

impl Budget {
    pub(crate) fn new(seats: &[Seat]) -> Self {
        let mut critical: Vec<(String, Weights)> = Vec::new();
        for seat in seats.iter().filter(|seat| seat.settings.critical && !seat.settings.muted) {
            if critical.iter().any(|(metric, _)| *metric == seat.metric) {
                continue;
            }
            let own = |other: &Seat| if other.metric == seat.metric { 1.0 } else { 0.0 };
            let scales: Vec<f64> = seats.iter().map(own).collect();
            let total =
                seats.iter().zip(&scales).map(|(seat, scale)| scale * seat.detector.questions()).sum();
            critical.push((seat.metric.clone(), Weights::new(seats, &scales, total)));
        }
        let (scales, total) = scales(seats);
        Self { average: Weights::new(seats, &scales, total), critical }
    }
}

/// What the shares of each seat are multiplied by, and the sum of all claims. A seat claims as many weights as it asks
/// questions; a group claims one weight, the highest of its members, which they share by their own claims.
fn scales(seats: &[Seat]) -> (Vec<f64>, f64) {
    let counted = |seat: &&Seat| !seat.settings.muted;
    let members = |group: &str| {
        let group = group.to_owned();
        seats.iter().filter(counted).filter(move |seat| seat.settings.group.as_ref() == Some(&group))
    };
    let mut seen: Vec<&str> = Vec::new();
    let mut total = 0.0;
    let mut scales = Vec::with_capacity(seats.len());
    for seat in seats {
        let weight = seat.settings.weight;
        match seat.settings.group.as_deref() {
            _ if seat.settings.muted => scales.push(0.0),
            None => {
                total += seat.claim();
                scales.push(weight);
            }
            Some(group) => {
                let most = members(group).map(|member| member.settings.weight).fold(0.0, f64::max);
                let claims: f64 = members(group).map(Seat::claim).sum();
                if !seen.contains(&group) {
                    seen.push(group);
                    total += most;
                }
                scales.push(weight * most / claims);
            }
        }
    }
    (scales, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::{Change, Finding, Rise, Sample};
    use proptest::prelude::*;
    use vouch_proto::Direction;

    #[derive(Debug)]
    struct Fixed {
        questions: usize,
    }

    impl Detector for Fixed {
        fn step(&mut self, _: usize) {}
        fn units(&self) -> usize {
            2 * self.questions
        }
        fn ln_evidence(&self, _: usize) -> f64 {
            0.0
        }
        fn questions(&self) -> f64 {
            self.questions as f64
        }
        fn share(&self, _: usize) -> f64 {
            0.5
        }
        fn exclusion(&self, _: usize) -> f64 {
            0.0
        }
        fn rise(&self, _: usize, _: usize) -> Option<Rise> {
            None
        }

        fn sample(&self, _: usize) -> Sample {
            Sample::NONE
        }
        fn finding(&self, _: usize) -> Finding {
            Finding {
                metrics: Vec::new(),
                host: String::new(),
                direction: Direction::Increase,
                against: "",
                ln_evidence: 0.0,
                placebo: 0.0,
                may_fail: false,
                effect: Change::LnRatio(0.0),
                error: 0.0,
                level: None,
                since: None,
                usable: 0,
                transient: false,
            }
        }
    }

    fn seat(metric: &str, questions: usize, settings: MetricSettings) -> Seat {
        let metric = metric.to_owned();
        Seat { detector: Box::new(Fixed { questions }), metric, settings, sensitivity: Sensitivity::Medium }
    }

    fn weight(weights: &Weights, seats: &[Seat], at: usize) -> f64 {
        (0..seats[at].detector.units()).map(|unit| libm::exp(weights.of(at, unit))).sum()
    }

    fn in_group(group: &str) -> MetricSettings {
        MetricSettings { group: Some(group.to_owned()), ..MetricSettings::default() }
    }

    #[test]
    fn by_default_each_question_has_the_same_weight() {
        let seats = [seat("a", 1, MetricSettings::default()), seat("b", 3, MetricSettings::default())];
        let average = Budget::new(&seats).average;
        assert!((weight(&average, &seats, 0) - 0.25).abs() < 1e-12);
        assert!((weight(&average, &seats, 1) - 0.75).abs() < 1e-12);
        assert_eq!(average.of(0, 0), ln(0.5 / 4.0));
    }

    #[test]
    fn a_group_shares_one_weight() {
        let mut seats: Vec<Seat> = ["a", "b", "c", "d", "e"].map(|m| seat(m, 1, in_group("latency"))).into();
        seats.push(seat("errors", 1, MetricSettings::default()));
        let average = Budget::new(&seats).average;
        assert!((weight(&average, &seats, 0) - 0.1).abs() < 1e-12);
        assert!((weight(&average, &seats, 5) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_critical_metric_has_all_the_weight_once_more() {
        let critical = MetricSettings { critical: true, weight: 0.01, ..MetricSettings::default() };
        let seats = [seat("a", 1, critical), seat("b", 1, MetricSettings::default())];
        let budget = Budget::new(&seats);
        assert_eq!(budget.critical.len(), 1);
        assert!((weight(&budget.critical[0].1, &seats, 0) - 1.0).abs() < 1e-12);
        assert_eq!(weight(&budget.critical[0].1, &seats, 1), 0.0);
        assert!(weight(&budget.average, &seats, 0) < 0.01);
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_whatever_is_asked_for(
            given in prop::collection::vec((0.01..100.0f64, 1..4usize, 0..4usize, prop::bool::weighted(0.2)), 1..9)
        ) {
            let seats: Vec<Seat> = given.iter().enumerate().map(|(i, (weight, questions, group, muted))| {
                let group = (*group > 0).then(|| format!("g{group}"));
                let settings =
                    MetricSettings { weight: *weight, group, muted: *muted, ..MetricSettings::default() };
                seat(&format!("m{i}"), *questions, settings)
            }).collect();
            let average = Budget::new(&seats).average;
            let sum: f64 = (0..seats.len()).map(|at| weight(&average, &seats, at)).sum();
            let all_muted = given.iter().all(|(_, _, _, muted)| *muted);
            prop_assert!((sum - if all_muted { 0.0 } else { 1.0 }).abs() < 1e-9, "{}", sum);
        }
    }
}
