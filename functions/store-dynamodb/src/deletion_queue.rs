//! The deletion queue: one item for each object that waits for its deletion, however often it was scheduled.
//!
//! Scheduling an object again only moves the time of its item forward, so the object waits from the last time that it
//! was scheduled. A removal succeeds only if the time of the item has not changed, so it fails if the object was
//! scheduled again later. Scheduling is conditional on the item that was read, so it notices a removal.

#[cfg(test)]
mod tests;

use futures_util::future::try_join_all;
use oci::Digest;
use registry::store::collection::{DeletionCheck, PendingDeletion};
use registry::store::{Cursor, Location, Slice, StoreError, Timestamp};

use crate::keys::{self, SHARDS};
use crate::records::{BlobRow, PendingDeletionRow, attributes};
use crate::retrying::Requests;
use crate::table::{Consistency, RangeQuery, Value, Write, WriteCondition};

/// How many pending deletions are read in one page. They are in the order of their objects, so that due ones are among
/// others. A page is small, because a part of it may be read again when a caller's limit ends within it.
const PAGE: usize = 500;

/// The maximum number of pages that one call reads. That takes a second or two, much less than the time of a call.
/// There are more pages than shards, so that a small queue is read in one call.
const PAGES: usize = 32;
const _: () = assert!(PAGES > SHARDS as usize);

/// How many items are written or removed at once. An upload may leave 100,000 objects, and each is a separate request.
const AT_ONCE: usize = 64;

/// Schedules the deletion of an object. An object that is scheduled already keeps one item (see
/// [`PendingDeletion::joined`]).
pub(crate) async fn schedule_deletion(
    requests: &Requests<'_>,
    pending_deletion: &PendingDeletion,
) -> Result<(), StoreError> {
    let mut written = pending_deletion.clone();
    let mut condition = WriteCondition::Absent;
    let mut round = 0;
    loop {
        let write = PendingDeletionRow::update(&written, condition);
        if requests.write(&write).await?.is_done() {
            return Ok(());
        }
        if round > 0 {
            requests.lost_race(round - 1).await?;
        }
        round += 1;
        let existing = read(requests, &pending_deletion.location).await?;
        written = match &existing {
            Some(existing) => existing.clone().joined(pending_deletion.clone()),
            None => pending_deletion.clone(),
        };
        // The item is as it should be, possibly by an unanswered try of this call.
        if existing.as_ref() == Some(&written) {
            return Ok(());
        }
        condition = existing.as_ref().map_or(WriteCondition::Absent, as_read);
    }
}

/// Schedules the deletion of objects, without holding all of them in memory. Returns their number.
pub(crate) async fn schedule_deletions(
    requests: &Requests<'_>,
    mut pending_deletions: impl Iterator<Item = PendingDeletion> + Send,
) -> Result<u64, StoreError> {
    let mut count = 0;
    loop {
        let some: Vec<PendingDeletion> = pending_deletions.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            return Ok(count);
        }
        try_join_all(
            some.iter()
                .map(|pending_deletion| schedule_deletion(requests, pending_deletion)),
        )
        .await?;
        count += some.len() as u64;
    }
}

async fn read(requests: &Requests<'_>, location: &Location) -> Result<Option<PendingDeletion>, StoreError> {
    let item = requests.get(&keys::pending_deletion(location)).await?;
    item.as_ref().map(PendingDeletionRow::read).transpose()
}

fn as_read(pending_deletion: &PendingDeletion) -> WriteCondition {
    WriteCondition::All(vec![
        WriteCondition::Is(attributes::AT, Value::N(pending_deletion.at.0)),
        match &pending_deletion.digest {
            Some(digest) => WriteCondition::Is(attributes::DIGEST, Value::S(digest.to_string())),
            None => WriteCondition::Lacks(attributes::DIGEST),
        },
        if pending_deletion.unfinished {
            WriteCondition::Is(attributes::UNFINISHED, Value::N(1))
        } else {
            WriteCondition::Lacks(attributes::UNFINISHED)
        },
    ])
}

/// The position of a walk over the deletion queue.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct QueuePosition {
    shard: u8,
    /// Continue after this sort key; `None`: at the beginning of the shard.
    after: Option<String>,
}

impl QueuePosition {
    fn parse(cursor: &Cursor) -> Result<Self, StoreError> {
        let unreadable = || StoreError::failed("not a cursor of this store");
        let (shard, after) = cursor.0.split_once(' ').ok_or_else(unreadable)?;
        Ok(Self {
            shard: shard.parse().map_err(|_| unreadable())?,
            after: (!after.is_empty()).then(|| after.to_owned()),
        })
    }

    /// The position as a cursor; `None` at the end of the queue.
    fn cursor(&self) -> Option<Cursor> {
        let after = self.after.as_deref().unwrap_or_default();
        (self.shard < SHARDS).then(|| Cursor(format!("{} {after}", self.shard)))
    }
}

/// Some of the pending deletions that were last scheduled before `before`. See [`CollectionStore::pending_deletions`].
///
/// [`CollectionStore::pending_deletions`]: registry::store::collection::CollectionStore::pending_deletions
pub(crate) async fn slice(
    requests: &Requests<'_>,
    before: Timestamp,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Slice<PendingDeletion>, StoreError> {
    let mut position = after.map(QueuePosition::parse).transpose()?.unwrap_or_default();
    let mut items = Vec::new();
    for _ in 0..PAGES {
        let shard = position.shard;
        if shard >= SHARDS {
            break;
        }
        let query = RangeQuery {
            range: keys::pending_deletions(shard),
            after: position.after,
            descending: false,
            limit: PAGE,
            consistency: Consistency::Strong,
        };
        let found = requests.query(&query).await?;
        for item in found.items {
            let pending_deletion = PendingDeletionRow::read(&item)?;
            if pending_deletion.at >= before {
                continue;
            }
            items.push(pending_deletion);
            if items.len() >= limit {
                let after = Some(item.key.sort);
                let next = QueuePosition { shard, after }.cursor();
                return Ok(Slice { items, next });
            }
        }
        position = match found.more_after {
            Some(last) => QueuePosition {
                shard,
                after: Some(last.sort),
            },
            None => QueuePosition {
                shard: shard + 1,
                after: None,
            },
        };
    }
    let next = position.cursor();
    Ok(Slice { items, next })
}

/// Whether the blob record of a digest has this location.
async fn is_recorded_location(main: &Requests<'_>, digest: &Digest, location: &Location) -> Result<bool, StoreError> {
    let item = main.get(&keys::blob(digest)).await?;
    let row = item.as_ref().map(BlobRow::read).transpose()?;
    Ok(row.is_some_and(|row| row.location == *location))
}

/// Reads the blob record first and the pending deletion second, because a request that removes the record has scheduled
/// the deletion before.
pub(crate) async fn check_pending_deletion(
    main: &Requests<'_>,
    local: &Requests<'_>,
    pending_deletion: &PendingDeletion,
) -> Result<DeletionCheck, StoreError> {
    if let Some(digest) = &pending_deletion.digest
        && is_recorded_location(main, digest, &pending_deletion.location).await?
    {
        return Ok(DeletionCheck::InUse);
    }
    let now = read(local, &pending_deletion.location).await?;
    Ok(if now.as_ref() == Some(pending_deletion) {
        DeletionCheck::Due
    } else {
        DeletionCheck::Changed
    })
}

/// Removes items whose time is as it was read.
pub(crate) async fn remove_pending_deletions(
    requests: &Requests<'_>,
    pending_deletions: &[PendingDeletion],
) -> Result<(), StoreError> {
    for some in pending_deletions.chunks(AT_ONCE) {
        let removals = some.iter().map(|pending_deletion| async {
            let remove = Write::Delete {
                key: keys::pending_deletion(&pending_deletion.location),
                condition: WriteCondition::Is(attributes::AT, Value::N(pending_deletion.at.0)),
            };
            requests.write(&remove).await
        });
        try_join_all(removals).await?;
    }
    Ok(())
}
