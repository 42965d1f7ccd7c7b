//! The cost of requests: a table that counts the units that DynamoDB would bill.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::memory::MemoryTable;
use crate::table::{
    Consistency, Item, ItemKey, ItemPage, PARTITION, RangeQuery, SORT, Table, TableError, Value, Write, WriteCondition,
    Written,
};

/// Counts the units of its requests: a read of up to 4 KB is one unit, or half a unit if it need not be consistent; a
/// write of up to 1 KB is one unit, or two in a transaction.
#[derive(Clone)]
pub(crate) struct Metered {
    table: MemoryTable,
    /// Halves of units.
    read: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

fn size(item: &Item) -> u64 {
    let key = PARTITION.len() + item.key.partition.len() + SORT.len() + item.key.sort.len();
    let attributes = item.attributes.iter().map(|(name, value)| {
        name.len()
            + match value {
                Value::S(text) => text.len(),
                Value::N(number) => number.to_string().len().div_ceil(2) + 1,
                Value::B(bytes) => bytes.len(),
            }
    });
    (key + attributes.sum::<usize>()) as u64
}

fn write_units(write: &Write) -> u64 {
    match write {
        Write::Put { item, .. } => size(item).div_ceil(1024),
        // The cost of an update or a deletion depends on the stored item. Here all these items are small.
        Write::Update { .. } | Write::Delete { .. } | Write::Check { .. } => 1,
    }
}

impl Metered {
    pub(crate) fn new() -> Self {
        Self {
            table: MemoryTable::new(),
            read: Arc::default(),
            written: Arc::default(),
        }
    }

    /// Units read and written since the last call.
    pub(crate) fn take(&self) -> (f64, u64) {
        let read = self.read.swap(0, Ordering::SeqCst);
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let read = read as f64 / 2.0;
        (read, self.written.swap(0, Ordering::SeqCst))
    }

    fn reads(&self, bytes: u64, consistency: Consistency) {
        // A read of a missing item costs as much as one of the smallest item.
        let units = bytes.div_ceil(4096).max(1);
        let halves = match consistency {
            Consistency::Strong => 2,
            Consistency::Eventual => 1,
        };
        self.read.fetch_add(units * halves, Ordering::SeqCst);
    }

    fn writes(&self, units: u64) {
        self.written.fetch_add(units, Ordering::SeqCst);
    }
}

#[async_trait]
impl Table for Metered {
    async fn get(&self, key: &ItemKey, consistency: Consistency) -> Result<Option<Item>, TableError> {
        let item = self.table.get(key, Consistency::Strong).await?;
        self.reads(item.as_ref().map_or(0, size), consistency);
        Ok(item)
    }

    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError> {
        let found = self.table.query(query).await?;
        self.reads(found.items.iter().map(size).sum(), query.consistency);
        Ok(found)
    }

    async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError> {
        let found = self.table.scan(after, limit).await?;
        self.reads(found.items.iter().map(size).sum(), Consistency::Strong);
        Ok(found)
    }

    async fn write(&self, write: &Write) -> Result<Written, TableError> {
        self.writes(write_units(write));
        self.table.write(write).await
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Written, TableError> {
        self.writes(writes.iter().map(|write| 2 * write_units(write)).sum());
        self.table.transact(writes, token).await
    }

    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError> {
        let (items, left) = self.table.batch_get(keys).await?;
        for key in keys {
            let item = items.iter().find(|item| item.key == *key);
            self.reads(item.map_or(0, size), Consistency::Strong);
        }
        Ok((items, left))
    }

    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError> {
        self.writes(writes.iter().map(write_units).sum());
        self.table.batch_write(writes).await
    }
}

#[test]
fn sizes_are_counted_as_dynamodb_counts_them() {
    let item = Item {
        key: ItemKey {
            partition: "p".repeat(10),
            sort: "s".repeat(10),
        },
        attributes: [
            ("n".to_owned(), Value::N(1000)),
            ("b".to_owned(), Value::B(vec![0; 1000].into())),
        ]
        .into(),
    };
    assert_eq!(size(&item), 24 + (1 + 3) + (1 + 1000));
    let put = Write::Put {
        item,
        condition: WriteCondition::Always,
    };
    assert_eq!(write_units(&put), 2);
}
