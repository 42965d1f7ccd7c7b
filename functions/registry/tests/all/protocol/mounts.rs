//! Mounts (end-11): what is granted, and that every refusal is a session.

use std::sync::Arc;

use http::Request;
use oci::Digest;
use registry::auth::{
    AccessRule, Actions, AuthenticationError, Challenge, ChallengeSchemes, RepositoryGrant, Rules, Scope,
};
use registry::store::wrapped::StoreMethod;
use registry::{Identity, Limits, Principal, RequestBody, Settings};

use super::authentication::{BEARER, with_public_url};
use crate::support::users::Deciding;
use crate::support::{Answer, Setup, Users, World, sha256, sha512};

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
        let refused = mount(exceeds, from, "").await.expect_error(413, "DENIED");
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

/// The scope of a token with these actions in these repositories.
fn scope(grants: &[(&str, Actions)]) -> Scope {
    let grants = grants.iter().map(|(name, actions)| RepositoryGrant {
        repositories: name.parse().unwrap(),
        actions: *actions,
    });
    Scope::new(grants.collect()).unwrap()
}

/// Asks for a mount to `b` as a client whose token has this scope, and which may do by the policy what the rules allow.
async fn mount(world: &World, settings: Settings, rules: &Rules, scope: &Scope, query: &str) -> Answer {
    let alice = Identity::new(Principal::user("alice").unwrap(), rules.clone()).with_token_scope(scope.clone());
    let world = world
        .another(Arc::new(Deciding(move || Ok(alice.clone()))), settings)
        .await;
    // Not by the client of the tests: it accepts the challenge of `Users` only.
    let target = format!("/v2/b/blobs/uploads/?mount={query}");
    let request = Request::post(&target).header("host", "registry.example");
    let _ = world.counts.take();
    let response = world.registry.handle(request.body(RequestBody::empty()).unwrap()).await;
    Answer::read(target, response).await
}

/// A token has to contain the source of a mount. The client is asked for such a token only if it will get one; else it gets a
/// session, because some clients abort the push otherwise. A repository that does not exist makes no other difference than
/// that nothing is mounted from it, and before a 401 no store is asked.
#[tokio::test]
async fn s01_a_mount_by_token_needs_its_source_in_the_token() {
    let world = World::new().await;
    let digest = world.push_blob("a", "one").await;
    let target = scope(&[("b", Actions::PUSH)]);
    let both = scope(&[("b", Actions::PUSH), ("a", Actions::PULL), ("absent", Actions::PULL)]);
    let sources = scope(&[("a", Actions::PULL), ("absent", Actions::PULL)]);
    let all = Rules::everything();
    let only_target = Users::may("b", Actions::ALL);
    for (what, rules, scope, status_of_a, status_of_absent) in [
        ("only the token lacks it", &all, target.clone().extensible(), 401, 401),
        ("no token can have it", &all, target.clone(), 202, 202),
        (
            "another token of the key has it",
            &all,
            target.clone().within_key(both.clone()),
            401,
            401,
        ),
        (
            "the key has no right to it",
            &all,
            target.clone().within_key(target.clone()),
            202,
            202,
        ),
        ("a key without a right to it", &all, target.clone().of_key(), 202, 202),
        (
            "the policy forbids it",
            &only_target,
            target.clone().extensible(),
            202,
            202,
        ),
        (
            "the policy forbids it now",
            &only_target,
            both.clone().extensible(),
            202,
            202,
        ),
        ("the token has both", &all, both.clone().extensible(), 201, 202),
        ("no token", &all, Scope::EVERYTHING, 201, 202),
        ("the token lacks the target", &all, sources.extensible(), 401, 401),
        ("no push", &Rules::pull_only(), both.extensible(), 403, 403),
    ] {
        for (source, status) in [("a", status_of_a), ("absent", status_of_absent)] {
            let query = format!("{digest}&from={source}");
            let answer = mount(&world, with_public_url(), rules, &scope, &query).await;
            assert_eq!(answer.status, status, "{what}: from {source}");
            let challenge = format!(
                r#"{BEARER},scope="repository:b:pull,push repository:{source}:pull",error="insufficient_scope""#
            );
            let challenge = (status == 401).then_some(challenge.as_str());
            assert_eq!(answer.get("www-authenticate"), challenge, "{what}: from {source}");
            if matches!(status, 401 | 403) {
                assert!(world.counts.all().is_empty(), "{what}: {:?}", world.counts.all());
            } else {
                // The source is asked for the blob if another status is possible, and only then.
                let asks = u64::from(status_of_absent != status_of_a);
                assert_eq!(world.counts.of(StoreMethod::Mount), asks, "{what}: from {source}");
            }
        }
    }
}

/// Without a source, no token can be asked for: a search finds only what the token contains already.
#[tokio::test]
async fn s01_a_mount_from_anywhere_finds_only_what_the_token_contains() {
    let world = World::new().await;
    let digest = world.push_blob("a", "one").await;
    for (grants, status) in [
        (&[("b", Actions::PUSH)][..], 202),
        (&[("b", Actions::PUSH), ("a", Actions::CREATE)], 202),
        (&[("b", Actions::PUSH), ("a", Actions::PULL)], 201),
    ] {
        let scope = scope(grants).extensible();
        for query in [digest.to_string(), format!("{digest}&from=")] {
            let answer = mount(&world, with_public_url(), &Rules::everything(), &scope, &query).await;
            assert_eq!(answer.status, status, "{query} {grants:?}");
        }
    }
}

/// Of several repositories that have the blob, the client may pull from one, by its token or by the policy: whichever it is,
/// the blob is mounted from it, and the others are not asked.
#[tokio::test]
async fn s01_a_mount_from_anywhere_passes_over_what_is_forbidden() {
    let sources = ["a", "m/n", "z"];
    for allowed in sources {
        let rule = |repository: &str, actions| AccessRule {
            name: repository.into(),
            repositories: vec![repository.parse().unwrap()],
            actions,
        };
        let both = vec![rule("b", Actions::PUSH), rule(allowed, Actions::PULL)];
        let by_token = scope(&[("b", Actions::PUSH), (allowed, Actions::PULL)]);
        for (rules, scope) in [
            (Rules::everything(), by_token.extensible()),
            (Rules::new(both, Vec::new()), Scope::EVERYTHING),
        ] {
            let world = World::new().await;
            for source in sources {
                world.push_blob(source, "one").await;
            }
            let query = sha256(b"one").to_string();
            let answer = mount(&world, with_public_url(), &rules, &scope, &query).await;
            assert_eq!(answer.status, 201, "only {allowed} is allowed: {scope:?}");
            assert_eq!(world.counts.of(StoreMethod::Mount), 1);
        }
    }
}

/// Where challenges do not lead to a token, a client could not get another one.
#[tokio::test]
async fn a_mount_asks_for_no_token_with_a_basic_challenge() {
    let world = World::new().await;
    let digest = world.push_blob("a", "one").await;
    let scope = scope(&[("b", Actions::PUSH)]).extensible();
    let url = "https://registry.example".parse().unwrap();
    for (challenge, status) in [
        (Challenge::new(ChallengeSchemes::Auto, Some(url)), 401),
        // The URL of the registry is not known.
        (Challenge::new(ChallengeSchemes::Auto, None), 202),
        (Challenge::new(ChallengeSchemes::Basic, None), 202),
    ] {
        let settings = Settings {
            challenge,
            ..Settings::default()
        };
        let query = format!("{digest}&from=a");
        let answer = mount(&world, settings, &Rules::everything(), &scope, &query).await;
        assert_eq!(answer.status, status);
    }
}

/// A client that has no token yet gets one for both repositories.
#[tokio::test]
async fn the_challenge_of_a_mount_names_both_repositories() {
    let world = World::with(Setup {
        authenticator: Arc::new(Deciding(|| Err(AuthenticationError::Unauthenticated))),
        settings: with_public_url(),
        ..Setup::default()
    })
    .await;
    let digest = sha256(b"one");
    for (query, scope) in [
        (
            format!("mount={digest}&from=a/x"),
            "repository:b:pull,push repository:a/x:pull",
        ),
        (format!("mount={digest}"), "repository:b:pull,push"),
        (format!("mount={digest}&from=b"), "repository:b:pull,push"),
        (format!("mount={digest}&from=A"), "repository:b:pull,push"),
    ] {
        let request = Request::post(format!("/v2/b/blobs/uploads/?{query}")).header("host", "registry.example");
        let response = world.registry.handle(request.body(RequestBody::empty()).unwrap()).await;
        let answer = Answer::read(query, response).await.expect_error(401, "UNAUTHORIZED");
        let expected = format!(r#"{BEARER},scope="{scope}""#);
        assert_eq!(
            answer.get("www-authenticate"),
            Some(expected.as_str()),
            "{}",
            answer.request
        );
    }
}
