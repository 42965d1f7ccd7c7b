//! Permissions: what a client may do, and what it learns.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use oci::MediaType;
use registry::api_endpoint::ApiOperation;
use registry::auth::{Actions, AuthenticationError, CredentialId, Credentials, Origin, Rules, SharedRules};
use registry::store::sessions::{SessionStore as _, SigningKey};
use registry::store::{Context, Timestamp, Uid};
use registry::{Authenticator, Endpoint, Identity, Principal, Settings, Sparse};
use serde_json::json;

use super::examples::{Example, Fixture, is_by_token};
use crate::support::content::{bytes_of, descriptor, image, index, padded};
use crate::support::{Answer, Script, Setup, Users, World, sha256};

/// A client that may push to one repository and knows a digest of another gains nothing by it: not by HEAD and GET, not
/// by a mount, not by a manifest that refers to it.
#[tokio::test]
async fn s01_blob_of_another_repository() {
    for sparse in [Sparse::Refuse, Sparse::Allow] {
        let open = World::new().await;
        let settings = Settings {
            sparse,
            ..Settings::default()
        };
        let world = open.another(Arc::new(Users::private()), settings).await;
        let secret = open.push_blob("private/x", "secret").await;
        let hidden = open.push_image("private/x", "t", "hidden").await;
        open.push_blob("private/x", "{}").await;
        let large = padded(&image(b"{}", &[]), 50_000);
        open.put_manifest("private/x", "large", large.clone()).await.expect(201);
        open.push_blob("team/app", "{}").await;

        let unreachable = || async {
            for digest in [secret, hidden.layer, hidden.digest, sha256(&large)] {
                for kind in ["blobs", "manifests"] {
                    for method in ["GET", "HEAD"] {
                        let target = format!("/v2/team/app/{kind}/{digest}");
                        let call = world.call(method.parse().unwrap(), target).user("alice");
                        call.send().await.expect(404);
                    }
                }
            }
        };
        unreachable().await;
        for digest in [secret, hidden.layer, hidden.digest, sha256(&large)] {
            for query in [format!("?mount={digest}&from=private/x"), format!("?mount={digest}")] {
                let call = world.post(format!("/v2/team/app/blobs/uploads/{query}")).user("robot");
                call.send().await.expect(202);
            }
        }
        unreachable().await;
        let mut as_layer_of_index = index(&[]);
        as_layer_of_index["manifests"] = json!([descriptor(MediaType::OCI_LAYER, b"secret")]);
        for (number, manifest) in [
            image(b"secret", &[]),
            image(b"{}", &[b"secret"]),
            image(b"{}", &[&hidden.manifest]),
            index(&[&hidden.manifest]),
            index(&[&large]),
            as_layer_of_index,
        ]
        .iter()
        .enumerate()
        {
            let call = world.put(format!("/v2/team/app/manifests/t{number}")).user("robot");
            let call = call.header("content-type", manifest["mediaType"].as_str().unwrap());
            let answer = call.bytes(bytes_of(manifest)).send().await;
            match sparse {
                Sparse::Allow => answer.expect(201),
                _ => answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN"),
            };
        }
        unreachable().await;
    }
}

/// The statuses of a refusal for lack of permissions.
fn is_refusal(answer: &Answer) -> bool {
    matches!(answer.status, 401 | 403)
}

/// Every endpoint with every scope: what is not granted is refused before any store is called.
#[tokio::test]
async fn s03_every_endpoint_with_every_scope() {
    /// What the scopes grant, as a list.
    fn granted(user: &str, endpoint: Endpoint, repository: &str) -> bool {
        match endpoint {
            Endpoint::Home
            | Endpoint::Base
            | Endpoint::ListRepositories
            | Endpoint::IssueToken
            | Endpoint::GetKeySet
            | Endpoint::Api(
                ApiOperation::GetApiDocument
                | ApiOperation::GetIdentity
                | ApiOperation::Explain
                | ApiOperation::SearchRepositories,
            ) => true,
            Endpoint::GetBlob
            | Endpoint::GetManifest
            | Endpoint::ListTags
            | Endpoint::ListReferrers
            | Endpoint::Api(ApiOperation::DescribeTags | ApiOperation::GetTagHistory) => user != "robot",
            Endpoint::OpenUpload | Endpoint::PutManifest => {
                user == "alice" || (user == "robot" && repository == "team/app")
            }
            // The uploads are those that alice has opened.
            Endpoint::Api(
                ApiOperation::ListAccounts
                | ApiOperation::CreateAccount
                | ApiOperation::GetAccount
                | ApiOperation::ChangeAccount
                | ApiOperation::RemoveAccount
                | ApiOperation::SetPassword
                | ApiOperation::ListKeys
                | ApiOperation::CreateKey
                | ApiOperation::ChangeKey
                | ApiOperation::RemoveKey
                | ApiOperation::RotateKey
                | ApiOperation::GetPolicy
                | ApiOperation::SetPolicy
                | ApiOperation::CheckPolicy
                | ApiOperation::ListPolicyVersions
                | ApiOperation::GetPolicyVersion
                | ApiOperation::CreateRepository
                | ApiOperation::RollBackTag
                | ApiOperation::PromoteTag
                | ApiOperation::ListAuditEvents
                | ApiOperation::ListSigningKeys
                | ApiOperation::RotateSigningKeys,
            )
            | Endpoint::DeleteManifest
            | Endpoint::DeleteBlob
            | Endpoint::PatchUpload
            | Endpoint::FinishUpload
            | Endpoint::GetUpload
            | Endpoint::CancelUpload => user == "alice",
        }
    }
    for user in ["alice", "reader", "robot"] {
        for repository in ["team/app", "private/x"] {
            for &endpoint in Endpoint::ALL {
                let count = Fixture::new().await.examples(endpoint, repository).len();
                for number in 0..count {
                    let fixture = Fixture::new().await;
                    let example = &fixture.examples(endpoint, repository)[number];
                    let before = fixture.guarded.metadata.counts();
                    let _ = fixture.guarded.counts.take();
                    let answer = example.call(&fixture.guarded).user(user).send().await;
                    let what = format!("{user}: {} {}", example.what, answer.status);
                    if granted(user, endpoint, repository) {
                        // A mount from a repository that robot may not pull opens a session.
                        let mount = user == "robot" && example.target.contains("mount=");
                        assert!(
                            answer.status == example.success || (mount && answer.status == 202),
                            "{what}"
                        );
                    } else {
                        // What the account of another user has is absent in the API.
                        let is_account = matches!(endpoint, Endpoint::Api(_)) && example.target.contains("/accounts/");
                        assert_eq!(answer.status, if is_account { 404 } else { 403 }, "{what}");
                        assert_eq!(fixture.guarded.counts.all().len(), 0, "{what}: no store was asked");
                        assert_eq!(fixture.guarded.metadata.counts(), before, "{what}: nothing has changed");
                    }
                }
            }
        }
    }
}

/// A client without permissions, at every endpoint, in a private repository. The examples are requests that succeed for
/// another user. An endpoint without examples does not compile.
#[tokio::test]
async fn s14_a_private_registry_refuses_requests_without_credentials() {
    for &endpoint in Endpoint::ALL {
        let count = Fixture::new().await.examples(endpoint, "private/x").len();
        assert!(count > 0);
        for number in 0..count {
            let fixture = Fixture::new().await;
            let example = &fixture.examples(endpoint, "private/x")[number];
            let forged = fixture.upload_in("private/x").replace("uploads/A", "uploads/B");
            let _ = fixture.guarded.counts.take();
            for credentials in [
                None,
                Some("Basic YWxpY2U6d3Jvbmc="),
                Some("Basic !"),
                Some("Bearer x"),
                Some("Basic Og=="),
                Some(""),
            ] {
                let mut call = example.call(&fixture.guarded);
                if is_by_token(endpoint) {
                    // Without its token, which is the authority on this path.
                    let target = example.target.replace(fixture.upload_in("private/x"), &forged);
                    assert_ne!(target, example.target);
                    call = fixture
                        .guarded
                        .call(example.method.clone(), target)
                        .bytes(example.body.clone());
                }
                if let Some(credentials) = credentials {
                    call = call.header("authorization", credentials);
                }
                let answer = call.send().await;
                let expected = match endpoint {
                    // The page for people reveals nothing about the content. The token endpoint checks credentials itself;
                    // that of the test grants everything.
                    Endpoint::Home
                    | Endpoint::IssueToken
                    | Endpoint::GetKeySet
                    | Endpoint::Api(ApiOperation::GetApiDocument) => 200,
                    _ if is_by_token(endpoint) => 404,
                    _ => 401,
                };
                assert_eq!(answer.status, expected, "{} with {credentials:?}", example.what);
                assert_eq!(
                    fixture.guarded.counts.all().len(),
                    0,
                    "{}: no store was asked",
                    example.what
                );
            }
            // The example is a real one.
            let answer = example.call(&fixture.guarded).user("alice").send().await;
            assert_eq!(answer.status, example.success, "{}", example.what);
            assert_eq!(answer.record.endpoint, Some(endpoint), "{}", example.what);
        }
    }
}

/// Where anonymous clients may only pull, every change asks for credentials.
#[tokio::test]
async fn s14_a_registry_open_to_pull_refuses_anonymous_writes() {
    for &endpoint in Endpoint::ALL {
        let count = Fixture::new().await.examples(endpoint, "private/x").len();
        for number in 0..count {
            let fixture = Fixture::of(Users::open_to_pull()).await;
            let example = &fixture.examples(endpoint, "private/x")[number];
            let answer = example.call(&fixture.guarded).send().await;
            let expected = match endpoint {
                Endpoint::Home
                | Endpoint::GetBlob
                | Endpoint::GetManifest
                | Endpoint::ListTags
                | Endpoint::ListReferrers
                | Endpoint::ListRepositories
                | Endpoint::IssueToken
                | Endpoint::GetKeySet
                | Endpoint::Api(ApiOperation::GetApiDocument)
                // A client with the token of an upload may continue the upload.
                | Endpoint::PatchUpload
                | Endpoint::FinishUpload
                | Endpoint::GetUpload
                | Endpoint::CancelUpload => example.success,
                Endpoint::Base
                | Endpoint::OpenUpload
                | Endpoint::PutManifest
                | Endpoint::DeleteManifest
                | Endpoint::DeleteBlob
                | Endpoint::Api(_) => 401,
            };
            assert_eq!(answer.status, expected, "{}", example.what);
        }
    }
}

/// Credentials that cannot be checked now are neither accepted nor refused.
#[tokio::test]
async fn s14_no_request_passes_while_credentials_cannot_be_checked() {
    for &endpoint in Endpoint::ALL {
        let fixture = Fixture::new().await;
        fixture.users.go_down();
        for example in fixture.examples(endpoint, "private/x") {
            let answer = example.call(&fixture.guarded).user("alice").send().await;
            match endpoint {
                Endpoint::Home
                | Endpoint::IssueToken
                | Endpoint::GetKeySet
                | Endpoint::Api(ApiOperation::GetApiDocument) => {
                    assert_eq!(answer.status, 200, "{}", example.what);
                }
                Endpoint::PatchUpload | Endpoint::GetUpload | Endpoint::CancelUpload => {
                    assert_eq!(
                        answer.status, example.success,
                        "{}: the token is the authority",
                        example.what
                    );
                }
                _ => assert_eq!(answer.status, 503, "{}", example.what),
            }
        }
    }
}

/// Two new registries share no key, token or password.
#[tokio::test]
async fn s15_no_default_secret() {
    let secret_of = async |world: &World| {
        let now = Timestamp(0);
        let cx = Context::internal(now, 0, Uid(0));
        let candidate = SigningKey {
            id: 7,
            secret: [7; 32],
            created: now,
        };
        let keys = world.sessions.signing_keys(cx, candidate).await.unwrap();
        assert_eq!(keys.len(), 1);
        keys[0].secret
    };
    let one = World::with(Setup {
        seed: 1,
        ..Setup::default()
    })
    .await;
    let two = World::with(Setup {
        seed: 2,
        ..Setup::default()
    })
    .await;
    let secrets = [secret_of(&one).await, secret_of(&two).await];
    assert_ne!(secrets[0], secrets[1]);
    for secret in secrets {
        let distinct: std::collections::BTreeSet<_> = secret.into_iter().collect();
        assert!(distinct.len() > 16, "32 bytes of randomness");
    }
    let location = one.open_upload("a").await;
    one.get(location.clone()).send().await.expect(204);
    two.get(location).send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

/// Whether two responses are equal, except for the given names in them and the ids of their requests.
pub(super) fn same_but_for_names(one: &Answer, other: &Answer, names: [&str; 2]) -> bool {
    let text = |answer: &Answer, name: &str| {
        let mut headers: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| *name != "content-length" && *name != "x-request-id")
            .map(|(key, value)| format!("{key}: {}", value.to_str().unwrap().replace(name, "NAME")))
            .collect();
        headers.sort();
        let body = String::from_utf8_lossy(&answer.body).replace(name, "NAME");
        (answer.status, headers, body)
    };
    text(one, names[0]) == text(other, names[1])
}

/// An unknown and a forbidden repository cannot be distinguished, and a list reveals nothing of what it omits.
#[tokio::test]
async fn s23_forbidden_and_unknown_are_the_same() {
    let fixture = Fixture::new().await;
    let world = &fixture.guarded;
    for user in [None, Some("robot"), Some("reader")] {
        for &endpoint in Endpoint::ALL {
            for example in fixture.examples(endpoint, "private/x") {
                let body = String::from_utf8(example.body.clone()).unwrap();
                let unknown = Example {
                    what: example.what.clone(),
                    method: example.method.clone(),
                    target: example.target.replace("private/x", "unknown/y"),
                    body: body.replace("private/x", "unknown/y").into_bytes(),
                    success: example.success,
                };
                let (mut call, mut other) = (example.call(world), unknown.call(world));
                if let Some(user) = user {
                    (call, other) = (call.user(user), other.user(user));
                }
                let forbidden = call.send().await;
                let unknown = other.send().await;
                if is_refusal(&forbidden) && !is_by_token(endpoint) {
                    assert!(
                        same_but_for_names(&forbidden, &unknown, ["private/x", "unknown/y"]),
                        "{user:?} {}: {forbidden:?} {unknown:?}",
                        example.what
                    );
                }
            }
        }
    }
    // The catalog for a user that may list nothing: no names, and no link with a name.
    for n in ["", "?n=1", "?n=1000", "?n=1&last=a"] {
        let answer = world
            .get(format!("/v2/_catalog{n}"))
            .user("robot")
            .send()
            .await
            .expect(200);
        assert_eq!(answer.json(), json!({ "repositories": [] }));
        assert_eq!(answer.next(), None);
        assert!(!format!("{answer:?}").contains("private"));
    }
    let answer = world.get("/v2/_catalog").user("reader").send().await.expect(200);
    assert_eq!(answer.json(), json!({ "repositories": ["private/x", "team/app"] }));
}

/// The headers of proxies and clients about the origin of a request change no byte of any response.
#[tokio::test]
async fn s29_forwarded_headers_change_nothing() {
    const SPOOFED: [(&str, &str); 12] = [
        ("host", "evil.example"),
        ("forwarded", "for=1.2.3.4;host=evil.example;proto=https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "444"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-prefix", "/evil"),
        ("x-original-url", "/v2/_catalog"),
        ("x-rewrite-url", "/v2/_catalog"),
        ("x-http-method-override", "DELETE"),
        ("x-forwarded-user", "alice"),
        ("via", "1.1 evil.example"),
    ];
    for user in [Some("alice"), None] {
        for &endpoint in Endpoint::ALL {
            let count = Fixture::new().await.examples(endpoint, "team/app").len();
            for number in 0..count {
                let mut answers = Vec::new();
                for spoofed in [false, true] {
                    let fixture = Fixture::new().await;
                    let example = &fixture.examples(endpoint, "team/app")[number];
                    let mut call = example.call(&fixture.guarded);
                    if let Some(user) = user {
                        call = call.user(user);
                    }
                    for (name, value) in SPOOFED.iter().filter(|_| spoofed) {
                        call = call.header(name, value);
                    }
                    let answer = call.send().await;
                    assert!(!format!("{:?}{:?}", answer.headers, answer.body).contains("evil"));
                    answers.push(answer);
                }
                assert!(same_but_for_names(&answers[0], &answers[1], ["-", "-"]), "{answers:?}");
            }
        }
    }
}

/// A revoked permission has no effect any more, also for an upload that was opened before.
#[tokio::test]
async fn s09_revoked_while_uploading() {
    for (scope, status) in [(None, 401), (Some(Rules::pull_only()), 403)] {
        let fixture = Fixture::new().await;
        let target = format!("{}?digest={}", fixture.upload_in("private/x"), sha256(b"ab"));
        match scope {
            None => fixture.users.remove("alice"),
            Some(scope) => fixture.users.change("alice", scope),
        }
        for with_credentials in [true, false] {
            let mut call = fixture.guarded.put(target.clone());
            if with_credentials {
                call = call.user("alice");
            }
            call.send().await.expect(status);
        }
        assert_eq!(fixture.open.blob("private/x", &sha256(b"ab")).await, None);
    }
}

/// Users, and how often one of them was authorized again.
struct Counted {
    users: Users,
    again: AtomicUsize,
}

#[async_trait]
impl Authenticator for Counted {
    async fn authenticate(&self, origin: &Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError> {
        self.users.authenticate(origin, credentials).await
    }

    async fn reauthorize(
        &self,
        principal: &Principal,
        credential: Option<CredentialId>,
    ) -> Result<Identity, AuthenticationError> {
        self.again.fetch_add(1, Ordering::SeqCst);
        self.users.reauthorize(principal, credential).await
    }

    fn shared_rules(&self) -> Option<Arc<SharedRules>> {
        self.users.shared_rules()
    }

    fn takes_credentials(&self) -> bool {
        self.users.takes_credentials()
    }
}

/// What happens to users while a body arrives.
type Loss = fn(&Users);

/// Some clients send a whole blob in the last request of its upload, and that may take hours. What was revoked meanwhile has no
/// effect any more. A body that takes less than ten seconds costs no second authorization.
#[tokio::test]
async fn s17_revoked_while_the_body_of_the_last_request_arrives() {
    let losses: [(u64, Loss, u16, usize); 5] = [
        (9_999, |users| users.remove("alice"), 201, 0),
        (10_000, |_| {}, 201, 1),
        (10_000, |users| users.remove("alice"), 401, 1),
        (10_000, |users| users.change("alice", Rules::pull_only()), 403, 1),
        (10_000, Users::go_down, 503, 1),
    ];
    for (millis, lose, status, again) in losses {
        for number in 0..3 {
            let counted = Arc::new(Counted {
                users: Users::private(),
                again: AtomicUsize::new(0),
            });
            let world = World::with(Setup {
                authenticator: counted.clone(),
                ..Setup::default()
            })
            .await;
            let uploads = "/v2/a/b/blobs/uploads/";
            let session = world.post(uploads).user("alice").send().await.expect(202).location();
            let blob = sha256(b"ab");
            let manifest = world.put("/v2/a/b/manifests/t");
            // A request, its body, what it publishes, and how often it is authorized again in any case.
            let requests = [
                (
                    world.put(format!("{session}?digest={blob}")),
                    Bytes::from("ab"),
                    format!("/v2/a/b/blobs/{blob}"),
                    1,
                ),
                (
                    world.post(format!("{uploads}?digest={blob}")),
                    Bytes::from("ab"),
                    format!("/v2/a/b/blobs/{blob}"),
                    0,
                ),
                (
                    manifest.header("content-type", MediaType::OCI_INDEX),
                    bytes_of(&index(&[])),
                    "/v2/a/b/manifests/t".to_owned(),
                    0,
                ),
            ];
            let (call, body, published, at_least) = requests.into_iter().nth(number).unwrap();
            let (inner, all) = (world.clone(), counted.clone());
            let slow = Script::of(body.slice(..1)).meanwhile(async move {
                inner.clock.pass(millis);
                lose(&all.users);
            });
            let answer = call.user("alice").stream(slow.data(body.slice(1..))).send().await;
            let what = format!("{} after {millis} ms: {}", answer.request, answer.status);
            assert_eq!(answer.status, status, "{what}");
            assert_eq!(counted.again.load(Ordering::SeqCst), at_least + again, "{what}");
            let there = world.twin().await.get(published).send().await;
            assert_eq!(there.status, if status == 201 { 200 } else { 404 }, "{what}");
            if number == 0 && status != 201 {
                world.delete(session).send().await.expect(204);
            }
        }
    }
}

/// What the guard of the tags asks for is the present permission too.
#[tokio::test]
async fn s17_the_right_to_move_a_tag_is_revoked_while_the_manifest_arrives() {
    for (millis, status) in [(9_999, 201), (10_000, 403)] {
        let users = Arc::new(Users::private());
        let world = World::with(Setup::private(&users)).await;
        let [first, second] = ["one", "two"].map(|text| {
            let mut manifest = index(&[]);
            manifest["annotations"] = json!({ "text": text });
            bytes_of(&manifest)
        });
        let put = || {
            let call = world.put("/v2/a/b/manifests/t").user("alice");
            call.header("content-type", MediaType::OCI_INDEX)
        };
        put().bytes(first.clone()).send().await.expect(201);
        let (inner, all) = (world.clone(), users.clone());
        let slow = Script::of(second.slice(..1)).meanwhile(async move {
            inner.clock.pass(millis);
            all.change("alice", Users::may("a/*", Actions::CREATE));
        });
        put().stream(slow.data(second.slice(1..))).send().await.expect(status);
        let tag = world.twin().await.head("/v2/a/b/manifests/t").send().await.expect(200);
        let expected = if status == 201 { second } else { first };
        assert_eq!(tag.header("docker-content-digest"), sha256(&expected).to_string());
    }
}
