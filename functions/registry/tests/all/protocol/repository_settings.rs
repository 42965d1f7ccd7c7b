//! Settings that the policy has for some repositories: repositories that only an administrator creates, and the largest
//! blob. (`uploads` and `mounts` have the bound by every way to push a blob, and `security` has layers that are stored
//! elsewhere.)

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use contract::source::noise;
use http::Method;
use oci::{Digest, MediaType};
use registry::auth::Rules;
use registry::policy::Policy;
use registry::store::access::Author;
use registry::store::metadata::MetadataStore;
use registry::store::wrapped::StoreMethod;
use registry::store::{Context, Timestamp, Uid};

use crate::support::content::{bytes_of, index, padded};
use crate::support::{Script, Setup, Users, World, sha256};

const CX: Context = Context::internal(Timestamp(1_900_000_000_000), 60_000, Uid(4711));

const LISTED: &str = r#"{"syntax": 1, "repository": [{"match": ["prod/**"], "create": "listed"}]}"#;
const SMALL: &str = r#"{"syntax": 1, "repository": [{"match": ["team/**"], "max-blob": "1500B"}]}"#;

/// Each kind of push to a repository: method, target below the repository, body, and the status with which it succeeds.
fn pushes(blob: &Digest) -> Vec<(Method, String, Vec<u8>, u16)> {
    let (small, large) = (bytes_of(&index(&[])), padded(&index(&[]), 50_000));
    let post = |query: String, body: &[u8], status| {
        let target = format!("blobs/uploads/{query}");
        (Method::POST, target, body.to_vec(), status)
    };
    let put = |target: String, body: &[u8]| (Method::PUT, format!("manifests/{target}"), body.to_vec(), 201);
    vec![
        post(String::new(), b"", 202),
        post("?digest-algorithm=sha512".to_owned(), b"", 202),
        post(format!("?digest={}", sha256(b"new")), b"new", 201),
        post(format!("?digest={}", sha256(b"new")), b"", 202),
        post(format!("?mount={blob}&from=other"), b"", 201),
        post(format!("?mount={blob}"), b"", 201),
        post(format!("?mount={}&from=other", sha256(b"unknown")), b"", 202),
        put("t".to_owned(), &small),
        put("large".to_owned(), &large),
        put(format!("{}?tag=u", sha256(&small)), &small),
    ]
}

/// Absence is not remembered: the instance that has refused a push accepts it as soon as the repository exists.
#[tokio::test]
async fn a_listed_repository_takes_pushes_once_it_is_created() {
    let users = Arc::new(Users::new(Some(Rules::everything())));
    let world = World::with(Setup::private(&users)).await;
    let blob = world.push_blob("other", "{}").await;
    // It exists already when the setting comes in force.
    world
        .put_manifest("prod/old", "t", bytes_of(&index(&[])))
        .await
        .expect(201);
    users.share(Policy::from_json(LISTED).unwrap().shared());
    let name = "prod/app".parse().unwrap();
    for is_created in [false, true] {
        if is_created {
            assert!(
                world
                    .metadata
                    .create_repository(CX, &name, &Author::operator())
                    .await
                    .unwrap()
            );
        }
        for repository in ["prod/app", "prod/old", "other"] {
            for (method, target, body, status) in pushes(&blob) {
                let before = world.metadata.counts();
                let script = Script::of(body.clone());
                let given = script.given();
                let call = world.call(method.clone(), format!("/v2/{repository}/{target}"));
                let call = call.header("content-length", body.len().to_string());
                let call = if method == Method::PUT {
                    call.header("content-type", MediaType::OCI_INDEX)
                } else {
                    call
                };
                let call = if body.is_empty() { call } else { call.stream(script) };
                let answer = call.send().await;
                if is_created || repository != "prod/app" {
                    answer.expect(status);
                    continue;
                }
                let answer = answer.expect_error(404, "NAME_UNKNOWN");
                let error = &answer.json()["errors"][0];
                let message = error["message"].as_str().unwrap();
                assert!(message.contains("roadstead repo create prod/app"), "{message}");
                assert_eq!(error["detail"]["repository"], "prod/app");
                assert_eq!(given.load(Ordering::SeqCst), 0, "{target}: the body is not read");
                assert_eq!(world.metadata.counts(), before, "{target}");
            }
        }
    }
}

/// A repository that was only pushed to leaves the catalog when it is empty. Then an instance that has taken pushes to it
/// refuses them, and does not list it again.
#[tokio::test]
async fn a_listed_repository_that_was_only_pushed_to_ends_when_it_is_empty() {
    let users = Arc::new(Users::new(Some(Rules::everything())));
    let world = World::with(Setup::private(&users)).await;
    let manifest = bytes_of(&index(&[]));
    let push = async || world.put_manifest("prod/old", "t", manifest.clone()).await;
    push().await.expect(201);
    users.share(Policy::from_json(LISTED).unwrap().shared());
    for _ in 0..2 {
        let _ = world.counts.take();
        push().await.expect(201);
        assert_eq!(world.counts.take().get(&StoreMethod::Repository), Some(&1));
    }
    let deletion = world.delete(format!("/v2/prod/old/manifests/{}", sha256(&manifest)));
    deletion.send().await.expect(202);
    for _ in 0..4 {
        world.clock.pass(26 * 3_600_000);
        world.collect().await;
    }
    push().await.expect_error(404, "NAME_UNKNOWN");
    let upload = world.post("/v2/prod/old/blobs/uploads/").send().await;
    upload.expect_error(404, "NAME_UNKNOWN");
    let name = "prod/old".parse().unwrap();
    assert_eq!(world.metadata.repository(CX, &name).await.unwrap(), None);
}

/// Who may not push is refused as everywhere, and learns nothing about what exists.
#[tokio::test]
async fn whether_a_listed_repository_exists_is_for_those_who_may_push() {
    let users = Arc::new(Users::private());
    users.share(Policy::from_json(LISTED).unwrap().shared());
    let world = World::with(Setup::private(&users)).await;
    let name = "prod/app".parse().unwrap();
    assert!(
        world
            .metadata
            .create_repository(CX, &name, &Author::operator())
            .await
            .unwrap()
    );
    for repository in ["prod/app", "prod/unknown"] {
        let _ = world.counts.take();
        let call = world.post(format!("/v2/{repository}/blobs/uploads/")).user("reader");
        call.send().await.expect_error(403, "DENIED");
        assert!(world.counts.all().is_empty(), "{repository}");
    }
}

/// A body that is too large by its head is not read. Another one is read until it is too large.
#[tokio::test]
async fn a_blob_that_is_too_large_is_refused_early() {
    let world = World::with(Setup::private(&Arc::new(Users::open_under(SMALL)))).await;
    let content = noise(1, 5000);
    let digest = sha256(&content);
    for is_declared in [true, false] {
        for way in ["POST", "PATCH", "PUT"] {
            let location = world.open_upload("team/app").await;
            let call = match way {
                "POST" => world.post(format!("/v2/team/app/blobs/uploads/?digest={digest}")),
                "PATCH" => world.patch(location),
                _ => world.put(format!("{location}?digest={digest}")),
            };
            let script = Script::in_chunks(&content, 100);
            let given = script.given();
            let call = if is_declared {
                call.header("content-length", "5000")
            } else {
                call
            };
            call.stream(script).send().await.expect_error(413, "DENIED");
            let expected = if is_declared { 0 } else { 1600 };
            assert_eq!(given.load(Ordering::SeqCst), expected, "{way}");
        }
    }
}

/// Chunks may come without credentials, or with some that are not good. The settings of the repository count all the same.
#[tokio::test]
async fn chunks_that_are_too_large_are_not_published() {
    let content = noise(1, 1501);
    let (whole, first) = (sha256(&content), sha256(&content[..1000]));
    for users in [Users::private(), Users::open_to_pull()] {
        users.share(Policy::from_json(SMALL).unwrap().shared());
        let world = World::with(Setup::private(&Arc::new(users))).await;
        // None, and a wrong password of `alice`.
        for credentials in [None, Some("Basic YWxpY2U6d3Jvbmc=")] {
            let post = world.post("/v2/team/app/blobs/uploads/").user("alice");
            let location = post.send().await.expect(202).location();
            let patch = |range: Range<usize>| {
                let call = world.patch(&location).bytes(content.slice(range));
                match credentials {
                    Some(text) => call.header("authorization", text),
                    None => call,
                }
            };
            patch(0..1000).send().await.expect(202);
            patch(1000..1501).send().await.expect_error(413, "DENIED");
            let finish = world.put(format!("{location}?digest={first}")).user("alice");
            finish.send().await.expect(201);
            let blob = world.head(format!("/v2/team/app/blobs/{whole}")).user("alice");
            blob.send().await.expect(404);
        }
    }
}

/// An upload that had more bytes than its repository now takes is not finished.
#[tokio::test]
async fn a_bound_that_comes_later_counts() {
    let users = Arc::new(Users::new(Some(Rules::everything())));
    let world = World::with(Setup::private(&users)).await;
    let content = noise(1, 1501);
    let location = world.open_upload("team/app").await;
    world.patch(&location).bytes(content.clone()).send().await.expect(202);
    users.share(Policy::from_json(SMALL).unwrap().shared());
    let digest = sha256(&content);
    let finish = || world.put(format!("{location}?digest={digest}")).send();
    finish().await.expect_error(413, "DENIED");
    assert_eq!(world.blob("team/app", &digest).await, None);
    users.share(Policy::from_json(LISTED).unwrap().shared());
    finish().await.expect(201);
}
