//! Refusals that name the field, as `google.rpc.BadRequest` details.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use vouch_proto::{FieldViolation, Invalid};

/// `INVALID_ARGUMENT` for every wrong field at once.
pub(super) fn invalid(invalid: &Invalid) -> Status {
    naming(Code::InvalidArgument, &invalid.violations, invalid.to_string())
}

/// `FAILED_PRECONDITION` for fields that are right, but not now.
pub(super) fn precondition(invalid: &Invalid) -> Status {
    naming(Code::FailedPrecondition, &invalid.violations, invalid.to_string())
}

/// `RESOURCE_EXHAUSTED` for one field that is more than is taken at once.
pub(super) fn too_much(violation: &FieldViolation) -> Status {
    let message = format!("{}: {}", violation.field, violation.message);
    naming(Code::ResourceExhausted, std::slice::from_ref(violation), message)
}

fn naming(code: Code, violations: &[FieldViolation], message: String) -> Status {
    let mut details = ErrorDetails::new();
    for violation in violations {
        details.add_bad_request_violation(&violation.field, &violation.message);
    }
    Status::with_error_details(code, message, details)
}

/// `INVALID_ARGUMENT` for one field.
pub(super) fn field(field: &str, message: impl Into<String>) -> Status {
    invalid(&Invalid::field(field, message))
}
