//! What each metric was expected to be without the deployment, so that what is left is what the deployment did.
//! One file per comparison; everything at a minute depends on that minute and the ones before.

mod control;
mod old_stack;
mod past;
pub(crate) mod pinned;
mod remaining;
mod season;
mod spread;

use crate::frame::{Comparison, Frame, Track};
use crate::profile::{LogScale, Profile};
use crate::robust;

/// No metric is quieter than this (ln): rounding alone is about as large.
pub const LEAST_SIGMA: f64 = 0.012;

/// What a metric did beyond expectation, on one host that runs the new version. ln ratios, up is up.
#[derive(Debug, Clone, Default)]
pub struct Residuals {
    /// Before the deployment, in order of time.
    pub baseline: Vec<f64>,
    /// How the control hosts differed from each other before the deployment.
    pub control: Vec<Vec<f64>>,
    /// Per step of the verification; `NaN` before the switch and in gaps.
    pub live: Vec<f64>,
    /// By how much the expectation may be wrong for reasons that do not average out, per step.
    pub systematic: Vec<f64>,
    /// The same with the sign of the load's deviation from the usual: over minutes of more and of less load the doubt about
    /// a slope averages out.
    pub leaning: Vec<f64>,
    /// How much more the noise is than in the baseline, by what the controls show, per step.
    pub inflation: Vec<f64>,
    /// Value that a residual of zero stands for, per step, on the logarithmic scale.
    pub expected: Vec<f64>,
    /// The scale of `expected`.
    pub scale: LogScale,
    /// The drift that was carried on, per sample; 0 where none was sure, or where none is needed.
    pub drift: f64,
    /// How far that drift may have carried the level beyond the expected one, per step; empty where there is none.
    pub drift_doubt: Vec<f64>,
    /// The part of `systematic` that the mean of all new hosts is free of.
    pub relief: f64,
}

impl Residuals {
    /// How far the doubt of a step leans to one side; 0 where it is the same on both.
    #[must_use]
    pub fn leaning_at(&self, t: usize) -> f64 {
        let most = self.systematic.get(t).copied().unwrap_or(0.0);
        self.leaning.get(t).map_or(0.0, |leaning| leaning.clamp(-most, most))
    }
}

/// Where a metric's expectation comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// All series.
    pub frame: &'a Frame,
    /// The metric.
    pub metric: &'a str,
    /// What is assumed about it.
    pub profile: Profile,
    /// The metric that tells the load, if any.
    pub load: Option<&'a str>,
}

/// Residuals of each new host; `None` for a host without any reference.
#[must_use]
pub fn residuals(source: &Source<'_>) -> Vec<Option<Residuals>> {
    let hosts = 0..source.frame.new_hosts.len();
    match source.frame.comparison {
        Comparison::Past => hosts.map(|host| past::residuals(source, host)).collect(),
        Comparison::Control => control::residuals(source),
        Comparison::Remaining => hosts.map(|host| remaining::residuals(source, host)).collect(),
        Comparison::OldStack => old_stack::residuals(source),
        Comparison::Pinned => hosts.map(|host| pinned::residuals(source, host)).collect(),
    }
}

impl Source<'_> {
    fn track(&self, host: usize) -> Option<&Track> {
        self.frame.track(self.metric, &self.frame.new_hosts[host].name)
    }

    /// The load that the host saw, or the whole service.
    fn load_track(&self, host: usize) -> Option<&Track> {
        let load = self.load?;
        let own = self.frame.track(load, &self.frame.new_hosts[host].name);
        own.or_else(|| self.frame.tracks(load).next().map(|(_, track)| track))
    }

    fn scale(&self, track: &Track) -> Option<LogScale> {
        LogScale::new(&self.profile, &track.recent)
    }
}

/// Mean of each column over the rows, gaps left out.
pub(crate) fn column_means<'a>(rows: impl Iterator<Item = &'a [f64]> + Clone, columns: usize) -> Vec<f64> {
    let column = |t: usize| {
        let (sum, n) = rows
            .clone()
            .filter_map(|row| row.get(t).filter(|v| v.is_finite()))
            .fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
        if n > 0.0 { sum / n } else { f64::NAN }
    };
    (0..columns).map(column).collect()
}

/// Median of each column over the rows, gaps left out.
fn column_medians(rows: &[&[f64]], columns: usize) -> Vec<f64> {
    let mut column = Vec::with_capacity(rows.len());
    let mut median = |t: usize| {
        column.clear();
        column.extend(rows.iter().filter_map(|row| row.get(t)).filter(|v| v.is_finite()));
        robust::median_in_place(&mut column).unwrap_or(f64::NAN)
    };
    (0..columns).map(&mut median).collect()
}

/// Element-wise difference, as far as both reach.
fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}
