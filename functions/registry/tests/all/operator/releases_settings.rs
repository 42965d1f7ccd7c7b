//! Promotions to repositories for which the policy has settings: the largest blob, and layers that are stored elsewhere.

use bytes::Bytes;
use contract::source::noise;
use oci::MediaType;
use registry::Identity;
use registry::policy::Policy;
use registry::releases::{Promoted, ReleaseError};
use registry::store::wrapped::StoreMethod;
use serde_json::{Value, json};

use super::releases::operator_under;
use crate::support::content::{EMPTY, artifact, bytes_of, descriptor, image, index};
use crate::support::{World, sha256};

const POLICY: &str = r#"{"syntax": 1, "repository": [
    {"match": ["small/**"], "max-blob": "1500B"},
    {"match": ["own/**"], "foreign-layers": false}
]}"#;

/// The operator under the policy.
fn under_policy() -> Identity {
    operator_under(Policy::from_json(POLICY).unwrap().shared())
}

impl World {
    async fn promote_under_policy(&self, from: &str, to: &str) -> Result<Promoted, ReleaseError> {
        self.promote_as(&under_policy(), from, to, true).await
    }

    /// Pushes an image, or an artifact with a subject, with one layer.
    async fn push_with_layer(&self, reference: &str, mut manifest: Value, layer: Value, content: &[u8]) -> Bytes {
        for blob in [EMPTY, content] {
            self.push_blob("a", Bytes::copy_from_slice(blob)).await;
        }
        manifest["layers"] = json!([layer]);
        let manifest = bytes_of(&manifest);
        match reference {
            "" => self.put_by_digest("a", &manifest).await,
            tag => self.push_manifest("a", tag, &manifest).await,
        };
        manifest
    }

    /// Whether nothing of the target has a tag.
    async fn is_untagged(&self, repository: &str) -> bool {
        let list = self.get(format!("/v2/{repository}/tags/list")).send().await;
        list.status == 404 || list.json()["tags"] == json!([])
    }
}

#[tokio::test]
async fn a_promotion_links_no_blob_that_is_too_large_for_its_target() {
    let (fits, larger) = (noise(1, 1500), noise(2, 1501));
    let world = World::new().await;
    for (tag, layer) in [("fits", &fits), ("larger", &larger)] {
        let descriptor = descriptor(MediaType::OCI_LAYER, layer);
        let platform = world.push_with_layer("", image(EMPTY, &[]), descriptor, layer).await;
        world.push_manifest("a", tag, &bytes_of(&index(&[&platform]))).await;
    }
    assert!(world.promote_under_policy("a:fits", "small/app:1").await.unwrap().moved);
    world.pull_all("small/app", "1").await;
    let refused = world.promote_under_policy("a:larger", "small/other:1").await;
    let Err(ReleaseError::BlobTooLarge {
        repository,
        digest,
        limit,
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (repository.as_str(), digest, limit),
        ("small/other", sha256(&larger), 1500)
    );
    assert!(world.is_untagged("small/other").await);
    assert_eq!(world.blob("small/other", &digest).await, None);
    // The bound is the target's alone, and is not asked for where there is none.
    let _ = world.counts.take();
    assert!(world.promote_under_policy("a:larger", "b:1").await.unwrap().moved);
    assert_eq!(world.counts.of(StoreMethod::Link), 0);
    // What the target has from before the bound stays, and can be promoted again.
    world.promote("a:larger", "small/other:1").await.unwrap();
    let again = world.promote_under_policy("a:larger", "small/other:2").await;
    assert!(again.unwrap().moved);
}

/// What refers to the image counts as much as the image.
#[tokio::test]
async fn a_referrer_that_is_too_large_is_not_promoted() {
    for (length, is_allowed) in [(1500, true), (1501, false)] {
        let world = World::new().await;
        let subject = world.push_layers("a", &[], Some("1")).await;
        let layer = noise(1, length);
        let described = descriptor(MediaType::OCI_LAYER, &layer);
        world
            .push_with_layer("", artifact("a/signature", &subject), described, &layer)
            .await;
        let outcome = world.promote_under_policy("a:1", "small/app:1").await;
        if is_allowed {
            assert_eq!(outcome.unwrap().referrers, 1);
            continue;
        }
        assert!(matches!(outcome, Err(ReleaseError::BlobTooLarge { .. })), "{outcome:?}");
        assert_eq!(world.digest_of("small/app:1").await, None);
        let without = world.promote_as(&under_policy(), "a:1", "small/app:1", false).await;
        assert!(without.unwrap().moved);
    }
}

#[tokio::test]
async fn s13_foreign_layers_are_not_promoted_where_the_policy_forbids_them() {
    let layer: &[u8] = b"layer";
    let own = descriptor(MediaType::OCI_LAYER, layer);
    let mut elsewhere = own.clone();
    elsewhere["urls"] = json!(["https://elsewhere.example/layer"]);
    let other_type = descriptor(MediaType::DOCKER_FOREIGN_GZIP, layer);
    for (layer_of_image, is_foreign) in [(own, false), (elsewhere, true), (other_type, true)] {
        let world = World::new().await;
        let platform = world
            .push_with_layer("", image(EMPTY, &[]), layer_of_image.clone(), layer)
            .await;
        world.push_manifest("a", "index", &bytes_of(&index(&[&platform]))).await;
        let subject = world.push_layers("a", &[], Some("signed")).await;
        world
            .push_with_layer("", artifact("a/signature", &subject), layer_of_image, layer)
            .await;
        let by_digest = format!("a@{}", sha256(&platform));
        for (number, from) in [by_digest.as_str(), "a:index", "a:signed"].into_iter().enumerate() {
            let to = format!("own/app-{number}:1");
            let outcome = world.promote_under_policy(from, &to).await;
            if !is_foreign {
                assert!(outcome.unwrap().moved, "{from}");
                continue;
            }
            let Err(ReleaseError::ForeignLayer { repository, digest }) = &outcome else {
                panic!("{from}: {outcome:?}");
            };
            assert_eq!(
                (repository.as_str(), *digest),
                (&*format!("own/app-{number}"), sha256(layer))
            );
            assert!(world.is_untagged(repository.as_str()).await, "{from}");
            // Elsewhere they are promoted.
            assert!(world.promote_under_policy(from, &format!("b-{number}:1")).await.is_ok());
        }
    }
}
