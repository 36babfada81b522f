//! Failure kinds as gRPC status codes: the only place; and statuses with the details that go with some of them.
//!
//! Clients decide by the code alone whether they try again, and few look at `RetryInfo`. `UNAVAILABLE`,
//! `RESOURCE_EXHAUSTED` and `ABORTED` are tried again by every client that tries again at all, `INTERNAL` and `UNKNOWN`
//! by most. So what cannot get better by itself has none of these, save for a defect of ours, which must not pass for
//! anything else. Specification: <https://grpc.io/docs/guides/status-codes/>, `google/rpc/error_details.proto`, and what
//! the Remote Execution API says of its calls. Not here: how a status travels in HTTP/2.

use std::time::Duration;

use prost::Message;
use prost_types::Any;
use zimcache_types::Code;

use crate::rpc::{
    BadRequest, PreconditionFailure, RetryInfo, Status, bad_request::FieldViolation,
    precondition_failure::Violation,
};

/// Type of a violation: a blob that is not there.
const MISSING: &str = "MISSING";

/// A status code of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum GrpcCode {
    /// It worked.
    Ok = 0,
    /// The caller went away.
    Cancelled = 1,
    /// Nobody knows what went wrong.
    Unknown = 2,
    /// The request can never succeed.
    InvalidArgument = 3,
    /// It took too long.
    DeadlineExceeded = 4,
    /// The thing is not there.
    NotFound = 5,
    /// The thing is there already.
    AlreadyExists = 6,
    /// Known caller, insufficient rights.
    PermissionDenied = 7,
    /// Too much at once, or no room.
    ResourceExhausted = 8,
    /// Something else has to be done first.
    FailedPrecondition = 9,
    /// Lost a race; start over.
    Aborted = 10,
    /// Outside the value.
    OutOfRange = 11,
    /// No such call, or not with these arguments.
    Unimplemented = 12,
    /// A defect of the server.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// Bytes are gone for good.
    DataLoss = 15,
    /// No or unknown credentials.
    Unauthenticated = 16,
}

impl GrpcCode {
    /// The code that says the same.
    pub const fn of(code: Code) -> GrpcCode {
        match code {
            Code::NotFound => GrpcCode::NotFound,
            // A blob over `max_cas_blob_size_bytes` can never be stored: the specification asks for this code.
            Code::Invalid | Code::TooLarge => GrpcCode::InvalidArgument,
            // What the caller wanted to create is there. ABORTED would be tried again, and meet it again.
            Code::Conflict => GrpcCode::AlreadyExists,
            // Bazel fetches new credentials after either of these two, and tries once more.
            Code::Unauthenticated => GrpcCode::Unauthenticated,
            Code::Forbidden => GrpcCode::PermissionDenied,
            Code::RangeInvalid => GrpcCode::OutOfRange,
            // The specification asks for it where there is no room. Both pass: leases end, and waiting lowers the rate.
            Code::OutOfSpace | Code::RateLimited => GrpcCode::ResourceExhausted,
            // Reading a damaged value is a miss; what gets here is a write that the disk spoilt, and the next one goes
            // elsewhere. DATA_LOSS would say that the caller's bytes are gone, and nobody tries again after it.
            Code::Unavailable | Code::Corrupt => GrpcCode::Unavailable,
            Code::Timeout => GrpcCode::DeadlineExceeded,
            Code::Internal => GrpcCode::Internal,
        }
    }

    /// The code of a number; one that is not known says no more than [`GrpcCode::Unknown`].
    pub const fn from_number(number: i32) -> GrpcCode {
        match number {
            0 => GrpcCode::Ok,
            1 => GrpcCode::Cancelled,
            3 => GrpcCode::InvalidArgument,
            4 => GrpcCode::DeadlineExceeded,
            5 => GrpcCode::NotFound,
            6 => GrpcCode::AlreadyExists,
            7 => GrpcCode::PermissionDenied,
            8 => GrpcCode::ResourceExhausted,
            9 => GrpcCode::FailedPrecondition,
            10 => GrpcCode::Aborted,
            11 => GrpcCode::OutOfRange,
            12 => GrpcCode::Unimplemented,
            13 => GrpcCode::Internal,
            14 => GrpcCode::Unavailable,
            15 => GrpcCode::DataLoss,
            16 => GrpcCode::Unauthenticated,
            _ => GrpcCode::Unknown,
        }
    }

    /// The kind of failure this code stands for, as far as it tells; `None` when all went well. What [`GrpcCode::of`]
    /// gives one code to several is read as the milder one.
    pub const fn kind(self) -> Option<Code> {
        Some(match self {
            GrpcCode::Ok => return None,
            GrpcCode::NotFound => Code::NotFound,
            GrpcCode::InvalidArgument => Code::Invalid,
            GrpcCode::AlreadyExists => Code::Conflict,
            GrpcCode::Unauthenticated => Code::Unauthenticated,
            GrpcCode::PermissionDenied => Code::Forbidden,
            GrpcCode::OutOfRange => Code::RangeInvalid,
            GrpcCode::ResourceExhausted => Code::OutOfSpace,
            GrpcCode::Unavailable
            | GrpcCode::Cancelled
            | GrpcCode::Aborted
            | GrpcCode::FailedPrecondition => Code::Unavailable,
            GrpcCode::DeadlineExceeded => Code::Timeout,
            GrpcCode::DataLoss => Code::Corrupt,
            GrpcCode::Unknown | GrpcCode::Unimplemented | GrpcCode::Internal => Code::Internal,
        })
    }

    /// Its number on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

/// A status with its details; they travel in `grpc-status-details-bin`, or in an answer with many statuses.
pub fn status(code: GrpcCode, message: impl Into<String>, details: Vec<Any>) -> Status {
    Status {
        code: code.number(),
        message: message.into(),
        details,
    }
}

/// When to try again. A delay that the message cannot hold is left out.
pub fn retry_info(delay: Duration) -> Any {
    let retry_delay = prost_types::Duration::try_from(delay).ok();
    any("RetryInfo", &RetryInfo { retry_delay })
}

/// Which blobs are missing: `blobs/{hash}/{size}`, with the function in front of the hash where a hash alone does not
/// tell it. Goes with [`GrpcCode::FailedPrecondition`].
pub fn missing(subjects: impl IntoIterator<Item = String>) -> Any {
    let violations = subjects.into_iter().map(|subject| Violation {
        r#type: MISSING.to_owned(),
        subject,
        description: String::new(),
    });
    any(
        "PreconditionFailure",
        &PreconditionFailure {
            violations: violations.collect(),
        },
    )
}

/// Which field of a request is wrong, and why.
pub fn bad_request(field: impl Into<String>, description: impl Into<String>) -> Any {
    let violation = FieldViolation {
        field: field.into(),
        description: description.into(),
        ..FieldViolation::default()
    };
    any(
        "BadRequest",
        &BadRequest {
            field_violations: vec![violation],
        },
    )
}

/// A message beside the name by which its reader knows it.
fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_number() {
        for (code, number) in [
            (Code::NotFound, 5),
            (Code::Invalid, 3),
            (Code::Conflict, 6),
            (Code::Unauthenticated, 16),
            (Code::Forbidden, 7),
            (Code::TooLarge, 3),
            (Code::RangeInvalid, 11),
            (Code::OutOfSpace, 8),
            (Code::RateLimited, 8),
            (Code::Unavailable, 14),
            (Code::Timeout, 4),
            (Code::Corrupt, 14),
            (Code::Internal, 13),
        ] {
            assert_eq!(GrpcCode::of(code).number(), number, "{code:?}");
        }
    }

    #[test]
    fn a_number_read_back_is_the_same_code_and_kind() {
        for number in 0..=16 {
            assert_eq!(GrpcCode::from_number(number).number(), number);
        }
        assert_eq!(GrpcCode::from_number(99), GrpcCode::Unknown);
        assert_eq!(GrpcCode::Ok.kind(), None);
        for code in Code::ALL {
            let kind = GrpcCode::of(code).kind().unwrap();
            assert_eq!(GrpcCode::of(kind), GrpcCode::of(code), "{code:?}");
        }
    }

    #[test]
    fn a_status_has_exactly_these_bytes() {
        let details = vec![missing(["blobs/ab/7".to_owned()])];
        let status = status(GrpcCode::FailedPrecondition, "gone", details);
        let violation = b"\x0a\x15\x0a\x07MISSING\x12\x0ablobs/ab/7";
        let name = b"type.googleapis.com/google.rpc.PreconditionFailure";
        let any = [b"\x0a\x32", &name[..], b"\x12\x17", violation].concat();
        let expected = [b"\x08\x09\x12\x04gone\x1a\x4d", &any[..]].concat();
        assert_eq!(status.encode_to_vec(), expected);
    }

    #[test]
    fn details_say_when_and_what_and_are_named() {
        let info = retry_info(Duration::from_millis(2500));
        assert_eq!(info.type_url, "type.googleapis.com/google.rpc.RetryInfo");
        assert_eq!(info.value, b"\x0a\x08\x08\x02\x10\x80\xca\xb5\xee\x01");
        assert_eq!(retry_info(Duration::MAX).value, b"");
        let request = bad_request("page_token", "not ours");
        assert_eq!(
            request.type_url,
            "type.googleapis.com/google.rpc.BadRequest"
        );
        assert_eq!(request.value, b"\x0a\x16\x0a\x0apage_token\x12\x08not ours");
    }
}
