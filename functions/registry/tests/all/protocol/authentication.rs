//! The response to each way in which authentication fails, and the permission to move tags.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderValue, Request};
use oci::MediaType;
use registry::auth::{Actions, AuthenticationError, Credentials, Origin, TokenError};
use registry::{Authenticator, Identity, Principal, RequestBody};

use crate::support::content::{bytes_of, index};
use crate::support::{Answer, Setup, Users, World, sha256};

/// An authenticator that refuses every request in the same way.
struct Refusing(fn() -> AuthenticationError);

#[async_trait]
impl Authenticator for Refusing {
    async fn authenticate(&self, _: Origin, _: &Credentials) -> Result<Identity, AuthenticationError> {
        Err((self.0)())
    }

    async fn reauthorize(&self, _: &Principal) -> Result<Identity, AuthenticationError> {
        Err((self.0)())
    }

    fn challenge(&self, error: Option<TokenError>) -> Option<HeaderValue> {
        let challenge = match error {
            Some(error) => format!(r#"Bearer realm="/token",error="{}""#, error.as_str()),
            None => r#"Bearer realm="/token""#.into(),
        };
        HeaderValue::from_str(&challenge).ok()
    }
}

#[tokio::test]
async fn each_failure_of_authentication_has_its_response() {
    let failures: [(fn() -> AuthenticationError, _, _, _, _); 6] = [
        (
            || AuthenticationError::Unauthenticated,
            401,
            "UNAUTHORIZED",
            Some(r#"Bearer realm="/token""#),
            None,
        ),
        (
            || AuthenticationError::Token(TokenError::Invalid),
            401,
            "UNAUTHORIZED",
            Some(r#"Bearer realm="/token",error="invalid_token""#),
            None,
        ),
        (
            || AuthenticationError::Token(TokenError::InsufficientScope),
            401,
            "UNAUTHORIZED",
            Some(r#"Bearer realm="/token",error="insufficient_scope""#),
            None,
        ),
        (
            || AuthenticationError::TooManyAttempts { retry_after: 900 },
            429,
            "TOOMANYREQUESTS",
            None,
            Some("900"),
        ),
        (
            || AuthenticationError::TooManyRequests,
            503,
            "TOOMANYREQUESTS",
            None,
            Some("5"),
        ),
        (
            || AuthenticationError::Unavailable("planned".into()),
            503,
            "UNAVAILABLE",
            None,
            Some("5"),
        ),
    ];
    for (failure, status, code, challenge, retry_after) in failures {
        let world = World::with(Setup {
            authenticator: Arc::new(Refusing(failure)),
            ..Setup::default()
        })
        .await;
        for path in ["/v2/", "/v2/_catalog", "/v2/a/manifests/t"] {
            // Not by the client of the tests: it accepts the challenge of `Users` only.
            let request = Request::get(path).header("host", "registry.example");
            let response = world.registry.handle(request.body(RequestBody::empty()).unwrap()).await;
            let answer = Answer::read(format!("GET {path} after {:?}", failure()), response).await;
            let answer = answer.expect_error(status, code);
            assert_eq!(answer.get("www-authenticate"), challenge, "{}", answer.request);
            assert_eq!(answer.get("retry-after"), retry_after, "{}", answer.request);
        }
    }
}

/// A principal without the permission to move tags can publish a manifest by its digest, but no tag.
#[tokio::test]
async fn a_push_of_a_tag_needs_the_permission_to_move_it() {
    let users = Arc::new(Users::private());
    let world = World::with(Setup {
        authenticator: users.clone(),
        ..Setup::default()
    })
    .await;
    let manifest = bytes_of(&index(&[]));
    let digest = sha256(&manifest);
    for (actions, status) in [(Actions::CREATE, 403), (Actions::PUSH, 201)] {
        users.change("reader", Users::may("a/*", actions.union(Actions::PULL)));
        for (reference, status) in [
            (digest.to_string(), 201),
            ("t".to_owned(), status),
            (format!("{digest}?tag=u"), status),
        ] {
            let call = world.put(format!("/v2/a/b/manifests/{reference}")).user("reader");
            let call = call.header("content-type", MediaType::OCI_INDEX);
            call.bytes(manifest.clone()).send().await.expect(status);
        }
        let tag = world.get("/v2/a/b/manifests/t").user("reader").send().await;
        assert_eq!(tag.status, if status == 201 { 200 } else { 404 });
    }
}
