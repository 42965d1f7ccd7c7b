//! Names, upload sessions and collection in DynamoDB.
//!
//! One table holds everything that a registry knows; a second one, which may be the same, holds what belongs to one
//! region: sessions, the graveyard and the keys that sign tokens. Instances share nothing else, and none of them
//! holds a lock: every change is a protocol of single conditional writes and of transactions on items that no
//! unrelated request touches, made safe by one rule.
//!
//! *Write your claim, then look. DeletionMark your victim, then look. Delete only if your mark is still yours.* Whoever
//! creates a reference writes it before it looks at its target; whoever removes a target marks it before it looks for
//! references. All reads are strongly consistent, so that at least one of the two sees the other. A crash at any point
//! leaves claims, marks or objects that belong to nothing: garbage, and collected as such.
//!
//! Read in this order: `table` (what is asked of a table), `retrying` (how it is asked), `keys` and
//! `records` (what lies in it), `metadata` (the protocols), `sessions`, `collect`, `export`; `aws` and
//! `schema` are the way to the real thing, `open` brings all together.
//!
//! # Costs
//!
//! Counted and asserted by the tests of `metadata`; a unit is what DynamoDB bills.
//!
//! | operation | writes | reads |
//! |---|---|---|
//! | blob by POST and PUT | 6 | 1 |
//! | blob by POST, PATCH and PUT | 8 | 2: the PUT, which has no body, looks for its session |
//! | each further PATCH that gives its range | 2 | 1 |
//! | the same without a range | 3: a creation is refused first | 1 |
//! | manifest of 3 KB, 11 references, 1 new tag | 29 units, 2 of them for the check that no tombstone of the tag came meanwhile | 14 units |
//!
//! # Permissions
//!
//! A registry that serves and collects asks for these actions, on its one or two tables and on nothing else:
//!
//! | action | for |
//! |---|---|
//! | `dynamodb:GetItem`, `dynamodb:BatchGetItem`, `dynamodb:RangeQuery` | every operation |
//! | `dynamodb:PutItem`, `dynamodb:UpdateItem`, `dynamodb:DeleteItem`, `dynamodb:BatchWriteItem` | every change; `TransactWriteItems` needs those of the items that it changes |
//! | `dynamodb:ConditionCheckItem` | transactions that rely on an item which they do not change |
//! | `dynamodb:Scan` | collection, export and checks; a registry that only serves can do without, and is then collected by another process |
//!
//! [`DynamoStore::init`] also asks for `dynamodb:DescribeTable`, `dynamodb:CreateTable`, `dynamodb:DescribeTimeToLive`
//! and `dynamodb:UpdateTimeToLive`. No permission to delete or to alter a table is ever used.

mod aws;
mod collect;
mod export;
mod keys;
#[cfg(test)]
mod memory;
mod metadata;
mod mutation;
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

pub use open::{OpenError, Options};
pub use retrying::Statistics;
pub use schema::Prepared;

use metadata::KnownRepositories;
use registry::clock::ServiceClock;
use registry::store::{Context, StoreError};
use retrying::{RetryEnvironment, TableClient};
use table::Table;

/// A registry's names, sessions, graveyard and keys in one DynamoDB table, or two. Clones are the same store.
///
/// Implements [`MetadataStore`](registry::store::metadata::MetadataStore),
/// [`SessionStore`](registry::store::sessions::SessionStore),
/// [`CollectionStore`](registry::store::collection::CollectionStore) and
/// [`RecordStore`](registry::store::records::RecordStore). Holds no state that another instance would miss.
#[derive(Clone)]
pub struct DynamoStore {
    /// What may be replicated: all but sessions, graves, keys and the pass.
    main: TableClient,
    /// What belongs to this region.
    local: TableClient,
    /// Repositories whose catalog row was there a short while ago, as those who publish have found.
    known: Arc<KnownRepositories>,
    /// The same, as walks over the table have found: they meet all repositories, and would displace those in use.
    known_to_walks: Arc<KnownRepositories>,
    /// What both tables tell of the time.
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
            clock: Arc::default(),
            table_names: [String::new(), String::new()],
        }
    }

    /// Writes only while `clock`, which the answers of the tables set, is not off.
    pub(crate) fn with_clock(mut self, clock: Arc<ServiceClock>) -> Self {
        self.main.clock = clock.clone();
        self.local.clock = clock.clone();
        self.clock = clock;
        self
    }

    /// The names of the tables, main and local, for what is said of them.
    pub(crate) fn with_table_names(mut self, table_names: [String; 2]) -> Self {
        self.table_names = table_names;
        self
    }

    /// What the answers of the tables say of the clock of this host. While it is off, nothing is written.
    #[must_use]
    pub fn clock(&self) -> &Arc<ServiceClock> {
        &self.clock
    }

    /// What tells the main table from every other, also from one of the same name in another region or account, or made
    /// after this one was deleted. The first call for a table writes it, into the row of the layout's version.
    ///
    /// # Errors
    /// When the table does not answer, or may not be written to and has none yet.
    pub async fn identity(&self, cx: Context) -> Result<String, StoreError> {
        schema::identity(self.main.within(cx), cx.uid).await
    }

    /// What has been asked of both tables since the store was opened.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.main.statistics() + self.local.statistics()
    }
}

impl std::fmt::Debug for DynamoStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamoStore").finish_non_exhaustive()
    }
}
