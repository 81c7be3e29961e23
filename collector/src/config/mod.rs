//! The collector's settings: section `collector`, and the templates that it shares with the analyzer.

mod changes;
mod logs;
mod rules;
mod tenant;

pub use changes::ChangeSettings;
pub use logs::{BilledSettings, LogSettings, LogSourceKind};
pub use tenant::{ServiceMapping, TenantSettings};

use self::rules::rule;
use self::tenant::tenant;
use crate::schedule::Pace;
use crate::watermark::{Limits, Override, Watermarks};
use std::time::Duration;
use vouch_proto::{Glob, Invalid, Templates};
use vouch_service::settings::Section;
use vouch_service::templates::read_templates;

const MINUTE: Duration = Duration::from_secs(60);
/// Later than this nothing is learned, where the settings do not say: with `give_up_after` what the analyzer waits for.
const LONGEST_SETTLE: Duration = Duration::from_secs(5 * 60);
/// Most tenants of one collector.
const MOST_TENANTS: usize = 50;

/// The collector's settings.
#[derive(Debug, Clone)]
pub struct CollectorSettings {
    /// The tenants, at least one.
    pub tenants: Vec<TenantSettings>,
    /// How patient it is.
    pub pace: Pace,
    /// How late the metrics are, as far as the settings say.
    pub watermarks: Watermarks,
    /// What verifications can name.
    pub templates: Templates,
    /// Most other services that are looked at around one that is deployed; 0 looks at none.
    pub neighbours: usize,
    /// How deployments are found by themselves.
    pub changes: ChangeSettings,
}

impl CollectorSettings {
    /// Reads the sections `collector`, `services`, `changes`, `templates` and `default_template`.
    pub fn read(root: &mut Section<'_>, invalid: &mut Invalid) -> Self {
        let templates = read_templates(root, invalid);
        let mut section = root.section("collector");
        let mut tenants = tenants(&mut section, invalid);
        let rules: Vec<_> =
            root.sections("services").into_iter().filter_map(|one| rule(one, invalid)).collect();
        tenants.iter_mut().for_each(|tenant| tenant.rules.clone_from(&rules));
        let default = Pace::default();
        let pace = Pace {
            settle: section.duration("settle", default.settle, Duration::ZERO..=60 * MINUTE),
            reread_after: section.duration("reread_after", default.reread_after, MINUTE..=60 * MINUTE),
            give_up_after: section.duration("give_up_after", default.give_up_after, MINUTE..=180 * MINUTE),
        };
        let watermarks = watermarks(&mut section, &pace, invalid);
        if pace.give_up_after < pace.reread_after {
            section.refuse(
                "give_up_after",
                format!(
                    "{:?} is shorter than reread_after ({:?}): the last minutes would not be read once more; make it longer",
                    pace.give_up_after, pace.reread_after
                ),
            );
        }
        let neighbours = usize::try_from(section.number("neighbours", 12, 0..=20)).unwrap_or(0);
        section.finish(invalid);
        let changes = ChangeSettings::read(root, invalid);
        if changes.releases && rules.iter().all(|rule| rule.version.is_empty()) {
            let message = "needs to know the versions; give a rule in `services` a `version`, e.g. property:releasesVersion";
            invalid.push("changes.dynatrace.releases", message);
        }
        Self { tenants, pace, watermarks, templates, neighbours, changes }
    }
}

/// How late metrics are at most taken to be, and those of which it is set.
fn watermarks(section: &mut Section<'_>, pace: &Pace, invalid: &mut Invalid) -> Watermarks {
    let longest =
        section.duration("longest_settle", LONGEST_SETTLE.max(pace.settle), Duration::ZERO..=60 * MINUTE);
    if longest < pace.settle {
        let message = format!("{longest:?} is shorter than settle ({:?}); make it longer", pace.settle);
        section.refuse("longest_settle", message);
    }
    let mut overrides = Vec::new();
    for mut one in section.sections("watermarks") {
        let missing = |one: &mut Section<'_>, key: &'static str, what: &str| {
            if one.raw(key).is_none() {
                one.refuse(key, format!("is missing; {what}"));
            }
        };
        missing(
            &mut one,
            "metric",
            "give a metric's key in Dynatrace, or its name in a template; * stands for any text",
        );
        missing(&mut one, "settle", "say how long after its end a minute of it is complete, e.g. 8m");
        let metric: Option<Glob> = one.parsed("metric");
        let settle = one.duration("settle", pace.settle, Duration::ZERO..=60 * MINUTE);
        overrides.extend(metric.map(|metric| Override { metric, settle }));
        one.finish(invalid);
    }
    Watermarks::new(Limits { least: pace.settle, longest }, overrides)
}

/// The tenants: one, which `collector` itself describes, or those in `collector.tenants`.
fn tenants(section: &mut Section<'_>, invalid: &mut Invalid) -> Vec<TenantSettings> {
    let several = section.sections("tenants");
    if several.is_empty() {
        return vec![tenant(section, invalid)];
    }
    if several.len() > MOST_TENANTS {
        section.refuse("tenants", format!("names {} tenants; at most {MOST_TENANTS}", several.len()));
    }
    let mut all: Vec<TenantSettings> = Vec::new();
    for mut one in several {
        if one.raw("tenant").is_none() {
            one.refuse("tenant", "is missing; name each of several tenants");
        }
        if one.raw("environment").is_none() {
            one.refuse("environment", "is missing; of several tenants each holds one environment");
        }
        let settings = TenantSettings { is_one_of_several: true, ..tenant(&mut one, invalid) };
        if all.iter().any(|other| other.name == settings.name) {
            one.refuse("tenant", format!("`{}` is named twice", settings.name));
        }
        if settings.environment.is_some() && all.iter().any(|other| other.environment == settings.environment)
        {
            one.refuse("environment", "is held by another tenant; each environment has one");
        }
        one.finish(invalid);
        all.push(settings);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Expression;
    use crate::source::dynatrace::TOKEN_URL;
    use vouch_service::settings::Document;

    fn read(yaml: &str) -> (CollectorSettings, String) {
        let document = Document::parse(yaml).unwrap();
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let settings = CollectorSettings::read(&mut root, &mut invalid);
        root.finish(&mut invalid);
        (settings, invalid.to_string())
    }

    #[test]
    fn the_least_that_is_needed_is_an_address_and_a_token() {
        let (settings, said) = read("collector: {url: 'https://abc.live.dynatrace.com/', token: dt0c01.A.B}");
        assert_eq!(said, "");
        assert_eq!(settings.pace, Pace::default());
        assert_eq!(settings.tenants[0].url.as_str(), "https://abc.live.dynatrace.com/");
        assert!(!format!("{settings:?}").contains("dt0c01.A.B"), "the token is never shown");
        let (_, said) = read("");
        assert!(said.contains("collector.url: is missing; write"), "{said}");
        assert!(said.contains("collector.token_file: is missing; generate"), "{said}");
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let (_, said) = read(
            "collector:\n  neighbours: 21\n  url: https://abc.apps.dynatrace.com\n  token_file: /nowhere\n  settle: 2h\n  reread_after: 9m\n  \
             longest_settle: 90s\n  watermarks: [{metric: a}, {settle: 2h, oops: 1}]\n  concurrency: 0\n  calls_per_minute: 0\n  environment: ''\n  oops: 1\n  services:\n  - {service: a}\n  - {entity_id: HOST-1}\n  \
             - {service: b, entity_name: x}\n  - {service: b, entity_name: y}\n",
        );
        for part in [
            "collector.token_file: /nowhere cannot be read",
            "collector.settle: `2h` is not within",
            "collector.give_up_after: 300s is shorter than reread_after",
            "collector.concurrency: `0`",
            "collector.longest_settle: 90s is shorter than settle (120s)",
            "collector.watermarks[0].settle: is missing; say how long",
            "collector.watermarks[1].metric: is missing; give a metric's key",
            "collector.watermarks[1].settle: `2h` is not within",
            "collector.watermarks[1].oops: is no setting here",
            "collector.calls_per_minute: `0`",
            "collector.neighbours: `21`",
            "collector.environment",
            "collector.oops: is no setting here",
            "collector.services[0].entity_id: or `entity_name`",
            "collector.services[1].service: is missing",
            "collector.services[1].entity_id: `HOST-1` is no service",
            "collector.services[3].service: `b` is mapped twice",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        let (_, said) = read("collector: {url: 'https://a.live.dynatrace.com', token: dt0s16.A.B}");
        assert!(said.contains("collector.url: a.live.dynatrace.com takes access tokens"), "{said}");
        assert!(said.contains("write https://a.apps.dynatrace.com") && !said.contains("dt0s16.A"), "{said}");
        let (_, said) =
            read("collector: {url: 'https://a.apps.dynatrace.com', token: dt0s02.A.B, ca_file: Cargo.toml}");
        assert!(said.contains("secret of an OAuth client") && !said.contains("dt0s02.A"), "{said}");
        assert!(said.contains("collector.ca_file: Cargo.toml holds no certificate"), "{said}");
    }

    #[test]
    fn rules_are_read_and_each_wrong_word_is_named() {
        let (settings, said) = read(
            "collector: {url: 'https://a.live.dynatrace.com', token: dt0c01.A.B}\n\
             services:\n- match: {cluster: 'prod-*', namespace: ['shop-*', pay], tag: ['tier=gold', canary]}\n  \
             service: label:app.kubernetes.io/name\n  environment: prod\n  version: [label:app.kubernetes.io/version, image-tag]\n  \
             owner: label:team\noverrides:\n- {match: {service: checkout}, template: infrastructure}\n",
        );
        assert_eq!(said, "");
        let rule = &settings.tenants[0].rules[0];
        assert_eq!((rule.conditions.len(), rule.version.len()), (4, 2));
        assert_eq!(rule.environment, [Expression::Text("prod".into())]);
        let (_, said) = read(
            "collector: {url: 'https://a.live.dynatrace.com', token: dt0c01.A.B}\n\
             services:\n- match: {clutser: x}\n  service: checkout\n- {environment: prod, owner: 'label:'}\n\
             overrides:\n- {template: nothing}\n- {match: {cluster: x}}\n",
        );
        for part in [
            "services[0].match.clutser: is no setting here, expected one of cluster",
            "services[0].service: `checkout` is nothing to read; expected one of label:KEY",
            "services[1].service: is missing",
            "services[1].owner: `label:` names no key",
            "overrides[0].match: is missing",
            "overrides[0].template: unknown template `nothing`, expected one of",
            "overrides[1].match.cluster: is no setting here, expected one of environment, service",
            "overrides[1].template: is missing",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn instances_are_told_apart_by_version_or_by_sides() {
        let with = |rules: &str| {
            read(&format!(
                "collector: {{url: 'https://a.live.dynatrace.com', token: dt0c01.A.B}}\nservices:\n{rules}"
            ))
        };
        let (settings, said) = with(
            "- {service: name, version: image-tag, instances: version}\n\
             - {service: name, instances: {name: 'label:pod', test: {name: '*-canary', tag: track=canary}, control: {tag: track=stable}}}\n",
        );
        assert_eq!(said, "");
        let rules = &settings.tenants[0].rules;
        assert_eq!(rules[0].instances, Some(crate::rules::Instances::default()));
        let sides = rules[1].instances.clone().unwrap();
        assert_eq!((sides.name.len(), sides.test.len(), sides.control.len()), (1, 2, 1));
        let (_, said) = with(
            "- {service: name, version: image-tag, instances: pods}\n\
             - {service: name, instances: version}\n\
             - {service: name, instances: {name: pod, tset: {}, test: {lable: x}}}\n\
             - {service: name, version: image-tag, instances: 3}\n",
        );
        for part in [
            "services[0].instances: `pods` tells no instances apart; write `version`, or a mapping",
            "services[1].instances: cannot tell which instance runs the new version",
            "services[2].instances.name: `pod` is nothing to read",
            "services[2].instances.tset: is no setting here, expected one of control, name, test",
            "services[2].instances.test.lable: is no setting here",
            "services[3].instances: must be a mapping",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn an_oauth_client_needs_its_secret() {
        let (settings, said) = read(
            "collector: {url: 'https://a.apps.dynatrace.com', oauth: {client_secret: dt0s02.ID.SECRET, resource: 'urn:dtaccount:1'}}",
        );
        assert_eq!(said, "");
        let oauth = settings.tenants[0].oauth.clone().unwrap();
        assert_eq!((oauth.client_id.as_str(), oauth.token_url.as_str()), ("dt0s02.ID", TOKEN_URL));
        assert!(oauth.scopes.contains("storage:metrics:read"), "{}", oauth.scopes);
        assert!(!oauth.scopes.contains("storage:logs:read"), "{}", oauth.scopes);
        let (settings, said) = read(
            "collector: {url: 'https://a.apps.dynatrace.com', oauth: {client_secret: dt0s02.ID.SECRET}, logs: {source: grail}, billed: {scan_budget_gib_per_day: 1}}",
        );
        assert_eq!(said, "");
        assert!(settings.tenants[0].oauth.clone().unwrap().scopes.ends_with(" storage:logs:read"));
        let (_, said) = read(
            "collector: {url: 'https://a.live.dynatrace.com', token: dt0c01.A.B, oauth: {token_url: x, resource: me, oops: 1}}",
        );
        for part in [
            "collector.oauth: stands beside a token",
            "collector.oauth.client_secret_file: is missing",
            "collector.oauth.token_url: `x` is no http",
            "collector.oauth.resource: `me` is no account",
            "collector.oauth.oops: is no setting here",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn several_tenants_have_a_name_and_an_environment_each() {
        let (settings, said) = read(
            "collector:\n  settle: 1m\n  tenants:\n  - {tenant: eu, environment: prod-eu, url: 'https://a.live.dynatrace.com', token: dt0c01.A.B}\n  \
             - {tenant: us, environment: prod-us, url: 'https://b.apps.dynatrace.com', token: dt0s16.A.B}\n",
        );
        assert_eq!(said, "");
        let names: Vec<&str> = settings.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        assert_eq!(names, ["eu", "us"]);
        let (_, said) = read(
            "collector:\n  url: https://c.live.dynatrace.com\n  tenants:\n  - {tenant: eu, environment: prod, url: 'https://a.live.dynatrace.com', token: dt0c01.A.B}\n  \
             - {tenant: eu, environment: prod, url: 'https://b.live.dynatrace.com', token: dt0c01.A.B, settle: 1m}\n  - {token: dt0c01.A.B}\n",
        );
        for part in [
            "collector.url: is no setting here",
            "collector.tenants[1].tenant: `eu` is named twice",
            "collector.tenants[1].environment: is held by another tenant",
            "collector.tenants[1].settle: is no setting here",
            "collector.tenants[2].tenant: is missing",
            "collector.tenants[2].environment: is missing",
            "collector.tenants[2].url: is missing",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
