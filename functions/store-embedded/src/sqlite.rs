//! Metadata, upload sessions and accounts in one SQLite file.
//!
//! Each operation is one transaction, so SQL conditions keep the invariants and no marks are needed for that.
//! Operations that write queue for one writer ([`writer`]). Operations that only read run in parallel and at once
//! ([`readers`]). SQLite's log gives every new read the last commit. So a read sees everything that any process has
//! acknowledged before.

mod access;
mod collection;
mod deletion_queue;
mod metadata;
mod readers;
mod records;
mod rows;
mod schema;
mod sessions;
mod standing_read;
#[cfg(test)]
mod tests;
mod values;
mod writer;

use std::path::Path;
use std::sync::Arc;

use registry::store::metadata::Defect;
use registry::store::{Context, Location, StoreError};
use rusqlite::params;

use crate::Sync;
use crate::space::Space;
use crate::watch::PathWatch;
use readers::Readers;
pub use rows::SqliteStatistics;
use rows::{OperationFailure, RowCounters, Rows};
pub(crate) use schema::SchemaError;
pub use schema::{ACCESS_VERSION, SCHEMA_VERSION};
use standing_read::StandingRead;
use values::Columns as _;
use writer::{Durability, MetadataWriter};

/// The metadata, the upload sessions and the accounts of one data directory.
#[derive(Debug)]
pub struct SqliteStore {
    counters: Arc<RowCounters>,
    readers: Readers,
    writer: MetadataWriter,
    space: Arc<Space>,
    watch: PathWatch,
}

impl SqliteStore {
    /// Opens an existing file, which may be empty, and migrates it to the current schema.
    pub(crate) fn open(path: &Path, sync: Sync) -> Result<Self, SchemaError> {
        let mut connection = schema::connect(path, schema::ConnectionRole::Writer(sync))?;
        schema::prepare(&mut connection)?;
        let counters = Arc::<RowCounters>::default();
        let standing = schema::connect(path, schema::ConnectionRole::Reader)?;
        let standing = StandingRead::new(standing, Arc::clone(&counters));
        let writer = MetadataWriter::start(connection, standing, sync, Arc::clone(&counters))?;
        let watch = PathWatch::of_database(path.to_owned()).unwrap_or_else(|error| {
            tracing::warn!(
                path = %path.display(),
                %error,
                "the metadata file cannot be watched: its removal or replacement will not be noticed"
            );
            PathWatch::default()
        });
        Ok(Self {
            readers: Readers::new(path, Arc::clone(&counters)),
            writer,
            counters,
            space: Arc::new(Space::at(path.parent().unwrap_or(path))),
            watch,
        })
    }

    /// The space on the file system of the file. Callers that store something new check it; deletions do not.
    #[must_use]
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Tells whether the file at the path is still the one that was opened.
    #[must_use]
    pub fn watch(&self) -> &PathWatch {
        &self.watch
    }

    /// Whether the store was never used: it has no record, no upload session, and no key that signs upload tokens. The
    /// first start creates such a key. Accounts do not count, because they can be made before it. A new store beside
    /// existing blobs means that a registry has lost its metadata.
    pub async fn is_new(&self, cx: Context) -> Result<bool, StoreError> {
        self.read(cx, |rows| {
            Ok(!rows.exists(
                "SELECT 1 FROM signing_key UNION ALL SELECT 1 FROM blob UNION ALL SELECT 1 FROM link \
                 UNION ALL SELECT 1 FROM manifest UNION ALL SELECT 1 FROM session UNION ALL SELECT 1 FROM graveyard \
                 LIMIT 1",
                [],
            )?)
        })
        .await
    }

    /// The locations of at most `limit` recorded objects without a recorded defect.
    pub async fn some_locations(&self, cx: Context, limit: usize) -> Result<Vec<Location>, StoreError> {
        self.read(cx, move |rows| {
            rows.all(
                "SELECT store, key FROM blob WHERE condemned IS NULL OR condemned NOT IN (?1, ?2) LIMIT ?3",
                params![
                    Defect::Missing.as_str(),
                    Defect::Damaged.as_str(),
                    i64::try_from(limit).unwrap_or(i64::MAX)
                ],
                |row| row.location(0, 1),
            )
        })
        .await
    }

    /// The number of statements and rows that the operations of this store have cost since it was opened.
    #[must_use]
    pub fn statistics(&self) -> SqliteStatistics {
        self.counters.statistics()
    }

    /// Closes the store after all queued operations; see [`Embedded::close`](crate::Embedded::close).
    pub(crate) fn close(&self) {
        // The readers first: the connection that is closed last moves the log into the file.
        self.readers.close();
        self.writer.close();
    }

    async fn read<T: Send + 'static>(
        &self,
        cx: Context,
        work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.read(cx, work).await
    }

    /// Reads many rows, on a thread that may block.
    async fn walk<T: Send + 'static>(
        &self,
        cx: Context,
        work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.read_blocking(cx, work).await
    }

    async fn write<T: Send + 'static>(
        &self,
        cx: Context,
        work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.write(cx, Durability::Durable, work).await
    }

    async fn write_ordered<T: Send + 'static>(
        &self,
        cx: Context,
        work: impl FnMut(&Rows<'_>) -> Result<T, OperationFailure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.write(cx, Durability::Ordered, work).await
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}
