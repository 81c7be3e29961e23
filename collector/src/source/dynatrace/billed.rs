//! What a query in DQL reads that Dynatrace bills by what it scans. Pure.

/// Data objects that cost nothing to read.
const FREE: [&str; 7] = [
    "metrics",
    "metric.series",
    "dt.entity.",
    "dt.davis.",
    "dt.system.",
    "dt.semantic_dictionary.",
    "smartscape.",
];

/// The data objects of a query that are billed, each once: those that it fetches and that are not known to be free.
#[must_use]
pub fn billed(query: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let words = words(query);
    for (word, next) in words.iter().zip(words.iter().skip(1)) {
        let is_free = FREE.iter().any(|free| match free.strip_suffix('.') {
            Some(_) => next.starts_with(free),
            None => next == free,
        });
        if word == "fetch" && !is_free && !found.contains(next) {
            found.push(next.clone());
        }
    }
    found
}

/// The words of a query, without what stands in quotes and comments.
fn words(query: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut rest = query;
    while let Some(c) = rest.chars().next() {
        let skip = match c {
            '"' => quoted(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            _ => c.len_utf8(),
        };
        let is_word = c.is_alphanumeric() || matches!(c, '_' | '.');
        match words.last_mut() {
            Some(word) if is_word => word.push(c),
            Some(word) if !word.is_empty() => words.push(String::new()),
            Some(_) | None => {}
        }
        rest = rest.get(skip..).unwrap_or_default();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Length of a text in quotes, three of which may enclose it.
fn quoted(rest: &str) -> usize {
    if let Some(inner) = rest.strip_prefix("\"\"\"") {
        return inner.find("\"\"\"").map_or(rest.len(), |at| at + 6);
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_is_billed_unless_it_is_known_to_be_free() {
        for (query, expected) in [
            ("timeseries avg(dt.host.cpu.usage)", vec![]),
            ("fetch logs", vec!["logs"]),
            ("  fetch   spans, from:-2h | makeTimeseries count()", vec!["spans"]),
            ("fetch\n//logs\nbizevents", vec!["bizevents"]),
            ("/* fetch logs */ fetch dt.entity.service", vec![]),
            ("timeseries avg(x) | filter a == \"fetch logs\"", vec![]),
            ("timeseries avg(x) | filter a == \"\\\" fetch logs\"", vec![]),
            ("data json:\"\"\"fetch \"logs\" \"\"\" | append [fetch events]", vec!["events"]),
            (
                "fetch dt.davis.problems | lookup [fetch logs | limit 1], sourceField:a | join [fetch logs]",
                vec!["logs"],
            ),
            ("fetch something.new", vec!["something.new"]),
            ("smartscapeNodes HOST | fields prefetch", vec![]),
            ("fetch", vec![]),
            ("fetch metric.series", vec![]),
        ] {
            assert_eq!(billed(query), expected, "{query}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read(query in "[fetch logs\"\\\\/*\n|ä]{0,60}") {
            proptest::prop_assert!(billed(&query).len() <= query.len());
        }
    }
}
