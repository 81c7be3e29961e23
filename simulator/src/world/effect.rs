//! What a deployment or an incident does to a service.

use serde::{Deserialize, Serialize};

/// How a new version behaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// As the one before.
    Healthy,
    /// Latency is multiplied at once.
    LatencyStep {
        /// By so much, e.g. 1.5.
        factor: f64,
    },
    /// Latency rises linearly to `factor`.
    LatencyRamp {
        /// By so much in the end.
        factor: f64,
        /// Within so many minutes.
        minutes: f64,
    },
    /// So many more of the requests fail.
    ErrorStep {
        /// Share of the requests, 0..=1.
        rate: f64,
    },
    /// CPU use is multiplied.
    CpuStep {
        /// By so much.
        factor: f64,
    },
    /// Fewer requests get through.
    ThroughputDrop {
        /// Share of the load that is left, 0..=1.
        factor: f64,
    },
    /// The slow tenth becomes slower; the median stays.
    TailLatency {
        /// The 95th percentile is multiplied by so much.
        factor: f64,
    },
    /// Latency swings more from minute to minute.
    Variance {
        /// The noise is multiplied by so much.
        factor: f64,
    },
    /// Single minutes with a multiple of the latency.
    Spikes {
        /// Latency in such a minute.
        factor: f64,
        /// Share of the minutes, 0..=1.
        probability: f64,
    },
    /// One host alone becomes slow and fails requests.
    BadHost {
        /// Name of the host.
        host: String,
        /// Latency there.
        factor: f64,
        /// Share of its requests that fail besides, 0..=1.
        #[serde(default)]
        error_rate: f64,
    },
    /// No requests come any more.
    NoTraffic,
    /// The new version reports nothing.
    MissingData,
}

/// Which hosts run the new version, and from when.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rollout {
    /// All at once.
    #[default]
    All,
    /// These hosts alone.
    Canary {
        /// Their names.
        hosts: Vec<String>,
    },
    /// These hosts take over from the others, all at once. Hosts that are not in charge report nothing.
    BlueGreen {
        /// Names of the new stack's hosts.
        hosts: Vec<String>,
    },
    /// One host after the other, in the order of the scenario.
    Rolling {
        /// So many minutes apart.
        every_minutes: f64,
    },
}

/// Slow first minutes of a restarted process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Latency and CPU right after the restart, e.g. 1.4.
    pub factor: f64,
    /// Minutes in which the excess falls to a third.
    pub minutes: f64,
}

/// What an effect amounts to on one host in one minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Impact {
    /// Factor on the latency.
    pub(crate) latency: f64,
    /// Factor on the 95th percentile over the median.
    pub(crate) tail: f64,
    /// Factor on the noise of the latency.
    pub(crate) noise: f64,
    /// Added share of failing requests.
    pub(crate) errors: f64,
    /// Factor on the CPU use.
    pub(crate) cpu: f64,
    /// Factor on the load.
    pub(crate) load: f64,
    /// Whether anything is reported.
    pub(crate) reports: bool,
}

impl Impact {
    /// Nothing changes.
    pub(crate) const NONE: Self =
        Self { latency: 1.0, tail: 1.0, noise: 1.0, errors: 0.0, cpu: 1.0, load: 1.0, reports: true };

    /// Both at once.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            latency: self.latency * other.latency,
            tail: self.tail * other.tail,
            noise: self.noise * other.noise,
            errors: self.errors + other.errors,
            cpu: self.cpu * other.cpu,
            load: self.load * other.load,
            reports: self.reports && other.reports,
        }
    }

    /// The part of it that a minute has which it covers only in part.
    pub(crate) fn partly(self, share: f64) -> Self {
        let part = |factor: f64| 1.0 + share * (factor - 1.0);
        Self {
            latency: part(self.latency),
            tail: part(self.tail),
            noise: part(self.noise),
            errors: share * self.errors,
            cpu: part(self.cpu),
            load: part(self.load),
            reports: self.reports || share < 0.5,
        }
    }
}

impl Effect {
    /// The impact on a host, so many minutes after it switched; `chance` is uniform on (0, 1) by host and minute.
    pub(crate) fn impact(&self, host: &str, age_minutes: f64, chance: f64) -> Impact {
        let none = Impact::NONE;
        match self {
            Self::Healthy => none,
            Self::LatencyStep { factor } => Impact { latency: *factor, ..none },
            Self::LatencyRamp { factor, minutes } => {
                let share = if *minutes > 0.0 { (age_minutes / minutes).clamp(0.0, 1.0) } else { 1.0 };
                Impact { latency: 1.0 + share * (factor - 1.0), ..none }
            }
            Self::ErrorStep { rate } => Impact { errors: *rate, ..none },
            Self::CpuStep { factor } => Impact { cpu: *factor, ..none },
            Self::ThroughputDrop { factor } => Impact { load: *factor, ..none },
            Self::TailLatency { factor } => Impact { tail: *factor, ..none },
            Self::Variance { factor } => Impact { noise: *factor, ..none },
            Self::Spikes { factor, probability } if chance < *probability => {
                Impact { latency: *factor, ..none }
            }
            Self::BadHost { host: bad, factor, error_rate } if host == bad => {
                Impact { latency: *factor, errors: *error_rate, ..none }
            }
            Self::Spikes { .. } | Self::BadHost { .. } => none,
            Self::NoTraffic => Impact { load: 0.0, ..none },
            Self::MissingData => Impact { reports: false, ..none },
        }
    }

    /// What is wrong with it, if anything: field and message.
    pub(crate) fn check(&self, hosts: &[String]) -> Result<(), (&'static str, String)> {
        let factor = |value: f64| match value {
            v if v > 0.0 && v <= 1000.0 => Ok(()),
            v => Err(("factor", format!("{v} is not within (0, 1000]; 1 changes nothing"))),
        };
        let share = |field, value: f64| match value {
            v if (0.0..=1.0).contains(&v) => Ok(()),
            v => Err((field, format!("{v} is not within 0 to 1; it is a share"))),
        };
        match self {
            Self::Healthy | Self::NoTraffic | Self::MissingData => Ok(()),
            Self::LatencyStep { factor: f }
            | Self::CpuStep { factor: f }
            | Self::TailLatency { factor: f }
            | Self::Variance { factor: f } => factor(*f),
            Self::LatencyRamp { factor: f, minutes } => {
                factor(*f)?;
                if minutes.is_finite() && *minutes >= 0.0 {
                    Ok(())
                } else {
                    Err(("minutes", format!("{minutes} is no number of minutes; use 0 or more")))
                }
            }
            Self::ErrorStep { rate } => share("rate", *rate),
            Self::ThroughputDrop { factor: f } => share("factor", *f),
            Self::Spikes { factor: f, probability } => {
                factor(*f).and_then(|()| share("probability", *probability))
            }
            Self::BadHost { host, factor: f, error_rate } => {
                if !hosts.contains(host) {
                    return Err((
                        "host",
                        format!("`{host}` is no host of the service; it has {}", hosts.join(", ")),
                    ));
                }
                factor(*f).and_then(|()| share("error_rate", *error_rate))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impacts() {
        let at = |effect: &Effect, age| effect.impact("a", age, 0.5);
        assert!((at(&Effect::LatencyRamp { factor: 3.0, minutes: 10.0 }, 5.0).latency - 2.0).abs() < 1e-12);
        assert_eq!(at(&Effect::Spikes { factor: 9.0, probability: 0.4 }, 1.0), Impact::NONE);
        assert!((at(&Effect::Spikes { factor: 9.0, probability: 0.6 }, 1.0).latency - 9.0).abs() < 1e-12);
        let bad = Effect::BadHost { host: "b".into(), factor: 2.0, error_rate: 0.1 };
        assert_eq!(at(&bad, 1.0), Impact::NONE);
        assert!((bad.impact("b", 1.0, 0.5).errors - 0.1).abs() < 1e-12);
        let half = Impact { latency: 3.0, ..Impact::NONE }.partly(0.5);
        assert!((half.latency - 2.0).abs() < 1e-12);
    }

    #[test]
    fn wrong_numbers_are_named() {
        let hosts = ["a".to_owned()];
        for (effect, field) in [
            (Effect::LatencyStep { factor: 0.0 }, "factor"),
            (Effect::CpuStep { factor: f64::NAN }, "factor"),
            (Effect::LatencyRamp { factor: 2.0, minutes: -1.0 }, "minutes"),
            (Effect::ErrorStep { rate: 1.5 }, "rate"),
            (Effect::ThroughputDrop { factor: 2.0 }, "factor"),
            (Effect::Spikes { factor: 2.0, probability: -0.1 }, "probability"),
            (Effect::BadHost { host: "z".into(), factor: 2.0, error_rate: 0.0 }, "host"),
        ] {
            assert_eq!(effect.check(&hosts).unwrap_err().0, field, "{effect:?}");
        }
        assert_eq!(Effect::BadHost { host: "a".into(), factor: 2.0, error_rate: 0.0 }.check(&hosts), Ok(()));
    }
}
