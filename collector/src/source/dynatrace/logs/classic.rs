//! Logs v2: exported page by page; searched slice by slice where a cluster is too old to export.

use super::super::Dynatrace;
use super::super::client::Call;
use super::super::refusal::quote;
use super::line::{GROUP, LogRecord, RawLine, SERVICE};
use super::owner::Scope;
use super::slices::Slice;
use super::{Answer, By, Reading, Told, within};
use crate::source::{Failure, FailureKind};
use serde::Deserialize;
use std::sync::PoisonError;
use vouch_proto::LogGap;

const SCOPE: &str = "logs.read";
/// Records of a page of an export.
pub(super) const PAGE: usize = 1_000;
/// Records of a search: the API has no more of them.
const SEARCHED: usize = 1_000;
/// Ids of one query, which may have 20 comparisons and operators.
pub(super) const IDS_PER_CALL: usize = 10;
/// Most pages of one window: far more than a minute has, so that a page key that repeats ends.
const PAGES: usize = 20_000;
/// How often an export is begun anew because its page key is gone.
const ATTEMPTS: usize = 3;

/// What of Logs v2 a tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Endpoint {
    #[default]
    Export,
    Search,
}

/// How far an export is.
#[derive(Debug)]
struct Export {
    /// Lines before this instant have been handed on.
    from: i64,
    end: i64,
    pages: usize,
}

/// How pages ended.
#[derive(Debug)]
enum Pages {
    /// There are no more.
    Whole,
    /// Somebody wants no more lines: the others are exported on without it.
    Fewer,
    /// The key of a page is not known any more.
    Gone(Failure),
}

/// A page of `GET /logs/export`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportPage {
    #[serde(default)]
    next_page_key: Option<String>,
    /// What has none is no answer.
    results: Vec<LogRecord>,
    #[serde(default)]
    warnings: Option<String>,
}

/// A slice of `GET /logs/search`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SearchSlice {
    #[serde(default)]
    next_slice_key: Option<String>,
    /// What has none is no answer.
    results: Vec<LogRecord>,
    #[serde(default)]
    warnings: Option<String>,
}

impl Reading<'_> {
    /// Reads the lines of all, as many services in a call as a query names.
    pub(super) async fn classic_lines(&mut self, scope: Scope) -> anyhow::Result<()> {
        for part in scope.split(IDS_PER_CALL) {
            let endpoint = *self.tenant.logs.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
            if endpoint == Endpoint::Export {
                match self.export(part.clone()).await? {
                    Ok(()) => continue,
                    Err(failure) if failure.kind == FailureKind::NotFound => {
                        tracing::info!("the tenant exports no logs; they are searched");
                        *self.tenant.logs.endpoint.lock().unwrap_or_else(PoisonError::into_inner) =
                            Endpoint::Search;
                    }
                    Err(failure) => {
                        self.fail_all(&part, &failure);
                        continue;
                    }
                }
            }
            self.walk(part, By::Search).await?;
        }
        Ok(())
    }

    /// Exports the lines of some services; a failure concerns all of them.
    async fn export(&mut self, mut scope: Scope) -> Told<()> {
        let (from, end) = self.slice();
        let mut export = Export { from, end, pages: 0 };
        let mut gone = 0;
        loop {
            match self.export_on(&mut scope, &mut export).await? {
                Ok(Pages::Whole) => return Ok(Ok(())),
                Ok(Pages::Fewer) => {}
                Ok(Pages::Gone(failure)) => {
                    gone += 1;
                    if gone == ATTEMPTS {
                        return Ok(Err(failure));
                    }
                    tracing::debug!(%failure, "a page of logs is gone; exporting on from where it was");
                }
                Err(failure) => return Ok(Err(failure)),
            }
        }
    }

    /// Exports from where it is, page by page. The lines of a page's last instant wait for the next page, which may
    /// have more of them: so it can be gone on from any page.
    async fn export_on(&mut self, scope: &mut Scope, export: &mut Export) -> Told<Pages> {
        let members = scope.places().len();
        let mut query = first(scope, (export.from, export.end), PAGE);
        let mut waiting: Vec<RawLine> = Vec::new();
        let mut is_first = true;
        loop {
            let page = match self.page(query, export).await {
                Ok(page) => page,
                Err(failure) if !is_first && is_gone(&failure) => return Ok(Ok(Pages::Gone(failure))),
                Err(failure) => return Ok(Err(failure)),
            };
            is_first = false;
            if let Some(warning) = page.warnings.filter(|text| !text.is_empty()) {
                self.gap(scope, &warned(&warning));
            }
            let mut lines = std::mem::take(&mut waiting);
            match read(page.results) {
                Ok(more) => lines.extend(within(more, (export.from, export.end), i64::MAX)),
                Err(failure) => return Ok(Err(failure)),
            }
            let next = page.next_page_key.filter(|key| !key.is_empty());
            if next.is_some() {
                lines.sort_by_key(|line| line.at_ms);
                export.from = lines.last().map_or(export.from, |line| line.at_ms);
                waiting = lines.split_off(lines.partition_point(|line| line.at_ms < export.from));
            }
            if let Err(failure) = self.deliver(scope, lines).await? {
                return Ok(Err(failure));
            }
            query = match next {
                None => return Ok(Ok(Pages::Whole)),
                Some(_) if scope.is_empty() => return Ok(Ok(Pages::Whole)),
                Some(_) if scope.places().len() < members => return Ok(Ok(Pages::Fewer)),
                Some(key) => vec![("nextPageKey", key)],
            };
        }
    }

    async fn page(&mut self, query: Vec<(&str, String)>, export: &mut Export) -> Result<ExportPage, Failure> {
        export.pages += 1;
        if export.pages > PAGES {
            let message = format!("logs/export has more than {PAGES} pages");
            return Err(Failure::new(FailureKind::BadAnswer, message));
        }
        let page = self.tenant.client.send_aside(&Call::get(&["logs", "export"], query, SCOPE)).await;
        page.map_err(in_grail).map_err(|failure| {
            // It was found before.
            let odd = failure.kind == FailureKind::NotFound && export.pages > 1;
            if odd { Failure { kind: FailureKind::BadAnswer, ..failure } } else { failure }
        })
    }

    /// The first records of a slice of time.
    pub(super) async fn search(&mut self, scope: &Scope, slice: Slice) -> Result<Answer, Failure> {
        let mut query = first(scope, slice, 0);
        query.push(("limit", SEARCHED.to_string()));
        let mut answer = Answer::default();
        for _ in 0..PAGES {
            let page = self.tenant.client.send_aside(&Call::get(&["logs", "search"], query, SCOPE)).await;
            let page: SearchSlice = page.map_err(in_grail)?;
            answer.lines.extend(read(page.results)?);
            answer.is_cut = answer.lines.len() >= SEARCHED;
            if let Some(warning) = page.warnings.filter(|text| !text.is_empty()) {
                answer.gap = Some(warned(&warning));
            }
            match page.next_slice_key.filter(|key| !key.is_empty()) {
                Some(key) if !answer.is_cut => query = vec![("nextSliceKey", key)],
                Some(_) | None => return Ok(answer),
            }
        }
        Err(Failure::new(FailureKind::BadAnswer, format!("logs/search has more than {PAGES} slices")))
    }
}

impl Dynatrace {
    /// Whether Logs v2 answers.
    ///
    /// # Errors
    /// Where it does not, refuses, or the tenant keeps its logs in Grail.
    pub async fn has_logs(&self) -> Result<(), Failure> {
        let query = vec![("from", "now-1m".to_owned()), ("pageSize", "1".to_owned())];
        let page = self.client.send_aside::<ExportPage>(&Call::get(&["logs", "export"], query, SCOPE)).await;
        page.map(|_| ()).map_err(in_grail)
    }
}

/// The parameters of a first call; of a page so many records, where there are pages.
fn first(scope: &Scope, (from, to): Slice, page: usize) -> Vec<(&'static str, String)> {
    let mut query = vec![
        ("query", query_of(scope)),
        ("from", from.to_string()),
        ("to", to.to_string()),
        ("sort", "+timestamp".to_owned()),
    ];
    query.extend((page > 0).then(|| ("pageSize", page.to_string())));
    query
}

/// Whether a page's key is not known any more.
fn is_gone(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::BadRequest | FailureKind::BadAnswer)
}

/// In the search language of Logs Classic.
fn query_of(scope: &Scope) -> String {
    if let Some(condition) = scope.condition() {
        return condition.to_owned();
    }
    let (entities, groups) = scope.ids();
    let is = |key: &str, id: &str| format!("{key}=\"{}\"", id.replace(['"', '\\'], ""));
    let entities = entities.into_iter().map(|id| is(SERVICE, id));
    let groups = groups.into_iter().map(|id| is(GROUP, id));
    entities.chain(groups).collect::<Vec<_>>().join(" OR ")
}

fn read(records: Vec<LogRecord>) -> Result<Vec<RawLine>, Failure> {
    records.into_iter().map(RawLine::try_from).collect()
}

/// A warning on an answer says that something is missing.
fn warned(text: &str) -> LogGap {
    let text = quote(text);
    LogGap { name: FailureKind::Incomplete.as_str().to_owned(), message: format!("Dynatrace warns: {text}") }
}

/// A tenant that keeps its logs in Grail answers 501.
fn in_grail(failure: Failure) -> Failure {
    if failure.kind != FailureKind::BadRequest || !failure.message.contains("(501") {
        return failure;
    }
    let message = format!(
        "the tenant keeps its logs in Grail, which Logs v2 does not read; set collector.logs.source to grail ({})",
        failure.message
    );
    Failure::new(FailureKind::KeptInGrail, message)
}
