//! Rollbacks by an operator.

use registry::releases::{Earlier, RolledBack};
use registry::store::wrapped::StoreMethod;

use super::{OBJECT_REQUESTS, OPERATOR, author, operator, words};
use crate::support::World;

#[tokio::test]
async fn a_tag_is_rolled_back_to_a_version_or_a_digest() {
    let world = World::new().await;
    let one = world.push_image("a", "latest", "one").await.digest;
    world.clock.pass(1000);
    let two = world.push_image("a", "latest", "two").await.digest;
    let first = world.changes("a:latest").await[1].version;
    let roll_back = async |to| world.roll_back_as(&operator(), "a:latest", to).await;
    for (to, digest, moved) in [
        (Earlier::Version(first), one, true),
        (Earlier::Version(first), one, false),
        (Earlier::Digest(two), two, true),
        (Earlier::Digest(one), one, true),
    ] {
        world.clock.pass(1000);
        let _ = world.counts.take();
        let rolled_back = roll_back(to).await.unwrap();
        assert_eq!(rolled_back, RolledBack { digest, moved });
        assert!(world.counts.of(StoreMethod::PutManifest) <= 1);
        for method in OBJECT_REQUESTS {
            assert_eq!(world.counts.of(method), 0, "{method:?}");
        }
        assert_eq!(world.digest_of("a:latest").await, Some(digest));
    }
    let changes = world.changes("a:latest").await;
    assert_eq!(changes.len(), 5);
    assert_eq!(author(&changes[0]), (OPERATOR, None));
    assert_eq!((changes[0].before, changes[0].after), (Some(two), Some(one)));
}

#[tokio::test]
async fn a_rollback_that_cannot_be_made_says_why() {
    let world = World::new().await;
    let one = world.push_image("a", "latest", "one").await.digest;
    world.clock.pass(1000);
    let two = world.push_image("a", "latest", "two").await.digest;
    let other = world.push_image("a", "other", "three").await.digest;
    world.clock.pass(1000);
    world.delete("/v2/a/manifests/latest").send().await.expect(202);
    let changes = world.changes("a:latest").await;
    let (deleted, first) = (changes[0].version, changes[2].version);
    world.delete(format!("/v2/a/manifests/{one}")).send().await.expect(202);
    for (tag, to, reported) in [
        ("a:never", Earlier::Version(first), "has no tag never"),
        ("a:never", Earlier::Version(u64::MAX), "has no tag never"),
        ("a:never", Earlier::Digest(one), "has no tag never"),
        ("absent:latest", Earlier::Digest(one), "absent has no tag latest"),
        ("a:latest", Earlier::Version(first - 1), "has no version"),
        ("a:latest", Earlier::Version(0), "has no version 0"),
        ("a:latest", Earlier::Version(u64::MAX), "has no version"),
        ("a:latest", Earlier::Version(deleted), "its deletion"),
        ("a:latest", Earlier::Digest(other), "did not name"),
        ("a:latest", Earlier::Version(first), "was deleted from a"),
        ("a:latest", Earlier::Digest(one), "was deleted from a"),
    ] {
        let refused = words(world.roll_back_as(&operator(), tag, to).await);
        assert!(refused.contains(reported), "{tag} {to:?}: {refused}");
    }
    assert_eq!(world.digest_of("a:latest").await, None);
    // A deleted tag comes back.
    let back = world.roll_back_as(&operator(), "a:latest", Earlier::Digest(two)).await;
    assert!(back.unwrap().moved);
    assert_eq!(world.digest_of("a:latest").await, Some(two));
}
