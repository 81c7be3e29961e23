//! Reading settings: a YAML file, overlaid by `VOUCH__A__B=...` of the environment. All errors at once, by field.

use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vouch_proto::{Invalid, Timestamp};

/// Prefix of variables that overlay the file; `__` separates the levels.
pub const ENVIRONMENT_PREFIX: &str = "VOUCH__";

/// The settings as written, before any service has read its part.
#[derive(Debug, Clone, Default)]
pub struct Document {
    root: Map<String, Value>,
}

impl Document {
    /// Reads a file and overlays the variables.
    ///
    /// # Errors
    /// Where the file cannot be read, is no YAML, or a variable names a field below a plain value.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Invalid> {
        let mut document = match file {
            None => Self::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| {
                    Invalid::field(path.display().to_string(), format!("cannot be read: {e}"))
                })?;
                Self::parse(&text).map_err(|mut invalid| {
                    for violation in &mut invalid.violations {
                        violation.field = path.display().to_string();
                    }
                    invalid
                })?
            }
        };
        let mut variables: Vec<_> = variables.into_iter().collect();
        variables.sort();
        let mut invalid = Invalid::default();
        for (name, value) in variables {
            if let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
                let value = Value::String(value);
                if !overlay(&mut document.root, &path, value) {
                    invalid.push(name.clone(), "names a field below a plain value; check the levels");
                }
            }
        }
        invalid.into_result().map(|()| document)
    }

    /// Reads YAML.
    ///
    /// # Errors
    /// Where it is no YAML, or its top level is no mapping.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let value: Value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(text)
                .map_err(|e| Invalid::field("settings", format!("is no valid YAML: {e}")))?
        };
        match value {
            Value::Null => Ok(Self::default()),
            Value::Object(root) => Ok(Self { root }),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(Invalid::field("settings", "must be a mapping of sections, e.g. `nats:`"))
            }
        }
    }

    /// The top level, to read sections from.
    #[must_use]
    pub fn section(&self) -> Section<'_> {
        Section::new(String::new(), Some(&self.root))
    }
}

fn overlay(map: &mut Map<String, Value>, path: &[String], value: Value) -> bool {
    match path {
        [] => false,
        [last] => {
            map.insert(last.clone(), value);
            true
        }
        [first, rest @ ..] => {
            let below = map.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
            below.as_object_mut().is_some_and(|below| overlay(below, rest, value))
        }
    }
}

/// One mapping of the settings. Each field is read once; what nobody has read is refused by `finish`.
#[derive(Debug)]
pub struct Section<'a> {
    path: String,
    map: Option<&'a Map<String, Value>>,
    known: BTreeSet<&'static str>,
    invalid: Invalid,
}

impl<'a> Section<'a> {
    fn new(path: String, map: Option<&'a Map<String, Value>>) -> Self {
        Self { path, map, known: BTreeSet::new(), invalid: Invalid::default() }
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value as it was written.
    pub fn raw(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.insert(key);
        self.map.and_then(|map| map.get(key)).filter(|value| !value.is_null())
    }

    /// Notes that a field is wrong.
    pub fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let field = self.at(key);
        self.invalid.push(field, message);
    }

    /// Whether the section was written at all.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.map.is_some()
    }

    /// A text, where it was given.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.raw(key)? {
            Value::String(s) if !s.trim().is_empty() => Some(s.clone()),
            Value::Number(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            other @ (Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                self.refuse(key, format!("`{other}` is no text; give a non-empty text"));
                None
            }
        }
    }

    /// A value parsed from text, where it was given; its error becomes the message.
    pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, key: &'static str) -> Option<T> {
        let text = self.text(key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(e) => {
                self.refuse(key, e.to_string().trim_start_matches(": ").to_owned());
                None
            }
        }
    }

    /// A whole number within limits.
    pub fn number(&mut self, key: &'static str, default: u64, limits: std::ops::RangeInclusive<u64>) -> u64 {
        let Some(text) = self.text(key) else { return default };
        match text.parse() {
            Ok(number) if limits.contains(&number) => number,
            _ => {
                let (low, high) = limits.into_inner();
                self.refuse(key, format!("`{text}` is not within {low} to {high}; give a whole number"));
                default
            }
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(text) = self.text(key) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.refuse(key, format!("`{text}` is neither `true` nor `false`"));
            default
        })
    }

    /// A duration such as `30s`, `5m`, `3h` or `7d`, within limits.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        limits: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let Some(text) = self.text(key) else { return default };
        match parse_duration(&text) {
            Ok(duration) if limits.contains(&duration) => duration,
            Ok(_) => {
                let (low, high) = limits.into_inner();
                self.refuse(key, format!("`{text}` is not within {low:?} to {high:?}"));
                default
            }
            Err(e) => {
                self.refuse(key, e);
                default
            }
        }
    }

    /// A list of texts; empty where it was not given.
    pub fn texts(&mut self, key: &'static str) -> Vec<String> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let items: Option<Vec<String>> = match value {
            Value::Array(items) => items.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
            Value::String(s) => Some(s.split(',').map(|s| s.trim().to_owned()).collect()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        };
        items.unwrap_or_else(|| {
            self.refuse(key, "must be a list of texts");
            Vec::new()
        })
    }

    /// A secret: the content of `<key>_file`, or the text of `<key>`. Never shown.
    pub fn secret(&mut self, key: &'static str, file_key: &'static str) -> Option<secrecy::SecretString> {
        let text = self.text(key);
        match (text, self.path(file_key)) {
            (Some(_), Some(_)) => {
                self.refuse(key, format!("and `{file_key}` exclude each other; keep `{file_key}`"));
                None
            }
            (Some(text), None) => Some(text.into()),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(secret) if !secret.trim().is_empty() => Some(secret.trim().to_owned().into()),
                Ok(_) => {
                    self.refuse(file_key, format!("{} is empty", path.display()));
                    None
                }
                Err(e) => {
                    self.refuse(file_key, format!("{} cannot be read: {e}", path.display()));
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// A path.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A mapping below this one.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let path = self.at(key);
        match self.raw(key) {
            None => Self::new(path, None),
            Some(Value::Object(map)) => Self::new(path, Some(map)),
            Some(_) => {
                self.refuse(key, "must be a mapping");
                Self::new(path, None)
            }
        }
    }

    /// The mappings of a list below this one.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let path = self.at(key);
        let items = match self.raw(key) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.refuse(key, "must be a list");
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match item.as_object() {
                Some(map) => sections.push(Self::new(format!("{path}[{i}]"), Some(map))),
                None => self.invalid.push(format!("{path}[{i}]"), "must be a mapping"),
            }
        }
        sections
    }

    /// Ends reading: unknown fields are refused with those there are, and everything wrong goes to `invalid`.
    pub fn finish(mut self, invalid: &mut Invalid) {
        let unknown: Vec<String> = self
            .map
            .into_iter()
            .flat_map(Map::keys)
            .filter(|k| !self.known.contains(k.as_str()))
            .cloned()
            .collect();
        let known = self.known.iter().copied().collect::<Vec<_>>().join(", ");
        for key in unknown {
            self.refuse(&key, format!("is no setting here, expected one of {known}"));
        }
        invalid.violations.append(&mut self.invalid.violations);
    }
}

/// Sections of a settings file that all services share; each reads its own and leaves the others to their owners.
const SHARED_FILE: [&str; 15] = [
    "budget",
    "evidence",
    "nats",
    "log",
    "clock",
    "drain_deadline",
    "templates",
    "default_template",
    "overrides",
    "services",
    "changes",
    "collector",
    "analyzer",
    "notifier",
    "simulator",
];

impl Section<'_> {
    /// Ends reading the top level of a file that several services share.
    pub fn finish_shared(mut self, invalid: &mut Invalid) {
        self.known.extend(SHARED_FILE);
        self.finish(invalid);
    }
}

/// Reads `250ms`, `30s`, `5m`, `3h` or `7d`.
///
/// # Errors
/// In words, with an example.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write e.g. 30s, 5m, 3h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// The variables of the process: the one place that reads them.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

/// Reads the `clock` section: the machine's clock, or a scaled one for demos and tests.
pub fn clock(section: &mut Section<'_>, invalid: &mut Invalid) -> crate::clock::SharedClock {
    let mut clock = section.section("clock");
    let present = clock.is_present();
    let simulated = clock.parsed::<Timestamp>("simulated");
    let anchor = clock.parsed::<Timestamp>("anchor");
    let speed = clock.parsed::<f64>("speed").unwrap_or(1.0);
    if !(speed.is_finite() && speed > 0.0) {
        clock.refuse("speed", format!("{speed} is not positive"));
    }
    if present && (simulated.is_none() || anchor.is_none()) {
        clock.refuse("simulated", "and `anchor` must both be given, as RFC 3339 instants");
    }
    clock.finish(invalid);
    match (simulated, anchor) {
        (Some(simulated), Some(anchor)) => {
            std::sync::Arc::new(crate::clock::ScaledClock { simulated, anchor, speed })
        }
        _ => std::sync::Arc::new(crate::clock::SystemClock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_are_named_at_once_with_field_value_and_remedy() {
        let document = Document::parse("a: {n: 9, d: soon, oops: 1, f: maybe}\nlist: [{x: 1}, 2]").unwrap();
        let mut invalid = Invalid::default();
        let mut root = document.section();
        let mut a = root.section("a");
        assert_eq!(a.number("n", 1, 1..=5), 1);
        assert_eq!(a.duration("d", Duration::ZERO, Duration::ZERO..=Duration::MAX), Duration::ZERO);
        assert!(a.flag("f", true));
        a.finish(&mut invalid);
        assert_eq!(root.sections("list").len(), 1);
        root.finish(&mut invalid);
        let said = invalid.to_string();
        for part in [
            "a.n: `9` is not within 1 to 5",
            "a.d: `soon` is no duration; write e.g. 30s",
            "a.f: `maybe` is neither",
            "a.oops: is no setting here, expected one of d, f, n",
            "list[1]: must be a mapping",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn the_environment_overlays_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vouch.yaml");
        std::fs::write(&file, "nats: {url: nats://a}\n").unwrap();
        let variables = [("VOUCH__NATS__URL".to_owned(), "nats://b".to_owned()), ("HOME".into(), "/".into())];
        let document = Document::load(Some(&file), variables).unwrap();
        assert_eq!(document.section().section("nats").text("url").unwrap(), "nats://b");
        assert!(
            Document::load(Some(Path::new("/nowhere")), []).unwrap_err().to_string().contains("/nowhere")
        );
        assert!(Document::parse("[1]").is_err() && Document::parse("a: [").is_err());
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "dt0c01.secret\n").unwrap();
        let document =
            Document::parse(&format!("token_file: {}\nmissing_file: /nowhere", file.display())).unwrap();
        let mut section = document.section();
        let secret = section.secret("token", "token_file").unwrap();
        assert!(!format!("{secret:?}").contains("dt0c01"));
        assert!(section.secret("missing", "missing_file").is_none());
        let mut invalid = Invalid::default();
        section.finish(&mut invalid);
        assert!(invalid.to_string().contains("missing_file: /nowhere cannot be read"));
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert!(
            parse_duration("7").is_err() && parse_duration("-7m").is_err() && parse_duration("").is_err()
        );
        assert!(parse_duration("99999999999999999999d").is_err());
    }
}
