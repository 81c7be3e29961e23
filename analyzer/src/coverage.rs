//! What was measured at all: silence is never a Pass.

use crate::frame::{Frame, FrameHost};

/// Fewest usable minutes for a Pass.
pub const MIN_USABLE_MINUTES: i64 = 5;
/// The end of the window is without traffic when none of its last minutes, this many, has any.
const END_MIN: i64 = 5;

/// Which steps of the verification tell anything.
#[derive(Debug, Clone)]
pub struct Coverage {
    usable: Vec<bool>,
    traffic: Vec<Traffic>,
    step_min: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Some,
    None,
    Unknown,
}

/// What is measured on one host that runs the new version.
struct Measured<'a> {
    switch: usize,
    judged: Vec<&'a [f64]>,
    traffic: Option<&'a [f64]>,
}

impl<'a> Measured<'a> {
    fn new(frame: &'a Frame, host: &FrameHost, judged: &[&str], traffic: Option<&str>) -> Self {
        let live = |metric: &str| frame.track(metric, &host.name).map(|track| track.live.as_slice());
        Self {
            switch: host.switch,
            judged: judged.iter().filter_map(|metric| live(metric)).collect(),
            traffic: traffic.and_then(live),
        }
    }

    fn requests(&self, t: usize) -> Option<f64> {
        self.traffic?.get(t).copied()
    }

    fn is_measured(&self, t: usize) -> bool {
        self.judged.iter().any(|live| live.get(t).is_some_and(|value| value.is_finite()))
    }
}

impl Coverage {
    /// A step is usable when a judged metric has a sample on a host that runs the new version and had traffic,
    /// or whose traffic is not measured.
    #[must_use]
    pub fn new(frame: &Frame, judged: &[&str], traffic: Option<&str>) -> Self {
        let hosts: Vec<Measured<'_>> =
            frame.new_hosts.iter().map(|host| Measured::new(frame, host, judged, traffic)).collect();
        let steps = 0..frame.seen();
        let mut coverage = Self {
            usable: Vec::with_capacity(steps.len()),
            traffic: Vec::with_capacity(steps.len()),
            step_min: frame.step_min,
        };
        for t in steps {
            let (mut usable, mut total) = (false, Traffic::Unknown);
            for host in hosts.iter().filter(|host| t >= host.switch) {
                let here = match host.requests(t) {
                    Some(requests) if requests > 0.0 => Traffic::Some,
                    Some(requests) if requests <= 0.0 => Traffic::None,
                    Some(_) | None => Traffic::Unknown,
                };
                usable |= host.is_measured(t)
                    && (here == Traffic::Some || (here == Traffic::Unknown && traffic.is_none()));
                total = match (total, here) {
                    (Traffic::Some, _) | (_, Traffic::Some) => Traffic::Some,
                    (Traffic::None, _) | (_, Traffic::None) => Traffic::None,
                    (Traffic::Unknown, Traffic::Unknown) => Traffic::Unknown,
                };
            }
            coverage.usable.push(usable);
            coverage.traffic.push(total);
        }
        coverage
    }

    /// Usable minutes among the first `steps`: a sample of k minutes counts k.
    #[must_use]
    pub fn usable_minutes(&self, steps: usize) -> i64 {
        let usable = self.usable.iter().take(steps).filter(|usable| **usable).count();
        i64::try_from(usable).unwrap_or(i64::MAX).saturating_mul(self.step_min)
    }

    /// Whether none of the last five minutes of the first `steps` is usable: a service that went silent.
    #[must_use]
    pub fn ends_in_silence(&self, steps: usize) -> bool {
        let steps = steps.min(self.usable.len());
        !self.usable[steps.saturating_sub(self.last_steps())..steps].contains(&true)
    }

    /// The last five minutes, in steps.
    fn last_steps(&self) -> usize {
        usize::try_from((END_MIN / self.step_min).max(1)).unwrap_or(1)
    }

    /// Whether the last five of the first `steps` had no traffic, while some of them say so.
    #[must_use]
    pub fn ends_without_traffic(&self, steps: usize) -> bool {
        let steps = steps.min(self.traffic.len());
        let end = &self.traffic[steps.saturating_sub(self.last_steps())..steps];
        !end.contains(&Traffic::Some) && end.contains(&Traffic::None)
    }
}
