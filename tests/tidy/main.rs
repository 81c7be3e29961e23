//! What no lint of the compiler checks: layering, subjects in one place, file heads and lengths, words that must not stay.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file without its inline tests.
const MAX_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every Rust file of the project, as (path from the root, text).
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, root, found);
            } else if name.ends_with(".rs") {
                let relative = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.push((relative, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    walk(&root, &root, &mut found);
    found.sort();
    assert!(found.len() > 50, "the walk finds the project");
    found
}

/// The text before the first inline test module.
fn without_tests(text: &str) -> &str {
    ["#[cfg(test)]\nmod ", "#[cfg(test)]\npub(crate) mod "]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min()
        .map_or(text, |at| &text[..at])
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/")
        || path.starts_with("tests/")
        || path.ends_with("tests.rs")
        || path.ends_with("/golden.rs")
}

/// The modules that decide, and must know neither tasks, nor queues, nor the time, nor chance.
fn is_pure(path: &str) -> bool {
    let rim = ["main.rs", "lib.rs", "config.rs", "metrics.rs", "offline.rs"];
    if let Some(rest) = path.strip_prefix("analyzer/src/") {
        return !rest.starts_with("live/") && !rest.starts_with("grpc/") && !rim.contains(&rest);
    }
    [
        "collector/src/schedule",
        "collector/src/rules",
        "collector/src/propose.rs",
        "collector/src/changes/same.rs",
        "collector/src/changes/named.rs",
        "collector/src/logs/plan",
        "collector/src/logs/account",
        "collector/src/source/dynatrace/logs/slices",
    ]
    .iter()
    .any(|pure| path.starts_with(pure))
        || path == "notifier/src/ledger.rs"
        || path.starts_with("notifier/src/alert/")
        || path == "notifier/src/incident.rs"
        || path.starts_with("notifier/src/policy")
        || path.starts_with("proto/src/")
}

/// Fails with every finding at once.
fn none(findings: Vec<String>, rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Code lines with their numbers, comments left out.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim_start().starts_with("//"))
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//! "));
    none(silent.map(|(path, _)| path).collect(), "begin with a `//!` line");
}

#[test]
fn files_stay_short() {
    let long = sources().into_iter().filter_map(|(path, text)| {
        let lines = without_tests(&text).lines().count();
        (lines > MAX_LINES).then(|| format!("{path}: {lines} lines"))
    });
    none(long.collect(), "split the file (500 lines without inline tests)");
}

#[test]
fn pure_modules_know_no_outside() {
    let outside = [
        "tokio",
        "async_nats",
        "SystemTime",
        "Instant::now",
        "rand::",
        "std::fs",
        "std::net",
        "std::env",
        "reqwest",
        "HashMap",
        "HashSet",
        "thread_rng",
    ];
    let mut findings = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| is_pure(path) && !is_test(path)) {
        for (number, line) in code(without_tests(&text)) {
            findings.extend(
                outside.iter().filter(|word| line.contains(*word)).map(|w| format!("{path}:{number}: {w}")),
            );
        }
    }
    none(findings, "pure modules decide from their arguments alone");
}

#[test]
fn the_judge_computes_the_same_on_every_machine() {
    let of_std =
        [".ln()", ".exp()", ".powf(", ".log10(", ".log2(", ".ln_1p(", ".exp_m1(", ".sin(", ".cos(", ".tanh("];
    let mut findings = Vec::new();
    for (path, text) in
        sources().into_iter().filter(|(path, _)| path.starts_with("analyzer/src/") && is_pure(path))
    {
        for (number, line) in code(without_tests(&text)) {
            findings
                .extend(of_std.iter().filter(|f| line.contains(*f)).map(|f| format!("{path}:{number}: {f}")));
        }
    }
    none(findings, "take transcendental functions from libm");
}

#[test]
fn services_do_not_know_each_other() {
    let crates = [
        "vouch-collector",
        "vouch-analyzer",
        "vouch-notifier",
        "vouch-simulator",
        "vouch-service",
        "vouch-proto",
    ];
    let allowed: [(&str, &[&str]); 5] = [
        ("proto", &[]),
        ("service", &["vouch-proto"]),
        ("collector", &["vouch-proto", "vouch-service"]),
        ("analyzer", &["vouch-proto", "vouch-service"]),
        ("notifier", &["vouch-proto", "vouch-service"]),
    ];
    let mut findings = Vec::new();
    for (folder, may) in allowed {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        // Tests of a service may use the simulator, never another service.
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        let name = manifest.lines().find(|l| l.starts_with("name = ")).unwrap();
        for other in crates.iter().filter(|c| !name.contains(*c)) {
            if dependencies.contains(&format!("{other}.")) && !may.contains(other) {
                findings.push(format!("{folder} depends on {other}"));
            }
            if manifest.contains(&format!("{other}.")) && !may.contains(other) && *other != "vouch-simulator"
            {
                findings.push(format!("{folder} depends on {other} in its tests"));
            }
        }
    }
    none(findings, "proto <- service <- {collector, analyzer, notifier} <- vouch, tests");
}

#[test]
fn subjects_are_spelled_in_one_file() {
    let mut findings = Vec::new();
    for (path, text) in
        sources().into_iter().filter(|(path, _)| path != "proto/src/subject.rs" && !is_test(path))
    {
        for (number, line) in code(without_tests(&text)) {
            if line.contains("\"vouch.v1.") && !path.ends_with("build.rs") && !line.contains("include_bytes")
            {
                findings.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    none(findings, "subjects come from proto/src/subject.rs");
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["TO\u{44}O", "FIX\u{4d}E", "todo\u{21}(", "unimplemented\u{21}(", "#[ign\u{6f}re"];
    let mut findings = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            findings.extend(
                words.iter().filter(|w| line.contains(*w)).map(|w| format!("{path}:{}: {w}", number + 1)),
            );
        }
    }
    none(findings, "do it now, or file it");
}

#[test]
fn allowances_say_why() {
    let mut findings = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !path.starts_with("tests/tidy")) {
        for (at, _) in text.match_indices("#[allow(").chain(text.match_indices("#![allow(")) {
            let rest: String = text[at..].chars().take_while(|c| *c != ']').collect();
            if !rest.contains("reason") {
                findings.push(format!("{path}: {}", rest.lines().next().unwrap()));
            }
        }
    }
    none(findings, "an allowance carries its reason");
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut findings = Vec::new();
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for folder in ["docs", "docs/adr", "docs/integrations"] {
        pages.extend(fs::read_dir(root().join(folder)).unwrap().map(|e| e.unwrap().path()));
    }
    for page in pages.iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(page).unwrap();
        assert!(text.lines().count() > 3, "{} is empty", page.display());
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") && !page.parent().unwrap().join(target).exists()
            {
                findings.push(format!("{}: {link}", page.display()));
            }
        }
    }
    none(findings, "a link leads to a file");
}
