//! Errors of requests, and which of them are transient.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use registry::store::{Reason, StoreError};

use crate::statistics::Operation;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The store refused the request; a retry would change nothing.
    #[error("{} was refused with {status} {code}: {message}", .operation.name())]
    Refused {
        operation: Operation,
        status: u16,
        code: String,
        message: String,
    },
    /// Every attempt failed with a transient error or without a response, until the attempts or the time were
    /// exhausted.
    #[error("{} failed in {attempts} attempts; the last error: {last}", .operation.name())]
    Exhausted {
        operation: Operation,
        attempts: u32,
        last: TransientError,
    },
}

/// The code of a response that has fewer bytes than requested because the object has no more.
pub(crate) const TOO_SHORT: &str = "TooShort";

/// The transient error of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransientError {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

impl TransientError {
    /// No response, or an unusable one.
    pub(crate) fn no_response(text: impl Into<String>) -> Self {
        Self {
            reason: Reason::ObjectStoreUnreachable,
            text: text.into(),
        }
    }

    /// A response with a transient error.
    pub(crate) fn answered(status: u16, code: &str) -> Self {
        let reason = match code {
            "RequestTimeTooSkewed" => Reason::ClockOff,
            "SlowDown" | "Throttling" | "ThrottlingException" | "TooManyRequests" => Reason::Throttled,
            _ if status == 429 => Reason::Throttled,
            _ => Reason::ObjectStoreUnreachable,
        };
        Self {
            reason,
            text: format!("{status} {code}"),
        }
    }
}

impl fmt::Display for TransientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl RequestError {
    /// The object ends before the requested range.
    pub(crate) fn is_too_short(&self) -> bool {
        match self {
            Self::Refused { status: 416, .. } => true,
            Self::Refused { code, .. } => code == TOO_SHORT,
            Self::Exhausted { .. } => false,
        }
    }

    /// Whether the store refuses this registry every request, whatever it asks for.
    fn refuses_every_request(&self) -> bool {
        matches!(self, Self::Refused { status, code, .. }
            if matches!(status, 301 | 401 | 403) || matches!(code.as_str(), "NoSuchBucket" | "InvalidAccessKeyId"))
    }

    /// Whether the store, the bucket or its owner has no space left. Deleting objects helps; a retry does not.
    fn is_full(&self) -> bool {
        matches!(self, Self::Refused { status, code, .. } if is_full(*status, code))
    }

    /// Whether the object, the upload or the bucket does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            // A store may refuse completion in the body of a response with status 200.
            Self::Refused { code, .. } if code == "NoSuchUpload" => true,
            // Some stores also answer 404 for an unknown access key. That does not mean that the object is absent.
            Self::Refused { status: 404, code, .. } => code != "InvalidAccessKeyId" && code != "NoSuchBucket",
            _ => false,
        }
    }

    /// Whether the bucket does not exist.
    pub(crate) fn is_bucket_not_found(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "NoSuchBucket")
    }

    /// Whether a condition of the request was not met.
    pub(crate) fn is_precondition_failed(&self) -> bool {
        matches!(self, Self::Refused { status: 412, .. })
    }

    /// Whether the store does not support the request.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Refused { status, code, .. }
            if matches!(status, 405 | 501) || matches!(code.as_str(), "NotImplemented" | "MethodNotAllowed"))
    }

    /// Whether the store may not support the request, or the checksum in it: it expects none, or one of another kind
    /// (MD5 in the past). Stores answer 400 for many other reasons too, so this is no proof until the same request
    /// without the checksum has succeeded.
    pub(crate) fn may_be_unsupported(&self) -> bool {
        const CODES: &[&str] = &[
            "InvalidArgument",
            "InvalidDigest",
            "InvalidRequest",
            "MalformedXML",
            "MissingContentMD5",
        ];
        self.is_unsupported()
            || matches!(self, Self::Refused { status: 400, code, .. } if CODES.contains(&code.as_str()))
    }

    /// Whether a part in the request does not exist, or is another one.
    pub(crate) fn is_invalid_part(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "InvalidPart")
    }
}

impl From<RequestError> for StoreError {
    fn from(error: RequestError) -> Self {
        let reason = match &error {
            RequestError::Exhausted { last, .. } => last.reason,
            RequestError::Refused { .. } if error.is_full() => Reason::NoSpace,
            RequestError::Refused { .. } if error.refuses_every_request() => Reason::ObjectStoreRefuses,
            RequestError::Refused { .. } => Reason::Failed,
        };
        Self::because(reason, error)
    }
}

/// Codes of transient errors, whatever their status.
const TRANSIENT: &[&str] = &[
    "BadDigest", // the body was changed in transit
    "Busy",
    "ConditionalRequestConflict",
    "ExpiredToken", // each attempt is signed again
    "ExpiredTokenException",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestExpired",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
];

/// Whether an error with this code is transient.
pub(crate) fn is_transient(code: &str) -> bool {
    TRANSIENT.contains(&code)
}

/// Whether an error means that no space is left: by its status (RFC 4918, 11.5), or by the codes that `MinIO` and Ceph
/// use with various statuses.
fn is_full(status: u16, code: &str) -> bool {
    status == 507
        || matches!(
            code,
            "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "QuotaExceeded"
        )
}

/// The outcome of a failed attempt: a refusal, or a transient error that allows a retry.
pub(crate) enum AttemptOutcome {
    Refused(RequestError),
    Transient(TransientError),
}

/// Classifies an error of the SDK. The text goes to the log, so it contains neither a URL nor a header.
pub(crate) fn classify<E>(operation: Operation, error: &SdkError<E, HttpResponse>) -> AttemptOutcome
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let SdkError::ServiceError(answer) = error else {
        return AttemptOutcome::Transient(TransientError::no_response(chain(error)));
    };
    let status = answer.raw().status().as_u16();
    let metadata = answer.err();
    let code = metadata.code().unwrap_or("without a code");
    let message = metadata.message().unwrap_or_default();
    let may_be_transient = (status >= 500 && status != 501) || matches!(status, 408 | 429) || is_transient(code);
    if may_be_transient && !is_full(status, code) {
        AttemptOutcome::Transient(TransientError::answered(status, code))
    } else {
        AttemptOutcome::Refused(RequestError::Refused {
            operation,
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        })
    }
}

/// The text of an error and of its causes, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
