//! Refusals that name the field, as `google.rpc.BadRequest` details.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use vouch_proto::Invalid;

/// `INVALID_ARGUMENT` for every wrong field at once.
pub(super) fn invalid(invalid: &Invalid) -> Status {
    let mut details = ErrorDetails::new();
    for violation in &invalid.violations {
        details.add_bad_request_violation(&violation.field, &violation.message);
    }
    Status::with_error_details(Code::InvalidArgument, invalid.to_string(), details)
}

/// `INVALID_ARGUMENT` for one field.
pub(super) fn field(field: &str, message: impl Into<String>) -> Status {
    invalid(&Invalid::field(field, message))
}
