//! The graveyard: one item for each object that lost its name, whenever and however often it did.
//!
//! A write never makes a grave older, and a grave is forgotten only as it was seen, so that an object waits from the
//! last time that it lost its name. Burials are conditional on what they have read, and removals on the time: whichever
//! comes first, the other notices.

#[cfg(test)]
mod tests;

use futures_util::future::try_join_all;
use oci::Digest;
use registry::store::collection::{PendingDeletion, Standing};
use registry::store::{Cursor, Location, Slice, StoreError, Timestamp};

use crate::keys::{self, SHARDS};
use crate::mutation::{Mutation, active};
use crate::records::{BlobRow, PendingDeletionRow, attributes};
use crate::retrying::Requests;
use crate::table::{Consistency, RangeQuery, Value, Write, WriteCondition};

/// How many graves are read in one page. They lie in the order of their objects, so that those which are due are among
/// others; small enough that reading some of a page again, behind the last that was asked for, costs little.
const PAGE: usize = 500;

/// How many pages one call reads at most: so many are read in a second or two, far within the time of a call. More than
/// there are shards, so that a small graveyard is one call.
const PAGES: usize = 32;
const _: () = assert!(PAGES > SHARDS as usize);

/// How many graves are dug or removed at once: an upload may leave 100,000, and each is a request of its own.
const AT_ONCE: usize = 64;

/// Buries an object; one that is buried already keeps its one grave (see [`PendingDeletion::joined`]).
pub(crate) async fn schedule_deletion(
    requests: &Requests<'_>,
    pending_deletion: &PendingDeletion,
) -> Result<(), StoreError> {
    let mut written = pending_deletion.clone();
    let mut condition = WriteCondition::Absent;
    let mut round = 0;
    loop {
        let write = PendingDeletionRow::becomes(&written, condition);
        if requests.write(&write).await?.is_done() || active(Mutation::KeepFirstSchedule) {
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
        // Also if a try of this that was not answered has done it.
        if existing.as_ref() == Some(&written) {
            return Ok(());
        }
        condition = existing.as_ref().map_or(WriteCondition::Absent, as_read);
    }
}

/// Buries some objects, of which not all need to be known at once; how many.
pub(super) async fn schedule_deletions(
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

/// Where a walk over the graves goes on.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct QueuePosition {
    shard: u8,
    /// Behind this sort key; `None`: at the beginning of the shard.
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

    /// `None`: nothing follows.
    fn cursor(&self) -> Option<Cursor> {
        let after = self.after.as_deref().unwrap_or_default();
        (self.shard < SHARDS).then(|| Cursor(format!("{} {after}", self.shard)))
    }
}

/// Some of the graves that were dug for the last time before `before`. See [`CollectionStore::pending_deletions`].
///
/// [`CollectionStore::pending_deletions`]: registry::store::collection::CollectionStore::pending_deletions
pub(super) async fn slice(
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
            if pending_deletion.at >= before && !active(Mutation::PendingDeletionsAtOnce) {
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

/// Whether the bytes of a digest lie at a position.
async fn is_named(main: &Requests<'_>, digest: &Digest, location: &Location) -> Result<bool, StoreError> {
    let item = main.get(&keys::blob(digest)).await?;
    let row = item.as_ref().map(BlobRow::read).transpose()?;
    Ok(row.is_some_and(|row| row.location == *location))
}

/// The name first, the grave afterwards: whoever removes the name has dug the grave before.
pub(super) async fn standing(
    main: &Requests<'_>,
    local: &Requests<'_>,
    pending_deletion: &PendingDeletion,
) -> Result<Standing, StoreError> {
    let too_early = if active(Mutation::DeletionBeforeRecord) {
        Some(read(local, &pending_deletion.location).await?)
    } else {
        None
    };
    if let Some(digest) = &pending_deletion.digest
        && is_named(main, digest, &pending_deletion.location).await?
    {
        return Ok(Standing::Named);
    }
    let now = match too_early {
        Some(seen) => seen,
        None => read(local, &pending_deletion.location).await?,
    };
    Ok(if now.as_ref() == Some(pending_deletion) {
        Standing::Due
    } else {
        Standing::Changed
    })
}

/// Removes graves that are as old as they were when they were seen.
pub(super) async fn forget(requests: &Requests<'_>, pending_deletions: &[PendingDeletion]) -> Result<(), StoreError> {
    for some in pending_deletions.chunks(AT_ONCE) {
        let removals = some.iter().map(|pending_deletion| async {
            let remove = Write::Delete {
                key: keys::pending_deletion(&pending_deletion.location),
                condition: if active(Mutation::ForgetBlindly) {
                    WriteCondition::Always
                } else {
                    WriteCondition::Is(attributes::AT, Value::N(pending_deletion.at.0))
                },
            };
            requests.write(&remove).await
        });
        try_join_all(removals).await?;
    }
    Ok(())
}
