//! The response to each way in which authentication fails, and the permission to move tags.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::Request;
use oci::MediaType;
use registry::auth::{
    Actions, AuthenticationError, Challenge, ChallengeSchemes, CredentialId, Credentials, Origin, Rules, Scope,
    SharedRules, TokenError,
};
use registry::store::wrapped::StoreMethod;
use registry::{Authenticator, Identity, Principal, RequestBody, Settings};
use serde_json::json;
use tokio::sync::Notify;

use crate::support::content::{bytes_of, index};
use crate::support::users::Deciding;
use crate::support::{Answer, Setup, Users, World, sha256};

/// The beginning of a challenge of a registry with this public URL.
pub(super) const BEARER: &str = r#"Bearer realm="https://registry.example/token",service="registry.example""#;

pub(super) fn with_public_url() -> Settings {
    let url = "https://registry.example".parse().unwrap();
    Settings {
        challenge: Challenge::new(ChallengeSchemes::Auto, Some(url)),
        ..Settings::default()
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
            settings: with_public_url(),
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
            let challenge = token_error.map(|error| format!("{BEARER}{scope}{error}"));
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
        (Rules::everything(), Scope::EVERYTHING, 404, "MANIFEST_UNKNOWN", None),
        (
            Rules::everything(),
            Scope::PULL_ONLY,
            401,
            "UNAUTHORIZED",
            Some("insufficient_scope"),
        ),
        // No token of this key contains it.
        (Rules::everything(), Scope::PULL_ONLY.of_key(), 403, "DENIED", None),
        (
            Rules::everything(),
            Scope::PULL_ONLY.within_key(Scope::PULL_ONLY),
            403,
            "DENIED",
            None,
        ),
        (
            Rules::everything(),
            Scope::PULL_ONLY.within_key(Scope::EVERYTHING),
            401,
            "UNAUTHORIZED",
            Some("insufficient_scope"),
        ),
        (Rules::pull_only(), Scope::EVERYTHING, 403, "DENIED", None),
        (Rules::pull_only(), Scope::PULL_ONLY, 403, "DENIED", None),
    ] {
        let alice = Identity::new(Principal::user("alice").unwrap(), policy).with_token_scope(token);
        let world = World::with(Setup {
            authenticator: Arc::new(Deciding(move || Ok(alice.clone()))),
            settings: with_public_url(),
            ..Setup::default()
        })
        .await;
        let request = Request::delete("/v2/a/b/manifests/t").header("host", "registry.example");
        let response = world.registry.handle(request.body(RequestBody::empty()).unwrap()).await;
        let answer = Answer::read("DELETE".to_owned(), response)
            .await
            .expect_error(status, code);
        let challenge = error.map(|error| format!(r#"{BEARER},scope="repository:a/b:delete",error="{error}""#));
        assert_eq!(answer.get("www-authenticate"), challenge.as_deref());
    }
}

/// A principal without the permission to move tags can publish a manifest under a new tag, but not under an existing one.
#[tokio::test]
async fn a_push_to_an_existing_tag_needs_the_permission_to_move_it() {
    let users = Arc::new(Users::private());
    let world = World::with(Setup {
        authenticator: users.clone(),
        ..Setup::default()
    })
    .await;
    for (number, actions, moves) in [(0, Actions::CREATE, 403), (1, Actions::PUSH, 201)] {
        users.change("reader", Users::may("a/*", actions.union(Actions::PULL)));
        let manifests = ["one", "two"].map(|text| {
            let mut manifest = index(&[]);
            manifest["annotations"] = json!({ "text": format!("{text} {number}") });
            bytes_of(&manifest)
        });
        for (manifest, status) in manifests.into_iter().zip([201, moves]) {
            let digest = sha256(&manifest);
            for (reference, status) in [
                (digest.to_string(), 201),
                (format!("t{number}"), status),
                (format!("{digest}?tag=u{number}"), status),
            ] {
                let call = world.put(format!("/v2/a/b/manifests/{reference}")).user("reader");
                let call = call.header("content-type", MediaType::OCI_INDEX);
                call.bytes(manifest.clone()).send().await.expect(status);
            }
            let tag = world.head(format!("/v2/a/b/manifests/t{number}")).user("reader");
            let named = tag.send().await.expect(200).header("docker-content-digest").to_owned();
            assert_eq!(named == digest.to_string(), status == 201);
        }
    }
}

/// One user, who has proved her identity by a key. The key can be removed.
struct Keyed {
    id: CredentialId,
    is_removed: AtomicBool,
}

#[async_trait]
impl Authenticator for Keyed {
    async fn authenticate(&self, _: &Origin, _: &Credentials) -> Result<Identity, AuthenticationError> {
        let alice = Identity::new(Principal::user("alice").unwrap(), Rules::everything());
        Ok(alice.with_credential(self.id).unwrap())
    }

    async fn reauthorize(
        &self,
        principal: &Principal,
        credential: Option<CredentialId>,
    ) -> Result<Identity, AuthenticationError> {
        assert_eq!((principal.as_str(), credential), ("alice", Some(self.id)));
        if self.is_removed.load(Ordering::SeqCst) {
            return Err(AuthenticationError::Unauthenticated);
        }
        self.authenticate(&Origin::internal(), &Credentials::Absent).await
    }

    fn shared_rules(&self) -> Option<Arc<SharedRules>> {
        None
    }

    fn takes_credentials(&self) -> bool {
        true
    }
}

/// The token of an upload carries the key that opened it, and the final PUT asks for that key.
#[tokio::test]
async fn s17_an_upload_is_not_finished_after_the_removal_of_its_key() {
    let keyed = Arc::new(Keyed {
        id: "3f9aK2dQ".parse().unwrap(),
        is_removed: AtomicBool::new(false),
    });
    let world = World::with(Setup {
        authenticator: keyed.clone(),
        ..Setup::default()
    })
    .await;
    for (is_removed, status) in [(false, 201), (true, 401)] {
        keyed.is_removed.store(false, Ordering::SeqCst);
        let opened = world.post("/v2/a/blobs/uploads/").send().await.expect(202);
        let patched = world
            .patch(opened.header("location"))
            .bytes("ab")
            .send()
            .await
            .expect(202);
        keyed.is_removed.store(is_removed, Ordering::SeqCst);
        let target = format!("{}?digest={}", patched.header("location"), sha256(b"ab"));
        world.put(target).send().await.expect(status);
    }
}

/// A store may take minutes to make one object of all bodies. What was revoked meanwhile has no effect any more.
#[tokio::test]
async fn s17_revoked_while_the_object_of_a_blob_is_made() {
    for (millis, status) in [(9_999, 201), (10_000, 401)] {
        let (users, seal) = (Arc::new(Users::private()), Arc::new(Notify::new()));
        let world = World::with(Setup {
            seal: Some(seal.clone()),
            ..Setup::private(&users)
        })
        .await;
        let opened = world.post("/v2/a/blobs/uploads/").user("alice").send().await;
        let location = opened.expect(202).location();
        world.patch(location.clone()).bytes("ab").send().await.expect(202);
        let digest = sha256(b"ab");
        let put = world.put(format!("{location}?digest={digest}")).user("alice").send();
        let revoke = async {
            world.clock.pass(millis);
            users.remove("alice");
            seal.notify_one();
        };
        let (answer, ()) = futures_util::future::join(put, revoke).await;
        answer.expect(status);
        assert_eq!(world.counts.of(StoreMethod::Seal), 1);
        let published = world.twin().await.blob("a", &digest).await;
        assert_eq!(published.is_some(), status == 201);
    }
}
