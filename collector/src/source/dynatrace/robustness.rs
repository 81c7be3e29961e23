//! What every answer of a tenant may be: anything. For the fuzz target, and for the test that mangles answers.

use super::answer::{EntityPage, MetricData, MetricPage, ProblemPage, TokenInfo};
use super::normalise::{self, Grid};
use super::query::{Query, QueryAsk, When, columns, series_of};
use super::refusal::refusal;
use super::surroundings::problem;
use super::unit::Conversion;
use super::{grail, spacing_minutes};
use crate::source::MetricAsk;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use std::collections::BTreeMap;
use vouch_proto::{Timestamp, Window};

/// Reads bytes as each answer that there is: what comes of it is series, a failure with a name, or nothing.
///
/// # Panics
/// Never, whatever the bytes are; and a series that is refused has no samples.
pub fn read_anything(body: &[u8]) {
    let now = Timestamp::from_millis(1_795_514_400_000);
    for status in [400, 403, 429, 503] {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let _ = refusal((status, &HeaderMap::new(), body), "metrics/query", "metrics.read", now);
    }
    let _ = serde_json::from_slice::<EntityPage>(body);
    let _ = serde_json::from_slice::<MetricPage>(body);
    let _ = serde_json::from_slice::<TokenInfo>(body);
    if let Ok(page) = serde_json::from_slice::<ProblemPage>(body) {
        let _ = page
            .problems
            .into_iter()
            .filter_map(|item| problem(item, &["SERVICE-1".to_owned()], now))
            .count();
    }
    if let Ok(data) = serde_json::from_slice::<MetricData>(body) {
        read_metrics(&data, now);
    }
    if let Some(result) = grail::result_of(body) {
        let _ = (result.incomplete(), result.notes());
        let _ = result.records.iter().filter_map(|record| columns(record.as_ref()).ok()).count();
    }
}

fn read_metrics(data: &MetricData, now: Timestamp) {
    let when = |at: Timestamp| When { text: String::new(), at };
    let query = Query::Metrics { selector: "a".to_owned(), entities: None, management_zones: None };
    let (from, to) = (when(now.plus_minutes(-60)), when(now));
    let ask = QueryAsk { query, from, to, resolution: None };
    for result in &data.result {
        for series in series_of(&ask, data, (result, "a:fold"), now) {
            assert!(series.refused.is_none() || series.samples.is_empty(), "{series:?}");
        }
    }
    let spacing = spacing_minutes(data).map(|minutes| format!("{minutes}m"));
    let Ok(window) = Window::around(now, -60, 0) else { return };
    let Ok(grid) = Grid::of(data.resolution.as_deref().or(spacing.as_deref()), window, now) else { return };
    for (by_host, each) in [(false, None), (true, None), (false, Some("dt.entity.host".to_owned()))] {
        let ask = MetricAsk { name: "m".into(), query: "a".into(), unit: String::new(), by_host, each };
        for result in &data.result {
            let _ = normalise::series(&ask, result, &grid, &Conversion::none(), &BTreeMap::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METRICS: &str = r#"{"totalCount":1,"nextPageKey":null,"resolution":"1m","warnings":["w"],"result":[{"metricId":"a","dataPointCountRatio":1.0E-5,"data":[{"dimensions":["HOST-1",null],"dimensionMap":{"dt.entity.host":"HOST-1","x":null},"timestamps":[1795510860000,1795510920000],"values":[1.5,null]}]}]}"#;
    const RECORDS: &str = r#"{"state":"SUCCEEDED","result":{"records":[{"timeframe":{"start":"2026-11-18T11:55:00Z","end":"2026-11-18T11:57:00Z"},"interval":"60000000000","p95":[1,"2"],"host":"a"}],"metadata":{"grail":{"notifications":[{"severity":"WARNING","message":"m"}]},"metrics":[{"fieldName":"p95","unit":"us"}]}}}"#;
    const PROBLEMS: &str = r#"{"problems":[{"displayId":"P-1","startTime":1795510860000,"endTime":-1,"rootCauseEntity":{"entityId":{"id":"SERVICE-2","type":"SERVICE"},"name":"x"}}]}"#;
    const ERROR: &str = r#"[{"error":{"code":400,"message":"m","details":{"missingScopes":["s"],"errorMessage":"e","syntaxErrorPosition":{"start":{"line":1,"column":2}}},"constraintViolations":[{"path":"p","message":"m"}],"retryAfterSeconds":1e400}}]"#;
    /// What is put into an answer: the ends of numbers, and what is no number.
    const ODD: [&str; 12] = [
        "null",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "1e308",
        "1e-308",
        "\"\"",
        "[]",
        "{}",
        "true",
        "18446744073709551616",
        "\"Inf\"",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_answer_makes_it_panic(
            base in prop::sample::select(vec![METRICS, RECORDS, PROBLEMS, ERROR]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..6_usize, prop::sample::select(ODD.to_vec())), 0..4),
        ) {
            let mut body = base.to_owned();
            for (place, length, with) in changes {
                // Whole values are put in the place of digits, so that most of it stays JSON.
                let digits: Vec<usize> = body.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(i, _)| i).collect();
                if digits.is_empty() {
                    continue;
                }
                let at = digits[place.index(digits.len())];
                let end = body[at..].find(|c: char| !c.is_ascii_digit()).map_or(body.len(), |n| at + n);
                let end = if length == 0 { at + 1 } else { end };
                body.replace_range(at..end, with);
            }
            read_anything(body.as_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_anything(&bytes);
        }
    }
}
