//! The interface of this crate to a table: items under two-part keys, a few requests and a few conditions.
//!
//! The protocols use the [`Table`] trait. `aws` implements it for DynamoDB, and `memory` implements it for tests, where
//! a scheduler decides the order of requests and which task crashes. Implementations neither retry a request nor split
//! it; `retrying` does both for all of them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use registry::store::{Cause, Reason, StoreError};

/// The name of the attribute that holds [`ItemKey::partition`].
pub(crate) const PARTITION: &str = "pk";
/// The name of the attribute that holds [`ItemKey::sort`].
pub(crate) const SORT: &str = "sk";

/// The maximum size of an item, in bytes of names and values.
pub(crate) const ITEM_BYTES: usize = 400_000;
/// The maximum number of items in a transaction.
pub(crate) const TRANSACTION_ITEMS: usize = 100;
/// The maximum size of a transaction, in bytes.
pub(crate) const TRANSACTION_BYTES: usize = 4_000_000;
/// The maximum number of items in a batch of writes.
pub(crate) const BATCH_WRITES: usize = 25;
/// The maximum number of items in a batch of reads.
pub(crate) const BATCH_READS: usize = 100;

/// The primary key of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ItemKey {
    /// The partition key: selects the item collection.
    pub(crate) partition: String,
    /// The sort key: orders the items of a collection by its bytes.
    pub(crate) sort: String,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Text.
    S(String),
    /// A whole number. Uids are stored as text: they use all 64 bits, and nothing is calculated with them.
    N(u64),
    /// Bytes.
    B(Bytes),
}

/// The attributes of an item without its key.
pub(crate) type Attributes = BTreeMap<String, Value>;

/// An item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The key.
    pub(crate) key: ItemKey,
    /// All other attributes.
    pub(crate) attributes: Attributes,
}

/// What must be true of the written item when the write is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteCondition {
    /// No condition.
    Always,
    /// The item exists.
    Exists,
    /// The item does not exist.
    Absent,
    /// The item exists, and the attribute has this value.
    Is(&'static str, Value),
    /// The item exists, and the attribute is a number less than this one.
    Below(&'static str, u64),
    /// The item exists, and has no such attribute.
    Lacks(&'static str),
    /// All of these hold.
    All(Vec<WriteCondition>),
    /// At least one of these holds.
    Any(Vec<WriteCondition>),
}

/// One change of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Writes the whole item.
    Put { item: Item, condition: WriteCondition },
    /// Changes some attributes. Creates the item if it does not exist and the condition allows it.
    Update {
        key: ItemKey,
        set: Vec<(&'static str, Value)>,
        remove: Vec<&'static str>,
        condition: WriteCondition,
    },
    /// Removes the item, if it exists.
    Delete { key: ItemKey, condition: WriteCondition },
    /// Only checks the condition. Allowed in a transaction only.
    Check { key: ItemKey, condition: WriteCondition },
}

impl Write {
    /// Removes an item unconditionally.
    pub(crate) fn delete(key: ItemKey) -> Self {
        let condition = WriteCondition::Always;
        Self::Delete { key, condition }
    }

    /// Sets the attributes named in `known` to their values in `item`, and removes those that `item` does not have.
    /// Keeps all other attributes, since a newer version of this program may have added them.
    pub(crate) fn change_to(item: Item, known: &[&'static str], condition: WriteCondition) -> Self {
        let Item { key, mut attributes } = item;
        let mut set = Vec::new();
        let mut remove = Vec::new();
        for name in known {
            match attributes.remove(*name) {
                Some(value) => set.push((*name, value)),
                None => remove.push(*name),
            }
        }
        debug_assert!(attributes.is_empty(), "an attribute that is not listed");
        Self::Update {
            key,
            set,
            remove,
            condition,
        }
    }

    /// The key of the item.
    pub(crate) fn key(&self) -> &ItemKey {
        match self {
            Self::Put { item, .. } => &item.key,
            Self::Update { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }
}

/// The outcome of a write or a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The write was applied.
    Done,
    /// The conditions of the writes with these indices did not hold, and nothing was changed.
    Refused(Vec<usize>),
}

/// Whether a read must see every write that was acknowledged before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// It must. Costs twice as much.
    Strong,
    /// It may return an older state. Use it only for a hint that a strongly consistent request confirms later.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "no protocol uses such a read; only the tests of the tables do")
    )]
    Eventual,
}

/// A range of items of one collection, by their sort keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The partition key of the collection.
    pub(crate) partition: String,
    /// The lowest sort key, inclusive.
    pub(crate) from: String,
    /// The highest sort key, inclusive.
    pub(crate) to: String,
}

/// A request for items of one collection, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeQuery {
    /// The items that are asked for.
    pub(crate) range: Range,
    /// Start after this sort key, in the direction of the query. It lies within the range.
    pub(crate) after: Option<String>,
    /// Return the highest sort key first.
    pub(crate) descending: bool,
    /// The maximum number of items.
    pub(crate) limit: usize,
    /// The consistency of the read.
    pub(crate) consistency: Consistency,
}

/// One page of items.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct ItemPage {
    /// The items.
    pub(crate) items: Vec<Item>,
    /// The key after which there may be more items. A page ends at the limit or at 1 MB.
    pub(crate) more_after: Option<ItemKey>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The same request may succeed soon: a conflict, a throttle, a fault, a timeout. Unless `not_done` is set, a write
    /// may have been applied.
    #[error("the table did not answer: {cause}")]
    Retry {
        /// The write was certainly not applied.
        not_done: bool,
        /// The error of the request.
        #[source]
        cause: Cause,
    },
    /// The same request will fail again: no permission, a missing table, an invalid request.
    #[error("the table refused: {0}")]
    Fatal(#[source] Cause),
}

impl TableError {
    /// Converts the error into that of the call.
    pub(crate) fn into_store_error(self) -> StoreError {
        let reason_of = |cause: &Cause| cause.downcast_ref::<TableMessage>().map(|message| message.reason);
        match self {
            Self::Retry { cause, .. } => match reason_of(&cause) {
                Some(reason @ (Reason::Throttled | Reason::Unavailable | Reason::ClockOff)) => {
                    StoreError::because(reason, cause)
                }
                _ => StoreError::because(Reason::MetadataUnreachable, cause),
            },
            // Waiting does not help here, so that only the reason "refused" is kept.
            Self::Fatal(cause) => match reason_of(&cause) {
                Some(Reason::MetadataRefuses) => StoreError::because(Reason::MetadataRefuses, cause),
                _ if cause.is::<MissingTable>() => StoreError::because(Reason::MetadataRefuses, cause),
                _ => StoreError::failed(cause),
            },
        }
    }
}

/// The table does not exist, or its creation is not finished.
#[derive(Debug, thiserror::Error)]
#[error("there is no table {0}: `roadstead metadata init` creates it")]
pub(crate) struct MissingTable(pub(crate) String);

/// The error text of a table, and the reason that callers act on.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct TableMessage {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

/// One table.
///
/// A request whose answer was lost may have been applied. A caller must therefore accept that a write is applied twice,
/// and that the second try of a conditional write is refused because the first was applied.
#[async_trait]
pub(crate) trait Table: Send + Sync + 'static {
    /// Reads one item.
    async fn get(&self, key: &ItemKey, consistency: Consistency) -> Result<Option<Item>, TableError>;

    /// Reads one page of items of one collection, in the order of their sort keys.
    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError>;

    /// Reads one page of at most `limit` items of the whole table, in an arbitrary order, strongly consistent.
    async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError>;

    /// Applies one change.
    async fn write(&self, write: &Write) -> Result<Written, TableError>;

    /// Applies up to 100 changes of different items, all or none. `token` makes the request idempotent for some
    /// minutes: the same changes with the same token are applied once.
    async fn transact(&self, writes: &[Write], token: &str) -> Result<Written, TableError>;

    /// Reads up to 100 items, strongly consistent, in any order. The second list holds the keys that the table did not
    /// read for lack of capacity.
    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError>;

    /// Applies up to 25 unconditional puts and deletes of different items, each independently. Returns those that the
    /// table did not apply for lack of capacity.
    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError>;
}
