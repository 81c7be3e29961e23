//! What a case must fulfil before it is judged.

use super::{
    Case, CaseError, CaseHost, CaseSeries, HostGroup, MAX_BASELINE_WINDOWS, MAX_MINUTE, MAX_SAMPLES,
    MAX_SERIES,
};
use std::collections::BTreeMap;
use vouch_proto::Strategy;

/// Most restarts of one host.
const MAX_RESTARTS: usize = 100;

/// See [`Case::validate`].
pub(super) fn check(case: &Case) -> Result<(), CaseError> {
    if !(1..=1440).contains(&case.interval_min) {
        return Err(refuse("interval_min", &case.interval_min.to_string(), "whole minutes from 1 to 1440"));
    }
    check_window(case, "verification", case.verification)?;
    if case.verification[0] < 0 {
        return Err(refuse("verification[0]", &case.verification[0].to_string(), "0 or later"));
    }
    check_baseline(case)?;
    check_metrics(case)?;
    case.template.check(case)?;
    if let Some(seen) = case.minutes_seen.filter(|seen| *seen < 0) {
        return Err(refuse("minutes_seen", &seen.to_string(), "0 or more, or leave it out"));
    }
    check_hosts(case)?;
    check_strategy(case)?;
    check_series(case)?;
    super::surroundings::check(case)
}

fn refuse(field: impl Into<String>, value: &str, expected: &str) -> CaseError {
    CaseError::new(field, format!("is {value}, give {expected}"))
}

fn check_window(case: &Case, field: &str, [start, end]: [i64; 2]) -> Result<(), CaseError> {
    let shown = format!("[{start}, {end}]");
    if start.unsigned_abs().max(end.unsigned_abs()) > MAX_MINUTE.unsigned_abs() {
        return Err(refuse(field, &shown, &format!("minutes within {MAX_MINUTE} of the deployment")));
    }
    if end - start < case.interval_min || (end - start) / case.interval_min > MAX_SAMPLES {
        return Err(refuse(
            field,
            &shown,
            &format!("`[start, end]` with 1 to {MAX_SAMPLES} samples in between"),
        ));
    }
    if (start - case.verification[0]) % case.interval_min != 0 {
        let step = case.interval_min;
        return Err(refuse(
            field,
            &shown,
            &format!("a start that is whole steps of {step} min from the others"),
        ));
    }
    Ok(())
}

fn check_baseline(case: &Case) -> Result<(), CaseError> {
    if case.baseline.len() > MAX_BASELINE_WINDOWS {
        let count = format!("{} windows", case.baseline.len());
        return Err(refuse("baseline", &count, &format!("at most {MAX_BASELINE_WINDOWS}")));
    }
    for (i, window) in case.baseline.iter().enumerate() {
        check_window(case, &format!("baseline[{i}]"), *window)?;
    }
    Ok(())
}

fn check_metrics(case: &Case) -> Result<(), CaseError> {
    for (name, metric) in &case.metrics {
        if let Some(exposure) = &metric.exposure
            && (exposure == name || !case.metrics.contains_key(exposure))
        {
            let expected = "another key of `metrics` that counts the trials";
            return Err(refuse(format!("metrics.{name}.exposure"), &format!("`{exposure}`"), expected));
        }
    }
    let size = case.metrics.len().saturating_mul(case.hosts.len());
    if size > MAX_SERIES {
        let expected = format!("at most {MAX_SERIES}; split the hosts over several cases");
        return Err(refuse("metrics", &format!("{size} times hosts"), &expected));
    }
    Ok(())
}

fn check_hosts(case: &Case) -> Result<(), CaseError> {
    for (name, host) in &case.hosts {
        check_restarts(name, host)?;
        if let Some(switch) = host.switch
            && !(0..=MAX_MINUTE).contains(&switch)
        {
            return Err(refuse(
                format!("hosts.{name}.switch"),
                &switch.to_string(),
                "a minute from 0 on, or null",
            ));
        }
        if host.group == HostGroup::Control && host.switch.is_some() {
            let expected = "null: a control keeps the old version";
            return Err(refuse(format!("hosts.{name}.switch"), "set", expected));
        }
    }
    let is_new = |group| group != HostGroup::Control;
    if !case.hosts.values().any(|host| is_new(host.group)) {
        return Err(CaseError::new(
            "hosts",
            "none runs the new version; give one with group `test` or `service`",
        ));
    }
    Ok(())
}

fn check_restarts(name: &str, host: &CaseHost) -> Result<(), CaseError> {
    let field = |i: usize| format!("hosts.{name}.restarts[{i}]");
    if host.restarts.len() > MAX_RESTARTS {
        let count = format!("{} minutes", host.restarts.len());
        return Err(refuse(format!("hosts.{name}.restarts"), &count, &format!("at most {MAX_RESTARTS}")));
    }
    let far = |minute: &i64| minute.unsigned_abs() > MAX_MINUTE.unsigned_abs();
    match host.restarts.iter().position(far) {
        Some(i) => {
            let expected = format!("a minute within {MAX_MINUTE} of the deployment");
            Err(refuse(field(i), &host.restarts[i].to_string(), &expected))
        }
        None => Ok(()),
    }
}

/// What a strategy needs besides what every case needs.
fn check_strategy(case: &Case) -> Result<(), CaseError> {
    if let Some(share) = case.diluted {
        if case.strategy != Strategy::Canary {
            let expected = "it with the strategy `canary` alone, or leave it out";
            return Err(refuse("diluted", &format!("set for `{}`", case.strategy), expected));
        }
        if !(share > 0.0 && share <= 1.0) {
            let expected = "the canary's share of the traffic, above 0 and up to 1";
            return Err(refuse("diluted", &share.to_string(), expected));
        }
    }
    match case.strategy {
        Strategy::Canary => check_canary(case),
        Strategy::LoadTest => check_pinned(case),
        Strategy::Previous | Strategy::Rolling | Strategy::BlueGreen | Strategy::Auto => Ok(()),
    }
}

fn check_canary(case: &Case) -> Result<(), CaseError> {
    if case.diluted.is_some() {
        return Ok(());
    }
    if !case.hosts.values().any(|host| host.group == HostGroup::Control) {
        let message = "no host has group `control`; give one, use the strategy `previous`, or ask for the canary \
                       `diluted` by its share of the traffic";
        return Err(CaseError::new("hosts", message));
    }
    let group = |series: &CaseSeries| case.hosts.get(&series.host).map(|host| host.group);
    let is_whole = |series: &CaseSeries| group(series) == Some(HostGroup::Service);
    if !case.series.is_empty() && case.series.iter().all(is_whole) {
        let message = "measure the service as a whole only, and a canary compares hosts; give series split by host \
                       (a template with `by_host`), or ask for the canary `diluted` by its share of the traffic";
        return Err(CaseError::new("series", message));
    }
    Ok(())
}

/// Runs are compared minute by minute, so the pinned one must last as long.
fn check_pinned(case: &Case) -> Result<(), CaseError> {
    let Some(pinned) = case.baseline.iter().max_by_key(|[start, end]| (*end, *start)) else {
        let message = "is missing; `load-test` compares with a pinned run, so give the window of that run";
        return Err(CaseError::new("baseline", message));
    };
    let length = |[start, end]: [i64; 2]| (end - start) / case.interval_min;
    if pinned[1] > case.verification[0] {
        let expected = format!("a run that was over by minute {}", case.verification[0]);
        return Err(refuse("baseline", &format!("[{}, {}]", pinned[0], pinned[1]), &expected));
    }
    if length(*pinned) < length(case.verification) {
        let minutes = |window: [i64; 2]| window[1] - window[0];
        let expected =
            format!("at most the {} min of the pinned run: minute is compared with minute", minutes(*pinned));
        return Err(refuse("verification", &format!("{} min", minutes(case.verification)), &expected));
    }
    Ok(())
}

/// Start, end and position of a series.
type Run = (i64, i64, usize);

fn check_series(case: &Case) -> Result<(), CaseError> {
    let mut runs: BTreeMap<(&str, &str), Vec<Run>> = BTreeMap::new();
    for (i, series) in case.series.iter().enumerate() {
        check_samples(case, i, series)?;
        let length = i64::try_from(series.values.len()).unwrap_or(i64::MAX);
        let end = series.start.saturating_add(length.saturating_mul(case.interval_min));
        runs.entry((&series.metric, &series.host)).or_default().push((series.start, end, i));
    }
    for list in runs.values_mut() {
        list.sort_unstable();
        for pair in list.windows(2) {
            if pair[1].0 < pair[0].1 {
                let field = format!("series[{}].start", pair[0].2.max(pair[1].2));
                let expected =
                    format!("a start from {} on: samples of one metric and host overlap", pair[0].1);
                return Err(refuse(field, &pair[1].0.to_string(), &expected));
            }
        }
    }
    Ok(())
}

fn check_samples(case: &Case, i: usize, series: &CaseSeries) -> Result<(), CaseError> {
    let Some(metric) = case.metrics.get(&series.metric) else {
        return Err(refuse(
            format!("series[{i}].metric"),
            &format!("`{}`", series.metric),
            "a key of `metrics`",
        ));
    };
    if !case.hosts.contains_key(&series.host) {
        return Err(refuse(format!("series[{i}].host"), &format!("`{}`", series.host), "a key of `hosts`"));
    }
    if series.start.unsigned_abs() > MAX_MINUTE.unsigned_abs() {
        let expected = format!("a minute within {MAX_MINUTE} of the deployment");
        return Err(refuse(format!("series[{i}].start"), &series.start.to_string(), &expected));
    }
    if (series.start - case.verification[0]) % case.interval_min != 0 {
        let expected = format!("a minute that is whole steps of {} min from the windows", case.interval_min);
        return Err(refuse(format!("series[{i}].start"), &series.start.to_string(), &expected));
    }
    let is_wrong = |value: &f64| !value.is_finite() || (metric.exposure.is_some() && *value < 0.0);
    if let Some(at) = series.values.iter().position(|value| value.as_ref().is_some_and(is_wrong)) {
        let value = series.values[at].unwrap_or_default();
        let expected = if metric.exposure.is_some() {
            "a count from 0 on, or null for a gap"
        } else {
            "a finite number, or null for a gap"
        };
        return Err(refuse(format!("series[{i}].values[{at}]"), &value.to_string(), expected));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::CaseMetric;
    use super::*;
    use vouch_proto::Direction;

    fn good() -> Case {
        Case::new("a", Strategy::Canary, 5, [0, 30])
            .with_baseline([-60, 0])
            .with_metric("rt", CaseMetric::judged("ms", Direction::Increase))
            .with_metric("n", CaseMetric::context("1/min"))
            .with_metric("errors", CaseMetric::count("1/min", "n"))
            .with_host("c", HostGroup::Control, None)
            .with_host("t", HostGroup::Test, Some(0))
            .with_series("rt", "t", -60, vec![Some(1.0); 12])
    }

    #[test]
    fn a_good_case_is_accepted() {
        assert_eq!(good().validate(), Ok(()));
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Change = fn(&mut Case);
        let wrong: [(Change, &str); 15] = [
            (|c| c.interval_min = 0, "interval_min: is 0, give whole minutes from 1 to 1440"),
            (|c| c.verification = [0, 2], "verification: is [0, 2], give `[start, end]`"),
            (|c| c.verification = [-5, 30], "verification[0]: is -5, give 0 or later"),
            (
                |c| c.baseline[0] = [-61, 0],
                "baseline[0]: is [-61, 0], give a start that is whole steps of 5 min",
            ),
            (|c| c.baseline[0] = [0, -60], "baseline[0]: is [0, -60], give `[start, end]`"),
            (
                |c| c.baseline[0] = [i64::MIN, 0],
                "baseline[0]: is [-9223372036854775808, 0], give minutes within",
            ),
            (
                |c| c.metrics.get_mut("errors").unwrap().exposure = Some("m".into()),
                "metrics.errors.exposure: is `m`",
            ),
            (
                |c| c.hosts.get_mut("t").unwrap().switch = Some(-1),
                "hosts.t.switch: is -1, give a minute from 0 on",
            ),
            (|c| c.hosts.get_mut("c").unwrap().switch = Some(1), "hosts.c.switch: is set, give null"),
            (|c| c.hosts.retain(|name, _| name != "c"), "hosts: no host has group `control`"),
            (|c| c.hosts.retain(|name, _| name != "t"), "hosts: none runs the new version"),
            (|c| c.series[0].metric = "x".into(), "series[0].metric: is `x`, give a key of `metrics`"),
            (|c| c.series[0].start = -59, "series[0].start: is -59, give a minute that is whole steps of 5"),
            (|c| c.series[0].values[3] = Some(f64::NAN), "series[0].values[3]: is NaN, give a finite number"),
            (|c| c.series.push(c.series[0].clone()), "series[1].start: is -60, give a start from 0 on"),
        ];
        for (change, expected) in wrong {
            let mut case = good();
            change(&mut case);
            let message = case.validate().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}\n  instead of\n{expected}");
        }
    }

    #[test]
    fn a_strategy_is_refused_without_what_it_needs() {
        type Change = fn(&mut Case);
        let wrong: [(Change, &str); 9] = [
            (|c| c.series[0].host = "all".into(), "series: measure the service as a whole only"),
            (|c| drop(c.hosts.remove("c")), "hosts: no host has group `control`; give one, use"),
            (|c| c.diluted = Some(0.0), "diluted: is 0, give the canary's share"),
            (|c| c.diluted = Some(f64::NAN), "diluted: is NaN, give the canary's share"),
            (
                |c| (c.strategy, c.diluted) = (Strategy::Previous, Some(0.1)),
                "diluted: is set for `previous`, give it with the strategy `canary`",
            ),
            (
                |c| (c.strategy, c.baseline) = (Strategy::LoadTest, vec![]),
                "baseline: is missing; `load-test` compares with a pinned run",
            ),
            (
                |c| (c.strategy, c.baseline) = (Strategy::LoadTest, vec![[-60, -35]]),
                "verification: is 30 min, give at most the 25 min of the pinned run",
            ),
            (
                |c| (c.strategy, c.baseline) = (Strategy::LoadTest, vec![[-60, 5]]),
                "baseline: is [-60, 5], give a run that was over by minute 0",
            ),
            (
                |c| c.hosts.get_mut("t").unwrap().restarts = vec![3, i64::MIN],
                "hosts.t.restarts[1]: is -9223372036854775808, give a minute within",
            ),
        ];
        for (change, expected) in wrong {
            let mut case = good().with_host("all", HostGroup::Service, None);
            change(&mut case);
            let message = case.validate().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}\n  instead of\n{expected}");
        }
        let mut whole = good().with_host("all", HostGroup::Service, None).diluted_by(0.1);
        whole.series[0].host = "all".into();
        assert_eq!(whole.validate(), Ok(()), "asked for as diluted");
    }

    #[test]
    fn a_negative_count_is_refused() {
        let case = good().with_series("errors", "t", 0, vec![Some(-1.0)]);
        let message = case.validate().unwrap_err().to_string();
        assert_eq!(message, "series[1].values[0]: is -1, give a count from 0 on, or null for a gap");
    }
}
