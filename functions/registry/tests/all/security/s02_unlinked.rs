//! S2: a blob that was unlinked, or that a user may no longer read, is gone at once, on every instance, although it was
//! read a moment ago and another repository has the same bytes.

use std::sync::Arc;

use oci::Digest;
use registry::auth::Actions;
use registry::store::memory::MemoryBlobs;
use registry::{Authenticator, Settings};
use serde_json::json;

use crate::support::content::{EMPTY, artifact, bytes_of};
use crate::support::{Setup, Users, World, sha256};

/// Users that may read every repository.
const READERS: [&str; 2] = ["alice", "reader"];

/// Repositories `a` and `b` with the same content, and two instances of a private registry over them.
struct Twice {
    instances: [World; 2],
    users: Arc<Users>,
    image: Digest,
    signature: Digest,
    /// Layer, configuration, and configuration of the signature.
    blobs: [Digest; 3],
    manifest: bytes::Bytes,
    /// The status of a GET of a blob.
    delivered: u16,
}

/// A request, the status with which it succeeds, and whether a digest may answer a condition of it.
struct Read {
    method: &'static str,
    target: String,
    success: u16,
    digest: Digest,
}

impl Twice {
    async fn new(blobs: MemoryBlobs, delivered: u16) -> Self {
        let users = Arc::new(Users::private());
        let open = World::with(Setup {
            blobs,
            ..Setup::default()
        })
        .await;
        let mut pushed = None;
        for repository in ["a", "b"] {
            let image = open.push_image(repository, "latest", "shared").await;
            open.push_blob(repository, EMPTY).await;
            let signature = bytes_of(&artifact("application/x.signature", &image.manifest));
            let digest = sha256(&signature);
            open.put_manifest(repository, "signature", signature).await.expect(201);
            pushed = Some((image, digest));
        }
        let (image, signature) = pushed.unwrap();
        let instance = || open.another(users.clone() as Arc<dyn Authenticator>, Settings::default());
        Self {
            instances: [instance().await, instance().await],
            image: image.digest,
            signature,
            blobs: [image.layer, image.config, sha256(EMPTY)],
            manifest: image.manifest,
            users,
            delivered,
        }
    }

    /// Every way to read the content of a repository.
    fn reads(&self, repository: &str) -> Vec<Read> {
        let blobs = self.blobs.iter().map(|digest| ("blobs", digest.to_string(), *digest));
        let manifests = [
            ("manifests", self.image.to_string(), self.image),
            ("manifests", "latest".to_owned(), self.image),
            ("manifests", self.signature.to_string(), self.signature),
            ("manifests", "signature".to_owned(), self.signature),
        ];
        let mut reads = Vec::new();
        for (kind, reference, digest) in blobs.chain(manifests) {
            for method in ["GET", "HEAD"] {
                reads.push(Read {
                    method,
                    target: format!("/v2/{repository}/{kind}/{reference}"),
                    success: if kind == "blobs" && method == "GET" {
                        self.delivered
                    } else {
                        200
                    },
                    digest,
                });
            }
        }
        reads
    }

    /// Every read of a repository by a user has this status; `None`: the status with which it succeeds.
    async fn all_answer(&self, repository: &str, user: Option<&str>, status: Option<u16>) {
        for (number, world) in self.instances.iter().enumerate() {
            for read in self.reads(repository) {
                let ask = || {
                    let call = world.call(read.method.parse().unwrap(), read.target.clone());
                    match user {
                        Some(user) => call.user(user),
                        None => call,
                    }
                };
                let expected = status.unwrap_or(read.success);
                let answer = ask().send().await;
                assert_eq!(
                    answer.status, expected,
                    "instance {number}, {user:?}: {}",
                    answer.request
                );
                if let Some(status) = status {
                    // Conditions and ranges do not change the result.
                    for (name, value) in [
                        ("if-none-match", format!("\"{}\"", read.digest)),
                        ("if-none-match", "*".to_owned()),
                        ("range", "bytes=0-0".to_owned()),
                    ] {
                        let answer = ask().header(name, &value).send().await;
                        assert_eq!(answer.status, status, "{user:?}, {name} {value}: {}", answer.request);
                    }
                }
            }
        }
    }

    /// The lists of a repository, by each instance: tags, and referrers of the image.
    async fn lists_are(&self, repository: &str, tags: &[&str], referrers: usize) {
        for world in &self.instances {
            for user in READERS {
                let list = world.get(format!("/v2/{repository}/tags/list")).user(user).send().await;
                assert_eq!(list.expect(200).json()["tags"], json!(tags));
                let list = world.get(format!("/v2/{repository}/referrers/{}", self.image));
                let list = list.user(user).send().await.expect(200).json();
                assert_eq!(list["manifests"].as_array().unwrap().len(), referrers, "{list}");
            }
        }
    }

    /// Deletes everything in `a`, through one of the instances.
    async fn empty_a(&self, instance: usize) {
        let manifests = [self.signature, self.image].map(|digest| format!("/v2/a/manifests/{digest}"));
        let blobs = self.blobs.map(|digest| format!("/v2/a/blobs/{digest}"));
        for target in manifests.into_iter().chain(blobs) {
            let call = self.instances[instance].delete(target).user("alice");
            call.send().await.expect(202);
        }
    }
}

/// Through the registry, and by redirects.
fn deliveries() -> [(MemoryBlobs, u16); 2] {
    [
        (MemoryBlobs::redirecting("https://objects.example/bucket"), 307),
        (MemoryBlobs::new(), 200),
    ]
}

#[tokio::test]
async fn s02_unlinked_in_one_repository_while_another_holds_it() {
    for instance in [0, 1] {
        for (blobs, delivered) in deliveries() {
            let twice = Twice::new(blobs, delivered).await;
            // All users read everything that they may, on all instances, twice, so that every cache has it.
            for _ in 0..2 {
                for repository in ["a", "b"] {
                    for user in READERS {
                        twice.all_answer(repository, Some(user), None).await;
                    }
                    twice.lists_are(repository, &["latest", "signature"], 1).await;
                }
            }
            twice.empty_a(instance).await;
            for user in READERS {
                twice.all_answer("a", Some(user), Some(404)).await;
                twice.all_answer("b", Some(user), None).await;
                // Also right after a read in the other repository.
                twice.all_answer("a", Some(user), Some(404)).await;
            }
            twice.lists_are("a", &[], 0).await;
            twice.lists_are("b", &["latest", "signature"], 1).await;
            // A manifest cannot refer to it either.
            for world in &twice.instances {
                let put = world.put("/v2/a/manifests/again").user("alice");
                let put = put.header("content-type", oci::MediaType::OCI_MANIFEST);
                let answer = put.bytes(twice.manifest.clone()).send().await;
                answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
            }
            twice.all_answer("a", Some("alice"), Some(404)).await;
        }
    }
}

/// Users without permission learn nothing from the reads of others, and nothing from deletions.
#[tokio::test]
async fn s02_strangers_get_nothing_before_and_after() {
    for (blobs, delivered) in deliveries() {
        let twice = Twice::new(blobs, delivered).await;
        for emptied in [false, true] {
            if emptied {
                twice.empty_a(0).await;
            }
            for repository in ["a", "b"] {
                let status = (emptied && repository == "a").then_some(404);
                twice.all_answer(repository, Some("alice"), status).await;
                twice.all_answer(repository, None, Some(401)).await;
                // This user may push elsewhere, and pull nothing.
                twice.all_answer(repository, Some("robot"), Some(403)).await;
                twice.all_answer(repository, Some("mallory"), Some(401)).await;
            }
        }
    }
}

/// The same if the bytes stay, and the permission to read them is revoked.
#[tokio::test]
async fn s02_revoked_while_everything_stays() {
    for (blobs, delivered) in deliveries() {
        let twice = Twice::new(blobs, delivered).await;
        twice.all_answer("a", Some("reader"), None).await;
        twice.users.change("reader", Users::may("b", Actions::PUSH));
        twice.all_answer("a", Some("reader"), Some(403)).await;
        // The permission to push does not include the permission to pull.
        twice.all_answer("b", Some("reader"), Some(403)).await;
        twice.users.remove("reader");
        for repository in ["a", "b"] {
            twice.all_answer(repository, Some("reader"), Some(401)).await;
            twice.all_answer(repository, Some("alice"), None).await;
        }
    }
}
