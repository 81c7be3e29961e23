//! Reads verification templates from the settings that collector and analyzer share.

use crate::settings::Section;
use std::time::Duration;
use vouch_proto::deployment::{MAX_DURATION, MIN_DURATION};
use vouch_proto::{
    Direction, Glob, Invalid, MetricRole, MetricSettings, MetricSpec, Strategy, TemplateOverride, Templates,
    VerificationTemplate,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Reads `templates:` and `default_template:`; the built-in ones are always there, and one of the same name replaces them.
pub fn read_templates(root: &mut Section<'_>, invalid: &mut Invalid) -> Templates {
    let mut templates = Templates::default();
    for section in root.sections("templates") {
        if let Some(template) = read_template(section, invalid) {
            templates.insert(template);
        }
    }
    if let Some(name) = root.text("default_template")
        && let Err(e) = templates.set_default(&name)
    {
        for violation in e.violations {
            root.refuse("default_template", violation.message);
        }
    }
    for section in root.sections("overrides") {
        read_override(section, &mut templates, invalid);
    }
    templates
}

/// Reads one of `overrides:`, which gives the services that it fits another template.
fn read_override(mut section: Section<'_>, templates: &mut Templates, invalid: &mut Invalid) {
    let mut fits = section.section("match");
    if !fits.is_present() {
        section.refuse("match", "is missing; name a `service` or an `environment`, with * for any text");
    }
    let (services, environments) = (globs(&mut fits, "service"), globs(&mut fits, "environment"));
    fits.finish(invalid);
    let template = section.text("template");
    match template {
        None => section.refuse("template", "is missing; name the template of these services"),
        Some(template) => {
            let added = templates.add_override(TemplateOverride { services, environments, template });
            for violation in added.err().into_iter().flat_map(|e| e.violations) {
                section.refuse("template", violation.message);
            }
        }
    }
    section.finish(invalid);
}

/// Patterns of names: one, or a list of which one must fit.
pub fn globs(section: &mut Section<'_>, key: &'static str) -> Vec<Glob> {
    let Ok(globs) = section.texts(key).iter().map(|text| text.parse()).collect::<Result<_, _>>();
    globs
}

fn read_template(mut section: Section<'_>, invalid: &mut Invalid) -> Option<VerificationTemplate> {
    let before = invalid.violations.len();
    let name = section.text("name").unwrap_or_else(|| {
        section.refuse("name", "is missing; a verification names its template");
        String::new()
    });
    let mut metrics = Vec::new();
    for metric in section.sections("metrics") {
        metrics.extend(read_metric(metric, invalid));
    }
    let template = VerificationTemplate {
        name,
        strategy: section.parsed("strategy").unwrap_or(Strategy::Auto),
        duration: whole_minutes(&mut section, "duration", 30 * MINUTE, MIN_DURATION..=MAX_DURATION),
        by_host: section.flag("by_host", false),
        recent: whole_minutes(&mut section, "recent", 180 * MINUTE, 30 * MINUTE..=1440 * MINUTE),
        sensitivity: section.parsed("sensitivity"),
        days_before: days_before(&mut section),
        early_pass: section.flag("early_pass", false),
        extend_by: whole_minutes(&mut section, "extend_by", Duration::ZERO, Duration::ZERO..=MAX_DURATION),
        metrics,
    };
    if template.duration + template.extend_by > MAX_DURATION {
        section.refuse(
            "extend_by",
            "makes the window longer than 24h with its extension; shorten one of the two",
        );
    }
    check_metrics(&template.metrics, &mut section);
    section.finish(invalid);
    (invalid.violations.len() == before).then_some(template)
}

fn whole_minutes(
    section: &mut Section<'_>,
    key: &'static str,
    default: Duration,
    limits: std::ops::RangeInclusive<Duration>,
) -> Duration {
    let duration = section.duration(key, default, limits);
    if !duration.as_secs().is_multiple_of(60) {
        section.refuse(key, format!("{duration:?} is not a whole number of minutes"));
    }
    duration
}

fn days_before(section: &mut Section<'_>) -> Vec<u32> {
    let Some(value) = section.raw("days_before") else { return vec![7, 1] };
    let days: Option<Vec<u32>> = value.as_array().and_then(|days| {
        days.iter()
            .map(|d| d.as_u64().and_then(|d| u32::try_from(d).ok()).filter(|d| (1..=28).contains(d)))
            .collect()
    });
    days.unwrap_or_else(|| {
        section.refuse("days_before", format!("`{value}` is no list of days from 1 to 28, e.g. [7, 1]"));
        Vec::new()
    })
}

fn read_metric(mut section: Section<'_>, invalid: &mut Invalid) -> Option<MetricSpec> {
    let before = invalid.violations.len();
    let mut required = |key: &'static str, why: &str| {
        section.text(key).unwrap_or_else(|| {
            section.refuse(key, format!("is missing; {why}"));
            String::new()
        })
    };
    let name = required("name", "series and verdicts name the metric by it");
    let query = required("query", "give a Dynatrace metric selector");
    let role = match section.text("role").as_deref() {
        None | Some("judged") => MetricRole::Judged,
        Some("context") => MetricRole::Context,
        Some(other) => {
            section.refuse("role", format!("unknown value `{other}`, expected one of judged, context"));
            MetricRole::Judged
        }
    };
    let direction = section.parsed::<Direction>("direction");
    if direction.is_none() && role == MetricRole::Judged {
        section.refuse(
            "direction",
            "is missing; say in which direction it is bad: increase, decrease or either",
        );
    }
    let exposure = section.text("exposure");
    let bad = match role {
        MetricRole::Judged => direction,
        MetricRole::Context => Some(Direction::None),
    };
    let settings = read_settings(&mut section, bad, exposure.is_some());
    let metric = MetricSpec {
        name,
        query,
        host_query: section.text("host_query"),
        each: section.text("each"),
        unit: section.text("unit").unwrap_or_default(),
        direction: direction.unwrap_or(Direction::None),
        exposure,
        role,
        settings,
    };
    section.finish(invalid);
    (invalid.violations.len() == before).then_some(metric)
}

/// How the metric is judged: the same words as in a case, see `vouch_proto::metric_settings`.
fn read_settings(section: &mut Section<'_>, bad: Option<Direction>, is_count: bool) -> MetricSettings {
    let mut invalid = Invalid::default();
    let settings = MetricSettings::read(|word| section.raw(word), &mut invalid);
    if let Some(Err(contradictions)) = bad.map(|bad| settings.check(bad, is_count)) {
        invalid.extend("", contradictions);
    }
    for violation in invalid.violations {
        section.refuse(&violation.field, violation.message);
    }
    settings
}

fn check_metrics(metrics: &[MetricSpec], section: &mut Section<'_>) {
    if !metrics.iter().any(|m| m.role == MetricRole::Judged) {
        section.refuse("metrics", "has no judged metric; a verification needs at least one");
    }
    let names: Vec<&str> = metrics.iter().map(|m| m.name.as_str()).collect();
    for (i, metric) in metrics.iter().enumerate() {
        if names.iter().take(i).any(|name| *name == metric.name) {
            section.refuse(&format!("metrics[{i}].name"), format!("`{}` is named twice", metric.name));
        }
        if let Some(exposure) = metric.exposure.as_deref()
            && !names.contains(&exposure)
        {
            section.refuse(
                &format!("metrics[{i}].exposure"),
                format!("`{exposure}` is no metric of this template, expected one of {}", names.join(", ")),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Document;
    use vouch_proto::{Sensitivity, When};

    fn read(yaml: &str) -> (Templates, String) {
        let document = Document::parse(yaml).unwrap();
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let templates = read_templates(&mut root, &mut invalid);
        root.finish(&mut invalid);
        (templates, invalid.to_string())
    }

    #[test]
    fn a_template_of_ones_own_can_be_the_default() {
        let (templates, said) = read(
            "default_template: queue\ntemplates:\n- name: queue\n  duration: 15m\n  strategy: previous\n  metrics:\n  \
             - {name: depth, query: 'custom:queue.depth:avg', direction: increase, unit: count}\n",
        );
        assert_eq!(said, "");
        let template = templates.get(None).unwrap();
        assert_eq!((template.name.as_str(), template.duration), ("queue", 15 * MINUTE));
        assert_eq!(template.days_before, [7, 1]);
    }

    #[test]
    fn metrics_are_judged_as_they_say() {
        let (templates, said) = read(
            "templates:\n- name: q\n  sensitivity: low\n  metrics:\n  - {name: depth, query: q, direction: increase, \
             critical: true, group: queues, minimum_effect: {absolute: 20}, fail_fast: {absolute: 900, after: 2}}\n",
        );
        assert_eq!(said, "");
        let template = templates.get(Some("q")).unwrap();
        assert_eq!(template.sensitivity, Some(Sensitivity::Low));
        let settings = &template.metrics[0].settings;
        assert!(settings.critical && settings.minimum_effect.absolute == Some(20.0));
        assert_eq!(settings.fail_fast.unwrap().when, When::After(2));
    }

    #[test]
    fn wrong_settings_of_metrics_are_named_at_once() {
        let (_, said) = read(
            "templates:\n- name: q\n  sensitivity: huge\n  metrics:\n  - {name: a, query: q, direction: either, \
             fail_fast: {absolute: 3}, on_no_data: pass}\n  - {name: b, query: q, role: context, critical: true}\n",
        );
        for part in [
            "templates[0].sensitivity: unknown value `huge`, expected one of low, medium, high",
            "templates[0].metrics[0].fail_fast.absolute: needs one direction",
            "templates[0].metrics[0].on_no_data: unknown value `pass`, expected one of inconclusive, fail",
            "templates[0].metrics[1].critical: has no effect on a metric that is not judged",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let (_, said) = read(
            "default_template: nope\ntemplates:\n- name: q\n  duration: 90s\n  strategy: b/g\n  days_before: [40]\n  \
             metrics:\n  - {name: a, direction: up, exposure: b, role: x}\n  - {name: a, query: q, oops: 1}\n",
        );
        for part in [
            "default_template: unknown template `nope`",
            "templates[0].strategy: unknown value `b/g`",
            "templates[0].duration: `90s` is not within",
            "templates[0].days_before",
            "templates[0].metrics[0].query: is missing",
            "templates[0].metrics[0].direction: unknown value `up`, expected one of increase",
            "templates[0].metrics[0].role: unknown value `x`",
            "templates[0].metrics[1].oops: is no setting here",
            "templates[0].metrics[1].direction: is missing",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
