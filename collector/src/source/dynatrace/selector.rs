//! What can be read off a metric selector: its key, its transformations, and the entities that it is about.

use crate::source::{Failure, FailureKind};

/// Names that begin a transformation; everything before the first belongs to the key.
const TRANSFORMATIONS: [&str; 31] = [
    "splitBy",
    "merge",
    "avg",
    "min",
    "max",
    "sum",
    "count",
    "median",
    "value",
    "auto",
    "percentile",
    "fold",
    "last",
    "lastReal",
    "filter",
    "names",
    "parents",
    "default",
    "rate",
    "delta",
    "rollup",
    "timeshift",
    "sort",
    "limit",
    "partition",
    "smooth",
    "setUnit",
    "toUnit",
    "histogram",
    "stdDev",
    "variance",
];

/// Which entities a metric's first entity dimension names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EntityKind {
    Service,
    ProcessGroupInstance,
    Host,
    /// None that a service leads to: the query alone decides.
    Other,
}

impl EntityKind {
    /// The selector of these entities for a service; `None` where the query decides.
    pub(super) fn selector(self, service_id: &str) -> Option<String> {
        self.selector_of_ids(&format!("\"{}\"", escape(service_id)))
    }

    /// The same for several services, whose ids are quoted and separated by commas.
    pub(super) fn selector_of_ids(self, ids: &str) -> Option<String> {
        match self {
            Self::Service => Some(format!("type(\"SERVICE\"),entityId({ids})")),
            Self::ProcessGroupInstance => Some(format!(
                "type(\"PROCESS_GROUP_INSTANCE\"),toRelationships.runsOnProcessGroupInstance(type(\"SERVICE\"),entityId({ids}))"
            )),
            Self::Host => {
                Some(format!("type(\"HOST\"),toRelationships.runsOnHost(type(\"SERVICE\"),entityId({ids}))"))
            }
            Self::Other => None,
        }
    }

    /// By the key's prefix where that is enough, else by the entity types of the descriptor.
    pub(super) fn of(key: Option<&str>, entity_types: &[String]) -> Self {
        let Some(key) = key else { return Self::Service };
        let plain = key.trim_matches('"');
        for (prefix, kind) in [
            ("builtin:service.", Self::Service),
            ("calc:service.", Self::Service),
            ("builtin:tech.", Self::ProcessGroupInstance),
            ("builtin:pgi.", Self::ProcessGroupInstance),
            ("builtin:host.", Self::Host),
        ] {
            if plain.starts_with(prefix) {
                return kind;
            }
        }
        let has = |name: &str| entity_types.iter().any(|t| t.eq_ignore_ascii_case(name));
        if has("SERVICE") {
            Self::Service
        } else if has("PROCESS_GROUP_INSTANCE") {
            Self::ProcessGroupInstance
        } else if has("HOST") {
            Self::Host
        } else {
            Self::Other
        }
    }
}

/// A text within the quotes of a selector.
pub(super) fn escape(text: &str) -> String {
    text.replace('~', "~~").replace('"', "~\"")
}

/// The characters of a selector outside of quotes, with their places and the parentheses around them; an opening
/// parenthesis counts for itself, a closing one does not.
fn unquoted(text: &str) -> impl Iterator<Item = (usize, char, u32)> {
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    text.char_indices().filter_map(move |(i, c)| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            _ if was_escaped => return None,
            '~' => {
                escaped = true;
                return None;
            }
            '"' => {
                quoted = !quoted;
                return None;
            }
            _ if quoted => return None,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        Some((i, c, depth))
    })
}

/// The parts of a selector between colons that are outside parentheses and quotes; `None` for an expression.
fn parts(query: &str) -> Option<Vec<&str>> {
    let (mut parts, mut from) = (Vec::new(), 0);
    for (i, c, depth) in unquoted(query) {
        let after_space = query.get(..i).is_some_and(|before| before.ends_with(char::is_whitespace));
        match c {
            '(' if i == 0 => return None,
            ':' if depth == 0 => {
                parts.extend(query.get(from..i));
                from = i + 1;
            }
            '+' | '*' | '/' if depth == 0 => return None,
            '-' if depth == 0 && after_space => return None,
            _ => {}
        }
    }
    parts.extend(query.get(from..));
    Some(parts)
}

fn is_transformation(part: &str) -> bool {
    let name = part.split('(').next().unwrap_or(part).trim();
    TRANSFORMATIONS.contains(&name)
}

/// The metric key of a selector; `None` for an expression of several.
pub(super) fn metric_key(query: &str) -> Option<String> {
    let parts = parts(query.trim())?;
    let key: Vec<&str> = parts.into_iter().take_while(|part| !is_transformation(part)).collect();
    let key = key.join(":").trim().to_owned();
    (!key.is_empty()).then_some(key)
}

/// The expressions of a selector: what commas outside of parentheses and quotes separate.
pub(super) fn expressions(selector: &str) -> Vec<&str> {
    let (mut all, mut from) = (Vec::new(), 0);
    for (i, _, _) in unquoted(selector).filter(|(_, c, depth)| *c == ',' && *depth == 0) {
        all.extend(selector.get(from..i));
        from = i + 1;
    }
    all.extend(selector.get(from..));
    all.into_iter().map(str::trim).filter(|text| !text.is_empty()).collect()
}

/// Every metric key of a query, also of an expression of several; none of what is no selector.
pub(super) fn keys(query: &str) -> Vec<String> {
    if let Some(chain) = Chain::of(query) {
        return vec![chain.key];
    }
    let (mut all, mut from) = (Vec::new(), 0);
    let ends = unquoted(query).filter(|(_, c, _)| c.is_whitespace() || "()+*/,".contains(*c));
    for (end, length) in ends.map(|(i, c, _)| (i, c.len_utf8())).chain([(query.len(), 0)]) {
        let word = query.get(from..end).unwrap_or_default();
        from = end + length;
        // What is quoted as a whole is an argument.
        let is_argument = word.starts_with(':') || (word.starts_with('"') && word.ends_with('"'));
        if !is_argument && word.contains(':') {
            all.extend(metric_key(word).filter(|key| !all.contains(key)));
        }
    }
    all
}

/// Aggregations that take values of several series, or slots, together.
const TAKES_TOGETHER: [&str; 9] = ["splitBy", "merge", "avg", "sum", "min", "max", "median", "count", "fold"];

/// Why the percentiles of a selector mean nothing: they are aggregated once more, and no percentile of the whole
/// follows from those of its parts.
pub(super) fn percentile_of_parts(query: &str) -> Option<Failure> {
    let text = query.trim();
    let mut names: Vec<&str> = Vec::new();
    // Through parentheses around the whole, from the inside out.
    let mut inner = text;
    let mut outside: Vec<&str> = Vec::new();
    while let Some(rest) = inner.strip_prefix('(') {
        let (within, after) = rest.split_at_checked(closing(rest)?)?;
        outside.push(after.strip_prefix(')')?.trim());
        inner = within.trim();
    }
    for piece in std::iter::once(inner).chain(outside.into_iter().rev()) {
        names.extend(parts(piece)?.into_iter().map(|part| part.split('(').next().unwrap_or(part).trim()));
    }
    let from = names.iter().position(|name| *name == "percentile")?;
    let again = names.get(from + 1..)?.iter().find(|name| TAKES_TOGETHER.contains(name))?;
    let message = format!(
        "`{query}` takes percentiles together with `:{again}`, and no percentile of the whole follows from those of its parts; put `:percentile` last"
    );
    Some(Failure::new(FailureKind::NotAggregable, message))
}

/// What an expression about one metric does to its unit, through any parentheses around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) key: String,
    /// The unit that it sets, whatever the metric's.
    pub(super) unit: Option<String>,
    /// The time that its counts are divided by: `m` for a minute.
    rate: Option<char>,
}

impl Chain {
    /// Of an expression; `None` where it computes with several, or with numbers.
    pub(super) fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix('(') else {
            let key = metric_key(text)?;
            return Some(Self { key, unit: unit_set_by(text), rate: rate_of(text) });
        };
        let (inner, rest) = rest.split_at_checked(closing(rest)?)?;
        let (inner, rest) = (Self::of(inner)?, rest.strip_prefix(')')?.trim());
        if rest.is_empty() {
            return Some(inner);
        }
        // A key stands in for what the parentheses hold, so that the rest reads like any other.
        let outer = format!("x{rest}");
        (rest.starts_with(':') && parts(&outer).is_some()).then(|| Self {
            unit: unit_set_by(&outer).or(inner.unit),
            rate: rate_of(&outer).or(inner.rate),
            key: inner.key,
        })
    }

    /// The metric's unit as the expression leaves it.
    pub(super) fn rated(&self, unit: &str) -> String {
        let per = match self.rate {
            None => return unit.to_owned(),
            Some('s') => "PerSecond",
            Some('m') => "PerMinute",
            Some('h') => "PerHour",
            Some(_) => "PerTime",
        };
        if unit.eq_ignore_ascii_case("count") { per.to_owned() } else { format!("{unit}{per}") }
    }
}

/// Where the parenthesis closes that was opened right before.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_u32;
    for (i, c, _) in unquoted(text) {
        match c {
            '(' => open += 1,
            ')' if open == 0 => return Some(i),
            ')' => open -= 1,
            _ => {}
        }
    }
    None
}

/// The time by which `:rate` divides.
fn rate_of(query: &str) -> Option<char> {
    let rate = parts(query)?.into_iter().find_map(|part| part.trim().strip_prefix("rate"))?;
    // `rate(5m)` is per five minutes, which no unit says.
    match rate.trim().trim_start_matches('(').trim_end_matches(')').trim() {
        "" | "m" | "1m" => Some('m'),
        "s" | "1s" => Some('s'),
        "h" | "1h" => Some('h'),
        _ => Some('?'),
    }
}

/// A selector whose services are told apart: one that merges all of them splits by service instead.
pub(super) fn split_by_service(query: &str) -> String {
    query.replacen(":splitBy()", ":splitBy(\"dt.entity.service\")", 1)
}

/// The unit that a selector gives its values, where it changes that of the metric.
pub(super) fn unit_set_by(query: &str) -> Option<String> {
    let mut unit = None;
    for part in parts(query.trim()).unwrap_or_default().into_iter().skip(1) {
        let (name, rest) = part.split_once('(').unwrap_or((part, ""));
        let arguments: Vec<&str> = rest.trim_end_matches(')').split(',').map(str::trim).collect();
        match (name.trim(), arguments.as_slice()) {
            ("setUnit", [to]) | ("toUnit", [_, to]) => unit = Some((*to).trim_matches('"').to_owned()),
            ("count", _) => unit = Some("Count".to_owned()),
            _ => {}
        }
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_ends_where_the_transformations_begin() {
        for (query, key) in [
            (
                "builtin:service.response.time:splitBy(\"dt.entity.service\"):percentile(95)",
                "builtin:service.response.time",
            ),
            ("calc:service.error_count:splitBy():value", "calc:service.error_count"),
            ("custom:queue.depth:avg", "custom:queue.depth"),
            ("my-metric.total", "my-metric.total"),
            ("ext:a.b:filter(eq(\"x\",\"a:splitBy\")):sum", "ext:a.b"),
            ("\"weird key: here\":avg", "\"weird key: here\""),
        ] {
            assert_eq!(metric_key(query).as_deref(), Some(key), "{query}");
        }
        for expression in ["(a:avg)/(b:avg)", "a:splitBy() / b", "a:avg - b:avg", "a:avg*100", ""] {
            assert_eq!(metric_key(expression), None, "{expression}");
        }
    }

    #[test]
    fn units_that_a_selector_sets_are_seen() {
        assert_eq!(unit_set_by("builtin:service.response.time:avg"), None);
        assert_eq!(unit_set_by("a:avg:toUnit(MicroSecond,MilliSecond)").as_deref(), Some("MilliSecond"));
        assert_eq!(unit_set_by("a:avg:setUnit(\"Second\")").as_deref(), Some("Second"));
        assert_eq!(unit_set_by("builtin:service.response.time:splitBy():count").as_deref(), Some("Count"));
    }

    #[test]
    fn expressions_are_separated_by_commas_outside_of_anything() {
        let selector = r#"a:splitBy("x","y"):avg, (b:filter(eq("k","1,2")):sum)/2 ,c"#;
        assert_eq!(
            expressions(selector),
            [r#"a:splitBy("x","y"):avg"#, r#"(b:filter(eq("k","1,2")):sum)/2"#, "c"]
        );
        assert_eq!(expressions(r#"a:filter(eq("k","~"),"))"#), [r#"a:filter(eq("k","~"),"))"#]);
        assert_eq!(expressions(""), Vec::<&str>::new());
    }

    #[test]
    fn a_chain_is_read_through_its_parentheses() {
        let of = |text: &str| {
            Chain::of(text).map(|chain| (chain.key.clone(), chain.unit.clone(), chain.rated("Count")))
        };
        let key = "builtin:service.response.time";
        let with = |unit: Option<&str>, rated: &str| {
            Some((key.to_owned(), unit.map(ToOwned::to_owned), rated.to_owned()))
        };
        assert_eq!(
            of("((builtin:service.response.time:splitBy():avg):limit(100):names)"),
            with(None, "Count")
        );
        let nested = r#"((builtin:service.response.time:filter(and(or(in("dt.entity.service",entitySelector("type(service),tag(~"x~")"))))):splitBy():avg:auto):limit(100):names):toUnit(MicroSecond,MilliSecond)"#;
        assert_eq!(of(nested), with(Some("MilliSecond"), "Count"));
        assert_eq!(of("builtin:service.response.time:splitBy():value:rate(1s)"), with(None, "PerSecond"));
        assert_eq!(of("(builtin:service.response.time:value):rate(5m)"), with(None, "PerTime"));
        for text in ["(a:avg)/1000", "a:avg / b:avg", "(a:avg", "((a:avg)*2):fold", ""] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn percentiles_are_not_taken_together() {
        for text in [
            "a:percentile(95):splitBy():avg",
            "a:splitBy(\"x\"):percentile(95):fold(avg)",
            "(a:splitBy(\"x\"):percentile(95)):splitBy():max",
            "((a:percentile(95)):limit(5)):merge(\"x\"):avg",
        ] {
            let failure = percentile_of_parts(text).unwrap();
            assert_eq!(failure.kind, FailureKind::NotAggregable, "{text}");
        }
        for text in [
            "a:splitBy():percentile(95)",
            "a:splitBy():percentile(95):names:sort(value(avg,descending)):limit(10)",
            "(a:splitBy(\"x\"):percentile(95.0)):limit(100):names",
            "a:splitBy():avg:fold(avg)",
            "(a:percentile(95))/1000",
        ] {
            assert_eq!(percentile_of_parts(text), None, "{text}");
        }
    }

    #[test]
    fn each_metric_is_asked_for_its_own_entities() {
        let of = |key: &str, types: &[&str]| {
            EntityKind::of(Some(key), &types.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of("builtin:service.response.time", &[]), EntityKind::Service);
        assert_eq!(of("builtin:tech.generic.cpu.usage", &["HOST"]), EntityKind::ProcessGroupInstance);
        assert_eq!(of("builtin:host.cpu.usage", &[]), EntityKind::Host);
        assert_eq!(
            of("ext:some.metric", &["process_group_instance", "HOST"]),
            EntityKind::ProcessGroupInstance
        );
        assert_eq!(of("custom:queue.depth", &[]), EntityKind::Other);
        assert_eq!(EntityKind::Other.selector("SERVICE-1"), None);
        let selector = EntityKind::ProcessGroupInstance.selector("SERVICE-1").unwrap();
        assert!(selector.starts_with("type(\"PROCESS_GROUP_INSTANCE\"),toRelationships."), "{selector}");
        assert_eq!(escape("a\"b~c"), "a~\"b~~c");
    }
}
