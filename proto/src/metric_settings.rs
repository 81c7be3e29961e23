//! How one metric is judged: the words of templates and cases, and the same in messages.

use crate::{Direction, Invalid, OnNoData, Sensitivity, UnknownWord, v1};
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

/// The words, in the order of [`MetricSettings`].
pub const WORDS: [&str; 9] = [
    "minimum_effect",
    "sensitivity",
    "critical",
    "muted",
    "weight",
    "group",
    "fail_fast",
    "ignore",
    "on_no_data",
];
/// Weights that a metric may have.
pub const WEIGHTS: RangeInclusive<f64> = 0.01..=100.0;
/// Most samples that a limit may wait for.
pub const MOST_SAMPLES: u32 = 15;
/// Samples beyond an `ignore` limit that are asked for where it does not say: one alone may be chance.
const IGNORE_AFTER: When = When::After(3);

/// How one metric is judged. The default is what a metric without settings gets.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricSettings {
    /// Smallest change that may fail.
    pub minimum_effect: MinimumEffect,
    /// How much evidence it needs; `None`: as the template says.
    pub sensitivity: Option<Sensitivity>,
    /// A regression of this metric alone fails the deployment.
    pub critical: bool,
    /// Reported, never judged.
    pub muted: bool,
    /// Share of the evidence against the other metrics.
    pub weight: f64,
    /// Metrics of one group share one weight.
    pub group: Option<String>,
    /// Beyond it the metric fails, without the statistics.
    pub fail_fast: Option<Limit>,
    /// Within it nothing is a regression.
    pub ignore: Option<Limit>,
    /// What no sample after the deployment means; `None`: inconclusive where it was measured before.
    pub on_no_data: Option<OnNoData>,
}

/// Smallest change in the bad direction that may fail: each part that is given must be reached.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MinimumEffect {
    /// E.g. 0.1 for 10 %.
    pub relative: Option<f64>,
    /// In the metric's own unit; for counts the rise of the ratio.
    pub absolute: Option<f64>,
}

/// A bound on the values. A sample is beyond it when it is beyond each part that is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// In the metric's own unit; for counts a ratio.
    pub absolute: Option<f64>,
    /// Percent of change against the usual value, above zero.
    pub percent: Option<f64>,
    /// How many samples beyond it count.
    pub when: When,
}

/// How many samples beyond a limit count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The first.
    AtOnce,
    /// So many.
    After(u32),
    /// So many in a row.
    AfterInARow(u32),
}

impl MetricSettings {
    /// What a metric without settings gets.
    pub const DEFAULT: Self = Self {
        minimum_effect: MinimumEffect { relative: None, absolute: None },
        sensitivity: None,
        critical: false,
        muted: false,
        weight: 1.0,
        group: None,
        fail_fast: None,
        ignore: None,
        on_no_data: None,
    };
}

impl Default for MetricSettings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl MetricSettings {
    /// Reads the words from wherever `get` finds them; what is wrong goes to `invalid`, by field.
    pub fn read<'a>(get: impl FnMut(&'static str) -> Option<&'a Value>, invalid: &mut Invalid) -> Self {
        let mut reader = Reader { get, invalid };
        let default = Self::default();
        Self {
            minimum_effect: reader.minimum_effect(),
            sensitivity: reader.word("sensitivity"),
            critical: reader.flag("critical"),
            muted: reader.flag("muted"),
            weight: reader.weight().unwrap_or(default.weight),
            group: reader.text("group"),
            fail_fast: reader.limit("fail_fast", When::AtOnce),
            ignore: reader.limit("ignore", IGNORE_AFTER),
            on_no_data: reader.word("on_no_data"),
        }
    }

    /// Reads an object that holds these words and no others.
    pub fn read_object(value: &Value, invalid: &mut Invalid) -> Self {
        let Some(map) = object(value, &WORDS, "", invalid) else { return Self::default() };
        Self::read(|word| map.get(word), invalid)
    }

    /// The words that differ from the default: what [`Self::read_object`] reads back.
    #[must_use]
    pub fn to_words(&self) -> Map<String, Value> {
        let effect = self.minimum_effect;
        let effect = parts([("relative", effect.relative), ("absolute", effect.absolute)]);
        let set = |given: bool, value: Value| given.then_some(value);
        let words = [
            set(!effect.is_empty(), Value::Object(effect)),
            self.sensitivity.map(|s| json!(s.as_str())),
            set(self.critical, json!(true)),
            set(self.muted, json!(true)),
            set(self.weight != 1.0, json!(self.weight)),
            self.group.as_ref().map(|group| json!(group)),
            self.fail_fast.map(Limit::to_value),
            self.ignore.map(Limit::to_value),
            self.on_no_data.map(|word| json!(word.as_str())),
        ];
        WORDS.iter().zip(words).filter_map(|(word, value)| Some(((*word).to_owned(), value?))).collect()
    }

    /// Refuses what contradicts the metric.
    ///
    /// # Errors
    /// Each word that means nothing for a metric that is bad in this direction, and a ratio above 1.
    pub fn check(&self, bad: Direction, is_count: bool) -> Result<(), Invalid> {
        let mut invalid = Invalid::default();
        if bad == Direction::None {
            for word in self.to_words().keys() {
                invalid.push(word.as_str(), "has no effect on a metric that is not judged; leave it out");
            }
            return invalid.into_result();
        }
        if self.muted && (self.critical || self.fail_fast.is_some()) {
            let other = if self.critical { "critical" } else { "fail_fast" };
            invalid.push("muted", format!("and `{other}` exclude each other: what is muted decides nothing"));
        }
        for (word, limit) in [("fail_fast", self.fail_fast), ("ignore", self.ignore)] {
            let Some(limit) = limit else { continue };
            if limit.absolute.is_some() && bad == Direction::Either {
                let field = format!("{word}.absolute");
                invalid.push(field, "needs one direction, `increase` or `decrease`; give `percent` instead");
            }
            if limit.percent.is_some_and(|percent| percent >= 100.0) && bad == Direction::Decrease {
                invalid.push(format!("{word}.percent"), "must be below 100: nothing falls by more");
            }
            if let Some(ratio) = limit.absolute.filter(|ratio| is_count && *ratio > 1.0) {
                invalid.push(
                    format!("{word}.absolute"),
                    format!("is {ratio}, a ratio is at most 1, e.g. 0.05 for 5 %"),
                );
            }
        }
        if let Some(rise) = self.minimum_effect.absolute.filter(|rise| is_count && *rise > 1.0) {
            let field = "minimum_effect.absolute";
            invalid.push(field, format!("is {rise}, the rise of a ratio is at most 1, e.g. 0.01 for 1 %"));
        }
        invalid.into_result()
    }
}

impl MinimumEffect {
    /// Whether neither part is given.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.relative.is_none() && self.absolute.is_none()
    }
}

impl Limit {
    fn to_value(self) -> Value {
        let mut map = parts([("absolute", self.absolute), ("percent", self.percent)]);
        let (word, value) = match self.when {
            When::AtOnce => ("at_once", json!(true)),
            When::After(n) => ("after", json!(n)),
            When::AfterInARow(n) => ("after_in_a_row", json!(n)),
        };
        map.insert(word.to_owned(), value);
        Value::Object(map)
    }
}

impl When {
    /// How many samples it takes.
    #[must_use]
    pub const fn samples(self) -> u32 {
        match self {
            Self::AtOnce => 1,
            Self::After(n) | Self::AfterInARow(n) => n,
        }
    }
}

fn parts(parts: [(&str, Option<f64>); 2]) -> Map<String, Value> {
    parts.into_iter().filter_map(|(word, value)| Some((word.to_owned(), json!(value?)))).collect()
}

/// The object, whose words must be among those known.
fn object<'a>(
    value: &'a Value,
    known: &[&str],
    at: &str,
    invalid: &mut Invalid,
) -> Option<&'a Map<String, Value>> {
    let Value::Object(map) = value else {
        invalid.push(at, format!("is `{value}`, give a mapping of {}", known.join(", ")));
        return None;
    };
    for word in map.keys().filter(|word| !known.contains(&word.as_str())) {
        let field = if at.is_empty() { word.clone() } else { format!("{at}.{word}") };
        invalid.push(field, format!("is no setting here, expected one of {}", known.join(", ")));
    }
    Some(map)
}

struct Reader<'i, G> {
    get: G,
    invalid: &'i mut Invalid,
}

impl<'a, G: FnMut(&'static str) -> Option<&'a Value>> Reader<'_, G> {
    fn word<T: std::str::FromStr<Err = UnknownWord>>(&mut self, word: &'static str) -> Option<T> {
        let text = self.text(word)?;
        text.parse().map_err(|e: UnknownWord| self.invalid.push(word, e.to_string())).ok()
    }

    fn text(&mut self, word: &'static str) -> Option<String> {
        let value = (self.get)(word)?;
        let text = value.as_str().map(str::trim).filter(|text| !text.is_empty());
        if text.is_none() {
            self.invalid.push(word, format!("is `{value}`, give a non-empty text"));
        }
        text.map(ToOwned::to_owned)
    }

    fn flag(&mut self, word: &'static str) -> bool {
        let Some(value) = (self.get)(word) else { return false };
        value.as_bool().unwrap_or_else(|| {
            self.invalid.push(word, format!("is `{value}`, give `true` or `false`"));
            false
        })
    }

    fn weight(&mut self) -> Option<f64> {
        let value = (self.get)("weight")?;
        number(value, &WEIGHTS, "weight", self.invalid)
    }

    fn minimum_effect(&mut self) -> MinimumEffect {
        let at = "minimum_effect";
        let Some(value) = (self.get)(at) else { return MinimumEffect::default() };
        let Some(map) = object(value, &["relative", "absolute"], at, self.invalid) else {
            return MinimumEffect::default();
        };
        let mut part = |word: &str, most: f64| {
            let value = map.get(word).filter(|value| !value.is_null())?;
            number(value, &(0.0..=most), &format!("{at}.{word}"), self.invalid)
        };
        MinimumEffect { relative: part("relative", 100.0), absolute: part("absolute", f64::MAX) }
    }

    fn limit(&mut self, at: &'static str, default: When) -> Option<Limit> {
        let value = (self.get)(at)?;
        let known = ["absolute", "percent", "at_once", "after", "after_in_a_row"];
        let map = object(value, &known, at, self.invalid)?;
        let given = |word: &str| map.get(word).filter(|value| !value.is_null());
        let absolute = given("absolute")
            .and_then(|v| number(v, &(0.0..=f64::MAX), &format!("{at}.absolute"), self.invalid));
        let percent =
            given("percent").and_then(|v| number(v, &(0.1..=1e6), &format!("{at}.percent"), self.invalid));
        if given("absolute").is_none() && given("percent").is_none() {
            self.invalid.push(at, "has no bound; give `absolute`, `percent` or both");
        }
        let mut when = Vec::new();
        if let Some(value) = given("at_once") {
            if value.as_bool() == Some(true) {
                when.push(When::AtOnce);
            } else {
                let field = format!("{at}.at_once");
                self.invalid.push(field, format!("is `{value}`, give `true` or leave it out"));
            }
        }
        for (word, of) in [("after", When::After as fn(u32) -> When), ("after_in_a_row", When::AfterInARow)] {
            when.extend(given(word).and_then(|v| samples(v, &format!("{at}.{word}"), self.invalid)).map(of));
        }
        if when.len() > 1 {
            self.invalid.push(at, "has several of `at_once`, `after` and `after_in_a_row`; give one");
        }
        (absolute.is_some() || percent.is_some()).then(|| Limit {
            absolute,
            percent,
            when: when.first().copied().unwrap_or(default),
        })
    }
}

fn number(value: &Value, limits: &RangeInclusive<f64>, at: &str, invalid: &mut Invalid) -> Option<f64> {
    let number = value.as_f64().filter(|number| limits.contains(number));
    if number.is_none() {
        let (low, high) = (limits.start(), limits.end());
        let expected = if *high >= f64::MAX { format!("{low} or above") } else { format!("{low} to {high}") };
        invalid.push(at, format!("is `{value}`, give a number, {expected}"));
    }
    number
}

fn samples(value: &Value, at: &str, invalid: &mut Invalid) -> Option<u32> {
    let count = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=MOST_SAMPLES).contains(n));
    if count.is_none() {
        invalid.push(at, format!("is `{value}`, give a whole number of samples, 1 to {MOST_SAMPLES}"));
    }
    count
}

impl From<Limit> for v1::Limit {
    fn from(limit: Limit) -> Self {
        let when = match limit.when {
            When::AtOnce => v1::limit::When::AtOnce(true),
            When::After(n) => v1::limit::When::After(n),
            When::AfterInARow(n) => v1::limit::When::AfterInARow(n),
        };
        Self { absolute: limit.absolute, percent: limit.percent, when: Some(when) }
    }
}

impl From<MetricSettings> for v1::MetricSettings {
    fn from(s: MetricSettings) -> Self {
        Self {
            minimum_effect_relative: s.minimum_effect.relative,
            minimum_effect_absolute: s.minimum_effect.absolute,
            sensitivity: s.sensitivity.map_or(0, Sensitivity::to_wire),
            critical: s.critical,
            muted: s.muted,
            weight: (s.weight != 1.0).then_some(s.weight),
            group: s.group.unwrap_or_default(),
            fail_fast: s.fail_fast.map(Into::into),
            ignore: s.ignore.map(Into::into),
            on_no_data: s.on_no_data.map_or(0, OnNoData::to_wire),
        }
    }
}

/// The words of a message, so that it is refused by the same rules as a file.
fn words_of(s: &v1::MetricSettings, invalid: &mut Invalid) -> Map<String, Value> {
    let mut words = Map::new();
    let mut put = |word: &str, value: Option<Value>| {
        words.extend(value.map(|value| (word.to_owned(), value)));
    };
    let effect = parts([("relative", s.minimum_effect_relative), ("absolute", s.minimum_effect_absolute)]);
    put("minimum_effect", (!effect.is_empty()).then_some(Value::Object(effect)));
    if s.sensitivity != 0 {
        let word = invalid.check("sensitivity", Sensitivity::from_wire(s.sensitivity));
        put("sensitivity", word.map(|word| json!(word.as_str())));
    }
    put("critical", s.critical.then_some(json!(true)));
    put("muted", s.muted.then_some(json!(true)));
    put("weight", s.weight.map(|weight| json!(weight)));
    put("group", (!s.group.is_empty()).then(|| json!(s.group)));
    let limit = |limit: &v1::Limit| {
        let mut map = parts([("absolute", limit.absolute), ("percent", limit.percent)]);
        let when = limit.when.as_ref().map(|when| match when {
            v1::limit::When::AtOnce(yes) => ("at_once", json!(yes)),
            v1::limit::When::After(n) => ("after", json!(n)),
            v1::limit::When::AfterInARow(n) => ("after_in_a_row", json!(n)),
        });
        map.extend(when.map(|(word, value)| (word.to_owned(), value)));
        Value::Object(map)
    };
    put("fail_fast", s.fail_fast.as_ref().map(limit));
    put("ignore", s.ignore.as_ref().map(limit));
    if s.on_no_data != 0 {
        let word = invalid.check("on_no_data", OnNoData::from_wire(s.on_no_data));
        put("on_no_data", word.map(|word| json!(word.as_str())));
    }
    words
}

impl TryFrom<v1::MetricSettings> for MetricSettings {
    type Error = Invalid;

    fn try_from(s: v1::MetricSettings) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let bounds = |limit: Option<v1::Limit>| limit.map_or([None; 2], |l| [l.absolute, l.percent]);
        let ([a, b], [c, d]) = (bounds(s.fail_fast), bounds(s.ignore));
        let numbers = [
            ("minimum_effect.relative", s.minimum_effect_relative),
            ("minimum_effect.absolute", s.minimum_effect_absolute),
            ("weight", s.weight),
            ("fail_fast.absolute", a),
            ("fail_fast.percent", b),
            ("ignore.absolute", c),
            ("ignore.percent", d),
        ];
        for (field, number) in numbers {
            if let Some(number) = number.filter(|number| !number.is_finite()) {
                invalid.push(field, format!("is {number}, give a finite number"));
            }
        }
        if !invalid.violations.is_empty() {
            return Err(invalid);
        }
        let words = words_of(&s, &mut invalid);
        let settings = Self::read(|word| words.get(word), &mut invalid);
        invalid.into_result().map(|()| settings)
    }
}

#[cfg(test)]
mod tests;
