//! Mounts (end-11): what is granted, and that every refusal is a session.

use std::sync::Arc;

use oci::Digest;
use registry::auth::Rules;
use registry::store::wrapped::StoreMethod;
use registry::{Limits, Settings};

use crate::support::{Setup, Users, World, sha256, sha512};

#[tokio::test]
async fn from_a_given_repository_and_from_any() {
    let world = World::new().await;
    let digest = world.push_blob("a", "one").await;
    let objects = world.blobs.objects();
    for (target, query) in [
        ("b", format!("?mount={digest}&from=a")),
        ("c/d", format!("?from=a&mount={digest}")),
        ("e", format!("?mount={digest}")),
        ("f", format!("?mount={digest}&from=")),
        // Again, and from the same repository.
        ("b", format!("?mount={digest}&from=a")),
        ("b", format!("?mount={digest}&from=b")),
        // The digest is that of the mount, whatever other parameters there are.
        ("g", format!("?mount={digest}&from=a&digest={}", sha256(b"two"))),
    ] {
        let answer = world
            .post(format!("/v2/{target}/blobs/uploads/{query}"))
            .send()
            .await
            .expect(201);
        assert_eq!(answer.location(), format!("/v2/{target}/blobs/{digest}"));
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(world.blob(target, &digest).await.unwrap(), "one");
    }
    assert_eq!(world.blobs.objects(), objects, "nothing is copied");
}

/// 202 with a session that works. The response is the same as to a POST without a mount.
#[tokio::test]
async fn refusals_are_sessions() {
    let world = World::new().await;
    let digest = world.push_blob("a", "one").await;
    let image = world.push_image("a", "latest", "app").await;
    let long = "a".repeat(300);
    for query in [
        format!("?mount={digest}&from=unknown"),
        format!("?mount={}&from=a", sha256(b"unknown")),
        format!("?mount={}", sha256(b"unknown")),
        // A manifest is not a blob.
        format!("?mount={}&from=a", image.digest),
        format!("?mount={}", image.digest),
        // The same bytes under a digest that is not linked here.
        format!("?mount={}&from=a", sha512(b"one")),
        // Not a repository name.
        format!("?mount={digest}&from=A"),
        format!("?mount={digest}&from=../a"),
        format!("?mount={digest}&from={long}"),
        format!("?mount={digest}&from=%00"),
    ] {
        let opened = world
            .post(format!("/v2/b/blobs/uploads/{query}"))
            .send()
            .await
            .expect(202);
        assert_eq!(opened.header("range"), "0-0");
        assert!(opened.get("docker-content-digest").is_none());
        let content = format!("pushed after {query}");
        let pushed = sha256(content.as_bytes());
        let location = opened.location();
        let patched = world.patch(location).bytes(content.clone()).send().await.expect(202);
        world
            .put(format!("{}?digest={pushed}", patched.location()))
            .send()
            .await
            .expect(201);
        assert_eq!(world.blob("b", &pushed).await.unwrap(), content);
        assert_eq!(world.blob("b", &digest).await, None, "{query}");
    }
    // podman cancels a session that it does not need.
    let opened = world
        .post(format!("/v2/b/blobs/uploads/?mount={digest}&from=unknown"))
        .send()
        .await
        .expect(202);
    world.delete(opened.location()).send().await.expect(204);
}

/// The session of a refused sha512 mount hashes the pushed bytes with sha512.
#[tokio::test]
async fn the_session_of_a_refusal_uses_the_algorithm_of_the_digest() {
    let world = World::new().await;
    let digest = sha512(b"one");
    let opened = world
        .post(format!("/v2/b/blobs/uploads/?mount={digest}&from=a"))
        .send()
        .await
        .expect(202);
    let patched = world.patch(opened.location()).bytes("one").send().await.expect(202);
    let _ = world.counts.take();
    world
        .put(format!("{}?digest={digest}", patched.location()))
        .send()
        .await
        .expect(201);
    assert_eq!(
        world.counts.of(StoreMethod::Read),
        0,
        "the bytes were hashed as they came"
    );
}

/// The largest blob that the policy allows in a repository also counts for blobs that are mounted there: at the bound and
/// one past it. Who may not pull the source learns nothing about its size.
#[tokio::test]
async fn a_mounted_blob_has_the_size_limit_of_its_new_repository() {
    let policy = r#"{"syntax": 1, "repository": [{"match": ["team/**"], "max-blob": "3B"}]}"#;
    let users = Arc::new(Users::open_under(policy));
    let world = World::with(Setup::private(&users)).await;
    let fits = world.push_blob("a", "one").await;
    let exceeds = world.push_blob("a", "four").await;
    let mount = |digest: Digest, from: &str, user: &str| {
        let call = world.post(format!("/v2/team/app/blobs/uploads/?mount={digest}{from}"));
        if user.is_empty() { call } else { call.user(user) }.send()
    };
    for from in ["&from=a", ""] {
        mount(fits, from, "").await.expect(201);
        let refused = mount(exceeds, from, "").await.expect_error(413, "SIZE_INVALID");
        let message = &refused.json()["errors"][0]["message"];
        assert_eq!(message, "the blob exceeds 3 bytes");
        for digest in [fits, exceeds] {
            mount(digest, from, "robot").await.expect(202);
        }
    }
    mount(exceeds, "&from=unknown", "").await.expect(202);
    assert_eq!(world.blob("team/app", &fits).await.unwrap(), "one");
    assert_eq!(world.blob("team/app", &exceeds).await, None);
    // In other repositories it is mounted.
    let call = world.post(format!("/v2/b/blobs/uploads/?mount={exceeds}&from=a"));
    call.send().await.expect(201);
}

#[tokio::test]
async fn only_from_repositories_that_the_caller_may_pull() {
    let users = Arc::new(Users::private());
    let world = World::with(Setup::private(&users)).await;
    let digest = sha256(b"secret");
    let push = world.post(format!("/v2/private/x/blobs/uploads/?digest={digest}"));
    push.user("alice").bytes("secret").send().await.expect(201);
    for query in [format!("?mount={digest}&from=private/x"), format!("?mount={digest}")] {
        let call = world.post(format!("/v2/team/app/blobs/uploads/{query}")).user("robot");
        call.send().await.expect(202);
        let head = world.head(format!("/v2/team/app/blobs/{digest}")).user("alice");
        head.send().await.expect(404);
    }
    // The same mount by a user that may pull the source.
    let call = world
        .post(format!("/v2/team/app/blobs/uploads/?mount={digest}"))
        .user("alice");
    call.send().await.expect(201);
    // A user without the permission to push cannot mount.
    users.change("robot", Rules::pull_only());
    let call = world
        .post(format!("/v2/team/app/blobs/uploads/?mount={digest}&from=private/x"))
        .user("robot");
    call.send().await.expect_error(403, "DENIED");
}

/// A mount without a source considers a bounded number of repositories.
#[tokio::test]
async fn a_mount_from_anywhere_is_bounded() {
    let limits = Limits {
        mount_candidates: 3,
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        ..Settings::default()
    };
    let users = Arc::new(Users::private());
    let world = World::with(Setup {
        settings,
        ..Setup::private(&users)
    })
    .await;
    let digest = sha256(b"one");
    for number in 0..10 {
        let push = world.post(format!("/v2/r{number}/blobs/uploads/?digest={digest}"));
        push.user("alice").bytes("one").send().await.expect(201);
    }
    let _ = world.counts.take();
    let call = world
        .post(format!("/v2/team/app/blobs/uploads/?mount={digest}"))
        .user("robot");
    call.send().await.expect(202);
    assert_eq!(world.counts.reads(), 1);
    let call = world
        .post(format!("/v2/team/app/blobs/uploads/?mount={digest}"))
        .user("alice");
    call.send().await.expect(201);
}
