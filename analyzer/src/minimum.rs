//! The smallest change that a person lets fail, in the terms of the detectors.

use crate::detector::errors::CountGate;
use crate::profile::Profile;
use vouch_proto::{Direction, MinimumEffect};

/// A drop by all of it, as near as a logarithm allows.
const ALL: f64 = 1.0 - 1e-6;

/// The profile with the smallest change asked for, which replaces that of its family. An absolute one is taken of the
/// host with the highest usual value; the others are held to theirs by `limit`.
pub(crate) fn of_level(profile: Profile, least: MinimumEffect, bad: Direction, usual: f64) -> Profile {
    let absolute = least.absolute.map(|change| change / usual).filter(|ratio| ratio.is_finite());
    let Some(ratio) = least.relative.into_iter().chain(absolute).reduce(f64::max) else { return profile };
    // A drop of 20 % is a ratio of 1.25 the other way.
    let falls = bad == Direction::Decrease;
    profile.with_minimum_effect(if falls { ratio.min(ALL) / (1.0 - ratio.min(ALL)) } else { ratio })
}

/// The gate of counts: the rise of the ratio, and its multiple. What is not given stays.
pub(crate) fn of_count(least: MinimumEffect) -> CountGate {
    let default = CountGate::default();
    CountGate {
        rise: least.absolute.unwrap_or(default.rise),
        multiple: least.relative.map_or(default.multiple, |relative| 1.0 + relative),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CaseMetric;

    #[test]
    fn what_is_given_replaces_the_default_and_both_must_be_reached() {
        let profile = Profile::of("rt", &CaseMetric::judged("ms", Direction::Increase));
        let gate = |relative, absolute, bad| {
            libm::exp(of_level(profile, MinimumEffect { relative, absolute }, bad, 200.0).gate) - 1.0
        };
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(gate(None, None, Direction::Increase), libm::exp(profile.gate) - 1.0));
        assert!(near(gate(Some(0.2), None, Direction::Increase), 0.2));
        assert!(near(gate(None, Some(20.0), Direction::Increase), 0.1));
        assert!(near(gate(Some(0.2), Some(20.0), Direction::Increase), 0.2));
        assert!(near(gate(Some(0.2), Some(60.0), Direction::Increase), 0.3));
        assert!(near(gate(Some(0.2), None, Direction::Decrease), 0.25));
    }

    #[test]
    fn an_absolute_change_of_nothing_usual_leaves_the_default() {
        let profile = Profile::of("rt", &CaseMetric::judged("ms", Direction::Increase));
        let least = MinimumEffect { relative: None, absolute: Some(5.0) };
        assert_eq!(of_level(profile, least, Direction::Increase, 0.0), profile);
        assert_eq!(of_level(profile, least, Direction::Increase, f64::NAN), profile);
    }

    #[test]
    fn counts_take_each_part_by_itself() {
        let gate = of_count(MinimumEffect { relative: None, absolute: Some(0.05) });
        assert_eq!((gate.rise, gate.multiple), (0.05, CountGate::default().multiple));
        assert_eq!(of_count(MinimumEffect { relative: Some(1.0), absolute: None }).multiple, 2.0);
        assert_eq!(of_count(MinimumEffect::default()), CountGate::default());
    }
}
