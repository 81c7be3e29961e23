//! Logs: text for a person at a terminal, JSON lines for machines, to standard error.

use crate::settings::Section;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;
use vouch_proto::Invalid;

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Filter directives, e.g. `info` or `vouch_collector=debug,warn`.
    pub level: String,
    /// JSON lines instead of text.
    pub json: bool,
}

impl LogSettings {
    /// Reads the `log` section.
    pub fn read(root: &mut Section<'_>, invalid: &mut Invalid) -> Self {
        let mut log = root.section("log");
        let level = log.text("level").unwrap_or_else(|| "info".to_owned());
        if let Err(e) = EnvFilter::builder().parse(&level) {
            log.refuse(
                "level",
                format!("`{level}` is no filter ({e}); write e.g. `info` or `vouch_collector=debug,warn`"),
            );
        }
        let json = match log.text("format").as_deref() {
            None => !std::io::stderr().is_terminal(),
            Some("json") => true,
            Some("text") => false,
            Some(other) => {
                log.refuse("format", format!("unknown value `{other}`, expected one of json, text"));
                false
            }
        };
        log.finish(invalid);
        Self { level, json }
    }

    /// Starts logging for the process; a second call changes nothing.
    pub fn init(&self) {
        let filter = EnvFilter::builder().parse_lossy(&self.level);
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let started =
            if self.json { builder.json().try_init() } else { builder.with_target(false).try_init() };
        if started.is_err() {
            tracing::debug!("logging was started before");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Document;

    #[test]
    fn unknown_formats_and_levels_are_refused() {
        let document = Document::parse("log: {format: xml, level: 'a=b=c'}").unwrap();
        let mut invalid = Invalid::default();
        LogSettings::read(&mut document.section(), &mut invalid);
        let said = invalid.to_string();
        assert!(said.contains("log.format: unknown value `xml`") && said.contains("log.level"), "{said}");
    }
}
