//! What goes wrong with requests, and what of it passes.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use registry::store::{Reason, StoreError};

use crate::statistics::Operation;

/// A request that was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The store said no; asking again would change nothing.
    #[error("{} was refused with {status} {code}: {message}", .operation.name())]
    Refused {
        operation: Operation,
        status: u16,
        code: String,
        message: String,
    },
    /// No answer, or one that passes; until the time was up.
    #[error("{} did not succeed in {attempts} attempts; the last one: {last}", .operation.name())]
    Exhausted {
        operation: Operation,
        attempts: u32,
        last: Passing,
    },
}

/// The code of an answer that brings less than was asked for because there is no more.
pub(crate) const TOO_SHORT: &str = "TooShort";

/// Why an attempt was not the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

impl Passing {
    /// No answer, or one that cannot be used.
    pub(crate) fn silence(text: impl Into<String>) -> Self {
        Self {
            reason: Reason::ObjectStoreUnreachable,
            text: text.into(),
        }
    }

    /// An answer with an error that passes.
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

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Fault {
    /// The object ends before the range that was asked for.
    pub(crate) fn is_too_short(&self) -> bool {
        match self {
            Self::Refused { status: 416, .. } => true,
            Self::Refused { code, .. } => code == TOO_SHORT,
            Self::Exhausted { .. } => false,
        }
    }

    /// Whether the store answers and does not let this registry do it, whatever is asked.
    fn is_refusal_of_all(&self) -> bool {
        matches!(self, Self::Refused { status, code, .. }
            if matches!(status, 301 | 401 | 403) || matches!(code.as_str(), "NoSuchBucket" | "InvalidAccessKeyId"))
    }

    /// The store, the bucket or its owner has no space left: deleting helps, and asking again does not.
    fn is_full(&self) -> bool {
        matches!(self, Self::Refused { status, code, .. } if is_full(*status, code))
    }

    /// The object, the upload or the bucket is not there.
    pub(crate) fn is_absent(&self) -> bool {
        match self {
            // Completing may be refused in the body of an answer whose status was 200 already.
            Self::Refused { code, .. } if code == "NoSuchUpload" => true,
            // An unknown access key is 404 as well on some stores, and means nothing of the kind.
            Self::Refused { status: 404, code, .. } => code != "InvalidAccessKeyId" && code != "NoSuchBucket",
            _ => false,
        }
    }

    /// The bucket is not there.
    pub(crate) fn is_no_bucket(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "NoSuchBucket")
    }

    /// A condition of the request does not hold.
    pub(crate) fn is_precondition(&self) -> bool {
        matches!(self, Self::Refused { status: 412, .. })
    }

    /// The store does not know how.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Self::Refused { status, code, .. }
            if matches!(status, 405 | 501) || matches!(code.as_str(), "NotImplemented" | "MethodNotAllowed"))
    }

    /// The store does not know how, or does not take what the request says of its checksum: none, or one of another
    /// kind (an MD5, in the past). Only perhaps: much else is answered with 400, so that nothing follows from it before the
    /// same request without the checksum was done.
    pub(crate) fn is_unknown_header(&self) -> bool {
        const CODES: &[&str] = &[
            "InvalidArgument",
            "InvalidDigest",
            "InvalidRequest",
            "MalformedXML",
            "MissingContentMD5",
        ];
        self.is_unknown() || matches!(self, Self::Refused { status: 400, code, .. } if CODES.contains(&code.as_str()))
    }

    /// A part that was named is not there, or is another.
    pub(crate) fn is_invalid_part(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "InvalidPart")
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        let reason = match &fault {
            Fault::Exhausted { last, .. } => last.reason,
            Fault::Refused { .. } if fault.is_full() => Reason::NoSpace,
            Fault::Refused { .. } if fault.is_refusal_of_all() => Reason::ObjectStoreRefuses,
            Fault::Refused { .. } => Reason::Failed,
        };
        Self::because(reason, fault)
    }
}

/// Codes of answers that pass whatever their status is.
const PASSING: &[&str] = &[
    "BadDigest", // changed on the way
    "Busy",
    "ConditionalRequestConflict",
    "ExpiredToken", // every attempt is signed anew
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

/// Whether an error with this code passes.
pub(crate) fn passes(code: &str) -> bool {
    PASSING.contains(&code)
}

/// Whether an error says that no space is left: by its status (RFC 4918, 11.5), or by the codes that `MinIO` and Ceph give it
/// with various statuses.
fn is_full(status: u16, code: &str) -> bool {
    status == 507
        || matches!(
            code,
            "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "QuotaExceeded"
        )
}

/// What an attempt came to: a refusal, or why it is worth another.
pub(crate) enum Verdict {
    Refused(Fault),
    Passing(Passing),
}

/// Judges an error of the SDK. Its text goes to the log, so that it holds neither a URL nor a header.
pub(crate) fn judge<E>(operation: Operation, error: &SdkError<E, HttpResponse>) -> Verdict
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let SdkError::ServiceError(answer) = error else {
        return Verdict::Passing(Passing::silence(chain(error)));
    };
    let status = answer.raw().status().as_u16();
    let metadata = answer.err();
    let code = metadata.code().unwrap_or("without a code");
    let message = metadata.message().unwrap_or_default();
    let may_pass = (status >= 500 && status != 501) || matches!(status, 408 | 429) || passes(code);
    if may_pass && !is_full(status, code) {
        Verdict::Passing(Passing::answered(status, code))
    } else {
        Verdict::Refused(Fault::Refused {
            operation,
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        })
    }
}

/// An error and what caused it, in one line.
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
