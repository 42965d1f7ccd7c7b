//! Errors of requests, and the one place that maps them to statuses and codes.
//!
//! [`Error`] has one variant for each thing that can happen. Faults of the client are explained to the client. A fault
//! of the server is a [`StoreError`] inside [`Error::Store`]. It is logged once, with its causes and an id, and the
//! response contains the id and the general reason only.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use oci::{Digest, DigestError, ManifestError, MediaType, NameError, RepositoryName, Tag};
use serde_json::{Value, json};

use crate::auth::{Action, ActionKind, Challenge, Permit, Pull};
use crate::body::ResponseBody;
use crate::denial::DenialReason;
use crate::overload::Overload;
use crate::response::{UploadPosition, complete};
use crate::store::blobs::{AppendError, BodyError};
use crate::store::metadata::{Protected, Protection};
use crate::store::{Reason, StoreError};
use crate::token_endpoint::TokenRefusal;

/// The id of a server fault in the log. Only such faults have it: nothing else is logged with an id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
    /// Also for what is not the client's own.
    #[error("there is no such account, key or version")]
    ApiUnknown,
    #[error("{0}")]
    ApiDenied(Cow<'static, str>),
    #[error("{0}")]
    ApiConflict(Cow<'static, str>),
    #[error("the request must say by If-Match which version it changes: the ETag of the answer to a GET")]
    PreconditionRequired,
    #[error("the version is not the one that If-Match names: somebody else has changed it")]
    ApiChanged,
    #[error("{}", denial(.refusal.as_ref()))]
    Denied {
        /// What the policy forbids, and why. Only clients that are logged in are told.
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
    TooManyRequests(Overload),
    #[error("too many wrong passwords")]
    TooManyAttempts {
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
    /// The rule that forbids it. `None`: no rule allows it.
    pub(crate) rule: Option<Arc<str>>,
}

/// The message of a denial.
fn denial(refusal: Option<&Refusal>) -> String {
    let Some(Refusal {
        action,
        repository,
        rule,
    }) = refusal
    else {
        return "the requested access is denied".to_owned();
    };
    let action = action.word();
    match rule {
        Some(rule) => format!("the rule {rule:?} of the policy denies the action {action} in {repository}"),
        None => format!("no rule of the policy allows you the action {action} in {repository}"),
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
            format!(
                "the tag {tag} was immutable when it was deleted: only a push of the digest that it had would be \
                 accepted"
            )
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
            Self::BlobTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
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
            Self::ManifestUnknown | Self::NotAcceptable(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::NameUnknown | Self::RepositoryNotCreated(_) | Self::ApiUnknown => {
                (StatusCode::NOT_FOUND, "NAME_UNKNOWN")
            }
            Self::Referenced(_) => (StatusCode::METHOD_NOT_ALLOWED, "DENIED"),
            Self::Unauthenticated { .. } | Self::TokenNotGranted(_) => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied { .. }
            | Self::Protected(_)
            | Self::ApiDenied(_)
            | Self::HostRefused { .. }
            | Self::OtherSite => (StatusCode::FORBIDDEN, "DENIED"),
            // Not 429: for docker, a 429 on an upload is final.
            Self::TooManyRequests(_) => (StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS"),
            // This client has to wait, and not the registry: RFC 6585, 4.
            Self::TooManyAttempts { .. } => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::Store(fault) => fault_status_and_code(fault.reason()),
        }
    }

    /// Why the request is denied. `None`: it fails for another reason than what the client may do.
    pub(crate) fn denial(&self) -> Option<DenialReason> {
        match self {
            Self::Unauthenticated { reason, .. } => Some(*reason),
            Self::TokenNotGranted(_) => Some(DenialReason::InvalidCredentials),
            Self::Denied { .. } => Some(DenialReason::Policy),
            Self::Protected(refused) => Some(match refused.protected.why {
                Protection::Frozen { .. } | Protection::DeletedWhileFrozen { .. } => DenialReason::FrozenTag,
                Protection::CreateOnly { .. } => DenialReason::CreateOnly,
            }),
            Self::TooManyAttempts { .. } => Some(DenialReason::TooManyAttempts),
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

    /// Whether the client may repeat the same request soon.
    fn passes(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unavailable(_)))
    }

    /// Details that help the client to resolve the error.
    fn detail(&self) -> Option<Value> {
        match self {
            Self::ManifestDigestMismatch { computed } | Self::BlobDigestMismatch { computed } => {
                Some(json!({ "computed": computed }))
            }
            Self::Referenced(referrer) => Some(json!({ "referrer": referrer })),
            Self::ForeignLayer(digest) => Some(json!({ "digest": digest })),
            Self::RepositoryNotCreated(repository) => Some(json!({ "repository": repository })),
            Self::ApiInvalid { detail, .. } => detail.clone(),
            Self::Denied { refusal: Some(refusal) } => {
                let mut detail = json!({ "action": refusal.action.word(), "repository": refusal.repository });
                if let Some(rule) = &refusal.rule {
                    detail["rule"] = json!(&**rule);
                }
                Some(detail)
            }
            Self::Protected(refused) => {
                let ProtectedTag { protected, .. } = &**refused;
                let mut detail = json!({ "tag": protected.tag.as_str() });
                if let Some(rule) = protected.why.rule().filter(|_| refused.shows_rule) {
                    detail["rule"] = json!(&**rule);
                }
                if refused.shows_digest {
                    detail["digest"] = json!(protected.why.digest());
                }
                Some(detail)
            }
            _ => None,
        }
    }

    /// The error as `OAuth2` names it (RFC 6749, 5.2), for requests for tokens. Clients of either specification find theirs
    /// in the same response.
    fn oauth_error(&self) -> Option<&'static str> {
        match self {
            Self::TokenNotGranted(_) => Some("invalid_grant"),
            Self::TokenRequestInvalid(_) | Self::TokenFormTooLarge { .. } => Some("invalid_request"),
            Self::TokenGrantTypeUnsupported => Some("unsupported_grant_type"),
            _ => None,
        }
    }

    /// The response. `id` makes the id of the log entry, if this is a server fault.
    pub(crate) fn into_response(self, id: impl FnOnce() -> u64) -> Response<ResponseBody> {
        let (status, code) = self.status_and_code();
        let message = self.to_string();
        let passes = self.passes();
        let mut fault_id = None;
        let errors = match &self {
            // One error for each digest, as the specification requires ("one or more MANIFEST_BLOB_UNKNOWN errors").
            Self::ManifestReferencesUnknown(digests) => digests
                .iter()
                .map(|digest| json!({ "code": code, "message": message, "detail": { "digest": digest } }))
                .collect(),
            Self::Store(fault) => {
                let id = format!("{:016x}", id());
                tracing::error!(
                    id,
                    status = status.as_u16(),
                    error = fault as &dyn std::error::Error,
                    "request failed"
                );
                // Also as a header, because the response to a HEAD has no body.
                fault_id = HeaderValue::from_str(&id).ok();
                vec![json!({ "code": code, "message": message, "detail": { "id": id } })]
            }
            other => vec![match other.detail() {
                Some(detail) => json!({ "code": code, "message": message, "detail": detail }),
                None => json!({ "code": code, "message": message }),
            }],
        };
        let mut body = json!({ "errors": errors });
        if let Some(error) = self.oauth_error() {
            body["error"] = error.into();
        }
        let body = body.to_string();
        let mut response = Response::new(ResponseBody::full(body.into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Some(id) = fault_id {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::MethodNotAllowed(allowed) => {
                let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
                if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
                    headers.insert(ALLOW, value);
                }
            }
            // Every 405 lists the methods that are allowed (RFC 9110, 15.5.6).
            Self::Referenced(_) => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Self::UploadRange(position) => position.write(headers),
            Self::UploadBusy {
                position, retry_after, ..
            } => {
                position.write(headers);
                headers.insert(RETRY_AFTER, retry_after.into());
            }
            Self::RangeNotSatisfiable { size } => {
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                    headers.insert(CONTENT_RANGE, value);
                }
            }
            Self::Unauthenticated {
                challenge: Some(challenge),
                ..
            } => {
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            // A token for a token would be a circle: the endpoint takes a name and a password.
            Self::TokenNotGranted(_) => {
                headers.insert(WWW_AUTHENTICATE, Challenge::BASIC);
            }
            Self::TooManyRequests(overload) => {
                headers.insert(RETRY_AFTER, overload.retry_after().into());
            }
            Self::TooManyAttempts { retry_after } => {
                headers.insert(RETRY_AFTER, retry_after.into());
            }
            Self::Store(_) if passes => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

impl Overload {
    /// The response, for a shell that refuses a request before the registry sees it.
    #[must_use]
    pub fn answer(self) -> Response<ResponseBody> {
        // Only server faults have an id, and this is none.
        complete(Error::TooManyRequests(self).into_response(|| 0))
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;
    use std::error::Error as _;

    use super::*;

    fn faults() -> Vec<StoreError> {
        let cause = || std::io::Error::other("disk 7 is on fire");
        vec![StoreError::unavailable(cause()), StoreError::failed(cause())]
    }

    /// A store's fault has the same response whichever way it becomes an error. The response contains nothing of the
    /// cause.
    #[tokio::test]
    async fn faults_are_answered_by_their_id_alone() {
        type Road = fn(StoreError) -> Error;
        let roads: [Road; 3] = [
            Error::from,
            |fault| AppendError::from(fault).into(),
            |fault| AppendError::from(BodyError::Store(fault)).into(),
        ];
        for road in roads {
            for fault in faults() {
                assert!(fault.source().is_some(), "the log can follow the chain");
                let status = match fault {
                    StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                    StoreError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                let response = road(fault).into_response(|| 0xabc);
                assert_eq!(response.status(), status);
                assert_eq!(
                    response.headers().contains_key(RETRY_AFTER),
                    status == StatusCode::SERVICE_UNAVAILABLE
                );
                let body = body_of(response).await;
                assert!(!body.contains("fire"), "{body}");
                assert_eq!(
                    serde_json::from_str::<Value>(&body).unwrap()["errors"][0]["detail"]["id"],
                    "0000000000000abc"
                );
            }
        }
    }

    /// The response for each reason: status, code, and some words of the text.
    #[tokio::test]
    async fn a_fault_says_its_reason() {
        for (reason, status, code, words) in [
            (Reason::NoSpace, 503, "UNAVAILABLE", "no space is left"),
            (Reason::NotWritable, 503, "UNAVAILABLE", "may not write"),
            (
                Reason::ObjectStoreUnreachable,
                503,
                "UNAVAILABLE",
                "object store cannot be reached",
            ),
            (Reason::ObjectStoreRefuses, 500, "UNKNOWN", "object store refuses"),
            (
                Reason::MetadataUnreachable,
                503,
                "UNAVAILABLE",
                "metadata store cannot be reached",
            ),
            (Reason::MetadataRefuses, 500, "UNKNOWN", "metadata store refuses"),
            (Reason::Throttled, 503, "UNAVAILABLE", "asks for fewer requests"),
            (Reason::Memory, 503, "UNAVAILABLE", "no memory"),
            (Reason::Credentials, 503, "UNAVAILABLE", "credentials cannot be checked"),
            (Reason::ClockOff, 503, "UNAVAILABLE", "clock is wrong"),
            (Reason::StoreReplaced, 503, "UNAVAILABLE", "removed or replaced"),
            (Reason::Damaged, 500, "UNKNOWN", "lost or damaged: push the image again"),
            (Reason::Unavailable, 503, "UNAVAILABLE", "cannot do this now"),
            (Reason::Failed, 500, "UNKNOWN", "failed to do this"),
        ] {
            let response = Error::from(StoreError::because(reason, "disk 7 is on fire")).into_response(|| 1);
            assert_eq!(response.status(), status, "{reason:?}");
            assert_eq!(
                response.headers().contains_key(RETRY_AFTER),
                status == 503,
                "{reason:?}"
            );
            let body = body_of(response).await;
            let error = &serde_json::from_str::<Value>(&body).unwrap()["errors"][0];
            assert_eq!(error["code"], code, "{reason:?}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(words) && !body.contains("fire"), "{reason:?}: {body}");
        }
    }

    /// A fault of the client gets no id, and is not logged as a server fault.
    #[tokio::test]
    async fn the_fault_of_a_client_has_no_id() {
        let error = Error::BlobUnknown.into_response(|| panic!("an id for a 404"));
        assert_eq!(error.status(), StatusCode::NOT_FOUND);
    }

    /// A client that is logged in is told what the policy forbids, and by which rule.
    #[tokio::test]
    async fn a_refusal_says_what_and_why() {
        let refusal = |action, rule: Option<&str>| Refusal {
            action,
            repository: "prod/x".parse().unwrap(),
            rule: rule.map(Into::into),
        };
        for (refusal, message, detail) in [
            (None, "the requested access is denied", json!(null)),
            (
                Some(refusal(ActionKind::Write, None)),
                "no rule of the policy allows you the action create in prod/x",
                json!({ "action": "create", "repository": "prod/x" }),
            ),
            (
                Some(refusal(ActionKind::Delete, Some("production is \"never\" deleted"))),
                r#"the rule "production is \"never\" deleted" of the policy denies the action delete in prod/x"#,
                json!({ "action": "delete", "repository": "prod/x", "rule": "production is \"never\" deleted" }),
            ),
        ] {
            let response = Error::Denied { refusal }.into_response(|| panic!("an id for a 403"));
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
            let body: Value = serde_json::from_str(&body_of(response).await).unwrap();
            let error = &body["errors"][0];
            assert_eq!((&error["code"], &error["message"]), (&json!("DENIED"), &json!(message)));
            assert_eq!(error["detail"], detail);
        }
    }

    #[tokio::test]
    async fn bodies_that_do_not_arrive() {
        let statuses: BTreeMap<_, _> = [
            (BodyError::Cut, 400),
            (BodyError::Stalled, 408),
            (BodyError::TooLarge(7), 413),
            (BodyError::LengthMismatch, 400),
            (BodyError::ClaimLost, 404),
        ]
        .into_iter()
        .map(|(error, status)| {
            (
                error.to_string(),
                (Error::from(error).into_response(|| 0).status().as_u16(), status),
            )
        })
        .collect();
        for (error, (found, expected)) in statuses {
            assert_eq!(found, expected, "{error}");
        }
    }

    async fn body_of(response: Response<ResponseBody>) -> String {
        use http_body::Body as _;
        let mut body = std::pin::pin!(response.into_body());
        let frame = std::future::poll_fn(|task| body.as_mut().poll_frame(task)).await;
        let bytes = frame.unwrap().unwrap().into_data().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}
