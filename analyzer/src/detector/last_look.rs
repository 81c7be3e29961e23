//! The last look: at the end of the window nothing more will come, so that a lasting change of the level, or of the
//! spread, may be tested once over a stretch that is fixed beforehand. No search over onsets, and no price for one.

use super::unit::Observation;
use super::{Change, Finding};
use crate::maths::{ln, student_t_cdf};
use crate::noise::Noise;
use crate::profile::{Family, Profile};
use crate::robust;

/// Samples of a stretch at the end; the other stretch is the whole window.
const LATE_SAMPLES: usize = 15;
/// Samples over which the spread is taken.
const SPREAD_SAMPLES: usize = 30;
/// A stretch needs this part of its samples.
const LEAST_PART: f64 = 0.6;
const LEAST_SAMPLES: usize = 10;
/// A spread needs more: squares are wild.
const LEAST_FOR_SPREAD: usize = 15;
/// Fewest samples of the past that calibrate anything.
const LEAST_PAST: usize = 60;
/// Noise that depends on itself more than this wanders too far for a mean to tell.
const MOST_AUTOCORRELATION: f64 = 0.7;
/// Residuals count as at most so many sigmas.
const CLIP: f64 = 4.0;
/// The same for a spread.
const WIDEST: f64 = 4.0;
/// A change must exceed what any stretch of the past reached by this factor.
const BEYOND_PAST: f64 = 1.25;
/// How alike the spreads of a mean and a percentile of the same requests are.
const TOGETHER: f64 = 0.6;
/// No single look says more: it is calibrated, no theorem, and must not reach what rolls back without a person.
const MOST_EVIDENCE: f64 = 5.0;
/// Evidence is ln(1 / p) less this: each of the looks of each unit pays it.
const PRICE: f64 = 3.3;
/// A smallest change below this (ln ratio) asks for changes of any size; whoever does pays so much less for evidence, with
/// more false Fails of that metric.
const ANY_SIZE: f64 = 0.02;
const ANY_SIZE_PAYS: f64 = 1.9;
/// Hosts younger than this may be warming up: for a level, and for a spread around its median.
const SETTLED_MIN: f64 = 8.0;
const WARM_MIN: f64 = 4.0;
/// A spread counts when the third highest sample is this many gates and sigmas out; the part of it that is the effect.
const SPREAD_GATES: f64 = 2.2;
const SPREAD_SIGMAS: f64 = 1.5;
const SPREAD_EFFECT: f64 = 0.6;

/// What a metric is held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Least change that may fail.
    least: f64,
    /// A person asked for changes of any size.
    any_size: bool,
    /// The drift that was carried on, in the bad direction, per sample.
    drift: f64,
    /// Whether a wider spread is a degradation.
    spreads: bool,
}

impl Terms {
    /// Of a profile, in the direction of `sign`, where `drift` a sample was carried on.
    pub(super) fn new(profile: &Profile, sign: f64, drift: f64) -> Self {
        let of_values = matches!(profile.family, Family::Latency | Family::TailLatency | Family::Other);
        Self {
            least: profile.gate,
            any_size: profile.gate < ANY_SIZE,
            drift: sign * drift,
            spreads: of_values && sign > 0.0,
        }
    }

    fn price(&self) -> f64 {
        if self.any_size { PRICE - ANY_SIZE_PAYS } else { PRICE }
    }
}

/// What is known before the window.
#[derive(Debug, Clone)]
pub(super) struct Past {
    /// Residuals in the bad direction, in order of time.
    pub(super) residuals: Vec<f64>,
    pub(super) noise: Noise,
    pub(super) terms: Terms,
}

impl Past {
    /// Looks at the window of a host: the clearest change that matters, and what there is of a change of the spread.
    pub(super) fn look(&self, window: &[Observation]) -> (Option<LastLook>, Option<Spread>) {
        let calibration = Calibration::learn(self, window.len());
        calibration.map_or((None, None), |calibration| calibration.look(window))
    }
}

/// What the past says about stretches of the window's length.
#[derive(Debug, Clone, Copy)]
struct Calibration {
    noise: Noise,
    /// Least change that may fail.
    least: f64,
    /// By how much a drift that was not seen, or not all of it, may carry the level away, for each sample ahead:
    /// as a standard error, and as a bias.
    drift: [f64; 2],
    /// Highest mean of any stretch: of the end's length, and of the window's.
    highest: [f64; 2],
    /// See [`deviation`].
    deviation: Option<(f64, f64, f64)>,
    price: f64,
}

/// What the last look found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LastLook {
    pub(super) ln_evidence: f64,
    pub(super) size: f64,
    pub(super) error: f64,
    pub(super) matters: bool,
    /// Samples that it rests on.
    pub(super) samples: usize,
}

impl LastLook {
    /// What a unit shows at the end: what it has followed until then, or this where it is clearer.
    pub(super) fn over(self, finding: Finding, newest_step: usize) -> Finding {
        if !self.matters || self.ln_evidence <= finding.ln_evidence {
            return finding;
        }
        Finding {
            ln_evidence: self.ln_evidence,
            may_fail: true,
            effect: Change::LnRatio(self.size),
            error: self.error,
            level: None,
            since: Some((newest_step + 1).saturating_sub(self.samples)),
            transient: false,
            ..finding
        }
    }
}

/// A change of the spread in standard errors, and what it takes to weigh it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    t: f64,
    degrees: u32,
    price: f64,
    look: LastLook,
}

impl Spread {
    /// Two views of the same requests, taken together: their sum in units of its own standard error.
    pub(super) fn joined(self, other: Self) -> LastLook {
        let t = (self.t + other.t) / (2.0 * (1.0 + TOGETHER)).sqrt();
        let evidence = evidence(t, self.degrees.min(other.degrees), self.price.max(other.price));
        let (larger, smaller) =
            if self.look.size >= other.look.size { (self.look, other.look) } else { (other.look, self.look) };
        LastLook { ln_evidence: evidence, matters: larger.matters || smaller.matters, ..larger }
    }
}

/// ln of 1 / p of a t-value, less the price.
fn evidence(t: f64, degrees: u32, price: f64) -> f64 {
    (-ln((1.0 - student_t_cdf(t, degrees)).max(f64::MIN_POSITIVE)) - price).min(MOST_EVIDENCE)
}

impl Calibration {
    /// For a window of so many steps; `None` where the past is too short, or wanders too far.
    fn learn(past: &Past, steps: usize) -> Option<Self> {
        let Past { residuals: past, noise, terms } = past;
        let n = past.iter().filter(|r| r.is_finite()).count();
        if n < LEAST_PAST || noise.autocorrelation > MOST_AUTOCORRELATION {
            return None;
        }
        let clip = CLIP * noise.sigma;
        let clipped: Vec<f64> = past.iter().map(|r| r.clamp(-clip, clip)).collect();
        let highest = [LATE_SAMPLES, steps].map(|k| highest_mean(&clipped, k.min(past.len() / 2)));
        let dependence = (1.0 + noise.autocorrelation) / (1.0 - noise.autocorrelation);
        let n = n as f64;
        let line = noise.sigma * (12.0 * dependence / (n * n * n)).sqrt();
        let medians = noise.sigma * (std::f64::consts::PI * dependence / (n / 3.0)).sqrt() / (2.0 * n / 3.0);
        // A drift is carried on less what may be noise, see `trend`.
        let drift = match terms.drift {
            _ if terms.any_size => [0.0, 0.0],
            drift if drift > 0.0 => [medians, medians],
            _ => [line, 0.0],
        };
        let deviation = if terms.spreads { deviation(past, noise.sigma) } else { None };
        Some(Self { noise: *noise, least: terms.least, drift, highest, deviation, price: terms.price() })
    }

    /// Looks at the window.
    fn look(&self, window: &[Observation]) -> (Option<LastLook>, Option<Spread>) {
        let older_than = |age: f64| -> Vec<Observation> {
            window.iter().filter(|one| one.age_min >= age).copied().collect()
        };
        let settled = older_than(SETTLED_MIN);
        let late = settled.len().saturating_sub(LATE_SAMPLES);
        let end = window.len() as f64;
        let shifts = [
            self.shift(&settled[late..], 0, end - 0.5 * LATE_SAMPLES as f64),
            self.shift(&settled, 1, end - 0.5 * settled.len() as f64),
        ];
        let warm = older_than(WARM_MIN);
        let spread = self.spread(&warm[warm.len().saturating_sub(SPREAD_SAMPLES)..]);
        let looks = shifts.into_iter().chain([spread.map(|spread| spread.look)]).flatten();
        let best = looks.filter(|look| look.matters).max_by(|a, b| a.ln_evidence.total_cmp(&b.ln_evidence));
        (best, spread)
    }

    fn degrees(&self) -> u32 {
        u32::try_from(self.noise.n / 5).unwrap_or(u32::MAX).clamp(5, 61) | 1
    }

    /// `middle` is that of the stretch, in samples from the beginning of the window.
    fn shift(&self, stretch: &[Observation], which: usize, middle: f64) -> Option<LastLook> {
        let clip = CLIP * self.noise.sigma;
        let finite: Vec<&Observation> = stretch.iter().filter(|one| one.residual.is_finite()).collect();
        let k = finite.len();
        if k < LEAST_SAMPLES || (k as f64) < LEAST_PART * stretch.len() as f64 {
            return None;
        }
        let mean = |of: fn(&Observation) -> f64| finite.iter().map(|one| of(one)).sum::<f64>() / k as f64;
        let size = finite.iter().map(|one| one.residual.clamp(-clip, clip)).sum::<f64>() / k as f64;
        let sigma = mean(|one| one.sigma);
        let steady = mean(|one| one.systematic - one.leaning.abs());
        let doubt = self.noise.standard_error() + steady + mean(|one| one.leaning).abs();
        let phi = self.noise.autocorrelation;
        let ahead = (0.5 * self.noise.n as f64 + middle).min(self.noise.n as f64);
        let [drift, bias] = self.drift.map(|drift| drift * ahead);
        let size = size - bias;
        let own = sigma * sigma * (1.0 + phi) / (1.0 - phi) / k as f64;
        let error = (own + doubt * doubt + drift * drift).sqrt();
        if size <= BEYOND_PAST * self.highest[which] {
            return None;
        }
        let ln_evidence = evidence(size / error, self.degrees(), self.price);
        // A mean that is only just beyond the least that matters may well be below it.
        let matters = size - error >= self.least;
        Some(LastLook { ln_evidence, size, error, matters, samples: k })
    }

    fn spread(&self, stretch: &[Observation]) -> Option<Spread> {
        let (usual, variation, highest) = self.deviation?;
        let mut residuals: Vec<f64> = stretch
            .iter()
            .filter(|one| one.residual.is_finite())
            .map(|one| one.residual * (self.noise.sigma / one.sigma).min(1.0))
            .collect();
        let doubt = stretch.iter().map(|one| one.systematic).sum::<f64>() / stretch.len() as f64;
        let k = residuals.len();
        if k < LEAST_FOR_SPREAD || (k as f64) < LEAST_PART * stretch.len() as f64 {
            return None;
        }
        let middle = robust::median(&residuals)?;
        let most = (WIDEST * self.noise.sigma).powi(2);
        let squares = residuals.iter().map(|r| (r - middle).powi(2).min(most)).sum::<f64>() / k as f64;
        // What the doubt about the load brings is no spread.
        let ratio = 0.5 * ln((squares - doubt * doubt).max(f64::MIN_POSITIVE) / usual);
        if ratio <= BEYOND_PAST * highest {
            return None;
        }
        let phi2 = self.noise.autocorrelation * self.noise.autocorrelation;
        let dependence = (1.0 + phi2) / (1.0 - phi2);
        let error = variation * (dependence * (1.0 / k as f64 + 1.0 / self.noise.n as f64)).sqrt();
        residuals.sort_unstable_by(f64::total_cmp);
        let high = residuals[k - 3];
        let matters = high >= (SPREAD_GATES * self.least).max(SPREAD_SIGMAS * self.noise.sigma);
        let (t, degrees, price) = (ratio / error, self.degrees(), self.price);
        let ln_evidence = evidence(t, degrees, price);
        let look = LastLook { ln_evidence, size: SPREAD_EFFECT * high, error: f64::NAN, matters, samples: k };
        Some(Spread { t, degrees, price, look })
    }
}

/// The highest mean of `k` samples in a row, gaps left out; 0 where all are below.
fn highest_mean(past: &[f64], k: usize) -> f64 {
    let k = k.max(1);
    let (mut sum, mut n, mut highest) = (0.0, 0.0, 0.0_f64);
    for (i, value) in past.iter().enumerate() {
        if value.is_finite() {
            (sum, n) = (sum + value, n + 1.0);
        }
        if let Some(gone) = i.checked_sub(k).and_then(|i| past.get(i)).filter(|gone| gone.is_finite()) {
            (sum, n) = (sum - gone, n - 1.0);
        }
        if i + 1 >= k && n >= LEAST_PART * k as f64 {
            highest = highest.max(sum / n);
        }
    }
    highest
}

/// Usual square of the deviation from the median, the coefficient of variation of its root, and ln of the highest root of
/// any stretch over the usual one.
fn deviation(past: &[f64], sigma: f64) -> Option<(f64, f64, f64)> {
    let middle = robust::median(past)?;
    let most = (WIDEST * sigma).powi(2);
    let all: Vec<f64> = past.iter().map(|r| (r - middle).powi(2).min(most)).collect();
    let finite = robust::finite(&all);
    let usual = robust::mean(&finite).filter(|mean| *mean > 0.0)?;
    let variance = finite.iter().map(|d| (d - usual).powi(2)).sum::<f64>() / finite.len() as f64;
    // Of a root it is half of that of the square (delta method); normal values have 1 / sqrt(2).
    let variation = (0.5 * variance.sqrt() / usual).max(std::f64::consts::FRAC_1_SQRT_2);
    let highest = highest_mean(&all, SPREAD_SAMPLES.min(past.len() / 3));
    Some((usual, variation, 0.5 * ln(highest / usual).max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGMA: f64 = 0.1;

    /// Independent noise without a pattern: the fractional parts of multiples of the golden ratio, as quantiles.
    fn noise(n: usize, sigma: f64) -> Vec<f64> {
        let quantile = |i: usize| crate::maths::normal_quantile((0.5 + i as f64 * 0.618_033_988_75).fract());
        (1..=n).map(|i| sigma * quantile(i)).collect()
    }

    fn past(least: f64, spreads: bool) -> Past {
        let noise_of_past = Noise { sigma: SIGMA, autocorrelation: 0.0, n: 180 };
        let terms = Terms { least, any_size: least < ANY_SIZE, drift: 0.0, spreads };
        Past { residuals: noise(180, SIGMA), noise: noise_of_past, terms }
    }

    fn window(residuals: &[f64]) -> Vec<Observation> {
        let of = |(i, residual): (usize, &f64)| Observation {
            residual: *residual,
            sigma: SIGMA,
            dead_zone: 0.04,
            doubt: 0.01,
            systematic: 0.0,
            leaning: 0.0,
            age_min: i as f64,
            restarted: false,
        };
        residuals.iter().enumerate().map(of).collect()
    }

    fn lifted(lift: f64, from: usize) -> Vec<Observation> {
        let mut residuals = noise(60, SIGMA);
        residuals.iter_mut().skip(from).for_each(|residual| *residual += lift);
        window(&residuals)
    }

    #[test]
    fn a_late_change_is_found_and_noise_is_not() {
        let past = past(0.063, true);
        assert_eq!(past.look(&lifted(0.0, 0)).0, None);
        let late = past.look(&lifted(0.18, 45)).0.unwrap();
        assert!(late.matters && late.ln_evidence >= 3.3 && (late.size - 0.18).abs() < 0.03, "{late:?}");
        assert_eq!(late.samples, 15);
        let whole = past.look(&lifted(0.15, 0)).0.unwrap();
        assert!(whole.ln_evidence >= 3.3, "{whole:?}");
    }

    #[test]
    fn what_is_too_small_to_matter_is_nothing_unless_asked_for() {
        assert_eq!(past(0.063, false).look(&lifted(0.05, 0)).0, None);
        let found = past(0.0, false).look(&lifted(0.05, 0)).0.unwrap();
        assert!(found.ln_evidence > 1.0 && found.samples > 40, "{found:?}");
    }

    #[test]
    fn no_evidence_reaches_what_acts_without_a_person() {
        let found = past(0.063, true).look(&lifted(3.0, 0)).0.unwrap();
        assert_eq!(found.ln_evidence, MOST_EVIDENCE);
        assert!(MOST_EVIDENCE < crate::sequential::Thresholds::default().rollback);
    }

    #[test]
    fn a_wider_spread_is_found_where_it_counts_and_two_views_say_more() {
        let wide = window(&noise(60, 2.0 * SIGMA));
        let (found, spread) = past(0.063, true).look(&wide);
        let (found, spread) = (found.unwrap(), spread.unwrap());
        assert!(found.matters && found.ln_evidence > 2.0, "{found:?}");
        assert!(spread.joined(spread).ln_evidence >= found.ln_evidence);
        assert_eq!(past(0.063, false).look(&wide), (None, None));
    }

    #[test]
    fn a_short_past_and_a_wandering_one_tell_nothing() {
        let short = Past { residuals: noise(50, SIGMA), ..past(0.063, true) };
        let wandering =
            Past { noise: Noise { autocorrelation: 0.8, ..past(0.063, true).noise }, ..past(0.063, true) };
        for past in [short, wandering] {
            assert_eq!(past.look(&lifted(0.5, 0)), (None, None));
        }
    }

    #[test]
    fn a_spike_is_no_lasting_change() {
        let mut residuals = noise(60, SIGMA);
        residuals[50..52].fill(1.6);
        assert_eq!(past(0.063, true).look(&window(&residuals)).0.filter(|look| look.ln_evidence > 3.3), None);
    }

    #[test]
    fn the_highest_mean_slides_over_gaps() {
        assert_eq!(highest_mean(&[1.0, f64::NAN, 3.0, 5.0, -9.0], 2), 4.0);
        assert_eq!(highest_mean(&[-1.0, -2.0], 1), 0.0);
    }
}
