//! An alert as HTML that mail programs show: tables, styles in place, no pictures, no scripts. Each metric has two bars, what
//! was expected and what is there.

use crate::alert::{Alert, MetricLine, Severity, Stage, cut};
use std::fmt::Write as _;

const MOST_REASON: usize = 4000;
const MOST_FACT: usize = 1000;
/// Width of the longer bar, in pixels: it fits on a phone.
const WIDTH: f64 = 220.0;
/// Beyond this multiple a bar is cut; the number is beside it.
const MOST_RATIO: f64 = 10.0;

/// The page.
pub(super) fn page(alert: &Alert) -> String {
    let colour = colour(alert);
    let mut body = String::new();
    let headline = escaped(&cut(&alert.headline, MOST_FACT));
    let _ = write!(
        body,
        "<table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\" style=\"max-width:640px;width:100%;\
         font-family:Arial,Helvetica,sans-serif;font-size:14px;color:#222222\">\
         <tr><td style=\"border-left:6px solid {colour};padding:8px 12px;font-size:18px;font-weight:bold\">{headline}</td></tr>\
         <tr><td style=\"padding:8px 12px\">{}</td></tr>",
        escaped(&cut(&alert.reason, MOST_REASON))
    );
    body.push_str(&bars(alert, colour));
    body.push_str("<tr><td style=\"padding:8px 12px\"><table role=\"presentation\" cellpadding=\"2\" style=\"font-size:14px\">");
    for (label, fact) in alert.facts() {
        let fact = escaped(&cut(&fact, MOST_FACT));
        let _ = write!(
            body,
            "<tr><td style=\"color:#666666;padding-right:12px;vertical-align:top\">{label}</td><td>{fact}</td></tr>"
        );
    }
    body.push_str("</table></td></tr>");
    if !alert.links().is_empty() {
        body.push_str("<tr><td style=\"padding:8px 12px\">");
        for (label, url) in alert.links() {
            let _ = write!(
                body,
                "<a href=\"{}\" style=\"display:inline-block;margin-right:12px;padding:8px 14px;background:#2171b5;\
                 color:#ffffff;text-decoration:none\">{label}</a>",
                escaped(url)
            );
        }
        body.push_str("</td></tr>");
    }
    body.push_str("</table>");
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{headline}</title></head>\
         <body style=\"margin:0;padding:8px\">{body}</body></html>"
    )
}

fn bars(alert: &Alert, colour: &str) -> String {
    let lines: Vec<(&MetricLine, f64)> =
        alert.metrics.iter().filter_map(|line| Some((line, line.ratio?))).collect();
    if lines.is_empty() {
        return String::new();
    }
    let longest = lines.iter().map(|(_, ratio)| ratio.min(MOST_RATIO)).fold(1.0, f64::max);
    let mut rows = String::from(
        "<tr><td style=\"padding:8px 12px\"><table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\" style=\"font-size:13px\">",
    );
    for (line, ratio) in lines {
        let name = escaped(&cut(&format!("{} on {}", line.metric, line.host), 120));
        let reason = escaped(&cut(&line.reason, 300));
        let _ = write!(
            rows,
            "<tr><td colspan=\"2\" style=\"padding-top:8px\"><b>{name}</b><br>{reason}</td></tr>"
        );
        let shown = if line.worse { colour } else { "#969696" };
        rows.push_str(&bar("expected", 1.0 / longest, "#c6dbef", "100 %"));
        rows.push_str(&bar(
            "measured",
            ratio.min(MOST_RATIO) / longest,
            shown,
            &format!("{:.0} %", 100.0 * ratio),
        ));
    }
    if alert.more_metrics > 0 {
        let _ = write!(
            rows,
            "<tr><td colspan=\"2\" style=\"padding-top:8px\">and {} more</td></tr>",
            alert.more_metrics
        );
    }
    rows + "</table></td></tr>"
}

fn bar(label: &str, share: f64, colour: &str, amount: &str) -> String {
    let width = (WIDTH * share.clamp(0.0, 1.0)).max(2.0);
    format!(
        "<tr><td style=\"color:#666666;padding-right:8px\">{label}</td><td>\
         <table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\"><tr>\
         <td width=\"{width:.0}\" height=\"12\" style=\"width:{width:.0}px;height:12px;background:{colour}\"></td>\
         <td style=\"padding-left:6px;font-size:13px\">{amount}</td></tr></table></td></tr>"
    )
}

const fn colour(alert: &Alert) -> &'static str {
    match (alert.stage, alert.severity) {
        (Stage::Resolves, _) => "#2e7d32",
        (_, Severity::Critical) => "#cb181d",
        (_, Severity::Error) => "#d94801",
        (_, Severity::Warning) => "#b8860b",
        (_, Severity::Info) => "#2171b5",
    }
}

/// Text in HTML, also inside of an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push_str("<br>"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{About, Links};
    use crate::fixtures::verdict;
    use vouch_proto::{MetricResult, Verdict};

    #[test]
    fn what_comes_from_outside_is_text() {
        let evil = "<script>alert('x')</script>\"&";
        let row = MetricResult {
            metric: evil.into(),
            host: evil.into(),
            reason: evil.into(),
            level: Some([1.0, 1e9]),
            ..verdict().metrics[0].clone()
        };
        let links = Links { evidence: Some("https://x.example/?a=1&b=\"><script>".into()), dynatrace: None };
        let about = About { did: evil.into(), links, ..About::default() };
        let verdict = Verdict {
            reason: evil.repeat(1000),
            owner: Some(evil.into()),
            metrics: vec![row; 30],
            ..verdict()
        };
        let page = page(&Alert::new(&verdict, about));
        assert!(!page.contains("<script") && !page.contains("alert('"), "{page}");
        assert!(page.contains("a=1&amp;b=&quot;&gt;&lt;script&gt;") && page.contains("100000000000 %"));
        assert!(page.len() < 100_000, "{}", page.len());
        let widest = page
            .match_indices("width=\"")
            .filter_map(|(at, m)| page[at + m.len()..].split('"').next()?.parse::<f64>().ok());
        assert!(widest.fold(0.0, f64::max) <= WIDTH, "it fits on a phone");
    }
}
