//! Recorded answers of real tenants, where they lie beside the checkout: selectors written back, grids laid.

use crate::grid::{Grid, Wish, Wishes};
use crate::selector::parse;
use crate::time::{self, DAY, HOUR, MINUTE};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A recorded call: its query parameters and the JSON answered.
struct Recording {
    parameters: BTreeMap<String, String>,
    answer: Value,
}

fn recordings(api: &str) -> Option<Vec<Recording>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/dynatrace/recordings");
    let Ok(index) = std::fs::read_to_string(folder.join("index.jsonl")) else {
        println!("left out: there are no recordings in {}", folder.display());
        return None;
    };
    let calls = index.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = calls.filter(|call| call["api"] == api && call["status"] == 200).filter_map(|call| {
        let text = std::fs::read_to_string(folder.join(call["response_file"].as_str()?)).ok()?;
        let url = reqwest::Url::parse(&format!("http://x{}", call["url"].as_str()?)).ok()?;
        Some(Recording {
            parameters: url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect(),
            answer: serde_json::from_str(&text).ok()?,
        })
    });
    Some(found.collect())
}

#[test]
fn recorded_selectors_are_written_back_as_they_were() {
    let Some(recordings) = recordings("metrics-query") else { return };
    let (mut same, mut unsupported) = (0, 0);
    for recording in &recordings {
        let Some(selector) = recording.parameters.get("metricSelector") else { continue };
        let expressions = match parse(selector) {
            Ok(expressions) => expressions,
            Err(error) => {
                assert!(
                    error.message.contains("is not supported by this simulator"),
                    "{selector}: {error:?}"
                );
                unsupported += 1;
                continue;
            }
        };
        let ids =
            recording.answer["result"].as_array().unwrap().iter().map(|r| r["metricId"].as_str().unwrap());
        let ids: Vec<&str> = ids.collect();
        // Some older answers hold more results than were asked for.
        if ids.len() == expressions.len() {
            let written: Vec<&str> = expressions.iter().map(|e| e.canonical.as_str()).collect();
            assert_eq!(written, ids, "{selector}");
            same += 1;
        }
    }
    println!("{same} selectors written back as recorded, {unsupported} not supported");
    assert!(same >= 50, "{same} of {}", recordings.len());
}

fn span(label: &str) -> Option<i64> {
    let number: i64 = label[..label.len() - 1].parse().ok()?;
    Some(number * if label.ends_with('h') { HOUR } else { MINUTE })
}

#[test]
fn recorded_grids_are_laid_as_they_were() {
    let Some(recordings) = recordings("metrics-query") else { return };
    let mut same = 0;
    for Recording { parameters, answer } in &recordings {
        if parameters.get("metricSelector").is_none_or(|s| parse(s).is_err()) {
            continue;
        }
        let at = |name| parameters.get(name).and_then(|text| time::parse(text, 0).ok());
        let (Some(from), Some(to), Some(label)) = (at("from"), at("to"), answer["resolution"].as_str())
        else {
            continue;
        };
        // How old the data were is not recorded: as old as gives the resolution answered, or younger.
        let ages = [DAY, 20 * DAY, 60 * DAY];
        let wish =
            parameters.get("resolution").map_or_else(Wish::default, |r| Wishes::parse(r).unwrap().at(0));
        let laid: Vec<Grid> = ages.iter().map(|age| Grid::lay(wish, (from, to), to + age, MINUTE)).collect();
        let series = answer["result"].as_array().unwrap().iter().flat_map(|r| r["data"].as_array().unwrap());
        for data in series {
            let stamps: Vec<i64> =
                data["timestamps"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap()).collect();
            let spaced = stamps.len() < 2 || span(label).is_some_and(|step| stamps[1] - stamps[0] == step);
            // Shortened by hand for other tests, or folded.
            if !spaced
                || stamps.len() < 2 && label != "Inf"
                || wish != Wish::Inf && label == "Inf"
                || stamps.last().is_some_and(|s| *s < to)
                || stamps[0] > from + HOUR && label != "Inf"
            {
                continue;
            }
            let found = laid.iter().find(|grid| grid.label() == label);
            let found = found.unwrap_or_else(|| panic!("{parameters:?}: no age gives {label}"));
            assert_eq!(found.stamps(), stamps, "{parameters:?}");
            same += 1;
        }
    }
    println!("{same} series have the grid recorded");
    assert!(same >= 60, "{same}");
}
