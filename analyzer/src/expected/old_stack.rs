//! The hosts of a new stack with those of the old one before the switch: they have no past of their own. What an old
//! host usually showed is moved by load and drift; how far hosts of one stack lie apart is left as doubt.
//!
//! Throughput is that of both stacks together: they may have different numbers of hosts, and share the traffic for a
//! while. A host without a sample counts like the others of its stack: a gap is not zero.

use super::spread::Spread;
use super::{LEAST_SIGMA, Residuals, Source, column_means, column_medians, difference, past};
use crate::frame::{FrameHost, Track};
use crate::profile::{Family, LogScale};
use crate::robust;

/// What the old stack showed in one metric.
struct OldStack {
    /// An old host; or the whole, for throughput.
    usual: Track,
    load: Option<Track>,
    /// What old hosts showed beyond expectation before the switch, each as loud as the usual one.
    rows: Vec<Vec<f64>>,
    /// `None` for the whole.
    spread: Option<Spread>,
}

/// See [`super::residuals`].
pub(super) fn residuals(source: &Source<'_>) -> Vec<Option<Residuals>> {
    let stack = OldStack::new(source);
    (0..source.frame.new_hosts.len()).map(|host| stack.as_ref()?.compare(source, host)).collect()
}

/// How several hosts become one.
type Merge = fn(&[&[f64]], usize) -> Vec<f64>;

fn merged(tracks: &[&Track], merge: Merge) -> Track {
    let rows = |part: &dyn Fn(&Track) -> Vec<f64>| -> Vec<f64> {
        let rows: Vec<Vec<f64>> = tracks.iter().map(|track| part(track)).collect();
        let slices: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        merge(&slices, rows.iter().map(Vec::len).max().unwrap_or(0))
    };
    let windows = tracks.iter().map(|track| track.earlier.len()).max().unwrap_or(0);
    let earlier = |window: usize| rows(&|track| track.earlier.get(window).cloned().unwrap_or_default());
    Track {
        recent: rows(&|track| track.recent.clone()),
        earlier: (0..windows).map(earlier).collect(),
        live: rows(&|track| track.live.clone()),
    }
}

/// All hosts together, those without a sample taken to be like the rest.
fn total(rows: &[&[f64]], columns: usize) -> Vec<f64> {
    let hosts = rows.len() as f64;
    column_means(rows.iter().copied(), columns).into_iter().map(|mean| mean * hosts).collect()
}

impl OldStack {
    fn new(source: &Source<'_>) -> Option<Self> {
        let tracks = old_tracks(source, source.metric);
        if source.profile.family == Family::Throughput {
            return Self::of_the_whole(source, &tracks);
        }
        let usual = merged(&tracks, column_medians);
        let scale = LogScale::new(&source.profile, &usual.recent)?;
        let middle = scale.apply_all(&usual.recent);
        let level = |track: &&Track| robust::median(&difference(&scale.apply_all(&track.recent), &middle));
        let levels: Vec<f64> = tracks.iter().filter_map(level).collect();
        let mut rows: Vec<Vec<f64>> =
            source.frame.controls.iter().filter_map(|host| own_residuals(source, &host.name)).collect();
        make_alike(&mut rows);
        let load = old_load(source, column_medians);
        (!rows.is_empty()).then_some(Self { usual, load, rows, spread: Some(Spread::of(&levels)) })
    }

    fn of_the_whole(source: &Source<'_>, tracks: &[&Track]) -> Option<Self> {
        let usual = merged(tracks, total);
        let load = old_load(source, total);
        let before = Track { live: Vec::new(), ..usual.clone() };
        let load_before = load.clone().map(|load| Track { live: Vec::new(), ..load });
        let row = past::of_tracks(&source.profile, &before, load_before.as_ref(), 0)?.baseline;
        Some(Self { usual, load, rows: vec![row], spread: None })
    }

    fn compare(&self, source: &Source<'_>, host: usize) -> Option<Residuals> {
        let new = &source.frame.new_hosts[host];
        let live = self.live(source, source.metric, host, &self.usual)?;
        let track = Track { live, ..self.usual.clone() };
        let load = self.load.as_ref().map(|usual| {
            let live = source.load.and_then(|load| self.live(source, load, host, usual));
            Track { live: live.unwrap_or_else(|| usual.live.clone()), ..usual.clone() }
        });
        let mut residuals = past::of_tracks(&source.profile, &track, load.as_ref(), new.switch)?;
        let own = host % self.rows.len();
        residuals.baseline.clone_from(&self.rows[own]);
        residuals.control =
            self.rows.iter().enumerate().filter(|(row, _)| *row != own).map(|(_, row)| row.clone()).collect();
        if let Some(spread) = self.spread {
            let doubt = spread.of_one();
            residuals.systematic.iter_mut().for_each(|systematic| *systematic += doubt);
            residuals.relief = doubt - spread.of_mean(source.frame.new_hosts.len());
        }
        Some(residuals)
    }

    /// What a new host showed from its switch on, and the old stack before; `None` where the metric is not there.
    fn live(&self, source: &Source<'_>, metric: &str, host: usize, usual: &Track) -> Option<Vec<f64>> {
        let new = &source.frame.new_hosts[host];
        let own = source.frame.track(metric, &new.name)?;
        let now = if self.spread.is_some() { own.live.clone() } else { both_stacks(source, metric) };
        let switch = new.switch.min(now.len());
        let before = usual.live[..switch.min(usual.live.len())].iter();
        Some(before.chain(&now[switch..]).copied().collect())
    }
}

/// The old hosts' series of a metric.
fn old_tracks<'a>(source: &Source<'a>, metric: &str) -> Vec<&'a Track> {
    let frame = source.frame;
    let tracks = frame.controls.iter().filter_map(|host| frame.track(metric, &host.name));
    tracks.filter(|track| track.has_past()).collect()
}

/// The load of the old stack; that of the service as a whole where no old host has its own.
fn old_load(source: &Source<'_>, merge: Merge) -> Option<Track> {
    let metric = source.load?;
    let loads = old_tracks(source, metric);
    if !loads.is_empty() {
        return Some(merged(&loads, merge));
    }
    let is_new = |name: &str| source.frame.new_hosts.iter().any(|host| host.name == name);
    let mut whole = source.frame.tracks(metric).filter(|(name, track)| !is_new(name) && track.has_past());
    whole.next().map(|(_, track)| track.clone())
}

/// What both stacks have now, together; nothing where neither has a sample.
fn both_stacks(source: &Source<'_>, metric: &str) -> Vec<f64> {
    let frame = source.frame;
    let stack = |hosts: &[FrameHost]| -> Vec<f64> {
        let rows: Vec<&[f64]> = hosts
            .iter()
            .filter_map(|host| frame.track(metric, &host.name))
            .map(|t| t.live.as_slice())
            .collect();
        total(&rows, frame.seen())
    };
    let sum = |(old, new): (f64, f64)| match (old.is_nan(), new.is_nan()) {
        (true, _) => new,
        (false, true) => old,
        (false, false) => old + new,
    };
    stack(&frame.controls).into_iter().zip(stack(&frame.new_hosts)).map(sum).collect()
}

/// What an old host showed beyond its own expectation before the verification.
fn own_residuals(source: &Source<'_>, host: &str) -> Option<Vec<f64>> {
    let before = |metric: &str| -> Option<Track> {
        let track = source.frame.track(metric, host)?;
        Some(Track { recent: track.recent.clone(), earlier: track.earlier.clone(), live: Vec::new() })
    };
    let load = source.load.and_then(before);
    let mut row = past::of_tracks(&source.profile, &before(source.metric)?, load.as_ref(), 0)?.baseline;
    let level = robust::median(&row)?;
    row.iter_mut().for_each(|value| *value -= level);
    Some(row)
}

/// Makes every row as loud as all of them on average: which old host a new one is like is not known.
fn make_alike(rows: &mut [Vec<f64>]) {
    let sigmas: Vec<f64> =
        rows.iter().map(|row| robust::summary(row).map_or(0.0, |row| row.sigma).max(LEAST_SIGMA)).collect();
    let squares: f64 = sigmas.iter().map(|sigma| sigma * sigma).sum();
    let usual = (squares / sigmas.len().max(1) as f64).sqrt();
    for (row, sigma) in rows.iter_mut().zip(&sigmas) {
        row.iter_mut().for_each(|value| *value *= usual / sigma);
    }
}
