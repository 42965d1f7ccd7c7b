//! S3: immutable tags. Every request that changes a tag or deletes a manifest, in each of its forms, by a user who may
//! do everything.

use std::sync::Arc;

use bytes::Bytes;
use oci::{Digest, MediaType};
use registry::auth::{ImmutableRule, SharedRules};
use serde_json::{Value, json};

use crate::support::content::{bytes_of, index, padded};
use crate::support::{Answer, Setup, Users, World, sha256};

const GRACE_MS: u64 = 600_000;

/// `releases` freezes versions after a grace. `final` freezes what begins with `final-` at once, and `drafts` what begins
/// with `draft-` after a grace, but these may be deleted.
fn rules() -> Arc<SharedRules> {
    let rule = |name: &str, tags: &str, grace_ms, delete| ImmutableRule {
        name: name.into(),
        repositories: vec!["a/**".parse().unwrap()],
        tags: vec![tags.parse().unwrap()],
        except: vec!["*-snapshot".parse().unwrap()],
        grace_ms,
        delete,
    };
    let rules = vec![
        rule("releases", "semver", GRACE_MS, false),
        rule("final", "final-*", 0, true),
        rule("drafts", "draft-*", GRACE_MS, true),
    ];
    Arc::new(SharedRules::new(rules, Vec::new()))
}

async fn world() -> World {
    let users = Arc::new(Users::private());
    users.share(rules());
    World::with(Setup {
        authenticator: users,
        ..Setup::default()
    })
    .await
}

fn numbered(number: usize) -> Bytes {
    let mut value = index(&[]);
    value["annotations"] = json!({ "number": number.to_string() });
    bytes_of(&value)
}

async fn put(world: &World, repository: &str, reference: impl Into<String>, manifest: &Bytes) -> Answer {
    let call = world.put(format!("/v2/{repository}/manifests/{}", reference.into()));
    let call = call.user("alice").header("content-type", MediaType::OCI_INDEX);
    call.bytes(manifest.clone()).send().await
}

async fn delete(world: &World, repository: &str, reference: impl Into<String>) -> Answer {
    let call = world.delete(format!("/v2/{repository}/manifests/{}", reference.into()));
    call.user("alice").send().await
}

async fn digest_of(world: &World, reference: &str) -> Option<String> {
    let call = world.head(format!("/v2/a/b/manifests/{reference}")).user("alice");
    let answer = call.send().await;
    answer.get("docker-content-digest").map(str::to_owned)
}

fn assert_refused(answer: Answer, tag: &str, rule: &str, digest: &Digest) {
    let answer = answer.expect_error(403, "DENIED");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let detail = json!({ "tag": tag, "rule": rule, "digest": digest });
    assert_eq!(body["errors"][0]["detail"], detail);
    let message = body["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("immutable") && message.contains("would be accepted"),
        "{message}"
    );
}

#[tokio::test]
async fn s03_a_frozen_tag_is_not_changed_by_any_request() {
    let world = world().await;
    let (old, digest) = (numbered(0), sha256(&numbered(0)));
    let frozen = [("1.0.0", "releases"), ("v2.3.4-rc.1", "releases"), ("final-x", "final")];
    let free = ["latest", "1.0", "1.0.0-snapshot"];
    for tag in frozen.iter().map(|(tag, _)| *tag).chain(free) {
        put(&world, "a/b", tag, &old).await.expect(201);
        put(&world, "other", tag, &old).await.expect(201);
    }
    // Within the grace.
    world.clock.pass(GRACE_MS - 1);
    put(&world, "a/b", "1.0.0", &numbered(1)).await.expect(201);
    put(&world, "a/b", "1.0.0", &old).await.expect(201);
    world.clock.pass(GRACE_MS);
    let large = padded(&index(&[]), 50_000);
    for (tag, rule) in frozen {
        for new in [&numbered(2), &large] {
            let other = sha256(new);
            for reference in [
                tag.to_owned(),
                format!("{other}?tag={tag}"),
                format!("{other}?tag=new&tag={tag}"),
                format!("new?tag={tag}"),
                format!("{tag}?tag=new"),
            ] {
                assert_refused(put(&world, "a/b", reference, new).await, tag, rule, &digest);
            }
            assert_eq!(digest_of(&world, "new").await, None);
            assert_eq!(digest_of(&world, &other.to_string()).await, None, "it is not stored");
        }
        for reference in [tag.to_owned(), format!("{digest}?tag={tag}"), digest.to_string()] {
            put(&world, "a/b", reference, &old).await.expect(201);
        }
        assert_eq!(digest_of(&world, tag).await, Some(digest.to_string()));
        // In a repository that no rule names, the same tag moves.
        put(&world, "other", tag, &numbered(2)).await.expect(201);
        delete(&world, "other", tag).await.expect(202);
    }
    // The first frozen tag of the manifest that may not be deleted.
    assert_refused(
        delete(&world, "a/b", digest.to_string()).await,
        "1.0.0",
        "releases",
        &digest,
    );
    for (tag, rule) in &frozen[..2] {
        assert_refused(delete(&world, "a/b", *tag).await, tag, rule, &digest);
    }
    for tag in free {
        put(&world, "a/b", tag, &numbered(3)).await.expect(201);
        delete(&world, "a/b", tag).await.expect(202);
    }
}

/// A rule that allows deletions: the tag comes back only with its digest, whether it or its manifest was deleted.
#[tokio::test]
async fn s03_a_deleted_frozen_tag_comes_back_with_its_digest() {
    let world = world().await;
    let (old, new) = (numbered(0), numbered(1));
    let digest = sha256(&old);
    for reference in ["final-x".to_owned(), digest.to_string()] {
        put(&world, "a/b", "final-x", &old).await.expect(201);
        delete(&world, "a/b", reference).await.expect(202);
        world.clock.pass(GRACE_MS);
        let answer = put(&world, "a/b", "final-x", &new).await;
        assert_refused(answer, "final-x", "final", &digest);
        assert_eq!(digest_of(&world, "final-x").await, None);
    }
    put(&world, "a/b", "final-x", &old).await.expect(201);
}

/// A deletion does not begin the grace again, whether the tag or its manifest was deleted, and however often.
#[tokio::test]
async fn s03_a_frozen_tag_that_comes_back_has_no_new_grace() {
    let world = world().await;
    let (old, new) = (numbered(0), numbered(1));
    let digest = sha256(&old);
    put(&world, "a/b", "draft-x", &old).await.expect(201);
    // Within the grace.
    delete(&world, "a/b", "draft-x").await.expect(202);
    put(&world, "a/b", "draft-x", &new).await.expect(201);
    put(&world, "a/b", "draft-x", &old).await.expect(201);
    world.clock.pass(GRACE_MS);
    for reference in ["draft-x".to_owned(), digest.to_string(), "draft-x".to_owned()] {
        delete(&world, "a/b", reference).await.expect(202);
        let refused = put(&world, "a/b", "draft-x", &new).await;
        assert_refused(refused, "draft-x", "drafts", &digest);
        put(&world, "a/b", "draft-x", &old).await.expect(201);
        for reference in ["draft-x".to_owned(), format!("{}?tag=draft-x", sha256(&new))] {
            let refused = put(&world, "a/b", reference, &new).await;
            assert_refused(refused, "draft-x", "drafts", &digest);
        }
        assert_eq!(digest_of(&world, "draft-x").await, Some(digest.to_string()));
        world.clock.pass(1);
    }
}
