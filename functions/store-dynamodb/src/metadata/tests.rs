//! The protocols over a table in memory: the contract, the costs, and large manifests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
pub(crate) mod costs;
mod large;
pub(crate) mod metered;
mod missing_objects;
mod new_table;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use oci::{Algorithm, Digest, MediaType, RepositoryName, Tag};
use registry::store::access::Author;
use registry::store::metadata::{AllowAll, ManifestPut, MetadataStore, NewContent, PutManifest, Removal};
use registry::store::{Context, Location, Timestamp, Uid};

use crate::DynamoStore;
use crate::memory::MemoryTable;
use crate::retrying::{RetryEnvironment, TestRetryEnvironment};
use crate::table::Table;

/// A store over one table.
pub(crate) fn store_over(table: impl Table + Clone) -> DynamoStore {
    store_with_seed(table, 1)
}

/// Two stores with one table have other random numbers, as two processes have.
pub(crate) fn store_with_seed(table: impl Table + Clone, seed: u64) -> DynamoStore {
    let environment: Arc<dyn RetryEnvironment> = Arc::new(TestRetryEnvironment::new(seed));
    DynamoStore::over(Arc::new(table.clone()), Arc::new(table), &environment)
}

pub(crate) const NOW: Timestamp = Timestamp(1_900_000_000_000);

/// The context of one call.
pub(crate) fn cx() -> Context {
    static CALLS: AtomicU64 = AtomicU64::new(1);
    Context::internal(
        NOW,
        30_000,
        Uid(CALLS.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    )
}

fn repository() -> RepositoryName {
    "team/app".parse().unwrap()
}

fn digest(text: impl AsRef<[u8]>) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_ref())
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

/// A different object for each number.
fn location(number: usize) -> Location {
    Location::main(format!("{number:032x}.1"))
}

fn manifest(bytes: impl Into<Vec<u8>>) -> PutManifest {
    let bytes = Bytes::from(bytes.into());
    PutManifest {
        repository: repository(),
        digest: digest(&bytes),
        media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
        size: bytes.len() as u64,
        content: NewContent::Inline(bytes),
        artifact_type: None,
        subject: None,
        required: BTreeSet::new(),
        excepted: BTreeSet::new(),
        tags: Vec::new(),
        author: Author::new("user"),
    }
}

async fn commit(store: &DynamoStore, numbers: impl IntoIterator<Item = usize>) -> BTreeSet<Digest> {
    let mut digests = BTreeSet::new();
    for number in numbers {
        let digest = digest(format!("blob {number}"));
        let answer = store
            .commit_blob(cx(), &repository(), &digest, &location(number), 1000)
            .await;
        answer.unwrap();
        digests.insert(digest);
    }
    digests
}

async fn put(store: &DynamoStore, put: &PutManifest) {
    let outcome = store.put_manifest(cx(), put, &AllowAll::shared()).await.unwrap();
    let stored = matches!(
        outcome,
        ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_)
    );
    assert!(stored, "{outcome:?}");
}

async fn delete(store: &DynamoStore, digest: &Digest) -> Removal {
    store
        .delete_manifest(cx(), &repository(), digest, &Author::new("user"), &AllowAll::shared())
        .await
        .unwrap()
}
