//! Slack: with a bot token one thread a deployment, whose first message always shows how it stands; with an incoming
//! webhook one message for each word.

use super::http::{Answer, Http, HttpSettings, read_endpoint, read_secret};
use super::{
    Action, ActionError, ActionRequest, Done, Effect, Endpoint, Kind, Maker, Promise, Serves, Tells, Tools,
};
use crate::alert::{Alert, MetricLine, Severity, Stage};
use async_trait::async_trait;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use vouch_service::settings::Section;

const API: &str = "https://slack.com/api";
/// An answer repeats the whole message.
const MOST_ANSWER_BYTES: usize = 256 * 1024;
// Slack takes 3000 characters in a section, 2000 in a field, 10 fields, 50 blocks, and about 13,000 in all blocks.
const MOST_REASON: usize = 2400;
const MOST_FIELD: usize = 700;
const MOST_FIELDS: usize = 8;
const MOST_LINE: usize = 300;
const MOST_TEXT: usize = 3500;

pub(super) static KIND: Kind = Kind {
    word: "slack",
    serves: Serves { rollback: false, alert: true, report: false },
    tells: Tells { updates: true, resolved: true },
    read,
};

/// How Slack is reached.
#[derive(Debug, Clone)]
enum Way {
    /// An app's own address: one channel, no threads.
    Webhook(Endpoint),
    /// The Web API, as a bot.
    Bot { api: Endpoint, token: SecretString, channel: String },
}

#[derive(Debug, Clone)]
struct SlackSettings {
    way: Way,
    http: HttpSettings,
    mention: Option<String>,
}

fn read(section: &mut Section<'_>, allowed_hosts: &[String]) -> Option<Arc<dyn Maker>> {
    let http = HttpSettings::read(section);
    let mention = section.text("mention");
    if let Some(mention) = mention.as_deref().filter(|mention| !is_mention(mention)) {
        section.refuse(
            "mention",
            format!("`{mention}` is no mention; write e.g. <!here>, <!subteam^S0123456> or <@U0123456>"),
        );
    }
    let by_webhook = section.raw("url").is_some() || section.raw("url_file").is_some();
    let by_token = section.raw("token").is_some() || section.raw("token_file").is_some();
    let channel = section.text("channel");
    let way = match (by_webhook, by_token) {
        (true, true) => {
            section.refuse("url_file", "and `token_file` exclude each other; keep the token for threads");
            None
        }
        (true, false) => {
            if channel.is_some() {
                section
                    .refuse("channel", "is for a bot; an incoming webhook has the channel it was made for");
            }
            read_endpoint(section, ("url", "url_file"), None, allowed_hosts).map(Way::Webhook)
        }
        (false, _) => {
            let needed = "give the bot's token (xoxb-...), or `url_file` with an incoming webhook";
            let token = read_secret(section, ("token", "token_file"), needed);
            let api = read_endpoint(section, ("api_url", "api_url_file"), Some(API), allowed_hosts);
            if channel.is_none() {
                section.refuse("channel", "is missing; give the channel's id, e.g. C0123456789");
            }
            match (api, token, channel) {
                (Some(api), Some(token), Some(channel)) => Some(Way::Bot { api, token, channel }),
                _ => None,
            }
        }
    };
    Some(Arc::new(SlackSettings { way: way?, http, mention }))
}

fn is_mention(text: &str) -> bool {
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    inner.is_some_and(|inner| {
        (inner.starts_with('!') || inner.starts_with('@'))
            && inner.len() > 1
            && inner.chars().all(|c| c.is_ascii_alphanumeric() || "!@^|-".contains(c))
    })
}

impl Maker for SlackSettings {
    fn make(&self, _tools: &Tools) -> anyhow::Result<Box<dyn Action>> {
        Ok(Box::new(Slack { http: Http::new(&self.http)?, settings: self.clone() }))
    }
}

/// The message that a thread hangs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Thread {
    channel: String,
    ts: String,
}

/// What the Web API answers.
#[derive(Debug, Deserialize)]
struct Said {
    ok: bool,
    error: Option<String>,
    channel: Option<String>,
    ts: Option<String>,
}

/// What a call of the Web API came to.
enum Ended {
    Done(Option<Thread>, String),
    /// The message that was to be changed is not there any more.
    Gone,
}

/// The action.
#[derive(Debug)]
struct Slack {
    settings: SlackSettings,
    http: Http,
}

#[async_trait]
impl Action for Slack {
    async fn execute(&self, request: &ActionRequest) -> Result<Done, ActionError> {
        let alert = &request.alert;
        let mention = self.settings.mention.as_deref();
        match &self.settings.way {
            Way::Webhook(url) => {
                let body =
                    json!({ "text": text(alert), "blocks": blocks(alert, mention), "unfurl_links": false });
                self.http.post_json(self.http.call(Method::POST, url), url, &body).await
            }
            Way::Bot { channel, .. } => {
                let thread: Option<Thread> =
                    request.memory.as_deref().and_then(|memory| serde_json::from_str(memory).ok());
                match thread {
                    None => self.post(channel, alert).await,
                    Some(thread) => self.go_on(channel, &thread, request).await,
                }
            }
        }
    }

    fn promise(&self) -> Promise {
        // The first message is changed, and then a word is put under it.
        Promise::of_a_channel(self.settings.http.timeout * 2, false)
    }

    fn remembers(&self) -> bool {
        matches!(self.settings.way, Way::Bot { .. })
    }
}

impl Slack {
    /// The first message.
    async fn post(&self, channel: &str, alert: &Alert) -> Result<Done, ActionError> {
        let mut body = message(alert, self.settings.mention.as_deref());
        body["channel"] = json!(channel);
        body["unfurl_links"] = json!(false);
        match self.call("chat.postMessage", &body).await? {
            Ended::Done(thread, detail) => {
                let memory = thread.and_then(|thread| serde_json::to_string(&thread).ok());
                Ok(Done { memory, ..Done::new(detail) })
            }
            Ended::Gone => Err(ActionError::never_sent(
                "chat.postMessage says that a message is not there that it was not asked for".to_owned(),
            )),
        }
    }

    /// Changes the first message to how it stands now, and says under it what is new.
    async fn go_on(
        &self,
        channel: &str,
        thread: &Thread,
        request: &ActionRequest,
    ) -> Result<Done, ActionError> {
        let alert = &request.alert;
        let mut body = message(alert, None);
        (body["channel"], body["ts"]) = (json!(thread.channel), json!(thread.ts));
        let changed = match self.call("chat.update", &body).await? {
            Ended::Gone => return self.post(channel, alert).await,
            Ended::Done(_, detail) => detail,
        };
        // The first word, sent again because its end was not known, is there already.
        if alert.stage == Stage::Opens && request.attempt > 1 {
            return Ok(Done::new(changed));
        }
        let reply = json!({
            "channel": thread.channel, "thread_ts": thread.ts, "text": reply(alert), "unfurl_links": false,
        });
        match self.call("chat.postMessage", &reply).await? {
            Ended::Done(_, detail) => Ok(Done::new(detail)),
            Ended::Gone => Ok(Done::new(changed)),
        }
    }

    async fn call(&self, method: &str, body: &Value) -> Result<Ended, ActionError> {
        let Way::Bot { api, token, .. } = &self.settings.way else {
            return Err(ActionError::never_sent("an incoming webhook has no Web API".to_owned()));
        };
        let to = api.below(&[method]);
        let call = self
            .http
            .call(Method::POST, &to)
            .bearer_auth(token.expose_secret())
            .header("content-type", "application/json; charset=utf-8")
            .body(body.to_string());
        let answer = self.http.send(call, &to, MOST_ANSWER_BYTES).await?;
        understood(method, answer)
    }
}

/// The Web API says in the body of a 200 whether it was done.
fn understood(method: &str, answer: Answer) -> Result<Ended, ActionError> {
    if !answer.status.is_success() {
        return answer.judge().map(|done| Ended::Done(None, done.detail));
    }
    let Ok(said) = serde_json::from_slice::<Said>(&answer.body) else {
        // It may be there. A second one would be worse than a thread that is not known.
        let detail =
            format!("{method}: answered 200 with a body that cannot be read; its thread is not known");
        return Ok(Ended::Done(None, detail));
    };
    if said.ok {
        let thread = said.channel.zip(said.ts).map(|(channel, ts)| Thread { channel, ts });
        return Ok(Ended::Done(thread, format!("{method}: ok")));
    }
    let error = said.error.unwrap_or_else(|| "no reason".to_owned());
    let (retryable, effect) = match error.as_str() {
        "message_not_found" | "cant_update_message" | "edit_window_closed" | "thread_not_found" => {
            return Ok(Ended::Gone);
        }
        "ratelimited" | "rate_limited" | "message_limit_exceeded" | "team_added_to_org" => {
            (true, Effect::None)
        }
        "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" => {
            (true, Effect::Possible)
        }
        _ => (false, Effect::None),
    };
    let detail = format!("{method} answered `{error}`{}", remedy(&error));
    Err(ActionError { retryable, effect, detail, retry_after: answer.retry_after })
}

/// What a person does about the refusals that a set-up meets.
fn remedy(error: &str) -> &'static str {
    match error {
        "not_in_channel" | "channel_not_found" => {
            ": invite the bot to the channel, and give the channel's id"
        }
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            ": the token does not hold; install the app again"
        }
        "missing_scope" => ": give the app the scope chat:write and install it again",
        "is_archived" => ": the channel is archived",
        _ => "",
    }
}

/// A message: how the deployment stands.
fn message(alert: &Alert, mention: Option<&str>) -> Value {
    json!({ "text": text(alert), "blocks": blocks(alert, mention) })
}

/// What notifications show, and readers of screens say.
fn text(alert: &Alert) -> String {
    escaped(&format!("{} {}: {}", sign(alert), alert.headline, alert.reason), MOST_TEXT)
}

fn blocks(alert: &Alert, mention: Option<&str>) -> Value {
    let called = mention.filter(|_| alert.stage == Stage::Opens && alert.severity >= Severity::Error);
    let called = called.map_or_else(String::new, |mention| format!("\n{mention}"));
    let (headline, reason) = (escaped(&alert.headline, 300), escaped(&alert.reason, MOST_REASON));
    let mut blocks = vec![section(format!("{} *{headline}*\n{reason}{called}", sign(alert)))];
    let fields: Vec<Value> = alert
        .facts()
        .iter()
        .take(MOST_FIELDS)
        .map(|(label, fact)| mrkdwn(format!("*{label}*\n{}", escaped(fact, MOST_FIELD))))
        .collect();
    blocks.push(json!({ "type": "section", "fields": fields }));
    let lines = alert.metrics.iter().filter(|line| line.worse).map(bullet);
    let mut lines: Vec<String> = lines.collect();
    if alert.more_metrics > 0 {
        lines.push(format!("• and {} more", alert.more_metrics));
    }
    if !lines.is_empty() {
        blocks.push(section(lines.join("\n")));
    }
    let links: Vec<String> =
        alert.links().iter().map(|(label, url)| format!("<{}|{label}>", escaped(url, MOST_FIELD))).collect();
    if !links.is_empty() {
        blocks.push(section(links.join("   ")));
    }
    Value::Array(blocks)
}

/// What is new, under the first message.
fn reply(alert: &Alert) -> String {
    let did = if alert.did.is_empty() { String::new() } else { format!("\n{}", alert.did) };
    escaped(&format!("{} {}\n{}{did}", sign(alert), alert.headline, alert.reason), MOST_TEXT)
}

fn bullet(line: &MetricLine) -> String {
    format!("• {}", escaped(&format!("{} on {}: {}", line.metric, line.host, line.reason), MOST_LINE))
}

fn section(text: String) -> Value {
    json!({ "type": "section", "text": mrkdwn(text) })
}

/// `verbatim`: names are no links and no channels.
fn mrkdwn(text: String) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

const fn sign(alert: &Alert) -> &'static str {
    match (alert.stage, alert.severity) {
        (Stage::Resolves, _) => ":white_check_mark:",
        (_, Severity::Critical) => ":red_circle:",
        (_, Severity::Error) => ":large_orange_circle:",
        (_, Severity::Warning) => ":large_yellow_circle:",
        (_, Severity::Info) => ":large_blue_circle:",
    }
}

/// Slack's three characters as entities, at most `most` characters in all: an entity is never cut through.
fn escaped(text: &str, most: usize) -> String {
    let (mut out, mut length) = (String::new(), 0);
    for c in text.chars() {
        let entity = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => "",
        };
        let more = entity.len().max(1);
        if length + more >= most {
            out.push('…');
            break;
        }
        length += more;
        if entity.is_empty() { out.push(c) } else { out.push_str(entity) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{About, Links};
    use crate::fixtures::verdict;
    use proptest::prelude::*;
    use vouch_proto::Verdict;

    #[test]
    fn what_slack_would_read_is_escaped() {
        assert_eq!(escaped("a <b> & c <!channel>", 100), "a &lt;b&gt; &amp; c &lt;!channel&gt;");
        assert_eq!(escaped("&&&&", 11), "&amp;&amp;…");
        assert!(is_mention("<!here>") && is_mention("<!subteam^S012>") && is_mention("<@U012>"));
        assert!(!is_mention("@here") && !is_mention("<!>") && !is_mention("<!a><!b>") && !is_mention("<a>"));
    }

    proptest! {
        #[test]
        fn no_message_is_longer_than_slack_takes(reason in ".{0,6000}", metrics in 0_usize..60) {
            let row = verdict().metrics[0].clone();
            let row = vouch_proto::MetricResult { reason: reason.clone(), metric: "&".repeat(300), ..row };
            let links = Links {
                evidence: Some(format!("https://x.example/{}", "&".repeat(400))),
                dynatrace: Some(format!("https://x.example/{}", "&".repeat(400))),
            };
            let about = About { did: reason.clone(), links, ..About::default() };
            let verdict = Verdict { reason, metrics: vec![row; metrics], ..verdict() };
            let alert = Alert::new(&verdict, about);
            let blocks = blocks(&alert, Some("<!here>"));
            let texts = |block: &Value| -> Vec<String> {
                let fields = block["fields"].as_array().cloned().unwrap_or_default();
                let all = std::iter::once(block["text"].clone()).chain(fields);
                all.filter_map(|text| text["text"].as_str().map(str::to_owned)).collect()
            };
            let mut sum = 0;
            for block in blocks.as_array().unwrap() {
                for text in texts(block) {
                    let length = text.chars().count();
                    let most = if block["fields"].is_array() { 2000 } else { 3000 };
                    prop_assert!(length <= most, "{} characters", length);
                    sum += length;
                }
            }
            prop_assert!(sum <= 12_500, "{}", sum);
            prop_assert!(text(&alert).chars().count() <= 4000 && reply(&alert).chars().count() <= 4000);
        }
    }
}
