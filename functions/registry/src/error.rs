//! Errors of requests, and the one place that maps them to statuses and codes.
//!
//! [`Error`] has one variant for each thing that can happen. Faults of the client are explained to the client. A fault
//! of the server is a [`StoreError`] inside [`Error::Store`]. It is logged once, with its causes and an id, and the
//! response contains the id and the general reason only.

mod response;

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};
use oci::{Digest, DigestError, ManifestError, MediaType, NameError, RepositoryName, Tag};
use serde_json::Value;

use crate::auth::{Action, ActionKind, Permit, Pull};
use crate::denial::DenialReason;
use crate::door::DoorRefusal;
use crate::overload::Overload;
use crate::response::UploadPosition;
use crate::store::blobs::{AppendError, BodyError};
use crate::store::metadata::{Protected, Protection};
use crate::store::{Reason, StoreError};
use crate::token_endpoint::TokenRefusal;

/// Every error that can end a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such endpoint")]
    NoSuchEndpoint,
    #[error("the method is not supported here")]
    MethodNotAllowed(Cow<'static, [Method]>),
    #[error("invalid repository name: {0}")]
    NameInvalid(#[from] NameError),
    #[error("invalid tag: it must match [a-zA-Z0-9_][a-zA-Z0-9._-]{{0,127}}")]
    TagInvalid,
    #[error("invalid digest: {0}")]
    DigestInvalid(#[from] DigestError),
    #[error("the digest parameter is missing")]
    DigestMissing,
    #[error("unsupported digest algorithm: use sha256 or sha512")]
    AlgorithmUnsupported,
    #[error("the parameter n must be a decimal integer from 0 to 2147483647")]
    PageSizeInvalid,
    #[error("invalid query parameter: {0}")]
    QueryInvalid(&'static str),
    #[error("Content-Type must be a media type")]
    ContentTypeInvalid,
    #[error("{0}")]
    ManifestInvalid(#[from] ManifestError),
    #[error("the manifest has the digest {computed}")]
    ManifestDigestMismatch { computed: Digest },
    #[error("the manifest is stored with the type {0}: push it with that, or delete it first")]
    ManifestOfOtherType(MediaType),
    #[error("the manifest exceeds {limit} bytes")]
    ManifestTooLarge { limit: usize },
    #[error("the manifest refers to content that is not in the repository")]
    ManifestReferencesUnknown(Vec<Digest>),
    #[error(
        "the manifest says that {0} is stored elsewhere (by `urls`, or by the type of a non-distributable layer), which the \
         policy forbids in this repository"
    )]
    ForeignLayer(Digest),
    #[error("more than {limit} tags in one push")]
    TooManyTags { limit: usize },
    #[error("the uploaded bytes have the digest {computed}")]
    BlobDigestMismatch { computed: Digest },
    #[error("the blob exceeds {limit} bytes")]
    BlobTooLarge { limit: u64 },
    #[error("the upload has taken {limit} bodies: finish it without one more, or begin a new one with larger chunks")]
    TooManyBodies { limit: u32 },
    #[error("the range does not continue the upload; continue after the last byte in `Range`")]
    UploadRange(Box<UploadPosition>),
    #[error("another request is storing bytes of this upload: come again when it has ended")]
    UploadBusy {
        position: Box<UploadPosition>,
        /// After how many seconds to retry.
        retry_after: u64,
        /// The request would finish the upload, and has waited for the other request.
        is_last: bool,
    },
    #[error("the upload is not known: it has ended, expired, or was never opened here")]
    UploadUnknown,
    /// The state of the session decides the response; see `Call::fail`.
    #[error("another request has taken the upload over")]
    ClaimLost,
    #[error("the request body did not arrive: {0}")]
    Body(BodyError),
    #[error("the requested range is not within the {size} bytes of the content")]
    RangeNotSatisfiable { size: u64 },
    #[error("the content is not what If-Match asks for")]
    PreconditionFailed,
    #[error("the blob is not in the repository")]
    BlobUnknown,
    #[error("the manifest is not in the repository")]
    ManifestUnknown,
    #[error("the manifest has the type {0}, which the request does not accept")]
    NotAcceptable(MediaType),
    #[error("the repository is not known")]
    NameUnknown,
    #[error(
        "the repository {0} does not exist, and a push does not create it: an administrator creates it with `roadstead \
         repo create {0}`"
    )]
    RepositoryNotCreated(RepositoryName),
    #[error("the manifest {0} refers to it: delete that first")]
    Referenced(Digest),
    /// The text differs from distribution's, "authentication required". docker takes that one, without a detail, for a fault
    /// of the registry, and repeats a push for 50 seconds.
    #[error("authentication required; log in first")]
    Unauthenticated {
        reason: DenialReason,
        challenge: Option<HeaderValue>,
    },
    /// The credentials of a request for a token are not good.
    #[error("{0}")]
    TokenNotGranted(Cow<'static, str>),
    #[error("invalid request for a token: {0}")]
    TokenRequestInvalid(Cow<'static, str>),
    #[error("the grant type is not supported: use password or refresh_token")]
    TokenGrantTypeUnsupported,
    #[error("the form exceeds {limit} bytes")]
    TokenFormTooLarge { limit: usize },
    #[error("{message}")]
    ApiInvalid {
        message: Cow<'static, str>,
        detail: Option<Value>,
    },
    #[error("the body exceeds {limit} bytes")]
    ApiBodyTooLarge { limit: usize },
    #[error("the request needs the Content-Type {expected}")]
    ApiContentType { expected: &'static str },
    #[error("there is no such account, key or version")]
    ApiUnknown,
    /// It is not the client's own. The answer is that of [`Error::ApiUnknown`], so that the client does not learn whether it
    /// exists. Log and metrics count a denial.
    #[error("{}", Self::ApiUnknown)]
    ApiHidden,
    #[error("{0}")]
    ApiDenied(Cow<'static, str>),
    #[error("a key with a scope may not use the API: use a key without one")]
    ApiNarrowKey,
    #[error("{0}")]
    ApiConflict(Cow<'static, str>),
    /// The tag, the manifest or the version with which a rollback or a promotion begins.
    #[error("{0}")]
    ReleaseUnknown(String),
    #[error("the request must say by If-Match which version it changes: the ETag of the answer to a GET")]
    PreconditionRequired,
    #[error("the version is not the one that If-Match names: another request has changed it")]
    ApiChanged,
    #[error("{}", denial(.refusal.as_ref()))]
    Denied {
        /// What the policy forbids, and why: for clients that are logged in only.
        refusal: Option<Refusal>,
    },
    #[error("{}", protection_text(.0))]
    Protected(Box<ProtectedTag>),
    #[error("the request must name exactly one host")]
    HostInvalid,
    #[error("the registry is not served under the host name {host}{}", allowed_with(.setting.as_deref()))]
    HostRefused {
        host: String,
        /// See [`HostPolicy::setting`](crate::HostPolicy::setting).
        setting: Option<String>,
    },
    #[error(
        "a browser sent this request for a page of another site. This registry needs no password, so it refuses such \
         requests"
    )]
    OtherSite,
    #[error("{}", .0.text())]
    Door(DoorRefusal),
    #[error("{}", .0.text())]
    TooManyRequests(Overload),
    #[error("too many wrong passwords")]
    TooManyAttempts {
        /// After how many seconds to retry.
        retry_after: u64,
    },
    #[error("the account has changed its keys or its password too often")]
    TooManyChanges {
        /// After how many seconds to retry.
        retry_after: u64,
    },
    #[error("{}", .0.reason().text())]
    Store(#[source] StoreError),
}

/// What the policy forbids, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) action: ActionKind,
    pub(crate) repository: RepositoryName,
    pub(crate) why: Why,
}

/// Why an action is refused.
#[derive(Debug)]
pub(crate) enum Why {
    /// This rule of the policy denies it.
    Rule(Arc<str>),
    /// No rule of the policy allows it.
    NoRule,
    /// The scope of the client's key does not contain it.
    KeyScope,
}

/// The message of a denial.
fn denial(refusal: Option<&Refusal>) -> String {
    let Some(Refusal {
        action,
        repository,
        why,
    }) = refusal
    else {
        return "the requested access is denied".to_owned();
    };
    let action = action.word();
    match why {
        Why::Rule(rule) => format!("the rule {rule:?} of the policy denies the action {action} in {repository}"),
        Why::NoRule => format!("no rule of the policy allows you the action {action} in {repository}"),
        Why::KeyScope => format!("the scope of your key does not contain the action {action} in {repository}"),
    }
}

/// A change of a tag that was refused, and what the client may know about it.
#[derive(Debug)]
pub(crate) struct ProtectedTag {
    protected: Protected,
    /// The principal is logged in. The names of rules are only for those.
    shows_rule: bool,
    /// The principal may pull from the repository.
    shows_digest: bool,
}

fn protection_text(refused: &ProtectedTag) -> String {
    let tag = &refused.protected.tag;
    match refused.protected.why {
        Protection::Frozen { .. } => {
            format!("the tag {tag} is immutable: only a push of the digest that it names would be accepted")
        }
        Protection::DeletedWhileFrozen { .. } => {
            format!("the deleted tag {tag} stays immutable: only a push of the digest that it had would be accepted")
        }
        Protection::CreateOnly { .. } => {
            format!(
                "the tag {tag} exists, and the principal may only create tags: only a push of the digest that it names \
                 would be accepted"
            )
        }
    }
}

/// Says how an operator allows a host name.
fn allowed_with(setting: Option<&str>) -> String {
    setting.map_or_else(String::new, |setting| {
        format!("; its operator can allow it with {setting}")
    })
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<TokenRefusal> for Error {
    fn from(refusal: TokenRefusal) -> Self {
        match refusal {
            TokenRefusal::InvalidGrant(text) => Self::TokenNotGranted(text),
            TokenRefusal::InvalidRequest(text) => Self::TokenRequestInvalid(text),
            TokenRefusal::UnsupportedGrantType => Self::TokenGrantTypeUnsupported,
            TokenRefusal::TooManyAttempts { retry_after } => Self::TooManyAttempts { retry_after },
            TokenRefusal::TooManyRequests => Self::TooManyRequests(Overload::Passwords),
            TokenRefusal::Unavailable(cause) => Self::Store(StoreError::because(Reason::Credentials, cause)),
        }
    }
}

impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Body(error) | AppendError::WriteInFlight(error) => error.into(),
            AppendError::Store(error) => Self::Store(error),
        }
    }
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        Self::of_body(error, None)
    }
}

impl Error {
    /// The refusal of a change of a tag.
    pub(crate) fn protected<A: Action>(permit: &Permit<A>, protected: Protected) -> Self {
        Self::Protected(Box::new(ProtectedTag {
            protected,
            shows_rule: !permit.principal().is_anonymous(),
            shows_digest: permit.also::<Pull>(),
        }))
    }

    /// Maps the ways in which a request body can fail to errors. An upload passes its `position`. A body of another
    /// length than declared is then answered with the position from which the client can continue.
    pub(crate) fn of_body(error: BodyError, position: Option<UploadPosition>) -> Self {
        match (error, position) {
            (BodyError::Store(error), _) => Self::Store(error),
            (BodyError::TooLarge(limit), _) => Self::BlobTooLarge { limit },
            (BodyError::ClaimLost, _) => Self::ClaimLost,
            (BodyError::LengthMismatch, Some(position)) => Self::UploadRange(Box::new(position)),
            (error @ (BodyError::Cut | BodyError::Stalled | BodyError::LengthMismatch), _) => Self::Body(error),
        }
    }
}

impl Error {
    /// Maps errors to the status and the code of the specification ("Error Codes"). This is the only such match.
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchEndpoint => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::NameInvalid(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::TagInvalid
            | Self::ContentTypeInvalid
            | Self::ManifestInvalid(_)
            | Self::ManifestOfOtherType(_)
            | Self::ForeignLayer(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::DigestInvalid(_)
            | Self::DigestMissing
            | Self::AlgorithmUnsupported
            | Self::ManifestDigestMismatch { .. }
            | Self::BlobDigestMismatch { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::PageSizeInvalid
            | Self::QueryInvalid(_)
            | Self::HostInvalid
            | Self::TokenRequestInvalid(_)
            | Self::TokenGrantTypeUnsupported
            | Self::ApiInvalid { .. } => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Self::TokenFormTooLarge { .. } | Self::ApiBodyTooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "UNSUPPORTED")
            }
            Self::ApiContentType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED"),
            Self::ApiConflict(_) => (StatusCode::CONFLICT, "UNSUPPORTED"),
            Self::PreconditionRequired => (StatusCode::PRECONDITION_REQUIRED, "UNSUPPORTED"),
            Self::ManifestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID"),
            Self::ManifestReferencesUnknown(_) => (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
            Self::TooManyTags { .. } => (StatusCode::URI_TOO_LONG, "MANIFEST_INVALID"),
            // docker repeats an upload for most of a minute unless the code says that another attempt is useless.
            Self::BlobTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "DENIED"),
            Self::TooManyBodies { .. } => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::UploadRange(_) | Self::UploadBusy { is_last: false, .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID")
            }
            // A client that repeats the last request of an upload is right, and must wait. containerd repeats it after
            // 30 seconds without a response, and again after a 429; a 416 makes it abort the push. The code names the
            // reason.
            Self::UploadBusy { is_last: true, .. } => (StatusCode::TOO_MANY_REQUESTS, "BLOB_UPLOAD_INVALID"),
            Self::UploadUnknown | Self::ClaimLost => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::Body(BodyError::Stalled) => (StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "SIZE_INVALID"),
            Self::RangeNotSatisfiable { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Self::PreconditionFailed | Self::ApiChanged => (StatusCode::PRECONDITION_FAILED, "UNSUPPORTED"),
            Self::BlobUnknown => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            // Not 406: clients know 404 from other registries, and then try what they can.
            Self::ManifestUnknown | Self::NotAcceptable(_) | Self::ReleaseUnknown(_) => {
                (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN")
            }
            Self::NameUnknown | Self::RepositoryNotCreated(_) | Self::ApiUnknown | Self::ApiHidden => {
                (StatusCode::NOT_FOUND, "NAME_UNKNOWN")
            }
            Self::Referenced(_) => (StatusCode::METHOD_NOT_ALLOWED, "DENIED"),
            Self::Unauthenticated { .. } | Self::TokenNotGranted(_) => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied { .. }
            | Self::Protected(_)
            | Self::ApiDenied(_)
            | Self::ApiNarrowKey
            | Self::HostRefused { .. }
            | Self::OtherSite
            | Self::Door(DoorRefusal::NotFromEdge) => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Door(DoorRefusal::NoHead) => (StatusCode::MISDIRECTED_REQUEST, "UNSUPPORTED"),
            // Not 429: for docker, a 429 on an upload is final.
            Self::TooManyRequests(_) => (StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS"),
            // This client has to wait, and not the registry: RFC 6585, 4.
            Self::TooManyAttempts { .. } | Self::TooManyChanges { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS")
            }
            Self::Store(fault) => fault_status_and_code(fault.reason()),
        }
    }

    /// Why the request is denied. `None`: it fails for another reason than what the client may do.
    pub(crate) fn denial(&self) -> Option<DenialReason> {
        match self {
            Self::Unauthenticated { reason, .. } => Some(*reason),
            Self::TokenNotGranted(_) => Some(DenialReason::InvalidCredentials),
            Self::Denied {
                refusal: Some(Refusal { why: Why::KeyScope, .. }),
            }
            | Self::ApiNarrowKey => Some(DenialReason::KeyScope),
            Self::Denied { .. } | Self::ApiDenied(_) | Self::ApiHidden => Some(DenialReason::Policy),
            Self::Protected(refused) => Some(match refused.protected.why {
                Protection::Frozen { .. } | Protection::DeletedWhileFrozen { .. } => DenialReason::FrozenTag,
                Protection::CreateOnly { .. } => DenialReason::CreateOnly,
            }),
            Self::TooManyAttempts { .. } => Some(DenialReason::TooManyAttempts),
            Self::TooManyChanges { .. } => Some(DenialReason::TooManyChanges),
            _ => None,
        }
    }

    /// The tag that may not be changed, if that is the reason.
    pub(crate) fn protected_tag(&self) -> Option<&Tag> {
        match self {
            Self::Protected(refused) => Some(&refused.protected.tag),
            _ => None,
        }
    }
}

/// The status and the code of a server fault. The specification has no codes for these. `UNAVAILABLE` and `UNKNOWN` are
/// distribution's codes, after which clients retry. After `UNSUPPORTED` and `DENIED` docker would abort.
fn fault_status_and_code(reason: Reason) -> (StatusCode, &'static str) {
    match reason {
        Reason::NoSpace
        | Reason::NotWritable
        | Reason::ObjectStoreUnreachable
        | Reason::MetadataUnreachable
        | Reason::Throttled
        | Reason::Memory
        | Reason::Credentials
        | Reason::ClockOff
        | Reason::StoreReplaced
        | Reason::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        Reason::ObjectStoreRefuses | Reason::MetadataRefuses | Reason::Damaged | Reason::Failed => {
            (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN")
        }
    }
}
