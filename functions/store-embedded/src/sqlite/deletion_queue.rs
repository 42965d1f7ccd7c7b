//! The deletion queue: objects that are deleted later.

use registry::store::collection::{DeletionCheck, PendingDeletion};
use registry::store::{Cursor, Location, Slice, StoreError, Timestamp};
use rusqlite::params;

use super::rows::{OperationFailure, Rows};
use super::values::{Columns, timestamp};

/// A page of pending deletions, in the order in which they were scheduled.
pub(super) const PENDING_DELETIONS: &str = "SELECT at, store, key, digest, unfinished FROM graveyard \
    WHERE at < ?1 AND (at, store, key) > (?2, ?3, ?4) ORDER BY at, store, key LIMIT ?5";

/// Schedules the deletion of an object. An object has at most one pending deletion: see [`PendingDeletion::joined`].
pub(super) fn schedule_deletion(
    rows: &Rows<'_>,
    at: Timestamp,
    location: &Location,
    digest: Option<&str>,
    unfinished: bool,
) -> Result<(), OperationFailure> {
    rows.change(
        "INSERT INTO graveyard (at, store, key, digest, unfinished) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (store, key) DO UPDATE SET at = max(at, excluded.at), \
         digest = iif(at <= excluded.at, coalesce(excluded.digest, digest), coalesce(digest, excluded.digest)), \
         unfinished = max(unfinished, excluded.unfinished)",
        params![timestamp(at), location.store, location.key, digest, unfinished],
    )?;
    Ok(())
}

/// The pending deletion after which a walk continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeletionPosition {
    at: i64,
    location: Location,
}

impl DeletionPosition {
    /// The position before all pending deletions.
    pub(super) fn first() -> Self {
        Self {
            at: -1,
            location: Location {
                store: String::new(),
                key: String::new(),
            },
        }
    }

    pub(super) fn parse(cursor: &Cursor) -> Result<Self, StoreError> {
        let unreadable = || StoreError::failed("not a cursor of this store");
        // A key contains no spaces.
        let mut parts = cursor.0.splitn(3, ' ');
        let mut part = || parts.next().ok_or_else(unreadable);
        let (at, key, store) = (part()?, part()?, part()?);
        Ok(Self {
            at: at.parse().map_err(|_| unreadable())?,
            location: Location {
                store: store.to_owned(),
                key: key.to_owned(),
            },
        })
    }

    fn after(pending_deletion: &PendingDeletion) -> Cursor {
        let Location { store, key } = &pending_deletion.location;
        Cursor(format!("{} {key} {store}", timestamp(pending_deletion.at)))
    }
}

pub(super) fn pending_deletions(
    rows: &Rows<'_>,
    before: Timestamp,
    after: &DeletionPosition,
    limit: usize,
) -> Result<Slice<PendingDeletion>, OperationFailure> {
    let DeletionPosition { at, location } = after;
    let row_limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let items = rows.all(
        PENDING_DELETIONS,
        params![timestamp(before), at, location.store, location.key, row_limit],
        |row| {
            Ok(PendingDeletion {
                at: row.timestamp(0)?,
                location: row.location(1, 2)?,
                digest: row.parsed_if_any(3)?,
                unfinished: row.value(4)?,
            })
        },
    )?;
    // All of these are due. A deletion that is scheduled meanwhile is not due yet.
    let last = items.last().filter(|_| items.len() >= limit);
    let next = last.map(DeletionPosition::after);
    Ok(Slice { items, next })
}

/// Whether a location is the recorded location of a digest's bytes.
fn is_recorded_location(rows: &Rows<'_>, digest: &str, location: &Location) -> Result<bool, OperationFailure> {
    rows.exists(
        "SELECT 1 FROM blob WHERE digest = ?1 AND store = ?2 AND key = ?3",
        params![digest, location.store, location.key],
    )
}

/// Checks the digest's location first and the pending deletion second, because the two statements may see two states of
/// the file.
pub(super) fn check_pending_deletion(
    rows: &Rows<'_>,
    pending_deletion: &PendingDeletion,
) -> Result<DeletionCheck, OperationFailure> {
    let digest = pending_deletion.digest.as_ref().map(ToString::to_string);
    if let Some(digest) = &digest
        && is_recorded_location(rows, digest, &pending_deletion.location)?
    {
        return Ok(DeletionCheck::InUse);
    }
    let Location { store, key } = &pending_deletion.location;
    let unchanged = rows.exists(
        "SELECT 1 FROM graveyard WHERE store = ?1 AND key = ?2 AND at = ?3 AND digest IS ?4 AND unfinished = ?5",
        params![
            store,
            key,
            timestamp(pending_deletion.at),
            digest,
            pending_deletion.unfinished
        ],
    )?;
    Ok(if unchanged {
        DeletionCheck::Due
    } else {
        DeletionCheck::Changed
    })
}

/// Removes a pending deletion, unless the object was scheduled again since.
pub(super) fn remove(rows: &Rows<'_>, pending_deletion: &PendingDeletion) -> Result<(), OperationFailure> {
    rows.change(
        "DELETE FROM graveyard WHERE at = ?1 AND store = ?2 AND key = ?3",
        params![
            timestamp(pending_deletion.at),
            pending_deletion.location.store,
            pending_deletion.location.key
        ],
    )?;
    Ok(())
}
