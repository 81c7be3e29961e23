//! Microsoft Teams: an Adaptive Card for a channel, posted to the address of a workflow.

use super::http::{Http, HttpSettings, read_endpoint};
use super::{Action, ActionError, ActionRequest, Done, Endpoint, Kind, Maker, Promise, Serves, Tells, Tools};
use crate::alert::{Alert, Severity, Stage, cut};
use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use vouch_service::settings::Section;

/// Teams takes messages of 28 KB.
const MOST_BYTES: usize = 27_000;

pub(super) static KIND: Kind = Kind {
    word: "teams",
    serves: Serves { rollback: false, alert: true, report: false },
    tells: Tells { updates: false, resolved: true },
    read,
};

#[derive(Debug, Clone)]
struct TeamsSettings {
    url: Endpoint,
    http: HttpSettings,
}

fn read(section: &mut Section<'_>, allowed_hosts: &[String]) -> Option<Arc<dyn Maker>> {
    let http = HttpSettings::read(section);
    let url = read_endpoint(section, ("url", "url_file"), None, allowed_hosts)?;
    Some(Arc::new(TeamsSettings { url, http }))
}

impl Maker for TeamsSettings {
    fn make(&self, _tools: &Tools) -> anyhow::Result<Box<dyn Action>> {
        Ok(Box::new(Teams { http: Http::new(&self.http)?, settings: self.clone() }))
    }
}

/// The action.
#[derive(Debug)]
struct Teams {
    settings: TeamsSettings,
    http: Http,
}

#[async_trait]
impl Action for Teams {
    /// A workflow answers 202 before the message is in the channel.
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        let to = &self.settings.url;
        self.http.post_json(self.http.call(Method::POST, to), to, &message(&request.alert)).await
    }

    fn promise(&self) -> Promise {
        Promise::of_a_channel(self.settings.http.timeout, false)
    }
}

/// The card, with texts as long as fit.
fn message(alert: &Alert) -> Value {
    let mut message = Value::Null;
    for longest in [2000, 500, 100] {
        message = json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": null,
                "content": card(alert, longest),
            }],
        });
        if message.to_string().len() <= MOST_BYTES {
            break;
        }
    }
    message
}

fn card(alert: &Alert, longest: usize) -> Value {
    let headline = run(&cut(&alert.headline, longest), true);
    let mut body = vec![
        json!({
            "type": "Container", "style": style(alert), "bleed": true,
            "items": [text_block(vec![headline])],
        }),
        text_block(vec![run(&cut(&alert.reason, longest), false)]),
    ];
    for (label, fact) in alert.facts() {
        body.push(text_block(vec![run(&format!("{label}: "), true), run(&cut(&fact, longest), false)]));
    }
    for line in alert.metrics.iter().filter(|line| line.worse) {
        let text = format!("• {} on {}: {}", line.metric, line.host, line.reason);
        body.push(text_block(vec![run(&cut(&text, longest), false)]));
    }
    if alert.more_metrics > 0 {
        body.push(text_block(vec![run(&format!("• and {} more", alert.more_metrics), false)]));
    }
    let links = alert.links();
    let actions: Vec<Value> = links
        .iter()
        .map(|(label, url)| json!({ "type": "Action.OpenUrl", "title": label, "url": url }))
        .collect();
    json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": cut(&format!("{}: {}", alert.headline, alert.reason), longest),
        "msteams": { "width": "Full" },
        "body": body,
        "actions": actions,
    })
}

/// A `RichTextBlock`: unlike a `TextBlock`, it reads no Markdown, so that what a name or a reason holds stays as it is.
fn text_block(runs: Vec<Value>) -> Value {
    json!({ "type": "RichTextBlock", "inlines": runs })
}

fn run(text: &str, bold: bool) -> Value {
    json!({ "type": "TextRun", "text": text, "weight": if bold { "Bolder" } else { "Default" } })
}

const fn style(alert: &Alert) -> &'static str {
    match (alert.stage, alert.severity) {
        (Stage::Resolves, _) => "good",
        (_, Severity::Critical | Severity::Error) => "attention",
        (_, Severity::Warning) => "warning",
        (_, Severity::Info) => "accent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::About;
    use crate::fixtures::verdict;
    use vouch_proto::{MetricResult, Verdict};

    #[test]
    fn a_card_is_never_larger_than_teams_takes_and_reads_no_markdown() {
        let reason = "**\u{1F525}** [x](https://evil.example) \"\\".repeat(300);
        let row = MetricResult { reason: reason.clone(), ..verdict().metrics[0].clone() };
        let verdict = Verdict { reason: reason.clone(), metrics: vec![row; 40], ..verdict() };
        let alert = Alert::new(&verdict, About { did: reason, ..About::default() });
        let message = message(&alert);
        assert!(message.to_string().len() <= MOST_BYTES, "{}", message.to_string().len());
        let card = &message["attachments"][0]["content"];
        assert!(!card.to_string().contains("TextBlock\",\"text"), "{card}");
        let texts = card["body"].as_array().unwrap().iter().map(|block| block["type"].as_str().unwrap());
        assert!(texts.clone().all(|kind| kind == "RichTextBlock" || kind == "Container"));
    }
}
