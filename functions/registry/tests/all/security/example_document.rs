//! The document with every kind of entry: what the table of its answers says, as requests.

use std::sync::Arc;

use oci::MediaType;
use registry::auth::Subject;
use registry::policy::Policy;
use registry::{Identity, Settings};
use serde_json::json;

use crate::support::content::{bytes_of, index};
use crate::support::users::Deciding;
use crate::support::{Answer, World, sha256};

const DOCUMENT: &str = include_str!("../../../src/policy/tests/example.json");
const MINUTE: u64 = 60_000;

/// A registry over the stores of `open`, in which the document decides about one principal.
async fn registry_for(open: &World, principal: &str, groups: &[&str]) -> World {
    let subject = Subject {
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        ..Subject::new(principal.parse().unwrap())
    };
    let rules = Policy::from_json(DOCUMENT).unwrap().rules(&subject);
    let identity = Identity::new(subject.principal, rules);
    open.another(Arc::new(Deciding(move || Ok(identity.clone()))), Settings::default())
        .await
}

/// Puts an index, another one for each number, under a tag: `repository:tag`.
async fn put(world: &World, target: &str, number: usize) -> Answer {
    let (repository, tag) = target.split_once(':').unwrap();
    let mut manifest = index(&[]);
    manifest["annotations"] = json!({ "number": number.to_string() });
    let call = world.put(format!("/v2/{repository}/manifests/{tag}"));
    let call = call.header("content-type", MediaType::OCI_INDEX);
    call.bytes(bytes_of(&manifest)).send().await
}

fn detail(answer: &Answer) -> serde_json::Value {
    answer.json()["errors"][0]["detail"].clone()
}

#[tokio::test]
async fn s04_the_pipeline_of_the_example_publishes_each_version_once() {
    let open = World::new().await;
    let pipeline = registry_for(&open, "workload:acme-main:acme/app", &[]).await;
    let upload = format!("/v2/acme/app/blobs/uploads/?digest={}", sha256(b"layer"));
    pipeline.post(upload).bytes("layer").send().await.expect(201);
    for (target, number, status) in [
        ("acme/app:1.4.0", 1, 201),
        ("acme/app:1.4.0", 1, 201),
        ("acme/app:1.4.0", 2, 403),
        ("acme/app:1.4.0", 1, 201),
        ("acme/app:1.4.1", 2, 201),
        ("acme/other:1.4.0", 1, 403),
    ] {
        let answer = put(&pipeline, target, number).await.expect(status);
        if status == 403 && target == "acme/app:1.4.0" {
            assert_eq!(detail(&answer)["tag"], "1.4.0");
        }
    }
    let delete = pipeline.delete("/v2/acme/app/manifests/1.4.0").send().await;
    delete.expect_error(403, "DENIED");
    let pull = pipeline.get("/v2/acme/app/manifests/1.4.0").send().await;
    let pull = pull.expect(200);
    assert_eq!(pull.json()["annotations"]["number"], "1");
}

#[tokio::test]
async fn s03_a_release_of_the_example_can_be_moved_for_ten_minutes() {
    let open = World::new().await;
    let member = registry_for(&open, "pat", &["payments"]).await;
    let admin = registry_for(&open, "root", &["admins"]).await;
    let signature = format!("payments/api:sha256-{}.sig", "0".repeat(64));
    let (release, snapshot) = ("payments/api:1.4.0", "payments/api:1.4.0-snapshot");
    for target in [release, snapshot, &signature] {
        put(&member, target, 1).await.expect(201);
    }
    open.clock.pass(5 * MINUTE);
    put(&member, release, 2).await.expect(201);
    open.clock.pass(11 * MINUTE);
    for world in [&member, &admin] {
        let refused = put(world, release, 3).await.expect_error(403, "DENIED");
        assert_eq!(detail(&refused)["rule"], "releases");
        put(world, release, 2).await.expect(201);
    }
    for target in [snapshot, &signature] {
        put(&member, target, 2).await.expect(201);
    }
}

#[tokio::test]
async fn s03_the_repositories_of_the_example_are_for_those_of_its_rules() {
    let open = World::new().await;
    for target in ["public/a/b:t", "public:t", "prod/payments-api:t"] {
        put(&open, target, 1).await.expect(201);
    }
    let anonymous = registry_for(&open, ":anonymous", &[]).await;
    for (repository, status) in [("public/a/b", 200), ("public", 401)] {
        let pull = anonymous.get(format!("/v2/{repository}/manifests/t"));
        pull.send().await.expect(status);
    }
    let alice = registry_for(&open, "alice", &[]).await;
    put(&alice, "home/alice/x:t", 1).await.expect(201);
    put(&alice, "home/bob/x:t", 1).await.expect_error(403, "DENIED");
    let zoe = registry_for(&open, "zoe", &[]).await;
    put(&zoe, "prod/payments-api:other", 1).await.expect(201);
    let deleted = zoe.delete("/v2/prod/payments-api/manifests/other").send().await;
    let deleted = deleted.expect_error(403, "DENIED");
    assert_eq!(detail(&deleted)["rule"], "production is never deleted");
    // A push makes no repository there.
    put(&zoe, "prod/payments-new:t", 1)
        .await
        .expect_error(404, "NAME_UNKNOWN");
}
