//! New hosts with control hosts at the same time, less the difference they had before. Where that is not known, and
//! where the controls themselves drift apart, how far hosts of one version lie apart is left as doubt.

use super::spread::Spread;
use super::{LEAST_SIGMA, Residuals, Source, column_means, column_medians, difference};
use crate::frame::Track;
use crate::profile::LogScale;
use crate::robust;

/// Baseline samples that weigh as much as the belief that hosts are alike.
const ALIKE: f64 = 4.0;
/// Fewest samples to learn a difference from.
const LEAST_SAMPLES: usize = 6;
/// Hosts that weigh as much as the belief that controls do not drift apart.
const DRIFT_WEIGHT: f64 = 2.0;
const MOST_AUTOCORRELATION: f64 = 0.85;

/// The controls of one metric on the logarithmic scale.
struct Controls {
    before: Vec<Vec<f64>>,
    during: Vec<Vec<f64>>,
    middle_before: Vec<f64>,
    middle_during: Vec<f64>,
    spread: Spread,
}

/// See [`super::residuals`].
pub(super) fn residuals(source: &Source<'_>) -> Vec<Option<Residuals>> {
    let frame = source.frame;
    let tracks: Vec<&Track> =
        frame.controls.iter().filter_map(|host| frame.track(source.metric, &host.name)).collect();
    let pooled: Vec<f64> = tracks.iter().flat_map(|track| track.recent.iter().copied()).collect();
    let Some(scale) = LogScale::new(&source.profile, &pooled) else {
        return vec![None; frame.new_hosts.len()];
    };
    let controls = Controls::new(&tracks, &scale);
    let noise = controls.differences_before();
    let inflation = controls.inflation(&noise);
    let drift = controls.drift(&noise);
    let of_host = |host: usize| {
        let track = source.track(host)?;
        let mut residuals = controls.compare(track, &scale)?;
        residuals.control = noise.clone();
        residuals.inflation = inflation[..residuals.live.len()].to_vec();
        if track.has_past() {
            residuals.systematic = drift[..residuals.live.len()].to_vec();
        } else {
            let doubt = controls.spread.of_one();
            residuals.systematic.iter_mut().for_each(|systematic| *systematic += doubt);
            residuals.relief = doubt - controls.spread.of_mean(frame.new_hosts.len());
        }
        let switch = frame.new_hosts[host].switch.min(residuals.live.len());
        residuals.live[..switch].fill(f64::NAN);
        Some(residuals)
    };
    (0..frame.new_hosts.len()).map(of_host).collect()
}

impl Controls {
    fn new(tracks: &[&Track], scale: &LogScale) -> Self {
        let before: Vec<Vec<f64>> = tracks.iter().map(|track| scale.apply_all(&track.recent)).collect();
        let during: Vec<Vec<f64>> = tracks.iter().map(|track| scale.apply_all(&track.live)).collect();
        let (middle_before, middle_during) = (middle(&before), middle(&during));
        let level = |row: &Vec<f64>| robust::median(&difference(row, &middle_before));
        let levels: Vec<f64> = before.iter().filter_map(level).collect();
        Self { before, during, middle_before, middle_during, spread: Spread::of(&levels) }
    }

    fn compare(&self, track: &Track, scale: &LogScale) -> Option<Residuals> {
        let apart = difference(&scale.apply_all(&track.recent), &self.middle_before);
        let known = apart.iter().filter(|v| v.is_finite()).count();
        let mut offset = 0.0;
        if known >= LEAST_SAMPLES {
            offset = robust::median(&apart)? * known as f64 / (known as f64 + ALIKE);
        }
        let live = difference(&scale.apply_all(&track.live), &self.middle_during);
        Some(Residuals {
            baseline: apart.iter().map(|v| v - offset).collect(),
            control: Vec::new(),
            systematic: vec![0.0; live.len()],
            leaning: Vec::new(),
            inflation: Vec::new(),
            expected: self.middle_during.iter().map(|middle| middle + offset).collect(),
            scale: *scale,
            relief: 0.0,
            drift: 0.0,
            drift_doubt: Vec::new(),
            live: live.iter().map(|v| v - offset).collect(),
        })
    }

    /// Each control against the others, as if it were new, before the deployment.
    fn differences_before(&self) -> Vec<Vec<f64>> {
        let mut rows = self.each_against_the_others(&self.before);
        for row in &mut rows {
            let level = robust::median(row).unwrap_or(0.0);
            row.iter_mut().for_each(|value| *value -= level);
        }
        rows
    }

    fn each_against_the_others(&self, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        if rows.len() < 2 {
            return Vec::new();
        }
        let apart = |i: usize| {
            let others = rows.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, row)| row.as_slice());
            difference(&rows[i], &column_means(others, rows[i].len()))
        };
        (0..rows.len()).map(apart).collect()
    }

    /// How far the controls have drifted apart since the deployment, beyond their noise: one more host may have as well.
    fn drift(&self, before: &[Vec<f64>]) -> Vec<f64> {
        let now = self.each_against_the_others(&self.during);
        let levels = self.each_against_the_others(&self.before);
        let known =
            |(row, apart): (&Vec<f64>, &Vec<f64>)| Some((robust::median(row)?, robust::summary(apart)?));
        let known: Vec<Option<(f64, robust::Summary)>> = levels.iter().zip(before).map(known).collect();
        let hosts = now.len() as f64;
        let mut sums = vec![(0.0, 0.0); now.len()];
        let mut at = |t: usize| {
            let mut excess = 0.0;
            for ((row, known), (sum, n)) in now.iter().zip(&known).zip(&mut sums) {
                let Some((level, noise)) = known else { continue };
                if let Some(value) = row.get(t).filter(|v| v.is_finite()) {
                    *sum += value - level;
                    *n += 1.0;
                }
                let phi = noise.autocorrelation.clamp(0.0, MOST_AUTOCORRELATION);
                let by_noise = noise.sigma * noise.sigma * (1.0 + phi) / (1.0 - phi);
                excess += if *n > 0.0 { (*sum / *n) * (*sum / *n) - by_noise / *n } else { 0.0 };
            }
            (excess.max(0.0) / (hosts + DRIFT_WEIGHT) * (hosts - 1.0) / hosts.max(1.0)).max(0.0).sqrt()
        };
        (0..self.middle_during.len()).map(&mut at).collect()
    }

    /// Running ratio of the controls' disagreement now to the one before, at least 1, shrunk to 1.
    fn inflation(&self, before: &[Vec<f64>]) -> Vec<f64> {
        let now = self.each_against_the_others(&self.during);
        let steps = self.middle_during.len();
        let levels = self.each_against_the_others(&self.before);
        let scale = |(row, apart): (&Vec<f64>, &Vec<f64>)| {
            Some((robust::median(row)?, robust::summary(apart)?.sigma.max(LEAST_SIGMA)))
        };
        let scales: Vec<Option<(f64, f64)>> = levels.iter().zip(before).map(scale).collect();
        let (mut squares, mut n) = (0.0, 0.0);
        let mut at = |t: usize| {
            for (row, scale) in now.iter().zip(&scales) {
                if let (Some(value), Some((level, sigma))) = (row.get(t).filter(|v| v.is_finite()), scale) {
                    let z = ((value - level) / sigma).clamp(-4.0, 4.0);
                    squares += z * z;
                    n += 1.0;
                }
            }
            ((squares + 20.0) / (n + 20.0)).max(1.0).sqrt()
        };
        (0..steps).map(&mut at).collect()
    }
}

fn middle(rows: &[Vec<f64>]) -> Vec<f64> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let slices: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    if rows.len() > 2 {
        column_medians(&slices, columns)
    } else {
        column_means(slices.iter().copied(), columns)
    }
}
