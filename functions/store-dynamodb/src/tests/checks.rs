//! Checks over a corrupted table: items are written and removed without the protocols.

use std::sync::Arc;

use async_trait::async_trait;
use contract::checks::{self, CorruptibleStores, Corruption};
use contract::{ContractTest, Guard};
use oci::{Digest, RepositoryName};
use registry::Stores;
use registry::store::Timestamp;
use registry::store::memory::MemoryBlobs;
use registry::store::records::BackReference;

use crate::DynamoStore;
use crate::keys;
use crate::memory::MemoryTable;
use crate::records::{BackLink, EdgeRow, attributes};
use crate::retrying::{RetryEnvironment, TestRetryEnvironment};
use crate::table::{Attributes, Item, ItemKey, Table as _, Write, WriteCondition, Written};

/// Changes items of the table directly.
struct Hand(MemoryTable);

impl Hand {
    async fn change(&self, write: Write) {
        let written = self.0.write(&write).await;
        assert!(matches!(written, Ok(Written::Done)), "{write:?}: {written:?}");
    }

    async fn set(&self, item: Item, present: bool) {
        let key = item.key.clone();
        self.change(if present {
            Write::Put {
                item,
                condition: WriteCondition::Absent,
            }
        } else {
            Write::Delete {
                key,
                condition: WriteCondition::Exists,
            }
        })
        .await;
    }

    async fn remove(&self, key: ItemKey, attribute: &'static str) {
        self.change(Write::Update {
            key,
            set: Vec::new(),
            remove: vec![attribute],
            condition: WriteCondition::Exists,
        })
        .await;
    }
}

#[async_trait]
impl Corruption for Hand {
    async fn set_back_reference(&self, back_reference: &BackReference, present: bool) {
        let at = Timestamp(0);
        let item = match back_reference {
            BackReference::Edge {
                repository,
                target,
                parent,
                uid,
            } => {
                let (target, parent, uid) = (*target, *parent, *uid);
                EdgeRow {
                    target,
                    parent,
                    uid,
                    at,
                }
                .item(repository)
            }
            BackReference::BackLink {
                digest,
                repository,
                link_kind,
                uid,
            } => BackLink {
                repository: repository.clone(),
                uid: *uid,
                link_kind: *link_kind,
                at,
            }
            .item(digest),
        };
        self.set(item, present).await;
    }

    async fn lose_referrer(&self, repository: &RepositoryName, subject: &Digest, referrer: &Digest) {
        let key = keys::referrer(repository, subject, referrer);
        let attributes = Attributes::new();
        self.set(Item { key, attributes }, false).await;
    }

    async fn corrupt_media_type(&self, repository: &RepositoryName, digest: &Digest) {
        self.remove(keys::manifest(repository, digest), attributes::MEDIA_TYPE)
            .await;
    }
}

fn corruptible(table: &MemoryTable) -> (CorruptibleStores, Guard) {
    let pace: Arc<dyn RetryEnvironment> = Arc::new(TestRetryEnvironment::new(1));
    let store = DynamoStore::over(Arc::new(table.clone()), Arc::new(table.clone()), &pace);
    let store = Arc::new(store);
    let corruptible = CorruptibleStores {
        stores: Stores {
            blobs: Arc::new(MemoryBlobs::new()),
            metadata: store.clone(),
            sessions: store.clone(),
            collection: store.clone(),
            records: store.clone(),
            access: store,
        },
        corruption: Arc::new(Hand(table.clone())),
    };
    (corruptible, Box::new(()))
}

contract::check_contract_tests!(async { corruptible(&MemoryTable::new()) });

contract::__spawn!();

/// The item of a manifest lists its references, beside the edges at their targets.
#[tokio::test]
async fn an_unlisted_reference_is_found() {
    let table = MemoryTable::new();
    let (corruptible, guard) = corruptible(&table);
    let test = ContractTest::new((Arc::new(corruptible), guard), spawn);
    checks::an_unlisted_reference_is_found(test, async |repository, digest| {
        let key = keys::manifest(repository, digest);
        Hand(table).remove(key, attributes::REFERENCES).await;
    })
    .await;
}
