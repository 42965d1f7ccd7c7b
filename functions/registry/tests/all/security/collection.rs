//! Garbage collection during pushes and deletions: S26, S27.

use std::ops::ControlFlow;

use contract::TestStores;
use oci::Digest;
use registry::collection::{CollectionOptions, Report, collect};
use registry::store::memory::MemoryBlobs;
use serde_json::json;

use crate::support::content::{EMPTY, bytes_of, image, padded};
use crate::support::{World, sha256, sha512};

const HOUR: u64 = 3_600_000;

/// Longer than every grace period.
const GRACE: u64 = 26 * HOUR;

/// The time that a push may take from its last HEAD of a blob to its manifest.
const ALMOST: u64 = 23 * HOUR;

impl World {
    async fn collect_with_defaults(&self) -> Report {
        let mut on = |_: &Report| ControlFlow::Continue(());
        let collected = collect(&self.stores, self.clock.clone(), &CollectionOptions::default(), &mut on).await;
        collected.unwrap()
    }

    /// Several collections, each after so much time that all grace periods have passed.
    async fn collect_all(&self) {
        for _ in 0..5 {
            self.clock.pass(GRACE);
            self.collect_with_defaults().await;
        }
    }

    async fn push_as(&self, repository: &str, digest: Digest, bytes: &'static [u8]) {
        let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        self.post(target).bytes(bytes).send().await.expect(201);
    }
}

/// The same bytes under a sha256 and a sha512 digest. Whatever happens to one of them by deletion and collection, the
/// other stays complete while something refers to it, as a blob and as a manifest, small and large.
#[tokio::test]
async fn s26_aliases_are_collected_apart() {
    let bytes: &[u8] = b"the same bytes";
    for keep_long in [false, true] {
        let (short, long) = (sha256(bytes), sha512(bytes));
        let (kept, gone) = if keep_long { (long, short) } else { (short, long) };
        let world = World::new().await;
        world.push_as("a", short, bytes).await;
        world.push_as("a", long, bytes).await;
        world.push_blob("a", EMPTY).await;
        let mut parent = image(EMPTY, &[]);
        parent["layers"] = json!([{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": kept, "size": bytes.len(),
        }]);
        world.put_manifest("a", "parent", bytes_of(&parent)).await.expect(201);
        let refused = world.delete(format!("/v2/a/blobs/{kept}")).send().await;
        refused.expect_error(405, "DENIED");
        world.delete(format!("/v2/a/blobs/{gone}")).send().await.expect(202);
        world.collect_all().await;
        assert_eq!(world.blob("a", &gone).await, None);
        assert_eq!(world.blob("a", &kept).await.unwrap(), bytes);

        for length in [1000, 50_000] {
            let manifest = padded(&image(EMPTY, &[]), length);
            let (short, long) = (sha256(&manifest), sha512(&manifest));
            for digest in [short, long] {
                world.put_manifest("a", digest, manifest.clone()).await.expect(201);
            }
            let (kept, gone) = if keep_long { (long, short) } else { (short, long) };
            world.delete(format!("/v2/a/manifests/{gone}")).send().await.expect(202);
            world.collect_all().await;
            world.get(format!("/v2/a/manifests/{gone}")).send().await.expect(404);
            let answer = world.get(format!("/v2/a/manifests/{kept}")).send().await.expect(200);
            assert_eq!(answer.body, manifest);
        }
    }
}

/// A client has got a HEAD of a blob, or has pushed or mounted it. It takes almost as long as is allowed until it
/// pushes the manifest, with collections meanwhile. Its manifest is accepted, and stays complete.
#[tokio::test]
async fn s27_a_slow_push_loses_nothing() {
    for way in ["found", "pushed", "pushed again", "mounted"] {
        let world = World::new().await;
        world.push_blob("a", EMPTY).await;
        let source = world.push_image("source", "source", "layer").await;
        if way != "pushed" && way != "mounted" {
            world.push_blob("a", "layer of layer").await;
            // Old, marked, and due for deletion by the next pass.
            world.clock.pass(GRACE);
            assert_eq!(world.collect_with_defaults().await.metadata.marked, 2);
            world.clock.pass(GRACE);
        }
        world
            .head(format!("/v2/a/blobs/{}", sha256(EMPTY)))
            .send()
            .await
            .expect(200);
        match way {
            "found" => drop(
                world
                    .head(format!("/v2/a/blobs/{}", source.layer))
                    .send()
                    .await
                    .expect(200),
            ),
            "mounted" => {
                let target = format!("/v2/a/blobs/uploads/?mount={}&from=source", source.layer);
                world.post(target).send().await.expect(201);
            }
            _ => drop(world.push_blob("a", "layer of layer").await),
        }
        for _ in 0..4 {
            assert_eq!(world.collect_with_defaults().await.metadata.unlinked, 0, "{way}");
            world.clock.pass(ALMOST / 4);
        }
        world.collect_with_defaults().await;
        let manifest = bytes_of(&image(EMPTY, &[b"layer of layer"]));
        world.put_manifest("a", "late", manifest).await.expect(201);
        world
            .delete(format!("/v2/source/manifests/{}", source.digest))
            .send()
            .await
            .expect(202);
        world.collect_all().await;
        for blob in [EMPTY, b"layer of layer"] {
            assert_eq!(world.blob("a", &sha256(blob)).await.unwrap(), blob, "{way}");
        }
    }
}

/// A reader that has begun keeps its bytes: the object is pending deletion for longer than any redirect to it is valid.
#[tokio::test]
async fn s27_objects_outlive_their_last_reference() {
    let world = World::with(crate::support::Setup {
        blobs: MemoryBlobs::redirecting("https://objects.example"),
        ..crate::support::Setup::default()
    })
    .await;
    let digest = world.push_blob("a", "bytes").await;
    let redirect = world.get(format!("/v2/a/blobs/{digest}")).send().await.expect(307);
    assert!(redirect.header("location").starts_with("https://objects.example/"));
    world.delete(format!("/v2/a/blobs/{digest}")).send().await.expect(202);
    assert_eq!(world.collect_with_defaults().await.metadata.scheduled, 1);
    let longest = CollectionOptions::default().plan.grace_periods.deletion_ms;
    assert!(longest > 24 * HOUR, "longer than any redirect and any upload's token");
    world.clock.pass(longest);
    assert_eq!(world.collect_with_defaults().await.objects_deleted, 0);
    assert_eq!(world.blobs.sealed(), 1);
    world.clock.pass(1);
    assert_eq!(world.collect_with_defaults().await.objects_deleted, 1);
    assert_eq!(world.blobs.objects(), 0);
}

/// Concurrent pushes, mounts, deletions and collections at full speed, checked by a model.
mod s27 {
    use super::*;

    contract::churn_tests!(async { TestStores::in_memory() });
}
