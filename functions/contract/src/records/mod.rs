//! What a [`RecordStore`] must do: answer all records in slices of any size ([`walks`]), and insert them into another
//! store or the same one ([`moves`]).
//!
//! [`RecordStore`]: registry::store::records::RecordStore

pub mod moves;
pub mod walks;

use std::collections::BTreeSet;

use registry::store::access::Occasion;
use registry::store::metadata::Removal;
use registry::store::records::Record;

use super::collection::CollectionTest;
use super::every_record::{MAX_SLICES, line, walk};
use super::metadata::{digest, location, manifest, repository, tag};
use super::{ContractTest, MetadataStores};
use crate::metadata::DescribeManifest as _;

pub use moves::*;
pub use walks::*;

/// Two independent stores, both empty.
pub struct Pair {
    /// The store that the records come from.
    pub from: MetadataStores,
    /// The store that they are inserted into.
    pub to: MetadataStores,
}

/// The test of a clause about records.
pub type RecordTest = ContractTest<Pair>;

impl RecordTest {
    pub(super) fn from(&self) -> CollectionTest {
        self.of(self.store.from.clone().into())
    }

    pub(super) fn to(&self) -> CollectionTest {
        self.of(self.store.to.clone().into())
    }
}

impl CollectionTest {
    pub(super) async fn export(&self) -> Vec<Record> {
        walk(&self.of(self.store.records.clone()), 1000).await
    }

    pub(super) async fn import(&self, records: &[Record]) {
        self.store.records.insert(self.cx(), records).await.expect("insert");
    }
}

/// Fills a store with records of every kind, in two repositories: shared and mounted blobs, inline and large manifests,
/// existing and missing subjects, excepted references, moved, promoted and deleted tags, and an empty repository.
async fn fill(test: &CollectionTest) {
    let metadata = test.metadata();
    let (one, two, three) = (repository("one"), repository("two/deep"), repository("three"));
    let (shared, other) = (digest("shared"), digest("other"));
    metadata.commit(&one, &shared).await;
    metadata.commit(&one, &other).await;
    assert!(metadata.mount(&two, &shared, &one).await);
    for number in 0..3_usize {
        test.advance(7);
        let mut image = manifest(&one, format!("image {number}\0\u{ff}"))
            .requiring([shared, other])
            .excepting([digest("foreign")])
            .tagged([tag("latest"), tag(&format!("v{number}"))]);
        if number == 1 {
            image = image.stored_at(location(number));
        }
        image.artifact_type = (number == 2).then(|| super::metadata::media_type("application/vnd.example.thing"));
        metadata.put(&image).await;
        let signature = manifest(&one, format!("signature {number}")).about(image.digest);
        metadata.put(&signature).await;
        if number == 0 {
            metadata.put(&manifest(&one, "index").requiring([image.digest])).await;
        }
    }
    metadata
        .put(
            &manifest(&two, "image 1\0\u{ff}")
                .requiring([shared])
                .stored_at(location(5)),
        )
        .await;
    let mut orphan = manifest(&two, "orphan")
        .about(digest("a subject that is not there"))
        .tagged([tag("x")]);
    orphan.author.occasion = Occasion::Promotion {
        from: "one@sha256:\"\t".to_owned(),
    };
    metadata.put(&orphan).await;
    test.advance(7);
    assert!(metadata.delete_tag(&one, &tag("v0")).await);
    let gone = manifest(&three, "gone").tagged([tag("gone")]);
    metadata.put(&gone).await;
    assert_eq!(metadata.delete_manifest(&three, &gone.digest).await, Removal::Removed);
}

/// Records as they are compared: their lines, each once.
fn lines(records: &[Record]) -> BTreeSet<String> {
    records.iter().map(line).collect()
}
