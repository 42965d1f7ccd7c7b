//! Collection. [`metadata`] walks over the main table and removes unreferenced links, blob records and back-references;
//! [`catalog`] then removes empty repositories. [`sweep`] ends expired sessions. Objects that are no longer needed go
//! through the [`deletion_queue`]. This module has the row that lets one pass run at a time.

mod catalog;
mod metadata;
mod sweep;

use async_trait::async_trait;
use registry::store::collection::{
    Collected, CollectionStore, DeletionCheck, PassStart, PendingDeletion, Plan, is_held,
};
use registry::store::sessions::{Session, SessionKey};
use registry::store::{Context, Cursor, Slice, StoreError, Timestamp, Uid};

use crate::DynamoStore;
use crate::deletion_queue;
use crate::keys;
use crate::records::PassRow;
use crate::records::attributes;
use crate::retrying::{Requests, WriteOutcome};
use crate::table::{ItemKey, Value, Write, WriteCondition};

/// Separates the two parts of a key in a cursor. No key contains it.
const SEPARATOR: char = '\n';

/// The cursor after a key.
pub(crate) fn cursor(last: &ItemKey) -> Cursor {
    Cursor(format!("{}{SEPARATOR}{}", last.partition, last.sort))
}

/// The key in a cursor.
pub(crate) fn position(cursor: &Cursor) -> Result<ItemKey, StoreError> {
    let parts = cursor.0.split_once(SEPARATOR);
    let (partition, sort) = parts.ok_or_else(|| StoreError::failed("not a cursor of this store"))?;
    Ok(ItemKey {
        partition: partition.to_owned(),
        sort: sort.to_owned(),
    })
}

/// The condition that the row has this pass and this end of its lease.
fn held_by(row: &PassRow) -> WriteCondition {
    WriteCondition::All(vec![
        WriteCondition::Is(attributes::PASS, Value::S(row.pass.to_string())),
        WriteCondition::Is(attributes::UNTIL, Value::N(row.until.0)),
    ])
}

async fn pass_row(requests: &Requests<'_>) -> Result<Option<PassRow>, StoreError> {
    let item = requests.get(&keys::pass()).await?;
    item.as_ref().map(PassRow::read).transpose()
}

#[async_trait]
impl CollectionStore for DynamoStore {
    async fn begin_pass(&self, cx: Context, pass: Uid, until: Timestamp) -> Result<PassStart, StoreError> {
        let requests = self.local.within(cx);
        let mut round = 0;
        loop {
            let before = pass_row(&requests).await?;
            // A lease of the caller's own pass is no obstacle: an earlier try of this request, or of this pass, was not
            // answered.
            let held = before
                .as_ref()
                .filter(|row| is_held(row.until, cx.now) && row.pass != pass);
            if let Some(row) = held {
                return Ok(PassStart::Busy(row.until));
            }
            let next = before.as_ref().and_then(|row| row.next.clone());
            let row = PassRow {
                pass,
                until,
                next: next.clone(),
            };
            let take = row.update(before.as_ref().map_or(WriteCondition::Absent, held_by));
            if requests.write(&take).await?.is_done() {
                return Ok(next.map_or(PassStart::New, PassStart::Resumed));
            }
            requests.lost_race(round).await?;
            round += 1;
        }
    }

    async fn checkpoint(
        &self,
        cx: Context,
        pass: Uid,
        next: Option<&Cursor>,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let requests = self.local.within(cx);
        let condition = WriteCondition::Is(attributes::PASS, Value::S(pass.to_string()));
        let write = match next {
            Some(next) => {
                let next = Some(next.clone());
                PassRow { pass, until, next }.update(condition)
            }
            None => Write::Delete {
                key: keys::pass(),
                condition,
            },
        };
        match requests.write(&write).await? {
            WriteOutcome::Done => Ok(true),
            WriteOutcome::Refused { perhaps_done: false } => Ok(false),
            // The end of a pass deletes the row: if the row does not exist, this call has deleted it.
            WriteOutcome::Refused { perhaps_done: true } => Ok(next.is_none() && pass_row(&requests).await?.is_none()),
        }
    }

    async fn collect_metadata(
        &self,
        cx: Context,
        plan: &Plan,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Collected, StoreError> {
        let call = self.walk_call(cx);
        let after = after.map(position).transpose()?;
        if let Some(after) = after.as_ref().and_then(catalog::position) {
            return catalog::slice(&call, plan, after, limit).await;
        }
        let mut collected = metadata::slice(&call, plan, after.as_ref(), limit).await?;
        collected.next.get_or_insert_with(catalog::start);
        Ok(collected)
    }

    async fn sweep(&self, cx: Context, key: SessionKey, session: &Session) -> Result<Option<u64>, StoreError> {
        sweep::sweep(&self.local.within(cx), cx, key, session).await
    }

    async fn pending_deletions(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<PendingDeletion>, StoreError> {
        deletion_queue::slice(&self.local.within(cx), before, after, limit).await
    }

    async fn check_pending_deletion(
        &self,
        cx: Context,
        pending_deletion: &PendingDeletion,
    ) -> Result<DeletionCheck, StoreError> {
        deletion_queue::check_pending_deletion(&self.main.within(cx), &self.local.within(cx), pending_deletion).await
    }

    async fn remove_pending_deletions(
        &self,
        cx: Context,
        pending_deletions: &[PendingDeletion],
    ) -> Result<(), StoreError> {
        deletion_queue::remove_pending_deletions(&self.local.within(cx), pending_deletions).await
    }
}
