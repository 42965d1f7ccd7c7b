//! S4: a principal that may only create tags moves and deletes none.

use std::sync::Arc;

use bytes::Bytes;
use oci::{Digest, MediaType};
use registry::auth::Actions;
use serde_json::{Value, json};

use crate::support::content::{bytes_of, index, padded};
use crate::support::{Answer, Setup, Users, World, sha256};

/// The user that may pull and create, and the one that may create only.
const CREATOR: &str = "creator";
const BLIND: &str = "blind";

fn numbered(number: usize) -> Bytes {
    let mut value = index(&[]);
    value["annotations"] = json!({ "number": number.to_string() });
    bytes_of(&value)
}

async fn put(world: &World, user: &str, reference: impl Into<String>, manifest: &Bytes) -> Answer {
    let call = world.put(format!("/v2/a/b/manifests/{}", reference.into()));
    let call = call.user(user).header("content-type", MediaType::OCI_INDEX);
    call.bytes(manifest.clone()).send().await
}

async fn digest_of(world: &World, tag: &str) -> Option<String> {
    let call = world.head(format!("/v2/a/b/manifests/{tag}")).user("alice");
    let answer = call.send().await;
    answer.get("docker-content-digest").map(str::to_owned)
}

fn assert_refused(answer: Answer, tag: &str, digest: Option<&Digest>) {
    let answer = answer.expect_error(403, "DENIED");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let mut detail = json!({ "tag": tag });
    if let Some(digest) = digest {
        detail["digest"] = json!(digest);
    }
    assert_eq!(body["errors"][0]["detail"], detail);
    let message = body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("digest"), "{message}");
}

/// Every existing tag is refused, in every form of the request and with small and large manifests; the same digest
/// again and new tags are accepted.
#[tokio::test]
async fn s04_a_creator_moves_no_tag() {
    let users = Arc::new(Users::private());
    users.change(CREATOR, Users::may("a/*", Actions::CREATE.union(Actions::PULL)));
    users.change(BLIND, Users::may("a/*", Actions::CREATE));
    let world = World::with(Setup {
        authenticator: users,
        ..Setup::default()
    })
    .await;
    let first = numbered(0);
    let digest = sha256(&first);
    let existing = ["latest", "v1.0.0", "sha256-0.sig"];
    for tag in existing {
        put(&world, CREATOR, tag, &first).await.expect(201);
    }
    let large = padded(&index(&[]), 50_000);
    for (user, shown) in [(CREATOR, Some(&digest)), (BLIND, None)] {
        for (number, tag) in existing.iter().enumerate() {
            for manifest in [numbered(number + 1), large.clone()] {
                let other = sha256(&manifest);
                for reference in [
                    (*tag).to_owned(),
                    format!("{other}?tag={tag}"),
                    format!("{other}?tag=new&tag={tag}"),
                    format!("{other}?tag={tag}&tag=new"),
                    format!("new?tag={tag}"),
                    format!("{tag}?tag=new"),
                ] {
                    assert_refused(put(&world, user, reference, &manifest).await, tag, shown);
                }
                assert_eq!(digest_of(&world, tag).await, Some(digest.to_string()));
                assert_eq!(digest_of(&world, "new").await, None);
                assert_eq!(digest_of(&world, &other.to_string()).await, None, "it is not stored");
            }
            for reference in [
                (*tag).to_owned(),
                format!("{digest}?tag={tag}"),
                format!("{digest}?tag=a{user}"),
            ] {
                put(&world, user, reference, &first).await.expect(201);
            }
            for reference in [*tag, &digest.to_string()] {
                let call = world.delete(format!("/v2/a/b/manifests/{reference}")).user(user);
                call.send().await.expect_error(403, "DENIED");
            }
        }
        // The manifest that was refused under an existing tag is accepted under a new one, and then by its digest.
        for reference in [format!("new-{user}"), sha256(&large).to_string()] {
            put(&world, user, reference, &large).await.expect(201);
        }
        // Also when it is stored already, it takes over no tag.
        assert_refused(put(&world, user, "latest", &large).await, "latest", shown);
        for tag in [format!("new-{user}"), sha256(&large).to_string()] {
            let call = world.delete(format!("/v2/a/b/manifests/{tag}")).user("alice");
            call.send().await.expect(202);
        }
    }
    // Who may move a tag moves it.
    put(&world, "alice", "latest", &large).await.expect(201);
    assert_eq!(digest_of(&world, "latest").await, Some(sha256(&large).to_string()));
}
