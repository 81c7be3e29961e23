//! A host that has switched with those that have not yet, as long as there are any; then with its own past.

use super::past;
use super::{Residuals, Source, column_means};
use crate::frame::Track;
use crate::profile::Family;
use crate::robust;

/// See [`super::residuals`].
pub(super) fn residuals(source: &Source<'_>, host: usize) -> Option<Residuals> {
    let track = source.track(host)?;
    let before = track.recent.len();
    let common = common_movement(source, host);
    if source.profile.family == Family::Throughput && source.load.is_none() {
        return without_load(source, host, &common);
    }
    let switch = source.frame.new_hosts[host].switch;
    // What comes back at the same time of day, the others do as well.
    let learnt = past::learn(&source.profile, track, source.load_track(host), switch)?;
    let (mut residuals, load) = (learnt.residuals, learnt.load);
    for (t, live) in residuals.live.iter_mut().enumerate() {
        let moved = common[before + t];
        if !moved.is_finite() || !live.is_finite() {
            continue;
        }
        // The others see the same load, so their movement replaces what the load explains.
        let shift = load.as_ref().map_or(0.0, |load| load.shift(before + t));
        *live += shift - moved;
        residuals.expected[t] += moved - shift;
        residuals.systematic[t] = 0.0;
    }
    Some(residuals)
}

/// Without an offered load only hosts at the same time can tell a drop from less demand.
fn without_load(source: &Source<'_>, host: usize, common: &[f64]) -> Option<Residuals> {
    let track = source.track(host)?;
    let scale = source.scale(track)?;
    let switch = source.frame.new_hosts[host].switch.min(track.live.len());
    let split = track.recent.len() + switch;
    let values = scale.apply_all(&[track.recent.as_slice(), &track.live].concat());
    let relative: Vec<f64> = values.iter().zip(common).map(|(value, common)| value - common).collect();
    // Whether there is a unit at all must not depend on what comes later.
    robust::median(&relative[..track.recent.len()])?;
    let level = robust::median(&relative[..split])?;
    let mut live: Vec<f64> = relative[track.recent.len()..].iter().map(|value| value - level).collect();
    live[..switch].fill(f64::NAN);
    Some(Residuals {
        scale,
        baseline: relative[..split].iter().map(|value| value - level).collect(),
        control: Vec::new(),
        systematic: vec![0.0; live.len()],
        leaning: Vec::new(),
        inflation: vec![1.0; live.len()],
        expected: common[track.recent.len()..].iter().map(|common| common + level).collect(),
        relief: 0.0,
        drift: 0.0,
        drift_doubt: Vec::new(),
        live,
    })
}

/// How the hosts that switch later moved together around their own medians before the deployment;
/// `NaN` once none of them runs the old version.
fn common_movement(source: &Source<'_>, host: usize) -> Vec<f64> {
    let hosts = &source.frame.new_hosts;
    let switch = hosts[host].switch;
    let later = hosts.iter().filter(|other| other.switch > switch);
    let centred = |track: &Track, until: usize| {
        let scale = source.scale(track)?;
        let level = robust::median(&scale.apply_all(&track.recent))?;
        let mut values = scale.apply_all(&[track.recent.as_slice(), &track.live].concat());
        let known = (track.recent.len().saturating_add(until)).min(values.len());
        values.iter_mut().for_each(|value| *value -= level);
        values[known..].fill(f64::NAN);
        Some(values)
    };
    let rows: Vec<Vec<f64>> = later
        .filter_map(|other| centred(source.frame.track(source.metric, &other.name)?, other.switch))
        .collect();
    let columns = source.track(host).map_or(0, |track| track.recent.len() + track.live.len());
    column_means(rows.iter().map(Vec::as_slice), columns)
}
