//! The response that tells the client an error.

use http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response};
use serde_json::{Value, json};

use super::{Error, ProtectedTag, Why};
use crate::auth::Challenge;
use crate::body::ResponseBody;
use crate::door::DoorRefusal;
use crate::overload::Overload;
use crate::request_id::RequestId;
use crate::response::complete;
use crate::store::StoreError;

impl Error {
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
                if let Why::Rule(rule) = &refusal.why {
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

    /// The response. `id` gives the id of the request, which the log entry has too, if this is a server fault.
    pub(crate) fn into_response(self, id: impl FnOnce() -> RequestId) -> Response<ResponseBody> {
        let (status, code) = self.status_and_code();
        let message = self.to_string();
        let passes = self.passes();
        let errors = match &self {
            // One error for each digest, as the specification requires ("one or more MANIFEST_BLOB_UNKNOWN errors").
            Self::ManifestReferencesUnknown(digests) => digests
                .iter()
                .map(|digest| json!({ "code": code, "message": message, "detail": { "digest": digest } }))
                .collect(),
            Self::Store(fault) => {
                let id = id();
                tracing::error!(
                    id = %id,
                    status = status.as_u16(),
                    error = fault as &dyn std::error::Error,
                    "request failed"
                );
                vec![json!({ "code": code, "message": message, "detail": { "id": id.to_string() } })]
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
            Self::TooManyAttempts { retry_after } | Self::TooManyChanges { retry_after } => {
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
        refused(Error::TooManyRequests(self))
    }
}

impl DoorRefusal {
    /// The response, for a shell.
    #[must_use]
    pub fn answer(self) -> Response<ResponseBody> {
        refused(Error::Door(self))
    }
}

/// The response of a shell that refuses a request.
fn refused(error: Error) -> Response<ResponseBody> {
    // Only server faults have an id, and this is none.
    complete(error.into_response(|| RequestId::new(0)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;
    use std::error::Error as _;

    use http::StatusCode;

    use super::super::Refusal;
    use super::*;
    use crate::auth::ActionKind;
    use crate::store::Reason;
    use crate::store::blobs::{AppendError, BodyError};

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
                let response = road(fault).into_response(|| RequestId::new(0xabc));
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
            let response =
                Error::from(StoreError::because(reason, "disk 7 is on fire")).into_response(|| RequestId::new(1));
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

    /// The answer to a client that is logged in says what the policy forbids, and by which rule.
    #[tokio::test]
    async fn a_refusal_says_what_and_why() {
        let refusal = |action, why| Refusal {
            action,
            repository: "prod/x".parse().unwrap(),
            why,
        };
        for (refusal, message, detail) in [
            (None, "the requested access is denied", json!(null)),
            (
                Some(refusal(ActionKind::Write, Why::NoRule)),
                "no rule of the policy allows you the action create in prod/x",
                json!({ "action": "create", "repository": "prod/x" }),
            ),
            (
                Some(refusal(ActionKind::Move, Why::KeyScope)),
                "the scope of your key does not contain the action move in prod/x",
                json!({ "action": "move", "repository": "prod/x" }),
            ),
            (
                Some(refusal(
                    ActionKind::Delete,
                    Why::Rule("production is \"never\" deleted".into()),
                )),
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
                (
                    Error::from(error).into_response(|| RequestId::new(0)).status().as_u16(),
                    status,
                ),
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
