//! An instance with a wrong clock, and a service whose answers carry the time.

use std::sync::Arc;

use async_trait::async_trait;
use registry::clock::ServiceClock;

use super::world::World;
use crate::memory::MemoryTable;
use crate::table::{Consistency, Item, ItemKey, ItemPage, RangeQuery, Table, TableError, Write, Written};

/// A table whose answers carry the time.
pub(super) struct Dated {
    pub(super) table: MemoryTable,
    /// Its own clock is the wrong clock of the instance.
    pub(super) world: World,
    pub(super) clock: Arc<ServiceClock>,
}

impl Dated {
    fn observed<T>(&self, answer: T) -> T {
        let own = self.world.own_clock();
        self.clock.observe(self.world.now().0 / 1_000 * 1_000, own.0, own.0);
        answer
    }
}

#[async_trait]
impl Table for Dated {
    async fn get(&self, key: &ItemKey, consistency: Consistency) -> Result<Option<Item>, TableError> {
        self.observed(self.table.get(key, consistency).await)
    }

    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError> {
        self.observed(self.table.query(query).await)
    }

    async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError> {
        self.observed(self.table.scan(after, limit).await)
    }

    async fn write(&self, write: &Write) -> Result<Written, TableError> {
        self.observed(self.table.write(write).await)
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Written, TableError> {
        self.observed(self.table.transact(writes, token).await)
    }

    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError> {
        self.observed(self.table.batch_get(keys).await)
    }

    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError> {
        self.observed(self.table.batch_write(writes).await)
    }
}
