//! Why a source did not deliver: a closed list of names, whether asking again can help, and words for a person.

use std::time::Duration;
use vouch_proto::SourceError;

/// What went wrong. The names are stable: they travel in batches and verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// The token is not accepted.
    Unauthorized,
    /// The token lacks a scope.
    MissingScope,
    /// Refused for another reason than a scope.
    Forbidden,
    /// The address leads nowhere.
    NotFound,
    /// The request is not understood, e.g. a selector.
    BadRequest,
    /// The request is too large.
    TooLarge,
    /// A web page instead of an answer: a sign-in page, a proxy, the wrong host.
    WebPage,
    /// Too many requests.
    Throttled,
    /// The source cannot answer now.
    Unavailable,
    /// No connection.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The answer broke off.
    CutOff,
    /// The answer is not what the source promises.
    BadAnswer,
    /// The answer is coarser than what can be judged.
    TooCoarse,
    /// Several series where one was meant.
    AmbiguousSeries,
    /// A series for everything that was left over.
    Remainder,
    /// The metric has no such dimension.
    UnknownDimension,
    /// There is no such metric.
    UnknownMetric,
    /// The unit cannot be converted to the template's.
    UnitMismatch,
    /// The source says that it left something out.
    Incomplete,
    /// There is no such service.
    UnknownService,
    /// Several services of that name.
    AmbiguousService,
    /// The tenant holds another environment.
    OtherEnvironment,
    /// There is no series at all.
    NoData,
    /// The records of a query are no series.
    NotASeries,
    /// The result of a query is not kept any more.
    ResultGone,
    /// The source gave a query up.
    QueryFailed,
    /// Percentiles that are aggregated once more.
    NotAggregable,
    /// The query reads what is billed, which is switched off.
    Billed,
    /// The budget of what may be scanned is used up.
    Budget,
    /// The scan limit ended a query, and a shorter time does not help.
    ScanLimit,
    /// More lines of one instant than an answer holds.
    CannotBeSplit,
    /// The tenant keeps its logs where this API does not read them.
    KeptInGrail,
}

impl FailureKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 33] = [
        Self::Unauthorized,
        Self::MissingScope,
        Self::Forbidden,
        Self::NotFound,
        Self::BadRequest,
        Self::TooLarge,
        Self::WebPage,
        Self::Throttled,
        Self::Unavailable,
        Self::Unreachable,
        Self::Timeout,
        Self::CutOff,
        Self::BadAnswer,
        Self::TooCoarse,
        Self::AmbiguousSeries,
        Self::Remainder,
        Self::UnknownDimension,
        Self::UnknownMetric,
        Self::UnitMismatch,
        Self::Incomplete,
        Self::UnknownService,
        Self::AmbiguousService,
        Self::OtherEnvironment,
        Self::NoData,
        Self::NotASeries,
        Self::ResultGone,
        Self::QueryFailed,
        Self::NotAggregable,
        Self::Billed,
        Self::Budget,
        Self::ScanLimit,
        Self::CannotBeSplit,
        Self::KeptInGrail,
    ];

    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::MissingScope => "missing_scope",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::WebPage => "web_page",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::CutOff => "cut_off",
            Self::BadAnswer => "bad_answer",
            Self::TooCoarse => "too_coarse",
            Self::AmbiguousSeries => "ambiguous_series",
            Self::Remainder => "remainder",
            Self::UnknownDimension => "unknown_dimension",
            Self::UnknownMetric => "unknown_metric",
            Self::UnitMismatch => "unit_mismatch",
            Self::Incomplete => "incomplete",
            Self::UnknownService => "unknown_service",
            Self::AmbiguousService => "ambiguous_service",
            Self::OtherEnvironment => "other_environment",
            Self::NoData => "no_data",
            Self::NotASeries => "not_a_series",
            Self::ResultGone => "result_gone",
            Self::QueryFailed => "query_failed",
            Self::NotAggregable => "not_aggregable",
            Self::Billed => "billed",
            Self::Budget => "budget",
            Self::ScanLimit => "scan_limit",
            Self::CannotBeSplit => "cannot_be_split",
            Self::KeptInGrail => "kept_in_grail",
        }
    }

    /// Whether the same request may succeed when it is sent again shortly.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Unreachable | Self::Timeout | Self::CutOff)
    }

    /// Whether nothing can be had from this source until a person acts: the service is not ready then.
    #[must_use]
    pub const fn stops_readiness(self) -> bool {
        matches!(
            self,
            Self::Unauthorized | Self::MissingScope | Self::Forbidden | Self::WebPage | Self::Unreachable
        )
    }

    /// Whether another query might do better, so that only the metric that asked is refused.
    #[must_use]
    pub const fn is_about_a_query(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::TooLarge
                | Self::BadAnswer
                | Self::TooCoarse
                | Self::AmbiguousSeries
                | Self::Remainder
                | Self::UnitMismatch
                | Self::Incomplete
                | Self::NotASeries
                | Self::QueryFailed
        )
    }

    /// Whether it concerns one metric of a request and may be told apart by asking for each alone.
    #[must_use]
    pub const fn is_about_a_metric(self) -> bool {
        matches!(self, Self::BadRequest | Self::NotFound | Self::TooLarge)
    }
}

/// A failure with what to say about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.as_str())]
pub struct Failure {
    /// Its name.
    pub kind: FailureKind,
    /// What happened and what to do, for a person. Holds no secret.
    pub message: String,
    /// How long the source asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure in words.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// As a batch carries it; `metric` is `None` where it concerns all.
    #[must_use]
    pub fn to_source_error(&self, metric: Option<&str>) -> SourceError {
        SourceError {
            metric: metric.map(ToOwned::to_owned),
            name: self.kind.as_str().to_owned(),
            message: self.message.clone(),
            retryable: self.kind.is_retryable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_snake_case() {
        let names: BTreeSet<_> = FailureKind::ALL.iter().map(|k| k.as_str()).collect();
        assert_eq!(names.len(), FailureKind::ALL.len());
        assert!(names.iter().all(|n| n.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    }

    #[test]
    fn every_name_is_documented() {
        let docs =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dynatrace.md")).unwrap();
        for kind in FailureKind::ALL {
            assert!(
                docs.contains(&format!("| `{}` |", kind.as_str())),
                "{} in docs/dynatrace.md",
                kind.as_str()
            );
        }
    }

    #[test]
    fn a_batch_carries_name_and_remedy() {
        let error = Failure::new(FailureKind::Throttled, "wait").to_source_error(Some("cpu"));
        assert_eq!((error.name.as_str(), error.retryable), ("throttled", true));
        assert!(!FailureKind::MissingScope.is_retryable() && FailureKind::MissingScope.stops_readiness());
    }
}
