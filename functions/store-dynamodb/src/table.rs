//! The table as this crate sees it: items under two-part keys, a few requests, a few conditions.
//!
//! Everything above this trait is the protocol; everything below it is a way to speak to a table: `aws` for DynamoDB,
//! `memory` for tests, where a scheduler decides who goes next and who crashes. No request is retried here, and none
//! is cut into pieces: that is `retrying`'s, once for all of them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use registry::store::{Cause, Reason, StoreError};

use crate::aws::MissingTable;

/// The name of the attribute that holds [`ItemKey::partition`].
pub(crate) const PARTITION: &str = "pk";
/// The name of the attribute that holds [`ItemKey::sort`].
pub(crate) const SORT: &str = "sk";

/// The largest item, in bytes of names and values.
pub(crate) const ITEM_BYTES: usize = 400_000;
/// The most items in a transaction.
pub(crate) const TRANSACTION_ITEMS: usize = 100;
/// The most bytes in a transaction.
pub(crate) const TRANSACTION_BYTES: usize = 4_000_000;
/// The most items in a batch of writes.
pub(crate) const BATCH_WRITES: usize = 25;
/// The most items in a batch of reads.
pub(crate) const BATCH_READS: usize = 100;

/// The name of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ItemKey {
    /// Chooses the item collection.
    pub(crate) partition: String,
    /// Orders the items of a collection, by its bytes.
    pub(crate) sort: String,
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Text.
    S(String),
    /// A whole number. Incarnations are text: they use all 64 bits, and are never counted with.
    N(u64),
    /// Bytes.
    B(Bytes),
}

/// An item's attributes but its key.
pub(crate) type Attributes = BTreeMap<String, Value>;

/// An item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its name.
    pub(crate) key: ItemKey,
    /// Everything else.
    pub(crate) attributes: Attributes,
}

/// What must be true of the item that a write names, at the moment of the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteCondition {
    /// Nothing.
    Always,
    /// There is such an item.
    Exists,
    /// There is none.
    Absent,
    /// The attribute has this value (so that the item exists).
    Is(&'static str, Value),
    /// The item exists, and has no such attribute.
    Lacks(&'static str),
    /// All of these.
    All(Vec<WriteCondition>),
    /// One of these.
    Any(Vec<WriteCondition>),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Writes the whole item.
    Put { item: Item, condition: WriteCondition },
    /// Changes some attributes; makes the item if there is none and the condition allows it.
    Update {
        key: ItemKey,
        set: Vec<(&'static str, Value)>,
        remove: Vec<&'static str>,
        condition: WriteCondition,
    },
    /// Removes the item, if there is one.
    Delete { key: ItemKey, condition: WriteCondition },
    /// Changes nothing; only in a transaction.
    Check { key: ItemKey, condition: WriteCondition },
}

impl Write {
    /// Removes an item, whatever it is.
    pub(crate) fn delete(key: ItemKey) -> Self {
        let condition = WriteCondition::Always;
        Self::Delete { key, condition }
    }

    /// Makes an item what `item` is in the attributes `known`, of which those that it lacks are removed. Others, which a
    /// newer version of this program may have added, stay.
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

    /// The item that it names.
    pub(crate) fn key(&self) -> &ItemKey {
        match self {
            Self::Put { item, .. } => &item.key,
            Self::Update { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }
}

/// What became of a write or a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is done.
    Done,
    /// The conditions of the writes with these indices did not hold, and nothing was changed.
    Refused(Vec<usize>),
}

/// Whether a read must see every write that was acknowledged before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// It must. Twice the price.
    Strong,
    /// It may see an older state. Only where the answer is a hint that something strong decides afterwards.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "no protocol relies on such a read; the tests' table shows what it would see"
        )
    )]
    Eventual,
}

/// Which items of a collection, by their sort keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The collection.
    pub(crate) partition: String,
    /// The lowest sort key, itself included.
    pub(crate) from: String,
    /// The highest sort key, itself included.
    pub(crate) to: String,
}

/// A request for items of one collection in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeQuery {
    /// Which items.
    pub(crate) range: Range,
    /// Begin behind this sort key, which is within the range, in the direction of the query.
    pub(crate) after: Option<String>,
    /// From the highest down.
    pub(crate) descending: bool,
    /// At most as many.
    pub(crate) limit: usize,
    /// What it must see.
    pub(crate) consistency: Consistency,
}

/// Some items in order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct ItemPage {
    /// The items.
    pub(crate) items: Vec<Item>,
    /// There may be more behind this key: a page ends at the limit, or at 1 MB.
    pub(crate) more_after: Option<ItemKey>,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The same request may succeed in a moment: a conflict, a throttle, a fault, a timeout. Whether a write was done
    /// is not known, unless `not_done`.
    #[error("the table did not answer: {cause}")]
    Retry {
        /// The write was surely not done.
        not_done: bool,
        /// What was said.
        #[source]
        cause: Cause,
    },
    /// It will not: permissions, a missing table, a request that is wrong.
    #[error("the table refused: {0}")]
    Fatal(#[source] Cause),
}

impl TableError {
    /// The error of a call that this one ended.
    pub(crate) fn into_store_error(self) -> StoreError {
        let told = |cause: &Cause| cause.downcast_ref::<TableMessage>().map(|told| told.reason);
        match self {
            Self::Retry { cause, .. } => match told(&cause) {
                Some(reason @ (Reason::Throttled | Reason::Unavailable | Reason::ClockOff)) => {
                    StoreError::because(reason, cause)
                }
                _ => StoreError::because(Reason::MetadataUnreachable, cause),
            },
            // Whatever the reason would be elsewhere: nothing becomes of it by waiting.
            Self::Fatal(cause) => match told(&cause) {
                Some(Reason::MetadataRefuses) => StoreError::because(Reason::MetadataRefuses, cause),
                _ if cause.is::<MissingTable>() => StoreError::because(Reason::MetadataRefuses, cause),
                _ => StoreError::failed(cause),
            },
        }
    }
}

/// What a table said, and what that means to those who wait.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct TableMessage {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

/// One table.
///
/// A request whose answer was lost may have been done: what is built on this must bear that every write is done twice,
/// and that a conditional one is refused the second time because the first was done.
#[async_trait]
pub(crate) trait Table: Send + Sync + 'static {
    /// One item.
    async fn get(&self, key: &ItemKey, consistency: Consistency) -> Result<Option<Item>, TableError>;

    /// Items of one collection, in the order of their sort keys. One page.
    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError>;

    /// Items of the whole table in no order that means anything, strongly consistent. One page of at most `limit`.
    async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError>;

    /// One change.
    async fn write(&self, write: &Write) -> Result<Written, TableError>;

    /// Up to 100 changes of different items, all or none. `token` makes the request idempotent for some minutes: the
    /// same token and the same changes are done once.
    async fn transact(&self, writes: &[Write], token: &str) -> Result<Written, TableError>;

    /// Up to 100 items, strongly consistent, in any order; those that the table had no capacity for come back in the
    /// second list.
    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError>;

    /// Up to 25 unconditional puts and deletes of different items, each by itself; those that the table had no
    /// capacity for come back.
    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError>;
}
