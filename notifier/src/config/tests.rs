//! Settings: what nothing means, what everything means, and every wrong value with its message.

use super::*;
use vouch_service::settings::Document;

fn read(yaml: &str) -> (NotifierSettings, String) {
    let document = Document::parse(yaml).unwrap();
    let (mut root, mut invalid) = (document.section(), Invalid::default());
    let settings = NotifierSettings::read(&mut root, &mut invalid);
    root.finish(&mut invalid);
    (settings, invalid.to_string())
}

fn refused(yaml: &str, part: &str) {
    let (_, said) = read(yaml);
    assert!(said.contains(part), "{part}\nis not in\n{said}");
}

#[test]
fn without_settings_everything_is_a_dry_run_in_the_log() {
    let (settings, said) = read("");
    assert_eq!(said, "");
    assert_eq!(settings.policy, PolicySettings::default());
    assert_eq!(settings.policy.mode(&Name::new("prod").unwrap()), Mode::DryRun);
    assert_eq!(settings.actions.len(), 1);
    assert!(settings.actions[0].kind.only_says());
}

#[test]
fn the_documented_example_loads() {
    let page = include_str!("../../../docs/actions.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let (settings, said) = read(
        &example
            .replace("/run/secrets/undo", &secret.display().to_string())
            .replace("/run/secrets/chat", &secret.display().to_string()),
    );
    assert_eq!(said, "");
    for (environment, mode) in [("prod", Mode::Act), ("load-test", Mode::Off), ("other", Mode::DryRun)] {
        assert_eq!(settings.policy.mode(&Name::new(environment).unwrap()), mode, "{environment}");
    }
    assert!(!format!("{settings:?}").contains("s3cret"), "secrets are never shown");
}

#[test]
fn everything_wrong_is_named_at_once() {
    let (_, said) = read(
        "notifier:\n  lease: 1ms\n  max_verdict_age: soon\n  max_in_flight: 65\n  oops: 1\n  allowed_hosts: [hooks.example]\n  \
         actions:\n  - {name: Undo, type: webhook, url: 'http://hooks.example/x', secret: s}\n  \
         - {name: log, type: exec}\n  - {name: a, type: webhook, url: 'https://other.example', unsigned: true}\n  \
         - {name: a, type: webhook, probe_url: 'ftp://x', secret_file: /nowhere, timeout: 5m, retry_pause: 1m}\n  \
         - {type: log, url: 'https://x'}\n  \
         rollback: {action: nope, default: maybe, environments: {prod: live, ' ': act}}\n  \
         alert: {actions: [chat, log, log], max_age: 1s}\n",
    );
    for part in [
        "notifier.lease: `1ms` is not within",
        "notifier.max_verdict_age: `soon` is no duration",
        "notifier.max_in_flight: `65` is not within 1 to 64",
        "notifier.oops: is no setting here",
        "notifier.actions[0].name: `Undo` is not 1 to 40 of a-z",
        "notifier.actions[0].url: to hooks.example is not encrypted; use https, or set `insecure_http: true`",
        "notifier.actions[1].name: `log` is the name of the action that is always there",
        "notifier.actions[1].type: unknown value `exec`, expected one of ",
        "notifier.actions[2].url: goes to other.example, which is not among notifier.allowed_hosts: hooks.example",
        "notifier.actions[3].name: `a` is named twice",
        "notifier.actions[3].url: is missing",
        "notifier.actions[3].probe_url: ",
        "notifier.actions[3].secret_file: /nowhere cannot be read",
        "notifier.actions[3].timeout: `5m` is not within",
        "notifier.actions[3].retry_pause: is longer than `longest_retry_pause`",
        "notifier.actions[4].name: is missing",
        "notifier.actions[4].url: is no setting here",
        "notifier.rollback.action: unknown action `nope`, expected one of log, ",
        "notifier.rollback.default: unknown value `maybe`, expected one of act, dry-run, off",
        "notifier.rollback.environments.prod: unknown value `live`, expected one of act, dry-run, off",
        "notifier.rollback.environments. : is empty",
        "notifier.alert.actions[0]: unknown action `chat`",
        "notifier.alert.actions[2]: `log` is named twice",
        "notifier.alert.max_age: `1s` is not within",
    ] {
        assert!(said.contains(part), "{part}\nis not in\n{}", said.replace("; notifier", "\nnotifier"));
    }
}

#[test]
fn acting_needs_an_action_that_acts() {
    refused("notifier: {rollback: {environments: {prod: act}}}", "rollback.action: `log` only says");
    refused(
        "notifier: {actions: [{name: say, type: log}], rollback: {action: say, default: act}}",
        "rollback.action: `say` only says",
    );
    refused("notifier: {rollback: {environments: [prod]}}", "rollback.environments: must be a mapping");
    refused("notifier: {rollback: {environments: {prod: 1}}}", "environments.prod: unknown value `1`");
}

#[test]
fn an_action_is_named_only_for_what_it_does() {
    refused(
        "notifier: {actions: [{name: chat, type: slack, url: 'https://x.example'}], rollback: {action: chat}}",
        "rollback.action: `chat` is of type slack, which rolls nothing back",
    );
}

#[test]
fn reports_go_to_what_records_verdicts() {
    let chat = "{name: chat, type: slack, url: 'https://x.example'}";
    refused(
        &format!("notifier: {{actions: [{chat}], report: {{actions: [chat, nope, log, log], oops: 1}}}}"),
        "report.actions[0]: `chat` is of type slack, which records no verdicts",
    );
    let yaml = "notifier: {report: {actions: [nope, log, log], oops: 1}}";
    for part in [
        "report.actions[0]: unknown action `nope`",
        "report.actions[2]: `log` is named twice",
        "report.oops: is no",
    ] {
        refused(yaml, part);
    }
    let (settings, said) = read("notifier: {report: {actions: [log]}}");
    assert_eq!((settings.reports, said.as_str()), (vec!["log".to_owned()], ""));
}

#[test]
fn channels_need_what_they_need() {
    for (yaml, parts) in [
        ("type: slack", vec!["token_file: is missing; give the bot's token", "channel: is missing"]),
        ("type: slack, token: x", vec!["channel: is missing"]),
        (
            "type: slack, token: x, url: 'https://x.example', channel: C1",
            vec!["url_file: and `token_file` exclude"],
        ),
        ("type: slack, url: 'https://x.example', channel: C1", vec!["channel: is for a bot"]),
        ("type: slack, url: 'https://x.example', mention: '@here'", vec!["mention: `@here` is no mention"]),
        ("type: slack, url: 'http://x.example'", vec!["url: to x.example is not encrypted"]),
        ("type: teams", vec!["url: is missing"]),
        ("type: teams, url_file: /nowhere", vec!["url_file: /nowhere cannot be read"]),
        ("type: pagerduty", vec!["routing_key_file: is missing"]),
        ("type: pagerduty, routing_key: abc", vec!["routing_key_file: holds 3 characters, expected the 32"]),
        ("type: opsgenie", vec!["api_key_file: is missing"]),
        (
            "type: opsgenie, api_key: x, responders: [shop, 'team:'], oops: 1",
            vec![
                "responders: `shop` is no responder",
                "responders: `team:` is no responder",
                "oops: is no setting",
            ],
        ),
        (
            "type: webhook, url: 'https://x.example', unsigned: true, body: '{{ a'",
            vec!["body: is no template: line 1"],
        ),
        (
            "type: webhook, url: 'https://x.example', unsigned: true, body: '{\"a\": {{ alert.headlin }}}'",
            vec!["body: does not render: line 1: undefined value"],
        ),
        (
            "type: webhook, url: 'https://x.example', unsigned: true, body_file: /nowhere",
            vec!["body_file: /nowhere cannot be read"],
        ),
        (
            "type: webhook, url: 'https://x.example', unsigned: true, content_type: text/plain",
            vec!["content_type: is for a body of one's own"],
        ),
        (
            "type: webhook, url: 'https://x.example', unsigned: true, client_key_file: /nowhere, ca_file: /nowhere",
            vec![
                "client_cert_file: is missing",
                "client_key_file: /nowhere cannot",
                "ca_file: /nowhere cannot",
            ],
        ),
    ] {
        let (_, said) = read(&format!("notifier: {{actions: [{{name: it, {yaml}}}]}}"));
        for part in parts {
            assert!(said.contains(&format!("notifier.actions[0].{part}")), "{part}\nis not in\n{said}");
        }
    }
}

#[test]
fn a_webhook_is_signed_or_says_that_it_is_not() {
    let hook = |more: &str| {
        format!("notifier: {{actions: [{{name: a, type: webhook, url: 'https://x.example'{more}}}]}}")
    };
    refused(&hook(""), "actions[0].secret_file: is missing");
    refused(
        &hook(", unsigned: true, secret: x"),
        "actions[0].unsigned: and `secret_file` exclude each other",
    );
    assert_eq!(read(&hook(", unsigned: true")).1, "");
    let (_, said) = read(&hook(", secret_file: /nowhere"));
    assert!(said.contains("/nowhere cannot be read") && !said.contains("is missing"), "{said}");
    refused("notifier: {alert: {actions: []}}", "alert.actions: is empty");
}
