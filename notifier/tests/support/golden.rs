//! Requests as files: the exact request of an action is kept in the repository, and shown whole where it changes.

use super::receiver::Call;
use std::path::Path;

/// Headers that a client or a machine makes, and that differ between runs.
const MADE_UP: [&str; 3] = ["host", "content-length", "accept"];

/// The request as text: method and target, headers, and the body, JSON laid out for reading.
pub fn written(call: &Call) -> String {
    let mut text = format!("{} {}\n", call.method, call.target);
    for (name, value) in &call.headers {
        if !MADE_UP.contains(&name.as_str()) {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    let body = match serde_json::from_slice::<serde_json::Value>(&call.body) {
        Ok(json) => serde_json::to_string_pretty(&json).unwrap(),
        Err(_) => String::from_utf8_lossy(&call.body).into_owned(),
    };
    text + "\n" + &body + "\n"
}

/// Compares with the file. A missing one is written, and the test fails so that it is looked at and committed.
pub fn golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file);
    if !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        panic!("{} was missing and has been written: look at it and commit it", path.display());
    }
    let released = std::fs::read_to_string(&path).unwrap();
    pretty_assert(&released, text, file);
}

fn pretty_assert(released: &str, text: &str, file: &str) {
    for (n, (was, is)) in released.lines().zip(text.lines()).enumerate() {
        assert_eq!(is, was, "{file}, line {}: the request is written differently now", n + 1);
    }
    assert_eq!(
        text.lines().count(),
        released.lines().count(),
        "{file}: the request is longer or shorter now"
    );
}
