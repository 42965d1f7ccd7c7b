//! Names and upload sessions in one SQLite file.
//!
//! Every operation is one transaction, so that invariants are guards in SQL and need no marks. Operations that write
//! queue for one writer ([`writer`]); those that read run at once, in parallel, on the caller's thread: a read of
//! pages that are in memory takes some microseconds, less than handing it to another thread and back. SQLite's log
//! gives every new read the last commit, so that a read sees whatever was acknowledged before, by any process.

mod collection;
mod metadata;
mod readers;
mod records;
mod rows;
mod schema;
mod sessions;
#[cfg(test)]
mod tests;
mod values;
mod writer;

use std::path::Path;
use std::sync::Arc;

use registry::store::{Context, StoreError};

use crate::Sync;
use readers::Readers;
pub use rows::Statistics;
use rows::{Counters, Failure, Rows};
pub(crate) use schema::SchemaError;
use writer::{Durability, Writer};

/// Names and upload sessions of one data directory.
#[derive(Debug)]
pub struct SqliteStore {
    counters: Arc<Counters>,
    readers: Readers,
    writer: Writer,
}

impl SqliteStore {
    /// Opens a file that exists, also an empty one, and brings it to the present schema.
    pub(crate) fn open(path: &Path, sync: Sync) -> Result<Self, SchemaError> {
        let mut connection = schema::connect(path, schema::Role::Writer(sync))?;
        schema::prepare(&mut connection)?;
        let counters = Arc::<Counters>::default();
        let writer = Writer::start(connection, sync, Arc::clone(&counters))?;
        Ok(Self {
            readers: Readers::new(path),
            writer,
            counters,
        })
    }

    /// How many statements and rows the operations of this store have cost since it was opened.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.counters.statistics()
    }

    /// Ends the store after all that was queued; see [`Embedded::close`](crate::Embedded::close).
    pub(crate) fn close(&self) {
        // First the readers: the connection that is closed last moves the log into the file.
        self.readers.close();
        self.writer.close();
    }

    fn read<T>(&self, cx: Context, work: impl FnMut(&Rows<'_>) -> Result<T, Failure>) -> Result<T, StoreError> {
        self.readers.read(cx, &self.counters, work)
    }

    async fn write<T: Send + 'static>(
        &self,
        cx: Context,
        work: impl FnMut(&Rows<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.write(cx, Durability::Durable, work).await
    }

    async fn write_ordered<T: Send + 'static>(
        &self,
        cx: Context,
        work: impl FnMut(&Rows<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.write(cx, Durability::Ordered, work).await
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}
