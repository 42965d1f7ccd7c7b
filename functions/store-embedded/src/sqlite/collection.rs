//! Collection: removes unreferenced rows, a bounded number in each transaction.
//!
//! A reader looks for candidates without the writer. The transaction that removes a row checks it again. So pushes wait
//! only for removals and never for the walk. Marks are not needed for the safety of the data here. They give a client
//! time: a HEAD has promised it a blob for the manifest that it pushes next.

mod metadata;
mod sweep;

use async_trait::async_trait;
use registry::store::collection::{
    Collected, CollectionStore, DeletionCheck, PassStart, PendingDeletion, Plan, is_held,
};
use registry::store::sessions::{Session, SessionKey};
use registry::store::{Context, Cursor, Slice, StoreError, Timestamp, Uid};
use rusqlite::params;

use super::SqliteStore;
use super::deletion_queue;
use super::values::{Columns, bits, timestamp};

/// All statements that walk.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    metadata::EDGES,
    metadata::LINKS,
    metadata::BACK_LINKS,
    metadata::BLOBS,
    metadata::CATALOG,
    deletion_queue::PENDING_DELETIONS,
];

/// The maximum number of rows that one transaction walks over or removes.
const MAX_ROWS: usize = 256;

#[async_trait]
impl CollectionStore for SqliteStore {
    async fn begin_pass(&self, cx: Context, pass: Uid, until: Timestamp) -> Result<PassStart, StoreError> {
        // Ordered, here and in `checkpoint`: after a power failure, lost progress of a pass is only walked again.
        self.write_ordered(cx, move |rows| {
            let present = rows.one("SELECT holder, until, cursor FROM pass WHERE id = 1", [], |row| {
                Ok((row.uid(0)?, row.timestamp(1)?, row.value::<Option<String>>(2)?))
            })?;
            let begun = match present {
                Some((leased, until, _)) if leased != pass && is_held(until, cx.now) => {
                    return Ok(PassStart::Busy(until));
                }
                Some((_, _, Some(cursor))) => PassStart::Resumed(Cursor(cursor)),
                _ => PassStart::New,
            };
            rows.change(
                "INSERT INTO pass (id, holder, until) VALUES (1, ?1, ?2) \
                 ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until",
                params![bits(pass), timestamp(until)],
            )?;
            Ok(begun)
        })
        .await
    }

    async fn checkpoint(
        &self,
        cx: Context,
        pass: Uid,
        next: Option<&Cursor>,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let next = next.map(|cursor| cursor.0.clone());
        self.write_ordered(cx, move |rows| {
            let changed = match &next {
                Some(cursor) => rows.change(
                    "UPDATE pass SET cursor = ?2, until = ?3 WHERE id = 1 AND holder = ?1",
                    params![bits(pass), cursor, timestamp(until)],
                )?,
                None => rows.change("DELETE FROM pass WHERE id = 1 AND holder = ?1", [bits(pass)])?,
            };
            Ok(changed == 1)
        })
        .await
    }

    async fn collect_metadata(
        &self,
        cx: Context,
        plan: &Plan,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Collected, StoreError> {
        metadata::slice(self, cx, plan, after, limit.clamp(1, MAX_ROWS)).await
    }

    async fn sweep(&self, cx: Context, key: SessionKey, session: &Session) -> Result<Option<u64>, StoreError> {
        sweep::sweep(self, cx, key, session).await
    }

    async fn pending_deletions(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<PendingDeletion>, StoreError> {
        let after = after.map_or(
            Ok(deletion_queue::DeletionPosition::first()),
            deletion_queue::DeletionPosition::parse,
        )?;
        self.walk(cx, move |rows| {
            deletion_queue::pending_deletions(rows, before, &after, limit)
        })
        .await
    }

    async fn check_pending_deletion(
        &self,
        cx: Context,
        pending_deletion: &PendingDeletion,
    ) -> Result<DeletionCheck, StoreError> {
        let pending_deletion = pending_deletion.clone();
        self.read(cx, move |rows| {
            deletion_queue::check_pending_deletion(rows, &pending_deletion)
        })
        .await
    }

    async fn remove_pending_deletions(
        &self,
        cx: Context,
        pending_deletions: &[PendingDeletion],
    ) -> Result<(), StoreError> {
        for some in pending_deletions.chunks(MAX_ROWS) {
            let some = some.to_vec();
            // Ordered: after a power failure, a restored row refers to an object that does not exist, and is removed
            // again.
            self.write_ordered(cx, move |rows| {
                some.iter()
                    .try_for_each(|pending_deletion| deletion_queue::remove(rows, pending_deletion))
            })
            .await?;
        }
        Ok(())
    }
}
