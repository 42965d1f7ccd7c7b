//! The response to each way in which authentication fails, and the permission to move tags.

use std::sync::Arc;

use async_trait::async_trait;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Request};
use oci::MediaType;
use registry::auth::{Actions, AuthenticationError, ChallengeScope, Credentials, Origin, Scope, TokenError};
use registry::{Authenticator, Identity, Principal, RequestBody};

use crate::support::content::{bytes_of, index};
use crate::support::{Answer, Setup, Users, World, sha256};

/// An authenticator that decides in the same way about every request.
struct Deciding<F>(F);

#[async_trait]
impl<F> Authenticator for Deciding<F>
where
    F: Fn() -> Result<Identity, AuthenticationError> + Send + Sync + 'static,
{
    async fn authenticate(&self, _: Origin, _: &Credentials) -> Result<Identity, AuthenticationError> {
        (self.0)()
    }

    async fn reauthorize(&self, _: &Principal) -> Result<Identity, AuthenticationError> {
        (self.0)()
    }

    /// A challenge for tokens, with all its parts.
    fn challenge(
        &self,
        head: &Parts,
        scope: Option<&ChallengeScope>,
        error: Option<TokenError>,
    ) -> Option<HeaderValue> {
        let host = head.headers[HOST].to_str().ok()?;
        let scope = scope.map_or_else(String::new, |scope| format!(r#",scope="{scope}""#));
        let error = error.map_or_else(String::new, |error| format!(r#",error="{}""#, error.as_str()));
        HeaderValue::from_str(&format!(r#"Bearer realm="https://{host}/token"{scope}{error}"#)).ok()
    }
}

#[tokio::test]
async fn each_failure_of_authentication_has_its_response() {
    let failures: [(fn() -> AuthenticationError, _, _, _, _); 6] = [
        (
            || AuthenticationError::Unauthenticated,
            401,
            "UNAUTHORIZED",
            Some(""),
            None,
        ),
        (
            || AuthenticationError::Token(TokenError::Invalid),
            401,
            "UNAUTHORIZED",
            Some(r#",error="invalid_token""#),
            None,
        ),
        (
            || AuthenticationError::Token(TokenError::InsufficientScope),
            401,
            "UNAUTHORIZED",
            Some(r#",error="insufficient_scope""#),
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
    for (failure, status, code, token_error, retry_after) in failures {
        let world = World::with(Setup {
            authenticator: Arc::new(Deciding(move || Err(failure()))),
            ..Setup::default()
        })
        .await;
        for (path, scope) in [
            ("/v2/", ""),
            ("/v2/_catalog", r#",scope="registry:catalog:*""#),
            ("/v2/a/manifests/t", r#",scope="repository:a:pull""#),
        ] {
            // Not by the client of the tests: it accepts the challenge of `Users` only.
            let request = Request::get(path).header("host", "registry.example");
            let response = world.registry.handle(request.body(RequestBody::empty()).unwrap()).await;
            let answer = Answer::read(format!("GET {path} after {:?}", failure()), response).await;
            let answer = answer.expect_error(status, code);
            let challenge =
                token_error.map(|error| format!(r#"Bearer realm="https://registry.example/token"{scope}{error}"#));
            assert_eq!(
                answer.get("www-authenticate"),
                challenge.as_deref(),
                "{}",
                answer.request
            );
            assert_eq!(answer.get("retry-after"), retry_after, "{}", answer.request);
        }
    }
}

/// A token that lacks what the policy allows is answered with a challenge for another token; what the policy forbids is
/// denied, whatever the token contains.
#[tokio::test]
async fn a_token_that_lacks_a_scope_is_distinguished_from_a_denial() {
    for (policy, token, status, code, error) in [
        (Scope::EVERYTHING, Scope::EVERYTHING, 404, "MANIFEST_UNKNOWN", None),
        (
            Scope::EVERYTHING,
            Scope::PULL_ONLY,
            401,
            "UNAUTHORIZED",
            Some("insufficient_scope"),
        ),
        (Scope::PULL_ONLY, Scope::EVERYTHING, 403, "DENIED", None),
        (Scope::PULL_ONLY, Scope::PULL_ONLY, 403, "DENIED", None),
    ] {
        let alice = Identity::new(Principal::user("alice").unwrap(), policy).with_token_scope(token);
        let world = World::with(Setup {
            authenticator: Arc::new(Deciding(move || Ok(alice.clone()))),
            ..Setup::default()
        })
        .await;
        let request = Request::delete("/v2/a/b/manifests/t").header("host", "registry.example");
        let response = world.registry.handle(request.body(RequestBody::empty()).unwrap()).await;
        let answer = Answer::read("DELETE".to_owned(), response)
            .await
            .expect_error(status, code);
        let challenge = error.map(|error| {
            format!(r#"Bearer realm="https://registry.example/token",scope="repository:a/b:delete",error="{error}""#)
        });
        assert_eq!(answer.get("www-authenticate"), challenge.as_deref());
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
