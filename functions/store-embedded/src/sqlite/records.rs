//! All records, given and taken.

mod read;
mod write;

use async_trait::async_trait;
use registry::store::records::{Record, RecordStore};
use registry::store::{Context, Cursor, Slice, StoreError};

use super::SqliteStore;

#[cfg(test)]
pub(super) use read::STATEMENTS;

/// The most records that one transaction writes.
const MAX_WRITTEN: usize = 64;

#[async_trait]
impl RecordStore for SqliteStore {
    async fn records(&self, cx: Context, after: Option<&Cursor>, limit: usize) -> Result<Slice<Record>, StoreError> {
        let place = after.map_or(Ok(read::Place::first()), read::Place::parse)?;
        self.read(cx, |rows| read::slice(rows, &place, limit))
    }

    async fn insert(&self, cx: Context, records: &[Record]) -> Result<(), StoreError> {
        for some in records.chunks(MAX_WRITTEN) {
            let some = some.iter().map(write::Row::new).collect::<Result<Vec<_>, _>>()?;
            self.write(cx, move |rows| some.iter().try_for_each(|row| row.insert(rows)))
                .await?;
        }
        Ok(())
    }
}
