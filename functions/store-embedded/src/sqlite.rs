//! Names and upload sessions in one SQLite file.
//!
//! Every operation is one transaction, so that invariants are guards in SQL and need no marks. Operations that write
//! queue for one writer ([`writer`]); those that read run at once, in parallel ([`readers`]). SQLite's log gives every
//! new read the last commit, so that a read sees whatever was acknowledged before, by any process.

mod collection;
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
pub use rows::Statistics;
use rows::{Counters, Failure, Rows};
pub use schema::SCHEMA_VERSION;
pub(crate) use schema::SchemaError;
use standing_read::StandingRead;
use values::Columns as _;
use writer::{Durability, Writer};

/// Names and upload sessions of one data directory.
#[derive(Debug)]
pub struct SqliteStore {
    counters: Arc<Counters>,
    readers: Readers,
    writer: Writer,
    space: Arc<Space>,
    watch: PathWatch,
}

impl SqliteStore {
    /// Opens a file that exists, also an empty one, and brings it to the present schema.
    pub(crate) fn open(path: &Path, sync: Sync) -> Result<Self, SchemaError> {
        let mut connection = schema::connect(path, schema::Role::Writer(sync))?;
        schema::prepare(&mut connection)?;
        let counters = Arc::<Counters>::default();
        let standing = schema::connect(path, schema::Role::Reader)?;
        let standing = StandingRead::new(standing, Arc::clone(&counters));
        let writer = Writer::start(connection, standing, sync, Arc::clone(&counters))?;
        let watch = PathWatch::of_database(path.to_owned()).unwrap_or_else(|error| {
            tracing::warn!(
                path = %path.display(),
                %error,
                "the metadata file cannot be looked at: it will not be noticed when it is removed or replaced"
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

    /// The space on the file system of the file. Whoever stores something new asks; deletions do not.
    #[must_use]
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Whether the file at the path is still the one that was opened.
    #[must_use]
    pub fn watch(&self) -> &PathWatch {
        &self.watch
    }

    /// Whether nothing was ever kept here: no record, no upload, no key that signs upload tokens, which the first start
    /// makes. Beside blobs that is not a new registry, but one that has lost its metadata.
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

    /// Where a few objects lie, at most `limit`, that are recorded, and not as missing or damaged.
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

    async fn read<T: Send + 'static>(
        &self,
        cx: Context,
        work: impl FnMut(&Rows<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.read(cx, work).await
    }

    /// A read of many rows.
    async fn walk<T: Send + 'static>(
        &self,
        cx: Context,
        work: impl FnMut(&Rows<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.read_blocking(cx, work).await
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
