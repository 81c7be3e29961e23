//! The metric keys of a selector, also within arithmetic, and what is put behind each of them.

use super::selector::is_transformation_name;

/// Where the metric keys of a selector begin and end.
fn places(query: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let (mut at, mut wants_operand) = (0, true);
    while let Some(rest) = query.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(first) = rest.chars().next() else { break };
        match first {
            c if c.is_whitespace() => at += c.len_utf8(),
            '(' | ')' if wants_operand == (first == '(') => at += 1,
            '+' | '-' | '*' | '/' | ',' if !wants_operand => {
                wants_operand = true;
                at += 1;
            }
            ':' if !wants_operand => at += 1 + transformation(&rest[1..]),
            c if wants_operand && (c.is_ascii_digit() || c == '-') => {
                at += 1 + run(&rest[1..], |c| c.is_ascii_alphanumeric() || c == '.');
                wants_operand = false;
            }
            _ if wants_operand => {
                let length = key(rest);
                if length == 0 {
                    break;
                }
                found.push((at, at + length));
                at += length;
                wants_operand = false;
            }
            _ => break,
        }
    }
    found
}

/// The metric keys of a selector, in its order.
pub(super) fn keys(query: &str) -> Vec<&str> {
    places(query).into_iter().filter_map(|(from, to)| query.get(from..to)).collect()
}

/// The selector with a transformation behind each of its keys.
pub(super) fn behind_each_key(query: &str, transformation: &str) -> String {
    let mut text = query.to_owned();
    for (_, to) in places(query).into_iter().rev() {
        text.insert_str(to, transformation);
    }
    text
}

fn run(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

fn is_key_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Length of the key that a text begins with.
fn key(text: &str) -> usize {
    if text.starts_with('"') {
        return quoted(text);
    }
    let mut length = run(text, is_key_part);
    // A colon belongs to the key unless a transformation follows.
    while let Some(rest) = text.get(length..).and_then(|rest| rest.strip_prefix(':')) {
        let segment = run(rest, is_key_part);
        if segment == 0 || is_transformation_name(&rest[..segment]) {
            break;
        }
        length += 1 + segment;
    }
    length
}

/// Length of the transformation that a text begins with, with its arguments.
fn transformation(text: &str) -> usize {
    let name = run(text, |c| c.is_ascii_alphanumeric());
    let rest = &text[name..];
    let gap = run(rest, char::is_whitespace);
    if !rest[gap..].starts_with('(') {
        return name;
    }
    let (mut depth, mut at) = (0_u32, gap);
    while let Some(c) = rest.get(at..).and_then(|rest| rest.chars().next()) {
        match c {
            '"' => {
                at += quoted(&rest[at..]).max(1);
                continue;
            }
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += c.len_utf8();
        if depth == 0 {
            break;
        }
    }
    name + at
}

/// Length of a quoted text; `~` escapes the character behind it.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '~' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_found_wherever_they_stand() {
        for (query, expected) in [
            ("a:avg", vec!["a"]),
            (
                "builtin:service.response.time:splitBy(\"dt.entity.service\"):percentile(95)",
                vec!["builtin:service.response.time"],
            ),
            ("builtin:a:value / builtin:b:splitBy():sum * 100", vec!["builtin:a", "builtin:b"]),
            (
                "(a:splitBy(\"x):\"):avg - 3.5) / (-2 * (custom:b:c + d):fold(avg))",
                vec!["a", "custom:b:c", "d"],
            ),
            ("\"odd key: ~\"x\":avg,b", vec!["\"odd key: ~\"x\"", "b"]),
            ("a:filter(in(\"k\",entitySelector(\"type(~\"X~\"),tag(~\"y~\")\"))):avg", vec!["a"]),
            ("1 / a", vec!["a"]),
            ("", vec![]),
            ("((", vec![]),
            (")", vec![]),
            ("a b", vec!["a"]),
        ] {
            assert_eq!(keys(query), expected, "{query}");
        }
    }

    #[test]
    fn a_filter_is_put_behind_each_key() {
        let query = "(builtin:a:splitBy():sum / b) * 100";
        assert_eq!(behind_each_key(query, ":f(x)"), "(builtin:a:f(x):splitBy():sum / b:f(x)) * 100");
    }

    proptest! {
        #[test]
        fn no_selector_makes_it_panic(text in "[a-z(){}\":~+*/, é0-9.-]{0,40}") {
            let found = keys(&text);
            prop_assert!(found.iter().all(|key| text.contains(key)));
            let more = behind_each_key(&text, ":x");
            prop_assert_eq!(more.len(), text.len() + 2 * found.len());
        }
    }
}
