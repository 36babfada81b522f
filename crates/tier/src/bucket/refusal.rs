//! What a server's answer means for us. No type of the S3 library leaves this folder.

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};

use crate::{Error, Operation, Outcome};

/// Why a request did not do what it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such object, or no such upload.
    Absent,
    /// There is no such bucket.
    NoBucket,
    /// A condition did not hold.
    Condition,
    /// Somebody else is at it; the same request may succeed later.
    Busy,
    /// The range starts behind the end.
    Range,
    /// The connection broke: the request may have had its effect or not.
    Broken(Box<str>),
    /// The server cannot now, or is too slow.
    Unreachable(Box<str>),
    /// The server is known to be away; nothing was sent.
    Held,
    /// It will never work like this.
    Refused(u16, Box<str>),
}

impl Refusal {
    /// Whether the same request may succeed a little later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Refusal::Busy | Refusal::Broken(_) | Refusal::Unreachable(_) => true,
            Refusal::Absent
            | Refusal::NoBucket
            | Refusal::Condition
            | Refusal::Range
            | Refusal::Held
            | Refusal::Refused(..) => false,
        }
    }

    /// Whether the server gave an answer.
    pub(crate) fn is_answer(&self) -> bool {
        !matches!(self, Refusal::Broken(_) | Refusal::Unreachable(_))
    }

    /// The same for the figures.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Refusal::Absent | Refusal::NoBucket => Outcome::Absent,
            answer if answer.is_answer() => Outcome::Refused,
            _ => Outcome::Failed,
        }
    }

    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Refusal
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let text = || DisplayErrorContext(error).to_string().into_boxed_str();
        match error {
            SdkError::ServiceError(answer) => {
                let code = answer.err().code().unwrap_or_default();
                Refusal::by_status(answer.raw().status().as_u16(), code)
            }
            SdkError::ResponseError(answer) => {
                match Refusal::by_status(answer.raw().status().as_u16(), "") {
                    Refusal::Refused(200..=299, _) => Refusal::Broken(text()),
                    refusal => refusal,
                }
            }
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                Refusal::Refused(0, "the request could not be made".into())
            }
            SdkError::DispatchFailure(_) => Refusal::Broken(text()),
            SdkError::ConstructionFailure(_) => Refusal::Refused(0, text()),
            _ => Refusal::Unreachable(text()),
        }
    }

    fn by_status(status: u16, code: &str) -> Refusal {
        match (status, code) {
            (404, "NoSuchBucket") => Refusal::NoBucket,
            (404, _) => Refusal::Absent,
            (412, _) => Refusal::Condition,
            (409, _) => Refusal::Busy,
            (416, _) => Refusal::Range,
            (429 | 500 | 502 | 503 | 504, code) => {
                Refusal::Unreachable(format!("{status} {code}").into())
            }
            (status, code) => Refusal::Refused(status, code.into()),
        }
    }

    /// The error for whoever asked for the tier's service.
    pub(crate) fn into_error(self, operation: Operation) -> Error {
        let action = operation.action();
        let unreachable = |detail: &str| Error::Unreachable {
            action,
            detail: detail.into(),
        };
        match self {
            Refusal::Absent => Error::Absent,
            Refusal::NoBucket => Error::NoBucket,
            Refusal::Condition | Refusal::Busy => Error::Contended,
            Refusal::Range => Error::RangeInvalid { size: 0 },
            Refusal::Broken(detail) | Refusal::Unreachable(detail) => unreachable(&detail),
            Refusal::Held => unreachable("it did not answer before"),
            Refusal::Refused(status, code) => Error::Refused {
                action,
                status,
                code,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_s3_says() {
        let cases = [
            (404, "NoSuchKey", Refusal::Absent),
            (404, "NoSuchBucket", Refusal::NoBucket),
            (412, "PreconditionFailed", Refusal::Condition),
            (409, "ConditionalRequestConflict", Refusal::Busy),
            (409, "OperationAborted", Refusal::Busy),
            (416, "InvalidRange", Refusal::Range),
            (503, "SlowDown", Refusal::Unreachable("503 SlowDown".into())),
            (
                403,
                "AccessDenied",
                Refusal::Refused(403, "AccessDenied".into()),
            ),
            (400, "BadDigest", Refusal::Refused(400, "BadDigest".into())),
        ];
        for (status, code, refusal) in cases {
            assert_eq!(Refusal::by_status(status, code), refusal, "{status} {code}");
        }
    }

    #[test]
    fn a_lost_race_is_tried_again_and_a_missing_bucket_is_never_absence() {
        assert!(Refusal::by_status(409, "ConditionalRequestConflict").is_passing());
        let error = Refusal::by_status(404, "NoSuchBucket").into_error(Operation::Get);
        assert!(matches!(error, Error::NoBucket));
    }
}
