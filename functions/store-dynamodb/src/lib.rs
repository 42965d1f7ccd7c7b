//! Metadata, upload sessions and collection in DynamoDB.
//!
//! The *main table* holds the metadata of a registry: tags, manifests, links, blob records and the catalog; and
//! accounts, the policy and the audit trail. The *local table* holds what belongs to one region: upload sessions, the
//! deletion queue, the keys that sign tokens, counters of wrong passwords, the days on which keys were used, and the
//! position of the collection pass. Both may be the same table. Instances share only these tables, and no instance
//! holds a lock. Every change is a protocol of single conditional writes and of transactions. No transaction contains
//! an item that an unrelated request also changes. One rule makes the protocols safe:
//!
//! *Write the back-reference, then read its target. Mark the target, then look for back-references. Delete the target
//! only if the mark is still yours.* The first sentence is for the creator of a reference or link, the others are for a
//! remover. (A [back-reference](registry::store::records::BackReference) is an edge or a back-link.) All reads are
//! strongly consistent, so at least one of the two sees the other. A crash at any point leaves unused back-references,
//! marks or objects. Collection removes them.
//!
//! Accounts and the policy are different: all changes of administration are conditional on one item, `A / state`, so that
//! they are made one after the other. Pushes never write it.
//!
//! Read in this order: `table` (the requests to a table), `retrying` (how they are sent), `keys` and `records` (what a
//! table contains), `deletion_queue` (objects that wait for their deletion), `metadata` (the protocols), `sessions`,
//! `collect`, `export`, `access` (accounts, the policy and the audit trail). `layout` names the version of the tables, `aws` and `schema` speak to DynamoDB, and `open`
//! builds a store from options.
//!
//! # Costs
//!
//! The tests of `metadata` count and assert these numbers. A unit is what DynamoDB bills.
//!
//! | operation | writes | reads |
//! |---|---|---|
//! | blob by POST and PUT | 6 | 1 |
//! | blob by POST, PATCH and PUT | 8 | 2: the PUT, which has no body, reads its session first |
//! | each further PATCH that gives its range | 2 | 1 |
//! | the same without a range | 3: the table first refuses the creation of the session | 1 |
//! | manifest of 3 KB, 11 references, 1 new tag | 29 units, 2 of them for the check that the tag has no tombstone | 14 units |
//! | access state, account, policy in force, or counter of wrong passwords | – | 1 each |
//! | access state and an account, in one request | – | 2 |
//! | change of an account | 3 items in one transaction: state, account, audit event | 0; 2 for the first change of a process |
//! | change of the policy | 4 items in one transaction | the same |
//! | page of the audit trail | – | 16 queries for a day, and 1 read for the first page |
//!
//! # Permissions
//!
//! A registry that serves and collects needs these actions, on its one or two tables only:
//!
//! | action | for |
//! |---|---|
//! | `dynamodb:GetItem`, `dynamodb:BatchGetItem`, `dynamodb:Query` | every operation |
//! | `dynamodb:PutItem`, `dynamodb:UpdateItem`, `dynamodb:DeleteItem`, `dynamodb:BatchWriteItem` | every change; `TransactWriteItems` needs those of the items that it changes |
//! | `dynamodb:ConditionCheckItem` | transactions that check an item which they do not change |
//! | `dynamodb:Scan` | collection, export and checks; a registry that only serves does not need it, and another process collects for it |
//!
//! [`DynamoStore::init`] also needs `dynamodb:DescribeTable`, `dynamodb:CreateTable`, `dynamodb:DescribeTimeToLive` and
//! `dynamodb:UpdateTimeToLive`. This crate never needs a permission to delete a table or to alter its schema.

mod access;
mod aws;
mod collect;
mod deletion_queue;
mod export;
mod keys;
mod layout;
#[cfg(test)]
mod memory;
mod metadata;
mod open;
mod records;
mod retrying;
#[cfg(test)]
mod scheduler;
mod schema;
mod sessions;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use layout::{OpenError, VERSION as LAYOUT_VERSION, WITH_ACCOUNTS as ACCESS_LAYOUT_VERSION};
pub use open::TableOptions;
pub use retrying::TableStatistics;
pub use schema::Prepared;

use access::KnownRows;
use metadata::KnownRepositories;
use registry::clock::ServiceClock;
use registry::store::{Context, StoreError};
use retrying::{RetryEnvironment, TableClient};
use table::Table;

/// The metadata, upload sessions, deletion queue and signing keys of a registry in one or two DynamoDB tables. Clones
/// are the same store.
///
/// Implements [`MetadataStore`](registry::store::metadata::MetadataStore),
/// [`SessionStore`](registry::store::sessions::SessionStore),
/// [`CollectionStore`](registry::store::collection::CollectionStore),
/// [`RecordStore`](registry::store::records::RecordStore) and
/// [`AccessStore`](registry::store::access::AccessStore). All state that instances share is in the tables; a store
/// keeps only caches and counters in memory.
#[derive(Clone)]
pub struct DynamoStore {
    /// The main table: everything that another region may replicate.
    main: TableClient,
    /// The local table: sessions, the deletion queue, signing keys and the collection pass of this region.
    local: TableClient,
    /// Cache for pushes: repositories whose catalog row existed a short time ago.
    known: Arc<KnownRepositories>,
    /// The same cache for walks over the table. Walks have their own, because a walk meets all repositories and would
    /// evict those that are in use.
    known_to_walks: Arc<KnownRepositories>,
    /// What the main table is known to have, for changes of accounts and the policy.
    access_rows: Arc<KnownRows>,
    /// The offset of this host's clock, measured from the answers of both tables.
    clock: Arc<ServiceClock>,
    table_names: [String; 2],
}

impl DynamoStore {
    /// A store over two tables, which may be the same one.
    pub(crate) fn over(main: Arc<dyn Table>, local: Arc<dyn Table>, environment: &Arc<dyn RetryEnvironment>) -> Self {
        Self {
            main: TableClient::new(main, environment.clone()),
            local: TableClient::new(local, environment.clone()),
            known: Arc::new(KnownRepositories::for_pushes()),
            known_to_walks: Arc::new(KnownRepositories::for_walks()),
            access_rows: Arc::default(),
            clock: Arc::default(),
            table_names: [String::new(), String::new()],
        }
    }

    /// Makes the store refuse writes while `clock` is off. The answers of the tables set `clock`.
    pub(crate) fn with_clock(mut self, clock: Arc<ServiceClock>) -> Self {
        self.main.clock = clock.clone();
        self.local.clock = clock.clone();
        self.clock = clock;
        self
    }

    /// Sets the names of the main and the local table, for messages.
    pub(crate) fn with_table_names(mut self, table_names: [String; 2]) -> Self {
        self.table_names = table_names;
        self
    }

    /// The state of this host's clock, measured from the answers of the tables. While the clock is off, the store
    /// refuses writes.
    #[must_use]
    pub fn clock(&self) -> &Arc<ServiceClock> {
        &self.clock
    }

    /// The random identity of the main table. It differs from the identity of every other table: also of a table with
    /// the same name in another region or account, and of a table that is created under this name after this one was
    /// deleted. The first call for a table writes the identity into the row of the layout version.
    ///
    /// # Errors
    /// When the table does not answer, or when it has no identity yet and refuses the write.
    pub async fn identity(&self, cx: Context) -> Result<String, StoreError> {
        schema::identity(self.main.within(cx), cx.uid).await
    }

    /// The requests to both tables since the store was opened.
    #[must_use]
    pub fn statistics(&self) -> TableStatistics {
        self.main.statistics() + self.local.statistics()
    }
}

impl std::fmt::Debug for DynamoStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamoStore").finish_non_exhaustive()
    }
}
