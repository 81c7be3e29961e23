//! A body of one's own, as a Jinja template: checked when the settings are read, bounded when it is rendered.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use std::sync::Arc;
use vouch_service::settings::Section;

/// Longest body.
const MOST_BYTES: usize = 256 * 1024;
/// Steps that a template may take: a loop without an end ends.
const FUEL: u64 = 200_000;
const NAME: &str = "body";

/// A template that was parsed.
#[derive(Debug, Clone)]
pub(super) struct Template {
    environment: Arc<Environment<'static>>,
    content_type: String,
}

impl Template {
    /// Reads `<key>` or `<key>_file`, and `content_type`. In JSON, what stands in `{{ }}` is written as a JSON value.
    pub(super) fn read(section: &mut Section<'_>, key: &'static str, file_key: &'static str) -> Option<Self> {
        let (text, file) = (section.text(key), section.path(file_key));
        let content_type = section.text("content_type");
        let text = match (text, file) {
            (Some(_), Some(_)) => {
                section.refuse(key, format!("and `{file_key}` exclude each other; keep one"));
                None
            }
            (Some(text), None) => Some(text),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => Some(text),
                Err(e) => {
                    section.refuse(file_key, format!("{} cannot be read: {e}", path.display()));
                    None
                }
            },
            (None, None) => {
                if content_type.is_some() {
                    section.refuse(
                        "content_type",
                        format!("is for a body of one's own; it needs `{key}` or `{file_key}`"),
                    );
                }
                None
            }
        };
        let content_type = content_type.unwrap_or_else(|| "application/json".to_owned());
        match Self::parse(text?, content_type) {
            Ok(template) => Some(template),
            Err(e) => {
                section.refuse(key, format!("is no template: {e}"));
                None
            }
        }
    }

    fn parse(text: String, content_type: String) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        let json = is_json(&content_type);
        environment.set_auto_escape_callback(move |_| if json { AutoEscape::Json } else { AutoEscape::None });
        environment.add_template_owned(NAME, text).map_err(|e| in_words(&e))?;
        Ok(Self { environment: Arc::new(environment), content_type })
    }

    /// The `content-type` of the body.
    pub(super) fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Renders it; what says to be JSON has to be.
    pub(super) fn render<C: Serialize>(&self, context: &C) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|e| in_words(&e))?;
        let body = template.render(Serde(context)).map_err(|e| in_words(&e))?;
        if body.len() > MOST_BYTES {
            return Err(format!("it has {} bytes, at most {MOST_BYTES} are allowed", body.len()));
        }
        if is_json(&self.content_type) {
            serde_json::from_str::<serde::de::IgnoredAny>(&body).map_err(|e| {
                format!("what it renders is no JSON ({e}); `{{{{ value }}}}` writes quotes itself")
            })?;
        }
        Ok(body)
    }
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind == "application/json" || kind.ends_with("+json")
}

fn in_words(error: &minijinja::Error) -> String {
    match error.line() {
        Some(line) => format!("line {line}: {}", first_line(error)),
        None => first_line(error),
    }
}

fn first_line(error: &minijinja::Error) -> String {
    let detail = error.detail().map_or_else(String::new, |detail| format!(" ({detail})"));
    format!("{}{detail}", error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(text: &str, content_type: &str) -> Result<String, String> {
        let template = Template::parse(text.to_owned(), content_type.to_owned())?;
        template.render(&json!({"a": "x\"</script>", "n": 2, "list": [1, 2, 3]}))
    }

    #[test]
    fn values_are_json_in_json_and_text_in_text() {
        let body = render(r#"{"text": {{ a }}, "n": {{ n }}}"#, "application/json; charset=utf-8").unwrap();
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read, json!({"text": "x\"</script>", "n": 2}));
        assert_eq!(render("{{ a }}: {{ n }}", "text/plain").unwrap(), "x\"</script>: 2");
    }

    #[test]
    fn what_does_not_render_says_why() {
        for (text, part) in [
            ("{{ a", "line 1: syntax error"),
            ("{\"a\":\n {{ alert.headlin }}}", "line 2: undefined value"),
            ("{\"a\": \"{{ a }}\"}", "writes quotes itself"),
            ("{\"a\": }", "is no JSON"),
            ("{% for i in range(9000) %}{% for j in range(9000) %}{{ j }}{% endfor %}{% endfor %}", "fuel"),
            ("{{ a | nope }}", "nope"),
        ] {
            let said = render(text, "application/json").unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
        let said = render("{% for i in range(9000) %}{{ 'x' * 100 }}{% endfor %}", "text/plain").unwrap_err();
        assert!(said.contains("at most 262144"), "{said}");
    }
}
