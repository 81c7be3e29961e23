//! What a judged metric without a sample after the deployment means: nothing, that nobody can tell, or a Fail.

use crate::case::{Case, CaseTemplate};
use crate::frame::Frame;
use crate::panel::judged_metrics;
use vouch_proto::OnNoData;

/// The first metric whose silence fails the deployment.
pub(crate) fn failing<'a>(case: &'a Case, frame: &Frame, template: &CaseTemplate) -> Option<&'a str> {
    let fails =
        |metric: &&str| template.of(metric).on_no_data == Some(OnNoData::Fail) && is_silent(frame, metric);
    judged_metrics(case, template).into_iter().find(fails)
}

/// The first metric whose silence bars a Pass. Where nothing was asked for, that is one that was measured before.
pub(crate) fn inconclusive<'a>(case: &'a Case, frame: &Frame, template: &CaseTemplate) -> Option<&'a str> {
    let bars = |metric: &&str| match template.of(metric).on_no_data {
        Some(OnNoData::Ignore) => false,
        Some(OnNoData::Inconclusive | OnNoData::Fail) => is_silent(frame, metric),
        None => is_silent(frame, metric) && was_measured(frame, metric),
    };
    judged_metrics(case, template).into_iter().find(bars)
}

/// Whether no host had a sample of it while it ran the new version.
fn is_silent(frame: &Frame, metric: &str) -> bool {
    let is_heard = |name: &str, switch: usize| {
        frame.track(metric, name).is_some_and(|track| track.live.iter().skip(switch).any(|v| v.is_finite()))
    };
    !frame.new_hosts.iter().any(|host| is_heard(&host.name, host.switch))
}

/// Whether it was measured on the old version.
fn was_measured(frame: &Frame, metric: &str) -> bool {
    frame.tracks(metric).any(|(_, track)| track.has_past())
        || frame.controls.iter().any(|control| {
            frame.track(metric, &control.name).is_some_and(|track| track.live.iter().any(|v| v.is_finite()))
        })
}
