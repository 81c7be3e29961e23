//! What was measured at all: silence is never a Pass.

use crate::frame::Frame;

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

impl Coverage {
    /// A step is usable when a judged metric has a sample on a host that runs the new version and had traffic,
    /// or whose traffic is not measured.
    #[must_use]
    pub fn new(frame: &Frame, judged: &[&str], traffic: Option<&str>) -> Self {
        let steps = 0..frame.seen();
        let mut coverage = Self { usable: Vec::new(), traffic: Vec::new(), step_min: frame.step_min };
        for t in steps {
            let (mut usable, mut total) = (false, Traffic::Unknown);
            for host in frame.new_hosts.iter().filter(|host| t >= host.switch) {
                let at = |metric: &str| {
                    frame
                        .track(metric, &host.name)
                        .and_then(|track| track.live.get(t))
                        .copied()
                        .unwrap_or(f64::NAN)
                };
                let here = match traffic.map(&at) {
                    Some(requests) if requests > 0.0 => Traffic::Some,
                    Some(requests) if requests <= 0.0 => Traffic::None,
                    Some(_) | None => Traffic::Unknown,
                };
                let measured = judged.iter().any(|metric| at(metric).is_finite());
                usable |=
                    measured && (here == Traffic::Some || (here == Traffic::Unknown && traffic.is_none()));
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
