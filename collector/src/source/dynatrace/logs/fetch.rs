//! `fetch logs`: one query for all services that are read at the same time, in each bucket.

use super::super::grail::{Doubt, DqlAsk, DqlResult};
use super::line::{FIELDS, GROUP, RawLine, SERVICE};
use super::owner::Scope;
use super::slices::Slice;
use super::{Answer, By, MOST_LINES, Reading};
use crate::source::{Failure, FailureKind};
use std::time::Duration;
use vouch_proto::{LogGap, Timestamp};

/// How long a result is waited for, on the injected clock.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ids of one query. More are asked for in several, each of which scans all of the bucket.
const IDS_PER_QUERY: usize = 2_000;

impl Reading<'_> {
    /// Reads the lines of all in shared queries.
    pub(super) async fn grail_lines(&mut self, scope: Scope) -> anyhow::Result<()> {
        for part in scope.split(IDS_PER_QUERY) {
            self.walk(part, By::Grail).await?;
        }
        Ok(())
    }

    /// The lines of a slice of time, as far as they may be read; who may not leaves the scope.
    pub(super) async fn fetch(&mut self, scope: &mut Scope, slice: Slice) -> Result<Answer, Failure> {
        let buckets = &self.tenant.client.settings().logs.buckets;
        let each: Vec<Option<&str>> =
            if buckets.is_empty() { vec![None] } else { buckets.iter().map(|b| Some(b.as_str())).collect() };
        let mut all = Answer::default();
        // What comes behind the end of an answer that was cut is asked for anew in every bucket.
        let mut until = i64::MAX;
        for bucket in each {
            let allowed = self.meter.allow(self.ask, &scope.places()).await?;
            for (place, failure) in &allowed.refused {
                scope.remove(*place);
                self.fail(*place, failure);
            }
            if scope.is_empty() {
                return Ok(all);
            }
            let query = query_of(scope, bucket);
            let dql = DqlAsk {
                query: &query,
                from: Timestamp::from_millis(slice.0),
                to: Timestamp::from_millis(slice.1),
                scan_limit_gb: allowed.scan_limit_gb,
                patience: PATIENCE,
            };
            let answer = read(self.tenant.dql_aside(&dql).await?)?;
            if answer.is_cut {
                until = until.min(answer.lines.iter().map(|line| line.at_ms).max().unwrap_or(slice.0));
            }
            all.lines.extend(answer.lines);
            all.is_cut |= answer.is_cut;
            all.too_much = all.too_much.or(answer.too_much);
            all.gap = all.gap.or(answer.gap);
            all.scanned = all.scanned.saturating_add(answer.scanned);
        }
        if all.is_cut {
            all.lines.retain(|line| line.at_ms <= until);
        }
        Ok(all)
    }
}

fn read(mut result: DqlResult) -> Result<Answer, Failure> {
    let mut answer = Answer { scanned: result.scanned_bytes(), ..Answer::default() };
    let gap = |failure: &Failure, kind: FailureKind| LogGap {
        name: kind.as_str().to_owned(),
        message: failure.message.clone(),
    };
    match result.doubt() {
        None => {}
        Some((Doubt::ScanLimit, failure)) => answer.too_much = Some(gap(&failure, FailureKind::ScanLimit)),
        Some((Doubt::ResultLimit, failure)) if result.records.is_empty() => {
            answer.too_much = Some(gap(&failure, FailureKind::Incomplete));
        }
        Some((Doubt::ResultLimit, _)) => answer.is_cut = true,
        Some((Doubt::Other, failure)) => answer.gap = Some(gap(&failure, FailureKind::Incomplete)),
    }
    for record in result.records.iter_mut().flatten() {
        answer.lines.push(RawLine::of_grail(record)?);
    }
    answer.is_cut |= answer.lines.len() >= MOST_LINES;
    Ok(answer)
}

/// The query about some services in a bucket.
fn query_of(scope: &Scope, bucket: Option<&str>) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace(['"', '\\'], ""));
    let among = |key: &str, ids: Vec<String>| format!("in({key}, array({}))", ids.join(", "));
    let filter = scope.condition().map_or_else(
        || {
            let (entities, groups) = scope.ids();
            let mut conditions = vec![among(SERVICE, entities.into_iter().map(quoted).collect())];
            if !groups.is_empty() {
                conditions.push(among(GROUP, groups.into_iter().map(quoted).collect()));
            }
            conditions.join(" or ")
        },
        ToOwned::to_owned,
    );
    let filter = if filter.trim().is_empty() { String::new() } else { format!("\n| filter {filter}") };
    let bucket =
        bucket.map(|bucket| format!("\n| filter dt.system.bucket == {}", quoted(bucket))).unwrap_or_default();
    format!(
        "fetch logs{bucket}{filter}\n| fieldsKeep {}\n| sort timestamp asc\n| limit {MOST_LINES}",
        FIELDS.join(", ")
    )
}
